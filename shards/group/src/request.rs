//! What can be asked of a coordinator and what it answers, and how an answer becomes a refusal.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ConsumerGroupDescribeRequestData, ConsumerGroupDescribeResponseData, ConsumerGroupHeartbeatRequestData,
    ConsumerGroupHeartbeatResponseData, DeleteGroupsRequestData, DeleteGroupsResponseData,
    DescribeGroupsRequestData, DescribeGroupsResponseData, HeartbeatRequestData, HeartbeatResponseData,
    JoinGroupRequestData, JoinGroupResponseData, KafkaString, LeaveGroupRequestData, LeaveGroupResponseData,
    ListGroupsRequestData, ListGroupsResponseData, OffsetCommitRequestData, OffsetCommitResponseData,
    OffsetDeleteRequestData, OffsetDeleteResponseData, OffsetFetchRequestData, OffsetFetchResponseData,
    SyncGroupRequestData, SyncGroupResponseData, consumer_group_describe_response, delete_groups_response,
    describe_groups_response,
};

/// The caller's name for a request; returned with its answer, never looked into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestToken(pub u64);

/// Who asks, and in which version.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Version of the request.
    pub api_version: i16,
    /// `client.id` of the request header; empty if none.
    pub client_id: String,
    /// The client's address as Kafka writes it, `/127.0.0.1`.
    pub client_host: String,
}

/// A request. One that names several groups (OffsetFetch from 8, DescribeGroups, DeleteGroups, ConsumerGroupDescribe)
/// must name only groups of this coordinator: the caller splits it and joins the answers.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum GroupRequest {
    OffsetCommit(OffsetCommitRequestData),
    OffsetFetch(OffsetFetchRequestData),
    OffsetDelete(OffsetDeleteRequestData),
    JoinGroup(JoinGroupRequestData),
    SyncGroup(SyncGroupRequestData),
    Heartbeat(HeartbeatRequestData),
    LeaveGroup(LeaveGroupRequestData),
    ListGroups(ListGroupsRequestData),
    DescribeGroups(DescribeGroupsRequestData),
    DeleteGroups(DeleteGroupsRequestData),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequestData),
    ConsumerGroupDescribe(ConsumerGroupDescribeRequestData),
}

/// An answer, ready to be written in the request's version.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum GroupResponse {
    OffsetCommit(OffsetCommitResponseData),
    OffsetFetch(OffsetFetchResponseData),
    OffsetDelete(OffsetDeleteResponseData),
    JoinGroup(JoinGroupResponseData),
    SyncGroup(SyncGroupResponseData),
    Heartbeat(HeartbeatResponseData),
    LeaveGroup(LeaveGroupResponseData),
    ListGroups(ListGroupsResponseData),
    DescribeGroups(DescribeGroupsResponseData),
    DeleteGroups(DeleteGroupsResponseData),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponseData),
    ConsumerGroupDescribe(ConsumerGroupDescribeResponseData),
}

/// A string of the messages crate.
pub(crate) fn text(string: &str) -> KafkaString {
    KafkaString::from(string.to_string())
}

/// An owned string, none for null.
pub(crate) fn owned(string: &Option<KafkaString>) -> Option<String> {
    string.as_ref().map(|string| string.as_str().to_string())
}

