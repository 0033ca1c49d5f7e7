//! A partition as the image keeps it: small, because there may be a million. What is rarely there is kept apart.

use pelton_model::{IsrMember, LeaderEpoch, PartitionEpoch, PartitionState, Replica, ReplicaEpoch};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Rare {
    elr: Vec<Replica>,
    last_known_elr: Vec<Replica>,
    adding: Vec<Replica>,
    removing: Vec<Replica>,
    unclean_epoch: Option<LeaderEpoch>,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartitionImage {
    /// Where its replicas are; the first is preferred.
    pub replicas: Box<[Replica]>,
    /// In sync.
    pub isr: Box<[IsrMember]>,
    rare: Option<Box<Rare>>,
    /// Who leads.
    pub leader: Option<Replica>,
    /// Epoch of that leadership.
    pub leader_epoch: LeaderEpoch,
    /// Counts its changes.
    pub partition_epoch: PartitionEpoch,
}

impl PartitionImage {
    /// From everything about it, which is used up.
    pub fn from_state(state: PartitionState) -> PartitionImage {
        let PartitionState { elr, last_known_elr, adding, removing, unclean_epoch, .. } = state;
        let rare = Rare { elr, last_known_elr, adding, removing, unclean_epoch };
        PartitionImage {
            replicas: state.replicas.into_boxed_slice(),
            isr: state.isr.into_boxed_slice(),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
        }
    }

    /// Everything about it, into a state whose memory is used again.
    pub fn write_to(&self, state: &mut PartitionState) {
        fn copy<T: Copy>(into: &mut Vec<T>, from: &[T]) {
            into.clear();
            into.extend_from_slice(from);
        }
        copy(&mut state.replicas, &self.replicas);
        copy(&mut state.isr, &self.isr);
        copy(&mut state.elr, self.elr());
        copy(&mut state.last_known_elr, self.last_known_elr());
        copy(&mut state.adding, self.adding());
        copy(&mut state.removing, self.removing());
        state.unclean_epoch = self.rare.as_ref().and_then(|rare| rare.unclean_epoch);
        state.leader = self.leader;
        state.leader_epoch = self.leader_epoch;
        state.partition_epoch = self.partition_epoch;
    }

    /// Everything about it.
    pub fn state(&self) -> PartitionState {
        let rare = self.rare.as_deref().cloned().unwrap_or_default();
        PartitionState {
            replicas: self.replicas.to_vec(),
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: self.isr.to_vec(),
            elr: rare.elr,
            last_known_elr: rare.last_known_elr,
            adding: rare.adding,
            removing: rare.removing,
            unclean_epoch: rare.unclean_epoch,
        }
    }

    /// Eligible leader replicas.
    pub fn elr(&self) -> &[Replica] {
        self.rare.as_ref().map_or(&[], |rare| &rare.elr)
    }

    /// Last known eligible leader replicas.
    pub fn last_known_elr(&self) -> &[Replica] {
        self.rare.as_ref().map_or(&[], |rare| &rare.last_known_elr)
    }

    /// Being added.
    pub fn adding(&self) -> &[Replica] {
        self.rare.as_ref().map_or(&[], |rare| &rare.adding)
    }

    /// Being removed.
    pub fn removing(&self) -> &[Replica] {
        self.rare.as_ref().map_or(&[], |rare| &rare.removing)
    }

    /// A reassignment is under way.
    pub fn reassigning(&self) -> bool {
        !self.adding().is_empty() || !self.removing().is_empty()
    }

    /// The life in which a replica is in sync.
    pub fn isr_epoch(&self, replica: Replica) -> Option<ReplicaEpoch> {
        self.isr.iter().find(|member| member.replica == replica).map(|member| member.epoch)
    }
}
