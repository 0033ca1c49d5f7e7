//! A replica whose disk is full.

use pelton_model::Offset;

use super::controller::replica;
use super::rules::{acknowledge_to, member, partition, state, with};
use crate::effect::{Effect, IsrProposal};
use crate::frame::Body;
use crate::partition::{Partition, RoleKind};

fn say(partition: &mut Partition, node: usize, full: bool) -> Vec<Effect> {
    let (epoch, body) = (partition.leader_epoch(), Body::Space { replica_epoch: member(node).epoch, full });
    with(partition, |partition, turn| partition.handle_frame(replica(node), epoch, &body, turn)).1
}

fn fill(partition: &mut Partition, full: bool) -> Vec<Effect> {
    with(partition, |partition, turn| partition.handle_space(full, turn)).1
}

fn proposed(effects: &[Effect]) -> Option<Vec<usize>> {
    effects.iter().find_map(|effect| match effect {
        Effect::ProposeIsr(IsrProposal { isr, .. }) => {
            Some(isr.iter().map(|member| member.replica.node.0 as usize).collect())
        }
        _ => None,
    })
}

fn nodes(of: &[usize]) -> Option<Vec<usize>> {
    Some(of.iter().map(|node| replica(*node).node.0 as usize).collect())
}

#[test]
fn a_full_leader_hands_over_to_one_in_sync_that_has_room() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge_to(&mut partition, Offset(10));
    say(&mut partition, 1, true);
    let effects = fill(&mut partition, true);
    assert_eq!(partition.role(), RoleKind::Released);
    let to = |effect: &Effect| matches!(effect, Effect::Release { target, .. } if *target == replica(2));
    assert!(effects.iter().any(to), "{effects:?}");
}

/// What a leader says of its own disk, to whom.
fn told(effects: &[Effect]) -> Vec<(i32, bool)> {
    let said = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, body: Body::Space { replica_epoch, full } }
            if *replica_epoch == member(0).epoch =>
        {
            Some((to.node.0, *full))
        }
        _ => None,
    });
    said.collect()
}

#[test]
fn a_full_leader_says_so_before_it_hands_over() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge_to(&mut partition, Offset(10));
    let effects = fill(&mut partition, true);
    let (one, two) = (replica(1).node.0, replica(2).node.0);
    assert_eq!(told(&effects), [(one, true), (two, true)]);
    let at = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    let told = at(|effect| matches!(effect, Effect::Send { body: Body::Space { .. }, .. }));
    assert!(told < at(|effect| matches!(effect, Effect::Release { .. })), "{effects:?}");
}

/// Node 0 follows node 1, which says whether its disk is full; then node 0 leads.
fn follows_then_leads(full: &[bool], epoch: i32, isr: &[usize]) -> (Partition, Vec<Effect>) {
    let mut partition = partition(&state(1, 1, 1, &[0, 1, 2]), true);
    full.iter().for_each(|full| drop(say(&mut partition, 1, *full)));
    with(&mut partition, |partition, turn| partition.handle_metadata(&state(0, epoch, 2, isr), true, turn));
    let effects = with(&mut partition, |partition, turn| partition.handle_tick(turn)).1;
    (partition, effects)
}

#[test]
fn who_led_with_a_full_disk_is_not_waited_for_by_the_next_leader() {
    let (partition, effects) = follows_then_leads(&[true], 2, &[0, 1, 2]);
    assert_eq!(proposed(&effects), nodes(&[0, 2]));
    assert_eq!(partition.role(), RoleKind::Active);
    let (_, effects) = follows_then_leads(&[true, false], 2, &[0, 1, 2]);
    assert_eq!(proposed(&effects), None, "it has room again");
    let (_, effects) = follows_then_leads(&[true], 2, &[0, 1]);
    assert_eq!(proposed(&effects), None, "too few would be left");
}

#[test]
fn a_follower_with_a_full_disk_is_not_waited_for_by_the_next_leader() {
    let mut partition = partition(&state(1, 1, 1, &[0, 1, 2]), true);
    say(&mut partition, 2, true);
    with(&mut partition, |partition, turn| {
        partition.handle_metadata(&state(0, 2, 2, &[0, 1, 2]), true, turn)
    });
    let effects = with(&mut partition, |partition, turn| partition.handle_tick(turn)).1;
    assert_eq!(proposed(&effects), nodes(&[0, 1]));
}

#[test]
fn a_full_leader_goes_on_while_nobody_can_take_over_and_hands_over_as_soon_as_somebody_can() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    let effects = fill(&mut partition, true);
    assert_eq!(told(&effects).len(), effects.len(), "{effects:?}");
    assert_eq!((partition.role(), partition.deadline_ns().filter(|due| *due == 0)), (RoleKind::Active, None));
    acknowledge_to(&mut partition, Offset(10));
    assert_eq!(partition.deadline_ns(), Some(0));
    with(&mut partition, |partition, turn| partition.handle_tick(turn));
    assert_eq!(partition.role(), RoleKind::Released);
}

