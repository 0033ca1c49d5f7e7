//! The controller in short: one partition's record, registrations, leases, elections by rule R11. A single place that
//! never forgets; that it is a quorum is another crate's matter.

use pelton_model::{
    IsrMember, LeaderEpoch, NodeEpoch, NodeId, PartitionState, Replica, ReplicaEpoch, ShardEpoch, ShardId,
};

use super::network::Message;
use super::plan::{Plan, Rigged};
use crate::effect::IsrProposal;
use crate::lease::{LEASE_TTL_NS, expiry_wait_ns};

/// A node as the controller knows it.
#[derive(Clone, Debug, Default)]
struct Registered {
    life: u64,
    epoch: ReplicaEpoch,
    fenced: bool,
    granted_ns: u64,
    /// Index of the metadata that no longer have it as leader or in sync.
    fenced_at: u64,
}

/// The controller.
pub struct Controller {
    pub state: PartitionState,
    /// Index of the last change.
    pub index: u64,
    nodes: Vec<Registered>,
    min_isr: usize,
    rigged: Option<Rigged>,
    /// Earlier leaders that may still hold a lease: node, its life, and the change that it has to know of.
    may_hold: Vec<(usize, ReplicaEpoch, u64)>,
    /// Out of office until then, nanoseconds of its own clock.
    pub away_until_ns: u64,
    /// What to send: to whom, what.
    pub out: Vec<(usize, Message)>,
    pub elections: u64,
}

pub fn replica(node: usize) -> Replica {
    Replica { node: NodeId(node as i32), shard: ShardId(0) }
}

pub fn node_of(replica: Replica) -> usize {
    replica.node.0 as usize
}

impl Controller {
    pub fn new(plan: &Plan) -> Controller {
        Controller {
            state: PartitionState {
                // A new partition: nobody has anything, so everybody has everything.
                elr: (0..plan.nodes).map(replica).collect(),
                ..PartitionState::begun((0..plan.nodes).map(replica).collect(), Vec::new())
            },
            index: 1,
            nodes: vec![Registered { fenced: true, ..Registered::default() }; plan.nodes],
            min_isr: plan.min_isr,
            rigged: plan.rigged,
            may_hold: Vec::new(),
            away_until_ns: 0,
            out: Vec::new(),
            elections: 0,
        }
    }

    pub fn predecessor_gone(&self) -> bool {
        self.may_hold.is_empty() || self.rigged == Some(Rigged::PredecessorGoneAtOnce)
    }

    fn metadata(&self) -> Message {
        let predecessor_gone = self.predecessor_gone();
        Message::Metadata { index: self.index, state: self.state.clone(), predecessor_gone }
    }

    /// The record has changed.
    fn changed(&mut self) {
        self.state.partition_epoch.0 += 1;
        self.index += 1;
        self.tell_all();
    }

    fn tell_all(&mut self) {
        for node in 0..self.nodes.len() {
            let message = self.metadata();
            self.out.push((node, message));
        }
    }

    pub fn handle(&mut self, from: usize, message: Message, now_ns: u64) {
        match message {
            Message::Register { life, unclean } => self.register(from, life, unclean, now_ns),
            Message::Renew { sequence, epoch, applied } => self.renew(from, sequence, epoch, applied, now_ns),
            Message::Propose { epoch, proposal } => self.propose(from, epoch, proposal),
            Message::Release { epoch, leader_epoch, partition_epoch, target }
                if partition_epoch == self.state.partition_epoch =>
            {
                self.released(from, epoch, leader_epoch, target)
            }
            _ => {}
        }
    }

