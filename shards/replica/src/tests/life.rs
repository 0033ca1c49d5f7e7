//! The faults of a seed, and the quiet end in which everything must come right again.

use super::controller::{node_of, replica};
use super::network::{CONTROLLER, Message};
use super::oracle::{Check, Oracle};
use super::plan::{Kind, Plan};
use super::world::{Event, World};
use crate::partition::RoleKind;

/// One whole life: faults, then healing. The oracle, for its counts.
pub fn run(plan: Plan) -> Result<(Oracle, u64), String> {
    let mut world = World::new(plan);
    let until = world.plan.faults_ms * 1_000_000;
    world.run(until)?;
    world.heal();
    world.run(until + 15_000_000_000)?;
    world.settled()?;
    Ok((world.oracle, world.steps))
}

impl World {
    /// One more fault, or the end of one.
    pub fn fault(&mut self) -> Check {
        let pause = 50_000_000 + self.prng.below(self.plan.fault_pause_ms * 1_000_000);
        self.at(pause, Event::Fault);
        let node = self.prng.below(self.plan.nodes as u64) as usize;
        match self.prng.below(10) {
            0 | 1 if self.plan.crashes => self.crash(node, false),
            2 if self.plan.lossy_crashes && self.may_lose(node) => self.crash(node, true),
            3 if self.plan.partitions => {
                self.network.heal();
                self.network.break_links(self.plan.nodes, &mut self.prng);
            }
            4 => self.network.heal(),
            5 if self.plan.pauses => {
                self.nodes[node].paused_until_ns = self.now_ns + 100_000_000 + self.prng.below(5_000_000_000);
            }
            6 if self.plan.moves => self.move_leader(),
            7 if self.plan.controller_failovers => {
                let (now, away) = (self.controller_clock(), self.prng.below(2_000_000_000));
                self.controller.fail_over(now, away);
            }
            8 if self.plan.trims => self.trim(),
            9 => self.nodes[node].slow = [1, 1, 1, 20, 400][self.prng.below(5) as usize],
            _ => {}
        }
        if self.plan.kind != Kind::Honest && self.prng.one_in(2) {
            self.elect_unclean(node)?;
        }
        Ok(())
    }

    pub fn crash(&mut self, node: usize, lossy: bool) {
        if self.nodes[node].up {
            let lying = self.plan.kind == Kind::Lying;
            self.nodes[node].crash(lossy, lying, &mut self.prng);
            self.oracle.forget_seen(node);
            let most = if self.plan.kind == Kind::Honest { 4_000_000_000 } else { 15_000_000_000 };
            let pause = 20_000_000 + self.prng.below(most);
            self.at(pause, Event::Start { node });
        }
    }

    /// Without flushing, KIP-966 promises something only while fewer than `min.insync.replicas` have lost their end at
    /// once: those not back in the ISR count.
    fn may_lose(&self, victim: usize) -> bool {
        if self.plan.flush_every_append || self.plan.kind == Kind::Lying {
            return true;
        }
        let member =
            |node: &super::node::Node| node.epoch == self.controller.state.isr_epoch(replica(node.id));
        let sound =
            |node: &&super::node::Node| node.id != victim && node.up && node.epoch.is_some() && member(node);
        self.nodes.iter().filter(sound).count() >= self.plan.nodes - (self.plan.min_isr - 1)
    }

    fn move_leader(&mut self) {
        let others = self.controller.others_in_isr();
        if others.is_empty() || self.controller.away_until_ns > self.controller_clock() {
            return;
        }
        let target = others[self.prng.below(others.len() as u64) as usize];
        match self.controller.state.leader {
            Some(leader) if self.prng.one_in(2) => {
                let leader_epoch = self.controller.state.leader_epoch;
                self.send(CONTROLLER, node_of(leader), Message::Transfer { leader_epoch, target });
            }
            _ => self.controller.force_move(target),
        }
        self.flush_controller();
    }

    /// DeleteRecords on the leader, up to somewhere below the high watermark.
    fn trim(&mut self) {
        let now = self.now_ns;
        let Some(node) = self.nodes.iter_mut().find(|node| node.answers(now)) else { return };
        let (start, hw) = (node.log.start, node.partition.high_watermark().0);
        let to = start + self.prng.below((hw - start).max(0) as u64 + 1) as i64;
        node.log.start = to;
        node.epochs.truncate_from_start(pelton_model::Offset(node.log.base()));
    }

    fn elect_unclean(&mut self, node: usize) -> Check {
        if self.nodes[node].up && self.controller.elect_unclean(replica(node)) {
            let epoch = self.controller.state.leader_epoch.0;
            self.oracle.unclean_election(&self.nodes[node], epoch);
            let kept = self.oracle.acked_end;
            for request in self.clients.iter_mut().flat_map(|client| &mut client.unacked) {
                request.invoked_end = request.invoked_end.min(kept);
            }
            self.flush_controller();
        }
        self.check(node)
    }

    /// All faults end.
    pub fn heal(&mut self) {
        self.faults = false;
        self.network.be_good();
        for node in 0..self.nodes.len() {
            self.nodes[node].slow = 1;
            self.nodes[node].paused_until_ns = 0;
            if !self.nodes[node].up {
                self.at(0, Event::Start { node });
            }
        }
    }

    /// Liveness: one leader that answers, everyone in sync, one log, nothing that waits for ever.
    pub fn settled(&self) -> Check {
        if self.plan.kind != Kind::Honest {
            return Ok(());
        }
        let state = &self.controller.state;
        let answering: Vec<_> = self.nodes.iter().filter(|node| node.answers(self.now_ns)).collect();
        let roles: Vec<RoleKind> = self.nodes.iter().map(|node| node.partition.role()).collect();
        if answering.len() != 1 || state.isr.len() != self.plan.nodes {
            let isr: Vec<_> = state.isr.iter().map(|m| node_of(m.replica)).collect();
            let facts: Vec<_> =
                self.nodes.iter().map(|node| (node.log.ends(), node.partition.high_watermark())).collect();
            return Err(format!(
                "not settled: {} {roles:?}, {isr:?} {:?} {facts:?}",
                answering.len(),
                state.partition_epoch
            ));
        }
        let hw = answering[0].partition.high_watermark().0;
        for node in &self.nodes {
            let behind = hw - node.partition.high_watermark().0;
            if behind > 100 {
                return Err(format!("node {} is {behind} behind", node.id));
            }
            // Producer state is what the log makes it (R15), where all of the log is there.
            if node.log.first == 0 && node.producers.snapshot() != node.log.recover().1.snapshot() {
                return Err(format!("R15: producer state of node {} is not that of its log", node.id));
            }
        }
        let stuck = self
            .clients
            .iter()
            .filter(|client| !client.unacked.is_empty() && self.now_ns - client.since_ns > 5_000_000_000);
        match stuck.count() {
            0 => Ok(()),
            count => Err(format!("{count} clients wait for ever: {roles:?} {state:?}")),
        }
    }
}
