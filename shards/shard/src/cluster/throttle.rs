//! Which replicas of a shard are throttled, and how fast it may go: as the metadata have it (KIP-73).

use pelton_cluster::throttle::Side;
use pelton_log::PartitionSlot;
use pelton_model::{BrokerId, ListenerMode, PartitionKey, Replica};

use crate::Shard;

impl Shard {
    /// The broker that this shard is, or is part of.
    fn own_broker(&self) -> BrokerId {
        self.config.broker_of(Replica { node: self.config.node_id, shard: self.id })
    }

    /// The rates as the metadata have them; shards that are one broker share its rate.
    pub(super) fn set_rates(&mut self) {
        let broker = self.own_broker();
        let shards = match self.config.mode {
            ListenerMode::Direct => 1,
            ListenerMode::Single => u64::from(self.config.shards.max(1)),
        };
        let of = |side| self.image.throttled_rate(side, broker).map(|rate| rate.div_ceil(shards));
        let (leader, follower) = (of(Side::Leader), of(Side::Follower));
        if let Some(cluster) = &mut self.cluster {
            cluster.throttle.leader.set(leader);
            cluster.throttle.follower.set(follower);
        }
    }

    /// Whether a replica here is throttled, as the metadata have it.
    pub(super) fn throttle_host(&mut self, slot: PartitionSlot, key: PartitionKey) {
        let broker = self.own_broker();
        let of = |side| self.image.is_throttled(side, key, broker);
        let (leader, follower) = (of(Side::Leader), of(Side::Follower));
        if let Some(hosted) = self.partitions.hosted_mut(slot) {
            hosted.host.set_throttled(leader, follower);
        }
    }
}
