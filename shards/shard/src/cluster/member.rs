//! Shard 0's seat in the quorum: gives the node's member its events, keeps its records in the shard's journal, hands what it
//! says to the shards of the node.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_cluster::control::ControlConfig;
use pelton_cluster::control::asks::{Answer, Ask, Token};
use pelton_cluster::control::isr::{Asker, IsrChange, IsrRefusal};
use pelton_cluster::member::{Member, MemberConfig, MemberEffect, directory_number};
use pelton_cluster::node_message::ISR_CHANGES_MAX;
use pelton_cluster::quorum::journal::{restore, snapshot_records, state_records};
use pelton_cluster::quorum::{QuorumConfig, bootstrap};
use pelton_cluster::record::decode_records;
use pelton_log::CommitPoint;
use pelton_model::{BrokerConfig, NodeId, Now, PartitionEpoch, PartitionKey, Replica, ShardId};

use super::pulse::Pulses;
use super::{ClusterConfig, cluster_number};
use crate::Shard;
use crate::control::{Begins, CONTROLLER, ControlOrigin};
use crate::effect::Effect;
use crate::message::ShardMessage;

/// An answer that has not come after this is not waited for any more, nanoseconds.
const FORGET_NS: u64 = 30_000_000_000;

/// What a shard wants of the controller and nobody was it is asked again with each tick for so long, nanoseconds; then whoever wants
/// it has said it again.
const REPEAT_NS: u64 = 400_000_000;

/// What waits for an answer of the controller.
pub(super) enum Asked {
    /// Changes of ISRs: which shard wants which.
    Isr(Vec<(ShardId, IsrChange)>),
    /// A leadership handed over in this state of the partition, to whom.
    HandedOver(PartitionKey, PartitionEpoch, Replica),
    /// A change of metadata for a client.
    Plan(super::control::Planning),
    /// That this node has stopped serving.
    Farewell,
    /// Nobody.
    Nobody,
}

/// The node's member of the quorum, and what goes on around it.
pub(super) struct MemberSeat {
    pub(super) member: Member,
    effects: VecDeque<MemberEffect>,
    /// They are being performed, in order: what comes meanwhile is performed behind them.
    performing: bool,
    /// The records a new cluster starts from, until they are in the journal.
    first_records: Vec<Bytes>,
    started: bool,
    tick_ns: u64,
    tick_every_ns: u64,
    /// Writes of the member on their way to stable storage.
    persists: VecDeque<(u64, CommitPoint)>,
    /// How far each shard follows the metadata.
    follows: Vec<u64>,
    pub(super) asked: BTreeMap<Token, (u64, Asked)>,
    next_token: Token,
    /// What was asked of a node that was not, or is no longer, the controller, and when first.
    unheard: Vec<(u64, Asked)>,
    /// ISRs that shards want, since the last turn.
    proposals: Vec<(ShardId, IsrChange)>,
    /// Whether the other shards work, and what they know of the lease.
    pub(super) pulses: Pulses,
    /// Answers that wait until all shards of the node have applied the change.
    pub(super) answered: Vec<(u64, ControlOrigin, Bytes)>,
    /// Requests that are to be asked again, and when.
    pub(super) again: Vec<(u64, super::control::Planning)>,
    /// The node is to stop.
    pub(super) leaving: Option<super::stop::Leaving>,
}

