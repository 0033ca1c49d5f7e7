//! One simulated node: the code under test with its disk and clock, and a small model of what the partitions it leads and
//! follows would do with the metadata.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_cluster::control::ControlConfig;
use pelton_cluster::control::asks::Token;
use pelton_cluster::control::isr::IsrChange;
use pelton_cluster::lease::LeaseConfig;
use pelton_cluster::member::{Member, MemberConfig, directory_number};
use pelton_cluster::quorum::journal::{Restored, restore, snapshot_records, state_records};
use pelton_cluster::quorum::{QuorumConfig, bootstrap};
use pelton_cluster::record::{Endpoint, NodeRegistration, ShardRegistration};
use pelton_model::{
    BrokerConfig, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, Replica, ReplicaEpoch,
    ShardEpoch, ShardId,
};
use uuid::Uuid;

use crate::sabotage::Sabotage;

/// The cluster's number.
pub const CLUSTER: u64 = 77;
/// A tick, milliseconds.
pub const TICK_MS: u64 = 50;

/// What a follower has told a leader, in one leader epoch and one life.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Of the follower.
    pub epoch: ReplicaEpoch,
    /// Its log's end.
    pub end: usize,
}

/// A replica's data and what it knows as a leader.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Leader epoch and name of each record; all on stable storage.
    pub records: Vec<(LeaderEpoch, u64)>,
    /// High watermark.
    pub high_watermark: usize,
    /// Led or followed last in this epoch.
    pub epoch: LeaderEpoch,
    /// As a leader: where the epoch began.
    pub epoch_start: usize,
    /// As a leader: what followers have told.
    pub acked: BTreeMap<Replica, Acked>,
    /// As a leader: a change of the ISR that may have happened or not.
    pub proposed: Option<IsrChange>,
    /// As a leader: handed over in this partition epoch, so not served.
    pub handed_over: Option<PartitionEpoch>,
}

/// What an answer is for.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// A change of an ISR.
    Isr(IsrChange),
    /// A leadership handed over or taken back; the metadata say what came of it.
    HandedOver,
    /// Anything else.
    Other,
}

/// A node.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The code under test, while the process runs.
    pub member: Option<Member>,
    /// Counts its processes.
    pub life: u64,
    joins: bool,
    voters: Vec<NodeId>,
    blob: Vec<u8>,
    stable: Vec<Bytes>,
    /// Written, not stable yet.
    pub written: VecDeque<(u64, Vec<Bytes>)>,
    /// Its disk takes nothing before this instant.
    pub disk_full_until: u64,
    /// Its process stands still until then.
    pub paused_until: u64,
    /// Its timers fire seldom until then.
    pub starved_until: u64,
    clock_base_ns: u64,
    clock_permille: i64,
    /// Replicas here.
    pub logs: BTreeMap<(PartitionKey, ShardId), Log>,
    /// Requests without an answer.
    pub waiting: BTreeMap<Token, Waiting>,
    next_token: Token,
}

impl Node {
    /// One that has never run.
    pub fn new(id: NodeId, joins: bool, voters: &[NodeId], clock_base_ns: u64, clock_permille: i64) -> Node {
        Node {
            id,
            member: None,
            life: 0,
            joins,
            voters: voters.to_vec(),
            blob: Vec::new(),
            stable: Vec::new(),
            written: VecDeque::new(),
            disk_full_until: 0,
            paused_until: 0,
            starved_until: 0,
            clock_base_ns,
            clock_permille,
            logs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_token: 0,
        }
    }

    /// Its monotonic clock.
    pub fn clock(&self, now: u64) -> u64 {
        self.clock_base_ns + (now as i64 + now as i64 / 1000 * self.clock_permille) as u64
    }

    /// Its data directory.
    pub fn directory(&self) -> Uuid {
        Uuid::from_u128(0xd1 << 64 | self.id.0 as u128)
    }

