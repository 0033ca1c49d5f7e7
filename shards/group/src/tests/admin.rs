//! What administrators see: lists, descriptions, deletions; and groups of both protocols under one name.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_groups_response::DescribedGroup;
use pelton_wire::messages::{
    ConsumerGroupHeartbeatRequestData, DeleteGroupsRequestData, DescribeGroupsRequestData,
    ListGroupsRequestData,
};

use super::client::{ONE_STEP, consumer, fixed, subscription};
use super::kit::{GROUP, Kit};
use crate::classic::ClassicState;
use crate::request::text;
use crate::{GroupRequest, GroupResponse};

fn describe(kit: &mut Kit, version: i16, id: &str) -> DescribedGroup {
    let request = DescribeGroupsRequestData { groups: vec![text(id)], ..Default::default() };
    let token = kit.ask(version, GroupRequest::DescribeGroups(request));
    match kit.take(token) {
        Some(GroupResponse::DescribeGroups(mut response)) => response.groups.remove(0),
        other => panic!("not described: {other:?}"),
    }
}

/// Id, protocol type, state and type of the groups that pass the filters.
fn list(kit: &mut Kit, version: i16, states: &[&str], types: &[&str]) -> Vec<String> {
    let texts = |names: &[&str]| names.iter().map(|name| text(name)).collect();
    let request = ListGroupsRequestData {
        states_filter: texts(states),
        types_filter: texts(types),
        ..Default::default()
    };
    let token = kit.ask(version, GroupRequest::ListGroups(request));
    let Some(GroupResponse::ListGroups(response)) = kit.take(token) else { panic!("not listed") };
    let line = |group: &pelton_wire::messages::list_groups_response::ListedGroup| {
        let parts = [&group.group_id, &group.protocol_type, &group.group_state, &group.group_type];
        parts.map(|part| part.as_str()).join("|")
    };
    response.groups.iter().map(line).collect()
}

fn delete(kit: &mut Kit, ids: &[&str]) -> Vec<i16> {
    let groups_names = ids.iter().map(|id| text(id)).collect();
    let request = DeleteGroupsRequestData { groups_names, ..Default::default() };
    let token = kit.ask(2, GroupRequest::DeleteGroups(request));
    match kit.take(token) {
        Some(GroupResponse::DeleteGroups(response)) => {
            response.results.iter().map(|result| result.error_code).collect()
        }
        other => panic!("not deleted: {other:?}"),
    }
}

/// A KIP-848 member joins `id`; its answer's error.
fn join_new(kit: &mut Kit, id: &str) -> i16 {
    let request = ConsumerGroupHeartbeatRequestData {
        group_id: text(id),
        member_id: text("new"),
        member_epoch: 0,
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![text("t")]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    let token = kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(request));
    match kit.take(token) {
        Some(GroupResponse::ConsumerGroupHeartbeat(response)) => response.error_code,
        other => panic!("not a heartbeat: {other:?}"),
    }
}

#[test]
fn a_description_in_each_state() {
    let mut kit = Kit::new();
    let token = kit.join(9, fixed("i", ""));
    let described = describe(&mut kit, 5, GROUP);
    assert_eq!(
        (described.group_state.as_str(), described.protocol_data.as_str()),
        ("PreparingRebalance", "")
    );
    assert_eq!((described.members.len(), described.protocol_type.as_str()), (1, "consumer"));
    assert_eq!(described.members[0].member_metadata, "");
    kit.pass_ms(6_000);
    let id = kit.joined(token).expect("joined").member_id.as_str().to_string();
    assert_eq!(describe(&mut kit, 5, GROUP).group_state.as_str(), "CompletingRebalance");
    kit.sync_all(std::slice::from_ref(&id), 1);
    let described = describe(&mut kit, 5, GROUP);
    assert_eq!((described.group_state.as_str(), described.protocol_data.as_str()), ("Stable", "range"));
    let member = &described.members[0];
    assert_eq!((member.member_id.as_str(), &member.group_instance_id), (id.as_str(), &Some(text("i"))));
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("client", "/127.0.0.1"));
    assert_eq!(member.member_metadata, subscription());
    assert_eq!(member.member_assignment, Bytes::from(format!("for {id}")));
    kit.join(ONE_STEP, consumer(""));
    let described = describe(&mut kit, 5, GROUP);
    assert_eq!(
        (described.group_state.as_str(), described.protocol_data.as_str()),
        ("PreparingRebalance", "")
    );
    let member = &described.members[1];
    assert_eq!((member.member_id.as_str(), &member.member_assignment[..]), (id.as_str(), &b""[..]));
    let other = described.members[0].member_id.as_str().to_string();
    kit.leave(&[(&other, None)]);
    kit.leave(&[(&id, None)]);
    let described = describe(&mut kit, 5, GROUP);
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Empty", 0));
    assert_eq!(described.protocol_type.as_str(), "consumer");
}

