//! One node under simulation: real shards, a virtual disk, clock and network, seeded clients. One thread, one generator,
//! so that a seed is a run.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pelton_log::disk::{DiskDone, DiskEffect};
use pelton_model::{BrokerConfig, ClusterId, ConnectionId, ListenerMode, Now, Prng, ShardId};
use pelton_shard::{DiskImage, Effect, Event, ReceiveMode, Sabotage, Shard};
use pelton_wire::api_key::ApiKey;
use pelton_wire::crc::crc32c;
use pelton_wire::messages::{self as m, KafkaString, decode_response, encode_request};

mod groups;
mod last;
mod network;
pub(crate) mod trace;

use crate::client::{self, Client, Role};
use crate::disk::{Crash, Disk, Operation};
use crate::member::Member;
use crate::party::{Judges, Party};
use crate::seeds;

/// Wall clock at virtual time 0.
const EPOCH_MS: i64 = 1_700_000_000_000;
const MS: u64 = 1_000_000;
/// The administrator's connection to shard 0, the others' follow; clients' begin at `CLIENTS`.
const ADMIN: u64 = 0;
const CLIENTS: u64 = 1000;

enum Happening {
    Event(u16, Event),
    DiskDone(u64),
    ClientActs(usize),
    ToClient(u64, Bytes),
    Deliver(u64),
}

struct Scheduled {
    at: u64,
    order: u64,
    generation: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

struct Connection {
    shard: u16,
    client: Option<usize>,
    receive: Option<ReceiveMode>,
    outbound: BytesMut,
    deliver_at: u64,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Checksum over every event and effect.
    pub trace: u32,
    /// Events handled.
    pub events: u64,
    /// Times the node ended and started again.
    pub restarts: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records read.
    pub read: u64,
    /// Records that retention let go.
    pub dropped: u64,
    /// Assignments members of groups got.
    pub assignments: u64,
    /// Offsets committed and acknowledged.
    pub commits: u64,
    /// Records that compaction let go.
    pub compacted: u64,
}

impl seeds::Summary for Summary {
    fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.events += other.events;
        self.restarts += other.restarts;
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.dropped += other.dropped;
        self.assignments += other.assignments;
        self.commits += other.commits;
        self.compacted += other.compacted;
    }
}

/// The simulation.
pub struct World {
    /// What everything random comes from.
    pub prng: Prng,
    now_ns: u64,
    order: u64,
    generation: u64,
    queue: BinaryHeap<Scheduled>,
    config: Arc<BrokerConfig>,
    shards: Vec<Option<Shard>>,
    ticks: Vec<Option<u64>>,
    mesh_at: BTreeMap<(u16, u16), u64>,
    /// The disk.
    pub disk: Disk,
    in_flight: BTreeMap<u64, Operation>,
    /// Longest time an operation of the disk takes; on a slow one many read and commit meanwhile.
    disk_ns: u64,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// The clients.
    pub clients: Vec<Party>,
    /// What must be true.
    pub judges: Judges,
    admin_inbound: BytesMut,
    ready: usize,
    stopped: usize,
    /// Steps taken so far, of all kinds.
    pub steps: u64,
    /// What happened.
    pub summary: Summary,
    trace_text: bool,
    sabotage: Option<Sabotage>,
    failure: Option<String>,
}

impl World {
    /// A node that has never run.
    pub fn new(seed: u64, trace_text: bool, sabotage: Option<Sabotage>) -> World {
        let mut prng = Prng::new(seed);
        let shards = 1 + prng.below(2) as u16;
        let mode = if prng.one_in(3) { ListenerMode::Single } else { ListenerMode::Direct };
        let config = BrokerConfig {
            cluster_id: ClusterId("simulatedcluster000000".to_string()),
            mode,
            shards,
            journal_bytes: (1 + prng.below(3)) << 20,
            journal_writes_in_flight: 1 + prng.below(3) as usize,
            direct_bytes: [200, 2_000, 20_000, 256 << 10][prng.below(4) as usize],
            tail_bytes: 1 << (18 + prng.below(4)),
            retention_check_interval_ms: 1 + prng.below(50) as i64,
            initial_task_delay_ms: prng.below(50) as i64,
            offsets_topic_partitions: i32::from(shards) * (1 + prng.below(2) as i32),
            offsets_topic_segment_bytes: 1 << 20,
            group: groups::config(&mut prng),
            cleaner_backoff_ms: 1 + prng.below(40) as i64,
            cleaner_dedupe_bytes: [100, 500, 1 << 20][prng.below(3) as usize],
            ..BrokerConfig::defaults()
        };
        let disk_ns = if prng.one_in(3) { 20 * MS } else { 2 * MS };
        World {
            prng,
            now_ns: 0,
            order: 0,
            generation: 0,
            queue: BinaryHeap::new(),
            config: Arc::new(config),
            shards: Vec::new(),
            ticks: Vec::new(),
            mesh_at: BTreeMap::new(),
            disk: Disk::default(),
            in_flight: BTreeMap::new(),
            disk_ns,
            connections: BTreeMap::new(),
            next_connection: CLIENTS,
            clients: Vec::new(),
            judges: Judges::default(),
            admin_inbound: BytesMut::new(),
            ready: 0,
            stopped: 0,
            steps: 0,
            summary: Summary::default(),
            trace_text,
            sabotage,
            failure: None,
        }
    }

