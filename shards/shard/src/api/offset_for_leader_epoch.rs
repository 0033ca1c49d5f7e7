//! OffsetForLeaderEpoch (key 23, KIP-101, KIP-320): where a leader epoch ends, so that clients notice truncation.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    KafkaString, OffsetForLeaderEpochRequestData, OffsetForLeaderEpochResponseData,
    OffsetForLeaderTopicResult, offset_for_leader_epoch_response::EpochEndOffset,
};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::{PartitionAnswer, PartitionOp};
use crate::effect::Effect;

impl Shard {
    /// Asks every partition named.
    pub(crate) fn offset_for_leader_epoch(
        &mut self,
        now: Now,
        context: RequestContext,
        request: OffsetForLeaderEpochRequestData,
        out: &mut Vec<Effect>,
    ) {
        let mut asks = Vec::new();
        let mut topics = Vec::new();
        for topic in &request.topics {
            let route = self.partitions.topic_by_name(topic.topic.as_str());
            let mut indexes = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                indexes.push(partition.partition);
                asks.push(match route {
                    Some(route) => Ok(PartitionOp::EpochEnd {
                        key: PartitionKey { topic_id: route.id, partition: partition.partition },
                        leader_epoch: partition.leader_epoch,
                        current_leader_epoch: partition.current_leader_epoch,
                    }),
                    None => Err(PartitionAnswer::EpochEnd {
                        error: ErrorCode::UnknownTopicOrPartition,
                        leader_epoch: -1,
                        end_offset: -1,
                    }),
                });
            }
            topics.push((topic.topic.clone(), indexes));
        }
        let request_ref = context.request;
        let shape = Box::new(move |answers: &[PartitionAnswer]| encode(&context, topics, answers));
        self.gather(now, request_ref, asks, shape, out);
    }
}

fn encode(
    context: &RequestContext,
    topics: Vec<(KafkaString, Vec<i32>)>,
    answers: &[PartitionAnswer],
) -> Bytes {
    let mut answers = answers.iter();
    let topics = topics
        .into_iter()
        .map(|(topic, indexes)| OffsetForLeaderTopicResult {
            topic,
            partitions: indexes
                .into_iter()
                .zip(answers.by_ref())
                .map(|(partition, answer)| {
                    let (error, leader_epoch, end_offset) = match answer {
                        PartitionAnswer::EpochEnd { error, leader_epoch, end_offset } => {
                            (*error, *leader_epoch, *end_offset)
                        }
                        _ => (ErrorCode::UnknownServerError, -1, -1),
                    };
                    EpochEndOffset {
                        error_code: error.code(),
                        partition,
                        leader_epoch,
                        end_offset,
                        ..Default::default()
                    }
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    context.encode(&OffsetForLeaderEpochResponseData { topics, ..Default::default() })
}
