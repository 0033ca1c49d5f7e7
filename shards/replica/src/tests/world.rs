//! Nodes, controller, clients and network of one seed, step by step.

use std::collections::BTreeMap;

use pelton_model::{LeaderEpoch, Offset, PartitionKey, Prng, Replica, TopicId};
use uuid::Uuid;

use super::clients::Client;
use super::controller::{Controller, node_of, replica};
use super::network::{CONTROLLER, Message, Network};
use super::node::{Node, Told};
use super::oracle::{Check, Oracle};
use super::plan::{Kind, Plan};
use crate::effect::Effect;
use crate::frame::{Body, Frame};
use crate::lease::LEASE_RENEW_NS;

/// What happens when.
#[derive(Clone, Debug)]
pub enum Event {
    Deliver { from: usize, to: usize, message: Message },
    Written { node: usize, life: u64, generation: u64, end: i64 },
    Flushed { node: usize, life: u64, generation: u64, end: i64 },
    Tick { node: usize, life: u64 },
    Renew { node: usize, life: u64 },
    ControllerTick,
    Client { id: usize },
    Read,
    Fault,
    Start { node: usize },
}

pub struct World {
    pub plan: Plan,
    pub now_ns: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    pub prng: Prng,
    pub network: Network,
    pub nodes: Vec<Node>,
    pub controller: Controller,
    /// The controller's clock runs at this rate, parts in a million off.
    controller_ppm: i64,
    pub clients: Vec<Client>,
    pub oracle: Oracle,
    pub faults: bool,
    pub steps: u64,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let mut prng = Prng::new(plan.seed);
        let nodes = (0..plan.nodes).map(|id| Node::new(id, &plan, &mut prng)).collect();
        let drift = plan.drift_ppm.min(10_000);
        let controller_ppm = prng.below(2 * drift + 1) as i64 - drift as i64;
        let mut world = World {
            now_ns: 0,
            queue: BTreeMap::new(),
            next: 0,
            network: Network::new(&plan),
            nodes,
            controller: Controller::new(&plan),
            controller_ppm,
            clients: (0..3).map(Client::new).collect(),
            oracle: Oracle::new(),
            faults: true,
            steps: 0,
            prng,
            plan,
        };
        for node in 0..world.nodes.len() {
            world.at(0, Event::Renew { node, life: 1 });
        }
        for id in 0..world.clients.len() {
            world.at(1_000_000_000, Event::Client { id });
        }
        world.at(0, Event::ControllerTick);
        world.at(1_500_000_000, Event::Read);
        world.at(2_000_000_000, Event::Fault);
        world
    }

    pub fn at(&mut self, delay_ns: u64, event: Event) {
        self.next += 1;
        self.queue.insert((self.now_ns + delay_ns, self.next), event);
    }

    /// Runs until `until_ns`; what was violated first.
    pub fn run(&mut self, until_ns: u64) -> Check {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until_ns {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now_ns = at;
            self.steps += 1;
            self.step(event)?;
        }
        self.now_ns = until_ns;
        Ok(())
    }

    pub fn controller_clock(&self) -> u64 {
        (i128::from(self.now_ns) * i128::from(1_000_000 + self.controller_ppm) / 1_000_000) as u64
    }

    fn step(&mut self, event: Event) -> Check {
        // A paused process sees everything when it wakes; its timers and disk too.
        let node = match &event {
            Event::Deliver { to, .. } => *to,
            Event::Written { node, .. }
            | Event::Flushed { node, .. }
            | Event::Tick { node, .. }
            | Event::Renew { node, .. } => *node,
            _ => usize::MAX,
        };
        if let Some(paused) =
            self.nodes.get(node).map(|node| node.paused_until_ns).filter(|at| *at > self.now_ns)
        {
            self.at(paused - self.now_ns, event);
            return Ok(());
        }
        match event {
            Event::Deliver { from, to, message } if to == CONTROLLER => self.tell_controller(from, message),
            Event::Deliver { from, to, message } => self.deliver(from, to, message)?,
            Event::Written { node, life, generation, end } if self.current(node, life, generation) => {
                self.nodes[node].log.handle_written(end);
                self.progress(node)?;
            }
            Event::Flushed { node, life, generation, end } if self.current(node, life, generation) => {
                self.nodes[node].log.handle_flushed(end);
                self.progress(node)?;
                if self.prng.one_in(4) {
                    self.nodes[node].checkpoint();
                }
            }
            Event::Tick { node, life } if self.alive(node, life) => {
                self.nodes[node].tick_at_ns = u64::MAX;
                let effects =
                    self.nodes[node].turn(self.now_ns, |partition, turn| partition.handle_tick(turn)).1;
                self.perform(node, effects)?;
            }
            Event::Renew { node, life } if self.alive(node, life) => self.renew(node),
            Event::ControllerTick => {
                self.at(100_000_000, Event::ControllerTick);
                if self.controller.away_until_ns <= self.controller_clock() {
                    let now = self.controller_clock();
                    self.controller.tick(now);
                    self.flush_controller();
                    self.check(0)?;
                }
            }
            Event::Client { id } => self.client(id)?,
            Event::Read => self.read()?,
            Event::Fault if self.faults => self.fault()?,
            Event::Start { node } if !self.nodes[node].up => self.start(node),
            _ => {}
        }
        Ok(())
    }

    fn alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    fn current(&self, node: usize, life: u64, generation: u64) -> bool {
        self.alive(node, life) && self.nodes[node].log.generation == generation
    }

    pub fn start(&mut self, node: usize) {
        self.nodes[node].start();
        let life = self.nodes[node].life;
        self.at(0, Event::Renew { node, life });
    }

    fn progress(&mut self, node: usize) -> Check {
        if self.nodes[node].epoch.is_none() {
            return Ok(());
        }
        let effects = self.nodes[node].turn(self.now_ns, |partition, turn| partition.handle_progress(turn)).1;
        self.perform(node, effects)
    }

    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        for delay in self.network.copies(from, to, &mut self.prng) {
            self.at(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn tell_controller(&mut self, from: usize, message: Message) {
        let now = self.controller_clock();
        if self.controller.away_until_ns <= now {
            self.controller.handle(from, message, now);
            self.flush_controller();
        }
    }

    pub fn flush_controller(&mut self) {
        for (to, message) in std::mem::take(&mut self.controller.out) {
            self.send(CONTROLLER, to, message);
        }
    }

    /// Registers, or renews the lease.
    fn renew(&mut self, id: usize) {
        let clock = self.nodes[id].clock_ns(self.now_ns);
        let node = &mut self.nodes[id];
        let message = match node.epoch {
            None => Message::Register {
                life: node.life,
                unclean: node.unclean && !node.settings.flush_every_append,
            },
            Some(epoch) => Message::Renew { sequence: node.holder.ask(clock), epoch, applied: node.applied },
        };
        let life = node.life;
        self.send(id, CONTROLLER, message);
        self.at(LEASE_RENEW_NS, Event::Renew { node: id, life });
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) -> Check {
        if !self.nodes[to].up {
            return Ok(());
        }
        let now = self.now_ns;
        let node = &mut self.nodes[to];
        let effects = match message {
            Message::Registered { life, epoch } if life == node.life => {
                node.unclean = false;
                node.registered(epoch);
                Vec::new()
            }
            Message::Grant { sequence, epoch } if node.epoch == Some(epoch) => {
                node.holder.handle_grant(sequence);
                node.turn(now, |partition, turn| partition.handle_tick(turn)).1
            }
            Message::Metadata { index, state, predecessor_gone } if node.epoch.is_some() => {
                node.applied = node.applied.max(index);
                let apply = |partition: &mut crate::partition::Partition, turn: &mut crate::effect::Turn| {
                    partition.handle_metadata(&state, predecessor_gone, turn);
                    if predecessor_gone {
                        partition.handle_predecessor_gone(state.leader_epoch, turn);
                    }
                };
                node.turn(now, apply).1
            }
            Message::Refused { partition_epoch } => {
                node.turn(now, |partition, turn| partition.handle_proposal_refused(partition_epoch, turn)).1
            }
            Message::Transfer { leader_epoch, target } if node.partition.leader_epoch() == leader_epoch => {
                node.turn(now, |partition, turn| partition.handle_transfer(target, turn)).1
            }
            Message::Frame { bytes, batches } if node.epoch.is_some() => {
                return self.frame(from, to, &bytes, &batches);
            }
            _ => return Ok(()),
        };
        self.perform(to, effects)
    }

    fn frame(&mut self, from: usize, to: usize, bytes: &[u8], batches: &[u8]) -> Check {
        let frame = Frame::decode(bytes).map_err(|error| error.to_string())?;
        let now = self.now_ns;
        let node = &mut self.nodes[to];
        let (from, epoch) = (replica(from), frame.leader_epoch);
        if !matches!(frame.body, Body::Append { .. }) {
            let effects =
                node.turn(now, |partition, turn| partition.handle_frame(from, epoch, &frame.body, turn)).1;
            return self.perform(to, effects);
        }
        let (accept, effects) = node
            .turn(now, |partition, turn| partition.handle_append(from, epoch, &frame.body, batches, turn));
        if accept {
            node.log.append(batches, &mut node.epochs, &mut node.producers);
            self.write(to);
        }
        self.perform(to, effects)
    }

    /// Everything appended goes to the disk.
    pub fn write(&mut self, id: usize) {
        let slow = self.nodes[id].slow;
        let delay = (100 + self.prng.below(900)) * 1_000 * slow;
        let node = &self.nodes[id];
        let (node, life, generation, end) = (id, node.life, node.log.generation, node.log.end());
        self.at(delay, Event::Written { node, life, generation, end });
        let lazy = !self.plan.flush_every_append && self.prng.one_in(2);
        let wait = if lazy { 2_000_000_000 } else { 0 };
        let delay = delay + (100 + self.prng.below(3_000)) * 1_000 * slow + wait;
        self.at(delay, Event::Flushed { node, life, generation, end });
    }

    /// Carries out what a replica wants, then looks whether all is as it must be.
    pub fn perform(&mut self, id: usize, effects: Vec<Effect>) -> Check {
        let mut queue = std::collections::VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let more = self.carry_out(id, effect)?;
            // What follows a cut comes before what else was wanted.
            more.into_iter().rev().for_each(|effect| queue.push_front(effect));
        }
        self.answer(id)?;
        self.schedule_tick(id);
        self.check(id)
    }

    pub fn check(&mut self, id: usize) -> Check {
        self.oracle.step(self.now_ns, &self.plan, &self.nodes, id, &self.controller)
    }

    fn schedule_tick(&mut self, node: usize) {
        let Some(due) = self.nodes[node].partition.deadline_ns() else { return };
        let real = self.nodes[node].real_ns(due).max(self.now_ns + 1_000_000);
        if real < self.nodes[node].tick_at_ns {
            self.nodes[node].tick_at_ns = real;
            let life = self.nodes[node].life;
            self.at(real - self.now_ns, Event::Tick { node, life });
        }
    }

    fn send_frame(
        &mut self,
        from: usize,
        to: Replica,
        leader_epoch: LeaderEpoch,
        body: Body,
        batches: Vec<u8>,
    ) {
        let partition = PartitionKey { topic_id: TopicId(Uuid::nil()), partition: 0 };
        let bytes = Frame { partition, leader_epoch, body }.encode().as_slice().to_vec();
        self.send(from, node_of(to), Message::Frame { bytes, batches });
    }

    fn carry_out(&mut self, id: usize, effect: Effect) -> Result<Vec<Effect>, String> {
        let now = self.now_ns;
        let epoch = self.nodes[id].epoch.unwrap_or_default();
        match effect {
            Effect::Send { to, body } => {
                let leader_epoch = self.nodes[id].partition.leader_epoch();
                self.send_frame(id, to, leader_epoch, body, Vec::new());
            }
            Effect::Feed { to, leader_epoch, from, max_bytes } => {
                let node = &mut self.nodes[id];
                let (batches, end) = node.log.read(from.0, max_bytes);
                let (body, effects) = node.turn(now, |partition, turn| {
                    partition.append_frame(to, leader_epoch, from, Offset(end), batches.len() as u32, turn)
                });
                if let Some(body) = body {
                    self.send_frame(id, to, leader_epoch, body, batches);
                }
                return Ok(effects);
            }
            Effect::Cut { to } => {
                let before = self.oracle.high_watermark_before_cut(id);
                self.oracle.cut(&self.nodes[id], to.0, before)?;
                self.nodes[id].cut(to.0);
                self.write(id);
                return Ok(self.nodes[id].turn(now, |partition, turn| partition.handle_cut(turn)).1);
            }
            Effect::Restart { at } => {
                self.oracle.restarts += 1;
                let known = self.oracle.hash_below(at.0);
                let hash = match self.plan.kind {
                    Kind::Lying => known.unwrap_or(0),
                    _ => known.ok_or("a log begins anew beyond what is committed")?,
                };
                self.oracle.forget_seen(id);
                self.nodes[id].restart_log(at.0, hash);
                return Ok(self.nodes[id].turn(now, |partition, turn| partition.handle_cut(turn)).1);
            }
            Effect::AdvanceLogStart { to } => {
                let known = self.oracle.hash_below(to.0);
                let node = &mut self.nodes[id];
                node.log.start = node.log.start.max(to.0);
                node.log.bury(known);
                node.epochs.truncate_from_start(Offset(node.log.base()));
            }
            Effect::HighWatermark(offset) => self.nodes[id].producers.commit(offset),
            Effect::ProposeIsr(proposal) => self.send(id, CONTROLLER, Message::Propose { epoch, proposal }),
            Effect::Release { target, leader_epoch, partition_epoch } => {
                self.oracle.transfers += 1;
                self.send(id, CONTROLLER, Message::Release { epoch, leader_epoch, partition_epoch, target });
            }
            Effect::Resigned | Effect::TransferCancelled { .. } => {}
            Effect::Faulted(fault) => {
                self.oracle.faulted += 1;
                if self.plan.kind != Kind::Lying {
                    return Err(format!("node {id} gave up without cause: {fault}"));
                }
            }
            Effect::LostDurable { replica, acknowledged, log_end } => {
                if self.plan.kind != Kind::Lying {
                    return Err(format!("S5: {replica} had {acknowledged:?} on its disk, has {log_end:?}"));
                }
            }
        }
        Ok(Vec::new())
    }

    /// Answers of produces that are due.
    fn answer(&mut self, id: usize) -> Check {
        for (wait, result) in self.nodes[id].decided(self.now_ns) {
            match result {
                Ok(()) => self.acknowledged(id, &wait)?,
                Err(_) => self.clients[wait.client].fail(self.plan.nodes, &mut self.prng),
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, id: usize, wait: &super::node::Waiting) -> Check {
        if let Some(invoked_end) = self.clients[wait.client].acknowledge(wait.sequence) {
            // The leader's high watermark may just have moved: what it committed is known first.
            self.check(id)?;
            self.oracle.acked(&self.plan, &self.nodes, id, wait, invoked_end)?;
            self.clients[wait.client].since_ns = self.now_ns;
        }
        Ok(())
    }

    fn client(&mut self, id: usize) -> Check {
        let pause = 1_000_000 + self.prng.below(100_000_000);
        self.at(pause, Event::Client { id });
        let client = &mut self.clients[id];
        if !client.unacked.is_empty() && self.now_ns - client.since_ns > 1_500_000_000 {
            client.fail(self.plan.nodes, &mut self.prng);
            client.since_ns = self.now_ns;
        }
        let node = client.leader;
        if !self.nodes[node].up
            || self.nodes[node].epoch.is_none()
            || self.nodes[node].paused_until_ns > self.now_ns
        {
            client.fail(self.plan.nodes, &mut self.prng);
            return Ok(());
        }
        let Some(batch) = client.next(true, self.oracle.acked_end, &mut self.prng) else { return Ok(()) };
        let (end, sequence) = (self.nodes[node].log.end(), super::disk::facts(&batch).base_sequence);
        let (told, effects) = self.nodes[node].produce(self.now_ns, id, batch);
        if self.nodes[node].log.end() > end {
            self.oracle.appended(&self.nodes[node])?;
            self.write(node);
        }
        match told {
            Told::Later => {}
            Told::Acked { last_offset } => {
                let epoch = self.nodes[node].partition.leader_epoch();
                let wait = super::node::Waiting { client: id, sequence, last_offset, epoch };
                self.acknowledged(node, &wait)?;
            }
            Told::Refused(_) => self.clients[id].fail(self.plan.nodes, &mut self.prng),
        }
        self.perform(node, effects)
    }

    fn read(&mut self) -> Check {
        let pause = 1_000_000 + self.prng.below(40_000_000);
        self.at(pause, Event::Read);
        let node = &self.nodes[self.prng.below(self.plan.nodes as u64) as usize];
        if !node.up || node.epoch.is_none() || node.paused_until_ns > self.now_ns {
            return Ok(());
        }
        let (now, lease) = (node.clock_ns(self.now_ns), node.lease());
        if let Ok(end) = node.partition.check_latest(now, lease) {
            self.oracle.read(&self.plan, node, end.0, true)?;
        }
        if let Ok(end) = node.partition.check_follower_read(now, lease) {
            self.oracle.read(&self.plan, node, end.0, false)?;
        }
        Ok(())
    }
}
