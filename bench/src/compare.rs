//! The full comparison: every case for every broker found, interleaved rounds on one machine in one run, then goals, tables
//! and plots. Never quotes a figure from another run.

pub mod cases;
pub mod goals;
pub mod idle;
pub mod report;
pub mod restart;
pub mod results;
pub mod svg;
pub mod systems;

use crate::limits::{self, Limit};
use crate::load;
use crate::server::Scratch;
use crate::{Outcome, generator, sys};
use cases::{Runner, Times};
use idle::Idle;
use report::Report;
use restart::Restart;
use results::Results;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use systems::{PELTON, PROCESSES, Process, Programs, SYSTEMS};

/// How the comparison runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub out: PathBuf,
    pub rounds: usize,
    pub times: Times,
    pub cases: Vec<String>,
    pub programs: Programs,
    pub scratch: Option<String>,
    /// A run that failed is an error of the whole: for tests. Otherwise it is told in the tables, and a broker that cannot
    /// keep up is a result.
    pub strict: bool,
}

/// Runs everything; what was found so far is written after each round.
pub fn run(options: &Options) -> Outcome<()> {
    sys::raise_descriptors();
    let scratch = Scratch::new(options.scratch.as_deref(), "compare")?;
    let machine = limits::measure(&scratch.path)?;
    eprint!("{}", limits::table(&machine));
    let mut results = Results::default();
    let (mut idle, mut restart) = (Vec::new(), None);
    let began = Instant::now();
    for round in 0..options.rounds {
        for (number, process) in PROCESSES.into_iter().enumerate() {
            let done = (round * PROCESSES.len() + number) * 100 / (options.rounds * PROCESSES.len());
            eprintln!("[{done:3} %, {} s] round {round}: {process:?}", began.elapsed().as_secs());
            one_process(options, process, round, &scratch, &mut results)?;
        }
        if round == 0 && wants(options, "H9") {
            idle = idles(options, &scratch)?;
            if !options.strict {
                // What cannot be made here is told, and the rest goes on.
                restart = restart_after_kill(options, &scratch).unwrap_or_else(|error| {
                    eprintln!("H9: a restart with many segments: {error}");
                    None
                });
            }
        }
        report(options, &machine, &results, &idle, restart).write(&options.out)?;
    }
    println!("{}", std::fs::read_to_string(options.out.join("compare.md")).unwrap_or_default());
    let failed = results.rows.iter().find_map(|row| row.result.as_ref().err().map(|error| (row, error)));
    match failed {
        Some((row, error)) if options.strict => {
            Err(format!("{} {} of {}: {error}", row.case, row.variant, row.system.name))
        }
        _ => Ok(()),
    }
}

fn wants(options: &Options, case: &str) -> bool {
    options.cases.iter().any(|wanted| wanted == case)
}

fn one_process(
    options: &Options,
    process: Process,
    round: usize,
    scratch: &Scratch,
    results: &mut Results,
) -> Outcome<()> {
    let spins = [Process::FloorSpinning, Process::PeltonSpinning].contains(&process);
    if spins && !wants(options, "H1") {
        return Ok(());
    }
    let dir = scratch.path.join("server");
    if let Some(server) = options.programs.start(process, &dir)? {
        if process == Process::Kafka {
            warm_up(&server.bootstrap)?;
        }
        for system in SYSTEMS.into_iter().filter(|system| system.process == process) {
            let times = options.times;
            let rounds = options.rounds;
            let mut runner = Runner { server: &server, system, round, rounds, times, results };
            options.cases.iter().for_each(|case| runner.case(case));
            if system == PELTON && wants(options, "H9") {
                runner.connections()?;
            }
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}

/// The JVM compiles what it has seen often: give it that before any clock runs.
fn warm_up(bootstrap: &str) -> Outcome<()> {
    for case in [load::TINY, load::BULK] {
        let plan = load::Plan {
            bootstrap: bootstrap.to_string(),
            warmup: Duration::ZERO,
            measure: Duration::from_secs(6),
            broker_pids: Vec::new(),
            core: 1.min(sys::cores().max(2) - 1),
            topic: None,
            replicas: 1,
            configs: Vec::new(),
            catch_up: None,
        };
        generator::run(&case, &plan)?;
    }
    Ok(())
}

fn idles(options: &Options, scratch: &Scratch) -> Outcome<Vec<(&'static str, Idle)>> {
    let dir = scratch.path.join("idle");
    let found = idle::measure(&options.programs, Process::Pelton, &dir)?;
    let _ = std::fs::remove_dir_all(&dir);
    Ok(found.map(|idle| ("Pelton", idle)).into_iter().collect())
}

fn restart_after_kill(options: &Options, scratch: &Scratch) -> Outcome<Option<Restart>> {
    let dir = scratch.path.join("restart");
    let found = restart::measure(&options.programs, &dir);
    let _ = std::fs::remove_dir_all(&dir);
    found
}

fn report<'a>(
    options: &Options,
    machine: &'a [Limit],
    results: &'a Results,
    idle: &'a [(&'static str, Idle)],
    restart: Option<Restart>,
) -> Report<'a> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let about = format!(
        "Kernel {}, {} cores; broker on core 0, generator on core 1, cubic, acks=all, {} interleaved rounds of {} s (H3 kept up: once {} s) \
         after {} s of warm-up. Median (min-max) over rounds. Latency is from the intended send in open loops. Every answer's \
         error code and offset, every batch's CRC and the completeness of consumers were checked.",
        kernel.trim(),
        sys::cores(),
        options.rounds,
        options.times.measure.as_secs_f64(),
        options.times.long.as_secs_f64(),
        options.times.warmup.as_secs_f64(),
    );
    let pelton = idle.iter().find(|(name, _)| *name == "Pelton").map(|(_, idle)| idle);
    let goals = goals::goals(results, machine, (pelton, restart.as_ref()), &options.cases);
    Report { about, machine, results, idle, restart, goals }
}
