//! Takes producer state back when the log is cut (rule R15): what each batch above the high watermark displaced. The state
//! is a function of the log, and five batches per producer are too few to find the way back without this.

use std::collections::VecDeque;

use pelton_model::Offset;
use pelton_model::limits::PRODUCER_BATCHES_RETAINED;

use super::{BatchFacts, Producer, Producers, Retained};

/// What one batch changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    last_offset: Offset,
    producer_id: i64,
    before: Before,
    /// A producer that had to go because there were too many.
    evicted: Option<(i64, Producer)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Before {
    /// The producer was not known.
    Unknown,
    /// It was in another epoch.
    OtherEpoch(Producer),
    /// It was in the same epoch; its oldest batch was dropped to make room, if it had all it may have.
    SameEpoch { seen_ms: i64, dropped: Option<Retained> },
}

/// The way back of one partition's producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UndoLog {
    /// Cuts to here or above can be followed exactly.
    floor: Offset,
    entries: VecDeque<Entry>,
}

/// Whether producer state could follow a cut of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Followed {
    /// It is what the log now makes it.
    Exactly,
    /// The cut went below the high watermark, or below where the state was restored: everything is forgotten, and the
    /// log's batches must be replayed.
    Replay,
}

impl Producers {
    /// From here on cuts down to `floor`, the high watermark, can be followed. For partitions with several replicas.
    pub fn keep_undo(&mut self, floor: Offset) {
        self.undo.get_or_insert_with(|| Box::new(UndoLog { floor, entries: VecDeque::new() }));
    }

    /// The partition has one replica: nothing will be cut.
    pub fn forget_undo(&mut self) {
        self.undo = None;
    }

    /// The high watermark is now `committed`: nothing below it will be taken back.
    pub fn commit(&mut self, committed: Offset) {
        let Some(undo) = &mut self.undo else { return };
        undo.floor = undo.floor.max(committed);
        while undo.entries.front().is_some_and(|entry| entry.last_offset < committed) {
            undo.entries.pop_front();
        }
    }

    /// The log was cut: batches that reach to or beyond `end` are not there any more.
    pub fn truncate_to(&mut self, end: Offset) -> Followed {
        let Some(mut undo) = self.undo.take() else { return self.forget_all() };
        if end < undo.floor {
            undo.entries.clear();
            undo.floor = end;
            self.undo = Some(undo);
            return self.forget_all();
        }
        while undo.entries.back().is_some_and(|entry| entry.last_offset >= end) {
            if let Some(entry) = undo.entries.pop_back() {
                self.take_back(entry);
            }
        }
        self.undo = Some(undo);
        Followed::Exactly
    }

    fn forget_all(&mut self) -> Followed {
        self.by_id.clear();
        Followed::Replay
    }

    fn take_back(&mut self, entry: Entry) {
        match entry.before {
            Before::Unknown => {
                self.by_id.remove(&entry.producer_id);
            }
            Before::OtherEpoch(producer) => {
                self.by_id.insert(entry.producer_id, producer);
            }
            Before::SameEpoch { seen_ms, dropped } => {
                // One that has expired since stays forgotten.
                if let Some(producer) = self.by_id.get_mut(&entry.producer_id) {
                    producer.seen_ms = seen_ms;
                    producer.batches.pop_back();
                    if let Some(dropped) = dropped {
                        producer.batches.push_front(dropped);
                    }
                }
            }
        }
        if let Some((id, producer)) = entry.evicted {
            self.by_id.insert(id, producer);
        }
    }

    /// Before `batch` is taken note of: what it will displace.
    pub(super) fn note_undo(&mut self, batch: &BatchFacts, evicted: Option<(i64, Producer)>) {
        let Some(undo) = &mut self.undo else { return };
        let before = match self.by_id.get(&batch.producer_id) {
            None => Before::Unknown,
            Some(producer) if producer.epoch != batch.producer_epoch => Before::OtherEpoch(producer.clone()),
            Some(producer) => Before::SameEpoch {
                seen_ms: producer.seen_ms,
                dropped: (producer.batches.len() == PRODUCER_BATCHES_RETAINED)
                    .then(|| producer.batches.front().copied())
                    .flatten(),
            },
        };
        let (last_offset, producer_id) = (batch.last_offset, batch.producer_id);
        undo.entries.push_back(Entry { last_offset, producer_id, before, evicted });
    }
}

#[cfg(test)]
mod tests {
    use pelton_model::{Now, Prng};

    use super::*;

    /// A history of producers, epochs and sequences, one record a batch.
    fn history(seed: u64, length: i64) -> Vec<BatchFacts> {
        let mut prng = Prng::new(seed);
        let mut producers = [(0i16, 0i32); 3];
        (0..length)
            .map(|offset| {
                let id = prng.below(3) as usize;
                let producer = &mut producers[id];
                if prng.one_in(7) {
                    *producer = (producer.0 + 1, 0);
                }
                producer.1 += 1;
                BatchFacts {
                    producer_id: id as i64,
                    producer_epoch: producer.0,
                    base_sequence: producer.1 - 1,
                    base_offset: Offset(offset),
                    last_offset: Offset(offset),
                    timestamp_ms: offset,
                }
            })
            .collect()
    }

    fn replayed(batches: &[BatchFacts]) -> Vec<u8> {
        let mut producers = Producers::default();
        batches.iter().for_each(|batch| producers.update(batch, Now::default()));
        producers.snapshot()
    }

    #[test]
    fn after_any_cut_above_the_high_watermark_the_state_is_that_of_the_log() {
        for seed in 0..300 {
            let all = history(seed, 60);
            let mut prng = Prng::new(seed ^ 0xabc);
            let committed = prng.below(40) as usize;
            let mut producers = Producers::default();
            producers.keep_undo(Offset(0));
            all.iter().for_each(|batch| producers.update(batch, Now::default()));
            producers.commit(Offset(committed as i64));
            let end = committed + prng.below(60 - committed as u64) as usize;
            assert_eq!(producers.truncate_to(Offset(end as i64)), Followed::Exactly);
            assert_eq!(producers.snapshot(), replayed(&all[..end]), "seed {seed} cut to {end}");
            all[end..].iter().for_each(|batch| producers.update(batch, Now::default()));
            assert_eq!(producers.snapshot(), replayed(&all), "seed {seed}");
        }
    }

    #[test]
    fn a_cut_below_the_high_watermark_asks_for_a_replay() {
        let all = history(1, 20);
        let mut producers = Producers::default();
        producers.keep_undo(Offset(0));
        all.iter().for_each(|batch| producers.update(batch, Now::default()));
        producers.commit(Offset(10));
        assert_eq!(producers.truncate_to(Offset(9)), Followed::Replay);
        assert!(producers.is_empty());
        all[..9].iter().for_each(|batch| producers.replay(batch, Now::default()));
        assert_eq!(producers.snapshot(), replayed(&all[..9]));
    }
}
