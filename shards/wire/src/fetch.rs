//! Fetch, versions 4 to 17: the request read into owned values, the answer written around the records, which stay where
//! they are.

use bytes::Bytes;
use uuid::Uuid;

use crate::WireError;
use crate::api_key::ApiKey;
use crate::error_code::ErrorCode;
use crate::header::{finish_response, response_head};
use crate::primitives::{Reader, Writer};
pub use crate::produce::NodeEndpoint;
use crate::produce::{endpoints_tag, leader_tag};

const FLEXIBLE: i16 = 12;
const TOPIC_IDS: i16 = 13;
const SESSIONS: i16 = 7;
const ENDPOINTS: i16 = 16;

/// A fetch request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// Negative for clients.
    pub replica_id: i32,
    /// Longest wait, milliseconds.
    pub max_wait_ms: i32,
    /// Answer once this many bytes are there.
    pub min_bytes: i32,
    /// Cap of the answer, bytes.
    pub max_bytes: i32,
    /// 1 = READ_COMMITTED.
    pub isolation_level: i8,
    /// Session id; 0 = none.
    pub session_id: i32,
    /// Session epoch; -1 = no session.
    pub session_epoch: i32,
    /// Topics to read.
    pub topics: Vec<FetchTopic>,
    /// Topics to forget.
    pub forgotten: Vec<ForgottenTopic>,
    /// The client's rack.
    pub rack_id: String,
}

/// One topic of a fetch request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchTopic {
    /// Name; empty from version 13 on.
    pub topic: String,
    /// Id; nil before version 13.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<FetchPartition>,
}

/// One partition of a fetch request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchPartition {
    /// Partition index.
    pub partition: i32,
    /// Epoch the client believes in; -1 = none.
    pub current_leader_epoch: i32,
    /// First offset.
    pub fetch_offset: i64,
    /// Epoch of the client's last record; -1 = none.
    pub last_fetched_epoch: i32,
    /// Cap, bytes.
    pub partition_max_bytes: i32,
}

/// Partitions a session shall forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// Name; empty from version 13 on.
    pub topic: String,
    /// Id; nil before version 13.
    pub topic_id: Uuid,
    /// Partition indexes.
    pub partitions: Vec<i32>,
}

impl FetchRequest {
    /// Reads a request's body.
    pub fn parse(version: i16, body: &[u8]) -> Result<FetchRequest, WireError> {
        let flexible = version >= FLEXIBLE;
        let mut reader = Reader::new(body, 0);
        let mut request = FetchRequest { replica_id: -1, session_epoch: -1, ..FetchRequest::default() };
        if version <= 14 {
            request.replica_id = reader.i32()?;
        }
        (request.max_wait_ms, request.min_bytes) = (reader.i32()?, reader.i32()?);
        (request.max_bytes, request.isolation_level) = (reader.i32()?, reader.i8()?);
        if version >= SESSIONS {
            (request.session_id, request.session_epoch) = (reader.i32()?, reader.i32()?);
        }
        let count = reader.array_count(flexible, topic_bytes_min(version))?;
        request.topics.reserve_exact(count);
        for _ in 0..count {
            request.topics.push(read_topic(&mut reader, version, flexible)?);
        }
        if version >= SESSIONS {
            let count = reader.array_count(flexible, topic_bytes_min(version))?;
            request.forgotten.reserve_exact(count);
            for _ in 0..count {
                let (topic, topic_id) = read_name(&mut reader, version, flexible)?;
                let count = reader.array_count(flexible, 4)?;
                let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
                reader.skip_tags(flexible)?;
                request.forgotten.push(ForgottenTopic { topic, topic_id, partitions });
            }
        }
        if version >= 11 {
            request.rack_id = reader.string(flexible)?.to_string();
        }
        reader.skip_tags(flexible)?;
        match reader.remaining() {
            0 => Ok(request),
            more => Err(WireError::Trailing(more)),
        }
    }
}

/// Least bytes a topic takes on the wire. An array has room for exactly its count, which is held against this first:
/// growing by doubling would take up to twice what the topics of a dense request need.
fn topic_bytes_min(version: i16) -> usize {
    match version {
        TOPIC_IDS.. => 18,
        FLEXIBLE.. => 3,
        _ => 6,
    }
}

fn read_name(reader: &mut Reader<'_>, version: i16, flexible: bool) -> Result<(String, Uuid), WireError> {
    if version >= TOPIC_IDS {
        Ok((String::new(), reader.uuid()?))
    } else {
        Ok((reader.string(flexible)?.to_string(), Uuid::nil()))
    }
}

fn read_topic(reader: &mut Reader<'_>, version: i16, flexible: bool) -> Result<FetchTopic, WireError> {
    let (topic, topic_id) = read_name(reader, version, flexible)?;
    let count = reader.array_count(flexible, 16)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        let mut partition = FetchPartition {
            partition: reader.i32()?,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            ..Default::default()
        };
        if version >= 9 {
            partition.current_leader_epoch = reader.i32()?;
        }
        partition.fetch_offset = reader.i64()?;
        if version >= FLEXIBLE {
            partition.last_fetched_epoch = reader.i32()?;
        }
        if version >= 5 {
            reader.i64()?; // log_start_offset, of followers only
        }
        partition.partition_max_bytes = reader.i32()?;
        reader.skip_tags(flexible)?;
        partitions.push(partition);
    }
    reader.skip_tags(flexible)?;
    Ok(FetchTopic { topic, topic_id, partitions })
}

