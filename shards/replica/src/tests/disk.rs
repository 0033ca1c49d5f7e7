//! A replica's log in memory, with what would be left of it after a crash.

use std::sync::Arc;

use pelton_model::{LeaderEpoch, Offset, Prng};
use pelton_wire::record_batch::{BatchIter, peek};

use crate::effect::LogEnds;
use crate::epochs::EpochCache;
use crate::producers::{BatchFacts, Producers};

/// One record: who sent it, and what it makes of all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub producer_id: i64,
    pub sequence: i32,
    pub epoch: i32,
    /// Of this record and all before it.
    pub prefix_hash: u64,
}

#[derive(Clone, Debug)]
pub struct Batch {
    pub base: i64,
    pub end: i64,
    pub bytes: Arc<Vec<u8>>,
}

/// The log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub batches: Vec<Batch>,
    pub records: Vec<Record>,
    /// Offset of `records[0]`, and what all before it hash to.
    pub first: i64,
    pub first_hash: u64,
    pub start: i64,
    pub written: i64,
    pub flushed: i64,
    /// What a cut removed that is not stable yet: it may come back.
    ghost: Option<(i64, Vec<Batch>)>,
    /// Counts cuts: completions of writes from before do not count.
    pub generation: u64,
}

pub fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ value
}

impl Log {
    pub fn end(&self) -> i64 {
        self.first + self.records.len() as i64
    }

    /// Where the batch that holds the log start begins.
    pub fn base(&self) -> i64 {
        let at = self.batches.partition_point(|batch| batch.end <= self.start);
        self.batches.get(at).map_or(self.start, |batch| batch.base.min(self.start))
    }

    pub fn ends(&self) -> LogEnds {
        LogEnds {
            start: Offset(self.base()),
            log_start: Offset(self.start),
            flushed: Offset(self.flushed),
            written: Offset(self.written),
            end: Offset(self.end()),
        }
    }

    /// What everything below `offset` hashes to; none if it is not here.
    pub fn hash_below(&self, offset: i64) -> Option<u64> {
        match offset - self.first {
            0 => Some(self.first_hash),
            at => self.records.get(usize::try_from(at - 1).ok()?).map(|record| record.prefix_hash),
        }
    }

    pub fn record(&self, offset: i64) -> Option<&Record> {
        self.records.get(usize::try_from(offset - self.first).ok()?)
    }

    /// Appends stamped batches.
    pub fn append(&mut self, bytes: &[u8], epochs: &mut EpochCache, producers: &mut Producers) {
        for (info, bytes) in BatchIter::new(bytes) {
            assert_eq!(info.base_offset, self.end(), "I: appended where the log does not end");
            let last = self.records.last().map_or(-1, |record| record.epoch);
            assert!(info.partition_leader_epoch >= last, "I7: epochs fall");
            self.push(&Batch {
                base: info.base_offset,
                end: info.last_offset() + 1,
                bytes: Arc::new(bytes.to_vec()),
            });
            epochs.assign(LeaderEpoch(info.partition_leader_epoch), Offset(info.base_offset));
            producers.update(&facts(bytes), pelton_model::Now::default());
        }
    }

    fn push(&mut self, batch: &Batch) {
        let info = peek(&batch.bytes).unwrap();
        for index in 0..info.records_count {
            let before = self.hash_below(self.end()).unwrap();
            let sequence = info.base_sequence + index;
            let id = (info.producer_id as u64) << 40 | sequence as u64;
            let prefix_hash = mix(mix(before, id), info.partition_leader_epoch as u64);
            let epoch = info.partition_leader_epoch;
            self.records.push(Record { producer_id: info.producer_id, sequence, epoch, prefix_hash });
        }
        self.batches.push(batch.clone());
    }

