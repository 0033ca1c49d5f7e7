//! Decides when a checkpoint is made, what it may leave behind, and what follows when it is durable; and drives a clean
//! stop, whose last act is a checkpoint.
//!
//! A checkpoint covers only segment bytes that have been synced, and is written only when every change its snapshots know
//! is on stable storage. Journal space before its start is used again only when it is durable.
//!
//! It takes the partitions in over several turns. That is as good as one moment: its start was fixed before the first of
//! them, so that the journal repeats what a partition did after it was taken in, and repeating what a partition taken in
//! later knows already changes nothing. Only a segment that goes away meanwhile would be both listed and removed: then it
//! begins anew.

use std::sync::Arc;

use bytes::Bytes;
use pelton_model::Now;

use crate::checkpoint::{Checkpoint, CutData, PartitionData};
use crate::disk::{CheckpointFile, DiskEffect, DiskError};
use crate::partition::PartitionLog;
use crate::sabotage::Sabotage;
use crate::segment::SegmentName;
use crate::storage::{Op, Phase, Storage};
use crate::types::{Health, PartitionSlot, Progress, Snapshots};

/// With more partitions than this a checkpoint is worth it only when it frees more of the journal.
const MANY_PARTITIONS: usize = 1000;
/// A checkpoint that has begun anew so often is made in one turn.
const RESTARTS_MAX: u8 = 3;
/// Index files written at once at a clean stop.
const LAST_INDEXES_IN_FLIGHT: usize = 64;

/// A checkpoint on its way.
#[derive(Debug)]
pub(crate) struct Underway {
    checkpoint: Checkpoint,
    /// The first partition not taken in yet; none: complete.
    next: Option<usize>,
    start: (u64, u64),
    /// Written only when the journal is flushed up to here.
    gate: u64,
    clean: bool,
    in_flight: bool,
}

/// The state of checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Checkpointing {
    /// Generation of the last durable one.
    pub generation: u64,
    /// Incarnation of the life that begins.
    pub incarnation: u64,
    /// Something changed that is in no journal entry.
    pub wanted: bool,
    /// Segments have gone away since the one underway was begun.
    pub disturbed: bool,
    /// How often the one underway was begun anew.
    pub restarts: u8,
    /// When the next partitions are to be taken in, monotonic nanoseconds.
    pub again_ns: Option<u64>,
    /// One at a time.
    pub underway: Option<Underway>,
}

impl Checkpointing {
    /// Generation of the next checkpoint that is made: it sees what has changed by now.
    pub fn next_to_be_made(&self) -> u64 {
        self.generation + 1 + u64::from(self.underway.is_some())
    }
}

impl Storage {
    /// Makes a checkpoint if it would free enough of the journal, or is wanted; writes the one that waits.
    pub(crate) fn checkpoint_if_due(
        &mut self,
        now: Now,
        snapshots: &dyn Snapshots,
        out: &mut Vec<DiskEffect>,
    ) {
        self.checkpointing.again_ns = None;
        if self.phase == Phase::Failed || self.retry_at_ns.is_some() {
            return;
        }
        if self.checkpointing.underway.is_none() && self.is_checkpoint_due() {
            self.begin_checkpoint(false);
        }
        self.take_partitions(snapshots);
        let more = self.checkpointing.underway.as_ref().is_some_and(|underway| underway.next.is_some());
        self.checkpointing.again_ns = more.then_some(now.monotonic_ns + 1);
        self.write_checkpoint(out);
    }

    fn is_checkpoint_due(&mut self) -> bool {
        let needed = self.journal.first_needed();
        if self.phase == Phase::Recovering {
            return needed.0 > self.journal.last_sealed();
        }
        let freed = self.journal.freed_by(needed);
        let size = self.config.journal_bytes;
        let starved = self.is_starved() && freed > 0 && (freed >= size / 32 || self.lay_downs == 0);
        let share = if self.partitions.len() > MANY_PARTITIONS { 4 } else { 8 };
        self.checkpointing.wanted || freed >= size / share || starved
    }

