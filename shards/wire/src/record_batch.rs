//! Record batches of format 2 (KIP-98): the header as a view, the checks of a produce, stamps, and the walk from batch
//! to batch. Records themselves: `records.rs`.

use crate::compression::Codec;
use crate::crc::crc32c;
use crate::error_code::ErrorCode;

/// Length of a batch's header; its records begin here.
pub const HEADER_BYTES: usize = 61;
/// Bytes in front of what `batch_length` counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where what the CRC covers begins: partition leader epoch and base offset lie before it.
const CRC_FROM: usize = 21;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
pub(crate) const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// The base timestamp is the time from which tombstones of the batch may go (KIP-534).
pub(crate) const DELETE_HORIZON: i16 = 0x40;

/// The fixed part of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchInfo {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Length of the whole batch, bytes.
    pub size_bytes: usize,
    /// Leader epoch it was appended under.
    pub partition_leader_epoch: i32,
    /// Attribute bits.
    pub attributes: i16,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, milliseconds.
    pub base_timestamp: i64,
    /// Largest timestamp, milliseconds.
    pub max_timestamp: i64,
    /// Producer id; -1 = not idempotent.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Number of records.
    pub records_count: i32,
}

impl BatchInfo {
    /// The codec; none if the bits name no codec.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_attributes(self.attributes & CODEC_MASK)
    }
    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }
    /// A transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }
    /// Stamped by the broker: every record has the batch's largest timestamp.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }
    /// Time from which records without value may be compacted away, milliseconds (KIP-534); none before compaction has met
    /// one.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }
    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }
}

/// What is wrong with a batch.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// The bytes end within the batch.
    #[error("the record batch is cut short: {0} bytes")]
    Truncated(usize),
    /// A format before 2.
    #[error("message format {0} is not served; clients of Kafka 0.11 and later use format 2")]
    Magic(i8),
    /// The checksum does not fit.
    #[error("the record batch is corrupt: CRC {stored:#010x} stored, {computed:#010x} computed")]
    Crc {
        /// In the batch.
        stored: u32,
        /// Of the batch.
        computed: u32,
    },
    /// Fields that contradict each other or the protocol.
    #[error("{0}")]
    Invalid(&'static str),
    /// The records cannot be read.
    #[error("the records of the batch cannot be read: {0}")]
    Records(String),
}

impl BatchError {
    /// What the client is told.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            BatchError::Truncated(_) | BatchError::Crc { .. } | BatchError::Records(_) => {
                ErrorCode::CorruptMessage
            }
            BatchError::Magic(_) => ErrorCode::UnsupportedForMessageFormat,
            BatchError::Invalid(_) => ErrorCode::InvalidRecord,
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

/// Reads the header at the front of `bytes`; none if they are too few or are not a batch of format 2. The batch may
/// reach beyond `bytes`. Does not check the CRC.
pub fn peek(bytes: &[u8]) -> Option<BatchInfo> {
    if bytes.len() < HEADER_BYTES || bytes[16] != 2 {
        return None;
    }
    let length = i32::from_be_bytes(field(bytes, 8));
    let size_bytes = usize::try_from(length).ok()?.checked_add(LENGTH_PREFIX_BYTES)?;
    (size_bytes >= HEADER_BYTES).then(|| BatchInfo {
        base_offset: i64::from_be_bytes(field(bytes, 0)),
        size_bytes,
        partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
        attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
        last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
        base_timestamp: i64::from_be_bytes(field(bytes, 27)),
        max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
        producer_id: i64::from_be_bytes(field(bytes, 43)),
        producer_epoch: i16::from_be_bytes(field(bytes, 51)),
        base_sequence: i32::from_be_bytes(field(bytes, 53)),
        records_count: i32::from_be_bytes(field(bytes, 57)),
    })
}