/// The answer to a fetch, records left out.
#[derive(Clone, Debug, Default)]
pub struct FetchResponse {
    /// Error of the whole request.
    pub error_code: ErrorCode,
    /// Session id; 0 = none.
    pub session_id: i32,
    /// The topics.
    pub topics: Vec<TopicResponse>,
    /// Leaders named by partitions (KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic of the answer.
#[derive(Clone, Debug, Default)]
pub struct TopicResponse {
    /// Name; not written from version 13 on.
    pub topic: String,
    /// Id; written from version 13 on.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<PartitionResponse>,
}

/// One partition of the answer.
#[derive(Clone, Debug, Default)]
pub struct PartitionResponse {
    /// Partition index.
    pub partition_index: i32,
    /// The error, or NONE.
    pub error_code: ErrorCode,
    /// High watermark; -1 with an error.
    pub high_watermark: i64,
    /// Last stable offset; -1 with an error.
    pub last_stable_offset: i64,
    /// First offset still there; -1 with an error.
    pub log_start_offset: i64,
    /// Epoch and its end offset where the client's log parts from ours (version 12 on).
    pub diverging_epoch: Option<(i32, i64)>,
    /// Leader id and epoch to turn to (version 12 on).
    pub current_leader: Option<(i32, i32)>,
    /// Aborted transactions are written as none (READ_COMMITTED) rather than null.
    pub aborted_transactions_empty: bool,
    /// Length of the records, bytes; 0 = empty, never null: librdkafka takes null for a broken answer (KAFKA-18726).
    pub records_length: usize,
    /// The broker that a consumer had better read from (KIP-392), from version 11 on.
    pub preferred_read_replica: Option<i32>,
}

/// A piece of an encoded answer.
#[derive(Clone, Debug)]
pub enum ResponsePart {
    /// Bytes.
    Bytes(Bytes),
    /// The records of the n-th partition of the answer, counted over all topics; never one without records.
    Records(usize),
}

impl FetchResponse {
    /// The whole answer frame as pieces in order.
    pub fn encode(&self, version: i16, correlation_id: i32) -> Vec<ResponsePart> {
        let mut encoder = Encoder {
            writer: Writer::new(version >= FLEXIBLE, 128),
            cuts: Vec::new(),
            partition: 0,
            records: 0,
        };
        encoder.writer.bytes.extend_from_slice(&response_head(ApiKey::Fetch, version, correlation_id));
        self.write(&mut encoder, version);
        finish_response(&mut encoder.writer.bytes, encoder.records);
        let bytes = Bytes::from(encoder.writer.bytes);
        let mut parts = Vec::with_capacity(2 * encoder.cuts.len() + 1);
        let mut from = 0;
        for (at, partition) in encoder.cuts {
            parts.push(ResponsePart::Bytes(bytes.slice(from..at)));
            parts.push(ResponsePart::Records(partition));
            from = at;
        }
        if from < bytes.len() {
            parts.push(ResponsePart::Bytes(bytes.slice(from..)));
        }
        parts
    }

    fn write(&self, encoder: &mut Encoder, version: i16) {
        encoder.writer.i32(0); // throttle_time_ms
        if version >= SESSIONS {
            encoder.writer.i16(self.error_code.code());
            encoder.writer.i32(self.session_id);
        }
        encoder.writer.length(Some(self.topics.len()));
        for topic in &self.topics {
            if version >= TOPIC_IDS {
                encoder.writer.uuid(topic.topic_id);
            } else {
                encoder.writer.string(&topic.topic);
            }
            encoder.writer.length(Some(topic.partitions.len()));
            for partition in &topic.partitions {
                encoder.partition(partition, version);
            }
            encoder.writer.no_tags();
        }
        if version >= ENDPOINTS && !self.node_endpoints.is_empty() {
            encoder.writer.tags(&[(0, endpoints_tag(&self.node_endpoints))]);
        } else {
            encoder.writer.no_tags();
        }
    }
}

struct Encoder {
    writer: Writer,
    /// Where records belong: position in the written bytes, and whose.
    cuts: Vec<(usize, usize)>,
    partition: usize,
    records: usize,
}

impl Encoder {
    fn partition(&mut self, partition: &PartitionResponse, version: i16) {
        let writer = &mut self.writer;
        writer.i32(partition.partition_index);
        writer.i16(partition.error_code.code());
        writer.i64(partition.high_watermark);
        writer.i64(partition.last_stable_offset);
        if version >= 5 {
            writer.i64(partition.log_start_offset);
        }
        writer.length(partition.aborted_transactions_empty.then_some(0));
        if version >= 11 {
            writer.i32(partition.preferred_read_replica.unwrap_or(-1));
        }
        writer.length(Some(partition.records_length));
        if partition.records_length > 0 {
            self.cuts.push((writer.bytes.len(), self.partition));
            self.records += partition.records_length;
        }
        self.partition += 1;
        let mut tags = Vec::new();
        if let Some((epoch, end_offset)) = partition.diverging_epoch {
            let mut tag = Writer::new(true, 16);
            tag.i32(epoch);
            tag.i64(end_offset);
            tag.no_tags();
            tags.push((0, tag.bytes));
        }
        if let Some(leader) = partition.current_leader {
            tags.push((1, leader_tag(leader)));
        }
        self.writer.tags(&tags);
    }
}
