//! Which replicas a partition of a cluster gets (rule R14): no two on one node while other nodes are free, spread over
//! racks, then over nodes by load, then over shards; with too few nodes over shards, on devices of their own first.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{NodeId, Replica, ShardId};

use crate::image::MetadataImage;

struct Place {
    rack: Option<String>,
    leaders: usize,
    replicas: usize,
    /// By shard: replicas, and the device.
    shards: BTreeMap<ShardId, (usize, u32)>,
}

/// Hands out replicas and keeps count.
pub struct ClusterPlacement {
    places: BTreeMap<NodeId, Place>,
    nodes: usize,
    colocate: bool,
}

impl ClusterPlacement {
    /// Over the nodes that may get something new. Replicas share a node only in a cluster of one: of those that have founded it
    /// all but one may not be registered yet.
    pub fn new(image: &MetadataImage, founders: u16) -> ClusterPlacement {
        let mut places = BTreeMap::new();
        for node in image.nodes() {
            if node.fenced || node.draining || node.leaving {
                continue;
            }
            let shards = node.shards.iter().enumerate().filter(|(_, shard)| shard.online);
            let place = Place {
                rack: node.rack.clone(),
                leaders: 0,
                replicas: 0,
                shards: shards.map(|(at, shard)| (ShardId(at as u16), (0, shard.device))).collect(),
            };
            if !place.shards.is_empty() {
                places.insert(node.node, place);
            }
        }
        let nodes = image.nodes().count();
        let mut placement = ClusterPlacement { places, nodes, colocate: nodes == 1 && founders <= 1 };
        for (_, partition) in image.partitions() {
            for replica in &partition.replicas {
                placement.count(*replica, partition.replicas.first() == Some(replica));
            }
        }
        placement
    }

    fn count(&mut self, replica: Replica, leads: bool) {
        let Some(place) = self.places.get_mut(&replica.node) else { return };
        place.replicas += 1;
        place.leaders += usize::from(leads);
        if let Some((load, _)) = place.shards.get_mut(&replica.shard) {
            *load += 1;
        }
    }

    /// Most replicas a partition can have now.
    pub fn factor_max(&self) -> usize {
        if self.colocate {
            self.places.values().map(|place| place.shards.len()).sum()
        } else {
            self.places.len()
        }
    }

    /// Nodes that may get something, and all.
    pub fn nodes(&self) -> (usize, usize) {
        (self.places.len(), self.nodes)
    }

    /// There is such a place, and it may get something.
    pub fn knows(&self, replica: Replica) -> bool {
        self.places.get(&replica.node).is_some_and(|place| place.shards.contains_key(&replica.shard))
    }

    /// The places of a new partition, the preferred leader first; none if there are not enough.
    pub fn place(&mut self, factor: usize) -> Option<Vec<Replica>> {
        let mut chosen = Vec::new();
        for _ in 0..factor {
            let next = self.next(&chosen)?;
            self.count(next, chosen.is_empty());
            chosen.push(next);
        }
        Some(chosen)
    }

    /// One more place beside those it has.
    pub fn next(&self, chosen: &[Replica]) -> Option<Replica> {
        let used: BTreeSet<NodeId> = chosen.iter().map(|replica| replica.node).collect();
        let racks: BTreeSet<&str> =
            chosen.iter().filter_map(|replica| self.places.get(&replica.node)?.rack.as_deref()).collect();
        let free = self.places.iter().filter(|(node, _)| !used.contains(node)).min_by_key(|(node, place)| {
            let same_rack = place.rack.as_deref().is_some_and(|rack| racks.contains(rack));
            let load = if chosen.is_empty() { place.leaders } else { place.replicas };
            (same_rack, load, place.replicas, **node)
        });
        if let Some((node, place)) = free {
            let shard = place.shards.iter().min_by_key(|(shard, (load, _))| (*load, **shard))?.0;
            return Some(Replica { node: *node, shard: *shard });
        }
        if !self.colocate {
            return None;
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
        best.map(|(_, replica)| replica)
    }
}
