//! Random lives: appends to partitions of every durability, deletions, reads, crashes of both kinds, clean stops; checked
//! against a plain list of what was appended.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::{Offset, Prng, TopicConfig};
use pelton_wire::record_batch;

use super::disk::Faults;
use super::world::*;
use crate::*;

const PARTITIONS: u128 = 6;

/// What one partition should hold: the batches' contents by base offset, and what was promised.
#[derive(Clone, Default)]
struct Expected {
    batches: BTreeMap<i64, (i64, Bytes)>,
    end: i64,
    written: i64,
    flushed: i64,
    start: i64,
    start_promised: i64,
    start_commit: u64,
}

fn topic(number: u128) -> TopicConfig {
    let (flush_messages, flush_ms) = [(1, i64::MAX), (i64::MAX, 20), (7, i64::MAX)][number as usize % 3];
    TopicConfig {
        flush_messages,
        flush_ms,
        segment_bytes: 30_000 + 7000 * number as i32,
        file_delete_delay_ms: 5,
        index_interval_bytes: 1000,
        retention_ms: -1,
        retention_bytes: if number.is_multiple_of(2) { -1 } else { 40_000 * number as i64 },
        ..TopicConfig::default()
    }
}

struct Life {
    world: World,
    slots: Vec<PartitionSlot>,
    expected: Vec<Expected>,
    serial: i64,
    /// Recovery came to its end; what is found before that may be lost once more.
    ready: bool,
}

impl Life {
    fn open(&mut self) {
        self.slots = (0..PARTITIONS).map(|n| self.world.storage.open_partition(key(n), &topic(n))).collect();
    }

    fn act(&mut self, prng: &mut Prng) {
        let which = prng.below(PARTITIONS as u64) as usize;
        let slot = self.slots[which];
        let expected = &mut self.expected[which];
        match prng.below(20) {
            0..8 => {
                let size = [10, 300, 3000, 20_000][prng.below(4) as usize];
                self.serial += 1;
                let batch = batch(1 + prng.below(3) as usize, size, self.serial);
                if self.world.storage.admit(batch.len()) == Admission::Yes {
                    let appended = self.world.append(slot, batch.clone());
                    assert_eq!(appended.base_offset.0, expected.end);
                    expected.batches.insert(expected.end, (appended.last_offset.0 + 1, batch));
                    expected.end = appended.last_offset.0 + 1;
                }
            }
            8 if prng.one_in(4) => {
                let flushed = self.world.storage.flushed_end_offset(slot).0;
                let offset = expected.start + prng.below((flushed - expected.start).max(0) as u64 + 1) as i64;
                expected.start_commit = self.world.storage.set_log_start_offset(slot, Offset(offset)).0;
                expected.start = offset;
            }
            8 if prng.one_in(2) => {
                let high_watermark = self.world.storage.flushed_end_offset(slot);
                if let Some(start) = self.world.storage.apply_retention(self.world.now, slot, high_watermark)
                {
                    assert!(start <= high_watermark);
                    expected.start_commit = u64::MAX;
                    expected.start = start.0;
                }
            }
            9 => self.read_some(prng, which),
            10 if prng.one_in(5) => {
                let faults = &mut self.world.disk.faults;
                let on = !faults.segment_full && !faults.checkpoint_full && prng.one_in(3);
                (faults.segment_full, faults.checkpoint_full) = (on, on && prng.one_in(2));
                self.world.now.monotonic_ns += 1_000_000_000;
            }
            10 => self.world.now.monotonic_ns += prng.below(10_000_000),
            11..14 => self.world.turn(),
            _ => {
                self.world.turn();
                for _ in 0..prng.below(4) {
                    if !self.world.disk.pending.is_empty() {
                        let index = prng.below(self.world.disk.pending.len() as u64) as usize;
                        self.world.step(index);
                    }
                }
            }
        }
        self.note_promises();
    }

