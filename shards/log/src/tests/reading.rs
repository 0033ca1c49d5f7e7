//! Reads and lookups from memory, from segments and across both; rolling, indexes, deletion.

use pelton_model::{Offset, TopicConfig};

use super::world::*;
use crate::disk::FileKind;
use crate::*;

/// A partition whose beginning is only in segments and whose end is only in memory; the memory evicted as it goes.
fn filled(topic: TopicConfig, batches: i64) -> (World, PartitionSlot) {
    let mut world = World::new(small());
    world.topic = topic;
    let slot = world.open(0);
    world.settle();
    for round in 0..batches {
        world.append_patiently(slot, batch(2, 700, round * 10));
        world.turn();
    }
    world.settle();
    (world, slot)
}

fn rolling() -> TopicConfig {
    TopicConfig {
        segment_bytes: 50_000,
        index_interval_bytes: 4096,
        file_delete_delay_ms: 0,
        ..TopicConfig::default()
    }
}

fn logs(world: &World) -> Vec<i64> {
    let files = world.disk.files();
    files.iter().filter(|file| file.kind == FileKind::Log).map(|file| file.base_offset.0).collect()
}

#[test]
fn every_offset_is_found_in_memory_and_in_segments() {
    let (mut world, slot) = filled(rolling(), 300);
    assert!(logs(&world).len() > 5, "{:?}", logs(&world));
    let partition = world.storage.partition(slot).unwrap();
    assert!(!partition.tail_holds(Offset(0)) && partition.tail_holds(Offset(599)));
    for max_bytes in [1, 1500, 3000, 20_000, 1 << 20] {
        let found = world.read_all(slot, 0, 600, max_bytes);
        assert_eq!(found.len(), 300);
        for (round, bytes) in found.iter().enumerate() {
            assert_eq!(bytes[bytes.len() - 2], (round * 10 + 1) as u8, "the content of batch {round}");
        }
    }
    for offset in 0..600 {
        let bytes = world.read(slot, offset, 600, 1, offset % 3 == 0);
        let info = pelton_wire::record_batch::peek(&bytes[0]).unwrap();
        assert_eq!(info.base_offset, offset - offset % 2, "the batch that holds {offset}");
    }
}

#[test]
fn segments_hold_exactly_the_log() {
    let (mut world, slot) = filled(rolling(), 100);
    world.stop_cleanly();
    let expected: Vec<u8> = world.read_all(slot, 0, 200, 1 << 20).concat();
    let mut found = Vec::new();
    for segment in &world.storage.partition(slot).unwrap().segments {
        let bytes = world.disk.file(&segment.file(key(0), FileKind::Log)).unwrap();
        assert!(bytes.len() as u64 >= segment.length);
        found.extend_from_slice(&bytes[..segment.length as usize]);
    }
    assert_eq!(found, expected);
}

#[test]
fn reads_respect_upper_and_limits() {
    let (mut world, slot) = filled(rolling(), 100);
    let size = batch(2, 700, 0).len();
    let mut starts = |offset: i64, max: usize, upper: i64, whole: bool| {
        let out = &mut world.disk.pending;
        world.storage.start_read(slot, Offset(offset), max, Offset(upper), whole, false, out)
    };
    assert!(matches!(starts(-1, 9999, 200, true), Err(ReadError::OutOfRange)));
    assert!(matches!(starts(201, 9999, 200, true), Err(ReadError::OutOfRange)));
    assert!(matches!(starts(200, 9999, 200, true), Ok(ReadStart::Ready(ReadPlan::Empty))));
    assert!(matches!(starts(199, size - 1, 200, false), Ok(ReadStart::Ready(ReadPlan::Empty))));
    assert!(
        matches!(starts(199, size, 199, true), Ok(ReadStart::Ready(ReadPlan::Empty))),
        "part above upper"
    );
    for offset in [0, 51, 160, 199] {
        let bytes = world.read(slot, offset, 200, size * 3 - 1, true).concat();
        assert!(bytes.len() <= size * 2 && !bytes.is_empty(), "{} at {offset}", bytes.len());
    }
    assert_eq!(world.read(slot, 0, 6, 1 << 20, true).concat().len(), 3 * size, "up to upper, in a segment");
}

