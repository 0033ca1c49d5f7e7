//! OffsetForLeaderEpoch (key 23, KIP-101, KIP-320): where a leader epoch ends, so that clients notice truncation.

use bytes::Bytes;
use pelton_model::{Now, PartitionKey};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    OffsetForLeaderEpochRequestData, OffsetForLeaderEpochResponseData, OffsetForLeaderTopicResult,
    offset_for_leader_epoch_request::OffsetForLeaderPartition,
    offset_for_leader_epoch_response::EpochEndOffset,
};

use crate::Shard;
use crate::api::RequestContext;
use crate::api::named::Named;
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
        let topics = request.topics.into_iter().map(|topic| (topic.topic, topic.partitions));
        let op = |topic_id, asked: &OffsetForLeaderPartition| PartitionOp::EpochEnd {
            key: PartitionKey { topic_id, partition: asked.partition },
            leader_epoch: asked.leader_epoch,
            current_leader_epoch: asked.current_leader_epoch,
        };
        self.gather_named(now, context, topics, op, encode, out);
    }
}

fn encode(context: &RequestContext, topics: Named<'_>) -> Bytes {
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| OffsetForLeaderTopicResult {
            topic,
            partitions: partitions.into_iter().map(epoch_end).collect(),
            ..Default::default()
        })
        .collect();
    context.encode(&OffsetForLeaderEpochResponseData { topics, ..Default::default() })
}

fn epoch_end((partition, answer): (i32, &PartitionAnswer)) -> EpochEndOffset {
    let (error, leader_epoch, end_offset) = match answer {
        PartitionAnswer::EpochEnd { error, leader_epoch, end_offset } => (*error, *leader_epoch, *end_offset),
        _ => (ErrorCode::UnknownServerError, -1, -1),
    };
    EpochEndOffset { error_code: error.code(), partition, leader_epoch, end_offset, ..Default::default() }
}