/// The refusal of a whole request, in the shape its API has.
pub fn refusal(request: &GroupRequest, api_version: i16, error: ErrorCode) -> GroupResponse {
    let code = error.code();
    match request {
        GroupRequest::OffsetCommit(request) => {
            GroupResponse::OffsetCommit(crate::offset_commit::refusal(request, api_version, error))
        }
        GroupRequest::OffsetFetch(request) => {
            GroupResponse::OffsetFetch(crate::offset_fetch::refusal(request, api_version, error))
        }
        GroupRequest::OffsetDelete(_) => {
            GroupResponse::OffsetDelete(OffsetDeleteResponseData { error_code: code, ..Default::default() })
        }
        GroupRequest::JoinGroup(request) => GroupResponse::JoinGroup(crate::classic::join_refusal(
            api_version,
            request.member_id.as_str(),
            error,
        )),
        GroupRequest::SyncGroup(_) => {
            GroupResponse::SyncGroup(SyncGroupResponseData { error_code: code, ..Default::default() })
        }
        GroupRequest::Heartbeat(_) => {
            GroupResponse::Heartbeat(HeartbeatResponseData { error_code: code, ..Default::default() })
        }
        GroupRequest::LeaveGroup(_) => {
            GroupResponse::LeaveGroup(LeaveGroupResponseData { error_code: code, ..Default::default() })
        }
        GroupRequest::ListGroups(_) => {
            GroupResponse::ListGroups(ListGroupsResponseData { error_code: code, ..Default::default() })
        }
        GroupRequest::DescribeGroups(request) => GroupResponse::DescribeGroups(DescribeGroupsResponseData {
            groups: request.groups.iter().map(|group| describe_refusal(group, code)).collect(),
            ..Default::default()
        }),
        GroupRequest::DeleteGroups(request) => GroupResponse::DeleteGroups(DeleteGroupsResponseData {
            results: request.groups_names.iter().map(|group| delete_result(group, code)).collect(),
            ..Default::default()
        }),
        GroupRequest::ConsumerGroupHeartbeat(_) => {
            GroupResponse::ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponseData {
                error_code: code,
                ..Default::default()
            })
        }
        GroupRequest::ConsumerGroupDescribe(request) => {
            let group = |group: &KafkaString| consumer_group_describe_response::DescribedGroup {
                error_code: code,
                group_id: group.clone(),
                ..Default::default()
            };
            GroupResponse::ConsumerGroupDescribe(ConsumerGroupDescribeResponseData {
                groups: request.group_ids.iter().map(group).collect(),
                ..Default::default()
            })
        }
    }
}

fn describe_refusal(group: &KafkaString, code: i16) -> describe_groups_response::DescribedGroup {
    describe_groups_response::DescribedGroup {
        error_code: code,
        group_id: group.clone(),
        ..Default::default()
    }
}

fn delete_result(group: &KafkaString, code: i16) -> delete_groups_response::DeletableGroupResult {
    delete_groups_response::DeletableGroupResult {
        group_id: group.clone(),
        error_code: code,
        ..Default::default()
    }
}

impl GroupResponse {
    /// Turns an answer that waited for the log into a refusal: what it says was not stored. Errors in it stay.
    pub(crate) fn fail(&mut self, error: ErrorCode) {
        let code = error.code();
        let set = |field: &mut i16| {
            if *field == 0 {
                *field = code;
            }
        };
        match self {
            GroupResponse::OffsetCommit(response) => {
                response
                    .topics
                    .iter_mut()
                    .flat_map(|t| &mut t.partitions)
                    .for_each(|p| set(&mut p.error_code));
            }
            GroupResponse::OffsetFetch(response) => crate::offset_fetch::fail(response, error),
            GroupResponse::OffsetDelete(response) => set(&mut response.error_code),
            GroupResponse::JoinGroup(response) => set(&mut response.error_code),
            GroupResponse::SyncGroup(response) => set(&mut response.error_code),
            GroupResponse::Heartbeat(response) => set(&mut response.error_code),
            GroupResponse::LeaveGroup(response) => set(&mut response.error_code),
            GroupResponse::ListGroups(response) => {
                response.groups.clear();
                set(&mut response.error_code);
            }
            GroupResponse::DescribeGroups(response) => {
                for group in &mut response.groups {
                    *group = describe_refusal(&group.group_id, code);
                }
            }
            GroupResponse::DeleteGroups(response) => {
                response.results.iter_mut().for_each(|result| set(&mut result.error_code));
            }
            GroupResponse::ConsumerGroupHeartbeat(response) => {
                response.assignment = None;
                set(&mut response.error_code);
            }
            GroupResponse::ConsumerGroupDescribe(response) => {
                for group in &mut response.groups {
                    group.members.clear();
                    set(&mut group.error_code);
                }
            }
        }
    }
}
