//! A compacted topic while the broker dies. One producer per partition writes values and tombstones under a few keys and
//! writes down which were acknowledged. Of every key the latest must be there, and nothing that nobody wrote.

use crate::payload::{self, Name};
use pelton_bench::client::{self, Client};
use pelton_bench::{Outcome, batch, frames, load};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The topic.
pub const TOPIC: &str = "kills-compacted";
/// Its partitions.
pub const PARTITIONS: i32 = 2;
/// Keys of a partition.
const KEYS: u32 = 60;
const VALUE_BYTES: usize = 700;
const RECORDS_MAX: u64 = 10;
/// One record in so many is a tombstone.
const TOMBSTONES: u64 = 7;
/// Wait before each batch.
const PAUSE: Duration = Duration::from_millis(2);

/// Settings of the topic: compacted as often as the broker can.
pub fn configs() -> Vec<(String, String)> {
    [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "100"),
        ("file.delete.delay.ms", "200"),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .to_vec()
}

/// One record that was sent; its number is its place in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub key: u32,
    pub tombstone: bool,
    /// Offset, if acknowledged.
    pub offset: Option<i64>,
}

/// One record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub key: u32,
    /// The number its value says it has; none for a tombstone.
    pub number: Option<u64>,
}

/// The producer of one partition.
#[derive(Debug)]
pub struct Keyed {
    pub bootstrap: String,
    pub partition: i32,
    pub ledger: Mutex<Vec<Sent>>,
    pub faults: Mutex<Vec<String>>,
}

