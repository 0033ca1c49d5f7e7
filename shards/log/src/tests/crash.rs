//! Crashes at every operation boundary of one run, and again during the recovery from it.

use pelton_model::{Offset, Prng};

use super::world::*;
use crate::*;

/// Runs a script, stopping after `steps` completions; returns the world and what had been acknowledged.
fn run(steps: usize, prng: &mut Prng) -> (World, i64, bool) {
    let mut world = World::new(small());
    let slot = world.open(0);
    let mut left = steps;
    for round in 0..60 {
        if world.storage.admit(4000) == Admission::Yes {
            world.append(slot, batch(2, 1500, round));
        }
        world.turn();
        for _ in 0..3 {
            if world.disk.pending.is_empty() {
                break;
            }
            if left == 0 {
                let acknowledged = world.storage.flushed_end_offset(slot).0;
                return (world, acknowledged, false);
            }
            left -= 1;
            let index = prng.below(world.disk.pending.len() as u64) as usize;
            world.step(index);
        }
    }
    let acknowledged = world.storage.flushed_end_offset(slot).0;
    (world, acknowledged, true)
}

fn check(world: &mut World, acknowledged: i64) -> i64 {
    let slot = world.open(0);
    let end = world.storage.log_end_offset(slot).0;
    assert!(end >= acknowledged, "acknowledged {acknowledged}, found {end}");
    let found = world.read_all(slot, 0, end, 7000);
    for (round, bytes) in found.iter().enumerate() {
        let info = pelton_wire::record_batch::peek(bytes).unwrap();
        assert_eq!(info.base_offset, round as i64 * 2);
    }
    end
}

#[test]
fn every_boundary_and_recovery_again() {
    for seed in 0..3 {
        for steps in 0.. {
            let mut prng = Prng::new(seed * 1000 + steps as u64);
            let (mut world, acknowledged, over) = run(steps, &mut prng);
            world.disk.power_cut(&mut prng);
            let mut world =
                world.restart().unwrap_or_else(|error| panic!("seed {seed} step {steps}: {error}"));
            let end = check(&mut world, acknowledged);
            // Cut the power again somewhere in the recovery; what was found once must be found again.
            for _ in 0..prng.below(6) {
                world.turn();
                if !world.disk.pending.is_empty() {
                    let index = prng.below(world.disk.pending.len() as u64) as usize;
                    world.step(index);
                }
            }
            world.disk.power_cut(&mut prng);
            let mut world =
                world.restart().unwrap_or_else(|error| panic!("seed {seed} step {steps}: {error}"));
            assert_eq!(check(&mut world, acknowledged), end);
            world.settle();
            assert_eq!(check(&mut world, acknowledged), end);
            assert_eq!(world.storage.admit(100), Admission::Yes);
            let slot = world.open(0);
            assert_eq!(world.append(slot, batch(2, 10, 0)).base_offset, Offset(end));
            if over {
                assert!(steps > 50, "{steps}");
                break;
            }
        }
    }
}
