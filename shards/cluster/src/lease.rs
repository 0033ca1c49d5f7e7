//! Leases of nodes (rules L1 to L9): how long one lasts, how long a controller waits until one has surely ended, and the
//! holder's side. Only durations on one clock; no instant is ever compared between nodes.

use pelton_model::{NodeEpoch, NodeId};

/// How leases are reckoned. All nodes of a cluster use the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseConfig {
    /// A lease lasts so long from just before it was asked for, milliseconds.
    pub ttl_ms: u64,
    /// It is asked for anew so often, milliseconds.
    pub renew_ms: u64,
    /// Clocks run at most this much too fast or too slow, parts in a thousand.
    pub drift_permille: u64,
    /// What is added to the wait, milliseconds.
    pub margin_ms: u64,
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig { ttl_ms: 1500, renew_ms: 300, drift_permille: 10, margin_ms: 50 }
    }
}

impl LeaseConfig {
    /// How long a lease lasts on its holder's clock, nanoseconds.
    pub fn ttl_ns(&self) -> u64 {
        self.ttl_ms * 1_000_000
    }

    /// After so long on the controller's clock since it granted a lease, the lease has ended on its holder's, however
    /// both clocks drift (rule L4): TTL × (1 + drift) / (1 − drift) + margin, nanoseconds, rounded up.
    pub fn wait_ns(&self) -> u64 {
        let stretched = self.ttl_ns() * (1000 + self.drift_permille);
        stretched.div_ceil(1000 - self.drift_permille) + self.margin_ms * 1_000_000
    }
}

/// A node asks for its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// Who.
    pub node: NodeId,
    /// In this life.
    pub epoch: NodeEpoch,
    /// Names this request; rises.
    pub sequence: u64,
    /// Every shard of the node follows the metadata up to here.
    pub applied: u64,
}

/// A controller grants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// To this life.
    pub epoch: NodeEpoch,
    /// The request.
    pub sequence: u64,
    /// Whoever lost a leadership by a change up to here does not use it any more (rules L6, L7).
    pub released: u64,
}

/// A node's own lease.
pub struct LeaseKeeper {
    config: LeaseConfig,
    node: NodeId,
    epoch: Option<NodeEpoch>,
    sequence: u64,
    /// Requests without an answer: sequence, and the instant just before each was sent.
    asked: Vec<(u64, u64)>,
    next_ns: u64,
    until_ns: u64,
    released: u64,
    /// Fault on purpose: a lease counts from its arrival.
    pub sabotage_from_arrival: bool,
}

/// Requests remembered; older ones can hardly be answered any more.
const ASKED_MAX: usize = 16;

impl LeaseKeeper {
    /// Without a lease.
    pub fn new(config: LeaseConfig, node: NodeId) -> LeaseKeeper {
        LeaseKeeper {
            config,
            node,
            epoch: None,
            sequence: 0,
            asked: Vec::new(),
            next_ns: 0,
            until_ns: 0,
            released: 0,
            sabotage_from_arrival: false,
        }
    }

    /// The node is registered in this life; leases of another one are none.
    pub fn registered(&mut self, epoch: NodeEpoch) {
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.asked.clear();
            self.until_ns = 0;
            self.next_ns = 0;
        }
    }

    /// The life it is registered in.
    pub fn epoch(&self) -> Option<NodeEpoch> {
        self.epoch
    }

    /// The node is not registered any more.
    pub fn lost(&mut self) {
        self.epoch = None;
        self.until_ns = 0;
        self.asked.clear();
    }

    /// The lease is given back: nothing is served under it any more.
    pub fn lapse(&mut self) {
        self.until_ns = 0;
        self.asked.clear();
    }

    /// Ask at the next occasion, not only when it is time: something has been released.
    pub fn hurry(&mut self) {
        self.next_ns = 0;
    }

    /// Asks if it is time.
    pub fn poll(&mut self, now_ns: u64, applied: u64) -> Option<Renewal> {
        let epoch = self.epoch?;
        if now_ns < self.next_ns {
            return None;
        }
        self.next_ns = now_ns + self.config.renew_ms * 1_000_000;
        self.sequence += 1;
        self.asked.push((self.sequence, now_ns));
        if self.asked.len() > ASKED_MAX {
            self.asked.remove(0);
        }
        Some(Renewal { node: self.node, epoch, sequence: self.sequence, applied })
    }

    /// A grant has come. It counts from the instant its request left, not from now.
    pub fn granted(&mut self, now_ns: u64, grant: Grant) {
        if self.epoch != Some(grant.epoch) {
            return;
        }
        self.released = self.released.max(grant.released);
        let Some(at) = self.asked.iter().position(|(sequence, _)| *sequence == grant.sequence) else {
            return;
        };
        let asked_ns = if self.sabotage_from_arrival { now_ns } else { self.asked[at].1 };
        self.asked.drain(..=at);
        self.until_ns = self.until_ns.max(asked_ns + self.config.ttl_ns());
    }

    /// The lease holds at this instant (rule L3).
    pub fn holds(&self, now_ns: u64) -> bool {
        self.epoch.is_some() && now_ns < self.until_ns
    }

    /// The instant at which the lease ends, on this node's clock, nanoseconds; 0 without one.
    pub fn until_ns(&self) -> u64 {
        if self.epoch.is_some() { self.until_ns } else { 0 }
    }

    /// Changes up to here are released.
    pub fn released(&self) -> u64 {
        self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_outlasts_every_lease_whatever_the_drift() {
        let config = LeaseConfig::default();
        assert_eq!(config.wait_ns(), 1_580_303_031);
        // Holder's clock as slow, controller's as fast as the bound allows: real time of each.
        let slow = config.ttl_ns() as f64 / 0.99;
        let fast = config.wait_ns() as f64 / 1.01;
        assert!(fast > slow, "{fast} > {slow}");
    }

    #[test]
    fn a_lease_counts_from_its_request_and_only_in_its_life() {
        let mut keeper = LeaseKeeper::new(LeaseConfig::default(), NodeId(1));
        assert_eq!(keeper.poll(0, 0), None);
        keeper.registered(NodeEpoch(5));
        let first = keeper.poll(1_000, 7).unwrap();
        assert_eq!((first.epoch, first.applied), (NodeEpoch(5), 7));
        assert_eq!(keeper.poll(2_000, 7), None);
        let grant = Grant { epoch: NodeEpoch(5), sequence: first.sequence, released: 3 };
        keeper.granted(2_000, Grant { epoch: NodeEpoch(4), ..grant });
        assert!(!keeper.holds(2_000));
        keeper.granted(2_000, grant);
        let end = 1_000 + LeaseConfig::default().ttl_ns();
        assert!(keeper.holds(end - 1) && !keeper.holds(end));
        assert_eq!(keeper.released(), 3);
        keeper.granted(2_000, grant);
        assert!(!keeper.holds(end), "a grant counts once");
        keeper.registered(NodeEpoch(6));
        assert!(!keeper.holds(2_000));
    }
}
