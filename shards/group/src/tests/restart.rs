//! What a crash, a move or a refusing log leaves of a classic group.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::ConsumerGroupHeartbeatRequestData;

use super::client::{ONE_STEP, consumer, fixed};
use super::kit::{GROUP, Kit, Topics};
use crate::classic::ClassicState;
use crate::request::text;
use crate::{Coordinator, GroupConfig, GroupRequest, GroupResponse, RequestContext, RequestToken};

#[test]
fn a_stable_group_survives_a_restart() {
    let mut kit = Kit::new();
    let tokens = [kit.join(9, fixed("i0", "")), kit.join(ONE_STEP, consumer(""))];
    let group = kit.settle(&tokens);
    let token = kit.commit(&group.ids[1], 1, 7);
    assert_eq!(kit.committed(token), Some(0));
    let before = kit.coordinator.classic(GROUP).expect("classic").to_record();
    kit.restart();
    let after = kit.coordinator.classic(GROUP).expect("classic");
    // The record is written before the group is stable: its time is that of the state before.
    let since = after.state_since_ms;
    assert_eq!(
        after.to_record(),
        crate::records::GroupMetadataValue { current_state_timestamp_ms: since, ..before }
    );
    assert_eq!(kit.state(), ClassicState::Stable);
    assert_eq!(kit.coordinator.offsets.get(GROUP, "t", 0).map(|value| value.offset), Some(7));
    // Members go on as if nothing had been; who is silent is put out.
    assert_eq!(kit.beat(&group.ids[0], Some("i0"), 1), 0);
    let sync = kit.sync(&group.ids[1], 1, &[]);
    let assignment = kit.synced(sync).expect("stable").assignment;
    assert_eq!(assignment, format!("for {}", group.ids[1]));
    kit.pass_ms(10_000);
    assert_eq!(kit.state(), ClassicState::Empty);
    kit.restart();
    assert_eq!(kit.state(), ClassicState::Empty);
    let generation = kit.coordinator.classic(GROUP).map(|group| group.generation);
    assert_eq!(generation, Some(2));
}

#[test]
fn a_generation_without_an_assignment_does_not_survive() {
    let mut kit = Kit::new();
    let group = kit.generation_of(1);
    let token = kit.join(ONE_STEP, consumer(""));
    kit.join_now(9, consumer(&group.ids[0]));
    let new = kit.joined(token).expect("joined").member_id.as_str().to_string();
    kit.restart();
    assert_eq!(kit.beat(&group.ids[0], None, 2), ErrorCode::IllegalGeneration.code());
    assert_eq!(kit.beat(&new, None, 2), ErrorCode::UnknownMemberId.code());
    assert_eq!(kit.beat(&group.ids[0], None, 1), 0);
}

#[test]
fn a_loaded_group_over_the_cap_joins_again() {
    let mut kit = Kit::new();
    let group = kit.generation_of(3);
    kit.config.group_max_size = 2;
    kit.restart();
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
    let tokens = [0, 1].map(|at| kit.join(9, consumer(&group.ids[at])));
    assert_eq!(kit.join_now(9, consumer(&group.ids[2])).error_code, ErrorCode::GroupMaxSizeReached.code());
    kit.pass_ms(30_000);
    assert!(tokens.iter().all(|token| kit.joined(*token).is_some_and(|answer| answer.error_code == 0)));
}

#[test]
fn an_assignment_that_is_not_stored_is_nobodys() {
    let mut kit = Kit::new();
    let tokens = [kit.join(ONE_STEP, consumer("")), kit.join(ONE_STEP, consumer(""))];
    kit.pass_ms(6_000);
    let ids = tokens.map(|token| kit.joined(token).expect("joined").member_id.as_str().to_string());
    kit.holds = true;
    let syncs = [kit.sync(&ids[1], 1, &[]), kit.sync(&ids[0], 1, &ids)];
    kit.fail_held(ErrorCode::NotEnoughReplicas);
    for token in syncs {
        let answer = kit.synced(token).expect("refused");
        assert_eq!(answer.error_code, ErrorCode::CoordinatorNotAvailable.code());
        assert_eq!(answer.assignment, "");
    }
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
    let again = [0, 1].map(|at| kit.join(9, consumer(&ids[at])));
    assert!(again.iter().all(|token| kit.joined(*token).is_some_and(|answer| answer.generation_id == 2)));
    kit.sync_all(&ids, 2);
}

#[test]
fn an_assignment_stored_after_the_next_rebalance_began_is_not_given_out() {
    let mut kit = Kit::new();
    let first = kit.join(ONE_STEP, consumer(""));
    kit.pass_ms(3_000);
    let id = kit.joined(first).expect("joined").member_id.as_str().to_string();
    kit.holds = true;
    let sync = kit.sync(&id, 1, std::slice::from_ref(&id));
    let new = kit.join(ONE_STEP, consumer(""));
    assert_eq!(kit.synced(sync).map(|a| a.error_code), Some(ErrorCode::RebalanceInProgress.code()));
    kit.store_held();
    assert_eq!((kit.state(), kit.joined(new)), (ClassicState::PreparingRebalance, None));
}

