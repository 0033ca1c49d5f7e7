//! What the controller decides: given the image and a wish, the records that carry it out, or why not. Error kinds map
//! one to one to Kafka's error codes; the words are close to Kafka's, since people search for them.

use std::collections::BTreeMap;

use pelton_model::limits::{PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX};
use pelton_model::{BrokerConfig, IsrMember, PartitionKey, PartitionState, Prng, Replica, TopicId};
use uuid::Uuid;

use crate::config_defs::{self, ConfigDef};
use crate::group_configs;
use crate::image::{MetadataImage, TopicImage};
use crate::names;
use crate::placement::{Placement, place_of};
use crate::record::{ConfigResource, MetadataRecord};

/// Why a wish is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// INVALID_TOPIC_EXCEPTION.
    InvalidTopic,
    /// TOPIC_ALREADY_EXISTS.
    TopicExists,
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownTopic,
    /// UNKNOWN_TOPIC_ID.
    UnknownTopicId,
    /// INVALID_PARTITIONS.
    InvalidPartitions,
    /// INVALID_REPLICATION_FACTOR.
    InvalidReplicationFactor,
    /// INVALID_REPLICA_ASSIGNMENT.
    InvalidReplicaAssignment,
    /// INVALID_CONFIG.
    InvalidConfig,
    /// INVALID_REQUEST.
    InvalidRequest,
    /// POLICY_VIOLATION.
    PolicyViolation,
    /// TOPIC_DELETION_DISABLED.
    DeletionDisabled,
}

/// A refusal and its reason.
pub type Refused = (Refusal, String);

/// A topic as a client wants it.
#[derive(Clone, Debug, Default)]
pub struct TopicWish {
    /// Name.
    pub name: String,
    /// Number of partitions; -1 = the broker's default.
    pub partitions: i32,
    /// Replicas; -1 = the broker's default.
    pub replication_factor: i16,
    /// Brokers of each partition, if the client chooses them: partition index to broker ids.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that can be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its id.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: i32,
    /// What creates it.
    pub records: Vec<MetadataRecord>,
}

impl NewTopic {
    /// Replicas of each partition.
    pub fn replication_factor(&self) -> i16 {
        let counts = self.records.iter().filter_map(|record| match record {
            MetadataRecord::Partition { state, .. } => Some(state.replicas.len() as i16),
            _ => None,
        });
        counts.max().unwrap_or(0)
    }
}

/// Plans a new topic. `pending` are topics created by the same request.
pub fn create_topic(
    image: &MetadataImage,
    broker: &BrokerConfig,
    prng: &mut Prng,
    placement: &mut Placement,
    wish: &TopicWish,
) -> Result<NewTopic, Refused> {
    names::check(&wish.name).map_err(|text| (Refusal::InvalidTopic, text))?;
    if image.topic_by_name(&wish.name).is_some() {
        return Err((Refusal::TopicExists, format!("Topic '{}' already exists.", wish.name)));
    }
    if let Some(other) = image.topic_alike(&wish.name) {
        return Err((
            Refusal::InvalidTopic,
            format!("Topic '{}' collides with existing topic: {other}", wish.name),
        ));
    }
    let count = partition_count(image, broker, placement, wish)?;
    let factor = replication_factor(broker, placement, wish)?;
    let id = new_topic_id(image, prng);
    let mut records = vec![MetadataRecord::Topic { id, name: wish.name.clone() }];
    for index in 0..count {
        let assigned = wish.assignments.iter().find(|(of, _)| *of == index).map(|(_, brokers)| &brokers[..]);
        records.push(new_partition(
            image,
            PartitionKey { topic_id: id, partition: index },
            placement,
            factor,
            assigned,
        )?);
    }
    for (name, value) in &wish.configs {
        if config_defs::IGNORED.contains(&name.as_str()) {
            continue;
        }
        let Some(value) = value else {
            return Err((
                Refusal::InvalidConfig,
                format!("Null value not supported for topic configs: {name}"),
            ));
        };
        check_topic_config(broker, name, value)?;
        records.push(set(ConfigResource::Topic(wish.name.clone()), name, Some(value.clone())));
    }
    Ok(NewTopic { id, partitions: count, records })
}

