//! Static members (KIP-345): they come back without a rebalance, and who uses their old id is fenced.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;

use super::client::{Generation, fixed, join_request, subscription};
use super::kit::Kit;
use crate::classic::ClassicState;
use crate::request::text;

/// Static members `i0`, `i1`, … in a stable generation.
fn group_of(kit: &mut Kit, size: usize) -> Generation {
    let tokens: Vec<u64> = (0..size).map(|at| kit.join(9, fixed(&format!("i{at}"), ""))).collect();
    kit.settle(&tokens)
}

#[test]
fn a_static_member_needs_no_second_step() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    assert!(group.ids[0].starts_with("i0-"), "{}", group.ids[0]);
    assert_eq!((group.number, kit.state()), (1, ClassicState::Stable));
}

#[test]
fn it_comes_back_without_a_rebalance() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    kit.holds = true;
    let back = kit.join(9, fixed("i1", ""));
    assert_eq!(kit.joined(back), None, "its new id is not stored");
    kit.store_held();
    let answer = kit.joined(back).expect("stored");
    let id = answer.member_id.as_str().to_string();
    assert_eq!((answer.error_code, answer.generation_id, answer.skip_assignment), (0, 1, false));
    assert_eq!((answer.leader.as_str(), id == group.ids[1]), (group.ids[0].as_str(), false));
    assert_eq!(kit.state(), ClassicState::Stable);
    let sync = kit.sync_as(&id, Some("i1"), 1, &[]);
    let assignment = kit.synced(sync).expect("stable").assignment;
    assert_eq!(assignment, Bytes::from(format!("for {}", group.ids[1])), "what it had");
    assert_eq!(kit.beat(&id, Some("i1"), 1), 0);
    assert_eq!(kit.beat(&group.ids[1], Some("i1"), 1), ErrorCode::FencedInstanceId.code());
    assert_eq!(kit.beat(&group.ids[1], None, 1), ErrorCode::UnknownMemberId.code());
    assert_eq!(kit.beat("x", Some("i7"), 1), ErrorCode::UnknownMemberId.code());
    let old = kit.join_now(9, fixed("i1", &group.ids[1]));
    assert_eq!(old.error_code, ErrorCode::FencedInstanceId.code());
    let old = kit.sync_as(&group.ids[1], Some("i1"), 1, &[]);
    assert_eq!(kit.synced(old).map(|answer| answer.error_code), Some(ErrorCode::FencedInstanceId.code()));
    assert_eq!(
        kit.leave(&[(&group.ids[1], Some("i1"))]),
        [ErrorCode::FencedInstanceId.code()],
        "the old one cannot remove the new one"
    );
    // The new id is heard of, the old one's deadline is gone.
    kit.pass_ms(9_000);
    kit.beat(&group.ids[0], None, 1);
    kit.beat(&id, None, 1);
    kit.pass_ms(9_000);
    assert_eq!(kit.state(), ClassicState::Stable);
}

#[test]
fn a_leader_that_comes_back_must_not_assign() {
    for version in [5, 8, 9] {
        let mut kit = Kit::new();
        let group = group_of(&mut kit, 2);
        let answer = kit.join_now(version, fixed("i0", ""));
        assert_eq!((answer.error_code, answer.generation_id), (0, 1));
        if version >= 9 {
            assert!(answer.skip_assignment);
            assert_eq!((&answer.leader, answer.members.len()), (&answer.member_id, 2));
        } else {
            assert_eq!((answer.leader.as_str(), answer.members.len()), (group.ids[0].as_str(), 0));
        }
    }
}

#[test]
fn it_is_absent_for_its_session_timeout_at_most() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    kit.pass_ms(9_999);
    kit.beat(&group.ids[0], None, 1);
    assert_eq!(kit.state(), ClassicState::Stable);
    kit.pass_ms(1);
    assert_eq!(kit.beat(&group.ids[0], None, 1), ErrorCode::RebalanceInProgress.code());
    let answer = kit.join_now(9, fixed("i0", &group.ids[0]));
    assert_eq!(answer.members.len(), 1);
}

