//! What can be asked of one partition and what it answers, whoever asks: a client of this shard or another shard.

use bytes::Bytes;
use pelton_log::disk::SegmentFile;
use pelton_model::{Offset, PartitionKey};
use pelton_replica::producers::ProducerReport;
use pelton_wire::error_code::ErrorCode;

/// One operation on one partition.
#[derive(Clone, Debug)]
pub enum PartitionOp {
    /// ListOffsets: a time, or one of the special times -1 … -5.
    ListOffset { key: PartitionKey, timestamp: i64, current_leader_epoch: i32 },
    /// DeleteRecords: forget records below `offset`; -1 = below the high watermark. Live replicas are waited for so long,
    /// milliseconds.
    DeleteRecords { key: PartitionKey, offset: i64, timeout_ms: i32 },
    /// OffsetForLeaderEpoch (KIP-101, KIP-320).
    EpochEnd { key: PartitionKey, leader_epoch: i32, current_leader_epoch: i32 },
    /// DescribeProducers (KIP-664), of any replica.
    Producers { key: PartitionKey },
}

impl PartitionOp {
    /// The partition.
    pub fn key(&self) -> PartitionKey {
        match self {
            PartitionOp::ListOffset { key, .. }
            | PartitionOp::DeleteRecords { key, .. }
            | PartitionOp::EpochEnd { key, .. }
            | PartitionOp::Producers { key } => *key,
        }
    }

    /// A replica that does not lead can tell, too.
    pub fn of_any_replica(&self) -> bool {
        matches!(self, PartitionOp::Producers { .. })
    }
}

/// Records of one partition on their way out.
#[derive(Clone, Debug)]
pub enum Records {
    /// Whole batches in memory; none = no records.
    Memory(Vec<Bytes>),
    /// A range of a segment that begins and ends with whole batches, and how far the segment is in its file.
    File { file: SegmentFile, position: u64, length: usize, laid_to: u64 },
}

impl Records {
    /// No records.
    pub fn empty() -> Records {
        Records::Memory(Vec::new())
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Records::Memory(batches) => batches.iter().map(Bytes::len).sum(),
            Records::File { length, .. } => *length,
        }
    }
}

/// What a partition answers. `-1` stands for "none" as on the wire.
#[derive(Clone, Debug)]
pub enum PartitionAnswer {
    /// To an append; `record_errors` are the places in the batch of records that are at fault (KIP-467).
    Produce {
        error: ErrorCode,
        message: Option<String>,
        base_offset: i64,
        log_append_time_ms: i64,
        log_start_offset: i64,
        record_errors: Vec<i32>,
    },
    /// To a read.
    Fetch(FetchAnswer),
    /// To ListOffsets.
    ListOffset { error: ErrorCode, timestamp: i64, offset: i64, leader_epoch: i32 },
    /// To DeleteRecords.
    DeleteRecords { error: ErrorCode, low_watermark: i64 },
    /// To OffsetForLeaderEpoch.
    EpochEnd { error: ErrorCode, leader_epoch: i32, end_offset: i64 },
    /// To DescribeProducers.
    Producers { error: ErrorCode, producers: Vec<ProducerReport> },
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct FetchAnswer {
    /// The error, or NONE.
    pub error: ErrorCode,
    /// First offset not yet committed; -1 with an error.
    pub high_watermark: i64,
    /// First offset still there; -1 with an error.
    pub log_start_offset: i64,
    /// Where the client's log parts from ours (KIP-595): epoch and its end offset.
    pub diverging_epoch: Option<(i32, i64)>,
    /// The broker to read from instead (KIP-392); -1 = none.
    pub preferred: i32,
    /// The records.
    pub records: Records,
}

impl FetchAnswer {
    /// A refusal.
    pub fn error(error: ErrorCode) -> FetchAnswer {
        FetchAnswer {
            error,
            high_watermark: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            preferred: -1,
            records: Records::empty(),
        }
    }
}

impl PartitionAnswer {
    /// The refusal that fits an append.
    pub fn produce_error(error: ErrorCode, message: Option<String>) -> PartitionAnswer {
        PartitionAnswer::Produce {
            error,
            message,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
        }
    }

    /// The refusal that fits `op`.
    pub fn error_for(op: &PartitionOp, error: ErrorCode) -> PartitionAnswer {
        match op {
            PartitionOp::ListOffset { .. } => {
                PartitionAnswer::ListOffset { error, timestamp: -1, offset: -1, leader_epoch: -1 }
            }
            PartitionOp::DeleteRecords { .. } => PartitionAnswer::DeleteRecords { error, low_watermark: -1 },
            PartitionOp::EpochEnd { .. } => {
                PartitionAnswer::EpochEnd { error, leader_epoch: -1, end_offset: -1 }
            }
            PartitionOp::Producers { .. } => PartitionAnswer::Producers { error, producers: Vec::new() },
        }
    }
}

/// Offset type used where a high watermark is compared.
pub type HighWatermark = Offset;
