//! Reads every partition back and holds it against the ledgers: every acknowledged batch at exactly its offset and once,
//! every other at most once, offsets dense, bytes intact, each producer's order kept. Never forgives.

use crate::payload;
use crate::producer::{Entry, Fate};
use pelton_bench::batch::Batch;
use pelton_bench::client::Client;
use pelton_bench::{Outcome, batch, client};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Error codes that prove that nothing was appended: CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
/// NOT_ENOUGH_REPLICAS, INVALID_RECORD. Others may come after the append.
pub const NOT_APPENDED: &[i16] = &[2, 10, 18, 19, 87];

/// Faults found; all zero is a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub batches: u64,
    pub records: u64,
    /// Acknowledged records that are not at their offset.
    pub lost: u64,
    /// Records found more than once.
    pub duplicated: u64,
    /// Batches out of their producer's order.
    pub reordered: u64,
    /// Batches nobody sent or whose bytes changed.
    pub foreign: u64,
    /// Batches of idempotent producers that were never acknowledged.
    pub unsettled: u64,
    /// Unacknowledged batches that are in the log: allowed, counted.
    pub unknown_present: u64,
    /// The first faults in words.
    pub notes: Vec<String>,
    /// Batches out of order are kept in `late`, for someone who knows what may be late.
    pub defers: bool,
    /// Batches out of their producer's order that were not judged yet.
    pub late: Vec<Late>,
}

/// A batch behind a later one of the same producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    pub partition: i32,
    pub producer: u32,
    /// Its number, its offset, and the number of the one before it.
    pub batch: u64,
    pub offset: i64,
    pub after: u64,
}

impl Verdict {
    /// True when nothing is wrong.
    pub fn passed(&self) -> bool {
        let counts = (self.lost, self.duplicated, self.reordered, self.foreign, self.unsettled);
        counts == (0, 0, 0, 0, 0) && self.late.is_empty()
    }

    /// Counts what is out of order, all but what is excused.
    pub fn judge_late(&mut self, excused: impl Fn(&Late) -> bool) {
        for late in std::mem::take(&mut self.late).iter().filter(|late| !excused(late)) {
            self.reordered += 1;
            let Late { partition, producer, batch, offset, after } = late;
            self.note(format!(
                "partition {partition} offset {offset}: batch {batch} of producer {producer} after its batch {after}"
            ));
        }
    }

    /// Adds what another verdict has found.
    pub fn add(&mut self, other: Verdict) {
        self.batches += other.batches;
        self.records += other.records;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.unsettled += other.unsettled;
        self.unknown_present += other.unknown_present;
        self.late.extend(other.late);
        other.notes.into_iter().for_each(|note| self.note(note));
    }

    /// Adds a fault in words, up to twenty.
    pub fn note(&mut self, text: String) {
        if self.notes.len() < 20 {
            self.notes.push(text);
        }
    }
}

/// Where each batch (producer, number) of one partition was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    places: BTreeMap<(u32, u64), (i64, u32)>,
    last: BTreeMap<u32, u64>,
    next_offset: i64,
}

impl Found {
    /// Nothing found of a log that starts at `offset`.
    pub fn starting_at(offset: i64) -> Found {
        Found { next_offset: offset, ..Found::default() }
    }

    /// Where each batch was found: (producer, number) to (base offset, records).
    pub fn places(&self) -> &BTreeMap<(u32, u64), (i64, u32)> {
        &self.places
    }

    /// The offset behind the last batch found.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Notes the next batch of the log.
    pub fn add(&mut self, partition: i32, batch: &Batch<'_>, verdict: &mut Verdict) -> Outcome<()> {
        if batch.base_offset != self.next_offset {
            return Err(format!(
                "partition {partition}: after offset {} comes a batch at {}",
                self.next_offset, batch.base_offset
            ));
        }
        self.next_offset += i64::from(batch.count);
        verdict.batches += 1;
        verdict.records += batch.count as u64;
        let names: Vec<Option<payload::Name>> =
            batch.values()?.iter().map(|value| payload::read(value)).collect();
        let Some(Some(first)) = names.first().copied() else {
            verdict.foreign += 1;
            verdict.note(format!("partition {partition} offset {}: not our record", batch.base_offset));
            return Ok(());
        };
        let intact = names.iter().enumerate().all(|(i, name)| {
            name.is_some_and(|name| {
                (name.batch, name.producer, name.index) == (first.batch, first.producer, i as u32)
            })
        });
        if !intact {
            verdict.foreign += 1;
            verdict.note(format!(
                "partition {partition} offset {}: mixed or changed records",
                batch.base_offset
            ));
        }
        let place = (batch.base_offset, batch.count as u32);
        if let Some(before) = self.places.insert((first.producer, first.batch), place) {
            verdict.duplicated += batch.count as u64;
            verdict.note(format!("partition {partition}: {first:?} at offsets {} and {}", before.0, place.0));
        }
        let last = self.last.insert(first.producer, first.batch);
        if let Some(after) = last.filter(|last| *last >= first.batch) {
            let (producer, batch, offset) = (first.producer, first.batch, batch.base_offset);
            verdict.late.push(Late { partition, producer, batch, offset, after });
            if !verdict.defers {
                verdict.judge_late(|_| false);
            }
        }
        Ok(())
    }

