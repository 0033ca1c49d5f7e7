//! What can be asked of the controller of a cluster, and what it answers.

use bytes::Bytes;
use pelton_model::{
    LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, Replica, ShardEpoch, ShardId, TopicId,
};

use crate::control::isr::{Asker, IsrChange, IsrRefusal};
use crate::controller::{Refused, TopicWish};
use crate::record::{ConfigResource, NodeRegistration};

/// Names who asked; chosen by the caller, given back with the answer.
pub type Token = u64;

/// A request. Those of nodes come over the wire, the others from the APIs of clients.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A process wants to be a node of the cluster from now on.
    Register {
        /// The cluster it believes in, as a number of its id.
        cluster: u64,
        /// It.
        node: NodeRegistration,
    },
    /// A leader wants other ISRs; one answer each, in order.
    AlterIsr {
        /// The leader's node.
        asker: Asker,
        /// Which.
        changes: Vec<IsrChange>,
    },
    /// A shard of the asker has died and, if `online`, lives anew. The asker attests that the old one does nothing more.
    ShardRestarted {
        /// Its node.
        asker: Asker,
        /// Which.
        shard: ShardId,
        /// In this life: said late, it is not of a later one.
        life: ShardEpoch,
        /// It works.
        online: bool,
    },
    /// The asker is about to stop: what it leads is to be led elsewhere, as far as it can be (Kafka's controlled shutdown).
    ControlledShutdown {
        /// Who.
        asker: Asker,
    },
    /// The asker has stopped serving and holds no lease any more.
    Shutdown {
        /// Who.
        asker: Asker,
    },
    /// The leader has stopped, the target has everything: let it lead (rule R12).
    HandedOver {
        /// The leader's node.
        asker: Asker,
        /// The partition.
        key: PartitionKey,
        /// As the leader knew it when it stopped.
        partition_epoch: PartitionEpoch,
        /// Who shall lead.
        to: Replica,
    },
    /// The leader handed over and nothing came of it: it wants to go on, in a new partition epoch.
    Reclaim {
        /// The leader's node.
        asker: Asker,
        /// The partition.
        key: PartitionKey,
        /// As the leader knew it when it stopped.
        partition_epoch: PartitionEpoch,
    },
    /// A new topic.
    CreateTopic(TopicWish),
    /// A topic goes.
    DeleteTopic(TopicId),
    /// A setting, or (none) its default. Checked by the caller.
    SetConfig {
        /// Of what.
        resource: ConfigResource,
        /// Its name.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// Producer ids, so many.
    ProducerIds {
        /// How many.
        count: i64,
    },
    /// Replicas are to be there (the preferred leader first), or (none) a move is to end where it is.
    Reassign {
        /// The partition.
        key: PartitionKey,
        /// Where.
        target: Option<Vec<Replica>>,
    },
    /// Leadership is to move to the preferred replica, as soon as the leader can hand it over.
    ElectPreferred {
        /// Which partition.
        key: PartitionKey,
    },
    /// This replica leads a partition without a leader, whatever was lost.
    ElectUnclean {
        /// Which partition.
        key: PartitionKey,
        /// Who has most, as the operator or a survey of the logs found.
        to: Replica,
    },
    /// The node is to be emptied of leaders (a restart is coming), or not any more.
    Drain {
        /// Which.
        node: NodeId,
        /// To be, or not any more.
        on: bool,
    },
    /// The node is to be emptied of everything and then removed.
    Decommission {
        /// Which.
        node: NodeId,
    },
    /// A client's request that the host of the controller plans: what it means is not this crate's.
    Plan {
        /// The node it came in at.
        node: NodeId,
        /// What is asked.
        request: Bytes,
    },
}

/// An answer. What it says is committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The node's life.
    Registered(NodeEpoch),
    /// Each change of an ISR: the partition's epochs now, or why not.
    Isr(Vec<Result<(LeaderEpoch, PartitionEpoch), IsrRefusal>>),
    /// It is done, or under way where that takes time.
    Done,
    /// A topic was created.
    Topic(TopicId),
    /// The first of the producer ids.
    ProducerIds(i64),
    /// What the host of the controller has planned is applied there.
    Planned {
        /// By this entry, or, if nothing had to change, seen at it.
        index: u64,
        /// The answer.
        response: Bytes,
    },
    /// It cannot be, and why.
    Refused(Refused),
    /// This node does not lead the quorum, or not any more: ask the one that does. What was asked may yet happen.
    NotController,
}
