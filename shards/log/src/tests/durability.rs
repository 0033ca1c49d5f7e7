//! What is acknowledged when, how the journal wraps and frees itself, and what failures of the disk do.

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{Offset, TopicConfig};

use super::world::*;
use crate::disk::DiskEffect;
use crate::frame;
use crate::*;

fn ready() -> (World, PartitionSlot) {
    let mut world = World::new(small());
    let slot = world.open(0);
    world.settle();
    (world, slot)
}

#[test]
fn nothing_is_admitted_before_the_first_checkpoint() {
    let mut world = World::new(small());
    assert_eq!(world.storage.admit(100), Admission::Later);
    world.turn();
    assert!(matches!(world.disk.pending[..], [DiskEffect::CheckpointWrite { slot: 1, .. }]));
    world.settle();
    assert!(world.progress.space_freed);
    assert_eq!(world.storage.admit(100), Admission::Yes);
}

#[test]
fn acknowledged_only_after_the_flush_and_in_order() {
    let (mut world, slot) = ready();
    let first = world.append(slot, batch(3, 10, 0));
    world.turn();
    let second = world.append(slot, batch(2, 10, 0));
    world.turn();
    let third = world.append(slot, batch(1, 10, 0));
    world.turn();
    assert_eq!((first.base_offset, first.last_offset), (Offset(0), Offset(2)));
    assert_eq!((second.base_offset, third.last_offset), (Offset(3), Offset(5)));
    assert_eq!(world.disk.pending.len(), 2, "two writes in flight, the third group forms");
    world.step(1);
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(0), "not before its predecessor");
    assert!(world.storage.flushed() < first.commit);
    world.step(0);
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(5));
    assert_eq!(world.progress.advanced, vec![slot]);
    world.settle();
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(6));
    assert!(world.disk.journal_writes.iter().all(|(_, _, sync)| *sync));
    assert_eq!(world.storage.deadline(), None, "idle costs nothing");
}

#[test]
fn what_arrives_during_a_write_goes_into_one_group() {
    let (mut world, slot) = ready();
    let other = world.open(1);
    for _ in 0..2 {
        world.append(slot, batch(1, 10, 0));
        world.turn();
    }
    for _ in 0..50 {
        world.append(slot, batch(1, 10, 0));
        world.append(other, batch(1, 10, 0));
        world.turn();
    }
    world.settle();
    assert_eq!(world.disk.journal_writes.len(), 3);
    assert_eq!(world.storage.flushed_end_offset(other), Offset(50));
}

#[test]
fn batches_are_stamped_and_their_time_too() {
    let (mut world, slot) = ready();
    world.append(slot, batch(2, 10, 5));
    world.storage.append(slot, batch(2, 10, 5), pelton_model::LeaderEpoch(4), Some(999));
    world.settle();
    let found = world.read_all(slot, 0, 4, 10_000);
    let second = pelton_wire::record_batch::peek(&found[1]).unwrap();
    assert_eq!((second.base_offset, second.partition_leader_epoch, second.max_timestamp), (2, 4, 999));
    assert!(second.is_log_append_time());
}

#[test]
fn several_batches_in_one_append_are_each_stamped() {
    let (mut world, slot) = ready();
    world.append(slot, batch(5, 10, 0));
    let two = [batch(2, 10, 5), batch(3, 10, 5)].concat();
    let appended = world.append(slot, Bytes::from(two));
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(5), Offset(9)));
    world.settle();
    assert_eq!(world.read_all(slot, 0, 10, 10_000).len(), 3);
}

#[test]
fn unflushed_topic_is_written_at_once_and_flushed_in_time() {
    let (mut world, _) = ready();
    let topic = TopicConfig { flush_messages: i64::MAX, flush_ms: 50, ..TopicConfig::default() };
    let slot = world.storage.open_partition(key(9), &topic);
    world.append(slot, batch(1, 10, 0));
    world.turn();
    assert!(matches!(world.disk.pending[..], [DiskEffect::JournalWrite { sync: false, .. }]));
    world.step(0);
    world.turn();
    assert!(world.disk.pending.is_empty());
    assert_eq!(world.storage.written_end_offset(slot), Offset(1));
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(0));
    assert_eq!(world.storage.deadline(), Some(world.now.after_ms(50)));
    world.now.monotonic_ns += 50_000_000;
    world.turn();
    assert!(matches!(world.disk.pending[..], [DiskEffect::JournalSync { .. }]));
    world.settle();
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(1));
    assert_eq!(world.storage.deadline(), None);
}

