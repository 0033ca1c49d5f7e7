//! Which replicas a partition of a cluster gets (rule R14): no two on one node while other nodes are free, spread over
//! racks, then over nodes by load, then over shards; with too few nodes over shards, on devices of their own first.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{NodeId, Replica, ShardId};

use crate::image::MetadataImage;

struct Place {
    /// Among all racks, or among those without one.
    rack: usize,
    has_rack: bool,
    leaders: usize,
    replicas: usize,
    /// By shard: replicas, and the device.
    shards: BTreeMap<ShardId, (usize, u32)>,
}

/// Hands out replicas and keeps count. A choice looks at the least loaded node of each rack, not at all nodes.
pub struct ClusterPlacement {
    places: BTreeMap<NodeId, Place>,
    /// By preferred leaders, then replicas.
    by_leaders: BTreeSet<(usize, usize, NodeId)>,
    /// Of each rack, by replicas.
    by_replicas: Vec<BTreeSet<(usize, NodeId)>>,
    nodes: usize,
    colocate: bool,
    /// Over nodes that are away, for what the others cannot have.
    away: Option<Box<ClusterPlacement>>,
}

impl ClusterPlacement {
    /// Over the nodes that may get something new. Replicas share a node only in a cluster of one: of those that have founded it
    /// all but one may not be registered yet.
    pub fn new(image: &MetadataImage, founders: u16) -> ClusterPlacement {
        ClusterPlacement::over(image, founders, false)
    }

    /// As [`ClusterPlacement::new`], and over nodes that are away if there are not enough others, as Kafka does it for new topics:
    /// one node's restart must not keep topics from being made. Such a replica is not in sync until its node is back.
    pub fn with_away(image: &MetadataImage, founders: u16) -> ClusterPlacement {
        let mut placement = ClusterPlacement::over(image, founders, false);
        placement.away = Some(Box::new(ClusterPlacement::over(image, founders, true)));
        placement
    }

    fn over(image: &MetadataImage, founders: u16, fenced: bool) -> ClusterPlacement {
        let nodes = image.nodes().count();
        let mut placement = ClusterPlacement {
            places: BTreeMap::new(),
            by_leaders: BTreeSet::new(),
            by_replicas: Vec::new(),
            nodes,
            colocate: nodes == 1 && founders <= 1,
            away: None,
        };
        let mut racks: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for node in image.nodes() {
            if node.fenced != fenced || node.draining || node.leaving {
                continue;
            }
            let shards = node.shards.iter().enumerate().filter(|(_, shard)| shard.online);
            let load = |shard| image.load(Replica { node: node.node, shard }).replicas;
            let shards = shards.map(|(at, shard)| (ShardId(at as u16), shard.device));
            let next = racks.len();
            let rack = *racks.entry(node.rack.as_deref()).or_insert(next);
            let place = Place {
                rack,
                has_rack: node.rack.is_some(),
                leaders: image.loads_of(node.node).map(|(_, load)| load.preferred).sum(),
                replicas: image.loads_of(node.node).map(|(_, load)| load.replicas).sum(),
                shards: shards.map(|(shard, device)| (shard, (load(shard), device))).collect(),
            };
            if !place.shards.is_empty() {
                placement.by_replicas.resize_with(racks.len(), BTreeSet::new);
                placement.rank(node.node, &place);
                placement.places.insert(node.node, place);
            }
        }
        placement
    }

    fn rank(&mut self, node: NodeId, place: &Place) {
        self.by_leaders.insert((place.leaders, place.replicas, node));
        self.by_replicas[place.rack].insert((place.replicas, node));
    }

    fn count(&mut self, replica: Replica, leads: bool) {
        let Some(mut place) = self.places.remove(&replica.node) else {
            return self.away.iter_mut().for_each(|away| away.count(replica, leads));
        };
        self.by_leaders.remove(&(place.leaders, place.replicas, replica.node));
        self.by_replicas[place.rack].remove(&(place.replicas, replica.node));
        place.replicas += 1;
        place.leaders += usize::from(leads);
        if let Some((load, _)) = place.shards.get_mut(&replica.shard) {
            *load += 1;
        }
        self.rank(replica.node, &place);
        self.places.insert(replica.node, place);
    }

    /// Most replicas a partition can have now.
    pub fn factor_max(&self) -> usize {
        let own: usize = match self.colocate {
            true => self.places.values().map(|place| place.shards.len()).sum(),
            false => self.places.len(),
        };
        own + self.away.as_ref().map_or(0, |away| away.factor_max())
    }

    /// Nodes that may get something, and all.
    pub fn nodes(&self) -> (usize, usize) {
        (self.places.len() + self.away.as_ref().map_or(0, |away| away.places.len()), self.nodes)
    }

    /// There is such a place, and it may get something.
    pub fn knows(&self, replica: Replica) -> bool {
        self.places.get(&replica.node).is_some_and(|place| place.shards.contains_key(&replica.shard))
            || self.away.as_ref().is_some_and(|away| away.knows(replica))
    }

