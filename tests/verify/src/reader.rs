//! Readers beside the load. One follows each partition from its beginning, whoever leads it: what was read once must be there at the
//! end. One asks each broker for the ends of all partitions, whether it leads them or not: who answers must know of
//! everything acknowledged before the question (rule L8).

use crate::book::Book;
use crate::connection::Connection;
use crate::directory::{self, Directory};
use pelton_bench::{Outcome, batch, frames};
use pelton_crash::verify::{Found, Verdict};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// OFFSET_OUT_OF_RANGE.
const OUT_OF_RANGE: i16 = 1;
/// Time between two questions of one prober.
const PROBE: Duration = Duration::from_millis(20);
/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(3);

/// Follows one partition.
#[derive(Debug)]
pub struct Follower {
    pub partition: i32,
    /// What it has read, and what was wrong with that.
    pub read: Mutex<(Found, Verdict)>,
}

impl Follower {
    /// Has read nothing.
    pub fn new(partition: i32) -> Follower {
        let verdict = Verdict { defers: true, ..Verdict::default() };
        Follower { partition, read: Mutex::new((Found::default(), verdict)) }
    }

    /// Reads until told to stop.
    pub fn run(&self, directory: &Directory, book: &Book, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let _ = self.session(directory, book, stop);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn session(&self, directory: &Directory, book: &Book, stop: &AtomicBool) -> Outcome<()> {
        let leader = directory.leader(self.partition).ok_or("no leader")?;
        let mut connection = Connection::open(&leader.address)?;
        for id in 0.. {
            if stop.load(Ordering::Relaxed) || directory.leader(self.partition).as_ref() != Some(&leader) {
                return Ok(());
            }
            let mut read = self.read.lock().unwrap_or_else(|held| held.into_inner());
            let (found, verdict) = &mut *read;
            let offset = found.next_offset();
            let frame = frames::fetch(id, &directory.topic, self.partition, offset, 1 << 20, 300);
            let answer = connection.call(id, &frame, WAIT)?;
            let fetched = frames::fetched(&answer)?;
            if fetched.error == OUT_OF_RANGE {
                book.fault(format!(
                    "partition {}: {} says that offset {offset} is out of range, up to which a reader had read",
                    self.partition, leader.address
                ));
            }
            if fetched.error != 0 {
                return Err(format!("error code {}", fetched.error));
            }
            let mut rest = fetched.records;
            while let Some(batch) = batch::take(&mut rest).map_err(|error| self.fault(book, error))? {
                // Broker and reader may stop in the middle of a batch: it comes whole.
                if batch.last_offset() >= found.next_offset() {
                    found.add(self.partition, &batch, verdict).map_err(|error| self.fault(book, error))?;
                }
            }
        }
        Ok(())
    }

    fn fault(&self, book: &Book, error: String) -> String {
        book.fault(format!("a reader of partition {}: {error}", self.partition));
        error
    }
}

/// Asks one broker for the ends of partitions.
#[derive(Debug)]
pub struct Prober {
    pub broker: i32,
    pub address: String,
    /// Answers without an error.
    pub answers: AtomicU64,
    /// Of these, answers that did not know of what had been acknowledged.
    pub stale: AtomicU64,
    pub first_stale: Mutex<Option<String>>,
}

impl Prober {
    /// Has asked nothing.
    pub fn new(broker: i32, address: String) -> Prober {
        Prober {
            broker,
            address,
            answers: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            first_stale: Mutex::default(),
        }
    }

    /// Asks until told to stop.
    pub fn run(&self, directory: &Directory, book: &Book, partitions: i32, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let _ = self.session(directory, book, partitions, stop);
            std::thread::sleep(PROBE);
        }
    }

    fn session(&self, directory: &Directory, book: &Book, partitions: i32, stop: &AtomicBool) -> Outcome<()> {
        let mut connection = Connection::open(&self.address)?;
        connection.call(0, &directory::request(0, &directory.topic), WAIT)?;
        for id in 1.. {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let partition = id % partitions;
            let known = book.end(partition);
            let frame = frames::list_offset(id, &directory.topic, partition, -1);
            let (error, offset) = frames::listed_offset(&connection.call(id, &frame, WAIT)?)?;
            if error == 0 {
                self.answers.fetch_add(1, Ordering::Relaxed);
                if offset < known {
                    self.stale.fetch_add(1, Ordering::Relaxed);
                    let text = format!(
                        "broker {} said that partition {partition} ends at {offset} when {known} had been acknowledged",
                        self.broker
                    );
                    self.first_stale.lock().unwrap_or_else(|held| held.into_inner()).get_or_insert(text);
                }
            }
            std::thread::sleep(PROBE);
        }
        Ok(())
    }
}