fn partition_count(
    image: &MetadataImage,
    broker: &BrokerConfig,
    placement: &Placement,
    wish: &TopicWish,
) -> Result<i32, Refused> {
    if !wish.assignments.is_empty() {
        return assigned_count(placement, wish);
    }
    let count = if wish.partitions == -1 { broker.num_partitions } else { wish.partitions };
    if count <= 0 {
        let text = "Number of partitions was set to an invalid non-positive value.".to_string();
        return Err((Refusal::InvalidPartitions, text));
    }
    check_room(image, count, count)?;
    Ok(count)
}

/// A topic's and the node's limits.
fn check_room(image: &MetadataImage, total: i32, more: i32) -> Result<(), Refused> {
    if total > PARTITIONS_PER_TOPIC_MAX {
        let text = format!("A topic may have at most {PARTITIONS_PER_TOPIC_MAX} partitions, not {total}.");
        return Err((Refusal::InvalidPartitions, text));
    }
    if image.partition_count() + more.max(0) as usize > PARTITIONS_MAX {
        let text = format!("The node may have at most {PARTITIONS_MAX} partitions.");
        return Err((Refusal::PolicyViolation, text));
    }
    Ok(())
}

fn assigned_count(placement: &Placement, wish: &TopicWish) -> Result<i32, Refused> {
    let refuse = |text: String| Err((Refusal::InvalidReplicaAssignment, text));
    if wish.partitions != -1 || wish.replication_factor != -1 {
        return Err((
            Refusal::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1."
                .to_string(),
        ));
    }
    let mut indexes: Vec<i32> = wish.assignments.iter().map(|(index, _)| *index).collect();
    indexes.sort_unstable();
    if indexes.iter().enumerate().any(|(at, index)| *index != at as i32) {
        return refuse("Partitions should be a consecutive 0-based integer sequence.".to_string());
    }
    let (most, _) = placement.factor_max();
    let factor = wish.assignments[0].1.len();
    for (_, brokers) in &wish.assignments {
        if brokers.is_empty() || (most == 1 && brokers.len() != 1) {
            return refuse(format!(
                "The manual partition assignment names {} replicas, one is possible.",
                brokers.len()
            ));
        }
        if brokers.len() != factor {
            return refuse(
                "The manual partition assignment gives partitions different numbers of replicas.".to_string(),
            );
        }
        for (at, broker) in brokers.iter().enumerate() {
            if !placement.knows(*broker) {
                return refuse(format!(
                    "The manual partition assignment includes broker {broker}, but no such broker is registered."
                ));
            }
            if brokers[..at].contains(broker) {
                return refuse(format!(
                    "The manual partition assignment includes broker {broker} more than once."
                ));
            }
        }
    }
    Ok(indexes.len() as i32)
}

fn replication_factor(
    broker: &BrokerConfig,
    placement: &Placement,
    wish: &TopicWish,
) -> Result<usize, Refused> {
    if let Some((_, brokers)) = wish.assignments.first() {
        return Ok(brokers.len());
    }
    let factor = if wish.replication_factor == -1 {
        broker.default_replication_factor
    } else {
        wish.replication_factor
    };
    if factor <= 0 {
        let text = "Replication factor must be larger than 0, or -1 to use the default value.".to_string();
        return Err((Refusal::InvalidReplicationFactor, text));
    }
    let (most, nodes) = placement.factor_max();
    if factor as usize > most {
        let text = format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
             reached because only {nodes} broker(s) are registered."
        );
        return Err((Refusal::InvalidReplicationFactor, text));
    }
    Ok(factor as usize)
}

fn new_topic_id(image: &MetadataImage, prng: &mut Prng) -> TopicId {
    loop {
        let bits = (u128::from(prng.next_u64()) << 64) | u128::from(prng.next_u64());
        let id = TopicId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
        // Kafka keeps the first hundred for itself, and no id may look like an option on a command line.
        if id.0 > Uuid::from_u128(100) && image.topic_by_id(id).is_none() && id.0.as_bytes()[0] >> 2 != 62 {
            return id;
        }
    }
}

