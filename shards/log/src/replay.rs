//! Replays the journal's groups on what the checkpoint lists: batches not yet in segments become the partitions' tails,
//! to be laid down again to the same places.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey};
use pelton_wire::record_batch::{self, BatchInfo};

use crate::checkpoint::{Checkpoint, CutData, PartitionData};
use crate::direct::DirectBatches;
use crate::frame::{self, Entry, EntryKind};
use crate::journal::{Group, GroupState};
use crate::lay_down::settle;
use crate::partition::{PartitionLog, TailBatch};
use crate::recovery::{EntryPlace, Found, KnownCuts, corrupt};
use crate::segment::{BatchFact, RollState, Segment, SegmentName};
use crate::storage::Storage;
use crate::stretch::batches_of;
use crate::types::{
    DiskImage, PartitionSlot, Recovered, RecoveredPartition, RecoveryError, ReplayedBatch, ReplayedCut,
    SegmentReader,
};

struct Replay<'a> {
    storage: &'a mut Storage,
    snapshots: BTreeMap<PartitionSlot, Bytes>,
    replayed: BTreeMap<PartitionSlot, Vec<ReplayedBatch>>,
    recovered: Recovered,
    direct: DirectBatches,
    known_cuts: KnownCuts,
    segments: SegmentReader,
    cuts: BTreeMap<PartitionSlot, Vec<ReplayedCut>>,
    now: Now,
}

/// Builds partitions, tails and groups.
pub(crate) fn replay(
    storage: &mut Storage,
    now: Now,
    checkpoint: Checkpoint,
    image: &DiskImage,
    frames: &[Found],
    (direct, known_cuts): (DirectBatches, KnownCuts),
) -> Result<Recovered, RecoveryError> {
    let mut replay = Replay {
        storage,
        snapshots: BTreeMap::new(),
        replayed: BTreeMap::new(),
        recovered: Recovered { clean: checkpoint.clean && frames.is_empty(), ..Recovered::default() },
        direct,
        known_cuts,
        segments: image.segments.clone(),
        cuts: BTreeMap::new(),
        now,
    };
    for row in &checkpoint.doomed {
        let topic_id = pelton_model::TopicId(uuid::Uuid::from_bytes(row.topic_id));
        let key = PartitionKey { topic_id, partition: row.partition };
        let name = SegmentName { base_offset: Offset(row.base_offset), generation: row.generation };
        replay.storage.doomed.add(PartitionSlot(u32::MAX), key, name, now.monotonic_ns, 0);
    }
    for data in checkpoint.partitions {
        let cut = checkpoint.cuts.get(&data.key()).copied();
        let mut partition = partition_of(&data, cut);
        if !replay.known_cuts.any_of(data.key()) {
            end_at_cut(&mut partition);
        }
        let slot = replay.storage.insert(partition);
        replay.snapshots.insert(slot, Bytes::from(data.snapshot));
    }
    let metadata = Bytes::from(checkpoint.metadata);
    replay.recovered.metadata_snapshot = (!metadata.is_empty()).then_some(metadata);
    replay.storage.recovery_synced = frames.is_empty();
    for found in frames {
        replay.frame(&image.journal, found)?;
    }
    Ok(replay.finish())
}

/// The log of a compacted topic may have been cut behind its last record: no batch tells where it ends.
fn end_at_cut(partition: &mut PartitionLog) {
    let end = partition.log_end.max(partition.cut_end);
    (partition.log_end, partition.written_end, partition.flushed_end) = (end, end, end);
}

