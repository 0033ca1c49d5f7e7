//! What the members of a classic group add up to, kept up with every change, so that a join need not look at all members.
//! Never decides.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, ClassicMember};

/// Sums over the members.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Tally {
    /// How many members have each protocol.
    members_with: BTreeMap<String, usize>,
    /// Names and metadata of all their protocols, bytes.
    protocol_bytes: usize,
    /// Their assignments, bytes.
    pub assignment_bytes: usize,
}

/// Names, each once; a member may repeat one.
fn names(protocols: &[(String, Bytes)]) -> impl Iterator<Item = &String> {
    let is_first = |at: usize, name: &String| protocols[..at].iter().all(|(other, _)| other != name);
    protocols.iter().enumerate().filter(move |(at, (name, _))| is_first(*at, name)).map(|(_, (name, _))| name)
}

impl Tally {
    /// Of these members.
    pub fn of<'m>(members: impl Iterator<Item = &'m ClassicMember>) -> Tally {
        let mut tally = Tally::default();
        members.for_each(|member| tally.add(member));
        tally
    }

    /// One more member.
    pub fn add(&mut self, member: &ClassicMember) {
        for name in names(&member.protocols) {
            *self.members_with.entry(name.clone()).or_default() += 1;
        }
        self.protocol_bytes += protocols_bytes(&member.protocols);
        self.assignment_bytes += member.assignment.len();
    }

    /// A member less, as it was when it was added.
    pub fn take_off(&mut self, member: &ClassicMember) {
        for name in names(&member.protocols) {
            if let Some(count) = self.members_with.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.members_with.remove(name);
                }
            }
        }
        self.protocol_bytes -= protocols_bytes(&member.protocols);
        self.assignment_bytes -= member.assignment.len();
    }

    /// Bytes of protocols and assignments.
    pub fn bytes(&self) -> usize {
        self.protocol_bytes + self.assignment_bytes
    }
}

impl ClassicGroup {
    /// Whether every member has this protocol. False without members.
    pub fn all_have(&self, protocol: &str) -> bool {
        self.tally.members_with.get(protocol) == Some(&self.members.len())
    }

    /// Sums anew, after assignments have changed.
    pub fn sum_up(&mut self) {
        self.tally = Tally::of(self.members.values());
    }
}

/// Bytes of a list of protocols.
pub(crate) fn protocols_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}
