//! Topic patterns: whole names, refusals, and when they are resolved again.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::ConsumerGroupHeartbeatRequestData;

use crate::request::text;

use super::regexes::compile;
use super::tests_kit::{Kit, alive, assignment, error, given, join, owning};

fn with_regex(regex: &str, request: ConsumerGroupHeartbeatRequestData) -> ConsumerGroupHeartbeatRequestData {
    ConsumerGroupHeartbeatRequestData { subscribed_topic_regex: Some(text(regex)), ..request }
}

#[test]
fn patterns_match_whole_names() {
    let regex = compile("a|ab", 1 << 20).unwrap();
    assert!(regex.is_match("a") && regex.is_match("ab"));
    assert!(!regex.is_match("abc") && !regex.is_match("xa") && !regex.is_match("a\n"));
    assert!(compile("(?m)^a$", 1 << 20).unwrap().is_match("a"));
    assert!(!compile("(?m)^a$", 1 << 20).unwrap().is_match("a\nb"));
}

#[test]
fn bad_patterns_are_refused() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    for bad in ["(", "a)(b", "*", r"(a)\1", "((a{1000}){1000}){1000}"] {
        let response = kit.beat(with_regex(bad, join("a", &[])));
        assert_eq!(error(&response), ErrorCode::InvalidRegularExpression.code(), "{bad}");
        assert!(kit.coordinator.groups.is_empty() && kit.log.is_empty());
    }
    let long = "a".repeat(40_000);
    assert_eq!(
        error(&kit.beat(with_regex(&long, join("a", &[])))),
        ErrorCode::InvalidRegularExpression.code()
    );
}

#[test]
fn a_pattern_follows_the_topics() {
    let mut kit = Kit::new();
    let t1 = kit.topics.set("t1", 1);
    kit.topics.set("u", 1);
    let response = kit.beat(with_regex("t.*", join("a", &[])));
    assert_eq!(given(&response), Some(assignment(&[(t1, &[0])])));
    kit.check_replay();
    assert!(kit.group().subscribes_to("t1") && !kit.group().subscribes_to("u"));
    // A new topic counts ten seconds after the last look at the earliest.
    let t2 = kit.topics.set("t2", 1);
    assert_eq!(given(&kit.beat(alive("a", 1))), None);
    kit.pass_ms(10_001);
    let response = kit.beat(alive("a", 1));
    assert_eq!((response.member_epoch, given(&response)), (2, Some(assignment(&[(t1, &[0]), (t2, &[0])]))));
    let written = kit.log.len();
    kit.pass_ms(10_001);
    kit.beat(alive("a", 2));
    assert_eq!(kit.log.len(), written, "nothing new, nothing written");
    kit.check_replay();
}

#[test]
fn a_pattern_goes_with_its_last_member() {
    let mut kit = Kit::new();
    kit.topics.set("t1", 2);
    let u = kit.topics.set("u", 1);
    kit.beat(with_regex("t.", join("a", &["u"])));
    kit.beat(with_regex("t.", join("b", &[])));
    assert_eq!(kit.group().epoch.epoch, 2, "a pattern that is known counts at once");
    kit.beat(alive("b", -1));
    assert_eq!(kit.group().regexes.len(), 1);
    // An empty pattern takes it back; names stay.
    let response = kit.beat(with_regex("", alive("a", 1)));
    assert_eq!(given(&response), Some(assignment(&[(u, &[0])])));
    assert!(kit.group().regexes.is_empty());
    let epoch = kit.group().current("a").member_epoch;
    let response = kit.beat(owning("a", epoch, &assignment(&[(u, &[0])])));
    assert_eq!(response.member_epoch, kit.group().epoch.epoch);
    kit.check_replay();
    kit.beat(with_regex("t.", alive("a", response.member_epoch)));
    assert_eq!(kit.group().regexes.len(), 1);
    kit.pass_ms(45_000);
    assert!(kit.group().regexes.is_empty());
    kit.check_replay();
}
