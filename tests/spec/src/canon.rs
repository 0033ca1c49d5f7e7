//! One state for all that differ only in how they were reached. Two states are one if every step of either has its match at
//! the other; what is done here keeps that, each for the reason given.

use pelton_model::{LeaderEpoch, Offset};
use pelton_replica::frame::Body;
use pelton_replica::partition::RoleKind;
use pelton_replica::sabotage::Sabotage;

use crate::guard::Guard;
use crate::model::Model;
use crate::numbers::{Numbers, renumber_rest};
use crate::state::{ACKS_IN_FLIGHT, Ack, N, Rec, State, epoch_of, index, replica};
use crate::symmetry;

impl Model {
    /// Makes the state the one that stands for all like it.
    pub fn settle_down(&self, s: &mut State, last: Option<&State>) {
        self.forget(s);
        if self.merged {
            self.merge(s, last);
        } else {
            renumber(s, &Numbers::of_partition(s), |_, _| false);
        }
        if s.acks.len() > ACKS_IN_FLIGHT {
            let acks = s.acks.make_mut();
            acks.drain(..acks.len() - ACKS_IN_FLIGHT);
        }
        s.nodes.iter_mut().for_each(crate::part::Part::seal);
        s.control.seal();
        s.acks.seal();
        s.proposals.seal();
        s.committed.seal();
        if self.merged && self.symmetric {
            symmetry::settle(s);
        }
    }

    fn merge(&self, s: &mut State, last: Option<&State>) {
        // Power is lost in a crash only.
        s.left.lossy = s.left.lossy.min(s.left.crashes);
        if !s.control.state.last_known_elr.is_empty() {
            // For unclean elections only.
            s.control.make_mut().state.last_known_elr.clear();
        }
        let changed = |s: &State, at: usize| last.is_none_or(|last| !last.nodes[at].is(&s.nodes[at]));
        for at in 0..N {
            if is_orphan(s, at) {
                s.nodes[at].make_mut().machine.retire();
            } else if self.is_retired(s, at)
                && (changed(s, at) || last.is_none_or(|last| !self.is_retired(last, at)))
            {
                s.nodes[at].make_mut().machine.retire_leader();
            }
            if changed(s, at) {
                s.nodes[at].make_mut().machine.forget_history();
            }
            if is_unmoved(s, at) {
                s.nodes[at].make_mut().machine.learn(s.control.state.partition_epoch);
            }
        }
        self.forget_acks(s);
        self.forget_streams(s);
        rename_records(s);
        let numbers = Numbers::of(s, self.has(Guard::CompareAndSet));
        renumber(s, &numbers, changed);
    }

    /// Messages that nobody heeds any more, whatever happens, make no difference.
    fn forget(&self, s: &mut State) {
        let heeded = |s: &State, ack: &Ack| {
            let to = &s.nodes[usize::from(ack.to)];
            to.up && to.machine.leader_epoch().0 <= ack.epoch
        };
        if self.has(Guard::Replica(Sabotage::SkipEpochOnAck)) && !s.acks.iter().all(|ack| heeded(s, ack)) {
            let kept = s.acks.iter().filter(|ack| heeded(s, ack)).cloned().collect();
            *s.acks.make_mut() = kept;
        }
        let now = s.control.state.partition_epoch;
        if self.has(Guard::CompareAndSet)
            && s.proposals.iter().any(|proposal| proposal.wish.partition_epoch < now)
        {
            s.proposals.make_mut().retain(|proposal| proposal.wish.partition_epoch >= now);
        }
    }

    /// The same, also of those that are no news to whom they are for, now and later.
    fn forget_acks(&self, s: &mut State) {
        if !self.has(Guard::Replica(Sabotage::SkipEpochOnAck)) {
            return;
        }
        let any_life = !self.has(Guard::Replica(Sabotage::CountStaleReplicaEpoch));
        let heeded = |s: &State, ack: &Ack| {
            let (at, from) = (usize::from(ack.to), replica(ack.from.into()));
            let to = &s.nodes[at];
            if is_word_of_leader(s, ack) {
                return true;
            }
            let joined = to.machine.follows_in(from);
            // Who was joined to it in that epoch follows the one who led then; in another life it does not lead again in it.
            to.leads()
                && to.machine.leader_epoch().0 == ack.epoch
                && (any_life || joined <= Some(epoch_of(ack.life())))
                // A leader that has heard it all only looks again whether it can go on: `Action::GoOn`.
                && !to.machine.knows_ack(from, &ack.body)
                && !self.is_retired(s, at)
        };
        if !s.acks.iter().all(|ack| heeded(s, ack)) {
            let kept = s.acks.iter().filter(|ack| heeded(s, ack)).cloned().collect();
            *s.acks.make_mut() = kept;
        }
    }

    /// A leader that has been replaced and gets no lease any more before it has heard of that.
    pub fn is_retired(&self, s: &State, at: usize) -> bool {
        let (node, control) = (&s.nodes[at], &s.control);
        node.leads()
            && !node.lease
            && node.machine.leader_epoch() < control.state.leader_epoch
            && control.fenced >> at & 1 == 1
            && self.has(Guard::SeenFencing)
            && self.has(Guard::LeaseOnUse)
    }

