//! The simulated cluster: time, links, disks and clocks, and what goes wrong with them. One seed is one run.

mod operator;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pelton_cluster::control::asks::{Answer, Ask, Token};
use pelton_cluster::control::isr::{Asker, IsrChange, IsrRefusal};
use pelton_cluster::member::{Member, MemberEffect};
use pelton_cluster::quorum::Role;
use pelton_model::{NodeId, Prng};

use crate::data::MIN_ISR;
use crate::node::{Node, TICK_MS, Waiting};
use crate::oracle::Oracle;
use crate::sabotage::Sabotage;

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

/// A late copy of a message comes after so many milliseconds.
const LATE_MS: std::ops::Range<u64> = 500..6_000;

/// What goes wrong in a run; each seed switches each on or off.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// One message in so many is lost; 0 = none.
    pub loss: u64,
    /// One message in so many comes twice; 0 = none.
    pub duplicates: u64,
    /// One message in so many comes again seconds later, as from a buffer that has outlived its connection; 0 = none.
    pub late: u64,
    /// Longest delay of a message, milliseconds.
    pub delay_ms: u64,
    /// Processes crash.
    pub crashes: bool,
    /// Processes stand still, or are starved: their timers fire seldom and their packets are lost.
    pub pauses: bool,
    /// Links break, one way or both.
    pub partitions: bool,
    /// Disks are slow or full.
    pub disks: bool,
    /// Clocks are off by up to this, parts in a thousand.
    pub drift_permille: u64,
    /// Operators do things.
    pub admin: bool,
}

enum Event {
    Tick(usize),
    /// From, to, and the frame.
    Deliver(usize, usize, Bytes),
    Disk(usize, u64),
    Data(usize),
    Fault,
    Heal(usize, usize),
    Start(usize),
}

/// The cluster.
pub struct World {
    /// Real time, nanoseconds.
    pub now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// All chance comes from here.
    pub prng: Prng,
    /// By id.
    pub nodes: Vec<Node>,
    broken: BTreeSet<(usize, usize)>,
    /// What goes wrong.
    pub faults: Faults,
    /// The judge.
    pub oracle: Oracle,
    sabotage: Option<Sabotage>,
    topics: u64,
    topics_wanted: u64,
    /// Records appended by anyone.
    pub records: u64,
    /// Events so far.
    pub events: u64,
    /// Changes of voters that the quorum took.
    pub voters_changed: u64,
    effects: VecDeque<(usize, MemberEffect)>,
    performing: bool,
    /// Leases overlapping are a fault: not so where clocks are worse than promised.
    pub leases_exclusive: bool,
    /// Faults have ended.
    pub healed: bool,
    trace: bool,
}

