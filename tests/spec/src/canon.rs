//! One state for all that differ only in how they were reached. Two states are one if every step of either has its match at
//! the other; what is done here keeps that, each for the reason given.

use pelton_model::{LeaderEpoch, Offset, PartitionEpoch};
use pelton_replica::partition::RoleKind;
use pelton_replica::partition::explore::Renumber;
use pelton_replica::sabotage::Sabotage;

use crate::guard::Guard;
use crate::model::Model;
use crate::state::{N, State, epoch_of, replica};

/// Epochs are compared and a new one is above all others; nothing else is done with them. So only their order counts.
#[derive(Default)]
struct Numbers {
    leader: Vec<i32>,
    /// Empty: only whether it is the present one counts, since the controller takes nothing else.
    partition: Vec<i32>,
    present: i32,
}

impl Numbers {
    fn of(s: &State, compare_and_set: bool) -> Numbers {
        let mut numbers = Numbers { present: s.control.state.partition_epoch.0, ..Numbers::default() };
        // What the first leader appended is told from the rest.
        numbers.leader.extend([0, 1, s.control.state.leader_epoch.0]);
        numbers.partition.extend([0, s.control.state.partition_epoch.0]);
        for node in &s.nodes {
            let (leader, partition) = node.machine.epochs_known();
            numbers.leader.push(leader.0);
            numbers.partition.push(partition.0);
            numbers.leader.extend(node.log.iter().map(|rec| rec.epoch));
            numbers.leader.extend(node.feeds.iter().map(|feed| feed.2));
        }
        numbers.leader.extend(s.committed.iter().map(|rec| rec.epoch));
        numbers.leader.extend(s.acks.iter().map(|ack| ack.epoch));
        for proposal in s.proposals.iter() {
            numbers.leader.push(proposal.wish.leader_epoch.0);
            numbers.partition.push(proposal.wish.partition_epoch.0);
        }
        for list in [&mut numbers.leader, &mut numbers.partition] {
            list.retain(|number| *number >= 0);
            list.sort_unstable();
            list.dedup();
        }
        if compare_and_set {
            numbers.partition.clear();
        }
        numbers
    }

    /// No number would be another one.
    fn is_dense(&self) -> bool {
        let dense = |list: &[i32]| list.last().is_none_or(|last| *last + 1 == list.len() as i32);
        dense(&self.leader) && dense(&self.partition) && (!self.partition.is_empty() || self.present == 1)
    }
}

/// Its place among those that occur; what is below all stays.
fn place(list: &[i32], number: i32) -> i32 {
    list.binary_search(&number).map_or(number, |at| at as i32)
}

impl Renumber for Numbers {
    fn leader_epoch(&self, epoch: LeaderEpoch) -> LeaderEpoch {
        LeaderEpoch(place(&self.leader, epoch.0))
    }
    fn partition_epoch(&self, epoch: PartitionEpoch) -> PartitionEpoch {
        PartitionEpoch(match self.partition.is_empty() {
            true => i32::from(epoch.0 == self.present),
            false => place(&self.partition, epoch.0),
        })
    }
}

impl Model {
    /// Makes the state the one that stands for all like it.
    pub fn settle_down(&self, s: &mut State, last: Option<&State>) {
        self.forget(s);
        if self.merged {
            self.merge(s, last);
        }
        s.nodes.iter_mut().for_each(crate::part::Part::seal);
        s.control.seal();
        s.acks.seal();
        s.proposals.seal();
        s.committed.seal();
    }

    fn merge(&self, s: &mut State, last: Option<&State>) {
        self.forget_streams(s);
        let numbers = Numbers::of(s, self.has(Guard::CompareAndSet));
        let dense = numbers.is_dense();
        for at in 0..N {
            if !dense || last.is_none_or(|last| !last.nodes[at].is(&s.nodes[at])) {
                let node = s.nodes[at].make_mut();
                node.machine.forget_history(&numbers);
                node.log.iter_mut().for_each(|rec| rec.epoch = place(&numbers.leader, rec.epoch));
                node.feeds.iter_mut().for_each(|feed| feed.2 = place(&numbers.leader, feed.2));
            }
        }
        if !dense {
            renumber_rest(s, &numbers);
        }
    }

    /// Messages that nobody heeds any more, whatever happens, make no difference.
    fn forget(&self, s: &mut State) {
        let heeded = |s: &State, ack: &crate::state::Ack| {
            let to = &s.nodes[usize::from(ack.to)];
            // A leader that has heard it all only looks again whether it can go on: `Action::GoOn`.
            to.up
                && to.machine.leader_epoch().0 <= ack.epoch
                && !(self.merged && to.machine.knows_ack(replica(ack.from.into()), &ack.body))
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

fn renumber_rest(s: &mut State, numbers: &Numbers) {
    let state = &mut s.control.make_mut().state;
    state.leader_epoch = numbers.leader_epoch(state.leader_epoch);
    state.partition_epoch = numbers.partition_epoch(state.partition_epoch);
    s.committed.make_mut().iter_mut().for_each(|rec| rec.epoch = place(&numbers.leader, rec.epoch));
    s.acks.make_mut().iter_mut().for_each(|ack| ack.epoch = place(&numbers.leader, ack.epoch));
    for proposal in s.proposals.make_mut() {
        let wish = &mut proposal.wish;
        wish.leader_epoch = numbers.leader_epoch(wish.leader_epoch);
        wish.partition_epoch = numbers.partition_epoch(wish.partition_epoch);
    }
}
