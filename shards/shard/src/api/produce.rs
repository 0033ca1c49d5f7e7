//! Produce (key 0): takes the request apart without copying records, and encodes its answer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use pelton_log::Admission;
use pelton_model::{Now, PartitionKey, TopicId};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::header::RequestHeader;
use pelton_wire::produce::{self, ProduceItem};

use crate::Shard;
use crate::acks::Part;
use crate::api::partition::PartitionAnswer;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::partitions::{Route, TopicRoute};
use crate::producing::{Blocked, ProduceOrigin, ProduceWork};

/// zstd is understood from this version on (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// `client.id` of Kafka's administration client (AdminUtils.ADMIN_CLIENT_ID).
const ADMIN_CLIENT: &str = "__admin_client";
/// Topics are named by id from this version on (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;

/// Why a part is not taken, and in words if that helps.
type Refusal = (ErrorCode, Option<String>);

/// What the answer to a produce needs besides its parts.
#[derive(Debug)]
pub struct ProduceShape {
    /// Request version.
    pub version: i16,
    /// Correlation id.
    pub correlation_id: i32,
    /// acks as asked.
    pub acks: i16,
    /// The topics.
    pub topics: ShapeTopics,
}

/// Topics of a produce request, in order. Most requests have one, which takes no allocation.
#[derive(Debug, Default)]
pub struct ShapeTopics {
    first: Option<ShapeTopic>,
    more: Vec<ShapeTopic>,
}

impl ShapeTopics {
    fn push(&mut self, topic: ShapeTopic) {
        match self.first {
            None => self.first = Some(topic),
            Some(_) => self.more.push(topic),
        }
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    fn iter(&self) -> impl Iterator<Item = &ShapeTopic> {
        self.first.iter().chain(&self.more)
    }
}

/// One topic of a produce request.
#[derive(Debug)]
pub struct ShapeTopic {
    /// Name; none when named by id.
    pub name: Option<Arc<str>>,
    /// Id; nil when named by name.
    pub id: TopicId,
    /// How many of the request's parts are its.
    pub partitions: usize,
}

impl ShapeTopic {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl Shard {
    /// Takes a produce request; `frame` is the whole frame, whose header is read.
    pub(crate) fn produce(
        &mut self,
        now: Now,
        request: RequestRef,
        header: &RequestHeader<'_>,
        frame: &Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), pelton_wire::WireError> {
        let version = header.api_version;
        let asked = produce::ProduceRequest::parse(version, frame, header.body_offset)?;
        let admission = match asked.acks {
            -1..=1 => self.admit_produce(frame.len()),
            _ => Admission::Yes,
        };
        if matches!(admission, Admission::Later) {
            self.block(request, frame.clone());
            return Ok(());
        }
        let refusal = request_refusal(&asked);
        // Of this shard's own log: what is led elsewhere goes there all the same.
        let no_room = match admission {
            Admission::Refused { text, .. } => Some(text),
            _ => None,
        };
        let mut work = ProduceWork::new(asked.acks, version >= ZSTD_VERSION);
        let mut topics = ShapeTopics::default();
        // Of the topic whose partitions are looked at: its name, its place, and whether the client may not write to it.
        let (mut name, mut place, mut internal) = ("", None, false);
        for item in asked.items() {
            let partition = match item {
                ProduceItem::Partition(partition) => partition,
                ProduceItem::Topic(topic) => {
                    let id = TopicId(topic.topic_id);
                    name = topic.name;
                    place = match version {
                        TOPIC_ID_VERSION.. => self.partitions.place_by_id(id),
                        _ => self.partitions.place_by_name(name),
                    };
                    let route = place.and_then(|place| self.partitions.topic_at(place));
                    internal = writes_internal(header.client_id, route);
                    let own = || route.map_or_else(|| Arc::from(name), |route| route.name.clone());
                    let name = (version < TOPIC_ID_VERSION).then(own);
                    topics.push(ShapeTopic { name, id, partitions: topic.partitions });
                    continue;
                }
            };
            let part = match &refusal {
                Some((error, message)) => Err((*error, message.clone())),
                None if internal => Err((ErrorCode::InvalidTopicException, None)),
                None => self.part_route(version, name, place, &partition),
            };
            match (part, &no_room) {
                (Ok((_, Route::Local(_), _)), Some(text)) => {
                    let answer =
                        PartitionAnswer::produce_error(ErrorCode::KafkaStorageError, Some(text.clone()));
                    work.refuse(partition.index, answer);
                }
                (Ok((key, route, range)), _) => {
                    self.produce_part(now, &mut work, partition.index, key, route, frame.slice(range));
                }
                (Err((error, message)), _) => {
                    work.refuse(partition.index, PartitionAnswer::produce_error(error, message));
                }
            }
        }
        let shape = ProduceShape { version, correlation_id: header.correlation_id, acks: asked.acks, topics };
        let origin = ProduceOrigin::Client { request, shape };
        self.end_produce(now, origin, work, i64::from(asked.timeout_ms), out);
        Ok(())
    }

    fn block(&mut self, request: RequestRef, frame: Bytes) {
        if let Some(connection) = self.connections.get_mut(request.connection) {
            connection.set_blocked(true);
        }
        self.blocked.push_back(Blocked::Client { request, frame });
    }