#[test]
fn a_group_that_is_not_there_is_dead_or_an_error() {
    let mut kit = Kit::new();
    assert_eq!(join_new(&mut kit, "k"), 0);
    for id in ["nothing", "k"] {
        let described = describe(&mut kit, 5, id);
        assert_eq!((described.error_code, described.group_state.as_str()), (0, "Dead"));
        let described = describe(&mut kit, 6, id);
        assert_eq!(described.error_code, ErrorCode::GroupIdNotFound.code());
        assert_eq!(described.group_state.as_str(), "Dead");
        assert!(described.error_message.is_some_and(|message| message.as_str().contains(id)));
    }
}

#[test]
fn lists_are_filtered_by_state_and_type() {
    let mut kit = Kit::new();
    kit.generation_of(1);
    assert_eq!(join_new(&mut kit, "k"), 0);
    let only_offsets = pelton_wire::messages::OffsetCommitRequestData {
        group_id: text("o"),
        generation_id_or_member_epoch: -1,
        topics: vec![pelton_wire::messages::offset_commit_request::OffsetCommitRequestTopic {
            name: text("t"),
            partitions: vec![Default::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    kit.ask(8, GroupRequest::OffsetCommit(only_offsets));
    let all = ["g|consumer|Stable|classic", "k|consumer|Stable|consumer", "o||Empty|classic"];
    assert_eq!(list(&mut kit, 5, &[], &[]), all);
    assert_eq!(list(&mut kit, 0, &[], &[]).len(), 3);
    assert_eq!(list(&mut kit, 4, &["empty", "Dead"], &[]), all[2..]);
    assert_eq!(list(&mut kit, 5, &["STABLE"], &["Classic"]), all[..1]);
    assert_eq!(list(&mut kit, 5, &[], &["share"]), [""; 0]);
}

#[test]
fn only_empty_groups_are_deleted() {
    let mut kit = Kit::new();
    let group = kit.generation_of(1);
    let token = kit.commit(&group.ids[0], 1, 7);
    assert_eq!(kit.committed(token), Some(0));
    let not_empty = ErrorCode::NonEmptyGroup.code();
    assert_eq!(delete(&mut kit, &[GROUP, "nothing"]), [not_empty, ErrorCode::GroupIdNotFound.code()]);
    kit.leave(&[(&group.ids[0], None)]);
    assert_eq!(delete(&mut kit, &[GROUP]), [0]);
    assert_eq!(kit.coordinator.groups(), 0);
    assert!(kit.coordinator.offsets.is_empty(GROUP));
    kit.restart();
    assert_eq!(kit.coordinator.groups(), 0, "also after a restart");
}

#[test]
fn a_deletion_that_is_not_stored_is_taken_back() {
    let mut kit = Kit::new();
    let token = kit.commit("", -1, 7);
    assert_eq!(kit.committed(token), Some(0));
    kit.holds = true;
    let request = DeleteGroupsRequestData { groups_names: vec![text(GROUP)], ..Default::default() };
    let token = kit.ask(2, GroupRequest::DeleteGroups(request));
    assert_eq!(kit.take(token), None);
    kit.fail_held(ErrorCode::NotEnoughReplicas);
    let Some(GroupResponse::DeleteGroups(response)) = kit.take(token) else { panic!() };
    assert_eq!(response.results[0].error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(kit.coordinator.offsets.get(GROUP, "t", 0).map(|value| value.offset), Some(7));
    assert_eq!(kit.state(), ClassicState::Empty);
}

#[test]
fn an_empty_group_takes_the_protocol_of_who_comes() {
    let mut kit = Kit::new();
    assert_eq!(join_new(&mut kit, GROUP), 0);
    // A KIP-848 group with members takes a classic one into its own protocol.
    let answer = kit.join_now(9, consumer(""));
    assert_eq!(answer.error_code, ErrorCode::MemberIdRequired.code());
    let leave = ConsumerGroupHeartbeatRequestData {
        group_id: text(GROUP),
        member_id: text("new"),
        member_epoch: -1,
        ..Default::default()
    };
    kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(leave));
    assert_eq!(kit.join_now(9, consumer("known")).error_code, ErrorCode::UnknownMemberId.code());
    let group = kit.generation_of(1);
    assert_eq!(list(&mut kit, 5, &[], &[]), ["g|consumer|Stable|classic"]);
    kit.restart();
    assert_eq!(list(&mut kit, 5, &[], &[]), ["g|consumer|Stable|classic"]);
    assert_eq!(kit.beat(&group.ids[0], None, 1), 0);
    // With its members it moves over; they are told to join again.
    assert_eq!(join_new(&mut kit, "new-group"), 0);
    let token = kit.join(ONE_STEP, consumer(&group.ids[0]));
    let error = join_new(&mut kit, GROUP);
    assert_eq!(error, ErrorCode::GroupIdNotFound.code(), "an assignment that cannot be read stays classic");
    assert_eq!(kit.joined(token).map(|answer| answer.generation_id), Some(2));
}
