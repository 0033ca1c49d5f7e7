//! A node: a disk that stays, and, while its process lives, its shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_cluster::lease::LeaseConfig;
use pelton_cluster::record::{Endpoint, NodeRegistration, ShardRegistration};
use pelton_model::{
    BrokerConfig, ClusterId, ListenerMode, NodeEpoch, NodeId, Now, Prng, ShardEpoch, ShardId,
};
use pelton_replica::effect::Settings;
use pelton_shard::{CLIENT_ENDPOINT, ClusterConfig, DiskImage, Effect, Event, Shard};
use uuid::Uuid;

use super::scenario::OFFSETS_PARTITIONS;
use super::{EPOCH_MS, Fault, MS, Place, SECOND, What, World, replica};
use crate::disk::{Crash, Disk, Operation};

/// Port of shard 0 of node 0 for clients; each node has ten.
const PORT: u16 = 9100;

/// The place a client reaches at a port.
pub fn place_of_port(port: i32) -> Place {
    let at = (port - i32::from(PORT)) as usize;
    (at / 10, (at % 10) as u16)
}

/// The clocks of a node: none shows the same as another's, nor runs quite as fast.
pub struct Clock {
    /// When the machine started, and what its clock showed then.
    booted_ns: u64,
    began_ns: u64,
    /// Too fast by so much, parts in a million.
    drift_ppm: i64,
    /// Its wall clock is ahead, milliseconds.
    pub ahead_ms: i64,
}

/// Leases reckon with one percent.
fn tame_ppm(prng: &mut Prng) -> i64 {
    prng.below(19_001) as i64 - 9_500
}

impl Clock {
    fn new(prng: &mut Prng) -> Clock {
        let drift_ppm = tame_ppm(prng);
        Clock { booted_ns: 0, began_ns: prng.below(1_000 * SECOND), drift_ppm, ahead_ms: 0 }
    }

    /// What it shows.
    pub fn now(&self, real_ns: u64) -> Now {
        let up_ns = u128::from(real_ns - self.booted_ns) * (1_000_000 + self.drift_ppm) as u128 / 1_000_000;
        let wall_ms = EPOCH_MS + (real_ns / MS) as i64 + self.ahead_ms;
        Now { monotonic_ns: self.began_ns + up_ns as u64 + 1, wall_ms }
    }

    /// When it will show this.
    fn real_ns(&self, shown_ns: u64) -> u64 {
        let up_ns = u128::from(shown_ns.saturating_sub(self.began_ns + 1)) * 1_000_000;
        // One that stands shows it never.
        let ns =
            up_ns.checked_div((1_000_000 + self.drift_ppm) as u128).map_or(u64::MAX / 2, |ns| ns as u64 + 1);
        self.booted_ns + ns
    }

    /// From now on it is too fast by so much, parts in a million; at -1,000,000 it stands.
    fn run(&mut self, real_ns: u64, drift_ppm: i64) {
        let shown = self.now(real_ns);
        (self.booted_ns, self.began_ns, self.drift_ppm) = (real_ns, shown.monotonic_ns - 1, drift_ppm);
    }

    /// The machine starts anew.
    fn boot(&mut self, real_ns: u64) {
        (self.booted_ns, self.began_ns) = (real_ns, 0);
    }
}

/// A node.
pub struct Node {
    /// Its settings.
    pub config: Arc<BrokerConfig>,
    settings: Settings,
    sabotage: Option<pelton_shard::cluster::Sabotage>,
    /// Nodes that decide.
    voters: usize,
    /// Its clocks.
    pub clock: Clock,
    /// The power has gone since the cluster knew a life of it: what it had not flushed may be lost.
    pub lossy: bool,
    /// Until when each shard does nothing.
    pub stands_until: Vec<u64>,
    /// Counts its processes.
    pub life: u64,
    /// Its disk.
    pub disk: Disk,
    /// Longest time an operation of it takes.
    pub disk_ns: u64,
    /// Empty while it is down.
    pub shards: Vec<Option<Shard>>,
    /// When each shard wants a tick.
    pub ticks: Vec<Option<u64>>,
    /// When the last message between two of its shards arrives.
    pub mesh_at: BTreeMap<(u16, u16), u64>,
    /// Operations under way.
    pub in_flight: BTreeMap<u64, Operation>,
    /// Shards that serve.
    pub ready: usize,
    /// Shards that have stopped.
    pub stopped: usize,
    /// It stops cleanly.
    pub stopping: bool,
}

