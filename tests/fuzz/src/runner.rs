//! Runs targets: regressions first, then damaged inputs; catches panics, holds memory and time against their limits, keeps
//! what fails.

use std::cell::{Cell, RefCell};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pelton_model::Prng;

use crate::counting;
use crate::targets::Target;

/// Longest time one input may take: far beyond any, so that a slow machine does not fail.
const RUN_TIME_MAX: Duration = Duration::from_secs(10);
/// After so many failures a target is given up: the rest would say the same.
const FAILURES_MAX: u64 = 10;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// How long to fuzz.
pub enum Limit {
    /// As the smoke test does.
    Smoke,
    /// So many runs for each target.
    Runs(u64),
    /// So long for each target; not repeatable but by run number.
    Time(Duration),
}

/// What was asked for.
pub struct Options {
    /// One target; none = all.
    pub target: Option<String>,
    /// How long.
    pub limit: Limit,
    /// The seed.
    pub seed: u64,
    /// Number of the first run.
    pub from: u64,
    /// Where failing inputs go.
    pub out: Option<PathBuf>,
    /// One input to run again.
    pub replay: Option<PathBuf>,
    /// Name each run before it starts.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            target: None,
            limit: Limit::Smoke,
            seed: 1,
            from: 0,
            out: None,
            replay: None,
            verbose: false,
        }
    }
}

/// Counts: one for each target, one for each regression.
#[derive(Default)]
pub struct Tally {
    /// Held.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
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

/// Panics of targets are kept for the report instead of printed.
pub fn catch_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if CATCHING.with(Cell::get) {
            PANIC.with(|kept| *kept.borrow_mut() = panic.to_string().replace('\n', " "));
        } else {
            usual(panic);
        }
    }));
}

/// Runs one input.
fn check(target: &Target, input: &[u8]) -> Result<(), String> {
    let began = Instant::now();
    let run = || catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    CATCHING.with(|catching| catching.set(true));
    let (result, memory_bytes) = counting::growth(run);
    CATCHING.with(|catching| catching.set(false));
    if result.is_err() {
        return Err(PANIC.with(|kept| kept.borrow().clone()));
    }
    let memory_bytes_max = (target.memory_bytes_max)(input.len());
    if memory_bytes > memory_bytes_max {
        let length = input.len();
        return Err(format!(
            "{memory_bytes} bytes of memory for {length} of input, at most {memory_bytes_max}"
        ));
    }
    match began.elapsed() {
        time if time > RUN_TIME_MAX => Err(format!("took {time:?}")),
        _ => Ok(()),
    }
}

/// Runs one file again.
pub fn replay(target: &Target, file: &Path, tally: &mut Tally) {
    let read = fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
    tally.count(&format!("{} {}", target.name, file.display()), read.and_then(|input| check(target, &input)));
}

/// Inputs that failed once, by name.
fn regressions(target: &Target) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Regressions, the valid inputs as they are, then damaged ones.
pub fn fuzz(target: &Target, options: &Options, tally: &mut Tally) {
    let began = Instant::now();
    for file in regressions(target) {
        replay(target, &file, tally);
    }
    let mut corpus = (target.corpus)(&mut Prng::new(options.seed));
    let mut failures = 0;
    for (index, input) in corpus.iter().enumerate() {
        if let Err(error) = check(target, input) {
            failures += 1;
            keep(target, options, &format!("valid-{index}"), input, &error);
        }
    }
    corpus.extend(regressions(target).iter().flat_map(fs::read));
    let mut run = options.from;
    while failures < FAILURES_MAX && !is_over(target, options, run, began) {
        let input = damaged(target, &corpus, options.seed, run);
        if options.verbose {
            println!("{} run {run}", target.name);
        }
        if let Err(error) = check(target, &input) {
            failures += 1;
            keep(target, options, &format!("{}-{run}", options.seed), &input, &error);
        }
        run += 1;
    }
    let (runs, seconds) = (run - options.from, began.elapsed().as_secs_f64());
    println!(
        "{}: {} valid inputs, {runs} damaged ones, {failures} failed, {seconds:.1} s",
        target.name,
        corpus.len()
    );
    let result = if failures == 0 { Ok(()) } else { Err(format!("{failures} inputs failed")) };
    tally.count(target.name, result);
}

fn is_over(target: &Target, options: &Options, run: u64, began: Instant) -> bool {
    match options.limit {
        Limit::Smoke => run - options.from >= target.runs,
        Limit::Runs(runs) => run - options.from >= runs,
        Limit::Time(time) => began.elapsed() >= time,
    }
}

/// The input of a run: of seed and number alone, so that one run can be repeated.
pub fn damaged(target: &Target, corpus: &[Vec<u8>], seed: u64, run: u64) -> Vec<u8> {
    let mut prng =
        Prng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ run.wrapping_mul(0xD134_2543_DE82_EF95));
    let pick = |prng: &mut Prng| prng.below(corpus.len() as u64) as usize;
    let (input, other) = (pick(&mut prng), pick(&mut prng));
    let mut input = corpus[input].clone();
    let more = if prng.one_in(4) { prng.below(4) } else { 0 };
    for _ in 0..1 + more {
        (target.mutate)(&mut prng, &mut input, &corpus[other]);
    }
    input
}

/// Reports a failure, and writes its input where it was asked for.
fn keep(target: &Target, options: &Options, name: &str, input: &[u8], error: &str) {
    println!("FAILED {} run {name} ({} bytes): {error}", target.name, input.len());
    let Some(dir) = &options.out else { return };
    let file = dir.join(format!("{}-{name}", target.name));
    match fs::create_dir_all(dir).and_then(|()| fs::write(&file, input)) {
        Ok(()) => println!("  again: pelton-fuzz --target {} --replay {}", target.name, file.display()),
        Err(error) => println!("  cannot be written to {}: {error}", file.display()),
    }
}
