//! The controller in short: one partition's record, registrations, leases, elections by rule R11, changes of the ISR by
//! compare-and-set. It never forgets and never stops.

use pelton_model::{
    IsrMember, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionState, Replica, ReplicaEpoch,
    ShardEpoch, ShardId,
};
use pelton_replica::effect::IsrProposal;
use pelton_replica::lease::{LEASE_TTL_NS, expiry_wait_ns};

use super::Message;

/// Nodes of the simulation.
pub const NODES: usize = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Registered {
    life: u64,
    epoch: ReplicaEpoch,
    fenced: bool,
    granted_ns: u64,
    /// The change that took away what it had.
    fenced_at: u64,
}

/// The controller.
pub struct Controller {
    /// The partition.
    pub state: PartitionState,
    /// What to send.
    pub out: Vec<(usize, Message)>,
    /// Leaders elected.
    pub elections: u64,
    index: u64,
    nodes: [Registered; NODES],
    min_isr: usize,
    /// Earlier leaders that may hold a lease: node, life, and the change they have to know of.
    may_hold: Vec<(usize, ReplicaEpoch, u64)>,
}

/// The replica of a node.
pub fn replica(node: usize) -> Replica {
    Replica { node: NodeId(node as i32), shard: ShardId(0) }
}

/// And the other way.
pub fn node_of(replica: Replica) -> usize {
    replica.node.0 as usize
}

impl Controller {
    /// A partition that nobody has anything of.
    pub fn new(min_isr: usize) -> Controller {
        let all: Vec<Replica> = (0..NODES).map(replica).collect();
        Controller {
            state: PartitionState {
                replicas: all.clone(),
                leader: None,
                leader_epoch: LeaderEpoch(0),
                partition_epoch: PartitionEpoch(0),
                isr: Vec::new(),
                elr: all,
                last_known_elr: Vec::new(),
                adding: Vec::new(),
                removing: Vec::new(),
                unclean_epoch: None,
            },
            out: Vec::new(),
            elections: 0,
            index: 1,
            nodes: [Registered { fenced: true, ..Registered::default() }; NODES],
            min_isr,
            may_hold: Vec::new(),
        }
    }

    /// The present life of a node.
    pub fn epoch_of(&self, node: usize) -> ReplicaEpoch {
        self.nodes[node].epoch
    }

    /// Members of the ISR that could lead instead.
    pub fn others_in_isr(&self) -> Vec<Replica> {
        let members = self.state.isr.iter().map(|member| member.replica);
        members.filter(|r| self.state.leader != Some(*r) && !self.nodes[node_of(*r)].fenced).collect()
    }

    /// A message has come.
    pub fn handle(&mut self, from: usize, message: Message, now_ns: u64) {
        match message {
            Message::Register { life } => self.register(from, life, now_ns),
            Message::Renew { sequence, epoch, applied } => self.renew(from, sequence, epoch, applied, now_ns),
            Message::Propose { epoch, proposal } => self.propose(from, epoch, proposal),
            Message::Release { epoch, leader_epoch, partition_epoch, target }
                if partition_epoch == self.state.partition_epoch =>
            {
                self.released(from, epoch, leader_epoch, target);
            }
            _ => {}
        }
    }

    /// L4: whoever had no grant for long enough holds no lease.
    pub fn tick(&mut self, now_ns: u64) {
        let wait = expiry_wait_ns(LEASE_TTL_NS, 10);
        for node in 0..NODES {
            let known = self.nodes[node];
            if !known.fenced && now_ns.saturating_sub(known.granted_ns) > wait {
                self.fence(node);
                self.elect();
            }
        }
    }

    fn metadata(&self) -> Message {
        let (index, state) = (self.index, self.state.clone());
        Message::Metadata { index, state, predecessor_gone: self.may_hold.is_empty() }
    }

    fn tell_all(&mut self) {
        let message = self.metadata();
        self.out.extend((0..NODES).map(|node| (node, message.clone())));
    }

    fn changed(&mut self) {
        self.state.partition_epoch.0 += 1;
        self.index += 1;
        self.tell_all();
    }

