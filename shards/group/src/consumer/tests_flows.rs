//! Heartbeats of one to three members that join, stay, change and leave; what the log has of it; and a replay of it.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{ConsumerGroupDescribeRequestData, ConsumerGroupHeartbeatRequestData};

use crate::records::{Assignment, Record};
use crate::request::{GroupRequest, GroupResponse, text};
use pelton_model::GroupConfig;

use super::tests_kit::{GROUP, Kit, alive, assignment, given, join, names, owning};

/// The kinds of the log's records, tombstones in brackets.
fn kinds(kit: &Kit, from: usize) -> Vec<&'static str> {
    let kind = |record: Record| match record {
        Record::Group { value: None, .. } => "[group]",
        Record::Epoch { value: Some(_), .. } => "epoch",
        Record::Member { value: Some(_), .. } => "member",
        Record::Member { .. } => "[member]",
        Record::TargetEpoch { value: Some(_), .. } => "target epoch",
        Record::Target { value: Some(_), .. } => "target",
        Record::Target { .. } => "[target]",
        Record::Current { value: Some(_), .. } => "current",
        Record::Current { .. } => "[current]",
        other => panic!("{other:?}"),
    };
    let records = kit.log[from..].iter();
    records.map(|(key, value)| kind(Record::decode(key, value.as_deref()).unwrap().unwrap())).collect()
}

fn state(kit: &mut Kit) -> String {
    let request = ConsumerGroupDescribeRequestData { group_ids: names(&[GROUP]), ..Default::default() };
    let token = kit.ask(1, GroupRequest::ConsumerGroupDescribe(request));
    let Some(GroupResponse::ConsumerGroupDescribe(response)) = kit.answers.remove(&token) else { panic!() };
    response.groups[0].group_state.as_str().to_string()
}

#[test]
fn a_first_member_gets_everything_at_once() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 3);
    let response = kit.beat(join("a", &["t"]));
    assert_eq!((response.error_code, response.member_epoch, response.heartbeat_interval_ms), (0, 1, 5_000));
    assert_eq!(response.member_id.as_ref().unwrap().as_str(), "a");
    assert_eq!(given(&response), Some(assignment(&[(t, &[0, 1, 2])])));
    assert_eq!(kinds(&kit, 0), ["member", "epoch", "target", "target epoch", "current"]);
    assert_eq!(state(&mut kit), "Stable");
    let written = kit.log.len();
    let response = kit.beat(alive("a", 1));
    assert_eq!((response.error_code, response.member_epoch, given(&response)), (0, 1, None));
    assert_eq!(kit.log.len(), written, "a sign of life writes nothing");
    // A full request, as after a lost answer, is answered with the assignment.
    let full = ConsumerGroupHeartbeatRequestData { member_epoch: 1, ..join("a", &["t"]) };
    assert!(given(&kit.beat(full)).is_some());
    assert_eq!(kit.log.len(), written);
    kit.check_replay();
}

#[test]
fn a_newcomer_waits_until_partitions_are_given_back() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 4);
    kit.beat(join("a", &["t"]));
    let response = kit.beat(join("b", &["t"]));
    assert_eq!((response.member_epoch, given(&response)), (2, Some(Assignment::new())));
    assert_eq!(state(&mut kit), "Reconciling");
    // The first member is told to give back; it stays in its epoch until it has.
    let response = kit.beat(alive("a", 1));
    let kept = given(&response).expect("changed");
    assert_eq!((response.member_epoch, kept[&t].len()), (1, 2));
    assert_eq!(given(&kit.beat(alive("b", 2))), None);
    let all = assignment(&[(t, &[0, 1, 2, 3])]);
    assert_eq!(kit.beat(owning("a", 1, &all)).member_epoch, 1, "not given back yet");
    let response = kit.beat(owning("a", 1, &kept));
    assert_eq!((response.error_code, response.member_epoch, given(&response)), (0, 2, None));
    let response = kit.beat(alive("b", 2));
    let new = given(&response).expect("free now");
    assert_eq!(new[&t].len(), 2);
    assert!(new[&t].is_disjoint(&kept[&t]));
    assert_eq!(state(&mut kit), "Stable");
    kit.check_replay();
}

#[test]
fn what_a_leaver_had_goes_to_the_others() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 6);
    for id in ["a", "b", "c"] {
        kit.beat(join(id, &["t"]));
    }
    let nothing = Assignment::new();
    for _ in 0..4 {
        for id in ["a", "b", "c"] {
            let current = kit.group().current(id);
            kit.beat(owning(id, current.member_epoch, &current.assigned));
        }
    }
    assert!(kit.group().current.values().all(|current| current.assigned[&t].len() == 2));
    let before = kit.log.len();
    let response = kit.beat(alive("b", -1));
    assert_eq!((response.error_code, response.member_epoch, given(&response)), (0, -1, None));
    assert_eq!(kinds(&kit, before), ["[current]", "[target]", "[member]", "epoch"]);
    assert_eq!(state(&mut kit), "Assigning");
    for id in ["a", "c"] {
        let response = kit.beat(alive(id, 3));
        assert_eq!((response.member_epoch, given(&response).unwrap()[&t].len()), (4, 3), "{id}");
    }
    kit.beat(alive("a", -1));
    kit.beat(alive("c", -1));
    assert!(kit.group().is_empty() && kit.group().owners.is_empty() && kit.group().targets.is_empty());
    assert_eq!(state(&mut kit), "Empty");
    assert_ne!(kit.group().epoch.epoch, 0);
    assert_eq!(given(&kit.beat(join("d", &[]))), Some(nothing));
    kit.check_replay();
}

