//! Random lives of compacted partitions: appends, compactions, reads, faults, crashes of both kinds; against a list of what
//! was appended.

use std::collections::BTreeMap;

use pelton_model::{Prng, TopicConfig};
use pelton_wire::compression::Codec;

use super::compacting::{compacted, contents, keyed};
use super::disk::Faults;
use super::world::*;
use crate::segment::SegmentName;
use crate::*;

const PARTITIONS: u128 = 3;
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What was appended: by offset the key and the length of the value (0 = none), and when.
type Appended = BTreeMap<i64, (String, usize, i64)>;

struct Life {
    world: World,
    slots: Vec<PartitionSlot>,
    appended: Vec<Appended>,
    tombstone_ms: i64,
}

fn topic(number: u128, tombstone_ms: i64) -> TopicConfig {
    TopicConfig {
        segment_bytes: 4_000 + 3_000 * number as i32,
        delete_retention_ms: tombstone_ms,
        file_delete_delay_ms: 5 * number as i64,
        ..compacted()
    }
}

impl Life {
    fn open(&mut self) {
        let topic = |n| topic(n, self.tombstone_ms);
        self.slots = (0..PARTITIONS).map(|n| self.world.storage.open_partition(key(n), &topic(n))).collect();
    }

    fn act(&mut self, prng: &mut Prng) {
        let which = prng.below(PARTITIONS as u64) as usize;
        let slot = self.slots[which];
        match prng.below(20) {
            0..6 => {
                let codec = [Codec::None, Codec::Lz4, Codec::Zstd][prng.below(3) as usize];
                let record = |prng: &mut Prng| {
                    let size = [0, 10, 300, 3_000][prng.below(4) as usize];
                    (KEYS[prng.below(KEYS.len() as u64) as usize], size)
                };
                let records: Vec<(&str, usize)> = (0..1 + prng.below(3)).map(|_| record(prng)).collect();
                let batch = keyed(-1, codec, &records);
                if self.world.storage.admit(batch.len()) == Admission::Yes {
                    let base = self.world.append(slot, batch).base_offset.0;
                    let now_ms = self.world.now.wall_ms;
                    for (at, (key, size)) in records.iter().enumerate() {
                        self.appended[which].insert(base + at as i64, (key.to_string(), *size, now_ms));
                    }
                }
            }
            6..9 => {
                let upper = self.world.storage.flushed_end_offset(slot);
                if self.world.storage.dirt(self.world.now, slot, upper).is_some() {
                    self.world.storage.start_compaction(self.world.now, slot, upper, BTreeMap::new());
                }
            }
            9 => {
                self.world.now.wall_ms += prng.below(30) as i64;
                self.world.disk.faults = Faults { segment_full: prng.one_in(6), ..self.world.disk.faults };
                self.world.now.monotonic_ns += prng.below(1_500_000_000);
            }
            _ => {
                self.world.now.monotonic_ns += prng.below(1_500_000);
                self.world.turn();
                for _ in 0..prng.below(4) {
                    if !self.world.disk.pending.is_empty() {
                        let index = prng.below(self.world.disk.pending.len() as u64) as usize;
                        self.world.step(index);
                    }
                }
                self.world.storage.take_compaction_report();
            }
        }
    }

    /// Every record there is as it was appended, and of each key the last one is there, unless it has no value and had its
    /// time: then no earlier one is.
    fn judge(&mut self) {
        let now_ms = self.world.now.wall_ms;
        for (which, slot) in self.slots.clone().into_iter().enumerate() {
            let (records, _) = contents(&mut self.world, slot, 0);
            let appended = &self.appended[which];
            let mut last: BTreeMap<&str, i64> = BTreeMap::new();
            for (offset, (key, ..)) in appended {
                last.insert(key, *offset);
            }
            for (offset, key, size) in &records {
                assert_eq!(appended.get(offset).map(|a| (&a.0, a.1)), Some((key, *size)), "offset {offset}");
            }
            for (key, offset) in last {
                let (_, size, appended_ms) = &appended[&offset];
                let expired = *size == 0 && now_ms - appended_ms >= self.tombstone_ms;
                let of_key = records.iter().filter(|record| record.1 == key).map(|record| record.0).max();
                assert!(
                    of_key == Some(offset) || (expired && of_key.is_none()),
                    "{key}: {of_key:?}, not {offset}"
                );
            }
        }
    }

    fn begin_again(self) -> Life {
        let Life { world, mut appended, tombstone_ms, .. } = self;
        let world = world.restart().unwrap();
        let mut life = Life { world, slots: Vec::new(), appended: Vec::new(), tombstone_ms };
        life.open();
        for (slot, appended) in life.slots.iter().zip(&mut appended) {
            let end = life.world.storage.log_end_offset(*slot).0;
            appended.retain(|offset, _| *offset < end);
        }
        life.appended = appended;
        life
    }
}

fn live(seed: u64, config: StorageConfig) {
    let mut prng = Prng::new(seed);
    let tombstone_ms = [0, 20, 100_000][prng.below(3) as usize];
    let appended = vec![Appended::new(); PARTITIONS as usize];
    let mut life = Life { world: World::new(config), slots: Vec::new(), appended, tombstone_ms };
    life.open();
    for _ in 0..8 {
        for _ in 0..prng.below(600) {
            life.act(&mut prng);
        }
        life.world.disk.faults = Faults::default();
        match prng.below(4) {
            0 => {
                life.world.now.monotonic_ns += 2_000_000_000;
                life.world.stop_cleanly();
            }
            1 => life.world.disk.kill(&mut prng),
            _ => life.world.disk.power_cut(&mut prng),
        }
        life = life.begin_again();
        life.judge();
    }
    life.world.settle();
    life.world.now.monotonic_ns += 2_000_000_000;
    life.world.stop_cleanly();
    life = life.begin_again();
    life.world.settle();
    life.world.now.monotonic_ns += 2_000_000_000;
    life.world.settle();
    life.judge();
    // No result of compaction is left that no log knows.
    for file in life.world.disk.files().iter().filter(|file| file.generation != 0) {
        let name = SegmentName { base_offset: file.base_offset, generation: file.generation };
        let known = life.slots.iter().filter_map(|slot| life.world.storage.partition(*slot));
        assert!(known.into_iter().any(|p| p.key == file.partition && p.segment(name).is_some()), "{file:?}");
    }
}

#[test]
fn random_lives_of_compacted_partitions() {
    for seed in 0..150 {
        let dedupe_bytes = [24 * 4, 24 * 30, 1 << 20][seed as usize % 3];
        live(seed, StorageConfig { dedupe_bytes, ..small() });
    }
}

#[test]
fn random_lives_of_compacted_partitions_with_direct_batches() {
    for seed in 500..600 {
        live(seed, StorageConfig { direct_bytes: 1_000, writes_in_flight: 3, ..small() });
    }
}
