//! What compaction makes of a batch: the same batch with fewer records. Offsets, sequence numbers, producer and codec stay,
//! and the records that stay keep their bytes (Kafka's MemoryRecords.filterTo). Which records stay is the caller's to say.

use crate::WireError;
use crate::compression;
use crate::crc::crc32c;
use crate::primitives::Reader;
use crate::record_batch::{self, BatchError, BatchInfo, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::records::{Record, Records, put_varlong};

/// What is left of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remains {
    /// All of it, byte by byte.
    Same,
    /// No record.
    Nothing,
    /// Another batch in its place.
    Batch(Vec<u8>),
}

/// The batch at the front of `batch` with the records that `keep` wants. If one without value is among them and the batch
/// does not say yet when such may go, it says `delete_horizon_ms` from now on (KIP-534). At most `cap_bytes` may come out of
/// its compression.
///
/// # Errors
/// [`BatchError`] if the records cannot be read, or more than `cap_bytes` come out.
pub fn retain(
    batch: &[u8],
    cap_bytes: usize,
    delete_horizon_ms: i64,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<Remains, BatchError> {
    let records = Records::of(batch, cap_bytes)?;
    let info = *records.info();
    let mut kept: Vec<&[u8]> = Vec::new();
    let (mut dropped, mut tombstone, mut max_timestamp_ms) = (false, false, i64::MIN);
    let mut reader = Reader::new(records.bytes(), 0);
    for record in records.iter() {
        let record = record?;
        let raw = take_record(&mut reader).map_err(|error| BatchError::Records(error.to_string()))?;
        if keep(&record) {
            kept.push(raw);
            tombstone |= record.value.is_none();
            max_timestamp_ms = max_timestamp_ms.max(record.timestamp_ms);
        } else {
            dropped = true;
        }
    }
    let set_horizon = tombstone && info.delete_horizon_ms().is_none();
    if kept.is_empty() {
        return Ok(Remains::Nothing);
    }
    if !dropped && !set_horizon {
        return Ok(Remains::Same);
    }
    let mut header = Header { max_timestamp_ms, count: kept.len() as i32, ..Header::of(&info) };
    let mut bytes = Vec::with_capacity(records.bytes().len());
    if set_horizon {
        // The horizon takes the place of the base timestamp, which the records' times are relative to.
        let shift_ms = info.base_timestamp.wrapping_sub(delete_horizon_ms);
        header.base_timestamp_ms = delete_horizon_ms;
        header.attributes |= record_batch::DELETE_HORIZON;
        for raw in kept {
            rebase(raw, shift_ms, &mut bytes).map_err(|error| BatchError::Records(error.to_string()))?;
        }
    } else {
        for raw in kept {
            put_varlong(&mut bytes, raw.len() as i64);
            bytes.extend_from_slice(raw);
        }
    }
    let codec = info.codec().ok_or(BatchError::Invalid("the codec is unknown"))?;
    let packed =
        compression::compress(codec, &bytes).map_err(|error| BatchError::Records(error.to_string()))?;
    Ok(Remains::Batch(assemble(batch, &header, &packed)))
}

/// The batch at the front of `batch` without records: what remains of its producer's last sequence number, and of the last
/// offset (Kafka's DefaultRecordBatch.writeEmptyHeader).
///
/// # Errors
/// [`BatchError::Truncated`] if there is no header.
pub fn emptied(batch: &[u8]) -> Result<Vec<u8>, BatchError> {
    let info = record_batch::peek(batch).ok_or(BatchError::Truncated(batch.len()))?;
    let attributes = info.attributes & !(record_batch::CODEC_MASK | record_batch::DELETE_HORIZON);
    let header = Header { attributes, base_timestamp_ms: -1, count: 0, ..Header::of(&info) };
    Ok(assemble(batch, &header, &[]))
}

/// What of a batch's header may change.
pub(crate) struct Header {
    pub attributes: i16,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub count: i32,
}

impl Header {
    /// As it is.
    pub fn of(info: &BatchInfo) -> Header {
        Header {
            attributes: info.attributes,
            base_timestamp_ms: info.base_timestamp,
            max_timestamp_ms: info.max_timestamp,
            count: info.records_count,
        }
    }
}

/// The batch with this header around `packed`; its CRC follows.
pub(crate) fn assemble(original: &[u8], header: &Header, packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + packed.len());
    bytes.extend_from_slice(&original[..HEADER_BYTES]);
    bytes.extend_from_slice(packed);
    let length = (bytes.len() - LENGTH_PREFIX_BYTES) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[21..23].copy_from_slice(&header.attributes.to_be_bytes());
    bytes[27..35].copy_from_slice(&header.base_timestamp_ms.to_be_bytes());
    bytes[35..43].copy_from_slice(&header.max_timestamp_ms.to_be_bytes());
    bytes[57..61].copy_from_slice(&header.count.to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// A record's bytes behind its length.
pub(crate) fn take_record<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let length = usize::try_from(reader.varint()?).map_err(|_| WireError::NegativeLength)?;
    reader.take(length)
}

/// Writes a record whose timestamp is now relative to a base `shift_ms` earlier.
fn rebase(raw: &[u8], shift_ms: i64, out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut reader = Reader::new(raw, 0);
    let attributes = reader.i8()?;
    let delta_ms = reader.varlong()?.wrapping_add(shift_ms);
    let rest = reader.take(reader.remaining())?;
    let mut head = vec![attributes as u8];
    put_varlong(&mut head, delta_ms);
    put_varlong(out, (head.len() + rest.len()) as i64);
    out.extend_from_slice(&head);
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Codec;
    use crate::record_batch::{crc_matches, peek, stamp, stamp_log_append_time};
    use crate::records::BatchBuilder;

    const CAP: usize = 1 << 20;

    fn sample(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).producer(7, 1, 40);
        builder.add(1000, Some(b"a"), Some(b"1"), &[("h", Some(b"x"))]);
        builder.add(900, Some(b"b"), None, &[]);
        builder.add(3000, Some(b"c"), Some(&[9; 300]), &[]);
        let mut bytes = builder.build().unwrap();
        stamp(&mut bytes, 50, 3);
        bytes
    }

    fn batch(remains: Remains) -> Vec<u8> {
        let Remains::Batch(bytes) = remains else { panic!("{remains:?}") };
        assert!(crc_matches(&bytes));
        assert_eq!(peek(&bytes).unwrap().size_bytes, bytes.len());
        bytes
    }

    fn listed(bytes: &[u8]) -> Vec<(i64, i64, Vec<u8>, Option<usize>)> {
        let records = Records::of(bytes, CAP).unwrap();
        let records = records.iter().map(Result::unwrap);
        records
            .map(|r| (r.offset, r.timestamp_ms, r.key.unwrap().to_vec(), r.value.map(<[u8]>::len)))
            .collect()
    }

    #[test]
    fn records_go_and_all_else_stays() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let original = sample(codec);
            let bytes =
                batch(retain(&original, CAP, 0, |r| r.key != Some(b"b") && r.key != Some(b"c")).unwrap());
            let (before, after) = (peek(&original).unwrap(), peek(&bytes).unwrap());
            assert_eq!(
                after,
                BatchInfo { records_count: 1, max_timestamp: 1000, size_bytes: after.size_bytes, ..before }
            );
            assert_eq!(after.codec(), Some(codec));
            assert_eq!(listed(&bytes), [(50, 1000, b"a".to_vec(), Some(1))]);
        }
    }

    #[test]
    fn a_tombstone_gets_its_horizon_once_and_times_stay() {
        let original = sample(Codec::Lz4);
        let bytes = batch(retain(&original, CAP, 123_456, |_| true).unwrap());
        assert_eq!(peek(&bytes).unwrap().delete_horizon_ms(), Some(123_456));
        assert_eq!(listed(&bytes), listed(&original));
        assert_eq!(peek(&bytes).unwrap().max_timestamp, 3000);
        assert_eq!(retain(&bytes, CAP, 999_999, |_| true), Ok(Remains::Same));
        let fewer = batch(retain(&bytes, CAP, 999_999, |r| r.key != Some(b"a")).unwrap());
        assert_eq!(peek(&fewer).unwrap().delete_horizon_ms(), Some(123_456));
        assert_eq!(listed(&fewer), listed(&original)[1..]);
    }

    #[test]
    fn nothing_to_do_and_nothing_left() {
        let original = sample(Codec::None);
        assert_eq!(
            retain(&original, CAP, 5, |r| r.value.is_some() || r.key.is_none()).map(|r| r == Remains::Same),
            Ok(false)
        );
        let whole = batch(retain(&original, CAP, 5, |r| r.value.is_some()).unwrap());
        assert_eq!(peek(&whole).unwrap().delete_horizon_ms(), None);
        assert_eq!(retain(&whole, CAP, 5, |_| true), Ok(Remains::Same));
        assert_eq!(retain(&original, CAP, 5, |_| false), Ok(Remains::Nothing));
        assert!(retain(&sample(Codec::Zstd), 100, 5, |_| true).is_err(), "more than the cap comes out");
    }

    #[test]
    fn an_emptied_batch_keeps_sequence_and_offsets() {
        let original = sample(Codec::Gzip);
        let bytes = emptied(&original).unwrap();
        assert!(crc_matches(&bytes));
        let (before, after) = (peek(&original).unwrap(), peek(&bytes).unwrap());
        assert_eq!((after.size_bytes, after.records_count), (HEADER_BYTES, 0));
        assert_eq!((after.base_offset, after.last_offset()), (50, 52));
        assert_eq!(
            (after.producer_id, after.producer_epoch, after.base_sequence, after.max_timestamp),
            (before.producer_id, before.producer_epoch, before.base_sequence, before.max_timestamp)
        );
        assert!(listed(&bytes).is_empty());
        assert_eq!(retain(&bytes, CAP, 5, |_| true), Ok(Remains::Nothing));
        assert!(emptied(&original[..60]).is_err());
    }

    #[test]
    fn append_times_stay() {
        let mut original = sample(Codec::None);
        stamp_log_append_time(&mut original, 5000);
        let bytes = batch(retain(&original, CAP, 77, |r| r.key != Some(b"a")).unwrap());
        assert!(listed(&bytes).iter().all(|record| record.1 == 5000));
    }
}
