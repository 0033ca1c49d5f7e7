use std::io::Write;

use super::life::run;
use super::plan::{Plan, Rigged};
use crate::sabotage::Sabotage;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `PELTON_REPLICA_SEEDS` says how many, `PELTON_REPLICA_FIRST` from where; a failure names its seed.
#[test]
fn every_seed_keeps_every_invariant() {
    let (first, count) = (number("PELTON_REPLICA_FIRST", 0), number("PELTON_REPLICA_SEEDS", 300));
    let (mut sums, mut failures) = ([0u64; 8], Vec::new());
    for seed in first..first + count {
        let life = std::panic::catch_unwind(|| run(Plan::of(seed)));
        let (oracle, steps) = match life.unwrap_or_else(|_| Err("panicked".to_string())) {
            Ok(done) => done,
            Err(text) => {
                let kind = Plan::of(seed).kind;
                failures
                    .push(format!("seed {seed} {kind:?}: {}", text.chars().take(700).collect::<String>()));
                continue;
            }
        };
        let counts = [steps, oracle.acked, oracle.reads, oracle.cuts, oracle.restarts];
        let rest = [oracle.faulted, oracle.transfers, oracle.unclean];
        counts.iter().chain(&rest).zip(&mut sums).for_each(|(count, sum)| *sum += count);
    }
    let names = ["steps", "acked", "reads", "cuts", "restarts", "faulted", "transfers", "unclean"];
    let report: Vec<String> = names.iter().zip(sums).map(|(name, sum)| format!("{sum} {name}")).collect();
    say(&format!("{count} seeds: {}", report.join(", ")));
    let shown: Vec<&String> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} seeds fail:\n{shown:#?}", failures.len());
    // A test in which nothing happens proves nothing.
    for (name, sum) in names.iter().zip(sums) {
        assert!(sum > 0 || count < 100, "no {name} in {count} seeds");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 0..5 {
        let (first, second) = (run(Plan::of(seed)).unwrap(), run(Plan::of(seed)).unwrap());
        assert_eq!((first.0.digest(), first.1), (second.0.digest(), second.1), "seed {seed}");
    }
}

/// The first seed that notices, and how.
fn caught(fault: impl Fn(&mut Plan), most: u64) -> Option<(u64, String)> {
    (0..most).find_map(|seed| {
        let mut plan = Plan::of(seed);
        fault(&mut plan);
        run(plan.scene()).err().map(|text| (seed, text))
    })
}

#[test]
fn every_fault_on_purpose_is_caught() {
    let most = number("PELTON_REPLICA_SABOTAGE_SEEDS", 1500);
    let mut missed = Vec::new();
    let only = std::env::var("PELTON_REPLICA_FAULT").ok();
    let mut tell = |name: String, found: Option<(u64, String)>| match found {
        Some((seed, text)) => {
            say(&format!("{name}: seed {seed}: {}", text.chars().take(110).collect::<String>()))
        }
        None => missed.push(name),
    };
    for fault in Sabotage::ALL {
        if only.as_ref().is_none_or(|only| *only == format!("{fault:?}")) {
            tell(format!("{fault:?}"), caught(|plan| plan.sabotage = Some(fault), most));
        }
    }
    for fault in Rigged::ALL {
        if only.as_ref().is_none_or(|only| *only == format!("{fault:?}")) {
            tell(format!("{fault:?}"), caught(|plan| plan.rigged = Some(fault), most));
        }
    }
    assert!(missed.is_empty(), "not caught within {most} seeds: {missed:?}");
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
