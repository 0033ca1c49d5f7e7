//! What must be true (invariants I1 to I14), held against all logs at once after every step.

use std::collections::BTreeMap;

use super::controller::{Controller, node_of};
use super::disk::mix;
use super::node::{Node, Waiting};
use super::plan::{Kind, Plan};
use crate::partition::RoleKind;

/// The judge.
#[derive(Default)]
pub struct Oracle {
    /// The committed log: what each prefix hashes to, by length.
    hashes: Vec<u64>,
    /// Whose record is at each committed offset.
    committed: Vec<(i64, i32)>,
    at: BTreeMap<(i64, i32), i64>,
    /// Who appended under each epoch: node and life.
    appenders: BTreeMap<i32, (usize, u64)>,
    /// Epoch and high watermark of each node when last seen, in its life.
    seen: BTreeMap<usize, (u64, i32, i64)>,
    /// Behind the last acknowledged record.
    pub acked_end: i64,
    pub acked: u64,
    pub reads: u64,
    pub cuts: u64,
    pub restarts: u64,
    pub faulted: u64,
    pub transfers: u64,
    pub unclean: u64,
    /// Unclean elections count from this epoch.
    unclean_epoch: i32,
}

pub type Check = Result<(), String>;

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(text()) }
}

impl Oracle {
    pub fn new() -> Oracle {
        Oracle { hashes: vec![0], unclean_epoch: -1, ..Oracle::default() }
    }

    /// Largest high watermark a leader ever had.
    pub fn true_hw(&self) -> i64 {
        self.committed.len() as i64
    }

    pub fn hash_below(&self, offset: i64) -> Option<u64> {
        self.hashes.get(offset as usize).copied()
    }

    /// I6: one appender per epoch.
    pub fn appended(&mut self, node: &Node) -> Check {
        let epoch = node.partition.leader_epoch().0;
        let who = (node.id, node.life);
        let first = *self.appenders.entry(epoch).or_insert(who);
        ensure(first == who, || format!("I6: {who:?} appends under epoch {epoch} of {first:?}"))
    }

    /// After every step of `node`.
    pub fn step(
        &mut self,
        real_ns: u64,
        plan: &Plan,
        nodes: &[Node],
        id: usize,
        controller: &Controller,
    ) -> Check {
        let node = &nodes[id];
        if node.up && node.epoch.is_some() {
            self.ends(node)?;
        }
        if plan.kind == Kind::Lying {
            return Ok(());
        }
        self.high_watermark(node)?;
        self.complete(plan, nodes, controller)?;
        if plan.leases && plan.drift_ppm <= 10_000 {
            let answering = nodes.iter().filter(|node| node.answers(real_ns)).count();
            ensure(answering <= 1, || format!("I1: {answering} leaders may answer"))?;
        }
        Ok(())
    }

    /// I8, I9.
    fn ends(&mut self, node: &Node) -> Check {
        let (ends, hw) = (node.log.ends(), node.partition.high_watermark());
        let sound = ends.log_start <= hw
            && hw <= ends.end
            && ends.flushed <= ends.written
            && ends.written <= ends.end;
        ensure(sound, || format!("I9: node {} {ends:?} {hw:?}", node.id))?;
        let now = (node.life, node.partition.leader_epoch().0, hw.0);
        let before = self.seen.insert(node.id, now);
        let same = before.is_some_and(|before| (before.0, before.1) == (now.0, now.1));
        ensure(!same || before.is_some_and(|before| before.2 <= now.2), || {
            format!("I8: node {} high watermark {before:?} to {now:?}", node.id)
        })
    }

    /// The high watermark a node had before the step that cuts its log.
    pub fn high_watermark_before_cut(&self, node: usize) -> i64 {
        self.seen.get(&node).map_or(0, |seen| seen.2)
    }

    /// A replica has begun anew, or was cut by an unclean leader: its high watermark may fall.
    pub fn forget_seen(&mut self, node: usize) {
        self.seen.remove(&node);
    }

    /// I5, I13: below a high watermark there is one log, and every batch once.
    fn high_watermark(&mut self, node: &Node) -> Check {
        let (hw, log) = (node.partition.high_watermark().0, &node.log);
        if node.partition.leader_epoch().0 < self.unclean_epoch || !node.up || node.epoch.is_none() {
            return Ok(());
        }
        let leads = !node.partition.maximal_isr().is_empty();
        if leads {
            for offset in self.true_hw()..hw {
                let record = log.record(offset).ok_or(format!("I2: node {} lacks {offset}", node.id))?;
                let id = (record.producer_id, record.sequence);
                self.committed.push(id);
                self.hashes.push(record.prefix_hash);
                if let Some(before) = self.at.insert(id, offset) {
                    return Err(format!("I13: {id:?} is committed at {before} and at {offset}"));
                }
            }
        }
        let settled = leads || node.partition.role() == RoleKind::Following || self.unclean == 0;
        if settled && hw >= log.first && hw <= self.true_hw() {
            ensure(log.hash_below(hw) == self.hash_below(hw), || {
                format!("I5: node {} differs below its high watermark {hw}", node.id)
            })?;
        }
        ensure(hw <= self.true_hw() || self.unclean > 0, || {
            format!("I5: node {} has high watermark {hw}, no leader had {}", node.id, self.true_hw())
        })
    }

