//! A replica whose disk is full: it leads no more where another one can, and nothing waits for it where enough others are in
//! sync (in Kafka its log directory fails, with the same end). It comes back by itself when there is room again. Its metadata may
//! stand still meanwhile, as their log is on the same disk: then it never follows in an epoch that begins after it became full. So
//! a full replica says so to all others, and whoever leads next knows it without having heard from it.

use pelton_model::{LeaderEpoch, Replica};

use super::leader::{Leader, Phase};
use super::remote::Remote;
use super::{Partition, Replicated, Role};
use crate::effect::Turn;
use crate::frame::Body;

/// Between two attempts of a full leader to hand over, in `retry_ns`: while it tries, it appends nothing.
const HAND_OVER_RETRIES: u64 = 4;

impl Partition {
    /// This replica's disk has no room for more, or has some again.
    pub fn handle_space(&mut self, full: bool, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        r.full = full;
        match &r.role {
            Role::Leader(_) => {
                self.tell_space(turn);
                self.hand_over_if_full(turn);
            }
            Role::Follower(_) => self.acknowledge(false, turn),
            Role::Idle | Role::Faulted => {}
        }
    }

    /// As the leader: followers hear whether it has room, as one of them leads next.
    fn tell_space(&self, turn: &mut Turn) {
        let Some(r) = &self.replicated else { return };
        let Role::Leader(leader) = &r.role else { return };
        for remote in &leader.remotes {
            turn.send(remote.replica, Body::Space { replica_epoch: r.me.epoch, full: r.full });
        }
    }

    /// A follower says whether it has room, or the leader does.
    pub(super) fn handle_space_of(
        &mut self,
        from: Replica,
        leader_epoch: LeaderEpoch,
        body: &Body,
        turn: &mut Turn,
    ) {
        let Body::Space { replica_epoch, full } = *body else { return };
        if leader_epoch != self.leader_epoch {
            return;
        }
        let Some(r) = &mut self.replicated else { return };
        match &mut r.role {
            Role::Leader(leader) => {
                let remote = leader.remote(from).filter(|it| it.epoch == Some(replica_epoch));
                let Some(remote) = remote else { return };
                remote.full = full;
                self.tick_isr(turn);
                self.cancel_transfer_to_full(turn);
            }
            Role::Follower(follower) => follower.note_space(from, full),
            Role::Idle | Role::Faulted => {}
        }
    }

    /// A leader without room hands over to whoever is in sync and has some (rule R12).
    pub(super) fn hand_over_if_full(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let target = match &r.role {
            Role::Leader(leader) if r.hand_over_due_ns(leader).is_some_and(|due| turn.now_ns >= due) => {
                r.roomy_member(leader)
            }
            _ => None,
        };
        if let (Some(target), Role::Leader(leader)) = (target, &mut r.role) {
            // Whoever has joined since it became full has not heard.
            if leader.tried_ns.replace(turn.now_ns).is_some() {
                self.tell_space(turn);
            }
            self.handle_transfer(target, turn);
        }
    }
}

impl Replicated {
    /// When something is due because disks are full, nanoseconds.
    pub(super) fn space_deadline_ns(&self, leader: &Leader) -> Option<u64> {
        let leaves = |remote: &Remote| {
            self.state.isr_epoch(remote.replica).is_some() && self.is_without_room(leader, remote)
        };
        let shrinks = leader.proposed_ns.is_none() && leader.remotes.iter().any(leaves);
        if shrinks { Some(0) } else { self.hand_over_due_ns(leader) }
    }

    /// It is not to be waited for: its disk is full, and enough others in sync have room.
    pub(super) fn is_without_room(&self, leader: &Leader, remote: &Remote) -> bool {
        let others = leader
            .remotes
            .iter()
            .filter(|other| !other.full && self.state.isr_epoch(other.replica).is_some());
        remote.full && 1 + others.count() >= self.min_isr()
    }

    /// The same, of whoever is to lead next.
    pub(super) fn leaves_for_space(&self, leader: &Leader, replica: Replica) -> bool {
        let remote = leader.remotes.iter().find(|remote| remote.replica == replica);
        remote.is_some_and(|remote| self.is_without_room(leader, remote))
    }

    fn hand_over_due_ns(&self, leader: &Leader) -> Option<u64> {
        if !self.full || leader.phase != Phase::Active || self.roomy_member(leader).is_none() {
            return None;
        }
        let pause_ns = self.settings.retry_ns.saturating_mul(HAND_OVER_RETRIES);
        Some(leader.tried_ns.map_or(0, |at| at.saturating_add(pause_ns)))
    }

    /// Whoever is in sync, follows in this epoch and has room, in the order of the replicas.
    fn roomy_member(&self, leader: &Leader) -> Option<Replica> {
        let roomy = |replica: &Replica| {
            let remote = leader.remotes.iter().find(|remote| remote.replica == *replica);
            let member = self.state.isr.iter().find(|member| member.replica == *replica);
            remote.is_some_and(|remote| !remote.full)
                && member.is_some_and(|member| self.counting(leader, *member).is_some())
        };
        self.state.replicas.iter().copied().find(roomy)
    }
}
