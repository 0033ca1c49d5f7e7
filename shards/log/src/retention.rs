//! Retention: how far the beginning of a log moves by time and size, and that its last segment ends when all of it has
//! expired. The rules are those of Kafka's UnifiedLog.deleteOldSegments. Whose turn it is, is the caller's to say; files go
//! as with every log start offset that moves (files.rs).

use pelton_model::{Now, Offset};

use crate::partition::PartitionLog;
use crate::sabotage::Sabotage;
use crate::storage::{Phase, Storage};
use crate::types::PartitionSlot;

/// A segment as retention sees it: in a file, or still to be laid down.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    end_offset: Offset,
    length: u64,
    /// Largest timestamp; that of its beginning if its records have none, as Kafka takes the file's.
    time_ms: i64,
}

impl Storage {
    /// Moves the log start offset over segments that the topic's `retention.bytes` and `retention.ms` no longer keep, and
    /// drops what lies below it. Nothing at or above `high_watermark` goes, nor what is not on stable storage. Says where
    /// the log will begin if that changes. Does nothing for a log that cannot take changes now; ask again later.
    pub fn apply_retention(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        high_watermark: Offset,
    ) -> Option<Offset> {
        if self.phase != Phase::Running || self.stopping || !self.journal.fits(0) {
            return None;
        }
        let sabotaged = self.config.sabotaged(Sabotage::RetentionTooEager);
        let partition = self.partition(slot)?;
        let limit = if sabotaged { partition.log_end } else { high_watermark.min(partition.flushed_end) };
        let start = partition.retained_from(now.wall_ms, if sabotaged { 2 } else { 1 }, limit);
        let moved = start > partition.next_log_start;
        if moved {
            self.set_log_start_offset(slot, start);
        } else if partition.segments.first().is_some_and(|first| first.end_offset <= start) {
            // What was laid down after its time had come.
            self.started.push(slot);
        }
        let partition = self.partition_mut(slot)?;
        if partition.next_log_start == partition.log_end {
            // Nothing is left: the last segment may go, too, and so takes in nothing more.
            partition.planned = None;
        }
        moved.then_some(start)
    }
}

impl PartitionLog {
    /// Where the log begins by its retention settings, at most at `limit`. `aging` is 1.
    fn retained_from(&self, wall_ms: i64, aging: i64, limit: Offset) -> Offset {
        let config = &self.config;
        if !config.deleted || (config.retention_ms < 0 && config.retention_bytes < 0) {
            return self.next_log_start;
        }
        let stretches = self.stretches();
        let mut excess = match config.retention_bytes {
            bytes if bytes < 0 => 0,
            bytes => stretches.iter().map(|stretch| stretch.length).sum::<u64>().saturating_sub(bytes as u64),
        };
        let mut left = stretches.iter().take_while(|stretch| stretch.end_offset <= limit).peekable();
        let mut start = self.next_log_start;
        while let Some(stretch) = left.next_if(|stretch| stretch.length <= excess) {
            excess -= stretch.length;
            start = stretch.end_offset;
        }
        let age_ms = |stretch: &Stretch| wall_ms.saturating_sub(stretch.time_ms).saturating_mul(aging);
        let expired = |stretch: &&Stretch| age_ms(stretch) > config.retention_ms;
        if config.retention_ms >= 0 {
            start = left.take_while(expired).last().map_or(start, |last| last.end_offset);
        }
        start
    }

    /// The segments from the log start offset on, with those of the tail that no file has yet; all hold records.
    fn stretches(&self) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::with_capacity(self.segments.len() + 1);
        for segment in self.segments.iter().filter(|s| s.length > 0 && s.end_offset > self.next_log_start) {
            let time_ms = match segment.max_timestamp_ms {
                none if none < 0 => segment.created_ms,
                time_ms => time_ms,
            };
            stretches.push(Stretch { end_offset: segment.end_offset, length: segment.length, time_ms });
        }
        for batch in
            self.tail.range(self.first_unlaid()..).filter(|b| b.fact.last_offset >= self.next_log_start)
        {
            let (end_offset, length) = (Offset(batch.fact.last_offset.0 + 1), batch.fact.length);
            let time_ms = batch.fact.max_timestamp_ms;
            match stretches.last_mut().filter(|_| !batch.begins_segment) {
                Some(last) => {
                    let time_ms = time_ms.max(last.time_ms);
                    *last = Stretch { end_offset, length: last.length + length, time_ms };
                }
                None => stretches.push(Stretch { end_offset, length, time_ms }),
            }
        }
        stretches
    }
}
