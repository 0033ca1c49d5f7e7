//! Produce (key 0): takes the request apart without copying records, and encodes its answer.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey, TopicId};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::produce;

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::PartitionAnswer;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::message::ProducePart;
use crate::partitions::{Route, TopicRoute};
use crate::producing::{Blocked, PartRequest, ProduceOrigin, ProduceWork};
use pelton_log::Admission;

/// zstd is understood from this version on (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// `client.id` of Kafka's administration client (AdminUtils.ADMIN_CLIENT_ID).
const ADMIN_CLIENT: &str = "__admin_client";
/// Topics are named by id from this version on (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;

/// What the answer to a produce needs.
#[derive(Debug)]
pub struct ProduceShape {
    /// Request version.
    pub version: i16,
    /// Correlation id.
    pub correlation_id: i32,
    /// acks as asked.
    pub acks: i16,
    /// Topics in order: name, id, and the partitions named.
    pub topics: Vec<ShapeTopic>,
}

/// One topic of a produce request.
#[derive(Debug)]
pub struct ShapeTopic {
    /// Name; empty when named by id.
    pub name: String,
    /// Id; nil when named by name.
    pub id: TopicId,
    /// Partition indexes.
    pub partitions: Vec<i32>,
}

impl Shard {
    /// Takes a produce request; `frame` is the whole frame, in which `body` begins at `body_offset`.
    pub(crate) fn produce(
        &mut self,
        now: Now,
        context: &RequestContext,
        frame: Bytes,
        body_offset: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), pelton_wire::WireError> {
        let request = produce::ProduceRequest::parse(context.version, &frame, body_offset)?;
        let admission = match request.acks {
            -1..=1 => self.admit_produce(frame.len()),
            _ => Admission::Yes,
        };
        if matches!(admission, Admission::Later) {
            self.block(context.request, frame.clone());
            return Ok(());
        }
        let mut shape = ProduceShape {
            version: context.version,
            correlation_id: context.correlation_id,
            acks: request.acks,
            topics: Vec::with_capacity(request.topics.len()),
        };
        let mut parts = Vec::new();
        let refusal = request_refusal(&request, &admission);
        for topic in &request.topics {
            let route = if context.version >= TOPIC_ID_VERSION {
                self.partitions.topic_by_id(TopicId(topic.topic_id))
            } else {
                self.partitions.topic_by_name(topic.name)
            };
            for partition in &topic.partitions {
                let index = parts.len() as u32;
                let part = match &refusal {
                    Some((error, message)) => Err((*error, message.clone())),
                    None if writes_internal(context, route) => Err((ErrorCode::InvalidTopicException, None)),
                    None => self.part_key(context.version, topic.name, route, partition),
                };
                parts.push(match part {
                    Ok((key, range)) => {
                        PartRequest::Append(ProducePart { index, key, records: frame.slice(range) })
                    }
                    Err((error, message)) => {
                        PartRequest::Refused(PartitionAnswer::produce_error(error, message))
                    }
                });
            }
            shape.topics.push(ShapeTopic {
                name: topic.name.to_string(),
                id: TopicId(topic.topic_id),
                partitions: topic.partitions.iter().map(|p| p.index).collect(),
            });
        }
        let work = ProduceWork {
            acks: request.acks,
            timeout_ms: i64::from(request.timeout_ms),
            zstd_allowed: context.version >= ZSTD_VERSION,
            parts,
        };
        self.run_produce(now, ProduceOrigin::Client { request: context.request, shape }, work, out);
        Ok(())
    }

    fn block(&mut self, request: RequestRef, frame: Bytes) {
        if let Some(connection) = self.connections.get_mut(&request.connection) {
            connection.set_blocked(true);
        }
        self.blocked.push_back(Blocked::Client { request, frame });
    }