    /// A process that holds its data directory's lock proves that the one before is dead (L6).
    fn register(&mut self, node: usize, life: u64, unclean: bool, now_ns: u64) {
        if life < self.nodes[node].life {
            return;
        }
        if life > self.nodes[node].life {
            let before = self.nodes[node].epoch;
            self.index += 1;
            let epoch = ReplicaEpoch { node_epoch: NodeEpoch(self.index), shard_epoch: ShardEpoch(0) };
            if self.rigged == Some(Rigged::RestartKeepsIsr) {
                for member in self.state.isr.iter_mut().filter(|member| member.epoch == before) {
                    member.epoch = epoch;
                }
            }
            self.fence(node, self.rigged == Some(Rigged::RestartKeepsIsr));
            if unclean && self.rigged != Some(Rigged::UncleanStaysEligible) {
                self.lose_eligibility(node);
            }
            self.nodes[node] = Registered { life, epoch, fenced: false, granted_ns: now_ns, fenced_at: 0 };
            self.elect_if_needed();
        }
        let epoch = self.nodes[node].epoch;
        self.out.push((node, Message::Registered { life, epoch }));
        let metadata = self.metadata();
        self.out.push((node, metadata));
    }

    fn renew(&mut self, node: usize, sequence: u64, epoch: ReplicaEpoch, applied: u64, now_ns: u64) {
        let known = &mut self.nodes[node];
        if known.epoch != epoch {
            return;
        }
        if known.fenced {
            // A lease for one that still believes to lead would be a second one.
            if applied < known.fenced_at {
                let metadata = self.metadata();
                return self.out.push((node, metadata));
            }
            known.fenced = false;
            known.granted_ns = now_ns;
            self.elect_if_needed();
        }
        self.nodes[node].granted_ns = now_ns;
        self.out.push((node, Message::Grant { sequence, epoch }));
        let before = self.predecessor_gone();
        self.may_hold
            .retain(|(holder, life, index)| !(*holder == node && *life == epoch && applied >= *index));
        if self.predecessor_gone() && !before {
            self.tell_all();
        } else if applied < self.index || self.state.leader == Some(replica(node)) {
            let metadata = self.metadata();
            self.out.push((node, metadata));
        }
    }

    /// L4: who has had no grant for long enough holds no lease.
    pub fn tick(&mut self, now_ns: u64) {
        let mut wait = expiry_wait_ns(LEASE_TTL_NS, 10);
        if self.rigged == Some(Rigged::ShortLeaseWait) {
            wait /= 3;
        }
        for node in 0..self.nodes.len() {
            let known = &self.nodes[node];
            if !known.fenced && now_ns.saturating_sub(known.granted_ns) > wait {
                self.fence(node, false);
                self.elect_if_needed();
            }
        }
    }

    /// Another controller takes office: it knows of no grants (L5).
    pub fn fail_over(&mut self, now_ns: u64, away_ns: u64) {
        self.away_until_ns = now_ns + away_ns;
        self.nodes.iter_mut().for_each(|node| node.granted_ns = now_ns + away_ns);
    }

    fn fence(&mut self, node: usize, keep_isr: bool) {
        self.nodes[node].fenced = true;
        let gone = replica(node);
        if !keep_isr {
            self.shrink_to(|member| member.replica != gone);
        }
        let before = self.predecessor_gone();
        self.may_hold.retain(|(holder, ..)| *holder != node);
        if self.state.leader == Some(gone) {
            self.state.leader = None;
            self.state.leader_epoch.0 += i32::from(self.rigged != Some(Rigged::EpochUsedTwice));
            self.changed();
        } else if self.predecessor_gone() && !before {
            self.tell_all();
        }
        self.nodes[node].fenced_at = self.index;
    }

    /// KIP-966: who leaves an ISR that is then too small has all that is committed.
    fn shrink_to(&mut self, keep: impl Fn(&IsrMember) -> bool) {
        let isr: Vec<IsrMember> = self.state.isr.iter().copied().filter(|member| keep(member)).collect();
        if isr.len() != self.state.isr.len() {
            self.set_isr(isr);
        }
    }

    fn set_isr(&mut self, isr: Vec<IsrMember>) {
        let state = &mut self.state;
        let mut elr: Vec<Replica> =
            state.isr.iter().map(|member| member.replica).chain(state.elr.iter().copied()).collect();
        elr.retain(|replica| isr.iter().all(|member| member.replica != *replica));
        elr.sort();
        elr.dedup();
        if isr.len() >= self.min_isr {
            elr.clear();
            state.last_known_elr.clear();
        }
        (state.elr, state.isr) = (elr, isr);
        self.changed();
    }

