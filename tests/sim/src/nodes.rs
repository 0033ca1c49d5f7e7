//! Three to five nodes of a cluster under simulation: whole shards as they are served, on virtual disks that lose, tear and
//! fill up, behind a network that delays, loses, doubles and cuts, by clocks that drift and jump; clients over Kafka's protocol
//! that look for leaders and coordinators themselves. Nodes join, are killed, lose power, stand still, stop cleanly and come
//! back. What must always hold is looked at after every step. Then everything must come right, and every log is read from every
//! node that can lead it.

#[cfg(test)]
mod back;
mod bodies;
mod churn;
mod client;
mod fault;
mod judge;
mod leads;
mod moves;
mod node;
mod power;
mod register;
mod scenario;
mod serve;
mod space;
mod stop;
mod stuck;
mod trim;
mod trouble;
mod writers;

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_log::disk::DiskDone;
use pelton_model::{ConnectionId, NodeId, Now, Prng, Replica, ShardId};
use pelton_shard::Event;
use pelton_wire::crc::crc32c;

use crate::disk::Crash;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::seeds;
use client::Client;
pub use fault::Fault;
use judge::Watch;
use node::Node;
pub use scenario::run;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Copies of each partition.
const COPIES: usize = 3;
/// Wall clock at virtual time 0.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Where a shard is: node and shard.
type Place = (usize, u16);

enum What {
    Event(Place, u64, Event),
    /// Between nodes: of whatever life its receiver is in by then.
    Frame(Place, Event),
    Disk(usize, u64, u64),
    Tick(Place, u64),
    ToBroker(u64),
    ToClient(u64, Bytes),
    Client(usize, u64),
    Start(usize),
    /// The life of a node ends, if it has not.
    End(usize, u64),
    Fault,
}

impl What {
    /// On its way from this node to another.
    fn is_frame_of(&self, id: usize) -> bool {
        match self {
            What::Frame(_, Event::PeerFrame { from, .. }) => node_of(from.node) == id,
            What::Frame(_, Event::MemberFrame { from, .. }) => node_of(*from) == id,
            _ => false,
        }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Checksum over everything that happened.
    pub trace: u32,
    /// Things that happened.
    pub steps: u64,
    /// Lives of nodes that ended.
    pub ends: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records read.
    pub read: u64,
    /// Offsets committed.
    pub commits: u64,
    /// Times a client was told to look for another leader.
    pub moved: u64,
    /// Times a node or a shard stood still.
    pub pauses: u64,
    /// Clean stops, and the longest time that a partition had no leader meanwhile, nanoseconds.
    pub stops: u64,
    pub longest_gap_ns: u64,
    /// Disks of one node that were full while the others were well, and the longest time that a partition had no acknowledgement
    /// meanwhile, nanoseconds.
    pub fills: u64,
    pub longest_full_ns: u64,
    /// Topics that were deleted and made anew.
    pub churned: u64,
    /// Times records were deleted.
    pub trims: u64,
}

impl seeds::Summary for Summary {
    fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.steps += other.steps;
        self.ends += other.ends;
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.commits += other.commits;
        self.moved += other.moved;
        self.pauses += other.pauses;
        self.stops += other.stops;
        self.longest_gap_ns = self.longest_gap_ns.max(other.longest_gap_ns);
        self.fills += other.fills;
        self.longest_full_ns = self.longest_full_ns.max(other.longest_full_ns);
        self.churned += other.churned;
        self.trims += other.trims;
    }
}

