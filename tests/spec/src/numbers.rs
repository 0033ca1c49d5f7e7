//! Epochs and lives are compared and new ones are above all others; nothing else is done with them. So only their order counts,
//! and the numbers are made as small as they can be.

use pelton_model::{IsrMember, LeaderEpoch, PartitionEpoch};
use pelton_replica::frame::Body;
use pelton_replica::partition::explore::Renumber;

use crate::state::{Ack, N, State, epoch_of, index};

/// Those that occur in a state.
#[derive(Default)]
pub struct Numbers {
    leader: Vec<i32>,
    /// Empty: only whether it is the present one counts, since the controller takes nothing else.
    partition: Vec<i32>,
    present: i32,
    /// Of each replica, bits.
    lives: [u8; N],
}

fn life_of(member: IsrMember) -> u8 {
    member.epoch.node_epoch.0 as u8
}

impl Numbers {
    /// All of them.
    pub fn of(s: &State, compare_and_set: bool) -> Numbers {
        let control = &s.control.state;
        let mut numbers = Numbers { present: control.partition_epoch.0, ..Numbers::default() };
        // What the first leader appended is told from the rest.
        numbers.leader.extend([0, 1, control.leader_epoch.0]);
        numbers.partition.extend([0, control.partition_epoch.0]);
        for (at, node) in s.nodes.iter().enumerate() {
            let (leader, partition) = node.machine.epochs_known();
            numbers.leader.push(leader.0);
            numbers.partition.push(partition.0);
            numbers.leader.extend(node.log.iter().map(|rec| rec.epoch));
            numbers.leader.extend(node.feeds.iter().map(|feed| feed.2));
            numbers.lives[at] |= 1 << node.life | 1 << s.control.lives[at];
            node.machine.members_known().for_each(|member| numbers.lived(member));
        }
        control.isr.iter().for_each(|member| numbers.lived(*member));
        numbers.leader.extend(s.committed.iter().map(|rec| rec.epoch));
        for ack in s.acks.iter() {
            numbers.leader.push(ack.epoch);
            numbers.lives[usize::from(ack.from)] |= 1 << ack.life();
        }
        for proposal in s.proposals.iter() {
            numbers.leader.push(proposal.wish.leader_epoch.0);
            numbers.partition.push(proposal.wish.partition_epoch.0);
            numbers.lives[usize::from(proposal.from)] |= 1 << proposal.life;
            proposal.wish.isr.iter().for_each(|member| numbers.lived(*member));
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

    /// Only of the partition's record: with these alone states are without number.
    pub fn of_partition(s: &State) -> Numbers {
        Numbers { leader: Vec::new(), lives: [!1; N], ..Numbers::of(s, false) }
    }

    fn lived(&mut self, member: IsrMember) {
        self.lives[index(member.replica)] |= 1 << life_of(member);
    }

    /// No number would be another one.
    pub fn is_dense(&self) -> bool {
        let dense = |list: &[i32]| list.last().is_none_or(|last| *last + 1 == list.len() as i32);
        // Lives begin with 1.
        let lives = self.lives.iter().all(|lives| *lives == !1 || (lives + 2).is_power_of_two());
        lives
            && dense(&self.leader)
            && dense(&self.partition)
            && (!self.partition.is_empty() || self.present == 1)
    }

    /// Of a record, say.
    pub fn epoch(&self, epoch: i32) -> i32 {
        place(&self.leader, epoch)
    }

    /// Of a node.
    pub fn life(&self, at: usize, life: u8) -> u8 {
        (self.lives[at] & ((1 << life) - 1)).count_ones() as u8 + 1
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
    fn member(&self, member: IsrMember) -> IsrMember {
        IsrMember { epoch: epoch_of(self.life(index(member.replica), life_of(member))), ..member }
    }
}

impl Ack {
    /// In which life of its sender.
    pub fn life(&self) -> u8 {
        match self.body {
            Body::Ack { replica_epoch, .. } | Body::Space { replica_epoch, .. } => {
                replica_epoch.node_epoch.0 as u8
            }
            _ => 1,
        }
    }

    fn renumber(&mut self, numbers: &Numbers) {
        self.epoch = numbers.epoch(self.epoch);
        let from = usize::from(self.from);
        let life = numbers.life(from, self.life());
        if let Body::Ack { replica_epoch, .. } | Body::Space { replica_epoch, .. } = &mut self.body {
            *replica_epoch = epoch_of(life);
        }
    }
}

/// What is not a node's.
pub fn renumber_rest(s: &mut State, numbers: &Numbers) {
    let control = s.control.make_mut();
    for (at, life) in control.lives.iter_mut().enumerate() {
        *life = numbers.life(at, *life);
    }
    let state = &mut control.state;
    state.leader_epoch = numbers.leader_epoch(state.leader_epoch);
    state.partition_epoch = numbers.partition_epoch(state.partition_epoch);
    state.isr.iter_mut().for_each(|member| *member = numbers.member(*member));
    s.committed.make_mut().iter_mut().for_each(|rec| rec.epoch = numbers.epoch(rec.epoch));
    let acks = s.acks.make_mut();
    acks.iter_mut().for_each(|ack| ack.renumber(numbers));
    acks.sort_unstable();
    let proposals = s.proposals.make_mut();
    for proposal in proposals.iter_mut() {
        proposal.life = numbers.life(proposal.from.into(), proposal.life);
        let wish = &mut proposal.wish;
        wish.leader_epoch = numbers.leader_epoch(wish.leader_epoch);
        wish.partition_epoch = numbers.partition_epoch(wish.partition_epoch);
        wish.isr.iter_mut().for_each(|member| *member = numbers.member(*member));
    }
    proposals.sort_unstable();
    proposals.dedup();
}