    fn lose_eligibility(&mut self, node: usize) {
        let lost = replica(node);
        if self.state.elr.contains(&lost) {
            self.state.elr.retain(|replica| *replica != lost);
            self.state.last_known_elr.push(lost);
            self.changed();
        }
    }

    /// R11.
    fn elect_if_needed(&mut self) {
        if self.state.leader.is_some() {
            return;
        }
        let live = |replica: &Replica| !self.nodes[node_of(*replica)].fenced;
        let in_isr = |replica: &Replica| self.state.isr_epoch(*replica).is_some();
        let outside = self.rigged == Some(Rigged::ElectOutsideIsr);
        let eligible = |replica: &&Replica| {
            let isr_lost = self.state.isr.is_empty();
            live(replica) && (in_isr(replica) || outside || (isr_lost && self.state.elr.contains(replica)))
        };
        // Outside the ISR: the last, not the first.
        let found = match outside {
            true => self.state.replicas.iter().rev().find(eligible).copied(),
            false => self.state.replicas.iter().find(eligible).copied(),
        };
        if let Some(leader) = found {
            self.lead(leader);
        }
    }

    fn lead(&mut self, leader: Replica) {
        self.elections += 1;
        let member = IsrMember { replica: leader, epoch: self.nodes[node_of(leader)].epoch };
        self.may_hold.retain(|(holder, ..)| *holder != node_of(leader));
        if !self.state.isr.contains(&member) {
            let mut isr = self.state.isr.clone();
            isr.push(member);
            self.set_isr(isr);
        }
        self.state.leader = Some(leader);
        self.state.leader_epoch.0 += i32::from(self.rigged != Some(Rigged::EpochUsedTwice));
        self.changed();
    }

    /// R10: compare-and-set. An ISR like the present one is a change too.
    fn propose(&mut self, from: usize, epoch: ReplicaEpoch, proposal: IsrProposal) {
        let stale = proposal.partition_epoch != self.state.partition_epoch
            && self.rigged != Some(Rigged::NoCompareAndSet);
        let leads = self.state.leader == Some(replica(from))
            && self.state.leader_epoch == proposal.leader_epoch
            && self.nodes[from].epoch == epoch;
        let members = proposal.isr.iter().all(|member| {
            let known = &self.nodes[node_of(member.replica)];
            !known.fenced && known.epoch == member.epoch
        });
        if stale || !leads || !members || !proposal.isr.iter().any(|member| member.replica == replica(from)) {
            let partition_epoch = proposal.partition_epoch;
            return self.out.push((from, Message::Refused { partition_epoch }));
        }
        self.set_isr(proposal.isr);
    }

    /// R12: the leader has given back its epoch.
    fn released(&mut self, from: usize, epoch: ReplicaEpoch, leader_epoch: LeaderEpoch, target: Replica) {
        let leads = self.state.leader == Some(replica(from))
            && self.state.leader_epoch == leader_epoch
            && self.nodes[from].epoch == epoch;
        if leads {
            let fit = self.state.isr_epoch(target).is_some() && !self.nodes[node_of(target)].fenced;
            self.lead(if fit { target } else { replica(from) });
        }
    }

    /// Members of the ISR that could lead instead of the present leader.
    pub fn others_in_isr(&self) -> Vec<Replica> {
        let members = self.state.isr.iter().map(|member| member.replica);
        members.filter(|r| self.state.leader != Some(*r) && !self.nodes[node_of(*r)].fenced).collect()
    }

    /// Moves leadership without asking the old leader, which may hold a lease.
    pub fn force_move(&mut self, target: Replica) {
        if let Some(leader) = self.state.leader {
            let holder = node_of(leader);
            self.may_hold.push((holder, self.nodes[holder].epoch, self.index + 1));
            self.lead(target);
        }
    }

    /// By an operator's order; true if somebody could be elected.
    pub fn elect_unclean(&mut self, target: Replica) -> bool {
        if self.state.leader.is_some() || self.nodes[node_of(target)].fenced {
            return false;
        }
        self.state.unclean_epoch = Some(LeaderEpoch(self.state.leader_epoch.0 + 1));
        self.state.isr.clear();
        self.state.elr.clear();
        self.lead(target);
        self.state.elr.clear();
        true
    }
}
