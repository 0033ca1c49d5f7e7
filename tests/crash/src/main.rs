//! kill-loop: kill -9 a broker again and again while producers write with acks=all, then read everything back and hold it
//! against the ledgers. Exit code 0 only for `lost 0, duplicated 0`. Never touches a process it did not start.

mod payload;
mod producer;
mod verify;

use pelton_bench::args::Args;
use pelton_bench::client::Client;
use pelton_bench::server::{self, Place, Scratch, Server};
use pelton_bench::{Outcome, load};
use producer::{Producer, Shared};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use verify::Verdict;

const HELP: &str = "\
kill-loop [--kills 200] [--min-ms 50] [--max-ms 500] [--partitions 4] [--seed N] [--port 19800] [--dir DIR]
          [--flush-messages 1] [--system pelton|kafka] [--pelton FILE] [--jars DIR] [-X broker.key=value]
          kills the broker --kills times, 50-500 ms after it is ready, and verifies every acknowledged record";
const OPTIONS: &[&str] = &[
    "flush-messages",
    "kills",
    "min-ms",
    "max-ms",
    "partitions",
    "seed",
    "port",
    "dir",
    "system",
    "pelton",
    "jars",
];
const TOPIC: &str = "kills";

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1), OPTIONS).and_then(|args| run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill-loop: {error}");
            ExitCode::from(2)
        }
    }
}

/// The broker that dies.
enum System {
    Pelton(PathBuf, Vec<String>),
    Kafka(PathBuf),
}

impl System {
    fn start(&self, place: &Place) -> Outcome<Server> {
        server::port_is_free(place.port)?;
        match self {
            System::Pelton(program, extra) => server::pelton(program, place, extra),
            System::Kafka(jars) => server::kafka(jars, place),
        }
    }
}

fn run(args: &Args) -> Outcome<bool> {
    if !args.command.is_empty() {
        return Err(format!("usage:\n{HELP}"));
    }
    let kills: u32 = args.number("kills", 200)?;
    let (min_ms, max_ms): (u64, u64) = (args.number("min-ms", 50)?, args.number("max-ms", 500)?);
    let partitions: i32 = args.number("partitions", 4)?;
    let seed: u64 = args.number("seed", load::now_ms() as u64)?;
    let system = match args.text("system") {
        Some("kafka") => System::Kafka(server::kafka_jars(args.text("jars"))?),
        None | Some("pelton") => {
            System::Pelton(server::pelton_program(args.text("pelton"))?, args.extra.clone())
        }
        Some(other) => return Err(format!("--system {other}: there are pelton and kafka")),
    };
    let scratch = Scratch::new(args.text("dir"), "kills")?;
    let place = Place { port: args.number("port", 19_800)?, dir: scratch.path.clone(), cores: None };
    println!("seed {seed}, {kills} kills, {partitions} partitions, data in {}", scratch.path.display());
    let mut broker = system.start(&place)?;
    server::warm(&broker.bootstrap)?;
    let mut admin = Client::connect(&broker.bootstrap, Duration::from_secs(30))?;
    let flush_messages = args.text("flush-messages").unwrap_or("1");
    admin.create_topic(TOPIC, partitions, &[("flush.messages", flush_messages)])?;
    let shared = Arc::new(Shared::default());
    let producers = producers(&broker.bootstrap, partitions);
    let threads: Vec<_> = producers
        .iter()
        .map(|producer| {
            let (producer, shared) = (producer.clone(), shared.clone());
            std::thread::spawn(move || producer.run(&shared))
        })
        .collect();
    let mut random = seed | 1;
    let mut starts_ms = Vec::new();
    let killed = kill_and_restart(
        &system,
        &place,
        &mut broker,
        kills,
        || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            Duration::from_millis(min_ms + random % (max_ms.max(min_ms) - min_ms + 1))
        },
        &shared,
        &mut starts_ms,
    );
    shared.stop.store(true, Ordering::Relaxed);
    let ledgers: Result<Vec<_>, _> = threads.into_iter().map(|thread| thread.join()).collect();
    let ledgers = ledgers.map_err(|_| "a producer panicked")?;
    if let Err(error) = killed {
        std::mem::forget(scratch);
        return Err(format!("{error}; data kept in {}", place.dir.display()));
    }
    let verdict = verify_all(&broker.bootstrap, partitions, &producers, &ledgers);
    let passed = report(verdict, &ledgers, &mut starts_ms);
    if !passed {
        println!("data kept in {}", place.dir.display());
        std::mem::forget(scratch);
    }
    Ok(passed)
}

