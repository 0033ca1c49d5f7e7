//! Produce requests whose batches are appended but not yet committed: who waits for which offset of which partition.
//! An acknowledgement leaves here only when the high watermark has passed its batch (replication rule R7).

use std::collections::VecDeque;

use pelton_log::PartitionSlot;
use pelton_replica::partition::AckState;
use pelton_wire::error_code::ErrorCode;

use crate::api::partition::PartitionAnswer;

/// Names a waiting request; never used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckId {
    place: u32,
    serial: u64,
}

/// Where a part of a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartState {
    /// Its answer is final.
    Decided,
    /// Its answer holds when the partition here is committed beyond this offset.
    Here(PartitionSlot, i64),
    /// The same, but it is the end of the leader's own log that counts (acks=1 where there are several replicas).
    HereAlone(PartitionSlot, i64),
    /// Another shard will say.
    Elsewhere,
}

/// One part of a request.
#[derive(Debug)]
pub struct Part {
    /// What the asker calls it: a client's partition index, another shard's name.
    pub number: i32,
    /// Where it stands.
    pub state: PartState,
    /// The answer, in the end.
    pub answer: PartitionAnswer,
}

/// A produce request all of whose parts are decided, or have been given up.
#[derive(Debug)]
pub struct Acknowledged<O> {
    /// Who asked.
    pub origin: O,
    /// Its parts, in the order of the request.
    pub parts: Vec<Part>,
}

struct Pending<O> {
    serial: u64,
    origin: O,
    parts: Vec<Part>,
    remaining: usize,
    deadline_ns: u64,
}

struct Wait {
    last_offset: i64,
    id: AckId,
    index: u32,
}

/// The waiting requests of one shard, whose askers are named by `O`.
pub struct Acks<O> {
    places: Vec<Option<Pending<O>>>,
    free: Vec<u32>,
    next_serial: u64,
    by_partition: Vec<VecDeque<Wait>>,
    alone_by_partition: Vec<VecDeque<Wait>>,
}

impl<O> Default for Acks<O> {
    fn default() -> Acks<O> {
        Acks {
            places: Vec::new(),
            free: Vec::new(),
            next_serial: 0,
            by_partition: Vec::new(),
            alone_by_partition: Vec::new(),
        }
    }
}

impl<O> Acks<O> {
    /// Enters a request at least one of whose parts is not decided.
    pub fn add(&mut self, origin: O, parts: Vec<Part>, deadline_ns: u64) -> AckId {
        let serial = self.next_serial;
        self.next_serial += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        let id = AckId { place, serial };
        let mut remaining = 0;
        for (index, part) in parts.iter().enumerate() {
            remaining += usize::from(part.state != PartState::Decided);
            if let PartState::Here(slot, last_offset) = part.state {
                let queue = slot.0 as usize;
                if self.by_partition.len() <= queue {
                    self.by_partition.resize_with(queue + 1, VecDeque::new);
                }
                self.by_partition[queue].push_back(Wait { last_offset, id, index: index as u32 });
            } else if let PartState::HereAlone(slot, last_offset) = part.state {
                let queue = slot.0 as usize;
                if self.alone_by_partition.len() <= queue {
                    self.alone_by_partition.resize_with(queue + 1, VecDeque::new);
                }
                self.alone_by_partition[queue].push_back(Wait { last_offset, id, index: index as u32 });
            }
        }
        self.places[place as usize] = Some(Pending { serial, origin, parts, remaining, deadline_ns });
        id
    }

    /// The partition's high watermark is now `high_watermark`: what that decides.
    pub fn advance(&mut self, slot: PartitionSlot, high_watermark: i64, done: &mut Vec<Acknowledged<O>>) {
        loop {
            let Some(queue) = self.by_partition.get_mut(slot.0 as usize) else { return };
            match queue.front() {
                Some(wait) if wait.last_offset < high_watermark => {
                    let (id, index) = (wait.id, wait.index);
                    queue.pop_front();
                    self.decide(id, index, None, done);
                }
                _ => return,
            }
        }
    }

