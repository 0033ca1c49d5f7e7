//! What the metadata say of one partition: who holds it, who leads it, who is in sync. The controller alone changes it,
//! by committed records, compare-and-set on the partition epoch; every other crate gets it as a fact.

use crate::ids::{LeaderEpoch, PartitionEpoch, Replica, ReplicaEpoch};

/// A replica in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IsrMember {
    /// Where.
    pub replica: Replica,
    /// Which life: a restarted replica is not the one that was in sync.
    pub epoch: ReplicaEpoch,
}

/// A partition's record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionState {
    /// All replicas, the preferred leader first; those being added are among them.
    pub replicas: Vec<Replica>,
    /// Who leads; none while nobody may.
    pub leader: Option<Replica>,
    /// Counts changes of the leader and finished reassignments.
    pub leader_epoch: LeaderEpoch,
    /// Counts changes of this record.
    pub partition_epoch: PartitionEpoch,
    /// In sync, the leader among them.
    pub isr: Vec<IsrMember>,
    /// Eligible leader replicas (KIP-966): out of the ISR, yet known to have all that is committed.
    pub elr: Vec<Replica>,
    /// The last replicas that were eligible when all were lost (KIP-966); for an unclean election ordered by an operator.
    pub last_known_elr: Vec<Replica>,
    /// Being added by a reassignment.
    pub adding: Vec<Replica>,
    /// To be removed by a reassignment.
    pub removing: Vec<Replica>,
    /// Leader epoch of the last unclean election: committed records of earlier epochs may have been lost there (rule R3).
    pub unclean_epoch: Option<LeaderEpoch>,
}

impl PartitionState {
    /// A partition that has just begun, in the first epochs: whoever comes first of those in sync leads.
    pub fn begun(replicas: Vec<Replica>, isr: Vec<IsrMember>) -> PartitionState {
        PartitionState {
            replicas,
            leader: isr.first().map(|member| member.replica),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            isr,
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            unclean_epoch: None,
        }
    }

    /// The life in which a replica is in sync; none if it is not.
    pub fn isr_epoch(&self, replica: Replica) -> Option<ReplicaEpoch> {
        self.isr.iter().find(|member| member.replica == replica).map(|member| member.epoch)
    }
}
