//! A leader wants another ISR (Kafka's AlterPartition): compare-and-set on the partition epoch, and only lives that are
//! registered now (rules R9, R10).

use pelton_model::{IsrMember, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, PartitionState};

use crate::control::election::{self, Scene};

/// What a leader asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrChange {
    /// The partition.
    pub key: PartitionKey,
    /// The asker leads it in this epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch it knows.
    pub partition_epoch: PartitionEpoch,
    /// The ISR it wants, itself among it.
    pub isr: Vec<IsrMember>,
}

/// Why it is refused, with Kafka's errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsrRefusal {
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownPartition,
    /// STALE_BROKER_EPOCH: the asker has been registered anew since.
    StaleNodeEpoch,
    /// FENCED_LEADER_EPOCH: it leads in another epoch, or not at all.
    FencedLeaderEpoch,
    /// INVALID_UPDATE_VERSION: the partition has changed since.
    InvalidUpdateVersion,
    /// INELIGIBLE_REPLICA: someone in it is fenced, draining, or lives another life now.
    IneligibleReplica,
    /// INVALID_REQUEST.
    InvalidRequest,
    /// NOT_CONTROLLER, or no longer.
    NotController,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The node.
    pub node: NodeId,
    /// In this life.
    pub epoch: NodeEpoch,
}

/// Faults on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IsrSabotage {
    /// The partition epoch is not compared.
    pub no_compare: bool,
    /// Lives are not compared.
    pub stale_epochs: bool,
}

/// The partition with the ISR that was asked for, a reassignment finished if it can be. Also one equal to the present ISR
/// moves the partition epoch: it tells the leader that no earlier proposal of it can be accepted any more.
pub fn change(
    scene: &Scene<'_>,
    old: &PartitionState,
    asker: Asker,
    wanted: &IsrChange,
    sabotage: IsrSabotage,
) -> Result<PartitionState, IsrRefusal> {
    let registered = scene.image.node(asker.node).map(|node| node.epoch);
    if registered != Some(asker.epoch) && !sabotage.stale_epochs {
        return Err(IsrRefusal::StaleNodeEpoch);
    }
    let leads = old.leader.is_some_and(|leader| leader.node == asker.node);
    if !leads || wanted.leader_epoch != old.leader_epoch {
        return Err(IsrRefusal::FencedLeaderEpoch);
    }
    if wanted.partition_epoch != old.partition_epoch && !sabotage.no_compare {
        return Err(IsrRefusal::InvalidUpdateVersion);
    }
    check_members(scene, old, &wanted.isr, sabotage)?;
    let mut new = old.clone();
    new.isr = wanted.isr.clone();
    new.isr.sort_unstable_by_key(|member| old.replicas.iter().position(|replica| *replica == member.replica));
    election::settle_elr(old, &mut new, scene.min_isr);
    // The leader may have to hand over first; the reassignment ends when it has.
    let mut new = match election::successor(scene, &new) {
        Some(_) => new,
        None => election::finish(scene, &new).unwrap_or(new),
    };
    new.partition_epoch.0 = old.partition_epoch.0 + 1;
    Ok(new)
}

fn check_members(
    scene: &Scene<'_>,
    old: &PartitionState,
    isr: &[IsrMember],
    sabotage: IsrSabotage,
) -> Result<(), IsrRefusal> {
    let twice = isr
        .iter()
        .enumerate()
        .any(|(at, member)| isr[..at].iter().any(|other| other.replica == member.replica));
    let leader_in = isr.iter().any(|member| Some(member.replica) == old.leader);
    if twice || !leader_in || isr.iter().any(|member| !old.replicas.contains(&member.replica)) {
        return Err(IsrRefusal::InvalidRequest);
    }
    for member in isr {
        let known = scene.image.replica_epoch(member.replica) == Some(member.epoch);
        let stays = old.isr.contains(member);
        let willing =
            scene.image.is_live(member.replica) && (stays || !scene.image.is_draining(member.replica.node));
        let eligible = known && willing;
        if !eligible && !sabotage.stale_epochs {
            return Err(IsrRefusal::IneligibleReplica);
        }
    }
    Ok(())
}