fn partition_of(data: &PartitionData, cut: Option<CutData>) -> PartitionLog {
    let mut partition = PartitionLog::new(data.key(), Offset(data.laid_end_offset));
    partition.log_start = Offset(data.log_start_offset);
    partition.next_log_start = partition.log_start;
    partition.cleaned_end = Offset(data.cleaned_end_offset);
    partition.segments = data.segments.iter().map(Segment::from_data).collect();
    if data.segment_bytes > 0 {
        partition.config.segment_bytes = data.segment_bytes;
    }
    if let Some(cut) = cut {
        (partition.cut, partition.cut_end) = (cut.number, cut.end);
    }
    let cut = partition.cut;
    // What a cut left of a segment is not gone on with.
    let active = partition.segments.last().filter(|active| cut == 0 || active.generation == cut);
    partition.planned = active.map(RollState::of);
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
            direct_left: 0,
            memory_bytes: found.header.frame_length(),
            resident: false,
            ends: Vec::new(),
            flush_due_ns: None,
        };
        for (index, entry) in entries.iter().enumerate() {
            let at = (sequence, index);
            let covered = self.known_cuts.cover(entry.key, at);
            match entry.kind {
                EntryKind::Batches | EntryKind::Direct if entry.is_void() => {}
                EntryKind::Batches => self.batches(entry, at, &mut group)?,
                EntryKind::Direct => self.direct_batch(entry, at, &mut group)?,
                EntryKind::Metadata => self.recovered.metadata_records.push(entry.payload.clone()),
                EntryKind::Cut | EntryKind::Restart if self.known_cuts.end_with(entry.key, at) => {
                    if let Some(partition) = self.known(entry.key) {
                        end_at_cut(partition);
                    }
                }
                EntryKind::LogStartOffset | EntryKind::Cut | EntryKind::Restart if covered => {}
                EntryKind::LogStartOffset => {
                    if let Some(partition) = self.known(entry.key) {
                        partition.log_start = partition.log_start.max(entry.value.min(partition.log_end));
                        partition.next_log_start = partition.log_start;
                    }
                }
                EntryKind::CleanedSegment => self.doom_unlisted(entry),
                EntryKind::Cut | EntryKind::Restart => self.cut(entry, &mut group)?,
            }
        }
        group.resident = group.unlaid > 0;
        self.recovered.groups += 1;
        self.storage.journal.restore(group);
        Ok(())
    }

    /// A result of compaction: if the checkpoint does not have it, its files, whole or not, are to be removed.
    fn doom_unlisted(&mut self, entry: &Entry) {
        let Some(generation) = entry.payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return;
        };
        let name = SegmentName { base_offset: entry.value, generation };
        let listed = self.known(entry.key).is_some_and(|partition| partition.segment(name).is_some());
        if !listed {
            let due_ns = self.now.monotonic_ns;
            self.storage.doomed.add(PartitionSlot(u32::MAX), entry.key, name, due_ns, 0);
        }
    }

    fn known(&mut self, key: PartitionKey) -> Option<&mut PartitionLog> {
        let slot = *self.storage.by_key.get(&key)?;
        self.storage.partition_mut(slot)
    }

    /// The slot of an entry's partition; none if it was deleted before the checkpoint: it is not in there and the entry is
    /// not its beginning.
    fn slot_of(&mut self, entry: &Entry) -> Option<PartitionSlot> {
        match self.storage.by_key.get(&entry.key) {
            Some(slot) => Some(*slot),
            None if entry.value != Offset(0) => None,
            None => Some(self.storage.insert(PartitionLog::new(entry.key, Offset(0)))),
        }
    }

    fn batches(&mut self, entry: &Entry, at: EntryPlace, group: &mut Group) -> Result<(), RecoveryError> {
        let Some(slot) = self.slot_of(entry) else { return Ok(()) };
        let batches: Vec<_> = batches_of(&entry.payload, group.sequence).collect();
        let length: u64 = batches.iter().map(|batch| batch.fact.length).sum();
        let followed = entry.is_followed();
        let begins = batches.first().is_some_and(|batch| begins_at(&batch.fact, entry));
        let ordered = batches.iter().all(|batch| batch.fact.last_offset >= batch.fact.base_offset);
        if length != entry.payload.len() as u64 || !begins || !ordered {
            let (key, sequence) = (entry.key, group.sequence);
            return Err(corrupt(format!("the batches of {key} in journal group {sequence} do not parse")));
        }
        for (index, mut batch) in batches.into_iter().enumerate() {
            if self.known_cuts.took(entry.key, at, batch.fact.last_offset) {
                continue;
            }
            self.recovered.batches += 1;
            self.replayed.entry(slot).or_default().extend(fact_of(&batch.bytes));
            batch.begins_segment = index == 0 && entry.begins_segment();
            batch.generation = self.generation(slot, entry, at);
            if self.extend(slot, &batch.fact, batch.begins_segment, followed, group)? {
                self.push(slot, batch, group);
            }
        }
        Ok(())
    }

    /// Moves a partition's end over a batch; false if its segments have the batch by the checkpoint.
    fn extend(
        &mut self,
        slot: PartitionSlot,
        fact: &BatchFact,
        begins: bool,
        followed: bool,
        group: &mut Group,
    ) -> Result<bool, RecoveryError> {
        let wall_ms = self.now.wall_ms;
        let Some(partition) = self.storage.partition_mut(slot) else { return Ok(false) };
        if fact.last_offset < partition.laid_end {
            return Ok(false);
        }
        // A follower of a compacted log has the gaps that its leader has.
        if fact.base_offset != partition.log_end && !(followed && fact.base_offset > partition.log_end) {
            return Err(corrupt(format!(
                "{} ends at offset {}, but journal group {} goes on at {}",
                partition.key, partition.log_end.0, group.sequence, fact.base_offset.0
            )));
        }
        let end = Offset(fact.last_offset.0 + 1);
        // Not flushed_end: what was found may be in the drive's cache only, until it is laid down and synced.
        (partition.log_end, partition.written_end) = (end, end);
        partition.place(fact, begins, wall_ms);
        group.ends.push((slot, end));
        Ok(true)
    }

    fn push(&mut self, slot: PartitionSlot, batch: TailBatch, group: &mut Group) {
        if let Some(partition) = self.storage.partition_mut(slot) {
            partition.push_tail(batch);
            group.unlaid += 1;
        }
    }

    /// A batch that went straight to its segment. If nothing proves that it is on stable storage there, it was read and is
    /// laid down once more, to the same place; otherwise it is there, and all that is before it.
    fn direct_batch(
        &mut self,
        entry: &Entry,
        at: EntryPlace,
        group: &mut Group,
    ) -> Result<(), RecoveryError> {
        let Some(slot) = self.slot_of(entry) else { return Ok(()) };
        let info = record_batch::peek(&entry.payload);
        let Some(info) = info.filter(|info| begins_at(&fact_in(info), entry)) else {
            let (key, sequence) = (entry.key, group.sequence);
            return Err(corrupt(format!("the header of {key} in journal group {sequence} does not parse")));
        };
        let fact = fact_in(&info);
        if self.known_cuts.took(entry.key, at, fact.last_offset) {
            return Ok(());
        }
        self.recovered.batches += 1;
        self.replayed.entry(slot).or_default().extend(fact_of(&entry.payload));
        let begins_segment = entry.begins_segment();
        if !self.extend(slot, &fact, begins_segment, entry.is_followed(), group)? {
            return Ok(());
        }
        let sequence = group.sequence;
        match self.direct.take(sequence, entry) {
            Some(bytes) => {
                group.memory_bytes += bytes.len();
                let generation = self.generation(slot, entry, at);
                let batch = TailBatch { fact, bytes, sequence, begins_segment, generation, direct: None };
                self.push(slot, batch, group);
            }
            None => self.settle_up_to(slot, &fact, begins_segment, group),
        }
        Ok(())
    }

    /// The segments have everything up to this batch.
    fn settle_up_to(&mut self, slot: PartitionSlot, fact: &BatchFact, begins: bool, group: &mut Group) {
        let wall_ms = self.now.wall_ms;
        let Some(partition) = self.storage.partition_mut(slot) else { return };
        let tail = std::mem::take(&mut partition.tail);
        let facts = tail.iter().map(|batch| (&batch.fact, batch.begins_segment, batch.generation));
        partition.unlaid_bytes += fact.length;
        for (fact, begins, generation) in facts.chain([(fact, begins, partition.cut)]) {
            if begins || partition.segments.is_empty() {
                partition.segments.push(Segment { generation, ..Segment::new(fact.base_offset, wall_ms) });
            }
            settle(partition, fact);
        }
        let length = partition.segments.last().map_or(0, |active| active.length);
        partition.partial = length.is_multiple_of(BLOCK_BYTES as u64).then(Vec::new);
        for batch in tail {
            if batch.sequence == group.sequence {
                group.unlaid -= 1;
            } else {
                self.storage.journal.batch_laid(batch.sequence, false);
            }
        }
    }

    /// The generation of a segment that begins with an entry.
    fn generation(&self, slot: PartitionSlot, entry: &Entry, at: EntryPlace) -> u64 {
        let now = || self.storage.partition(slot).map_or(0, |partition| partition.cut);
        self.known_cuts.generation(entry.key, at).unwrap_or_else(now)
    }

    /// The log was cut here.
    fn cut(&mut self, entry: &Entry, group: &mut Group) -> Result<(), RecoveryError> {
        let Some(number) = entry.cut_number() else {
            return Err(corrupt(format!(
                "the cut of {} in journal group {} does not parse",
                entry.key, group.sequence
            )));
        };
        let restart = entry.kind == EntryKind::Restart;
        let slot = match self.storage.by_key.get(&entry.key) {
            Some(slot) => *slot,
            None if restart => self.storage.insert(PartitionLog::new(entry.key, entry.value)),
            None => return Ok(()),
        };
        let place = match self.storage.partition(slot) {
            Some(partition) if !restart => {
                crate::cut::place_in_files(partition, entry.value, &self.segments)?
            }
            _ => None,
        };
        let generation = self.storage.checkpointing.next_to_be_made();
        let due_ns = self.now.monotonic_ns;
        let Some(partition) = self.storage.partition_mut(slot) else { return Ok(()) };
        partition.cut = number;
        let (end, unlaid, gone) = match restart {
            true => {
                let (unlaid, gone) = partition.restart_at(entry.value);
                (entry.value, unlaid, gone)
            }
            false => partition.cut_to(entry.value, place, generation),
        };
        for sequence in unlaid {
            if sequence == group.sequence {
                group.unlaid -= 1;
            } else {
                self.storage.journal.batch_laid(sequence, false);
            }
        }
        for name in gone {
            self.storage.doomed.add(slot, entry.key, name, due_ns, generation);
        }
        let after = self.replayed.get(&slot).map_or(0, Vec::len);
        self.cuts.entry(slot).or_default().push(ReplayedCut { after, end, emptied: restart });
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
                cuts: self.cuts.remove(&slot).unwrap_or_default(),
            });
            self.storage.started.push(slot);
        }
        self.recovered
    }
}

fn fact_in(info: &BatchInfo) -> BatchFact {
    BatchFact {
        base_offset: Offset(info.base_offset),
        last_offset: Offset(info.last_offset()),
        length: info.size_bytes as u64,
        max_timestamp_ms: info.max_timestamp,
    }
}

/// Whether an entry's first batch is where the entry says.
fn begins_at(fact: &BatchFact, entry: &Entry) -> bool {
    fact.base_offset == entry.value || (entry.is_followed() && fact.base_offset > entry.value)
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
        max_timestamp_ms: info.max_timestamp,
        attributes: info.attributes,
    })
}