/// What must be true.
#[derive(Default)]
pub struct Judges {
    /// Of records.
    pub records: Oracle,
    /// Behind the last record of each partition that was acknowledged by all.
    pub acknowledged: BTreeMap<(&'static str, i32), i64>,
    /// Offsets committed and acknowledged.
    pub commits: u64,
    /// Times a client was told to look for another leader.
    pub moved: u64,
    /// Topics that were deleted and made anew.
    pub churned: u64,
    /// Times records were deleted.
    pub trims: u64,
    /// Clocks run as leases reckon with: no answer is of the past.
    pub fresh: bool,
}

impl Judges {
    /// What every later answer about the end of a partition must reach.
    pub fn end(&self, topic: &'static str, partition: i32) -> i64 {
        self.acknowledged.get(&(topic, partition)).copied().unwrap_or(0)
    }
}

/// The simulation.
pub struct World {
    prng: Prng,
    now_ns: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), What>,
    nodes: Vec<Node>,
    network: Network,
    connections: BTreeMap<u64, serve::Connection>,
    next_connection: u64,
    clients: Vec<Client>,
    judges: Judges,
    watch: Watch,
    faults: bool,
    /// Nodes that have stopped start again.
    revives: bool,
    /// Nodes that are to be there.
    expected: usize,
    /// Every topic is flushed before it is acknowledged: the power may go at any time, and everywhere.
    flushed: bool,
    /// Else it may go on one node at a time: what was acknowledged is on two.
    lossy_alone: bool,
    /// Clocks may run faster or slower than leases reckon with, and stop: whoever leads may answer of the past, and no more.
    wild_clocks: bool,
    trace_text: bool,
    failure: Option<String>,
    /// A process that is to end.
    dies: Option<usize>,
    summary: Summary,
}

impl World {
    /// Nodes that have never run.
    fn new(seed: u64, trace_text: bool, fault: Option<Fault>) -> World {
        let mut prng = Prng::new(seed);
        let nodes = node::cluster(&mut prng, fault);
        let network = Network::new(&mut prng, nodes.len(), &[0, 0, 2, 10, 30], &[MS / 2, 2 * MS, 20 * MS]);
        World {
            prng,
            now_ns: 0,
            order: 0,
            queue: BTreeMap::new(),
            nodes,
            network,
            connections: BTreeMap::new(),
            next_connection: 1,
            clients: Vec::new(),
            judges: Judges { fresh: true, ..Judges::default() },
            watch: Watch::default(),
            faults: false,
            revives: true,
            expected: 0,
            flushed: false,
            lossy_alone: false,
            wild_clocks: false,
            trace_text,
            failure: None,
            dies: None,
            summary: Summary::default(),
        }
    }

