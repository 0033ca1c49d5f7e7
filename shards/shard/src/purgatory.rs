//! Requests that wait for a high watermark or a deadline (Kafka's purgatory). Holds names only: what to do when one is
//! due is the caller's. Costs nothing while nothing waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Names a waiting operation; unique within a shard.
pub type OperationId = u64;

/// Deadlines of operations, earliest first. An operation that is gone before its deadline is skipped when due.
#[derive(Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, OperationId)>>,
}

impl Deadlines {
    /// Adds one, at `deadline_ns` on the monotonic clock.
    pub fn add(&mut self, deadline_ns: u64, id: OperationId) {
        self.heap.push(Reverse((deadline_ns, id)));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((deadline_ns, _))| *deadline_ns)
    }

    /// Takes one operation whose deadline has passed.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<OperationId> {
        match self.heap.peek() {
            Some(Reverse((deadline_ns, _))) if *deadline_ns <= now_ns => {
                self.heap.pop().map(|Reverse((_, id))| id)
            }
            _ => None,
        }
    }

    /// Drops deadlines of operations that no longer exist, when they have become the most.
    pub fn compact(&mut self, live: impl Fn(OperationId) -> bool, live_count: usize) {
        if self.heap.len() > 64 + 4 * live_count {
            self.heap = self.heap.drain().filter(|Reverse((_, id))| live(*id)).collect();
        }
    }
}

/// Who waits for which partition, by an index of the caller's.
#[derive(Default)]
pub struct Watchers {
    by_partition: BTreeMap<u32, Vec<OperationId>>,
}

impl Watchers {
    /// `id` wants to hear of `partition`.
    pub fn add(&mut self, partition: u32, id: OperationId) {
        let ids = self.by_partition.entry(partition).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }

    /// `id` no longer wants to.
    pub fn remove(&mut self, partition: u32, id: OperationId) {
        if let Some(ids) = self.by_partition.get_mut(&partition) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_partition.remove(&partition);
            }
        }
    }

    /// Everyone who waits for `partition`; they stay registered.
    pub fn of(&self, partition: u32) -> &[OperationId] {
        self.by_partition.get(&partition).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_only_when_due() {
        let mut deadlines = Deadlines::default();
        deadlines.add(20, 2);
        deadlines.add(10, 1);
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(15), Some(1));
        assert_eq!(deadlines.pop_due(15), None);
        assert_eq!(deadlines.next(), Some(20));
    }

    #[test]
    fn watchers_are_told_until_removed() {
        let mut watchers = Watchers::default();
        watchers.add(1, 7);
        watchers.add(1, 7);
        assert_eq!(watchers.of(1), &[7]);
        watchers.remove(1, 7);
        assert!(watchers.of(1).is_empty());
    }
}
