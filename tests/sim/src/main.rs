//! `pelton-sim`: runs seeds of the simulation. One seed is one run; the same seed twice is the same run to the byte.
//!
//! `--seeds N [--start S]` many seeds · `--seed S [--trace]` one · `--twice S` one seed twice, compared ·
//! `--sabotage NAME|all` each deliberate fault must be caught. Prints `N passed, N failed`.

mod client;
mod consumer_member;
mod disk;
mod group_oracle;
mod member;
mod oracle;
mod owner_oracle;
mod party;
mod scenario;
mod world;

use pelton_model::Prng;
use pelton_shard::Sabotage;

/// Seeds within which each sabotage must be caught.
const SABOTAGE_SEEDS: u64 = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    let mut tally = Tally::default();
    if let Some(seed) = number("--seed") {
        let trace = arguments.iter().any(|argument| argument == "--trace");
        tally.count(
            &format!("seed {seed}"),
            scenario::run(seed, trace, None).map(|summary| println!("{summary:?}")),
        );
    }
    if let Some(seed) = number("--twice") {
        tally.count(&format!("seed {seed} twice"), twice(seed));
    }
    if let Some(count) = number("--seeds") {
        let start = number("--start").unwrap_or(1);
        seeds(start, count, &mut tally);
    }
    if let Some(name) = value("--sabotage") {
        for fault in Sabotage::all() {
            if name == "all" || name == fault.name() {
                tally.count(&format!("sabotage {fault:?}"), caught(fault));
            }
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    std::process::exit(i32::from(tally.failed > 0 || tally.passed == 0));
}

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn count(&mut self, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                println!("FAILED {what}: {error}");
            }
        }
    }
}

fn seeds(start: u64, count: u64, tally: &mut Tally) {
    let (mut events, mut restarts, mut acknowledged, mut read) = (0, 0, 0, 0);
    let (mut dropped, mut compacted, mut commits, mut assignments) = (0, 0, 0, 0);
    for seed in start..start + count {
        let result = scenario::run(seed, false, None).map(|summary| {
            events += summary.events;
            restarts += summary.restarts;
            acknowledged += summary.acknowledged;
            read += summary.read;
            dropped += summary.dropped;
            commits += summary.commits;
            assignments += summary.assignments;
            compacted += summary.compacted;
        });
        tally.count(&format!("seed {seed} (again: pelton-sim --seed {seed} --trace)"), result);
    }
    println!(
        "{count} seeds: {events} events, {restarts} restarts, {acknowledged} records acknowledged, \
         {dropped} dropped by retention, {compacted} by compaction, {read} read, {assignments} assignments, \
         {commits} offsets committed"
    );
}

fn twice(seed: u64) -> Result<(), String> {
    let (first, second) = (scenario::run(seed, false, None)?, scenario::run(seed, false, None)?);
    if first == second { Ok(()) } else { Err(format!("{first:?} and then {second:?}")) }
}

fn caught(fault: Sabotage) -> Result<(), String> {
    let mut prng = Prng::new(7);
    for attempt in 1..=SABOTAGE_SEEDS {
        let seed = prng.next_u64();
        let run = std::panic::catch_unwind(|| scenario::run(seed, false, Some(fault)));
        let how = match run {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error,
            Err(_) => "an assertion of the broker's own".to_string(),
        };
        println!("sabotage {fault:?} caught after {attempt} seeds: {how}");
        return Ok(());
    }
    Err(format!("not caught within {SABOTAGE_SEEDS} seeds"))
}
