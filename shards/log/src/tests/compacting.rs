//! Compaction: what stays and what goes, where readers find it, and what a crash leaves at any point of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::{Offset, Prng, TopicConfig};
use pelton_wire::compression::Codec;
use pelton_wire::record_batch::{self, BatchIter};
use pelton_wire::records::{BatchBuilder, Records};

use super::world::*;
use crate::disk::{DiskEffect, FileKind};
use crate::*;

pub fn compacted() -> TopicConfig {
    TopicConfig {
        compacted: true,
        deleted: false,
        segment_bytes: 3_000,
        file_delete_delay_ms: 0,
        index_interval_bytes: 500,
        min_cleanable_dirty_ppm: 0,
        delete_retention_ms: 10_000,
        ..TopicConfig::default()
    }
}

/// A batch of records of these keys; a value of no bytes stands for none.
pub fn keyed(producer: i64, codec: Codec, records: &[(&str, usize)]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if producer >= 0 {
        builder = builder.producer(producer, 0, 0);
    }
    for (number, (key, size)) in records.iter().enumerate() {
        let value = vec![b'v'; *size];
        let value = (*size > 0).then_some(&value[..]);
        builder.add(1_000_000 + number as i64, Some(key.as_bytes()), value, &[]);
    }
    Bytes::from(builder.build().unwrap())
}

/// All records from `start` on, as (offset, key, length of value), and the batches they are in.
pub fn contents(
    world: &mut World,
    slot: PartitionSlot,
    start: i64,
) -> (Vec<(i64, String, usize)>, Vec<Bytes>) {
    let end = world.storage.written_end_offset(slot).0;
    let (mut next, mut records, mut batches) = (start, Vec::new(), Vec::new());
    while next < end {
        let found = world.read(slot, next, end, 4_000, next % 2 == 0);
        assert!(!found.is_empty(), "nothing at {next} of {end}");
        for stretch in found {
            let mut at = 0;
            for (info, batch) in BatchIter::new(&stretch) {
                assert!(record_batch::crc_matches(batch));
                assert!(info.last_offset() >= next, "batch {} for {next}", info.base_offset);
                next = info.last_offset() + 1;
                batches.push(stretch.slice(at..at + batch.len()));
                at += batch.len();
                for record in Records::of(batch, 1 << 20).unwrap().iter() {
                    let record = record.unwrap();
                    let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                    records.push((record.offset, key, record.value.map_or(0, <[u8]>::len)));
                }
            }
        }
    }
    (records, batches)
}

/// Compacts until nothing more is worth it; the reports.
fn compact(world: &mut World, slot: PartitionSlot, last_offsets: &[(i64, i64)]) -> Vec<CompactionReport> {
    let mut reports = Vec::new();
    for _ in 0..50 {
        world.settle();
        let upper = world.storage.flushed_end_offset(slot);
        if world.storage.dirt(world.now, slot, upper).is_none() {
            world.settle();
            if world.storage.dirt(world.now, slot, upper).is_none() {
                return reports;
            }
        }
        let last_offsets: BTreeMap<i64, Offset> =
            last_offsets.iter().map(|(id, offset)| (*id, Offset(*offset))).collect();
        if !world.storage.start_compaction(world.now, slot, upper, last_offsets) {
            continue;
        }
        while world.storage.is_compacting() {
            world.now.monotonic_ns += 1_000_000;
            world.settle();
        }
        reports.push(world.storage.take_compaction_report().unwrap());
    }
    panic!("there is always something to compact: {reports:?}");
}

fn bases(world: &World) -> Vec<i64> {
    let files = world.disk.files();
    files.iter().filter(|file| file.kind == FileKind::Log).map(|file| file.base_offset.0).collect()
}

