//! What the metadata APIs look at, and what they have in common.

use pelton_cluster::controller::{Refusal, Refused};
use pelton_cluster::image::{MetadataImage, PartitionImage};
use pelton_cluster::placement::Placement;
use pelton_cluster::record::{MetadataRecord, NodeRegistration};
use pelton_model::{BrokerConfig, BrokerId, ListenerMode, Now, Replica, ShardId};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::KafkaString;

use crate::cluster::CLIENT_ENDPOINT;

/// Operations a client may do on a topic where nothing is forbidden, as bits of Kafka's AclOperation: read, write,
/// create, delete, alter, describe, describe configs, alter configs.
pub const TOPIC_OPERATIONS: i32 =
    (1 << 3) | (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8) | (1 << 10) | (1 << 11);
/// The same for the cluster: create, alter, describe, cluster action, describe configs, alter configs, idempotent write.
pub const CLUSTER_OPERATIONS: i32 =
    (1 << 5) | (1 << 7) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12);
/// "Not asked for".
pub const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// What a handler sees.
#[derive(Clone, Copy)]
pub struct ApiContext<'a> {
    /// The broker's settings.
    pub config: &'a BrokerConfig,
    /// The metadata.
    pub image: &'a MetadataImage,
    /// This shard.
    pub shard: ShardId,
    /// The time.
    pub now: Now,
}

/// A change that is decided: records to commit, and the answer once they are.
pub struct Planned<R> {
    /// The records; none = nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The answer.
    pub response: R,
}

/// A broker as clients see it.
pub struct BrokerView {
    /// Its id.
    pub id: i32,
    /// Its host.
    pub host: KafkaString,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<KafkaString>,
    /// It may neither lead nor be in sync.
    pub fenced: bool,
}

impl ApiContext<'_> {
    /// The nodes of a cluster are known; a single node knows of none.
    pub fn is_cluster(&self) -> bool {
        self.image.nodes().next().is_some()
    }

    /// Every broker of the cluster that lives: one per shard in direct mode, one per node in single mode.
    pub fn brokers(&self) -> Vec<BrokerView> {
        let mut brokers = self.all_brokers();
        brokers.retain(|broker| !broker.fenced);
        brokers
    }

    /// Every broker that is registered, whether or not it lives.
    pub fn all_brokers(&self) -> Vec<BrokerView> {
        if self.is_cluster() {
            return self.image.nodes().flat_map(|node| self.brokers_of(node)).collect();
        }
        let shards = match self.config.mode {
            ListenerMode::Direct => self.config.shards,
            ListenerMode::Single => 1,
        };
        (0..shards)
            .map(|shard| BrokerView {
                id: BrokerId::of(self.config.node_id, ShardId(shard)).0,
                host: KafkaString::from(self.config.advertised_host.clone()),
                port: i32::from(self.config.advertised_port) + i32::from(shard),
                rack: None,
                fenced: false,
            })
            .collect()
    }

    fn brokers_of(&self, node: &NodeRegistration) -> Vec<BrokerView> {
        let shards = match self.config.mode {
            ListenerMode::Direct => node.shards.len(),
            ListenerMode::Single => 1,
        };
        let places = (0..shards).map(|shard| Replica { node: node.node, shard: ShardId(shard as u16) });
        let rack = node.rack.clone().map(KafkaString::from);
        places
            .filter_map(|place| {
                let (host, port) = client_address(self.image, place)?;
                let (host, rack) = (KafkaString::from(host.to_string()), rack.clone());
                let (id, fenced) = (BrokerId::of(place.node, place.shard).0, !self.image.is_live(place));
                Some(BrokerView { id, host, port, rack, fenced })
            })
            .collect()
    }

    /// Where new partitions go.
    pub fn placement(&self) -> Placement {
        match self.is_cluster() {
            true => Placement::of_cluster(self.image, self.config.founders),
            false => Placement::new(self.image, self.config.node_id, self.config.shards),
        }
    }

    /// The replicas of a partition that are in sync, as broker ids.
    pub fn isr(&self, partition: &PartitionImage) -> Vec<i32> {
        match self.is_cluster() {
            true => self.ids_of(partition.isr.iter().map(|member| member.replica)),
            false => self.broker_ids(&partition.replicas),
        }
    }

    /// The replicas of a partition whose node or shard does not live, as broker ids.
    pub fn offline(&self, partition: &PartitionImage) -> Vec<i32> {
        let dead = partition.replicas.iter().copied().filter(|replica| !self.image.is_live(*replica));
        match self.is_cluster() {
            true => self.ids_of(dead),
            false => Vec::new(),
        }
    }

    /// The broker that has a replica.
    pub fn broker_id(&self, replica: Replica) -> i32 {
        self.config.broker_of(replica).0
    }

    /// A broker that takes administrative requests: every one does, and passes them on.
    pub fn controller_id(&self) -> i32 {
        BrokerId::of(self.config.node_id, ShardId(0)).0
    }

    /// Leader and replicas of a partition as broker ids. -1 = none, or one that does not live, until another is elected: clients
    /// are not told where it is.
    pub fn leader_and_replicas(&self, partition: &PartitionImage) -> (i32, Vec<i32>) {
        let cluster = self.is_cluster();
        let leader = partition.leader.filter(|leader| !cluster || self.image.is_live(*leader));
        let leader = leader.map_or(-1, |replica| self.broker_id(replica));
        (leader, self.broker_ids(&partition.replicas))
    }

    /// The brokers that have these replicas, in their order. One that moves between the shards of a broker is one replica.
    pub fn broker_ids(&self, replicas: &[Replica]) -> Vec<i32> {
        self.ids_of(replicas.iter().copied())
    }

    fn ids_of(&self, replicas: impl Iterator<Item = Replica>) -> Vec<i32> {
        let mut ids = Vec::new();
        for replica in replicas {
            let id = self.broker_id(replica);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> KafkaString {
        KafkaString::from(self.config.cluster_id.0.clone())
    }
}

/// Where clients of a cluster reach a shard.
pub fn client_address(image: &MetadataImage, place: Replica) -> Option<(&str, i32)> {
    let endpoints = &image.node(place.node)?.endpoints;
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == CLIENT_ENDPOINT)?;
    Some((&endpoint.host, i32::from(endpoint.port) + i32::from(place.shard.0)))
}

/// The error code of a refusal.
pub fn error_code(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::InvalidTopic => ErrorCode::InvalidTopicException,
        Refusal::TopicExists => ErrorCode::TopicAlreadyExists,
        Refusal::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        Refusal::UnknownTopicId => ErrorCode::UnknownTopicId,
        Refusal::InvalidPartitions => ErrorCode::InvalidPartitions,
        Refusal::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
        Refusal::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
        Refusal::InvalidConfig => ErrorCode::InvalidConfig,
        Refusal::InvalidRequest => ErrorCode::InvalidRequest,
        Refusal::PolicyViolation => ErrorCode::PolicyViolation,
        Refusal::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
    }
}

/// A refusal as an answer carries it.
pub fn refused((refusal, text): Refused) -> (i16, Option<KafkaString>) {
    (error_code(refusal).code(), Some(KafkaString::from(text)))
}
