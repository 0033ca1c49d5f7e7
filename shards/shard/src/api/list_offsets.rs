//! ListOffsets (key 2): offsets by time, and the special times.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ListOffsetsPartitionResponse, ListOffsetsRequestData, ListOffsetsResponseData, ListOffsetsTopicResponse,
};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::{PartitionAnswer, PartitionOp};
use crate::effect::Effect;

/// Answers carry the leader epoch from this version on (KIP-320).
const LEADER_EPOCH_VERSION: i16 = 4;

impl Shard {
    /// Asks every partition named.
    pub(crate) fn list_offsets(
        &mut self,
        now: Now,
        context: RequestContext,
        request: ListOffsetsRequestData,
        out: &mut Vec<Effect>,
    ) {
        let mut asks = Vec::new();
        let mut topics = Vec::new();
        for topic in &request.topics {
            let route = self.partitions.topic_by_name(topic.name.as_str());
            let mut indexes = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                indexes.push(partition.partition_index);
                asks.push(match route {
                    Some(route) => Ok(PartitionOp::ListOffset {
                        key: PartitionKey { topic_id: route.id, partition: partition.partition_index },
                        timestamp: partition.timestamp,
                        current_leader_epoch: partition.current_leader_epoch,
                    }),
                    None => Err(PartitionAnswer::ListOffset {
                        error: ErrorCode::UnknownTopicOrPartition,
                        timestamp: -1,
                        offset: -1,
                        leader_epoch: -1,
                    }),
                });
            }
            topics.push((topic.name.clone(), indexes));
        }
        let request_ref = context.request;
        let shape = Box::new(move |answers: &[PartitionAnswer]| encode(&context, topics, answers));
        self.gather(now, request_ref, asks, shape, out);
    }
}

fn encode(
    context: &RequestContext,
    topics: Vec<(pelton_wire::messages::KafkaString, Vec<i32>)>,
    answers: &[PartitionAnswer],
) -> Bytes {
    let mut answers = answers.iter();
    let topics = topics
        .into_iter()
        .map(|(name, indexes)| ListOffsetsTopicResponse {
            name,
            partitions: indexes
                .into_iter()
                .zip(answers.by_ref())
                .map(|(partition_index, answer)| partition_response(context.version, partition_index, answer))
                .collect(),
            ..Default::default()
        })
        .collect();
    context.encode(&ListOffsetsResponseData { topics, ..Default::default() })
}

fn partition_response(
    version: i16,
    partition_index: i32,
    answer: &PartitionAnswer,
) -> ListOffsetsPartitionResponse {
    let (error, timestamp, offset, leader_epoch) = match answer {
        PartitionAnswer::ListOffset { error, timestamp, offset, leader_epoch } => {
            (*error, *timestamp, *offset, *leader_epoch)
        }
        _ => (ErrorCode::UnknownServerError, -1, -1, -1),
    };
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp,
        offset,
        leader_epoch: if version >= LEADER_EPOCH_VERSION { leader_epoch } else { -1 },
        ..Default::default()
    }
}
