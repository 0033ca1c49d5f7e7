//! Produce requests whose batches are appended but not yet committed: who waits for which offset of which partition.
//! An acknowledgement leaves here only when the high watermark has passed its batch (replication rule R7).

use std::collections::{BTreeMap, VecDeque};

use pelton_log::PartitionSlot;
use pelton_wire::error_code::ErrorCode;

use crate::api::partition::PartitionAnswer;

/// A produce request all of whose parts are decided, or have been given up.
#[derive(Debug)]
pub struct Acknowledged<O> {
    /// Who asked.
    pub origin: O,
    /// One answer per part, in the order of the request.
    pub answers: Vec<PartitionAnswer>,
}

struct Pending<O> {
    origin: O,
    answers: Vec<PartitionAnswer>,
    waiting: Vec<bool>,
    remaining: usize,
    deadline_ns: u64,
}

struct Wait {
    last_offset: i64,
    id: u64,
    index: u32,
}

/// The waiting requests of one shard, whose askers are named by `O`.
pub struct Acks<O> {
    pending: BTreeMap<u64, Pending<O>>,
    next_id: u64,
    by_partition: Vec<VecDeque<Wait>>,
}

impl<O> Default for Acks<O> {
    fn default() -> Acks<O> {
        Acks { pending: BTreeMap::new(), next_id: 0, by_partition: Vec::new() }
    }
}

impl<O> Acks<O> {
    /// Enters a request. `waits` names, for each part not yet decided: its index, and the partition here and the last
    /// offset it waits for (none: another shard will say). The answers of those parts count once they are due.
    pub fn add(
        &mut self,
        origin: O,
        answers: Vec<PartitionAnswer>,
        waits: &[(u32, Option<(PartitionSlot, i64)>)],
        deadline_ns: u64,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut waiting = vec![false; answers.len()];
        for (index, wait) in waits {
            waiting[*index as usize] = true;
            if let Some((slot, last_offset)) = wait {
                let queue = slot.0 as usize;
                if self.by_partition.len() <= queue {
                    self.by_partition.resize_with(queue + 1, VecDeque::new);
                }
                self.by_partition[queue].push_back(Wait { last_offset: *last_offset, id, index: *index });
            }
        }
        self.pending.insert(id, Pending { origin, answers, waiting, remaining: waits.len(), deadline_ns });
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

    /// The answer of one part has come from the shard that leads it.
    pub fn answer(&mut self, id: u64, index: u32, answer: PartitionAnswer, done: &mut Vec<Acknowledged<O>>) {
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
        let Some(queue) = self.by_partition.get_mut(slot.0 as usize) else { return };
        for wait in std::mem::take(queue) {
            let answer = PartitionAnswer::produce_error(error, Some(text.to_string()));
            self.decide(wait.id, wait.index, Some(answer), done);
        }
    }

    /// Gives up requests past their deadline; their batches may still be committed, as Kafka says of
    /// REQUEST_TIMED_OUT.
    pub fn expire(&mut self, now_ns: u64, done: &mut Vec<Acknowledged<O>>) {
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.deadline_ns <= now_ns).map(|(id, _)| *id).collect();
        for id in late {
            let Some(mut pending) = self.pending.remove(&id) else { continue };
            for (answer, waiting) in pending.answers.iter_mut().zip(&pending.waiting) {
                if *waiting {
                    *answer = PartitionAnswer::produce_error(ErrorCode::RequestTimedOut, None);
                }
            }
            done.push(Acknowledged { origin: pending.origin, answers: pending.answers });
        }
    }

    /// True while nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn decide(
        &mut self,
        id: u64,
        index: u32,
        answer: Option<PartitionAnswer>,
        done: &mut Vec<Acknowledged<O>>,
    ) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let index = index as usize;
        if !pending.waiting.get(index).copied().unwrap_or(false) {
            return;
        }
        pending.waiting[index] = false;
        if let Some(answer) = answer {
            pending.answers[index] = answer;
        }
        pending.remaining -= 1;
        if pending.remaining == 0
            && let Some(pending) = self.pending.remove(&id)
        {
            done.push(Acknowledged { origin: pending.origin, answers: pending.answers });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(base_offset: i64) -> PartitionAnswer {
        PartitionAnswer::Produce {
            error: ErrorCode::None,
            message: None,
            base_offset,
            log_append_time_ms: -1,
            log_start_offset: 0,
            record_errors: Vec::new(),
        }
    }

    #[test]
    fn acknowledged_only_when_every_part_is_below_the_high_watermark() {
        let mut acks = Acks::default();
        let mut done = Vec::new();
        let (a, b) = (PartitionSlot(0), PartitionSlot(1));
        acks.add("r", vec![ok(0), ok(7)], &[(0, Some((a, 4))), (1, Some((b, 9)))], 100);
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
        acks.add(1, vec![ok(0)], &[(0, Some((PartitionSlot(0), 0)))], 100);
        acks.add(2, vec![ok(0)], &[(0, Some((PartitionSlot(3), 0)))], 50);
        acks.expire(60, &mut done);
        assert_eq!((done.len(), done[0].origin), (1, 2));
        acks.fail(PartitionSlot(0), ErrorCode::KafkaStorageError, "disk", &mut done);
        let PartitionAnswer::Produce { error, .. } = &done[1].answers[0] else { panic!("{done:?}") };
        assert_eq!(*error, ErrorCode::KafkaStorageError);
        acks.advance(PartitionSlot(0), 9, &mut done);
        assert_eq!(done.len(), 2);
    }
}
