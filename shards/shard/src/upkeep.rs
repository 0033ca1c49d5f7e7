//! What a shard does for its partitions from time to time: lets go of old segments (`log.retention.check.interval.ms`).
//! One sweep over all partitions, a bounded number of them a turn, instead of a timer for each.

use pelton_log::PartitionSlot;
use pelton_model::Now;

use crate::Shard;

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

impl Shard {
    /// The shard is ready: the first sweep comes after `log.initial.task.delay.ms`.
    pub(crate) fn begin_upkeep(&mut self, now: Now) {
        self.retention_sweep.due_ns = Some(now.after_ms(self.config.initial_task_delay_ms));
    }

    /// Does what is due.
    pub(crate) fn run_upkeep(&mut self, now: Now) {
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
}
