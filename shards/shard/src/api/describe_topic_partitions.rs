//! DescribeTopicPartitions (key 75, KIP-966): topics by name, page by page.

use pelton_cluster::image::TopicImage;
use pelton_model::Replica;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_topic_partitions_response::Cursor;
use pelton_wire::messages::{
    DescribeTopicPartitionsRequestData, DescribeTopicPartitionsResponseData,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, KafkaString, KafkaUuid,
};

use super::context::{ApiContext, TOPIC_OPERATIONS};

/// Most partitions of one answer (Kafka's `max.request.partition.size.limit`).
const PARTITIONS_PER_ANSWER_MAX: usize = 2000;

/// The answer.
pub fn handle(
    context: &ApiContext<'_>,
    _version: i16,
    request: DescribeTopicPartitionsRequestData,
) -> DescribeTopicPartitionsResponseData {
    let mut names: Vec<String> = if request.topics.is_empty() {
        context.image.topic_names().map(str::to_string).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), cursor.partition_index.max(0) as usize),
        None => (String::new(), 0),
    };
    let limit = request.response_partition_limit;
    let mut left =
        if limit > 0 { (limit as usize).min(PARTITIONS_PER_ANSWER_MAX) } else { PARTITIONS_PER_ANSWER_MAX };
    let mut response = DescribeTopicPartitionsResponseData::default();
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        let from = if name == from_topic { from_partition } else { 0 };
        let Some(topic) = context.image.topic_by_name(&name) else {
            response.topics.push(unknown(name));
            continue;
        };
        if left == 0 {
            response.next_cursor = Some(Box::new(cursor(name, from)));
            break;
        }
        let until = topic.partitions.len().min(from + left);
        response.topics.push(found(context, topic, from, until));
        left -= until.saturating_sub(from);
        if until < topic.partitions.len() {
            response.next_cursor = Some(Box::new(cursor(name, until)));
            break;
        }
    }
    response
}

fn cursor(topic_name: String, partition: usize) -> Cursor {
    let topic_name = KafkaString::from(topic_name);
    Cursor { topic_name, partition_index: partition as i32, ..Cursor::default() }
}

fn unknown(name: String) -> DescribeTopicPartitionsResponseTopic {
    let error = if pelton_cluster::names::is_valid(&name) {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(KafkaString::from(name)),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn found(
    context: &ApiContext<'_>,
    topic: &TopicImage,
    from: usize,
    until: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = (from..until)
        .map(|index| {
            let partition = &topic.partitions[index];
            let (leader_id, replica_nodes) = context.leader_and_replicas(partition);
            let ids = |replicas: &[Replica]| replicas.iter().map(|it| context.broker_id(*it)).collect();
            DescribeTopicPartitionsResponsePartition {
                partition_index: index as i32,
                leader_id,
                leader_epoch: partition.leader_epoch.0,
                isr_nodes: context.isr(partition),
                offline_replicas: context.offline(partition),
                replica_nodes,
                eligible_leader_replicas: Some(ids(partition.elr())),
                last_known_elr: Some(ids(partition.last_known_elr())),
                ..DescribeTopicPartitionsResponsePartition::default()
            }
        })
        .collect();
    DescribeTopicPartitionsResponseTopic {
        name: Some(KafkaString::from(topic.name.clone())),
        topic_id: KafkaUuid::from(topic.id.0),
        is_internal: pelton_cluster::names::is_internal(&topic.name),
        partitions,
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
