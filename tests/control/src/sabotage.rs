//! Faults on purpose in the code under test: each must make a run fail.

use pelton_cluster::control::ControlSabotage;
use pelton_cluster::quorum::QuorumSabotage;

/// Which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Votes and acknowledgements of the quorum leave before they are on stable storage.
    SendBeforePersisted,
    /// Leases are granted without asking a majority.
    GrantUnconfirmed,
    /// The controller waits a third of what it must before it counts a lease as ended.
    ShortWait,
    /// A new controller does not wait for the leases of its predecessor.
    NoInitialWait,
    /// A new controller believes that its predecessor was silent before its election though it was not.
    DeafVoters,
    /// Nodes whose fencing is under way still get leases.
    GrantWhileFencing,
    /// A node counts its lease from the arrival of the grant.
    LeaseFromArrival,
    /// A new leader does not wait until the old one has let go.
    IgnoreRelease,
    /// A node that was fenced gets a lease again before it has seen what it lost.
    UnfenceUnseen,
    /// Anyone alive may be elected.
    ElectAnyone,
    /// Changes of an ISR do not compare partition epochs.
    NoCompare,
    /// Changes of an ISR do not compare lives.
    StaleEpochs,
    /// A life of a node is registered though a later one is.
    RegisterAnyLife,
    /// A node's new life is registered while its old one is not fenced.
    RegisterUnfenced,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 14] = [
        Sabotage::SendBeforePersisted,
        Sabotage::GrantUnconfirmed,
        Sabotage::ShortWait,
        Sabotage::NoInitialWait,
        Sabotage::DeafVoters,
        Sabotage::GrantWhileFencing,
        Sabotage::LeaseFromArrival,
        Sabotage::IgnoreRelease,
        Sabotage::UnfenceUnseen,
        Sabotage::ElectAnyone,
        Sabotage::NoCompare,
        Sabotage::StaleEpochs,
        Sabotage::RegisterAnyLife,
        Sabotage::RegisterUnfenced,
    ];

    /// In the quorum.
    pub fn quorum(self) -> QuorumSabotage {
        QuorumSabotage {
            send_before_persisted: self == Sabotage::SendBeforePersisted,
            confirm_alone: self == Sabotage::GrantUnconfirmed,
            deaf: self == Sabotage::DeafVoters,
        }
    }

    /// In the controller.
    pub fn control(self) -> ControlSabotage {
        let mut control = ControlSabotage::default();
        match self {
            Sabotage::ShortWait => control.sessions.short_wait = true,
            Sabotage::NoInitialWait => control.sessions.no_initial_wait = true,
            Sabotage::GrantWhileFencing => control.sessions.grant_while_fencing = true,
            Sabotage::IgnoreRelease => control.always_released = true,
            Sabotage::UnfenceUnseen => control.unfence_unseen = true,
            Sabotage::ElectAnyone => control.elect_anyone = true,
            Sabotage::NoCompare => control.isr.no_compare = true,
            Sabotage::StaleEpochs => control.isr.stale_epochs = true,
            Sabotage::RegisterAnyLife => control.register_any_life = true,
            Sabotage::RegisterUnfenced => control.register_unfenced = true,
            _ => {}
        }
        control
    }
}
