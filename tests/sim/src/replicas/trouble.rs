//! What goes wrong in a run.

use pelton_cluster::control::asks::Ask;
use pelton_model::Offset;
use pelton_replica::partition::RoleKind;

use super::seat::Asked;
use super::{MS, NODES, SECOND, What, World};
use crate::disk::Crash;

impl World {
    /// Something goes wrong, or an operator does something.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        let next = 50 * MS + self.prng.below(1_500 * MS);
        self.at(next, What::Fault);
        let id = self.victim();
        match self.prng.below(12) {
            0 | 1 => self.crash(id, Crash::Kill),
            // Unflushed copies survive a process, not the power; with several cuts all may be gone, as KIP-966 says.
            2 if self.flush => self.crash(id, Crash::PowerCut),
            3 if self.flush => (0..NODES).for_each(|id| self.crash(id, Crash::PowerCut)),
            4 => self.nodes[id].slow = !self.nodes[id].slow,
            5 => return self.prefer(id),
            6 | 7 => self.pause(id),
            8 => return self.audit(),
            9 if self.trims => return self.trim(),
            _ => {
                let text = self.network.change(self.now_ns, &mut self.prng);
                self.trace(&text);
            }
        }
        Ok(())
    }

    /// Any node; the leader of the quorum or of the partition more often than others.
    fn victim(&mut self) -> usize {
        let (any, how) = (self.prng.below(NODES as u64) as usize, self.prng.below(4));
        let running = |id: usize| self.nodes[id].running.as_ref();
        let controls = |id: &usize| running(*id).is_some_and(|running| running.member.controller().is_some());
        let leads = running(any).and_then(|running| running.leader());
        match how {
            0 => (0..NODES).find(controls).unwrap_or(any),
            1 => leads.unwrap_or(any),
            _ => any,
        }
    }

    /// As SIGSTOP: nothing happens in the process, the network and the disk go on without it.
    fn pause(&mut self, id: usize) {
        let length = [100 * MS, SECOND, 4 * SECOND][self.prng.below(3) as usize];
        let until_ns = self.now_ns + self.prng.below(length);
        if self.nodes[id].running.is_some() {
            self.trace(&format!("node {id} stands still until {} ms", until_ns / MS));
            self.nodes[id].paused_until_ns = until_ns;
            self.summary.pauses += 1;
        }
    }

    /// An operator wants the preferred leader.
    fn prefer(&mut self, id: usize) -> Result<(), String> {
        let now = self.nodes[id].now(self.now_ns);
        if self.nodes[id].paused_until_ns > self.now_ns {
            return Ok(());
        }
        let Some(running) = &mut self.nodes[id].running else { return Ok(()) };
        if let Some(key) = running.partition_key().filter(|_| running.member.controller().is_some()) {
            running.ask(now, Asked::Other, Ask::ElectPreferred { key });
        }
        self.after(id)
    }

    /// DeleteRecords, of some of what is committed.
    fn trim(&mut self) -> Result<(), String> {
        for id in 0..NODES {
            let paused = self.nodes[id].paused_until_ns > self.now_ns;
            let Some(running) = self.nodes[id].running.as_mut().filter(|_| !paused) else { continue };
            let Some(hosted) = &running.hosted else { continue };
            if hosted.host.state().role() == RoleKind::Active {
                let offset =
                    Offset(self.prng.below(hosted.host.state().high_watermark().0 as u64 + 1) as i64);
                running.storage.set_log_start_offset(hosted.slot, offset);
                self.judge.dropped(offset);
                self.trace(&format!("node {id} drops what is below {offset:?}"));
                self.after(id)?;
            }
        }
        Ok(())
    }

    /// No more faults.
    pub(super) fn heal(&mut self) {
        self.trace("all faults end");
        self.faults = false;
        self.network.heal();
        for node in &mut self.nodes {
            node.slow = false;
            node.paused_until_ns = node.paused_until_ns.min(self.now_ns);
        }
    }
}
