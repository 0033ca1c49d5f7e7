//! Which replicas a new partition gets. On a single node the shard with the fewest, in turn; in a cluster see
//! [`cluster::ClusterPlacement`].

pub mod cluster;

use std::collections::BTreeMap;

use pelton_model::limits::SHARDS_MAX;
use pelton_model::{IsrMember, NodeId, PartitionKey, Replica, ReplicaEpoch, ShardId};

use crate::image::MetadataImage;
use crate::record::MetadataRecord;

use self::cluster::ClusterPlacement;

/// Hands out places.
pub struct Placement {
    node: NodeId,
    loads: BTreeMap<ShardId, usize>,
    cluster: Option<ClusterPlacement>,
}

impl Placement {
    /// Over the `shards` of `node`, loaded as the image says.
    pub fn new(image: &MetadataImage, node: NodeId, shards: u16) -> Placement {
        let load = |shard| image.load(Replica { node, shard }).leaders;
        let loads = (0..shards).map(ShardId).map(|shard| (shard, load(shard))).collect();
        Placement { node, loads, cluster: None }
    }

    /// Over the nodes of a cluster that so many have founded, for something new.
    pub fn of_cluster(image: &MetadataImage, founders: u16) -> Placement {
        let cluster = Some(ClusterPlacement::with_away(image, founders));
        Placement { node: NodeId(0), loads: BTreeMap::new(), cluster }
    }

    /// Those of these replicas that a new partition has in sync, the leader first: on a node that is away nothing is.
    pub fn in_sync(&self, image: &MetadataImage, replicas: &[Replica]) -> Vec<Replica> {
        let counts = |replica: &Replica| self.cluster.is_none() || image.is_live(*replica);
        replicas.iter().copied().filter(counts).collect()
    }

    /// The places are a client's to choose, not ours.
    pub fn may_be_named(&self) -> bool {
        self.cluster.is_some()
    }

    /// Most replicas a partition can have, and how many nodes there are.
    pub fn factor_max(&self) -> (usize, usize) {
        self.cluster.as_ref().map_or((1, 1), |cluster| (cluster.factor_max(), cluster.nodes().0))
    }

    /// A broker id names a place that may get something.
    pub fn knows(&self, broker: i32) -> bool {
        let place = place_of(broker);
        match &self.cluster {
            Some(cluster) => broker >= 0 && cluster.knows(place),
            None => place.node == self.node && self.loads.contains_key(&place.shard),
        }
    }

    /// The places of the next partition, the preferred leader first. `factor` is at most [`Placement::factor_max`].
    pub fn next_places(&mut self, factor: usize) -> Vec<Replica> {
        match &mut self.cluster {
            Some(cluster) => cluster.place(factor).unwrap_or_default(),
            None => vec![self.next_place()],
        }
    }

    /// The place of the next partition.
    pub fn next_place(&mut self) -> Replica {
        let least = self.loads.iter().min_by_key(|(shard, load)| (**load, **shard)).map(|(shard, _)| *shard);
        let shard = least.unwrap_or(ShardId(0));
        *self.loads.entry(shard).or_default() += 1;
        Replica { node: self.node, shard }
    }
}

/// The place a broker id names.
pub fn place_of(broker: i32) -> Replica {
    let shards = SHARDS_MAX as i32;
    Replica { node: NodeId(broker.div_euclid(shards)), shard: ShardId(broker.rem_euclid(shards) as u16) }
}

/// The records that fit the image to another number of shards: partitions of shards that are no more, and as many of the
/// fullest as new shards need for an even share, move. Leader epochs stay: the log is the same.
pub fn reshard(image: &MetadataImage, node: NodeId, shards: u16) -> Vec<MetadataRecord> {
    let share = image.partition_count().div_ceil(usize::from(shards.max(1)));
    let mut loads: BTreeMap<ShardId, usize> = (0..shards).map(|shard| (ShardId(shard), 0)).collect();
    let mut homeless = Vec::new();
    for topic in image.topics() {
        for (index, partition) in topic.partitions.iter().enumerate() {
            let load = partition.leader.and_then(|leader| loads.get_mut(&leader.shard));
            match load {
                Some(load) if *load < share => *load += 1,
                _ => homeless.push((topic.id, index as i32, partition.clone())),
            }
        }
    }
    let mut records = Vec::new();
    for (topic_id, index, partition) in homeless {
        let least = loads.iter().min_by_key(|(shard, load)| (**load, **shard)).map(|(shard, _)| *shard);
        let Some(shard) = least else { continue };
        *loads.entry(shard).or_default() += 1;
        let replica = Replica { node, shard };
        let mut state = partition.state();
        state.replicas = vec![replica];
        state.leader = Some(replica);
        state.isr = vec![IsrMember { replica, epoch: ReplicaEpoch::default() }];
        state.partition_epoch.0 += 1;
        let key = PartitionKey { topic_id, partition: index };
        records.push(MetadataRecord::Partition { key, state });
    }
    records
}