    /// Decides what waits for a partition with several replicas, oldest first, as `state` says of acks and last offset.
    pub fn settle(
        &mut self,
        slot: PartitionSlot,
        mut state: impl FnMut(i16, i64) -> AckState,
        done: &mut Vec<Acknowledged<O>>,
    ) {
        for acks in [-1, 1] {
            loop {
                let queues = if acks == 1 { &mut self.alone_by_partition } else { &mut self.by_partition };
                let Some(queue) = queues.get_mut(slot.0 as usize) else { break };
                let Some(wait) = queue.front() else { break };
                let error = match state(acks, wait.last_offset) {
                    AckState::Wait => break,
                    AckState::Done => None,
                    AckState::Failed(error) => Some(PartitionAnswer::produce_error(error, None)),
                };
                let (id, index) = (wait.id, wait.index);
                queue.pop_front();
                self.decide(id, index, error, done);
            }
        }
    }

    /// The answer of one part has come from the shard that leads it.
    pub fn answer(
        &mut self,
        id: AckId,
        index: u32,
        answer: PartitionAnswer,
        done: &mut Vec<Acknowledged<O>>,
    ) {
        self.decide(id, index, Some(answer), done);
    }

    /// Gives up every part that waits for the partition.
    pub fn fail(
        &mut self,
        slot: PartitionSlot,
        error: ErrorCode,
        text: &str,
        done: &mut Vec<Acknowledged<O>>,
    ) {
        let queues = [&mut self.by_partition, &mut self.alone_by_partition];
        let queues = queues.map(|queues| queues.get_mut(slot.0 as usize).map(std::mem::take));
        for wait in queues.into_iter().flatten().flatten() {
            let answer = PartitionAnswer::produce_error(error, Some(text.to_string()));
            self.decide(wait.id, wait.index, Some(answer), done);
        }
    }

    /// Gives up requests past their deadline, the oldest first; their batches may still be committed, as Kafka says of
    /// REQUEST_TIMED_OUT.
    pub fn expire(&mut self, now_ns: u64, done: &mut Vec<Acknowledged<O>>) {
        let late = self.places.iter().enumerate().filter_map(|(place, pending)| {
            let pending = pending.as_ref().filter(|pending| pending.deadline_ns <= now_ns)?;
            Some(AckId { place: place as u32, serial: pending.serial })
        });
        let mut late: Vec<AckId> = late.collect();
        late.sort_unstable_by_key(|id| id.serial);
        for id in late {
            let Some(mut pending) = self.take(id) else { continue };
            for part in pending.parts.iter_mut().filter(|part| part.state != PartState::Decided) {
                part.answer = PartitionAnswer::produce_error(ErrorCode::RequestTimedOut, None);
            }
            done.push(Acknowledged { origin: pending.origin, parts: pending.parts });
        }
    }

