//! Record batches: the checks of a produce, the walk from batch to batch, the records, and every codec with its cap.

use pelton_model::Prng;
use pelton_wire::compression::{self, Codec};
use pelton_wire::crc::crc32c;
use pelton_wire::record_batch::{self, BatchIter, HEADER_BYTES};
use pelton_wire::records::{self, Records};

use crate::mutate::mutate_some;
use crate::requests;

const CAP_BYTES: usize = 1 << 20;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Batches of every codec, alone and one behind the other, and some that unpack to much.
pub fn corpus(prng: &mut Prng) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for codec in CODECS {
        for count in [1, 2, 7, 40] {
            inputs.push(requests::batch(prng, codec, count));
        }
        let mut builder = records::BatchBuilder::new(codec);
        builder.add(5, None, Some(&vec![0; 3 * CAP_BYTES / 2]), &[]);
        let large = builder.build().expect("compressing into memory does not fail");
        if large.len() < 200_000 {
            inputs.push(large);
        }
        inputs.push([requests::batch(prng, codec, 3), requests::batch(prng, codec, 3)].concat());
    }
    inputs
}

/// Damages header or records, then mostly makes length and checksum right again, so that what lies behind is reached.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.len() <= HEADER_BYTES || prng.one_in(4) {
        mutate_some(prng, bytes, other);
    } else {
        let mut records = bytes.split_off(HEADER_BYTES);
        let other = other.get(HEADER_BYTES..).unwrap_or(other);
        mutate_some(prng, &mut records, other);
        bytes.extend_from_slice(&records);
    }
    if bytes.len() > HEADER_BYTES && !prng.one_in(4) {
        if !prng.one_in(4) {
            let length = (bytes.len() - record_batch::LENGTH_PREFIX_BYTES) as u32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        }
        if prng.one_in(6) {
            bytes[22] = (bytes[22] & !7) | prng.below(8) as u8; // another codec
        }
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Looks at it in every way there is.
pub fn run(input: &[u8]) {
    let valid = record_batch::validate_produce_batch(input);
    if let Ok(info) = &valid {
        assert!(info.size_bytes == input.len() && info.records_count > 0 && record_batch::crc_matches(input));
    }
    let mut end = 0;
    for (info, batch) in BatchIter::new(input) {
        assert!(info.size_bytes == batch.len() && batch.len() >= HEADER_BYTES);
        end += batch.len();
        look_into(batch);
    }
    assert!(end <= input.len());
    look_into(input);
    for codec in CODECS {
        let packed = input.get(HEADER_BYTES..).unwrap_or(input);
        if let Ok(out) = compression::decompress(codec, packed, CAP_BYTES) {
            assert!(out.len() <= CAP_BYTES, "{codec:?} gave {} bytes", out.len());
        }
    }
    if valid.is_ok() {
        let mut stamped = input.to_vec();
        record_batch::stamp(&mut stamped, 77, 3);
        assert!(record_batch::crc_matches(&stamped), "stamps lie outside the checksum");
        record_batch::stamp_log_append_time(&mut stamped, 99);
        assert!(record_batch::crc_matches(&stamped), "the checksum follows the time");
    }
}

fn look_into(batch: &[u8]) {
    let _ = records::find_first_at_or_after(batch, 1_700_000_000_000, CAP_BYTES);
    let _ = records::find_max_timestamp(batch, CAP_BYTES);
    let _ = records::min_timestamp(batch, CAP_BYTES);
    let Ok(records) = Records::of(batch, CAP_BYTES) else { return };
    let count = records.iter().take_while(Result::is_ok).count();
    assert!(count <= CAP_BYTES, "a record takes at least a byte");
}
