//! The power goes at one node that holds what it has not flushed, and at the same instant the processes of all others end (row 13,
//! KIP-966): they have what it lost. It must not lead before it has heard from them.

use super::scenario::{PARTITIONS, STEPS_MAX};
use super::{MS, SECOND, What, World};
use crate::disk::Crash;

impl World {
    /// For topics that are not flushed, with `min.insync.replicas` of two: what was acknowledged is on two nodes.
    pub(super) fn lose_power(&mut self) -> Result<(), String> {
        let nodes = self.nodes.len();
        let partitions = (0..PARTITIONS).map(|partition| ("all", partition));
        let first = self.write_to(partitions, -1, 4 * MS);
        let pause = 50 * MS + self.prng.below(200 * MS);
        self.pass(pause, STEPS_MAX)?;
        let id = self.prng.below(nodes as u64) as usize;
        for other in (0..nodes).filter(|other| *other != id) {
            self.crash(other, Crash::Kill);
        }
        self.crash(id, Crash::PowerCut);
        // It is there first.
        self.at(0, What::Start(id));
        for other in (0..nodes).filter(|other| *other != id) {
            let delay = self.prng.below(SECOND);
            self.at(delay, What::Start(other));
        }
        self.run_until("all are back", 60 * SECOND, STEPS_MAX, |world| {
            world.nodes.iter().all(|node| node.is_ready())
        })?;
        self.stop_writing(first);
        self.settle("records", 60 * SECOND)?;
        self.make_whole("after the power went at one")
    }
}