#[test]
fn a_leader_that_was_full_keeps_what_it_leads() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    fill(&mut partition, true);
    fill(&mut partition, false);
    acknowledge_to(&mut partition, Offset(10));
    with(&mut partition, |partition, turn| partition.handle_tick(turn));
    assert_eq!(partition.role(), RoleKind::Active);
}

#[test]
fn a_full_follower_leaves_the_isr_at_once_and_comes_back_when_it_has_room() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge_to(&mut partition, Offset(10));
    assert_eq!(proposed(&say(&mut partition, 1, true)), nodes(&[0, 2]));
    with(&mut partition, |partition, turn| partition.handle_metadata(&state(0, 1, 2, &[0, 2]), true, turn));
    // It has everything, and is not proposed.
    let (_, effects) = with(&mut partition, |partition, turn| partition.handle_tick(turn));
    assert_eq!(proposed(&effects), None);
    assert_eq!(proposed(&say(&mut partition, 1, false)), nodes(&[0, 1, 2]));
}

#[test]
fn nobody_leaves_for_want_of_room_if_too_few_would_be_left() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1]), true);
    acknowledge_to(&mut partition, Offset(10));
    with(&mut partition, |partition, turn| partition.handle_metadata(&state(0, 1, 2, &[0, 1]), true, turn));
    let without_first = |effects: &[Effect]| proposed(effects).is_some_and(|isr| Some(isr) == nodes(&[0]));
    assert!(!without_first(&say(&mut partition, 1, true)));
}

#[test]
fn a_follower_says_that_it_is_full_once_and_whenever_it_is_asked() {
    let mut partition = partition(&state(1, 1, 1, &[0, 1, 2]), true);
    let says = |effects: &[Effect]| {
        let said = effects.iter().filter_map(|effect| match effect {
            Effect::Send { to, body: Body::Space { full, .. } } if *to == replica(1) => Some(*full),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    assert!(says(&fill(&mut partition, true)).is_empty(), "its log was not compared yet");
    let epoch = partition.leader_epoch();
    let (high_watermark, log_start) = (Offset(0), Offset(0));
    let answer = Body::Answer { join: 1, verdict: crate::frame::Verdict::Matches, high_watermark, log_start };
    let mut hear = |body: &Body| {
        says(&with(&mut partition, |partition, turn| partition.handle_frame(replica(1), epoch, body, turn)).1)
    };
    assert_eq!(hear(&answer), [true]);
    let mut other = partition.clone();
    let said = fill(&mut other, false);
    let to = |to: usize| {
        said.iter().any(|it| matches!(it, Effect::Send { to: at, body: Body::Space { full: false, .. } } if *at == replica(to)))
    };
    assert!(to(1) && to(2), "the leader may be handing over to the other: {said:?}");
    let (prev_offset, prev_epoch, bytes) = (Offset(10), 0, 0);
    let question = Body::Append { prev_offset, prev_epoch, high_watermark, log_start, bytes };
    let ask = |partition: &mut Partition| {
        says(
            &with(partition, |partition, turn| {
                partition.handle_append(replica(1), epoch, &question, &[], turn)
            })
            .1,
        )
    };
    assert_eq!(ask(&mut partition), [true]);
    assert_eq!(says(&fill(&mut partition, true)), []);
    assert_eq!(says(&fill(&mut partition, false)), [false]);
    assert_eq!(ask(&mut partition), [false]);
}

/// The controller wants node 1 to lead, as the preferred leader or because node 0 is to stop.
fn transfer(partition: &mut Partition) -> Vec<Effect> {
    with(partition, |partition, turn| partition.handle_transfer(replica(1), turn)).1
}

#[test]
fn nothing_is_handed_over_to_a_follower_whose_disk_is_full() {
    let cancelled = Effect::TransferCancelled { target: replica(1) };
    let mut whole = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge_to(&mut whole, Offset(9));
    let mut full = whole.clone();
    say(&mut full, 1, true);
    assert!(transfer(&mut full).contains(&cancelled), "it is on its way out of the ISR");
    assert_eq!(full.role(), RoleKind::Active);
    // It becomes full while it is waited for.
    assert!(!transfer(&mut whole).contains(&cancelled));
    assert_eq!(whole.role(), RoleKind::Draining);
    assert!(!say(&mut whole, 2, true).contains(&cancelled), "that is another");
    assert!(!say(&mut whole, 2, false).contains(&cancelled));
    assert!(say(&mut whole, 1, true).contains(&cancelled));
    assert_eq!(whole.role(), RoleKind::Active);
}

#[test]
fn where_it_has_to_stay_in_sync_a_full_follower_may_lead() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1]), true);
    acknowledge_to(&mut partition, Offset(9));
    say(&mut partition, 1, true);
    transfer(&mut partition);
    assert_eq!(partition.role(), RoleKind::Draining);
}
