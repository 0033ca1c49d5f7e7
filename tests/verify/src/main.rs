//! pelton-verify: three real brokers, faults, and the proof of what became of each acknowledged record. Closing line
//! `N passed, N failed, N skipped`; exit code 0 only when nothing failed. Never touches a process, namespace or mount that it did not
//! make.

mod book;
mod campaign;
mod churn;
mod connection;
mod controls;
mod damage;
mod deposed;
mod directory;
mod examine;
mod failover;
mod fault;
mod forgotten_cut;
mod frozen;
mod group_moves;
mod group_rules;
mod halted;
mod interrupt;
mod judge;
mod kept;
mod last_copy;
mod leftovers;
mod links;
mod lost_power;
mod old_life;
mod own_topic;
mod power;
mod power_disk;
mod power_server;
mod producer;
mod quorum;
mod reader;
mod recipe;
mod replica;
mod report;
mod run;
mod sabotage;
mod shown;
mod small_disk;
mod staged;
mod stamps;
mod trim;
mod two_disks;
mod wire;
mod wire_what;
mod wired;
mod wired_epochs;
mod wired_isr;

use pelton_bench::args::Args;
use pelton_bench::cluster::{Cluster, System};
use pelton_bench::net::Net;
use pelton_bench::server::{self, Scratch};
use pelton_bench::{Outcome, load, sys};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
pelton-verify          [--faults 100] [--seconds N] [--kinds LIST] [--acknowledged 1000000] [--out DIR]
                       faults on three brokers while clients write and read; at the end everything is read back, each replica alone
pelton-verify failover [--kills 50] [--stops 10] [--rounds 3]
                       how long partitions wait after kill -9, a clean stop, and in rolling restarts
pelton-verify sabotage [--names LIST] [--recipe NAME] [--tries 3]
                       a broker that does wrong on purpose, once for each way to, each with the recipe that shows it: the verdict must be
                       red each time, and green for each recipe when nothing is wrong (the name none); both given: these with that
all:  [--seed N] [--partitions 6] [--pause-ms 15] [--system pelton|kafka] [--pelton FILE] [--jars DIR] [--port 19900]
      [--network namespaces|loopback] [--dir DIR] [-X broker.key=value]
      --seconds ends a run earlier, after the fault under way. Kinds are named with commas between; all by default.";
const OPTIONS: &[&str] = &[
    "faults",
    "seconds",
    "kinds",
    "acknowledged",
    "out",
    "kills",
    "stops",
    "rounds",
    "seed",
    "partitions",
    "pause-ms",
    "system",
    "pelton",
    "jars",
    "port",
    "network",
    "dir",
    "names",
    "recipe",
    "tries",
];
/// Size of the one small file system, bytes.
const SMALL_DISK: u64 = 4 << 30;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1), OPTIONS).and_then(|args| run(&args)) {
        Ok(tally) => {
            println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
            if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("pelton-verify: {error}");
            ExitCode::from(2)
        }
    }
}

/// Checks made, failed, and those that this machine does not allow.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    /// What failed.
    pub faults: Vec<String>,
    /// Failing is what is wanted: nothing is printed.
    pub quiet: bool,
}

impl Tally {
    /// Counts one check; a failed one is printed.
    pub fn count(&mut self, what: &str, fault: Option<String>) {
        match fault {
            None => self.passed += 1,
            Some(fault) => {
                self.failed += 1;
                if !self.quiet {
                    println!("FAILED {what}: {fault}");
                }
                self.faults.push(format!("{what}: {fault}"));
            }
        }
    }

    /// Says something beside the counts.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            println!("{text}");
        }
    }

    /// Says what is not tried, and why.
    pub fn skip(&mut self, what: &str, why: &str) {
        self.skipped += 1;
        println!("SKIPPED {what}: {why}");
    }
}

fn system(args: &Args) -> Outcome<System> {
    match args.text("system") {
        Some("kafka") => Ok(System::Kafka(server::kafka_jars(args.text("jars"))?, args.extra.clone())),
        None | Some("pelton") => {
            Ok(System::Pelton(server::pelton_program(args.text("pelton"))?, args.extra.clone()))
        }
        Some(other) => Err(format!("--system {other}: there are pelton and kafka")),
    }
}

/// Namespaces, or, said clearly, loopback.
fn network(args: &Args, port: u16, tally: &mut Tally) -> Outcome<Net> {
    if args.text("network") == Some("loopback") {
        return Ok(Net::loopback(port));
    }
    match Net::namespaces(port) {
        Ok(net) => Ok(net),
        Err(error) if args.text("network").is_none() => {
            let why = format!("{error}; all nodes are on loopback, no link is cut (needs root and iproute2)");
            tally.skip("faults of the network", &why);
            Ok(Net::loopback(port))
        }
        Err(error) => Err(error),
    }
}

fn load_of(args: &Args) -> Outcome<campaign::Load> {
    Ok(campaign::Load {
        partitions: args.number("partitions", 6)?,
        pause: Duration::from_millis(args.number("pause-ms", 15)?),
        interval: Duration::from_millis(100),
        beside: true,
        settle: campaign::SETTLE,
        min_isr: "2",
        age_ms: 0,
        value_bytes: None,
    })
}

fn run(args: &Args) -> Outcome<Tally> {
    if args.command == "power-disk" {
        power_server::run(std::path::Path::new(args.required("dir")?), args.number("seed", 1u64)?)?;
        // Nothing was checked: whoever started it asks no further.
        std::process::exit(0);
    }
    if !matches!(args.command.as_str(), "" | "failover" | "sabotage") {
        return Err(format!("usage:\n{HELP}"));
    }
    sys::raise_descriptors();
    interrupt::install();
    let mut tally = Tally::default();
    let seed: u64 = args.number("seed", load::now_ms() as u64)?;
    if args.command == "sabotage" {
        return sabotage::run(args, seed);
    }
    let system = system(args)?;
    let scratch = Scratch::new(args.text("dir"), "verify")?;
    leftovers::mark(&scratch.path);
    let net = network(args, args.number("port", 19_900)?, &mut tally)?;
    for left in scratch.path.parent().map(leftovers::remove).unwrap_or_default() {
        println!("removed what a killed run left in {}", left.display());
    }
    let load = load_of(args)?;
    println!(
        "seed {seed}; {}; data in {}",
        if net.namespaces { "each node in its own network namespace" } else { "all nodes on loopback" },
        scratch.path.display()
    );
    if args.command == "failover" {
        let cluster = Cluster::new(system, net, &scratch.path)?;
        let options = failover::Options {
            kills: args.number("kills", 50)?,
            stops: args.number("stops", 10)?,
            rounds: args.number("rounds", 3)?,
            seed,
            load: campaign::Load {
                interval: Duration::from_millis(10),
                pause: Duration::from_millis(5),
                beside: false,
                ..load
            },
        };
        let (mut campaign, measured) = failover::run(cluster, &options)?;
        print!("{}", measured.text());
        run::finish(&mut campaign, seed, None, &mut tally);
        return Ok(tally);
    }
    let options = run::Options {
        faults: args.number("faults", 100)?,
        seconds: args.number("seconds", u64::MAX)?,
        kinds: run::kinds(args.text("kinds"))?,
        acknowledged: args.number("acknowledged", 1_000_000)?,
        out: args.text("out").map(std::path::PathBuf::from),
        seed,
        load,
    };
    let kept = run::run(system, net, &scratch.path, &options, &mut tally)?;
    if kept {
        println!("data kept in {}", scratch.path.display());
        leftovers::keep(&scratch.path);
        std::mem::forget(scratch);
    }
    Ok(tally)
}
