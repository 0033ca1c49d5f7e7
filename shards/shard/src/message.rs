//! What shards of one process tell each other. Values move; nothing is shared. Order is kept per pair of shards.

use bytes::Bytes;
use pelton_cluster::control::isr::IsrChange;
use pelton_group::{GroupRequest, GroupResponse};
use pelton_model::{LeaderEpoch, NodeEpoch, Offset, PartitionEpoch, PartitionKey, Replica};

use crate::api::describe_log_dirs::{LogDirReport, Wanted};
use crate::api::partition::{PartitionAnswer, PartitionOp};

/// Names a request of one shard that another one answers; chosen by the asking shard.
pub type RequestId = u64;

/// One message.
#[derive(Debug)]
pub enum ShardMessage {
    /// Shard 0's whole metadata image, encoded; the first thing every other shard hears.
    MetadataSnapshot { snapshot: Bytes },
    /// Committed metadata records, encoded with their offset; answered by `MetadataApplied`.
    MetadataUpdate { offset: u64, records: Vec<Bytes> },
    /// The sender serves what follows from every record up to `offset`.
    MetadataApplied { offset: u64 },
    /// A client's request that only shard 0 may decide: the whole frame without its length.
    Control { id: RequestId, frame: Bytes },
    /// The answer to `Control`, ready to send.
    ControlDone { id: RequestId, response: Bytes },
    /// The sender stops and will ask nothing more of anyone.
    Drained,
    /// Create these topics with the defaults if they do not exist (KIP-361); answered when all shards know them.
    AutoCreate { id: RequestId, topics: Vec<String> },
    /// The answer to `AutoCreate`, whatever became of each topic.
    AutoCreateDone { id: RequestId },
    /// Append these batches to partitions of the receiver.
    Produce { id: RequestId, acks: i16, parts: Vec<ProducePart> },
    /// The answer to `Produce`, once its acks condition holds.
    ProduceDone { id: RequestId, results: Vec<(u32, PartitionAnswer)> },
    /// Read partitions of the receiver now, without waiting.
    Fetch { id: RequestId, parts: Vec<FetchPart>, response_bytes_max: usize },
    /// The answer to `Fetch`; records come as bytes.
    FetchDone { id: RequestId, results: Vec<(u32, PartitionAnswer)> },
    /// Say once when the high watermark of any of these is above the offset beside it; whether a replica that follows will do.
    Watch { id: RequestId, parts: Vec<(PartitionKey, Offset, bool)> },
    /// The answer to `Watch`.
    WatchFired { id: RequestId },
    /// Forget a watch; it may still fire.
    Unwatch { id: RequestId },
    /// A request to a group coordinator of the receiver.
    Group { id: RequestId, index: u32, ask: Box<GroupAsk> },
    /// The answer to `Group`.
    GroupDone { id: RequestId, index: u32, response: Box<GroupResponse> },
    /// One operation on one partition of the receiver.
    Partition { id: RequestId, index: u32, op: PartitionOp },
    /// The answer to `Partition`.
    PartitionDone { id: RequestId, index: u32, answer: PartitionAnswer },
    /// What the receiver has on disk of these partitions.
    LogDir { id: RequestId, wanted: Wanted },
    /// The answer to `LogDir`.
    LogDirDone { id: RequestId, report: LogDirReport },
    /// A `Control` or `AutoCreate` that nobody could decide, and why.
    ControlRefused { id: RequestId, why: String },
    /// A frame between replicas on two shards of this node: its length and itself, and its batches.
    Peer { head: Bytes, batches: Bytes },
    /// Shard 0's news of the node's lease: its end on the node's clock, up to where changes of leaders are released, and the
    /// life the node is registered in. A `ping_ns` other than 0 is answered by `Works`.
    Lease { until_ns: u64, released: u64, epoch: Option<NodeEpoch>, ping_ns: u64 },
    /// To shard 0: the sender works, it has taken in the lease with this question.
    Works { ping_ns: u64 },
    /// To shard 0: a leader of the sender wants this ISR.
    ProposeIsr { change: IsrChange },
    /// From shard 0: an ISR that built on this state is refused.
    IsrRefused { key: PartitionKey, partition_epoch: PartitionEpoch },
    /// From shard 0: the controller wants another leader.
    Transfer { key: PartitionKey, leader_epoch: LeaderEpoch, to: Replica },
    /// To shard 0: a leader of the sender has stopped, `to` has everything.
    HandOver { key: PartitionKey, partition_epoch: PartitionEpoch, to: Replica },
    /// From shard 0: what this node leads is led elsewhere, as far as that can be; stop serving.
    StopServing,
    /// To shard 0: the sender's storage has failed, its replicas do nothing any more.
    ShardFailed,
}

/// A request to the coordinator of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupAsk {
    /// The partition.
    pub partition: i32,
    /// Who asks.
    pub context: pelton_group::RequestContext,
    /// What is asked, of groups of that partition only.
    pub request: GroupRequest,
}

/// One partition's share of a produce request.
#[derive(Debug)]
pub struct ProducePart {
    /// Its place in the request.
    pub index: u32,
    /// The partition.
    pub key: PartitionKey,
    /// One record batch.
    pub records: Bytes,
}

/// One partition's share of a fetch request.
#[derive(Clone, Debug)]
pub struct FetchPart {
    /// Its place in the request.
    pub index: u32,
    /// The partition.
    pub key: PartitionKey,
    /// First offset wanted.
    pub fetch_offset: Offset,
    /// The client's idea of the leader epoch; negative = none.
    pub current_leader_epoch: i32,
    /// Epoch of the last record the client holds (KIP-595 divergence); negative = none.
    pub last_fetched_epoch: i32,
    /// Cap of this partition's bytes.
    pub partition_bytes_max: usize,
    /// A replica that follows may answer (KIP-392).
    pub any_replica: bool,
    /// The broker to which the leader sends the consumer instead of answering (KIP-392).
    pub redirect: Option<i32>,
}
