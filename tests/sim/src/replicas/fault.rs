//! Faults on purpose that three nodes can show.

use std::fmt;

use pelton_cluster::control::ControlSabotage;
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
    /// The controller waits a third of what it must before it counts a lease as ended.
    ShortWait,
}

/// What nodes with disks that do not lie show of the replica machine's faults; its own tests show all.
const REPLICA: [Replica; 8] = [
    Replica::DropMaximalIsr,
    Replica::HighWatermarkBeforeCut,
    Replica::CutToHighWatermark,
    Replica::LeaseTwice,
    Replica::IgnoreMinIsr,
    Replica::SkipMatching,
    Replica::ForgetLease,
    Replica::AckUnwritten,
];

impl Fault {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Fault> {
        let log = Log::OF_FOLLOWERS.into_iter().map(Fault::Log);
        let replica = REPLICA.into_iter().map(Fault::Replica);
        let host = Host::ALL.into_iter().map(Fault::Host);
        log.chain(replica).chain(host).chain([Fault::ShortWait])
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

    /// The controller's share; `pelton-control-sim` has more.
    pub fn control(self) -> ControlSabotage {
        let mut control = ControlSabotage::default();
        control.sessions.short_wait = self == Fault::ShortWait;
        control
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Log(fault) => write!(f, "{fault:?}"),
            Fault::Replica(fault) => write!(f, "{fault:?}"),
            Fault::Host(fault) => write!(f, "{fault:?}"),
            Fault::ShortWait => write!(f, "ShortWait"),
        }
    }
}