fn new_partition(
    image: &MetadataImage,
    key: PartitionKey,
    placement: &mut Placement,
    factor: usize,
    assigned: Option<&[i32]>,
) -> Result<MetadataRecord, Refused> {
    let replicas = match assigned {
        // On a single node the shard is ours to choose, whatever broker a client names.
        Some(brokers) if placement.may_be_named() => brokers.iter().map(|broker| place_of(*broker)).collect(),
        _ => placement.next_places(factor),
    };
    let member = |replica: &Replica| {
        let epoch = image.replica_epoch(*replica).unwrap_or_default();
        IsrMember { replica: *replica, epoch }
    };
    let in_sync = placement.in_sync(image, &replicas);
    if in_sync.is_empty() {
        return Err(match assigned {
            Some(_) => {
                let text = "All brokers specified in the manual partition assignment are fenced or in controlled shutdown.";
                (Refusal::InvalidReplicaAssignment, text.to_string())
            }
            None => (Refusal::InvalidReplicationFactor, "All brokers are currently fenced.".to_string()),
        });
    }
    let state = PartitionState::begun(replicas, in_sync.iter().map(member).collect());
    Ok(MetadataRecord::Partition { key, state })
}

/// Plans the end of a topic.
pub fn delete_topic(
    broker: &BrokerConfig,
    topic: Option<&TopicImage>,
) -> Result<Vec<MetadataRecord>, Refused> {
    if !broker.delete_topics {
        return Err((Refusal::DeletionDisabled, "Topic deletion is disabled.".to_string()));
    }
    match topic {
        Some(topic) => Ok(vec![MetadataRecord::RemoveTopic { id: topic.id }]),
        None => Err((Refusal::UnknownTopic, "This server does not host this topic-partition.".to_string())),
    }
}

/// Plans more partitions for a topic, `count` in all.
pub fn create_partitions(
    image: &MetadataImage,
    placement: &mut Placement,
    name: &str,
    count: i32,
    assignments: Option<&[Vec<i32>]>,
) -> Result<Vec<MetadataRecord>, Refused> {
    let Some(topic) = image.topic_by_name(name) else {
        return Err((Refusal::UnknownTopic, "This server does not host this topic-partition.".to_string()));
    };
    let now = topic.partitions.len() as i32;
    if name == names::OFFSETS_TOPIC {
        let text =
            format!("The number of partitions of {name} cannot change: groups would lose their offsets.");
        return Err((Refusal::InvalidRequest, text));
    }
    if count == now {
        return Err((Refusal::InvalidPartitions, format!("Topic already has {now} partition(s).")));
    }
    if count < now {
        let text =
            format!("The topic {name} currently has {now} partition(s); {count} would not be an increase.");
        return Err((Refusal::InvalidPartitions, text));
    }
    check_room(image, count, count - now)?;
    if let Some(assignments) = assignments {
        if assignments.len() as i32 != count - now {
            let text = format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                count - now,
                assignments.len()
            );
            return Err((Refusal::InvalidReplicaAssignment, text));
        }
        let wish = TopicWish {
            partitions: -1,
            replication_factor: -1,
            assignments: assignments
                .iter()
                .enumerate()
                .map(|(i, brokers)| (i as i32, brokers.clone()))
                .collect(),
            ..TopicWish::default()
        };
        assigned_count(placement, &wish)?;
    }
    let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len().max(1));
    if factor > placement.factor_max().0 {
        let text = format!(
            "Only {} broker(s) can take new partitions, {factor} are needed.",
            placement.factor_max().1
        );
        return Err((Refusal::InvalidReplicationFactor, text));
    }
    let partition = |index: i32| {
        let key = PartitionKey { topic_id: topic.id, partition: index };
        let assigned =
            assignments.and_then(|all| all.get((index - now) as usize)).map(|brokers| &brokers[..]);
        new_partition(image, key, placement, factor, assigned)
    };
    (now..count).map(partition).collect()
}

fn set(resource: ConfigResource, name: &str, value: Option<String>) -> MetadataRecord {
    MetadataRecord::Config { resource, name: name.to_string(), value }
}

fn known(name: &str, found: Option<&'static ConfigDef>) -> Result<&'static ConfigDef, Refused> {
    found.ok_or_else(|| {
        let hint =
            config_defs::closest(name).map_or(String::new(), |close| format!(" (did you mean {close}?)"));
        (Refusal::InvalidConfig, format!("Unknown config name: {}{hint}", name.escape_debug()))
    })
}

fn check_topic_config(broker: &BrokerConfig, name: &str, value: &str) -> Result<&'static ConfigDef, Refused> {
    let def = known(name, config_defs::topic(name))?;
    check_value(broker, def, name, value)?;
    Ok(def)
}

