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
mod world;

use sabotage::Sabotage;

/// Seeds within which each sabotage must be caught.
const SABOTAGE_SEEDS: u64 = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(at) = arguments.iter().position(|argument| argument == "--growth-row") {
        let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok()).expect("a number");
        return growth::row(number(at + 1), number(at + 2));
    }
    let (mut passed, mut failed) = (0, 0);
    let mut count = |what: String, result: Result<(), String>| match result {
        Ok(()) => passed += 1,
        Err(error) => {
            failed += 1;
            println!("FAILED {what}: {error}");
        }
    };
    if let Some(seed) = number("--seed") {
        let trace = arguments.iter().any(|argument| argument == "--trace");
        count(
            format!("seed {seed}"),
            scenario::run(seed, trace, None).map(|summary| println!("{summary:?}")),
        );
    }
    if let Some(seed) = number("--twice") {
        let same = match (scenario::run(seed, false, None), scenario::run(seed, false, None)) {
            (first, second) if first == second => Ok(()),
            (first, second) => Err(format!("{first:?} and {second:?}")),
        };
        count(format!("seed {seed} twice"), same);
    }
    if let Some(seeds) = number("--seeds") {
        let start = number("--start").unwrap_or(1);
        let mut total = scenario::Summary::default();
        for seed in start..start + seeds {
            let result = scenario::run(seed, false, None).map(|summary| total.add(&summary));
            count(format!("seed {seed} (again: pelton-control-sim --seed {seed} --trace)"), result);
        }
        println!("{seeds} seeds: {total:?}");
    }
    if let Some(name) = value("--sabotage") {
        for fault in Sabotage::ALL {
            let text = format!("{fault:?}");
            if name == "all" && Sabotage::UNSEEN.contains(&fault) {
                println!("sabotage {text} is not tried: no seed is known that shows it");
            } else if name == "all" || name == text {
                count(format!("sabotage {text}"), scenario::caught(fault, SABOTAGE_SEEDS));
            }
        }
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--growth") {
        growth::table(arguments.get(at + 1).is_some_and(|word| word == "large"));
        passed += 1;
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0 || passed == 0));
}