impl MemberSeat {
    /// From what the disk of shard 0 has.
    pub(super) fn new(
        broker: &BrokerConfig,
        config: &ClusterConfig,
        snapshot: Option<&Bytes>,
        records: &[Bytes],
        seed: u64,
    ) -> Result<MemberSeat, String> {
        let number = cluster_number(&broker.cluster_id);
        let fresh = snapshot.is_none_or(Bytes::is_empty) && records.is_empty();
        let mut first_records = Vec::new();
        let restored = if fresh && config.voters.contains(&broker.node_id) {
            let restored = bootstrap(&config.voters);
            snapshot_records(&restored.snapshot, &mut first_records);
            state_records(&restored.hard, &[], &mut first_records);
            restored
        } else {
            restore(snapshot.map_or(&[][..], |snapshot| &snapshot[..]), records)
                .map_err(|error| error.to_string())?
        };
        let mut control = ControlConfig::new(number, broker.clone());
        control.lease = config.lease;
        let directory = directory_number(config.registration.directory);
        let member = MemberConfig {
            quorum: QuorumConfig::new(broker.node_id, number, directory),
            control,
            registration: config.registration.clone(),
            seeds: config.voters.clone(),
            tick_ms: config.tick_ms,
        };
        let mut member = Member::new(member, restored, seed)?;
        let applied = member.image().applied_offset();
        let mut follows = vec![0; usize::from(broker.shards)];
        follows[0] = applied;
        member.shards_follow(follows.iter().copied().min().unwrap_or(applied));
        Ok(MemberSeat {
            member,
            effects: VecDeque::new(),
            performing: false,
            first_records,
            started: false,
            tick_ns: 0,
            tick_every_ns: config.tick_ms.max(1) * 1_000_000,
            persists: VecDeque::new(),
            follows,
            asked: BTreeMap::new(),
            next_token: 0,
            unheard: Vec::new(),
            proposals: Vec::new(),
            pulses: Pulses::new(broker.shards, config.lease.ttl_ns()),
            answered: Vec::new(),
            again: Vec::new(),
            leaving: None,
        })
    }

    /// For a checkpoint of the shard.
    pub(super) fn checkpoint(&self) -> Vec<u8> {
        self.member.checkpoint()
    }

    /// When it wants a tick.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.started.then_some(self.tick_ns)
    }

    /// All shards of the node that work follow the metadata up to here.
    pub(super) fn followed(&self) -> u64 {
        let work = self.follows.iter().enumerate().filter(|(shard, _)| !self.pulses.is_stuck(*shard));
        work.map(|(_, index)| *index).min().unwrap_or(0)
    }

    pub(super) fn asker(&self, node: NodeId) -> Option<Asker> {
        self.member.lease().epoch().map(|epoch| Asker { node, epoch })
    }
}

impl Shard {
    pub(super) fn seat_mut(&mut self) -> Option<&mut MemberSeat> {
        self.cluster.as_mut()?.seat.as_deref_mut()
    }

    /// Gives the member an event, and performs what follows.
    pub(super) fn with_member(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        event: impl FnOnce(&mut Member, u64, &mut Vec<MemberEffect>),
    ) {
        if self.member_call(now, event) {
            self.perform_member(now, out);
        }
    }

    /// Only gives it the event: whoever calls performs.
    fn member_call(
        &mut self,
        now: Now,
        event: impl FnOnce(&mut Member, u64, &mut Vec<MemberEffect>),
    ) -> bool {
        if self.log_stopping() {
            return false;
        }
        let Some(seat) = self.seat_mut().filter(|seat| seat.started) else { return false };
        let mut effects = Vec::new();
        event(&mut seat.member, now.monotonic_ns, &mut effects);
        seat.effects.extend(effects);
        true
    }

    fn perform_member(&mut self, now: Now, out: &mut Vec<Effect>) {
        match self.seat_mut() {
            Some(seat) if !seat.performing => seat.performing = true,
            _ => return,
        }
        while let Some(effect) = self.seat_mut().and_then(|seat| seat.effects.pop_front()) {
            match effect {
                MemberEffect::Send { to, frame } => out.push(Effect::ToMember { node: to, bytes: frame }),
                MemberEffect::Persist { number, records } => {
                    let points: Vec<CommitPoint> =
                        records.into_iter().map(|record| self.storage.append_metadata(record)).collect();
                    if let Some(seat) = self.seat_mut() {
                        let before = seat.persists.back().map_or(CommitPoint(0), |(_, point)| *point);
                        seat.persists.push_back((number, points.last().copied().unwrap_or(before)));
                    }
                }
                MemberEffect::Changed { index, payload, .. } => self.apply_entry(now, index, &payload, out),
                MemberEffect::Replaced => {
                    let Some(seat) = self.seat_mut() else { continue };
                    let image = seat.member.image().clone();
                    self.replace_image(now, image, out);
                    self.spread_image(out);
                    self.note_follow(now, CONTROLLER, self.image.applied_offset(), out);
                }
                MemberEffect::Answer(token, answer) => self.handle_controller_answer(now, token, answer, out),
                MemberEffect::Plan(token, request) => {
                    let (records, response) = self.plan_for_cluster(now, &request);
                    self.member_call(now, |member, now_ns, effects| {
                        member.plan_made(now_ns, token, &records, response, effects);
                    });
                }
                MemberEffect::TransferAsked { key, leader_epoch, to, .. } => {
                    let Some(leader) = self.image.leader(key) else { continue };
                    let message = ShardMessage::Transfer { key, leader_epoch, to };
                    self.tell_shard(now, leader.shard, message, out);
                }
                MemberEffect::Failed(why) => out.push(Effect::Fatal { text: why }),
            }
        }
        if let Some(seat) = self.seat_mut() {
            seat.performing = false;
        }
        self.spread_lease(now, out);
    }

