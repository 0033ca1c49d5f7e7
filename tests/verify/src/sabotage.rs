//! Brokers that do wrong on purpose: the verdict on each must be red. One that was never seen red proves nothing.

use crate::fault::Kind;
use crate::run::{Options, run as run_faults};
use crate::{Tally, load_of, network};
use pelton_bench::Outcome;
use pelton_bench::args::Args;
use pelton_bench::cluster::System;
use pelton_bench::server::{self, Scratch};
use std::time::Instant;

/// What real processes show under these faults within a minute or two. The others need what nothing here does to a process (power
/// that fails, a disk that lies, clocks that drift) or an order of events that is rare; the simulators show them.
const SHOWN: &[&str] = &[
    "shard-settle-at-once",
    "shard-forget-lease",
    "host-acknowledge-at-once",
    "host-follow-without-producers",
    "replica-skip-matching",
    "log-wrong-stamp",
    "log-cut-at-wrong-place",
];

/// Faults that do harm soonest, none of which needs a network of its own.
const KINDS: [Kind; 8] = [
    Kind::KillLeader,
    Kind::KillAll,
    Kind::HaltLeader,
    Kind::KillTwo,
    Kind::CutPeers,
    Kind::KillStarting,
    Kind::DeafOthers,
    Kind::Rolling,
];

/// Letters of what was noticed first.
const WORDS: usize = 200;

/// Tries each, a few times with other seeds until the verdict is red.
pub fn run(args: &Args, seed: u64) -> Outcome<Tally> {
    let names: Vec<String> = match args.text("names") {
        Some("every") => pelton_shard::cluster::switches().into_iter().map(|(name, _)| name).collect(),
        Some(list) => list.split(',').map(str::to_string).collect(),
        None => SHOWN.iter().map(|name| name.to_string()).collect(),
    };
    let own = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("pelton-sabotaged");
    let program = server::pelton_program(Some(&own.to_string_lossy()))?;
    let (tries, faults) = (args.number("tries", 3u64)?, args.number("faults", 12usize)?);
    let mut tally = Tally::default();
    // The same program with nothing switched on is green, or red means nothing.
    let sound = red(args, &program, None, seed, faults, &mut tally)?;
    tally.count("no sabotage", sound);
    for name in names {
        let began = Instant::now();
        let mut first = None;
        for number in 0..tries {
            first = red(args, &program, Some(&name), seed + number, faults, &mut tally)?;
            if first.is_some() {
                break;
            }
        }
        let seconds = began.elapsed().as_secs();
        match first {
            Some(words) => {
                println!("sabotage {name}: noticed after {seconds} s: {words}");
                tally.count(&name, None);
            }
            None => tally.count(&format!("sabotage {name}"), Some(format!("was not noticed in {seconds} s"))),
        }
    }
    Ok(tally)
}

/// One run: what was noticed first.
fn red(
    args: &Args,
    program: &std::path::Path,
    name: Option<&str>,
    seed: u64,
    faults: usize,
    outer: &mut Tally,
) -> Outcome<Option<String>> {
    let scratch = Scratch::new(args.text("dir"), "sabotage")?;
    let net = network(args, args.number("port", 19_900)?, outer)?;
    let options = Options {
        faults,
        seconds: 120,
        kinds: KINDS.to_vec(),
        acknowledged: 1,
        out: None,
        seed,
        load: load_of(args)?,
        sabotage: name.map(str::to_string),
    };
    let system = System::Pelton(program.to_path_buf(), args.extra.clone());
    let mut tally = Tally { quiet: true, ..Tally::default() };
    match run_faults(system, net, &scratch.path, &options, &mut tally) {
        // It did not even come to a topic.
        Err(error) => Ok(Some(error)),
        Ok(_) => Ok(tally
            .faults
            .first()
            .map(|words| words.chars().take(WORDS).collect::<String>().replace('\n', " "))),
    }
}