    /// Starts the process.
    pub fn start(&mut self, seed: u64, sabotage: Option<Sabotage>) -> Result<(), String> {
        self.life += 1;
        let fresh = self.blob.is_empty() && self.stable.is_empty();
        let restored = match (fresh, self.joins) {
            (true, false) => bootstrap(&self.voters),
            (true, true) => Restored::default(),
            _ => restore(&self.blob, &self.stable).map_err(|error| error.to_string())?,
        };
        if fresh && !self.joins {
            snapshot_records(&restored.snapshot, &mut self.stable);
            state_records(&restored.hard, &[], &mut self.stable);
        }
        let mut quorum = QuorumConfig::new(self.id, CLUSTER, directory_number(self.directory()));
        quorum.log_bytes = 20_000;
        quorum.snapshot_ticks = 20;
        let mut control = ControlConfig::new(CLUSTER, BrokerConfig::defaults());
        control.lease = LeaseConfig::default();
        let config = MemberConfig {
            quorum,
            control,
            registration: NodeRegistration {
                node: self.id,
                epoch: NodeEpoch(0),
                directory: self.directory(),
                incarnation: Uuid::from_u64_pair(self.id.0 as u64 + 1, self.life),
                start: self.life,
                rack: Some(format!("rack-{}", self.id.0 % 3)),
                endpoints: vec![Endpoint {
                    name: "peer".to_string(),
                    host: "sim".to_string(),
                    port: 1000 + self.id.0 as u16,
                }],
                shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; 2],
                fenced: true,
                draining: false,
                leaving: false,
                lossy: false,
            },
            seeds: self.voters.clone(),
            tick_ms: TICK_MS,
        };
        let mut member = Member::new(config, restored, seed)?;
        if let Some(sabotage) = sabotage {
            member.set_sabotage(sabotage.control(), sabotage.quorum());
            member.lease_mut().sabotage_from_arrival = sabotage == Sabotage::LeaseFromArrival;
        }
        self.member = Some(member);
        Ok(())
    }

    /// The process ends; of what was not stable, any beginning may have reached the disk.
    pub fn crash(&mut self, kept: impl FnOnce(usize) -> usize) {
        self.member = None;
        let mut lost: Vec<Bytes> = self.written.drain(..).flat_map(|(_, records)| records).collect();
        lost.truncate(kept(lost.len()));
        self.stable.append(&mut lost);
        self.paused_until = 0;
        self.waiting.clear();
        for log in self.logs.values_mut() {
            log.acked.clear();
            log.proposed = None;
            log.handed_over = None;
            log.high_watermark = 0;
        }
    }

    /// A write has become stable.
    pub fn stabilize(&mut self) -> Option<u64> {
        let (number, records) = self.written.pop_front()?;
        self.stable.extend(records);
        Some(number)
    }

    /// Everything in one blob, if nothing is being written.
    pub fn checkpoint(&mut self) {
        if let Some(member) = &self.member
            && self.written.is_empty()
            && member.quorum.applied() > 0
        {
            self.blob = member.checkpoint();
            self.stable.clear();
        }
    }

    /// A name for a request.
    pub fn token(&mut self, waiting: Waiting) -> Token {
        self.next_token += 1;
        self.waiting.insert(self.next_token, waiting);
        self.next_token
    }

    /// The life of its shard as it knows it.
    pub fn replica_epoch(&self, replica: Replica) -> Option<ReplicaEpoch> {
        let member = self.member.as_ref()?;
        let node_epoch = member.lease().epoch()?;
        let known = member.image().replica_epoch(replica)?;
        (known.node_epoch == node_epoch).then_some(known)
    }

    /// Serves the partition at this instant: acknowledges and answers reads.
    pub fn serves(&self, now: u64, key: PartitionKey) -> bool {
        if now < self.paused_until {
            return false;
        }
        let Some(member) = &self.member else { return false };
        let stopped = member.image().partition(key).is_some_and(|partition| {
            let log = partition.leader.and_then(|leader| self.logs.get(&(key, leader.shard)));
            log.is_some_and(|log| log.handed_over == Some(partition.partition_epoch))
        });
        !stopped && member.may_serve(self.clock(now), key)
    }
}

/// A replica of this node.
pub fn place(node: NodeId, shard: u16) -> Replica {
    Replica { node, shard: ShardId(shard) }
}