    fn apply_entry(&mut self, now: Now, index: u64, payload: &[u8], out: &mut Vec<Effect>) {
        let records = match decode_records(payload) {
            Ok(records) => records,
            Err(error) => {
                let text = format!("entry {index} of the metadata log: {error}");
                return out.push(Effect::Fatal { text });
            }
        };
        if self.config.shards > 1 {
            let encoded: Vec<Bytes> = records.iter().map(|record| Bytes::from(record.encode())).collect();
            for shard in (1..self.config.shards).map(ShardId) {
                let message = ShardMessage::MetadataUpdate { offset: index, records: encoded.clone() };
                out.push(Effect::ToShard { to: shard, message });
            }
        }
        self.apply_metadata(now, index, &records, out);
        self.note_follow(now, CONTROLLER, index, out);
    }

    /// A shard follows the metadata up to `index`.
    pub(crate) fn note_follow(&mut self, now: Now, shard: ShardId, index: u64, out: &mut Vec<Effect>) {
        let Some(seat) = self.seat_mut() else { return };
        if let Some(follows) = seat.follows.get_mut(usize::from(shard.0)) {
            *follows = index.max(*follows);
        }
        let followed = seat.followed();
        seat.member.shards_follow(followed);
        self.finish_answered(now, out);
    }

    /// To a shard of this node, also this one.
    fn tell_shard(&mut self, now: Now, to: ShardId, message: ShardMessage, out: &mut Vec<Effect>) {
        match to == self.id {
            true => self.handle_cluster_message(now, self.id, message, out),
            false => out.push(Effect::ToShard { to, message }),
        }
    }

    /// A frame of another node's member has come.
    pub(crate) fn handle_member_frame(
        &mut self,
        now: Now,
        from: NodeId,
        bytes: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let mut taken = None;
        self.with_member(now, out, |member, now_ns, effects| {
            taken = Some(member.receive(now_ns, from, bytes, effects));
        });
        match taken {
            Some(Ok(from)) => self.note_contact(now, from),
            Some(Err(refused)) => {
                self.log_error(out, format!("a frame of node {} is refused: {refused}", from.0));
            }
            None => {}
        }
    }

    /// The log's stable end has moved.
    pub(crate) fn advance_member(&mut self, now: Now, out: &mut Vec<Effect>) {
        let flushed = self.storage.flushed();
        let Some(seat) = self.seat_mut() else { return };
        let mut stable = None;
        while let Some((number, _)) = seat.persists.pop_front_if(|(_, point)| *point <= flushed) {
            stable = Some(number);
        }
        if let Some(number) = stable {
            self.with_member(now, out, |member, now_ns, effects| member.persisted(now_ns, number, effects));
        }
    }

    pub(super) fn tick_member(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(seat) = self.seat_mut().filter(|seat| seat.started) else { return };
        if seat.tick_ns > now.monotonic_ns {
            return;
        }
        seat.tick_ns = now.monotonic_ns + seat.tick_every_ns;
        seat.asked.retain(|_, (at, asked)| {
            matches!(asked, Asked::Plan(_)) || now.monotonic_ns < at.saturating_add(FORGET_NS)
        });
        self.with_member(now, out, |member, now_ns, effects| member.advance(now_ns, effects));
        self.attest_shards(now, out);
        self.ask_again(now, out);
        self.repeat_unheard(now, out);
    }

