//! One partition on three nodes, all for real but disks, clocks and network: the quorum with its controller on each node,
//! leases, the replica host, the shard's log with the metadata in its journal. Disks lose and tear, the network delays, loses,
//! doubles and cuts, clocks drift, processes are killed, stand still, lose power and come back.

mod audit;
mod client;
mod fault;
mod judge;
mod node;
mod seat;
mod setup;
mod trouble;

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::Prng;
use pelton_replica::frame::Frame;

use crate::disk::Crash;
use crate::network::Network;
use client::Client;
pub use fault::Fault;
use judge::Judge;
use node::{Node, Running};
use seat::{TICK_MS, replica};
use setup::Setup;

/// Nodes of a run.
const NODES: usize = 3;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// A run that takes more events than this goes round.
const EVENTS_MAX: u64 = 1_000_000;
/// Everything must have come right so long after the last fault.
const LIVENESS_NS: u64 = 60 * SECOND;

/// What is said between nodes.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between replicas.
    Frame { frame: Frame, batches: Bytes },
    /// Between members.
    Member(Bytes),
}

enum What {
    Deliver { from: usize, to: usize, message: Message },
    Disk { node: usize, life: u64, number: u64 },
    Tick { node: usize, life: u64 },
    MemberTick { node: usize, life: u64 },
    Start { node: usize },
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
    /// Processes that stood still.
    pub pauses: u64,
    /// Leader epochs the partition came to.
    pub elections: u64,
    /// Leaderships handed over.
    pub transfers: u64,
    /// Logs cut back or begun anew.
    pub cuts: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Times a leader said how far everything is committed.
    pub reads: u64,
    /// From the last fault until everything was right, milliseconds.
    pub recovery_ms: u64,
    /// Of everything, to compare two runs.
    pub digest: u64,
}

impl crate::seeds::Summary for Summary {
    fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.elections += other.elections;
        self.transfers += other.transfers;
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.recovery_ms = self.recovery_ms.max(other.recovery_ms);
        self.digest ^= other.digest;
    }
}

struct World {
    prng: Prng,
    now_ns: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), What>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    network: Network,
    judge: Judge,
    flush: bool,
    faults: bool,
    auditing: bool,
    /// Records are deleted.
    trims: bool,
    trace: bool,
    summary: Summary,
}

/// Runs one seed: faults for a while, then none until everything has come right, then judgement of every log alone.
pub fn run(seed: u64, trace: bool, fault: Option<Fault>) -> Result<Summary, String> {
    let mut prng = Prng::new(seed);
    let setup = Setup::new(&mut prng, fault);
    let nodes = (0..NODES).map(|id| Node::new(id, setup.clone(), &mut prng)).collect();
    let clients = (0..3).map(|id| Client::new(id, 20 + prng.below(60) as i32)).collect();
    let network = Network::new(&mut prng, NODES, &[0, 2, 15], &[MS, 5 * MS, 30 * MS]);
    let mut world = World {
        prng,
        now_ns: 0,
        order: 0,
        queue: BTreeMap::new(),
        nodes,
        clients,
        network,
        judge: Judge::default(),
        flush: setup.flush,
        faults: true,
        auditing: false,
        trims: setup.trims,
        trace,
        summary: Summary::default(),
    };
    for node in 0..NODES {
        world.start(node)?;
    }
    (0..3).for_each(|client| world.at(SECOND, What::Client(client)));
    world.at(2 * SECOND, What::Fault);
    let until = (6 + world.prng.below(14)) * SECOND;
    world.run_until(until, |_| false)?;
    world.heal();
    let healed_ns = world.now_ns;
    if !world.run_until(healed_ns + LIVENESS_NS, World::is_settled)? {
        return Err(format!("does not come right: {}", world.state_text()));
    }
    world.summary.recovery_ms = (world.now_ns - healed_ns) / MS;
    world.final_judgement()?;
    world.summary.acknowledged = world.judge.acknowledged();
    world.summary.elections = world.judge.elections();
    world.summary.digest = world.judge.digest;
    Ok(world.summary)
}

