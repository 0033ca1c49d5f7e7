//! OffsetCommit 2-10: who may commit, and what is stored. Acknowledged once durable.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use pelton_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use pelton_wire::messages::{OffsetCommitRequestData, OffsetCommitResponseData};

use crate::classic::ClassicGroup;
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::pending::{Then, Undo};
use crate::records::{OffsetValue, Record};
use crate::request::GroupResponse;
use crate::sabotage::Sabotage;

/// The first version that carries topic ids in place of names (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

fn partition_response(partition: i32, error: ErrorCode) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition {
        partition_index: partition,
        error_code: error.code(),
        ..Default::default()
    }
}

fn topic_response(
    topic: &OffsetCommitRequestTopic,
    api_version: i16,
    error: impl FnMut(&OffsetCommitRequestPartition) -> ErrorCode,
) -> OffsetCommitResponseTopic {
    let mut error = error;
    let mut response = OffsetCommitResponseTopic {
        partitions: topic
            .partitions
            .iter()
            .map(|p| partition_response(p.partition_index, error(p)))
            .collect(),
        ..Default::default()
    };
    if api_version >= TOPIC_IDS_FROM {
        response.topic_id = topic.topic_id;
    } else {
        response.name = topic.name.clone();
    }
    response
}

/// The same error for every partition.
pub(crate) fn refusal(
    request: &OffsetCommitRequestData,
    api_version: i16,
    error: ErrorCode,
) -> OffsetCommitResponseData {
    OffsetCommitResponseData {
        topics: request.topics.iter().map(|topic| topic_response(topic, api_version, |_| error)).collect(),
        ..Default::default()
    }
}

impl Coordinator {
    /// Checks the committer, then writes every offset that may be.
    pub(crate) fn offset_commit(
        &mut self,
        asker: Asker<'_>,
        request: OffsetCommitRequestData,
        turn: &mut Turn<'_>,
    ) {
        let group = request.group_id.as_str().to_string();
        if let Err(error) = self.check_commit(asker, &request, turn) {
            let response = refusal(&request, asker.version(), error);
            return turn.answer(asker.token, GroupResponse::OffsetCommit(response));
        }
        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let known = turn.topics.topic(topic.name.as_str()).is_some();
            topics.push(topic_response(topic, asker.version(), |partition| {
                let metadata = partition.committed_metadata.as_ref().map_or("", |text| text.as_str());
                if !known || partition.partition_index < 0 {
                    return ErrorCode::UnknownTopicOrPartition;
                }
                if metadata.len() > self.config.offset_metadata_max_bytes {
                    return ErrorCode::OffsetMetadataTooLarge;
                }
                records.push(Record::Offset {
                    group: group.clone(),
                    topic: topic.name.as_str().to_string(),
                    partition: partition.partition_index,
                    value: Some(offset_value(&request, partition, metadata, turn.now.wall_ms)),
                });
                ErrorCode::None
            }));
        }
        if !records.is_empty() {
            let mut undo = Vec::new();
            // Offsets of a group that nobody joins make it known (DescribeGroups, ListGroups).
            if !self.groups.contains_key(&group) {
                self.groups.insert(group.clone(), Group::Classic(ClassicGroup::default()));
                undo.push(Undo::Group { id: group.clone(), group: None });
            }
            self.write(records, undo, Then::Nothing, turn);
        }
        let response = OffsetCommitResponseData { topics, ..Default::default() };
        let response = GroupResponse::OffsetCommit(response);
        self.answer_durable([group.as_str()], asker.token, response, turn);
    }

    /// Whether this committer may commit now. Hearing of a classic member counts as a heartbeat.
    fn check_commit(
        &mut self,
        asker: Asker<'_>,
        request: &OffsetCommitRequestData,
        turn: &mut Turn<'_>,
    ) -> Result<(), ErrorCode> {
        let id = request.group_id.as_str();
        let epoch = request.generation_id_or_member_epoch;
        let member = request.member_id.as_str();
        let instance = request.group_instance_id.as_ref().map(|id| id.as_str());
        match self.groups.get(id) {
            None if epoch < 0 && self.has_room(id) => Ok(()),
            None if epoch < 0 => Err(ErrorCode::PolicyViolation),
            None if asker.version() >= 9 => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
            Some(Group::Classic(group)) => {
                if !self.sabotaged(Sabotage::SkipGenerationCheck) {
                    group.check_commit(member, instance, epoch)?;
                }
                self.set_classic_session(id, member, turn);
                Ok(())
            }
            Some(Group::Consumer(_)) if self.sabotaged(Sabotage::SkipEpochCheck) => Ok(()),
            Some(Group::Consumer(group)) => group.check_commit(member, epoch, asker.version()),
        }
    }

    /// Removes the offsets of topics that are gone, in every group (Kafka's onPartitionsDeleted). Call it when topics
    /// have been deleted.
    pub fn topics_deleted(
        &mut self,
        now: pelton_model::Now,
        names: &[String],
        topics: &dyn crate::TopicsView,
        out: &mut Vec<crate::GroupEffect>,
    ) {
        let mut turn = Turn { now, topics, out };
        let mut records = Vec::new();
        for name in names {
            for (group, partition) in self.offsets.of_topic(name) {
                records.push(Record::Offset { group, topic: name.clone(), partition, value: None });
            }
        }
        self.write_tombstones(records, &mut turn);
    }
}

fn offset_value(
    request: &OffsetCommitRequestData,
    partition: &OffsetCommitRequestPartition,
    metadata: &str,
    now_ms: i64,
) -> OffsetValue {
    let expire_timestamp_ms = match request.retention_time_ms {
        -1 => -1,
        retention_ms => now_ms.saturating_add(retention_ms.max(0)),
    };
    OffsetValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: metadata.to_string(),
        commit_timestamp_ms: now_ms,
        expire_timestamp_ms,
    }
}