    /// I2, I3, I4: who leads or may lead has everything.
    fn complete(&self, plan: &Plan, nodes: &[Node], controller: &Controller) -> Check {
        let state = &controller.state;
        let isr =
            state.isr.iter().filter(|member| nodes[node_of(member.replica)].epoch == Some(member.epoch));
        let isr = isr.map(|member| node_of(member.replica));
        let elr = state.elr.iter().map(|replica| node_of(*replica));
        let eligible: Vec<usize> =
            isr.chain(elr).filter(|id| nodes[*id].up && nodes[*id].epoch.is_some()).collect();
        for id in eligible {
            self.holds_all(&nodes[id]).map_err(|text| format!("I3: ISR or ELR member {text}"))?;
        }
        for node in nodes.iter().filter(|node| node.up && node.epoch.is_some()) {
            let leads = !node.partition.maximal_isr().is_empty();
            if !leads || node.partition.leader_epoch() != state.leader_epoch {
                continue;
            }
            self.holds_all(node).map_err(|text| format!("I2: leader {text}"))?;
            let maximal = node.partition.maximal_isr();
            let known = node.partition.state().map_or(0, |state| state.isr.len());
            if known >= plan.min_isr && state.isr.len() >= plan.min_isr {
                let within = state.isr.iter().all(|member| maximal.contains(member));
                ensure(within, || format!("I4: {maximal:?} lacks some of {:?}", state.isr))?;
            }
        }
        Ok(())
    }

    fn holds_all(&self, node: &Node) -> Check {
        let (hw, log) = (self.true_hw(), &node.log);
        let same = hw >= log.first && log.hash_below(hw) == self.hash_below(hw);
        ensure(same, || format!("{} does not hold the committed log up to {hw} (end {})", node.id, log.end()))
    }

    /// I2, I10, I14: an acknowledgement, at the instant it leaves.
    pub fn acked(
        &mut self,
        plan: &Plan,
        nodes: &[Node],
        by: usize,
        wait: &Waiting,
        invoked_end: i64,
    ) -> Check {
        if plan.kind == Kind::Lying {
            return Ok(());
        }
        let (offset, log) = (wait.last_offset, &nodes[by].log);
        let hash = log.hash_below(offset + 1);
        let holds = |node: &&Node| {
            let far = if plan.flush_every_append { node.log.flushed } else { node.log.written };
            // Committed, and let go by both since: the log of one that began anew lies behind it.
            let let_go = node.log.first > offset && log.start > offset;
            far > offset && (let_go || node.log.hash_below(offset + 1) == hash)
        };
        let copies = nodes.iter().filter(holds).count();
        // Unflushed copies may have been lost on the way of the acknowledgement: as many as KIP-966 bears.
        let lost = if plan.flush_every_append || !plan.lossy_crashes { 0 } else { plan.min_isr - 1 };
        ensure(hash.is_some() && copies + lost >= plan.min_isr, || {
            format!("I10: {wait:?} acknowledged with {copies} copies, {} wanted", plan.min_isr)
        })?;
        ensure(self.hash_below(offset + 1) == hash, || format!("I2: {wait:?} acknowledged, not committed"))?;
        ensure(offset >= invoked_end, || {
            format!("I14: {wait:?} acknowledged before {invoked_end}, sent after it")
        })?;
        self.acked += 1;
        self.acked_end = self.acked_end.max(offset + 1);
        Ok(())
    }

    /// I11 and freshness: somebody has read up to `end` from `node`; `latest`: and was told that this is all.
    pub fn read(&mut self, plan: &Plan, node: &Node, end: i64, latest: bool) -> Check {
        self.reads += 1;
        if plan.kind != Kind::Honest {
            return Ok(());
        }
        let committed = end <= self.true_hw()
            && (end < node.log.first || node.log.hash_below(end) == self.hash_below(end));
        ensure(committed, || {
            format!("I11: node {} serves up to {end}, committed {}", node.id, self.true_hw())
        })?;
        ensure(!latest || !plan.fresh() || end >= self.acked_end, || {
            format!("L8: node {} says {end} is all, {} was acknowledged", node.id, self.acked_end)
        })
    }

    /// I12: a cut, before it is made.
    pub fn cut(&mut self, node: &Node, to: i64, high_watermark_before: i64) -> Check {
        self.cuts += 1;
        let explained = node.partition.state().is_some_and(|state| state.unclean_epoch.is_some());
        if explained {
            self.forget_seen(node.id);
        }
        ensure(to >= high_watermark_before || explained, || {
            format!("I12: node {} is cut to {to} below its high watermark {high_watermark_before}", node.id)
        })
    }

    /// An operator has made a replica leader that may lack committed records: they are lost, by order.
    pub fn unclean_election(&mut self, node: &Node, epoch: i32) {
        self.unclean += 1;
        self.unclean_epoch = epoch;
        let same = |end: &i64| *end >= node.log.first && node.log.hash_below(*end) == self.hash_below(*end);
        let kept = (0..=self.true_hw().min(node.log.end())).rev().find(same).unwrap_or(0);
        for id in self.committed.split_off(kept as usize) {
            self.at.remove(&id);
        }
        self.hashes.truncate(kept as usize + 1);
        self.acked_end = self.acked_end.min(kept);
    }

    /// Of everything that happened, to compare two runs of a seed.
    pub fn digest(&self) -> u64 {
        let counts = [self.acked, self.reads, self.cuts, self.faulted, self.transfers];
        counts.iter().fold(*self.hashes.last().unwrap_or(&0), |hash, value| mix(hash, *value))
    }
}
