//! DescribeProducers (key 61, KIP-664): the idempotent producers that replicas know. There are no transactions, so none has one open.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use pelton_wire::messages::{DescribeProducersRequestData, DescribeProducersResponseData, KafkaString};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::{PartitionAnswer, PartitionOp};
use crate::effect::Effect;

impl Shard {
    /// Asks every partition named.
    pub(crate) fn describe_producers(
        &mut self,
        now: Now,
        context: RequestContext,
        request: DescribeProducersRequestData,
        out: &mut Vec<Effect>,
    ) {
        let mut asks = Vec::new();
        let mut topics = Vec::new();
        for topic in request.topics {
            let route = self.partitions.topic_by_name(topic.name.as_str());
            for partition in &topic.partition_indexes {
                asks.push(match route {
                    Some(route) => Ok(PartitionOp::Producers {
                        key: PartitionKey { topic_id: route.id, partition: *partition },
                    }),
                    None => Err(PartitionAnswer::Producers {
                        error: ErrorCode::UnknownTopicOrPartition,
                        producers: Vec::new(),
                    }),
                });
            }
            topics.push((topic.name, topic.partition_indexes));
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
        .map(|(name, indexes)| TopicResponse {
            name,
            partitions: indexes.into_iter().zip(answers.by_ref()).map(partition).collect(),
            ..Default::default()
        })
        .collect();
    context.encode(&DescribeProducersResponseData { topics, ..Default::default() })
}

fn partition((partition_index, answer): (i32, &PartitionAnswer)) -> PartitionResponse {
    let (error, producers) = match answer {
        PartitionAnswer::Producers { error, producers } => (*error, &producers[..]),
        _ => (ErrorCode::UnknownServerError, &[][..]),
    };
    let active_producers = producers
        .iter()
        .map(|producer| ProducerState {
            producer_id: producer.producer_id,
            producer_epoch: i32::from(producer.epoch),
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_timestamp_ms,
            coordinator_epoch: -1,
            current_txn_start_offset: -1,
            ..Default::default()
        })
        .collect();
    PartitionResponse { partition_index, error_code: error.code(), active_producers, ..Default::default() }
}