    fn note_promises(&mut self) {
        // A stop without room ends recovery, too, but proves nothing.
        if !self.world.progress.stopped {
            self.ready = self.world.storage.is_ready();
        }
        if !self.ready {
            return;
        }
        for (slot, expected) in self.slots.iter().zip(&mut self.expected) {
            expected.written = expected.written.max(self.world.storage.written_end_offset(*slot).0);
            expected.flushed = expected.flushed.max(self.world.storage.flushed_end_offset(*slot).0);
            if self.world.storage.flushed().0 >= expected.start_commit {
                expected.start_promised = expected.start;
            }
            let shown = self.world.storage.log_start_offset(*slot).0;
            expected.start_promised = expected.start_promised.max(shown);
        }
    }

    fn read_some(&mut self, prng: &mut Prng, which: usize) {
        let slot = self.slots[which];
        let (start, upper) =
            (self.world.storage.log_start_offset(slot).0, self.world.storage.written_end_offset(slot).0);
        if upper > start {
            let from = start + prng.below((upper - start) as u64) as i64;
            let upper = self.expected[which].batches.range(..upper).next_back().unwrap().1.0;
            self.compare(which, from, upper, 1 + prng.below(40_000) as usize);
        }
    }

    fn compare(&mut self, which: usize, from: i64, upper: i64, max_bytes: usize) {
        let found = self.world.read_all(self.slots[which], from, upper, max_bytes);
        for bytes in found {
            let info = record_batch::peek(&bytes).unwrap();
            let (_, expected) = &self.expected[which].batches[&info.base_offset];
            assert_eq!(bytes[61..], expected[61..], "content at {}", info.base_offset);
        }
    }

    /// A new life: what must be there is there, what is there is taken as the truth from now on.
    fn begin_again(mut self, power_cut: bool) -> Life {
        self.note_promises();
        let Life { world, expected, serial, .. } = self;
        let world = world.restart().unwrap();
        let mut life = Life { world, slots: Vec::new(), expected, serial, ready: false };
        life.open();
        for (which, slot) in life.slots.clone().into_iter().enumerate() {
            let (start, end) =
                (life.world.storage.log_start_offset(slot).0, life.world.storage.log_end_offset(slot).0);
            let expected = &mut life.expected[which];
            let promised = if power_cut { expected.flushed } else { expected.written };
            assert!(end >= promised && end <= expected.end, "{promised} <= {end} <= {}", expected.end);
            assert!(start >= expected.start_promised && start <= expected.start, "start {start}");
            expected.batches.retain(|base, _| *base < end);
            expected.end = end;
            expected.start = start;
            expected.start_commit = 0;
            expected.written = expected.written.min(end);
            if end > start {
                life.compare(which, start, end, 30_000);
            }
        }
        life
    }
}

pub fn live(seed: u64, config: StorageConfig) {
    let mut prng = Prng::new(seed);
    let expected = vec![Expected::default(); PARTITIONS as usize];
    let world = World::new(config);
    let mut life = Life { world, slots: Vec::new(), expected, serial: 0, ready: false };
    life.open();
    for _ in 0..12 {
        for _ in 0..prng.below(400) {
            life.act(&mut prng);
        }
        let power_cut = life.world.end_randomly(3, &mut prng);
        life = life.begin_again(power_cut);
    }
    life.world.disk.faults = Faults::default();
    life.world.now.monotonic_ns += 2_000_000_000;
    life.world.settle();
    assert_eq!(life.world.storage.admit(10), Admission::Yes);
    for which in 0..PARTITIONS as usize {
        let (start, end) = (life.expected[which].start, life.expected[which].end);
        if end > start {
            life.compare(which, start, end, 1 << 20);
        }
    }
}

#[test]
fn random_lives() {
    for seed in 0..100 {
        live(seed, small());
    }
}

#[test]
fn random_lives_with_more_in_flight() {
    for seed in 1000..1030 {
        live(seed, StorageConfig { writes_in_flight: 4, lay_down_bytes: 4096, ..small() });
    }
}

#[test]
fn random_lives_with_direct_batches() {
    for seed in 2000..2300 {
        let direct_bytes = [500, 5_000, 15_000][seed as usize % 3];
        live(seed, StorageConfig { direct_bytes, writes_in_flight: 1 + seed as usize % 4, ..small() });
    }
}
