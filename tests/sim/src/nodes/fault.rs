//! Faults on purpose that whole brokers on three nodes can show.

use std::fmt;

use pelton_replica::sabotage::Sabotage as Replica;
use pelton_shard::cluster::Sabotage as Shard;

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Of a shard's part in the cluster.
    Shard(Shard),
    /// Of the replica machine.
    Replica(Replica),
}

/// Faults of the replica machine that show in what clients are told; the others are `--replicas`' and the machine's own tests'.
const OF_REPLICAS: [Replica; 2] = [Replica::SkipMatching, Replica::CutToHighWatermark];

impl Fault {
    /// All that must be noticed.
    pub fn all() -> impl Iterator<Item = Fault> {
        Shard::ALL.into_iter().map(Fault::Shard).chain(OF_REPLICAS.into_iter().map(Fault::Replica))
    }

    /// The shard's share.
    pub fn shard(self) -> Option<Shard> {
        if let Fault::Shard(fault) = self { Some(fault) } else { None }
    }

    /// The replica machine's share.
    pub fn replica(self) -> Option<Replica> {
        if let Fault::Replica(fault) = self { Some(fault) } else { None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Shard(fault) => write!(f, "{fault:?}"),
            Fault::Replica(fault) => write!(f, "{fault:?}"),
        }
    }
}