    fn register(&mut self, node: usize, life: u64, now_ns: u64) {
        if life < self.nodes[node].life {
            return;
        }
        if life > self.nodes[node].life {
            self.index += 1;
            let epoch = ReplicaEpoch { node_epoch: NodeEpoch(self.index), shard_epoch: ShardEpoch(0) };
            self.fence(node);
            self.nodes[node] = Registered { life, epoch, fenced: false, granted_ns: now_ns, fenced_at: 0 };
            self.elect();
        }
        let epoch = self.nodes[node].epoch;
        self.out.push((node, Message::Registered { life, epoch }));
        let message = self.metadata();
        self.out.push((node, message));
    }

    fn renew(&mut self, node: usize, sequence: u64, epoch: ReplicaEpoch, applied: u64, now_ns: u64) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        if self.nodes[node].fenced {
            if applied < self.nodes[node].fenced_at {
                let message = self.metadata();
                return self.out.push((node, message));
            }
            self.nodes[node].fenced = false;
            self.nodes[node].granted_ns = now_ns;
            self.elect();
        }
        self.nodes[node].granted_ns = now_ns;
        self.out.push((node, Message::Grant { sequence, epoch }));
        let before = self.may_hold.is_empty();
        self.may_hold.retain(|(holder, life, index)| (*holder, *life) != (node, epoch) || applied < *index);
        if self.may_hold.is_empty() && !before {
            self.tell_all();
        } else {
            let message = self.metadata();
            self.out.push((node, message));
        }
    }

    fn fence(&mut self, node: usize) {
        self.nodes[node].fenced = true;
        let gone = replica(node);
        let isr: Vec<IsrMember> =
            self.state.isr.iter().copied().filter(|member| member.replica != gone).collect();
        if isr.len() != self.state.isr.len() {
            self.set_isr(isr);
        }
        let before = self.may_hold.is_empty();
        self.may_hold.retain(|(holder, ..)| *holder != node);
        if self.state.leader == Some(gone) {
            self.state.leader = None;
            self.state.leader_epoch.0 += 1;
            self.changed();
        } else if self.may_hold.is_empty() && !before {
            self.tell_all();
        }
        self.nodes[node].fenced_at = self.index;
    }

    /// KIP-966: who leaves an ISR that is then too small has all that is committed.
    fn set_isr(&mut self, isr: Vec<IsrMember>) {
        let state = &mut self.state;
        let mut elr: Vec<Replica> =
            state.isr.iter().map(|member| member.replica).chain(state.elr.iter().copied()).collect();
        elr.retain(|replica| isr.iter().all(|member| member.replica != *replica));
        elr.sort();
        elr.dedup();
        if isr.len() >= self.min_isr {
            elr.clear();
        }
        (state.elr, state.isr) = (elr, isr);
        self.changed();
    }

    fn elect(&mut self) {
        if self.state.leader.is_some() {
            return;
        }
        let eligible = |replica: &&Replica| {
            let lives = !self.nodes[node_of(**replica)].fenced;
            let in_isr = self.state.isr_epoch(**replica).is_some();
            lives && (in_isr || (self.state.isr.is_empty() && self.state.elr.contains(replica)))
        };
        if let Some(leader) = self.state.replicas.iter().find(eligible).copied() {
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
        self.state.leader_epoch.0 += 1;
        self.changed();
    }

    fn propose(&mut self, from: usize, epoch: ReplicaEpoch, proposal: IsrProposal) {
        let leads = self.state.leader == Some(replica(from))
            && self.state.leader_epoch == proposal.leader_epoch
            && self.nodes[from].epoch == epoch;
        let members = proposal.isr.iter().all(|member| {
            let known = &self.nodes[node_of(member.replica)];
            !known.fenced && known.epoch == member.epoch
        });
        let own = proposal.isr.iter().any(|member| member.replica == replica(from));
        if proposal.partition_epoch != self.state.partition_epoch || !leads || !members || !own {
            let partition_epoch = proposal.partition_epoch;
            return self.out.push((from, Message::Refused { epoch, partition_epoch }));
        }
        self.set_isr(proposal.isr);
    }

    fn released(&mut self, from: usize, epoch: ReplicaEpoch, leader_epoch: LeaderEpoch, target: Replica) {
        let leads = self.state.leader == Some(replica(from))
            && self.state.leader_epoch == leader_epoch
            && self.nodes[from].epoch == epoch;
        if leads {
            let fit = self.state.isr_epoch(target).is_some() && !self.nodes[node_of(target)].fenced;
            self.lead(if fit { target } else { replica(from) });
        }
    }
}
