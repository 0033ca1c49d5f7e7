//! What a controller finds partitions by, so that nothing it does for one node, one topic or a few partitions looks at all
//! there are. Only the image of a node's [`Member`](crate::member::Member) has it: one per node, 60 to 130 bytes a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use pelton_model::{NodeId, PartitionKey};

use crate::image::{MetadataImage, PartitionImage};

/// Perhaps an index.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Option<Box<Keys>>);

#[derive(Clone, Debug, Default)]
struct Keys {
    /// Partitions with a replica on the node.
    nodes: BTreeMap<NodeId, BTreeSet<PartitionKey>>,
    /// Not led by their preferred replica.
    astray: BTreeSet<PartitionKey>,
    /// With eligible leader replicas outside the ISR.
    eligible: BTreeSet<PartitionKey>,
}

/// It follows from the rest of the image, and whether it is there makes no difference to what the image says.
impl PartialEq for Index {
    fn eq(&self, _: &Index) -> bool {
        true
    }
}
impl Eq for Index {}

fn is_astray(partition: &PartitionImage) -> bool {
    partition.leader != partition.replicas.first().copied()
}

fn set(into: &mut BTreeSet<PartitionKey>, key: PartitionKey, is: bool) {
    if is {
        into.insert(key);
    } else {
        into.remove(&key);
    }
}

fn behind(
    keys: &BTreeSet<PartitionKey>,
    after: Option<PartitionKey>,
) -> impl Iterator<Item = PartitionKey> + '_ {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    keys.range((from, Bound::Unbounded)).copied()
}

impl Index {
    /// Of everything in the image.
    pub(super) fn of(image: &MetadataImage) -> Index {
        let mut nodes: BTreeMap<NodeId, Vec<PartitionKey>> = BTreeMap::new();
        let mut index = Keys::default();
        for (key, partition) in image.partitions() {
            for node in nodes_of(partition) {
                nodes.entry(node).or_default().push(key);
            }
            if is_astray(partition) {
                index.astray.insert(key);
            }
            if !partition.elr().is_empty() {
                index.eligible.insert(key);
            }
        }
        // From a sorted list a set is built at once, with full nodes.
        index.nodes = nodes.into_iter().map(|(node, keys)| (node, keys.into_iter().collect())).collect();
        Index(Some(Box::new(index)))
    }

    /// A partition is another one than before; one that was none had no replicas, and one that is no more has none.
    pub(super) fn replace(&mut self, key: PartitionKey, old: &PartitionImage, new: &PartitionImage) {
        if let Some(keys) = &mut self.0 {
            keys.replace(key, old, new);
        }
    }
}

impl Keys {
    fn replace(&mut self, key: PartitionKey, old: &PartitionImage, new: &PartitionImage) {
        if old.replicas != new.replicas {
            self.forget_nodes(key, old);
            for node in nodes_of(new) {
                self.nodes.entry(node).or_default().insert(key);
            }
        }
        set(&mut self.astray, key, is_astray(new));
        set(&mut self.eligible, key, !new.elr().is_empty());
    }

    fn forget_nodes(&mut self, key: PartitionKey, old: &PartitionImage) {
        for node in nodes_of(old) {
            if let Some(keys) = self.nodes.get_mut(&node) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.nodes.remove(&node);
                }
            }
        }
    }
}

fn nodes_of(partition: &PartitionImage) -> impl Iterator<Item = NodeId> + '_ {
    let replicas = &partition.replicas;
    let first = |at: usize| !replicas[..at].iter().any(|other| other.node == replicas[at].node);
    (0..replicas.len()).filter(move |at| first(*at)).map(|at| replicas[at].node)
}

fn either<T>(
    one: Option<impl Iterator<Item = T>>,
    other: Option<impl Iterator<Item = T>>,
) -> impl Iterator<Item = T> {
    one.into_iter().flatten().chain(other.into_iter().flatten())
}

/// Without an index these look at everything; with one, at what they return.
impl MetadataImage {
    /// With an index from now on.
    pub fn indexed(mut self) -> MetadataImage {
        self.index = Index::of(&self);
        self
    }

