//! One shard of a node stands still for longer than its lease (rule L3): others lead what it led, and when it wakes, with renewals of the
//! node's lease waiting for it, it does not answer before it has heard who leads by now.

use pelton_replica::partition::RoleKind;

use super::scenario::STEPS_MAX;
use super::{MS, SECOND, World};

/// As long as a lease, nanoseconds.
const LEASE_NS: u64 = 1_500 * MS;

impl World {
    /// A shard that leads something, other than the one with the node's member of the quorum, stands still, and wakes about when others lead.
    pub(super) fn stick(&mut self) -> Result<(), String> {
        let leads = |node: &super::node::Node| {
            let shard = node.shards.get(1).and_then(Option::as_ref);
            shard.is_some_and(|shard| shard.replicas().iter().any(|it| it.role == RoleKind::Active))
        };
        let able: Vec<usize> = (0..self.nodes.len()).filter(|id| leads(&self.nodes[*id])).collect();
        if able.is_empty() {
            return Ok(());
        }
        let id = able[self.prng.below(able.len() as u64) as usize];
        let until_ns = self.now_ns + LEASE_NS + self.prng.below(LEASE_NS);
        self.trace(&format!("{id}.1 stands still until {} ms", until_ns / MS));
        self.nodes[id].stands_until[1] = until_ns;
        self.summary.pauses += 1;
        self.pass(until_ns - self.now_ns + SECOND, STEPS_MAX)?;
        self.make_whole("a shard that woke")
    }
}
