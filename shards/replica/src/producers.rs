//! Idempotent producers of one partition (KIP-98): per producer id its epoch and last five batches, so that a retry is
//! known and a gap is refused. The rules are those of Kafka's ProducerAppendInfo and ProducerStateEntry (I13, R15).

use std::collections::{BTreeMap, VecDeque};

use pelton_model::limits::{PRODUCER_BATCHES_RETAINED, PRODUCERS_PER_PARTITION_MAX};
use pelton_model::{Now, Offset};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::record_batch::BatchInfo;

use crate::{SnapshotError, SnapshotReader};

mod undo;

pub use undo::Followed;

/// What producer state needs to know of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchFacts {
    /// Producer id; negative = not idempotent.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record. So many numbers further is the last sequence number too, whatever compaction has left of the
    /// records between (as Kafka's `DefaultRecordBatch.lastSequence`).
    pub last_offset: Offset,
    /// Its largest timestamp, milliseconds.
    pub timestamp_ms: i64,
}

impl From<&BatchInfo> for BatchFacts {
    /// As the batch itself says; offsets and time of one that is still to be appended are its producer's.
    fn from(info: &BatchInfo) -> BatchFacts {
        BatchFacts {
            producer_id: info.producer_id,
            producer_epoch: info.producer_epoch,
            base_sequence: info.base_sequence,
            base_offset: Offset(info.base_offset),
            last_offset: Offset(info.last_offset()),
            timestamp_ms: info.max_timestamp,
        }
    }
}

impl BatchFacts {
    /// Sequence number of the last record; sequences go on at 0 after i32::MAX.
    fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + (self.last_offset.0 - self.base_offset.0);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }
}