impl Keyed {
    /// Nothing sent yet.
    pub fn new(bootstrap: &str, partition: i32) -> Keyed {
        Keyed {
            bootstrap: bootstrap.to_string(),
            partition,
            ledger: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    fn write<T>(&self, work: impl FnOnce(&mut Vec<Sent>) -> T) -> T {
        work(&mut self.ledger.lock().unwrap_or_else(|held| held.into_inner()))
    }

    /// The ledger as it is now.
    pub fn snapshot(&self) -> Vec<Sent> {
        self.write(|ledger| ledger.clone())
    }

    /// Produces until told to stop, reconnecting as often as the broker dies.
    pub fn run(&self, stop: &AtomicBool) {
        let mut random = 0x2545_f491_4f6c_dd1du64 ^ u64::from(self.partition.unsigned_abs()) << 17;
        while !stop.load(Ordering::Relaxed) {
            // A broken connection is what a kill looks like.
            let _ = self.session(&mut random, stop);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn session(&self, random: &mut u64, stop: &AtomicBool) -> Outcome<()> {
        let leaders = client::leaders(&self.bootstrap, TOPIC, Duration::ZERO)?;
        let leader = leaders.get(self.partition as usize).ok_or("the partition is gone")?;
        let mut client = Client::connect(leader, Duration::from_secs(10))?;
        while !stop.load(Ordering::Relaxed) {
            let (first, bytes) = self.next(random);
            match client.produce(TOPIC, self.partition, &bytes)? {
                Ok(base) => self.write(|ledger| {
                    for (sent, offset) in ledger[first..].iter_mut().zip(base..) {
                        sent.offset = Some(offset);
                    }
                }),
                Err(code) if frames::RETRIABLE.contains(&code) => return Ok(()),
                Err(code) => {
                    let words = format!("{TOPIC}-{}: Produce: error code {code}", self.partition);
                    self.faults.lock().unwrap_or_else(|held| held.into_inner()).push(words.clone());
                    return Err(words);
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Writes the next batch into the ledger and builds it: the number of its first record.
    fn next(&self, random: &mut u64) -> (usize, Vec<u8>) {
        let mut draw = |below: u64| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            (*random >> 11) % below
        };
        let sent: Vec<Sent> = (0..1 + draw(RECORDS_MAX))
            .map(|_| Sent {
                key: draw(u64::from(KEYS)) as u32,
                tombstone: draw(TOMBSTONES) == 0,
                offset: None,
            })
            .collect();
        let first = self.write(|ledger| {
            ledger.extend(&sent);
            ledger.len() - sent.len()
        });
        let records: Vec<([u8; 4], Option<Vec<u8>>)> = sent
            .iter()
            .zip(first as u64..)
            .map(|(sent, number)| {
                let name = Name { batch: number, producer: self.partition as u32, index: sent.key };
                (sent.key.to_be_bytes(), (!sent.tombstone).then(|| payload::build(name, VALUE_BYTES)))
            })
            .collect();
        let records = records.iter().map(|(key, value)| (Some(&key[..]), value.as_deref()));
        (first, batch::build_keyed(records, load::now_ms()))
    }

    /// Reads the whole partition and judges it: how many records it holds, and the fault, if any.
    pub fn check(&self, bootstrap: &str) -> Outcome<(Vec<Seen>, Option<String>)> {
        let before = self.snapshot();
        let seen = self.read(bootstrap)?;
        let fault = fault(&before, &self.snapshot(), &seen);
        Ok((seen, fault.map(|fault| format!("{TOPIC}-{}: {fault}", self.partition))))
    }

    fn read(&self, bootstrap: &str) -> Outcome<Vec<Seen>> {
        let leaders = client::leaders(bootstrap, TOPIC, Duration::from_secs(30))?;
        let leader = leaders.get(self.partition as usize).ok_or("the partition is gone")?;
        let mut client = Client::connect(leader, Duration::from_secs(30))?;
        let (mut seen, mut offset, mut end) = (Vec::new(), 0, None);
        let mut progress = Instant::now();
        loop {
            let fetched = client.fetch(TOPIC, self.partition, offset, 4 << 20)?;
            if fetched.error != 0 {
                return Err(format!(
                    "Fetch of {TOPIC}-{} at {offset}: error code {}",
                    self.partition, fetched.error
                ));
            }
            let end = *end.get_or_insert(fetched.high_watermark);
            let (mut rest, from) = (fetched.records, offset);
            while let Some(batch) = batch::take_compacted(&mut rest)? {
                for (at, key, value) in batch.records()? {
                    // The first batch may begin before the offset asked for.
                    if at >= offset {
                        seen.push(self.seen(at, key, value)?);
                    }
                }
                offset = offset.max(batch.last_offset() + 1);
            }
            if offset >= end {
                return Ok(seen);
            }
            if offset > from {
                progress = Instant::now();
            } else if progress.elapsed() > Duration::from_secs(10) {
                return Err(format!(
                    "{TOPIC}-{}: nothing at or behind offset {offset} although the high watermark is {end}",
                    self.partition
                ));
            }
        }
    }

    fn seen(&self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Outcome<Seen> {
        let wrong = || format!("{TOPIC}-{} offset {offset}: not our record, or changed", self.partition);
        let key = u32::from_be_bytes(key.and_then(|key| key.try_into().ok()).ok_or_else(wrong)?);
        let Some(value) = value else { return Ok(Seen { offset, key, number: None }) };
        let name =
            payload::read(value).filter(|name| (name.producer, name.index) == (self.partition as u32, key));
        Ok(Seen { offset, key, number: Some(name.ok_or_else(wrong)?.batch) })
    }
}

/// What is wrong with the records `seen` of a partition: `before` is the ledger as it was before they were read, `after` as
/// it was then.
pub fn fault(before: &[Sent], after: &[Sent], seen: &[Seen]) -> Option<String> {
    let mut numbers = BTreeMap::new();
    let mut last: BTreeMap<u32, Seen> = BTreeMap::new();
    let mut previous = -1;
    // Tombstones say no number: they are known by their offset, or they are one of those never acknowledged.
    let tombstones: BTreeMap<i64, u32> = after
        .iter()
        .filter(|sent| sent.tombstone)
        .filter_map(|sent| Some((sent.offset?, sent.key)))
        .collect();
    for record in seen {
        if record.offset <= previous {
            return Some(format!("offset {} comes after {previous}", record.offset));
        }
        previous = record.offset;
        let fault = match record.number {
            Some(number) => {
                let twice = numbers.insert(number, record.offset).map(|at| format!("it is also at {at}"));
                twice.or_else(|| of_value(after.get(number as usize), record))
            }
            None if tombstones.get(&record.offset) == Some(&record.key) => None,
            None => {
                let open = after
                    .iter()
                    .any(|sent| sent.tombstone && sent.key == record.key && sent.offset.is_none());
                (!open).then(|| "nobody wrote this tombstone".to_string())
            }
        };
        if let Some(fault) = fault {
            return Some(format!("{record:?}: {fault}"));
        }
        last.insert(record.key, *record);
    }
    latest(before).into_iter().find_map(|(key, (offset, tombstone))| match last.get(&key) {
        Some(found) if found.offset >= offset => None,
        // A tombstone goes after a while, and everything below it before.
        None if tombstone => None,
        found => Some(format!(
            "key {key}: the latest acknowledged is at {offset} (tombstone: {tombstone}), found {found:?}"
        )),
    })
}

fn of_value(sent: Option<&Sent>, record: &Seen) -> Option<String> {
    match sent {
        None => Some("nobody wrote it".into()),
        Some(sent) if sent.tombstone || sent.key != record.key => Some(format!("written as {sent:?}")),
        Some(Sent { offset: Some(offset), .. }) if *offset != record.offset => {
            Some(format!("acknowledged at {offset}"))
        }
        Some(_) => None,
    }
}

/// Per key the largest offset acknowledged, and whether a tombstone is there.
fn latest(ledger: &[Sent]) -> BTreeMap<u32, (i64, bool)> {
    let mut latest: BTreeMap<u32, (i64, bool)> = BTreeMap::new();
    for sent in ledger {
        let Some(offset) = sent.offset else { continue };
        let known = latest.entry(sent.key).or_insert((offset, sent.tombstone));
        if offset >= known.0 {
            *known = (offset, sent.tombstone);
        }
    }
    latest
}

/// Compaction has removed something: fewer records are there than were acknowledged. If not, this was no test of it.
pub fn idle(ledger: &[Sent], seen: &[Seen]) -> Option<String> {
    let acknowledged = ledger.iter().filter(|sent| sent.offset.is_some()).count();
    (seen.len() >= acknowledged)
        .then(|| format!("compaction has removed nothing: {acknowledged} acknowledged, {} there", seen.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: u32, offset: i64) -> Sent {
        Sent { key, tombstone: false, offset: (offset >= 0).then_some(offset) }
    }

    fn tombstone(key: u32, offset: i64) -> Sent {
        Sent { tombstone: true, ..value(key, offset) }
    }

    fn seen(offset: i64, key: u32, number: Option<u64>) -> Seen {
        Seen { offset, key, number }
    }

    #[test]
    fn a_compacted_log_passes() {
        let ledger = [value(1, 0), value(2, 1), value(1, 2), tombstone(2, 3), value(3, -1), tombstone(1, -1)];
        let whole = [seen(0, 1, Some(0)), seen(1, 2, Some(1)), seen(2, 1, Some(2)), seen(3, 2, None)];
        assert_eq!(fault(&ledger, &ledger, &whole), None);
        assert_eq!(fault(&ledger, &ledger, &[seen(2, 1, Some(2)), seen(3, 2, None)]), None);
        assert_eq!(fault(&ledger, &ledger, &[seen(2, 1, Some(2))]), None, "the tombstone went too");
        let unknown = [seen(2, 1, Some(2)), seen(5, 3, Some(4)), seen(6, 1, None)];
        assert_eq!(fault(&ledger, &ledger, &unknown), None, "what was not acknowledged may be there");
        assert!(idle(&ledger, &whole).is_some() && idle(&ledger, &whole[2..]).is_none());
    }

    #[test]
    fn each_fault_is_found() {
        let ledger = [value(1, 0), value(2, 1), value(1, 2), tombstone(2, 3)];
        for (words, found) in [
            ("the latest is missing", vec![seen(0, 1, Some(0))]),
            ("a key is missing", vec![]),
            ("what was deleted is back", vec![seen(1, 2, Some(1)), seen(2, 1, Some(2))]),
            ("twice", vec![seen(2, 1, Some(2)), seen(4, 1, Some(2))]),
            ("moved", vec![seen(4, 1, Some(2))]),
            ("nobody's", vec![seen(2, 1, Some(2)), seen(9, 1, Some(9))]),
            ("nobody's tombstone", vec![seen(2, 1, Some(2)), seen(9, 1, None)]),
            ("another key's", vec![seen(2, 1, Some(2)), seen(3, 1, Some(3))]),
            ("order", vec![seen(2, 1, Some(2)), seen(1, 2, Some(1))]),
        ] {
            assert!(fault(&ledger, &ledger, &found).is_some(), "{words}");
        }
    }
}
