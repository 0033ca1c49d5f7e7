//! A classic group with members that becomes a KIP-848 group, and its classic members in there.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::join_group_request::JoinGroupRequestProtocol;
use pelton_wire::messages::leave_group_request::MemberIdentity;
use pelton_wire::messages::{
    HeartbeatRequestData, JoinGroupRequestData, JoinGroupResponseData, SyncGroupRequestData,
    SyncGroupResponseData,
};
use pelton_wire::primitives::Writer;

use crate::classic::{ClassicGroup, ClassicMember, ClassicState, encode_assignment};
use crate::coordinator::Group;
use crate::records::Assignment;
use crate::request::{GroupResponse, text};
use pelton_model::{GroupConfig, MigrationPolicy};

use super::tests_kit::{GROUP, Kit, alive, assignment, given, join};
use super::upgrade::{by_id, read_assignment};

/// A subscription of version 1.
fn subscription(topics: &[&str], owned: &[(&str, &[i32])]) -> Bytes {
    let mut writer = Writer::new(false, 64);
    writer.i16(1);
    writer.length(Some(topics.len()));
    topics.iter().for_each(|topic| writer.string(topic));
    writer.length(None);
    writer.length(Some(owned.len()));
    for (topic, partitions) in owned {
        writer.string(topic);
        writer.length(Some(partitions.len()));
        partitions.iter().for_each(|partition| writer.i32(*partition));
    }
    Bytes::from(writer.bytes)
}

fn classic_member(id: &str, partitions: &[i32]) -> ClassicMember {
    ClassicMember {
        id: id.to_string(),
        rebalance_timeout_ms: 20_000,
        session_timeout_ms: 10_000,
        protocols: vec![("range".to_string(), subscription(&["t"], &[]))],
        assignment: encode_assignment(1, &[("t".to_string(), partitions.to_vec())]),
        ..ClassicMember::default()
    }
}

/// A stable classic group in generation 7: `a` has 0 and 1, `b` has 2 and 3.
fn classic_group() -> ClassicGroup {
    let mut group = ClassicGroup {
        state: ClassicState::Stable,
        generation: 7,
        protocol_type: Some("consumer".to_string()),
        protocol: Some("range".to_string()),
        ..ClassicGroup::default()
    };
    group.insert(classic_member("a", &[0, 1]));
    group.insert(classic_member("b", &[2, 3]));
    group
}

fn kit_with(group: ClassicGroup, config: GroupConfig) -> Kit {
    let mut kit = Kit::with(config);
    kit.topics.set("t", 4);
    kit.coordinator.groups.insert(GROUP.to_string(), Group::Classic(group));
    kit
}

fn beat(kit: &mut Kit, member: &str, generation: i32) -> i16 {
    let request = HeartbeatRequestData {
        group_id: text(GROUP),
        member_id: text(member),
        generation_id: generation,
        ..Default::default()
    };
    let (token, ()) = kit.call(4, |coordinator, asker, turn| {
        coordinator.classic_heartbeat_to_consumer(asker, &request, turn);
    });
    let Some(GroupResponse::Heartbeat(response)) = kit.answers.remove(&token) else { panic!() };
    response.error_code
}

/// A JoinGroup of a member that owns partitions of `t`.
pub(super) fn classic_request(member: &str, protocol: &str, owned: &[i32]) -> JoinGroupRequestData {
    let metadata = subscription(&["t"], &[("t", owned)]);
    JoinGroupRequestData {
        group_id: text(GROUP),
        member_id: text(member),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        protocol_type: text("consumer"),
        protocols: vec![JoinGroupRequestProtocol { name: text(protocol), metadata, ..Default::default() }],
        ..Default::default()
    }
}

fn rejoin(kit: &mut Kit, member: &str, protocol: &str, owned: &[i32]) -> JoinGroupResponseData {
    let request = classic_request(member, protocol, owned);
    let (token, ()) =
        kit.call(7, |coordinator, asker, turn| coordinator.classic_join_to_consumer(asker, &request, turn));
    let Some(GroupResponse::JoinGroup(response)) = kit.answers.remove(&token) else { panic!() };
    response
}

fn sync(kit: &mut Kit, member: &str, generation: i32) -> SyncGroupResponseData {
    let request = SyncGroupRequestData {
        group_id: text(GROUP),
        member_id: text(member),
        generation_id: generation,
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        ..Default::default()
    };
    let (token, ()) =
        kit.call(5, |coordinator, asker, turn| coordinator.classic_sync_to_consumer(asker, &request, turn));
    let Some(GroupResponse::SyncGroup(response)) = kit.answers.remove(&token) else { panic!() };
    response
}

fn synced(kit: &Kit, response: &SyncGroupResponseData) -> Assignment {
    by_id(&read_assignment(&response.assignment).expect("readable").topics, &kit.topics)
}

