//! DeleteRecords (key 21, KIP-107): forgets records below an offset.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    DeleteRecordsPartitionResult, DeleteRecordsRequestData, DeleteRecordsResponseData,
    DeleteRecordsTopicResult, KafkaString,
};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::{PartitionAnswer, PartitionOp};
use crate::effect::Effect;

impl Shard {
    /// Asks every partition named.
    pub(crate) fn delete_records_request(
        &mut self,
        now: Now,
        context: RequestContext,
        request: DeleteRecordsRequestData,
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
                    Some(route) => Ok(PartitionOp::DeleteRecords {
                        key: PartitionKey { topic_id: route.id, partition: partition.partition_index },
                        offset: partition.offset,
                        timeout_ms: request.timeout_ms,
                    }),
                    None => Err(PartitionAnswer::DeleteRecords {
                        error: ErrorCode::UnknownTopicOrPartition,
                        low_watermark: -1,
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
    topics: Vec<(KafkaString, Vec<i32>)>,
    answers: &[PartitionAnswer],
) -> Bytes {
    let mut answers = answers.iter();
    let topics = topics
        .into_iter()
        .map(|(name, indexes)| DeleteRecordsTopicResult {
            name,
            partitions: indexes
                .into_iter()
                .zip(answers.by_ref())
                .map(|(partition_index, answer)| {
                    let (error, low_watermark) = match answer {
                        PartitionAnswer::DeleteRecords { error, low_watermark } => (*error, *low_watermark),
                        _ => (ErrorCode::UnknownServerError, -1),
                    };
                    DeleteRecordsPartitionResult {
                        partition_index,
                        low_watermark,
                        error_code: error.code(),
                        ..Default::default()
                    }
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    context.encode(&DeleteRecordsResponseData { topics, ..Default::default() })
}
