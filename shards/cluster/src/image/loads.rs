//! How many replicas are where, counted as partitions change: whoever looks for a place for a new one asks here.

use std::collections::BTreeMap;

use pelton_model::{NodeId, Replica, ShardId};

use crate::image::PartitionImage;

/// Of one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Partitions that have a replica here.
    pub replicas: usize,
    /// Of these, whose preferred leader it is.
    pub preferred: usize,
    /// Partitions that are led from here.
    pub leaders: usize,
}

/// Of all places that have any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Loads(BTreeMap<Replica, Load>);

impl Loads {
    /// A partition is another one than before; one without replicas is none.
    pub(super) fn replace(&mut self, old: &PartitionImage, new: &PartitionImage) {
        if old.replicas != new.replicas {
            for (partition, up) in [(new, true), (old, false)] {
                partition
                    .replicas
                    .iter()
                    .for_each(|replica| self.step(*replica, up, |load| &mut load.replicas));
                if let Some(first) = partition.replicas.first() {
                    self.step(*first, up, |load| &mut load.preferred);
                }
            }
        }
        if old.leader != new.leader {
            for (leader, up) in [(new.leader, true), (old.leader, false)] {
                leader.iter().for_each(|leader| self.step(*leader, up, |load| &mut load.leaders));
            }
        }
    }

    fn step(&mut self, at: Replica, up: bool, field: fn(&mut Load) -> &mut usize) {
        let load = self.0.entry(at).or_default();
        let value = field(load);
        *value = if up { *value + 1 } else { value.saturating_sub(1) };
        if *load == Load::default() {
            self.0.remove(&at);
        }
    }

    /// Of one place.
    pub(super) fn of(&self, replica: Replica) -> Load {
        self.0.get(&replica).copied().unwrap_or_default()
    }

    /// Of a node's places, by shard.
    pub(super) fn of_node(&self, node: NodeId) -> impl Iterator<Item = (ShardId, Load)> {
        let place = |shard| Replica { node, shard: ShardId(shard) };
        self.0.range(place(0)..=place(u16::MAX)).map(|(replica, load)| (replica.shard, *load))
    }
}