#[test]
fn classic_members_move_over_one_by_one() {
    let mut kit = kit_with(classic_group(), GroupConfig::default());
    let t = kit.topics.set("t", 4);
    let response = kit.beat(join("c", &["t"]));
    assert_eq!((response.error_code, response.member_epoch), (0, 8));
    assert_eq!(given(&response), Some(Assignment::new()), "nothing is free yet");
    assert_eq!(kit.group().members.len(), 3);
    kit.check_replay();
    // Both are told to join again; one of them has to give one partition back.
    for member in ["a", "b"] {
        assert_eq!(beat(&mut kit, member, 7), ErrorCode::RebalanceInProgress.code());
    }
    let mut kept = 0;
    for (member, owned) in [("a", [0, 1]), ("b", [2, 3])] {
        let joined = rejoin(&mut kit, member, "range", &owned);
        assert_eq!((joined.error_code, joined.leader.as_str()), (0, ""));
        assert_eq!(joined.protocol_name, Some(text("range")));
        let mut response = sync(&mut kit, member, joined.generation_id);
        assert_eq!(response.error_code, 0);
        if joined.generation_id == 7 {
            let left: Vec<i32> = synced(&kit, &response)[&t].iter().copied().collect();
            assert_eq!(left.len(), 1);
            assert_eq!(beat(&mut kit, member, 7), ErrorCode::RebalanceInProgress.code());
            let joined = rejoin(&mut kit, member, "range", &left);
            assert_eq!(joined.generation_id, 8);
            response = sync(&mut kit, member, 8);
        }
        kept += synced(&kit, &response)[&t].len();
        assert_eq!(beat(&mut kit, member, 8), 0);
    }
    let new = given(&kit.beat(alive("c", 8))).expect("free now");
    assert_eq!((kept, new[&t].len()), (3, 1));
    assert!(kit.group().members.keys().all(|member| kit.group().is_reconciled(member)));
    kit.check_replay();
}

#[test]
fn what_cannot_be_upgraded_stays() {
    let refused = ErrorCode::GroupIdNotFound.code();
    let off = GroupConfig { migration_policy: MigrationPolicy::Downgrade, ..GroupConfig::default() };
    let small = GroupConfig { consumer_max_size: 1, ..GroupConfig::default() };
    let mut connect = classic_group();
    connect.protocol_type = Some("connect".to_string());
    let mut malformed = classic_group();
    malformed.insert(ClassicMember { assignment: Bytes::from_static(&[0]), ..classic_member("a", &[]) });
    let mut custom = classic_group();
    let mut assignment = encode_assignment(1, &[]).to_vec();
    assignment.truncate(assignment.len() - 4);
    assignment.extend([0, 0, 0, 1, 9]);
    custom.insert(ClassicMember { assignment: Bytes::from(assignment), ..classic_member("a", &[]) });
    let default = GroupConfig::default;
    let cases = [
        (classic_group(), off),
        (classic_group(), small),
        (connect, default()),
        (malformed, default()),
        (custom, default()),
    ];
    for (group, config) in cases {
        let mut kit = kit_with(group, config);
        assert_eq!(kit.beat(join("c", &["t"])).error_code, refused);
        let Some(Group::Classic(group)) = kit.coordinator.groups.get(GROUP) else { panic!() };
        assert_eq!(group.members.len(), 2);
        assert!(kit.log.is_empty());
    }
}

#[test]
fn a_partition_given_twice_has_one_owner_after_the_upgrade() {
    let mut group = classic_group();
    group.insert(classic_member("b", &[1, 2]));
    let mut kit = kit_with(group, GroupConfig::default());
    let t = kit.topics.set("t", 4);
    kit.beat(join("c", &["t"]));
    assert_eq!(kit.group().current("a").assigned, assignment(&[(t, &[0, 1])]));
    assert_eq!(kit.group().current("b").assigned, assignment(&[(t, &[2])]));
}

#[test]
fn classic_members_are_checked() {
    let mut kit = kit_with(classic_group(), GroupConfig::default());
    kit.beat(join("c", &["t"]));
    assert_eq!(beat(&mut kit, "a", 6), ErrorCode::IllegalGeneration.code());
    assert_eq!(beat(&mut kit, "c", 8), ErrorCode::UnknownMemberId.code());
    assert_eq!(sync(&mut kit, "a", 6).error_code, ErrorCode::IllegalGeneration.code());
    assert_eq!(sync(&mut kit, "a", 7).error_code, ErrorCode::RebalanceInProgress.code());
    assert_eq!(
        rejoin(&mut kit, "d", "roundrobin", &[]).error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let response = rejoin(&mut kit, "", "range", &[]);
    assert_eq!(response.error_code, ErrorCode::MemberIdRequired.code());
    let id = response.member_id.as_str().to_string();
    assert_eq!(rejoin(&mut kit, &id, "range", &[]).error_code, 0);
    assert_eq!(kit.group().check_commit("a", 7, 8), Ok(()));
    assert_eq!(kit.group().check_commit("a", 6, 9), Err(ErrorCode::IllegalGeneration));
    let identity = |member: &str| MemberIdentity { member_id: text(member), ..Default::default() };
    let identities = [identity("a"), identity("c"), identity("x")];
    let (_, responses) =
        kit.call(5, |coordinator, _, turn| coordinator.classic_leave_consumer(GROUP, &identities, turn));
    let codes: Vec<i16> = responses.iter().map(|response| response.error_code).collect();
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(codes, [0, unknown, unknown]);
    assert!(!kit.group().members.contains_key("a") && kit.group().members.contains_key("c"));
    kit.check_replay();
}

#[test]
fn classic_members_must_rejoin_and_sync_in_time() {
    let mut kit = kit_with(classic_group(), GroupConfig::default());
    kit.beat(join("c", &["t"]));
    beat(&mut kit, "a", 7);
    let joined = rejoin(&mut kit, "b", "range", &[2, 3]);
    for _ in 0..2 {
        kit.pass_ms(9_000);
        beat(&mut kit, "a", 7);
        beat(&mut kit, "b", joined.generation_id);
    }
    assert_eq!(kit.group().members.len(), 3);
    kit.pass_ms(2_000);
    // `a` did not join again, `b` did not sync.
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn classic_members_have_their_own_session_timeout() {
    let mut kit = kit_with(classic_group(), GroupConfig::default());
    kit.beat(join("c", &["t"]));
    kit.pass_ms(9_999);
    assert_eq!(kit.group().members.len(), 3);
    kit.pass_ms(1);
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["c"]);
}