    /// The controller may be another by now.
    fn repeat_unheard(&mut self, now: Now, out: &mut Vec<Effect>) {
        let node = self.config.node_id;
        let Some(seat) = self.seat_mut() else { return };
        let Some(asker) = seat.asker(node) else { return };
        for (at, asked) in std::mem::take(&mut seat.unheard) {
            let ask = match &asked {
                Asked::Isr(changes) => {
                    let changes = changes.iter().map(|(_, change)| change.clone()).collect();
                    Ask::AlterIsr { asker, changes }
                }
                Asked::HandedOver(key, partition_epoch, to) => {
                    Ask::HandedOver { asker, key: *key, partition_epoch: *partition_epoch, to: *to }
                }
                _ => continue,
            };
            self.ask_since(now, at, asked, ask, out);
        }
    }

    /// Ends a turn: the member starts when the log is ready, and what shards want of the controller is asked at once.
    pub(super) fn end_member_turn(&mut self, now: Now, out: &mut Vec<Effect>) {
        let ready = self.storage.is_ready();
        let Some(seat) = self.seat_mut() else { return };
        if !seat.started && ready {
            seat.started = true;
            seat.tick_ns = now.monotonic_ns;
            for record in std::mem::take(&mut seat.first_records) {
                self.storage.append_metadata(record);
            }
        }
        let Some(seat) = self.seat_mut() else { return };
        let mut proposals = std::mem::take(&mut seat.proposals);
        // The last wish for each partition counts.
        proposals.reverse();
        let mut seen = std::collections::BTreeSet::new();
        proposals.retain(|(_, change)| seen.insert(change.key));
        while !proposals.is_empty() {
            let rest = proposals.split_off(proposals.len().min(ISR_CHANGES_MAX));
            self.ask_isr(now, std::mem::replace(&mut proposals, rest), out);
        }
        self.go_on_leaving(now, out);
        if self.storage.is_full() {
            self.with_member(now, out, |member, now_ns, effects| member.note_full(now_ns, effects));
        } else if let Some(seat) = self.seat_mut() {
            seat.member.note_room();
        }
        // Replies of the log may have come without an event of the member's.
        self.perform_member(now, out);
    }

    fn ask_isr(&mut self, now: Now, proposals: Vec<(ShardId, IsrChange)>, out: &mut Vec<Effect>) {
        let node = self.config.node_id;
        let Some(asker) = self.seat_mut().and_then(|seat| seat.asker(node)) else { return };
        let changes = proposals.iter().map(|(_, change)| change.clone()).collect();
        self.ask_member(now, Asked::Isr(proposals), Ask::AlterIsr { asker, changes }, out);
    }

    /// This node is the controller: begins what a request wants. What became of it the metadata and the quorum say.
    pub(super) fn begin(&mut self, now: Now, begins: Begins) {
        let Some(seat) = self.seat_mut() else { return };
        seat.next_token += 1;
        let token = seat.next_token;
        self.member_call(now, |member, now_ns, effects| match begins {
            Begins::Transfer(key) => member.ask(now_ns, token, Ask::ElectPreferred { key }, effects),
            // Busy is no fault of anybody's: whoever waits is told when it has taken too long.
            Begins::Members(change) => drop(member.change_members(now_ns, &[change], effects)),
        });
    }

    pub(super) fn ask_member(&mut self, now: Now, asked: Asked, ask: Ask, out: &mut Vec<Effect>) {
        self.ask_since(now, now.monotonic_ns, asked, ask, out);
    }

    /// Asks what was asked first at `at_ns`.
    fn ask_since(&mut self, now: Now, at_ns: u64, asked: Asked, ask: Ask, out: &mut Vec<Effect>) {
        let Some(seat) = self.seat_mut() else { return };
        seat.next_token += 1;
        let token = seat.next_token;
        seat.asked.insert(token, (at_ns, asked));
        self.with_member(now, out, |member, now_ns, effects| member.ask(now_ns, token, ask, effects));
    }

