//! A run: a cluster forms, topics are made, clients work while nodes and links fail, everything comes right; then each node is
//! taken away once, by a crash or by a clean stop, and all logs are read from those that lead then.

use std::collections::BTreeMap;

use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_model::{ListenerMode, PartitionKey, Prng};
use pelton_replica::partition::RoleKind;
use pelton_shard::ReplicaReport;

use super::bodies::any_timestamp;
use super::churn::Churn;
use super::client::{Client, Task};
use super::leads::Leads;
use super::moves::{Moves, Places};
use super::register::Register;
use super::trim::Trim;
use super::{COPIES, Fault, MS, SECOND, Summary, What, World};
use crate::disk::Crash;

/// Most things that may happen in one phase of a run.
pub const STEPS_MAX: u64 = 2_000_000;
/// Leaders that follow one another while nothing is written.
const FLAPS: u32 = 50;
/// Partitions of each topic.
pub const PARTITIONS: i32 = 2;
/// Partitions of `__consumer_offsets`, each with a coordinator.
pub const OFFSETS_PARTITIONS: i32 = 2;

/// Runs one seed.
pub fn run(seed: u64, trace: bool, fault: Option<Fault>) -> Result<Summary, String> {
    let mut world = World::new(seed, trace, fault);
    let nodes = world.nodes.len();
    // Those beyond three may join when everything is going on.
    let at_once = if world.prng.one_in(2) { COPIES } else { nodes };
    (0..at_once).for_each(|node| world.at(0, What::Start(node)));
    // A snapshot for one that joins may be lost, or word of it, and is sent again after 20 s.
    world.run_until("a cluster", 600 * SECOND, STEPS_MAX, |world| {
        world.nodes[..at_once].iter().all(|node| node.is_ready())
    })?;
    world.begin_work()?;
    world.faults = true;
    world.wild_clocks = world.prng.one_in(8);
    world.judges.fresh = !world.wild_clocks;
    world.at(200 * MS, What::Fault);
    for node in at_once..nodes {
        let delay = world.prng.below(4 * SECOND);
        world.at(delay, What::Start(node));
    }
    let duration = (2 + world.prng.below(14)) * SECOND;
    world.pass(duration, STEPS_MAX)?;
    world.heal();
    world.settle("clients", 180 * SECOND)?;
    // A node asks the controller again for what may be lost: a move of long ago may come after the last one until then.
    world.pass(6 * SECOND, STEPS_MAX)?;
    world.judges.fresh = true;
    let places = world.places();
    world.add("all", Task::Move(Moves::new(0, 1, COPIES, places)));
    world.add("churn", Task::Churn(Churn::new(100, 2, true)));
    if world.prng.one_in(8) {
        world.add("all", Task::Lead(Leads::new(1, FLAPS)));
    }
    world.settle("topics made anew", 120 * SECOND)?;
    world.run_until("all nodes are back", 60 * SECOND, STEPS_MAX, |world| {
        world.nodes.iter().all(|node| node.is_ready())
    })?;
    world.revives = false;
    world.queue.retain(|_, what| !matches!(what, What::Start(_)));
    world.expected = nodes;
    world.final_judgement()?;
    world.summary.acknowledged = world.judges.records.acknowledged;
    world.summary.read = world.judges.records.read;
    world.summary.commits = world.judges.commits;
    world.summary.moved = world.judges.moved;
    world.summary.churned = world.judges.churned;
    world.summary.trims = world.judges.trims;
    Ok(world.summary)
}

impl World {
    /// Topics are made, and clients begin to use them.
    fn begin_work(&mut self) -> Result<(), String> {
        let min_isr = 1 + self.prng.below(2);
        let flush = if self.prng.one_in(4) { 100 } else { 1 };
        // Copies that only memory and page cache hold survive a process; the power takes those of one node at a time, and what is
        // acknowledged has to be on two.
        let alters = flush == 1 && self.prng.one_in(3);
        let configs = |prng: &mut Prng| {
            vec![
                ("min.insync.replicas", min_isr.to_string()),
                ("flush.messages", flush.to_string()),
                ("flush.ms", "200".to_string()),
                any_timestamp(),
                ("segment.ms", (50 + 500 * prng.below(4)).to_string()),
            ]
        };
        for topic in ["all", "one", "trim"] {
            let task =
                Task::Create { configs: configs(&mut self.prng), partitions: PARTITIONS, created: false };
            self.add(topic, task);
        }
        self.settle("topics", 60 * SECOND)?;
        (self.flushed, self.lossy_alone) = (flush == 1, min_isr == 2);
        self.begin_clients(alters);
        Ok(())
    }