/// `rounds` batches of one record each of keys k0 to k4 in turn, and a segment more so that all of it has ended.
fn filled(config: StorageConfig, topic: TopicConfig, rounds: i64) -> (World, PartitionSlot) {
    let mut world = World::new(config);
    world.topic = topic;
    let slot = world.open(0);
    for round in 0..rounds {
        let key = format!("k{}", round % 5);
        world.append_patiently(slot, keyed(-1, Codec::None, &[(&key, 400)]));
        world.settle();
    }
    for _ in 0..2 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("last", 2_500)]));
        world.settle();
    }
    (world, slot)
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    let (mut world, slot) = filled(small(), compacted(), 60);
    let reports = compact(&mut world, slot, &[]);
    assert!(reports[0].failure.is_none() && reports[0].kept_bytes < reports[0].read_bytes / 3, "{reports:?}");
    let (records, _) = contents(&mut world, slot, 0);
    let kept: Vec<(i64, String)> = records.iter().map(|(offset, key, _)| (*offset, key.clone())).collect();
    let expected: Vec<(i64, String)> = (55..60).map(|round| (round, format!("k{}", round % 5))).collect();
    assert_eq!(kept[..5], expected);
    assert_eq!(
        (world.storage.log_start_offset(slot), world.storage.log_end_offset(slot)),
        (Offset(0), Offset(62))
    );
    for from in 0..62 {
        let upper = world.storage.log_end_offset(slot).0;
        let bytes = world.read(slot, from, upper, 1, from % 3 == 0);
        let first = record_batch::peek(&bytes[0]).unwrap();
        let expected = if from < 55 { 55 } else { from };
        assert_eq!(first.base_offset, expected, "a read inside a gap gets the next batch");
    }
    let size = world.storage.size_bytes(slot);
    assert!(size < 12_000, "{size}");
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    world.settle();
    assert_eq!(contents(&mut world, slot, 0).0, records);
    assert!(compact(&mut world, slot, &[]).is_empty(), "a restart does not make it dirty again");
}

#[test]
fn nothing_above_the_high_watermark_or_in_the_last_segment_is_touched() {
    let (mut world, slot) = filled(small(), compacted(), 60);
    world.stop_cleanly();
    let mut world = world.restart().unwrap();
    let slot = world.open(slot.0.into());
    world.settle();
    let before = contents(&mut world, slot, 0).0;
    assert!(world.storage.dirt(world.now, slot, Offset(3)).is_none());
    assert!(world.storage.start_compaction(world.now, slot, Offset(30), BTreeMap::new()));
    while world.storage.is_compacting() {
        world.now.monotonic_ns += 1_000_000;
        world.settle();
    }
    let after = contents(&mut world, slot, 0).0;
    let tail =
        |records: &[(i64, String, usize)]| records.iter().filter(|r| r.0 >= 30).cloned().collect::<Vec<_>>();
    assert_eq!(tail(&after), tail(&before));
    assert!(after.len() < before.len());
    assert!(
        after.iter().any(|record| record.0 < 30),
        "the last of each key below stays: later ones do not count"
    );
}

#[test]
fn tombstones_stay_for_their_time_and_what_they_delete_does_not() {
    tombstones(small());
}

pub fn tombstones(config: StorageConfig) {
    let (mut world, slot) = filled(config, compacted(), 20);
    for key in ["k1", "k3"] {
        world.append_patiently(slot, keyed(-1, Codec::Zstd, &[(key, 0)]));
    }
    for _ in 0..2 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("last", 2_500)]));
        world.settle();
    }
    compact(&mut world, slot, &[]);
    let of = |world: &mut World, key: &str| {
        let (records, _) = contents(world, slot, 0);
        records.iter().filter(|r| r.1 == key).map(|r| (r.0, r.2)).collect::<Vec<_>>()
    };
    assert_eq!((of(&mut world, "k1"), of(&mut world, "k3")), (vec![(22, 0)], vec![(23, 0)]));
    assert_eq!(of(&mut world, "k2").len(), 1);
    world.now.wall_ms += 9_999;
    for _ in 0..3 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("last", 2_500)]));
        world.settle();
    }
    compact(&mut world, slot, &[]);
    assert_eq!(of(&mut world, "k1"), [(22, 0)], "delete.retention.ms counts from when compaction met it");
    world.now.wall_ms += 1;
    for _ in 0..3 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("last", 2_500)]));
        world.settle();
    }
    compact(&mut world, slot, &[]);
    assert!(of(&mut world, "k1").is_empty() && of(&mut world, "k3").is_empty());
    assert_eq!(of(&mut world, "k2").len(), 1);
}

#[test]
fn the_last_batch_of_a_producer_stays_without_its_records() {
    last_batch_of_producer(small());
}

pub fn last_batch_of_producer(config: StorageConfig) {
    let mut world = World::new(config);
    world.topic = compacted();
    let slot = world.open(0);
    world.append_patiently(slot, keyed(77, Codec::Lz4, &[("a", 300), ("b", 300)]));
    world.append_patiently(slot, keyed(78, Codec::Lz4, &[("a", 300), ("b", 300)]));
    for _ in 0..12 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("a", 500), ("b", 500)]));
        world.settle();
    }
    compact(&mut world, slot, &[(77, 1)]);
    let (records, batches) = contents(&mut world, slot, 0);
    assert!(records.iter().all(|record| record.0 >= 4), "{records:?} {:?}", bases(&world));
    let infos: Vec<_> = batches.iter().map(|batch| record_batch::peek(batch).unwrap()).collect();
    assert_eq!((infos[0].producer_id, infos[0].last_offset(), infos[0].records_count), (77, 1, 0));
    assert!(infos.iter().all(|info| info.producer_id != 78), "a producer that is no more leaves nothing");
}

