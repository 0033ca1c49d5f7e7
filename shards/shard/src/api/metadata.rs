//! Metadata (key 3): brokers, and topics with their leaders.

use pelton_cluster::image::TopicImage;
use pelton_cluster::names;
use pelton_model::TopicId;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    KafkaString, KafkaUuid, MetadataRequestData, MetadataRequestTopic, MetadataResponseBroker,
    MetadataResponseData, MetadataResponsePartition, MetadataResponseTopic,
};

use super::context::{ApiContext, CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS};

/// The answer, and the topics to create first if that is allowed.
pub struct MetadataOutcome {
    /// The answer as things are.
    pub response: MetadataResponseData,
    /// Names that do not exist, may exist, and are asked for with auto-creation.
    pub missing: Vec<String>,
}

/// The answer.
pub fn handle(context: &ApiContext<'_>, version: i16, request: MetadataRequestData) -> MetadataOutcome {
    let operations =
        if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    // Before version 4 a client cannot say, and a named topic is always created.
    let create = version < 4 || request.allow_auto_topic_creation;
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let mut missing = Vec::new();
    let topics = if all {
        let names = context.image.topic_names();
        names
            .filter_map(|name| context.image.topic_by_name(name))
            .map(|t| found(context, t, operations))
            .collect()
    } else {
        let wanted = request.topics.unwrap_or_default();
        wanted.iter().map(|topic| one(context, version, topic, operations, create, &mut missing)).collect()
    };
    let brokers = context
        .brokers()
        .into_iter()
        .map(|broker| MetadataResponseBroker {
            node_id: broker.id,
            host: broker.host,
            port: broker.port,
            rack: if version >= 1 { broker.rack } else { None },
            ..MetadataResponseBroker::default()
        })
        .collect();
    let mut response = MetadataResponseData {
        brokers,
        cluster_id: Some(context.cluster_id()),
        controller_id: context.controller_id(),
        topics,
        ..MetadataResponseData::default()
    };
    if request.include_cluster_authorized_operations && (8..=10).contains(&version) {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    MetadataOutcome { response, missing }
}

fn one(
    context: &ApiContext<'_>,
    version: i16,
    wanted: &MetadataRequestTopic,
    operations: i32,
    create: bool,
    missing: &mut Vec<String>,
) -> MetadataResponseTopic {
    let id = TopicId(wanted.topic_id.into());
    if !id.0.is_nil() {
        return match context.image.topic_by_id(id) {
            Some(topic) => found(context, topic, operations),
            None => {
                let name = (version < 12).then(KafkaString::default);
                let error = MetadataResponseTopic { topic_id: wanted.topic_id, name, ..Default::default() };
                MetadataResponseTopic { error_code: ErrorCode::UnknownTopicId.code(), ..error }
            }
        };
    }
    let name = wanted.name.clone().unwrap_or_default();
    if let Some(topic) = context.image.topic_by_name(name.as_str()) {
        return found(context, topic, operations);
    }
    let error = if !names::is_valid(name.as_str()) {
        ErrorCode::InvalidTopicException
    } else {
        if create && !missing.iter().any(|other| other.as_str() == name.as_str()) {
            missing.push(name.to_string());
        }
        ErrorCode::UnknownTopicOrPartition
    };
    MetadataResponseTopic { error_code: error.code(), name: Some(name), ..MetadataResponseTopic::default() }
}

fn found(context: &ApiContext<'_>, topic: &TopicImage, operations: i32) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| {
            let (leader_id, replica_nodes) = context.leader_and_replicas(partition);
            let error = if leader_id < 0 { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
            MetadataResponsePartition {
                error_code: error.code(),
                partition_index: index as i32,
                leader_id,
                leader_epoch: partition.leader_epoch.0,
                isr_nodes: context.isr(partition),
                offline_replicas: context.offline(partition),
                replica_nodes,
                ..MetadataResponsePartition::default()
            }
        })
        .collect();
    MetadataResponseTopic {
        name: Some(KafkaString::from(topic.name.clone())),
        topic_id: KafkaUuid::from(topic.id.0),
        is_internal: pelton_cluster::names::is_internal(&topic.name),
        partitions,
        topic_authorized_operations: operations,
        ..MetadataResponseTopic::default()
    }
}
