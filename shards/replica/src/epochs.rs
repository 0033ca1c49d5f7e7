//! Where each leader epoch of a log begins (KIP-101): a function of the log, kept so that nobody has to scan it.

use pelton_model::{LeaderEpoch, Offset};

use crate::effect::LogEnds;
use crate::{SnapshotError, SnapshotReader};

/// Epochs and their start offsets, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochCache {
    /// Records from `start` on are of `epoch`; older or equal epochs change nothing.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.entries.last().is_some_and(|(last, _)| *last >= epoch) {
            return;
        }
        // Epochs that turn out to hold no record give way, as in Kafka's LeaderEpochFileCache.
        while self.entries.last().is_some_and(|(_, begun)| *begun >= start) {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
    }

    /// The epoch a record was appended under.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.entries.iter().rev().find(|(_, start)| *start <= offset).map(|(epoch, _)| *epoch)
    }

    /// The largest epoch not above `requested`, and where it ends; (-1, -1) if there is none
    /// (Kafka's `endOffsetFor`).
    pub fn end_offset_for(&self, requested: i32, log_end_offset: Offset) -> (i32, Offset) {
        let undefined = (-1, Offset(-1));
        let Some((latest, _)) = self.entries.last() else { return undefined };
        if requested < 0 || requested > latest.0 {
            return undefined;
        }
        if requested == latest.0 {
            return (requested, log_end_offset);
        }
        let next = self.entries.iter().position(|(epoch, _)| epoch.0 > requested);
        match next {
            // All epochs known are later: the requested one ended where they begin.
            Some(0) => (requested, self.entries[0].1),
            Some(next) => (self.entries[next - 1].0.0, self.entries[next].1),
            None => undefined,
        }
    }

    /// The epoch of the last record; -1 if none is known.
    pub fn latest(&self) -> i32 {
        self.entries.last().map_or(-1, |(epoch, _)| epoch.0)
    }

    /// The largest epoch not above `requested` and where it ends, for two replicas that compare logs (rule R2). Unlike
    /// [`Self::end_offset_for`] it knows an answer for every epoch: a later one than any here ends with the log. One from before
    /// all that is known ended where what is known begins, as in Kafka, if that is let go already: what lies there was committed,
    /// and where the log still has some of it, that says nothing about epochs. Otherwise there is a gap before what is known
    /// (compaction), of which nobody can tell whose records were in it: nothing but the log's beginning is common.
    pub fn agreement(&self, requested: i32, ends: &LogEnds) -> (i32, Offset) {
        let next = self.entries.partition_point(|(epoch, _)| epoch.0 <= requested);
        let end = self.entries.get(next).map_or(ends.end, |(_, start)| *start);
        match next.checked_sub(1) {
            Some(at) => (self.entries[at].0.0, end),
            None if self.entries.is_empty() || end <= ends.log_start => (requested, end),
            None => (requested, ends.start),
        }
    }

    /// The log was emptied and begins anew elsewhere.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The log was cut: nothing at or above `end` remains.
    pub fn truncate_from_end(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// The log now starts at `start`: epochs wholly below are forgotten, the one that reaches over it begins there.
    pub fn truncate_from_start(&mut self, start: Offset) {
        let below = self.entries.iter().filter(|(_, begun)| *begun <= start).count();
        if below > 0 {
            self.entries.drain(..below - 1);
            self.entries[0].1 = start;
        }
    }

    /// For a checkpoint.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        for (epoch, start) in &self.entries {
            bytes.extend_from_slice(&epoch.0.to_le_bytes());
            bytes.extend_from_slice(&start.0.to_le_bytes());
        }
        bytes
    }

    /// From a checkpoint.
    pub fn restore(bytes: &[u8]) -> Result<EpochCache, SnapshotError> {
        let mut reader = SnapshotReader(bytes);
        if reader.take::<1>()? != [1] {
            return Err(SnapshotError);
        }
        let mut cache = EpochCache::default();
        while !reader.0.is_empty() {
            cache.entries.push((LeaderEpoch(reader.i32()?), Offset(reader.i64()?)));
        }
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> EpochCache {
        let mut cache = EpochCache::default();
        cache.assign(LeaderEpoch(1), Offset(0));
        cache.assign(LeaderEpoch(1), Offset(5));
        cache.assign(LeaderEpoch(3), Offset(10));
        cache.assign(LeaderEpoch(4), Offset(20));
        cache
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let cache = cache();
        assert_eq!(cache.end_offset_for(4, Offset(25)), (4, Offset(25)));
        assert_eq!(cache.end_offset_for(3, Offset(25)), (3, Offset(20)));
        assert_eq!(cache.end_offset_for(2, Offset(25)), (1, Offset(10)));
        assert_eq!(cache.end_offset_for(0, Offset(25)), (0, Offset(0)));
        assert_eq!(cache.end_offset_for(5, Offset(25)), (-1, Offset(-1)));
        assert_eq!(cache.end_offset_for(-1, Offset(25)), (-1, Offset(-1)));
        assert_eq!(EpochCache::default().end_offset_for(0, Offset(0)), (-1, Offset(-1)));
    }

    #[test]
    fn logs_agree_up_to_the_end_of_the_largest_common_epoch() {
        let cache = cache();
        let end = Offset(25);
        let ends = LogEnds { start: Offset(0), log_start: Offset(0), flushed: end, written: end, end };
        let agree = |epoch| cache.agreement(epoch, &ends);
        assert_eq!(agree(9), (4, Offset(25)));
        assert_eq!(agree(4), (4, Offset(25)));
        assert_eq!(agree(3), (3, Offset(20)));
        assert_eq!(agree(2), (1, Offset(10)));
        assert_eq!(agree(0), (0, Offset(0)));
        assert_eq!(EpochCache::default().agreement(7, &ends), (7, Offset(25)));
    }

    #[test]
    fn a_log_that_ends_with_what_was_let_go_elsewhere_has_nothing_to_cut() {
        let mut cache = cache();
        cache.truncate_from_start(Offset(12));
        let end = Offset(25);
        // The batches before 12 are in memory still.
        let ends = LogEnds { start: Offset(0), log_start: Offset(12), flushed: end, written: end, end };
        assert_eq!(cache.agreement(1, &ends), (1, Offset(12)));
        // Compaction has left nothing between 10 and 12; what another has there may never have been committed.
        let ends = LogEnds { start: Offset(10), log_start: Offset(10), ..ends };
        assert_eq!(cache.agreement(1, &ends), (1, Offset(10)));
    }

    #[test]
    fn an_epoch_without_records_gives_way() {
        let mut cache = cache();
        cache.assign(LeaderEpoch(6), Offset(20));
        assert_eq!(cache.end_offset_for(4, Offset(25)), (3, Offset(20)));
        assert_eq!(cache.epoch_for_offset(Offset(20)), Some(LeaderEpoch(6)));
    }

    #[test]
    fn cuts_on_both_sides_and_a_round_trip() {
        let mut cache = cache();
        cache.truncate_from_start(Offset(12));
        assert_eq!(cache.epoch_for_offset(Offset(12)), Some(LeaderEpoch(3)));
        assert_eq!(cache.epoch_for_offset(Offset(11)), None);
        cache.truncate_from_end(Offset(20));
        assert_eq!(cache.end_offset_for(3, Offset(18)), (3, Offset(18)));
        assert_eq!(EpochCache::restore(&cache.snapshot()), Ok(cache));
        assert!(EpochCache::restore(&[1, 2]).is_err());
    }
}
