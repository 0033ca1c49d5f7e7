//! AlterPartitionReassignments (key 45) and ListPartitionReassignments (key 46), KIP-455; as in Kafka's
//! ReplicationControlManager. A reassignment ends by itself when all replicas that were added are in sync.

use std::collections::BTreeMap;

use pelton_cluster::control::admin::{SHARES_A_NODE, shares_a_node};
use pelton_cluster::control::election::{self, Scene};
use pelton_cluster::record::{MetadataRecord, PartitionDelta};
use pelton_model::{ListenerMode, PartitionKey, PartitionState, Replica};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use pelton_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use pelton_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use pelton_wire::messages::{
    AlterPartitionReassignmentsRequestData, AlterPartitionReassignmentsResponseData, KafkaString,
    ListPartitionReassignmentsRequestData, ListPartitionReassignmentsResponseData,
};

use super::context::{ApiContext, Planned};

/// Changes of one request: together they must fit one entry of the metadata log.
pub(super) const CHANGES_MAX: usize = 1_000;
const NO_LOCAL_MOVE: &str =
    "This broker is no part of a cluster: its partitions stay on their shards while it runs.";

type Refused = (ErrorCode, String);

/// Plans the reassignments of a request.
pub fn alter(
    context: &ApiContext<'_>,
    _version: i16,
    request: AlterPartitionReassignmentsRequestData,
) -> Planned<AlterPartitionReassignmentsResponseData> {
    let allow_factor = request.allow_replication_factor_change;
    let mut response = AlterPartitionReassignmentsResponseData {
        allow_replication_factor_change: allow_factor,
        ..Default::default()
    };
    let count: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if count > CHANGES_MAX {
        response.error_code = ErrorCode::PolicyViolation.code();
        response.error_message = Some(KafkaString::from(format!(
            "Unable to perform excessively large batch operation: {count} partitions; at most {CHANGES_MAX} at a time."
        )));
        return Planned { records: Vec::new(), response };
    }
    let mut changes = Changes::new(context);
    for topic in request.topics {
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| {
                let (error, text) = match changes.alter(topic.name.as_str(), partition, allow_factor) {
                    Ok(()) => (ErrorCode::None, None),
                    Err((error, text)) => (error, Some(text).filter(|text| !text.is_empty())),
                };
                ReassignablePartitionResponse {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                    error_message: text.map(KafkaString::from),
                    ..Default::default()
                }
            })
            .collect();
        response.responses.push(ReassignableTopicResponse {
            name: topic.name,
            partitions,
            ..Default::default()
        });
    }
    Planned { records: changes.records, response }
}

/// Changes of one request, each planned on top of those before it.
pub(super) struct Changes<'a> {
    context: &'a ApiContext<'a>,
    states: BTreeMap<PartitionKey, PartitionState>,
    records: Vec<MetadataRecord>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(context: &'a ApiContext<'a>) -> Changes<'a> {
        Changes { context, states: BTreeMap::new(), records: Vec::new() }
    }

    pub(super) fn context(&self) -> &'a ApiContext<'a> {
        self.context
    }

    /// The records of all changes.
    pub(super) fn into_records(self) -> Vec<MetadataRecord> {
        self.records
    }

    /// A partition with what was changed before.
    pub(super) fn state(&self, key: PartitionKey) -> Option<PartitionState> {
        let partition = self.context.image.partition(key)?;
        Some(self.states.get(&key).cloned().unwrap_or_else(|| partition.state()))
    }

    /// It is another one from here on.
    pub(super) fn put(&mut self, key: PartitionKey, old: &PartitionState, new: PartitionState) {
        let image = self.context.image;
        let released =
            image.partition(key).is_some_and(|partition| election::leader_is_gone(image, partition));
        let delta = PartitionDelta::between(old, &new, released);
        self.records.push(MetadataRecord::PartitionChange { key, delta });
        self.states.insert(key, new);
    }
}

impl Changes<'_> {
    fn alter(
        &mut self,
        topic: &str,
        wanted: &ReassignablePartition,
        allow_factor: bool,
    ) -> Result<(), Refused> {
        let image = self.context.image;
        let unknown = |text: String| (ErrorCode::UnknownTopicOrPartition, text);
        let found = image
            .topic_by_name(topic)
            .ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
        let key = PartitionKey { topic_id: found.id, partition: wanted.partition_index };
        let old = self.state(key).ok_or_else(|| {
            unknown(format!("Unable to find partition {topic}:{}.", wanted.partition_index))
        })?;
        let moving = !old.adding.is_empty() || !old.removing.is_empty();
        let scene = Scene::of(image, self.context.config, key);
        let new = match &wanted.replicas {
            None if !moving => {
                // Kafka says no more than the code.
                return Err((ErrorCode::NoReassignmentInProgress, String::new()));
            }
            None => {
                let stays = |replica: &Replica| !old.adding.contains(replica);
                if !old.isr.iter().any(|member| stays(&member.replica)) {
                    let text = format!(
                        "Unable to revert partition assignment for {topic}:{} because it would require an unclean \
                         leader election.",
                        wanted.partition_index
                    );
                    return Err((ErrorCode::InvalidReplicaAssignment, text));
                }
                election::cancel(&scene, &old)
            }
            Some(brokers) => {
                let target = self.context.target(key, &old, brokers)?;
                if !allow_factor {
                    let heading =
                        old.replicas.iter().filter(|replica| !old.removing.contains(replica)).count();
                    if heading != target.len() {
                        let text =
                            format!("The replication factor is changed from {heading} to {}", target.len());
                        return Err((ErrorCode::InvalidReplicationFactor, text));
                    }
                }
                if !self.context.is_cluster() {
                    // It has what it wants already, or cannot.
                    return match target == old.replicas {
                        true => Ok(()),
                        false => Err((ErrorCode::InvalidReplicaAssignment, NO_LOCAL_MOVE.to_string())),
                    };
                }
                election::reassign(&scene, &old, &target)
            }
        };
        if let Some(new) = new {
            self.put(key, &old, new);
        }
        Ok(())
    }
}

