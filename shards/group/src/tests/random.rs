//! Random clients, random time, and a log that is slow or refuses: what must hold after every step.

use std::collections::BTreeSet;

use pelton_model::Prng;
use pelton_wire::error_code::ErrorCode;

use crate::classic::Tally;

use super::client::{consumer, fixed, join_request, subscription};
use super::kit::{GROUP, Kit};
use crate::classic::{ClassicGroup, ClassicState};
use crate::coordinator::Group;
use crate::timers::TimerKey;
use crate::{GroupConfig, GroupResponse};

/// What is true of a classic group at any time; above all, nobody can wait for ever.
fn check(kit: &Kit, group: &ClassicGroup) {
    let has = |key: TimerKey| kit.coordinator.timers.is_set(&key);
    let session = |member: &str| has(TimerKey::Session(GROUP.to_string(), member.to_string()));
    match group.state {
        ClassicState::Empty => assert!(group.members.is_empty(), "{group:?}"),
        ClassicState::PreparingRebalance => assert!(has(TimerKey::Join(GROUP.to_string())), "{group:?}"),
        ClassicState::CompletingRebalance => {
            let is_storing = group.storing.is_some() && !kit.held.is_empty();
            assert!(has(TimerKey::Sync(GROUP.to_string())) || is_storing, "{group:?}");
        }
        ClassicState::Stable => {
            assert!(group.pending_sync.is_empty() || has(TimerKey::Sync(GROUP.to_string())), "{group:?}");
        }
    }
    for (id, member) in &group.members {
        let joins = group.state == ClassicState::PreparingRebalance
            || (group.state == ClassicState::Stable && !kit.held.is_empty());
        assert!(member.joining.is_none() || joins, "a join nobody answers: {group:?}");
        let syncs = group.state == ClassicState::CompletingRebalance;
        assert!(member.syncing.is_none() || syncs, "a sync nobody answers: {group:?}");
        let waits = member.joining.is_some() || member.syncing.is_some();
        assert!(session(id) || waits, "nobody would notice the death of {id}: {group:?}");
    }
    assert_eq!(group.tally, Tally::of(group.members.values()), "{group:?}");
    assert!(group.pending_members.iter().all(|id| session(id) && !group.has_member(id)), "{group:?}");
    assert!(group.pending_sync.iter().all(|id| group.has_member(id)), "{group:?}");
    let leader = group.leader.as_ref();
    assert_eq!(leader.is_some_and(|id| group.has_member(id)), !group.members.is_empty(), "{group:?}");
    let fixed = group.members.values().filter_map(|m| Some((m.instance_id.clone()?, m.id.clone())));
    assert_eq!(fixed.collect::<BTreeSet<_>>(), group.instances.clone().into_iter().collect(), "{group:?}");
}

/// Does one random thing; joins that wait are remembered in `joins`.
fn step(kit: &mut Kit, random: &mut Prng, ids: &mut Vec<String>, joins: &mut Vec<u64>) {
    let group = kit.coordinator.classic(GROUP).cloned().unwrap_or_default();
    let any = match ids.len() {
        0 => String::new(),
        count => ids[random.below(count as u64) as usize].clone(),
    };
    let instance = format!("i{}", random.below(2));
    let own = group.members.get(&any).and_then(|member| member.instance_id.clone());
    let generation = group.generation - i32::from(random.below(8) == 0);
    match random.below(16) {
        0 => joins.push(kit.join(3, consumer(""))),
        1 => joins.push(kit.join(5, consumer(""))),
        2 => joins.push(kit.join(9, fixed(&instance, ""))),
        3 => joins.push(kit.join(9, join_request(&any, &[("range", subscription()), ("x", subscription())]))),
        4..=6 => {
            let mut request = consumer(&any);
            request.group_instance_id = own.as_deref().map(crate::request::text);
            joins.push(kit.join(9, request));
        }
        7..=9 => {
            let members: Vec<String> = group.members.keys().cloned().collect();
            kit.sync_as(&any, own.as_deref(), generation, &members);
        }
        10 => drop(kit.ask_leave(&[(&any, own.as_deref())])),
        11 => drop(kit.commit(&any, generation, 1)),
        12 => kit.pass_ms(random.below(12_000)),
        13 => kit.holds = true,
        14 => kit.store_held(),
        _ if kit.held.is_empty() => kit.restart(),
        _ => kit.fail_held(ErrorCode::NotEnoughReplicas),
    }
    joins.retain(|token| match kit.take(*token) {
        Some(GroupResponse::JoinGroup(answer)) => {
            ids.push(answer.member_id.as_str().to_string());
            false
        }
        Some(other) => panic!("not a JoinGroup: {other:?}"),
        None => true,
    });
    let alive: BTreeSet<String> = ids.iter().rev().take(8).cloned().collect();
    ids.retain(|id| alive.contains(id) && !id.is_empty());
    ids.dedup();
}

#[test]
fn nobody_waits_for_ever() {
    let mut stable = 0;
    for seed in 0..150 {
        let mut random = Prng::new(seed);
        let mut kit = Kit::with(GroupConfig { group_max_size: 5, ..Default::default() });
        let (mut ids, mut joins) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            step(&mut kit, &mut random, &mut ids, &mut joins);
            if let Some(Group::Classic(group)) = kit.coordinator.groups.get(GROUP) {
                check(&kit, group);
                stable += usize::from(group.state == ClassicState::Stable);
            }
        }
        kit.store_held();
        kit.pass_ms(600_000);
        assert!(kit.coordinator.classic(GROUP).is_none_or(|group| group.state == ClassicState::Empty));
        // Only who asked before a restart has no answer.
        joins.retain(|token| kit.take(*token).is_none());
        assert_eq!(kit.waiting(), 0, "seed {seed}");
    }
    assert!(stable > 1_000, "the clients rarely agree: {stable}");
}
