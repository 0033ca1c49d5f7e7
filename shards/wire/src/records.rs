//! The records inside a batch: read one by one, found by time, and put together for clients of ours (command line,
//! simulator, tests). The broker's hot paths never come here.

use crate::WireError;
use crate::compression::{self, Codec};
use crate::crc::crc32c;
use crate::primitives::{Reader, Writer};
use crate::record_batch::{self, BatchError, HEADER_BYTES};

/// One header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader<'a> {
    /// Key.
    pub key: &'a str,
    /// Value.
    pub value: Option<&'a [u8]>,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Offset.
    pub offset: i64,
    /// Timestamp, milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<RecordHeader<'a>>,
}

/// The records of one batch, taken out of their compression.
pub struct Records {
    info: record_batch::BatchInfo,
    bytes: Vec<u8>,
}

impl Records {
    /// Takes apart the batch at the front of `batch`; at most `cap_bytes` may come out of its compression.
    pub fn of(batch: &[u8], cap_bytes: usize) -> Result<Records, BatchError> {
        let info = record_batch::peek(batch).ok_or(BatchError::Truncated(batch.len()))?;
        let packed = batch.get(HEADER_BYTES..info.size_bytes).ok_or(BatchError::Truncated(batch.len()))?;
        let codec = info.codec().ok_or(BatchError::Invalid("the codec is unknown"))?;
        let bytes = compression::decompress(codec, packed, cap_bytes)
            .map_err(|error| BatchError::Records(error.to_string()))?;
        Ok(Records { info, bytes })
    }

    /// The batch's header.
    pub fn info(&self) -> &record_batch::BatchInfo {
        &self.info
    }

    /// The records as bytes, out of their compression.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records in order; an error ends them.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record<'_>, BatchError>> {
        let mut reader = Reader::new(&self.bytes, 0);
        let mut left = self.info.records_count.max(0);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            left -= 1;
            let record = read_record(&mut reader, &self.info);
            if record.is_err() {
                left = 0;
            }
            Some(record.map_err(|error| BatchError::Records(error.to_string())))
        })
    }
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, WireError> {
    match reader.varint()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| WireError::NegativeLength)?;
            reader.take(length).map(Some)
        }
    }
}

fn read_record<'a>(reader: &mut Reader<'a>, info: &record_batch::BatchInfo) -> Result<Record<'a>, WireError> {
    let length = usize::try_from(reader.varint()?).map_err(|_| WireError::NegativeLength)?;
    let mut reader = Reader::new(reader.take(length)?, 0);
    reader.i8()?; // attributes, unused
    let timestamp_delta = reader.varlong()?;
    let offset_delta = reader.varint()?;
    let (key, value) = (read_bytes(&mut reader)?, read_bytes(&mut reader)?);
    let count = usize::try_from(reader.varint()?).map_err(|_| WireError::NegativeLength)?;
    if count > reader.remaining() / 2 {
        return Err(WireError::Truncated);
    }
    let mut headers = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let key = read_bytes(&mut reader)?.ok_or(WireError::Null)?;
        let key = std::str::from_utf8(key).map_err(|_| WireError::NotUtf8)?;
        headers.push(RecordHeader { key, value: read_bytes(&mut reader)? });
    }
    if reader.remaining() > 0 {
        return Err(WireError::Trailing(reader.remaining()));
    }
    let timestamp_ms = if info.is_log_append_time() {
        info.max_timestamp
    } else {
        info.base_timestamp.wrapping_add(timestamp_delta)
    };
    let offset = info.base_offset.wrapping_add(i64::from(offset_delta));
    Ok(Record { offset, timestamp_ms, key, value, headers })
}

/// The first record of a batch that is not older than `timestamp_ms`: offset and timestamp.
pub fn find_first_at_or_after(
    batch: &[u8],
    timestamp_ms: i64,
    cap_bytes: usize,
) -> Result<Option<(i64, i64)>, BatchError> {
    find(batch, cap_bytes, |record| record.timestamp_ms >= timestamp_ms)
}

/// The first record of a batch that has its largest timestamp: offset and timestamp.
pub fn find_max_timestamp(batch: &[u8], cap_bytes: usize) -> Result<Option<(i64, i64)>, BatchError> {
    let records = Records::of(batch, cap_bytes)?;
    let mut best: Option<(i64, i64)> = None;
    for record in records.iter() {
        let record = record?;
        if best.is_none_or(|(_, timestamp_ms)| record.timestamp_ms > timestamp_ms) {
            best = Some((record.offset, record.timestamp_ms));
        }
    }
    Ok(best)
}

/// The smallest timestamp of a batch.
pub fn min_timestamp(batch: &[u8], cap_bytes: usize) -> Result<i64, BatchError> {
    let records = Records::of(batch, cap_bytes)?;
    let mut least = i64::MAX;
    for record in records.iter() {
        least = least.min(record?.timestamp_ms);
    }
    Ok(least)
}

