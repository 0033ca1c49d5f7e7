//! A topic's settings as the hot path reads them. Names, defaults and meanings are Kafka's LogConfig, but for
//! `flush.messages`, whose default here is 1: flushed before acknowledged (DESIGN section 5).

/// Effective values of one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// `max.message.bytes`: largest batch as received, bytes.
    pub max_message_bytes: i32,
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
    /// `cleanup.policy` has compact: every record needs a key.
    pub compacted: bool,
}

impl TopicConfig {
    /// True when an acknowledgement waits for stable storage.
    pub fn flush_every_append(&self) -> bool {
        self.flush_messages <= 1
    }
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            max_message_bytes: 1_048_588,
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
        }
    }
}
