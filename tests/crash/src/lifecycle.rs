//! What else happens while the broker dies, if asked for: segments are dropped, topics compacted, offsets committed. Starts
//! the three, checks them after each kill, and puts their judges to the test at the end.

use crate::aged::{self, Aged, Look};
use crate::campaign::Tally;
use crate::commits::{Committer, Ledger};
use crate::keyed::{self, Keyed, Seen};
use crate::producer::{Fate, Shared};
use crate::verify::Verdict;
use pelton_bench::Outcome;
use pelton_bench::client::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Groups that commit, and whether each is of KIP-848.
const GROUPS: [(&str, bool); 4] =
    [("kills-a", false), ("kills-b", false), ("kills-c", false), ("kills-new", true)];
/// A compacted partition that is larger than this many records is not read after every kill.
const SEEN_MAX: usize = 20_000;

/// Which of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub retention: bool,
    pub compaction: bool,
    pub commits: bool,
}

impl Wanted {
    /// Reads a list with commas between.
    pub fn parse(text: &str) -> Outcome<Wanted> {
        let mut wanted = Wanted::default();
        for name in text.split(',') {
            match name {
                "retention" => wanted.retention = true,
                "compaction" => wanted.compaction = true,
                "commits" => wanted.commits = true,
                _ => return Err(format!("--lifecycle {name}: there are retention, compaction, commits")),
            }
        }
        Ok(wanted)
    }
}

