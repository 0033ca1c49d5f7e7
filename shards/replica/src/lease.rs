//! The lease a node holds from the controller (rules L1 to L4): what it may still answer, by its own clock. No write
//! depends on it; it keeps readers from a leader that has been replaced.

#[cfg(any(test, feature = "sabotage"))]
use crate::sabotage::Sabotage;

/// How long a grant holds, counted by the holder from the moment it asked, nanoseconds.
pub const LEASE_TTL_NS: u64 = 1_500_000_000;
/// How often a node asks, nanoseconds.
pub const LEASE_RENEW_NS: u64 = 300_000_000;
/// Requests whose answer may still come.
const ASKED_MAX: usize = 16;

/// A lease as its users see it: valid before an instant of this node's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    valid_until_ns: u64,
}

impl Lease {
    /// Of a node that needs none: a cluster of one, or leases are off.
    pub const UNLIMITED: Lease = Lease { valid_until_ns: u64::MAX };
    /// None.
    pub const NONE: Lease = Lease { valid_until_ns: 0 };

    /// One that ends at this instant of the node's clock, nanoseconds.
    pub fn until(valid_until_ns: u64) -> Lease {
        Lease { valid_until_ns }
    }

    /// The instant it ends at.
    pub fn until_ns(self) -> u64 {
        self.valid_until_ns
    }

    /// Whether it holds at `now_ns`. Rule L8: asked after what is to be answered was captured, before it is sent.
    pub fn valid(self, now_ns: u64) -> bool {
        now_ns < self.valid_until_ns
    }
}

/// The holder's side: which requests are out, and until when the last grant holds.
#[derive(Clone, Debug)]
pub struct LeaseHolder {
    ttl_ns: u64,
    until_ns: u64,
    /// Sequence and instant of requests not answered yet, ascending.
    asked: Vec<(u64, u64)>,
    next_sequence: u64,
}

impl LeaseHolder {
    /// Holds nothing yet. `ttl_ns` must be the controller's.
    pub fn new(ttl_ns: u64) -> LeaseHolder {
        LeaseHolder { ttl_ns, until_ns: 0, asked: Vec::new(), next_sequence: 1 }
    }

    /// L1: the sequence number of a request that is sent right after this. The oldest of too many is given up.
    pub fn ask(&mut self, now_ns: u64) -> u64 {
        if self.asked.len() == ASKED_MAX {
            self.asked.remove(0);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.asked.push((sequence, now_ns));
        sequence
    }

    /// L3: that request was granted. The lease counts from when it was asked; answers out of order never shorten it.
    pub fn handle_grant(&mut self, sequence: u64) {
        let Some(at) = self.asked.iter().position(|(asked, _)| *asked == sequence) else { return };
        self.until_ns = self.until_ns.max(self.asked[at].1.saturating_add(self.ttl_ns));
        self.asked.drain(..=at);
    }

    /// L6: gives back what is held; only what is asked from now on counts.
    pub fn release(&mut self) {
        self.until_ns = 0;
        self.asked.clear();
    }

    /// The lease now.
    pub fn lease(&self) -> Lease {
        Lease { valid_until_ns: self.until_ns }
    }

    /// With a fault on purpose.
    #[cfg(any(test, feature = "sabotage"))]
    pub fn sabotaged_lease(&self, sabotage: Option<Sabotage>) -> Lease {
        match sabotage {
            Some(Sabotage::LeaseTwice) if self.until_ns > 0 => {
                Lease { valid_until_ns: self.until_ns + self.ttl_ns }
            }
            Some(Sabotage::ForgetLease) => Lease::UNLIMITED,
            _ => self.lease(),
        }
    }
}

/// L4: how long after its last grant, on the granter's clock, a holder is certainly without a lease. Both clocks may be
/// off by `drift_permille`; 50 ms are for the granter's own coarseness.
pub fn expiry_wait_ns(ttl_ns: u64, drift_permille: u64) -> u64 {
    ttl_ns * (1000 + drift_permille) / (1000 - drift_permille) + 50_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_request_and_answers_out_of_order_never_shorten_it() {
        let mut holder = LeaseHolder::new(100);
        assert!(!holder.lease().valid(0));
        let (first, second) = (holder.ask(10), holder.ask(40));
        holder.handle_grant(second);
        assert!(holder.lease().valid(139) && !holder.lease().valid(140));
        holder.handle_grant(first);
        holder.handle_grant(77);
        assert!(holder.lease().valid(139) && !holder.lease().valid(140));
        let third = holder.ask(50);
        holder.release();
        holder.handle_grant(third);
        assert!(!holder.lease().valid(51));
    }

    #[test]
    fn requests_without_answer_are_bounded_and_the_wait_covers_the_drift() {
        let mut holder = LeaseHolder::new(100);
        for at in 0..1000 {
            holder.ask(at);
        }
        assert_eq!(holder.asked.len(), ASKED_MAX);
        assert_eq!(expiry_wait_ns(LEASE_TTL_NS, 10), 1_580_303_030);
    }
}
