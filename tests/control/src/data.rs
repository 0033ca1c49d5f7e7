//! What partitions would do with the metadata: leaders append and replicate, move the high watermark by the maximal ISR,
//! and ask for other ISRs; followers cut and follow. Coarse on purpose: data crosses in an instant where a link is whole,
//! and every record is on stable storage at once. It shows whether elections keep what was acknowledged.

use pelton_cluster::control::asks::Ask;
use pelton_cluster::control::isr::{Asker, IsrChange};
use pelton_model::{IsrMember, PartitionKey, PartitionState, Replica, ShardId};

use crate::node::{Acked, Waiting, place};
use crate::world::World;

/// Replicas in sync that every topic here asks for.
pub const MIN_ISR: usize = 2;

impl World {
    /// Something happens in one partition that this node believes to lead.
    pub fn data(&mut self, id: usize) -> Result<(), String> {
        if self.now < self.nodes[id].paused_until {
            return Ok(());
        }
        let Some(member) = &self.nodes[id].member else { return Ok(()) };
        let node = self.nodes[id].id;
        let led: Vec<(PartitionKey, PartitionState)> = member
            .image()
            .partitions()
            .filter(|(_, partition)| partition.leader.is_some_and(|leader| leader.node == node))
            .map(|(key, partition)| (key, partition.state()))
            .collect();
        if led.is_empty() {
            return Ok(());
        }
        let (key, state) = led[self.prng.below(led.len() as u64) as usize].clone();
        let Some(me) = state.leader else { return Ok(()) };
        let shard = me.shard;
        self.lead(id, key, shard, &state);
        let serves = self.nodes[id].serves(self.now, key);
        if serves {
            self.append(id, key, shard, &state)?;
        }
        for replica in &state.replicas {
            if *replica != me && self.prng.below(4) != 0 {
                self.replicate(id, key, shard, &state, *replica);
            }
        }
        if serves {
            self.move_high_watermark(id, key, &state, me)?;
        }
        self.tend_isr(id, key, &state, me);
        Ok(())
    }

    fn lead(&mut self, id: usize, key: PartitionKey, shard: ShardId, state: &PartitionState) {
        let log = self.nodes[id].logs.entry((key, shard)).or_default();
        if log.epoch != state.leader_epoch || log.acked.is_empty() && log.epoch_start == 0 {
            log.epoch = state.leader_epoch;
            log.epoch_start = log.records.len();
            log.acked.clear();
            log.proposed = None;
            log.high_watermark = 0;
        }
        if log.handed_over.is_some_and(|epoch| epoch != state.partition_epoch) {
            log.handed_over = None;
        }
        // A proposal that cannot happen any more: the partition has moved on.
        if log.proposed.as_ref().is_some_and(|change| change.partition_epoch != state.partition_epoch) {
            log.proposed = None;
        }
    }

    fn append(
        &mut self,
        id: usize,
        key: PartitionKey,
        shard: ShardId,
        state: &PartitionState,
    ) -> Result<(), String> {
        let node = self.nodes[id].id;
        let log = self.nodes[id].logs.entry((key, shard)).or_default();
        // Where clocks are worse than promised an old leader may believe it serves; it still cannot acknowledge.
        if self.leases_exclusive {
            self.oracle.complete(node, key, &log.records)?;
        }
        if log.records.len() < 400 && state.isr.len() >= MIN_ISR {
            self.records += 1;
            log.records.push((state.leader_epoch, self.records));
        }
        Ok(())
    }

    /// A follower that agrees on who leads cuts what the leader does not have, takes the rest, and tells how far it is.
    fn replicate(
        &mut self,
        id: usize,
        key: PartitionKey,
        shard: ShardId,
        state: &PartitionState,
        to: Replica,
    ) {
        let at = to.node.0 as usize;
        if (at, to.shard) == (id, shard)
            || at >= self.nodes.len()
            || !self.linked(id, at)
            || !self.linked(at, id)
        {
            return;
        }
        let follower = &self.nodes[at];
        let Some(epoch) = follower.replica_epoch(to) else { return };
        if self.now < follower.paused_until {
            return;
        }
        let agrees = follower.member.as_ref().and_then(|member| member.image().partition(key)).is_some_and(
            |partition| partition.leader == state.leader && partition.leader_epoch == state.leader_epoch,
        );
        if !agrees {
            return;
        }
        let theirs = self.nodes[id].logs[&(key, shard)].records.clone();
        let log = self.nodes[at].logs.entry((key, to.shard)).or_default();
        let common = log.records.iter().zip(&theirs).take_while(|(mine, theirs)| mine == theirs).count();
        log.records.truncate(common);
        log.epoch = state.leader_epoch;
        let end = common + self.prng.below((theirs.len() - common) as u64 + 2) as usize;
        log.records.extend_from_slice(&theirs[common..end.min(theirs.len())]);
        let end = log.records.len();
        self.nodes[id].logs.entry((key, shard)).or_default().acked.insert(to, Acked { epoch, end });
    }

    fn end_of(&self, id: usize, key: PartitionKey, me: Replica, member: &IsrMember) -> Option<usize> {
        let log = &self.nodes[id].logs[&(key, me.shard)];
        if member.replica == me {
            let lives = self.nodes[id].replica_epoch(me) == Some(member.epoch);
            return lives.then_some(log.records.len());
        }
        log.acked.get(&member.replica).filter(|acked| acked.epoch == member.epoch).map(|acked| acked.end)
    }

