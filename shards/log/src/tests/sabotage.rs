//! Every fault on purpose is noticed by the tests of this crate (the simulator notices them again, from outside).

use std::panic::{AssertUnwindSafe, catch_unwind};

use pelton_model::Prng;

use super::compacting::{crash_at, last_batch_of_producer, tombstones};
use super::random::live;
use super::world::*;
use crate::*;

fn noticed(fault: Sabotage, run: impl Fn(u64, StorageConfig)) {
    let config = StorageConfig { sabotage: Some(fault), ..small() };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = (0..200).find(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed, config.clone()))).is_err());
    std::panic::set_hook(hook);
    assert!(caught.is_some(), "{} was not noticed", fault.name());
}

/// A group in the middle is damaged on the disk; some later one knows that it was flushed.
fn damage(_: u64, config: StorageConfig) {
    let mut world = World::new(config);
    let slot = world.open(0);
    world.settle();
    for round in 0..5 {
        world.append(slot, batch(2, 100, round));
        world.settle();
    }
    let position = world.disk.journal_writes[1].0 as usize;
    world.disk.journal_mut()[position + 200] ^= 1;
    assert!(world.restart().is_err());
}

fn write_error(_: u64, config: StorageConfig) {
    let mut world = World::new(config);
    let slot = world.open(0);
    world.settle();
    world.disk.faults.journal_error = true;
    world.append(slot, batch(2, 100, 0));
    world.settle();
    assert_eq!(world.storage.flushed_end_offset(slot).0, 0);
}

/// A lost group, its successor that reached the disk, and a new life that writes over the lost one only.
fn old_life(_: u64, config: StorageConfig) {
    let mut world = World::new(config);
    let slot = world.open(0);
    world.settle();
    for round in 0..2 {
        world.append(slot, batch(2, 100, round));
        world.turn();
    }
    world.step(1);
    world.disk.pending.clear();
    let mut world = world.restart().unwrap();
    let slot = world.open(0);
    world.settle();
    world.append(slot, batch(2, 100, 9));
    world.settle();
    assert_eq!(world.restart().unwrap().recovered.partitions[0].log_end_offset.0, 2);
}

#[test]
fn every_fault_on_purpose_is_noticed() {
    for fault in Sabotage::ALL {
        match fault {
            Sabotage::SkipTornCheck | Sabotage::SkipFrameCrc => noticed(fault, damage),
            Sabotage::IgnoreWriteError => noticed(fault, write_error),
            Sabotage::AcceptOldIncarnation => noticed(fault, old_life),
            Sabotage::DirectNotAwaited | Sabotage::DirectNotVerified => noticed(fault, |seed, config| {
                live(seed, StorageConfig { direct_bytes: 1000, ..config });
            }),
            Sabotage::SwapBeforeSync | Sabotage::CompactTooMuch | Sabotage::DeleteBeforeCheckpoint => {
                noticed(fault, |seed, config| {
                    crash_at(config, &mut Prng::new(seed), seed % 40);
                });
            }
            Sabotage::TombstoneTooEarly => noticed(fault, |_, config| tombstones(config)),
            Sabotage::ForgetLastSequence => noticed(fault, |_, config| last_batch_of_producer(config)),
            _ => noticed(fault, live),
        }
    }
    for fault in Sabotage::OF_FOLLOWERS {
        noticed(fault, super::cutting::live);
    }
}