#[test]
fn flush_messages_counts_records() {
    let (mut world, _) = ready();
    let topic = TopicConfig { flush_messages: 5, ..TopicConfig::default() };
    let slot = world.storage.open_partition(key(9), &topic);
    for flushed in [0, 0, 6, 6] {
        world.append(slot, batch(2, 10, 0));
        world.settle();
        assert_eq!(world.storage.flushed_end_offset(slot), Offset(flushed));
    }
}

#[test]
fn flushed_group_behind_an_unflushed_one_gets_its_flush() {
    let (mut world, slot) = ready();
    let topic = TopicConfig { flush_messages: i64::MAX, ..TopicConfig::default() };
    let lazy = world.storage.open_partition(key(9), &topic);
    world.append(lazy, batch(1, 10, 0));
    world.turn();
    world.append(slot, batch(1, 10, 0));
    world.turn();
    world.step(1);
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(0));
    world.step(0);
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(0), "the first group was in flight then");
    world.settle();
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(1));
}

#[test]
fn metadata_and_facts_are_always_flushed() {
    let (mut world, slot) = ready();
    world.append(slot, batch(10, 10, 0));
    world.settle();
    let commit = world.storage.append_metadata(Bytes::from_static(b"record"));
    assert!(world.storage.flushed() < commit);
    world.settle();
    assert!(world.storage.flushed() >= commit);
    let commit = world.storage.set_log_start_offset(slot, Offset(4));
    world.settle();
    assert!(world.storage.flushed() >= commit);
    assert_eq!(world.storage.log_start_offset(slot), Offset(4));
}

#[test]
fn journal_wraps_many_times_and_memory_stays_bounded() {
    let (mut world, slot) = ready();
    let mut peak = 0;
    for round in 0..400 {
        world.append_patiently(slot, batch(4, 1000, round));
        world.turn();
        peak = peak.max(world.storage.journal.resident_bytes());
    }
    world.settle();
    let written: usize = world.disk.journal_writes.iter().map(|(_, bytes, _)| bytes.len()).sum();
    assert!(written > 4 * 256 * 1024, "{written}");
    assert!(peak <= world.config.tail_bytes + world.config.group_bytes, "{peak}");
    assert_eq!(world.read_all(slot, 0, 1600, 20_000).len(), 400);
}

#[test]
fn largest_batch_fits_whatever_was_before() {
    let (mut world, slot) = ready();
    let large = batch(1, 60_000, 0);
    for round in 0..30 {
        for _ in 0..round % 7 {
            world.append_patiently(slot, batch(1, 3000, 0));
            world.turn();
        }
        world.append_patiently(slot, large.clone());
        world.turn();
    }
    world.settle();
    let end = world.storage.log_end_offset(slot).0;
    assert_eq!(world.read_all(slot, 0, end, 100_000).len(), end as usize);
}

#[test]
fn request_larger_than_the_journal_goes_through_in_groups() {
    let (mut world, slot) = ready();
    assert_eq!(world.storage.admit(1 << 20), Admission::Yes);
    for _ in 0..64 {
        world.append(slot, batch(1, 16_000, 0));
    }
    assert_eq!(world.storage.admit(100), Admission::Later);
    world.settle();
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(64));
    assert_eq!(world.storage.admit(100), Admission::Yes);
    assert_eq!(world.read_all(slot, 0, 64, 100_000).len(), 64);
}

#[test]
fn journal_space_is_not_used_again_before_the_checkpoint() {
    let (mut world, slot) = ready();
    let mut live: Vec<(u64, u64, u64)> = Vec::new();
    for round in 0..300 {
        world.append_patiently(slot, batch(1, 5000, round));
        world.settle();
        for (position, bytes, _) in std::mem::take(&mut world.disk.journal_writes) {
            let end = position + bytes.len() as u64;
            let header = frame::peek(&bytes, 0).unwrap();
            let needed = world.disk.checkpoints.iter().flatten();
            let oldest = needed
                .filter_map(|slot| match crate::checkpoint::Checkpoint::decode(slot) {
                    Ok(crate::checkpoint::Slot::Valid(found)) => Some(found.start_sequence),
                    _ => None,
                })
                .max()
                .unwrap();
            for (sequence, from, to) in &live {
                assert!(*sequence < oldest || end <= *from || position >= *to, "{sequence} overwritten");
            }
            live.retain(|(_, from, to)| end <= *from || position >= *to);
            live.push((header.sequence, position, end));
        }
    }
}