#[test]
fn a_group_made_by_a_commit_that_failed_never_was() {
    let mut kit = Kit::new();
    kit.holds = true;
    let commit = kit.commit("", -1, 7);
    let join = kit.join(ONE_STEP, consumer(""));
    kit.fail_held(ErrorCode::NotLeaderOrFollower);
    assert_eq!(kit.committed(commit), Some(ErrorCode::NotCoordinator.code()));
    assert_eq!(kit.joined(join).map(|answer| answer.error_code), Some(ErrorCode::NotCoordinator.code()));
    assert_eq!(kit.coordinator.groups(), 0);
    kit.pass_ms(10_000);
}

#[test]
fn an_upgrade_that_is_not_stored_leaves_a_classic_group_that_joins_again() {
    let mut kit = Kit::new();
    let first = kit.join(ONE_STEP, consumer(""));
    kit.pass_ms(3_000);
    let id = kit.joined(first).expect("joined").member_id.as_str().to_string();
    let not_back = kit.join_now(9, consumer(""));
    assert_eq!(not_back.error_code, ErrorCode::MemberIdRequired.code());
    // Not synced yet: nothing to read, nothing that is malformed.
    kit.holds = true;
    let request = ConsumerGroupHeartbeatRequestData {
        group_id: text(GROUP),
        member_id: text("new"),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![text("t")]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    let upgrade = kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(request));
    assert!(kit.coordinator.classic(GROUP).is_none());
    // The deadline of who was given an id passes meanwhile.
    kit.pass_ms(10_000);
    kit.fail_held(ErrorCode::NotLeaderOrFollower);
    let Some(GroupResponse::ConsumerGroupHeartbeat(answer)) = kit.take(upgrade) else { panic!() };
    assert_eq!(answer.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(kit.state(), ClassicState::PreparingRebalance);
    assert_eq!(kit.beat(&id, None, 1), ErrorCode::RebalanceInProgress.code());
    assert_eq!(kit.join_now(9, consumer(&id)).generation_id, 2);
    kit.sync_all(&[id], 2);
}

#[test]
fn while_it_loads_and_after_it_moved_nobody_waits() {
    let mut kit = Kit::new();
    let group = kit.generation_of(2);
    let waiting = kit.join(9, consumer(&group.ids[0]));
    let mut out = Vec::new();
    kit.coordinator.unload(kit.now, &Topics, &mut out);
    assert_eq!(out.len(), 1, "{waiting} is refused: {out:?}");
    let mut loading = Coordinator::new(GroupConfig::default(), 1);
    let context = RequestContext { api_version: 4, client_id: String::new(), client_host: String::new() };
    let mut out = Vec::new();
    let join = GroupRequest::JoinGroup(consumer(""));
    let beat = GroupRequest::Heartbeat(Default::default());
    for request in [join, beat] {
        loading.handle(kit.now, RequestToken(0), &context, request, &Topics, &mut out);
    }
    let errors: Vec<i16> = out
        .iter()
        .map(|effect| match effect {
            crate::GroupEffect::Answer { response: GroupResponse::JoinGroup(answer), .. } => {
                answer.error_code
            }
            crate::GroupEffect::Answer { response: GroupResponse::Heartbeat(answer), .. } => {
                answer.error_code
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(errors, [ErrorCode::CoordinatorLoadInProgress.code(), 0], "a member is not sent to join anew");
}

#[test]
fn offsets_expire_only_when_nobody_is_there() {
    let mut kit = Kit::new();
    let group = kit.generation_of(1);
    let id = group.ids[0].as_str();
    let token = kit.commit(id, 1, 7);
    assert_eq!(kit.committed(token), Some(0));
    let offset = |kit: &Kit| kit.coordinator.offsets.get(GROUP, "t", 0).map(|value| value.offset);
    let week_ms = 7 * 24 * 3_600_000;
    for _ in 0..week_ms / 1_000_000 * 100 + 200 {
        kit.pass_ms(9_999);
        kit.beat(id, None, 1);
    }
    assert_eq!(offset(&kit), Some(7), "it is subscribed to");
    kit.leave(&[(id, None)]);
    kit.pass_ms(week_ms - 1);
    assert_eq!(offset(&kit), Some(7), "counted from when the group became empty");
    kit.pass_ms(600_001);
    assert_eq!((offset(&kit), kit.coordinator.groups()), (None, 0));
    kit.restart();
    assert_eq!((offset(&kit), kit.coordinator.groups()), (None, 0));
}
