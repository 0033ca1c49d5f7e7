//! Ids, offsets, time, limits and configuration shared by every crate of a shard.
//! Pure data: no I/O, no clock, no randomness of its own.
#![forbid(unsafe_code)]

pub mod aligned;
pub mod config;
pub mod group_config;
pub mod ids;
pub mod limits;
pub mod partition_state;
pub mod prng;
pub mod time;
pub mod topic_config;

pub use aligned::AlignedBuffer;
pub use config::{BrokerConfig, FetchPath, ListenerMode};
pub use group_config::{ConsumerGroupConfig, GroupConfig, MigrationPolicy};
pub use ids::{
    BrokerId, ClusterId, ConnectionId, LeaderEpoch, MetadataOffset, NodeEpoch, NodeId, Offset,
    PartitionEpoch, PartitionKey, Replica, ReplicaEpoch, ShardEpoch, ShardId, TopicId,
};
pub use partition_state::{IsrMember, PartitionState};
pub use prng::Prng;
pub use time::Now;
pub use topic_config::{StoredCompression, TopicConfig};
