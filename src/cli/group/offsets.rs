//! Committed offsets of a group: asked for, and committed. Nothing is decided here.

use std::collections::BTreeMap;

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use pelton_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use pelton_wire::messages::{
    OffsetCommitRequestData, OffsetCommitResponseData, OffsetFetchRequestData, OffsetFetchResponseData,
};

use crate::cli::client::Client;
use crate::failure::Failure;

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// The newest versions spoken: the last that name topics instead of giving their ids.
const FETCH_VERSION: i16 = 9;
const COMMIT_VERSION: i16 = 9;
/// First version of OffsetFetch that asks for several groups at once.
const FETCH_GROUPS_FROM: i16 = 8;

/// Everything `group` has committed; empty if there is no such group.
pub fn committed(client: &mut Client, group: &str) -> Result<Offsets, Failure> {
    let request = |version: i16| {
        if version < FETCH_GROUPS_FROM {
            return OffsetFetchRequestData {
                group_id: group.to_string().into(),
                topics: None,
                ..OffsetFetchRequestData::default()
            };
        }
        let wanted = OffsetFetchRequestGroup {
            group_id: group.to_string().into(),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        };
        OffsetFetchRequestData { groups: vec![wanted], ..OffsetFetchRequestData::default() }
    };
    let whole = |answer: &OffsetFetchResponseData| {
        answer.groups.first().map_or(answer.error_code, |group| group.error_code)
    };
    let answer: OffsetFetchResponseData =
        client.ask_coordinator(group, ApiKey::OffsetFetch, FETCH_VERSION, request, whole)?;
    match ErrorCode::from_code(whole(&answer)) {
        ErrorCode::None => {}
        ErrorCode::GroupIdNotFound => return Ok(Offsets::new()),
        error => return Err(Failure::error(format!("group {group}: {error}"))),
    }
    let mut offsets = Offsets::new();
    let mut take = |topic: &str, partition: i32, offset: i64, error: i16| match ErrorCode::from_code(error) {
        // -1: nothing is committed.
        ErrorCode::None if offset < 0 => Ok(()),
        ErrorCode::None => {
            offsets.insert((topic.to_string(), partition), offset);
            Ok(())
        }
        error => Err(Failure::error(format!("group {group}, {topic}[{partition}]: {error}"))),
    };
    for topic in &answer.topics {
        for found in &topic.partitions {
            take(topic.name.as_str(), found.partition_index, found.committed_offset, found.error_code)?;
        }
    }
    for topic in answer.groups.iter().flat_map(|group| &group.topics) {
        for found in &topic.partitions {
            take(topic.name.as_str(), found.partition_index, found.committed_offset, found.error_code)?;
        }
    }
    Ok(offsets)
}

/// In whose name offsets are committed.
pub struct Committer<'a> {
    /// Group.
    pub group: &'a str,
    /// Generation, or -1 from outside of the group, which only one without members takes.
    pub generation: i32,
    /// Member id; empty from outside.
    pub member_id: &'a str,
    /// Id of a static member.
    pub instance_id: Option<&'a str>,
}

impl<'a> Committer<'a> {
    /// From outside of `group`.
    pub fn outside(group: &'a str) -> Committer<'a> {
        Committer { group, generation: -1, member_id: "", instance_id: None }
    }
}

/// Commits; how it went per partition.
pub fn commit(
    client: &mut Client,
    by: &Committer<'_>,
    offsets: &Offsets,
) -> Result<BTreeMap<(String, i32), ErrorCode>, Failure> {
    let request = |_version: i16| {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for ((topic, partition), offset) in offsets {
            let partition = OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_leader_epoch: -1,
                committed_metadata: Some(String::new().into()),
                ..OffsetCommitRequestPartition::default()
            };
            match topics.last_mut().filter(|last| last.name.as_str() == topic) {
                Some(last) => last.partitions.push(partition),
                None => topics.push(OffsetCommitRequestTopic {
                    name: topic.clone().into(),
                    partitions: vec![partition],
                    ..OffsetCommitRequestTopic::default()
                }),
            }
        }
        OffsetCommitRequestData {
            group_id: by.group.to_string().into(),
            generation_id_or_member_epoch: by.generation,
            member_id: by.member_id.to_string().into(),
            group_instance_id: by.instance_id.map(|id| id.to_string().into()),
            topics,
            ..OffsetCommitRequestData::default()
        }
    };
    let first = |answer: &OffsetCommitResponseData| {
        answer.topics.first().and_then(|topic| topic.partitions.first()).map_or(0, |found| found.error_code)
    };
    let answer: OffsetCommitResponseData =
        client.ask_coordinator(by.group, ApiKey::OffsetCommit, COMMIT_VERSION, request, first)?;
    let mut results = BTreeMap::new();
    for topic in &answer.topics {
        for found in &topic.partitions {
            let error = ErrorCode::from_code(found.error_code);
            results.insert((topic.name.to_string(), found.partition_index), error);
        }
    }
    Ok(results)
}
