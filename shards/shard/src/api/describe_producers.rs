//! DescribeProducers (key 61, KIP-664): the idempotent producers that replicas know. There are no transactions, so none has one open.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use pelton_wire::messages::{DescribeProducersRequestData, DescribeProducersResponseData};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::named::Named;
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
        let topics = request.topics.into_iter().map(|topic| (topic.name, topic.partition_indexes));
        let op = |topic_id, partition: &i32| PartitionOp::Producers {
            key: PartitionKey { topic_id, partition: *partition },
        };
        self.gather_named(now, context, topics, op, encode, out);
    }
}

fn encode(context: &RequestContext, topics: Named<'_>) -> Bytes {
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| TopicResponse {
            name,
            partitions: partitions.into_iter().map(partition).collect(),
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