    fn handle_controller_answer(&mut self, now: Now, token: Token, answer: Answer, out: &mut Vec<Effect>) {
        let Some((at_ns, asked)) = self.seat_mut().and_then(|seat| seat.asked.remove(&token)) else { return };
        match (asked, answer) {
            (asked @ (Asked::Isr(_) | Asked::HandedOver(..)), Answer::NotController) => {
                if now.monotonic_ns < at_ns.saturating_add(REPEAT_NS)
                    && let Some(seat) = self.seat_mut()
                {
                    seat.unheard.push((at_ns, asked));
                }
            }
            (Asked::Isr(asked), Answer::Isr(results)) => {
                for ((shard, change), result) in asked.into_iter().zip(results) {
                    let (key, partition_epoch) = (change.key, change.partition_epoch);
                    // The partition has moved on, perhaps by an earlier copy of this very request: the metadata will say.
                    let moved = [IsrRefusal::InvalidUpdateVersion, IsrRefusal::FencedLeaderEpoch];
                    if result.is_err_and(|why| !moved.contains(&why)) {
                        let message = ShardMessage::IsrRefused { key, partition_epoch };
                        self.tell_shard(now, shard, message, out);
                    }
                }
            }
            (Asked::Plan(planning), answer) => self.handle_planned(now, planning, answer, out),
            // Nothing came of it: the leader goes on, once the partition epoch has moved.
            (Asked::HandedOver(key, partition_epoch, _), Answer::Refused(_)) => {
                let node = self.config.node_id;
                let Some(asker) = self.seat_mut().and_then(|seat| seat.asker(node)) else { return };
                let ask = Ask::Reclaim { asker, key, partition_epoch };
                self.ask_member(now, Asked::Nobody, ask, out);
            }
            (Asked::Farewell, answer) => {
                if let Some(leaving) = self.seat_mut().and_then(|seat| seat.leaving.as_mut()) {
                    leaving.answered(answer == Answer::Done);
                }
            }
            // A leader repeats what it has not seen happen.
            (Asked::Isr(_) | Asked::HandedOver(..) | Asked::Nobody, _) => {}
        }
    }

    /// What the shards of this node tell shard 0, and it them, about the cluster.
    pub(crate) fn handle_cluster_message(
        &mut self,
        now: Now,
        from: ShardId,
        message: ShardMessage,
        out: &mut Vec<Effect>,
    ) {
        let node = self.config.node_id;
        match message {
            ShardMessage::Peer { head, batches } => {
                self.handle_peer_frame(now, Replica { node, shard: from }, &head, &batches, out);
            }
            ShardMessage::Lease { until_ns, released, epoch, ping_ns } => {
                self.apply_lease(now, until_ns, released, epoch, out);
                if ping_ns > 0 {
                    let message = ShardMessage::Works { ping_ns };
                    out.push(Effect::ToShard { to: CONTROLLER, message });
                }
            }
            ShardMessage::Works { ping_ns } => {
                if let Some(seat) = self.seat_mut() {
                    seat.pulses.answered(from, ping_ns);
                }
            }
            ShardMessage::ProposeIsr { change } => {
                if let Some(seat) = self.seat_mut() {
                    seat.proposals.push((from, change));
                }
            }
            ShardMessage::IsrRefused { key, partition_epoch } => {
                self.handle_isr_refused(now, key, partition_epoch, out);
            }
            ShardMessage::Transfer { key, leader_epoch, to } => {
                self.handle_transfer(now, key, leader_epoch, to, out);
            }
            ShardMessage::HandOver { key, partition_epoch, to } => {
                let Some(asker) = self.seat_mut().and_then(|seat| seat.asker(node)) else { return };
                let ask = Ask::HandedOver { asker, key, partition_epoch, to };
                self.ask_member(now, Asked::HandedOver(key, partition_epoch, to), ask, out);
            }
            ShardMessage::StopServing => self.stop_serving(now, out),
            ShardMessage::ShardFailed => {
                if let Some(seat) = self.seat_mut() {
                    seat.pulses.failed(from);
                }
                self.attest_shards(now, out);
            }
            _ => {}
        }
    }
}
