//! For whoever explores all states of a replica: what makes no difference to anything it will ever do or say is made equal,
//! so that states that differ in their history only are one.

use pelton_model::{IsrMember, LeaderEpoch, Offset, PartitionEpoch, Replica, ReplicaEpoch};

use super::leader::Phase;
use super::{Partition, Role};
use crate::frame::Body;

/// Gives epochs and lives other numbers.
pub trait Renumber {
    /// Of a leadership; the order stays.
    fn leader_epoch(&self, epoch: LeaderEpoch) -> LeaderEpoch;
    /// Of the partition's record; the order stays.
    fn partition_epoch(&self, epoch: PartitionEpoch) -> PartitionEpoch;
    /// A replica in one of its lives; the order of these stays.
    fn member(&self, member: IsrMember) -> IsrMember;
}

impl Partition {
    /// The epochs it knows.
    pub fn epochs_known(&self) -> (LeaderEpoch, PartitionEpoch) {
        let state = self.replicated.as_ref().map(|r| r.state.partition_epoch);
        (self.leader_epoch, state.unwrap_or_default())
    }

    /// The lives it knows, of other replicas too.
    pub fn members_known(&self) -> impl Iterator<Item = IsrMember> {
        let leader = self.replicated.iter().filter_map(|r| match &r.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        });
        let led = leader.flat_map(|leader| {
            leader
                .proposed
                .iter()
                .copied()
                .chain(leader.remotes.iter().filter_map(super::remote::Remote::member))
        });
        self.replicated.iter().flat_map(|r| r.state.isr.iter().copied().chain([r.me])).chain(led)
    }

    /// Forgets its history. Sound where no Join or answer overtakes another (their numbers then only count), windows never
    /// fill, no election is unclean (so nobody asks under which epoch a high watermark was learned), acknowledgements come
    /// at instant 0, and nothing waits for a repetition.
    pub fn forget_history(&mut self) {
        let high_watermark = self.high_watermark;
        let Some(r) = &mut self.replicated else { return };
        debug_assert!(r.state.unclean_epoch.is_none(), "an unclean election");
        r.high_watermark_epoch = LeaderEpoch(0);
        r.joins = 0;
        // Who is eligible is the controller's matter; who is in sync, its and the leader's.
        r.state.elr.clear();
        r.state.last_known_elr.clear();
        if !matches!(r.role, Role::Leader(_)) {
            r.state.isr.clear();
        }
        match &mut r.role {
            Role::Follower(follower) => follower.forget_history(),
            Role::Leader(leader) => {
                // Once it is committed, where the epoch began says no more than the high watermark.
                if leader.start <= high_watermark {
                    leader.start = Offset(0);
                }
                leader.proposed.sort_unstable();
                leader.tried_ns = leader.tried_ns.filter(|at| *at > 0);
                leader.remotes.iter_mut().for_each(super::remote::Remote::forget_history);
            }
            Role::Idle | Role::Faulted => self.retire(),
        }
    }

    /// As a leader: what followers were told may be told them again now, and nobody is slow.
    pub fn forget_instants(&mut self) {
        let Some(leader) = self.leader_mut() else { return };
        leader.tried_ns = None;
        leader.remotes.iter_mut().for_each(super::remote::Remote::forget_instants);
    }

    /// It hears of another record of the partition that is the same but for matters of the leader's.
    pub fn learn(&mut self, epoch: PartitionEpoch) {
        if let Some(r) = &mut self.replicated {
            r.state.partition_epoch = epoch;
        }
    }

    /// As a leader without rule R9: what it proposes counts before it is decided.
    pub fn assume_isr(&mut self, isr: &[IsrMember]) {
        if let Some(r) = &mut self.replicated {
            r.state.isr = isr.to_vec();
            r.state.isr.sort_unstable();
        }
    }

    /// Its disk is full.
    pub fn is_full(&self) -> bool {
        self.replicated.as_ref().is_some_and(|r| r.full)
    }

    /// As a leader, something other than time and followers makes it act: a refused member that may be proposed again, or full disks.
    pub fn wants_tick(&self) -> bool {
        let Some(r) = &self.replicated else { return false };
        let Role::Leader(leader) = &r.role else { return false };
        leader.remotes.iter().any(|remote| remote.barred_until_ns > 0)
            || r.space_deadline_ns(leader).is_some()
    }

    /// Gives all numbers it knows their new values.
    pub fn renumber(&mut self, numbers: &impl Renumber) {
        self.leader_epoch = numbers.leader_epoch(self.leader_epoch);
        let Some(r) = &mut self.replicated else { return };
        r.me = numbers.member(r.me);
        r.state.leader_epoch = numbers.leader_epoch(r.state.leader_epoch);
        r.state.partition_epoch = numbers.partition_epoch(r.state.partition_epoch);
        r.state.isr.iter_mut().for_each(|member| *member = numbers.member(*member));
        if let Role::Leader(leader) = &mut r.role {
            leader.proposed.iter_mut().for_each(|member| *member = numbers.member(*member));
            for remote in &mut leader.remotes {
                remote.epoch = remote.member().map(|member| numbers.member(member).epoch);
            }
        }
    }

    /// Gives replicas other names. Sound where nobody goes by their order.
    pub fn rename(&mut self, name: impl Fn(Replica) -> Replica) {
        let rename = |members: &mut Vec<IsrMember>| {
            members.iter_mut().for_each(|member| member.replica = name(member.replica));
            members.sort_unstable();
        };
        let Some(r) = &mut self.replicated else { return };
        r.me.replica = name(r.me.replica);
        r.state.leader = r.state.leader.map(&name);
        rename(&mut r.state.isr);
        match &mut r.role {
            Role::Follower(follower) => follower.rename(name),
            Role::Leader(leader) => {
                rename(&mut leader.proposed);
                leader.remotes.iter_mut().for_each(|remote| remote.replica = name(remote.replica));
                leader.remotes.sort_unstable_by_key(|remote| remote.replica);
                if let Phase::Draining { target, .. } | Phase::Released { target, .. } = &mut leader.phase {
                    *target = name(*target);
                }
            }
            Role::Idle | Role::Faulted => {}
        }
    }

    /// It neither leads nor has anybody to follow before it hears of a leader of a later epoch; whom it followed is all the same.
    pub fn retire(&mut self) {
        let Some(r) = &mut self.replicated else { return };
        self.leader_epoch = LeaderEpoch(-1);
        r.state.leader_epoch = LeaderEpoch(-1);
        r.state.leader = None;
        r.state.isr.clear();
        if !matches!(r.role, Role::Faulted) {
            r.role = Role::Idle;
        }
    }

    /// As a leader that gets no lease any more in this epoch: it only streams. What followers acknowledged and who is in sync
    /// makes no difference.
    pub fn retire_leader(&mut self) {
        let Some(r) = &mut self.replicated else { return };
        let Role::Leader(leader) = &mut r.role else { return };
        r.state.isr.clear();
        (leader.phase, leader.start) = (Phase::Active, Offset(0));
        (leader.proposed_ns, leader.tried_ns) = (None, None);
        leader.proposed.clear();
        leader.remotes.iter_mut().for_each(super::remote::Remote::forget_acknowledged);
    }

    /// As the leader: this follower takes nothing more in this epoch before it joins again, in this life or another; then
    /// the stream to it begins anew.
    pub fn forget_stream(&mut self, to: Replica) {
        if let Some(remote) = self.leader_mut().and_then(|leader| leader.remote(to)) {
            (remote.streaming, remote.feeding) = (false, false);
            (remote.next, remote.moved_ns) = (Offset(0), 0);
        }
    }

    /// As the leader: the life in which this follower joined last in this epoch.
    pub fn follows_in(&self, follower: Replica) -> Option<ReplicaEpoch> {
        let Some(Role::Leader(leader)) = self.replicated.as_ref().map(|r| &r.role) else { return None };
        leader.remotes.iter().find(|remote| remote.replica == follower)?.epoch
    }

    /// Whether [`Partition::forget_stream`] would forget anything.
    pub fn has_stream(&self, to: Replica) -> bool {
        let Some(Role::Leader(leader)) = self.replicated.as_ref().map(|r| &r.role) else { return false };
        leader.remotes.iter().any(|remote| {
            let (next, moved_ns) = (remote.next, remote.moved_ns);
            remote.replica == to && (remote.streaming || remote.feeding || (next, moved_ns) != (Offset(0), 0))
        })
    }

    /// As the leader, it has heard all that this acknowledgement says, from the same life: when it comes it is no news, and
    /// never will be.
    pub fn knows_ack(&self, from: Replica, body: &Body) -> bool {
        let Body::Ack { replica_epoch, written_end, flushed_end, high_watermark } = *body else {
            return false;
        };
        let Some(Role::Leader(leader)) = self.replicated.as_ref().map(|r| &r.role) else { return false };
        let remote = leader.remotes.iter().find(|remote| remote.replica == from);
        remote
            .filter(|remote| remote.epoch == Some(replica_epoch))
            .and_then(|remote| remote.acked)
            .is_some_and(|acked| {
                written_end <= acked.written
                    && flushed_end <= acked.flushed
                    && high_watermark <= acked.high_watermark
            })
    }
}
