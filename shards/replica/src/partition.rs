//! One replica of one partition, leader or follower: which offsets are committed, under which epoch it leads or follows,
//! what the metadata make of it. A synchronous state machine: events in, [`Effect`]s out.
//!
//! ```text
//! log_start_offset        high_watermark          log_end_offset
//!       |---- committed, readable ----|---- appended, not yet ----|
//! ```
//! I8 the high watermark never falls (but by an unclean election). I9 it never passes the log's end.
//! Rules L…, R… and invariants I… : ARCHITECTURE.md, "Replication".

use pelton_model::{IsrMember, LeaderEpoch, Offset, PartitionState, Replica};
use pelton_wire::error_code::ErrorCode;

use crate::effect::{Effect, Fault, LogEnds, Settings, Turn};
use crate::frame::Body;

mod admission;
mod append_check;
#[cfg(any(test, feature = "sabotage"))]
pub mod explore;
mod follower;
mod isr;
mod leader;
mod remote;
mod space;
mod stream;
mod transfer;

pub use admission::AckState;
pub use append_check::{AppendError, check_append};
use follower::Follower;
use leader::Leader;

/// State of a partition's replica here. Compared and hashed by whoever explores all its states.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Partition {
    leader_epoch: LeaderEpoch,
    high_watermark: Offset,
    /// None: the only replica, which leads as long as the partition exists.
    replicated: Option<Box<Replicated>>,
}

/// What only a partition of a cluster has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Replicated {
    me: IsrMember,
    /// The metadata as applied here.
    state: PartitionState,
    settings: Settings,
    /// Under which leader epoch the high watermark was learned (rule R3).
    high_watermark_epoch: LeaderEpoch,
    /// Counts Joins in this life.
    joins: u32,
    /// The disk has no room for more.
    full: bool,
    role: Role,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Role {
    /// Neither: no leader, or this replica's life is not the one that was elected, or it is to go.
    Idle,
    Leader(Leader),
    Follower(Follower),
    Faulted,
}

/// What this replica is, for metrics and for those who ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleKind {
    /// The only replica.
    Sole,
    /// Without a leader to follow.
    Idle,
    /// Leads, but its predecessor may still answer (L7).
    Activating,
    /// Leads.
    Active,
    /// Leads, and hands over: appends nothing more (R12).
    Draining,
    /// Has given its leadership back.
    Released,
    /// Follows, its log not yet compared with the leader's in this epoch.
    Joining,
    /// Follows.
    Following,
    /// Of no use until somebody looks at it.
    Faulted,
}

/// The high watermark as a checkpoint keeps it. One that is too low does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HighWatermarkMark {
    /// The offset.
    pub offset: Offset,
    /// Under which leader epoch it was learned.
    pub leader_epoch: LeaderEpoch,
}

impl Partition {
    /// A partition with this replica alone, whose leadership begins with `leader_epoch`.
    pub fn new(leader_epoch: LeaderEpoch) -> Partition {
        Partition { leader_epoch, high_watermark: Offset(0), replicated: None }
    }

    /// A replica in one of its lives, of a partition of which it has not heard yet. What it kept of an earlier life: the
    /// log, and `mark`.
    pub fn replicated(
        me: IsrMember,
        settings: Settings,
        mark: HighWatermarkMark,
        ends: LogEnds,
    ) -> Partition {
        let state = PartitionState {
            leader_epoch: LeaderEpoch(-1),
            partition_epoch: pelton_model::PartitionEpoch(-1),
            ..PartitionState::begun(Vec::new(), Vec::new())
        };
        Partition {
            leader_epoch: LeaderEpoch(-1),
            high_watermark: mark.offset.clamp(ends.log_start, ends.end),
            replicated: Some(Box::new(Replicated {
                me,
                state,
                settings,
                high_watermark_epoch: mark.leader_epoch,
                joins: 0,
                full: false,
                role: Role::Idle,
            })),
        }
    }

    /// The epoch new batches carry, and frames must have.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// First offset that is not committed, as far as is known here.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// For a checkpoint.
    pub fn mark(&self) -> HighWatermarkMark {
        let leader_epoch = self.replicated.as_ref().map_or(self.leader_epoch, |r| r.high_watermark_epoch);
        HighWatermarkMark { offset: self.high_watermark, leader_epoch }
    }

    /// Replicas in sync, this one included.
    pub fn isr_size(&self) -> i32 {
        self.replicated.as_ref().map_or(1, |replicated| replicated.state.isr.len() as i32)
    }

    /// What `min.insync.replicas` comes to here: no more than there are replicas, as Kafka's `effectiveMinIsr`.
    pub fn effective_min_isr(&self, min_insync_replicas: i32) -> i32 {
        self.replicated.as_ref().map_or(1, |replicated| replicated.effective_min_isr(min_insync_replicas))
    }

