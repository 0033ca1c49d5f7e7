//! kill-loop: kill -9 a broker again and again while producers write with acks=all, look up what was acknowledged after
//! each kill, then read everything back and hold it against the ledgers. Closing line `N passed, N failed`; exit code 0 only
//! when nothing failed. Never touches a process it did not start.

use pelton_bench::args::Args;
use pelton_bench::client::Client;
use pelton_bench::server::{self, Place, Scratch};
use pelton_bench::{Outcome, load};
use pelton_crash::campaign::{self, Campaign, System, TOPIC, Tally};
use pelton_crash::lifecycle::{Lifecycle, Wanted};
use pelton_crash::producer::{Entry, Fate, Producer, Shared};
use pelton_crash::selfcheck;
use pelton_crash::verify::Verdict;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const HELP: &str = "\
kill-loop [--kills 200] [--min-ms 50] [--max-ms 500] [--partitions 4] [--flush-messages 1] [--seed N] [--port 19800]
          [--dir DIR] [--system pelton|kafka] [--pelton FILE] [--jars DIR] [--lifecycle LIST] [-X broker.key=value]
          kills the broker --kills times, 50-500 ms after it is ready (each fourth time again while it recovers), checks
          after each kill and at the end that every acknowledged record is there once, at its offset, in order; --lifecycle names what
          else is checked, with commas between: retention (drops no more than it may), compaction (keeps the latest of every
          key), commits (of group members; no committed offset goes back)";
const OPTIONS: &[&str] = &[
    "kills",
    "min-ms",
    "max-ms",
    "partitions",
    "flush-messages",
    "seed",
    "port",
    "dir",
    "system",
    "pelton",
    "jars",
    "lifecycle",
];

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1), OPTIONS).and_then(|args| run(&args)) {
        Ok(tally) => {
            println!("{} passed, {} failed", tally.passed, tally.failed);
            if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("kill-loop: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Outcome<Tally> {
    if !args.command.is_empty() {
        return Err(format!("usage:\n{HELP}"));
    }
    let kills: u32 = args.number("kills", 200)?;
    let partitions: i32 = args.number("partitions", 4)?;
    let seed: u64 = args.number("seed", load::now_ms() as u64)?;
    let system = match args.text("system") {
        Some("kafka") => System::Kafka(server::kafka_jars(args.text("jars"))?, args.extra.clone()),
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
    let flush: u64 = args.number("flush-messages", 1)?;
    admin.create_topic(TOPIC, partitions, &[("flush.messages", &flush.to_string())])?;
    let producers = producers(&broker.bootstrap, partitions);
    let shared = Arc::new(Shared::new(producers.len()));
    let start = |producer: &Producer| {
        let (producer, shared) = (producer.clone(), shared.clone());
        std::thread::spawn(move || producer.run(&shared))
    };
    let threads: Vec<_> = producers.iter().map(start).collect();
    let mut tally = Tally::default();
    let mut campaign = Campaign::new(&system, &place, partitions, &producers, &shared);
    campaign.pause_ms = (args.number("min-ms", 50)?, args.number("max-ms", 500)?);
    campaign.random = seed | 1;
    if let Some(wanted) = args.text("lifecycle").map(Wanted::parse).transpose()? {
        campaign.lifecycle = Some(Lifecycle::start(wanted, &broker.bootstrap, &mut admin, flush)?);
    }
    if let Err(error) = campaign.run(&mut broker, kills, &mut tally) {
        std::mem::forget(scratch);
        println!("data kept in {}", place.dir.display());
        tally.count("campaign", Some(error));
        return Ok(tally);
    }
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a producer panicked")?;
    }
    finish(&mut campaign, &broker.bootstrap, &mut tally);
    if let Some(lifecycle) = campaign.lifecycle.take() {
        lifecycle.finish(&broker.bootstrap, &mut tally);
    }
    if tally.failed > 0 {
        println!("data kept in {}", place.dir.display());
        std::mem::forget(scratch);
    }
    Ok(tally)
}

/// Per partition: a plain and an idempotent producer of small batches; partition 0 also gets one of each with large batches
/// (up to 600 KB).
fn producers(bootstrap: &str, partitions: i32) -> Vec<Producer> {
    let small = |id: u32, partition: i32| Producer {
        id,
        bootstrap: bootstrap.to_string(),
        topic: TOPIC.to_string(),
        partition,
        depth: 4,
        pause: Duration::from_micros(500),
        value_bytes: 100,
        records_max: 20,
        idempotent: id % 2 == 1,
    };
    let count = 2 * partitions as u32;
    let mut all: Vec<Producer> = (0..count).map(|id| small(id, id as i32 / 2)).collect();
    let large = |id| Producer {
        value_bytes: 3_000,
        records_max: 200,
        depth: 2,
        pause: Duration::from_millis(10),
        ..small(id, 0)
    };
    all.extend([large(count), large(count + 1)]);
    all
}

/// The end: everything read again from offset 0, judged, told, and the judge itself put to the test.
fn finish(campaign: &mut Campaign<'_>, bootstrap: &str, tally: &mut Tally) {
    let ledgers = campaign.shared.snapshot();
    let faults = campaign.shared.faults();
    tally.count("answers", (!faults.is_empty()).then(|| faults.join("; ")));
    let mut verdict = Verdict::default();
    let found = match campaign.read_all(bootstrap, &mut verdict) {
        Ok(found) => found,
        Err(error) => return tally.count("reading everything back", Some(error)),
    };
    campaign.judge_all(&found, &ledgers, &mut verdict);
    let acknowledged = summary(&ledgers, &mut campaign.starts_ms);
    println!(
        "lost {}, duplicated {}, reordered {}, foreign {}, unsettled {}; {} records in {} batches read back, {} unknown batches present",
        verdict.lost,
        verdict.duplicated,
        verdict.reordered,
        verdict.foreign,
        verdict.unsettled,
        verdict.records,
        verdict.batches,
        verdict.unknown_present
    );
    let nothing = (acknowledged == 0).then(|| "nothing was acknowledged".to_string());
    tally.count("everything read back", campaign::fault(&verdict).or(nothing));
    selfcheck::run(campaign, &found, &ledgers, tally);
}

/// Prints what the ledgers hold: the number of acknowledged records.
fn summary(ledgers: &[Vec<Entry>], starts_ms: &mut [f64]) -> u64 {
    let (mut acknowledged, mut refused, mut unknown) = (0u64, 0u64, 0u64);
    for entry in ledgers.iter().flatten() {
        match entry.fate {
            Fate::Acknowledged(_) => acknowledged += u64::from(entry.records),
            Fate::Refused(_) => refused += 1,
            Fate::Unknown => unknown += 1,
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
    acknowledged
}
