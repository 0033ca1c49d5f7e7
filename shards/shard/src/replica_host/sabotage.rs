//! Faults on purpose of a replica's host, for the simulator. Without the cargo feature `sabotage` none can be switched on.

use super::ReplicaHost;

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// An acknowledgement waits for nobody.
    AcknowledgeAtOnce,
    /// Epochs and producers do not follow a cut of the log.
    KeepStateOnCut,
    /// A follower does not follow its leader's producers.
    FollowWithoutProducers,
    /// A follower does not follow its leader's epochs.
    FollowWithoutEpochs,
    /// A leader stamps its batches with the epoch before its own.
    StampEarlierEpoch,
    /// A checkpoint has no epochs and no producers of the replica.
    EmptySnapshot,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 6] = [
        Sabotage::AcknowledgeAtOnce,
        Sabotage::KeepStateOnCut,
        Sabotage::FollowWithoutProducers,
        Sabotage::FollowWithoutEpochs,
        Sabotage::StampEarlierEpoch,
        Sabotage::EmptySnapshot,
    ];
}

impl ReplicaHost {
    /// Switches a fault on.
    #[cfg(feature = "sabotage")]
    pub fn set_sabotage(&mut self, fault: Option<Sabotage>) {
        self.sabotage = fault;
    }

    /// With this fault.
    #[cfg(feature = "sabotage")]
    pub(crate) fn with_sabotage(mut self, fault: Option<Sabotage>) -> ReplicaHost {
        self.sabotage = fault;
        self
    }

    pub(super) fn sabotaged(&self, _fault: Sabotage) -> bool {
        #[cfg(feature = "sabotage")]
        return self.sabotage == Some(_fault);
        #[cfg(not(feature = "sabotage"))]
        false
    }
}
