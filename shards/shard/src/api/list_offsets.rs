//! ListOffsets (key 2): offsets by time, and the special times.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequestData, ListOffsetsResponseData,
    ListOffsetsTopicResponse,
};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::named::Named;
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
        let topics = request.topics.into_iter().map(|topic| (topic.name, topic.partitions));
        let op = |topic_id, asked: &ListOffsetsPartition| PartitionOp::ListOffset {
            key: PartitionKey { topic_id, partition: asked.partition_index },
            timestamp: asked.timestamp,
            current_leader_epoch: asked.current_leader_epoch,
        };
        self.gather_named(now, context, topics, op, encode, out);
    }
}

fn encode(context: &RequestContext, topics: Named<'_>) -> Bytes {
    let answered =
        |(index, answer): (i32, &PartitionAnswer)| partition_response(context.version, index, answer);
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| ListOffsetsTopicResponse {
            name,
            partitions: partitions.into_iter().map(answered).collect(),
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
