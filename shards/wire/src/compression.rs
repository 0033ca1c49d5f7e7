//! The codecs of record batches. Output is capped: a few bytes from a client must not become gigabytes here.

use std::io::{Read, Write};

/// Longest history a zstd frame may ask for: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The first level whose frames would ask for more.
const ZSTD_LONG_WINDOW_LEVEL: i32 = 20;
/// The level of gzip that stands for its own default.
const GZIP_DEFAULT_LEVEL: i32 = -1;
/// First bytes of Java's snappy framing ("xerial").
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// A codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// snappy, in Java's framing or raw.
    Snappy,
    /// lz4 frames.
    Lz4,
    /// zstd (KIP-110).
    Zstd,
}

impl Codec {
    /// By the attribute bits of a batch.
    pub fn from_attributes(bits: i16) -> Option<Codec> {
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
            .get(usize::try_from(bits).ok()?)
            .copied()
    }

    /// The attribute bits.
    pub fn attributes(self) -> i16 {
        self as i16
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        ["none", "gzip", "snappy", "lz4", "zstd"][self as usize]
    }

    /// The level Kafka compresses at unless told otherwise.
    pub fn default_level(self) -> i32 {
        match self {
            Codec::Gzip => GZIP_DEFAULT_LEVEL,
            Codec::Lz4 => 9,
            Codec::Zstd => 3,
            Codec::None | Codec::Snappy => 0,
        }
    }

    /// By Kafka's name.
    pub fn from_name(name: &str) -> Option<Codec> {
        (0..5).filter_map(Codec::from_attributes).find(|codec| codec.name() == name)
    }
}

/// Why compressed bytes cannot be taken apart, or put together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompressionError {
    /// More than the cap comes out.
    #[error("more than {0} bytes come out of the compressed records")]
    TooLarge(usize),
    /// The codec's words.
    #[error("{0}")]
    Codec(String),
}

fn codec_error(error: impl std::fmt::Display) -> CompressionError {
    CompressionError::Codec(error.to_string())
}

/// Decompresses `bytes` to at most `cap_bytes`.
pub fn decompress(codec: Codec, bytes: &[u8], cap_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Codec::None if bytes.len() > cap_bytes => Err(CompressionError::TooLarge(cap_bytes)),
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => read_capped(flate2::read::MultiGzDecoder::new(bytes), cap_bytes),
        Codec::Snappy => decompress_snappy(bytes, cap_bytes),
        Codec::Lz4 => read_capped(lz4_flex::frame::FrameDecoder::new(bytes), cap_bytes),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(bytes).map_err(codec_error)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(codec_error)?;
            read_capped(decoder, cap_bytes)
        }
    }
}

/// Compresses `bytes` at the codec's default level.
pub fn compress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    compress_at(codec, codec.default_level(), bytes)
}

/// Compresses `bytes`. Levels are those of Kafka's `compression.gzip.level` and `compression.zstd.level`; snappy has none, and
/// lz4 is always the fast one.
pub fn compress_at(codec: Codec, level: i32, bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let level = match level {
                1..=9 => flate2::Compression::new(level as u32),
                _ => flate2::Compression::default(),
            };
            let mut out = Vec::new();
            flate2::read::GzEncoder::new(bytes, level).read_to_end(&mut out).map_err(codec_error)?;
            Ok(out)
        }
        Codec::Snappy => compress_snappy(bytes),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).map_err(codec_error)?;
            encoder.finish().map_err(codec_error)
        }
        Codec::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).map_err(codec_error)?;
            // A small input gets a small window, and its readers need little memory.
            encoder.set_pledged_src_size(Some(bytes.len() as u64)).map_err(codec_error)?;
            if level >= ZSTD_LONG_WINDOW_LEVEL {
                encoder.window_log(ZSTD_WINDOW_LOG_MAX).map_err(codec_error)?;
            }
            encoder.write_all(bytes).map_err(codec_error)?;
            encoder.finish().map_err(codec_error)
        }
    }
}

fn read_capped(reader: impl Read, cap_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    reader.take(cap_bytes as u64 + 1).read_to_end(&mut out).map_err(codec_error)?;
    if out.len() > cap_bytes {
        return Err(CompressionError::TooLarge(cap_bytes));
    }
    Ok(out)
}

fn decompress_snappy(bytes: &[u8], cap_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    if !bytes.starts_with(XERIAL_MAGIC) {
        return decompress_snappy_block(bytes, cap_bytes);
    }
    let mut rest =
        bytes.get(XERIAL_HEADER_BYTES..).ok_or_else(|| codec_error("the snappy header is cut short"))?;
    let mut out = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let block = behind
            .get(..u32::from_be_bytes(*length) as usize)
            .ok_or_else(|| codec_error("a snappy block is cut short"))?;
        out.extend_from_slice(&decompress_snappy_block(block, cap_bytes - out.len())?);
        rest = &behind[block.len()..];
    }
    if rest.is_empty() { Ok(out) } else { Err(codec_error("bytes follow the last snappy block")) }
}

fn decompress_snappy_block(bytes: &[u8], cap_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    // A snappy block cannot grow more than about 21 times; a header that claims more is a lie.
    let length = snap::raw::decompress_len(bytes).map_err(codec_error)?;
    if length > cap_bytes {
        return Err(CompressionError::TooLarge(cap_bytes));
    }
    if length / 64 > bytes.len() {
        return Err(codec_error("a snappy block claims an impossible length"));
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(codec_error)
}

fn compress_snappy(bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let packed = snap::raw::Encoder::new().compress_vec(block).map_err(codec_error)?;
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn every_codec_round_trips_and_is_capped() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i / 100) as u8).collect();
        for codec in ALL {
            let packed = compress(codec, &bytes).unwrap();
            assert_eq!(decompress(codec, &packed, bytes.len()).unwrap(), bytes, "{codec:?}");
            assert!(decompress(codec, &packed, bytes.len() - 1).is_err(), "{codec:?} must be capped");
        }
        let raw = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, bytes.len()).unwrap(), bytes);
    }

    #[test]
    fn every_level_round_trips_and_high_ones_pack_tighter() {
        let bytes: Vec<u8> = (0..300_000u32).flat_map(|i| (i * i % 1013).to_le_bytes()).collect();
        let packed = |codec, level| {
            let packed = compress_at(codec, level, &bytes).unwrap();
            assert_eq!(decompress(codec, &packed, bytes.len()).unwrap(), bytes, "{codec:?} {level}");
            packed.len()
        };
        assert!(packed(Codec::Gzip, 9) < packed(Codec::Gzip, 1));
        assert_eq!(packed(Codec::Gzip, -1), packed(Codec::Gzip, 6));
        assert!(packed(Codec::Zstd, 19) <= packed(Codec::Zstd, 1));
        for level in [-131_072, -5, 3, 22] {
            packed(Codec::Zstd, level);
        }
        packed(Codec::Lz4, 17);
    }

    #[test]
    fn the_tightest_level_stays_readable_with_a_window_of_8_mib() {
        let bytes = vec![3; (9 << 20) + 1];
        let packed = compress_at(Codec::Zstd, 22, &bytes).unwrap();
        assert_eq!(decompress(Codec::Zstd, &packed, bytes.len()).unwrap().len(), bytes.len());
    }

    #[test]
    fn damaged_input_is_an_error() {
        for codec in &ALL[1..] {
            assert!(decompress(*codec, &[0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9], 1 << 20).is_err(), "{codec:?}");
        }
    }
}
