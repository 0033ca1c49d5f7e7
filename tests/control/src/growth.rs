//! What grows with nodes and partitions, and what must not: a node's death, a heartbeat, the image. The controller and the
//! image are the real ones; the quorum is left out (its messages follow from the entries: one append and one answer for
//! each member, whatever is in it).

use std::time::Instant;

use pelton_cluster::control::{ControlConfig, ControlEffect, ControlSabotage, Controller};
use pelton_cluster::image::{MetadataImage, Touched};
use pelton_cluster::lease::Renewal;
use pelton_cluster::node_message::{NodeMessage, encode};
use pelton_cluster::record::{Endpoint, MetadataRecord, NodeRegistration, ShardRegistration, decode_records};
use pelton_model::{
    BrokerConfig, IsrMember, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, PartitionState,
    Replica, ReplicaEpoch, ShardEpoch, ShardId, TopicId,
};
use uuid::Uuid;

const MS: u64 = 1_000_000;
const TICK_MS: u64 = 50;
const PARTITIONS_PER_TOPIC: usize = 1_000;
const FACTOR: usize = 3;

/// Memory of this process now, bytes.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn node(id: usize) -> NodeRegistration {
    NodeRegistration {
        node: NodeId(id as i32),
        epoch: NodeEpoch(1 + id as u64),
        directory: Uuid::from_u64_pair(1, id as u64),
        incarnation: Uuid::from_u64_pair(2, id as u64),
        start: 1,
        rack: Some(format!("rack-{}", id % 3)),
        endpoints: vec![Endpoint { name: "peer".to_string(), host: format!("node-{id}"), port: 9000 }],
        shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; 4],
        fenced: false,
        draining: false,
        leaving: false,
        lossy: false,
    }
}

fn partition(nodes: usize, at: usize) -> PartitionState {
    let place = |step: usize| Replica {
        node: NodeId(((at + step) % nodes) as i32),
        shard: ShardId((at / nodes % 4) as u16),
    };
    let replicas: Vec<Replica> = (0..FACTOR).map(place).collect();
    let member = |replica: &Replica| IsrMember {
        replica: *replica,
        epoch: ReplicaEpoch { node_epoch: NodeEpoch(1 + replica.node.0 as u64), shard_epoch: ShardEpoch(0) },
    };
    PartitionState {
        leader: replicas.first().copied(),
        isr: replicas.iter().map(member).collect(),
        replicas,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        adding: Vec::new(),
        removing: Vec::new(),
        unclean_epoch: None,
    }
}

fn build(nodes: usize, partitions: usize) -> MetadataImage {
    let mut image = MetadataImage::default();
    let mut index = 1;
    let mut apply = |records: &[MetadataRecord]| {
        index += 1;
        image.apply(index, records);
    };
    apply(&(0..nodes).map(|id| MetadataRecord::Node(node(id))).collect::<Vec<_>>());
    for first in (0..partitions).step_by(PARTITIONS_PER_TOPIC) {
        let id = TopicId(Uuid::from_u64_pair(3, first as u64));
        let mut records = vec![MetadataRecord::Topic { id, name: format!("topic-{first}") }];
        for at in first..(first + PARTITIONS_PER_TOPIC).min(partitions) {
            let key = PartitionKey { topic_id: id, partition: (at - first) as i32 };
            records.push(MetadataRecord::Partition { key, state: partition(nodes, at) });
        }
        apply(&records);
    }
    image
}

/// The controller with a quorum that commits at once.
struct Bench {
    image: MetadataImage,
    controller: Controller,
    nodes: usize,
    now: u64,
    sequence: u64,
    entries: u64,
    bytes: u64,
    changes: u64,
    frame_bytes: u64,
    grants: u64,
}

impl Bench {
    fn new(image: MetadataImage, nodes: usize) -> Bench {
        let mut config = ControlConfig::new(7, BrokerConfig::defaults());
        config.auto_rebalance = false;
        let controller = Controller::new(config, 1, 0, 1, ControlSabotage::default());
        let mut bench = Bench {
            image,
            controller,
            nodes,
            now: 0,
            sequence: 0,
            entries: 0,
            bytes: 0,
            changes: 0,
            frame_bytes: 0,
            grants: 0,
        };
        bench.applied(&Touched::default());
        bench
    }