    /// Holds one producer's ledger against what was found, from batch number `from` on.
    pub fn judge(&self, producer: u32, ledger: &[Entry], from: usize, verdict: &mut Verdict) {
        for (number, entry) in ledger.iter().enumerate().skip(from) {
            let place = self.places.get(&(producer, number as u64));
            match (entry.fate, place) {
                (Fate::Acknowledged(offset), Some(&(at, records)))
                    if at == offset && records == entry.records => {}
                (Fate::Acknowledged(offset), place) => {
                    verdict.lost += u64::from(entry.records);
                    verdict.note(format!(
                        "producer {producer} batch {number}: acknowledged at {offset} ({} records), found {place:?}",
                        entry.records
                    ));
                }
                (Fate::Refused(code), Some(place)) if NOT_APPENDED.contains(&code) => {
                    verdict.foreign += 1;
                    verdict.note(format!(
                        "producer {producer} batch {number}: refused with error {code}, which says that it was not appended, \
                         found {place:?}"
                    ));
                }
                (_, Some(_)) => verdict.unknown_present += 1,
                (_, None) => {}
            }
        }
    }

    /// Counts batches that `producer` never sent; right only when its ledger grows no more.
    pub fn strangers(&self, producer: u32, ledger: &[Entry], verdict: &mut Verdict) {
        let end = ledger.len() as u64;
        for (number, place) in
            self.places.iter().filter(|((id, number), _)| *id == producer && *number >= end)
        {
            verdict.foreign += 1;
            verdict.note(format!("producer {producer} never sent batch {} at {place:?}", number.1));
        }
    }

    /// Reads on to the high watermark, checking every batch.
    pub fn read_on(
        &mut self,
        bootstrap: &str,
        topic: &str,
        partition: i32,
        verdict: &mut Verdict,
    ) -> Outcome<()> {
        let leaders = client::leaders(bootstrap, topic, Duration::from_secs(30))?;
        let leader = leaders.get(partition as usize).ok_or("the partition is gone")?;
        let mut client = Client::connect(leader, Duration::from_secs(30))?;
        let mut progress = Instant::now();
        let mut end = None;
        loop {
            let offset = self.next_offset;
            let fetched = client.fetch(topic, partition, offset, 4 << 20)?;
            if fetched.error != 0 {
                return Err(format!(
                    "Fetch of {topic}-{partition} at {offset}: error code {}",
                    fetched.error
                ));
            }
            // What producers append meanwhile is for the next time.
            let end = *end.get_or_insert(fetched.high_watermark);
            let mut rest = fetched.records;
            while let Some(batch) =
                batch::take(&mut rest).map_err(|error| format!("{topic}-{partition}: {error}"))?
            {
                self.add(partition, &batch, verdict)?;
            }
            if self.next_offset >= end {
                return Ok(());
            }
            if self.next_offset > offset {
                progress = Instant::now();
            } else if progress.elapsed() > Duration::from_secs(10) {
                return Err(format!(
                    "{topic}-{partition}: no batch at offset {offset} although the high watermark is {end}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Name;

    fn log(batches: &[(u32, u64, u32)]) -> (Found, Verdict, Outcome<()>) {
        let (mut found, mut verdict, mut result) = (Found::default(), Verdict::default(), Ok(()));
        let mut offset = 0i64;
        for (producer, number, records) in batches {
            let name = |index| Name { batch: *number, producer: *producer, index };
            let values: Vec<Vec<u8>> = (0..*records).map(|index| payload::build(name(index), 40)).collect();
            let mut bytes = batch::build(values.iter().map(Vec::as_slice), 0);
            bytes[..8].copy_from_slice(&offset.to_be_bytes());
            offset += i64::from(*records);
            let batch = batch::take(&mut &bytes[..]).unwrap().unwrap();
            result = result.and_then(|()| found.add(0, &batch, &mut verdict));
        }
        (found, verdict, result)
    }

    fn acknowledged(offset: i64, records: u32) -> Entry {
        Entry { records, fate: Fate::Acknowledged(offset) }
    }

    #[test]
    fn a_whole_log_passes() {
        let (found, mut verdict, result) = log(&[(1, 0, 3), (2, 0, 2), (1, 2, 1)]);
        result.unwrap();
        let unknown = Entry { records: 9, fate: Fate::Unknown };
        found.judge(1, &[acknowledged(0, 3), unknown, unknown], 0, &mut verdict);
        found.judge(2, &[acknowledged(3, 2)], 0, &mut verdict);
        assert!(verdict.passed());
        assert_eq!((verdict.records, verdict.unknown_present), (6, 1));
    }

    #[test]
    fn each_fault_is_found() {
        let (found, mut verdict, _) = log(&[(1, 0, 3)]);
        found.judge(1, &[acknowledged(0, 3), acknowledged(3, 4)], 0, &mut verdict);
        assert_eq!(verdict.lost, 4);
        let (found, mut verdict, _) = log(&[(1, 0, 3)]);
        found.judge(1, &[acknowledged(5, 3)], 0, &mut verdict);
        assert_eq!(verdict.lost, 3);
        let (_, verdict, _) = log(&[(1, 0, 3), (1, 0, 3)]);
        assert_eq!((verdict.duplicated, verdict.reordered), (3, 1));
        let (_, verdict, _) = log(&[(1, 1, 1), (1, 0, 1)]);
        assert_eq!((verdict.duplicated, verdict.reordered), (0, 1));
        let (found, mut verdict, _) = log(&[(1, 0, 1)]);
        let refused = |code| Entry { records: 1, fate: Fate::Refused(code) };
        found.judge(1, &[refused(20)], 0, &mut verdict);
        assert!(
            verdict.passed() && verdict.unknown_present == 1,
            "NOT_ENOUGH_REPLICAS_AFTER_APPEND may be there"
        );
        found.judge(1, &[refused(19)], 0, &mut verdict);
        assert_eq!(verdict.foreign, 1);
        let (found, mut verdict, _) = log(&[(1, 7, 1)]);
        found.judge(1, &[acknowledged(0, 1)], 0, &mut verdict);
        found.strangers(1, &[acknowledged(0, 1)], &mut verdict);
        assert!(verdict.foreign == 1 && verdict.lost == 1 && !verdict.passed());
    }
}
