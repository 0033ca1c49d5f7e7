//! A cluster of which one node is whole, the controller, and the others are members of the quorum that ask for their leases
//! in time. Nothing is ever late or lost; what is sent, and what the controller's node takes for it, is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pelton_cluster::control::ControlConfig;
use pelton_cluster::control::asks::{Answer, Ask, Token};
use pelton_cluster::lease::Renewal;
use pelton_cluster::member::{Member, MemberConfig, MemberEffect, directory_number};
use pelton_cluster::node_message::{self, NodeMessage};
use pelton_cluster::quorum::message::{self, Content};
use pelton_cluster::quorum::{Quorum, QuorumConfig, QuorumEffect, bootstrap};
use pelton_model::{BrokerConfig, NodeId};

use crate::growth::scene::{self, Size};

const CLUSTER: u64 = 7;
const MS: u64 = 1_000_000;
/// A tick, milliseconds; a node asks for its lease every sixth.
const TICK_MS: u64 = 50;
const TICKS: usize = 6;
const VOTERS: usize = 3;
const CONTROLLER: NodeId = NodeId(0);

/// Frames.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Frames {
    /// How many.
    pub number: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Frames {
    fn add(&mut self, frame: &Bytes) {
        self.number += 1;
        self.bytes += frame.len() as u64;
    }

    fn since(self, before: Frames) -> Frames {
        Frames { number: self.number - before.number, bytes: self.bytes - before.bytes }
    }
}

/// What has happened.
#[derive(Clone, Copy, Default, Debug)]
pub struct Count {
    /// Renewals and grants.
    pub leases: Frames,
    /// The quorum's heartbeats and their answers.
    pub beats: Frames,
    /// Entries of the metadata log and their acknowledgements.
    pub log: Frames,
    /// Requests and answers.
    pub asks: Frames,
    /// Entries applied.
    pub entries: u64,
    /// Of these, bytes.
    pub entry_bytes: u64,
    /// Partitions the controller has looked at.
    pub visits: u64,
    /// Time in the controller's node.
    pub cpu: Duration,
}

impl Count {
    /// What has happened since.
    pub fn since(&self, before: &Count) -> Count {
        Count {
            leases: self.leases.since(before.leases),
            beats: self.beats.since(before.beats),
            log: self.log.since(before.log),
            asks: self.asks.since(before.asks),
            entries: self.entries - before.entries,
            entry_bytes: self.entry_bytes - before.entry_bytes,
            visits: self.visits - before.visits,
            cpu: self.cpu - before.cpu,
        }
    }
}

/// All nodes.
pub struct Cluster {
    /// The controller's node.
    pub member: Member,
    others: BTreeMap<i32, Quorum>,
    /// Nodes that do nothing any more.
    pub dead: BTreeSet<i32>,
    now: u64,
    sequence: u64,
    token: Token,
    stable: VecDeque<u64>,
    /// From, to, and the frame.
    queue: VecDeque<(NodeId, NodeId, Bytes)>,
    answers: BTreeMap<Token, Answer>,
    count: Count,
}

fn quorum_config(id: usize) -> QuorumConfig {
    QuorumConfig::new(NodeId(id as i32), CLUSTER, directory_number(scene::node(id).directory))
}

impl Cluster {
    /// That starts from a snapshot of an image of this size, until node 0 is the controller and all have their leases.
    pub fn new(size: Size, snapshot: Bytes, applied: u64) -> Cluster {
        let voters: Vec<NodeId> = (0..VOTERS as i32).map(NodeId).collect();
        let mut restored = bootstrap(&voters);
        restored.snapshot.index = applied;
        restored.hard.commit = applied;
        // The crate's ids have no 0.
        restored.snapshot.members.learners = (VOTERS..size.nodes).map(|id| id as u64 + 1).collect();
        let other = |id: usize| {
            let quorum = Quorum::new(quorum_config(id), restored.clone(), id as u64);
            (id as i32, quorum.expect("a member of the quorum"))
        };
        let others = (1..size.nodes).map(other).collect();
        restored.snapshot.data = snapshot;
        let mut control = ControlConfig::new(CLUSTER, BrokerConfig::defaults());
        // As in a cluster that people use.
        control.auto_rebalance = true;
        let config = MemberConfig {
            quorum: quorum_config(0),
            control,
            registration: scene::node(0),
            seeds: voters,
            tick_ms: TICK_MS,
        };
        let mut cluster = Cluster {
            member: Member::new(config, restored, 1).expect("our own snapshot"),
            others,
            dead: BTreeSet::new(),
            now: 0,
            sequence: 0,
            token: 0,
            stable: VecDeque::new(),
            queue: VecDeque::new(),
            answers: BTreeMap::new(),
            count: Count::default(),
        };
        for _ in 0..200 {
            cluster.interval();
            if cluster.is_idle() && cluster.member.lease().holds(cluster.now) {
                return cluster;
            }
        }
        panic!("node 0 does not become the controller");
    }

