//! `pelton-control-sim`: the metadata quorum and the controller in simulation. One seed is one run.
//!
//! `--seeds N [--start S]` many seeds · `--seed S [--trace]` one · `--twice S` one seed twice, compared ·
//! `--sabotage NAME|all` each deliberate fault must be caught · `--growth check|table|large` what a heartbeat, a node's death
//! and an image cost with many nodes and partitions: `check` holds counts and bytes against the rules, the others print.
//! Prints `N passed, N failed`.

mod data;
mod growth;
mod node;
mod oracle;
mod sabotage;
mod scenario;
#[path = "../../sim/src/seeds.rs"]
mod seeds;
mod world;

use sabotage::Sabotage;
use seeds::{Arguments, Tally};

/// Seeds within which each sabotage must be caught.
const SABOTAGE_SEEDS: u64 = 1_000;

fn main() {
    let arguments = Arguments::read();
    let mut tally = Tally::default();
    seeds::run("pelton-control-sim", &arguments, &mut tally, |seed, trace| scenario::run(seed, trace, None));
    if let Some(name) = arguments.value("--sabotage") {
        for fault in Sabotage::ALL {
            let text = format!("{fault:?}");
            if name == "all" || name == text {
                let found =
                    seeds::caught(&text, 1..=SABOTAGE_SEEDS, |seed| scenario::with_fault(seed, fault));
                tally.count(&format!("sabotage {text}"), found);
            }
        }
    }
    if arguments.has("--growth") {
        let result = match arguments.value("--growth") {
            Some("check") => growth::check(),
            size => growth::table(size == Some("large")),
        };
        tally.count("growth", result);
    }
    tally.end();
}
