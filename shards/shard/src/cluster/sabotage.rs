//! Faults on purpose of a shard's part in a cluster, for the simulator. Without the cargo feature `sabotage` none can be
//! switched on.

use super::Cluster;

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// No lease is asked for.
    ForgetLease,
    /// Producers are answered at once.
    SettleAtOnce,
    /// Logs that the image of the start does not name are dropped at once.
    DropUnnamed,
    /// A coordinator loads what is committed as far as a new leader knows.
    LoadEarly,
    /// A coordinator goes on in the next leadership.
    KeepSeat,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 5] = [
        Sabotage::ForgetLease,
        Sabotage::SettleAtOnce,
        Sabotage::DropUnnamed,
        Sabotage::LoadEarly,
        Sabotage::KeepSeat,
    ];
}

impl Cluster {
    pub(crate) fn sabotaged(&self, _fault: Sabotage) -> bool {
        #[cfg(feature = "sabotage")]
        return self.sabotage == Some(_fault);
        #[cfg(not(feature = "sabotage"))]
        false
    }
}

impl crate::Shard {
    pub(crate) fn sabotaged(&self, fault: Sabotage) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.sabotaged(fault))
    }
}
