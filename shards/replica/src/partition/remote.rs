//! A follower as its leader knows it: its life, what it has acknowledged in this leader epoch, what is on its way to it.

use std::collections::VecDeque;

use pelton_model::{IsrMember, Offset, Replica, ReplicaEpoch};

use crate::effect::Settings;

/// Appends on their way to one follower, at most; the window counts bytes, this bounds the memory of small ones.
const APPENDS_IN_FLIGHT_MAX: usize = 256;

/// What a follower has acknowledged in this epoch and life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Acked {
    pub(super) written: Offset,
    pub(super) flushed: Offset,
    pub(super) high_watermark: Offset,
}

impl Acked {
    /// What counts for the high watermark (X of rule R6).
    pub(super) fn counting(&self, settings: &Settings) -> Offset {
        if settings.flush_every_append { self.flushed } else { self.written }
    }
}

/// One follower.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Remote {
    pub(super) replica: Replica,
    /// The life that joined last; none = none has in this epoch.
    pub(super) epoch: Option<ReplicaEpoch>,
    pub(super) join: u32,
    /// The stream runs.
    pub(super) streaming: bool,
    pub(super) acked: Option<Acked>,
    /// Where its log begins for clients, as it said in this life.
    pub(super) log_start: Offset,
    /// The controller did not want it in the ISR: it is not proposed before then, nanoseconds; 0 = any time.
    pub(super) barred_until_ns: u64,
    /// It has said that its disk has no room for more.
    pub(super) full: bool,
    /// Largest end it ever said was on stable storage, in any life (rule S5).
    pub(super) durable_seen: Offset,
    /// Where the next Append begins.
    pub(super) next: Offset,
    pub(super) window_bytes: u32,
    in_flight: VecDeque<(Offset, u32)>,
    in_flight_bytes: u64,
    /// The log is being read for it.
    pub(super) feeding: bool,
    /// When something was last sent or heard that moved it on.
    pub(super) moved_ns: u64,
    /// When it last had all there was.
    caught_up_ns: u64,
    /// The leader's end at its last acknowledgement, and when that was.
    mark: (Offset, u64),
}

impl Remote {
    pub(super) fn new(replica: Replica, now_ns: u64) -> Remote {
        Remote {
            replica,
            epoch: None,
            join: 0,
            streaming: false,
            acked: None,
            log_start: Offset(0),
            barred_until_ns: 0,
            full: false,
            durable_seen: Offset(0),
            next: Offset(0),
            window_bytes: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            feeding: false,
            moved_ns: now_ns,
            caught_up_ns: now_ns,
            mark: (Offset(i64::MAX), now_ns),
        }
    }

    /// As a member of an ISR, in the life that joined.
    pub(super) fn member(&self) -> Option<IsrMember> {
        self.epoch.map(|epoch| IsrMember { replica: self.replica, epoch })
    }

    /// A life joins, for the first time or again.
    pub(super) fn begin(
        &mut self,
        epoch: ReplicaEpoch,
        join: u32,
        log_end: Offset,
        window: u32,
        now_ns: u64,
    ) {
        if self.epoch != Some(epoch) {
            (self.log_start, self.full, self.barred_until_ns) = (Offset(0), false, 0);
        }
        self.epoch = Some(epoch);
        self.join = join;
        self.streaming = true;
        self.next = self.acked.map_or(log_end, |acked| acked.written.max(log_end));
        self.window_bytes = window;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.feeding = false;
        self.moved_ns = now_ns;
    }

    /// An acknowledgement of the life that joined, in this epoch. Older ones change nothing.
    pub(super) fn acknowledge(&mut self, acked: Acked, counting: Offset, log_end: Offset, now_ns: u64) {
        let before = *self.acked.get_or_insert(acked);
        self.acked = Some(Acked {
            written: before.written.max(acked.written),
            flushed: before.flushed.max(acked.flushed),
            high_watermark: before.high_watermark.max(acked.high_watermark),
        });
        self.durable_seen = self.durable_seen.max(acked.flushed);
        if acked.written > self.next {
            // It has more than its Join said; what is being read for it is from where it was.
            (self.next, self.feeding) = (acked.written, false);
        }
        self.moved_ns = now_ns;
        while let Some((_, bytes)) = self.in_flight.front().filter(|(end, _)| *end <= acked.written) {
            self.in_flight_bytes -= u64::from(*bytes);
            self.in_flight.pop_front();
        }
        // Caught up as Kafka means it: it has what was there when it last said something.
        if counting >= log_end {
            self.caught_up_ns = now_ns;
        } else if counting >= self.mark.0 {
            self.caught_up_ns = self.caught_up_ns.max(self.mark.1);
        }
        self.mark = (log_end, now_ns);
    }

    /// It has all there is, as it counts.
    pub(super) fn has(&self, log_end: Offset, settings: &Settings) -> bool {
        self.acked.is_some_and(|acked| acked.counting(settings) >= log_end)
    }

    /// The log goes on behind `log_end`.
    pub(super) fn left_behind(&mut self, log_end: Offset, settings: &Settings, now_ns: u64) {
        if self.has(log_end, settings) {
            (self.caught_up_ns, self.moved_ns) = (now_ns, now_ns);
        }
    }

    /// It has not had all there was for longer than `replica.lag.time.max.ms`.
    pub(super) fn lags(&self, log_end: Offset, settings: &Settings, now_ns: u64) -> bool {
        !self.has(log_end, settings) && now_ns.saturating_sub(self.caught_up_ns) > settings.replica_lag_ns
    }

    /// When it will lag if it does not catch up.
    pub(super) fn lags_at_ns(&self, settings: &Settings) -> u64 {
        self.caught_up_ns.saturating_add(settings.replica_lag_ns).saturating_add(1)
    }

    /// Bytes that may be sent now.
    pub(super) fn room(&self) -> u32 {
        if self.in_flight.len() >= APPENDS_IN_FLIGHT_MAX {
            return 0;
        }
        u64::from(self.window_bytes).saturating_sub(self.in_flight_bytes) as u32
    }

    /// An Append goes out.
    pub(super) fn sent(&mut self, end: Offset, bytes: u32, now_ns: u64) {
        self.in_flight.push_back((end, bytes));
        self.in_flight_bytes += u64::from(bytes);
        self.next = end;
        self.feeding = false;
        self.moved_ns = now_ns;
    }

    /// See [`super::Partition::forget_history`].
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) fn forget_history(&mut self) {
        debug_assert!(self.room() > 0 || self.window_bytes == 0, "the window is full");
        self.join = 0;
        (self.in_flight_bytes, self.mark) = (0, (Offset(i64::MAX), 0));
        self.in_flight.clear();
    }

    /// See [`super::Partition::retire_leader`].
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) fn forget_acknowledged(&mut self) {
        (self.acked, self.barred_until_ns, self.full) = (None, 0, false);
        self.forget_instants();
    }

    /// See [`super::Partition::forget_instants`].
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) fn forget_instants(&mut self) {
        (self.moved_ns, self.caught_up_ns) = (0, 0);
    }

    /// It has not all there is, or not the high watermark, or keeps what the leader has let go; or its disk is full, and it is asked
    /// whether it still is.
    pub(super) fn behind(
        &self,
        log_end: Offset,
        log_start: Offset,
        high_watermark: Offset,
        settings: &Settings,
    ) -> bool {
        let Some(acked) = &self.acked else { return true };
        let short = acked.counting(settings).min(acked.written) < log_end;
        short
            || self.full
            || self.log_start < log_start
            || acked.high_watermark < high_watermark.min(acked.written)
    }
}
