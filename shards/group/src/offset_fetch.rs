//! OffsetFetch 1-10: one group, or many from version 8; some topics or all. Waits for commits that are under way, so
//! that an answer is never older or newer than what is stored (I15). Never changes anything.

use std::collections::BTreeMap;

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use pelton_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use pelton_wire::messages::{KafkaUuid, OffsetFetchRequestData, OffsetFetchResponseData};

use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::records::OffsetValue;
use crate::request::{GroupResponse, text};
use crate::sabotage::Sabotage;

/// The first version that asks for several groups (KIP-709).
const GROUPS_FROM: i16 = 8;
/// The first version that carries topic ids in place of names (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

/// The request as groups, whatever its version.
fn as_groups(request: &OffsetFetchRequestData, api_version: i16) -> Vec<OffsetFetchRequestGroup> {
    if api_version >= GROUPS_FROM {
        return request.groups.clone();
    }
    let topics = request.topics.as_ref().map(|topics| {
        let topic = |topic: &pelton_wire::messages::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics {
                name: topic.name.clone(),
                partition_indexes: topic.partition_indexes.clone(),
                ..Default::default()
            }
        };
        topics.iter().map(topic).collect()
    });
    vec![OffsetFetchRequestGroup { group_id: request.group_id.clone(), topics, ..Default::default() }]
}

/// Groups as the answer of a version.
fn as_response(mut groups: Vec<OffsetFetchResponseGroup>, api_version: i16) -> OffsetFetchResponseData {
    if api_version >= GROUPS_FROM {
        return OffsetFetchResponseData { groups, ..Default::default() };
    }
    let Some(group) = groups.pop() else { return OffsetFetchResponseData::default() };
    let partition = |p: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        // Version 1 has no error of the whole.
        error_code: if api_version < 2 && group.error_code != 0 { group.error_code } else { p.error_code },
        ..Default::default()
    };
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..Default::default()
    };
    OffsetFetchResponseData {
        topics: group.topics.into_iter().map(topic).collect(),
        error_code: if api_version < 2 { 0 } else { group.error_code },
        ..Default::default()
    }
}

fn partition_response(partition: i32, value: Option<&OffsetValue>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: value.map_or(-1, |value| value.offset),
        committed_leader_epoch: value.map_or(-1, |value| value.leader_epoch),
        metadata: Some(text(value.map_or("", |value| &value.metadata))),
        ..Default::default()
    }
}

fn refused_group(
    request: &OffsetFetchRequestGroup,
    version: i16,
    error: ErrorCode,
) -> OffsetFetchResponseGroup {
    let topic = |topic: &OffsetFetchRequestTopics| OffsetFetchResponseTopics {
        name: topic.name.clone(),
        partitions: topic.partition_indexes.iter().map(|p| partition_response(*p, None)).collect(),
        ..Default::default()
    };
    // Only version 1 has to say it per partition.
    let topics = if version < 2 { request.topics.iter().flatten().map(topic).collect() } else { Vec::new() };
    OffsetFetchResponseGroup {
        group_id: request.group_id.clone(),
        topics,
        error_code: error.code(),
        ..Default::default()
    }
}

/// The same error for every group.
pub(crate) fn refusal(
    request: &OffsetFetchRequestData,
    api_version: i16,
    error: ErrorCode,
) -> OffsetFetchResponseData {
    let groups = as_groups(request, api_version);
    as_response(groups.iter().map(|group| refused_group(group, api_version, error)).collect(), api_version)
}

/// Takes the offsets back out of an answer.
pub(crate) fn fail(response: &mut OffsetFetchResponseData, error: ErrorCode) {
    for group in &mut response.groups {
        group.topics.clear();
        group.error_code = error.code();
    }
    if response.groups.is_empty() {
        response.error_code = error.code();
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.committed_offset = -1;
            partition.error_code = error.code();
        }
    }
}

impl Coordinator {
    /// Answers when what was committed before is durable.
    pub(crate) fn offset_fetch(
        &mut self,
        asker: Asker<'_>,
        request: OffsetFetchRequestData,
        turn: &mut Turn<'_>,
    ) {
        let version = asker.version();
        let asked = as_groups(&request, version);
        let groups = asked.iter().map(|group| self.fetch_group(group, version, turn)).collect();
        let response = GroupResponse::OffsetFetch(as_response(groups, version));
        if self.sabotaged(Sabotage::FetchBeforeDurable) {
            return turn.answer(asker.token, response);
        }
        let ids = asked.iter().map(|group| group.group_id.as_str());
        self.answer_durable(ids, asker.token, response, turn);
    }

    fn fetch_group(
        &self,
        request: &OffsetFetchRequestGroup,
        version: i16,
        turn: &Turn<'_>,
    ) -> OffsetFetchResponseGroup {
        let id = request.group_id.as_str();
        if let Some(Group::Consumer(group)) = self.groups.get(id) {
            let member = request.member_id.as_ref().map(|member| member.as_str());
            if let Err(error) = group.check_fetch(member, request.member_epoch) {
                return refused_group(request, version, error);
            }
        }
        let topics = match &request.topics {
            Some(topics) => topics.iter().map(|topic| self.fetch_topic(id, topic, version)).collect(),
            None => self.fetch_all(id, version, turn),
        };
        OffsetFetchResponseGroup { group_id: request.group_id.clone(), topics, ..Default::default() }
    }

    fn fetch_topic(
        &self,
        group: &str,
        topic: &OffsetFetchRequestTopics,
        version: i16,
    ) -> OffsetFetchResponseTopics {
        let offset = |partition: &i32| {
            partition_response(*partition, self.offsets.get(group, topic.name.as_str(), *partition))
        };
        let mut response = OffsetFetchResponseTopics {
            partitions: topic.partition_indexes.iter().map(offset).collect(),
            ..Default::default()
        };
        if version >= TOPIC_IDS_FROM {
            response.topic_id = topic.topic_id;
        } else {
            response.name = topic.name.clone();
        }
        response
    }

    fn fetch_all(&self, group: &str, version: i16, turn: &Turn<'_>) -> Vec<OffsetFetchResponseTopics> {
        let mut topics: BTreeMap<&str, OffsetFetchResponseTopics> = BTreeMap::new();
        for (name, partition, value) in self.offsets.of_group(group) {
            let response = match topics.get_mut(name) {
                Some(response) => response,
                None => {
                    let mut response = OffsetFetchResponseTopics::default();
                    if version >= TOPIC_IDS_FROM {
                        // A topic without an id is gone; its offsets follow it.
                        let Some((id, _)) = turn.topics.topic(name) else { continue };
                        response.topic_id = KafkaUuid::from(id.0);
                    } else {
                        response.name = text(name);
                    }
                    topics.entry(name).or_insert(response)
                }
            };
            response.partitions.push(partition_response(partition, Some(value)));
        }
        topics.into_values().collect()
    }
}
