//! What a checkpoint keeps of each partition beside its log: idempotent producers and leader epochs, as one blob.

use std::collections::BTreeMap;

use pelton_cluster::image::MetadataImage;
use pelton_log::{PartitionSlot, RecoveredPartition, ReplayedBatch, Snapshots};
use pelton_model::PartitionKey;
use pelton_replica::epochs::EpochCache;
use pelton_replica::producers::{BatchFacts, Producers};

use crate::partitions::Partitions;

/// The shard's view that the log takes a checkpoint of.
pub(crate) struct Snapshot<'a> {
    pub(crate) partitions: &'a Partitions,
    pub(crate) image: &'a MetadataImage,
    pub(crate) recovered: &'a BTreeMap<PartitionKey, RecoveredPartition>,
}

impl Snapshots for Snapshot<'_> {
    fn partition(&self, slot: PartitionSlot) -> Vec<u8> {
        if let Some(local) = self.partitions.local(slot) {
            return encode(&local.producers, &local.epochs);
        }
        // Not opened yet: the metadata image has not come. Keep what the last checkpoint had, with what followed.
        let Some(recovered) = self.recovered.values().find(|recovered| recovered.slot == slot) else {
            return Vec::new();
        };
        let (mut producers, mut epochs) = restore(&recovered.snapshot).unwrap_or_default();
        for batch in &recovered.replay {
            producers.replay(&facts_of(batch), pelton_model::Now::default());
            epochs.assign(batch.leader_epoch, batch.base_offset);
        }
        encode(&producers, &epochs)
    }

    fn metadata(&self) -> Vec<u8> {
        self.image.snapshot()
    }
}

fn encode(producers: &Producers, epochs: &EpochCache) -> Vec<u8> {
    let producers = producers.snapshot();
    let mut bytes = Vec::with_capacity(4 + producers.len() + 64);
    bytes.extend_from_slice(&(producers.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&producers);
    bytes.extend_from_slice(&epochs.snapshot());
    bytes
}

/// Takes a blob apart; none if it is empty or not one of ours (the checkpoint's checksum excludes damage).
pub(crate) fn restore(bytes: &[u8]) -> Option<(Producers, EpochCache)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (producers, epochs) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((Producers::restore(producers).ok()?, EpochCache::restore(epochs).ok()?))
}

/// A replayed batch as producer state sees it.
pub(crate) fn facts_of(batch: &ReplayedBatch) -> BatchFacts {
    BatchFacts {
        producer_id: batch.producer_id,
        producer_epoch: batch.producer_epoch,
        base_sequence: batch.base_sequence,
        records_count: batch.records_count,
        base_offset: batch.base_offset,
        last_offset: batch.last_offset,
        timestamp_ms: batch.max_timestamp_ms,
    }
}