fn check_value(broker: &BrokerConfig, def: &ConfigDef, name: &str, value: &str) -> Result<(), Refused> {
    let invalid =
        |text: String| (Refusal::InvalidConfig, format!("Invalid value for configuration {name}: {text}"));
    def.kind.check(value).map_err(invalid)?;
    if def.name == "max.message.bytes" {
        let limit = broker.message_bytes_limit();
        if value.trim().parse::<i32>().is_ok_and(|bytes| bytes > limit) {
            return Err(invalid(format!("must be at most {limit}, a quarter of pelton.journal.bytes")));
        }
    }
    Ok(())
}

/// How a setting is to change (KIP-339).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alter {
    /// Set.
    Set,
    /// Back to the default.
    Delete,
    /// Add to a list.
    Append,
    /// Take from a list.
    Subtract,
}

/// Plans a change of one setting.
pub fn alter_config(
    image: &MetadataImage,
    broker: &BrokerConfig,
    resource: &ConfigResource,
    name: &str,
    alter: Alter,
    value: Option<&str>,
) -> Result<MetadataRecord, Refused> {
    let def = match resource {
        ConfigResource::Topic(_) => known(name, config_defs::topic(name)),
        ConfigResource::Broker(_) => broker_def(name),
        ConfigResource::Group(_) => group_configs::known(name),
    };
    // What nobody knows is not set: Kafka's tools clear throttles without a look at whether there are any.
    if alter == Alter::Delete && matches!(def, Err((Refusal::InvalidConfig, _))) {
        return Ok(set(resource.clone(), name, None));
    }
    let def = def?;
    if alter == Alter::Delete {
        return Ok(set(resource.clone(), name, None));
    }
    let Some(value) = value else {
        return Err((Refusal::InvalidRequest, format!("Null value not supported for: {name}")));
    };
    if alter != Alter::Set && !def.kind.is_list() {
        let text = format!("Can't {alter:?} to key {name} because its type is not LIST.").to_lowercase();
        return Err((Refusal::InvalidConfig, text));
    }
    let value = match alter {
        Alter::Set | Alter::Delete => value.to_string(),
        Alter::Append | Alter::Subtract => altered_list(image, resource, def, name, alter, value),
    };
    check_value(broker, def, name, &value)?;
    if let ConfigResource::Group(_) = resource {
        group_configs::check(&broker.group, name, &value)?;
    }
    Ok(set(resource.clone(), name, Some(value)))
}

fn broker_def(name: &str) -> Result<&'static ConfigDef, Refused> {
    if config_defs::broker().any(|def| def.name == name) {
        let text =
            format!("Cannot update these configs dynamically: [{name}]; give it at start (-X {name}=…)");
        return Err((Refusal::InvalidRequest, text));
    }
    let dynamic = config_defs::DYNAMIC.iter().find(|def| def.name == name);
    known(name, dynamic.or_else(|| config_defs::topic_of_synonym(name)))
}

fn altered_list(
    image: &MetadataImage,
    resource: &ConfigResource,
    def: &ConfigDef,
    name: &str,
    alter: Alter,
    value: &str,
) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect()
    };
    let mut list = split(image.config(resource, name).unwrap_or(def.default));
    for part in split(value) {
        list.retain(|other| *other != part);
        if alter == Alter::Append {
            list.push(part);
        }
    }
    list.join(",")
}

/// Plans the settings of a resource to be exactly `wanted` (AlterConfigs).
pub fn replace_configs(
    image: &MetadataImage,
    broker: &BrokerConfig,
    resource: &ConfigResource,
    wanted: &BTreeMap<String, Option<String>>,
) -> Result<Vec<MetadataRecord>, Refused> {
    let mut records = Vec::new();
    for (name, value) in wanted {
        let alter = if value.is_some() { Alter::Set } else { Alter::Delete };
        records.push(alter_config(image, broker, resource, name, alter, value.as_deref())?);
    }
    for name in image.configs_of(resource).keys() {
        if !wanted.contains_key(name) {
            records.push(set(resource.clone(), name, None));
        }
    }
    Ok(records)
}
