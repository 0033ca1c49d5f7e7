//! What must hold after every step, of the replicas of the shard that has just had its turn (invariants I1, I2, I3, I6, I8, I9, I10,
//! I17).

use std::collections::{BTreeMap, BTreeSet};

use pelton_log::PartitionSlot;
use pelton_model::{IsrMember, NodeId, PartitionEpoch, PartitionKey, PartitionState, Replica, ShardId};
use pelton_replica::partition::RoleKind;

use super::{Place, World, place_of};

/// What was seen of a replica last.
struct Seen {
    life: u64,
    slot: PartitionSlot,
    role: RoleKind,
    leader_epoch: i32,
    high_watermark: i64,
    end: i64,
    partition_epoch: PartitionEpoch,
}

/// What was seen so far.
#[derive(Default)]
pub struct Watch {
    /// Who led a partition in each epoch.
    leaders: BTreeMap<(PartitionKey, i32), Place>,
    /// The largest high watermark that any leader ever had, and the last epoch.
    committed: BTreeMap<PartitionKey, (i32, i64)>,
    seen: BTreeMap<(Place, PartitionKey), Seen>,
    /// What each change of a partition's record made of it.
    records: BTreeMap<(PartitionKey, PartitionEpoch), PartitionState>,
    /// Who answers as leader, as long as its lease holds.
    active: BTreeMap<PartitionKey, Vec<Place>>,
}

impl World {
    /// Looks at the replicas of a shard.
    pub(super) fn look(&mut self, place: Place) -> Result<(), String> {
        let (now, life) = (self.now_of(place.0), self.nodes[place.0].life);
        let Some(Some(shard)) = self.nodes[place.0].shards.get(usize::from(place.1)) else { return Ok(()) };
        let (mut twice, mut grown) = (Vec::new(), Vec::new());
        for it in shard.replicas() {
            let (key, epoch) = (it.key, it.leader_epoch.0);
            let (high_watermark, end) = (it.high_watermark.0, it.log_end_offset.0);
            let text = || {
                format!("{key} on {}.{}: {:?} {epoch}, {high_watermark} of {end}", place.0, place.1, it.role)
            };
            if high_watermark > end {
                return Err(format!("I9: {}", text()));
            }
            let leads = matches!(
                it.role,
                RoleKind::Activating | RoleKind::Active | RoleKind::Draining | RoleKind::Released
            );
            let answers = matches!(it.role, RoleKind::Active | RoleKind::Draining);
            let (role, leader_epoch, partition_epoch) = (it.role, epoch, it.partition_epoch);
            let seen = Seen { life, slot: it.slot, role, leader_epoch, high_watermark, end, partition_epoch };
            let before = self.watch.seen.insert((place, key), seen);
            if before.as_ref().is_none_or(|before| before.partition_epoch != partition_epoch)
                && let Some(state) = shard.partition_state(it.slot)
            {
                let records = &mut self.watch.records;
                let known = records.entry((key, partition_epoch)).or_insert_with(|| state.clone());
                if known != state {
                    return Err(format!("I17: {}: {known:?}, and {state:?}", text()));
                }
            }
            if self.trace_text && before.as_ref().is_none_or(|before| before.role != it.role) {
                println!("{:>10} {}", self.now_ns / 1000, text());
            }
            // A replica that was moved away has nothing to keep when it comes back.
            let same = |before: &Seen| before.life == life && before.slot == it.slot;
            let fell = before.filter(|before| same(before) && before.high_watermark > high_watermark);
            if let Some(before) = fell {
                return Err(format!(
                    "I8: {}, before {} in {}",
                    text(),
                    before.high_watermark,
                    before.leader_epoch
                ));
            }
            if leads && *self.watch.leaders.entry((key, epoch)).or_insert(place) != place {
                return Err(format!("I6: {}, another led in this epoch", text()));
            }
            let (last_epoch, committed) = self.watch.committed.entry(key).or_default();
            // A leader that has been replaced may lack what was committed since.
            if leads && epoch >= *last_epoch {
                *last_epoch = epoch;
                if end < *committed {
                    return Err(format!("I2: {}, committed up to {committed}", text()));
                }
            }
            if answers && high_watermark > *committed {
                *committed = high_watermark;
                grown.push((key, it.slot, high_watermark));
            }
            let active = self.watch.active.entry(key).or_default();
            active.retain(|other| *other != place);
            if answers {
                active.push(place);
                if active.len() > 1 && shard.holds_lease(now) {
                    twice.push((key, active.clone()));
                }
            }
        }
        for (key, slot, high_watermark) in grown {
            let state = self.nodes[place.0].shards[usize::from(place.1)].as_ref();
            let state = state.and_then(|shard| shard.partition_state(slot));
            let lacks = state.and_then(|state| self.lacks(key, state, high_watermark));
            if let Some((member, end)) = lacks {
                return Err(format!(
                    "I3, I10: {key} is committed up to {high_watermark} at {place:?}, {member:?} has {end:?}"
                ));
            }
        }
        for (key, places) in twice.into_iter().filter(|_| self.judges.fresh) {
            let holds = |other: &Place| {
                let shard = self.nodes[other.0].shards.get(usize::from(other.1)).and_then(Option::as_ref);
                // A replica of a life that has ended, or that is none any more, is not there.
                shard.is_some_and(|shard| {
                    let answers = |it: &pelton_shard::ReplicaReport| {
                        it.key == key && matches!(it.role, RoleKind::Active | RoleKind::Draining)
                    };
                    shard.holds_lease(self.now_of(other.0)) && shard.replicas().iter().any(answers)
                })
            };
            let holders: Vec<Place> = places.into_iter().filter(holds).collect();
            if holders.len() > 1 {
                return Err(format!("I1: {key} is led at {holders:?} at the same time"));
            }
        }
        Ok(())
    }