/// What to do with a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It is there already: answer as the original was answered.
    Duplicate {
        /// Of the original.
        base_offset: Offset,
        /// Of the original.
        last_offset: Offset,
        /// Of the original, milliseconds.
        timestamp_ms: i64,
    },
    /// It is out of step.
    Refuse {
        /// What the client is told.
        error: ErrorCode,
        /// Why, in words.
        message: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Retained {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    last_offset: Offset,
    timestamp_ms: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: i16,
    /// Milliseconds of wall time of the last append, for expiry.
    seen_ms: i64,
    batches: VecDeque<Retained>,
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerReport {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Of its last record; -1 = none known.
    pub last_sequence: i32,
    /// Of its last batch, milliseconds; -1 = none known.
    pub last_timestamp_ms: i64,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// With several replicas: how to follow a cut of the log.
    undo: Option<Box<undo::UndoLog>>,
}

impl Producers {
    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True when none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Judges a batch before it is appended.
    pub fn check(&self, batch: &BatchFacts, _now: Now) -> Verdict {
        if batch.producer_id < 0 {
            return Verdict::Append;
        }
        // A producer not known, or no longer, may begin with any sequence: its records may have been deleted.
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Verdict::Append };
        if batch.producer_epoch < producer.epoch {
            return refuse(
                ErrorCode::InvalidProducerEpoch,
                format!(
                    "producer {}: epoch {} is older than the current epoch {}",
                    batch.producer_id, batch.producer_epoch, producer.epoch
                ),
            );
        }
        if batch.producer_epoch > producer.epoch {
            return match batch.base_sequence {
                0 => Verdict::Append,
                sequence => refuse(
                    ErrorCode::OutOfOrderSequenceNumber,
                    format!(
                        "producer {}: sequence {sequence} at the start of epoch {}, expected 0",
                        batch.producer_id, batch.producer_epoch
                    ),
                ),
            };
        }
        producer.check_sequence(batch)
    }

    /// Takes note of a batch that was appended.
    pub fn update(&mut self, batch: &BatchFacts, now: Now) {
        if batch.producer_id < 0 {
            return;
        }
        let full = self.by_id.len() >= PRODUCERS_PER_PARTITION_MAX;
        let evicted =
            if full && !self.by_id.contains_key(&batch.producer_id) { self.drop_oldest() } else { None };
        if self.undo.is_some() {
            self.note_undo(batch, evicted);
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            seen_ms: 0,
            batches: VecDeque::new(),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == PRODUCER_BATCHES_RETAINED {
            producer.batches.pop_front();
        }
        producer.seen_ms = now.wall_ms.max(producer.seen_ms);
        producer.batches.push_back(Retained {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            timestamp_ms: batch.timestamp_ms,
        });
    }

    /// Takes note of a batch found in the log at start; one that a snapshot already holds changes nothing.
    pub fn replay(&mut self, batch: &BatchFacts, now: Now) {
        let known = self.by_id.get(&batch.producer_id).and_then(|producer| producer.batches.back());
        if known.is_none_or(|last| last.last_offset < batch.base_offset) {
            self.update(batch, now);
        }
    }

    /// Forgets producers not heard of for `expiration_ms` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now: Now, expiration_ms: i64) {
        self.by_id.retain(|_, producer| now.wall_ms.saturating_sub(producer.seen_ms) <= expiration_ms);
    }

    /// At start: a snapshot may know batches that never became stable. What they displaced is gone, which does no harm: a
    /// client repeats at most its last five batches. For a cut in the middle of life: [`Self::truncate_to`].
    pub fn drop_beyond(&mut self, end: Offset) {
        self.by_id.retain(|_, producer| {
            let before = producer.batches.len();
            producer.batches.retain(|batch| batch.last_offset < end);
            !producer.batches.is_empty() || before == 0
        });
    }

    /// The offset of the last record of each, which compaction must leave a trace of.
    pub fn last_offsets(&self) -> BTreeMap<i64, Offset> {
        let last = |producer: &Producer| producer.batches.back().map(|batch| batch.last_offset);
        self.by_id.iter().filter_map(|(id, producer)| Some((*id, last(producer)?))).collect()
    }

    /// Everyone known, by id, for those who ask.
    pub fn describe(&self) -> Vec<ProducerReport> {
        let report = |(id, producer): (&i64, &Producer)| {
            let last = producer.batches.back();
            ProducerReport {
                producer_id: *id,
                epoch: producer.epoch,
                last_sequence: last.map_or(-1, |batch| batch.last_sequence),
                last_timestamp_ms: last.map_or(-1, |batch| batch.timestamp_ms),
            }
        };
        self.by_id.iter().map(report).collect()
    }

    /// For a checkpoint.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        for (id, producer) in &self.by_id {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&producer.epoch.to_le_bytes());
            bytes.extend_from_slice(&producer.seen_ms.to_le_bytes());
            bytes.push(producer.batches.len() as u8);
            for batch in &producer.batches {
                bytes.extend_from_slice(&batch.base_sequence.to_le_bytes());
                bytes.extend_from_slice(&batch.last_sequence.to_le_bytes());
                bytes.extend_from_slice(&batch.base_offset.0.to_le_bytes());
                bytes.extend_from_slice(&batch.last_offset.0.to_le_bytes());
                bytes.extend_from_slice(&batch.timestamp_ms.to_le_bytes());
            }
        }
        bytes
    }

    /// From a checkpoint.
    pub fn restore(bytes: &[u8]) -> Result<Producers, SnapshotError> {
        let mut reader = SnapshotReader(bytes);
        if reader.take::<1>()? != [1] {
            return Err(SnapshotError);
        }
        let mut producers = Producers::default();
        while !reader.0.is_empty() {
            let id = reader.i64()?;
            let epoch = i16::from_le_bytes(reader.take()?);
            let seen_ms = reader.i64()?;
            let count = usize::from(reader.take::<1>()?[0]);
            if count > PRODUCER_BATCHES_RETAINED || producers.by_id.len() >= PRODUCERS_PER_PARTITION_MAX {
                return Err(SnapshotError);
            }
            let mut batches = VecDeque::with_capacity(count);
            for _ in 0..count {
                batches.push_back(Retained {
                    base_sequence: reader.i32()?,
                    last_sequence: reader.i32()?,
                    base_offset: Offset(reader.i64()?),
                    last_offset: Offset(reader.i64()?),
                    timestamp_ms: reader.i64()?,
                });
            }
            producers.by_id.insert(id, Producer { epoch, seen_ms, batches });
        }
        Ok(producers)
    }

    fn drop_oldest(&mut self) -> Option<(i64, Producer)> {
        let oldest = self.by_id.iter().min_by_key(|(_, producer)| producer.seen_ms).map(|(id, _)| *id)?;
        self.by_id.remove_entry(&oldest)
    }
}

impl Producer {
    fn check_sequence(&self, batch: &BatchFacts) -> Verdict {
        let last_sequence = batch.last_sequence();
        let same = |r: &&Retained| r.base_sequence == batch.base_sequence && r.last_sequence == last_sequence;
        if let Some(original) = self.batches.iter().find(same) {
            return Verdict::Duplicate {
                base_offset: original.base_offset,
                last_offset: original.last_offset,
                timestamp_ms: original.timestamp_ms,
            };
        }
        let Some(last) = self.batches.back() else { return Verdict::Append };
        let expected = if last.last_sequence == i32::MAX { 0 } else { last.last_sequence + 1 };
        if batch.base_sequence == expected {
            return Verdict::Append;
        }
        refuse(
            ErrorCode::OutOfOrderSequenceNumber,
            format!(
                "producer {}: sequence {} is out of order, expected {expected}",
                batch.producer_id, batch.base_sequence
            ),
        )
    }
}

