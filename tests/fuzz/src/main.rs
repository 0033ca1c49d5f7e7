//! `pelton-fuzz`: damaged inputs against the parts that read bytes from outside. Seeded: the same seed and run number is
//! the same input. Needs no nightly compiler and no instrumentation; it does not search for coverage.
//!
//! `[--target NAME] [--runs N | --seconds N] [--seed S] [--from RUN]` damages inputs (default: each target, as many runs as
//! the smoke test has) · `--out DIR` where inputs that fail are written · `--replay FILE --target NAME` one input again ·
//! `--verbose` names each run before it starts, for one that ends the process. Each target first replays
//! `regressions/<target>/`. The last line is `N passed, N failed`.

#[path = "../../../shards/wire/tests/common/counting.rs"]
mod counting;
#[path = "../../../shards/wire/tests/common/decoders.rs"]
mod decoders;
#[path = "../../../shards/wire/tests/common/mutate.rs"]
mod mutate;
#[path = "../../../shards/shard/tests/common/node.rs"]
mod node;
#[path = "../../../shards/wire/tests/common/requests.rs"]
mod requests;
mod runner;
mod targets;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use runner::{Limit, Options, Tally};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("pelton-fuzz: {error}");
            std::process::exit(2);
        }
    };
    runner::catch_panics();
    let mut tally = Tally::default();
    for target in targets::ALL {
        if options.target.as_deref().is_some_and(|name| name != target.name) {
            continue;
        }
        match &options.replay {
            Some(file) => runner::replay(target, file, &mut tally),
            None => runner::fuzz(target, &options, &mut tally),
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    std::process::exit(i32::from(tally.failed > 0 || tally.passed == 0));
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--verbose" {
            options.verbose = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} {value} is not a number"));
        match name.as_str() {
            "--target" if targets::ALL.iter().any(|target| target.name == value) => {
                options.target = Some(value)
            }
            "--target" => {
                let names: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
                return Err(format!("there is no target {value}; there are {}", names.join(", ")));
            }
            "--runs" => options.limit = Limit::Runs(number()?),
            "--seconds" => options.limit = Limit::Time(Duration::from_secs(number()?)),
            "--seed" => options.seed = number()?,
            "--from" => options.from = number()?,
            "--out" => options.out = Some(PathBuf::from(value)),
            "--replay" => options.replay = Some(PathBuf::from(value)),
            _ => return Err(format!("{name} is not an option; see the top of tests/fuzz/src/main.rs")),
        }
    }
    if options.replay.is_some() && options.target.is_none() {
        return Err("--replay needs --target".to_string());
    }
    Ok(options)
}
