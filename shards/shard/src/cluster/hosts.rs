//! Carries events to the replicas a shard hosts, and performs what they want of others.

use bytes::Bytes;
use pelton_cluster::control::isr::IsrChange;
use pelton_log::{CommitPoint, PartitionSlot, ReadPlan, ReadToken};
use pelton_model::{
    LeaderEpoch, NodeEpoch, Now, Offset, PartitionEpoch, PartitionKey, PartitionState, Replica, ReplicaEpoch,
};
use pelton_replica::epochs::EpochCache;
use pelton_replica::lease::Lease;
use pelton_replica::partition::{AckState, Partition, RoleKind};
use pelton_replica::producers::Producers;
use pelton_wire::error_code::ErrorCode;

use super::{Cluster, Sabotage};
use crate::Shard;
use crate::control::CONTROLLER;
use crate::effect::{Effect, LogLevel};
use crate::message::ShardMessage;
use crate::partitions::Route;
use crate::replica_host::{HostEffect, HostTurn, ReplicaHost};

/// A partition as its readers see it, sole or replicated.
pub(crate) struct Readable<'a> {
    /// Who leads, and how far it is committed.
    pub(crate) state: &'a Partition,
    /// Idempotent producers.
    pub(crate) producers: &'a Producers,
    /// Leader epochs.
    pub(crate) epochs: &'a EpochCache,
    /// The topic's settings.
    pub(crate) config: &'a pelton_model::TopicConfig,
}

/// A replica of a partition of a cluster, for metrics and for those who ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaReport {
    /// Which partition.
    pub key: PartitionKey,
    /// Where its log is kept: another one for a replica that was away.
    pub slot: PartitionSlot,
    /// What it is.
    pub role: RoleKind,
    /// The leader epoch it knows.
    pub leader_epoch: LeaderEpoch,
    /// Up to where it knows the log to be committed.
    pub high_watermark: Offset,
    /// Where its log ends.
    pub log_end_offset: Offset,
    /// Replicas in sync, as far as it knows.
    pub isr_size: usize,
    /// The record of the partition that it knows, by the count of its changes.
    pub partition_epoch: PartitionEpoch,
}

impl Shard {
    /// The replicas this shard hosts.
    pub fn replicas(&self) -> Vec<ReplicaReport> {
        let hosted = self.partitions.hosted_slots().into_iter().filter_map(|slot| {
            let hosted = self.partitions.hosted(slot)?;
            let state = hosted.host.state();
            Some(ReplicaReport {
                key: hosted.key,
                slot,
                role: state.role(),
                leader_epoch: state.leader_epoch(),
                high_watermark: state.high_watermark(),
                log_end_offset: self.storage.log_end_offset(slot),
                isr_size: state.isr_size().max(0) as usize,
                partition_epoch: state.state().map_or(PartitionEpoch(-1), |state| state.partition_epoch),
            })
        });
        hosted.collect()
    }

    /// The record of a partition as the replica in this slot knows it; none if it has heard of none.
    pub fn partition_state(&self, slot: PartitionSlot) -> Option<&PartitionState> {
        self.partitions.hosted(slot)?.host.state().state()
    }

    /// The life that this shard's replicas are in, once the metadata know of it.
    pub fn replica_epoch(&self) -> Option<ReplicaEpoch> {
        self.cluster.as_ref()?.life
    }

    /// The shard's lease holds at this instant.
    pub fn holds_lease(&self, now: Now) -> bool {
        self.lease().valid(now.monotonic_ns)
    }

    /// This node leads the quorum. Shard 0 knows.
    pub fn leads_quorum(&self) -> bool {
        let seat = self.cluster.as_ref().and_then(|cluster| cluster.seat.as_ref());
        seat.is_some_and(|seat| seat.member.leader() == Some(self.config.node_id))
    }

    /// This shard's lease; a single node needs none.
    pub(crate) fn lease(&self) -> Lease {
        self.cluster.as_ref().map_or(Lease::UNLIMITED, |cluster| cluster.lease())
    }