/// Two producers of small batches per partition; partition 0 also gets one of large batches (about 300 KB).
fn producers(bootstrap: &str, partitions: i32) -> Vec<Producer> {
    let small = |id: u32, partition: i32| Producer {
        id,
        bootstrap: bootstrap.to_string(),
        topic: TOPIC.to_string(),
        partition,
        depth: 4,
        value_bytes: 100,
        records_max: 20,
    };
    let mut all: Vec<Producer> = (0..2 * partitions).map(|id| small(id as u32, id / 2)).collect();
    let large =
        Producer { value_bytes: 3_000, records_max: 200, depth: 2, ..small(2 * partitions as u32, 0) };
    all.push(large);
    all
}

fn kill_and_restart(
    system: &System,
    place: &Place,
    broker: &mut Server,
    kills: u32,
    mut pause: impl FnMut() -> Duration,
    shared: &Shared,
    starts_ms: &mut Vec<f64>,
) -> Outcome<()> {
    let mut idle_rounds = 0;
    let mut report = Instant::now();
    for kill in 1..=kills {
        let before = shared.acknowledged.load(Ordering::Relaxed);
        std::thread::sleep(pause());
        broker.kill();
        let acknowledged = shared.acknowledged.load(Ordering::Relaxed);
        // A broker that acknowledges nothing loses nothing: that would be no test.
        idle_rounds = if acknowledged == before { idle_rounds + 1 } else { 0 };
        if idle_rounds > 20 {
            return Err(format!("kill {kill}: nothing was acknowledged in the last 20 lives of the broker"));
        }
        *broker = system.start(place).map_err(|error| format!("restart after kill {kill}: {error}"))?;
        starts_ms.push(broker.start_time.as_secs_f64() * 1000.0);
        if report.elapsed() > Duration::from_secs(10) || kill == kills {
            println!("kill {kill}: {acknowledged} records acknowledged");
            report = Instant::now();
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

fn verify_all(
    bootstrap: &str,
    partitions: i32,
    producers: &[Producer],
    ledgers: &[Vec<producer::Entry>],
) -> Outcome<Verdict> {
    let mut verdict = Verdict::default();
    for partition in 0..partitions {
        let found = verify::read_back(bootstrap, TOPIC, partition, &mut verdict)?;
        for (producer, ledger) in producers.iter().zip(ledgers).filter(|(p, _)| p.partition == partition) {
            found.judge(producer.id, ledger, &mut verdict);
        }
    }
    Ok(verdict)
}

fn report(verdict: Outcome<Verdict>, ledgers: &[Vec<producer::Entry>], starts_ms: &mut [f64]) -> bool {
    let fates = ledgers.iter().flatten();
    let (mut acknowledged, mut refused, mut unknown) = (0u64, 0u64, 0u64);
    for entry in fates {
        match entry.fate {
            producer::Fate::Acknowledged(_) => acknowledged += u64::from(entry.records),
            producer::Fate::Refused(_) => refused += 1,
            producer::Fate::Unknown => unknown += 1,
        }
    }
    starts_ms.sort_by(f64::total_cmp);
    let start =
        |q: usize| starts_ms.get((starts_ms.len() * q / 100).min(starts_ms.len().max(1) - 1)).unwrap_or(&0.0);
    println!(
        "acknowledged {acknowledged} records, refused {refused} batches, unknown {unknown} batches; restart p50 {:.0} ms, max {:.0} ms",
        start(50),
        start(100)
    );
    match verdict {
        Err(error) => {
            println!("FAILED: {error}");
            false
        }
        Ok(verdict) => {
            verdict.notes.iter().for_each(|note| println!("{note}"));
            println!(
                "lost {}, duplicated {}, reordered {}, foreign {}; {} records in {} batches read back, {} unknown batches present",
                verdict.lost,
                verdict.duplicated,
                verdict.reordered,
                verdict.foreign,
                verdict.records,
                verdict.batches,
                verdict.unknown_present
            );
            verdict.passed() && acknowledged > 0
        }
    }
}
