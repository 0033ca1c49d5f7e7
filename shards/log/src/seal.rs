//! Seals groups: gives them a place in the journal, builds their frames, and follows the write until it is on stable storage.

use bytes::Bytes;
use pelton_model::Now;

use crate::disk::{DiskEffect, DiskError};
use crate::frame::{self, EntryKind, FrameBuilder};
use crate::journal::{Forming, Group, GroupState};
use crate::sabotage::Sabotage;
use crate::storage::{Op, Phase, Storage};
use crate::stretch::Stretch;
use crate::types::Progress;

impl Storage {
    /// Seals and writes as many groups as may be in flight and find a place.
    pub(crate) fn seal_groups(&mut self, now: Now, out: &mut Vec<DiskEffect>) {
        while self.phase == Phase::Running && self.journal_writes < self.config.writes_in_flight.max(1) {
            let Some(front) = self.journal.forming.front() else { return };
            let Some(position) = self.journal.placement(frame::frame_length(front.body_length)) else {
                return self.starve();
            };
            let Some(forming) = self.journal.forming.pop_front() else { return };
            self.seal(now, forming, position, out);
        }
    }

    fn seal(&mut self, now: Now, forming: Forming, position: u64, out: &mut Vec<DiskEffect>) {
        let sequence = forming.sequence;
        let sync = forming.sync || sequence <= self.journal.sync_wanted;
        let mut builder = FrameBuilder::new(forming.body_length);
        let mut stretches: Vec<Stretch> = Vec::with_capacity(forming.entries.len());
        let mut cuts = 0;
        for pending in &forming.entries {
            match pending.kind {
                EntryKind::Batches => {
                    let stretch = self.write_batches(now, pending, &stretches, &mut builder);
                    stretches.extend(stretch);
                }
                kind => {
                    builder.push(kind, 0, pending.key, pending.value, &pending.payload);
                    cuts += usize::from(self.is_cut_awaited(pending, sequence));
                }
            }
        }
        let bytes = builder.finish(self.journal.incarnation, sequence, self.journal.flushed());
        let handed = self.hand_to_tails(&bytes, sequence, stretches);
        let direct_left = match self.config.sabotaged(Sabotage::DirectNotAwaited) {
            true => 0,
            false => handed.direct_left,
        };
        let flush_due_ns = (!sync && forming.flush_ms < i64::MAX).then(|| now.after_ms(forming.flush_ms));
        let group = Group {
            sequence,
            position,
            length: bytes.len(),
            state: GroupState::InFlight,
            completion: 0,
            // A cut counts as something still to be done: no checkpoint may leave it out before it is.
            unlaid: handed.unlaid + cuts,
            direct_left,
            memory_bytes: bytes.len() + handed.direct_bytes,
            resident: handed.unlaid + cuts > 0,
            ends: handed.ends,
            flush_due_ns,
        };
        self.journal.sealed(group);
        if sync {
            self.journal.want_sync(sequence);
        }
        self.journal_writes += 1;
        let ticket = self.ticket(Op::JournalWrite { sequence, sync });
        out.push(DiskEffect::JournalWrite { ticket, position, bytes, sync });
        if self.config.sabotaged(Sabotage::AckBeforeFlush) {
            self.journal.complete_write(sequence, true);
        }
    }

    /// Flushes by a sync of its own what no group's write will.
    pub(crate) fn sync_journal(&mut self, now: Now, out: &mut Vec<DiskEffect>) {
        if self.journal.flush_due_ns().is_some_and(|due| due <= now.monotonic_ns) {
            // The first group may be written but for its direct batches.
            self.journal.want_sync(self.journal.written().max(self.journal.flushed() + 1));
        }
        if self.phase == Phase::Recovering && !self.recovery_synced && !self.journal_syncing {
            self.journal_syncing = true;
            let ticket = self.ticket(Op::RecoverySync);
            out.push(DiskEffect::JournalSync { ticket });
        }
        if self.phase == Phase::Running && !self.journal_syncing && self.journal.needs_sync() {
            let covers = self.journal.completions();
            self.journal_syncing = true;
            let ticket = self.ticket(Op::JournalSync { covers });
            out.push(DiskEffect::JournalSync { ticket });
        }
    }

    pub(crate) fn handle_journal_write(
        &mut self,
        sequence: u64,
        sync: bool,
        result: Result<Bytes, DiskError>,
        progress: &mut Progress,
    ) {
        self.journal_writes -= 1;
        match result {
            Err(error) if !self.config.sabotaged(Sabotage::IgnoreWriteError) => {
                self.fail("a write to the journal", &error);
            }
            _ if self.phase == Phase::Failed => {}
            _ => {
                self.journal.complete_write(sequence, sync);
                if sync && self.config.sabotaged(Sabotage::DsyncCoversEarlier) {
                    self.journal.complete_sync(self.journal.completions());
                }
                self.advance(progress);
            }
        }
    }

    pub(crate) fn handle_journal_sync(
        &mut self,
        covers: u64,
        result: Result<Bytes, DiskError>,
        progress: &mut Progress,
    ) {
        self.journal_syncing = false;
        match result {
            Err(error) => self.fail("a flush of the journal", &error),
            Ok(_) if self.phase == Phase::Failed => {}
            Ok(_) => {
                self.journal.complete_sync(covers);
                self.advance(progress);
            }
        }
    }

    /// What an earlier life may have left in the drive's cache is stable: it may go to segments.
    pub(crate) fn handle_recovery_sync(&mut self, result: Result<Bytes, DiskError>) {
        self.journal_syncing = false;
        match result {
            Err(error) => self.fail("a flush of the journal", &error),
            Ok(_) => self.recovery_synced = true,
        }
    }

    /// Tells partitions how far they are written and flushed.
    pub(crate) fn advance(&mut self, progress: &mut Progress) {
        let (mut written, mut flushed) = (Vec::new(), Vec::new());
        self.journal.advance(|group| written.extend(&group.ends), |group| flushed.extend(&group.ends));
        for (slot, end) in written {
            if let Some(partition) = self.partition_mut(slot) {
                partition.written_end = partition.written_end.max(end);
                progress.advanced.push(slot);
            }
        }
        for (slot, end) in flushed {
            if let Some(partition) = self.partition_mut(slot) {
                partition.flushed_end = partition.flushed_end.max(end);
                progress.advanced.push(slot);
            }
        }
        self.apply_start_facts(progress);
    }

    /// Gives up the oldest buffers while they take more memory than they may.
    pub(crate) fn evict_tail(&mut self) {
        let budget = if self.is_starved() { self.config.tail_bytes / 2 } else { self.config.tail_bytes };
        while self.journal.resident_bytes() > budget {
            let Some((sequence, slots)) = self.journal.evict() else { break };
            for slot in slots {
                if let Some(partition) = self.partition_mut(slot) {
                    partition.evict(sequence);
                }
            }
        }
        // Direct batches fill memory and hardly any journal: nothing else would call for their groups' flush.
        if self.journal.resident_bytes() > budget / 2 && self.journal.evicts_after_flush() {
            self.journal.want_sync(self.journal.written());
        }
    }
}