    /// A partition of this shard; whether it may be read now is its state's to say.
    pub(crate) fn readable(&self, slot: PartitionSlot) -> Option<Readable<'_>> {
        if let Some(local) = self.partitions.local(slot) {
            let (state, producers) = (&local.state, &local.producers);
            return Some(Readable { state, producers, epochs: &local.epochs, config: &local.config });
        }
        let hosted = self.partitions.hosted(slot)?;
        let host = &hosted.host;
        let (state, producers) = (host.state(), host.producers());
        Some(Readable { state, producers, epochs: host.epochs(), config: &hosted.config })
    }

    /// A replica that a consumer wants to read: its epoch is compared before anybody is told that it does not lead, as Kafka
    /// does.
    pub(crate) fn hosted_for_read(
        &self,
        now: Now,
        slot: PartitionSlot,
        any_replica: bool,
    ) -> Result<&ReplicaHost, ErrorCode> {
        let hosted = self.partitions.hosted(slot).ok_or(ErrorCode::NotLeaderOrFollower)?;
        self.check_hosted_read(now, slot, any_replica)?;
        Ok(&hosted.host)
    }

    /// Whether a consumer may read a replicated partition now (rules L8, R8), of its leader or of any replica (KIP-392).
    pub(crate) fn check_hosted_read(
        &self,
        now: Now,
        slot: PartitionSlot,
        any_replica: bool,
    ) -> Result<(), ErrorCode> {
        let Some(hosted) = self.partitions.hosted(slot) else { return Ok(()) };
        let (state, now_ns, lease) = (hosted.host.state(), now.monotonic_ns, self.lease());
        match any_replica {
            true => state.check_follower_read(now_ns, lease).map(drop),
            false => state.check_read(now_ns, lease).map(drop),
        }
    }

    /// Hands an event to a host and performs what follows; none if there is no host.
    pub(super) fn with_host<R>(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        out: &mut Vec<Effect>,
        event: impl FnOnce(&mut ReplicaHost, &mut HostTurn<'_>) -> R,
    ) -> Option<R> {
        let (key, result) = self.host_turn(now, slot, event)?;
        let effects = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.effects));
        self.emit_disk(out);
        for effect in effects.into_iter().flatten() {
            self.perform_host(now, slot, key, effect, out);
        }
        Some(result)
    }

    /// Hands an event to a host; what follows is left in the cluster's list.
    fn host_turn<R>(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        event: impl FnOnce(&mut ReplicaHost, &mut HostTurn<'_>) -> R,
    ) -> Option<(PartitionKey, R)> {
        let Shard { cluster: Some(cluster), partitions, storage, disk, .. } = self else { return None };
        let hosted = partitions.hosted_mut(slot)?;
        let lease = cluster.lease();
        let (throttle, out) = (&mut cluster.throttle, &mut cluster.effects);
        let mut turn = HostTurn { now, lease, storage, disk, throttle, out };
        let result = event(&mut hosted.host, &mut turn);
        cluster.note(slot, hosted);
        Some((hosted.key, result))
    }

    /// As [`Shard::with_host`], but what follows is performed at the end of the turn.
    pub(super) fn with_host_later<R>(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        event: impl FnOnce(&mut ReplicaHost, &mut HostTurn<'_>) -> R,
    ) -> Option<R> {
        let (key, result) = self.host_turn(now, slot, event)?;
        let cluster = self.cluster.as_mut()?;
        cluster.later.extend(cluster.effects.drain(..).map(|effect| (slot, key, effect)));
        Some(result)
    }

    fn perform_host(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        key: PartitionKey,
        effect: HostEffect,
        out: &mut Vec<Effect>,
    ) {
        match effect {
            HostEffect::Send { to, frame, batches } => self.send_to_peer(to, &frame, batches, out),
            HostEffect::HighWatermark(offset) => {
                self.settle_later(slot);
                self.advance_group(now, slot, offset.0, out);
                self.wake_fetches(now, slot, out);
            }
            HostEffect::ProposeIsr(proposal) => {
                let change = IsrChange {
                    key,
                    leader_epoch: proposal.leader_epoch,
                    partition_epoch: proposal.partition_epoch,
                    isr: proposal.isr,
                };
                self.tell_controller_shard(now, ShardMessage::ProposeIsr { change }, out);
            }
            HostEffect::Release { target, partition_epoch, .. } => {
                let message = ShardMessage::HandOver { key, partition_epoch, to: target };
                self.tell_controller_shard(now, message, out);
            }
            HostEffect::TransferCancelled { .. } => {}
            HostEffect::Resigned => self.resign(now, slot, "the partition is led by another broker now", out),
            HostEffect::Faulted(fault) => {
                self.log_error(out, format!("the replica of {key} is of no use: {fault}"));
            }
            HostEffect::LostDurable { replica, acknowledged, log_end } => {
                let (had, has) = (acknowledged.0, log_end.0);
                let text = format!(
                    "{key}: replica {replica} had acknowledged offset {had} as on stable storage and ends at {has}; \
                     its disk has lost what it was told to keep"
                );
                self.log_error(out, text);
            }
        }
    }

    /// Something that shard 0 has to hear.
    fn tell_controller_shard(&mut self, now: Now, message: ShardMessage, out: &mut Vec<Effect>) {
        match self.id == CONTROLLER {
            true => self.handle_cluster_message(now, self.id, message, out),
            false => out.push(Effect::ToShard { to: CONTROLLER, message }),
        }
    }

    /// Producers that wait for the partition may be answered.
    pub(super) fn settle_later(&mut self, slot: PartitionSlot) {
        if let Some(cluster) = &mut self.cluster {
            cluster.to_settle.insert(slot);
        }
    }

    /// The log of a replica has moved.
    pub(crate) fn advance_hosted(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        if self.with_host(now, slot, out, |host, turn| host.handle_progress(turn)).is_some() {
            self.settle_later(slot);
        }
    }

    /// There may be room in the log again.
    pub(crate) fn room_for_hosts(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = &self.cluster else { return };
        for slot in cluster.starved.clone() {
            self.with_host(now, slot, out, |host, turn| host.handle_room(turn));
        }
    }

    /// The leader forgets records below `offset`, which are committed; none if it cannot now.
    pub(crate) fn drop_hosted_before(
        &mut self,
        now: Now,
        key: PartitionKey,
        offset: Offset,
        out: &mut Vec<Effect>,
    ) -> Option<CommitPoint> {
        let slot = self.hosted_slot(key)?;
        self.with_host(now, slot, out, |host, turn| host.drop_before(Some(offset), turn))?
    }

    /// Retention, by the leader: followers' logs begin where its does.
    pub(crate) fn retain_hosted(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        if self.hosted_leadership(slot).is_some() {
            self.with_host(now, slot, out, |host, turn| host.drop_before(None, turn));
        }
    }

    /// The log of a replica was cut.
    pub(crate) fn handle_cut(&mut self, now: Now, slot: PartitionSlot, end: Offset, out: &mut Vec<Effect>) {
        self.with_host(now, slot, out, |host, turn| host.handle_cut(end, turn));
    }

    /// A read of a log is done. False: it was not one for a follower.
    pub(crate) fn handle_host_read(
        &mut self,
        now: Now,
        token: ReadToken,
        plan: &Result<ReadPlan, String>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let reading: Vec<PartitionSlot> = cluster.reading.iter().copied().collect();
        reading.into_iter().any(|slot| {
            self.with_host(now, slot, out, |host, turn| host.handle_read(token, plan, turn)) == Some(true)
        })
    }

    /// The device failed: replicas here give up, and the controller hears of it.
    pub(crate) fn fail_hosts(&mut self, now: Now, text: &str, out: &mut Vec<Effect>) {
        for slot in self.partitions.hosted_slots() {
            self.with_host(now, slot, out, |host, turn| host.handle_storage_failure(text, turn));
        }
        if self.cluster.is_some() {
            self.tell_controller_shard(now, ShardMessage::ShardFailed, out);
        }
    }

    /// The disk is full, or is not any more: what is led here is led elsewhere as far as it can be, and nobody waits for replicas
    /// here.
    pub(crate) fn look_at_space(&mut self, now: Now, out: &mut Vec<Effect>) {
        let full = self.storage.is_full();
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.full != full) else { return };
        cluster.full = full;
        for slot in self.partitions.hosted_slots() {
            self.with_host(now, slot, out, |host, turn| host.handle_space(turn));
        }
        let what = match full {
            true => "hands over what it leads to replicas with space, as long as its disk is full",
            false => "has space again",
        };
        self.say(out, &format!("shard {} {what}", self.id.0));
    }

    /// Does what is due.
    pub(crate) fn tick_cluster(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.lapse_ns.is_some_and(|ns| ns <= now.monotonic_ns) {
            cluster.lapse_ns = None;
            cluster.to_settle.extend(cluster.by_key.values());
        }
        let due: Vec<PartitionSlot> = cluster
            .deadlines
            .iter()
            .take_while(|(due, _)| *due <= now.monotonic_ns)
            .map(|(_, slot)| *slot)
            .collect();
        for slot in due {
            self.with_host(now, slot, out, |host, turn| host.handle_tick(turn));
            self.settle_later(slot);
        }
        self.tick_member(now, out);
    }

    /// Before the log ends its turn: answers what may be answered, and asks the controller.
    pub(crate) fn begin_cluster_end(&mut self, now: Now, out: &mut Vec<Effect>) {
        let later = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.later));
        for (slot, key, effect) in later.into_iter().flatten() {
            self.perform_host(now, slot, key, effect, out);
        }
        self.end_member_turn(now, out);
        let Some(cluster) = &mut self.cluster else { return };
        let lease = cluster.lease();
        let at_once = cluster.sabotaged(Sabotage::SettleAtOnce);
        let slots = std::mem::take(&mut cluster.to_settle);
        let mut done = Vec::new();
        for slot in slots {
            let Some(hosted) = self.partitions.hosted(slot) else { continue };
            let (host, storage) = (&hosted.host, &self.storage);
            let epoch = host.state().leader_epoch();
            // Whoever waits was accepted under this epoch: at its end all were told.
            self.acks.settle(
                slot,
                |acks, last| match at_once {
                    true => AckState::Done,
                    false => host.ack_state(Offset(last), epoch, acks, storage, now, lease),
                },
                &mut done,
            );
        }
        self.finish_produces(&mut done, out);
    }

    /// After the log has ended its turn: what followers wait for is read and sent.
    pub(crate) fn end_cluster_turn(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        for slot in std::mem::take(&mut cluster.to_feed) {
            self.with_host(now, slot, out, |host, turn| host.end_turn(turn));
        }
    }

    /// The node's lease, and what it says of earlier leaders.
    pub(super) fn apply_lease(
        &mut self,
        now: Now,
        until_ns: u64,
        released: u64,
        node_epoch: Option<NodeEpoch>,
        out: &mut Vec<Effect>,
    ) {
        if self.stopping {
            return;
        }
        let Some(cluster) = &mut self.cluster else { return };
        let lapsed = !cluster.lease.valid(now.monotonic_ns);
        cluster.lease = Lease::until(until_ns);
        cluster.lapse_ns = (until_ns > now.monotonic_ns).then_some(until_ns);
        let holds = cluster.lease.valid(now.monotonic_ns);
        let moved = released > cluster.released;
        cluster.released = cluster.released.max(released);
        let news = cluster.node_epoch != node_epoch;
        cluster.node_epoch = node_epoch;
        if news {
            self.look_at_life(now, out);
        }
        if moved {
            self.release(now, out);
        }
        if lapsed && holds {
            for slot in self.partitions.hosted_slots() {
                self.advance_hosted(now, slot, out);
            }
        }
    }

    /// Leaders whose predecessors are gone begin to answer.
    fn release(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.wait_floor > cluster.released {
            return;
        }
        let released = cluster.released;
        cluster.waits.retain(|_, index| *index > released);
        let Cluster { by_key, waits, .. } = &**cluster;
        let free: Vec<PartitionSlot> =
            by_key.iter().filter(|(key, _)| !waits.contains_key(key)).map(|(_, slot)| *slot).collect();
        for slot in free {
            let Some(hosted) = self.partitions.hosted(slot) else { continue };
            if hosted.host.state().role() == RoleKind::Activating {
                let epoch = hosted.host.state().leader_epoch();
                self.with_host(now, slot, out, |host, turn| host.handle_predecessor_gone(epoch, turn));
                self.settle_later(slot);
            }
        }
    }

    /// The controller has refused an ISR.
    pub(super) fn handle_isr_refused(
        &mut self,
        now: Now,
        key: PartitionKey,
        partition_epoch: PartitionEpoch,
        out: &mut Vec<Effect>,
    ) {
        if let Some(slot) = self.hosted_slot(key) {
            self.with_host(now, slot, out, |host, turn| host.handle_proposal_refused(partition_epoch, turn));
        }
    }

    /// The controller wants another leader.
    pub(super) fn handle_transfer(
        &mut self,
        now: Now,
        key: PartitionKey,
        leader_epoch: LeaderEpoch,
        to: Replica,
        out: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.hosted_slot(key) else { return };
        self.with_host(now, slot, out, |host, turn| {
            if host.state().leader_epoch() == leader_epoch {
                host.handle_transfer(to, turn);
            }
        });
    }

    /// The slot of a replica here, whether or not it leads; none on a single node.
    pub(crate) fn hosted_slot(&self, key: PartitionKey) -> Option<PartitionSlot> {
        self.cluster.as_ref()?.by_key.get(&key).copied()
    }

    /// Where this node has a replica of a partition of a cluster, whether or not it leads: here, or on which of its shards.
    pub(crate) fn replica_route(&self, key: PartitionKey) -> Option<Route> {
        let cluster = self.cluster.as_ref()?;
        if let Some(slot) = self.hosted_slot(key) {
            return Some(Route::Local(slot));
        }
        let replicas = &self.image.partition(key)?.replicas;
        let there =
            replicas.iter().find(|replica| replica.node == cluster.me.node && **replica != cluster.me)?;
        Some(Route::Foreign(there.shard))
    }

    /// A line for the operator.
    pub(super) fn say(&self, out: &mut Vec<Effect>, text: &str) {
        let text = format!("shard {}: {text}", self.id.0);
        out.push(Effect::Log { level: LogLevel::Info, text });
    }
}

/// Batches as one piece; mostly they are.
pub(super) fn joined(mut batches: Vec<Bytes>) -> Bytes {
    match batches.len() {
        0 => Bytes::new(),
        1 => batches.swap_remove(0),
        _ => Bytes::from(batches.concat()),
    }
}
