//! Which shard a new partition goes to: the one with the fewest, in turn. Load-aware placement comes with the cluster.

use std::collections::BTreeMap;

use pelton_model::{NodeId, Replica, ShardId};

use crate::image::MetadataImage;
use crate::record::MetadataRecord;

/// Hands out shards.
pub struct Placement {
    node: NodeId,
    loads: BTreeMap<ShardId, usize>,
}

impl Placement {
    /// Over the `shards` of `node`, loaded as the image says.
    pub fn new(image: &MetadataImage, node: NodeId, shards: u16) -> Placement {
        let mut loads: BTreeMap<ShardId, usize> = (0..shards).map(|shard| (ShardId(shard), 0)).collect();
        for topic in image.topics() {
            for leader in topic.partitions.iter().filter_map(|partition| partition.leader) {
                if let Some(load) = loads.get_mut(&leader.shard) {
                    *load += 1;
                }
            }
        }
        Placement { node, loads }
    }

    /// The place of the next partition.
    pub fn next_place(&mut self) -> Replica {
        let least = self.loads.iter().min_by_key(|(shard, load)| (**load, **shard)).map(|(shard, _)| *shard);
        let shard = least.unwrap_or(ShardId(0));
        *self.loads.entry(shard).or_default() += 1;
        Replica { node: self.node, shard }
    }
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
        records.push(MetadataRecord::Partition {
            topic_id,
            index,
            replicas: vec![replica],
            leader: Some(replica),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch + 1,
        });
    }
    records
}
