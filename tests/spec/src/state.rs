//! One state: three replicas of one partition with the production machine in each, the controller's record, and what is on
//! its way.

use pelton_model::{
    IsrMember, LeaderEpoch, NodeEpoch, NodeId, Offset, PartitionState, Replica, ReplicaEpoch, ShardEpoch,
    ShardId,
};
use pelton_replica::effect::{IsrProposal, LogEnds};
use pelton_replica::epochs::EpochCache;
use pelton_replica::frame::Body;
use pelton_replica::partition::{Partition, RoleKind};

use crate::part::Part;

/// Replicas.
pub const N: usize = 3;
/// `min.insync.replicas`.
pub const MIN_ISR: usize = 2;

/// Proposals on their way at once.
pub const PROPOSALS_IN_FLIGHT: usize = 3;
/// Acknowledgements, and words of full disks.
pub const ACKS_IN_FLIGHT: usize = 6;

/// A record: the epoch it was appended under, and which it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rec {
    /// Leader epoch.
    pub epoch: i32,
    /// Which one.
    pub value: u8,
}

/// A replica and its node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The process runs.
    pub up: bool,
    /// Its registration.
    pub life: u8,
    /// It holds a lease by its own clock. Told apart only while it leads: nobody else's matters.
    pub lease: bool,
    /// Each a batch.
    pub log: Vec<Rec>,
    /// How many of them a crash of the process leaves.
    pub written: u8,
    /// How many of them a loss of power leaves.
    pub flushed: u8,
    /// The code under test.
    pub machine: Partition,
    /// What it wants read for whom: to, from where, under which epoch.
    pub feeds: Vec<(u8, u8, i32)>,
}

impl Node {
    /// As the machine is told.
    pub fn ends(&self) -> LogEnds {
        let offset = |at: usize| Offset(at as i64);
        LogEnds {
            start: Offset(0),
            log_start: Offset(0),
            flushed: offset(self.flushed.into()),
            written: offset(self.written.into()),
            end: offset(self.log.len()),
        }
    }

    /// The same of the epochs.
    pub fn epochs(&self) -> EpochCache {
        let mut epochs = EpochCache::default();
        for (at, rec) in self.log.iter().enumerate() {
            epochs.assign(LeaderEpoch(rec.epoch), Offset(at as i64));
        }
        epochs
    }

    /// Believes that it leads.
    pub fn leads(&self) -> bool {
        use RoleKind::{Activating, Active, Draining, Released};
        self.up && matches!(self.machine.role(), Activating | Active | Draining | Released)
    }

    /// Its high watermark.
    pub fn high_watermark(&self) -> usize {
        self.machine.high_watermark().0 as usize
    }

    /// Everything committed is in its log.
    pub fn holds(&self, committed: &[Rec]) -> bool {
        self.log.starts_with(committed)
    }
}

/// What the controller knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Control {
    /// The partition's record.
    pub state: PartitionState,
    /// Registered life of each.
    pub lives: [u8; N],
    /// Bits.
    pub fenced: u8,
    /// Earlier leaders that may not know yet that they lead no more, bits.
    pub holders: u8,
}

/// An acknowledgement on its way, or word of a full disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ack {
    /// Its sender's leader epoch.
    pub epoch: i32,
    /// By index.
    pub from: u8,
    /// By index.
    pub to: u8,
    /// The frame.
    pub body: Body,
}

/// A proposal on its way; it may be decided more than once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Proposal {
    /// By index.
    pub from: u8,
    /// In this life.
    pub life: u8,
    /// What the machine asked for.
    pub wish: IsrProposal,
}

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    /// Records appended.
    pub values: u8,
    /// Ends of processes.
    pub crashes: u8,
    /// Of these, with loss of what was not flushed (with lying disks: of anything).
    pub lossy: u8,
    /// Fencings of nodes that are up, with the end of their lease before.
    pub fences: u8,
    /// Followers found too slow by their leader.
    pub shrinks: u8,
    /// Changes of leader by the controller's will: planned, or not known to the old one.
    pub moves: u8,
    /// Copies of proposals that come later.
    pub copies: u8,
    /// Disks that fill up; they have room again when they like.
    pub fills: u8,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// Shared between states that do not differ there.
    pub nodes: [Part<Node>; N],
    /// The metadata.
    pub control: Part<Control>,
    /// Sorted.
    pub acks: Part<Vec<Ack>>,
    /// Sorted.
    pub proposals: Part<Vec<Proposal>>,
    /// What any leader ever committed.
    pub committed: Part<Vec<Rec>>,
    /// Budget.
    pub left: Budget,
    /// No record has a larger value.
    pub appended: u8,
    /// What a step itself did wrong.
    pub wrong: Option<Wrong>,
}

/// What a step can do wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wrong {
    /// A cut went below the high watermark of the one who made it (I12).
    CutBelow,
    /// Something was committed with too few copies, or against what was committed before (I10).
    IllCommitted,
    /// A replica gave up though no disk lies.
    Faulted,
}

/// The replica of a node.
pub fn replica(at: usize) -> Replica {
    Replica { node: NodeId(at as i32), shard: ShardId(0) }
}

/// Which node.
pub fn index(replica: Replica) -> usize {
    replica.node.0 as usize
}

/// A life as the production code names it.
pub fn epoch_of(life: u8) -> ReplicaEpoch {
    ReplicaEpoch { node_epoch: NodeEpoch(life.into()), shard_epoch: ShardEpoch(0) }
}

/// A replica in a life.
pub fn member(at: usize, life: u8) -> IsrMember {
    IsrMember { replica: replica(at), epoch: epoch_of(life) }
}