    /// True while nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    fn take(&mut self, id: AckId) -> Option<Pending<O>> {
        let place = self.places.get_mut(id.place as usize)?;
        let taken = place.take_if(|pending| pending.serial == id.serial)?;
        self.free.push(id.place);
        Some(taken)
    }

    fn decide(
        &mut self,
        id: AckId,
        index: u32,
        answer: Option<PartitionAnswer>,
        done: &mut Vec<Acknowledged<O>>,
    ) {
        let place = self.places.get_mut(id.place as usize).and_then(Option::as_mut);
        let Some(pending) = place.filter(|pending| pending.serial == id.serial) else { return };
        let part = pending.parts.get_mut(index as usize).filter(|part| part.state != PartState::Decided);
        let Some(part) = part else { return };
        part.state = PartState::Decided;
        if let Some(answer) = answer {
            part.answer = answer;
        }
        pending.remaining -= 1;
        if pending.remaining == 0
            && let Some(pending) = self.take(id)
        {
            done.push(Acknowledged { origin: pending.origin, parts: pending.parts });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(slot: u32, last_offset: i64) -> Part {
        let answer = PartitionAnswer::Produce {
            error: ErrorCode::None,
            message: None,
            base_offset: 0,
            log_append_time_ms: -1,
            log_start_offset: 0,
            record_errors: Vec::new(),
        };
        Part { number: 0, state: PartState::Here(PartitionSlot(slot), last_offset), answer }
    }

    #[test]
    fn acknowledged_only_when_every_part_is_below_the_high_watermark() {
        let mut acks = Acks::default();
        let mut done = Vec::new();
        let (a, b) = (PartitionSlot(0), PartitionSlot(1));
        acks.add("r", vec![waiting(0, 4), waiting(1, 9)], 100);
        acks.advance(a, 4, &mut done);
        assert!(done.is_empty(), "offset 4 is not below high watermark 4");
        acks.advance(a, 5, &mut done);
        assert!(done.is_empty());
        acks.advance(b, 10, &mut done);
        assert_eq!((done.len(), done[0].origin, acks.is_empty()), (1, "r", true));
    }

    #[test]
    fn failure_and_expiry_name_the_error() {
        let mut acks = Acks::default();
        let mut done = Vec::new();
        acks.add(1, vec![waiting(0, 0)], 100);
        acks.add(2, vec![waiting(3, 0)], 50);
        acks.expire(60, &mut done);
        assert_eq!((done.len(), done[0].origin), (1, 2));
        acks.fail(PartitionSlot(0), ErrorCode::KafkaStorageError, "disk", &mut done);
        let PartitionAnswer::Produce { error, .. } = &done[1].parts[0].answer else { panic!("{done:?}") };
        assert_eq!(*error, ErrorCode::KafkaStorageError);
        acks.advance(PartitionSlot(0), 9, &mut done);
        assert_eq!(done.len(), 2);
    }

    #[test]
    fn what_a_given_up_request_waited_for_does_not_answer_the_next_in_its_place() {
        let mut acks = Acks::default();
        let mut done = Vec::new();
        let old = acks.add("old", vec![waiting(0, 4)], 50);
        acks.expire(60, &mut done);
        let new = acks.add("new", vec![waiting(1, 7)], 100);
        assert_eq!((old.place, acks.is_empty()), (new.place, false));
        acks.advance(PartitionSlot(0), 5, &mut done);
        acks.answer(old, 0, PartitionAnswer::produce_error(ErrorCode::None, None), &mut done);
        assert_eq!(done.len(), 1, "only the old one is decided");
        acks.advance(PartitionSlot(1), 8, &mut done);
        assert_eq!((done.len(), done[1].origin), (2, "new"));
    }

    #[test]
    fn replicated_partitions_are_settled_by_what_their_replica_says_of_each() {
        let mut acks = Acks::default();
        let mut done = Vec::new();
        let alone = |last| Part { state: PartState::HereAlone(PartitionSlot(1), last), ..waiting(1, last) };
        acks.add("all", vec![waiting(1, 4)], 100);
        acks.add("one", vec![alone(6)], 100);
        acks.add("later", vec![alone(9)], 100);
        let state = |acks, last| match (acks, last) {
            (-1, _) => AckState::Failed(ErrorCode::NotEnoughReplicasAfterAppend),
            (_, ..=6) => AckState::Done,
            _ => AckState::Wait,
        };
        acks.settle(PartitionSlot(1), state, &mut done);
        let codes: Vec<_> = done
            .iter()
            .map(|it| match &it.parts[0].answer {
                PartitionAnswer::Produce { error, .. } => (it.origin, *error),
                other => panic!("{other:?}"),
            })
            .collect();
        let too_few = ErrorCode::NotEnoughReplicasAfterAppend;
        assert_eq!(codes, [("all", too_few), ("one", ErrorCode::None)]);
        acks.fail(PartitionSlot(1), ErrorCode::NotLeaderOrFollower, "gone", &mut done);
        assert_eq!((done.len(), done[2].origin, acks.is_empty()), (3, "later", true));
    }
}
