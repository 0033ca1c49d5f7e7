//! What goes wrong in a run.

use super::node::Node;
use super::{MS, SECOND, What, World};
use crate::disk::Crash;
use pelton_replica::partition::RoleKind;

impl World {
    /// Something fails, or comes back.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let nodes = self.nodes.len();
        let id = self.victim();
        match self.prng.below(18) {
            0 | 1 => self.end(id, Crash::Kill),
            2 if self.flushed || (self.lossy_alone && self.is_in_sync()) => self.end(id, Crash::PowerCut),
            3 if self.flushed => (0..nodes).for_each(|id| self.end(id, Crash::PowerCut)),
            4 => {
                let node = &mut self.nodes[id];
                node.disk_ns = if node.disk_ns > 2 * MS { 2 * MS } else { 40 * MS };
            }
            5 => self.stop(id),
            6 => self.stand_still(id, None),
            7 => {
                let shard = self.prng.below(u64::from(self.nodes[id].config.shards)) as usize;
                self.stand_still(id, Some(shard));
            }
            8 => {
                let faults = &mut self.nodes[id].disk.faults;
                faults.no_space = !faults.no_space;
                let text =
                    format!("{id} has {}", if faults.no_space { "no space left" } else { "space again" });
                self.trace(&text);
            }
            9 => self.nodes[id].clock.ahead_ms = self.prng.below(36_000_000) as i64 - 18_000_000,
            10 if self.wild_clocks => {
                let wild = self.prng.one_in(2);
                self.run_clock(id, wild);
            }
            // All but one are lost, one after the other, and come back in any order.
            11 => {
                for other in (0..nodes).filter(|other| *other != id) {
                    self.end(other, Crash::Kill);
                }
                let pause = self.prng.below(4) * SECOND;
                self.next_fault(pause);
                return Ok(());
            }
            12 => self.fail_disk(id),
            _ => {
                let text = self.network.change(self.now_ns, &mut self.prng);
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

    /// Any node; the one that leads the quorum more often than others.
    pub(super) fn victim(&mut self) -> usize {
        let any = self.prng.below(self.nodes.len() as u64) as usize;
        if !self.prng.one_in(4) {
            return any;
        }
        let leads = |node: &Node| node.shards.iter().flatten().any(|shard| shard.leads_quorum());
        self.nodes.iter().position(leads).unwrap_or(any)
    }

    /// Writes of the journals fail until the process ends, which it does at the latest a little later.
    fn fail_disk(&mut self, id: usize) {
        if self.nodes[id].shards.is_empty() {
            return;
        }
        self.nodes[id].disk.faults.journal_error_one_in = 1 + self.prng.below(20);
        self.trace(&format!("writes of {id} fail"));
        let delay = self.prng.below(3 * SECOND);
        let life = self.nodes[id].life;
        self.at(delay, What::End(id, life));
    }

    pub(super) fn end(&mut self, id: usize, crash: Crash) {
        self.crash(id, crash);
        let delay = 50 * MS + self.prng.below(4 * SECOND);
        self.at(delay, What::Start(id));
    }

    /// A node has stopped by itself.
    pub(super) fn stopped(&mut self, id: usize) {
        if self.revives {
            let delay = if self.faults { 50 * MS + self.prng.below(2 * SECOND) } else { 0 };
            self.at(delay, What::Start(id));
        }
    }

    /// As SIGSTOP, of the process or of one of its threads: nothing happens there, the network and the disk go on.
    fn stand_still(&mut self, id: usize, shard: Option<usize>) {
        // One of several threads: that it is stuck has to be noticed, which takes a while.
        let lengths = match shard {
            Some(_) => [SECOND, 4 * SECOND, 12 * SECOND, 12 * SECOND],
            None => [100 * MS, SECOND, 4 * SECOND, 12 * SECOND],
        };
        let length = lengths[self.prng.below(4) as usize];
        let until = self.now_ns + self.prng.below(length);
        self.trace(&format!("{id} shard {shard:?} stands still until {} ms", until / MS));
        for (index, stands) in self.nodes[id].stands_until.iter_mut().enumerate() {
            // Not again before it wakes: what waits keeps its order, and moves to the end of the wait once.
            if shard.is_none_or(|shard| shard == index) && *stands <= self.now_ns {
                *stands = until;
            }
        }
        self.summary.pauses += 1;
    }

    /// Every partition has all its replicas in sync: the power may take what one of them has not flushed (KIP-966).
    fn is_in_sync(&self) -> bool {
        let all = self.nodes.iter().all(|node| node.is_ready() && !node.lossy);
        let mut leaders = 0;
        let mut keys = std::collections::BTreeSet::new();
        for it in self.nodes.iter().flat_map(|node| node.shards.iter().flatten()).flat_map(|it| it.replicas())
        {
            keys.insert(it.key);
            leaders += usize::from(it.role == RoleKind::Active && it.isr_size == super::COPIES);
        }
        all && leaders == keys.len()
    }

    /// No more faults; whoever is down comes back. Who stands still wakes in its own time: what waits for it keeps its order.
    pub(super) fn heal(&mut self) {
        self.trace("no more faults");
        self.faults = false;
        self.network.heal();
        self.network.keep_order();
        for id in 0..self.nodes.len() {
            let node = &mut self.nodes[id];
            node.disk_ns = 2 * MS;
            node.disk.faults.no_space = false;
            if self.wild_clocks {
                self.run_clock(id, false);
            }
            // A node that is stopping still has to end first.
            self.at(0, What::Start(id));
        }
    }
}
