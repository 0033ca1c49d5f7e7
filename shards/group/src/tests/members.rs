//! Who may join, sync, commit and leave: ids, protocols, generations and limits.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{JoinGroupRequestData, LeaveGroupRequestData, SyncGroupRequestData};

use super::client::{ONE_STEP, consumer, join_request, subscription};
use super::kit::{GROUP, Kit};
use crate::classic::ClassicState;
use crate::request::text;
use crate::{GroupConfig, GroupRequest, GroupResponse};

#[test]
fn a_client_comes_back_with_the_id_it_is_given() {
    let mut kit = Kit::new();
    let answer = kit.join_now(4, consumer(""));
    assert_eq!((answer.error_code, answer.generation_id), (ErrorCode::MemberIdRequired.code(), -1));
    let id = answer.member_id.as_str().to_string();
    assert_eq!(kit.state(), ClassicState::Empty, "it is not a member yet");
    let token = kit.join(4, consumer(&id));
    kit.pass_ms(3_000);
    let answer = kit.joined(token).expect("joined");
    assert_eq!((answer.error_code, answer.member_id.as_str()), (0, id.as_str()));
}

#[test]
fn an_id_that_does_not_come_back_is_forgotten_after_the_session_timeout() {
    let mut kit = Kit::new();
    let old = kit.generation_of(1);
    let id = kit.join_now(4, consumer("")).member_id.as_str().to_string();
    assert_eq!(kit.state(), ClassicState::Stable, "it disturbs nobody");
    // It is waited for when the others join again.
    let again = kit.join(ONE_STEP, consumer(&old.ids[0]));
    kit.pass_ms(9_999);
    assert_eq!(kit.joined(again), None);
    kit.pass_ms(1);
    assert_eq!(kit.joined(again).map(|a| (a.generation_id, a.members.len())), Some((2, 1)));
    assert_eq!(kit.join_now(4, consumer(&id)).error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn what_cannot_join() {
    let mut kit = Kit::new();
    kit.generation_of(1);
    let error = |kit: &mut Kit, request: JoinGroupRequestData| kit.join_now(9, request).error_code;
    let unnamed = JoinGroupRequestData { group_id: text(""), ..consumer("") };
    assert_eq!(error(&mut kit, unnamed), ErrorCode::InvalidGroupId.code());
    for session_timeout_ms in [5_999, 1_800_001] {
        let request = JoinGroupRequestData { session_timeout_ms, ..consumer("") };
        assert_eq!(error(&mut kit, request), ErrorCode::InvalidSessionTimeout.code());
    }
    assert_eq!(error(&mut kit, consumer("nobody")), ErrorCode::UnknownMemberId.code());
    let inconsistent = ErrorCode::InconsistentGroupProtocol.code();
    let connect = JoinGroupRequestData { protocol_type: text("connect"), ..consumer("") };
    assert_eq!(error(&mut kit, connect.clone()), inconsistent);
    assert_eq!(error(&mut kit, join_request("", &[("sticky", subscription())])), inconsistent);
    assert_eq!(error(&mut kit, join_request("", &[])), inconsistent);
    // In a group that is not there, too; and it is not made.
    for request in [consumer("nobody"), join_request("", &[])] {
        let request = JoinGroupRequestData { group_id: text("h"), ..request };
        assert_ne!(error(&mut kit, request), 0);
    }
    assert_eq!((kit.coordinator.groups(), kit.state()), (1, ClassicState::Stable));
}

#[test]
fn any_kind_of_group_and_protocol() {
    let mut kit = Kit::new();
    let join = |protocols: &[(&str, Bytes)]| JoinGroupRequestData {
        protocol_type: text("connect"),
        ..join_request("", protocols)
    };
    let data = Bytes::from_static(b"\xff any");
    let first = join(&[("eager", data.clone()), ("compatible", data.clone()), ("sessioned", data.clone())]);
    let second = join(&[("compatible", data.clone()), ("sessioned", data.clone())]);
    let named =
        |instance: &str| JoinGroupRequestData { group_instance_id: Some(text(instance)), ..second.clone() };
    let tokens = [kit.join(3, first), kit.join(7, named("a")), kit.join(8, named("b"))];
    kit.pass_ms(6_000);
    let answers = tokens.map(|token| kit.joined(token).expect("joined"));
    // All have two in common, and all like the same one best of these.
    assert!(answers.iter().all(|answer| answer.protocol_name == Some(text("compatible"))));
    assert_eq!(answers[0].protocol_type, None, "version 3 has no such field");
    assert_eq!(answers[1].protocol_type, Some(text("connect")));
    // Whoever fits stays: what everyone had in common is what a newcomer needs one of.
    assert_eq!(kit.join_now(3, join(&[("eager", data)])).error_code, 23);
}

#[test]
fn a_follower_that_repeats_its_join_keeps_the_generation_a_leader_makes_a_new_one() {
    let mut kit = Kit::new();
    let group = kit.generation_of(2);
    let answer = kit.join_now(9, consumer(&group.ids[1]));
    assert_eq!((answer.generation_id, answer.members.len()), (1, 0));
    assert_eq!((answer.leader.as_str(), kit.state()), (group.ids[0].as_str(), ClassicState::Stable));
    let token = kit.join(9, consumer(&group.ids[0]));
    assert_eq!((kit.joined(token), kit.state()), (None, ClassicState::PreparingRebalance));
    kit.join_now(9, consumer(&group.ids[1]));
    assert_eq!(kit.joined(token).map(|answer| answer.generation_id), Some(2));
    // Before the sync both get the same again, so that a lost answer does no harm.
    let answer = kit.join_now(9, consumer(&group.ids[0]));
    assert_eq!((answer.generation_id, answer.members.len()), (2, 2));
    assert_eq!(kit.state(), ClassicState::CompletingRebalance);
    let changed = join_request(&group.ids[1], &[("range", Bytes::from_static(b"other"))]);
    let waiting = kit.sync(&group.ids[0], 9, &[]);
    assert_eq!(kit.synced(waiting).map(|a| a.error_code), Some(ErrorCode::IllegalGeneration.code()));
    kit.join(9, changed);
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
}

#[test]
fn sync_names_the_protocol_from_version_5_on() {
    let mut kit = Kit::new();
    let group = kit.generation_of(1);
    let request = |kind: Option<&str>, name: Option<&str>| SyncGroupRequestData {
        group_id: text(GROUP),
        generation_id: 1,
        member_id: text(&group.ids[0]),
        protocol_type: kind.map(text),
        protocol_name: name.map(text),
        ..Default::default()
    };
    let mut error = |version: i16, request: SyncGroupRequestData| {
        let token = kit.ask(version, GroupRequest::SyncGroup(request));
        kit.synced(token).expect("answered").error_code
    };
    assert_eq!(error(4, request(None, None)), 0);
    assert_eq!(error(5, request(Some("consumer"), Some("range"))), 0);
    let inconsistent = ErrorCode::InconsistentGroupProtocol.code();
    assert_eq!(error(5, request(None, None)), inconsistent);
    assert_eq!(error(5, request(Some("connect"), Some("range"))), inconsistent);
    assert_eq!(error(5, request(Some("consumer"), Some("sticky"))), inconsistent);
    let other = SyncGroupRequestData { group_id: text("h"), ..request(None, None) };
    assert_eq!(error(4, other), ErrorCode::UnknownMemberId.code());
}

#[test]
fn commits_are_of_the_present_generation() {
    let mut kit = Kit::new();
    let error = |kit: &mut Kit, member: &str, generation: i32| {
        let token = kit.commit(member, generation, 7);
        kit.committed(token).expect("answered")
    };
    assert_eq!(error(&mut kit, "", -1), 0, "nobody is in the group");
    assert_eq!(error(&mut kit, "", 1), ErrorCode::UnknownMemberId.code());
    let group = kit.generation_of(1);
    let id = group.ids[0].as_str();
    assert_eq!(error(&mut kit, id, 1), 0);
    assert_eq!(error(&mut kit, "", -1), ErrorCode::UnknownMemberId.code(), "from outside the group");
    let again = kit.join_now(9, consumer(id));
    assert_eq!(again.generation_id, 2);
    assert_eq!(error(&mut kit, id, 1), ErrorCode::IllegalGeneration.code());
    assert_eq!(error(&mut kit, id, 2), ErrorCode::RebalanceInProgress.code(), "it owns nothing yet");
    kit.sync_all(&group.ids, 2);
    assert_eq!(error(&mut kit, id, 2), 0);
    // While the group prepares, members may commit what they have read.
    kit.join(ONE_STEP, consumer(""));
    assert_eq!(error(&mut kit, id, 2), 0);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut kit = Kit::new();
    let group = kit.generation_of(1);
    for _ in 0..3 {
        kit.pass_ms(9_000);
        let token = kit.commit(&group.ids[0], 1, 7);
        assert_eq!(kit.committed(token), Some(0));
    }
    assert_eq!(kit.state(), ClassicState::Stable);
}

#[test]
fn members_leave_one_by_one_or_together() {
    let mut kit = Kit::new();
    let group = kit.generation_of(4);
    let leave = |member: &str| {
        let (group_id, member_id) = (text(GROUP), text(member));
        GroupRequest::LeaveGroup(LeaveGroupRequestData { group_id, member_id, ..Default::default() })
    };
    for (id, error) in [(group.ids[3].as_str(), 0), ("nobody", ErrorCode::UnknownMemberId.code())] {
        let token = kit.ask(2, leave(id));
        let Some(GroupResponse::LeaveGroup(answer)) = kit.take(token) else { panic!() };
        assert_eq!((answer.error_code, answer.members.len()), (error, 0));
    }
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
    let again = kit.join(9, consumer(&group.ids[0]));
    let leavers = [group.ids[1].as_str(), "nobody", &group.ids[2]].map(|id| (id, None));
    assert_eq!(kit.leave(&leavers), [0, ErrorCode::UnknownMemberId.code(), 0]);
    let answer = kit.joined(again).expect("nobody else is missing");
    assert_eq!((answer.generation_id, answer.members.len()), (2, 1));
    assert_eq!(kit.leave(&[(&group.ids[0], None)]), [0]);
    assert_eq!(kit.state(), ClassicState::Empty);
    // Nobody waits, and a new member begins with the delay again.
    let token = kit.join(ONE_STEP, consumer(""));
    assert_eq!(kit.joined(token), None);
    kit.pass_ms(3_000);
    assert_eq!(kit.joined(token).map(|answer| answer.generation_id), Some(4));
}

#[test]
fn one_that_leaves_while_it_waits_is_told() {
    let mut kit = Kit::new();
    let group = kit.generation_of(2);
    let token = kit.join(9, consumer(&group.ids[0]));
    assert_eq!(kit.leave(&[(&group.ids[0], None)]), [0]);
    let answer = kit.joined(token).expect("told");
    assert_eq!((answer.error_code, answer.member_id.as_str()), (ErrorCode::UnknownMemberId.code(), ""));
}

#[test]
fn a_new_member_waits_five_minutes_at_most() {
    let mut kit = Kit::new();
    let request = JoinGroupRequestData { rebalance_timeout_ms: 600_000, ..consumer("") };
    let token = kit.join(ONE_STEP, request);
    let group = kit.settle(&[token]);
    let new = kit.join(ONE_STEP, consumer(""));
    for _ in 0..30 {
        kit.pass_ms(9_999);
        kit.beat(&group.ids[0], None, 1);
    }
    assert_eq!(kit.joined(new), None);
    kit.pass_ms(30);
    let answer = kit.joined(new).expect("put out");
    assert_eq!((answer.error_code, answer.member_id.as_str()), (ErrorCode::UnknownMemberId.code(), ""));
}

#[test]
fn groups_are_bounded() {
    let config = GroupConfig { group_max_size: 2, groups_max: 2, group_bytes_max: 200, ..Default::default() };
    let mut kit = Kit::with(config);
    let full = ErrorCode::GroupMaxSizeReached.code();
    let group = kit.generation_of(2);
    assert_eq!(kit.join_now(ONE_STEP, consumer("")).error_code, full);
    assert_eq!(kit.join_now(9, consumer("")).error_code, full);
    assert_eq!(kit.state(), ClassicState::Stable);
    let large = join_request(&group.ids[1], &[("range", Bytes::from(vec![0; 201]))]);
    assert_eq!(kit.join_now(9, large).error_code, full);
    assert_eq!(kit.beat(&group.ids[1], None, 1), 0, "it stays as it was");
    let in_group = |id: &str| JoinGroupRequestData { group_id: text(id), ..consumer("") };
    assert_eq!(kit.join_now(9, in_group("h")).error_code, ErrorCode::MemberIdRequired.code());
    assert_eq!(kit.join_now(9, in_group("i")).error_code, ErrorCode::PolicyViolation.code());
    // Ids given out are bounded as well.
    assert_eq!(kit.join_now(9, in_group("h")).error_code, ErrorCode::MemberIdRequired.code());
    assert_eq!(kit.join_now(9, in_group("h")).error_code, full);
    // While all join again, the last to come finds no room.
    let tokens = [kit.join(9, consumer(&group.ids[0])), kit.join(9, consumer(&group.ids[1]))];
    assert!(tokens.iter().all(|token| kit.joined(*token).is_some_and(|answer| answer.generation_id == 2)));
    let ids = [group.ids[0].clone(), "x".repeat(200)];
    let sync = kit.sync(&group.ids[0], 2, &ids);
    assert_eq!(kit.synced(sync).map(|answer| answer.error_code), Some(full));
    assert_eq!(kit.state(), ClassicState::CompletingRebalance);
}
