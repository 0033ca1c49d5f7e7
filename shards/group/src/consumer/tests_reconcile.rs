//! Single steps of a member towards its target.

use std::collections::BTreeSet;

use pelton_model::TopicId;
use pelton_wire::error_code::ErrorCode;

use crate::records::{Assignment, CurrentValue};

use super::reconcile::Reconcile;
use super::tests_kit::{assignment, topic};
use super::{STABLE, UNRELEASED, UNREVOKED};

fn at(epoch: i32, state: i8, assigned: &[i32], pending: &[i32]) -> CurrentValue {
    let of = |partitions: &[i32]| if partitions.is_empty() { Assignment::new() } else { t(partitions) };
    CurrentValue {
        member_epoch: epoch,
        previous_member_epoch: epoch,
        state,
        assigned: of(assigned),
        pending_revocation: of(pending),
    }
}

fn t(partitions: &[i32]) -> Assignment {
    assignment(&[(topic(1), partitions)])
}

struct Case<'a> {
    current: &'a CurrentValue,
    target: Assignment,
    owned: Option<Assignment>,
    taken: &'a [i32],
    subscribed: bool,
    changed: bool,
}

impl Case<'_> {
    fn next(&self) -> Result<CurrentValue, ErrorCode> {
        let subscribed: BTreeSet<TopicId> = self.subscribed.then_some(topic(1)).into_iter().collect();
        let step = Reconcile {
            current: self.current,
            target_epoch: 5,
            target: &self.target,
            subscribed: &subscribed,
            subscription_changed: self.changed,
            owned: self.owned.as_ref(),
            is_free: &|_, partition| !self.taken.contains(&partition),
        };
        step.next().map_err(|refusal| refusal.error)
    }
}

fn case(current: &CurrentValue, target: &[i32]) -> Case<'static> {
    let current = Box::leak(Box::new(current.clone()));
    Case { current, target: t(target), owned: None, taken: &[], subscribed: true, changed: false }
}

#[test]
fn a_stable_member_at_its_target_stays() {
    let current = at(5, STABLE, &[0], &[]);
    assert_eq!(case(&current, &[0, 1]).next(), Ok(current));
}

#[test]
fn it_gives_back_before_it_gets() {
    let next = case(&at(4, STABLE, &[0, 1], &[]), &[1, 2]).next().unwrap();
    assert_eq!(next, at(4, UNREVOKED, &[1], &[0]));
    // Nothing said of what it owns, or still there: it stays.
    assert_eq!(case(&next, &[1, 2]).next(), Ok(next.clone()));
    let still = Case { owned: Some(t(&[0, 1])), ..case(&next, &[1, 2]) };
    assert_eq!(still.next(), Ok(next.clone()));
    let given_back = Case { owned: Some(t(&[1])), ..case(&next, &[1, 2]) }.next().unwrap();
    assert_eq!(given_back, CurrentValue { previous_member_epoch: 4, ..at(5, STABLE, &[1, 2], &[]) });
}

#[test]
fn it_waits_for_what_others_own() {
    let waiting = Case { taken: &[2], ..case(&at(4, STABLE, &[1], &[]), &[1, 2, 3]) }.next().unwrap();
    assert_eq!(waiting, CurrentValue { previous_member_epoch: 4, ..at(5, UNRELEASED, &[1, 3], &[]) });
    let free = case(&waiting, &[1, 2, 3]).next().unwrap();
    assert_eq!(free, at(5, STABLE, &[1, 2, 3], &[]));
}

#[test]
fn it_may_get_back_what_it_was_giving_back() {
    // Partition 0 is taken: by this very member, which has given it back and is to have it again.
    let current = at(4, UNREVOKED, &[1], &[0]);
    let next = Case { owned: Some(t(&[1])), taken: &[0], ..case(&current, &[0, 1]) }.next().unwrap();
    assert_eq!((next.state, next.assigned), (STABLE, t(&[0, 1])));
}

#[test]
fn new_revocations_come_while_it_waits() {
    let next = case(&at(4, UNRELEASED, &[0, 1], &[]), &[1]).next().unwrap();
    assert_eq!((next.state, next.member_epoch, next.pending_revocation), (UNREVOKED, 4, t(&[0])));
}

#[test]
fn what_it_does_not_read_is_taken_at_once() {
    let current = at(5, STABLE, &[0], &[]);
    let next = Case { subscribed: false, changed: true, ..case(&current, &[0]) }.next().unwrap();
    assert_eq!(next, at(5, UNREVOKED, &[], &[0]));
    let gave =
        Case { subscribed: false, changed: true, owned: Some(Assignment::new()), ..case(&current, &[0]) };
    assert_eq!(gave.next(), Ok(at(5, STABLE, &[], &[])));
    // Even if the target still has it.
    let behind = Case { subscribed: false, ..case(&at(4, STABLE, &[0], &[]), &[0]) }.next().unwrap();
    assert_eq!(behind.state, UNREVOKED);
}

#[test]
fn an_unknown_state_must_begin_anew() {
    let current = at(4, 7, &[], &[]);
    assert_eq!(case(&current, &[0]).next(), Err(ErrorCode::FencedMemberEpoch));
    let empty = Case { owned: Some(Assignment::new()), ..case(&current, &[0]) }.next().unwrap();
    assert_eq!((empty.state, empty.member_epoch, empty.assigned), (STABLE, 5, t(&[0])));
}