fn refuse(error: ErrorCode, message: String) -> Verdict {
    Verdict::Refuse { error, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, records_count: i32, base_offset: i64) -> BatchFacts {
        BatchFacts {
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence,
            base_offset: Offset(base_offset),
            last_offset: Offset(base_offset + i64::from(records_count) - 1),
            timestamp_ms: 1000 + base_offset,
        }
    }

    fn after(batches: &[BatchFacts]) -> Producers {
        let mut producers = Producers::default();
        for batch in batches {
            assert_eq!(producers.check(batch, Now::default()), Verdict::Append, "{batch:?}");
            producers.update(batch, Now::default());
        }
        producers
    }

    fn error(producers: &Producers, batch: BatchFacts) -> Option<ErrorCode> {
        match producers.check(&batch, Now::default()) {
            Verdict::Refuse { error, .. } => Some(error),
            _ => None,
        }
    }

    #[test]
    fn the_last_five_batches_are_known_again_and_the_sixth_is_out_of_order() {
        let all: Vec<BatchFacts> = (0..6).map(|i| batch(0, i * 2, 2, 100 + i64::from(i) * 2)).collect();
        let producers = after(&all);
        for original in &all[1..] {
            let verdict = producers.check(original, Now::default());
            let Verdict::Duplicate { base_offset, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(base_offset, original.base_offset);
        }
        assert_eq!(error(&producers, all[0]), Some(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(error(&producers, batch(0, 13, 1, 0)), Some(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(error(&producers, batch(0, 12, 1, 0)), None);
    }

    #[test]
    fn epochs_fence_and_begin_at_sequence_0() {
        let producers = after(&[batch(3, 0, 1, 0)]);
        assert_eq!(error(&producers, batch(2, 1, 1, 0)), Some(ErrorCode::InvalidProducerEpoch));
        assert_eq!(error(&producers, batch(4, 1, 1, 0)), Some(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(error(&producers, batch(4, 0, 1, 0)), None);
    }

    #[test]
    fn sequences_wrap() {
        let producers = after(&[batch(0, i32::MAX - 1, 3, 0)]);
        assert_eq!(error(&producers, batch(0, 1, 1, 0)), None);
        let producers = after(&[batch(0, i32::MAX, 1, 0)]);
        assert_eq!(error(&producers, batch(0, 0, 1, 0)), None);
    }

    #[test]
    fn what_compaction_leaves_of_a_batch_says_the_sequences_it_had() {
        let whole = BatchInfo {
            base_offset: 100,
            last_offset_delta: 2,
            producer_id: 9,
            base_sequence: 5,
            records_count: 3,
            ..BatchInfo::default()
        };
        let sent_again = BatchFacts::from(&BatchInfo { base_offset: 0, ..whole });
        for records_count in [3, 1, 0] {
            let mut producers = Producers::default();
            let left = BatchInfo { records_count, ..whole };
            producers.update(&BatchFacts::from(&left), Now::default());
            let verdict = producers.check(&sent_again, Now::default());
            let Verdict::Duplicate { base_offset, last_offset, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!((base_offset, last_offset), (Offset(100), Offset(102)), "{records_count} left");
            assert_eq!(error(&producers, batch(0, 8, 1, 0)), None, "{records_count} left");
            assert_eq!(producers.describe()[0].last_sequence, 7);
        }
    }

    #[test]
    fn unknown_producers_may_begin_anywhere_and_plain_ones_are_not_kept() {
        assert_eq!(error(&Producers::default(), batch(0, 77, 1, 0)), None);
        let plain = BatchFacts { producer_id: -1, ..batch(0, 0, 1, 0) };
        assert!(after(&[plain]).is_empty());
    }

    #[test]
    fn replay_after_a_snapshot_changes_nothing_twice_and_what_never_was_stable_is_forgotten() {
        let all = [batch(0, 0, 1, 0), batch(0, 1, 1, 1), batch(0, 2, 1, 2)];
        let mut producers = Producers::restore(&after(&all[..2]).snapshot()).unwrap();
        for batch in &all {
            producers.replay(batch, Now::default());
        }
        assert_eq!(producers, after(&all));
        producers.drop_beyond(Offset(2));
        assert_eq!(error(&producers, batch(0, 2, 1, 2)), None);
        producers.drop_beyond(Offset(0));
        assert!(producers.is_empty());
        assert!(Producers::restore(&[1, 0]).is_err());
    }

    #[test]
    fn silent_producers_expire() {
        let mut producers = Producers::default();
        producers.update(&batch(0, 0, 1, 0), Now { monotonic_ns: 0, wall_ms: 1000 });
        producers.expire(Now { monotonic_ns: 0, wall_ms: 1500 }, 500);
        assert_eq!(producers.len(), 1);
        producers.expire(Now { monotonic_ns: 0, wall_ms: 1501 }, 500);
        assert!(producers.is_empty());
    }
}