impl World {
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

    /// The node an event is of, as long as that life of it lasts. None: the event is nobody's any more.
    fn meant(&self, what: &What) -> Option<usize> {
        match what {
            What::Deliver { to, .. } => self.nodes[*to].running.is_some().then_some(*to),
            What::Disk { node, life, .. } | What::Tick { node, life } | What::MemberTick { node, life } => {
                (self.nodes[*node].life == *life && self.nodes[*node].running.is_some()).then_some(*node)
            }
            What::Start { .. } | What::Client(_) | What::Fault => None,
        }
    }

    fn step(&mut self, what: What) -> Result<(), String> {
        let Some(id) = self.meant(&what) else {
            return match what {
                What::Start { node } => self.start(node),
                What::Client(client) => self.client(client),
                What::Fault if self.faults => self.fault(),
                _ => Ok(()),
            };
        };
        let stands_ns = self.nodes[id].paused_until_ns;
        if stands_ns > self.now_ns {
            self.at(stands_ns - self.now_ns, what);
            return Ok(());
        }
        let now = self.nodes[id].now(self.now_ns);
        let Node { running: Some(running), disk, .. } = &mut self.nodes[id] else { return Ok(()) };
        match what {
            What::Deliver { from, message, .. } => {
                if self.trace {
                    println!("{:>9} {from}>{id} {}", self.now_ns / 1000, short(&message));
                }
                match message {
                    Message::Frame { frame, batches } => {
                        let from = replica(from);
                        running.act(now, |host, turn| host.handle_frame(from, &frame, &batches, turn));
                    }
                    Message::Member(frame) => {
                        let mut refused = None;
                        running.tell(now, |member, now_ns, out| {
                            refused = member.receive(now_ns, replica(from).node, &frame, out).err();
                        });
                        if let Some(refused) = refused {
                            return Err(format!("node {id} refuses a frame: {refused}"));
                        }
                    }
                }
            }
            What::Disk { number, .. } => {
                let Some(operation) = running.in_flight.remove(&number) else { return Ok(()) };
                let result = disk.complete(&mut self.prng, &operation);
                self.summary.cuts += running.completed(operation.ticket, result, now)?;
            }
            What::Tick { .. } => {
                running.tick_at_ns = u64::MAX;
                running.act(now, |host, turn| host.handle_tick(turn));
            }
            What::MemberTick { node, life } => {
                running.tell(now, |member, now_ns, out| member.advance(now_ns, out));
                running.operate(now);
                let delay = TICK_MS * MS / 2 + self.prng.below(TICK_MS * MS / 2);
                self.at(delay, What::MemberTick { node, life });
            }
            What::Start { .. } | What::Client(_) | What::Fault => {}
        }
        self.after(id)
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) -> Result<(), String> {
        for delay in self.network.copies(self.now_ns, from, to, &mut self.prng) {
            let message = match message {
                Message::Frame { frame, batches } => {
                    let frame =
                        Frame::decode(frame.encode().as_slice()).map_err(|error| error.to_string())?;
                    Message::Frame { frame, batches: batches.clone() }
                }
                Message::Member(_) => message.clone(),
            };
            self.at(delay, What::Deliver { from, to, message });
        }
        Ok(())
    }

    /// Ends a node's turn: disk and network get what they are to do, clients their answers.
    fn after(&mut self, id: usize) -> Result<(), String> {
        let now = self.nodes[id].now(self.now_ns);
        let life = self.nodes[id].life;
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        let messages = running.settle(now)?;
        for effect in std::mem::take(&mut running.disk) {
            let Node { running: Some(running), disk, slow, .. } = &mut self.nodes[id] else { return Ok(()) };
            let operation = disk.submit(0, effect);
            running.next_operation += 1;
            let number = running.next_operation;
            running.in_flight.insert(number, operation);
            let delay = 20_000 + self.prng.below(if *slow { 40 * MS } else { 2 * MS });
            self.at(delay, What::Disk { node: id, life, number });
        }
        for (to, message) in messages {
            self.send(id, to, &message)?;
        }
        self.watch(id)?;
        self.answer(id)?;
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        if let Some(due) = running.deadline_ns().filter(|due| *due < running.tick_at_ns) {
            running.tick_at_ns = due;
            let delay = self.nodes[id].until(self.now_ns, due).max(1_000);
            self.at(delay, What::Tick { node: id, life });
        }
        Ok(())
    }