impl World {
    /// A cluster of `count` nodes of which the first `voters` form the quorum.
    pub fn new(seed: u64, count: usize, voters: usize, faults: Faults, sabotage: Option<Sabotage>) -> World {
        let mut prng = Prng::new(seed);
        let ids: Vec<NodeId> = (0..voters as i32).map(NodeId).collect();
        let mut nodes = Vec::new();
        for id in 0..count {
            let drift = prng.below(2 * faults.drift_permille + 1) as i64 - faults.drift_permille as i64;
            let base = prng.below(1 << 40) + (1 << 40);
            nodes.push(Node::new(NodeId(id as i32), id >= voters, &ids, base, drift));
        }
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            prng,
            nodes,
            broken: BTreeSet::new(),
            leases_exclusive: faults.drift_permille <= 10,
            faults,
            oracle: Oracle::default(),
            sabotage,
            topics: 0,
            topics_wanted: 2,
            records: 0,
            events: 0,
            voters_changed: 0,
            effects: VecDeque::new(),
            performing: false,
            healed: false,
            trace: false,
        };
        for id in 0..count {
            world.at(world.now, Event::Start(id));
            world.at(MS, Event::Tick(id));
            world.at(MS, Event::Data(id));
        }
        world.at(3_000 * MS, Event::Fault);
        world
    }

    /// Prints what happens.
    pub fn set_trace(&mut self) {
        self.trace = true;
    }

    fn at(&mut self, instant: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((instant.max(self.now), self.sequence), event);
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} ms  {}", self.now as f64 / MS as f64, text());
        }
    }

    /// A message from one node reaches the other.
    pub fn linked(&self, from: usize, to: usize) -> bool {
        !self.broken.contains(&(from, to))
    }

    /// Lets things happen until this instant.
    pub fn run_until(&mut self, end: u64) -> Result<(), String> {
        while let Some(((instant, _), _)) = self.queue.first_key_value() {
            if *instant > end {
                break;
            }
            let Some(((instant, _), event)) = self.queue.pop_first() else { break };
            self.now = instant;
            self.events += 1;
            self.happen(event).map_err(|error| format!("at {} ms: {error}", self.now / MS))?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick(id) => {
                let apart = TICK_MS * MS * if self.now < self.nodes[id].starved_until { 10 } else { 1 };
                let next = self.now + apart / 2 + self.prng.below(apart / 2);
                self.at(next.max(self.nodes[id].paused_until), Event::Tick(id));
                self.with(id, |member, clock, out| member.advance(clock, out))?;
                self.operate(id)
            }
            Event::Deliver(from, id, frame) => {
                if self.now < self.nodes[id].paused_until {
                    let later = self.nodes[id].paused_until;
                    self.at(later, Event::Deliver(from, id, frame));
                    return Ok(());
                }
                let mut refused = None;
                let from = self.nodes[from].id;
                self.with(id, |member, clock, out| refused = member.receive(clock, from, &frame, out).err())?;
                match refused {
                    Some(refused) => Err(format!("node {id} refuses a frame: {refused}")),
                    None => Ok(()),
                }
            }
            Event::Disk(id, life) => {
                if self.nodes[id].life != life || self.nodes[id].member.is_none() {
                    return Ok(());
                }
                let full = self.nodes[id].disk_full_until.max(self.nodes[id].paused_until);
                if self.now < full {
                    self.at(full, Event::Disk(id, life));
                    return Ok(());
                }
                if let Some(number) = self.nodes[id].stabilize() {
                    self.with(id, |member, clock, out| member.persisted(clock, number, out))?;
                }
                Ok(())
            }
            Event::Data(id) => {
                let next = self.now + 20 * MS + self.prng.below(60 * MS);
                self.at(next, Event::Data(id));
                self.data(id)
            }
            Event::Fault => {
                let next = self.now + self.prng.below(1_500 * MS);
                self.at(next, Event::Fault);
                self.fault();
                Ok(())
            }
            Event::Heal(from, to) => {
                self.broken.remove(&(from, to));
                Ok(())
            }
            Event::Start(id) => self.start(id),
        }
    }

    fn start(&mut self, id: usize) -> Result<(), String> {
        if self.nodes[id].member.is_some() {
            return Ok(());
        }
        let (seed, sabotage) = (self.prng.next_u64(), self.sabotage);
        self.say(|| format!("node {id} starts"));
        self.nodes[id].start(seed, sabotage)
    }

    /// Calls the code under test and performs what follows, then judges.
    fn with(
        &mut self,
        id: usize,
        call: impl FnOnce(&mut Member, u64, &mut Vec<MemberEffect>),
    ) -> Result<(), String> {
        if self.now < self.nodes[id].paused_until {
            return Ok(());
        }
        let clock = self.nodes[id].clock(self.now);
        let Some(member) = &mut self.nodes[id].member else { return Ok(()) };
        let mut out = Vec::new();
        call(member, clock, &mut out);
        self.perform_all(id, out)?;
        self.judge(id)
    }

    /// Performs effects in order, also those of what is asked meanwhile: behind all before them.
    fn perform_all(&mut self, id: usize, effects: Vec<MemberEffect>) -> Result<(), String> {
        self.effects.extend(effects.into_iter().map(|effect| (id, effect)));
        if std::mem::replace(&mut self.performing, true) {
            return Ok(());
        }
        while let Some((id, effect)) = self.effects.pop_front() {
            self.perform(id, effect)?;
        }
        self.performing = false;
        Ok(())
    }

    /// Asks the controller on behalf of a node.
    pub fn ask(&mut self, id: usize, token: Token, ask: Ask) {
        let clock = self.nodes[id].clock(self.now);
        let Some(member) = &mut self.nodes[id].member else { return };
        let mut out = Vec::new();
        member.ask(clock, token, ask, &mut out);
        // What is wrong shows at the node's next event as well.
        let _ = self.perform_all(id, out);
    }

    fn perform(&mut self, id: usize, effect: MemberEffect) -> Result<(), String> {
        match effect {
            MemberEffect::Send { to, frame } => self.send(id, to.0 as usize, frame),
            MemberEffect::Persist { number, records } => {
                let node = &mut self.nodes[id];
                node.written.push_back((number, records));
                let life = node.life;
                let slow = self.faults.disks && self.prng.one_in(40);
                let delay = if slow { 20 + self.prng.below(600) } else { self.prng.below(8) };
                self.at(self.now + delay * MS, Event::Disk(id, life));
            }
            MemberEffect::Changed { index, touched, .. } => {
                let Some(member) = &self.nodes[id].member else { return Ok(()) };
                for change in &touched.leaders {
                    self.say(|| {
                        let now = member.image().partition(change.key).map(|partition| {
                            (partition.leader, partition.leader_epoch.0, partition.partition_epoch.0)
                        });
                        format!("node {id} applies {index}: {change:?} now {now:?}")
                    });
                }
                for node in &touched.nodes {
                    let known =
                        member.image().node(*node).map(|node| (node.epoch.0, node.fenced, node.draining));
                    self.say(|| format!("node {id} applies {index}: node {} is {known:?}", node.0));
                }
                if let Some(payload) = member.quorum.entry(index) {
                    self.oracle.committed(index, payload)?;
                }
                // Several entries may have been applied at once; the image is that of the last.
                if member.image().applied_offset() == index {
                    self.oracle.applied(self.nodes[id].id, index, member.image())?;
                }
            }
            // Nobody here asks for what the host of the controller would have to plan.
            MemberEffect::Plan(..) => return Err(format!("node {id} is to plan what nobody asked for")),
            MemberEffect::Replaced => self.say(|| format!("node {id} has a snapshot")),
            MemberEffect::Answer(token, answer) => self.answered(id, token, answer)?,
            MemberEffect::TransferAsked { key, to, .. } => self.hand_over(id, key, to),
            MemberEffect::Failed(why) => return Err(format!("node {id} cannot go on: {why}")),
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, frame: Bytes) {
        if !self.linked(from, to) || (self.faults.loss > 0 && self.prng.one_in(self.faults.loss)) {
            return;
        }
        let copies = 1 + u64::from(self.faults.duplicates > 0 && self.prng.one_in(self.faults.duplicates));
        for _ in 0..copies {
            let delay = MS / 5 + self.prng.below(self.faults.delay_ms * MS + 1);
            self.at(self.now + delay, Event::Deliver(from, to, frame.clone()));
        }
        if self.faults.late > 0 && self.prng.one_in(self.faults.late) {
            let delay = LATE_MS.start * MS + self.prng.below((LATE_MS.end - LATE_MS.start) * MS);
            self.at(self.now + delay, Event::Deliver(from, to, frame));
        }
    }

    fn answered(&mut self, id: usize, token: Token, answer: Answer) -> Result<(), String> {
        let Some(waiting) = self.nodes[id].waiting.remove(&token) else { return Ok(()) };
        self.say(|| format!("node {id} is answered {answer:?} to {waiting:?}"));
        match (waiting, answer) {
            (Waiting::Isr(change), Answer::Isr(results)) => match results.first() {
                Some(Ok((leader_epoch, partition_epoch))) => {
                    self.oracle.isr_granted(&change, *leader_epoch, *partition_epoch)?;
                }
                // The partition has moved on, perhaps by an earlier copy of this very request: the metadata will say.
                Some(Err(IsrRefusal::InvalidUpdateVersion | IsrRefusal::FencedLeaderEpoch)) => {}
                Some(Err(_)) => self.isr_refused(id, &change),
                None => {}
            },
            (Waiting::HandedOver, _) => {}
            _ => {}
        }
        Ok(())
    }

    /// A change of an ISR was refused. A copy of the request may still be on its way, and be accepted: only another partition
    /// epoch excludes that, so it is moved.
    fn isr_refused(&mut self, id: usize, change: &IsrChange) {
        let (key, partition_epoch) = (change.key, change.partition_epoch);
        let epoch = self.nodes[id].member.as_ref().and_then(|member| member.lease().epoch());
        if let Some(epoch) = epoch {
            let asker = Asker { node: self.nodes[id].id, epoch };
            let token = self.nodes[id].token(Waiting::Other);
            self.ask(id, token, Ask::Reclaim { asker, key, partition_epoch });
        }
    }

    fn fault(&mut self) {
        let id = self.prng.below(self.nodes.len() as u64) as usize;
        let other = self.prng.below(self.nodes.len() as u64) as usize;
        let length = [100, 700, 2_500, 5_000][self.prng.below(4) as usize];
        let until = self.now + self.prng.below(length * MS);
        match self.prng.below(8) {
            0 | 1 if self.faults.crashes => {
                self.crash(id);
                self.at(until, Event::Start(id));
            }
            2 if self.faults.pauses => {
                self.say(|| format!("node {id} stands still until {} ms", until / MS));
                self.nodes[id].paused_until = until;
            }
            3 if self.faults.partitions => {
                let both = self.prng.one_in(2);
                self.cut(id, other, both, until);
            }
            4 if self.faults.partitions => {
                self.say(|| format!("node {id} is cut off until {} ms", until / MS));
                (0..self.nodes.len())
                    .filter(|peer| *peer != id)
                    .for_each(|peer| self.cut(id, peer, true, until));
            }
            5 if self.faults.partitions => {
                // Two nodes keep to themselves, or one node is a bridge.
                for peer in 0..self.nodes.len() {
                    if peer != id && peer != other {
                        self.cut(id, peer, true, until);
                    }
                }
            }
            6 if self.faults.disks => self.nodes[id].disk_full_until = until,
            7 if self.faults.pauses => self.starve(id),
            _ => {
                let node = self.nodes[id].id;
                self.say(|| format!("node {} checkpoints", node.0));
                self.nodes[id].checkpoint();
                self.reclaim(id);
            }
        }
    }

    /// A node, often the controller, hardly gets to run and loses its packets, long enough for others to take its place.
    fn starve(&mut self, id: usize) {
        let controls = |node: &Node| node.member.as_ref().is_some_and(|member| member.controller().is_some());
        let often = self.prng.one_in(2);
        let id = self.nodes.iter().position(controls).filter(|_| often).unwrap_or(id);
        let until = self.now + 2_500 * MS + self.prng.below(3_500 * MS);
        self.say(|| format!("node {id} is starved until {} ms", until / MS));
        self.nodes[id].starved_until = until;
        (0..self.nodes.len()).filter(|peer| *peer != id).for_each(|peer| self.cut(id, peer, true, until));
    }

    fn cut(&mut self, one: usize, other: usize, both: bool, until: u64) {
        if one == other {
            return;
        }
        self.say(|| format!("link {one} -> {other} breaks until {} ms, both ways: {both}", until / MS));
        self.broken.insert((one, other));
        self.at(until, Event::Heal(one, other));
        if both {
            self.broken.insert((other, one));
            self.at(until, Event::Heal(other, one));
        }
    }

    fn crash(&mut self, id: usize) {
        if self.nodes[id].member.is_none() {
            return;
        }
        self.say(|| format!("node {id} crashes"));
        let prng = &mut self.prng;
        self.nodes[id].crash(|written| prng.below(written as u64 + 1) as usize);
    }

    /// What can have become wrong by an event of this node.
    fn judge(&mut self, id: usize) -> Result<(), String> {
        let Some(member) = &self.nodes[id].member else { return Ok(()) };
        if let Role::Leader { term } = member.quorum.role() {
            self.oracle.leads(term, self.nodes[id].id)?;
        }
        if !self.leases_exclusive {
            return Ok(());
        }
        for (key, partition) in member.image().partitions() {
            if partition.leader.is_none_or(|leader| leader.node != self.nodes[id].id)
                || !self.nodes[id].serves(self.now, key)
            {
                continue;
            }
            let also = (0..self.nodes.len()).find(|at| *at != id && self.nodes[*at].serves(self.now, key));
            if let Some(at) = also {
                return Err(format!("nodes {id} and {at} both hold the lease of {key}"));
            }
        }
        Ok(())
    }

    /// All faults end; everything must come right.
    pub fn heal(&mut self) {
        self.faults = Faults {
            loss: 0,
            duplicates: 0,
            late: 0,
            delay_ms: 3,
            crashes: false,
            pauses: false,
            partitions: false,
            disks: false,
            admin: false,
            ..self.faults
        };
        self.healed = true;
        self.broken.clear();
        self.queue.retain(|_, event| !matches!(event, Event::Fault));
        for id in 0..self.nodes.len() {
            self.nodes[id].disk_full_until = 0;
            self.nodes[id].starved_until = 0;
            self.nodes[id].paused_until = self.nodes[id].paused_until.min(self.now);
            self.at(self.now, Event::Start(id));
        }
        self.say(|| "faults end".to_string());
    }

    /// Lets nodes that were drained be used again, and hand-overs whose answers were lost end.
    pub fn calm(&mut self) {
        for id in 0..self.nodes.len() {
            self.reclaim(id);
            let Some(member) = &self.nodes[id].member else { continue };
            if member.controller().is_none() {
                continue;
            }
            let drained: Vec<NodeId> =
                member.image().nodes().filter(|node| node.draining).map(|node| node.node).collect();
            for node in drained {
                let token = self.nodes[id].token(Waiting::Other);
                self.ask(id, token, Ask::Drain { node, on: false });
            }
        }
    }

    /// What each node believes, for a report.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let Some(member) = &node.member else {
                text += &format!("\n  node {}: down", node.id.0);
                continue;
            };
            let lease = member.lease();
            let clock = node.clock(self.now);
            text += &format!(
                "\n  node {}: {:?} term {} applied {} lease of {:?} holds {} released {} controller {:?} stopped {:?} \
                 proposed {}",
                node.id.0,
                member.quorum.role(),
                member.quorum.term(),
                member.image().applied_offset(),
                lease.epoch().map(|epoch| epoch.0),
                lease.holds(clock),
                lease.released(),
                member.controller().map(|controller| controller.is_idle()),
                node.logs.values().filter(|log| log.handed_over.is_some()).count(),
                node.logs.values().filter(|log| log.proposed.is_some()).count(),
            );
            let known =
                member.image().nodes().map(|node| (node.node.0, node.epoch.0, node.fenced, node.draining));
            text += &format!("; nodes {:?}", known.collect::<Vec<_>>());
        }
        text
    }

    /// Why it is not all right yet; none if it is.
    pub fn unfinished(&self) -> Option<String> {
        let Some(first) = self.nodes[0].member.as_ref() else { return Some("node 0 is down".to_string()) };
        let image = first.image();
        let unfenced = image.nodes().filter(|node| !node.fenced).count();
        if unfenced < self.nodes.len() {
            return Some(format!("{unfenced} of {} nodes take part", self.nodes.len()));
        }
        if (image.topic_names().count() as u64) < self.topics_wanted {
            return Some("topics are missing".to_string());
        }
        for (key, partition) in image.partitions() {
            let Some(leader) = partition.leader else { return Some(format!("{key} has no leader")) };
            if !self.nodes[leader.node.0 as usize].serves(self.now, key) {
                return Some(format!("{key} is not served by node {}", leader.node.0));
            }
            if partition.isr.len() < partition.replicas.len() || partition.reassigning() {
                return Some(format!("{key} is not whole: {:?}", partition.state()));
            }
        }
        None
    }
}
