//! ListOffsets, DeleteRecords, OffsetForLeaderEpoch and DescribeProducers: one question per partition, asked here or of the shard that
//! leads it, and answered together.

use bytes::Bytes;
use pelton_log::{CommitPoint, LookupStart, PartitionSlot, ReadToken};
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::api::partition::{PartitionAnswer, PartitionOp};
use crate::cluster::Sabotage;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::message::{RequestId, ShardMessage};
use crate::partitions::Route;

/// ListOffsets' special times (KIP-79, KIP-734, KIP-405, KIP-1005).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// What encodes the answers of a gathered request.
pub type GatherShape = Box<dyn FnOnce(&[PartitionAnswer]) -> Bytes + Send>;

/// Who hears of one partition's answer.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A gathered request of this shard.
    Here { id: RequestId, index: u32 },
    /// Another shard.
    Shard { from: ShardId, id: RequestId, index: u32 },
}

/// A lookup the log makes from disk.
#[derive(Debug)]
pub struct LookupWaiter {
    asker: Asker,
}

/// A DeleteRecords that waits: for its fact to be on stable storage, and for the other live replicas to have followed.
#[derive(Debug)]
pub struct DeleteWait {
    commit: CommitPoint,
    asker: Asker,
    slot: PartitionSlot,
    key: PartitionKey,
    /// In which it was begun.
    leader_epoch: LeaderEpoch,
    offset: i64,
    due_ns: u64,
}

impl Shard {
    /// Asks every partition of a request; `shape` encodes the answers, which come in the order of `asks`.
    pub(crate) fn gather(
        &mut self,
        now: Now,
        request: RequestRef,
        asks: Vec<PartitionOp>,
        shape: GatherShape,
        out: &mut Vec<Effect>,
    ) {
        if asks.is_empty() {
            let response = shape(&[]);
            return self.respond(request, response, out);
        }
        let id = self.next_id();
        self.gather.open(id, request, shape, asks.len());
        for (index, op) in (0..).zip(asks) {
            match self.route_of(&op) {
                Some(Route::Foreign(shard)) if self.serves_foreign() => {
                    let message = ShardMessage::Partition { id, index, op };
                    out.push(Effect::ToShard { to: shard, message });
                }
                _ => self.run_operation(now, Asker::Here { id, index }, op, out),
            }
        }
    }

    /// Another shard's question about a partition here.
    pub(crate) fn handle_foreign_operation(
        &mut self,
        now: Now,
        from: ShardId,
        id: RequestId,
        index: u32,
        op: PartitionOp,
        out: &mut Vec<Effect>,
    ) {
        self.run_operation(now, Asker::Shard { from, id, index }, op, out);
    }

    /// One answer of a gathered request.
    pub(crate) fn handle_gather_answer(
        &mut self,
        _now: Now,
        id: RequestId,
        index: u32,
        answer: PartitionAnswer,
        out: &mut Vec<Effect>,
    ) {
        if let Some(done) = self.gather.answer(id, index, answer) {
            let response = (done.shape)(&done.answers);
            self.respond(done.request, response, out);
        }
    }

    /// A lookup from disk is done.
    pub(crate) fn handle_lookup(
        &mut self,
        now: Now,
        token: ReadToken,
        found: Result<Option<pelton_log::FoundTimestamp>, String>,
        out: &mut Vec<Effect>,
    ) {
        let Some(waiter) = self.lookups.remove(&token) else { return };
        let answer = match found {
            Ok(found) => found_answer(found),
            Err(text) => {
                self.log_error(out, format!("a ListOffsets failed: {text}"));
                PartitionAnswer::ListOffset {
                    error: ErrorCode::KafkaStorageError,
                    timestamp: -1,
                    offset: -1,
                    leader_epoch: -1,
                }
            }
        };
        self.tell(now, waiter.asker, answer, out);
    }

    /// The log's stable end, a replica's log start or the time has moved: DeleteRecords that waited for it are answered.
    pub(crate) fn advance_deletes(&mut self, now: Now, out: &mut Vec<Effect>) {
        for wait in std::mem::take(&mut self.delete_waits) {
            match self.deleted(now, &wait) {
                Some((error, low_watermark)) => {
                    let answer = PartitionAnswer::DeleteRecords { error, low_watermark };
                    self.tell(now, wait.asker, answer, out);
                }
                None => self.delete_waits.push_back(wait),
            }
        }
    }

    /// When a DeleteRecords is not waited for any more, nanoseconds.
    pub(crate) fn deletes_deadline(&self) -> Option<u64> {
        self.delete_waits.iter().map(|wait| wait.due_ns).min()
    }