impl ApiContext<'_> {
    /// The places that broker ids name for a partition, in their order; why there are none otherwise.
    fn target(
        &self,
        key: PartitionKey,
        old: &PartitionState,
        brokers: &[i32],
    ) -> Result<Vec<Replica>, Refused> {
        let refuse = |text: String| Err((ErrorCode::InvalidReplicaAssignment, text));
        let prefix = "The manual partition assignment includes";
        if brokers.is_empty() {
            return refuse(format!("{prefix} an empty replica list."));
        }
        // In Kafka's order, by id: the first complaint is the same.
        let mut sorted = brokers.to_vec();
        sorted.sort_unstable();
        for (at, broker) in sorted.iter().enumerate() {
            if self.place(*broker, key, old).is_none() {
                return refuse(format!("{prefix} broker {broker}, but no such broker is registered."));
            }
            if at > 0 && sorted[at - 1] == *broker {
                return refuse(format!("{prefix} the broker {broker} more than once."));
            }
        }
        let target: Vec<Replica> =
            brokers.iter().filter_map(|broker| self.place(*broker, key, old)).collect();
        if self.is_cluster() && shares_a_node(self.image, &target) {
            return refuse(SHARES_A_NODE.to_string());
        }
        Ok(target)
    }

    /// The place a broker id names for a replica of a partition: in direct mode a shard, in single mode a node, on which the
    /// replica stays where it is, or goes to the shard that its number gives.
    fn place(&self, broker: i32, key: PartitionKey, old: &PartitionState) -> Option<Replica> {
        let mut place = (broker >= 0).then(|| pelton_cluster::placement::place_of(broker))?;
        let shards = match self.image.node(place.node) {
            Some(node) => node.shards.len() as u16,
            None if !self.is_cluster() && place.node == self.config.node_id => self.config.shards,
            None => return None,
        };
        if self.config.mode == ListenerMode::Single {
            if place.shard.0 != 0 {
                return None;
            }
            let there = old.replicas.iter().find(|replica| replica.node == place.node);
            place.shard.0 = match there {
                Some(replica) => replica.shard.0,
                None => (key.topic_id.0.as_u128() as u64)
                    .wrapping_add(key.partition as u64)
                    .checked_rem(u64::from(shards))? as u16,
            };
        }
        (place.shard.0 < shards).then_some(place)
    }
}

/// The reassignments under way.
pub fn list(
    context: &ApiContext<'_>,
    _version: i16,
    request: ListPartitionReassignmentsRequestData,
) -> ListPartitionReassignmentsResponseData {
    let mut found: BTreeMap<&str, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
    let mut add = |key: PartitionKey| {
        let (Some(topic), Some(partition)) =
            (context.image.topic_by_id(key.topic_id), context.image.partition(key))
        else {
            return;
        };
        if !partition.reassigning() {
            return;
        }
        let (adding, removing) =
            (context.broker_ids(partition.adding()), context.broker_ids(partition.removing()));
        // From one shard of a broker to another: a move of log directories, no reassignment.
        let only =
            |ids: &[i32], others: &[i32]| ids.iter().copied().filter(|id| !others.contains(id)).collect();
        let adding_replicas: Vec<i32> = only(&adding, &removing);
        let removing_replicas: Vec<i32> = only(&removing, &adding);
        if adding_replicas.is_empty() && removing_replicas.is_empty() {
            return;
        }
        found.entry(&topic.name).or_default().push(OngoingPartitionReassignment {
            partition_index: key.partition,
            replicas: context.broker_ids(&partition.replicas),
            adding_replicas,
            removing_replicas,
            ..Default::default()
        });
    };
    match &request.topics {
        None => context.image.reassigning().iter().for_each(|key| add(*key)),
        Some(topics) => {
            for wanted in topics {
                let Some(topic) = context.image.topic_by_name(wanted.name.as_str()) else { continue };
                for partition in &wanted.partition_indexes {
                    add(PartitionKey { topic_id: topic.id, partition: *partition });
                }
            }
        }
    }
    let topics = found.into_iter().map(|(name, partitions)| OngoingTopicReassignment {
        name: KafkaString::from(name.to_string()),
        partitions,
        ..Default::default()
    });
    ListPartitionReassignmentsResponseData { topics: topics.collect(), ..Default::default() }
}
