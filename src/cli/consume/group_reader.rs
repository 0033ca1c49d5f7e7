//! `pelton consume --group`: reads what the group gives this member, commits what has been printed. At least once: after a
//! death, what was printed and not committed is printed again by whoever gets the partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pelton_wire::error_code::ErrorCode;

use super::fetcher::{Fetcher, PartitionState};
use super::member::{Member, Standing};
use crate::cli::client::{Client, RETRY_PAUSE};
use crate::cli::group::offsets::{Offsets, commit, committed};
use crate::cli::group::overview::Partitions;
use crate::cli::partition_reader::{EARLIEST, LATEST, list_offsets, resolve};
use crate::cli::position::Position;
use crate::cli::record_format::RecordFormat;
use crate::failure::{Exit, Failure};
use crate::signals::Signals;

/// How often positions are committed while records come (Kafka's default).
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// So long a member has to commit and leave once it is told to stop; a second signal ends it at once.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked of a reader.
pub struct Wishes<'a> {
    /// Group.
    pub group: &'a str,
    /// Topics.
    pub topics: &'a [String],
    /// Id of a static member.
    pub instance_id: Option<&'a str>,
    /// Where to begin in partitions of which the group has committed nothing.
    pub from: Position,
    /// Stop when everything that was there when the partitions were given has been read.
    pub exit_at_end: bool,
    /// Stop after so many records.
    pub number: Option<u64>,
    /// Commit what has been printed.
    pub commit: bool,
}

/// Reads until everything wanted has been read, or a signal comes.
pub fn run(client: Client, wishes: &Wishes<'_>, format: &RecordFormat) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let mut reader = Reader {
        member: Member::new(wishes.group, wishes.topics, wishes.instance_id),
        fetcher: Fetcher::new(client, Vec::new(), wishes.number),
        wishes,
        committed: Offsets::new(),
        committed_at: Instant::now(),
    };
    let result = reader.read(format, &stop);
    // What went wrong before matters more than what goes wrong in leaving.
    let left = reader.leave();
    result.and(left)?;
    stop.outcome()
}

struct Reader<'a> {
    member: Member,
    fetcher: Fetcher,
    wishes: &'a Wishes<'a>,
    /// What the group has committed of the partitions this member has.
    committed: Offsets,
    committed_at: Instant,
}

impl Reader<'_> {
    fn read(&mut self, format: &RecordFormat, stop: &Stop) -> Result<(), Failure> {
        let mut standing = Standing::Rebalance;
        while !stop.is_asked() {
            if standing == Standing::Rebalance {
                self.commit()?;
                let partitions = self.member.join(self.fetcher.client())?;
                self.take(&partitions)?;
            }
            if self.fetcher.is_done(self.wishes.exit_at_end) {
                return Ok(());
            }
            if self.fetcher.is_idle() {
                std::thread::sleep(RETRY_PAUSE);
            } else {
                self.fetcher.step(format)?;
            }
            standing = self.member.heartbeat(self.fetcher.client())?;
            if standing == Standing::Member && self.committed_at.elapsed() >= COMMIT_INTERVAL {
                standing = self.commit()?;
            }
        }
        Ok(())
    }

    /// Begins where the group stopped; where it never was, at the position asked for.
    fn take(&mut self, partitions: &Partitions) -> Result<(), Failure> {
        let client = self.fetcher.client();
        let topics: BTreeSet<String> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
        client.metadata(Some(&topics.into_iter().collect::<Vec<_>>()), false)?;
        let known = committed(client, self.wishes.group)?;
        self.committed = Offsets::new();
        let mut states = Vec::new();
        for (topic, numbers) in partitions {
            let at =
                |time: i64| -> Vec<(i32, i64)> { numbers.iter().map(|number| (*number, time)).collect() };
            let starts = list_offsets(client, topic, &at(EARLIEST))?;
            let ends = list_offsets(client, topic, &at(LATEST))?;
            let fresh = resolve(client, topic, numbers, self.wishes.from)?;
            for number in numbers {
                let key = (topic.clone(), *number);
                let offset = known.get(&key).copied();
                let inside = offset.filter(|offset| (starts[number]..=ends[number]).contains(offset));
                if let (Some(offset), None) = (offset, inside) {
                    let (start, end) = (starts[number], ends[number]);
                    eprintln!(
                        "pelton: {topic}[{number}]: the committed offset {offset} is not in the log ({start} to {end}); \
                         going on at {}",
                        fresh[number]
                    );
                }
                if let Some(offset) = offset {
                    self.committed.insert(key, offset);
                }
                states.push(PartitionState {
                    topic: topic.clone(),
                    partition: *number,
                    next: inside.unwrap_or(fresh[number]),
                    stop: self.wishes.exit_at_end.then_some(ends[number]),
                });
            }
        }
        self.fetcher.assign(states);
        self.committed_at = Instant::now();
        Ok(())
    }

    /// Commits what has been printed since the last time. Not being in the generation any more is no error: others have
    /// the partitions then, and print again what was not committed.
    fn commit(&mut self) -> Result<Standing, Failure> {
        self.committed_at = Instant::now();
        let mut news = self.fetcher.positions();
        news.retain(|key, offset| self.committed.get(key) != Some(offset));
        if news.is_empty() || !self.wishes.commit {
            return Ok(Standing::Member);
        }
        let results = commit(self.fetcher.client(), &self.member.committer(), &news)?;
        let mut standing = Standing::Member;
        for ((topic, partition), offset) in news {
            let error =
                results.get(&(topic.clone(), partition)).copied().unwrap_or(ErrorCode::UnknownServerError);
            match error {
                ErrorCode::None => {
                    self.committed.insert((topic, partition), offset);
                }
                // A topic that was deleted while it was read.
                ErrorCode::UnknownTopicOrPartition => {}
                error => standing = self.member.standing(error)?,
            }
        }
        Ok(standing)
    }

    fn leave(&mut self) -> Result<(), Failure> {
        self.commit()?;
        self.member.leave(self.fetcher.client())
    }
}

/// Whether the user wants it to end.
struct Stop {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    fn on_signals() -> Result<Stop, Failure> {
        let signals = Signals::hold()?;
        let stop = Stop { interrupted: Arc::default(), terminated: Arc::default() };
        let (interrupted, terminated) = (stop.interrupted.clone(), stop.terminated.clone());
        std::thread::spawn(move || {
            let exit = match signals.wait() {
                "SIGINT" => {
                    interrupted.store(true, Ordering::Release);
                    Exit::Interrupted
                }
                _ => {
                    terminated.store(true, Ordering::Release);
                    Exit::Terminated
                }
            };
            std::thread::spawn(move || {
                std::thread::sleep(LEAVE_TIMEOUT);
                std::process::exit(exit as i32);
            });
            signals.wait();
            std::process::exit(exit as i32);
        });
        Ok(stop)
    }

    fn is_asked(&self) -> bool {
        self.interrupted.load(Ordering::Acquire) || self.terminated.load(Ordering::Acquire)
    }

    /// How the process ends after it has left the group.
    fn outcome(&self) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Acquire) {
            return Err(Failure::silent(Exit::Interrupted));
        }
        match self.terminated.load(Ordering::Acquire) {
            true => Err(Failure::silent(Exit::Terminated)),
            false => Ok(()),
        }
    }
}