#[test]
fn full_device_keeps_data_in_the_journal_until_there_is_room() {
    let (mut world, slot) = ready();
    world.disk.faults.segment_full = true;
    let mut appended = 0;
    let refused = loop {
        match world.storage.admit(3000) {
            Admission::Yes => world.append(slot, batch(1, 3000, 0)),
            Admission::Later => panic!("later, though lay-down cannot go on"),
            Admission::Refused { text, no_space } => break (text, no_space),
        };
        appended += 1;
        world.settle();
    };
    assert!(refused.1 && refused.0.contains("no space left"), "{refused:?}");
    assert!(appended > 10, "{appended}");
    assert!(world.progress.no_space.is_some() && world.progress.failed.is_none());
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(appended));
    assert_eq!(world.read_all(slot, 0, appended, 10_000).len() as i64, appended);
    world.disk.faults.segment_full = false;
    let due = world.storage.deadline().unwrap();
    world.now.monotonic_ns = due;
    world.progress = Progress::default();
    world.settle();
    assert!(world.progress.space_freed);
    assert_eq!(world.storage.health(), Health::Healthy);
    assert_eq!(world.storage.admit(3000), Admission::Yes);
}

#[test]
fn full_device_at_a_checkpoint_is_tried_again() {
    let (mut world, slot) = ready();
    world.disk.faults.checkpoint_full = true;
    for _ in 0..20 {
        world.append(slot, batch(1, 5000, 0));
        world.settle();
    }
    assert!(matches!(world.storage.health(), Health::NoSpace(_)));
    world.disk.faults.checkpoint_full = false;
    world.now.monotonic_ns = world.storage.deadline().unwrap();
    world.settle();
    assert_eq!(world.storage.health(), Health::Healthy);
    let world = world.restart().unwrap();
    assert_eq!(world.recovered.partitions[0].log_end_offset, Offset(20));
}

#[test]
fn failed_journal_write_acknowledges_nothing_after_it() {
    let (mut world, slot) = ready();
    world.append(slot, batch(1, 10, 0));
    world.settle();
    world.append(slot, batch(1, 10, 0));
    world.turn();
    world.append(slot, batch(1, 10, 0));
    world.turn();
    world.disk.faults.journal_error = true;
    world.step(0);
    world.disk.faults.journal_error = false;
    world.step(0);
    assert!(world.progress.failed.as_ref().unwrap().contains("input/output error"));
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(1));
    assert!(matches!(world.storage.admit(1), Admission::Refused { no_space: false, .. }));
    world.turn();
    assert!(world.disk.pending.is_empty(), "nothing is tried again");
    assert_eq!(world.read_all(slot, 0, 1, 1000).len(), 1, "memory can still be read");
    world.stop_cleanly();
}

#[test]
fn failed_flush_of_a_segment_fails_the_storage() {
    let (mut world, slot) = ready();
    world.disk.faults.sync_error = true;
    world.append(slot, batch(20, 1000, 0));
    world.settle();
    assert!(matches!(world.storage.health(), Health::Failed(_)));
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(20), "the journal had it");
    world.disk.faults.sync_error = false;
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    world.settle();
    assert_eq!(world.read_all(slot, 0, 20, 1000).len(), 1);
}

#[test]
fn many_partitions_share_groups() {
    let (mut world, _) = ready();
    let slots: Vec<_> = (0..500).map(|number| world.open(number)).collect();
    for round in 0..4 {
        for slot in &slots {
            world.append_patiently(*slot, batch(1, 20, round));
        }
        world.turn();
    }
    world.settle();
    let blocks: usize = world.disk.journal_writes.iter().map(|(_, bytes, _)| bytes.len() / BLOCK_BYTES).sum();
    assert!(blocks < 200, "{blocks} blocks for 2000 batches");
    for slot in slots {
        assert_eq!(world.storage.flushed_end_offset(slot), Offset(4));
        assert_eq!(world.read_all(slot, 0, 4, 1000).len(), 4);
    }
}

