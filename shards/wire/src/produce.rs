//! Produce, versions 3 to 13: the request as a view over its frame, the answer written directly. Records are not copied.

use std::ops::Range;

use bytes::Bytes;
use uuid::Uuid;

use crate::WireError;
use crate::api_key::ApiKey;
use crate::error_code::ErrorCode;
use crate::header::{finish_response, response_head};
use crate::primitives::{Reader, Writer};

const FLEXIBLE: i16 = 9;
const TOPIC_IDS: i16 = 13;
const RECORD_ERRORS: i16 = 8;
const LEADER_TAGS: i16 = 10;

/// A produce request.
#[derive(Debug)]
pub struct ProduceRequest<'a> {
    /// Set by transactional producers.
    pub transactional_id: Option<&'a str>,
    /// -1, 0 or 1; other values are the caller's to refuse.
    pub acks: i16,
    /// Longest wait for acknowledgement, milliseconds.
    pub timeout_ms: i32,
    /// The topics.
    pub topics: Vec<ProduceTopic<'a>>,
}

/// One topic of a produce request.
#[derive(Debug)]
pub struct ProduceTopic<'a> {
    /// Name; empty from version 13 on.
    pub name: &'a str,
    /// Id; nil before version 13.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<ProducePartition>,
}

/// One partition of a produce request.
#[derive(Debug)]
pub struct ProducePartition {
    /// Partition index.
    pub index: i32,
    /// Where its records lie in the frame; none = null.
    pub records: Option<Range<usize>>,
}

impl<'a> ProduceRequest<'a> {
    /// Reads the request of a frame whose body begins at `body_offset`.
    pub fn parse(version: i16, frame: &'a [u8], body_offset: usize) -> Result<ProduceRequest<'a>, WireError> {
        let flexible = version >= FLEXIBLE;
        let mut reader = Reader::new(frame, body_offset);
        let transactional_id = reader.nullable_string(flexible)?;
        let (acks, timeout_ms) = (reader.i16()?, reader.i32()?);
        let count = reader.array_count(flexible, topic_bytes_min(version))?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, topic_id) = if version >= TOPIC_IDS {
                ("", reader.uuid()?)
            } else {
                (reader.string(flexible)?, Uuid::nil())
            };
            let count = reader.array_count(flexible, 5)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                let (index, records) = (reader.i32()?, reader.nullable_bytes(flexible)?);
                reader.skip_tags(flexible)?;
                partitions.push(ProducePartition { index, records });
            }
            reader.skip_tags(flexible)?;
            topics.push(ProduceTopic { name, topic_id, partitions });
        }
        reader.skip_tags(flexible)?;
        match reader.remaining() {
            0 => Ok(ProduceRequest { transactional_id, acks, timeout_ms, topics }),
            more => Err(WireError::Trailing(more)),
        }
    }
}

/// Least bytes a topic takes on the wire, name or id and no partition. An array has room for exactly its count, which is
/// held against this first: growing by doubling would take up to twice what the topics of a dense request need.
fn topic_bytes_min(version: i16) -> usize {
    match version {
        TOPIC_IDS.. => 18,
        FLEXIBLE.. => 3,
        _ => 6,
    }
}

/// The answer to a produce.
#[derive(Clone, Debug, Default)]
pub struct ProduceResponse {
    /// The topics in the order of the request.
    pub topics: Vec<TopicResponse>,
    /// Leaders named by partitions (KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic of the answer.
#[derive(Clone, Debug, Default)]
pub struct TopicResponse {
    /// Name; not written from version 13 on.
    pub name: String,
    /// Id; written from version 13 on.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<PartitionResponse>,
}

/// One partition of the answer.
#[derive(Clone, Debug, Default)]
pub struct PartitionResponse {
    /// Partition index.
    pub index: i32,
    /// The error, or NONE.
    pub error_code: ErrorCode,
    /// Offset of the first record; -1 with an error.
    pub base_offset: i64,
    /// The broker's time if the topic stamps it, else -1.
    pub log_append_time_ms: i64,
    /// First offset still there.
    pub log_start_offset: i64,
    /// What is wrong, for people (version 8 on).
    pub error_message: Option<String>,
    /// Records at fault, by their place in the batch (version 8 on, KIP-467).
    pub record_errors: Vec<i32>,
    /// Leader id and epoch to turn to (version 10 on).
    pub current_leader: Option<(i32, i32)>,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeEndpoint {
    /// Broker id.
    pub node_id: i32,
    /// Host.
    pub host: String,
    /// Port.
    pub port: i32,
}

/// The bytes of a `current_leader` tagged field.
pub(crate) fn leader_tag((leader_id, leader_epoch): (i32, i32)) -> Vec<u8> {
    let mut writer = Writer::new(true, 16);
    writer.i32(leader_id);
    writer.i32(leader_epoch);
    writer.no_tags();
    writer.bytes
}

/// The bytes of a `node_endpoints` tagged field.
pub(crate) fn endpoints_tag(nodes: &[NodeEndpoint]) -> Vec<u8> {
    let mut writer = Writer::new(true, 64);
    writer.length(Some(nodes.len()));
    for node in nodes {
        writer.i32(node.node_id);
        writer.string(&node.host);
        writer.i32(node.port);
        writer.nullable_string(None);
        writer.no_tags();
    }
    writer.bytes
}

impl ProduceResponse {
    /// The whole answer frame.
    pub fn encode(&self, version: i16, correlation_id: i32) -> Bytes {
        let flexible = version >= FLEXIBLE;
        let mut writer = Writer::new(flexible, 64 + 64 * self.topics.len());
        writer.bytes.extend_from_slice(&response_head(ApiKey::Produce, version, correlation_id));
        writer.length(Some(self.topics.len()));
        for topic in &self.topics {
            if version >= TOPIC_IDS {
                writer.uuid(topic.topic_id);
            } else {
                writer.string(&topic.name);
            }
            writer.length(Some(topic.partitions.len()));
            for partition in &topic.partitions {
                partition.write(&mut writer, version);
            }
            writer.no_tags();
        }
        writer.i32(0); // throttle_time_ms
        if version >= LEADER_TAGS && !self.node_endpoints.is_empty() {
            writer.tags(&[(0, endpoints_tag(&self.node_endpoints))]);
        } else {
            writer.no_tags();
        }
        finish_response(&mut writer.bytes, 0);
        Bytes::from(writer.bytes)
    }
}

impl PartitionResponse {
    fn write(&self, writer: &mut Writer, version: i16) {
        writer.i32(self.index);
        writer.i16(self.error_code.code());
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= RECORD_ERRORS {
            writer.length(Some(self.record_errors.len()));
            for index in &self.record_errors {
                writer.i32(*index);
                writer.nullable_string(self.error_message.as_deref());
                writer.no_tags();
            }
            writer.nullable_string(self.error_message.as_deref());
        }
        match self.current_leader {
            Some(leader) if version >= LEADER_TAGS => writer.tags(&[(0, leader_tag(leader))]),
            _ => writer.no_tags(),
        }
    }
}
