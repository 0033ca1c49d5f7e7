//! A batch with another codec (Kafka's `compression.type`): its records keep their bytes, its header all but the codec and the
//! largest timestamp, which is that of the records from now on (Kafka's LogValidator).

use crate::compact::{Header, assemble, take_record};
use crate::compression::{self, Codec};
use crate::primitives::Reader;
use crate::record_batch::{BatchError, CODEC_MASK};
use crate::records::Records;

/// The batch at the front of `batch`, compressed with `codec` at `level`. At most `cap_bytes` may come out of its compression.
///
/// # Errors
/// [`BatchError`] if the records cannot be read, are not as many as the header says, do not have consecutive offsets, or if more than
/// `cap_bytes` come out.
pub fn recompress(batch: &[u8], codec: Codec, level: i32, cap_bytes: usize) -> Result<Vec<u8>, BatchError> {
    let records = Records::of(batch, cap_bytes)?;
    let info = *records.info();
    let (mut reader, mut max_timestamp_ms) = (Reader::new(records.bytes(), 0), i64::MIN);
    for (index, record) in records.iter().enumerate() {
        let record = record?;
        take_record(&mut reader).map_err(|error| BatchError::Records(error.to_string()))?;
        if record.offset != info.base_offset.wrapping_add(index as i64) {
            return Err(BatchError::Invalid("the offsets of its records do not follow each other"));
        }
        max_timestamp_ms = max_timestamp_ms.max(record.timestamp_ms);
    }
    if reader.remaining() > 0 {
        return Err(BatchError::Invalid("there are more records than its header says"));
    }
    let packed = compression::compress_at(codec, level, records.bytes())
        .map_err(|error| BatchError::Records(error.to_string()))?;
    let attributes = (info.attributes & !CODEC_MASK) | codec.attributes();
    Ok(assemble(batch, &Header { attributes, max_timestamp_ms, ..Header::of(&info) }, &packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{BatchInfo, peek, validate_produce_batch};
    use crate::records::BatchBuilder;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    const CAP: usize = 1 << 20;

    fn sample(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).producer(7, 1, 40);
        builder.add(1000, Some(b"a"), Some(b"1"), &[("h", Some(b"x")), ("h", None)]);
        builder.add(900, None, None, &[]);
        builder.add(3000, Some(b"c"), Some(&[9; 300]), &[]);
        builder.build().unwrap()
    }

    #[test]
    fn from_every_codec_to_every_codec_all_but_the_codec_stays() {
        for (from, to) in ALL.into_iter().flat_map(|from| ALL.map(|to| (from, to))) {
            let original = sample(from);
            let bytes = recompress(&original, to, to.default_level(), CAP).unwrap();
            let (before, after) = (peek(&original).unwrap(), validate_produce_batch(&bytes).unwrap());
            assert_eq!(after.codec(), Some(to));
            let same = BatchInfo { size_bytes: after.size_bytes, attributes: after.attributes, ..before };
            assert_eq!(after, same);
            let (old, new) = (Records::of(&original, CAP).unwrap(), Records::of(&bytes, CAP).unwrap());
            assert_eq!(old.bytes(), new.bytes());
        }
    }

    #[test]
    fn a_lying_header_is_refused_or_corrected() {
        let info = peek(&sample(Codec::None)).unwrap();
        let with = |change: &dyn Fn(&mut Header), packed: &[u8]| {
            let mut header = Header::of(&info);
            change(&mut header);
            let bytes = assemble(&sample(Codec::None), &header, packed);
            recompress(&bytes, Codec::Lz4, 0, CAP)
        };
        let records = Records::of(&sample(Codec::None), CAP).unwrap();
        assert!(with(&|_| (), records.bytes()).is_ok());
        assert!(with(&|header| header.count = 2, records.bytes()).is_err());
        assert!(with(&|header| header.count = 4, records.bytes()).is_err());
        assert!(with(&|_| (), &records.bytes()[..20]).is_err());
        // The second record first.
        let (first, second) = (records.bytes()[0] as usize / 2 + 1, records.bytes());
        let swapped = [&second[first..], &second[..first]].concat();
        assert!(with(&|_| (), &swapped).is_err());
        let corrected = with(&|header| header.max_timestamp_ms = 9, records.bytes()).unwrap();
        assert_eq!(peek(&corrected).unwrap().max_timestamp, 3000);
    }

    #[test]
    fn what_comes_out_is_capped() {
        assert!(recompress(&sample(Codec::Gzip), Codec::Zstd, 3, 100).is_err());
    }
}
