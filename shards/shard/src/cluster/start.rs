//! How a shard of a cluster's node starts and stops.

use std::sync::Arc;

use pelton_model::{BrokerConfig, Now, Prng, Replica, ShardId};

use super::member::MemberSeat;
use super::{Cluster, ClusterConfig};
use crate::control::CONTROLLER;
use crate::effect::Effect;
use crate::shard::start::storage_config;
use crate::{DiskImage, Shard, StartError};
use pelton_replica::lease::Lease;

impl Shard {
    /// A shard of a node of a cluster, from what is on its disk; `seed` as with [`Shard::new`]. It is ready when the node is
    /// registered and unfenced, and the shard follows the metadata up to there.
    pub fn in_cluster(
        config: Arc<BrokerConfig>,
        cluster: &ClusterConfig,
        id: ShardId,
        image: DiskImage,
        seed: u64,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Shard, StartError> {
        let mut prng = Prng::new(seed);
        let (seed, storage) = (prng.next_u64(), storage_config(&config));
        #[cfg(feature = "sabotage")]
        let storage = pelton_log::StorageConfig { sabotage: cluster.below.log, ..storage };
        let (mut shard, snapshot, records) = Shard::recover(config, id, storage, image, seed, now, out)?;
        let seat = match id {
            CONTROLLER => {
                let seed = prng.next_u64();
                let seat = MemberSeat::new(&shard.config, cluster, snapshot.as_ref(), &records, seed);
                #[cfg(feature = "sabotage")]
                let seat = seat.map(|mut seat| {
                    let control = cluster.sabotage.map_or(cluster.below.control, |fault| fault.control());
                    seat.member.set_sabotage(control, cluster.below.quorum);
                    seat
                });
                Some(seat.map_err(StartError::Metadata)?)
            }
            _ => None,
        };
        let image = seat.as_ref().map(|seat| seat.member.image().clone());
        let me = Replica { node: shard.config.node_id, shard: id };
        let mut cluster_of_shard = Cluster::new(me, &shard.config, cluster, seat);
        // An earlier life has not come to remove their files. Asked now: once they are removed, the checkpoint still names them
        // for a while, and the next start would remove files of these names again.
        cluster_of_shard.dropped = shard.storage.doomed_partitions();
        shard.cluster = Some(Box::new(cluster_of_shard));
        #[cfg(feature = "sabotage")]
        shard.groups.set_sabotage(cluster.below.groups);
        if let Some(image) = image {
            shard.replace_image(now, image, out);
            shard.spread_image(out);
        }
        Ok(shard)
    }

    /// The shard stops: whoever waits for an answer of a leader here is told to look elsewhere.
    pub(crate) fn give_up_lease(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.lease = Lease::NONE;
        cluster.lapse_ns = None;
        for slot in self.partitions.hosted_slots() {
            self.resign(now, slot, "the broker stops", out);
        }
    }
}