    fn begin_checkpoint(&mut self, clean: bool) {
        self.checkpointing.wanted = false;
        self.checkpointing.disturbed = false;
        self.checkpointing.restarts = 0;
        let mut start = self.journal.first_needed();
        if self.config.sabotaged(Sabotage::CheckpointTooFar) {
            start = (self.journal.last_sealed() + 1, self.journal.head());
        }
        self.journal.incarnation = self.checkpointing.incarnation;
        let checkpoint = Checkpoint {
            generation: self.checkpointing.generation + 1,
            incarnation: self.checkpointing.incarnation,
            start_sequence: start.0,
            start_position: start.1,
            durable_upto: 0,
            clean,
            ..Checkpoint::default()
        };
        let underway = Underway { checkpoint, next: Some(0), start, gate: 0, clean, in_flight: false };
        self.checkpointing.underway = Some(underway);
    }

    /// Takes the next partitions into the checkpoint underway, and with the last of them everything else.
    fn take_partitions(&mut self, snapshots: &dyn Snapshots) {
        let checkpointing = &mut self.checkpointing;
        let Some(Underway { checkpoint, next, clean, .. }) = &mut checkpointing.underway else { return };
        let Some(mut from) = *next else { return };
        if std::mem::take(&mut checkpointing.disturbed) && from > 0 {
            checkpoint.partitions.clear();
            checkpoint.cuts.clear();
            from = 0;
            checkpointing.restarts += 1;
        }
        let recovering = self.phase == Phase::Recovering;
        let at_once = recovering || *clean || checkpointing.restarts >= RESTARTS_MAX;
        let count = if at_once { usize::MAX } else { self.config.checkpoint_partitions.max(1) };
        let to = from.saturating_add(count).min(self.partitions.len());
        for (slot, partition) in self.partitions[from..to].iter().enumerate() {
            if let Some(partition) = partition.as_ref().filter(|partition| !partition.begins_anew()) {
                let snapshot = snapshots.partition(PartitionSlot((from + slot) as u32));
                checkpoint.partitions.push(partition_data(partition, snapshot));
                if partition.cut > 0 && !self.config.sabotaged(Sabotage::CutForgotten) {
                    let cut = CutData { number: partition.cut, end: partition.cut_end };
                    checkpoint.cuts.insert(partition.key, cut);
                }
            }
        }
        *next = (to < self.partitions.len()).then_some(to);
        if next.is_some() {
            return;
        }
        checkpoint.doomed = self.doomed.to_data();
        checkpoint.metadata = snapshots.metadata();
        // What the snapshots know may still be on its way to the disk.
        let gate = match self.journal.fits(0) {
            true if !recovering => self.journal.last_sequence(),
            _ => self.journal.last_sealed(),
        };
        self.journal.want_sync(gate);
        if let Some(underway) = &mut self.checkpointing.underway {
            underway.gate = gate;
        }
    }

    fn write_checkpoint(&mut self, out: &mut Vec<DiskEffect>) {
        // If the next group finds no room, the gate would wait for the room this checkpoint makes. What its snapshots
        // know too much is then cut by recovery.
        let stuck = !self.journal.fits(0) && self.journal_writes == 0;
        let reachable = if stuck { self.journal.last_sealed() } else { u64::MAX };
        let flushed = self.journal.flushed();
        let slot = ((self.checkpointing.generation + 1) % 2) as u8;
        let Some(underway) = &mut self.checkpointing.underway else { return };
        if underway.in_flight || underway.next.is_some() || flushed < underway.gate.min(reachable) {
            return;
        }
        underway.in_flight = true;
        // As of now: what the gate waited for counts. A partition that is not listed any more has its batches proven.
        underway.checkpoint.durable_upto = flushed;
        let file = CheckpointFile::Checkpoint(Arc::new(std::mem::take(&mut underway.checkpoint)));
        let ticket = self.ticket(Op::Checkpoint);
        out.push(DiskEffect::CheckpointWrite { ticket, slot, file });
    }