    /// What has happened until now.
    pub fn count(&self) -> Count {
        let visits = self.member.controller().map_or(0, |controller| controller.visits());
        Count { visits, ..self.count }
    }

    /// The controller has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.member.controller().is_some_and(|controller| controller.is_idle())
    }

    /// One interval of heartbeats: every node asks for its lease, and the controller's clock ticks.
    pub fn interval(&mut self) {
        self.sequence += 1;
        for (id, quorum) in &self.others {
            if !self.dead.contains(id) {
                let (node, epoch) = (NodeId(*id), scene::epoch(*id as usize));
                let renewal = Renewal { node, epoch, sequence: self.sequence, applied: quorum.applied() };
                let frame = node_message::encode(CLUSTER, node, CONTROLLER, &NodeMessage::Renew(renewal));
                self.queue.extend(frame.into_iter().map(|frame| (node, CONTROLLER, frame)));
            }
        }
        self.settle();
        for _ in 0..TICKS {
            self.now += TICK_MS * MS;
            self.tell(|member, now, out| member.advance(now, out));
            self.settle();
        }
    }

    /// A request that comes to the controller's node.
    pub fn ask(&mut self, ask: Ask) -> Answer {
        self.token += 1;
        let token = self.token;
        self.tell(|member, now, out| member.ask(now, token, ask, out));
        self.settle();
        self.answers.remove(&token).expect("an answer")
    }

    /// A request of another node.
    pub fn ask_from(&mut self, from: NodeId, ask: Ask) {
        let frame = node_message::encode(CLUSTER, from, CONTROLLER, &NodeMessage::Ask(1, ask));
        self.queue.push_back((from, CONTROLLER, frame.expect("a request of nodes")));
        self.settle();
    }

    fn tell(&mut self, call: impl FnOnce(&mut Member, u64, &mut Vec<MemberEffect>)) {
        let mut out = Vec::new();
        let began = Instant::now();
        call(&mut self.member, self.now, &mut out);
        self.count.cpu += began.elapsed();
        for effect in out {
            match effect {
                MemberEffect::Send { to, frame } => self.queue.push_back((CONTROLLER, to, frame)),
                MemberEffect::Persist { number, .. } => self.stable.push_back(number),
                MemberEffect::Changed { payload, .. } => {
                    self.count.entries += 1;
                    self.count.entry_bytes += payload.len() as u64;
                }
                MemberEffect::Answer(token, answer) => {
                    self.answers.insert(token, answer);
                }
                // Nobody serves anything here: leaders that are asked to hand over do not answer.
                MemberEffect::TransferAsked { .. } | MemberEffect::Plan(..) | MemberEffect::Replaced => {}
                MemberEffect::Failed(why) => panic!("{why}"),
            }
        }
    }

    /// Until nothing is under way any more.
    fn settle(&mut self) {
        loop {
            if let Some(number) = self.stable.pop_front() {
                self.tell(|member, now, out| member.persisted(now, number, out));
            } else if let Some((from, to, frame)) = self.queue.pop_front() {
                self.deliver(from, to, &frame);
            } else {
                return;
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, frame: &Bytes) {
        self.note(frame);
        if to == CONTROLLER {
            self.tell(|member, now, out| {
                member.receive(now, from, frame, out).expect("a frame of ours");
            });
            return;
        }
        let Some(quorum) = self.others.get_mut(&to.0).filter(|_| !self.dead.contains(&to.0)) else { return };
        if node_message::is_ours(frame) {
            return;
        }
        let mut effects = Vec::new();
        quorum.receive(from, frame, &mut effects).expect("a frame of ours");
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                QuorumEffect::Send { to: back, frame } => self.queue.push_back((to, back, frame)),
                QuorumEffect::Persist { number, .. } => {
                    let mut more = Vec::new();
                    quorum.persisted(number, &mut more);
                    effects.extend(more);
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, frame: &Bytes) {
        let count = &mut self.count;
        if node_message::is_ours(frame) {
            let (.., what) = node_message::decode(frame).expect("a frame of ours");
            match what {
                NodeMessage::Renew(_) | NodeMessage::Grant(_) => count.leases.add(frame),
                _ => count.asks.add(frame),
            }
            return;
        }
        match message::decode(frame).expect("a frame of ours") {
            (_, Content::Message(message)) if message.get_msg_type() as i32 >= HEARTBEAT => {
                count.beats.add(frame);
            }
            _ => count.log.add(frame),
        }
    }
}

/// The crate's number of its heartbeats; answers to them are the next, appends and votes come before.
const HEARTBEAT: i32 = 8;