#[test]
fn a_small_map_takes_several_passes() {
    let config = StorageConfig { dedupe_bytes: 24 * 4, ..small() };
    let (mut world, slot) = filled(config, compacted(), 60);
    let reports = compact(&mut world, slot, &[]);
    assert!(reports.len() > 3 && reports.iter().all(|report| !report.ended_early), "{reports:?}");
    let (records, _) = contents(&mut world, slot, 0);
    for key in 0..5 {
        let last = records.iter().filter(|r| r.1 == format!("k{key}")).map(|r| r.0).max();
        assert_eq!(last, Some(55 + key));
    }
}

#[test]
fn lags_and_ratio_decide() {
    let lag = TopicConfig { min_compaction_lag_ms: 50_000, ..compacted() };
    let (mut world, slot) = filled(small(), lag, 60);
    world.now.wall_ms = 1_040_000;
    let upper = world.storage.flushed_end_offset(slot);
    assert!(world.storage.dirt(world.now, slot, upper).is_none());
    world.now.wall_ms = 1_060_000;
    let dirt = world.storage.dirt(world.now, slot, upper).unwrap();
    assert_eq!((dirt.overdue, dirt.ratio_ppm), (false, 1_000_000));
    let topic = TopicConfig { min_cleanable_dirty_ppm: 999_999, ..compacted() };
    world.storage.set_config(slot, &topic);
    compact(&mut world, slot, &[]);
    for _ in 0..6 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("k1", 2_500)]));
        world.settle();
    }
    let upper = world.storage.flushed_end_offset(slot);
    assert!(world.storage.dirt(world.now, slot, upper).is_none(), "part of it is clean");
    world.settle();
    let topic = TopicConfig { max_compaction_lag_ms: 1_000, ..topic };
    world.storage.set_config(slot, &topic);
    assert!(world.storage.dirt(world.now, slot, upper).unwrap().overdue);
    world.storage.set_config(slot, &TopicConfig { compacted: false, ..topic });
    assert!(world.storage.dirt(world.now, slot, upper).is_none());
}

#[test]
fn damage_is_left_as_it_is() {
    let (world, _) = filled(small(), compacted(), 60);
    let mut world = world.restart().unwrap();
    world.settle();
    let slot = world.open(0);
    let before = bases(&world);
    let file = *world.disk.files().iter().find(|file| file.kind == FileKind::Log).unwrap();
    world.disk.flip(&file, 100);
    let upper = world.storage.flushed_end_offset(slot);
    assert!(world.storage.start_compaction(world.now, slot, upper, BTreeMap::new()));
    while world.storage.is_compacting() {
        world.now.monotonic_ns += 1_000_000;
        world.settle();
    }
    let report = world.storage.take_compaction_report().unwrap();
    assert!(report.failure.unwrap().contains("checksum"));
    assert_eq!(bases(&world), before);
    assert!(world.storage.dirt(world.now, slot, upper).is_none(), "it is not tried again and again");
}

#[test]
fn a_reader_in_the_middle_goes_on_in_the_new_segment() {
    let (world, _) = filled(small(), compacted(), 60);
    let mut world = world.restart().unwrap();
    world.settle();
    let slot = world.open(0);
    let upper = world.storage.flushed_end_offset(slot);
    let out = &mut world.disk.pending;
    let start = world.storage.start_read(slot, Offset(11), 1, upper, true, true, out).unwrap();
    let ReadStart::Pending(token) = start else { panic!("{start:?}") };
    let held: Vec<DiskEffect> = std::mem::take(&mut world.disk.pending);
    assert!(world.storage.start_compaction(world.now, slot, upper, BTreeMap::new()));
    while world.storage.is_compacting() {
        world.now.monotonic_ns += 1_000_000;
        world.settle();
    }
    world.settle();
    world.disk.pending = held;
    while world.progress.reads.is_empty() {
        assert!(!world.disk.pending.is_empty());
        world.step(0);
    }
    let (found, plan) = world.progress.reads.remove(0);
    assert_eq!(found, token);
    let ReadPlan::Memory { batches } = plan.unwrap() else { panic!("not in memory") };
    assert_eq!(record_batch::peek(&batches[0]).unwrap().base_offset, 55);
}