    /// The places of a new partition, the preferred leader first; none if there are not enough.
    pub fn place(&mut self, factor: usize) -> Option<Vec<Replica>> {
        let mut chosen = Vec::new();
        for _ in 0..factor {
            chosen.push(self.next(&chosen)?);
        }
        Some(chosen)
    }

    /// One more place beside those it has; counted.
    pub fn next(&mut self, chosen: &[Replica]) -> Option<Replica> {
        let next = self.choose(chosen)?;
        self.count(next, chosen.is_empty());
        Some(next)
    }

    /// The node with the least to bear, in another rack if there is one, among those that have none of `chosen`.
    fn free_node(&self, chosen: &[Replica]) -> Option<NodeId> {
        if chosen.is_empty() {
            return self.by_leaders.first().map(|(_, _, node)| *node);
        }
        let used = |node: NodeId| chosen.iter().any(|replica| replica.node == node);
        let place = |replica: &Replica| self.places.get(&replica.node);
        let taken: BTreeSet<usize> =
            chosen.iter().filter_map(place).filter(|place| place.has_rack).map(|place| place.rack).collect();
        let of_rack = |(rack, nodes): (usize, &BTreeSet<(usize, NodeId)>)| {
            let free = nodes.iter().find(|(_, node)| !used(*node))?;
            Some((taken.contains(&rack), free.0, free.1))
        };
        self.by_replicas.iter().enumerate().filter_map(of_rack).min().map(|(_, _, node)| node)
    }

    fn choose(&self, chosen: &[Replica]) -> Option<Replica> {
        if let Some(node) = self.free_node(chosen) {
            let shards = &self.places.get(&node)?.shards;
            let shard = shards.iter().min_by_key(|(shard, (load, _))| (*load, **shard))?.0;
            return Some(Replica { node, shard: *shard });
        }
        if !self.colocate {
            return self.away.as_ref()?.choose(chosen);
        }
        let mut best = None;
        for (node, place) in &self.places {
            for (shard, (load, device)) in &place.shards {
                let replica = Replica { node: *node, shard: *shard };
                if chosen.contains(&replica) {
                    continue;
                }
                let same_device = chosen.iter().any(|other| {
                    other.node == *node
                        && place.shards.get(&other.shard).is_some_and(|(_, theirs)| theirs == device)
                });
                let key = (same_device, *load, *node, *shard);
                if best.as_ref().is_none_or(|(least, _)| key < *least) {
                    best = Some((key, replica));
                }
            }
        }
        let best = best.map(|(_, replica)| replica);
        best.or_else(|| self.away.as_ref()?.choose(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{MetadataRecord, NodeRegistration, ShardRegistration};
    use pelton_model::{NodeEpoch, Prng, ShardEpoch};
    use uuid::Uuid;

    fn node(id: i32, rack: Option<String>) -> NodeRegistration {
        NodeRegistration {
            node: NodeId(id),
            epoch: NodeEpoch(1),
            directory: Uuid::from_u128(id as u128 + 1),
            incarnation: Uuid::from_u128(1),
            start: 1,
            rack,
            endpoints: Vec::new(),
            shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; 2],
            fenced: false,
            draining: false,
            leaving: false,
            lossy: false,
        }
    }

    /// The rule, by a look at all nodes: another rack, then who leads or bears least, then the lowest id.
    #[test]
    fn each_choice_is_the_least_of_all() {
        for seed in 0..30 {
            let mut prng = Prng::new(seed);
            let count = 1 + prng.below(12) as i32;
            let mut rack = |id| (id, (prng.below(5) > 0).then(|| format!("rack-{}", prng.below(4))));
            let racks: BTreeMap<i32, Option<String>> = (0..count).map(&mut rack).collect();
            let mut image = MetadataImage::default();
            let nodes = racks.iter().map(|(id, rack)| MetadataRecord::Node(node(*id, rack.clone())));
            image.apply(1, &nodes.collect::<Vec<_>>());
            let mut placement = ClusterPlacement::new(&image, 1);
            let mut bears: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
            for _ in 0..200 {
                let factor = 1 + prng.below(3.min(count as u64)) as usize;
                let chosen = placement.place(factor).unwrap();
                for (at, replica) in chosen.iter().enumerate() {
                    let before = &chosen[..at];
                    let key = |id: i32| {
                        let (leaders, replicas) = bears.get(&id).copied().unwrap_or_default();
                        let same = racks[&id].is_some()
                            && before.iter().any(|other| racks[&other.node.0] == racks[&id]);
                        (same, if at == 0 { leaders } else { replicas }, replicas, id)
                    };
                    let free = (0..count).filter(|id| before.iter().all(|other| other.node.0 != *id));
                    assert_eq!(free.min_by_key(|id| key(*id)), Some(replica.node.0));
                    let load = bears.entry(replica.node.0).or_default();
                    *load = (load.0 + usize::from(at == 0), load.1 + 1);
                }
            }
            assert!(placement.place(count as usize + 1).is_none() || count == 1);
        }
    }
}