    /// Answers that are due.
    fn answer(&mut self, id: usize) -> Result<(), String> {
        let now = self.nodes[id].now(self.now_ns);
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        for (wait, result) in running.decided(now) {
            let client = &mut self.clients[wait.client];
            if result.is_err() {
                client.failed(wait.sequence);
                continue;
            }
            client.acknowledged(wait.sequence);
            self.judge.acknowledged_at(&wait)?;
            self.hold_copies(id, &wait)?;
        }
        Ok(())
    }

    fn client(&mut self, id: usize) -> Result<(), String> {
        let pause = MS + self.prng.below(30 * MS);
        self.at(pause, What::Client(id));
        let any = self.prng.below(NODES as u64) as usize;
        let leader = self.nodes[any].running.as_ref().and_then(Running::leader);
        let target = leader.filter(|_| !self.prng.one_in(8)).unwrap_or(any);
        self.ask_latest(target)?;
        let Some((sequence, records)) = self.clients[id].next(self.now_ns, &mut self.prng) else {
            return Ok(());
        };
        if self.nodes[target].paused_until_ns > self.now_ns {
            // It lies in the socket; what comes of it the client does not wait for.
            return Ok(());
        }
        let now = self.nodes[target].now(self.now_ns);
        let taken = match &mut self.nodes[target].running {
            Some(running) => running.produce(now, id, sequence, records),
            None => false,
        };
        if !taken {
            self.clients[id].failed(sequence);
        }
        self.after(target)
    }

    fn start(&mut self, id: usize) -> Result<(), String> {
        if self.nodes[id].running.is_some() {
            return Ok(());
        }
        let seed = self.prng.next_u64();
        let started = self.nodes[id].start(self.now_ns, seed);
        started.map_err(|error| format!("node {id} does not start: {error}"))?;
        let life = self.nodes[id].life;
        self.trace(&format!("start {id}, life {life}"));
        self.at(MS, What::MemberTick { node: id, life });
        self.after(id)
    }

    fn crash(&mut self, id: usize, kind: Crash) {
        self.trace(&format!("crash {id} {kind:?}"));
        self.nodes[id].crash(kind, &mut self.prng);
        self.summary.crashes += 1;
        let delay = 50 * MS + self.prng.below(4 * SECOND);
        self.at(delay, What::Start { node: id });
    }

    fn is_settled(&self) -> bool {
        let whole = |node: &Node| {
            let running = node.running.as_ref()?;
            let image = running.member.image();
            let isr = running.partition_key().and_then(|key| image.partition(key)).map(|p| p.isr.len());
            running.settled_end().filter(|_| isr == Some(NODES))
        };
        let ends: Vec<_> = self.nodes.iter().filter_map(whole).collect();
        self.clients.iter().all(Client::is_done)
            && ends.len() == NODES
            && ends.iter().all(|end| *end == ends[0])
    }

    fn state_text(&self) -> String {
        let state = self.nodes.iter().filter_map(|node| {
            let running = node.running.as_ref()?;
            Some(running.member.image().partition(running.partition_key()?)?.state())
        });
        let state = state.max_by_key(|state| state.partition_epoch);
        let nodes: Vec<String> = self.nodes.iter().map(Node::text).collect();
        let open: Vec<String> = self.clients.iter().map(Client::text).collect();
        format!("{state:?}; {}; {}", nodes.join("; "), open.join("; "))
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
        Message::Member(frame) => format!("member, {} bytes", frame.len()),
    }
}
