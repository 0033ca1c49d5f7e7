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
    /// A node that stops hands nothing over.
    StopAtOnce,
    /// A node that stops goes on leading the quorum.
    KeepQuorum,
    /// A node that stops does not say so.
    LeaveUnsaid,
    /// The lease of a shard is the node's, whether or not the shard answers.
    ForgetPing,
    /// DeleteRecords is answered when the leader is done.
    DeleteAlone,
    /// The controller trusts a node with what the power may have taken from it.
    TrustLossy,
    /// It waits a third of what it must before it counts a lease as ended.
    ShortWait,
    /// It says of every leader it replaces that it is gone.
    AlwaysReleased,
    /// It lets whoever is alive lead.
    ElectAnyone,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 14] = [
        Sabotage::ForgetLease,
        Sabotage::SettleAtOnce,
        Sabotage::DropUnnamed,
        Sabotage::LoadEarly,
        Sabotage::KeepSeat,
        Sabotage::StopAtOnce,
        Sabotage::KeepQuorum,
        Sabotage::LeaveUnsaid,
        Sabotage::ForgetPing,
        Sabotage::DeleteAlone,
        Sabotage::TrustLossy,
        Sabotage::ShortWait,
        Sabotage::AlwaysReleased,
        Sabotage::ElectAnyone,
    ];

    /// The controller's share.
    #[cfg(feature = "sabotage")]
    pub(super) fn control(self) -> pelton_cluster::control::ControlSabotage {
        let mut control = pelton_cluster::control::ControlSabotage {
            trust_lossy: self == Sabotage::TrustLossy,
            always_released: self == Sabotage::AlwaysReleased,
            elect_anyone: self == Sabotage::ElectAnyone,
            ..Default::default()
        };
        control.sessions.short_wait = self == Sabotage::ShortWait;
        control
    }
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
