//! Which logs are worth compacting, and how far they may be: Kafka's LogCleanerManager. Starts nothing.

use pelton_model::{Now, Offset};

use crate::partition::PartitionLog;
use crate::segment::Segment;
use crate::storage::{Phase, Storage};
use crate::types::{Dirt, PartitionSlot};

impl Storage {
    /// How much compaction would find to do in a partition; none if it is not worth it by the topic's settings, or nothing
    /// may be compacted now. Nothing at or above `high_watermark` may.
    pub fn dirt(&mut self, now: Now, slot: PartitionSlot, high_watermark: Offset) -> Option<Dirt> {
        let partition = self.partition(slot)?;
        let config = &partition.config;
        if !config.compacted || partition.uncleanable || self.phase != Phase::Running || self.stopping {
            return None;
        }
        if partition.has_ended_in_memory() {
            self.ready.insert(slot);
        }
        let partition = self.partition(slot)?;
        let config = &partition.config;
        let sources = self.cleanable(now, partition, high_watermark);
        let dirty = |segment: &&Segment| segment.end_offset > partition.cleaned_end;
        let size = |segments: &mut dyn Iterator<Item = &Segment>| segments.map(|s| s.length).sum::<u64>();
        let dirty_bytes = size(&mut sources.iter().filter(dirty));
        if dirty_bytes == 0 {
            return None;
        }
        let ratio_ppm = dirty_bytes.saturating_mul(1_000_000) / size(&mut sources.iter());
        let oldest_ms = sources.iter().filter(dirty).map(|s| s.first_timestamp_ms).filter(|ms| *ms > 0).min();
        let lag_ms = config.max_compaction_lag_ms;
        let overdue =
            lag_ms < i64::MAX && oldest_ms.is_some_and(|ms| now.wall_ms.saturating_sub(ms) > lag_ms);
        let worth = overdue || ratio_ppm > u64::from(config.min_cleanable_dirty_ppm);
        worth.then_some(Dirt { overdue, ratio_ppm })
    }

    /// Whether compaction waits for segments of a log that have ended, but in memory only; [`Storage::dirt`] has asked for
    /// them to be laid down.
    pub fn awaits_ended_segments(&self, slot: PartitionSlot) -> bool {
        self.partition(slot).is_some_and(|partition| {
            partition.has_ended_in_memory() && !partition.uncleanable && self.ready.contains(&slot)
        })
    }

    /// The segments, from the first, that compaction may touch: ended, stable, committed, and old enough.
    pub(crate) fn cleanable<'a>(
        &self,
        now: Now,
        partition: &'a PartitionLog,
        high_watermark: Offset,
    ) -> &'a [Segment] {
        let ended = partition.segments.len().saturating_sub(1);
        let limit = high_watermark.min(partition.flushed_end);
        let (lag_ms, slot) = (partition.config.min_compaction_lag_ms, self.by_key.get(&partition.key));
        let free = |segment: &&Segment| {
            let young = lag_ms > 0 && segment.max_timestamp_ms > now.wall_ms.saturating_sub(lag_ms);
            let busy = slot.is_none_or(|slot| self.doomed.is_busy(*slot, segment.name()));
            segment.end_offset <= limit && !busy && (segment.end_offset <= partition.cleaned_end || !young)
        };
        let count = partition.segments[..ended].iter().take_while(free).count();
        &partition.segments[..count]
    }
}
