//! What is looked at while a run goes on, and the logs at its end, each read alone.

use pelton_log::ReadStart;
use pelton_model::Offset;
use pelton_replica::partition::RoleKind;

use super::judge::{self, Stored};
use super::node::{self, Node, Running, Waiting};
use super::seat::node_of;
use super::{NODES, SECOND, World};

impl World {
    /// After each turn of a node.
    pub(super) fn watch(&mut self, id: usize) -> Result<(), String> {
        let Some(hosted) = self.nodes[id].running.as_ref().and_then(|running| running.hosted.as_ref()) else {
            return Ok(());
        };
        let (role, epoch) = (hosted.host.state().role(), hosted.host.state().leader_epoch().0);
        let leads =
            matches!(role, RoleKind::Activating | RoleKind::Active | RoleKind::Draining | RoleKind::Released);
        if role == RoleKind::Released && self.judge.released(epoch) {
            self.summary.transfers += 1;
        }
        if leads { self.judge.leads(id, epoch) } else { Ok(()) }
    }

    /// Whoever answers where the committed log ends must know of everything that was acknowledged before.
    pub(super) fn ask_latest(&mut self, id: usize) -> Result<(), String> {
        if self.nodes[id].paused_until_ns > self.now_ns {
            return Ok(());
        }
        let now = self.nodes[id].now(self.now_ns);
        let Some(running) = &self.nodes[id].running else { return Ok(()) };
        let Some(hosted) = &running.hosted else { return Ok(()) };
        match hosted.host.state().check_latest(now.monotonic_ns, running.lease()) {
            Ok(end) => {
                self.summary.reads += 1;
                self.judge.read(id, end)
            }
            Err(_) => Ok(()),
        }
    }

    /// I10: at the instant of the acknowledgement every member of the ISR that lives has the batch as it must.
    pub(super) fn hold_copies(&self, id: usize, wait: &Waiting) -> Result<(), String> {
        let far = |node: &Node| node.running.as_ref().map_or(Offset(0), Running::counting);
        let has = |id: usize| far(&self.nodes[id]) > wait.last_offset;
        let hosted = self.nodes[id].running.as_ref().and_then(|running| running.hosted.as_ref());
        let Some(state) = hosted.and_then(|hosted| hosted.host.state().state()) else { return Ok(()) };
        let lives = |id: usize, member: &pelton_model::IsrMember| {
            let running = self.nodes[id].running.as_ref();
            running.is_some_and(|running| {
                running.member.lease().epoch() == Some(member.epoch.node_epoch) && running.hosted.is_some()
            })
        };
        // Copies of those that have since lost their process do not show; the others must.
        let lacking = state.isr.iter().find(|member| {
            let id = node_of(member.replica);
            lives(id, member) && !has(id)
        });
        match lacking {
            Some(member) => Err(format!("I10: {wait:?} acknowledged, {member:?} lacks it")),
            None => Ok(()),
        }
    }

    /// What nodes hold for committed is the same on all, now and later.
    pub(super) fn audit(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.auditing, true) {
            return Ok(());
        }
        for id in 0..NODES {
            let Some(running) = &self.nodes[id].running else { continue };
            let Some(hosted) = &running.hosted else { continue };
            let end = hosted.host.state().high_watermark().min(running.end(hosted.slot));
            let life = self.nodes[id].life;
            let log = self.read_log(id, end)?;
            if self.nodes[id].life == life
                && let Ok(log) = log
            {
                self.judge.committed(id, &log, end)?;
            }
        }
        self.auditing = false;
        Ok(())
    }

    /// Each log, read alone, has every acknowledged batch once at its place, and all are the same.
    pub(super) fn final_judgement(&mut self) -> Result<(), String> {
        for id in 0..NODES {
            let running = self.nodes[id].running.as_ref();
            let end = running.and_then(|running| Some(running.end(running.hosted.as_ref()?.slot)));
            let end = end.ok_or_else(|| format!("node {id} is gone"))?;
            let mut log = self.read_log(id, end)?;
            if log.is_err() {
                // Its first segments may have been let go of at that moment.
                log = self.read_log(id, end)?;
            }
            let log = log.map_err(|why| format!("node {id} cannot be read: {why}"))?;
            self.judge.committed(id, &log, end)?;
            self.judge.judge(id, &log)?;
        }
        Ok(())
    }

    /// The batches of a log that begin before `end`; inner error: it cannot be read now, and why.
    fn read_log(&mut self, id: usize, end: Offset) -> Result<Result<Vec<Stored>, String>, String> {
        let gone = || Ok(Err("the node has ended".to_string()));
        let (mut found, life, mut next) = (Vec::new(), self.nodes[id].life, None);
        while next.is_none_or(|next| next < end) {
            let Some(running) = self.nodes[id].running.as_mut() else { return gone() };
            let Some(slot) = running.hosted.as_ref().map(|hosted| hosted.slot) else { return gone() };
            let from = next.unwrap_or_else(|| running.storage.base_offset(slot));
            if from >= end {
                break;
            }
            let Running { storage, disk, .. } = running;
            let batches = match storage.start_read_of_all(slot, from, 9_000, end, true, true, disk) {
                Ok(ReadStart::Ready(plan)) => node::in_memory(plan),
                Ok(ReadStart::Pending(token)) => {
                    self.after(id)?;
                    let until = self.now_ns + 10 * SECOND;
                    let over = |world: &World| {
                        let node = &world.nodes[id];
                        node.life != life || node.running.as_ref().is_none_or(|r| r.has_read(token))
                    };
                    self.run_until(until, over)?;
                    let lives = self.nodes[id].life == life;
                    let running = self.nodes[id].running.as_mut().filter(|_| lives);
                    match running.and_then(|running| running.take_read(token)) {
                        Some(Ok(read)) => read,
                        // Its segment may be gone by now.
                        Some(Err(text)) => return Ok(Err(text)),
                        None => return gone(),
                    }
                }
                Err(error) => return Ok(Err(format!("{error:?} at {from:?}"))),
            };
            let before = found.len();
            for bytes in batches {
                found.extend(judge::stored(&bytes)?);
            }
            if found.len() == before {
                // What is not in a group yet cannot be read.
                return Ok(Err(format!("nothing at {from:?}, wanted up to {end:?}")));
            }
            next = found.last().map(|stored| Offset(stored.last_offset + 1));
        }
        Ok(Ok(found))
    }
}
