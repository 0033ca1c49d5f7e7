//! One partition on three nodes: the shard's replica host and the shard's log for real, on virtual disks that lose and tear,
//! behind a network that delays, loses, doubles and cuts; nodes are killed, lose power and come back. The controller is a
//! single place that never forgets: that it is a quorum is `pelton-control-sim`'s matter. Clocks agree here; what happens when
//! they do not is the replica crate's own tests'.

mod client;
mod controller;
mod fault;
mod judge;
mod network;
mod node;

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_log::ReadStart;
use pelton_model::{LeaderEpoch, Now, Offset, PartitionEpoch, PartitionState, Prng, Replica, ReplicaEpoch};
use pelton_replica::effect::IsrProposal;
use pelton_replica::frame::Frame;
use pelton_replica::lease::LEASE_RENEW_NS;
use pelton_shard::replica_host::HostEffect;

use crate::disk::Crash;
use client::Client;
use controller::{Controller, NODES, node_of, replica};
pub use fault::Fault;
use judge::{Judge, Stored};
use network::Network;
use node::{Node, Waiting};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// The controller's place in the network.
const CONTROLLER: usize = NODES;
/// A run that takes more events than this goes round.
const EVENTS_MAX: u64 = 2_000_000;

/// What is said between nodes and controller.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between replicas.
    Frame { frame: Frame, batches: Bytes },
    /// A node lives, for this time.
    Register { life: u64 },
    /// It is registered.
    Registered { life: u64, epoch: ReplicaEpoch },
    /// A node asks for its lease.
    Renew { sequence: u64, epoch: ReplicaEpoch, applied: u64 },
    /// It gets it.
    Grant { sequence: u64, epoch: ReplicaEpoch },
    /// The partition is so.
    Metadata { index: u64, state: PartitionState, predecessor_gone: bool },
    /// A leader wants this ISR.
    Propose { epoch: ReplicaEpoch, proposal: IsrProposal },
    /// It does not get it.
    Refused { epoch: ReplicaEpoch, partition_epoch: PartitionEpoch },
    /// Another is to lead.
    Transfer { epoch: ReplicaEpoch, target: Replica },
    /// Leadership is given back.
    Release {
        epoch: ReplicaEpoch,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        target: Replica,
    },
}

enum What {
    Deliver { from: usize, to: usize, message: Message },
    Disk { node: usize, life: u64, number: u64 },
    Tick { node: usize, life: u64 },
    Renew { node: usize, life: u64 },
    Start { node: usize },
    Controller,
    Client(usize),
    Fault,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Things that happened.
    pub events: u64,
    /// Nodes that ended.
    pub crashes: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Logs cut back or begun anew.
    pub cuts: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Of everything, to compare two runs.
    pub digest: u64,
}

impl crate::seeds::Summary for Summary {
    fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.crashes += other.crashes;
        self.elections += other.elections;
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.digest ^= other.digest;
    }
}

struct World {
    prng: Prng,
    now_ns: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), What>,
    nodes: Vec<Node>,
    controller: Controller,
    clients: Vec<Client>,
    network: Network,
    judge: Judge,
    faults: bool,
    trace: bool,
    summary: Summary,
}

/// Runs one seed: faults for a while, then none until everything has come right, then judgement of every log alone.
pub fn run(seed: u64, trace: bool, fault: Option<Fault>) -> Result<Summary, String> {
    let mut prng = Prng::new(seed);
    let flush = !prng.one_in(4);
    let nodes = (0..NODES).map(|id| Node::new(id, flush, fault, &mut prng)).collect();
    let min_isr = 1 + prng.below(2) as usize;
    let clients = (0..3).map(|id| Client::new(id, 20 + prng.below(60) as i32)).collect();
    let network = Network::new(&mut prng);
    let mut world = World {
        prng,
        now_ns: 0,
        order: 0,
        queue: BTreeMap::new(),
        nodes,
        controller: Controller::new(min_isr),
        clients,
        network,
        judge: Judge::new(flush),
        faults: true,
        trace,
        summary: Summary::default(),
    };
    for node in 0..NODES {
        world.nodes[node].settings.min_insync_replicas = min_isr as i32;
        world.start(node)?;
    }
    world.at(0, What::Controller);
    (0..3).for_each(|client| world.at(SECOND, What::Client(client)));
    world.at(SECOND, What::Fault);
    let until = (4 + world.prng.below(12)) * SECOND;
    world.run_until(until, |_| false)?;
    world.heal();
    if !world.run_until(world.now_ns + 120 * SECOND, World::is_settled)? {
        return Err(format!("does not come right: {}", world.state_text()));
    }
    world.final_judgement()?;
    world.summary.acknowledged = world.judge.acknowledged();
    world.summary.elections = world.controller.elections;
    world.summary.digest = world.judge.digest;
    Ok(world.summary)
}

