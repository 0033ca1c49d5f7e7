//! Runs fetch operations: reads parts here and on other shards, parks an operation that has too little, wakes it when
//! something is committed, and hands it on when it may be answered.

use std::collections::BTreeMap;

use pelton_log::{PartitionSlot, ReadPlan, ReadStart, ReadToken};
use pelton_model::{Now, Offset, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::api::partition::{FetchAnswer, PartitionAnswer, Records};
use crate::effect::Effect;
use crate::fetch_operation::{FetchOperation, FetchOrigin, Target};
use crate::message::{FetchPart, RequestId, ShardMessage};
use crate::purgatory::{Deadlines, OperationId, Watchers};

/// Every fetch of a shard that is not answered yet.
#[derive(Default)]
pub struct Fetches {
    operations: BTreeMap<OperationId, FetchOperation>,
    reads: BTreeMap<ReadToken, OperationId>,
    /// Reads asked of other shards, with the pass they belong to.
    asked: BTreeMap<RequestId, (OperationId, u64)>,
    watched: BTreeMap<RequestId, OperationId>,
    deadlines: Deadlines,
    watchers: Watchers,
    foreign_watches: BTreeMap<OperationId, ForeignWatch>,
}

/// Another shard that wants to hear of partitions here.
struct ForeignWatch {
    from: ShardId,
    request: RequestId,
    slots: Vec<PartitionSlot>,
}

impl Fetches {
    /// The earliest deadline.
    pub fn deadline(&self) -> Option<u64> {
        self.deadlines.next()
    }
}

impl Shard {
    /// Starts a fetch.
    pub(crate) fn start_fetch(&mut self, now: Now, operation: FetchOperation, out: &mut Vec<Effect>) {
        let id = self.next_id();
        self.fetches.operations.insert(id, operation);
        self.begin_fetch_pass(now, id, out);
    }

    fn begin_fetch_pass(&mut self, now: Now, id: OperationId, out: &mut Vec<Effect>) {
        let Some(operation) = self.fetches.operations.get_mut(&id) else { return };
        operation.begin_pass();
        let (pass, bytes_max) = (operation.pass, operation.bytes_max);
        let mut foreign: BTreeMap<ShardId, Vec<FetchPart>> = BTreeMap::new();
        for (target, part) in &operation.parts {
            if let Target::Foreign(shard) = target {
                foreign.entry(*shard).or_default().push(part.clone());
            }
        }
        operation.foreign_open = foreign.len();
        for (shard, parts) in foreign {
            let request = self.next_id();
            self.fetches.asked.insert(request, (id, pass));
            let message = ShardMessage::Fetch { id: request, parts, response_bytes_max: bytes_max };
            out.push(Effect::ToShard { to: shard, message });
        }
        self.continue_fetch(now, id, out);
    }

    /// Reads on until a disk read must be awaited or the pass is complete.
    fn continue_fetch(&mut self, now: Now, id: OperationId, out: &mut Vec<Effect>) {
        loop {
            let Some(operation) = self.fetches.operations.get(&id) else { return };
            if operation.pass_complete() {
                return self.settle_fetch(now, id, out);
            }
            let Some((target, part)) = operation.parts.get(operation.cursor) else { return };
            let Target::Local(slot) = *target else {
                self.advance_cursor(id, None);
                continue;
            };
            let found = operation.bytes();
            let left = operation.bytes_max.saturating_sub(found);
            let into_memory = matches!(operation.origin, FetchOrigin::Shard { .. });
            let part = part.clone();
            let room = Room { bytes_left: left, first: found == 0, into_memory };
            match self.read_local(now, slot, &part, room, out) {
                ReadLocal::Answer(answer) => self.advance_cursor(id, Some(answer)),
                ReadLocal::Pending(token) => {
                    self.fetches.reads.insert(token, id);
                    return;
                }
            }
        }
    }

    fn advance_cursor(&mut self, id: OperationId, answer: Option<FetchAnswer>) {
        if let Some(operation) = self.fetches.operations.get_mut(&id) {
            if let Some(answer) = answer {
                operation.answers[operation.cursor] = Some(answer);
            }
            operation.cursor += 1;
        }
    }

    /// A read this shard's log had to make from disk is done.
    pub(crate) fn handle_read(
        &mut self,
        now: Now,
        token: ReadToken,
        plan: Result<ReadPlan, String>,
        out: &mut Vec<Effect>,
    ) {
        if self.handle_load_read(now, token, &plan, out) || self.handle_host_read(now, token, &plan, out) {
            return;
        }
        let Some(id) = self.fetches.reads.remove(&token) else { return };
        let Some(operation) = self.fetches.operations.get(&id) else { return };
        let Some((Target::Local(slot), part)) = operation.parts.get(operation.cursor) else { return };
        let answer = match plan {
            // Its segment went while it was being looked through.
            Ok(ReadPlan::Empty) | Err(_) if part.fetch_offset < self.storage.log_start_offset(*slot) => {
                self.out_of_range(now, *slot)
            }
            Ok(plan) => match self.check_hosted_read(now, *slot, part.any_replica) {
                Ok(()) => self.fetch_answer(*slot, plan),
                Err(error) => FetchAnswer::error(error),
            },
            Err(text) => {
                self.log_error(out, format!("a fetch failed: {text}"));
                FetchAnswer::error(ErrorCode::KafkaStorageError)
            }
        };
        self.advance_cursor(id, Some(answer));
        self.continue_fetch(now, id, out);
    }

    /// Another shard's answer to this shard's `Fetch`.
    pub(crate) fn handle_fetch_done(
        &mut self,
        now: Now,
        request: RequestId,
        results: Vec<(u32, PartitionAnswer)>,
        out: &mut Vec<Effect>,
    ) {
        let Some((id, pass)) = self.fetches.asked.remove(&request) else { return };
        let Some(operation) = self.fetches.operations.get_mut(&id) else { return };
        if operation.pass != pass {
            return;
        }
        for (index, answer) in results {
            if let (Some(place), PartitionAnswer::Fetch(answer)) =
                (operation.answers.get_mut(index as usize), answer)
            {
                *place = Some(answer);
            }
        }
        operation.foreign_open -= 1;
        if operation.pass_complete() {
            self.settle_fetch(now, id, out);
        }
    }

    /// A pass is complete: answer, or park.
    fn settle_fetch(&mut self, now: Now, id: OperationId, out: &mut Vec<Effect>) {
        let Some(operation) = self.fetches.operations.get_mut(&id) else { return };
        if self.stopping || operation.may_answer(now.monotonic_ns) {
            if let Some(mut operation) = self.fetches.operations.remove(&id) {
                operation.trim();
                self.finish_fetch(now, operation, out);
            }
            return;
        }
        operation.parked = true;
        let deadline_ns = operation.deadline_ns;
        let mut foreign: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
        for ((target, part), answer) in operation.parts.iter().zip(&operation.answers) {
            match target {
                Target::Local(slot) => self.fetches.watchers.add(slot.0, id),
                Target::Foreign(shard) => {
                    let known = answer.as_ref().map_or(0, |answer| answer.high_watermark);
                    foreign.entry(*shard).or_default().push((part.key, Offset(known), part.any_replica));
                }
                Target::Refused(_) => {}
            }
        }
        if operation.pass == 1 {
            self.fetches.deadlines.add(deadline_ns, id);
        }
        for (shard, parts) in foreign {
            let request = self.next_id();
            self.fetches.watched.insert(request, id);
            out.push(Effect::ToShard { to: shard, message: ShardMessage::Watch { id: request, parts } });
        }
        let operations = &self.fetches.operations;
        self.fetches.deadlines.compact(|id| operations.contains_key(&id), operations.len());
    }

    /// Stops waiting: local watches and those on other shards.
    fn unpark(&mut self, id: OperationId, out: &mut Vec<Effect>) -> bool {
        let Some(operation) = self.fetches.operations.get_mut(&id) else { return false };
        if !operation.parked {
            return false;
        }
        operation.parked = false;
        let mut shards = Vec::new();
        for (target, _) in &operation.parts {
            match target {
                Target::Local(slot) => self.fetches.watchers.remove(slot.0, id),
                Target::Foreign(shard) if !shards.contains(shard) => shards.push(*shard),
                _ => {}
            }
        }
        if !shards.is_empty() {
            let requests: Vec<RequestId> = self
                .fetches
                .watched
                .iter()
                .filter(|(_, of)| **of == id)
                .map(|(request, _)| *request)
                .collect();
            for request in requests {
                self.fetches.watched.remove(&request);
                for shard in &shards {
                    out.push(Effect::ToShard { to: *shard, message: ShardMessage::Unwatch { id: request } });
                }
            }
        }
        true
    }

    /// Something was committed to a partition here: wake who waits for it.
    pub(crate) fn wake_fetches(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        let waiting = self.fetches.watchers.of(slot.0).to_vec();
        for id in waiting {
            if let Some(watch) = self.fetches.foreign_watches.remove(&id) {
                for slot in watch.slots {
                    self.fetches.watchers.remove(slot.0, id);
                }
                let message = ShardMessage::WatchFired { id: watch.request };
                out.push(Effect::ToShard { to: watch.from, message });
            } else if self.unpark(id, out) {
                self.begin_fetch_pass(now, id, out);
            }
        }
    }

    /// Another shard reports that a partition there has moved.
    pub(crate) fn handle_watch_fired(&mut self, now: Now, request: RequestId, out: &mut Vec<Effect>) {
        if let Some(id) = self.fetches.watched.remove(&request)
            && self.unpark(id, out)
        {
            self.begin_fetch_pass(now, id, out);
        }
    }

    /// Another shard wants to hear when one of `parts` moves.
    pub(crate) fn handle_watch(
        &mut self,
        from: ShardId,
        request: RequestId,
        parts: Vec<(pelton_model::PartitionKey, Offset, bool)>,
        out: &mut Vec<Effect>,
    ) {
        let mut slots = Vec::new();
        let mut fire = false;
        for (key, known, any_replica) in parts {
            match self.slot_to_read(key, any_replica) {
                Some(slot) if self.high_watermark(slot) <= known.0 => slots.push(slot),
                _ => fire = true,
            }
        }
        if fire || slots.is_empty() {
            out.push(Effect::ToShard { to: from, message: ShardMessage::WatchFired { id: request } });
            return;
        }
        let id = self.next_id();
        for slot in &slots {
            self.fetches.watchers.add(slot.0, id);
        }
        self.fetches.foreign_watches.insert(id, ForeignWatch { from, request, slots });
    }

    /// Another shard no longer waits.
    pub(crate) fn handle_unwatch(&mut self, from: ShardId, request: RequestId) {
        let found = self
            .fetches
            .foreign_watches
            .iter()
            .find(|(_, watch)| (watch.from, watch.request) == (from, request))
            .map(|(id, _)| *id);
        if let Some(id) = found
            && let Some(watch) = self.fetches.foreign_watches.remove(&id)
        {
            for slot in watch.slots {
                self.fetches.watchers.remove(slot.0, id);
            }
        }
    }

    /// Fetches whose time is up are answered with what there is.
    pub(crate) fn expire_fetches(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(id) = self.fetches.deadlines.pop_due(now.monotonic_ns) {
            if self.unpark(id, out) {
                self.begin_fetch_pass(now, id, out);
            }
        }
    }

    /// Answers every parked fetch now: the shard stops.
    pub(crate) fn flush_fetches(&mut self, now: Now, out: &mut Vec<Effect>) {
        let parked: Vec<OperationId> =
            self.fetches.operations.iter().filter(|(_, op)| op.parked).map(|(id, _)| *id).collect();
        for id in parked {
            if self.unpark(id, out) {
                self.begin_fetch_pass(now, id, out);
            }
        }
    }

    /// Drops the fetches of a connection that is gone.
    pub(crate) fn drop_fetches_of(&mut self, connection: pelton_model::ConnectionId, out: &mut Vec<Effect>) {
        let ids: Vec<OperationId> = self
            .fetches
            .operations
            .iter()
            .filter(|(_, op)| op.is_of(connection))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.unpark(id, out);
            self.fetches.operations.remove(&id);
        }
    }

    /// Re-reads parked fetches of a partition that is no longer here, so that they tell their clients.
    pub(crate) fn refuse_fetches_of(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        self.wake_fetches(now, slot, out);
    }

    fn read_local(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        part: &FetchPart,
        room: Room,
        out: &mut Vec<Effect>,
    ) -> ReadLocal {
        let Room { bytes_left, first, into_memory } = room;
        let (state, epochs) = match self.partitions.local(slot) {
            Some(local) => (&local.state, &local.epochs),
            None => match self.hosted_for_read(now, slot, part.any_replica) {
                Ok(host) => (host.state(), host.epochs()),
                Err(error) => return ReadLocal::Answer(FetchAnswer::error(error)),
            },
        };
        if let Err(error) = state.check_leader_epoch(part.current_leader_epoch) {
            return ReadLocal::Answer(FetchAnswer::error(error));
        }
        let log_end_offset = self.storage.log_end_offset(slot);
        let high_watermark = state.high_watermark();
        if part.last_fetched_epoch >= 0 {
            let (epoch, end) = epochs.end_offset_for(part.last_fetched_epoch, log_end_offset);
            if epoch < part.last_fetched_epoch || end < part.fetch_offset {
                let mut answer = self.fetch_answer(slot, ReadPlan::Empty);
                answer.diverging_epoch = Some((epoch, end.0));
                return ReadLocal::Answer(answer);
            }
        }
        if part.fetch_offset < self.storage.log_start_offset(slot) || part.fetch_offset > log_end_offset {
            return ReadLocal::Answer(self.out_of_range(now, slot));
        }
        if let Some(preferred) = part.redirect
            && part.fetch_offset <= high_watermark
            && state.check_read(now.monotonic_ns, self.lease()).is_ok()
        {
            // Whoever is in sync has all that is committed. Nothing is read.
            let answer = self.fetch_answer(slot, ReadPlan::Empty);
            return ReadLocal::Answer(FetchAnswer { preferred, ..answer });
        }
        let bytes_max = part.partition_bytes_max.min(bytes_left);
        if (bytes_max == 0 && !first) || part.fetch_offset >= high_watermark {
            return ReadLocal::Answer(self.fetch_answer(slot, ReadPlan::Empty));
        }
        let start = self.storage.start_read(
            slot,
            part.fetch_offset,
            bytes_max,
            high_watermark,
            first,
            into_memory,
            &mut self.disk,
        );
        self.emit_disk(out);
        match start {
            Ok(ReadStart::Ready(plan)) => ReadLocal::Answer(self.fetch_answer(slot, plan)),
            Ok(ReadStart::Pending(token)) => ReadLocal::Pending(token),
            Err(_) => ReadLocal::Answer(self.out_of_range(now, slot)),
        }
    }

    /// The answer to an offset that the log here does not have. Only a leader knows that it is none: a replica that is behind or
    /// has just begun sends the consumer there, which might start over otherwise.
    fn out_of_range(&self, now: Now, slot: PartitionSlot) -> FetchAnswer {
        let led = self.check_hosted_read(now, slot, false);
        FetchAnswer::error(led.err().unwrap_or(ErrorCode::OffsetOutOfRange))
    }

    fn fetch_answer(&self, slot: PartitionSlot, plan: ReadPlan) -> FetchAnswer {
        FetchAnswer {
            error: ErrorCode::None,
            high_watermark: self.high_watermark(slot),
            log_start_offset: self.storage.log_start_offset(slot).0,
            diverging_epoch: None,
            preferred: -1,
            records: match plan {
                ReadPlan::Empty => Records::empty(),
                ReadPlan::Memory { batches } => Records::Memory(batches),
                ReadPlan::File { file, position, length, laid_to } => {
                    Records::File { file, position, length, laid_to }
                }
            },
        }
    }

    /// The slot of a partition led here or, if that will do, of a replica of it.
    pub(crate) fn slot_to_read(
        &self,
        key: pelton_model::PartitionKey,
        any_replica: bool,
    ) -> Option<PartitionSlot> {
        let follower = || if any_replica { self.hosted_slot(key) } else { None };
        self.partitions.slot(key).or_else(follower)
    }

    /// The partition's high watermark; 0 if it is not led here.
    pub(crate) fn high_watermark(&self, slot: PartitionSlot) -> i64 {
        match self.partitions.local(slot) {
            Some(local) => local.state.high_watermark().0,
            None => self.partitions.hosted(slot).map_or(0, |hosted| hosted.host.state().high_watermark().0),
        }
    }
}

/// How a part is read: within how many bytes, as the first that has records, and whether they must be in memory.
#[derive(Clone, Copy)]
struct Room {
    bytes_left: usize,
    first: bool,
    into_memory: bool,
}

enum ReadLocal {
    Answer(FetchAnswer),
    Pending(ReadToken),
}
