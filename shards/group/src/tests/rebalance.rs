//! Generations: the first join and its delay, joins, leaves and deaths that make new ones.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;

use super::client::{ONE_STEP, consumer, join_request, subscription};
use super::kit::Kit;
use crate::classic::ClassicState;
use crate::request::text;

#[test]
fn the_first_join_waits_for_others() {
    let mut kit = Kit::new();
    let first = kit.join(ONE_STEP, consumer(""));
    kit.pass_ms(2_999);
    assert_eq!(kit.joined(first), None);
    kit.pass_ms(1);
    let answer = kit.joined(first).expect("the delay is over");
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert_eq!(answer.leader, answer.member_id);
    assert!(answer.member_id.as_str().starts_with("client-"));
    assert_eq!((answer.members.len(), answer.members[0].metadata.clone()), (1, subscription()));
    assert_eq!(answer.protocol_name, Some(text("range")));
    assert_eq!(kit.state(), ClassicState::CompletingRebalance);
}

#[test]
fn each_new_member_extends_the_first_delay_up_to_the_rebalance_timeout() {
    let mut kit = Kit::new();
    let mut tokens = vec![kit.join(ONE_STEP, consumer(""))];
    for _ in 0..10 {
        kit.pass_ms(2_900);
        tokens.push(kit.join(ONE_STEP, consumer("")));
    }
    assert_eq!(kit.waiting(), 11, "29 s have passed");
    kit.pass_ms(999);
    assert_eq!(kit.waiting(), 11);
    kit.pass_ms(1);
    assert_eq!(kit.waiting(), 0, "after 30 s nobody else is waited for");
    let answers: Vec<_> = tokens.iter().filter_map(|token| kit.joined(*token)).collect();
    assert!(answers.iter().all(|answer| answer.generation_id == 1 && answer.error_code == 0));
    // Only the leader learns of the others.
    let counts: Vec<usize> = answers.iter().map(|answer| answer.members.len()).collect();
    assert_eq!(counts, [11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_leader_assigns_and_each_gets_its_own() {
    let mut kit = Kit::new();
    let tokens = [kit.join(ONE_STEP, consumer("")), kit.join(ONE_STEP, consumer(""))];
    kit.pass_ms(6_000);
    let ids = tokens.map(|token| kit.joined(token).expect("joined").member_id.as_str().to_string());
    let follower = kit.sync(&ids[1], 1, &[]);
    assert_eq!(kit.synced(follower), None, "the leader has not assigned yet");
    kit.holds = true;
    let lost = kit.sync(&ids[0], 1, &ids);
    let leader = kit.sync(&ids[0], 1, &[]);
    assert_eq!(kit.synced(lost).map(|a| a.error_code), Some(ErrorCode::RebalanceInProgress.code()));
    assert_eq!((kit.waiting(), kit.held.len()), (2, 1), "written once, not durable yet");
    kit.store_held();
    let answer = kit.synced(follower).expect("stored");
    assert_eq!(answer.assignment, Bytes::from(format!("for {}", ids[1])));
    assert_eq!((answer.protocol_type, answer.protocol_name), (Some(text("consumer")), Some(text("range"))));
    assert_eq!(kit.synced(leader).map(|answer| answer.error_code), Some(0));
    assert_eq!(kit.state(), ClassicState::Stable);
    // Who asks again gets it again.
    let again = kit.sync(&ids[1], 1, &[]);
    assert_eq!(kit.synced(again).expect("stable").assignment, Bytes::from(format!("for {}", ids[1])));
}

#[test]
fn a_second_member_makes_everyone_join_again() {
    let mut kit = Kit::new();
    let old = kit.generation_of(1);
    let new = kit.join(ONE_STEP, consumer(""));
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
    assert_eq!(kit.beat(&old.ids[0], None, 1), ErrorCode::RebalanceInProgress.code());
    let late = kit.sync(&old.ids[0], 1, &[]);
    assert_eq!(kit.synced(late).map(|answer| answer.error_code), Some(ErrorCode::RebalanceInProgress.code()));
    assert_eq!(kit.waiting(), 1);
    let answer = kit.join_now(ONE_STEP, consumer(&old.ids[0]));
    assert_eq!((answer.generation_id, answer.members.len()), (2, 2), "it still leads");
    let new = kit.joined(new).expect("everyone has joined");
    assert_eq!((new.generation_id, new.leader), (2, answer.leader));
    kit.sync_all(&[old.ids[0].clone(), new.member_id.as_str().to_string()], 2);
    assert_eq!(kit.beat(&old.ids[0], None, 2), 0);
    assert_eq!(kit.beat(&old.ids[0], None, 1), ErrorCode::IllegalGeneration.code());
}

#[test]
fn who_does_not_join_in_the_rebalance_timeout_is_out() {
    let mut kit = Kit::new();
    let old = kit.generation_of(2);
    let again = kit.join(ONE_STEP, consumer(&old.ids[0]));
    for _ in 0..5 {
        kit.pass_ms(5_000);
        assert_eq!(kit.beat(&old.ids[1], None, 1), ErrorCode::RebalanceInProgress.code());
    }
    kit.pass_ms(4_999);
    assert_eq!(kit.joined(again), None);
    kit.pass_ms(1);
    let answer = kit.joined(again).expect("30 s have passed");
    assert_eq!((answer.generation_id, answer.members.len()), (2, 1));
    assert_eq!(kit.beat(&old.ids[1], None, 2), ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_leader_that_stays_away_is_replaced() {
    let mut kit = Kit::new();
    let old = kit.generation_of(2);
    let changed = join_request(&old.ids[1], &[("range", Bytes::from_static(b"changed"))]);
    let again = kit.join(ONE_STEP, changed);
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
    kit.pass_ms(10_000);
    let answer = kit.joined(again).expect("the leader's session has ended");
    assert_eq!((answer.generation_id, answer.leader.as_str()), (2, old.ids[1].as_str()));
    assert_eq!(answer.members[0].metadata, "changed");
}

#[test]
fn a_dead_member_is_noticed_by_its_session_timeout() {
    let mut kit = Kit::new();
    let old = kit.generation_of(2);
    kit.pass_ms(9_999);
    assert_eq!(kit.beat(&old.ids[0], None, 1), 0);
    assert_eq!(kit.state(), ClassicState::Stable);
    kit.pass_ms(1);
    assert_eq!(kit.beat(&old.ids[0], None, 1), ErrorCode::RebalanceInProgress.code());
    let answer = kit.join_now(ONE_STEP, consumer(&old.ids[0]));
    assert_eq!((answer.generation_id, answer.members.len()), (2, 1), "all partitions can be its");
    kit.sync_all(&old.ids[..1], 2);
    kit.pass_ms(10_000);
    assert_eq!(kit.state(), ClassicState::Empty);
    assert_eq!(kit.beat(&old.ids[0], None, 3), ErrorCode::UnknownMemberId.code());
}

#[test]
fn who_waits_for_the_group_is_not_dead() {
    let mut kit = Kit::new();
    let old = kit.generation_of(3);
    let tokens = [0, 1].map(|at| kit.join(ONE_STEP, consumer(&old.ids[at])));
    // Only the third keeps them waiting, far beyond the session timeout.
    for _ in 0..5 {
        kit.pass_ms(5_900);
        kit.beat(&old.ids[2], None, 1);
    }
    kit.pass_ms(500);
    for token in tokens {
        assert_eq!(kit.joined(token).map(|answer| (answer.error_code, answer.generation_id)), Some((0, 2)));
    }
    // A wait for the assignment counts as life as well; one that neither syncs nor beats dies.
    let follower = kit.sync(&old.ids[1], 2, &[]);
    kit.pass_ms(9_999);
    assert_eq!(kit.synced(follower), None);
    kit.pass_ms(1);
    let error = kit.synced(follower).map(|answer| answer.error_code);
    assert_eq!(error, Some(ErrorCode::RebalanceInProgress.code()), "the leader is dead");
}

#[test]
fn who_never_syncs_is_out_even_if_it_beats() {
    let mut kit = Kit::new();
    let tokens = [kit.join(ONE_STEP, consumer("")), kit.join(ONE_STEP, consumer(""))];
    kit.pass_ms(6_000);
    let ids = tokens.map(|token| kit.joined(token).expect("joined").member_id.as_str().to_string());
    let leader = kit.sync(&ids[0], 1, &ids);
    assert_eq!(kit.synced(leader).map(|answer| answer.error_code), Some(0));
    for _ in 0..4 {
        kit.pass_ms(5_900);
        assert_eq!([kit.beat(&ids[0], None, 1), kit.beat(&ids[1], None, 1)], [0, 0]);
    }
    kit.pass_ms(6_400);
    assert_eq!(kit.beat(&ids[1], None, 1), ErrorCode::UnknownMemberId.code());
    assert_eq!(kit.beat(&ids[0], None, 1), ErrorCode::RebalanceInProgress.code());
}