#[test]
fn one_small_batch_does_not_keep_direct_ones_in_memory() {
    let config = StorageConfig { direct_bytes: 5_000, ..small() };
    let tail_bytes = config.tail_bytes;
    let mut world = World::new(config);
    let (idle, busy) = (world.open(0), world.open(1));
    world.settle();
    world.append(idle, batch(1, 10, 0));
    let mut peak = 0;
    for round in 0..100 {
        world.append(busy, batch(1, 10_000, round));
        world.settle();
        peak = peak.max(world.storage.journal.resident_bytes());
    }
    assert!(peak <= tail_bytes + 20_000, "{peak} bytes stay in memory");
    assert_eq!(world.storage.flushed_end_offset(busy), Offset(100));
}

#[test]
fn unflushed_direct_batches_do_not_stay_in_memory() {
    let config = StorageConfig { direct_bytes: 5_000, journal_bytes: 4 << 20, ..small() };
    let tail_bytes = config.tail_bytes;
    let mut world = World::new(config);
    let topic = TopicConfig { flush_messages: i64::MAX, flush_ms: i64::MAX, ..TopicConfig::default() };
    let slot = world.storage.open_partition(key(0), &topic);
    world.settle();
    let mut peak = 0;
    for round in 0..100 {
        world.append(slot, batch(1, 10_000, round));
        world.settle();
        peak = peak.max(world.storage.journal.resident_bytes());
    }
    assert!(peak <= tail_bytes + 20_000, "{peak} bytes stay in memory");
    assert_eq!(world.storage.written_end_offset(slot), Offset(100));
    assert_eq!(world.read_all(slot, 0, 100, 100_000).len(), 100);
}

#[test]
fn few_are_laid_down_at_once_until_room_is_scarce() {
    let mut world = World::new(small());
    world.settle();
    let lays = |world: &World| {
        world.disk.pending.iter().filter(|effect| matches!(effect, DiskEffect::SegmentLay { .. })).count()
    };
    let slots: Vec<_> = (0..7).map(|number| world.open(number)).collect();
    let mut at_once = Vec::new();
    for slot in &slots {
        world.append(*slot, batch(1, 17_000, 0));
        world.turn();
        let write = |effect: &DiskEffect| matches!(effect, DiskEffect::JournalWrite { .. });
        while let Some(index) = world.disk.pending.iter().position(write) {
            world.step(index);
        }
        world.turn();
        at_once.push(lays(&world));
    }
    assert_eq!(at_once, [1, 2, 2, 2, 5, 6, 7], "three quarters of the tail are reached with the fifth");
    world.settle();
    for slot in slots {
        assert_eq!(world.read_all(slot, 0, 1, 20_000).len(), 1);
    }
}

#[test]
fn what_nobody_waits_for_is_laid_down_in_small_writes() {
    let config = StorageConfig { lay_down_write_bytes_unhurried: 8 << 10, ..small() };
    let mut world = World::new(config);
    let slot = world.open(0);
    world.settle();
    for round in 0..14 {
        world.append(slot, batch(1, 2_000, round));
    }
    let largest = |world: &World| {
        let lay = |effect: &DiskEffect| match effect {
            DiskEffect::SegmentLay { parts, .. } => parts.iter().map(Bytes::len).sum(),
            _ => 0,
        };
        world.disk.pending.iter().map(lay).max().unwrap_or_default()
    };
    let work = |world: &mut World| {
        let mut peak = 0;
        world.turn();
        while !world.disk.pending.is_empty() {
            peak = peak.max(largest(world));
            world.step(0);
            world.turn();
        }
        peak
    };
    let peak = work(&mut world);
    assert!((8 << 10..=12 << 10).contains(&peak), "{peak} bytes at once: 8 KiB and the block they begin in");
    for round in 14..21 {
        world.append(slot, batch(1, 2_000, round));
    }
    world.storage.clean_stop();
    let peak = work(&mut world);
    assert!(peak > 12 << 10, "{peak} bytes at once at the end");
}
