//! Runs produce requests: appends parts here, hands parts to the shards that lead them, waits for room in the log and
//! for acknowledgements. Keeps the order of a connection's requests.

use bytes::Bytes;
use pelton_log::{Admission, PartitionSlot};
use pelton_model::{Now, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::acks::Acknowledged;
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
    /// Another shard; `indexes` are its names for the parts.
    Shard {
        /// The shard.
        from: ShardId,
        /// Its name for the request.
        id: RequestId,
        /// Its names for the parts.
        indexes: Vec<u32>,
    },
}

/// A part of a request as the API found it: the batch and where it goes, or why it goes nowhere.
pub enum PartRequest {
    /// To append.
    Append(ProducePart),
    /// Refused already.
    Refused(PartitionAnswer),
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

/// One produce request, checked and ready to append.
pub struct ProduceWork {
    /// acks as asked: -1, 0 or 1.
    pub acks: i16,
    /// Give up waiting after this, milliseconds.
    pub timeout_ms: i64,
    /// zstd batches are refused before version 7 (KIP-110).
    pub zstd_allowed: bool,
    /// The parts in the order of the request.
    pub parts: Vec<PartRequest>,
}

impl Shard {
    /// Appends what is led here, sends the rest to its leaders, and answers when every part is decided.
    pub(crate) fn run_produce(
        &mut self,
        now: Now,
        origin: ProduceOrigin,
        work: ProduceWork,
        out: &mut Vec<Effect>,
    ) {
        let mut answers = Vec::with_capacity(work.parts.len());
        let mut waits: Vec<(u32, Option<(PartitionSlot, i64)>)> = Vec::new();
        let mut foreign: Vec<(ShardId, Vec<ProducePart>)> = Vec::new();
        for (index, part) in work.parts.into_iter().enumerate() {
            let part = match part {
                PartRequest::Append(part) => part,
                PartRequest::Refused(answer) => {
                    answers.push(answer);
                    continue;
                }
            };
            if let Some(Route::Foreign(shard)) = self.partitions.route(part.key) {
                answers.push(PartitionAnswer::produce_error(ErrorCode::RequestTimedOut, None));
                waits.push((index as u32, None));
                add_foreign(&mut foreign, shard, ProducePart { index: index as u32, ..part });
                continue;
            }
            match self.append(now, part.key, part.records, work.acks, work.zstd_allowed) {
                AppendOutcome::Refused(answer) => answers.push(answer),
                AppendOutcome::Appended { slot, last_offset, answer } => {
                    answers.push(answer);
                    if last_offset >= self.high_watermark(slot) {
                        waits.push((index as u32, Some((slot, last_offset))));
                    }
                }
            }
        }
        let acks = work.acks;
        if acks == 0 || waits.is_empty() {
            self.spread_produce(None, acks, foreign, out);
            return self.finish_produce(Acknowledged { origin, answers }, out);
        }
        let deadline_ns = now.after_ms(work.timeout_ms);
        let id = self.acks.add(origin, answers, &waits, deadline_ns);
        self.spread_produce(Some(id), acks, foreign, out);
    }

    fn spread_produce(
        &mut self,
        waiting: Option<u64>,
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
        let indexes = parts.iter().map(|part| part.index).collect();
        let parts = parts.into_iter().map(PartRequest::Append).collect();
        // The asking shard has checked what depends on the request's version.
        let work = ProduceWork { acks, timeout_ms: FOREIGN_TIMEOUT_MS, zstd_allowed: true, parts };
        self.run_produce(now, ProduceOrigin::Shard { from, id, indexes }, work, out);
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
        self.finish_produces(done, out);
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
                    if let Some(connection) = self.connections.get_mut(&request.connection) {
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
    pub(crate) fn finish_produces(&mut self, done: Vec<Acknowledged<ProduceOrigin>>, out: &mut Vec<Effect>) {
        for acknowledged in done {
            self.finish_produce(acknowledged, out);
        }
    }

    fn finish_produce(&mut self, done: Acknowledged<ProduceOrigin>, out: &mut Vec<Effect>) {
        match done.origin {
            ProduceOrigin::Shard { from, id, indexes } => {
                let results = indexes.into_iter().zip(done.answers).collect();
                out.push(Effect::ToShard { to: from, message: ShardMessage::ProduceDone { id, results } });
            }
            ProduceOrigin::Client { request, shape } if shape.acks == 0 => {
                let failed = done.answers.iter().find_map(|answer| match answer {
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
                let response =
                    encode_response(&shape, &done.answers, &self.leader_hints(&shape, &done.answers));
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
