//! Replays the journal's groups on what the checkpoint lists: batches not yet in segments become the partitions' tails,
//! to be laid down again to the same places.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey};
use pelton_wire::record_batch;

use crate::checkpoint::{Checkpoint, PartitionData};
use crate::frame::{self, Entry, EntryKind};
use crate::journal::{Group, GroupState};
use crate::partition::PartitionLog;
use crate::recovery::{Found, REMEDY};
use crate::seal::batches_of;
use crate::segment::Segment;
use crate::storage::Storage;
use crate::types::{PartitionSlot, Recovered, RecoveredPartition, RecoveryError, ReplayedBatch};

struct Replay<'a> {
    storage: &'a mut Storage,
    snapshots: BTreeMap<PartitionSlot, Bytes>,
    replayed: BTreeMap<PartitionSlot, Vec<ReplayedBatch>>,
    recovered: Recovered,
}

fn corrupt(cause: String) -> RecoveryError {
    RecoveryError::Corrupt { cause, remedy: REMEDY.to_string() }
}

/// Builds partitions, tails and groups.
pub(crate) fn replay(
    storage: &mut Storage,
    now: Now,
    checkpoint: Checkpoint,
    journal: &Bytes,
    frames: &[Found],
) -> Result<Recovered, RecoveryError> {
    let mut replay = Replay {
        storage,
        snapshots: BTreeMap::new(),
        replayed: BTreeMap::new(),
        recovered: Recovered { clean: checkpoint.clean && frames.is_empty(), ..Recovered::default() },
    };
    for row in &checkpoint.doomed {
        let topic_id = pelton_model::TopicId(uuid::Uuid::from_bytes(row.topic_id));
        let key = PartitionKey { topic_id, partition: row.partition };
        replay.storage.doomed.add(PartitionSlot(u32::MAX), key, Offset(row.base_offset), now.monotonic_ns, 0);
    }
    for data in checkpoint.partitions {
        let slot = replay.storage.insert(partition_of(&data));
        replay.snapshots.insert(slot, Bytes::from(data.snapshot));
    }
    let metadata = Bytes::from(checkpoint.metadata);
    replay.recovered.metadata_snapshot = (!metadata.is_empty()).then_some(metadata);
    replay.storage.recovery_synced = frames.is_empty();
    for found in frames {
        replay.frame(journal, found)?;
    }
    Ok(replay.finish())
}

fn partition_of(data: &PartitionData) -> PartitionLog {
    let mut partition = PartitionLog::new(data.key(), Offset(data.laid_end_offset));
    partition.log_start = Offset(data.log_start_offset);
    partition.segments = data.segments.iter().map(Segment::from_data).collect();
    if data.segment_bytes > 0 {
        partition.config.segment_bytes = data.segment_bytes;
    }
    let active_length = partition.segments.last().map_or(0, |active| active.length);
    if !active_length.is_multiple_of(BLOCK_BYTES as u64) {
        partition.partial = None;
    }
    partition
}

impl Replay<'_> {
    fn frame(&mut self, journal: &Bytes, found: &Found) -> Result<(), RecoveryError> {
        let sequence = found.header.sequence;
        let Some(entries) = frame::entries(journal, found.position, &found.header) else {
            return Err(corrupt(format!("journal group {sequence} does not parse")));
        };
        let mut group = Group {
            sequence,
            position: found.position as u64,
            length: found.header.frame_length(),
            state: GroupState::Flushed,
            completion: 0,
            unlaid: 0,
            resident: false,
            ends: Vec::new(),
            flush_due_ns: None,
        };
        for entry in &entries {
            match entry.kind {
                EntryKind::Batches => self.batches(entry, &mut group)?,
                EntryKind::Metadata => self.recovered.metadata_records.push(entry.payload.clone()),
                EntryKind::LogStartOffset => {
                    if let Some(partition) = self.known(entry.key) {
                        partition.log_start = partition.log_start.max(entry.value.min(partition.log_end));
                    }
                }
                EntryKind::Roll => {
                    if let Some(partition) = self.known(entry.key) {
                        partition.rolls.insert(entry.value);
                    }
                }
            }
        }
        group.resident = group.unlaid > 0;
        self.recovered.groups += 1;
        self.storage.journal.restore(group);
        Ok(())
    }

    fn known(&mut self, key: PartitionKey) -> Option<&mut PartitionLog> {
        let slot = *self.storage.by_key.get(&key)?;
        self.storage.partition_mut(slot)
    }

    fn batches(&mut self, entry: &Entry, group: &mut Group) -> Result<(), RecoveryError> {
        let slot = match self.storage.by_key.get(&entry.key) {
            Some(slot) => *slot,
            // Not in the checkpoint and not from its beginning: the partition was deleted before the checkpoint.
            None if entry.value != Offset(0) => return Ok(()),
            None => self.storage.insert(PartitionLog::new(entry.key, Offset(0))),
        };
        let Some(partition) = self.storage.partition_mut(slot) else { return Ok(()) };
        let batches = batches_of(&entry.payload, group.sequence);
        let length: u64 = batches.iter().map(|batch| batch.fact.length).sum();
        let begins = batches.first().is_some_and(|batch| batch.fact.base_offset == entry.value);
        let ordered = batches.iter().all(|batch| batch.fact.last_offset >= batch.fact.base_offset);
        if length != entry.payload.len() as u64 || !begins || !ordered {
            let (key, sequence) = (entry.key, group.sequence);
            return Err(corrupt(format!("the batches of {key} in journal group {sequence} do not parse")));
        }
        let facts = self.replayed.entry(slot).or_default();
        for batch in batches {
            self.recovered.batches += 1;
            facts.extend(fact_of(&batch.bytes));
            let (base, last) = (batch.fact.base_offset, batch.fact.last_offset);
            if last < partition.laid_end {
                continue;
            }
            if base != partition.log_end {
                return Err(corrupt(format!(
                    "{} ends at offset {}, but journal group {} goes on at {}",
                    entry.key, partition.log_end.0, group.sequence, base.0
                )));
            }
            let end = Offset(last.0 + 1);
            // Not flushed_end: what was found may be in the drive's cache only, until it is laid down and synced.
            (partition.log_end, partition.written_end) = (end, end);
            partition.push_tail(batch);
            group.ends.push((slot, end));
            group.unlaid += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Recovered {
        for (index, partition) in self.storage.partitions.iter().enumerate() {
            let Some(partition) = partition else { continue };
            let slot = PartitionSlot(index as u32);
            self.recovered.partitions.push(RecoveredPartition {
                slot,
                key: partition.key,
                log_start_offset: partition.log_start,
                log_end_offset: partition.log_end,
                snapshot: self.snapshots.remove(&slot).unwrap_or_default(),
                replay: self.replayed.remove(&slot).unwrap_or_default(),
            });
            self.storage.started.push(slot);
        }
        self.recovered
    }
}

fn fact_of(batch: &Bytes) -> Option<ReplayedBatch> {
    let info = record_batch::peek(batch)?;
    Some(ReplayedBatch {
        base_offset: Offset(info.base_offset),
        last_offset: Offset(info.last_offset()),
        leader_epoch: LeaderEpoch(info.partition_leader_epoch),
        producer_id: info.producer_id,
        producer_epoch: info.producer_epoch,
        base_sequence: info.base_sequence,
        records_count: info.records_count,
        max_timestamp_ms: info.max_timestamp,
        attributes: info.attributes,
    })
}