    /// The node's settings.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The time of the node.
    pub fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ns, wall_ms: EPOCH_MS + (self.now_ns / MS) as i64 }
    }

    fn schedule(&mut self, delay_ns: u64, what: Happening) {
        self.order += 1;
        let (at, order, generation) = (self.now_ns + delay_ns, self.order, self.generation);
        self.queue.push(Scheduled { at, order, generation, what });
    }

    fn trace(&mut self, text: &str) {
        let mut bytes = self.summary.trace.to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        self.summary.trace = crc32c(&bytes);
        if self.trace_text {
            println!("{:>12} {text}", self.now_ns / 1000);
        }
    }

    /// Starts every shard from what is on the disk.
    pub fn start(&mut self) -> Result<(), String> {
        self.generation += 1;
        self.ready = 0;
        self.stopped = 0;
        self.shards = (0..self.config.shards).map(|_| None).collect();
        self.ticks = vec![None; usize::from(self.config.shards)];
        for shard in 0..self.config.shards {
            let image = DiskImage {
                checkpoints: [self.disk.checkpoint(shard, 0), self.disk.checkpoint(shard, 1)],
                journal: self.disk.journal(shard, self.config.journal_bytes as usize),
                segments: self.disk.segment_reader(shard),
            };
            let (seed, now, mut out) = (self.prng.next_u64(), self.now(), Vec::new());
            let started = Shard::with_sabotage(
                self.config.clone(),
                ShardId(shard),
                image,
                seed,
                now,
                self.sabotage,
                &mut out,
            );
            self.shards[usize::from(shard)] = Some(started.map_err(|error| format!("start: {error}"))?);
            self.turn(shard, out);
        }
        self.run_until(|world| world.ready == usize::from(world.config.shards), 20_000)?;
        Ok(())
    }

    /// Ends the node; connections drop.
    pub fn crash(&mut self, crash: Crash) {
        self.trace(&format!("crash {crash:?}"));
        self.shards.clear();
        let in_flight: Vec<Operation> = std::mem::take(&mut self.in_flight).into_values().collect();
        self.disk.crash(&mut self.prng, &in_flight, crash);
        self.after_end();
        if crash == Crash::PowerCut {
            self.judges.records.forget_lossy();
        }
    }

    fn after_end(&mut self) {
        self.generation += 1;
        self.queue.clear();
        self.connections.clear();
        self.admin_inbound.clear();
        self.mesh_at.clear();
        for client in &mut self.clients {
            client.disconnect();
        }
        self.summary.restarts += 1;
        self.now_ns += 1_000 * MS;
    }

    /// Stops the node cleanly.
    pub fn stop(&mut self) -> Result<(), String> {
        for shard in 0..self.config.shards {
            self.schedule(0, Happening::Event(shard, Event::Stop));
        }
        self.run_until(|world| world.stopped == usize::from(world.config.shards), 200_000)?;
        self.shards.clear();
        let writes = self.in_flight.values().filter(|operation| operation.changes()).count();
        if writes > 0 {
            return Err(format!("stopped with {writes} writes in flight"));
        }
        self.in_flight.clear();
        self.after_end();
        Ok(())
    }

    /// Connects every client that is not: each to the shard that leads its partitions, or to any in single mode.
    pub fn connect_clients(&mut self) {
        for index in 0..self.clients.len() {
            if self.clients[index].is_connected() || self.clients[index].is_done() {
                continue;
            }
            let shard = self.client_shard(index);
            let id = self.next_connection;
            self.next_connection += 1;
            self.connect(id, shard, Some(index));
            let World { clients, prng, .. } = self;
            clients[index].connect(prng);
            let delay = self.prng.below(20 * MS);
            self.schedule(delay, Happening::ClientActs(index));
        }
    }

    fn client_shard(&mut self, index: usize) -> u16 {
        match self.config.mode {
            ListenerMode::Single => self.prng.below(u64::from(self.config.shards)) as u16,
            ListenerMode::Direct => self.clients[index].shard(self.config.shards),
        }
    }

    fn connect(&mut self, id: u64, shard: u16, client: Option<usize>) {
        let connection =
            Connection { shard, client, receive: None, outbound: BytesMut::new(), deliver_at: self.now_ns };
        self.connections.insert(id, connection);
        let event = Event::Accepted { connection: ConnectionId(id), peer: format!("sim-{id}") };
        self.schedule(0, Happening::Event(shard, event));
    }

    /// Asks shard 0 as an administrator and waits for the answer.
    pub fn admin<Q: m::Message, A: m::Message>(
        &mut self,
        api_key: ApiKey,
        version: i16,
        body: &Q,
    ) -> Result<A, String> {
        self.admin_to(0, api_key, version, body)
    }

    pub(crate) fn admin_to<Q: m::Message, A: m::Message>(
        &mut self,
        shard: u16,
        api_key: ApiKey,
        version: i16,
        body: &Q,
    ) -> Result<A, String> {
        let frame = encode_request(api_key, version, 1, "admin", body).map_err(|error| error.to_string())?;
        let id = ADMIN + u64::from(shard);
        if !self.connections.contains_key(&id) {
            self.connect(id, shard, None);
        }
        self.admin_inbound.clear();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.outbound.extend_from_slice(&frame);
        }
        self.schedule(0, Happening::Deliver(id));
        let whole = |world: &World| {
            let bytes = &world.admin_inbound;
            bytes.len() >= 4
                && bytes.len() >= 4 + u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
        };
        self.run_until(whole, 100_000)?;
        let frame = self.admin_inbound.split().freeze().slice(4..);
        decode_response(api_key, version, frame).map(|(_, body)| body).map_err(|error| error.to_string())
    }

    /// Fetches as a client of the shard that leads the partition.
    pub fn fetch_at_leader(
        &mut self,
        partition: i32,
        version: i16,
        body: &m::FetchRequestData,
    ) -> Result<m::FetchResponseData, String> {
        let shard = partition as u16 % self.config.shards;
        self.admin_to(shard, ApiKey::Fetch, version, body)
    }

    /// The log start offset of a partition, as its leader tells clients.
    pub fn earliest(&mut self, topic: &str, partition: i32) -> Result<i64, String> {
        self.offset(topic, partition, -2)
    }

    /// The offset that ListOffsets answers for `timestamp`.
    fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64, String> {
        let shard = partition as u16 % self.config.shards;
        let body = client::offset_body(topic, partition, timestamp);
        let answer: m::ListOffsetsResponseData = self.admin_to(shard, ApiKey::ListOffsets, 5, &body)?;
        let data = answer.topics.first().and_then(|topic| topic.partitions.first());
        match data.ok_or("a ListOffsets answer without its partition")? {
            data if data.error_code == 0 => Ok(data.offset),
            data => Err(format!("{topic}-{partition}: ListOffsets error {}", data.error_code)),
        }
    }

    /// Creates a topic.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), String> {
        let body = m::CreateTopicsRequestData {
            topics: vec![m::CreatableTopic {
                name: KafkaString::from(name.to_string()),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs
                    .iter()
                    .map(|(name, value)| m::CreatableTopicConfig {
                        name: KafkaString::from((*name).to_string()),
                        value: Some(KafkaString::from((*value).to_string())),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer: m::CreateTopicsResponseData = self.admin(ApiKey::CreateTopics, 5, &body)?;
        match answer.topics.first().map(|topic| topic.error_code) {
            Some(0) => Ok(()),
            other => Err(format!("create topic {name}: {other:?}")),
        }
    }

    /// Lets things happen for `duration_ms` of virtual time, or until the clients are done.
    pub fn run_for(&mut self, duration_ms: u64) -> Result<(), String> {
        let until = self.now_ns + duration_ms * MS;
        while self.clients.iter().any(|client| !client.is_done()) {
            if self.now_ns >= until || !self.step()? {
                break;
            }
        }
        Ok(())
    }

    /// Lets `duration_ms` of virtual time pass.
    pub fn pass(&mut self, duration_ms: u64) -> Result<(), String> {
        let until = self.now_ns + duration_ms * MS;
        while self.now_ns < until && self.step()? {}
        Ok(())
    }

    /// Lets things happen until `done`.
    pub fn run_until(&mut self, done: impl Fn(&World) -> bool, steps_max: u64) -> Result<(), String> {
        for _ in 0..steps_max {
            if done(self) {
                return Ok(());
            }
            if !self.step()? {
                return Err("nothing happens any more".to_string());
            }
        }
        Err(format!("not done after {steps_max} steps"))
    }

    /// Lets one thing happen; false if there is none.
    fn step(&mut self) -> Result<bool, String> {
        let Some(next) = self.queue.pop() else { return Ok(false) };
        self.steps += 1;
        if next.generation != self.generation {
            return Ok(true);
        }
        self.now_ns = self.now_ns.max(next.at);
        match next.what {
            Happening::Event(shard, event) => self.event(shard, event),
            Happening::DiskDone(id) => self.disk_done(id),
            Happening::ClientActs(index) => self.client_acts(index),
            Happening::ToClient(id, bytes) => self.carry_to_client(id, &bytes)?,
            Happening::Deliver(id) => self.deliver(id),
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(true),
        }
    }

    fn event(&mut self, shard: u16, event: Event) {
        if matches!(event, Event::Tick) {
            // One that was overtaken by an earlier deadline is none.
            if self.ticks[usize::from(shard)].is_none_or(|tick| tick > self.now_ns) {
                return;
            }
            self.ticks[usize::from(shard)] = None;
        }
        self.summary.events += 1;
        self.trace(&format!("{shard} {}", trace::describe(&event)));
        let (now, mut out) = (self.now(), Vec::new());
        if let Some(Some(state)) = self.shards.get_mut(usize::from(shard)) {
            state.handle(now, event, &mut out);
            self.turn(shard, out);
        }
    }

    /// Ends a shard's turn and performs what it wants.
    fn turn(&mut self, shard: u16, mut out: Vec<Effect>) {
        let now = self.now();
        let Some(Some(state)) = self.shards.get_mut(usize::from(shard)) else { return };
        state.end_turn(now, &mut out);
        let deadline = state.deadline();
        for effect in out {
            self.perform(shard, effect);
        }
        if let Some(deadline) = deadline
            && self.ticks[usize::from(shard)].is_none_or(|tick| deadline < tick)
        {
            self.ticks[usize::from(shard)] = Some(deadline);
            self.schedule(deadline.saturating_sub(self.now_ns), Happening::Event(shard, Event::Tick));
        }
    }

    fn perform(&mut self, shard: u16, effect: Effect) {
        match effect {
            Effect::Receive { connection, mode } => {
                if let Some(state) = self.connections.get_mut(&connection.0) {
                    assert!(state.receive.is_none(), "one receive at a time");
                    state.receive = Some(mode);
                    let delay = self.prng.below(MS / 2);
                    self.schedule(delay, Happening::Deliver(connection.0));
                }
            }
            Effect::Send { connection, parts } => self.send(shard, connection, parts),
            Effect::Close { connection, reason } => {
                self.trace(&format!("{shard} close {} {reason}", connection.0));
                if let Some(state) = self.connections.remove(&connection.0)
                    && let Some(client) = state.client
                {
                    self.clients[client].disconnect();
                }
                self.schedule(0, Happening::Event(shard, Event::Closed { connection }));
            }
            Effect::Disk(effect) => self.submit(shard, effect),
            Effect::ToShard { to, message } => self.carry_to_shard(shard, to, message),
            Effect::ToPeer { .. } | Effect::ToMember { .. } => {
                self.failure = Some("a single node speaks to others".to_string());
            }
            Effect::Ready => self.ready += 1,
            Effect::Stopped => self.stopped += 1,
            Effect::Log { text, .. } => self.trace(&format!("{shard} log {text}")),
            Effect::Fatal { text } => self.failure = Some(format!("fatal: {text}")),
        }
    }

    fn submit(&mut self, shard: u16, effect: DiskEffect) {
        self.trace(&format!("{shard} {}", trace::describe_disk(&effect)));
        let operation = self.disk.submit(shard, effect);
        let id = self.order;
        self.in_flight.insert(id, operation);
        let delay = 20_000 + self.prng.below(self.disk_ns);
        self.schedule(delay, Happening::DiskDone(id));
    }

    fn disk_done(&mut self, id: u64) {
        let Some(operation) = self.in_flight.remove(&id) else { return };
        let World { disk, prng, .. } = self;
        let result = disk.complete(prng, &operation);
        let event = Event::Disk(DiskDone { ticket: operation.ticket, result });
        self.event(operation.shard, event);
    }

    /// Adds a client.
    pub fn add_client(&mut self, role: Role, topic: &str, partitions: Vec<i32>, goal: u64, acks: i16) {
        let id = self.clients.len() as u32;
        self.clients.push(Party::Client(Client::new(id, role, topic, partitions, goal, acks)));
    }

    /// Adds a member of a group.
    pub fn add_member(&mut self, member: Member) {
        self.clients.push(Party::Member(member));
    }
}