fn find(
    batch: &[u8],
    cap_bytes: usize,
    wanted: impl Fn(&Record<'_>) -> bool,
) -> Result<Option<(i64, i64)>, BatchError> {
    let records = Records::of(batch, cap_bytes)?;
    for record in records.iter() {
        let record = record?;
        if wanted(&record) {
            return Ok(Some((record.offset, record.timestamp_ms)));
        }
    }
    Ok(None)
}

/// Puts a batch together.
pub struct BatchBuilder {
    records: Writer,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    codec: Codec,
    producer: (i64, i16, i32),
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            records: Writer::new(true, 256),
            count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
            codec,
            producer: (-1, -1, -1),
        }
    }

    /// Of an idempotent producer.
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.producer = (producer_id, producer_epoch, base_sequence);
        self
    }

    /// Adds a record.
    pub fn add(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let mut record = Writer::new(true, 64);
        record.i8(0);
        write_varlong(&mut record, timestamp_ms - self.base_timestamp_ms);
        write_varlong(&mut record, i64::from(self.count));
        write_bytes(&mut record, key);
        write_bytes(&mut record, value);
        write_varlong(&mut record, headers.len() as i64);
        for (key, value) in headers {
            write_bytes(&mut record, Some(key.as_bytes()));
            write_bytes(&mut record, *value);
        }
        write_varlong(&mut self.records, record.bytes.len() as i64);
        self.records.bytes.extend_from_slice(&record.bytes);
        self.count += 1;
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True while there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the records before compression.
    pub fn size_bytes(&self) -> usize {
        self.records.bytes.len()
    }

    /// The batch.
    pub fn build(self) -> Result<Vec<u8>, compression::CompressionError> {
        let packed = compression::compress(self.codec, &self.records.bytes)?;
        let mut writer = Writer::new(false, HEADER_BYTES + packed.len());
        writer.i64(0);
        writer.i32((HEADER_BYTES - record_batch::LENGTH_PREFIX_BYTES + packed.len()) as i32);
        writer.i32(-1);
        writer.i8(2);
        writer.i32(0);
        writer.i16(self.codec.attributes());
        writer.i32(self.count - 1);
        writer.i64(self.base_timestamp_ms);
        writer.i64(self.max_timestamp_ms);
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        writer.i64(producer_id);
        writer.i16(producer_epoch);
        writer.i32(base_sequence);
        writer.i32(self.count);
        let mut bytes = writer.bytes;
        bytes.extend_from_slice(&packed);
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Ok(bytes)
    }
}

fn write_varlong(writer: &mut Writer, value: i64) {
    put_varlong(&mut writer.bytes, value);
}

/// Appends a variable-length number.
pub(crate) fn put_varlong(bytes: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn write_bytes(writer: &mut Writer, value: Option<&[u8]>) {
    match value {
        None => write_varlong(writer, -1),
        Some(bytes) => {
            write_varlong(writer, bytes.len() as i64);
            writer.bytes.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{stamp, stamp_log_append_time, validate_produce_batch};

    fn batch(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).producer(7, 1, 40);
        builder.add(1000, Some(b"k"), Some(b"v"), &[("h", Some(b"1")), ("h", None)]);
        builder.add(990, None, None, &[]);
        builder.add(1010, Some(b""), Some(&[9; 300]), &[]);
        builder.build().unwrap()
    }

    #[test]
    fn what_the_builder_writes_is_what_the_reader_reads() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut bytes = batch(codec);
            stamp(&mut bytes, 50, 3);
            let info = validate_produce_batch(&bytes).unwrap();
            assert_eq!((info.base_offset, info.last_offset(), info.partition_leader_epoch), (50, 52, 3));
            assert_eq!((info.producer_id, info.producer_epoch, info.base_sequence), (7, 1, 40));
            let records = Records::of(&bytes, 1 << 20).unwrap();
            let all: Vec<Record<'_>> = records.iter().map(Result::unwrap).collect();
            assert_eq!((all[1].offset, all[1].timestamp_ms, all[1].key, all[1].value), (51, 990, None, None));
            assert_eq!(all[0].headers[1], RecordHeader { key: "h", value: None });
            assert_eq!(find_first_at_or_after(&bytes, 1001, 1 << 20).unwrap(), Some((52, 1010)));
            assert_eq!(find_max_timestamp(&bytes, 1 << 20).unwrap(), Some((52, 1010)));
            assert_eq!(min_timestamp(&bytes, 1 << 20).unwrap(), 990);
        }
    }

    #[test]
    fn append_time_is_stamped_and_the_crc_follows() {
        let mut bytes = batch(Codec::None);
        stamp_log_append_time(&mut bytes, 5000);
        assert!(crate::record_batch::crc_matches(&bytes));
        let records = Records::of(&bytes, 1 << 20).unwrap();
        assert!(records.iter().all(|record| record.unwrap().timestamp_ms == 5000));
    }

    #[test]
    fn every_flipped_byte_is_refused_or_outside_the_crc() {
        let good = batch(Codec::None);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            let refused = validate_produce_batch(&bytes).is_err();
            assert_eq!(refused, !(at < 8 || (12..16).contains(&at)), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(validate_produce_batch(&good[..length]).is_err());
        }
    }
}
