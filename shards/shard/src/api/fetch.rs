//! Fetch (key 1): enters the session, finds where each partition is led, and encodes what was read.

use pelton_model::{BrokerId, Now, Offset, PartitionKey, Replica, ShardId, TopicId};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::fetch::{FetchRequest, FetchResponse, PartitionResponse, ResponsePart, TopicResponse};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::{FetchAnswer, PartitionAnswer, Records};
use crate::connection::RequestRef;
use crate::effect::{Effect, SendPart};
use crate::fetch_operation::{FetchOperation, FetchOrigin, FetchShape, Target};
use crate::fetch_session::{SessionKey, SessionRequest, SessionUse, Wanted};
use crate::message::{FetchPart, RequestId, ShardMessage};
use crate::partitions::Route;

/// Topics are named by id from this version on (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;
/// From this version on a consumer names its rack and may be answered by any replica (KIP-392).
const ANY_REPLICA_VERSION: i16 = 11;
/// Longest wait a client may ask for, milliseconds; more is cut to this.
const WAIT_MS_MAX: i32 = 600_000;

impl Shard {
    /// Takes a fetch request.
    pub(crate) fn fetch(
        &mut self,
        now: Now,
        context: &RequestContext,
        mut request: FetchRequest,
        out: &mut Vec<Effect>,
    ) {
        let by_ids = context.version >= TOPIC_ID_VERSION;
        let read_committed = request.isolation_level == 1;
        let bytes_min = request.min_bytes.max(0) as usize;
        let bytes_max = (request.max_bytes.max(0) as usize).min(self.config.fetch_bytes_max);
        let reader = Reader {
            any_replica: context.version >= ANY_REPLICA_VERSION,
            rack: std::mem::take(&mut request.rack_id),
        };
        let wait_ms = request.max_wait_ms.clamp(0, WAIT_MS_MAX);
        let entered = self.sessions.enter(now, session_request(request, by_ids));
        let (session, partitions) = match entered {
            Ok(entered) => entered,
            Err(error) => return self.refuse_fetch(context, error, out),
        };
        let parts = partitions
            .iter()
            .enumerate()
            .map(|(index, (key, wanted))| self.fetch_part(index as u32, key, wanted, &reader))
            .collect();
        let shape = FetchShape {
            version: context.version,
            correlation_id: context.correlation_id,
            by_ids,
            session,
            read_committed,
            partitions,
        };
        let origin = FetchOrigin::Client { request: context.request, shape };
        let deadline_ns = now.after_ms(i64::from(wait_ms));
        self.start_fetch(now, FetchOperation::new(origin, parts, bytes_min, bytes_max, deadline_ns), out);
    }

    /// Another shard reads partitions here, now.
    pub(crate) fn handle_foreign_fetch(
        &mut self,
        now: Now,
        from: ShardId,
        id: RequestId,
        parts: Vec<FetchPart>,
        response_bytes_max: usize,
        out: &mut Vec<Effect>,
    ) {
        let parts = parts
            .into_iter()
            .map(|part| {
                let target = match self.slot_to_read(part.key, part.any_replica) {
                    Some(slot) => Target::Local(slot),
                    None => Target::Refused(ErrorCode::NotLeaderOrFollower),
                };
                (target, part)
            })
            .collect();
        let origin = FetchOrigin::Shard { from, id };
        self.start_fetch(now, FetchOperation::new(origin, parts, 0, response_bytes_max, 0), out);
    }

    /// Sends what a fetch found.
    pub(crate) fn finish_fetch(&mut self, now: Now, operation: FetchOperation, out: &mut Vec<Effect>) {
        let indexes: Vec<u32> = operation.parts.iter().map(|(_, part)| part.index).collect();
        let unread = || FetchAnswer::error(ErrorCode::NotLeaderOrFollower);
        let answers: Vec<FetchAnswer> =
            operation.answers.into_iter().map(|answer| answer.unwrap_or_else(unread)).collect();
        match operation.origin {
            FetchOrigin::Shard { from, id } => {
                let results =
                    indexes.into_iter().zip(answers.into_iter().map(PartitionAnswer::Fetch)).collect();
                out.push(Effect::ToShard { to: from, message: ShardMessage::FetchDone { id, results } });
            }
            FetchOrigin::Client { request, shape } => self.answer_fetch(now, request, shape, answers, out),
        }
    }

