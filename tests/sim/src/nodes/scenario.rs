//! A run: a cluster forms, topics are made, clients work while nodes and links fail, everything comes right; then each node is
//! taken away once, and all logs are read from those that lead then.

use std::collections::BTreeMap;

use pelton_model::{PartitionKey, Prng};
use pelton_replica::partition::RoleKind;
use pelton_shard::ReplicaReport;

use super::client::{Client, Task};
use super::register::Register;
use super::{Fault, MS, NODES, SECOND, Summary, What, World};
use crate::disk::Crash;

/// Most things that may happen in one phase of a run.
const STEPS_MAX: u64 = 2_000_000;
/// Partitions of each topic.
const PARTITIONS: i32 = 2;

/// Runs one seed.
pub fn run(seed: u64, trace: bool, fault: Option<Fault>) -> Result<Summary, String> {
    let mut world = World::new(seed, trace, fault);
    (0..NODES).for_each(|node| world.at(0, What::Start(node)));
    world.run_until("a cluster", 30 * SECOND, STEPS_MAX, |world| {
        world.nodes.iter().all(|node| node.is_ready())
    })?;
    let min_isr = 1 + world.prng.below(2);
    let flush = if world.prng.one_in(4) { 100 } else { 1 };
    let configs = |prng: &mut Prng| {
        vec![
            ("min.insync.replicas", min_isr.to_string()),
            ("flush.messages", flush.to_string()),
            ("flush.ms", "200".to_string()),
            ("segment.ms", (50 + 500 * prng.below(4)).to_string()),
        ]
    };
    for topic in ["all", "one"] {
        let task = Task::Create { configs: configs(&mut world.prng), partitions: PARTITIONS, created: false };
        world.add(topic, task);
    }
    world.settle("topics", 60 * SECOND)?;
    for partition in 0..PARTITIONS {
        for (topic, acks) in [("all", -1), ("all", -1), ("one", 1)] {
            let goal = 20 + world.prng.below(80);
            let (done, records, size_bytes, base_sequence) = (0, 0, 0, 0);
            let task = Task::Produce { partition, goal, acks, done, records, size_bytes, base_sequence };
            world.add(topic, task);
            let read = Task::Read { partition, next: 0, goal: goal / 2, found: 0 };
            if acks == -1 {
                world.add(topic, read);
                let latest = Task::Latest { partition, goal: goal * 4, answers: 0, least: 0 };
                world.add(topic, latest);
            }
        }
    }
    for group in ["g0", "g1"] {
        let goal = 10 + world.prng.below(30) as i64;
        world.add("all", Task::Group(Register::new(group.to_string(), "all", goal)));
    }
    world.faults = true;
    world.at(200 * MS, What::Fault);
    // Copies that only memory and page cache hold survive a process, not the power.
    world.powercuts = flush == 1;
    let duration = (2 + world.prng.below(14)) * SECOND;
    world.pass(duration, STEPS_MAX)?;
    world.heal();
    world.settle("clients", 180 * SECOND)?;
    world.final_judgement()?;
    world.summary.acknowledged = world.judges.records.acknowledged;
    world.summary.read = world.judges.records.read;
    world.summary.commits = world.judges.commits;
    world.summary.moved = world.judges.moved;
    Ok(world.summary)
}

impl World {
    fn add(&mut self, topic: &'static str, task: Task) {
        let index = self.clients.len();
        self.clients.push(Client::new(index as u32, topic, task));
        let delay = self.prng.below(20 * MS);
        self.wake(index, delay);
    }

    /// Until every client has done what it set out to do.
    fn settle(&mut self, what: &str, limit_ns: u64) -> Result<(), String> {
        self.run_until(what, limit_ns, STEPS_MAX, |world| world.clients.iter().all(Client::is_done))
    }

    /// Something fails, or comes back.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let id = self.prng.below(NODES as u64) as usize;
        match self.prng.below(8) {
            0 | 1 => self.end(id, Crash::Kill),
            2 if self.powercuts => self.end(id, Crash::PowerCut),
            3 if self.powercuts => (0..NODES).for_each(|id| self.end(id, Crash::PowerCut)),
            4 => {
                let node = &mut self.nodes[id];
                node.disk_ns = if node.disk_ns > 2 * MS { 2 * MS } else { 40 * MS };
            }
            5 => {
                self.stop(id);
                let delay = SECOND + self.prng.below(2 * SECOND);
                self.at(delay, What::Start(id));
            }
            _ => {
                let text = self.network.change(&mut self.prng);
                self.trace(&text);
                // Often long enough for leases to end.
                let pause = self.prng.below(4) * SECOND;
                self.next_fault(pause);
                return Ok(());
            }
        }
        self.next_fault(0);
        Ok(())
    }

    fn next_fault(&mut self, pause_ns: u64) {
        let next = pause_ns + 50 * MS + self.prng.below(1_500 * MS);
        self.at(next, What::Fault);
    }

    fn end(&mut self, id: usize, crash: Crash) {
        self.crash(id, crash);
        let delay = 50 * MS + self.prng.below(4 * SECOND);
        self.at(delay, What::Start(id));
    }

    /// No more faults; whoever is down comes back.
    fn heal(&mut self) {
        self.trace("no more faults");
        self.faults = false;
        self.network.heal();
        for id in 0..NODES {
            self.nodes[id].disk_ns = 2 * MS;
            // A node that is stopping still has to end first.
            for delay in [0, 5 * SECOND, 20 * SECOND] {
                self.at(delay, What::Start(id));
            }
        }
    }

    /// All logs are read from their leaders: as they are, and with each node away once.
    fn final_judgement(&mut self) -> Result<(), String> {
        self.make_whole("all nodes")?;
        for id in 0..NODES {
            self.crash(id, Crash::Kill);
            self.make_whole(&format!("without node {id}"))?;
            self.at(0, What::Start(id));
            self.make_whole(&format!("node {id} is back"))?;
        }
        Ok(())
    }

    /// Waits until all that lives is in sync, and reads everything.
    fn make_whole(&mut self, when: &str) -> Result<(), String> {
        self.pass(MS, STEPS_MAX)?;
        self.run_until(when, 60 * SECOND, STEPS_MAX, World::is_whole)?;
        self.read_all(when)
    }

    /// Every partition has a leader that answers and a high watermark at the end of its log; every replica that lives is in
    /// sync and has all of it.
    fn is_whole(&self) -> bool {
        let alive = self.nodes.iter().filter(|node| node.is_ready()).count();
        let mut ends: BTreeMap<PartitionKey, Vec<ReplicaReport>> = BTreeMap::new();
        for shard in self.nodes.iter().flat_map(|node| node.shards.iter().flatten()) {
            shard.replicas().into_iter().for_each(|it| ends.entry(it.key).or_default().push(it));
        }
        ends.values().all(|replicas| {
            let leader = replicas.iter().find(|replica| replica.role == RoleKind::Active);
            leader.is_some_and(|leader| {
                leader.isr_size == alive
                    && replicas.len() == alive
                    && replicas.iter().all(|replica| {
                        replica.log_end_offset == leader.log_end_offset
                            && replica.high_watermark == leader.log_end_offset
                    })
            })
        })
    }

    /// Reads every partition from its beginning to the end of what is known; the judge compares.
    fn read_all(&mut self, when: &str) -> Result<(), String> {
        for topic in ["all", "one"] {
            for partition in 0..PARTITIONS {
                let goal = self.judges.records.known(topic, partition);
                self.add(topic, Task::Read { partition, next: 0, goal, found: 0 });
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
