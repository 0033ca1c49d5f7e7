//! The APIs of groups (keys 8, 9, 11-16, 42, 47, 68, 69): from a frame to the coordinators that are asked, and from their
//! answers to the client's. What they mean is in the crate `group`.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_cluster::image::MetadataImage;
use pelton_group::{
    GroupRequest, GroupResponse, RequestContext as AskContext, coordinator_partition, refusal,
};
use pelton_model::{Now, TopicId};
use pelton_wire::WireError;
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{self as m, KafkaString, KafkaUuid, decode};

use crate::Shard;
use crate::api::RequestContext;
use crate::effect::Effect;
use crate::message::GroupAsk;

/// OffsetCommit and OffsetFetch name topics by id from this version on (KIP-848).
const TOPIC_ID_VERSION: i16 = 10;
/// OffsetFetch names several groups from this version on (KIP-709).
const FETCH_GROUPS_VERSION: i16 = 8;
/// Operations a client may do on a group where nothing is forbidden, as bits of Kafka's AclOperation: read, delete,
/// describe, describe configs, alter configs.
const GROUP_OPERATIONS: i32 = (1 << 3) | (1 << 6) | (1 << 8) | (1 << 10) | (1 << 11);

impl Shard {
    /// Takes a request of any of the group APIs.
    pub(crate) fn group_request(
        &mut self,
        now: Now,
        context: &RequestContext,
        body: Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), WireError> {
        let mut request = read(context.api_key, context.version, body)?;
        let unknown_ids = name_topics(&self.image, context.version, &mut request);
        let operations = wants_operations(&request);
        let Some(partitions) = self.offsets_partitions() else {
            // Nobody has looked for a coordinator yet: there are no groups, and no coordinator here.
            let response = match request {
                GroupRequest::ListGroups(_) => {
                    GroupResponse::ListGroups(m::ListGroupsResponseData::default())
                }
                request => refusal(&request, context.version, ErrorCode::NotCoordinator),
            };
            let response = write(context, &response);
            self.respond(context.request, response, out);
            return Ok(());
        };
        let client_host = match self.connections.get(context.request.connection) {
            Some(connection) => host_of(&connection.peer),
            None => String::new(),
        };
        let ask_context = AskContext {
            api_version: context.version,
            client_id: context.client_id.clone().unwrap_or_default(),
            client_host,
        };
        let empty = empty_response(&request);
        let split = match request {
            GroupRequest::ListGroups(request) => {
                self.list_from(partitions).map(|p| (p, GroupRequest::ListGroups(request.clone()))).collect()
            }
            // No group: every coordinator refuses it alike, as Kafka does before it looks for one.
            request if has_no_group(&request) => vec![(self.any_coordinator().unwrap_or(0), request)],
            request => split(request, context.version, partitions),
        };
        let asks = split.into_iter().map(|(partition, request)| GroupAsk {
            partition,
            context: ask_context.clone(),
            request,
        });
        let shape_context = context.clone();
        let shape = Box::new(move |responses: Vec<GroupResponse>| {
            let mut response = join(empty, responses);
            if operations {
                set_operations(&mut response);
            }
            say_unknown_ids(&unknown_ids, &mut response);
            write(&shape_context, &response)
        });
        self.ask_groups(now, context.request, asks.collect(), shape, out);
        Ok(())
    }

    /// Partitions of `__consumer_offsets` whose groups this broker lists: those of its own coordinators.
    fn list_from(&self, partitions: i32) -> impl Iterator<Item = i32> + '_ {
        (0..partitions).filter(|partition| self.serves_foreign() || self.has_coordinator(*partition))
    }
}

/// `/127.0.0.1`, as Kafka writes it.
fn host_of(peer: &str) -> String {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    format!("/{}", host.trim_start_matches('[').trim_end_matches(']'))
}

fn read(api_key: ApiKey, version: i16, body: Bytes) -> Result<GroupRequest, WireError> {
    Ok(match api_key {
        ApiKey::OffsetCommit => GroupRequest::OffsetCommit(decode(version, body)?),
        ApiKey::OffsetFetch => GroupRequest::OffsetFetch(decode(version, body)?),
        ApiKey::OffsetDelete => GroupRequest::OffsetDelete(decode(version, body)?),
        ApiKey::JoinGroup => GroupRequest::JoinGroup(decode(version, body)?),
        ApiKey::SyncGroup => GroupRequest::SyncGroup(decode(version, body)?),
        ApiKey::Heartbeat => GroupRequest::Heartbeat(decode(version, body)?),
        ApiKey::LeaveGroup => GroupRequest::LeaveGroup(decode(version, body)?),
        ApiKey::ListGroups => GroupRequest::ListGroups(decode(version, body)?),
        ApiKey::DescribeGroups => GroupRequest::DescribeGroups(decode(version, body)?),
        ApiKey::DeleteGroups => GroupRequest::DeleteGroups(decode(version, body)?),
        ApiKey::ConsumerGroupHeartbeat => GroupRequest::ConsumerGroupHeartbeat(decode(version, body)?),
        ApiKey::ConsumerGroupDescribe => GroupRequest::ConsumerGroupDescribe(decode(version, body)?),
        other => return Err(WireError::NotServed(other.name())),
    })
}

