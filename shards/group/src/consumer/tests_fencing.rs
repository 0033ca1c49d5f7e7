//! Who is refused, who is put out, and what a member's epoch allows.

use pelton_model::ConsumerGroupConfig;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::ConsumerGroupHeartbeatRequestData;

use crate::records::Assignment;
use crate::request::text;

use super::tests_kit::{Kit, alive, assignment, error, given, join, owning};
use super::{UNREVOKED, tests_kit};

fn code(error: ErrorCode) -> i16 {
    error.code()
}

#[test]
fn requests_that_make_no_sense() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    let invalid = code(ErrorCode::InvalidRequest);
    type Request = ConsumerGroupHeartbeatRequestData;
    let good = || join("a", &["t"]);
    let bad = [
        Request { group_id: text(""), ..good() },
        Request { member_id: text(""), ..good() },
        Request { instance_id: Some(text("")), ..good() },
        Request { rack_id: Some(text("")), ..good() },
        Request { rebalance_timeout_ms: -1, ..good() },
        Request { topic_partitions: None, ..good() },
        Request { subscribed_topic_names: None, ..good() },
        alive("a", -2),
        alive("a", -3),
    ];
    for request in bad {
        let response = kit.beat(request.clone());
        assert_eq!(error(&response), invalid, "{request:?}");
        assert!(response.error_message.is_some());
    }
    assert_eq!(error(&kit.beat(alive("a", 1))), code(ErrorCode::GroupIdNotFound));
    assert_eq!(error(&kit.beat(alive("a", -1))), code(ErrorCode::GroupIdNotFound));
    assert!(kit.log.is_empty());
}

#[test]
fn epochs_fence() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 2);
    kit.beat(join("a", &["t"]));
    assert_eq!(error(&kit.beat(alive("b", 1))), code(ErrorCode::UnknownMemberId));
    assert_eq!(error(&kit.beat(alive("b", -1))), code(ErrorCode::UnknownMemberId));
    assert_eq!(error(&kit.beat(alive("a", 2))), code(ErrorCode::FencedMemberEpoch));
    kit.topics.set("t", 3);
    assert_eq!(kit.beat(alive("a", 1)).member_epoch, 2);
    // The answer with epoch 2 was lost: fine if it owns nothing it should not, and says so.
    assert_eq!(error(&kit.beat(alive("a", 1))), code(ErrorCode::FencedMemberEpoch));
    assert_eq!(
        error(&kit.beat(owning("a", 1, &assignment(&[(t, &[0, 7])])))),
        code(ErrorCode::FencedMemberEpoch)
    );
    let response = kit.beat(owning("a", 1, &assignment(&[(t, &[0, 1])])));
    assert_eq!((error(&response), response.member_epoch), (0, 2));
    // A fenced member joins anew and gets what it had.
    let response = kit.beat(join("a", &["t"]));
    assert_eq!((response.member_epoch, given(&response)), (2, Some(assignment(&[(t, &[0, 1, 2])]))));
}

#[test]
fn a_session_ends() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 2);
    kit.beat(join("a", &["t"]));
    kit.pass_ms(30_000);
    kit.beat(join("b", &["t"]));
    kit.pass_ms(14_999);
    assert_eq!(kit.group().members.len(), 2);
    kit.pass_ms(1);
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(given(&kit.beat(alive("b", 2))), Some(assignment(&[(t, &[0, 1])])));
    assert_eq!(error(&kit.beat(alive("a", 1))), code(ErrorCode::UnknownMemberId));
    kit.pass_ms(44_999);
    kit.beat(alive("b", 3));
    kit.pass_ms(44_999);
    assert_eq!(kit.group().members.len(), 1, "each heartbeat begins a new session");
    kit.check_replay();
}

#[test]
fn partitions_must_be_given_back_in_time() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 2);
    kit.beat(ConsumerGroupHeartbeatRequestData { rebalance_timeout_ms: 20_000, ..join("a", &["t"]) });
    kit.beat(join("b", &["t"]));
    kit.beat(alive("a", 1));
    assert_eq!(kit.group().current("a").state, UNREVOKED);
    kit.pass_ms(15_000);
    // Heartbeats alone do not help.
    kit.beat(alive("a", 1));
    kit.beat(alive("b", 2));
    kit.pass_ms(5_000);
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(given(&kit.beat(alive("b", 2))), Some(assignment(&[(t, &[0, 1])])));
}

#[test]
fn who_gave_back_in_time_stays() {
    let mut kit = Kit::new();
    kit.topics.set("t", 2);
    kit.beat(ConsumerGroupHeartbeatRequestData { rebalance_timeout_ms: 20_000, ..join("a", &["t"]) });
    kit.beat(join("b", &["t"]));
    let kept = given(&kit.beat(alive("a", 1))).unwrap();
    kit.pass_ms(10_000);
    kit.beat(owning("a", 1, &kept));
    kit.pass_ms(30_000);
    assert_eq!(kit.group().members.len(), 2);
}