#[test]
fn a_rebalance_does_not_put_it_out() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    let again = kit.join(9, fixed("i0", &group.ids[0]));
    for _ in 0..5 {
        kit.pass_ms(6_000);
        kit.beat(&group.ids[1], None, 1);
    }
    let answer = kit.joined(again).expect("30 s have passed");
    let instances: Vec<_> = answer.members.iter().map(|m| m.group_instance_id.clone()).collect();
    assert_eq!((answer.generation_id, instances), (2, vec![Some(text("i0")), Some(text("i1"))]));
}

#[test]
fn one_that_comes_back_while_others_join_or_sync_joins_with_them() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    let leader = kit.join(9, fixed("i0", &group.ids[0]));
    let answer = kit.join_now(9, fixed("i1", ""));
    assert_eq!(answer.generation_id, 2);
    assert_eq!(kit.joined(leader).map(|answer| answer.members.len()), Some(2));
    // Between join and sync: the leader would assign to the old id.
    let stale = kit.sync(&group.ids[0], 1, &[]);
    assert_eq!(kit.synced(stale).map(|answer| answer.error_code), Some(ErrorCode::IllegalGeneration.code()));
    let follower = kit.sync_as(answer.member_id.as_str(), Some("i1"), 2, &[]);
    let back = kit.join(9, fixed("i1", ""));
    assert_eq!(kit.synced(follower).map(|a| a.error_code), Some(ErrorCode::FencedInstanceId.code()));
    assert_eq!((kit.joined(back), kit.state()), (None, ClassicState::PreparingRebalance));
}

#[test]
fn a_join_that_waits_is_fenced_by_the_next_one() {
    let mut kit = Kit::new();
    let first = kit.join(9, fixed("i0", ""));
    let second = kit.join(9, fixed("i0", ""));
    assert_eq!(kit.joined(first).map(|a| a.error_code), Some(ErrorCode::FencedInstanceId.code()));
    kit.pass_ms(6_000);
    assert_eq!(kit.joined(second).map(|a| (a.error_code, a.members.len())), Some((0, 1)));
}

#[test]
fn a_new_id_that_is_not_stored_is_taken_back() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    kit.holds = true;
    let tokens = [kit.join(9, fixed("i1", "")), kit.join(9, fixed("i1", ""))];
    assert_eq!(kit.joined(tokens[0]).map(|a| a.error_code), Some(ErrorCode::FencedInstanceId.code()));
    kit.fail_held(ErrorCode::NotLeaderOrFollower);
    let answer = kit.joined(tokens[1]).expect("refused");
    assert_eq!((answer.error_code, answer.member_id.as_str()), (ErrorCode::NotCoordinator.code(), ""));
    assert_eq!(kit.state(), ClassicState::Stable);
    assert_eq!(kit.beat(&group.ids[1], Some("i1"), 1), 0, "the member before is back");
    let sync = kit.sync_as(&group.ids[1], Some("i1"), 1, &[]);
    assert_eq!(kit.synced(sync).map(|a| a.error_code), Some(0));
}

#[test]
fn a_new_protocol_of_one_that_comes_back_rebalances() {
    let mut kit = Kit::new();
    let both = [("range", subscription()), ("sticky", subscription())];
    let join = |instance: &str| {
        let request = join_request("", &both);
        pelton_wire::messages::JoinGroupRequestData { group_instance_id: Some(text(instance)), ..request }
    };
    let token = kit.join(9, join("i0"));
    kit.settle(&[token]);
    let mut other = join("i0");
    other.protocols.reverse();
    let answer = kit.join_now(9, other);
    assert_eq!((answer.generation_id, answer.protocol_name), (2, Some(text("sticky"))));
}