fn write(context: &RequestContext, response: &GroupResponse) -> Bytes {
    match response {
        GroupResponse::OffsetCommit(response) => context.encode(response),
        GroupResponse::OffsetFetch(response) => context.encode(response),
        GroupResponse::OffsetDelete(response) => context.encode(response),
        GroupResponse::JoinGroup(response) => context.encode(response),
        GroupResponse::SyncGroup(response) => context.encode(response),
        GroupResponse::Heartbeat(response) => context.encode(response),
        GroupResponse::LeaveGroup(response) => context.encode(response),
        GroupResponse::ListGroups(response) => context.encode(response),
        GroupResponse::DescribeGroups(response) => context.encode(response),
        GroupResponse::DeleteGroups(response) => context.encode(response),
        GroupResponse::ConsumerGroupHeartbeat(response) => context.encode(response),
        GroupResponse::ConsumerGroupDescribe(response) => context.encode(response),
    }
}

/// A request of a member that names no group. (Offsets may be kept under the empty name.)
fn has_no_group(request: &GroupRequest) -> bool {
    match request {
        GroupRequest::JoinGroup(request) => request.group_id.as_str().is_empty(),
        GroupRequest::SyncGroup(request) => request.group_id.as_str().is_empty(),
        GroupRequest::Heartbeat(request) => request.group_id.as_str().is_empty(),
        GroupRequest::LeaveGroup(request) => request.group_id.as_str().is_empty(),
        GroupRequest::ConsumerGroupHeartbeat(request) => request.group_id.as_str().is_empty(),
        _ => false,
    }
}

