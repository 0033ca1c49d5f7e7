//! Names of things: nodes, shards, brokers as clients see them, topics, partitions, connections.

use std::fmt;
use uuid::Uuid;

/// A physical machine of the cluster. At least 0, at most [`crate::limits::NODE_ID_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub i32);

/// One core of a node: 0 .. shard count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A broker id as Kafka clients see it. In `direct` mode each shard is a broker of its own:
/// node id × 256 + shard; in `single` mode it is the node id × 256 (shard 0's) for the whole node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BrokerId(pub i32);

impl BrokerId {
    /// The id of `shard` on `node` (DESIGN section 4).
    pub fn of(node: NodeId, shard: ShardId) -> BrokerId {
        BrokerId(node.0 * crate::limits::SHARDS_MAX as i32 + i32::from(shard.0))
    }
}

/// A topic's UUID. Nil means "no topic id" on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicId(pub Uuid);

/// The cluster's id: 22 characters of URL-safe base64, as Kafka prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterId(pub String);

/// A partition, by topic id, so that a deleted and re-created topic is never mistaken for its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionKey {
    /// The topic's id.
    pub topic_id: TopicId,
    /// The partition's index, 0-based.
    pub partition: i32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id.0.simple(), self.partition)
    }
}

/// A client connection, unique within its shard for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// A record's position in its partition, 0-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub i64);

/// The epoch of a partition's leader; every batch stores the one it was appended under (KIP-101).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaderEpoch(pub i32);

/// A replica's place: a shard of a node. What it is there across restarts is told apart by its [`ReplicaEpoch`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node.0, self.shard.0)
    }
}

/// Index of an entry of the metadata log; 0 = none yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MetadataOffset(pub u64);

/// One life of a node's process: the metadata log's index of its registration. Kafka's broker epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeEpoch(pub u64);

/// One life of a shard within a life of its node: counts its restarts, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ShardEpoch(pub u32);

/// One uninterrupted life of a replica. What an earlier life acknowledged never counts for a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplicaEpoch {
    /// Of the process.
    pub node_epoch: NodeEpoch,
    /// Of the shard in it.
    pub shard_epoch: ShardEpoch,
}

/// Counts every change of a partition's record in the metadata; changes are compare-and-set on it (KIP-497).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionEpoch(pub i32);