    fn named<'a>(
        &'a self,
        keys: impl Iterator<Item = PartitionKey> + 'a,
    ) -> impl Iterator<Item = (PartitionKey, &'a PartitionImage)> + 'a {
        keys.filter_map(|key| Some((key, self.partition(key)?)))
    }

    fn all_that<'a>(
        &'a self,
        after: Option<PartitionKey>,
        is: impl Fn(&PartitionImage) -> bool + 'a,
    ) -> Option<impl Iterator<Item = (PartitionKey, &'a PartitionImage)> + 'a> {
        self.index
            .0
            .is_none()
            .then(|| self.partitions_after(after).filter(move |(_, partition)| is(partition)))
    }

    /// Partitions with a replica on a node, in order, behind `after`.
    pub fn partitions_on(
        &self,
        node: NodeId,
        after: Option<PartitionKey>,
    ) -> impl Iterator<Item = (PartitionKey, &PartitionImage)> {
        let keys = self.index.0.as_ref().and_then(|index| index.nodes.get(&node));
        let here = move |partition: &PartitionImage| nodes_of(partition).any(|of| of == node);
        either(keys.map(|keys| self.named(behind(keys, after))), self.all_that(after, here))
    }

    /// Partitions that their preferred replica does not lead, in order, behind `after`.
    pub fn partitions_astray(
        &self,
        after: Option<PartitionKey>,
    ) -> impl Iterator<Item = (PartitionKey, &PartitionImage)> {
        let keys = self.index.0.as_ref().map(|index| behind(&index.astray, after));
        either(keys.map(|keys| self.named(keys)), self.all_that(after, is_astray))
    }

    /// Partitions that have eligible leader replicas outside the ISR, in order.
    pub fn partitions_with_elr(&self) -> impl Iterator<Item = (PartitionKey, &PartitionImage)> {
        let keys = self.index.0.as_ref().map(|index| behind(&index.eligible, None));
        let has = |partition: &PartitionImage| !partition.elr().is_empty();
        either(keys.map(|keys| self.named(keys)), self.all_that(None, has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MetadataRecord;
    use pelton_model::{IsrMember, PartitionState, Prng, Replica, ReplicaEpoch, ShardId, TopicId};
    use uuid::Uuid;

    fn some_replicas(prng: &mut Prng) -> Vec<Replica> {
        let count = 1 + prng.below(3) as usize;
        let mut found: Vec<Replica> = Vec::new();
        while found.len() < count {
            let (node, shard) = (NodeId(prng.below(5) as i32), ShardId(prng.below(2) as u16));
            let replica = Replica { node, shard };
            if !found.contains(&replica) {
                found.push(replica);
            }
        }
        found
    }

    fn some_state(prng: &mut Prng) -> PartitionState {
        let replicas = some_replicas(prng);
        let epoch = ReplicaEpoch::default();
        let isr = replicas.iter().map(|replica| IsrMember { replica: *replica, epoch }).collect();
        PartitionState {
            leader: replicas.get(prng.below(4) as usize).copied(),
            elr: replicas.iter().skip(prng.below(4) as usize).copied().collect(),
            ..PartitionState::begun(replicas, isr)
        }
    }

    fn keys<'a>(found: impl Iterator<Item = (PartitionKey, &'a PartitionImage)>) -> Vec<PartitionKey> {
        found.map(|(key, _)| key).collect()
    }

    /// Whatever happens, with an index everything is found that is found without, in the same order.
    #[test]
    fn an_index_finds_what_a_look_at_everything_finds() {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let mut plain = MetadataImage::default();
            let mut indexed = MetadataImage::default().indexed();
            for offset in 1..400 {
                let id = TopicId(Uuid::from_u128(u128::from(prng.below(6))));
                let key = PartitionKey { topic_id: id, partition: prng.below(12) as i32 };
                let record = match prng.below(20) {
                    0 => MetadataRecord::RemoveTopic { id },
                    1 | 2 => MetadataRecord::Topic { id, name: format!("t{}", id.0) },
                    _ => MetadataRecord::Partition { key, state: some_state(&mut prng) },
                };
                plain.apply(offset, std::slice::from_ref(&record));
                indexed.apply(offset, &[record]);
                assert_eq!(plain, indexed);
                let rebuilt = plain.clone().indexed();
                let after = (prng.below(2) == 0).then_some(key);
                for image in [&indexed, &rebuilt] {
                    for node in (0..5).map(NodeId) {
                        assert_eq!(
                            keys(image.partitions_on(node, after)),
                            keys(plain.partitions_on(node, after))
                        );
                    }
                    assert_eq!(keys(image.partitions_astray(after)), keys(plain.partitions_astray(after)));
                    assert_eq!(keys(image.partitions_with_elr()), keys(plain.partitions_with_elr()));
                }
                let copy = MetadataImage::from_snapshot(&plain.snapshot()).unwrap();
                assert_eq!(copy, plain, "loads are the same too");
            }
        }
    }
}
