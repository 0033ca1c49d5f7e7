//! Static members (KIP-345 in KIP-848): they leave with epoch -2 and get back what they had.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::ConsumerGroupHeartbeatRequestData;

use crate::request::text;

use super::tests_kit::{Kit, alive, assignment, error, given, join};

fn fixed(request: ConsumerGroupHeartbeatRequestData) -> ConsumerGroupHeartbeatRequestData {
    ConsumerGroupHeartbeatRequestData { instance_id: Some(text("i")), ..request }
}

#[test]
fn a_static_member_comes_back_under_a_new_id() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 4);
    kit.beat(fixed(join("a", &["t"])));
    // Its instance id is taken while it is there.
    assert_eq!(error(&kit.beat(fixed(join("b", &["t"])))), ErrorCode::UnreleasedInstanceId.code());
    assert_eq!(error(&kit.beat(fixed(alive("b", 1)))), ErrorCode::FencedInstanceId.code());
    assert_eq!(error(&kit.beat(fixed(alive("b", -2)))), ErrorCode::FencedInstanceId.code());
    let response = kit.beat(fixed(alive("a", -2)));
    assert_eq!((error(&response), response.member_epoch), (0, -2));
    let epoch = kit.group().epoch.epoch;
    let response = kit.beat(fixed(join("b", &["t"])));
    assert_eq!((response.error_code, response.member_epoch), (0, 1));
    assert_eq!(given(&response), Some(assignment(&[(t, &[0, 1, 2, 3])])));
    assert_eq!(kit.group().epoch.epoch, epoch, "no rebalance");
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(error(&kit.beat(fixed(alive("a", 1)))), ErrorCode::FencedInstanceId.code());
    assert_eq!(error(&kit.beat(alive("a", 1))), ErrorCode::UnknownMemberId.code());
    kit.check_replay();
    // The old id's session must not end the new one.
    kit.pass_ms(44_999);
    kit.beat(fixed(alive("b", 1)));
    kit.pass_ms(2);
    assert_eq!(kit.group().members.len(), 1);
}

#[test]
fn a_static_member_may_come_back_under_the_same_id() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.beat(fixed(join("a", &["t"])));
    kit.beat(fixed(alive("a", -2)));
    assert_eq!(kit.beat(fixed(join("a", &["t"]))).member_epoch, 1);
    assert_eq!(kit.beat(fixed(alive("a", 1))).error_code, 0);
    kit.check_replay();
    kit.pass_ms(44_999);
    assert_eq!(kit.group().members.len(), 1);
    kit.pass_ms(1);
    assert!(kit.group().is_empty() && kit.group().instances.is_empty());
}

#[test]
fn one_that_stays_away_is_put_out() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.beat(fixed(join("a", &["t"])));
    kit.beat(fixed(alive("a", -2)));
    assert_eq!(error(&kit.beat(fixed(alive("a", 1)))), ErrorCode::FencedMemberEpoch.code());
    kit.pass_ms(45_000);
    assert!(kit.group().is_empty());
    kit.beat(join("b", &["t"]));
    assert_eq!(error(&kit.beat(fixed(alive("b", -1)))), ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_static_member_leaves_for_good() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.beat(fixed(join("a", &["t"])));
    assert_eq!(kit.beat(fixed(alive("a", -1))).member_epoch, -1);
    assert!(kit.group().is_empty() && kit.group().instances.is_empty());
    assert_eq!(kit.beat(fixed(join("b", &["t"]))).error_code, 0);
}
