//! Retention: which segments go by size and by time, what holds them, and what is left of them after a crash.

use pelton_model::{Offset, TopicConfig};

use super::world::*;
use crate::disk::FileKind;
use crate::*;

/// Ten segments of two batches, 1000 ms apart, all in files.
fn ten_segments(topic: TopicConfig) -> (World, PartitionSlot) {
    let mut world = World::new(small());
    world.topic = TopicConfig { segment_bytes: 5_000, file_delete_delay_ms: 0, ..topic };
    let slot = world.open(0);
    for round in 0..20 {
        world.append_patiently(slot, batch(1, 2_000, 1_000_000 + round / 2 * 1000));
        world.settle();
    }
    // Recovery lays down what the journal has; the clean stop all of it.
    world.stop_cleanly();
    let mut world = world.restart().unwrap();
    world.settle();
    let slot = world.storage.open_partition(key(0), &world.topic);
    (world, slot)
}

fn by_bytes(retention_bytes: i64) -> TopicConfig {
    TopicConfig { retention_bytes, retention_ms: -1, ..TopicConfig::default() }
}

fn by_time(retention_ms: i64) -> TopicConfig {
    TopicConfig { retention_ms, ..TopicConfig::default() }
}

fn retain(world: &mut World, slot: PartitionSlot, high_watermark: i64) -> i64 {
    world.storage.apply_retention(world.now, slot, Offset(high_watermark));
    world.settle();
    world.storage.log_start_offset(slot).0
}

fn logs(world: &World) -> Vec<i64> {
    let files = world.disk.files();
    files.iter().filter(|file| file.kind == FileKind::Log).map(|file| file.base_offset.0).collect()
}

#[test]
fn old_segments_go_by_size_and_the_limit_stays_covered() {
    let (mut world, slot) = ten_segments(by_bytes(11_000));
    assert_eq!(logs(&world), (0..10).map(|n| n * 2).collect::<Vec<_>>());
    assert!(world.storage.size_bytes(slot) > 40_000);
    assert_eq!(retain(&mut world, slot, 20), 14, "three segments hold more than the limit, two would not");
    assert_eq!(logs(&world), [14, 16, 18]);
    assert_eq!(retain(&mut world, slot, 20), 14);
    assert_eq!(world.read_all(slot, 14, 20, 3000).len(), 6);
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    assert_eq!(world.storage.log_start_offset(slot), Offset(14));
    world.settle();
    assert_eq!(world.read_all(slot, 14, 20, 3000).len(), 6);
}

#[test]
fn nothing_at_or_above_the_high_watermark_goes() {
    let (mut world, slot) = ten_segments(by_bytes(0));
    assert_eq!(retain(&mut world, slot, 7), 6);
    assert_eq!(retain(&mut world, slot, 8), 8);
    assert_eq!(retain(&mut world, slot, 19), 18);
    assert_eq!(retain(&mut world, slot, 20), 20);
}

#[test]
fn old_segments_go_by_their_latest_record() {
    let (mut world, slot) = ten_segments(by_time(5_000));
    world.now.wall_ms = 1_000_000 + 7_000;
    assert_eq!(retain(&mut world, slot, 20), 4, "the third segment is just 5000 ms old");
    world.now.wall_ms += 1;
    assert_eq!(retain(&mut world, slot, 20), 6);
    let mut kept = ten_segments(by_time(-1)).0;
    kept.now.wall_ms = i64::MAX;
    let slot = kept.open(0);
    assert_eq!(retain(&mut kept, slot, 20), 0);
    let compacted = TopicConfig { compacted: true, deleted: false, ..by_time(0) };
    let (mut world, slot) = ten_segments(compacted);
    world.now.wall_ms = i64::MAX;
    assert_eq!(retain(&mut world, slot, 20), 0);
}

#[test]
fn when_all_has_expired_the_last_segment_ends_and_goes() {
    let (mut world, slot) = ten_segments(by_time(5_000));
    world.now.wall_ms = 2_000_000;
    assert_eq!(retain(&mut world, slot, 20), 20);
    assert_eq!(logs(&world), Vec::<i64>::new());
    assert_eq!(world.storage.size_bytes(slot), 0);
    world.append(slot, batch(1, 100, 2_000_000));
    world.settle();
    world.stop_cleanly();
    assert_eq!(logs(&world), [20]);
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    world.settle();
    assert_eq!(
        (world.storage.log_start_offset(slot), world.storage.log_end_offset(slot)),
        (Offset(20), Offset(21))
    );
    assert_eq!(world.read_all(slot, 20, 21, 3000).len(), 1);
}

#[test]
fn what_no_file_has_yet_expires_too_and_new_records_are_kept_apart() {
    let mut world = World::new(small());
    world.topic = TopicConfig { file_delete_delay_ms: 0, ..by_time(5_000) };
    let slot = world.open(0);
    world.append_patiently(slot, batch(2, 100, 1_000_000));
    world.settle();
    assert_eq!(logs(&world), Vec::<i64>::new());
    world.now.wall_ms = 1_010_000;
    assert_eq!(retain(&mut world, slot, 2), 2);
    world.append(slot, batch(2, 100, 1_010_000));
    world.settle();
    world.stop_cleanly();
    assert_eq!(logs(&world), [0, 2], "what was dropped goes with the next look");
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    world.settle();
    assert_eq!(retain(&mut world, slot, 4), 2);
    assert_eq!(logs(&world), [2]);
    assert_eq!(world.read_all(slot, 2, 4, 3000).len(), 1);
}

#[test]
fn the_log_start_shows_only_when_it_is_stable() {
    let (mut world, slot) = ten_segments(by_bytes(0));
    world.storage.apply_retention(world.now, slot, Offset(20));
    assert_eq!(world.storage.log_start_offset(slot), Offset(0));
    world.turn();
    assert_eq!(world.read(slot, 0, 20, 100, true).len(), 1, "until then it can be read");
    world.settle();
    assert_eq!(world.storage.log_start_offset(slot), Offset(20));
}

#[test]
fn files_go_after_the_delay_one_after_the_other() {
    let (mut world, slot) = ten_segments(by_bytes(0));
    world.storage.set_config(slot, &TopicConfig { file_delete_delay_ms: 500, ..world.topic.clone() });
    assert_eq!(retain(&mut world, slot, 20), 20);
    assert_eq!(logs(&world).len(), 10);
    world.now.monotonic_ns = world.storage.deadline().unwrap();
    world.turn();
    let in_flight = |world: &World| {
        let deletes =
            world.disk.pending.iter().filter(|e| matches!(e, crate::disk::DiskEffect::FileDelete { .. }));
        deletes.count()
    };
    while in_flight(&world) == 0 {
        world.step(0);
        world.turn();
    }
    assert_eq!(in_flight(&world), 2, "the log and the index of one segment");
    world.settle();
    assert_eq!(logs(&world), Vec::<i64>::new());
}