#[test]
fn after_loading_sessions_and_revocations_run_again() {
    let mut kit = Kit::new();
    kit.topics.set("t", 2);
    kit.beat(ConsumerGroupHeartbeatRequestData { rebalance_timeout_ms: 20_000, ..join("a", &["t"]) });
    kit.beat(join("b", &["t"]));
    kit.beat(alive("a", 1));
    let mut next = Kit::new();
    next.topics.set("t", 2);
    let mut out = Vec::new();
    next.coordinator = crate::Coordinator::new(Default::default(), 3);
    for (key, value) in &kit.log {
        next.coordinator.replay(key, value.as_deref()).unwrap();
    }
    next.coordinator.loaded(next.now, &next.topics, &mut out);
    next.beat(alive("b", 2));
    next.pass_ms(19_999);
    assert_eq!(next.group().members.len(), 2);
    next.pass_ms(1);
    assert_eq!(next.group().members.keys().collect::<Vec<_>>(), ["b"]);
    next.pass_ms(25_000);
    assert!(next.group().is_empty());
}

#[test]
fn commits_need_the_current_epoch() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.beat(join("a", &["t"]));
    let group = kit.group();
    assert_eq!(group.check_commit("a", 1, 9), Ok(()));
    assert_eq!(group.check_commit("a", 0, 9), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(group.check_commit("a", 2, 9), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(group.check_commit("a", 1, 8), Err(ErrorCode::UnsupportedVersion));
    assert_eq!(group.check_commit("b", 1, 9), Err(ErrorCode::UnknownMemberId));
    assert_eq!(group.check_commit("", -1, 9), Err(ErrorCode::UnknownMemberId));
    assert_eq!(group.check_fetch(None, -1), Ok(()));
    assert_eq!(group.check_fetch(Some("a"), 1), Ok(()));
    assert_eq!(group.check_fetch(Some("a"), 3), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(group.check_fetch(Some("b"), 1), Err(ErrorCode::UnknownMemberId));
    assert!(group.subscribes_to("t") && !group.subscribes_to("u"));
    kit.beat(alive("a", -1));
    assert_eq!(kit.group().check_commit("", -1, 9), Ok(()));
    assert!(!kit.group().subscribes_to("t"));
}

#[test]
fn removing_a_group_leaves_nothing_in_the_log() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.beat(join("a", &["t"]));
    for record in kit.group().tombstones(tests_kit::GROUP) {
        kit.log.push(record.encode());
    }
    let mut loaded = crate::Coordinator::new(Default::default(), 3);
    for (key, value) in &kit.log {
        loaded.replay(key, value.as_deref()).unwrap();
    }
    assert_eq!(loaded.groups(), 0);
    let keys: std::collections::BTreeSet<_> = kit.log.iter().map(|(key, _)| key.clone()).collect();
    for key in keys {
        let last = kit.log.iter().rev().find(|(other, _)| *other == key).unwrap();
        assert_eq!(last.1, None, "{key:?}");
    }
}

#[test]
fn subscriptions_have_a_size() {
    let mut kit = Kit::with(crate::GroupConfig { group_bytes_max: 100, ..Default::default() });
    kit.topics.set("t", 1);
    kit.beat(join("a", &["t"]));
    let long = "x".repeat(100);
    assert_eq!(error(&kit.beat(join("b", &[&long]))), code(ErrorCode::GroupMaxSizeReached));
    assert_eq!(kit.group().members.len(), 1);
    assert_eq!(given(&kit.beat(join("b", &["t"]))), Some(Assignment::new()));
}

#[test]
fn a_group_may_have_settings_of_its_own() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.topics.own = Some(ConsumerGroupConfig {
        session_timeout_ms: 50_000,
        heartbeat_interval_ms: 7_000,
        assignment_interval_ms: Some(100),
    });
    assert_eq!(kit.beat(join("a", &["t"])).heartbeat_interval_ms, 7_000);
    assert_eq!(
        kit.beat(join("b", &["t"])).heartbeat_interval_ms,
        100,
        "the time left of its assignment interval"
    );
    kit.pass_ms(49_999);
    assert_eq!(kit.group().members.len(), 2);
    kit.topics.own = None;
    assert_eq!(kit.beat(alive("b", 1)).heartbeat_interval_ms, 5_000);
    kit.pass_ms(1);
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["b"]);
    kit.pass_ms(44_998);
    assert_eq!(kit.group().members.len(), 1);
    kit.pass_ms(1);
    assert!(kit.group().is_empty(), "the broker's session timeout counts again");
}
