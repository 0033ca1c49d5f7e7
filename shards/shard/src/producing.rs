//! Runs produce requests: appends parts here, hands parts to the shards that lead them, waits for room in the log and
//! for acknowledgements. Keeps the order of a connection's requests.

use bytes::Bytes;
use pelton_log::Admission;
use pelton_model::{Now, PartitionKey, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::acks::{AckId, Acknowledged, Part, PartState};
use crate::api::partition::PartitionAnswer;
use crate::api::produce::{ProduceShape, encode_response};
use crate::append::AppendOutcome;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::message::{ProducePart, RequestId, ShardMessage};
use crate::partitions::Route;

/// Longest time another shard's produce may take, milliseconds; its own requests carry the client's limit.
const FOREIGN_TIMEOUT_MS: i64 = 3_600_000;

/// Who waits for an acknowledgement.
#[derive(Debug)]
pub enum ProduceOrigin {
    /// A client.
    Client {
        /// Where the answer goes.
        request: RequestRef,
        /// What the answer needs.
        shape: ProduceShape,
    },
    /// Another shard; the numbers of the parts are its names for them.
    Shard {
        /// The shard.
        from: ShardId,
        /// Its name for the request.
        id: RequestId,
    },
}

/// A request that waits for room in the log.
pub enum Blocked {
    /// A client's: the whole frame, parsed again when there is room.
    Client {
        /// Its place.
        request: RequestRef,
        /// The frame without its length.
        frame: Bytes,
    },
    /// Another shard's.
    Shard {
        /// The shard.
        from: ShardId,
        /// Its name for the request.
        id: RequestId,
        /// acks as the client asked.
        acks: i16,
        /// The parts.
        parts: Vec<ProducePart>,
    },
    /// A group coordinator's.
    Group {
        /// Its partition of `__consumer_offsets`.
        partition: i32,
        /// Its name for the append.
        ticket: pelton_group::Ticket,
        /// The batch.
        batch: Bytes,
    },
}

/// A produce request under way: what has become of its parts so far.
pub struct ProduceWork {
    /// acks as asked: -1, 0 or 1.
    acks: i16,
    /// zstd batches are refused before version 7 (KIP-110).
    zstd_allowed: bool,
    /// In the order of the request.
    parts: Vec<Part>,
    /// What other shards are to append.
    foreign: Vec<(ShardId, Vec<ProducePart>)>,
}

impl ProduceWork {
    /// Nothing yet.
    pub fn new(acks: i16, zstd_allowed: bool) -> ProduceWork {
        ProduceWork { acks, zstd_allowed, parts: Vec::with_capacity(1), foreign: Vec::new() }
    }

    /// The next part goes nowhere.
    pub fn refuse(&mut self, number: i32, answer: PartitionAnswer) {
        self.parts.push(Part { number, state: PartState::Decided, answer });
    }
}

impl Shard {
    /// The next part of a request: appends what is led here, keeps the rest for its leader.
    pub(crate) fn produce_part(
        &mut self,
        now: Now,
        work: &mut ProduceWork,
        number: i32,
        key: PartitionKey,
        route: Route,
        records: Bytes,
    ) {
        let (state, answer) = match route {
            Route::Leaderless | Route::Away => {
                let text = "this broker does not lead the partition".to_string();
                let error = ErrorCode::NotLeaderOrFollower;
                (PartState::Decided, PartitionAnswer::produce_error(error, Some(text)))
            }
            Route::Foreign(shard) => {
                let index = work.parts.len() as u32;
                add_foreign(&mut work.foreign, shard, ProducePart { index, key, records });
                (PartState::Elsewhere, PartitionAnswer::produce_error(ErrorCode::RequestTimedOut, None))
            }
            Route::Local(slot) => match self.append(now, slot, records, work.acks, work.zstd_allowed) {
                AppendOutcome::Refused(answer) => (PartState::Decided, answer),
                AppendOutcome::Appended { slot, last_offset, answer } => {
                    let waits = last_offset >= self.high_watermark(slot);
                    (if waits { PartState::Here(slot, last_offset) } else { PartState::Decided }, answer)
                }
                AppendOutcome::AppendedHosted { slot, last_offset, answer } => match work.acks {
                    1 => (PartState::HereAlone(slot, last_offset), answer),
                    _ => (PartState::Here(slot, last_offset), answer),
                },
            },
        };
        work.parts.push(Part { number, state, answer });
    }

    /// All parts are dealt with: sends the rest to its leaders, and answers when every part is decided or `timeout_ms` has
    /// passed.
    pub(crate) fn end_produce(
        &mut self,
        now: Now,
        origin: ProduceOrigin,
        work: ProduceWork,
        timeout_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let ProduceWork { acks, parts, foreign, .. } = work;
        if acks == 0 || parts.iter().all(|part| part.state == PartState::Decided) {
            self.spread_produce(None, acks, foreign, out);
            return self.finish_produce(Acknowledged { origin, parts }, out);
        }
        let id = self.acks.add(origin, parts, now.after_ms(timeout_ms));
        self.spread_produce(Some(id), acks, foreign, out);
    }

    fn spread_produce(
        &mut self,
        waiting: Option<AckId>,
        acks: i16,
        foreign: Vec<(ShardId, Vec<ProducePart>)>,
        out: &mut Vec<Effect>,
    ) {
        for (shard, parts) in foreign {
            let id = self.next_id();
            if let Some(waiting) = waiting {
                self.produce_asked.insert(id, waiting);
            }
            out.push(Effect::ToShard { to: shard, message: ShardMessage::Produce { id, acks, parts } });
        }
    }

    /// A produce of another shard's client for partitions here.
    pub(crate) fn handle_foreign_produce(
        &mut self,
        now: Now,
        from: ShardId,
        id: RequestId,
        acks: i16,
        parts: Vec<ProducePart>,
        out: &mut Vec<Effect>,
    ) {
        let bytes = parts.iter().map(|part| part.records.len()).sum();
        match self.admit_produce(bytes) {
            Admission::Yes => self.run_foreign_produce(now, from, id, acks, parts, out),
            Admission::Later => self.blocked.push_back(Blocked::Shard { from, id, acks, parts }),
            Admission::Refused { text, .. } => {
                let results = parts
                    .iter()
                    .map(|part| {
                        let error = ErrorCode::KafkaStorageError;
                        (part.index, PartitionAnswer::produce_error(error, Some(text.clone())))
                    })
                    .collect();
                out.push(Effect::ToShard { to: from, message: ShardMessage::ProduceDone { id, results } });
            }
        }
    }

    fn run_foreign_produce(
        &mut self,
        now: Now,
        from: ShardId,
        id: RequestId,
        acks: i16,
        parts: Vec<ProducePart>,
        out: &mut Vec<Effect>,
    ) {
        // The asking shard has checked what depends on the request's version.
        let mut work = ProduceWork::new(acks, true);
        for ProducePart { index, key, records } in parts {
            let route = self.partitions.route(key).unwrap_or(Route::Leaderless);
            self.produce_part(now, &mut work, index as i32, key, route, records);
        }
        self.end_produce(now, ProduceOrigin::Shard { from, id }, work, FOREIGN_TIMEOUT_MS, out);
    }

    /// Another shard's answer to this shard's `Produce`.
    pub(crate) fn handle_produce_done(
        &mut self,
        id: RequestId,
        results: Vec<(u32, PartitionAnswer)>,
        out: &mut Vec<Effect>,
    ) {
        let Some(waiting) = self.produce_asked.remove(&id) else { return };
        let mut done = Vec::new();
        for (index, answer) in results {
            self.acks.answer(waiting, index, answer, &mut done);
        }
        self.finish_produces(&mut done, out);
    }

    /// Whether a produce of `bytes` may be appended now. Nobody overtakes those who wait.
    pub(crate) fn admit_produce(&self, bytes: usize) -> Admission {
        match self.storage.admit(bytes) {
            Admission::Yes if !self.blocked.is_empty() && !self.unblocking => Admission::Later,
            other => other,
        }
    }

    /// There may be room in the log again: takes up what waited, in order.
    pub(crate) fn run_blocked(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.unblocking = true;
        while let Some(blocked) = self.blocked.pop_front() {
            let bytes = match &blocked {
                Blocked::Client { frame, .. } => frame.len(),
                Blocked::Shard { parts, .. } => parts.iter().map(|part| part.records.len()).sum(),
                Blocked::Group { batch, .. } => batch.len(),
            };
            if matches!(self.storage.admit(bytes), Admission::Later) {
                self.blocked.push_front(blocked);
                break;
            }
            match blocked {
                Blocked::Client { request, frame } => {
                    if let Some(connection) = self.connections.get_mut(request.connection) {
                        connection.set_blocked(false);
                        self.handle_request(now, request, frame, out);
                        self.pump(now, request.connection, out);
                    }
                }
                Blocked::Shard { from, id, acks, parts } => {
                    self.handle_foreign_produce(now, from, id, acks, parts, out);
                }
                Blocked::Group { partition, ticket, batch } => {
                    self.unblock_group(now, partition, ticket, batch, out);
                }
            }
        }
        self.unblocking = false;
    }

    /// Sends the answers of requests that are decided.
    pub(crate) fn finish_produces(
        &mut self,
        done: &mut Vec<Acknowledged<ProduceOrigin>>,
        out: &mut Vec<Effect>,
    ) {
        for acknowledged in done.drain(..) {
            self.finish_produce(acknowledged, out);
        }
    }

    fn finish_produce(&mut self, done: Acknowledged<ProduceOrigin>, out: &mut Vec<Effect>) {
        let parts = done.parts;
        match done.origin {
            ProduceOrigin::Shard { from, id } => {
                let results = parts.into_iter().map(|part| (part.number as u32, part.answer)).collect();
                out.push(Effect::ToShard { to: from, message: ShardMessage::ProduceDone { id, results } });
            }
            ProduceOrigin::Client { request, shape } if shape.acks == 0 => {
                let failed = parts.iter().find_map(|part| match &part.answer {
                    PartitionAnswer::Produce { error, .. }
                        if *error != ErrorCode::None && *error != ErrorCode::RequestTimedOut =>
                    {
                        Some(*error)
                    }
                    _ => None,
                });
                match failed {
                    // acks=0 has no answer to carry an error, so the client learns by losing the connection,
                    // as from Kafka, and asks for fresh metadata.
                    Some(error) => {
                        let reason = format!("a produce with acks=0 failed: {}", error.name());
                        self.close_connection(request.connection, reason, out);
                    }
                    None => self.respond(request, Bytes::new(), out),
                }
            }
            ProduceOrigin::Client { request, shape } => {
                let hints = self.leader_hints(&shape, &parts);
                let written = encode_response(&shape, &parts, &hints, self.answers.scratch());
                let response = self.answers.keep(written);
                self.respond(request, response, out);
            }
        }
    }
}

fn add_foreign(foreign: &mut Vec<(ShardId, Vec<ProducePart>)>, shard: ShardId, part: ProducePart) {
    match foreign.iter_mut().find(|(other, _)| *other == shard) {
        Some((_, parts)) => parts.push(part),
        None => foreign.push((shard, vec![part])),
    }
}