    /// Where a replica may be; clients that see one broker for a node do not say which shard.
    fn places(&self) -> Places {
        let config = &self.nodes[0].config;
        let shards = if config.mode == ListenerMode::Direct { config.shards } else { 1 };
        Places { nodes: self.nodes.len(), shards }
    }

    fn begin_clients(&mut self, alters: bool) {
        for partition in 0..PARTITIONS {
            for (topic, acks) in [("all", -1), ("all", -1), ("one", 1)] {
                let goal = 20 + self.prng.below(80);
                self.add(topic, Task::produce(partition, goal, acks));
                let read = Task::read(partition, goal / 2);
                if acks == -1 {
                    self.add(topic, read);
                    let latest = Task::Latest { partition, goal: goal * 4, answers: 0, least: 0 };
                    self.add(topic, latest);
                }
            }
        }
        let goal = 20 + self.prng.below(40);
        self.add("trim", Task::produce(0, goal, -1));
        let trims = self.prng.below(12);
        self.add("trim", Task::Trim(Trim::new(trims)));
        let lives = self.prng.below(4);
        self.add("churn", Task::Churn(Churn::new(0, lives, false)));
        if alters {
            let goal = 1 + self.prng.below(10);
            self.add("all", Task::Alter { goal, done: 0 });
        }
        for group in ["g0", "g1"] {
            let goal = 10 + self.prng.below(30) as i64;
            self.add("all", Task::Group(Register::new(group.to_string(), "all", goal)));
        }
        // Coordinators come and go with them.
        for partition in 0..OFFSETS_PARTITIONS {
            let leaders = if self.prng.one_in(2) { self.prng.below(10) as u32 } else { 0 };
            self.add(OFFSETS_TOPIC, Task::Lead(Leads::new(partition, leaders)));
        }
        let moves = 1 + self.prng.below(6) as u32;
        let places = self.places();
        self.add("all", Task::Move(Moves::new(0, moves, COPIES, places)));
    }

    pub(super) fn add(&mut self, topic: &'static str, task: Task) {
        let index = self.clients.len();
        self.clients.push(Client::new(index as u32, topic, task));
        let delay = self.prng.below(20 * MS);
        self.wake(index, delay);
    }

    /// Until every client has done what it set out to do.
    pub(super) fn settle(&mut self, what: &str, limit_ns: u64) -> Result<(), String> {
        self.run_until(what, limit_ns, STEPS_MAX, |world| world.clients.iter().all(Client::is_done))
    }

    /// All logs are read from their leaders: as they are, and with each node away once.
    fn final_judgement(&mut self) -> Result<(), String> {
        self.make_whole("all nodes")?;
        self.read_replicas()?;
        self.aim()?;
        for id in 0..self.nodes.len() {
            self.expected -= 1;
            let trimmed = self.trim_and_take(id)?;
            self.make_whole(&format!("without node {id}"))?;
            self.add("trim", Task::Trim(Trim::look(trimmed)));
            self.settle("where the log starts", 60 * SECOND)?;
            self.expected += 1;
            self.at(0, What::Start(id));
            self.make_whole(&format!("node {id} is back"))?;
        }
        self.read_replicas()?;
        if self.prng.one_in(4) {
            self.stop_alone()?;
        }
        Ok(())
    }

    /// What a fault that comes at any time would seldom hit, in a cluster that is whole: one of them, in one run of two.
    fn aim(&mut self) -> Result<(), String> {
        match self.prng.below(6) {
            0 => self.fill_disk(),
            1 => self.stick(),
            2.. if self.lossy_alone && !self.flushed => self.lose_power(),
            _ => Ok(()),
        }
    }