#[test]
fn an_administrator_removes_it_by_its_instance_id() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(kit.leave(&[("", Some("i1")), ("", Some("i1")), ("", None)]), [0, unknown, unknown]);
    assert_eq!(kit.beat(&group.ids[1], Some("i1"), 1), unknown);
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
}

#[test]
fn one_that_comes_back_before_it_synced_must_sync_under_its_new_id() {
    let mut kit = Kit::new();
    let tokens = [kit.join(9, fixed("i0", "")), kit.join(9, fixed("i1", ""))];
    kit.pass_ms(6_000);
    let ids = tokens.map(|token| kit.joined(token).expect("joined").member_id.as_str().to_string());
    kit.sync_as(&ids[0], Some("i0"), 1, &ids);
    let id = kit.join_now(9, fixed("i1", "")).member_id.as_str().to_string();
    let sync = kit.sync_as(&id, Some("i1"), 1, &[]);
    assert_eq!(kit.synced(sync).map(|a| a.assignment), Some(Bytes::from(format!("for {}", ids[1]))));
    let last = kit.join_now(9, fixed("i1", "")).member_id.as_str().to_string();
    for _ in 0..6 {
        kit.pass_ms(6_000);
        assert_eq!([kit.beat(&ids[0], None, 1), kit.beat(&last, None, 1)], [0, 0], "all have synced once");
    }
    // But one that comes back and has never synced is out in the end.
    let mut kit = Kit::new();
    let tokens = [kit.join(9, fixed("i0", "")), kit.join(9, fixed("i1", ""))];
    kit.pass_ms(6_000);
    let ids = tokens.map(|token| kit.joined(token).expect("joined").member_id.as_str().to_string());
    kit.sync_as(&ids[0], Some("i0"), 1, &ids);
    let id = kit.join_now(9, fixed("i1", "")).member_id.as_str().to_string();
    for _ in 0..5 {
        kit.pass_ms(6_000);
        kit.beat(&ids[0], None, 1);
        kit.beat(&id, None, 1);
    }
    assert_eq!(kit.beat(&id, None, 1), ErrorCode::UnknownMemberId.code());
}

#[test]
fn one_whose_new_id_is_stored_late_is_watched_again() {
    let mut kit = Kit::new();
    let group = group_of(&mut kit, 2);
    kit.holds = true;
    let back = kit.join(9, fixed("i1", ""));
    for _ in 0..2 {
        kit.pass_ms(6_000);
        kit.commit(&group.ids[0], 1, 7);
    }
    kit.store_held();
    assert_eq!(kit.joined(back).map(|answer| answer.error_code), Some(0));
    kit.pass_ms(9_999);
    assert_eq!((kit.beat(&group.ids[0], None, 1), kit.state()), (0, ClassicState::Stable));
    kit.pass_ms(1);
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
}

#[test]
fn one_that_waited_for_an_assignment_in_vain_is_watched_again() {
    let mut kit = Kit::new();
    let tokens = [kit.join(9, fixed("i0", "")), kit.join(9, fixed("i1", ""))];
    kit.pass_ms(6_000);
    let ids = tokens.map(|token| kit.joined(token).expect("joined").member_id.as_str().to_string());
    let follower = kit.sync_as(&ids[1], Some("i1"), 1, &[]);
    for _ in 0..2 {
        kit.pass_ms(6_000);
        assert_eq!(kit.beat(&ids[0], Some("i0"), 1), 0);
    }
    // The leader changes; the follower is told to join again and does not.
    let changed = join_request(&ids[0], &[("range", Bytes::from_static(b"changed"))]);
    let leader = kit.join(9, changed);
    assert_eq!(kit.synced(follower).map(|a| a.error_code), Some(ErrorCode::RebalanceInProgress.code()));
    kit.pass_ms(9_999);
    assert_eq!(kit.joined(leader), None);
    kit.pass_ms(1);
    assert_eq!(kit.joined(leader).map(|answer| answer.members.len()), Some(1));
}