/// The three, or some of them.
pub struct Lifecycle {
    wanted: Wanted,
    aged: Aged,
    aged_shared: Arc<Shared>,
    keyed: Vec<Arc<Keyed>>,
    /// Records of the compacted partitions at the last look.
    seen: usize,
    committers: Vec<Arc<Committer>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Lifecycle {
    /// Makes the topics and starts what is wanted.
    pub fn start(
        wanted: Wanted,
        bootstrap: &str,
        admin: &mut Client,
        flush_messages: u64,
    ) -> Outcome<Lifecycle> {
        let mut create = |topic: &str, partitions: i32, mut configs: Vec<(String, String)>| {
            configs.push(("flush.messages".into(), flush_messages.to_string()));
            let configs: Vec<(&str, &str)> =
                configs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            admin.create_topic(topic, partitions, &configs)
        };
        if wanted.retention {
            create(aged::TOPIC, aged::PARTITIONS, aged::configs())?;
        }
        if wanted.compaction {
            create(keyed::TOPIC, keyed::PARTITIONS, keyed::configs())?;
        }
        let keyed = if wanted.compaction { keyed::PARTITIONS } else { 0 };
        let groups = if wanted.commits { &GROUPS[..] } else { &[] };
        let aged = Aged::new(bootstrap);
        let mut lifecycle = Lifecycle {
            wanted,
            aged_shared: Arc::new(Shared::new(aged.producers.len())),
            aged,
            keyed: (0..keyed).map(|partition| Arc::new(Keyed::new(bootstrap, partition))).collect(),
            seen: 0,
            committers: groups
                .iter()
                .map(|(group, consumer)| {
                    Arc::new(Committer::new(group, *consumer, bootstrap, crate::campaign::TOPIC))
                })
                .collect(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let producers = if wanted.retention { lifecycle.aged.producers.clone() } else { Vec::new() };
        for producer in producers {
            let shared = lifecycle.aged_shared.clone();
            lifecycle.threads.push(std::thread::spawn(move || producer.run(&shared)));
        }
        for keyed in lifecycle.keyed.clone() {
            let stop = lifecycle.stop.clone();
            lifecycle.threads.push(std::thread::spawn(move || keyed.run(&stop)));
        }
        for committer in lifecycle.committers.clone() {
            let stop = lifecycle.stop.clone();
            lifecycle.threads.push(std::thread::spawn(move || committer.run(&stop)));
        }
        Ok(lifecycle)
    }

    /// Looks at everything after kill number `kill`: the fault, if any.
    pub fn check(&mut self, bootstrap: &str, kill: u32) -> Option<String> {
        self.look(bootstrap, kill.is_multiple_of(10)).unwrap_or_else(Some)
    }

    fn look(&mut self, bootstrap: &str, whole: bool) -> Outcome<Option<String>> {
        for committer in &self.committers {
            if let (_, Some(fault)) = committer.check()? {
                return Ok(Some(fault));
            }
        }
        if self.wanted.retention
            && let (_, Some(fault)) = self.aged.check(bootstrap, &self.aged_shared)?
        {
            return Ok(Some(fault));
        }
        if !whole && self.seen > SEEN_MAX {
            return Ok(None);
        }
        self.seen = 0;
        for keyed in &self.keyed {
            let (seen, fault) = keyed.check(bootstrap)?;
            self.seen += seen.len();
            if fault.is_some() {
                return Ok(fault);
            }
        }
        Ok(None)
    }

    /// Stops everything, looks once more, asks whether each of the three did anything, and tests the judges.
    pub fn finish(mut self, bootstrap: &str, tally: &mut Tally) {
        self.stop.store(true, Ordering::Relaxed);
        self.aged_shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            tally.count("a client", thread.join().err().map(|_| "it panicked".to_string()));
        }
        self.answers(tally);
        if self.wanted.retention {
            self.finish_aged(bootstrap, tally);
        }
        for keyed in &self.keyed {
            match keyed.check(bootstrap) {
                Err(error) => tally.count("compaction", Some(error)),
                Ok((seen, fault)) => {
                    let ledger = keyed.snapshot();
                    let acknowledged = ledger.iter().filter(|sent| sent.offset.is_some()).count();
                    println!("compaction: {acknowledged} records acknowledged, {} there", seen.len());
                    tally.count("compaction", fault.or_else(|| keyed::idle(&ledger, &seen)));
                    doubt_keyed(&ledger, &seen, tally);
                }
            }
        }
        for committer in &self.committers {
            match committer.check() {
                Err(error) => tally.count("commits", Some(error)),
                Ok((found, fault)) => {
                    let ledger = committer.snapshot();
                    println!(
                        "{}: {} commits acknowledged, {found} committed, joined {} times",
                        committer.group, ledger.acknowledged, ledger.joins
                    );
                    let idle = (ledger.acknowledged == 0).then(|| "nothing was committed".to_string());
                    tally.count("commits", fault.or(idle));
                    doubt_commits(ledger, found, tally);
                }
            }
        }
    }

    fn finish_aged(&mut self, bootstrap: &str, tally: &mut Tally) {
        match self.aged.check(bootstrap, &self.aged_shared) {
            Err(error) => tally.count("retention", Some(error)),
            Ok((looks, fault)) => {
                println!("retention: logs start at {:?}", self.aged.starts);
                tally.count("retention", fault.or_else(|| self.aged.idle()));
                self.doubt_aged(&looks, tally);
            }
        }
    }

    /// Answers that no broker may give.
    fn answers(&self, tally: &mut Tally) {
        let held = |faults: &std::sync::Mutex<Vec<String>>| {
            let faults = faults.lock().unwrap_or_else(|held| held.into_inner());
            faults.iter().take(3).cloned().collect::<Vec<_>>().join("; ")
        };
        let mut faults = vec![self.aged_shared.faults().join("; ")];
        faults.extend(self.keyed.iter().map(|keyed| held(&keyed.faults)));
        faults.extend(self.committers.iter().map(|committer| held(&committer.faults)));
        faults.retain(|fault| !fault.is_empty());
        tally.count("answers", (!faults.is_empty()).then(|| faults.join("; ")));
    }

    /// Lies about the aged topic, with the data of this run: each must be noticed.
    fn doubt_aged(&self, looks: &[Look], tally: &mut Tally) {
        let Some(look) = looks.first() else { return };
        let judged = |look: &Look, change: &dyn Fn(&mut Vec<Vec<crate::producer::Entry>>)| {
            let mut ledgers = self.aged_shared.snapshot();
            change(&mut ledgers);
            let mut verdict = Verdict::default();
            self.aged.judge(0, look, &ledgers, &mut verdict);
            verdict.passed().then(|| "was not noticed".to_string())
        };
        let same = |_: &mut Vec<Vec<crate::producer::Entry>>| {};
        let back = Look { start: look.start - 1, ..look.clone() };
        tally.count("self-check: the log start went back", judged(&back, &same));
        let less = Look { start: look.start.max(1), bytes: 1, found: look.found.clone() };
        tally.count("self-check: retention took too much", judged(&less, &same));
        let gone = Look { found: crate::verify::Found::starting_at(look.start), ..look.clone() };
        tally.count("self-check: records behind the log start are gone", judged(&gone, &same));
        let moved = |ledgers: &mut Vec<Vec<crate::producer::Entry>>| {
            let last = ledgers[0].iter_mut().rev().find_map(|entry| match &mut entry.fate {
                Fate::Acknowledged(offset) => Some(offset),
                _ => None,
            });
            if let Some(offset) = last {
                *offset += 1;
            }
        };
        tally.count("self-check: a batch of the aged topic is one further", judged(look, &moved));
    }
}

fn doubt_keyed(ledger: &[keyed::Sent], seen: &[Seen], tally: &mut Tally) {
    let believed = |ledger: &[keyed::Sent], seen: &[Seen]| {
        keyed::fault(ledger, ledger, seen).is_none().then(|| "was not noticed".to_string())
    };
    // The latest record of a key that was acknowledged with a value.
    let latest = seen.iter().rev().find(|record| {
        let later = seen.iter().any(|other| other.key == record.key && other.offset > record.offset);
        let sent = record.number.and_then(|number| ledger.get(number as usize));
        !later && sent.is_some_and(|sent| sent.offset.is_some())
    });
    let Some(latest) = latest else {
        return tally.count("self-check: compaction", Some("no key has a value".into()));
    };
    let without: Vec<Seen> = seen.iter().filter(|record| *record != latest).copied().collect();
    tally.count("self-check: the latest of a key is gone", believed(ledger, &without));
    let mut twice = seen.to_vec();
    twice.push(Seen { offset: i64::MAX, ..*latest });
    tally.count("self-check: a record is there twice", believed(ledger, &twice));
    let mut deleted = ledger.to_vec();
    deleted.push(keyed::Sent { key: latest.key, tombstone: true, offset: Some(i64::MAX) });
    tally.count("self-check: what a tombstone deleted is there", believed(&deleted, seen));
}

fn doubt_commits(ledger: Ledger, found: i64, tally: &mut Tally) {
    let believed = |fault: Option<String>| fault.is_none().then(|| "was not noticed".to_string());
    tally.count("self-check: an offset went back", believed(ledger.fault(found.max(0) + 1, found)));
    tally.count("self-check: an offset from nowhere", believed(ledger.fault(found, ledger.tried + 1)));
}