    /// Where the records of a partition go.
    fn part_route(
        &self,
        version: i16,
        name: &str,
        place: Option<usize>,
        partition: &produce::ProducePartition,
    ) -> Result<(PartitionKey, Route, Range<usize>), Refusal> {
        let Some(topic) = place.and_then(|place| self.partitions.topic_at(place)) else {
            let error = if version >= TOPIC_ID_VERSION {
                ErrorCode::UnknownTopicId
            } else if pelton_cluster::names::is_valid(name) {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::InvalidTopicException
            };
            return Err((error, None));
        };
        let route = usize::try_from(partition.index).ok().and_then(|index| topic.partitions.get(index));
        let route = match route {
            None => return Err((ErrorCode::UnknownTopicOrPartition, None)),
            Some(Route::Foreign(_)) if !self.serves_foreign() => {
                return Err((ErrorCode::NotLeaderOrFollower, None));
            }
            Some(Route::Leaderless) => return Err((ErrorCode::LeaderNotAvailable, None)),
            Some(Route::Away) => return Err((ErrorCode::NotLeaderOrFollower, None)),
            Some(route) => *route,
        };
        let Some(range) = partition.records.clone() else {
            return Err((ErrorCode::InvalidRecord, Some("the partition's records are null".to_string())));
        };
        Ok((PartitionKey { topic_id: topic.id, partition: partition.index }, route, range))
    }

    /// Where the client should go instead, for each part refused with NOT_LEADER (KIP-951).
    pub(crate) fn leader_hints(&self, shape: &ProduceShape, parts: &[Part]) -> Vec<LeaderHint> {
        let mut hints = Vec::new();
        if !parts.iter().any(|part| is_elsewhere(&part.answer)) {
            return hints;
        }
        let mut index = 0;
        for topic in shape.topics.iter() {
            let route = match &topic.name {
                None => self.partitions.topic_by_id(topic.id),
                Some(name) => self.partitions.topic_by_name(name),
            };
            for _ in 0..topic.partitions {
                let part = parts.get(index).filter(|part| is_elsewhere(&part.answer));
                if let (Some(part), Some(route)) = (part, route) {
                    let hint = self.leader_hint(route.id, part.number);
                    hints.extend(hint.map(|hint| LeaderHint { index, ..hint }));
                }
                index += 1;
            }
        }
        hints
    }
}

fn is_elsewhere(answer: &PartitionAnswer) -> bool {
    matches!(answer, PartitionAnswer::Produce { error: ErrorCode::NotLeaderOrFollower, .. })
}

/// A leader that a client should turn to.
#[derive(Clone, Debug)]
pub struct LeaderHint {
    /// The part of the request.
    pub index: usize,
    /// Broker id.
    pub leader_id: i32,
    /// Leader epoch.
    pub leader_epoch: i32,
    /// Host.
    pub host: String,
    /// Port.
    pub port: i32,
}

/// Only Kafka's own administration client may write to the broker's topics.
fn writes_internal(client_id: Option<&str>, route: Option<&TopicRoute>) -> bool {
    route.is_some_and(|route| pelton_cluster::names::is_internal(&route.name))
        && client_id != Some(ADMIN_CLIENT)
}

fn request_refusal(request: &produce::ProduceRequest<'_>) -> Option<Refusal> {
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks must be -1, 0 or 1, not {}", request.acks);
        return Some((ErrorCode::InvalidRequiredAcks, Some(message)));
    }
    if request.transactional_id.is_some() {
        return Some((ErrorCode::InvalidTxnState, Some("transactions are not served yet".to_string())));
    }
    None
}

/// Encodes the answer; `memory` is used again for it.
pub fn encode_response(
    shape: &ProduceShape,
    parts: &[Part],
    hints: &[LeaderHint],
    memory: Vec<u8>,
) -> Vec<u8> {
    let mut writer =
        produce::ResponseWriter::begin(memory, shape.version, shape.correlation_id, shape.topics.len());
    let mut parts = parts.iter().enumerate();
    for topic in shape.topics.iter() {
        writer.topic(topic.name(), topic.id.0, topic.partitions);
        for (index, part) in parts.by_ref().take(topic.partitions) {
            let hint = hints.iter().find(|hint| hint.index == index);
            writer.partition(&partition_response(part, hint));
        }
        writer.end_topic();
    }
    let mut nodes: Vec<produce::NodeEndpoint> = Vec::new();
    for hint in hints {
        if !nodes.iter().any(|node| node.node_id == hint.leader_id) {
            let (node_id, host, port) = (hint.leader_id, hint.host.clone(), hint.port);
            nodes.push(produce::NodeEndpoint { node_id, host, port });
        }
    }
    writer.finish(&nodes)
}

fn partition_response<'a>(part: &'a Part, hint: Option<&LeaderHint>) -> produce::PartitionResponse<'a> {
    let (index, current_leader) = (part.number, hint.map(|hint| (hint.leader_id, hint.leader_epoch)));
    match &part.answer {
        PartitionAnswer::Produce {
            error,
            message,
            base_offset,
            log_append_time_ms,
            log_start_offset,
            record_errors,
        } => produce::PartitionResponse {
            index,
            error_code: *error,
            base_offset: *base_offset,
            log_append_time_ms: *log_append_time_ms,
            log_start_offset: *log_start_offset,
            error_message: message.as_deref(),
            record_errors,
            current_leader,
        },
        _ => produce::PartitionResponse {
            index,
            error_code: ErrorCode::UnknownServerError,
            current_leader,
            ..produce::PartitionResponse::default()
        },
    }
}
