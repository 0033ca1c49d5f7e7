//! ConsumerGroupDescribe, answers in the bytes of both versions, and an empty group that becomes a classic one.

use bytes::BytesMut;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::consumer_group_describe_response::DescribedGroup;
use pelton_wire::messages::{ConsumerGroupDescribeRequestData, ConsumerGroupHeartbeatRequestData, Message};

use crate::coordinator::{Group, Turn};
use crate::request::{GroupRequest, GroupResponse, text};

use super::tests_kit::{GROUP, Kit, alive, join, names};

fn describe(kit: &mut Kit, version: i16, ids: &[&str]) -> Vec<DescribedGroup> {
    let request = ConsumerGroupDescribeRequestData { group_ids: names(ids), ..Default::default() };
    let token = kit.ask(version, GroupRequest::ConsumerGroupDescribe(request));
    let Some(GroupResponse::ConsumerGroupDescribe(response)) = kit.answers.remove(&token) else { panic!() };
    response.write_to(&mut BytesMut::new(), version).expect("fits the version");
    response.groups
}

#[test]
fn a_group_is_described() {
    let mut kit = Kit::new();
    kit.topics.set("t", 2);
    let first = ConsumerGroupHeartbeatRequestData {
        instance_id: Some(text("i")),
        rack_id: Some(text("r")),
        subscribed_topic_regex: Some(text("t")),
        ..join("a", &["t", "gone"])
    };
    let response = kit.beat(first);
    response.write_to(&mut BytesMut::new(), 1).expect("fits");
    let response = kit.beat_in(0, join("b", &["t"]));
    response.write_to(&mut BytesMut::new(), 0).expect("fits");
    for version in [0, 1] {
        let groups = describe(&mut kit, version, &[GROUP, "none"]);
        let group = &groups[0];
        assert_eq!((group.error_code, group.group_state.as_str()), (0, "Reconciling"));
        assert_eq!(
            (group.group_epoch, group.assignment_epoch, group.assignor_name.as_str()),
            (2, 2, "uniform")
        );
        let member = &group.members[0];
        assert_eq!((member.member_id.as_str(), member.member_epoch), ("a", 1));
        assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("client", "/127.0.0.1"));
        assert_eq!(member.instance_id, Some(text("i")));
        assert_eq!(member.rack_id, Some(text("r")));
        assert_eq!(member.subscribed_topic_regex, Some(text("t")));
        assert_eq!(member.subscribed_topic_names, names(&["gone", "t"]));
        assert_eq!(member.assignment.topic_partitions[0].topic_name.as_str(), "t");
        assert_eq!(member.assignment.topic_partitions[0].partitions, [0, 1]);
        assert_eq!(member.target_assignment.topic_partitions[0].partitions.len(), 1);
        assert_eq!(member.member_type, if version == 0 { -1 } else { 1 });
        assert_eq!(groups[1].error_code, ErrorCode::GroupIdNotFound.code());
    }
    kit.coordinator.groups.insert("c".to_string(), Group::Classic(Default::default()));
    assert_eq!(describe(&mut kit, 1, &["c"])[0].error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(describe(&mut kit, 1, &[""])[0].error_code, ErrorCode::InvalidGroupId.code());
}

#[test]
fn only_an_empty_group_becomes_classic() {
    let mut kit = Kit::new();
    kit.topics.set("t", 1);
    kit.beat(join("a", &["t"]));
    let mut out = Vec::new();
    let mut turn = Turn { now: kit.now, topics: &kit.topics, out: &mut out };
    assert!(!kit.coordinator.empty_consumer_to_classic(GROUP, &mut turn));
    assert!(!kit.coordinator.empty_consumer_to_classic("none", &mut turn));
    kit.beat(alive("a", -1));
    let mut turn = Turn { now: kit.now, topics: &kit.topics, out: &mut out };
    assert!(kit.coordinator.empty_consumer_to_classic(GROUP, &mut turn));
    assert!(matches!(kit.coordinator.groups.get(GROUP), Some(Group::Classic(_))));
    // The log refuses: it is a KIP-848 group as before.
    let crate::GroupEffect::Append { ticket, .. } = out[0].clone() else { panic!() };
    let mut out = Vec::new();
    kit.coordinator.append_failed(kit.now, ticket, ErrorCode::NotEnoughReplicas, &kit.topics, &mut out);
    assert!(kit.group().is_empty() && kit.group().epoch.epoch == 2);
}