#[test]
fn sequential_reader_rarely_looks_for_its_place() {
    let (mut world, slot) = filled(rolling(), 300);
    world.read_all(slot, 0, 100, 5000);
    world.disk.segment_reads = 0;
    let mut next = 0;
    while next < 200 {
        let out = &mut world.disk.pending;
        let start =
            world.storage.start_read(slot, Offset(next), 9000, Offset(600), true, false, out).unwrap();
        let ReadStart::Ready(ReadPlan::File { length, .. }) = start else { panic!("{start:?} at {next}") };
        next += 2 * (length / batch(2, 700, 0).len()) as i64;
    }
    assert_eq!(world.disk.segment_reads, 0);
}

#[test]
fn missing_and_damaged_indexes_are_rebuilt() {
    let (mut world, slot) = filled(rolling(), 200);
    world.stop_cleanly();
    for file in world.disk.files() {
        if file.kind == FileKind::Index && file.base_offset.0 % 4 == 0 {
            world.disk.remove(&file);
        }
    }
    let expected = world.read_all(slot, 0, 400, 5000);
    let mut world = world.restart().unwrap();
    assert!(world.recovered.clean);
    let slot = world.open(0);
    world.settle();
    assert_eq!(world.storage.journal.resident_bytes(), 0);
    assert_eq!(world.read_all(slot, 0, 400, 5000), expected);
    world.append(slot, batch(2, 700, 0));
    world.settle();
    assert_eq!(world.read_all(slot, 0, 402, 5000).len(), 201);
}

#[test]
fn indexes_of_sealed_segments_keep_to_their_budget() {
    let config = StorageConfig { index_bytes: 1000, ..small() };
    let mut world = World::new(config);
    world.topic = TopicConfig { index_interval_bytes: 100, ..rolling() };
    let slot = world.open(0);
    world.settle();
    for round in 0..300 {
        world.append_patiently(slot, batch(2, 700, round));
    }
    world.settle();
    assert_eq!(world.read_all(slot, 0, 600, 5000).len(), 300);
    let partition = world.storage.partition(slot).unwrap();
    let loaded = partition.segments.iter().filter(|segment| segment.index.is_some()).count();
    assert!(loaded <= 3, "{loaded} of {}", partition.segments.len());
}

#[test]
fn segments_roll_by_time() {
    let (mut world, slot) = filled(TopicConfig { segment_ms: 1000, ..rolling() }, 1);
    for time in [500, 900, 2000, 2100, 9000] {
        for _ in 0..12 {
            world.append_patiently(slot, batch(2, 700, time));
        }
        world.settle();
    }
    world.stop_cleanly();
    let partition = world.storage.partition(slot).unwrap();
    for segment in &partition.segments {
        assert!(segment.max_timestamp_ms - segment.first_timestamp_ms <= 1000, "{segment:?}");
    }
    assert!(partition.segments.len() >= 3);
}

#[test]
fn timestamps_are_found_wherever_the_record_is() {
    let (mut world, slot) = filled(rolling(), 300);
    for round in (0..300).step_by(7) {
        assert_eq!(world.lookup(slot, Some(round * 10), 600), Some((round * 2, round * 10)));
        assert_eq!(world.lookup(slot, Some(round * 10 + 1), 600), Some((round * 2 + 1, round * 10 + 1)));
        let next = (round < 299).then_some((round * 2 + 2, round * 10 + 10));
        assert_eq!(world.lookup(slot, Some(round * 10 + 2), 600), next);
    }
    assert_eq!(world.lookup(slot, Some(2990), 598), None, "above the high watermark");
    assert_eq!(world.lookup(slot, Some(99_999), 600), None);
    assert_eq!(world.lookup(slot, None, 600), Some((599, 2991)));
    world.storage.set_log_start_offset(slot, Offset(101));
    world.settle();
    assert_eq!(world.lookup(slot, Some(0), 600), Some((101, 501)), "records below the start do not count");
}

