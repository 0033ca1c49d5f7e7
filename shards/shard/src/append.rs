//! Appending one batch to one partition of this shard: every check Kafka's LogValidator and ReplicaManager make, then
//! the log. Who asked, and when they are told, is not decided here.

use bytes::Bytes;
use pelton_log::PartitionSlot;
use pelton_model::{Now, TopicConfig};
use pelton_replica::producers::{BatchFacts, Verdict};
use pelton_wire::compression::Codec;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::record_batch::{self, BatchError, BatchInfo};
use pelton_wire::records;

use crate::Shard;
use crate::api::partition::PartitionAnswer;
use crate::recompress;

/// Most bytes that may come out of a batch whose records have to be looked at.
pub(crate) const UNPACK_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What became of an append.
pub enum AppendOutcome {
    /// Refused; nothing was written.
    Refused(PartitionAnswer),
    /// Appended, or already there: the answer holds once the high watermark of the partition passes `last_offset`.
    Appended {
        /// The partition.
        slot: PartitionSlot,
        /// Last offset of the batch.
        last_offset: i64,
        /// The answer then.
        answer: PartitionAnswer,
    },
    /// The same for a partition of a cluster: the shard settles it at the end of the turn at the earliest.
    AppendedHosted {
        /// The partition.
        slot: PartitionSlot,
        /// Last offset of the batch.
        last_offset: i64,
        /// The answer then.
        answer: PartitionAnswer,
    },
}

pub(crate) fn refuse(error: ErrorCode, message: impl Into<String>) -> AppendOutcome {
    AppendOutcome::Refused(PartitionAnswer::produce_error(error, Some(message.into())))
}

impl Shard {
    /// Appends `records`, one record batch, to a partition led here. The caller has asked the log for room.
    pub(crate) fn append(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        records: Bytes,
        acks: i16,
        zstd_allowed: bool,
    ) -> AppendOutcome {
        let Some(local) = self.partitions.local_mut(slot) else {
            return self.append_hosted(now, slot, records, acks, zstd_allowed);
        };
        let batch = match check_batch(now, &local.config, &records, zstd_allowed) {
            Ok(batch) => batch,
            Err(outcome) => return outcome,
        };
        let log_start_offset = self.storage.log_start_offset(slot).0;
        let log_append_time_ms = local.config.log_append_time.then_some(now.wall_ms);
        let facts = BatchFacts::from(&batch);
        if let Some(outcome) = check_producer(local, slot, &facts, now, log_append_time_ms, log_start_offset)
        {
            return outcome;
        }
        let records = match local.config.compression {
            None => records,
            Some(to) => {
                match recompress::batch_as_stored(&local.config, to, &batch, records, &self.storage) {
                    Ok(records) => records,
                    Err(refused) => return refused,
                }
            }
        };
        let leader_epoch = local.state.leader_epoch();
        let appended = self.storage.append(slot, records, leader_epoch, log_append_time_ms);
        let timestamp_ms = log_append_time_ms.unwrap_or(batch.max_timestamp);
        let facts = BatchFacts {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            timestamp_ms,
            ..facts
        };
        local.producers.update(&facts, now);
        local.epochs.assign(leader_epoch, appended.base_offset);
        AppendOutcome::Appended {
            slot,
            last_offset: appended.last_offset.0,
            answer: PartitionAnswer::Produce {
                error: ErrorCode::None,
                message: None,
                base_offset: appended.base_offset.0,
                log_append_time_ms: log_append_time_ms.unwrap_or(-1),
                log_start_offset,
                record_errors: Vec::new(),
            },
        }
    }
}

