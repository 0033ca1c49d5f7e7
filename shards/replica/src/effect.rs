//! What the replica machine is told with every event, and what it wants done.

use pelton_model::{IsrMember, LeaderEpoch, Offset, PartitionEpoch, Replica};

use crate::epochs::EpochCache;
use crate::frame::Body;
use crate::lease::Lease;
#[cfg(any(test, feature = "sabotage"))]
use crate::sabotage::Sabotage;

/// How far a partition's log has come here. `start <= log_start <= end`, `flushed <= written <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogEnds {
    /// Where the batch that holds `log_start` begins: replicas hold whole batches. The epochs begin here
    /// or later: memory may have batches of segments that are let go.
    pub start: Offset,
    /// First offset for clients.
    pub log_start: Offset,
    /// Behind the last record on stable storage.
    pub flushed: Offset,
    /// Behind the last record whose write has completed.
    pub written: Offset,
    /// Behind the last record appended.
    pub end: Offset,
}

/// What the rules go by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// `min.insync.replicas`; counts as the number of replicas where that is smaller, as in Kafka.
    pub min_insync_replicas: i32,
    /// `flush.messages` = 1: what is on stable storage counts, not what is written.
    pub flush_every_append: bool,
    /// The topic is compacted: offsets in the log may have gaps.
    pub compacted: bool,
    /// `replica.lag.time.max.ms`: a follower that has not reached the end for so long leaves the ISR, nanoseconds.
    pub replica_lag_ns: u64,
    /// A Join, proposal or release without answer is said again after this, and a follower that is behind is asked how far
    /// it is, nanoseconds.
    pub retry_ns: u64,
    /// A follower that has heard nothing for so long says that it is there, nanoseconds.
    pub silence_ns: u64,
    /// A planned transfer is given up after this, nanoseconds.
    pub transfer_ns: u64,
    /// Bytes on their way to a follower, not yet written there, at most.
    pub window_bytes: u32,
    /// Bytes of one Append, at most (a single larger batch goes all the same).
    pub append_bytes: u32,
    /// A fault on purpose.
    #[cfg(any(test, feature = "sabotage"))]
    pub sabotage: Option<Sabotage>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            min_insync_replicas: 1,
            flush_every_append: true,
            compacted: false,
            replica_lag_ns: 6_000_000_000,
            retry_ns: 500_000_000,
            silence_ns: 30_000_000_000,
            transfer_ns: 500_000_000,
            window_bytes: 8 << 20,
            append_bytes: 1 << 20,
            #[cfg(any(test, feature = "sabotage"))]
            sabotage: None,
        }
    }
}

/// The surroundings of one event.
pub struct Turn<'a> {
    /// This node's clock, nanoseconds.
    pub now_ns: u64,
    /// The shard's lease.
    pub lease: Lease,
    /// The partition's log.
    pub ends: LogEnds,
    /// Its leader epochs.
    pub epochs: &'a EpochCache,
    /// Where wishes go; carried out in order.
    pub effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub(crate) fn lease_holds(&self) -> bool {
        self.lease.valid(self.now_ns)
    }

    pub(crate) fn send(&mut self, to: Replica, body: Body) {
        self.effects.push(Effect::Send { to, body });
    }
}

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send a frame without batches, of the partition's current leader epoch.
    Send {
        /// To whom.
        to: Replica,
        /// What.
        body: Body,
    },
    /// Read the log and hand the batches to [`crate::partition::Partition::append_frame`].
    Feed {
        /// For whom.
        to: Replica,
        /// The epoch under which it was asked; given back.
        leader_epoch: LeaderEpoch,
        /// From where; a batch begins there.
        from: Offset,
        /// How much, bytes; the first batch goes in any case.
        max_bytes: u32,
    },
    /// Cut the log, epochs and producers, at once, before any other event of the partition: no batch that reaches beyond
    /// `to` remains. What is appended later must not become stable before the cut. Then say `handle_cut`.
    Cut {
        /// The new end; that of the last whole batch before it, if it lies within one.
        to: Offset,
    },
    /// As a cut, but of the whole log: it begins anew, empty, at `at`.
    Restart {
        /// Start and end of the new log.
        at: Offset,
    },
    /// The log begins at `to` now, if it began before.
    AdvanceLogStart {
        /// The leader's log start.
        to: Offset,
    },
    /// The high watermark has moved: acknowledgements, readers and producer state follow.
    HighWatermark(Offset),
    /// Ask the controller for this ISR, compare-and-set.
    ProposeIsr(IsrProposal),
    /// Leadership has ended, or answers of it: whoever waits gets NOT_LEADER_OR_FOLLOWER.
    Resigned,
    /// To the controller: nothing will be answered any more before the partition epoch moves; `target` has the whole log
    /// (rules L6, R12). If the controller refuses, it has to move the partition epoch: then this leader goes on.
    Release {
        /// Who is to lead.
        target: Replica,
        /// The epoch given back.
        leader_epoch: LeaderEpoch,
        /// The controller may act on it in this partition epoch only.
        partition_epoch: PartitionEpoch,
    },
    /// The transfer that was ordered does not happen: the target was not there in time.
    TransferCancelled {
        /// Who was to lead.
        target: Replica,
    },
    /// This replica is of no use until somebody looks at it; to the log, the metrics and the controller.
    Faulted(Fault),
    /// To the log and the metrics: a follower has lost what it had said was on stable storage (rule S5).
    LostDurable {
        /// Who.
        replica: Replica,
        /// What it had acknowledged.
        acknowledged: Offset,
        /// What it has.
        log_end: Offset,
    },
}

/// A wish of the leader: the ISR as it should be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IsrProposal {
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch this builds on; any other at the controller refuses it.
    pub partition_epoch: PartitionEpoch,
    /// The ISR wanted. One equal to the present ISR is a change too: it settles what became of earlier proposals.
    pub isr: Vec<IsrMember>,
}

/// Why a replica is of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Rule R3.
    #[error(
        "told to cut its log to {to} below its high watermark {high_watermark}, and no unclean election explains it; \
         nothing was cut: compare the replicas before one of them is removed"
    )]
    CutBelowHighWatermark {
        /// Where to cut.
        to: i64,
        /// What is known to be committed.
        high_watermark: i64,
    },
    /// The leader of an epoch takes back what this replica has from it.
    #[error(
        "told to cut its log to {to} by a leader whose log it followed in the same epoch; nothing was cut: the leader's \
         log is damaged"
    )]
    CutWithinEpoch {
        /// Where to cut.
        to: i64,
    },
    /// Rule S6.
    #[error("its storage has failed: {0}")]
    Storage(String),
}
