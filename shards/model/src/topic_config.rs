//! A topic's settings as the hot path reads them. Names, defaults and meanings are Kafka's LogConfig, but for
//! `flush.messages`, whose default here is 1: flushed before acknowledged (DESIGN section 5).

/// What stored batches are compressed with (`compression.type`, and the codec's level).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredCompression {
    /// The codec as a batch's attributes name it; 0 = uncompressed.
    pub codec: i16,
    /// Its level; what numbers mean is the codec's.
    pub level: i32,
}

/// Effective values of one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// `max.message.bytes`: largest batch as received, bytes.
    pub max_message_bytes: i32,
    /// `compression.type`; none = producer: batches stay as they came.
    pub compression: Option<StoredCompression>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `message.timestamp.type` = LogAppendTime.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `flush.messages`: 1 = on stable storage before the ack.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `segment.bytes`.
    pub segment_bytes: i32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `preallocate`.
    pub preallocate: bool,
    /// `cleanup.policy` has compact: every record needs a key, and only the last one of each key is kept.
    pub compacted: bool,
    /// `cleanup.policy` has delete: old segments go by time and size.
    pub deleted: bool,
    /// `retention.ms`; -1 = without limit.
    pub retention_ms: i64,
    /// `retention.bytes` of a partition; -1 = without limit.
    pub retention_bytes: i64,
    /// `delete.retention.ms`: how long a tombstone stays once compaction has met it.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`, in millionths.
    pub min_cleanable_dirty_ppm: u32,
}

impl TopicConfig {
    /// True when an acknowledgement waits for stable storage.
    pub fn flush_every_append(&self) -> bool {
        self.flush_messages <= 1
    }

    /// Age at which a segment ends, milliseconds: a compacted topic's segments must become cleanable in time for
    /// `max.compaction.lag.ms` (Kafka's LogConfig.maxSegmentMs).
    pub fn segment_ms_max(&self) -> i64 {
        let lag_ms = self.max_compaction_lag_ms;
        if self.compacted && lag_ms > 0 { self.segment_ms.min(lag_ms) } else { self.segment_ms }
    }
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            max_message_bytes: 1_048_588,
            compression: None,
            min_insync_replicas: 1,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            flush_messages: 1,
            flush_ms: i64::MAX,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 86_400_000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            file_delete_delay_ms: 60_000,
            preallocate: false,
            compacted: false,
            deleted: true,
            retention_ms: 7 * 86_400_000,
            retention_bytes: -1,
            delete_retention_ms: 86_400_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ppm: 500_000,
        }
    }
}
