//! A shard's part in a cluster: its lease, the replicas it hosts, and on shard 0 the node's member of the quorum. None of it
//! exists on a single node. Rules L…, R… : ARCHITECTURE.md, "Replication" and "The seam of the cluster".

mod append;
mod control;
mod early;
mod elections;
mod hosts;
mod member;
mod peers;
mod pulse;
mod quorum_view;
mod sabotage;
mod start;
mod stop;
#[cfg(feature = "sabotage")]
mod switches;
mod sync;
mod throttle;
mod voters;

use std::collections::{BTreeMap, BTreeSet};

use pelton_cluster::image::LeaderChange;
use pelton_cluster::lease::LeaseConfig;
use pelton_cluster::peer::{Identity, Peer};
use pelton_cluster::record::NodeRegistration;
use pelton_log::PartitionSlot;
use pelton_model::{BrokerConfig, ClusterId, NodeEpoch, NodeId, PartitionKey, Replica, ReplicaEpoch};
use pelton_replica::effect::Settings;
use pelton_replica::lease::Lease;

pub use hosts::ReplicaReport;
pub use sabotage::Sabotage;
#[cfg(feature = "sabotage")]
pub use switches::{Elsewhere, Switch, switches};

use crate::Shard;
use crate::partitions::Hosted;
use crate::replica_host::{HostEffect, Throttle};
use member::MemberSeat;

/// The listener of a node's registration that clients use; its port is that of shard 0.
pub const CLIENT_ENDPOINT: &str = "client";

/// What every shard of a cluster's node knows of the cluster at start.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The nodes that decide when the cluster is new, and that a node asks for the controller: the same list on all.
    pub voters: Vec<NodeId>,
    /// Where shard 0 of other nodes is, as far as this one is told before the metadata know.
    pub first: Vec<Peer>,
    /// What this node registers as; its epoch is 0, and it is fenced.
    pub registration: NodeRegistration,
    /// Leases, the same on all nodes.
    pub lease: LeaseConfig,
    /// A tick of the quorum, milliseconds.
    pub tick_ms: u64,
    /// What replicas go by; each topic has its own `min.insync.replicas`, durability and policy.
    pub replicas: Settings,
    /// A fault on purpose.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<Sabotage>,
    /// One of another part.
    #[cfg(feature = "sabotage")]
    pub below: Elsewhere,
}

/// A tick of the quorum unless told otherwise, milliseconds: it misses its leader, and elects another, within 0.5 to 1 s.
const TICK_MS: u64 = 50;

impl ClusterConfig {
    /// With the defaults: nobody is told of, leases, ticks and replicas are as usual.
    pub fn new(voters: Vec<NodeId>, registration: NodeRegistration) -> ClusterConfig {
        ClusterConfig {
            voters,
            first: Vec::new(),
            registration,
            lease: LeaseConfig::default(),
            tick_ms: TICK_MS,
            replicas: Settings::default(),
            #[cfg(feature = "sabotage")]
            sabotage: None,
            #[cfg(feature = "sabotage")]
            below: Elsewhere::default(),
        }
    }
}