/// What Kafka's LogValidator looks at.
pub(crate) fn check_batch(
    now: Now,
    config: &TopicConfig,
    records: &Bytes,
    zstd_allowed: bool,
) -> Result<BatchInfo, AppendOutcome> {
    let batch = record_batch::validate_produce_batch(records).map_err(refuse_batch)?;
    if records.len() > config.max_message_bytes.max(0) as usize {
        return Err(refuse(
            ErrorCode::MessageTooLarge,
            format!(
                "The record batch size is {} bytes, which exceeds the maximum configured value of {} \
                 (max.message.bytes).",
                records.len(),
                config.max_message_bytes
            ),
        ));
    }
    if batch.is_transactional() {
        return Err(refuse(ErrorCode::InvalidTxnState, "transactions are not served yet"));
    }
    if batch.codec() == Some(Codec::Zstd) && !zstd_allowed {
        return Err(refuse(
            ErrorCode::UnsupportedCompressionType,
            "zstd needs Produce version 7 or later (KIP-110)",
        ));
    }
    if !config.log_append_time {
        check_timestamps(now, config, &batch, records)?;
    }
    if config.compacted {
        check_keys(records)?;
    }
    Ok(batch)
}

/// A batch of an idempotent producer that must not be appended: a duplicate (answered as the original was), or out of
/// step.
fn check_producer(
    local: &crate::partitions::LocalPartition,
    slot: PartitionSlot,
    facts: &BatchFacts,
    now: Now,
    log_append_time_ms: Option<i64>,
    log_start_offset: i64,
) -> Option<AppendOutcome> {
    match local.producers.check(facts, now) {
        Verdict::Append => None,
        Verdict::Duplicate { base_offset, last_offset, timestamp_ms } => Some(AppendOutcome::Appended {
            slot,
            last_offset: last_offset.0,
            answer: PartitionAnswer::Produce {
                error: ErrorCode::None,
                message: None,
                base_offset: base_offset.0,
                log_append_time_ms: log_append_time_ms.map_or(-1, |_| timestamp_ms),
                log_start_offset,
                record_errors: Vec::new(),
            },
        }),
        Verdict::Refuse { error, message } => Some(refuse(error, message)),
    }
}

pub(crate) fn refuse_batch(error: BatchError) -> AppendOutcome {
    let code = error.error_code();
    refuse(code, error.to_string())
}

/// Records of a compacted topic need keys.
fn check_keys(records: &Bytes) -> Result<(), AppendOutcome> {
    let unpacked = records::Records::of(records, UNPACK_BYTES_MAX).map_err(refuse_batch)?;
    let mut record_errors = Vec::new();
    for (index, record) in unpacked.iter().enumerate() {
        if record.map_err(refuse_batch)?.key.is_none() {
            record_errors.push(index as i32);
        }
    }
    if record_errors.is_empty() {
        return Ok(());
    }
    let text = "One or more records have been rejected: compacted topic cannot accept message without key";
    Err(AppendOutcome::Refused(PartitionAnswer::Produce {
        error: ErrorCode::InvalidRecord,
        message: Some(text.to_string()),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors,
    }))
}

/// `message.timestamp.before.max.ms` and `.after.max.ms` (KIP-937).
fn check_timestamps(
    now: Now,
    config: &TopicConfig,
    batch: &BatchInfo,
    records: &Bytes,
) -> Result<(), AppendOutcome> {
    let after = batch.max_timestamp.saturating_sub(now.wall_ms);
    let mut bad = (after > config.timestamp_after_max_ms).then_some(batch.max_timestamp);
    if bad.is_none() && config.timestamp_before_max_ms < i64::MAX {
        let oldest = records::min_timestamp(records, UNPACK_BYTES_MAX).map_err(refuse_batch)?;
        bad = (now.wall_ms.saturating_sub(oldest) > config.timestamp_before_max_ms).then_some(oldest);
    }
    match bad {
        None => Ok(()),
        Some(timestamp) => Err(refuse(
            ErrorCode::InvalidTimestamp,
            format!(
                "Timestamp {timestamp} of a record is out of range: broker time {}, allowed {} ms before and {} ms after",
                now.wall_ms, config.timestamp_before_max_ms, config.timestamp_after_max_ms
            ),
        )),
    }
}
