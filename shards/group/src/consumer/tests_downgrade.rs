//! A KIP-848 group that becomes a classic one when its last member of the consumer protocol goes.

use pelton_model::{GroupConfig, MigrationPolicy};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    HeartbeatRequestData, JoinGroupResponseData, LeaveGroupRequestData, SyncGroupRequestData,
};

use crate::classic::{ClassicGroup, ClassicState, encode_assignment};
use crate::coordinator::Group;
use crate::request::{GroupRequest, GroupResponse, text};

use super::tests_kit::{GROUP, Kit, alive, join};
use super::tests_migration::classic_request;

/// A member of each protocol, both of which have had an assignment.
fn mixed(policy: MigrationPolicy) -> (Kit, String) {
    let mut kit = Kit::with(GroupConfig { migration_policy: policy, ..GroupConfig::default() });
    kit.topics.set("t", 4);
    assert_eq!(kit.beat(join("new", &["t"])).error_code, 0);
    let given = classic_join(&mut kit, "");
    let given = classic_join(&mut kit, given.member_id.as_str());
    assert_eq!(given.error_code, 0);
    let request = SyncGroupRequestData {
        group_id: text(GROUP),
        member_id: given.member_id.clone(),
        generation_id: given.generation_id,
        ..Default::default()
    };
    let token = kit.ask(4, GroupRequest::SyncGroup(request));
    assert!(matches!(&kit.answers[&token], GroupResponse::SyncGroup(response) if response.error_code == 0));
    (kit, given.member_id.as_str().to_string())
}

fn classic_join(kit: &mut Kit, member: &str) -> JoinGroupResponseData {
    let token = kit.ask(7, GroupRequest::JoinGroup(classic_request(member, "range", &[])));
    match kit.answers.remove(&token) {
        Some(GroupResponse::JoinGroup(response)) => response,
        other => panic!("not answered with a join: {other:?}"),
    }
}

fn classic_beat(kit: &mut Kit, member: &str, generation: i32) -> i16 {
    let request = HeartbeatRequestData {
        group_id: text(GROUP),
        member_id: text(member),
        generation_id: generation,
        ..Default::default()
    };
    let token = kit.ask(4, GroupRequest::Heartbeat(request));
    match kit.answers.remove(&token) {
        Some(GroupResponse::Heartbeat(response)) => response.error_code,
        other => panic!("not answered with a heartbeat: {other:?}"),
    }
}

fn classic(kit: &Kit) -> Option<&ClassicGroup> {
    match kit.coordinator.groups.get(GROUP) {
        Some(Group::Classic(group)) => Some(group),
        _ => None,
    }
}

fn check(kit: &mut Kit, member: &str, epoch: i32) {
    let group = classic(kit).expect("a classic group");
    assert_eq!(group.state, ClassicState::PreparingRebalance);
    assert_eq!((group.generation, group.protocol.as_deref()), (epoch, Some("range")));
    assert_eq!(group.members.keys().collect::<Vec<_>>(), [member]);
    assert_eq!(classic_beat(kit, member, epoch), ErrorCode::RebalanceInProgress.code());
    let joined = classic_join(kit, member);
    assert_eq!((joined.error_code, joined.generation_id), (0, epoch + 1));
    assert_eq!((joined.leader.as_str(), joined.members.len()), (member, 1));
}

#[test]
fn the_last_new_member_leaves() {
    let (mut kit, member) = mixed(MigrationPolicy::Bidirectional);
    let epoch = kit.group().epoch.epoch;
    let target =
        kit.group().targets[&member].values().next().map(|it| it.iter().copied().collect::<Vec<_>>());
    assert_eq!(kit.beat(alive("new", -1)).error_code, 0);
    let assignment = encode_assignment(1, &[("t".to_string(), target.unwrap())]);
    assert_eq!(classic(&kit).unwrap().members[&member].assignment, assignment);
    check(&mut kit, &member, epoch);
}

#[test]
fn the_last_new_member_is_silent() {
    let (mut kit, member) = mixed(MigrationPolicy::Downgrade);
    let epoch = kit.group().epoch.epoch;
    for _ in 0..5 {
        // The classic member stays alive; the other does not.
        kit.pass_ms(9_000);
        if classic(&kit).is_none() {
            classic_beat(&mut kit, &member, epoch);
        }
    }
    check(&mut kit, &member, epoch);
}

#[test]
fn what_was_written_is_the_classic_group() {
    let (mut kit, member) = mixed(MigrationPolicy::Bidirectional);
    let epoch = kit.group().epoch.epoch;
    kit.beat(alive("new", -1));
    let mut loaded = crate::Coordinator::new(GroupConfig::default(), 2);
    for (key, value) in &kit.log {
        loaded.replay(key, value.as_deref()).expect("readable");
    }
    let Some(Group::Classic(group)) = loaded.groups.get(GROUP) else { panic!("no classic group") };
    assert_eq!((group.generation, group.members.len()), (epoch, 1));
    assert!(group.members.contains_key(&member));
}

#[test]
fn nothing_changes_where_it_must_not() {
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Upgrade] {
        let (mut kit, member) = mixed(policy);
        kit.beat(alive("new", -1));
        assert!(kit.group().members.contains_key(&member), "{policy:?}");
    }
    // Another member of the new protocol stays.
    let (mut kit, _) = mixed(MigrationPolicy::Bidirectional);
    kit.beat(join("other", &["t"]));
    kit.beat(alive("new", -1));
    assert_eq!(kit.group().members.len(), 2);
    // The classic one leaves.
    let (mut kit, member) = mixed(MigrationPolicy::Bidirectional);
    let request =
        LeaveGroupRequestData { group_id: text(GROUP), member_id: text(&member), ..Default::default() };
    kit.ask(2, GroupRequest::LeaveGroup(request));
    assert_eq!(kit.group().members.keys().collect::<Vec<_>>(), ["new"]);
    // Nobody stays.
    kit.beat(alive("new", -1));
    assert!(kit.group().members.is_empty());
}

#[test]
fn a_refused_append_undoes_it() {
    let (mut kit, member) = mixed(MigrationPolicy::Bidirectional);
    let before = format!("{:?}", kit.group());
    kit.holds = true;
    let token = kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(alive("new", -1)));
    assert!(classic(&kit).is_some() && !kit.answers.contains_key(&token));
    kit.fail_held(ErrorCode::NotLeaderOrFollower);
    assert_eq!(format!("{:?}", kit.group()), before);
    assert!(kit.answers.contains_key(&token));
    assert!(kit.group().members.contains_key(&member));
}