    /// Whoever does not follow in this epoch and life takes nothing before it joins, and then the stream begins anew.
    fn forget_streams(&self, s: &mut State) {
        for leader in 0..N {
            let epoch = s.nodes[leader].machine.leader_epoch();
            for follower in (0..N).filter(|at| *at != leader) {
                let node = &s.nodes[follower];
                let follows = node.up
                    && node.machine.role() == RoleKind::Following
                    && node.machine.leader_epoch() == epoch
                    && s.nodes[leader].machine.follows_in(replica(follower)) == Some(epoch_of(node.life));
                if !follows && s.nodes[leader].machine.has_stream(replica(follower)) {
                    s.nodes[leader].make_mut().machine.forget_stream(replica(follower));
                }
            }
        }
        for node in &mut s.nodes {
            let wanted = |feed: &(u8, u8, i32)| {
                let (to, from, epoch) = *feed;
                node.machine.wants_feed(replica(to.into()), LeaderEpoch(epoch), Offset(from.into()))
            };
            if !node.feeds.iter().all(wanted) {
                let kept = node.feeds.iter().filter(|feed| wanted(feed)).copied().collect();
                node.make_mut().feeds = kept;
            }
        }
    }
}

fn renumber(s: &mut State, numbers: &Numbers, changed: impl Fn(&State, usize) -> bool) {
    let dense = numbers.is_dense();
    for at in 0..N {
        if !dense || changed(s, at) {
            let node = s.nodes[at].make_mut();
            node.machine.renumber(numbers);
            node.life = numbers.life(at, node.life);
            node.log.iter_mut().for_each(|rec| rec.epoch = numbers.epoch(rec.epoch));
            node.feeds.iter_mut().for_each(|feed| feed.2 = numbers.epoch(feed.2));
        }
    }
    if !dense {
        renumber_rest(s, numbers);
    }
}

/// Word of a leader's disk, for one that follows it in that epoch or may yet: whoever leads next goes by it.
fn is_word_of_leader(s: &State, ack: &Ack) -> bool {
    let (to, control) = (&s.nodes[usize::from(ack.to)], &s.control.state);
    let (from, epoch) = (replica(ack.from.into()), LeaderEpoch(ack.epoch));
    let follows = match to.machine.leader_epoch() {
        its if its == epoch => !to.leads() && to.machine.state().and_then(|state| state.leader) == Some(from),
        its => its < epoch && control.leader_epoch == epoch && control.leader == Some(from),
    };
    follows && to.up && matches!(ack.body, Body::Space { .. })
}

/// It follows one that leads no more in that epoch, and will not again: nothing can come from there.
pub fn is_orphan(s: &State, at: usize) -> bool {
    let node = &s.nodes[at];
    if !node.up || !matches!(node.machine.role(), RoleKind::Joining | RoleKind::Following) {
        return false;
    }
    let Some(leader) = node.machine.state().and_then(|state| state.leader) else { return false };
    let (epoch, its, state) = (node.machine.leader_epoch(), &s.nodes[index(leader)], &s.control.state);
    let leads = its.leads() && its.machine.leader_epoch() == epoch;
    let elected = state.leader == Some(leader)
        && state.leader_epoch == epoch
        && its.up
        && state.isr_epoch(leader) == Some(epoch_of(its.life));
    !leads && !elected
}

/// There is news of the partition, but not for this replica: it follows the present leader already, or there is none.
fn is_unmoved(s: &State, at: usize) -> bool {
    let (node, control) = (&s.nodes[at], &s.control);
    let follows = match node.machine.role() {
        RoleKind::Joining | RoleKind::Following => node.machine.leader_epoch() == control.state.leader_epoch,
        RoleKind::Idle => control.state.leader.is_none() && control.holders >> at & 1 == 0,
        _ => false,
    };
    node.up && follows && node.machine.epochs_known().1 != control.state.partition_epoch
}

/// Records are told apart, no more: which one it is, its place and epoch say.
fn rename_records(s: &mut State) {
    let mut found: Vec<(usize, Rec)> = s.committed.iter().copied().enumerate().collect();
    s.nodes.iter().for_each(|node| found.extend(node.log.iter().copied().enumerate()));
    found.sort_unstable();
    found.dedup();
    // The same one may be at two places only where something is wrong.
    let mut values: Vec<u8> = Vec::new();
    for (_, rec) in found {
        if !values.contains(&rec.value) {
            values.push(rec.value);
        }
    }
    s.appended = values.len() as u8;
    if values.iter().enumerate().all(|(at, value)| usize::from(*value) == at + 1) {
        return;
    }
    let name = |rec: &mut Rec| {
        rec.value = values.iter().position(|value| *value == rec.value).map_or(0, |at| at as u8 + 1);
    };
    s.committed.make_mut().iter_mut().for_each(name);
    for node in &mut s.nodes {
        if !node.log.is_empty() {
            node.make_mut().log.iter_mut().for_each(name);
        }
    }
}
