//! The run of faults from its first to its verdict, each check counted.

use crate::Tally;
use crate::campaign::{Campaign, Load};
use crate::fault::{ALL, Dice, Kind};
use crate::interrupt;
use crate::judge::{self, Evidence};
use crate::small_disk::SmallDisk;
use crate::{SMALL_DISK, controls, examine, report};
use pelton_bench::Outcome;
use pelton_bench::cluster::{Cluster, System};
use pelton_bench::net::{NODES, Net};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub faults: usize,
    /// Most seconds of faults.
    pub seconds: u64,
    pub kinds: Vec<Kind>,
    /// Fewest records that must be acknowledged.
    pub acknowledged: u64,
    /// Where report and ledgers go.
    pub out: Option<PathBuf>,
    pub seed: u64,
    pub load: Load,
}

/// Reads a list of kinds.
pub fn kinds(list: Option<&str>) -> Outcome<Vec<Kind>> {
    match list {
        None => Ok(ALL.to_vec()),
        Some(list) => list.split(',').map(Kind::parse).collect(),
    }
}

/// Runs: true if the data is worth keeping.
pub fn run(system: System, net: Net, dir: &Path, options: &Options, tally: &mut Tally) -> Outcome<bool> {
    let mut dice = Dice::new(options.seed);
    let mut kinds = options.kinds.clone();
    kinds.retain(|kind| net.namespaces || !kind.needs_network());
    let mut cluster = Cluster::new(system, net, dir)?;
    let small = match kinds.contains(&Kind::DiskFull) {
        false => None,
        true => {
            let node = 1 + dice.below(NODES as u64) as usize;
            SmallDisk::new(cluster.node_dir(node), SMALL_DISK)
                .map(|disk| (node, disk))
                .map_err(|error| tally.skip("a full disk", &format!("{error} (needs root and loop devices)")))
                .ok()
        }
    };
    match &small {
        Some((node, disk)) => cluster.set_data_dir(*node, disk.path.join("data")),
        None => kinds.retain(|kind| *kind != Kind::DiskFull),
    }
    let mut campaign = Campaign::start(cluster, small, options.load)?;
    let deadline = Instant::now() + Duration::from_secs(options.seconds.min(1 << 30));
    for (number, kind) in dice.deck(&kinds, options.faults).into_iter().enumerate() {
        if Instant::now() > deadline {
            break;
        }
        let result = campaign.strike(kind, &mut dice);
        // Not a fault of the broker's.
        interrupt::check()?;
        let broken = result.is_err();
        if let Some(done) = campaign.done.last().filter(|_| !broken) {
            println!(
                "fault {} at {:.1} s: {}: {}; longest gap {} ms ({}), well again after {} ms; {} records acknowledged",
                number + 1,
                done.from_ms as f64 / 1000.0,
                kind.name(),
                done.what,
                done.gap_ms,
                done.waited,
                done.settled_ms,
                campaign.book.acknowledged.load(Ordering::Relaxed)
            );
        }
        tally.count(&format!("fault {}", number + 1), result.err());
        if broken || campaign.book.faults().len() > 20 {
            break;
        }
    }
    enough(&campaign, options, tally);
    interrupt::check()?;
    finish(&mut campaign, options.seed, options.out.as_deref(), tally);
    Ok(tally.failed > 0)
}

/// A run must have done what it was for. It goes on without faults until enough is acknowledged.
fn enough(campaign: &Campaign, options: &Options, tally: &mut Tally) {
    let deadline = Instant::now() + Duration::from_secs(600);
    let acknowledged = || campaign.book.acknowledged.load(Ordering::Relaxed);
    while acknowledged() < options.acknowledged && Instant::now() < deadline && tally.failed == 0 {
        if interrupt::sleep(Duration::from_millis(100)).is_err() {
            return;
        }
    }
    let few = acknowledged() < options.acknowledged;
    let text = format!("{} records were acknowledged, {} were wanted", acknowledged(), options.acknowledged);
    tally.count("records", few.then_some(text));
}

