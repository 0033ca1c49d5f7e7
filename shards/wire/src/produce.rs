//! Produce, versions 3 to 13: the request as a view over its frame, the answer written directly. Records are not copied.

use std::ops::Range;

use uuid::Uuid;

use crate::WireError;
use crate::api_key::ApiKey;
use crate::error_code::ErrorCode;
use crate::header::{finish_response, write_response_head};
use crate::primitives::{Reader, Writer};

const FLEXIBLE: i16 = 9;
const TOPIC_IDS: i16 = 13;
const RECORD_ERRORS: i16 = 8;
const LEADER_TAGS: i16 = 10;

/// A produce request: read once to see that it is whole, and again as it is walked, so that however many topics and
/// partitions it names it takes no memory.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRequest<'a> {
    /// Set by transactional producers.
    pub transactional_id: Option<&'a str>,
    /// -1, 0 or 1; other values are the caller's to refuse.
    pub acks: i16,
    /// Longest wait for acknowledgement, milliseconds.
    pub timeout_ms: i32,
    items: ProduceItems<'a>,
}

/// What a produce request consists of, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProduceItem<'a> {
    /// A topic; its partitions follow.
    Topic(ProduceTopic<'a>),
    /// A partition of the topic before.
    Partition(ProducePartition),
}

/// One topic of a produce request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceTopic<'a> {
    /// Name; empty from version 13 on.
    pub name: &'a str,
    /// Id; nil before version 13.
    pub topic_id: Uuid,
    /// How many partitions follow.
    pub partitions: usize,
}

/// One partition of a produce request.
#[derive(Clone, PartialEq, Eq, Debug)]
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
        let topics = reader.array_count(flexible, topic_bytes_min(version))?;
        let items = ProduceItems { reader, version, topics, partitions: None };
        let mut walk = items;
        while walk.step()?.is_some() {}
        walk.reader.skip_tags(flexible)?;
        match walk.reader.remaining() {
            0 => Ok(ProduceRequest { transactional_id, acks, timeout_ms, items }),
            more => Err(WireError::Trailing(more)),
        }
    }

    /// How many topics there are.
    pub fn topics(&self) -> usize {
        self.items.topics
    }

    /// Every topic, each followed by its partitions.
    pub fn items(&self) -> ProduceItems<'a> {
        self.items
    }
}

/// Walks a produce request.
#[derive(Clone, Copy, Debug)]
pub struct ProduceItems<'a> {
    reader: Reader<'a>,
    version: i16,
    /// Topics not begun.
    topics: usize,
    /// Partitions of the topic begun that are still to come; none: there is no such topic.
    partitions: Option<usize>,
}

impl<'a> ProduceItems<'a> {
    fn step(&mut self) -> Result<Option<ProduceItem<'a>>, WireError> {
        let (flexible, reader) = (self.version >= FLEXIBLE, &mut self.reader);
        match self.partitions {
            Some(0) => reader.skip_tags(flexible)?,
            Some(left) => {
                let (index, records) = (reader.i32()?, reader.nullable_bytes(flexible)?);
                reader.skip_tags(flexible)?;
                self.partitions = Some(left - 1);
                return Ok(Some(ProduceItem::Partition(ProducePartition { index, records })));
            }
            None => {}
        }
        self.partitions = None;
        let Some(left) = self.topics.checked_sub(1) else { return Ok(None) };
        let (name, topic_id) = match self.version {
            TOPIC_IDS.. => ("", reader.uuid()?),
            _ => (reader.string(flexible)?, Uuid::nil()),
        };
        let partitions = reader.array_count(flexible, 5)?;
        (self.topics, self.partitions) = (left, Some(partitions));
        Ok(Some(ProduceItem::Topic(ProduceTopic { name, topic_id, partitions })))
    }
}

impl<'a> Iterator for ProduceItems<'a> {
    type Item = ProduceItem<'a>;

    fn next(&mut self) -> Option<ProduceItem<'a>> {
        // `parse` has been here before: nothing can be wrong.
        self.step().ok().flatten()
    }
}

/// Least bytes a topic takes on the wire, name or id and no partition.
fn topic_bytes_min(version: i16) -> usize {
    match version {
        TOPIC_IDS.. => 18,
        FLEXIBLE.. => 3,
        _ => 6,
    }
}

/// One partition of the answer.
#[derive(Clone, Debug, Default)]
pub struct PartitionResponse<'a> {
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
    pub error_message: Option<&'a str>,
    /// Records at fault, by their place in the batch (version 8 on, KIP-467).
    pub record_errors: &'a [i32],
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

/// Writes an answer piece by piece, in the order of the request: for each topic its head, its partitions, its end.
pub struct ResponseWriter {
    writer: Writer,
    version: i16,
}

impl ResponseWriter {
    /// Begins the answer frame, with so many topics, in `bytes`, which is emptied first.
    pub fn begin(mut bytes: Vec<u8>, version: i16, correlation_id: i32, topics: usize) -> ResponseWriter {
        bytes.clear();
        let mut writer = Writer::reuse(version >= FLEXIBLE, bytes);
        write_response_head(&mut writer.bytes, ApiKey::Produce, version, correlation_id);
        writer.length(Some(topics));
        ResponseWriter { writer, version }
    }

    /// The head of a topic; the name is left out from version 13 on, the id before.
    pub fn topic(&mut self, name: &str, topic_id: Uuid, partitions: usize) {
        match self.version {
            TOPIC_IDS.. => self.writer.uuid(topic_id),
            _ => self.writer.string(name),
        }
        self.writer.length(Some(partitions));
    }

    /// The next partition of the topic.
    pub fn partition(&mut self, partition: &PartitionResponse<'_>) {
        let (writer, version) = (&mut self.writer, self.version);
        writer.i32(partition.index);
        writer.i16(partition.error_code.code());
        writer.i64(partition.base_offset);
        writer.i64(partition.log_append_time_ms);
        if version >= 5 {
            writer.i64(partition.log_start_offset);
        }
        if version >= RECORD_ERRORS {
            writer.length(Some(partition.record_errors.len()));
            for index in partition.record_errors {
                writer.i32(*index);
                writer.nullable_string(partition.error_message);
                writer.no_tags();
            }
            writer.nullable_string(partition.error_message);
        }
        match partition.current_leader {
            Some(leader) if version >= LEADER_TAGS => writer.tags(&[(0, leader_tag(leader))]),
            _ => writer.no_tags(),
        }
    }

    /// The end of a topic whose partitions are all written.
    pub fn end_topic(&mut self) {
        self.writer.no_tags();
    }

    /// The whole frame, with the leaders that partitions name (KIP-951).
    pub fn finish(mut self, nodes: &[NodeEndpoint]) -> Vec<u8> {
        self.writer.i32(0); // throttle_time_ms
        if self.version >= LEADER_TAGS && !nodes.is_empty() {
            self.writer.tags(&[(0, endpoints_tag(nodes))]);
        } else {
            self.writer.no_tags();
        }
        finish_response(&mut self.writer.bytes, 0);
        self.writer.bytes
    }
}
