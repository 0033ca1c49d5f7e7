//! Sessions of nodes as the controller sees them: renewals wait for a majority to confirm the controller (rule L2); a node
//! that is not heard of counts as lease-free after the wait (rules L4, L5).

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{NodeEpoch, NodeId};

use crate::image::MetadataImage;
use crate::lease::{Grant, LeaseConfig, Renewal};

#[derive(Clone, Copy, Debug)]
struct Session {
    epoch: NodeEpoch,
    granted_ns: u64,
    applied: u64,
}

/// Faults on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionSabotage {
    /// The wait is a third of what it must be.
    pub short_wait: bool,
    /// A new controller does not wait for leases of its predecessor.
    pub no_initial_wait: bool,
    /// Nodes whose fencing is under way still get leases.
    pub grant_while_fencing: bool,
}

/// Of one term of one controller.
pub struct Sessions {
    config: LeaseConfig,
    since_ns: u64,
    sessions: BTreeMap<NodeId, Session>,
    /// Renewals that wait, with the first round whose confirmation is enough.
    waiting: BTreeMap<NodeId, (u64, Renewal)>,
    /// Lives that get no lease any more in this term.
    fencing: BTreeSet<(NodeId, NodeEpoch)>,
    round: u64,
    /// Faults on purpose.
    pub sabotage: SessionSabotage,
}

impl Sessions {
    /// Of a controller whose predecessors were confirmed at `since_ns` for the last time, as late as that can have been (rule L5).
    pub fn new(config: LeaseConfig, since_ns: u64, first_round: u64) -> Sessions {
        Sessions {
            config,
            since_ns,
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            fencing: BTreeSet::new(),
            round: first_round,
            sabotage: SessionSabotage::default(),
        }
    }

    /// A node asks for its lease, and is unfenced and registered in this life.
    pub fn renew(&mut self, renewal: Renewal) {
        let Renewal { node, epoch, applied, .. } = renewal;
        if self.fencing.contains(&(node, epoch)) && !self.sabotage.grant_while_fencing {
            return;
        }
        let session = self.sessions.entry(node).or_insert(Session { epoch, granted_ns: 0, applied: 0 });
        if session.epoch != epoch {
            *session = Session { epoch, granted_ns: 0, applied: 0 };
        }
        session.applied = session.applied.max(applied);
        // One that already waits is confirmed earlier; a newer one after it.
        if self
            .waiting
            .get(&node)
            .is_none_or(|(round, waits)| waits.epoch != epoch || *round + 8 < self.round)
        {
            self.waiting.insert(node, (self.round + 1, renewal));
        }
    }

    /// The round to ask a majority for, if anyone waits; it begins now.
    pub fn next_round(&mut self) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        self.round += 1;
        Some(self.round)
    }

    /// A majority has confirmed this round: leases, each counted from now on this clock.
    pub fn confirmed(&mut self, now_ns: u64, round: u64, image: &MetadataImage) -> Vec<(NodeId, Grant)> {
        let released = self.released(image);
        let mut grants = Vec::new();
        let due: Vec<NodeId> =
            self.waiting.iter().filter(|(_, (enough, _))| *enough <= round).map(|(node, _)| *node).collect();
        for node in due {
            let Some((_, renewal)) = self.waiting.remove(&node) else { continue };
            let unfenced =
                image.node(node).is_some_and(|known| known.epoch == renewal.epoch && !known.fenced);
            let fencing = self.fencing.contains(&(node, renewal.epoch)) && !self.sabotage.grant_while_fencing;
            let Some(session) = self.sessions.get_mut(&node) else { continue };
            if !unfenced || fencing || session.epoch != renewal.epoch {
                continue;
            }
            session.granted_ns = now_ns;
            let Renewal { epoch, sequence, .. } = renewal;
            grants.push((node, Grant { epoch, sequence, released }));
        }
        grants
    }

    /// Every unfenced node follows the metadata up to here: what was taken away up to here is not used any more.
    fn released(&self, image: &MetadataImage) -> u64 {
        let applied = |node: &crate::record::NodeRegistration| {
            self.sessions
                .get(&node.node)
                .filter(|session| session.epoch == node.epoch)
                .map_or(0, |session| session.applied)
        };
        image.nodes().filter(|node| !node.fenced).map(applied).min().unwrap_or(0).min(image.applied_offset())
    }

    /// Unfenced lives whose lease has surely ended, and which get none any more (rules L4, L5).
    pub fn expired(&mut self, now_ns: u64, image: &MetadataImage) -> Vec<(NodeId, NodeEpoch)> {
        let wait = self.config.wait_ns() / if self.sabotage.short_wait { 3 } else { 1 };
        let since = if self.sabotage.no_initial_wait { 0 } else { self.since_ns };
        let mut expired = Vec::new();
        for node in image.nodes().filter(|node| !node.fenced) {
            let granted = self
                .sessions
                .get(&node.node)
                .filter(|session| session.epoch == node.epoch)
                .map_or(0, |session| session.granted_ns);
            if now_ns >= granted.max(since).saturating_add(wait) {
                expired.push((node.node, node.epoch));
            }
        }
        for life in &expired {
            self.stop(life.0, life.1);
        }
        expired
    }

    /// This life gets no lease any more.
    pub fn stop(&mut self, node: NodeId, epoch: NodeEpoch) {
        self.fencing.insert((node, epoch));
        if !self.sabotage.grant_while_fencing {
            self.waiting.retain(|_, (_, renewal)| (renewal.node, renewal.epoch) != (node, epoch));
        }
    }

    /// A node has just been unfenced: it counts as if it had got a lease now, so that it has time to ask for one.
    pub fn unfenced(&mut self, now_ns: u64, node: NodeId, epoch: NodeEpoch, applied: u64) {
        self.fencing.remove(&(node, epoch));
        self.sessions.insert(node, Session { epoch, granted_ns: now_ns, applied });
    }
}