    /// The time of clients.
    fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ns + 1, wall_ms: EPOCH_MS + (self.now_ns / MS) as i64 }
    }

    /// The time on a node's clocks.
    fn now_of(&self, node: usize) -> Now {
        self.nodes[node].clock.now(self.now_ns)
    }

    fn at(&mut self, delay_ns: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now_ns + delay_ns, self.order), what);
    }

    fn trace(&mut self, text: &str) {
        let mut bytes = self.summary.trace.to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        self.summary.trace = crc32c(&bytes);
        if self.trace_text {
            println!("{:>10} {text}", self.now_ns / 1000);
        }
    }

    /// Lets things happen until `done`; at most so long, and so many.
    fn run_until(
        &mut self,
        what: &str,
        limit_ns: u64,
        steps_max: u64,
        done: impl Fn(&World) -> bool,
    ) -> Result<(), String> {
        let (until, last_step) = (self.now_ns + limit_ns, self.summary.steps + steps_max);
        while !done(self) {
            if self.now_ns > until || self.summary.steps > last_step {
                let (seconds, steps) = (limit_ns / SECOND, self.summary.steps + steps_max - last_step);
                return Err(format!(
                    "{what}: not within {seconds} s and {steps} steps; {}",
                    self.state_text()
                ));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Lets so much time pass.
    fn pass(&mut self, duration_ns: u64, steps_max: u64) -> Result<(), String> {
        let until = self.now_ns + duration_ns;
        self.run_until("time", duration_ns + SECOND, steps_max, |world| world.now_ns >= until)
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(((at, _), what)) = self.queue.pop_first() else {
            return Err("nothing happens any more".to_string());
        };
        self.now_ns = at;
        self.summary.steps += 1;
        if let Some(until) = self.stands_until(&what) {
            // What waits in the process ends with it.
            let what = match what {
                What::Frame(place, event) => What::Event(place, self.nodes[place.0].life, event),
                other => other,
            };
            self.at(until - at, what);
            return Ok(());
        }
        match what {
            What::Event(place, life, event) if self.nodes[place.0].life == life => self.event(place, event),
            What::Event(..) => {}
            What::Frame(place, event) => self.event(place, event),
            What::Disk(node, life, number) if self.nodes[node].life == life => self.disk_done(node, number),
            What::Disk(..) => {}
            What::Tick(place, life) => {
                let node = &mut self.nodes[place.0];
                let tick = &mut node.ticks[usize::from(place.1)];
                // One that was overtaken by an earlier deadline is none.
                if node.life == life && tick.is_some_and(|due| due <= at) {
                    *tick = None;
                    self.event(place, Event::Tick);
                }
            }
            What::ToBroker(id) => self.deliver(id),
            What::ToClient(id, bytes) => self.carry_to_client(id, &bytes)?,
            What::Client(index, turn) if self.clients[index].turn == turn => self.client_acts(index)?,
            What::Client(..) => {}
            What::Start(node) => self.start(node)?,
            What::End(node, life) if self.nodes[node].life == life => self.end(node, Crash::Kill),
            What::End(..) => {}
            What::Fault => self.fault()?,
        }
        if let Some(id) = self.dies.take() {
            self.end(id, Crash::Kill);
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Until when the shard that this is for does nothing.
    fn stands_until(&self, what: &What) -> Option<u64> {
        let (node, shard) = match what {
            What::Event(place, ..) | What::Frame(place, _) | What::Tick(place, _) => *place,
            What::Disk(node, _, number) => (*node, self.nodes[*node].in_flight.get(number)?.shard),
            _ => return None,
        };
        let until = self.nodes[node].stands_until.get(usize::from(shard)).copied();
        until.filter(|until| *until > self.now_ns)
    }

    fn disk_done(&mut self, node: usize, number: u64) {
        let Node { disk, in_flight, .. } = &mut self.nodes[node];
        let Some(operation) = in_flight.remove(&number) else { return };
        let result = disk.complete(&mut self.prng, &operation);
        let event = Event::Disk(DiskDone { ticket: operation.ticket, result });
        self.event((node, operation.shard), event);
    }

    /// What is known of each node, for an error.
    fn state_text(&self) -> String {
        let nodes = self.nodes.iter().enumerate().map(|(id, node)| {
            let (ready, shards) = (node.ready, node.shards.len());
            format!("node {id} life {} {ready} of {shards} shards ready", node.life)
        });
        let clients = self.clients.iter().filter(|client| !client.is_done()).map(|client| client.text());
        let replicas = self.nodes.iter().enumerate().flat_map(|(id, node)| {
            let reports = node.shards.iter().flatten().flat_map(|shard| shard.replicas());
            reports.map(move |it| {
                let (high_watermark, end) = (it.high_watermark.0, it.log_end_offset.0);
                let (role, epoch, isr) = (it.role, it.leader_epoch.0, it.isr_size);
                format!("\n  {} on {id}: {role:?} {epoch}, {high_watermark} of {end}, {isr} in sync", it.key)
            })
        });
        nodes.chain(clients).chain(replicas).collect::<Vec<_>>().join(", ")
    }
}

/// The node that a frame is for.
fn node_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn replica(place: Place) -> Replica {
    Replica { node: NodeId(place.0 as i32 + 1), shard: ShardId(place.1) }
}

fn place_of(replica: Replica) -> Place {
    (node_of(replica.node), replica.shard.0)
}

fn connection(id: u64) -> ConnectionId {
    ConnectionId(id)
}