    /// What a DeleteRecords that waits is to be answered; none: it waits on. As Kafka's DelayedDeleteRecords, the replicas of
    /// nodes that live are waited for, whether or not they are in sync.
    fn deleted(&self, now: Now, wait: &DeleteWait) -> Option<(ErrorCode, i64)> {
        let low_watermark = match self.partitions.hosted(wait.slot).filter(|hosted| hosted.key == wait.key) {
            Some(hosted) => {
                let state = hosted.host.state();
                if state.leader_epoch() != wait.leader_epoch
                    || state.check_read(now.monotonic_ns, self.lease()).is_err()
                {
                    return Some((ErrorCode::NotLeaderOrFollower, -1));
                }
                let (image, alone) = (&self.image, self.sabotaged(Sabotage::DeleteAlone));
                let lives = |replica| image.is_live(replica) && !alone;
                state.low_watermark(self.storage.log_start_offset(wait.slot), lives).0
            }
            None if self.partitions.local(wait.slot).is_some() => wait.offset,
            None => return Some((ErrorCode::NotLeaderOrFollower, -1)),
        };
        match wait.commit <= self.storage.flushed() && low_watermark >= wait.offset {
            true => Some((ErrorCode::None, low_watermark)),
            false if now.monotonic_ns >= wait.due_ns => Some((ErrorCode::RequestTimedOut, low_watermark)),
            false => None,
        }
    }

    fn run_operation(&mut self, now: Now, asker: Asker, op: PartitionOp, out: &mut Vec<Effect>) {
        let Some(slot) = self.slot_to_read(op.key(), op.of_any_replica()) else {
            let error = match self.partitions.route(op.key()) {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(_) => ErrorCode::NotLeaderOrFollower,
            };
            return self.tell(now, asker, PartitionAnswer::error_for(&op, error), out);
        };
        let answer = match op {
            PartitionOp::ListOffset { timestamp, current_leader_epoch, .. } => {
                self.list_offset(now, asker, slot, timestamp, current_leader_epoch, out)
            }
            PartitionOp::DeleteRecords { key, offset, timeout_ms } => {
                let due_ns = now.after_ms(i64::from(timeout_ms.max(0)));
                self.delete_records(now, asker, (slot, key), offset, due_ns, out)
            }
            PartitionOp::EpochEnd { leader_epoch, current_leader_epoch, .. } => {
                Some(self.epoch_end(now, slot, leader_epoch, current_leader_epoch))
            }
            PartitionOp::Producers { .. } => Some(self.producers_of(slot)),
        };
        if let Some(answer) = answer {
            self.tell(now, asker, answer, out);
        }
    }

    fn list_offset(
        &mut self,
        now: Now,
        asker: Asker,
        slot: pelton_log::PartitionSlot,
        timestamp: i64,
        current_leader_epoch: i32,
        out: &mut Vec<Effect>,
    ) -> Option<PartitionAnswer> {
        let at = |error, timestamp, offset, leader_epoch| {
            Some(PartitionAnswer::ListOffset { error, timestamp, offset, leader_epoch })
        };
        let Some(local) = self.readable(slot) else {
            return at(ErrorCode::NotLeaderOrFollower, -1, -1, -1);
        };
        if let Err(error) = local.state.check_leader_epoch(current_leader_epoch) {
            return at(error, -1, -1, -1);
        }
        let (now_ns, lease) = (now.monotonic_ns, self.lease());
        let checked = match timestamp {
            LATEST => local.state.check_latest(now_ns, lease),
            _ => local.state.check_read(now_ns, lease),
        };
        let high_watermark = match checked {
            Ok(high_watermark) => high_watermark,
            Err(error) => return at(error, -1, -1, -1),
        };
        let leader_epoch = local.state.leader_epoch();
        let first = self.storage.log_start_offset(slot);
        let first_epoch = local.epochs.epoch_for_offset(first).map_or(-1, |epoch| epoch.0);
        let start = match timestamp {
            LATEST => return at(ErrorCode::None, -1, high_watermark.0, leader_epoch.0),
            EARLIEST | EARLIEST_LOCAL => return at(ErrorCode::None, -1, first.0, first_epoch),
            LATEST_TIERED => return at(ErrorCode::None, -1, -1, -1),
            MAX_TIMESTAMP => self.storage.start_max_timestamp_lookup(slot, high_watermark, &mut self.disk),
            timestamp if timestamp >= 0 => {
                self.storage.start_timestamp_lookup(slot, timestamp, high_watermark, &mut self.disk)
            }
            _ => return at(ErrorCode::UnsupportedVersion, -1, -1, -1),
        };
        self.emit_disk(out);
        match start {
            LookupStart::Ready(found) => Some(found_answer(found)),
            LookupStart::Pending(token) => {
                self.lookups.insert(token, LookupWaiter { asker });
                None
            }
        }
    }