    fn answer_fetch(
        &mut self,
        now: Now,
        request: RequestRef,
        shape: FetchShape,
        answers: Vec<FetchAnswer>,
        out: &mut Vec<Effect>,
    ) {
        let session_id = match shape.session {
            SessionUse::Sessionless => 0,
            SessionUse::Incremental { id } => id,
            SessionUse::Begin => {
                let told = shape.partitions.iter().zip(&answers).map(|((key, wanted), answer)| {
                    (key.clone(), wanted.clone(), answer.high_watermark, answer.log_start_offset)
                });
                self.sessions.begin(now, shape.by_ids, told.collect())
            }
        };
        let mut response = FetchResponse { session_id, ..FetchResponse::default() };
        let mut records = Vec::new();
        for ((key, _), answer) in shape.partitions.iter().zip(answers) {
            let told = (answer.preferred >= 0)
                | match shape.session {
                    SessionUse::Incremental { id } => self.sessions.tell(
                        id,
                        key,
                        answer.error,
                        answer.high_watermark,
                        answer.log_start_offset,
                        answer.records.length() > 0,
                    ),
                    _ => true,
                };
            if told {
                self.add_answer(&mut response, &mut records, &shape, key, answer);
            }
        }
        let parts = send_parts(&response, shape.version, shape.correlation_id, records);
        self.respond_parts(request, parts, out);
    }

    fn add_answer(
        &self,
        response: &mut FetchResponse,
        records: &mut Vec<Records>,
        shape: &FetchShape,
        key: &SessionKey,
        answer: FetchAnswer,
    ) {
        let mut partition = PartitionResponse {
            partition_index: key.partition,
            error_code: answer.error,
            high_watermark: answer.high_watermark,
            // Without transactions every committed record is stable.
            last_stable_offset: answer.high_watermark,
            log_start_offset: answer.log_start_offset,
            diverging_epoch: answer.diverging_epoch,
            aborted_transactions_empty: shape.read_committed,
            records_length: answer.records.length(),
            preferred_read_replica: (answer.preferred >= 0).then_some(answer.preferred),
            ..PartitionResponse::default()
        };
        if answer.error == ErrorCode::NotLeaderOrFollower
            && let Some(hint) = self.session_topic(key).and_then(|id| self.leader_hint(id, key.partition))
        {
            partition.current_leader = Some((hint.leader_id, hint.leader_epoch));
            if !response.node_endpoints.iter().any(|node| node.node_id == hint.leader_id) {
                response.node_endpoints.push(pelton_wire::fetch::NodeEndpoint {
                    node_id: hint.leader_id,
                    host: hint.host,
                    port: hint.port,
                });
            }
        }
        records.push(answer.records);
        let same = |topic: &TopicResponse| topic.topic_id == key.topic_id.0 && topic.topic == key.topic;
        match response.topics.last_mut() {
            Some(topic) if same(topic) => topic.partitions.push(partition),
            _ => response.topics.push(TopicResponse {
                topic: key.topic.clone(),
                topic_id: key.topic_id.0,
                partitions: vec![partition],
            }),
        }
    }

    fn refuse_fetch(&mut self, context: &RequestContext, error: ErrorCode, out: &mut Vec<Effect>) {
        let response = FetchResponse { error_code: error, ..FetchResponse::default() };
        let parts = send_parts(&response, context.version, context.correlation_id, Vec::new());
        self.respond_parts(context.request, parts, out);
    }

    fn session_topic(&self, key: &SessionKey) -> Option<TopicId> {
        let route = if key.topic.is_empty() {
            self.partitions.topic_by_id(key.topic_id)
        } else {
            self.partitions.topic_by_name(&key.topic)
        };
        route.map(|route| route.id)
    }

    fn fetch_part(
        &self,
        index: u32,
        key: &SessionKey,
        wanted: &Wanted,
        reader: &Reader,
    ) -> (Target, FetchPart) {
        let topic_id = self.session_topic(key);
        let partition_key =
            PartitionKey { topic_id: topic_id.unwrap_or(key.topic_id), partition: key.partition };
        let mut redirect = None;
        let target = match topic_id.and_then(|_| self.partitions.route(partition_key)) {
            Some(Route::Local(slot)) => {
                redirect = self.preferred_replica(partition_key, reader);
                Target::Local(slot)
            }
            Some(Route::Foreign(shard)) if self.serves_foreign() => {
                redirect = self.preferred_replica(partition_key, reader);
                Target::Foreign(shard)
            }
            Some(Route::Foreign(_) | Route::Away) => self.follower_target(partition_key, reader),
            Some(Route::Leaderless) => Target::Refused(ErrorCode::LeaderNotAvailable),
            None if topic_id.is_none() && key.topic.is_empty() => Target::Refused(ErrorCode::UnknownTopicId),
            None => Target::Refused(ErrorCode::UnknownTopicOrPartition),
        };
        let part = FetchPart {
            index,
            key: partition_key,
            fetch_offset: Offset(wanted.fetch_offset),
            current_leader_epoch: wanted.current_leader_epoch,
            last_fetched_epoch: wanted.last_fetched_epoch,
            partition_bytes_max: wanted.partition_bytes_max.max(0) as usize,
            any_replica: reader.any_replica,
            redirect,
        };
        (target, part)
    }