/// A crash after `steps` operations of a compaction: all keys keep their last value, and in the end no file is left that no
/// log knows. True if there was no operation to crash at any more.
pub fn crash_at(config: StorageConfig, prng: &mut Prng, steps: u64) -> bool {
    let (world, _) = filled(config, compacted(), 40);
    let mut world = world.restart().unwrap();
    world.settle();
    let slot = world.open(0);
    let upper = world.storage.flushed_end_offset(slot);
    assert!(world.storage.start_compaction(world.now, slot, upper, BTreeMap::new()));
    let mut left = steps;
    while left > 0 && (world.storage.is_compacting() || !world.disk.pending.is_empty()) {
        world.now.monotonic_ns += 1_000_000;
        world.turn();
        if !world.disk.pending.is_empty() {
            let index = prng.below(world.disk.pending.len() as u64) as usize;
            world.step(index);
            left -= 1;
        }
    }
    if prng.one_in(2) {
        world.disk.power_cut(prng);
    } else {
        world.disk.kill(prng);
    }
    let mut world = world.restart().unwrap_or_else(|error| panic!("step {steps}: {error}"));
    let slot = world.open(0);
    let (records, _) = contents(&mut world, slot, 0);
    for key in 0..5 {
        let last = records.iter().filter(|r| r.1 == format!("k{key}")).map(|r| r.0).max();
        assert_eq!(last, Some(35 + key), "step {steps}");
    }
    compact(&mut world, slot, &[]);
    world.now.monotonic_ns += 1_000_000_000;
    world.stop_cleanly();
    let mut world = world.restart().unwrap();
    world.settle();
    let slot = world.open(0);
    assert_eq!(contents(&mut world, slot, 0).0.len(), 7, "step {steps}");
    let mut found = bases(&world);
    let count = found.len();
    found.dedup();
    assert_eq!(found.len(), count, "a file too many: {:?}", world.disk.files());
    left > 0
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_leaves_nothing() {
    for seed in 0..4 {
        let mut prng = Prng::new(seed);
        let over = (0..).find(|steps| crash_at(small(), &mut prng, *steps));
        assert!(over.is_some_and(|steps| steps > 8), "{over:?}");
    }
}

#[test]
fn a_stop_at_any_step_ends_the_compaction_with_what_is_in_flight() {
    for steps in 0..200 {
        // A pause between two steps that nobody would want to wait for.
        let config = StorageConfig { compaction_bytes_per_second: 1_000, ..small() };
        let (mut world, slot) = filled(config, compacted(), 40);
        let upper = world.storage.flushed_end_offset(slot);
        assert!(world.storage.start_compaction(world.now, slot, upper, BTreeMap::new()));
        for _ in 0..steps {
            match world.disk.pending.is_empty() {
                true => world.now.monotonic_ns += 200_000_000_000,
                false => world.step(0),
            }
            world.turn();
        }
        let is_over = !world.storage.is_compacting();
        world.stop_cleanly();
        assert!(is_over || world.storage.take_compaction_report().is_some_and(|report| report.ended_early));
        let mut world = world.restart().unwrap();
        world.settle();
        let slot = world.open(0);
        let (records, _) = contents(&mut world, slot, 0);
        for key in 0..5 {
            let last = records.iter().filter(|r| r.1 == format!("k{key}")).map(|r| r.0).max();
            assert_eq!(last, Some(35 + key), "step {steps}");
        }
        if is_over {
            return assert!(steps > 8);
        }
    }
    panic!("the compaction never ends");
}

#[test]
fn segments_that_ended_in_memory_are_awaited_and_no_others() {
    let (mut world, slot) = filled(StorageConfig { lay_down_bytes: 1 << 20, ..small() }, compacted(), 0);
    assert!(!world.storage.awaits_ended_segments(slot));
    for _ in 0..6 {
        world.append_patiently(slot, keyed(-1, Codec::None, &[("k1", 900)]));
    }
    world.settle();
    let upper = world.storage.flushed_end_offset(slot);
    assert!(world.storage.dirt(world.now, slot, upper).is_none(), "nothing of it is on disk");
    assert!(world.storage.awaits_ended_segments(slot));
    world.settle();
    assert!(!world.storage.awaits_ended_segments(slot));
    assert!(world.storage.dirt(world.now, slot, upper).is_some());
}
