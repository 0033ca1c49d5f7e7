//! `pelton-control-sim`: the metadata quorum and the controller in simulation. One seed is one run.
//!
//! `--seeds N [--start S]` many seeds · `--seed S [--trace]` one · `--twice S` one seed twice, compared ·
//! `--sabotage NAME|all` each deliberate fault must be caught · `--growth [large]` what a node's death, a heartbeat and an
//! image cost with many nodes and partitions. Prints `N passed, N failed`.

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
    if arguments.has("--growth-row") {
        let number = |place| {
            arguments.value_at("--growth-row", place).and_then(|text| text.parse().ok()).expect("a number")
        };
        return growth::row(number(1), number(2));
    }
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
        growth::table(arguments.value("--growth") == Some("large"));
        tally.count("growth", Ok(()));
    }
    tally.end();
}