impl World {
    fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ns + 1, wall_ms: 1_700_000_000_000 + (self.now_ns / MS) as i64 }
    }

    fn at(&mut self, delay_ns: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now_ns + delay_ns, self.order), what);
    }

    fn run_until(&mut self, until_ns: u64, done: impl Fn(&World) -> bool) -> Result<bool, String> {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until_ns {
                break;
            }
            let ((at, _), what) = entry.remove_entry();
            self.now_ns = at;
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                return Err(format!("goes round at {} ms: {}", at / MS, self.state_text()));
            }
            self.step(what).map_err(|text| format!("at {} ms: {text}", self.now_ns / MS))?;
            if done(self) {
                return Ok(true);
            }
        }
        Ok(done(self))
    }

    fn step(&mut self, what: What) -> Result<(), String> {
        let now = self.now();
        match what {
            What::Deliver { from, to, message } if to == CONTROLLER => {
                self.controller.handle(from, message, self.now_ns);
                self.post();
            }
            What::Deliver { from, to, message } => {
                if self.trace {
                    self.trace(&format!("{from}>{to} {}", short(&message)));
                }
                let alive = self.nodes[to].deliver(from, message, now)?;
                if alive {
                    return self.after(to);
                }
            }
            What::Disk { node, life, number } if self.nodes[node].life == life => {
                let Node { running: Some(running), disk, .. } = &mut self.nodes[node] else { return Ok(()) };
                let Some(operation) = running.in_flight.remove(&number) else { return Ok(()) };
                let result = disk.complete(&mut self.prng, &operation);
                self.summary.cuts += running.completed(operation.ticket, result, now)?;
                return self.after(node);
            }
            What::Tick { node, life } if self.nodes[node].life == life => {
                if let Some(running) = &mut self.nodes[node].running {
                    running.tick_at_ns = u64::MAX;
                    running.act(now, |host, turn| host.handle_tick(turn));
                    return self.after(node);
                }
            }
            What::Renew { node, life } if self.nodes[node].life == life => {
                self.at(LEASE_RENEW_NS, What::Renew { node, life });
                if let Some(message) = self.nodes[node].renewal(now) {
                    self.send(node, CONTROLLER, message);
                }
            }
            What::Disk { .. } | What::Tick { .. } | What::Renew { .. } => {}
            What::Start { node } => self.start(node)?,
            What::Controller => {
                self.at(100 * MS, What::Controller);
                self.controller.tick(self.now_ns);
                self.post();
            }
            What::Client(client) => return self.client(client),
            What::Fault if self.faults => self.fault(),
            What::Fault => {}
        }
        Ok(())
    }

    /// What the controller has to say.
    fn post(&mut self) {
        for (to, message) in std::mem::take(&mut self.controller.out) {
            self.send(CONTROLLER, to, message);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        for delay in self.network.copies(from, to, &mut self.prng) {
            self.at(delay, What::Deliver { from, to, message: message.clone() });
        }
    }

    /// Ends a node's turn: disk and network get what they are to do, clients their answers.
    fn after(&mut self, id: usize) -> Result<(), String> {
        let now = self.now();
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        let (disk, effects) = running.end_turn(now);
        let life = self.nodes[id].life;
        for effect in disk {
            let Node { running: Some(running), disk, .. } = &mut self.nodes[id] else { return Ok(()) };
            let operation = disk.submit(0, effect);
            running.next_operation += 1;
            let number = running.next_operation;
            running.in_flight.insert(number, operation);
            let delay = 20_000 + self.prng.below(if self.nodes[id].slow { 40 * MS } else { 2 * MS });
            self.at(delay, What::Disk { node: id, life, number });
        }
        for effect in effects {
            self.perform(id, effect)?;
        }
        self.answer(id)?;
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        if let Some(due) = running.deadline_ns().filter(|due| *due < running.tick_at_ns) {
            running.tick_at_ns = due;
            let delay = due.saturating_sub(self.now_ns).max(1_000);
            self.at(delay, What::Tick { node: id, life });
        }
        Ok(())
    }

    fn perform(&mut self, id: usize, effect: HostEffect) -> Result<(), String> {
        let epoch = self.nodes[id].running.as_ref().and_then(|running| running.epoch).unwrap_or_default();
        match effect {
            HostEffect::Send { to, frame, batches } => {
                let bytes = Frame::decode(frame.encode().as_slice()).map_err(|error| error.to_string())?;
                let batches = Bytes::from(batches.concat());
                self.send(id, node_of(to), Message::Frame { frame: bytes, batches });
            }
            HostEffect::ProposeIsr(proposal) => {
                self.send(id, CONTROLLER, Message::Propose { epoch, proposal });
            }
            HostEffect::Release { target, leader_epoch, partition_epoch } => {
                self.send(id, CONTROLLER, Message::Release { epoch, leader_epoch, partition_epoch, target });
            }
            HostEffect::Faulted(fault) => return Err(format!("node {id} gave up without cause: {fault}")),
            HostEffect::LostDurable { replica, acknowledged, log_end } => {
                return Err(format!("S5: {replica} had {acknowledged:?} on its disk, has {log_end:?}"));
            }
            HostEffect::HighWatermark(_) | HostEffect::TransferCancelled { .. } | HostEffect::Resigned => {}
        }
        Ok(())
    }

    /// Answers that are due.
    fn answer(&mut self, id: usize) -> Result<(), String> {
        let now = self.now();
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        for (wait, result) in running.decided(now) {
            let client = &mut self.clients[wait.client];
            if result.is_err() {
                client.failed(wait.sequence);
                continue;
            }
            client.acknowledged(wait.sequence);
            self.judge.acknowledged_at(&wait)?;
            self.hold_copies(&wait)?;
        }
        Ok(())
    }

    /// I10: at the instant of the acknowledgement every member of the ISR that lives has the batch as it must.
    fn hold_copies(&self, wait: &Waiting) -> Result<(), String> {
        let far = |node: &Node| {
            node.running.as_ref().map_or(Offset(0), |running| running.counting(self.judge.flush))
        };
        let state = &self.controller.state;
        let has = |id: usize| far(&self.nodes[id]) > wait.last_offset;
        let copies = (0..NODES).filter(|id| has(*id)).count();
        let lives = |id: usize, epoch: ReplicaEpoch| {
            self.nodes[id].running.as_ref().is_some_and(|running| running.epoch == Some(epoch))
        };
        // Copies of those that have since lost their process do not show; the others must.
        let lacking = state.isr.iter().find(|member| {
            let id = node_of(member.replica);
            lives(id, member.epoch) && !has(id)
        });
        match lacking {
            Some(member) => Err(format!("I10: {wait:?} acknowledged, {member:?} lacks it ({copies} copies)")),
            None => Ok(()),
        }
    }

    fn client(&mut self, id: usize) -> Result<(), String> {
        let pause = MS + self.prng.below(30 * MS);
        self.at(pause, What::Client(id));
        let now = self.now();
        let target = match self.controller.state.leader {
            Some(leader) if !self.prng.one_in(8) => node_of(leader),
            _ => self.prng.below(NODES as u64) as usize,
        };
        let Some((sequence, records)) = self.clients[id].next(self.now_ns, &mut self.prng) else {
            return Ok(());
        };
        let Some(running) = self.nodes[target].running.as_mut().filter(|running| running.host.is_some())
        else {
            self.clients[id].failed(sequence);
            return Ok(());
        };
        if !running.produce(now, id, sequence, records) {
            self.clients[id].failed(sequence);
        }
        self.after(target)
    }

    fn start(&mut self, id: usize) -> Result<(), String> {
        let (now, node) = (self.now(), &mut self.nodes[id]);
        if node.running.is_some() {
            return Ok(());
        }
        node.start(now).map_err(|error| format!("node {id} does not start: {error}"))?;
        let life = node.life;
        self.trace(&format!("start {id}, life {life}"));
        self.at(0, What::Renew { node: id, life });
        self.after(id)
    }

    fn crash(&mut self, id: usize, kind: Crash) {
        self.trace(&format!("crash {id} {kind:?}"));
        self.nodes[id].crash(kind, &mut self.prng);
        self.summary.crashes += 1;
        let delay = 50 * MS + self.prng.below(4 * SECOND);
        self.at(delay, What::Start { node: id });
    }

    fn fault(&mut self) {
        let next = 50 * MS + self.prng.below(1_500 * MS);
        self.at(next, What::Fault);
        let id = self.prng.below(NODES as u64) as usize;
        match self.prng.below(8) {
            0 | 1 => self.crash(id, Crash::Kill),
            // Unflushed copies survive a process, not the power; with several cuts all may be gone, as KIP-966 says.
            2 if self.judge.flush => self.crash(id, Crash::PowerCut),
            3 if self.judge.flush => (0..NODES).for_each(|id| self.crash(id, Crash::PowerCut)),
            4 => self.nodes[id].slow = !self.nodes[id].slow,
            5 => self.transfer(),
            _ => {
                let text = self.network.change(&mut self.prng);
                self.trace(&text);
            }
        }
    }

    fn transfer(&mut self) {
        let others = self.controller.others_in_isr();
        let (Some(leader), false) = (self.controller.state.leader, others.is_empty()) else { return };
        let target = others[self.prng.below(others.len() as u64) as usize];
        let epoch = self.controller.epoch_of(node_of(leader));
        self.send(CONTROLLER, node_of(leader), Message::Transfer { epoch, target });
    }

    fn heal(&mut self) {
        self.trace("all faults end");
        self.faults = false;
        self.network.heal();
        self.nodes.iter_mut().for_each(|node| node.slow = false);
    }

    fn is_settled(&self) -> bool {
        let ends: Vec<_> =
            self.nodes.iter().filter_map(|node| Some(node.running.as_ref()?.settled_end())).collect();
        let same = ends.iter().all(|end| *end == ends[0] && end.is_some());
        self.clients.iter().all(Client::is_done)
            && self.controller.state.isr.len() == NODES
            && ends.len() == NODES
            && same
    }

    fn state_text(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(Node::text).collect();
        let open: Vec<String> = self.clients.iter().map(Client::text).collect();
        format!("{:?}; {}; {}", self.controller.state, nodes.join("; "), open.join("; "))
    }

    /// Each log, read alone, has every acknowledged batch once at its place, and all are the same.
    fn final_judgement(&mut self) -> Result<(), String> {
        for id in 0..NODES {
            let log = self.read_log(id)?;
            self.judge.judge(id, &log)?;
        }
        Ok(())
    }

    fn read_log(&mut self, id: usize) -> Result<Vec<Stored>, String> {
        let mut found = Vec::new();
        let missing = || format!("node {id} is gone");
        let running = self.nodes[id].running.as_ref().ok_or_else(missing)?;
        let (mut next, end) = (running.storage.base_offset(running.slot), running.end());
        while next < end {
            let running = self.nodes[id].running.as_mut().ok_or_else(missing)?;
            let slot = running.slot;
            let start =
                running.storage.start_read_of_all(slot, next, 9_000, end, true, true, &mut running.disk);
            let batches = match start {
                Ok(ReadStart::Ready(plan)) => node::in_memory(plan),
                Ok(ReadStart::Pending(token)) => {
                    self.after(id)?;
                    let until = self.now_ns + SECOND;
                    self.run_until(until, |world| world.nodes[id].has_read(token))?;
                    self.nodes[id]
                        .take_read(token)
                        .ok_or_else(|| format!("node {id}: a read without end"))??
                }
                Err(error) => return Err(format!("node {id}: {error:?} at {next:?}")),
            };
            let before = next;
            for bytes in batches {
                for stored in judge::stored(&bytes)? {
                    next = Offset(stored.last_offset + 1);
                    found.push(stored);
                }
            }
            if next == before {
                return Err(format!("node {id}: nothing to read at {next:?} of {end:?}"));
            }
        }
        Ok(found)
    }

    fn trace(&self, text: &str) {
        if self.trace {
            println!("{:>9} {text}", self.now_ns / 1000);
        }
    }
}

fn short(message: &Message) -> String {
    match message {
        Message::Frame { frame, batches } => {
            format!("{:?} epoch {} {} bytes", frame.body, frame.leader_epoch.0, batches.len())
        }
        other => format!("{other:?}"),
    }
}

/// The replica of a node in one of its lives.
pub fn member(node: usize, epoch: ReplicaEpoch) -> pelton_model::IsrMember {
    pelton_model::IsrMember { replica: replica(node), epoch }
}