/// Three to five of them, alike; the first three, or all, decide.
pub fn cluster(prng: &mut Prng, fault: Option<Fault>) -> Vec<Node> {
    let (nodes, shards) = (3 + prng.below(5).saturating_sub(2) as usize, 1 + prng.below(2) as u16);
    let voters = if nodes == 5 && prng.one_in(2) { 5 } else { 3 };
    let mode = if prng.one_in(3) { ListenerMode::Single } else { ListenerMode::Direct };
    let journal_bytes = (1 + prng.below(2)) << 20;
    let settings = Settings {
        replica_lag_ns: 1_500 * MS,
        silence_ns: 3 * SECOND,
        window_bytes: [20_000, 200_000][prng.below(2) as usize],
        append_bytes: [4_000, 50_000][prng.below(2) as usize],
        sabotage: fault.and_then(Fault::replica),
        ..Settings::default()
    };
    let node = |id: usize, prng: &mut Prng| {
        let config = BrokerConfig {
            node_id: NodeId(id as i32 + 1),
            cluster_id: ClusterId("simulatedcluster000000".to_string()),
            mode,
            shards,
            founders: voters as u16,
            journal_bytes,
            journal_writes_in_flight: 1 + prng.below(3) as usize,
            direct_bytes: [400, 4_000, 256 << 10][prng.below(3) as usize],
            tail_bytes: 1 << (18 + prng.below(3)),
            retention_check_interval_ms: 20,
            initial_task_delay_ms: 20,
            offsets_topic_partitions: OFFSETS_PARTITIONS,
            offsets_topic_segment_bytes: 1 << 20,
            cleaner_backoff_ms: 30,
            ..BrokerConfig::defaults()
        };
        Node {
            config: Arc::new(config),
            settings,
            sabotage: fault.and_then(Fault::shard),
            voters,
            clock: Clock::new(prng),
            lossy: false,
            stands_until: vec![0; usize::from(shards)],
            life: 0,
            disk: Disk::apart(),
            disk_ns: 2 * MS,
            shards: Vec::new(),
            ticks: vec![None; usize::from(shards)],
            mesh_at: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            ready: 0,
            stopped: 0,
            stopping: false,
        }
    };
    (0..nodes).map(|id| node(id, prng)).collect()
}

impl Node {
    /// Every shard serves.
    pub fn is_ready(&self) -> bool {
        !self.shards.is_empty() && self.ready == self.shards.len() && !self.stopping
    }

    fn cluster_config(&self) -> ClusterConfig {
        let id = self.config.node_id;
        ClusterConfig {
            voters: (0..self.voters).map(|node| NodeId(node as i32 + 1)).collect(),
            first: Vec::new(),
            registration: NodeRegistration {
                node: id,
                epoch: NodeEpoch(0),
                directory: Uuid::from_u128(0xd1 << 64 | id.0 as u128),
                incarnation: Uuid::from_u64_pair(id.0 as u64, self.life),
                start: self.life,
                rack: None,
                endpoints: vec![Endpoint {
                    name: CLIENT_ENDPOINT.to_string(),
                    host: "sim".to_string(),
                    port: PORT + 10 * (id.0 as u16 - 1),
                }],
                shards: vec![
                    ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true };
                    usize::from(self.config.shards)
                ],
                fenced: true,
                draining: false,
                leaving: false,
                lossy: self.lossy,
            },
            lease: LeaseConfig::default(),
            tick_ms: 100,
            replicas: self.settings,
            sabotage: self.sabotage,
            below: Default::default(),
        }
    }
}

impl World {
    /// Begins a life of a node on what its disk has.
    pub fn start(&mut self, id: usize) -> Result<(), String> {
        if !self.nodes[id].shards.is_empty() {
            return Ok(());
        }
        let now = self.now_of(id);
        self.nodes[id].life += 1;
        let life = self.nodes[id].life;
        self.trace(&format!("{id} starts, life {life}"));
        let mut begun = Vec::new();
        for shard in 0..self.nodes[id].config.shards {
            let seed = self.prng.next_u64();
            let node = &mut self.nodes[id];
            let image = DiskImage {
                checkpoints: [node.disk.checkpoint(shard, 0), node.disk.checkpoint(shard, 1)],
                journal: node.disk.journal(shard, node.config.journal_bytes as usize),
                segments: node.disk.segment_reader(shard),
            };
            let (config, cluster, mut out) = (node.config.clone(), node.cluster_config(), Vec::new());
            let started = Shard::in_cluster(config, &cluster, ShardId(shard), image, seed, now, &mut out);
            node.shards.push(Some(started.map_err(|error| format!("node {id} starts: {error}"))?));
            begun.push(out);
        }
        for (shard, out) in begun.into_iter().enumerate() {
            self.turn((id, shard as u16), out);
        }
        Ok(())
    }

