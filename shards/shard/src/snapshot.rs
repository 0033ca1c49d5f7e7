//! What a checkpoint keeps of each partition beside its log: idempotent producers and leader epochs, as one blob.

use std::collections::BTreeMap;

use pelton_cluster::image::MetadataImage;
use pelton_log::{PartitionSlot, RecoveredPartition, ReplayedBatch, ReplayedCut, Snapshots};
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey};
use pelton_replica::epochs::EpochCache;
use pelton_replica::partition::HighWatermarkMark;
use pelton_replica::producers::{BatchFacts, Producers};

use crate::cluster::Cluster;
use crate::partitions::Partitions;

/// The shard's view that the log takes a checkpoint of.
pub(crate) struct Snapshot<'a> {
    pub(crate) partitions: &'a Partitions,
    pub(crate) image: &'a MetadataImage,
    pub(crate) recovered: &'a BTreeMap<PartitionKey, RecoveredPartition>,
    pub(crate) cluster: Option<&'a Cluster>,
}

impl Snapshots for Snapshot<'_> {
    fn partition(&self, slot: PartitionSlot) -> Vec<u8> {
        if let Some(local) = self.partitions.local(slot) {
            return encode(&local.producers, &local.epochs);
        }
        if let Some(hosted) = self.partitions.hosted(slot) {
            return hosted.host.snapshot();
        }
        // Not opened yet: the metadata image has not come. Keep what the last checkpoint had, with what followed.
        let Some(recovered) = self.recovered.values().find(|recovered| recovered.slot == slot) else {
            return Vec::new();
        };
        let (producers, epochs, mark) = restored(recovered, pelton_model::Now::default());
        match mark == HighWatermarkMark::default() {
            true => encode(&producers, &epochs),
            false => encode_replica(&producers, &epochs, mark),
        }
    }

    fn metadata(&self) -> Vec<u8> {
        match self.cluster {
            Some(cluster) => cluster.checkpoint(),
            None => self.image.snapshot(),
        }
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

/// Set in the length of the producers where a high watermark follows it.
const HAS_MARK: u32 = 1 << 31;

/// The same for a partition with several replicas.
pub(crate) fn encode_replica(producers: &Producers, epochs: &EpochCache, mark: HighWatermarkMark) -> Vec<u8> {
    let rest = encode(producers, epochs);
    let (length, rest) = rest
        .split_first_chunk::<4>()
        .map_or((0, &[][..]), |(length, rest)| (u32::from_le_bytes(*length), rest));
    let mut bytes = Vec::with_capacity(rest.len() + 16);
    bytes.extend_from_slice(&(length | HAS_MARK).to_le_bytes());
    bytes.extend_from_slice(&mark.offset.0.to_le_bytes());
    bytes.extend_from_slice(&mark.leader_epoch.0.to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

/// Takes a blob apart; none if it is empty or not one of ours (the checkpoint's checksum excludes damage).
fn restore(bytes: &[u8]) -> Option<(Producers, EpochCache, HighWatermarkMark)> {
    let (length, mut rest) = bytes.split_first_chunk::<4>()?;
    let (length, mut mark) = (u32::from_le_bytes(*length), HighWatermarkMark::default());
    if length & HAS_MARK != 0 {
        let (offset, behind) = rest.split_first_chunk::<8>()?;
        let (epoch, behind) = behind.split_first_chunk::<4>()?;
        mark.offset = Offset(i64::from_le_bytes(*offset));
        mark.leader_epoch = LeaderEpoch(i32::from_le_bytes(*epoch));
        rest = behind;
    }
    let (producers, epochs) = rest.split_at_checked((length & !HAS_MARK) as usize)?;
    Some((Producers::restore(producers).ok()?, EpochCache::restore(epochs).ok()?, mark))
}

/// What a start found of a partition: its snapshot, and what the journal has since, batches and cuts in their order.
pub(crate) fn restored(
    recovered: &RecoveredPartition,
    now: Now,
) -> (Producers, EpochCache, HighWatermarkMark) {
    let (mut producers, mut epochs, mark) = restore(&recovered.snapshot).unwrap_or_default();
    let mut cuts = recovered.cuts.iter().peekable();
    for (index, batch) in recovered.replay.iter().enumerate() {
        while let Some(cut) = cuts.next_if(|cut| cut.after <= index) {
            apply_cut(cut, &mut producers, &mut epochs);
        }
        producers.replay(&facts_of(batch), now);
        epochs.assign(batch.leader_epoch, batch.base_offset);
    }
    cuts.for_each(|cut| apply_cut(cut, &mut producers, &mut epochs));
    (producers, epochs, mark)
}

fn apply_cut(cut: &ReplayedCut, producers: &mut Producers, epochs: &mut EpochCache) {
    if cut.emptied {
        *producers = Producers::default();
        epochs.clear();
    } else {
        producers.drop_beyond(cut.end);
        epochs.truncate_from_end(cut.end);
    }
}

/// A replayed batch as producer state sees it.
fn facts_of(batch: &ReplayedBatch) -> BatchFacts {
    BatchFacts {
        producer_id: batch.producer_id,
        producer_epoch: batch.producer_epoch,
        base_sequence: batch.base_sequence,
        base_offset: batch.base_offset,
        last_offset: batch.last_offset,
        timestamp_ms: batch.max_timestamp_ms,
    }
}
