//! For whoever explores all states of a replica: what makes no difference to anything it will ever do or say is made equal,
//! so that states that differ in their history only are one.

use pelton_model::{LeaderEpoch, Offset, PartitionEpoch, Replica, ReplicaEpoch};

use super::{Partition, Role};
use crate::frame::Body;

/// Gives epochs other numbers.
pub trait Renumber {
    /// Of a leadership; the order stays.
    fn leader_epoch(&self, epoch: LeaderEpoch) -> LeaderEpoch;
    /// Of the partition's record; the order stays.
    fn partition_epoch(&self, epoch: PartitionEpoch) -> PartitionEpoch;
}

impl Partition {
    /// The epochs it knows.
    pub fn epochs_known(&self) -> (LeaderEpoch, PartitionEpoch) {
        let state = self.replicated.as_ref().map(|r| r.state.partition_epoch);
        (self.leader_epoch, state.unwrap_or_default())
    }

    /// Forgets its history. Sound where no Join or answer overtakes another (their numbers then only count), windows never
    /// fill, no election is unclean (so nobody asks under which epoch a high watermark was learned), and acknowledgements come
    /// at instant 0.
    pub fn forget_history(&mut self, numbers: &impl Renumber) {
        self.leader_epoch = numbers.leader_epoch(self.leader_epoch);
        let high_watermark = self.high_watermark;
        let Some(r) = &mut self.replicated else { return };
        debug_assert!(r.state.unclean_epoch.is_none(), "an unclean election");
        r.state.leader_epoch = numbers.leader_epoch(r.state.leader_epoch);
        r.state.partition_epoch = numbers.partition_epoch(r.state.partition_epoch);
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
                leader.remotes.iter_mut().for_each(super::remote::Remote::forget_history);
            }
            Role::Idle | Role::Faulted => {}
        }
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
