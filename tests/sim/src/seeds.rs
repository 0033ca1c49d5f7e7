//! What the simulators have in common: the command line, many seeds or one, faults on purpose, and the last line
//! `N passed, N failed`. Used by tests/sim, tests/control and tests/spec.
#![allow(dead_code, reason = "no program uses all of it")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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
pub trait Summary: Default + PartialEq + Debug + Send {
    /// Sums, in whatever order seeds come to their end.
    fn add(&mut self, other: &Self);
}

/// Runs what is numbered `0..count`, as many at a time as there are cores; each result is handed over as soon as it is there.
/// Without a result nothing more is begun.
fn on_all_cores<T: Send>(
    count: usize,
    run: impl Fn(usize) -> Option<T> + Sync,
    mut take: impl FnMut(usize, T) + Send,
) {
    let (next, take) = (AtomicUsize::new(0), Mutex::new(&mut take));
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(count);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let Some(result) = run(number) else { return };
                    let mut take = take.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    take(number, result);
                }
            });
        }
    });
}

/// Does what `--seed S [--trace]`, `--twice S` and `--seeds N [--start S]` ask for; many seeds on all cores.
pub fn run<S: Summary>(
    program: &str,
    arguments: &Arguments,
    tally: &mut Tally,
    run: impl Fn(u64, bool) -> Result<S, String> + Sync,
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
        on_all_cores(
            seeds as usize,
            |number| Some(unless_it_panics(|| run(start + number as u64, false))),
            |number, result| {
                let seed = start + number as u64;
                let result = result.map(|summary| total.add(&summary));
                tally.count(&format!("seed {seed} (again: {program} --seed {seed} --trace)"), result);
            },
        );
        println!("{seeds} seeds: {total:?}");
    }
}

fn unless_it_panics<S>(run: impl FnOnce() -> Result<S, String>) -> Result<S, String> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    outcome.unwrap_or_else(|_| Err("an assertion of the code under test".to_string()))
}

/// One of the seeds must fail with this fault on purpose, or an assertion of the code under test. Said is the first that does,
/// whichever came to its end first.
pub fn caught<S: Send>(
    fault: &str,
    seeds: impl Iterator<Item = u64>,
    run: impl Fn(u64) -> Result<S, String> + Sync,
) -> Result<(), String> {
    let seeds: Vec<u64> = seeds.collect();
    let (first, began) = (AtomicUsize::new(usize::MAX), std::time::Instant::now());
    let mut failures = BTreeMap::new();
    on_all_cores(
        seeds.len(),
        |number| {
            // All before it have been begun, and end.
            if number > first.load(Ordering::Relaxed) {
                return None;
            }
            let outcome = unless_it_panics(|| run(seeds[number]));
            if outcome.is_err() {
                first.fetch_min(number, Ordering::Relaxed);
            }
            Some(outcome)
        },
        |number, outcome| {
            if let Err(how) = outcome {
                failures.insert(number, how);
            }
        },
    );
    let Some((number, how)) = failures.first_key_value() else {
        return Err(format!("not caught within {} seeds", seeds.len()));
    };
    let (tried, seed, seconds) = (number + 1, seeds[*number], began.elapsed().as_secs_f64());
    println!("sabotage {fault} caught after {tried} seeds, by seed {seed}, in {seconds:.1} s: {how}");
    Ok(())
}