    /// A node's clock runs as leases reckon with, or faster or slower by up to a half, or not at all.
    pub(super) fn run_clock(&mut self, id: usize, wild: bool) {
        let drift_ppm = match wild {
            false => tame_ppm(&mut self.prng),
            true if self.prng.one_in(3) => -1_000_000,
            true => self.prng.below(1_000_001) as i64 - 500_000,
        };
        self.trace(&format!("the clock of {id} is too fast by {drift_ppm} ppm"));
        let now_ns = self.now_ns;
        let node = &mut self.nodes[id];
        node.clock.run(now_ns, drift_ppm);
        node.ticks.iter_mut().for_each(|tick| *tick = None);
        let (life, shards) = (node.life, node.shards.len() as u16);
        (0..shards).for_each(|shard| self.at(0, What::Event((id, shard), life, Event::Tick)));
    }

    /// The process ends.
    pub fn crash(&mut self, id: usize, crash: Crash) {
        self.trace(&format!("{id} crash {crash:?}"));
        self.end_life(id, Some(crash));
    }

    /// The process is gone; with `None` it stopped by itself.
    pub fn end_life(&mut self, id: usize, crash: Option<Crash>) {
        let node = &mut self.nodes[id];
        if node.shards.is_empty() {
            return;
        }
        let shards = node.shards.len() as u16;
        node.shards.clear();
        node.life += 1;
        let in_flight: Vec<Operation> = std::mem::take(&mut node.in_flight).into_values().collect();
        node.disk.crash(&mut self.prng, &in_flight, crash.unwrap_or(Crash::Kill));
        node.ticks.iter_mut().for_each(|tick| *tick = None);
        node.stands_until.fill(0);
        if crash == Some(Crash::PowerCut) {
            node.lossy = true;
            node.clock.boot(self.now_ns);
        }
        // Whoever failed to write finds a device that can, or another.
        node.disk.faults.journal_error_one_in = 0;
        node.mesh_at.clear();
        (node.ready, node.stopped, node.stopping) = (0, 0, false);
        self.summary.ends += 1;
        self.drop_connections(id);
        // Its sockets close, unless the power went: then others hear nothing for long.
        if crash != Some(Crash::PowerCut) {
            for other in (0..self.nodes.len()).filter(|other| *other != id) {
                for (here, there) in (0..shards).flat_map(|here| (0..shards).map(move |there| (here, there)))
                {
                    let event = Event::PeerGone { peer: replica((id, here)) };
                    let delay = 100_000 + self.prng.below(MS);
                    self.at(delay, What::Frame((other, there), event));
                }
            }
        }
    }

    /// Asks a node to stop cleanly.
    pub fn stop(&mut self, id: usize) {
        if !self.nodes[id].is_ready() {
            return;
        }
        self.trace(&format!("{id} is to stop"));
        self.nodes[id].stopping = true;
        let life = self.nodes[id].life;
        for shard in 0..self.nodes[id].config.shards {
            self.at(0, What::Event((id, shard), life, Event::Stop));
        }
    }

    /// Hands an event to a shard.
    pub fn event(&mut self, place: Place, event: Event) {
        let text = crate::world::trace::describe(&event);
        self.trace(&format!("{}.{} {text}", place.0, place.1));
        let (now, mut out) = (self.now_of(place.0), Vec::new());
        let Some(Some(shard)) = self.nodes[place.0].shards.get_mut(usize::from(place.1)) else { return };
        shard.handle(now, event, &mut out);
        self.turn(place, out);
    }

    /// Ends a shard's turn and performs what it wants.
    pub fn turn(&mut self, place: Place, mut out: Vec<Effect>) {
        let now = self.now_of(place.0);
        let (id, index) = (place.0, usize::from(place.1));
        let Some(Some(shard)) = self.nodes[id].shards.get_mut(index) else { return };
        shard.end_turn(now, &mut out);
        let deadline = shard.deadline();
        let life = self.nodes[id].life;
        for effect in out {
            self.perform(place, effect);
        }
        let node = &mut self.nodes[id];
        if node.life != life {
            return;
        }
        if let Some(due) = deadline.map(|shown_ns| node.clock.real_ns(shown_ns))
            && node.ticks[index].is_none_or(|tick| due < tick)
        {
            node.ticks[index] = Some(due);
            self.at(due.saturating_sub(self.now_ns), What::Tick(place, life));
        }
        let node = &self.nodes[id];
        if node.stopped > 0 && node.stopped == node.shards.len() {
            self.trace(&format!("{id} has stopped"));
            self.end_life(id, None);
            self.stopped(id);
            return;
        }
        if let Err(text) = self.look(place) {
            self.failure = Some(text);
        }
    }
}