#[test]
fn largest_timestamp_in_an_old_segment_is_found() {
    let (mut world, slot) = filled(rolling(), 20);
    world.append_patiently(slot, batch(2, 700, 70_000));
    for _ in 0..250 {
        world.append_patiently(slot, batch(2, 700, 5));
    }
    world.settle();
    assert!(!world.storage.partition(slot).unwrap().tail_holds(Offset(41)));
    assert_eq!(world.lookup(slot, None, 542), Some((41, 70_001)));
    assert_eq!(world.lookup(slot, Some(69_000), 542), Some((40, 70_000)));
    let empty = world.open(5);
    assert_eq!(world.lookup(empty, None, 0), None);
}

#[test]
fn segments_below_the_log_start_go_away() {
    let (mut world, slot) = filled(rolling(), 300);
    let before = logs(&world).len();
    world.storage.set_log_start_offset(slot, Offset(301));
    assert_eq!(logs(&world).len(), before, "not before the fact is flushed");
    world.settle();
    let left = logs(&world);
    assert!(left.len() < before && left[0] <= 301 && left[1] > 301, "{left:?}");
    let out = &mut world.disk.pending;
    assert!(world.storage.start_read(slot, Offset(300), 1, Offset(600), true, false, out).is_err());
    assert_eq!(world.read_all(slot, 301, 600, 5000).len(), 150);
    let mut world = world.restart().unwrap();
    assert_eq!(world.recovered.partitions[0].log_start_offset, Offset(301));
    let slot = world.open(0);
    world.settle();
    assert_eq!(world.read_all(slot, 301, 600, 5000).len(), 150);
}

#[test]
fn removed_partitions_leave_no_file_after_the_delay() {
    let (mut world, slot) = filled(TopicConfig { file_delete_delay_ms: 100, ..rolling() }, 200);
    let other = world.open(1);
    world.append(other, batch(1, 10, 0));
    world.settle();
    world.append(slot, batch(1, 10, 0));
    world.storage.remove_partition(world.now, slot);
    world.settle();
    assert!(logs(&world).len() > 3);
    assert_eq!(world.storage.log_end_offset(slot), Offset(0));
    let due = world.storage.deadline().unwrap();
    assert_eq!(due, world.now.after_ms(100));
    world.now.monotonic_ns = due;
    world.settle();
    assert_eq!(logs(&world), Vec::<i64>::new());
    let world = world.restart().unwrap();
    assert_eq!(world.recovered.partitions.iter().map(|p| p.key).collect::<Vec<_>>(), vec![key(1)]);
}

#[test]
fn a_partition_that_is_removed_while_its_cut_is_looked_for_is_no_failure_of_the_device() {
    for steps in 0..12 {
        let (world, _) = filled(rolling(), 300);
        let mut world = world.restart().unwrap();
        let (slot, other) = (world.open(0), world.open(1));
        world.settle();
        // Within a batch that only the disk has: its place has to be looked for, first in an index that has to be read.
        assert!(world.storage.start_cut(slot, Offset(101)));
        world.turn();
        for _ in 0..steps {
            if !world.disk.pending.is_empty() {
                world.step(0);
                world.turn();
            }
        }
        world.storage.remove_partition(world.now, slot);
        world.settle();
        assert_eq!(world.progress.failed, None, "after {steps} steps");
        world.append(other, batch(1, 10, 0));
        world.settle();
        assert_eq!(world.storage.flushed_end_offset(other), Offset(1), "after {steps} steps");
    }
}
