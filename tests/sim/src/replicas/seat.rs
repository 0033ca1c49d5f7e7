//! Where member and replica meet, as in a shard: what the member says becomes events of the replica, what the replica wants
//! of the controller becomes questions of the member, and the metadata log lies in the shard's journal.

use bytes::Bytes;
use pelton_cluster::control::ControlConfig;
use pelton_cluster::control::asks::{Answer, Ask};
use pelton_cluster::control::isr::{Asker, IsrChange};
use pelton_cluster::controller::TopicWish;
use pelton_cluster::member::{Member, MemberConfig, MemberEffect, directory_number};
use pelton_cluster::quorum::journal::{restore, snapshot_records, state_records};
use pelton_cluster::quorum::{QuorumConfig, QuorumSabotage, bootstrap};
use pelton_cluster::record::{Endpoint, NodeRegistration, ShardRegistration};
use pelton_model::{
    BrokerConfig, IsrMember, NodeEpoch, NodeId, Now, PartitionEpoch, PartitionKey, Replica, ShardEpoch,
    ShardId, TopicConfig,
};
use pelton_replica::partition::RoleKind;
use pelton_shard::replica_host::{HostEffect, ReplicaHost};
use uuid::Uuid;

use super::node::{Hosted, Running};
use super::setup::Setup;
use super::{Message, NODES};

const CLUSTER: u64 = 77;
const TOPIC: &str = "topic";
/// A tick of the member, milliseconds.
pub const TICK_MS: u64 = 50;

/// What an answer of the controller is to.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    Isr(PartitionEpoch),
    HandOver(PartitionEpoch),
    Other,
}

/// The replica of a node.
pub fn replica(node: usize) -> Replica {
    Replica { node: NodeId(node as i32), shard: ShardId(0) }
}

/// And the other way.
pub fn node_of(replica: Replica) -> usize {
    replica.node.0 as usize
}

/// A member in one of its lives, and what it has to write before anything else.
pub fn member(
    id: usize,
    life: u64,
    setup: &Setup,
    blob: &[u8],
    records: &[Bytes],
    seed: u64,
) -> Result<(Member, Vec<Bytes>), String> {
    let voters: Vec<NodeId> = (0..NODES as i32).map(NodeId).collect();
    let (node, directory) = (NodeId(id as i32), Uuid::from_u128(0xd1 << 64 | id as u128));
    let mut first = Vec::new();
    let restored = if blob.is_empty() && records.is_empty() {
        let restored = bootstrap(&voters);
        snapshot_records(&restored.snapshot, &mut first);
        state_records(&restored.hard, &[], &mut first);
        restored
    } else {
        restore(blob, records).map_err(|error| error.to_string())?
    };
    let mut quorum = QuorumConfig::new(node, CLUSTER, directory_number(directory));
    quorum.log_bytes = 20_000;
    quorum.snapshot_ticks = 20;
    let config = MemberConfig {
        quorum,
        control: ControlConfig::new(CLUSTER, BrokerConfig::defaults()),
        registration: NodeRegistration {
            node,
            epoch: NodeEpoch(0),
            directory,
            incarnation: Uuid::from_u64_pair(id as u64 + 1, life),
            start: life,
            rack: None,
            endpoints: vec![Endpoint {
                name: "peer".to_string(),
                host: "sim".to_string(),
                port: 1000 + id as u16,
            }],
            shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }],
            fenced: true,
            draining: false,
            leaving: false,
            lossy: false,
        },
        seeds: voters,
        tick_ms: TICK_MS,
    };
    let mut member = Member::new(config, restored, seed)?;
    if let Some(fault) = setup.fault {
        member.set_sabotage(fault.control(), QuorumSabotage::default());
    }
    Ok((member, first))
}

impl Running {
    fn asker(&self) -> Option<Asker> {
        self.member.lease().epoch().map(|epoch| Asker { node: NodeId(self.id as i32), epoch })
    }

    /// Asks the controller, wherever it is.
    pub fn ask(&mut self, now: Now, what: Asked, ask: Ask) {
        self.next_token += 1;
        let token = self.next_token;
        self.asked.insert(token, what);
        self.tell(now, |member, now_ns, out| member.ask(now_ns, token, ask, out));
    }