    /// Deletes records, and as soon as that is answered the node goes, one way or the other. Where the log starts from then on.
    fn trim_and_take(&mut self, id: usize) -> Result<i64, String> {
        if self.prng.one_in(2) {
            self.depart(id)?;
            return Ok(0);
        }
        let index = self.clients.len();
        self.add("trim", Task::produce(0, 1, -1));
        self.settle("one more record", 60 * SECOND)?;
        self.add("trim", Task::Trim(Trim::new(1)));
        self.settle("records deleted", 60 * SECOND)?;
        let trimmed = match &self.clients[index + 1].task {
            Task::Trim(trim) => trim.offset(),
            _ => 0,
        };
        // What it has said since is lost with it.
        self.queue.retain(|_, what| !what.is_frame_of(id));
        self.crash(id, Crash::Kill);
        Ok(trimmed)
    }

    /// Waits until all that lives is in sync, and reads everything.
    pub(super) fn make_whole(&mut self, when: &str) -> Result<(), String> {
        self.run_until(when, 60 * SECOND, STEPS_MAX, World::is_whole)?;
        self.read_all(when)
    }

    /// Every partition has a leader that answers and a high watermark at the end of its log; every replica that lives is in
    /// sync and has all of it.
    pub(super) fn is_whole(&self) -> bool {
        self.is_led(|replica, leader| {
            matches!(replica.role, RoleKind::Active | RoleKind::Following)
                && replica.log_end_offset == leader.log_end_offset
                && replica.high_watermark == leader.log_end_offset
        })
    }

    /// Every partition has a leader that answers, has committed all of its log, and counts on those that live, and on nobody else; each
    /// of them is so that `is_well`, with its leader.
    pub(super) fn is_led(&self, is_well: impl Fn(&ReplicaReport, &ReplicaReport) -> bool) -> bool {
        // A node that stops is still there, but does not count.
        let alive = self.nodes.iter().filter(|node| node.is_ready()).count();
        if alive != self.expected {
            return false;
        }
        let least = (COPIES + alive).saturating_sub(self.nodes.len());
        let mut ends: BTreeMap<PartitionKey, Vec<ReplicaReport>> = BTreeMap::new();
        for shard in self.nodes.iter().flat_map(|node| node.shards.iter().flatten()) {
            shard.replicas().into_iter().for_each(|it| ends.entry(it.key).or_default().push(it));
        }
        ends.values().all(|replicas| {
            let leader = replicas.iter().find(|replica| replica.role == RoleKind::Active);
            leader.is_some_and(|leader| {
                leader.isr_size == replicas.len()
                    && replicas.len() >= least
                    && leader.high_watermark == leader.log_end_offset
                    && replicas.iter().all(|replica| is_well(replica, leader))
            })
        })
    }

    /// Reads every replica alone from its beginning to its end: all are alike, record by record (I5), and no two of a partition on
    /// one node (I20).
    fn read_replicas(&mut self) -> Result<(), String> {
        self.check_placement()?;
        for topic in ["all", "one"] {
            for partition in 0..PARTITIONS {
                let goal = self.judges.records.known(topic, partition);
                (0..COPIES).for_each(|replica| self.add(topic, Task::read_replica(partition, goal, replica)));
            }
        }
        self.settle("each replica is read", 60 * SECOND)
    }

    /// Reads every partition from its beginning to the end of what is known; the judge compares.
    fn read_all(&mut self, when: &str) -> Result<(), String> {
        for topic in ["all", "one"] {
            for partition in 0..PARTITIONS {
                let goal = self.judges.records.known(topic, partition);
                self.add(topic, Task::read(partition, goal));
            }
        }
        self.settle(when, 60 * SECOND)?;
        let now_ms = self.now().wall_ms;
        for partition in 0..PARTITIONS {
            let end = self.judges.records.known("all", partition) as i64;
            self.judges
                .records
                .judge("all", partition, (0, end), now_ms)
                .map_err(|text| format!("{when}: {text}"))?;
        }
        Ok(())
    }
}
