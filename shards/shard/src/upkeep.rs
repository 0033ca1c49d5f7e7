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
}

impl Shard {
    /// The shard is ready: the first look for old segments comes after `log.initial.task.delay.ms`, that for logs to compact
    /// at once, as Kafka's do.
    pub(crate) fn begin_upkeep(&mut self, now: Now) {
        self.retention_sweep.due_ns = Some(now.after_ms(self.config.initial_task_delay_ms));
        self.cleaner.sweep.due_ns = self.config.cleaner_enabled.then_some(now.monotonic_ns);
    }

    /// Does what is due.
    pub(crate) fn run_upkeep(&mut self, now: Now) {
        self.look_for_dirt(now);
        let (total, interval_ms) = (self.partitions.slots(), self.config.retention_check_interval_ms);
        for slot in self.retention_sweep.piece(now, total, interval_ms) {
            self.apply_retention(now, PartitionSlot(slot as u32));
        }
    }

    fn apply_retention(&mut self, now: Now, slot: PartitionSlot) {
        let Some(local) = self.partitions.local_mut(slot) else { return };
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
            let Some(local) = self.partitions.local(slot).filter(|local| local.config.compacted) else {
                continue;
            };
            if let Some(dirt) = self.storage.dirt(now, slot, local.state.high_watermark()) {
                self.cleaner.best = self.cleaner.best.max(Some((dirt, slot)));
            }
        }
        if piece.is_empty() || !ends {
            return;
        }
        let Some((_, slot)) = self.cleaner.best.take() else { return };
        let Some(local) = self.partitions.local(slot) else { return };
        let last_offsets = local.producers.last_offsets();
        if self.storage.start_compaction(now, slot, local.state.high_watermark(), last_offsets) {
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
