//! Faults on purpose of all parts of a shard, for the simulator.

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Of the log.
    Log(pelton_log::Sabotage),
    /// Of the group coordinators.
    Groups(pelton_group::Sabotage),
}

impl Sabotage {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Sabotage> {
        let log = pelton_log::Sabotage::ALL.into_iter().map(Sabotage::Log);
        log.chain(pelton_group::Sabotage::ALL.into_iter().map(Sabotage::Groups))
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sabotage::Log(fault) => fault.name(),
            Sabotage::Groups(fault) => fault.name(),
        }
    }

    /// The log's share.
    pub(crate) fn log(self) -> Option<pelton_log::Sabotage> {
        match self {
            Sabotage::Log(fault) => Some(fault),
            Sabotage::Groups(_) => None,
        }
    }

    /// The coordinators' share.
    pub(crate) fn groups(self) -> Option<pelton_group::Sabotage> {
        match self {
            Sabotage::Groups(fault) => Some(fault),
            Sabotage::Log(_) => None,
        }
    }
}
