//! What a start finds, cuts and refuses.

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{Offset, TopicConfig};

use super::disk::Disk;
use super::world::*;
use crate::disk::DiskEffect;
use crate::frame;
use crate::*;

fn with_batches(count: i64) -> (World, PartitionSlot) {
    let mut world = World::new(small());
    let slot = world.open(0);
    world.settle();
    for round in 0..count {
        world.append(slot, batch(2, 100, round));
        world.settle();
    }
    (world, slot)
}

fn ends(result: Result<World, RecoveryError>) -> i64 {
    let world = result.map_err(|error| error.to_string()).unwrap();
    world.recovered.partitions.first().map_or(0, |partition| partition.log_end_offset.0)
}

fn refused(disk: &Disk) -> String {
    match World::start(small(), disk.clone()) {
        Ok(_) => panic!("damage was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn everything_acknowledged_is_there_after_a_crash() {
    let (mut world, _) = with_batches(10);
    world.storage.append_metadata(Bytes::from_static(b"one"));
    world.storage.append_metadata(Bytes::from_static(b"two"));
    world.settle();
    let mut world = world.restart().unwrap();
    let recovered = &world.recovered;
    assert_eq!(recovered.metadata_records, vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    assert_eq!(recovered.metadata_snapshot, Some(Bytes::from_static(b"image")));
    let partition = &recovered.partitions[0];
    assert_eq!((partition.key, partition.log_end_offset), (key(0), Offset(20)));
    assert_eq!(partition.replay.len(), 10);
    let last = partition.replay[9];
    assert_eq!((last.base_offset, last.last_offset, last.producer_id), (Offset(18), Offset(19), 7));
    assert!(!recovered.clean && recovered.groups == 11);
    let slot = world.open(0);
    assert_eq!(slot, world.recovered.partitions[0].slot);
    assert_eq!(world.storage.flushed_end_offset(slot), Offset(0), "nobody knows whether it was flushed");
    assert_eq!(world.read_all(slot, 0, 20, 1000).len(), 10, "readable before it is laid down");
    world.settle();
    assert_eq!(
        (world.storage.flushed_end_offset(slot), world.progress.advanced.clone()),
        (Offset(20), vec![slot])
    );
    assert_eq!(world.read_all(slot, 0, 20, 1000).len(), 10);
    let appended = world.append(slot, batch(1, 10, 0));
    assert_eq!(appended.base_offset, Offset(20));
    world.settle();
    assert_eq!(ends(world.restart()), 21);
}

#[test]
fn snapshots_come_back_with_the_checkpoint() {
    let (mut world, slot) = with_batches(3);
    world.stop_cleanly();
    let mut world = world.restart().unwrap();
    assert!(world.recovered.clean && world.recovered.partitions[0].replay.is_empty());
    assert_eq!(world.recovered.partitions[0].snapshot, Bytes::from(vec![slot.0 as u8; 3]));
    let slot = world.open(0);
    world.settle();
    assert_eq!(world.disk.segment_reads, 0, "a start does not read segments");
    assert_eq!(world.read_all(slot, 0, 6, 1000).len(), 3);
}

#[test]
fn unfinished_block_is_read_back_and_continued() {
    let (mut world, _) = with_batches(3);
    for round in 1..6 {
        world.stop_cleanly();
        world = world.restart().unwrap();
        let slot = world.open(0);
        world.settle();
        world.append(slot, batch(2, 3000, round));
        world.settle();
        assert_eq!(world.read_all(slot, 0, 6 + 2 * round, 1 << 20).len() as i64, 3 + round);
    }
    world.stop_cleanly();
    let world = world.restart().unwrap();
    assert_eq!(world.storage.partition(PartitionSlot(0)).unwrap().segments.len(), 1);
}

#[test]
fn torn_tail_is_cut_at_every_block() {
    let (mut world, slot) = with_batches(4);
    let before = world.disk.clone();
    let large = batch(2, 9000, 0);
    world.append(slot, large);
    world.turn();
    let DiskEffect::JournalWrite { position, bytes, .. } = &world.disk.pending[0] else { panic!() };
    let (position, bytes) = (*position as usize, bytes.clone());
    assert!(bytes.len() > 4 * BLOCK_BYTES);
    for blocks in 0..=bytes.len() / BLOCK_BYTES {
        for from_the_end in [false, true] {
            let mut disk = before.clone();
            let range = match from_the_end {
                false => 0..blocks * BLOCK_BYTES,
                true => bytes.len() - blocks * BLOCK_BYTES..bytes.len(),
            };
            disk.journal_mut()[position + range.start..position + range.end].copy_from_slice(&bytes[range]);
            let whole = blocks == bytes.len() / BLOCK_BYTES;
            assert_eq!(ends(World::start(small(), disk)), if whole { 10 } else { 8 }, "{blocks} blocks");
        }
    }
}

#[test]
fn group_behind_a_hole_is_cut_and_never_comes_back() {
    let (mut world, slot) = with_batches(2);
    for round in 0..2 {
        world.append(slot, batch(2, 100, 50 + round));
        world.turn();
    }
    world.step(1);
    world.disk.pending.clear();
    // The second of two writes in flight reached the disk, the first did not.
    let mut world = world.restart().unwrap();
    assert_eq!(world.recovered.partitions[0].log_end_offset, Offset(4));
    let slot = world.open(0);
    world.settle();
    world.append(slot, batch(2, 100, 99));
    world.settle();
    // The new group lies where the lost one should have been, in front of the old second one.
    let world = world.restart().unwrap();
    assert_eq!(world.recovered.partitions[0].log_end_offset, Offset(6));
}

#[test]
fn damage_in_the_durable_middle_is_refused() {
    let (world, _) = with_batches(10);
    let writes = world.disk.journal_writes.clone();
    for (index, (position, bytes, _)) in writes.iter().enumerate() {
        for at in [0, 9, 30, 100, 200] {
            let mut disk = world.disk.clone();
            disk.journal_mut()[*position as usize + at] ^= 0x10;
            let header = frame::peek(bytes, 0).unwrap();
            if index + 1 < writes.len() {
                let text = refused(&disk);
                assert!(text.contains(&format!("journal group {} ", header.sequence)), "{text}");
            } else {
                // Nothing says that the last group had been flushed: it looks torn.
                assert_eq!(ends(World::start(small(), disk)), 18);
            }
        }
    }
}

#[test]
fn lost_or_stale_checkpoints_are_refused() {
    let (mut world, slot) = with_batches(10);
    let mut none = world.disk.clone();
    none.checkpoints = [None, None];
    assert!(refused(&none).contains("no valid checkpoint"));
    let first = world.disk.checkpoints.clone();
    for round in 0..60 {
        world.append_patiently(slot, batch(2, 3000, round));
        world.settle();
    }
    let mut stale = world.disk.clone();
    stale.checkpoints = first.clone();
    refused(&stale);
    // A whole life later.
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    world.settle();
    world.append(slot, batch(1, 10, 0));
    world.settle();
    let mut stale = world.disk.clone();
    stale.checkpoints = first;
    assert!(refused(&stale).contains("life"));
}

#[test]
fn damaged_checkpoint_slot_falls_back_if_nothing_is_lost() {
    let (mut world, slot) = with_batches(3);
    for round in 0..60 {
        world.append_patiently(slot, batch(2, 3000, round));
        world.turn();
        if let Some(at) =
            world.disk.pending.iter().position(|e| matches!(e, DiskEffect::CheckpointWrite { .. }))
        {
            // Torn while being written: the other slot counts.
            let DiskEffect::CheckpointWrite { slot, file, .. } = world.disk.pending[at].clone() else {
                panic!()
            };
            let bytes = file.bytes();
            let mut disk = world.disk.clone();
            disk.pending.clear();
            disk.checkpoints[usize::from(slot)] = Some(bytes[..bytes.len() / 2].to_vec());
            let flushed = world.storage.flushed_end_offset(PartitionSlot(0)).0;
            assert!(ends(World::start(small(), disk)) >= flushed);
        }
        world.settle();
    }
    let generations = world.storage.checkpointing.generation;
    assert!(generations > 3, "{generations}");
}

#[test]
fn torn_first_checkpoint_is_a_fresh_start() {
    let mut world = World::new(small());
    world.turn();
    let mut disk = Disk::new(small().journal_bytes);
    disk.checkpoints[1] = Some(vec![7; 4096]);
    assert!(World::start(small(), disk).is_ok());
}

#[test]
fn orphans_are_dropped_with_their_files() {
    let mut world = World::new(small());
    let (kept, orphan) = (world.open(0), world.open(1));
    world.settle();
    for round in 0..30 {
        world.append_patiently(kept, batch(1, 2000, round));
        world.append_patiently(orphan, batch(1, 2000, round));
        world.settle();
    }
    let mut world = world.restart().unwrap();
    assert_eq!(world.recovered.partitions.len(), 2);
    let kept = world.open(0);
    let now = world.now;
    assert_eq!(world.storage.retain(now, |found| found == key(0)), 1);
    world.settle();
    assert!(world.disk.files().iter().all(|file| file.partition == key(0)));
    assert_eq!(world.read_all(kept, 0, 30, 9000).len(), 30);
    assert_eq!(world.restart().unwrap().recovered.partitions.len(), 1);
}

#[test]
fn deleted_partition_does_not_come_back_from_the_journal() {
    let (mut world, slot) = with_batches(3);
    world.stop_cleanly();
    let mut world = world.restart().unwrap();
    assert_eq!(world.open(0), slot);
    world.settle();
    world.append(slot, batch(1, 10, 0));
    world.settle();
    world.storage.remove_partition(world.now, slot);
    world.settle();
    assert!(world.restart().unwrap().recovered.partitions.is_empty());
}

#[test]
fn rolls_are_repeated_at_the_same_places() {
    let mut world = World::new(small());
    world.topic = TopicConfig { segment_bytes: 20_000, ..world.topic.clone() };
    let slot = world.open(0);
    world.settle();
    for round in 0..20 {
        world.append_patiently(slot, batch(1, 3000, round));
        world.settle();
    }
    let before = world.disk.files();
    // The next life does not know the topic's settings when it lays down, yet uses the same files.
    let mut world = world.restart().unwrap();
    world.settle();
    for file in before {
        assert!(world.disk.files().contains(&file));
    }
    let slot = world.open(0);
    assert_eq!(world.read_all(slot, 0, 20, 9000).len(), 20);
}

#[test]
fn redistribution_moves_partitions_between_shards() {
    let (mut world, _) = with_batches(3);
    let other = world.open(1);
    world.append(other, batch(1, 10, 0));
    world.settle();
    assert!(redistribute(&[image_slots(&world)], 2, &|_| 0, Vec::new()).is_err(), "not stopped");
    world.stop_cleanly();
    assert_eq!(metadata_of(&image_slots(&world)).unwrap(), b"image");
    let owner = |found| u16::from(found == key(0));
    let new = redistribute(&[image_slots(&world)], 2, &owner, b"new".to_vec()).unwrap();
    for (shard, (number, end)) in [(1, 1), (0, 6)].into_iter().enumerate() {
        let mut disk = world.disk.clone();
        *disk.journal_mut() = vec![0; small().journal_bytes as usize];
        disk.checkpoints = [None, Some(new[shard].to_vec())];
        let mut world = World::start(small(), disk).unwrap();
        assert_eq!(world.recovered.partitions.len(), 1);
        let slot = world.open(number);
        world.settle();
        assert_eq!(world.storage.log_end_offset(slot), Offset(end));
        world.read_all(slot, 0, end, 1000);
        world.append(slot, batch(1, 10, 0));
        world.settle();
        assert_eq!(ends(world.restart()), end + 1);
    }
}

fn image_slots(world: &World) -> [Option<Bytes>; 2] {
    world.disk.image().checkpoints
}

/// The first lay-down of a partition whose tail holds more than one segment: where each batch goes was said when it was
/// sealed, and recovery goes by that.
#[test]
fn the_first_lay_down_keeps_segments_apart() {
    let mut world = World::new(StorageConfig { direct_bytes: 5_000, ..small() });
    world.topic = TopicConfig { segment_bytes: 3_000, ..world.topic.clone() };
    let slot = world.open(0);
    world.settle();
    for round in 0..4 {
        world.append(slot, batch(1, 2_000, round));
        world.turn();
        world.step(0);
    }
    world.append(slot, batch(1, 6_000, 9));
    world.settle();
    let bases: Vec<i64> = world.disk.files().iter().map(|file| file.base_offset.0).collect();
    assert!((0..5).all(|base| bases.contains(&base)), "{bases:?}");
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    assert_eq!(world.storage.log_end_offset(slot).0, 5);
    world.settle();
    assert_eq!(world.read_all(slot, 0, 5, 100_000).len(), 5);
}

#[test]
fn a_checkpoint_does_not_name_a_log_that_takes_the_place_of_a_dropped_one_before_the_journal_does() {
    for steps in 0..40 {
        let mut world = World::new(small());
        let (slot, other) = (world.open(0), world.open(1));
        // Its beginning is in segments, and not in the journal any more; its end is only there.
        for _ in 0..20 {
            world.append(slot, batch(3, 2_000, 0));
            world.settle();
        }
        for _ in 0..5 {
            world.append(slot, batch(3, 10, 0));
            world.append(other, batch(1, 10, 0));
            world.settle();
        }
        world.storage.remove_partition(world.now, slot);
        let slot = world.open(0);
        assert!(world.storage.start_restart(slot, Offset(0)));
        world.storage.checkpointing.wanted = true;
        // All partitions are taken into the checkpoint while the journal is being written.
        (0..2).for_each(|_| world.turn());
        for _ in 0..steps {
            world.turn();
            if !world.disk.pending.is_empty() {
                world.step(0);
            }
        }
        let world = world.restart().unwrap_or_else(|error| panic!("after {steps} steps: {error}"));
        assert!(world.recovered.partitions.iter().any(|partition| partition.key == key(1)));
    }
}
