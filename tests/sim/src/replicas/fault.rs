//! Faults on purpose that three nodes can show.

use std::fmt;

use pelton_log::Sabotage as Log;
use pelton_replica::sabotage::Sabotage as Replica;
use pelton_shard::replica_host::Sabotage as Host;

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Of the log of followers.
    Log(Log),
    /// Of the replica machine.
    Replica(Replica),
    /// Of its host.
    Host(Host),
}

/// What three nodes with disks that do not lie, and a controller that never stops, show of the replica machine's faults; its
/// own tests show all.
const REPLICA: [Replica; 7] = [
    Replica::DropMaximalIsr,
    Replica::HighWatermarkBeforeCut,
    Replica::CutToHighWatermark,
    Replica::ExpandEarly,
    Replica::IgnoreMinIsr,
    Replica::SkipMatching,
    Replica::AckUnwritten,
];

impl Fault {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Fault> {
        let log = Log::OF_FOLLOWERS.into_iter().map(Fault::Log);
        let replica = REPLICA.into_iter().map(Fault::Replica);
        log.chain(replica).chain(Host::ALL.into_iter().map(Fault::Host))
    }

    /// The log's share.
    pub fn log(self) -> Option<Log> {
        if let Fault::Log(fault) = self { Some(fault) } else { None }
    }

    /// The replica's share.
    pub fn replica(self) -> Option<Replica> {
        if let Fault::Replica(fault) = self { Some(fault) } else { None }
    }

    /// The host's share.
    pub fn host(self) -> Option<Host> {
        if let Fault::Host(fault) = self { Some(fault) } else { None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Log(fault) => write!(f, "{fault:?}"),
            Fault::Replica(fault) => write!(f, "{fault:?}"),
            Fault::Host(fault) => write!(f, "{fault:?}"),
        }
    }
}