/// Ends the load, judges, doubts the judge, reports.
pub fn finish(campaign: &mut Campaign, seed: u64, out: Option<&Path>, tally: &mut Tally) {
    tally.say(report::faults(&campaign.done).trim_end());
    tally.count("coming to rest", campaign.quiesce().err());
    // Whoever wants one fault and no more has it.
    let done = |tally: &Tally| tally.quiet && tally.failed > 0;
    if done(tally) {
        return;
    }
    commits(campaign, tally);
    if campaign.cluster.system.is_pelton() {
        tally.count("epochs and producers", examine::examine(&campaign.directory, campaign.partitions));
        tally.count("alarms", examine::alarm(&campaign.cluster));
    }
    if done(tally) {
        return;
    }
    let evidence = match campaign.evidence() {
        Ok(evidence) => evidence,
        Err(error) => return tally.count("reading everything back", Some(error)),
    };
    let judgement = judge::judge(&evidence);
    let (records, acknowledged, refused, unknown) = report::counts(&evidence);
    tally.say(&format!(
        "{records} records acknowledged in {acknowledged} batches, {refused} batches refused, {unknown} unknown of which {} are there; \
         error codes {:?}",
        judgement.served.unknown_present,
        campaign.book.codes()
    ));
    answers(campaign, tally);
    let words = format!("{}\n  {}", judgement.summary(), judgement.notes.join("\n  "));
    tally.count("everything read back, each replica alone", (!judgement.passed()).then_some(words));
    if judgement.passed() {
        doubt(campaign, &evidence, tally);
    }
    let verdict = if tally.failed == 0 { "PASSED" } else { "FAILED" };
    tally.say(&format!(
        "verdict {verdict}: {} faults, {records} records acknowledged; {}",
        campaign.done.len(),
        judgement.summary()
    ));
    if let Some(out) = out {
        let written = std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()));
        let json = report::json(campaign, &evidence, &judgement, seed, &tally.faults);
        let written = written
            .and_then(|()| std::fs::write(out.join("verify.json"), json).map_err(|error| error.to_string()))
            .and_then(|()| {
                if tally.failed > 0 { report::history(&evidence, &out.join("history.tsv")) } else { Ok(()) }
            });
        tally.count("writing the report", written.err());
    }
}

/// What no broker may answer, what no process may do by itself, and who answered what was out of date.
fn answers(campaign: &Campaign, tally: &mut Tally) {
    let faults = campaign.book.faults();
    tally.count("answers", (!faults.is_empty()).then(|| faults.join("; ")));
    let mut first = None;
    let (mut asked, mut stale) = (0, 0);
    for prober in &campaign.probers {
        asked += prober.answers.load(Ordering::Relaxed);
        stale += prober.stale.load(Ordering::Relaxed);
        first = first.or(prober.first_stale.lock().unwrap_or_else(|held| held.into_inner()).clone());
    }
    tally.say(&format!(
        "{asked} questions for the end of a partition were answered, {stale} by one who did not know of what was acknowledged"
    ));
    if campaign.cluster.system.is_pelton() {
        tally.count("processes", campaign.ended.first().cloned());
        tally.count("fresh answers", first.map(|first| format!("{stale} of {asked} were stale: {first}")));
    } else {
        tally.say(&format!("{} processes ended by themselves", campaign.ended.len()));
    }
}

/// No committed offset went back.
fn commits(campaign: &Campaign, tally: &mut Tally) {
    for committer in &campaign.committers {
        let faults = committer.faults.lock().unwrap_or_else(|held| held.into_inner()).clone();
        let fault = committer.check().map(|(_, fault)| fault).unwrap_or_else(Some);
        let ledger = committer.snapshot();
        tally.say(&format!(
            "{}: {} commits acknowledged, joined {} times",
            committer.group, ledger.acknowledged, ledger.joins
        ));
        let idle = (ledger.acknowledged == 0).then(|| "nothing was committed".to_string());
        tally.count(&committer.group, fault.or(faults.first().cloned()).or(idle));
    }
}

/// The judge itself, put to the test with what this run has.
fn doubt(campaign: &Campaign, evidence: &Evidence, tally: &mut Tally) {
    for (name, fault) in controls::lies(evidence) {
        tally.count(&format!("self-check: {name}"), fault);
    }
    match controls::files(evidence, &campaign.segments(NODES), &|| campaign.read_node(NODES)) {
        Err(error) => tally.count("self-check of files", Some(error)),
        Ok(results) => {
            results.into_iter().for_each(|(name, fault)| tally.count(&format!("self-check: {name}"), fault))
        }
    }
}