    /// The metadata as applied here; none for the only replica.
    pub fn state(&self) -> Option<&PartitionState> {
        self.replicated.as_ref().map(|replicated| &replicated.state)
    }

    /// This very life is in sync, as far as is known here.
    pub fn is_in_sync(&self) -> bool {
        self.replicated.as_ref().is_none_or(|r| r.state.isr.contains(&r.me))
    }

    /// Everyone whose acknowledgement the high watermark waits for: the committed ISR and whoever was proposed since.
    /// Empty unless this replica leads.
    pub fn maximal_isr(&self) -> Vec<IsrMember> {
        let Some(r) = &self.replicated else { return Vec::new() };
        let Role::Leader(leader) = &r.role else { return Vec::new() };
        let mut members = r.state.isr.clone();
        members.extend(&leader.proposed);
        members
    }

    /// What this replica is.
    pub fn role(&self) -> RoleKind {
        let Some(replicated) = &self.replicated else { return RoleKind::Sole };
        match &replicated.role {
            Role::Idle => RoleKind::Idle,
            Role::Leader(leader) => leader.role(),
            Role::Follower(follower) if follower.matched() => RoleKind::Following,
            Role::Follower(_) => RoleKind::Joining,
            Role::Faulted => RoleKind::Faulted,
        }
    }

    /// The log has moved: with one replica, what it holds as the topic's durability wants it is committed.
    pub fn handle_log_progress(
        &mut self,
        written_end: Offset,
        flushed_end: Offset,
        flush_every_append: bool,
    ) {
        debug_assert!(self.replicated.is_none(), "several replicas: handle_progress");
        let end = if flush_every_append { flushed_end } else { written_end };
        self.high_watermark = self.high_watermark.max(end);
    }

    /// Holds the epoch a client believes in against ours (KIP-320); negative = the client does not say.
    pub fn check_leader_epoch(&self, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        match current_leader_epoch {
            epoch if epoch < 0 || epoch == self.leader_epoch.0 => Ok(()),
            epoch if epoch < self.leader_epoch.0 => Err(ErrorCode::FencedLeaderEpoch),
            _ => Err(ErrorCode::UnknownLeaderEpoch),
        }
    }

    /// The topic's settings have changed.
    pub fn set_settings(&mut self, settings: Settings) {
        if let Some(replicated) = &mut self.replicated {
            replicated.settings = settings;
        }
    }

    /// The metadata have changed. `predecessor_gone`: no earlier leader can still hold a lease (L4 or L6), so a new one is
    /// active at once. What is older than what is known changes nothing.
    pub fn handle_metadata(&mut self, state: &PartitionState, predecessor_gone: bool, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        if state.partition_epoch <= r.state.partition_epoch {
            return;
        }
        let new_epoch = state.leader_epoch > self.leader_epoch;
        let led = matches!(r.role, Role::Leader(_));
        r.state = state.clone();
        self.leader_epoch = state.leader_epoch;
        if matches!(r.role, Role::Faulted) {
            return;
        }
        let me = r.me;
        let holds = state.replicas.contains(&me.replica);
        match state.leader {
            // Elected in this very life: what an earlier one had may be gone.
            Some(leader) if leader == me.replica && state.isr.contains(&me) => {
                if new_epoch || !led {
                    let mut leader = Leader::new(state, me, predecessor_gone, turn);
                    leader.know_full(r.full_others());
                    self.resign_if(led, turn);
                    self.set_role(Role::Leader(leader));
                }
                self.handle_new_isr(turn);
            }
            Some(leader) if leader != me.replica && holds => {
                self.resign_if(led, turn);
                self.follow(leader, new_epoch, turn);
            }
            _ => {
                self.resign_if(led, turn);
                self.set_role(Role::Idle);
            }
        }
    }

    /// No earlier leader than that of `leader_epoch` can still hold a lease.
    pub fn handle_predecessor_gone(&mut self, leader_epoch: LeaderEpoch, turn: &mut Turn) {
        if leader_epoch == self.leader_epoch
            && let Some(leader) = self.leader_mut()
        {
            leader.activate();
            self.advance(turn);
        }
    }

    /// The log has moved by itself: a write or flush was completed, or a leader's append is in memory.
    pub fn handle_progress(&mut self, turn: &mut Turn) {
        match self.role_mut() {
            Some(Role::Leader(_)) => {
                self.advance(turn);
                self.tell_log_start(turn);
                self.feed_all(turn);
                self.continue_transfer(turn);
            }
            Some(Role::Follower(_)) => self.acknowledge(false, turn),
            _ => {}
        }
    }

