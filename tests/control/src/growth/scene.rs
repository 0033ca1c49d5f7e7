//! Images of clusters of any size: nodes in three racks with four shards each, partitions in turn over all of them.

use pelton_cluster::image::MetadataImage;
use pelton_cluster::record::{Endpoint, MetadataRecord, NodeRegistration, ShardRegistration};
use pelton_model::{
    IsrMember, NodeEpoch, NodeId, PartitionKey, PartitionState, Replica, ReplicaEpoch, ShardEpoch, ShardId,
    TopicId,
};
use uuid::Uuid;

/// Replicas of each partition.
pub const FACTOR: usize = 3;

/// How large.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Partitions of each topic.
    pub per_topic: usize,
}

/// A node as it is registered.
pub fn node(id: usize) -> NodeRegistration {
    NodeRegistration {
        node: NodeId(id as i32),
        epoch: epoch(id),
        directory: Uuid::from_u64_pair(1, id as u64),
        incarnation: Uuid::from_u64_pair(2, id as u64),
        start: 1,
        rack: Some(format!("rack-{}", id % 3)),
        endpoints: vec![Endpoint { name: "peer".to_string(), host: format!("node-{id}"), port: 9000 }],
        shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; 4],
        fenced: false,
        draining: false,
        leaving: false,
        lossy: false,
    }
}

/// The life a node is in.
pub fn epoch(id: usize) -> NodeEpoch {
    NodeEpoch(1 + id as u64)
}

fn partition(nodes: usize, at: usize) -> PartitionState {
    let place = |step: usize| Replica {
        node: NodeId(((at + step) % nodes) as i32),
        shard: ShardId((at / nodes % 4) as u16),
    };
    let replicas: Vec<Replica> = (0..FACTOR).map(place).collect();
    let member = |replica: &Replica| IsrMember {
        replica: *replica,
        epoch: ReplicaEpoch { node_epoch: epoch(replica.node.0 as usize), shard_epoch: ShardEpoch(0) },
    };
    let isr = replicas.iter().map(member).collect();
    PartitionState::begun(replicas, isr)
}

/// The image of a cluster in which all is well.
pub fn image(size: Size) -> MetadataImage {
    let mut image = MetadataImage::default();
    let mut index = 1;
    let mut apply = |records: &[MetadataRecord]| {
        index += 1;
        image.apply(index, records);
    };
    apply(&(0..size.nodes).map(|id| MetadataRecord::Node(node(id))).collect::<Vec<_>>());
    for first in (0..size.partitions).step_by(size.per_topic) {
        let id = TopicId(Uuid::from_u64_pair(3, first as u64));
        let mut records = vec![MetadataRecord::Topic { id, name: format!("topic-{first}") }];
        for at in first..(first + size.per_topic).min(size.partitions) {
            let key = PartitionKey { topic_id: id, partition: (at - first) as i32 };
            records.push(MetadataRecord::Partition { key, state: partition(size.nodes, at) });
        }
        apply(&records);
    }
    image
}
