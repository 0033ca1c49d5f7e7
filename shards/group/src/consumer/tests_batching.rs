//! Target assignments at most once in an interval (KIP-1263).

use pelton_wire::error_code::ErrorCode;

use pelton_model::GroupConfig;

use super::tests_kit::{Kit, alive, assignment, given, join};

fn kit(interval_ms: i32) -> Kit {
    Kit::with(GroupConfig { consumer_assignment_interval_ms: Some(interval_ms), ..GroupConfig::default() })
}

#[test]
fn who_joins_within_the_interval_waits_for_the_next_assignment() {
    let mut kit = kit(1000);
    let t = kit.topics.set("t", 4);
    let first = kit.beat(join("a", &["t"]));
    assert_eq!((first.member_epoch, first.heartbeat_interval_ms), (1, 5000), "the first is made at once");
    kit.pass_ms(300);
    let second = kit.beat(join("b", &["t"]));
    assert_eq!(
        (second.member_epoch, second.heartbeat_interval_ms),
        (1, 700),
        "asked to come when it is time"
    );
    assert_eq!(given(&second), Some(assignment(&[])));
    assert_eq!((kit.group().epoch.epoch, kit.group().target_epoch), (2, 1));
    // One that joins and goes in between makes no difference.
    kit.beat(join("c", &["t"]));
    kit.beat(alive("c", -1));
    kit.pass_ms(699);
    assert_eq!(kit.beat(alive("b", 1)).heartbeat_interval_ms, 1);
    assert_eq!(kit.group().target_epoch, 1);
    kit.pass_ms(1);
    // The members' targets come together; what the first has to give back it is told now.
    let told = kit.beat(alive("a", 1));
    assert_eq!(given(&told), Some(assignment(&[(t, &[0, 1])])));
    assert_eq!((kit.group().epoch.epoch, kit.group().target_epoch), (4, 4));
    kit.check_replay();
}

#[test]
fn a_member_that_comes_back_never_gets_the_epoch_it_had() {
    let mut kit = kit(1000);
    kit.topics.set("t", 4);
    kit.beat(join("a", &["t"]));
    kit.beat(join("b", &["t"]));
    assert_eq!(kit.beat(alive("a", -1)).member_epoch, -1);
    // Commits under epoch 1 may still be on their way.
    assert_eq!(kit.beat(join("a", &["t"])).member_epoch, kit.group().epoch.epoch);
    let back = kit.beat(join("b", &["t"]));
    assert_eq!(back.error_code, 0);
}

#[test]
fn an_assignment_that_was_not_stored_is_made_again_at_once() {
    let mut kit = kit(1000);
    let t = kit.topics.set("t", 2);
    kit.beat(join("a", &["t"]));
    kit.pass_ms(1000);
    kit.holds = true;
    let refused = kit.ask(1, crate::request::GroupRequest::ConsumerGroupHeartbeat(join("b", &["t"])));
    kit.fail_held(ErrorCode::NotLeaderOrFollower);
    assert!(kit.answers.remove(&refused).is_some());
    assert_eq!(kit.group().target_epoch, 1);
    assert_eq!(kit.beat(join("b", &["t"])).member_epoch, 2);
    assert_eq!(given(&kit.beat(alive("a", 1))), Some(assignment(&[(t, &[0])])));
}

#[test]
fn many_members_that_join_at_once_get_few_assignments() {
    let mut kit = Kit::new();
    kit.topics.set("t", 100);
    let mut targets = 0;
    for member in 0..300 {
        let before = kit.group_or_none().map_or(0, |group| group.target_epoch);
        assert_eq!(kit.beat(join(&format!("m{member:03}"), &["t"])).error_code, 0);
        targets += i32::from(kit.group().target_epoch != before);
        kit.pass_ms(1);
    }
    // Each of the first 31 at once; then the wait grows with the members until no more come.
    assert!((31..40).contains(&targets), "{targets} target assignments");
    kit.pass_ms(300);
    let epoch = kit.group().current("m299").member_epoch;
    assert_eq!(kit.beat(alive("m299", epoch)).error_code, 0);
    assert_eq!(kit.group().target_epoch, kit.group().epoch.epoch);
    kit.check_replay();
}