    fn applied(&mut self, touched: &Touched) {
        let mut out = Vec::new();
        let index = self.image.applied_offset();
        self.controller.applied(self.now, index, 1, touched, &self.image, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, effects: Vec<ControlEffect>) {
        for effect in effects {
            match effect {
                ControlEffect::Propose(payload) => {
                    let records = decode_records(&payload).expect("what the controller wrote");
                    self.entries += 1;
                    self.bytes += payload.len() as u64;
                    self.changes += records.len() as u64;
                    let index = self.image.applied_offset() + 1;
                    let mut out = Vec::new();
                    self.controller.proposed(Some(index), &mut out);
                    self.perform(out);
                    let touched = self.image.apply(index, &records);
                    self.applied(&touched);
                }
                ControlEffect::Confirm(round) => {
                    let mut out = Vec::new();
                    self.controller.confirmed(self.now, round, &self.image, &mut out);
                    self.perform(out);
                }
                ControlEffect::Grant(to, grant) => {
                    self.grants += 1;
                    let frame = encode(7, NodeId(0), to, &NodeMessage::Grant(grant));
                    self.frame_bytes += frame.map_or(0, |frame| frame.len() as u64);
                }
                _ => {}
            }
        }
    }

    fn tick(&mut self) {
        self.now += TICK_MS * MS;
        let mut out = Vec::new();
        self.controller.tick(self.now, &self.image, &mut out);
        self.perform(out);
    }

    /// Every node but those below `dead` asks for its lease.
    fn renew(&mut self, dead: usize) {
        self.sequence += 1;
        let applied = self.image.applied_offset();
        for id in dead..self.nodes {
            let epoch = NodeEpoch(1 + id as u64);
            let renewal = Renewal { node: NodeId(id as i32), epoch, sequence: self.sequence, applied };
            let frame = encode(7, renewal.node, NodeId(0), &NodeMessage::Renew(renewal));
            self.frame_bytes += frame.map_or(0, |frame| frame.len() as u64);
            let mut out = Vec::new();
            self.controller.renew(renewal, &self.image, &mut out);
            self.perform(out);
        }
    }

    /// One interval of renewals.
    fn interval(&mut self, dead: usize) {
        self.renew(dead);
        (0..6).for_each(|_| self.tick());
    }
}

/// One row; in a process of its own, or memory could not be told apart.
pub fn row(nodes: usize, partitions: usize) {
    let before = resident_bytes();
    let built = build(nodes, partitions);
    let image_bytes = resident_bytes().saturating_sub(before);
    let snapshot = built.snapshot();
    drop(built);
    let start = Instant::now();
    let image = MetadataImage::from_snapshot(&snapshot).expect("our own snapshot");
    let load = start.elapsed();

    let mut bench = Bench::new(image, nodes);
    (0..3).for_each(|_| bench.interval(0));
    let (frames, grants) = (bench.frame_bytes, bench.grants);
    let rounds = 10;
    let start = Instant::now();
    (0..rounds).for_each(|_| bench.interval(0));
    let beat = start.elapsed();
    let beats = (rounds * nodes) as f64;
    let heartbeat_bytes = (bench.frame_bytes - frames) as f64 / beats;
    assert_eq!(bench.grants - grants, (rounds * nodes) as u64, "every node has its lease");
    assert_eq!(bench.entries, 0, "a quiet cluster writes nothing");

    let start = Instant::now();
    let died = bench.now;
    while bench
        .image
        .partitions()
        .any(|(_, partition)| partition.leader.is_some_and(|leader| leader.node.0 == 0))
    {
        bench.interval(1);
        assert!(bench.now < died + 60_000 * MS, "no election");
    }
    let election = start.elapsed();
    println!(
        "| {nodes:>5} | {partitions:>9} | {:>8.0} | {:>8.1} | {:>7} | {:>9} | {:>7} | {:>9.1} | {:>7.1} | {:>8.2} | {:>8.2} | {:>7.0} |",
        heartbeat_bytes,
        beat.as_secs_f64() * 1e6 / beats,
        bench.entries,
        bench.changes,
        bench.bytes / 1024,
        bench.entries as f64 * 2.0 * (nodes - 1) as f64,
        election.as_secs_f64() * 1e3,
        snapshot.len() as f64 / partitions as f64,
        image_bytes as f64 / partitions as f64,
        load.as_secs_f64() * 1e3,
    );
}

/// Prints the table. `large` adds a million partitions.
pub fn table(large: bool) {
    println!(
        "| nodes | partitions | B/beat | us/beat | entries | changes | KiB | messages | ms | snapshot B/p | image B/p | load ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let sizes: &[usize] = if large { &[10_000, 100_000, 1_000_000] } else { &[10_000, 100_000] };
    for nodes in [10, 100, 1_000] {
        for partitions in sizes {
            let program = std::env::current_exe().expect("this program");
            let numbers = [nodes.to_string(), partitions.to_string()];
            let status = std::process::Command::new(program).arg("--growth-row").args(numbers).status();
            assert!(status.is_ok_and(|status| status.success()), "a row failed");
        }
    }
}
