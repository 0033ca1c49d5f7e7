//! Random lives of followers' logs: batches with offsets and epochs of their own, cuts and restarts of logs, crashes of both
//! kinds and clean stops; checked against a plain list of what each log holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::{Offset, Prng, TopicConfig};
use pelton_wire::record_batch::{BatchIter, stamp};

use super::world::*;
use crate::*;

const PARTITIONS: u128 = 4;

/// What one log should hold.
#[derive(Clone, Default)]
struct Model {
    /// By base offset: the end, and the bytes.
    batches: BTreeMap<i64, (i64, Bytes)>,
    end: i64,
    written: i64,
    flushed: i64,
    /// A cut asked for: where, and whether the log begins anew there.
    cutting: Option<(i64, bool)>,
    /// As it was before a cut that a killed process had not flushed: until the next one has, power may bring it back.
    uncut: Option<Box<Model>>,
}

impl Model {
    /// As it is after a cut.
    fn cut(&self, (to, restart): (i64, bool)) -> Model {
        let mut after = self.clone();
        after.cutting = None;
        if restart {
            after.batches.clear();
            after.end = to;
        } else {
            let first = self.batches.iter().find(|(_, (end, _))| *end > to).map(|(base, _)| *base);
            after.end = to.min(self.end).min(first.unwrap_or(i64::MAX));
            after.batches.retain(|_, (end, _)| *end <= to);
        }
        (after.written, after.flushed) = (after.end, after.end);
        after
    }
}

struct Life {
    world: World,
    slots: Vec<PartitionSlot>,
    models: Vec<Model>,
    serial: i64,
    epoch: i32,
    ready: bool,
}

fn topic(number: u128) -> TopicConfig {
    let (flush_messages, flush_ms) = [(1, i64::MAX), (i64::MAX, 20)][number as usize % 2];
    TopicConfig {
        flush_messages,
        flush_ms,
        segment_bytes: 20_000 + 9000 * number as i32,
        file_delete_delay_ms: 0,
        index_interval_bytes: 1000,
        retention_ms: -1,
        retention_bytes: -1,
        ..TopicConfig::default()
    }
}

impl Life {
    fn open(&mut self) {
        self.slots = (0..PARTITIONS).map(|n| self.world.storage.open_partition(key(n), &topic(n))).collect();
    }