    /// Who of those that may lead next lacks some of what the leader counts as committed: in sync, in the life that is; or
    /// eligible. What the power took counts as not there once the cluster has heard of it.
    fn lacks(
        &self,
        key: PartitionKey,
        state: &PartitionState,
        high_watermark: i64,
    ) -> Option<(Replica, Option<i64>)> {
        let is_this_life = |member: &&IsrMember| {
            let (node, shard) = place_of(member.replica);
            match self.nodes[node].shards.get(usize::from(shard)) {
                Some(shard) => shard.as_ref().and_then(|shard| shard.replica_epoch()) == Some(member.epoch),
                None => true,
            }
        };
        let in_sync = state.isr.iter().filter(is_this_life).map(|member| member.replica);
        in_sync.chain(state.elr.iter().copied()).find_map(|replica| {
            let place = place_of(replica);
            let end = self.watch.seen.get(&(place, key)).map(|seen| seen.end);
            let lacks = end.is_none_or(|end| end < high_watermark);
            (lacks && !self.nodes[place.0].lossy).then_some((replica, end))
        })
    }

    /// A node other than this one with a leader that has yet to hear what has become of its partition.
    pub(super) fn lags(&self, besides: usize) -> Option<usize> {
        let mut newest: BTreeMap<PartitionKey, PartitionEpoch> = BTreeMap::new();
        for ((_, key), seen) in &self.watch.seen {
            let epoch = newest.entry(*key).or_insert(seen.partition_epoch);
            *epoch = seen.partition_epoch.max(*epoch);
        }
        let leads = |place: &Place, seen: &Seen| {
            seen.role == RoleKind::Active && seen.life == self.nodes[place.0].life && place.0 != besides
        };
        let found = self.watch.seen.iter().find(|((place, key), seen)| {
            leads(place, seen) && newest.get(key).is_some_and(|epoch| *epoch > seen.partition_epoch)
        });
        found.map(|((place, _), _)| place.0)
    }

    /// No node has two replicas of one partition (I20).
    pub(super) fn check_placement(&self) -> Result<(), String> {
        for shard in self.nodes.iter().flat_map(|node| node.shards.iter().flatten()) {
            for it in shard.replicas() {
                let Some(state) = shard.partition_state(it.slot) else { continue };
                let nodes: BTreeSet<NodeId> = state.replicas.iter().map(|replica| replica.node).collect();
                if nodes.len() < state.replicas.len() {
                    return Err(format!("I20: {} has {:?}", it.key, state.replicas));
                }
            }
        }
        Ok(())
    }

    /// The shard of this node that answers for the partition, if one does.
    pub(super) fn answers(&self, node: usize, key: PartitionKey) -> Option<ShardId> {
        let now = self.now_of(node);
        let found = self.nodes[node].shards.iter().enumerate().find(|(_, shard)| {
            shard.as_ref().is_some_and(|shard| {
                let leads = |it: &pelton_shard::ReplicaReport| it.key == key && it.role == RoleKind::Active;
                shard.holds_lease(now) && shard.replicas().iter().any(leads)
            })
        });
        found.map(|(index, _)| ShardId(index as u16))
    }
}
