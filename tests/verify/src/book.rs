//! The ledger of a run: each batch is written down before it is sent, and what became of it when the answer is there; and when
//! each partition acknowledged something. Lives with the clients, where no fault reaches.

use pelton_crash::producer::{Entry, Fate};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

/// One batch.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub entry: Entry,
    /// When it was first sent, microseconds of the run.
    pub sent_us: u64,
    /// When it was acknowledged.
    pub acknowledged_us: u64,
}

/// Everything that clients note.
#[derive(Debug)]
pub struct Book {
    began: Instant,
    /// No new batches.
    pub stop: AtomicBool,
    /// Not even those that are still unknown: the run has failed.
    pub abandon: AtomicBool,
    /// Records.
    pub acknowledged: AtomicU64,
    lines: Vec<Mutex<Vec<Line>>>,
    /// The offset behind the last acknowledged batch, by partition.
    ends: Vec<AtomicI64>,
    /// Milliseconds of the run in which something was acknowledged, by partition, rising.
    beats: Vec<Mutex<Vec<u64>>>,
    /// How often each error code was answered to a Produce.
    codes: Mutex<BTreeMap<i16, u64>>,
    /// What no broker may answer, in words.
    faults: Mutex<Vec<String>>,
}

fn held<T, R>(mutex: &Mutex<T>, work: impl FnOnce(&mut T) -> R) -> R {
    work(&mut mutex.lock().unwrap_or_else(|held| held.into_inner()))
}

impl Book {
    /// An empty one.
    pub fn new(producers: usize, partitions: usize) -> Book {
        Book {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            lines: (0..producers).map(|_| Mutex::default()).collect(),
            ends: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
            beats: (0..partitions).map(|_| Mutex::default()).collect(),
            codes: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Writes a batch down before it is sent: its number.
    pub fn intend(&self, producer: u32, records: u32) -> usize {
        let entry = Entry { records, fate: Fate::Unknown };
        let line = Line { entry, sent_us: self.now_us(), acknowledged_us: 0 };
        held(&self.lines[producer as usize], |lines| {
            lines.push(line);
            lines.len() - 1
        })
    }

    /// A batch was acknowledged.
    pub fn acknowledge(&self, producer: u32, number: usize, partition: i32, base_offset: i64) {
        let now_us = self.now_us();
        let records = held(&self.lines[producer as usize], |lines| {
            lines[number].entry.fate = Fate::Acknowledged(base_offset);
            lines[number].acknowledged_us = now_us;
            lines[number].entry.records
        });
        self.acknowledged.fetch_add(u64::from(records), Ordering::Relaxed);
        // Whoever asks for the end after this must hear of it.
        self.ends[partition as usize].fetch_max(base_offset + i64::from(records), Ordering::SeqCst);
        held(&self.beats[partition as usize], |beats| {
            if beats.last().is_none_or(|last| *last < now_us / 1000) {
                beats.push(now_us / 1000);
            }
        });
    }

    /// A batch was answered with an error.
    pub fn refuse(&self, producer: u32, number: usize, code: i16) {
        held(&self.lines[producer as usize], |lines| lines[number].entry.fate = Fate::Refused(code));
        held(&self.codes, |codes| *codes.entry(code).or_default() += 1);
    }

    /// Notes what no broker may do.
    pub fn fault(&self, text: String) {
        held(&self.faults, |faults| {
            if faults.len() < 50 {
                faults.push(text);
            }
        });
    }

    /// What no broker may do, so far.
    pub fn faults(&self) -> Vec<String> {
        held(&self.faults, |faults| faults.clone())
    }

    /// How often each error code was answered.
    pub fn codes(&self) -> BTreeMap<i16, u64> {
        held(&self.codes, |codes| codes.clone())
    }

    /// The offset behind the last batch of a partition that was acknowledged by now.
    pub fn end(&self, partition: i32) -> i64 {
        self.ends[partition as usize].load(Ordering::SeqCst)
    }

    /// All ledgers.
    pub fn lines(&self) -> Vec<Vec<Line>> {
        self.lines.iter().map(|lines| held(lines, |lines| lines.clone())).collect()
    }

    /// When a partition first acknowledged something at or after `ms`, milliseconds of the run.
    pub fn beat_after(&self, partition: i32, ms: u64) -> Option<u64> {
        held(&self.beats[partition as usize], |beats| {
            beats.get(beats.partition_point(|beat| *beat < ms)).copied()
        })
    }

    /// The longest time without an acknowledgement of a partition that touches `from_ms` to `to_ms`, milliseconds.
    pub fn gap_ms(&self, partition: i32, from_ms: u64, to_ms: u64) -> u64 {
        held(&self.beats[partition as usize], |beats| gap(beats, from_ms, to_ms))
    }
}

fn gap(beats: &[u64], from_ms: u64, to_ms: u64) -> u64 {
    // One that ends as the window begins is the one before's.
    let first = beats.partition_point(|beat| *beat <= from_ms);
    let mut last = first.checked_sub(1).map_or(from_ms, |before| beats[before]);
    let mut longest = 0;
    for beat in &beats[first..] {
        longest = longest.max(beat - last);
        last = *beat;
        if last >= to_ms {
            return longest;
        }
    }
    longest.max(to_ms.saturating_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_reach_over_the_edges() {
        let beats = [10, 20, 50, 55];
        assert_eq!(gap(&beats, 12, 40), 30, "the gap that begins inside counts to its end");
        assert_eq!(gap(&beats, 30, 52), 30);
        assert_eq!(gap(&beats, 50, 200), 145, "one that has not ended counts to the end of the window");
        assert_eq!(gap(&beats, 50, 54), 5, "what ended as the window began does not count");
        assert_eq!(gap(&[], 5, 9), 4);
    }

    #[test]
    fn what_is_acknowledged_moves_the_end() {
        let book = Book::new(1, 2);
        let (first, second) = (book.intend(0, 3), book.intend(0, 4));
        book.acknowledge(0, second, 1, 3);
        book.refuse(0, first, 6);
        assert_eq!((book.end(1), book.end(0), book.codes()[&6]), (7, 0, 1));
        let lines = book.lines();
        assert_eq!(
            (lines[0][0].entry.fate, lines[0][1].entry.fate),
            (Fate::Refused(6), Fate::Acknowledged(3))
        );
    }
}