    /// A frame has come, but for Append: that is [`Partition::handle_append`]'s. Frames of another leader epoch are
    /// answered, if they are Joins, and change nothing here.
    pub fn handle_frame(&mut self, from: Replica, leader_epoch: LeaderEpoch, body: &Body, turn: &mut Turn) {
        match *body {
            Body::Join { .. } => self.handle_join(from, leader_epoch, body, turn),
            Body::Ack { .. } => self.handle_ack(from, leader_epoch, body, turn),
            Body::Answer { .. } if leader_epoch == self.leader_epoch => self.handle_answer(from, body, turn),
            Body::LogStart { .. } => self.handle_log_start(from, leader_epoch, body),
            Body::Space { .. } => self.handle_space_of(from, leader_epoch, body, turn),
            Body::Answer { .. } | Body::Append { .. } => {}
        }
    }

    /// The connection to a replica is gone, with all that was on it.
    pub fn handle_disconnected(&mut self, peer: Replica, turn: &mut Turn) {
        match self.role_mut() {
            Some(Role::Leader(leader)) => leader.part(peer),
            Some(Role::Follower(follower)) if follower.leader() == peer => self.rejoin(turn),
            _ => {}
        }
    }

    /// Time has passed; due at [`Partition::deadline_ns`], harmless at any other time.
    pub fn handle_tick(&mut self, turn: &mut Turn) {
        match self.role_mut() {
            Some(Role::Leader(_)) => {
                self.advance(turn);
                self.tick_transfer(turn);
                self.hand_over_if_full(turn);
                self.tick_stream(turn);
                self.tick_isr(turn);
            }
            Some(Role::Follower(_)) => self.tick_follower(turn),
            _ => {}
        }
    }

    /// When something is due, nanoseconds; none while nothing can be.
    pub fn deadline_ns(&self) -> Option<u64> {
        let r = self.replicated.as_ref()?;
        match &r.role {
            Role::Leader(leader) => {
                let due = leader.deadline_ns(&r.settings, &r.state, self.high_watermark);
                [due, r.space_deadline_ns(leader)].into_iter().flatten().min()
            }
            Role::Follower(follower) => follower.deadline_ns(&r.settings),
            Role::Idle | Role::Faulted => None,
        }
    }

    /// The storage has failed (rule S6): this replica gives up what it does.
    pub fn handle_storage_failure(&mut self, text: &str, turn: &mut Turn) {
        self.fault(Fault::Storage(text.to_string()), turn);
    }

    fn fault(&mut self, fault: Fault, turn: &mut Turn) {
        let led = matches!(self.role_mut(), Some(Role::Leader(_)));
        self.resign_if(led, turn);
        self.set_role(Role::Faulted);
        turn.effects.push(Effect::Faulted(fault));
    }

    fn resign_if(&mut self, led: bool, turn: &mut Turn) {
        if led {
            turn.effects.push(Effect::Resigned);
        }
    }

    fn role_mut(&mut self) -> Option<&mut Role> {
        self.replicated.as_mut().map(|replicated| &mut replicated.role)
    }

    fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self.role_mut()? {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    fn set_role(&mut self, role: Role) {
        if let Some(replicated) = &mut self.replicated {
            replicated.role = role;
        }
    }

    /// Moves the high watermark to `offset` if that is forward. One that is confirmed counts as learned in this epoch.
    fn raise_high_watermark(&mut self, offset: Offset, turn: &mut Turn) {
        let epoch = self.leader_epoch;
        let Some(r) = &mut self.replicated else { return };
        if offset >= self.high_watermark {
            r.high_watermark_epoch = epoch;
        }
        if offset > self.high_watermark {
            self.high_watermark = offset;
            turn.effects.push(Effect::HighWatermark(offset));
        }
    }
}

impl Replicated {
    /// Others that have said that their disks are full, as a follower has heard.
    fn full_others(&self) -> &[Replica] {
        match &self.role {
            Role::Follower(follower) => follower.full_others(),
            _ => &[],
        }
    }

    #[cfg(any(test, feature = "sabotage"))]
    fn sabotaged(&self, fault: crate::sabotage::Sabotage) -> bool {
        self.settings.sabotage == Some(fault)
    }

    #[cfg(not(any(test, feature = "sabotage")))]
    fn sabotaged(&self, _fault: crate::sabotage::Sabotage) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_watermark_follows_the_durability_asked_and_never_falls() {
        let mut partition = Partition::new(LeaderEpoch(0));
        partition.handle_log_progress(Offset(10), Offset(4), true);
        assert_eq!(partition.high_watermark(), Offset(4));
        partition.handle_log_progress(Offset(10), Offset(4), false);
        assert_eq!(partition.high_watermark(), Offset(10));
        partition.handle_log_progress(Offset(10), Offset(5), true);
        assert_eq!(partition.high_watermark(), Offset(10));
    }

    #[test]
    fn clients_with_another_epoch_are_told() {
        let partition = Partition::new(LeaderEpoch(3));
        assert_eq!(partition.check_leader_epoch(-1), Ok(()));
        assert_eq!(partition.check_leader_epoch(3), Ok(()));
        assert_eq!(partition.check_leader_epoch(2), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!(partition.check_leader_epoch(4), Err(ErrorCode::UnknownLeaderEpoch));
    }
}