#[test]
fn subscriptions_and_topics_change_the_epoch() {
    let mut kit = Kit::new();
    let t = kit.topics.set("t", 1);
    let u = kit.topics.set("u", 1);
    kit.beat(join("a", &["t"]));
    let changed = ConsumerGroupHeartbeatRequestData {
        subscribed_topic_names: Some(names(&["t", "u"])),
        ..alive("a", 1)
    };
    let response = kit.beat(changed);
    assert_eq!((response.member_epoch, given(&response)), (2, Some(assignment(&[(t, &[0]), (u, &[0])]))));
    // More partitions of a topic that is read, then a topic nobody reads.
    kit.topics.set("t", 2);
    let response = kit.beat(alive("a", 2));
    assert_eq!((response.member_epoch, given(&response)), (3, Some(assignment(&[(t, &[0, 1]), (u, &[0])]))));
    kit.topics.set("other", 5);
    let response = kit.beat(alive("a", 3));
    assert_eq!((response.member_epoch, given(&response)), (3, None));
    // A topic that is gone must be given back first.
    kit.topics.delete("u");
    let response = kit.beat(alive("a", 3));
    assert_eq!((response.member_epoch, given(&response)), (3, Some(assignment(&[(t, &[0, 1])]))));
    let response = kit.beat(owning("a", 3, &assignment(&[(t, &[0, 1])])));
    assert_eq!((response.member_epoch, given(&response)), (4, None));
    kit.check_replay();
}

#[test]
fn assignors_are_voted_for() {
    let mut kit = Kit::new();
    kit.topics.set("t", 4);
    let wants = |id: &str, assignor: &str| ConsumerGroupHeartbeatRequestData {
        server_assignor: Some(text(assignor)),
        ..join(id, &["t"])
    };
    let response = kit.beat(wants("a", "sticky"));
    assert_eq!(response.error_code, ErrorCode::UnsupportedAssignor.code());
    kit.beat(wants("a", "range"));
    kit.beat(join("b", &["t"]));
    assert_eq!(kit.group().assignor("uniform"), "range");
    assert_eq!(kit.group().targets["a"].values().next().unwrap().iter().copied().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_group_is_full_at_its_limit() {
    let mut kit = Kit::with(GroupConfig { consumer_max_size: 1, ..GroupConfig::default() });
    kit.topics.set("t", 1);
    kit.beat(join("a", &["t"]));
    assert_eq!(kit.beat(join("b", &["t"])).error_code, ErrorCode::GroupMaxSizeReached.code());
    assert_eq!(kit.beat(join("a", &["t"])).error_code, 0);
}

#[test]
fn version_0_gets_its_member_id_here() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    assert_eq!(kit.beat(join("", &["t"])).error_code, ErrorCode::InvalidRequest.code());
    let response = kit.beat_in(0, join("", &["t"]));
    let id = response.member_id.as_ref().unwrap().as_str().to_string();
    assert_eq!((response.error_code, id.len()), (0, 36));
    assert_eq!(kit.beat_in(0, alive(&id, 1)).error_code, 0);
}

#[test]
fn an_empty_classic_group_becomes_a_consumer_group() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    let group = crate::classic::ClassicGroup::default();
    kit.coordinator.groups.insert(GROUP.to_string(), crate::coordinator::Group::Classic(group));
    assert_eq!(kit.beat(alive("a", 1)).error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(kit.beat(join("a", &["t"])).error_code, 0);
    assert_eq!(kinds(&kit, 0)[..2], ["[group]", "member"]);
    kit.check_replay();
}

#[test]
fn what_the_log_refuses_never_was() {
    let mut kit = Kit::new();
    kit.topics.set("t", 2);
    kit.holds = true;
    let joining = kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(join("a", &["t"])));
    assert!(kit.answers.is_empty(), "an answer waits for the log");
    kit.fail_held(ErrorCode::NotEnoughReplicas);
    let Some(GroupResponse::ConsumerGroupHeartbeat(refused)) = kit.answers.remove(&joining) else { panic!() };
    assert_eq!(refused.error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert!(kit.coordinator.groups.is_empty());
    kit.beat(join("a", &["t"]));
    let mut before = kit.group().clone();
    kit.holds = true;
    kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(join("b", &["t"])));
    kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(alive("a", 1)));
    kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(alive("b", -1)));
    kit.fail_held(ErrorCode::NotLeaderOrFollower);
    let mut after = kit.group().clone();
    after.seen_topics = Some(super::SeenTopics { version: kit.topics.version, epoch: 1 });
    (before.last_target, after.last_target) = (None, None);
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    kit.check_replay();
}
