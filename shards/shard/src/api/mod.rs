//! Kafka's APIs, one file each. Here: from a frame to its handler, and what all answers have in common.

pub mod alter_configs;
pub mod alter_replica_log_dirs;
pub mod api_versions;
pub mod context;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
mod dispatch;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
pub mod gathered;
pub mod groups;
pub mod init_producer_id;
pub mod list_config_resources;
pub mod list_offsets;
pub mod metadata;
mod named;
pub mod offset_for_leader_epoch;
pub mod partition;
mod plan;
pub mod produce;
pub mod raft_voters;
pub mod reassignments;
pub mod refuse;
#[cfg(test)]
mod tests;
pub mod unregister_broker;

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self, Message};

use crate::connection::RequestRef;

/// What the answer to a request needs to know of it.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Its place on its connection.
    pub request: RequestRef,
    /// Which API.
    pub api_key: ApiKey,
    /// Its version.
    pub version: i16,
    /// The client's name for it.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<String>,
}

impl RequestContext {
    /// The whole answer: length, header, body.
    pub fn encode<T: Message>(&self, body: &T) -> Bytes {
        encode_response(self.api_key, self.version, self.correlation_id, body)
    }
}

/// A whole answer frame: length, header, body.
pub fn encode_response<T: Message>(api_key: ApiKey, version: i16, correlation_id: i32, body: &T) -> Bytes {
    messages::encode_response(api_key, version, correlation_id, body)
        .expect("every field we set exists in every version we serve; a test encodes each")
}
