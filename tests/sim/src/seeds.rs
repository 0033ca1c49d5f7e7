//! What the simulators have in common: the command line, many seeds or one, faults on purpose, and the last line
//! `N passed, N failed`. Used by tests/sim, tests/control and tests/spec.
#![allow(dead_code, reason = "no program uses all of it")]

use std::fmt::Debug;

/// The command line: names, some with a value behind them.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Of this process.
    pub fn read() -> Arguments {
        Arguments(std::env::args().skip(1).collect())
    }

    /// The name was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// What stands behind the name, so many places behind it.
    pub fn value_at(&self, name: &str, place: usize) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + place).map(String::as_str)
    }

    /// What stands right behind the name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.value_at(name, 1)
    }

    /// The same, as a number; anything else ends the process.
    pub fn number(&self, name: &str) -> Option<u64> {
        let text = self.value(name)?;
        Some(text.parse().unwrap_or_else(|_| {
            eprintln!("{name} wants a number, not {text:?}");
            std::process::exit(2);
        }))
    }
}

/// How it went so far.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// One more; why it failed is printed.
    pub fn count(&mut self, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                println!("FAILED {what}: {error}");
            }
        }
    }

    /// The last line, and the end of the process: 1 if anything failed or nothing ran.
    pub fn end(self) -> ! {
        println!("{} passed, {} failed", self.passed, self.failed);
        std::process::exit(i32::from(self.failed > 0 || self.passed == 0));
    }
}

/// What a run of a seed came to.
pub trait Summary: Default + PartialEq + Debug {
    /// Sums.
    fn add(&mut self, other: &Self);
}

/// Does what `--seed S [--trace]`, `--twice S` and `--seeds N [--start S]` ask for.
pub fn run<S: Summary>(
    program: &str,
    arguments: &Arguments,
    tally: &mut Tally,
    run: impl Fn(u64, bool) -> Result<S, String>,
) {
    if let Some(seed) = arguments.number("--seed") {
        let result = run(seed, arguments.has("--trace"));
        tally.count(&format!("seed {seed}"), result.map(|summary| println!("{summary:?}")));
    }
    if let Some(seed) = arguments.number("--twice") {
        let same = match (run(seed, false), run(seed, false)) {
            (Ok(first), Ok(second)) if first == second => Ok(()),
            (first, second) => Err(format!("{first:?} and then {second:?}")),
        };
        tally.count(&format!("seed {seed} twice"), same);
    }
    if let Some(seeds) = arguments.number("--seeds") {
        let start = arguments.number("--start").unwrap_or(1);
        let mut total = S::default();
        for seed in start..start + seeds {
            let result = run(seed, false).map(|summary| total.add(&summary));
            tally.count(&format!("seed {seed} (again: {program} --seed {seed} --trace)"), result);
        }
        println!("{seeds} seeds: {total:?}");
    }
}

/// One of the seeds must fail with this fault on purpose, or an assertion of the code under test.
pub fn caught<S>(
    fault: &str,
    seeds: impl Iterator<Item = u64>,
    run: impl Fn(u64) -> Result<S, String>,
) -> Result<(), String> {
    let mut tried = 0;
    for seed in seeds {
        tried += 1;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        let how = match outcome {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error,
            Err(_) => "an assertion of the code under test".to_string(),
        };
        println!("sabotage {fault} caught after {tried} seeds, by seed {seed}: {how}");
        return Ok(());
    }
    Err(format!("not caught within {tried} seeds"))
}