/// Each coordinator's share of a request.
fn split(request: GroupRequest, version: i16, partitions: i32) -> Vec<(i32, GroupRequest)> {
    let of = |group: &KafkaString| coordinator_partition(group.as_str(), partitions);
    let one = |group: &KafkaString, request: GroupRequest| vec![(of(group), request)];
    match request {
        GroupRequest::OffsetFetch(request) if version >= FETCH_GROUPS_VERSION => {
            let require_stable = request.require_stable;
            let shares = by_coordinator(request.groups, |group| of(&group.group_id));
            let share = |groups| m::OffsetFetchRequestData { groups, require_stable, ..Default::default() };
            shares.into_iter().map(|(p, groups)| (p, GroupRequest::OffsetFetch(share(groups)))).collect()
        }
        GroupRequest::DescribeGroups(request) => {
            let shares = by_coordinator(request.groups, of).into_iter();
            let share = |groups| m::DescribeGroupsRequestData { groups, ..Default::default() };
            shares.map(|(p, groups)| (p, GroupRequest::DescribeGroups(share(groups)))).collect()
        }
        GroupRequest::DeleteGroups(request) => {
            let shares = by_coordinator(request.groups_names, of).into_iter();
            let share = |groups_names| m::DeleteGroupsRequestData { groups_names, ..Default::default() };
            shares.map(|(p, groups)| (p, GroupRequest::DeleteGroups(share(groups)))).collect()
        }
        GroupRequest::ConsumerGroupDescribe(request) => {
            let shares = by_coordinator(request.group_ids, of).into_iter();
            let share = |group_ids| m::ConsumerGroupDescribeRequestData { group_ids, ..Default::default() };
            shares.map(|(p, groups)| (p, GroupRequest::ConsumerGroupDescribe(share(groups)))).collect()
        }
        GroupRequest::OffsetCommit(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::OffsetFetch(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::OffsetDelete(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::JoinGroup(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::SyncGroup(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::Heartbeat(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::LeaveGroup(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::ConsumerGroupHeartbeat(ref it) => one(&it.group_id.clone(), request),
        GroupRequest::ListGroups(_) => Vec::new(),
    }
}

fn by_coordinator<G>(groups: Vec<G>, of: impl Fn(&G) -> i32) -> BTreeMap<i32, Vec<G>> {
    let mut shares: BTreeMap<i32, Vec<G>> = BTreeMap::new();
    for group in groups {
        shares.entry(of(&group)).or_default().push(group);
    }
    shares
}

/// The answer to a request that names nothing.
fn empty_response(request: &GroupRequest) -> GroupResponse {
    match request {
        GroupRequest::OffsetFetch(_) => GroupResponse::OffsetFetch(m::OffsetFetchResponseData::default()),
        GroupRequest::DescribeGroups(_) => {
            GroupResponse::DescribeGroups(m::DescribeGroupsResponseData::default())
        }
        GroupRequest::DeleteGroups(_) => GroupResponse::DeleteGroups(m::DeleteGroupsResponseData::default()),
        GroupRequest::ConsumerGroupDescribe(_) => {
            GroupResponse::ConsumerGroupDescribe(m::ConsumerGroupDescribeResponseData::default())
        }
        _ => GroupResponse::ListGroups(m::ListGroupsResponseData::default()),
    }
}

/// The coordinators' answers as one; their order is that of partitions, as with Kafka.
fn join(empty: GroupResponse, responses: Vec<GroupResponse>) -> GroupResponse {
    let joined = responses.into_iter().reduce(|mut all, one| {
        match (&mut all, one) {
            (GroupResponse::OffsetFetch(all), GroupResponse::OffsetFetch(one)) => {
                all.groups.extend(one.groups)
            }
            (GroupResponse::DescribeGroups(all), GroupResponse::DescribeGroups(one)) => {
                all.groups.extend(one.groups);
            }
            (GroupResponse::DeleteGroups(all), GroupResponse::DeleteGroups(one)) => {
                all.results.extend(one.results);
            }
            (GroupResponse::ConsumerGroupDescribe(all), GroupResponse::ConsumerGroupDescribe(one)) => {
                all.groups.extend(one.groups);
            }
            (GroupResponse::ListGroups(all), GroupResponse::ListGroups(one)) => {
                all.groups.extend(one.groups);
                // One that is still loading makes the list incomplete: none is given.
                if all.error_code == 0 {
                    all.error_code = one.error_code;
                }
                if all.error_code != 0 {
                    all.groups.clear();
                }
            }
            _ => {}
        }
        all
    });
    joined.unwrap_or(empty)
}

fn wants_operations(request: &GroupRequest) -> bool {
    match request {
        GroupRequest::DescribeGroups(request) => request.include_authorized_operations,
        GroupRequest::ConsumerGroupDescribe(request) => request.include_authorized_operations,
        _ => false,
    }
}

fn set_operations(response: &mut GroupResponse) {
    match response {
        GroupResponse::DescribeGroups(response) => {
            let found = response.groups.iter_mut().filter(|group| group.error_code == 0);
            found.for_each(|group| group.authorized_operations = GROUP_OPERATIONS);
        }
        GroupResponse::ConsumerGroupDescribe(response) => {
            let found = response.groups.iter_mut().filter(|group| group.error_code == 0);
            found.for_each(|group| group.authorized_operations = GROUP_OPERATIONS);
        }
        _ => {}
    }
}

/// Offsets are kept under topic names: puts them beside the ids of a request that has ids. The ids nobody has.
fn name_topics(image: &MetadataImage, version: i16, request: &mut GroupRequest) -> Vec<KafkaUuid> {
    let mut unknown = Vec::new();
    if version < TOPIC_ID_VERSION {
        return unknown;
    }
    let mut set_name = |id: &KafkaUuid, name: &mut KafkaString| match image.topic_by_id(TopicId((*id).into()))
    {
        Some(topic) => *name = KafkaString::from(topic.name.clone()),
        None => unknown.push(*id),
    };
    match request {
        GroupRequest::OffsetCommit(request) => {
            request.topics.iter_mut().for_each(|topic| set_name(&topic.topic_id, &mut topic.name));
        }
        GroupRequest::OffsetFetch(request) => {
            let topics = request.groups.iter_mut().flat_map(|group| group.topics.iter_mut().flatten());
            topics.for_each(|topic| set_name(&topic.topic_id, &mut topic.name));
        }
        _ => {}
    }
    unknown
}

/// A coordinator knows no ids: it has found no topic under the empty name.
fn say_unknown_ids(unknown: &[KafkaUuid], response: &mut GroupResponse) {
    if unknown.is_empty() {
        return;
    }
    let code = ErrorCode::UnknownTopicId.code();
    match response {
        GroupResponse::OffsetCommit(response) => {
            for topic in response.topics.iter_mut().filter(|topic| unknown.contains(&topic.topic_id)) {
                let not_found = ErrorCode::UnknownTopicOrPartition.code();
                let partitions = topic.partitions.iter_mut().filter(|p| p.error_code == not_found);
                partitions.for_each(|partition| partition.error_code = code);
            }
        }
        GroupResponse::OffsetFetch(response) => {
            let topics = response.groups.iter_mut().flat_map(|group| &mut group.topics);
            for topic in topics.filter(|topic| unknown.contains(&topic.topic_id)) {
                topic.partitions.iter_mut().for_each(|partition| partition.error_code = code);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_kafka_does() {
        assert_eq!(host_of("127.0.0.1:5001"), "/127.0.0.1");
        assert_eq!(host_of("[::1]:5001"), "/::1");
        assert_eq!(host_of("test"), "/test");
    }

    #[test]
    fn every_group_is_asked_for_once_at_its_coordinator() {
        let name = |i: i32| KafkaString::from(format!("g{i}"));
        let groups: Vec<KafkaString> = (0..40).map(name).collect();
        let request = m::DescribeGroupsRequestData { groups: groups.clone(), ..Default::default() };
        let shares = split(GroupRequest::DescribeGroups(request), 5, 7);
        let mut asked = Vec::new();
        for (partition, share) in shares {
            let GroupRequest::DescribeGroups(share) = share else { panic!("another request") };
            assert!(share.groups.iter().all(|id| coordinator_partition(id.as_str(), 7) == partition));
            asked.extend(share.groups);
        }
        let sorted = |mut names: Vec<KafkaString>| {
            names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            names
        };
        assert_eq!(sorted(asked), sorted(groups));
    }
}