    fn act(&mut self, prng: &mut Prng) {
        let which = prng.below(PARTITIONS as u64) as usize;
        match prng.below(20) {
            0..8 => self.append(prng, which),
            8 | 9 => self.cut(prng, which),
            10 => self.world.now.monotonic_ns += prng.below(10_000_000),
            11 if self.models[which].cutting.is_none() => self.compare(which, &self.models[which].clone()),
            12..14 => self.world.turn(),
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
        self.note();
    }

    fn append(&mut self, prng: &mut Prng, which: usize) {
        let model = &mut self.models[which];
        if model.cutting.is_some() {
            return;
        }
        // The last is a compacted log: it has gaps.
        let gaps = which + 1 == PARTITIONS as usize;
        self.epoch += i32::from(prng.one_in(9));
        let (mut end, mut all, mut batches) = (model.end, Vec::new(), Vec::new());
        for _ in 0..1 + prng.below(3) {
            let size = [10, 300, 3000, 20_000][prng.below(4) as usize];
            self.serial += 1;
            let records = 1 + prng.below(3) as i64;
            let base = end + if gaps && prng.one_in(2) { prng.below(5) as i64 } else { 0 };
            let mut bytes = batch(records as usize, size, self.serial).to_vec();
            stamp(&mut bytes, base, self.epoch);
            end = base + records;
            all.extend_from_slice(&bytes);
            batches.push((base, (end, Bytes::from(bytes))));
        }
        if self.world.storage.admit(all.len()) == Admission::Yes {
            let appended = self.world.storage.append_followed(self.slots[which], Bytes::from(all));
            assert_eq!((appended.base_offset.0, appended.last_offset.0), (batches[0].0, end - 1));
            model.batches.extend(batches);
            model.end = end;
        }
    }

    fn cut(&mut self, prng: &mut Prng, which: usize) {
        let model = &mut self.models[which];
        if model.cutting.is_some() || !self.world.storage.is_ready() {
            return;
        }
        let first = model.batches.keys().next().copied().unwrap_or(model.end);
        let near = model.end - prng.below(12) as i64;
        let any = first + prng.below((model.end - first).max(0) as u64 + 1) as i64;
        let (to, restart) = match prng.below(8) {
            0 => (model.end + prng.below(20) as i64, true),
            1 | 2 => (any, false),
            _ => (near.max(first), false),
        };
        let slot = self.slots[which];
        assert!(match restart {
            true => self.world.storage.start_restart(slot, Offset(to)),
            false => self.world.storage.start_cut(slot, Offset(to)),
        });
        assert!(!self.world.storage.start_cut(slot, Offset(to)), "one at a time");
        model.cutting = Some((to, restart));
    }

    fn note(&mut self) {
        if !self.world.progress.stopped {
            self.ready = self.world.storage.is_ready();
        }
        for (slot, end) in std::mem::take(&mut self.world.progress.cuts) {
            let which = self.slots.iter().position(|other| *other == slot).unwrap();
            let cutting = self.models[which].cutting.expect("a cut nobody asked for");
            self.models[which] = self.models[which].cut(cutting);
            assert_eq!(end.0, self.models[which].end, "partition {which} cut to {cutting:?}");
        }
        if !self.ready {
            return;
        }
        for (slot, model) in self.slots.iter().zip(&mut self.models) {
            let storage = &self.world.storage;
            assert_eq!(storage.log_end_offset(*slot).0, model.end);
            assert!(storage.written_end_offset(*slot).0 <= model.end);
            model.uncut = None;
            model.written = model.written.max(storage.written_end_offset(*slot).0);
            model.flushed = model.flushed.max(storage.flushed_end_offset(*slot).0);
        }
    }

    /// Everything that is written is as it was appended.
    fn compare(&mut self, which: usize, model: &Model) {
        let slot = self.slots[which];
        let upper = self.world.storage.written_end_offset(slot).0;
        let wanted: Vec<&Bytes> =
            model.batches.values().filter(|(end, _)| *end <= upper).map(|(_, bytes)| bytes).collect();
        let (mut next, mut found) = (self.world.storage.base_offset(slot).0, 0);
        while found < wanted.len() {
            let pieces = self.world.read(slot, next, upper, 7000, next % 2 == 0);
            assert!(!pieces.is_empty(), "partition {which}: nothing at {next} of {upper}");
            for piece in pieces {
                for (info, bytes) in BatchIter::new(&piece) {
                    assert_eq!(bytes, &wanted[found][..], "partition {which} at {}", info.base_offset);
                    (next, found) = (info.last_offset() + 1, found + 1);
                }
            }
        }
    }

    /// A new life: each log is as it was, or as a cut that was asked for leaves it; nothing promised is gone, and nothing that
    /// was cut is back.
    fn begin_again(mut self, power_cut: bool) -> Life {
        self.note();
        let Life { world, models, serial, epoch, .. } = self;
        let world = world.restart().unwrap();
        let mut life = Life { world, slots: Vec::new(), models, serial, epoch: epoch + 1, ready: false };
        life.open();
        for which in 0..PARTITIONS as usize {
            let slot = life.slots[which];
            let (base, end) =
                (life.world.storage.base_offset(slot).0, life.world.storage.log_end_offset(slot).0);
            let model = life.models[which].clone();
            let promised = if power_cut { model.flushed } else { model.written };
            let mut found = match model.cutting.map(|cutting| model.cut(cutting)) {
                Some(cut) if end == cut.end && (end < promised || end == base) => {
                    Model { uncut: Some(Box::new(model)), ..cut }
                }
                _ if power_cut
                    && (end, base) != (model.end, end)
                    && model.uncut.as_ref().is_some_and(|uncut| uncut.end == end) =>
                {
                    *model.uncut.unwrap_or_default()
                }
                _ => {
                    let range = promised..=model.end;
                    assert!(range.contains(&end), "partition {which}: {end} is not in {range:?}");
                    model
                }
            };
            found.batches.retain(|_, (batch_end, _)| *batch_end <= end);
            (found.end, found.cutting) = (end, None);
            (found.written, found.flushed) = (found.written.min(end), found.flushed.min(end));
            life.compare(which, &found);
            life.models[which] = found;
        }
        life
    }
}

pub fn live(seed: u64, config: StorageConfig) {
    let mut prng = Prng::new(seed);
    let models = vec![Model::default(); PARTITIONS as usize];
    let world = World::new(config);
    let mut life = Life { world, slots: Vec::new(), models, serial: 0, epoch: 1, ready: false };
    life.open();
    for _ in 0..8 {
        for _ in 0..prng.below(300) {
            life.act(&mut prng);
        }
        let power_cut = life.world.end_randomly(4, &mut prng);
        life = life.begin_again(power_cut);
    }
    life.world.settle();
    life.note();
    for which in 0..PARTITIONS as usize {
        assert!(life.models[which].cutting.is_none());
        life.compare(which, &life.models[which].clone());
    }
    assert_eq!(life.world.storage.admit(10), Admission::Yes);
}

#[test]
fn lives_of_followers() {
    for seed in 0..1000 {
        let direct_bytes = [500, 5_000, 256 << 10][seed as usize % 3];
        live(seed, StorageConfig { direct_bytes, writes_in_flight: 1 + seed as usize % 4, ..small() });
    }
}
