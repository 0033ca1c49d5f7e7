//! DeleteRecords (key 21, KIP-107): forgets records below an offset.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequestData,
    DeleteRecordsResponseData, DeleteRecordsTopicResult,
};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::named::Named;
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
        let timeout_ms = request.timeout_ms;
        let topics = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
        let op = |topic_id, asked: &DeleteRecordsPartition| PartitionOp::DeleteRecords {
            key: PartitionKey { topic_id, partition: asked.partition_index },
            offset: asked.offset,
            timeout_ms,
        };
        self.gather_named(now, context, topics, op, encode, out);
    }
}

fn encode(context: &RequestContext, topics: Named<'_>) -> Bytes {
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| DeleteRecordsTopicResult {
            name,
            partitions: partitions.into_iter().map(partition_result).collect(),
            ..Default::default()
        })
        .collect();
    context.encode(&DeleteRecordsResponseData { topics, ..Default::default() })
}

fn partition_result((partition_index, answer): (i32, &PartitionAnswer)) -> DeleteRecordsPartitionResult {
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
}
