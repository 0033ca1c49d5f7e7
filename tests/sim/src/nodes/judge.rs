//! What must hold after every step, of the replicas of the shard that has just had its turn (invariants I1, I2, I6, I8, I9).

use std::collections::BTreeMap;

use pelton_log::PartitionSlot;
use pelton_model::{PartitionKey, ShardId};
use pelton_replica::partition::RoleKind;

use super::{Place, World};

/// What was seen of a replica last.
struct Seen {
    life: u64,
    slot: PartitionSlot,
    role: RoleKind,
    leader_epoch: i32,
    high_watermark: i64,
}

/// What was seen so far.
#[derive(Default)]
pub struct Watch {
    /// Who led a partition in each epoch.
    leaders: BTreeMap<(PartitionKey, i32), Place>,
    /// The largest high watermark that any leader ever had, and the last epoch.
    committed: BTreeMap<PartitionKey, (i32, i64)>,
    seen: BTreeMap<(Place, PartitionKey), Seen>,
    /// Who answers as leader, as long as its lease holds.
    active: BTreeMap<PartitionKey, Vec<Place>>,
}

impl World {
    /// Looks at the replicas of a shard.
    pub(super) fn look(&mut self, place: Place) -> Result<(), String> {
        let (now, life) = (self.now_of(place.0), self.nodes[place.0].life);
        let Some(Some(shard)) = self.nodes[place.0].shards.get(usize::from(place.1)) else { return Ok(()) };
        let mut twice = Vec::new();
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
            let seen = Seen { life, slot: it.slot, role: it.role, leader_epoch: epoch, high_watermark };
            let before = self.watch.seen.insert((place, key), seen);
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
            if answers {
                *committed = high_watermark.max(*committed);
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
        for (key, places) in twice {
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