    fn move_high_watermark(
        &mut self,
        id: usize,
        key: PartitionKey,
        state: &PartitionState,
        me: Replica,
    ) -> Result<(), String> {
        if state.isr.len() < MIN_ISR {
            return Ok(());
        }
        let proposed = self.nodes[id].logs[&(key, me.shard)].proposed.clone();
        let maximal = state.isr.iter().chain(proposed.iter().flat_map(|change| &change.isr));
        let ends: Option<Vec<usize>> = maximal.map(|member| self.end_of(id, key, me, member)).collect();
        let Some(end) = ends.and_then(|ends| ends.into_iter().min()) else { return Ok(()) };
        let node = self.nodes[id].id;
        let log = self.nodes[id].logs.entry((key, me.shard)).or_default();
        if end > log.high_watermark {
            log.high_watermark = end;
            let records = log.records[..end].to_vec();
            self.oracle.acknowledge(node, key, &records)?;
        }
        Ok(())
    }

    /// Asks for another ISR: without someone who lags or lives another life, or with someone who has caught up.
    fn tend_isr(&mut self, id: usize, key: PartitionKey, state: &PartitionState, me: Replica) {
        let log = &self.nodes[id].logs[&(key, me.shard)];
        // A change whose fate is unknown is asked for again until it is known.
        let change = match &log.proposed {
            Some(change) if self.prng.one_in(8) => Some(change.clone()),
            Some(_) => None,
            None => {
                let Some(isr) = self.wanted_isr(id, key, state, me) else { return };
                let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
                Some(IsrChange { key, leader_epoch, partition_epoch, isr })
            }
        };
        let Some(change) = change else { return };
        let Some(member) = &self.nodes[id].member else { return };
        let Some(epoch) = member.lease().epoch() else { return };
        let asker = Asker { node: self.nodes[id].id, epoch };
        self.nodes[id].logs.entry((key, me.shard)).or_default().proposed = Some(change.clone());
        let token = self.nodes[id].token(Waiting::Isr(change.clone()));
        self.ask(id, token, Ask::AlterIsr { asker, changes: vec![change] });
    }

    fn wanted_isr(
        &mut self,
        id: usize,
        key: PartitionKey,
        state: &PartitionState,
        me: Replica,
    ) -> Option<Vec<IsrMember>> {
        let mut isr = state.isr.clone();
        for replica in &state.replicas {
            if *replica == me {
                continue;
            }
            let log = &self.nodes[id].logs[&(key, me.shard)];
            let acked = log.acked.get(replica).copied();
            let in_sync = state.isr_epoch(*replica);
            let caught_up = acked.is_some_and(|acked| acked.end >= log.high_watermark.max(log.epoch_start));
            match (in_sync, acked) {
                (None, Some(acked)) if caught_up => {
                    isr.push(IsrMember { replica: *replica, epoch: acked.epoch });
                    return Some(isr);
                }
                (Some(epoch), acked) => {
                    // Once faults have ended, whoever follows at all will catch up.
                    let alive = acked.is_some_and(|acked| {
                        acked.epoch == epoch && (self.healed || acked.end >= log.records.len())
                    });
                    if !alive && self.prng.one_in(12) {
                        isr.retain(|member| member.replica != *replica);
                        return Some(isr);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The controller wants a leadership handed over: stop, let the target have everything, say so (rule R12).
    pub fn hand_over(&mut self, id: usize, key: PartitionKey, to: Replica) {
        let Some(member) = &self.nodes[id].member else { return };
        let Some(partition) = member.image().partition(key) else { return };
        let state = partition.state();
        let Some(me) = state.leader.filter(|leader| leader.node == self.nodes[id].id) else { return };
        let shard = me.shard;
        let Some(epoch) = member.lease().epoch() else { return };
        if !self.nodes[id].logs.contains_key(&(key, shard)) {
            return;
        }
        self.nodes[id].logs.entry((key, shard)).or_default().handed_over = Some(state.partition_epoch);
        (0..4).for_each(|_| self.replicate(id, key, shard, &state, to));
        let log = &self.nodes[id].logs[&(key, shard)];
        let asker = Asker { node: self.nodes[id].id, epoch };
        let partition_epoch = state.partition_epoch;
        let complete = log.acked.get(&to).is_some_and(|acked| acked.end == log.records.len());
        let ask = if complete {
            Ask::HandedOver { asker, key, partition_epoch, to }
        } else {
            Ask::Reclaim { asker, key, partition_epoch }
        };
        let token = self.nodes[id].token(Waiting::HandedOver);
        self.ask(id, token, ask);
    }

    /// A hand-over whose answer is missing: the leader wants to go on.
    pub fn reclaim(&mut self, id: usize) {
        let node = &self.nodes[id];
        let Some(epoch) = node.member.as_ref().and_then(|member| member.lease().epoch()) else { return };
        let stopped: Vec<_> =
            node.logs.iter().filter_map(|((key, _), log)| Some((*key, log.handed_over?))).collect();
        for (key, partition_epoch) in stopped {
            let asker = Asker { node: self.nodes[id].id, epoch };
            let token = self.nodes[id].token(Waiting::HandedOver);
            self.ask(id, token, Ask::Reclaim { asker, key, partition_epoch });
        }
    }

    /// Somewhere else for a partition to be.
    pub fn random_target(&mut self, count: usize) -> Vec<Replica> {
        let mut ids: Vec<usize> = (0..self.nodes.len()).collect();
        let mut target = Vec::new();
        while target.len() < count && !ids.is_empty() {
            let at = ids.swap_remove(self.prng.below(ids.len() as u64) as usize);
            target.push(place(self.nodes[at].id, self.prng.below(2) as u16));
        }
        target
    }
}