    /// The partition, as this node knows it.
    pub fn partition_key(&self) -> Option<PartitionKey> {
        self.member.image().partitions().next().map(|(key, _)| key)
    }

    /// Who leads, as this node knows it.
    pub fn leader(&self) -> Option<usize> {
        let key = self.partition_key()?;
        self.member.image().leader(key).map(node_of)
    }

    /// At the controller's node: the topic is made, and an operator lets those lead again whom the controller does not trust
    /// with unflushed records any more since their process was killed. The records are there: no machine has lost power.
    pub fn operate(&mut self, now: Now) {
        let image = self.member.image();
        let partition = self.partition_key().and_then(|key| Some((key, image.partition(key)?.state())));
        if let Some((key, state)) = partition.filter(|_| self.member.controller().is_some())
            && state.leader.is_none()
            && let Some(to) = state.last_known_elr.iter().find(|replica| image.is_live(**replica))
        {
            let ask = Ask::ElectUnclean { key, to: *to };
            return self.ask(now, Asked::Other, ask);
        }
        let ready = image.nodes().filter(|node| !node.fenced).count() == NODES;
        if self.member.controller().is_some() && ready && image.topic_names().next().is_none() {
            let flush = if self.setup.flush { "1" } else { "9223372036854775807" };
            let config = |name: &str, value: &str| (name.to_string(), Some(value.to_string()));
            let wish = TopicWish {
                name: TOPIC.to_string(),
                partitions: 1,
                replication_factor: NODES as i16,
                configs: vec![
                    config("min.insync.replicas", &self.setup.min_isr.to_string()),
                    config("flush.messages", flush),
                ],
                ..TopicWish::default()
            };
            self.ask(now, Asked::Other, Ask::CreateTopic(wish));
        }
    }

    /// Does what member and replica want of each other and of the log, until nothing is left; then ends the turn. What is
    /// for other nodes comes back.
    pub fn settle(&mut self, now: Now) -> Result<Vec<(usize, Message)>, String> {
        let mut out = Vec::new();
        if self.storage.is_ready() {
            for record in std::mem::take(&mut self.first_records) {
                self.storage.append_metadata(record);
            }
        }
        loop {
            self.persisted(now);
            for effect in std::mem::take(&mut self.member_effects) {
                self.perform_member(now, effect, &mut out)?;
            }
            self.follow(now)?;
            for effect in std::mem::take(&mut self.effects) {
                self.perform_host(now, effect, &mut out)?;
            }
            if self.member_effects.is_empty() && self.effects.is_empty() {
                break;
            }
        }
        self.end_turn(now);
        for effect in std::mem::take(&mut self.effects) {
            self.perform_host(now, effect, &mut out)?;
        }
        Ok(out)
    }

    fn persisted(&mut self, now: Now) {
        let flushed = self.storage.flushed();
        while let Some((_, number)) = self.persists.pop_front_if(|(commit, _)| *commit <= flushed) {
            self.tell(now, |member, now_ns, out| member.persisted(now_ns, number, out));
        }
    }