    fn delete_records(
        &mut self,
        now: Now,
        asker: Asker,
        (slot, key): (PartitionSlot, PartitionKey),
        offset: i64,
        due_ns: u64,
        out: &mut Vec<Effect>,
    ) -> Option<PartitionAnswer> {
        let refuse = |error| Some(PartitionAnswer::DeleteRecords { error, low_watermark: -1 });
        let Some(local) = self.readable(slot) else { return refuse(ErrorCode::NotLeaderOrFollower) };
        if let Err(error) = local.state.check_read(now.monotonic_ns, self.lease()) {
            return refuse(error);
        }
        let config = local.config;
        if config.compacted && !config.deleted {
            // Only compaction may take records out of such a topic.
            return refuse(ErrorCode::PolicyViolation);
        }
        let leader_epoch = local.state.leader_epoch();
        let high_watermark = self.high_watermark(slot);
        let offset = if offset == -1 { high_watermark } else { offset };
        let log_start_offset = self.storage.log_start_offset(slot).0;
        if offset < 0 || offset > high_watermark {
            return refuse(ErrorCode::OffsetOutOfRange);
        }
        if offset <= log_start_offset && self.partitions.local(slot).is_some() {
            let low_watermark = log_start_offset;
            return Some(PartitionAnswer::DeleteRecords { error: ErrorCode::None, low_watermark });
        }
        let commit = match self.partitions.local_mut(slot) {
            // It is done here; others may have yet to follow.
            _ if offset <= log_start_offset => self.storage.flushed(),
            Some(local) => {
                local.epochs.truncate_from_start(Offset(offset));
                self.storage.set_log_start_offset(slot, Offset(offset))
            }
            None => match self.drop_hosted_before(now, key, Offset(offset), out) {
                Some(commit) => commit,
                None => return refuse(ErrorCode::NotLeaderOrFollower),
            },
        };
        let wait = DeleteWait { commit, asker, slot, key, leader_epoch, offset, due_ns };
        match self.deleted(now, &wait) {
            Some((error, low_watermark)) => Some(PartitionAnswer::DeleteRecords { error, low_watermark }),
            None => {
                self.delete_waits.push_back(wait);
                None
            }
        }
    }

    /// Where an operation is done: by the leader, or by the replica of this node that can do it as well.
    fn route_of(&self, op: &PartitionOp) -> Option<Route> {
        let replica = if op.of_any_replica() { self.replica_route(op.key()) } else { None };
        replica.or_else(|| self.partitions.route(op.key()))
    }

    fn producers_of(&self, slot: pelton_log::PartitionSlot) -> PartitionAnswer {
        match self.readable(slot) {
            Some(local) => {
                let producers = local.producers.describe();
                PartitionAnswer::Producers { error: ErrorCode::None, producers }
            }
            None => {
                let error = ErrorCode::NotLeaderOrFollower;
                PartitionAnswer::Producers { error, producers: Vec::new() }
            }
        }
    }

    fn epoch_end(
        &self,
        now: Now,
        slot: pelton_log::PartitionSlot,
        leader_epoch: i32,
        current_leader_epoch: i32,
    ) -> PartitionAnswer {
        let refuse = |error| PartitionAnswer::EpochEnd { error, leader_epoch: -1, end_offset: -1 };
        let Some(local) = self.readable(slot) else { return refuse(ErrorCode::NotLeaderOrFollower) };
        let checked = local.state.check_leader_epoch(current_leader_epoch);
        let checked = checked.and_then(|()| local.state.check_read(now.monotonic_ns, self.lease()).map(drop));
        if let Err(error) = checked {
            return refuse(error);
        }
        let (leader_epoch, end) =
            local.epochs.end_offset_for(leader_epoch, self.storage.log_end_offset(slot));
        PartitionAnswer::EpochEnd { error: ErrorCode::None, leader_epoch, end_offset: end.0 }
    }

    fn tell(&mut self, now: Now, asker: Asker, answer: PartitionAnswer, out: &mut Vec<Effect>) {
        match asker {
            Asker::Here { id, index } => self.handle_gather_answer(now, id, index, answer, out),
            Asker::Shard { from, id, index } => {
                out.push(Effect::ToShard {
                    to: from,
                    message: ShardMessage::PartitionDone { id, index, answer },
                });
            }
        }
    }
}

fn found_answer(found: Option<pelton_log::FoundTimestamp>) -> PartitionAnswer {
    let (timestamp, offset, leader_epoch) =
        found.map_or((-1, -1, -1), |f| (f.timestamp_ms, f.offset.0, f.leader_epoch.0));
    PartitionAnswer::ListOffset { error: ErrorCode::None, timestamp, offset, leader_epoch }
}