    /// Whole batches from `from`, of about `max_bytes`; where they end.
    pub fn read(&self, from: i64, max_bytes: u32) -> (Vec<u8>, i64) {
        let (mut bytes, mut end) = (Vec::new(), from);
        for batch in self.batches.iter().skip_while(|batch| batch.base < from) {
            if !bytes.is_empty() && bytes.len() + batch.bytes.len() > max_bytes as usize {
                break;
            }
            assert_eq!(batch.base, end, "a read begins where a batch begins");
            bytes.extend_from_slice(&batch.bytes);
            end = batch.end;
        }
        (bytes, end)
    }

    /// No batch that reaches beyond `to` remains. The new end.
    pub fn cut(&mut self, to: i64) -> i64 {
        let keep = self.batches.partition_point(|batch| batch.end <= to);
        let removed = self.batches.split_off(keep);
        let to = removed.first().map_or(to, |batch| batch.base.min(to));
        self.records.truncate((to - self.first).max(0) as usize);
        self.written = self.written.min(to);
        self.flushed = self.flushed.min(to);
        self.start = self.start.min(to);
        self.ghost = Some((to, removed));
        self.generation += 1;
        to
    }

    /// If all of it lies before the log start it is nobody's business what it was.
    pub fn bury(&mut self, hash: Option<u64>) {
        if self.start == self.end()
            && let Some(hash) = hash
        {
            (self.first, self.first_hash) = (self.start, hash);
            self.records.clear();
            self.batches.clear();
            self.ghost = None;
        }
    }

    /// All is dropped; the log begins at `at`, before which everything hashes to `hash`.
    pub fn restart(&mut self, at: i64, hash: u64) {
        let generation = self.generation + 1;
        *self = Log {
            first: at,
            first_hash: hash,
            start: at,
            written: at,
            flushed: at,
            generation,
            ..Log::default()
        };
    }

    pub fn handle_written(&mut self, end: i64) {
        self.written = self.written.max(end);
    }

    pub fn handle_flushed(&mut self, end: i64) {
        self.written = self.written.max(end);
        self.flushed = self.flushed.max(end);
        self.ghost = None;
    }

    /// The process dies. What was written remains, and perhaps some of the rest; if `lossy`, only what was flushed, and
    /// perhaps some of the rest; if `lying`, perhaps not even that. True if something written was lost.
    pub fn crash(&mut self, lossy: bool, lying: bool, prng: &mut Prng) -> bool {
        let written = self.written;
        if let Some((at, batches)) = self.ghost.take()
            && lossy
            && self.flushed == at
            && self.end() == at
            && prng.one_in(2)
        {
            let some = prng.below(batches.len() as u64 + 1) as usize;
            batches[..some].iter().for_each(|batch| self.push(batch));
        }
        let sure = match lossy {
            true if lying => self.start + prng.below((self.flushed - self.start).max(0) as u64 + 1) as i64,
            true => self.flushed,
            false => self.written,
        };
        let least = self.batches.iter().map(|batch| batch.end).find(|end| *end >= sure).unwrap_or(self.end());
        let ends: Vec<i64> =
            self.batches.iter().map(|batch| batch.end).filter(|end| *end > least).chain([least]).collect();
        let end = if prng.one_in(2) { least } else { ends[prng.below(ends.len() as u64) as usize] };
        self.cut(end.max(self.first));
        self.ghost = None;
        (self.written, self.flushed) = (self.end(), self.end());
        self.end() < written
    }

    /// Epochs and producers as recovery finds them: from the log alone.
    pub fn recover(&self) -> (EpochCache, Producers) {
        let (mut epochs, mut producers) = (EpochCache::default(), Producers::default());
        for batch in &self.batches {
            let info = peek(&batch.bytes).unwrap();
            epochs.assign(LeaderEpoch(info.partition_leader_epoch), Offset(batch.base));
            producers.update(&facts(&batch.bytes), pelton_model::Now::default());
        }
        epochs.truncate_from_start(Offset(self.base()));
        (epochs, producers)
    }
}

pub fn facts(batch: &[u8]) -> BatchFacts {
    BatchFacts::from(&peek(batch).unwrap())
}