/// Whether the checksum of the whole batch at the front of `bytes` fits; false if it is not whole.
pub fn crc_matches(bytes: &[u8]) -> bool {
    peek(bytes).is_some_and(|info| {
        info.size_bytes <= bytes.len()
            && u32::from_be_bytes(field(bytes, 17)) == crc32c(&bytes[CRC_FROM..info.size_bytes])
    })
}

/// The checks of a produce: `bytes` are one whole batch of format 2 with a right CRC and sound fields. Records are not
/// looked into. Exactly one batch per partition is allowed (Kafka's LogValidator, Produce v3).
pub fn validate_produce_batch(bytes: &[u8]) -> Result<BatchInfo, BatchError> {
    if bytes.len() > 16 && bytes[16] != 2 {
        return Err(BatchError::Magic(bytes[16] as i8));
    }
    let info = peek(bytes).ok_or(BatchError::Truncated(bytes.len()))?;
    if info.size_bytes > bytes.len() {
        return Err(BatchError::Truncated(bytes.len()));
    }
    if info.size_bytes < bytes.len() {
        return Err(BatchError::Invalid(
            "a produce request must hold exactly one record batch per partition",
        ));
    }
    let (stored, computed) = (u32::from_be_bytes(field(bytes, 17)), crc32c(&bytes[CRC_FROM..]));
    if stored != computed {
        return Err(BatchError::Crc { stored, computed });
    }
    check_fields(&info)?;
    Ok(info)
}

fn check_fields(info: &BatchInfo) -> Result<(), BatchError> {
    if info.records_count <= 0 {
        return Err(BatchError::Invalid("the record batch has no records"));
    }
    if info.last_offset_delta != info.records_count - 1 {
        return Err(BatchError::Invalid("the last offset delta does not fit the number of records"));
    }
    if info.is_control() {
        return Err(BatchError::Invalid("clients must not write control batches"));
    }
    if info.is_log_append_time() {
        return Err(BatchError::Invalid("clients must not stamp the append time"));
    }
    if info.codec().is_none() {
        return Err(BatchError::Invalid("the codec is unknown"));
    }
    let records_bytes = info.size_bytes - HEADER_BYTES;
    if info.codec() == Some(Codec::None) && (info.records_count as usize) > records_bytes / 7 {
        return Err(BatchError::Invalid("the batch is too short for its number of records"));
    }
    if info.producer_id >= 0 && (info.producer_epoch < 0 || info.base_sequence < 0) {
        return Err(BatchError::Invalid("an idempotent batch has a negative epoch or sequence"));
    }
    if info.is_transactional() && info.producer_id < 0 {
        return Err(BatchError::Invalid("a transactional batch has no producer id"));
    }
    Ok(())
}

/// Writes base offset and leader epoch into the batch at the front of `bytes`; both lie outside the CRC.
pub fn stamp(bytes: &mut [u8], base_offset: i64, leader_epoch: i32) {
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Makes `now_ms` the time of every record of the batch at the front of `bytes` (message.timestamp.type=LogAppendTime)
/// and recomputes the CRC.
pub fn stamp_log_append_time(bytes: &mut [u8], now_ms: i64) {
    let Some(info) = peek(bytes) else { return };
    let end = info.size_bytes.min(bytes.len());
    let attributes = info.attributes | LOG_APPEND_TIME;
    bytes[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    bytes[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now_ms.to_be_bytes());
    let crc = crc32c(&bytes[CRC_FROM..end]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Walks the batches of a stretch of log; stops at the first that is not whole or not a batch.
pub struct BatchIter<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BatchIter<'a> {
    /// Over `bytes`, which begin with a batch.
    pub fn new(bytes: &'a [u8]) -> BatchIter<'a> {
        BatchIter { bytes, position: 0 }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = (BatchInfo, &'a [u8]);

    fn next(&mut self) -> Option<(BatchInfo, &'a [u8])> {
        let rest = &self.bytes[self.position..];
        let info = peek(rest)?;
        let batch = rest.get(..info.size_bytes)?;
        self.position += info.size_bytes;
        Some((info, batch))
    }
}
