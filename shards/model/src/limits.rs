//! The caps of a shard. Each queue, loop and map that input can grow has one.

/// Shards of one node; broker ids are node id × this + shard (DESIGN section 4).
pub const SHARDS_MAX: usize = 256;
/// Largest node id whose broker ids fit in an i32.
pub const NODE_ID_MAX: i32 = i32::MAX / 256 - 1;
/// Disk block: the unit of journal frames and of direct writes, bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Largest request frame before a connection's first valid request, bytes (issue: slow and hostile peers).
pub const FRAME_BYTES_UNPROVEN: usize = 64 * 1024;
/// Requests of one connection that may be waiting for their answers.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 128;
/// Longest topic name (Kafka's Topic.java).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Most partitions one topic may have.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 100_000;
/// Most partitions of one node.
pub const PARTITIONS_MAX: usize = 1_000_000;
/// Batches remembered per producer and partition (Kafka's ProducerStateEntry).
pub const PRODUCER_BATCHES_RETAINED: usize = 5;
/// Producer ids remembered per partition; the oldest goes first.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 100_000;

const _: () = assert!(BLOCK_BYTES.is_power_of_two());