    pub(crate) fn handle_checkpoint(
        &mut self,
        now: Now,
        result: Result<Bytes, DiskError>,
        progress: &mut Progress,
    ) {
        let Some(underway) = self.checkpointing.underway.take() else { return };
        if let Err(error) = result {
            // The slot may be damaged; the next attempt has the same generation and so the same slot.
            self.checkpointing.wanted = true;
            return self.fail_or_retry(now, "a write of a checkpoint", &error);
        }
        self.checkpointing.generation += 1;
        self.doomed.generation = self.checkpointing.generation;
        self.checkpointing.wanted |= self.doomed.waits_for_checkpoint(now);
        if self.phase == Phase::Failed {
            return;
        }
        if matches!(self.health, Health::NoSpace(_)) && self.retry_at_ns.is_none() {
            self.health = Health::Healthy;
        }
        self.journal.release(underway.start);
        if self.phase == Phase::Recovering {
            self.phase = Phase::Running;
            progress.space_freed = true;
            self.evict_recovered();
            for (slot, partition) in self.partitions.iter_mut().enumerate() {
                let Some(partition) = partition else { continue };
                if partition.flushed_end < partition.laid_end {
                    partition.flushed_end = partition.laid_end;
                    progress.advanced.push(PartitionSlot(slot as u32));
                }
            }
        }
        if underway.clean {
            self.phase = Phase::Stopped;
            progress.stopped = true;
        }
    }

    /// The buffers of recovered groups are slices of the journal as it was read: give all of it back.
    fn evict_recovered(&mut self) {
        while let Some((sequence, slots)) = self.journal.evict() {
            for slot in slots {
                if let Some(partition) = self.partition_mut(slot) {
                    partition.evict(sequence);
                }
            }
        }
    }

    /// Takes a clean stop one step further.
    pub(crate) fn advance_stop(&mut self, snapshots: &dyn Snapshots, out: &mut Vec<DiskEffect>) {
        let quiet = self.journal_writes == 0
            && !self.journal_syncing
            && !self.journal.needs_sync()
            && self.doomed.busy() == 0;
        if self.retry_at_ns.is_some() && quiet && (self.journal.forming.is_empty() || !self.can_seal()) {
            // No room to lay down, but the journal has all that was acknowledged: the next start goes on from there.
            return self.say_last_word(out);
        }
        let flushed = self.journal.forming.is_empty() && self.journal.flushed() == self.journal.last_sealed();
        if self.phase != Phase::Running || !flushed {
            return;
        }
        if self.journal.first_needed().0 <= self.journal.last_sealed()
            || self.checkpointing.underway.is_some()
        {
            return;
        }
        self.write_last_indexes(out);
        if self.last_indexes.as_ref().is_some_and(Vec::is_empty) && self.doomed.busy() == 0 {
            self.begin_checkpoint(true);
            self.take_partitions(snapshots);
            self.write_checkpoint(out);
        }
    }

    fn can_seal(&self) -> bool {
        self.phase == Phase::Running && self.journal.fits(0)
    }

    fn write_last_indexes(&mut self, out: &mut Vec<DiskEffect>) {
        let mut left = self.last_indexes.take().unwrap_or_else(|| self.active_with_index());
        while self.doomed.busy() < LAST_INDEXES_IN_FLIGHT
            && let Some((slot, name)) = left.pop()
        {
            self.begin_file_op(slot, name);
            self.write_index(slot, name, out);
        }
        self.last_indexes = Some(left);
    }

    fn active_with_index(&self) -> Vec<(PartitionSlot, SegmentName)> {
        let partitions = self.partitions.iter().enumerate();
        partitions
            .filter_map(|(slot, partition)| {
                let active = partition.as_ref()?.segments.last()?;
                let worth = active.length > 0 && active.index.is_some();
                worth.then_some((PartitionSlot(slot as u32), active.name()))
            })
            .collect()
    }

    /// A stop after a failure: nothing more can be done, the next start recovers from the journal.
    pub(crate) fn stop_failed(&mut self, out: &mut Vec<DiskEffect>) {
        if self.stopping {
            self.say_last_word(out);
        }
    }

    fn say_last_word(&mut self, out: &mut Vec<DiskEffect>) {
        if !std::mem::replace(&mut self.last_word, true) {
            let ticket = self.ticket(Op::LastWord);
            out.push(DiskEffect::JournalSync { ticket });
        }
    }
}

fn partition_data(partition: &PartitionLog, snapshot: Vec<u8>) -> PartitionData {
    // A segment that was begun but holds nothing stable yet is not there.
    let segments = partition.segments.iter().filter(|segment| segment.length > 0);
    PartitionData {
        topic_id: *partition.key.topic_id.0.as_bytes(),
        partition: partition.key.partition,
        log_start_offset: partition.log_start.0,
        laid_end_offset: partition.laid_end.0,
        cleaned_end_offset: partition.cleaned_end.0,
        segment_bytes: partition.config.segment_bytes,
        segments: segments.map(|segment| segment.to_data()).collect(),
        snapshot,
    }
}