/// A cluster's id as the number that frames between nodes carry (FNV-1a).
pub fn cluster_number(id: &ClusterId) -> u64 {
    id.0.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Shard {
    /// Until when this shard of a cluster's node may answer as a leader, nanoseconds of its clock; none on a single node.
    pub fn lease_until_ns(&self) -> Option<u64> {
        self.cluster.as_ref().map(|cluster| cluster.lease.until_ns())
    }
}

/// The cluster as one shard sees it.
pub(crate) struct Cluster {
    /// This shard's place.
    me: Replica,
    /// Who it is to shards of other nodes.
    identity: Identity,
    first: Vec<Peer>,
    /// Nodes may be other ones, or elsewhere, since its peers were last said.
    peers_differ: bool,
    /// Whether each node serves, as an operator was told last.
    serving: BTreeMap<NodeId, bool>,
    settings: Settings,
    /// Shard 0's: the node's member of the quorum.
    seat: Option<Box<MemberSeat>>,
    lease: Lease,
    /// The lease's end has yet to be noticed, nanoseconds.
    lapse_ns: Option<u64>,
    /// Changes of leaders up to here are released (rule L7).
    released: u64,
    /// The life the node is registered in.
    node_epoch: Option<NodeEpoch>,
    /// The life this shard's replicas are in, once the metadata know of it.
    life: Option<ReplicaEpoch>,
    /// It has been in a life: replicas are open.
    live: bool,
    /// Partitions whose last leader may still use its leadership until the change of this index is released.
    waits: BTreeMap<PartitionKey, u64>,
    /// The same for all partitions the image began with.
    wait_floor: u64,
    by_key: BTreeMap<PartitionKey, PartitionSlot>,
    deadlines: BTreeSet<(u64, PartitionSlot)>,
    /// What a host wants done; empty between events.
    effects: Vec<HostEffect>,
    /// What appends of this turn want done.
    later: Vec<(PartitionSlot, PartitionKey, HostEffect)>,
    /// Partitions whose producers may be answered at the end of the turn.
    to_settle: BTreeSet<PartitionSlot>,
    /// Hosts that read their log for followers at the end of the turn.
    to_feed: BTreeSet<PartitionSlot>,
    /// Hosts with Appends that wait for room in the log.
    starved: BTreeSet<PartitionSlot>,
    /// Hosts that wait for such a read.
    reading: BTreeSet<PartitionSlot>,
    /// Throttles of replication.
    throttle: Throttle,
    /// The disk was full when the replicas here were told last.
    full: bool,
    /// Joins of leaderships that are not known here yet.
    early: early::EarlyJoins,
    /// Partitions of which there was a replica here, whose log was dropped.
    dropped: BTreeSet<PartitionKey>,
    /// Shard 0's, while the node leads the quorum: when it heard of the others.
    contacts: quorum_view::Contacts,
    /// Shard 0's: elections that clients wait for.
    elections: Vec<elections::Election>,
    /// Shard 0's: changes of voters that clients wait for.
    voter_changes: Vec<voters::VoterChange>,
    #[cfg(feature = "sabotage")]
    sabotage: Option<Sabotage>,
    #[cfg(feature = "sabotage")]
    host_sabotage: Option<crate::replica_host::Sabotage>,
    /// How long a lease is, nanoseconds.
    #[cfg(feature = "sabotage")]
    ttl_ns: u64,
}

impl Cluster {
    fn new(me: Replica, broker: &BrokerConfig, config: &ClusterConfig, seat: Option<MemberSeat>) -> Cluster {
        let (directory, start) = (config.registration.directory, config.registration.start);
        Cluster {
            me,
            identity: Identity {
                place: me,
                cluster_id: broker.cluster_id.0.clone(),
                directory,
                start,
                mode: broker.mode,
            },
            first: config.first.clone(),
            peers_differ: true,
            serving: BTreeMap::new(),
            settings: config.replicas,
            seat: seat.map(Box::new),
            lease: Lease::NONE,
            lapse_ns: None,
            released: 0,
            node_epoch: None,
            life: None,
            live: false,
            waits: BTreeMap::new(),
            wait_floor: 0,
            by_key: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            effects: Vec::new(),
            later: Vec::new(),
            to_settle: BTreeSet::new(),
            to_feed: BTreeSet::new(),
            starved: BTreeSet::new(),
            reading: BTreeSet::new(),
            throttle: Throttle::default(),
            full: false,
            early: early::EarlyJoins::default(),
            dropped: BTreeSet::new(),
            contacts: quorum_view::Contacts::default(),
            elections: Vec::new(),
            voter_changes: Vec::new(),
            #[cfg(feature = "sabotage")]
            sabotage: config.sabotage,
            #[cfg(feature = "sabotage")]
            host_sabotage: config.below.host,
            #[cfg(feature = "sabotage")]
            ttl_ns: config.lease.ttl_ns(),
        }
    }

    /// What a checkpoint of this shard keeps of the metadata.
    pub(crate) fn checkpoint(&self) -> Vec<u8> {
        self.seat.as_ref().map_or_else(Vec::new, |seat| seat.checkpoint())
    }

    /// When something is due, nanoseconds.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let host = self.deadlines.first().map(|(due, _)| *due);
        let seat = self.seat.as_ref().and_then(|seat| seat.deadline());
        [host, seat, self.lapse_ns].into_iter().flatten().min()
    }

    /// The shard's lease.
    pub(crate) fn lease(&self) -> Lease {
        #[cfg(feature = "sabotage")]
        match self.settings.sabotage {
            Some(pelton_replica::sabotage::Sabotage::ForgetLease) => return Lease::UNLIMITED,
            Some(pelton_replica::sabotage::Sabotage::LeaseTwice) if self.lease != Lease::NONE => {
                return Lease::until(self.lease.until_ns() + self.ttl_ns);
            }
            _ => {}
        }
        if self.sabotaged(Sabotage::ForgetLease) { Lease::UNLIMITED } else { self.lease }
    }

    /// Nobody uses an earlier leadership of the partition any more (rules L6, L7).
    fn is_released(&self, key: PartitionKey) -> bool {
        self.wait_floor <= self.released && self.waits.get(&key).is_none_or(|index| *index <= self.released)
    }

    /// Leaders have changed by the entry of this index.
    fn note_leaders(&mut self, index: u64, changes: &[LeaderChange]) {
        let unreleased = changes.iter().filter(|change| !change.released);
        self.waits.extend(unreleased.map(|change| (change.key, index)));
    }

    /// A host has had an event: what it waits for is noted.
    fn note(&mut self, slot: PartitionSlot, hosted: &mut Hosted) {
        let due = hosted.host.deadline_ns();
        if due != hosted.deadline_ns {
            if let Some(old) = hosted.deadline_ns {
                self.deadlines.remove(&(old, slot));
            }
            self.deadlines.extend(due.map(|due| (due, slot)));
            hosted.deadline_ns = due;
        }
        if hosted.host.wants_end_turn() {
            self.to_feed.insert(slot);
        }
        match hosted.host.wants_room() {
            true => self.starved.insert(slot),
            false => self.starved.remove(&slot),
        };
        match hosted.host.is_reading() {
            true => self.reading.insert(slot),
            false => self.reading.remove(&slot),
        };
    }

    /// A host is gone.
    fn forget(&mut self, slot: PartitionSlot, hosted: &Hosted) {
        self.by_key.remove(&hosted.key);
        if let Some(due) = hosted.deadline_ns {
            self.deadlines.remove(&(due, slot));
        }
        self.to_settle.remove(&slot);
        self.to_feed.remove(&slot);
        self.starved.remove(&slot);
        self.reading.remove(&slot);
    }
}