    fn perform_member(
        &mut self,
        now: Now,
        effect: MemberEffect,
        out: &mut Vec<(usize, Message)>,
    ) -> Result<(), String> {
        match effect {
            MemberEffect::Send { to, frame } => out.push((to.0 as usize, Message::Member(frame))),
            MemberEffect::Persist { number, records } => {
                let last = records.into_iter().map(|record| self.storage.append_metadata(record)).last();
                self.persists.push_back((last.unwrap_or_else(|| self.storage.flushed()), number));
            }
            MemberEffect::Answer(token, answer) => self.answered(now, token, &answer),
            MemberEffect::TransferAsked { leader_epoch, to, .. } => self.act(now, |host, turn| {
                if host.state().leader_epoch() == leader_epoch {
                    host.handle_transfer(to, turn);
                }
            }),
            MemberEffect::Failed(why) => return Err(format!("node {} cannot go on: {why}", self.id)),
            // Changes of the image: it is looked at once for all of a turn.
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, now: Now, token: u64, answer: &Answer) {
        let Some(asked) = self.asked.remove(&token) else { return };
        match (asked, answer) {
            (Asked::Isr(epoch), Answer::Isr(results)) if matches!(results.first(), Some(Err(_))) => {
                self.act(now, |host, turn| host.handle_proposal_refused(epoch, turn));
            }
            // Nothing came of it: only another partition epoch lets the leader go on.
            (Asked::HandOver(partition_epoch), Answer::Refused(_)) => {
                if let (Some(asker), Some(key)) = (self.asker(), self.partition_key()) {
                    self.ask(now, Asked::Other, Ask::Reclaim { asker, key, partition_epoch });
                }
            }
            _ => {}
        }
    }

    /// The replica follows the metadata, and is opened once it has a life and the metadata know it.
    fn follow(&mut self, now: Now) -> Result<(), String> {
        let Some(key) = self.partition_key().filter(|_| self.storage.is_ready()) else { return Ok(()) };
        let me = replica(self.id);
        let life = self.member.image().replica_epoch(me);
        let Some(life) = life.filter(|life| Some(life.node_epoch) == self.member.lease().epoch()) else {
            return Ok(());
        };
        if self.hosted.is_none() {
            let topic = TopicConfig {
                flush_messages: if self.setup.flush { 1 } else { i64::MAX },
                flush_ms: if self.setup.flush { i64::MAX } else { 200 },
                segment_bytes: self.setup.segment_bytes,
                index_interval_bytes: 800,
                file_delete_delay_ms: 0,
                retention_ms: -1,
                retention_bytes: -1,
                ..TopicConfig::default()
            };
            let slot = self.storage.open_partition(key, &topic);
            let recovered = self.take_recovered(key);
            let me = IsrMember { replica: me, epoch: life };
            let (settings, storage) = (self.setup.settings, &self.storage);
            let mut host = ReplicaHost::open(key, slot, me, settings, recovered.as_ref(), now, storage);
            host.set_sabotage(self.setup.fault.and_then(super::Fault::host));
            self.hosted = Some(Hosted { slot, host });
        }
        let Some(state) = self.member.image().partition(key).map(|partition| partition.state()) else {
            return Err("the topic is gone".to_string());
        };
        let released = self.member.is_released(key);
        self.act(now, |host, turn| {
            if host.state().state().is_none_or(|known| known.partition_epoch < state.partition_epoch) {
                host.handle_metadata(&state, released, turn);
            }
            if released && host.state().role() == RoleKind::Activating {
                host.handle_predecessor_gone(state.leader_epoch, turn);
            }
        });
        Ok(())
    }

    fn perform_host(
        &mut self,
        now: Now,
        effect: HostEffect,
        out: &mut Vec<(usize, Message)>,
    ) -> Result<(), String> {
        let (asker, key) = (self.asker(), self.partition_key());
        match effect {
            HostEffect::Send { to, frame, batches } => {
                out.push((node_of(to), Message::Frame { frame, batches: Bytes::from(batches.concat()) }));
            }
            HostEffect::ProposeIsr(proposal) => {
                if let (Some(asker), Some(key)) = (asker, key) {
                    let (leader_epoch, partition_epoch) = (proposal.leader_epoch, proposal.partition_epoch);
                    let change = IsrChange { key, leader_epoch, partition_epoch, isr: proposal.isr };
                    let ask = Ask::AlterIsr { asker, changes: vec![change] };
                    self.ask(now, Asked::Isr(partition_epoch), ask);
                }
            }
            HostEffect::Release { target, partition_epoch, .. } => {
                if let (Some(asker), Some(key)) = (asker, key) {
                    let ask = Ask::HandedOver { asker, key, partition_epoch, to: target };
                    self.ask(now, Asked::HandOver(partition_epoch), ask);
                }
            }
            HostEffect::Faulted(fault) => {
                return Err(format!("node {} gave up without cause: {fault}", self.id));
            }
            HostEffect::LostDurable { replica, acknowledged, log_end } => {
                return Err(format!("S5: {replica} had {acknowledged:?} on its disk, has {log_end:?}"));
            }
            HostEffect::HighWatermark(_) | HostEffect::TransferCancelled { .. } | HostEffect::Resigned => {}
        }
        Ok(())
    }
}