    /// The replica of this broker that follows a leader elsewhere.
    fn follower_target(&self, key: PartitionKey, reader: &Reader) -> Target {
        let replica = if reader.any_replica { self.replica_route(key) } else { None };
        match replica {
            Some(Route::Local(slot)) => Target::Local(slot),
            Some(Route::Foreign(shard)) if self.serves_foreign() => Target::Foreign(shard),
            _ => Target::Refused(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// The broker a consumer had better read from: with the rack aware selector, a replica in sync in its rack, unless the leader
    /// is (Kafka's RackAwareReplicaSelector). Of several each partition has its own.
    fn preferred_replica(&self, key: PartitionKey, reader: &Reader) -> Option<i32> {
        if !self.config.rack_aware_reads || reader.rack.is_empty() {
            return None;
        }
        let partition = self.image.partition(key)?;
        let near = |replica: &Replica| {
            let rack = self.image.node(replica.node).and_then(|node| node.rack.as_deref());
            rack == Some(&reader.rack[..])
        };
        if partition.leader.as_ref().is_none_or(near) {
            return None;
        }
        let fits = |replica: &&Replica| {
            near(replica) && partition.isr_epoch(**replica).is_some() && self.image.is_live(**replica)
        };
        let replicas: Vec<Replica> = partition.replicas.iter().filter(fits).copied().collect();
        let chosen = *replicas.get(key.partition as usize % replicas.len().max(1))?;
        let shard = if self.serves_foreign() { ShardId(0) } else { chosen.shard };
        Some(BrokerId::of(chosen.node, shard).0)
    }
}

/// Who reads.
struct Reader {
    /// It can make use of a replica that does not lead.
    any_replica: bool,
    /// Where it is; empty = it does not say.
    rack: String,
}

fn session_request(request: FetchRequest, by_ids: bool) -> SessionRequest {
    let mut partitions = Vec::new();
    for topic in request.topics {
        for p in topic.partitions {
            let key = SessionKey {
                topic_id: TopicId(topic.topic_id),
                topic: topic.topic.clone(),
                partition: p.partition,
            };
            let wanted = Wanted {
                fetch_offset: p.fetch_offset,
                partition_bytes_max: p.partition_max_bytes,
                current_leader_epoch: p.current_leader_epoch,
                last_fetched_epoch: p.last_fetched_epoch,
            };
            partitions.push((key, wanted));
        }
    }
    let mut forgotten = Vec::new();
    for topic in request.forgotten {
        for partition in topic.partitions {
            forgotten.push(SessionKey {
                topic_id: TopicId(topic.topic_id),
                topic: topic.topic.clone(),
                partition,
            });
        }
    }
    SessionRequest { id: request.session_id, epoch: request.session_epoch, by_ids, partitions, forgotten }
}

/// The answer as pieces: what the codec wrote, with the records between.
fn send_parts(
    response: &FetchResponse,
    version: i16,
    correlation_id: i32,
    records: Vec<Records>,
) -> Vec<SendPart> {
    let mut parts = Vec::new();
    let mut records: Vec<Option<Records>> = records.into_iter().map(Some).collect();
    for part in response.encode(version, correlation_id) {
        match part {
            ResponsePart::Bytes(bytes) => parts.push(SendPart::Bytes(bytes)),
            ResponsePart::Records(index) => match records.get_mut(index).and_then(Option::take) {
                Some(Records::Memory(batches)) => parts.extend(batches.into_iter().map(SendPart::Bytes)),
                Some(Records::File { file, position, length, laid_to }) => {
                    parts.push(SendPart::File { file, position, length, laid_to });
                }
                None => {}
            },
        }
    }
    parts
}