    fn part_key(
        &self,
        version: i16,
        name: &str,
        route: Option<&TopicRoute>,
        partition: &produce::ProducePartition,
    ) -> Result<(PartitionKey, std::ops::Range<usize>), (ErrorCode, Option<String>)> {
        let Some(route) = route else {
            let error = if version >= TOPIC_ID_VERSION {
                ErrorCode::UnknownTopicId
            } else if pelton_cluster::names::is_valid(name) {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::InvalidTopicException
            };
            return Err((error, None));
        };
        let place = usize::try_from(partition.index).ok().and_then(|index| route.partitions.get(index));
        match place {
            None => return Err((ErrorCode::UnknownTopicOrPartition, None)),
            Some(Route::Foreign(_)) if !self.serves_foreign() => {
                return Err((ErrorCode::NotLeaderOrFollower, None));
            }
            Some(Route::Leaderless) => return Err((ErrorCode::LeaderNotAvailable, None)),
            Some(_) => {}
        }
        let Some(range) = partition.records.clone() else {
            return Err((ErrorCode::InvalidRecord, Some("the partition's records are null".to_string())));
        };
        Ok((PartitionKey { topic_id: route.id, partition: partition.index }, range))
    }

    /// Where the client should go instead, for each part refused with NOT_LEADER (KIP-951).
    pub(crate) fn leader_hints(&self, shape: &ProduceShape, answers: &[PartitionAnswer]) -> Vec<LeaderHint> {
        let mut hints = Vec::new();
        let mut index = 0;
        for topic in &shape.topics {
            for partition in &topic.partitions {
                if let Some(PartitionAnswer::Produce { error: ErrorCode::NotLeaderOrFollower, .. }) =
                    answers.get(index)
                {
                    let route = if topic.name.is_empty() {
                        self.partitions.topic_by_id(topic.id)
                    } else {
                        self.partitions.topic_by_name(&topic.name)
                    };
                    let hint = route.and_then(|route| self.leader_hint(route.id, *partition));
                    hints.extend(hint.map(|hint| LeaderHint { index, ..hint }));
                }
                index += 1;
            }
        }
        hints
    }
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
fn writes_internal(context: &RequestContext, route: Option<&TopicRoute>) -> bool {
    route.is_some_and(|route| pelton_cluster::names::is_internal(&route.name))
        && context.client_id.as_deref() != Some(ADMIN_CLIENT)
}

fn request_refusal(
    request: &produce::ProduceRequest<'_>,
    admission: &Admission,
) -> Option<(ErrorCode, Option<String>)> {
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks must be -1, 0 or 1, not {}", request.acks);
        return Some((ErrorCode::InvalidRequiredAcks, Some(message)));
    }
    if request.transactional_id.is_some() {
        return Some((ErrorCode::InvalidTxnState, Some("transactions are not served yet".to_string())));
    }
    match admission {
        Admission::Refused { text, .. } => Some((ErrorCode::KafkaStorageError, Some(text.clone()))),
        _ => None,
    }
}

/// Encodes the answer.
pub fn encode_response(shape: &ProduceShape, answers: &[PartitionAnswer], hints: &[LeaderHint]) -> Bytes {
    let mut index = 0;
    let topics = shape
        .topics
        .iter()
        .map(|topic| produce::TopicResponse {
            name: topic.name.clone(),
            topic_id: topic.id.0,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| {
                    index += 1;
                    let hint = hints.iter().find(|hint| hint.index == index - 1);
                    partition_response(*partition, answers.get(index - 1), hint)
                })
                .collect(),
        })
        .collect();
    let mut node_endpoints: Vec<produce::NodeEndpoint> = Vec::new();
    for hint in hints {
        if !node_endpoints.iter().any(|node| node.node_id == hint.leader_id) {
            node_endpoints.push(produce::NodeEndpoint {
                node_id: hint.leader_id,
                host: hint.host.clone(),
                port: hint.port,
            });
        }
    }
    produce::ProduceResponse { topics, node_endpoints }.encode(shape.version, shape.correlation_id)
}

fn partition_response(
    index: i32,
    answer: Option<&PartitionAnswer>,
    hint: Option<&LeaderHint>,
) -> produce::PartitionResponse {
    let current_leader = hint.map(|hint| (hint.leader_id, hint.leader_epoch));
    match answer {
        Some(PartitionAnswer::Produce {
            error,
            message,
            base_offset,
            log_append_time_ms,
            log_start_offset,
            record_errors,
        }) => produce::PartitionResponse {
            index,
            error_code: *error,
            base_offset: *base_offset,
            log_append_time_ms: *log_append_time_ms,
            log_start_offset: *log_start_offset,
            error_message: message.clone(),
            record_errors: record_errors.clone(),
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
