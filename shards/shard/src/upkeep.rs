//! What a shard does for its partitions from time to time: lets go of old segments (`log.retention.check.interval.ms`), and
//! compacts the log that needs it most (`log.cleaner.backoff.ms`). One sweep over all partitions for each, a bounded number
//! of them a turn, instead of a timer for each partition.

use pelton_log::{Dirt, PartitionSlot};
use pelton_model::Now;

use crate::Shard;
use crate::effect::{Effect, LogLevel};

/// Partitions looked at in one turn.
const PARTITIONS_PER_TURN: usize = 128;
/// Pause between two such turns, milliseconds: what clients wait for comes first.
const PAUSE_MS: i64 = 1;
/// First pause before the next look where a log's ended segments are on their way to disk, milliseconds; each look that
/// still finds such doubles it.
const AWAIT_MS: i64 = 20;

/// A walk over the partitions, in pieces.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// When to go on, monotonic nanoseconds; none before the shard is ready.
    pub due_ns: Option<u64>,
    next: usize,
}

impl Sweep {
    /// The next piece of `total` partitions if it is due; the walk begins anew `interval_ms` after its end.
    fn piece(&mut self, now: Now, total: usize, interval_ms: i64) -> std::ops::Range<usize> {
        if self.due_ns.is_none_or(|due| due > now.monotonic_ns) {
            return 0..0;
        }
        let piece = self.next..(self.next + PARTITIONS_PER_TURN).min(total);
        self.next = piece.end;
        let mut pause_ms = PAUSE_MS;
        if self.next >= total {
            (self.next, pause_ms) = (0, interval_ms);
        }
        self.due_ns = Some(now.after_ms(pause_ms));
        piece
    }
}

/// Compaction as the shard sees it.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// The search for what to compact; none while something is being compacted.
    pub sweep: Sweep,
    /// The best found so far in this sweep.
    best: Option<(Dirt, PartitionSlot)>,
    /// This sweep has found a log whose ended segments are not on disk yet.
    awaits: bool,
    /// The pause after the last sweep that found such a log, milliseconds; 0: the last found none.
    await_ms: i64,
}

impl Cleaner {
    /// Nothing is worth it now: how long until the next sweep, milliseconds. A log that only waits for its segments to be on
    /// disk is looked at again soon; else it would wait for a whole `log.cleaner.backoff.ms` more than in Kafka.
    fn pause_ms(&mut self, backoff_ms: i64) -> i64 {
        self.await_ms = match std::mem::take(&mut self.awaits) {
            true => self.await_ms.saturating_mul(2).max(AWAIT_MS),
            false => 0,
        };
        match self.await_ms {
            0 => backoff_ms,
            soon => soon.min(backoff_ms),
        }
    }
}

impl Shard {
    /// The shard is ready: the first look for old segments comes after `log.initial.task.delay.ms`, that for logs to compact
    /// at once, as Kafka's do.
    pub(crate) fn begin_upkeep(&mut self, now: Now) {
        self.retention_sweep.due_ns = Some(now.after_ms(self.config.initial_task_delay_ms));
        self.cleaner.sweep.due_ns = self.config.cleaner_enabled.then_some(now.monotonic_ns);
    }

    /// Does what is due.
    pub(crate) fn run_upkeep(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.look_for_dirt(now);
        let (total, interval_ms) = (self.partitions.slots(), self.config.retention_check_interval_ms);
        for slot in self.retention_sweep.piece(now, total, interval_ms) {
            self.apply_retention(now, PartitionSlot(slot as u32), out);
        }
    }

    fn apply_retention(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        let Some(local) = self.partitions.local_mut(slot) else {
            return self.retain_hosted(now, slot, out);
        };
        let high_watermark = local.state.high_watermark();
        if let Some(start) = self.storage.apply_retention(now, slot, high_watermark) {
            local.epochs.truncate_from_start(start);
        }
    }

    /// Goes on looking for the dirtiest log, and begins to compact it when all have been seen.
    fn look_for_dirt(&mut self, now: Now) {
        let total = self.partitions.slots();
        let piece = self.cleaner.sweep.piece(now, total, self.config.cleaner_backoff_ms);
        let ends = piece.end >= total && self.cleaner.sweep.next == 0;
        for slot in piece.clone() {
            let slot = PartitionSlot(slot as u32);
            let Some(local) = self.readable(slot).filter(|local| local.config.compacted) else {
                continue;
            };
            let high_watermark = local.state.high_watermark();
            if let Some(dirt) = self.storage.dirt(now, slot, high_watermark) {
                self.cleaner.best = self.cleaner.best.max(Some((dirt, slot)));
            }
            self.cleaner.awaits |= self.storage.awaits_ended_segments(slot);
        }
        if piece.is_empty() || !ends {
            return;
        }
        let pause_ms = self.cleaner.pause_ms(self.config.cleaner_backoff_ms);
        let Some((_, slot)) = self.cleaner.best.take() else {
            self.cleaner.sweep.due_ns = Some(now.after_ms(pause_ms));
            return;
        };
        let Some(local) = self.readable(slot) else { return };
        let last_offsets = local.producers.last_offsets();
        let high_watermark = local.state.high_watermark();
        if self.storage.start_compaction(now, slot, high_watermark, last_offsets) {
            self.cleaner.sweep.due_ns = None;
        }
    }

    /// A compaction has ended: looks for the next, at once unless something stood in its way.
    pub(crate) fn handle_compaction_end(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(report) = self.storage.take_compaction_report() else { return };
        let pause_ms = if report.ended_early { self.config.cleaner_backoff_ms } else { PAUSE_MS };
        self.cleaner.sweep.due_ns = Some(now.after_ms(pause_ms));
        if let Some(text) = report.failure {
            let text = format!("shard {}: {text}", self.id.0);
            out.push(Effect::Log { level: LogLevel::Warn, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_whose_segments_are_on_their_way_to_disk_are_looked_at_again_soon() {
        let mut cleaner = Cleaner::default();
        let mut pauses = Vec::new();
        for awaits in [false, true, true, true, false, true] {
            cleaner.awaits = awaits;
            pauses.push(cleaner.pause_ms(15_000));
        }
        assert_eq!(pauses, [15_000, AWAIT_MS, 2 * AWAIT_MS, 4 * AWAIT_MS, 15_000, AWAIT_MS]);
        // They never wait longer than any log does.
        for _ in 0..100 {
            cleaner.awaits = true;
            pauses.push(cleaner.pause_ms(100));
        }
        assert!(pauses[6..].iter().all(|pause| *pause <= 100) && pauses.last() == Some(&100));
    }
}
