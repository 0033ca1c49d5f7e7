//! One core's broker as a state machine: events in, effects out. Kafka's APIs, purgatory, sessions, and the glue between
//! log, replica, cluster and group, which do not know each other.
//!
//! No I/O, no clock, no randomness, no async: the simulator runs this same code.
#![forbid(unsafe_code)]

pub mod acks;
mod answers;
pub mod api;
mod append;
pub mod cluster;
pub mod connection;
mod connections;
mod control;
pub mod effect;
pub mod event;
mod fetch_operation;
pub mod fetch_session;
mod fetching;
mod gather;
mod groups;
pub mod message;
mod metadata;
mod partitions;
mod producing;
pub mod purgatory;
mod recompress;
pub mod replica_host;
#[cfg(feature = "sabotage")]
mod sabotage;
mod shard;
mod snapshot;
mod upkeep;

pub use cluster::{CLIENT_ENDPOINT, ClusterConfig, ReplicaReport};
pub use effect::{Effect, LogLevel, ReceiveMode, SendPart, SendParts};
pub use event::Event;
pub use message::ShardMessage;
pub use pelton_cluster::peer;
pub use pelton_cluster::record::{Endpoint, NodeRegistration, ShardRegistration};
pub use pelton_log::{DiskImage, RecoveryError, SegmentReader, disk};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
pub use shard::{Shard, StartError};
