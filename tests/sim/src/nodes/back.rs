//! A replica that comes back to a node: what an earlier one left there is not taken for it.

use super::client::Task;
use super::moves::{FEW, Moves};
use super::scenario::STEPS_MAX;
use super::{COPIES, SECOND, What, World};
use crate::disk::Crash;

impl World {
    fn some_records(&mut self) -> Result<(), String> {
        self.add("all", Task::produce(0, 20, -1));
        self.settle("records", 60 * SECOND)
    }

    fn move_to(&mut self, copies: usize) -> Result<(), String> {
        self.add("all", Task::Move(Moves::new(0, 1, copies, FEW)));
        self.settle("a move", 60 * SECOND)
    }

    fn starts(&mut self, id: usize) -> Result<(), String> {
        self.at(0, What::Start(id));
        self.run_until("the node is back", 60 * SECOND, STEPS_MAX, |world| world.nodes[id].is_ready())
    }

    /// A node without a replica of partition 0 of the only topic.
    fn without(&self) -> Option<usize> {
        let hosts = |id: &usize| {
            self.nodes[*id]
                .shards
                .iter()
                .flatten()
                .any(|shard| shard.replicas().iter().any(|replica| replica.key.partition == 0))
        };
        (0..self.nodes.len()).find(|id| !hosts(id))
    }

    /// Moved away, a clean stop before the files are removed, a start that removes them, and back; then a crash.
    fn away_and_back(&mut self) -> Result<(), String> {
        (0..COPIES).for_each(|id| self.at(0, What::Start(id)));
        self.run_until("a cluster", 60 * SECOND, STEPS_MAX, |world| {
            world.nodes.iter().all(|node| node.is_ready())
        })?;
        (self.expected, self.revives) = (COPIES, false);
        let configs = vec![("min.insync.replicas", "1".to_string()), ("flush.messages", "1".to_string())];
        self.add("all", Task::Create { configs, partitions: 2, created: false });
        self.settle("a topic", 60 * SECOND)?;
        self.some_records()?;
        self.move_to(2)?;
        self.run_until("a log is dropped", 60 * SECOND, STEPS_MAX, |world| world.without().is_some())?;
        let id = self.without().ok_or("no node is without it")?;
        self.stop(id);
        self.run_until("a clean stop", 60 * SECOND, STEPS_MAX, |world| world.nodes[id].shards.is_empty())?;
        self.starts(id)?;
        self.move_to(COPIES)?;
        self.some_records()?;
        self.make_whole("moved back")?;
        for _ in 0..2 {
            self.crash(id, Crash::Kill);
            self.starts(id)?;
            self.make_whole("after a crash")?;
        }
        Ok(())
    }
}

#[test]
fn files_that_are_removed_late_are_not_those_of_a_replica_that_came_back() {
    let worlds = (1..).map(|seed| (seed, World::new(seed, false, None)));
    for (seed, mut world) in worlds.filter(|(_, world)| world.nodes.len() == COPIES).take(10) {
        world.away_and_back().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}
