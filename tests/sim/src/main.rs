//! `pelton-sim`: runs seeds of the simulation. One seed is one run; the same seed twice is the same run to the byte.
//!
//! `--seeds N [--start S]` many seeds · `--seed S [--trace]` one · `--twice S` one seed twice, compared ·
//! `--sabotage NAME|all` each deliberate fault must be caught · `--replicas` with any of these: one partition on three
//! nodes instead of one broker · `--nodes` with any of these: whole brokers on three nodes. Prints `N passed, N failed`.

mod client;
mod consumer_member;
mod disk;
mod group_oracle;
mod member;
mod network;
mod nodes;
mod oracle;
mod owner_oracle;
mod party;
mod replicas;
mod scenario;
mod seeds;
mod world;

use pelton_model::Prng;
use pelton_shard::Sabotage;
use seeds::{Arguments, Tally};

/// Seeds within which each sabotage must be caught.
const SABOTAGE_SEEDS: usize = 500;
/// The same with three nodes.
const REPLICA_SABOTAGE_SEEDS: u64 = 2_000;
/// The same with whole brokers on three nodes.
const NODES_SABOTAGE_SEEDS: u64 = 500;

fn main() {
    let (arguments, mut tally) = (Arguments::read(), Tally::default());
    if arguments.has("--replicas") {
        let run = |seed, trace| replicas::run(seed, trace, None);
        seeds::run("pelton-sim --replicas", &arguments, &mut tally, run);
        if let Some(name) = arguments.value("--sabotage") {
            for fault in replicas::Fault::all().filter(|fault| name == "all" || name == fault.to_string()) {
                let tried = 1..=REPLICA_SABOTAGE_SEEDS;
                let found =
                    seeds::caught(&fault.to_string(), tried, |seed| replicas::run(seed, false, Some(fault)));
                tally.count(&format!("sabotage {fault}"), found);
            }
        }
        tally.end();
    }
    if arguments.has("--nodes") {
        let run = |seed, trace| nodes::run(seed, trace, None);
        seeds::run("pelton-sim --nodes", &arguments, &mut tally, run);
        if let Some(name) = arguments.value("--sabotage") {
            for fault in nodes::Fault::all().filter(|fault| name == "all" || name == fault.to_string()) {
                let tried = 1..=NODES_SABOTAGE_SEEDS;
                let found =
                    seeds::caught(&fault.to_string(), tried, |seed| nodes::run(seed, false, Some(fault)));
                tally.count(&format!("sabotage {fault}"), found);
            }
        }
        tally.end();
    }
    seeds::run("pelton-sim", &arguments, &mut tally, |seed, trace| scenario::run(seed, trace, None));
    if let Some(name) = arguments.value("--sabotage") {
        for fault in Sabotage::all().filter(|fault| name == "all" || name == fault.name()) {
            let mut prng = Prng::new(7);
            let tried = std::iter::repeat_with(|| prng.next_u64()).take(SABOTAGE_SEEDS);
            let found =
                seeds::caught(&format!("{fault:?}"), tried, |seed| scenario::run(seed, false, Some(fault)));
            tally.count(&format!("sabotage {fault:?}"), found);
        }
    }
    tally.end();
}
