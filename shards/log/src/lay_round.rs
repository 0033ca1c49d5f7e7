//! Lays the small pieces of many partitions down together: one operation appends them all to their files through the page
//! cache and then makes all of it stable at once. With thousands of partitions each has only a few KiB when room is needed,
//! and a direct write and a flush for each of them costs more than the appends themselves. Large pieces go their own way
//! (`lay_down`).

use std::collections::BTreeSet;

use bytes::Bytes;
use pelton_model::Now;
use pelton_model::limits::BLOCK_BYTES;
use pelton_wire::record_batch;

use crate::disk::{DiskEffect, DiskError, FileKind, SegmentPiece};
use crate::lay_down::{Plan, plan};
use crate::partition::{Laying, TailBatch};
use crate::sabotage::Sabotage;
use crate::segment::SegmentName;
use crate::storage::{Op, Storage};
use crate::types::{PartitionSlot, Progress};

/// A larger piece is worth a write of its own, bytes.
const PIECE_BYTES_MAX: u64 = 128 * 1024;
/// Pieces of one round: bounds the time a turn takes.
const PIECES_MAX: usize = 256;
/// Bytes of one round: bounds the time until what was laid down may be forgotten.
const ROUND_BYTES_MAX: u64 = 8 << 20;
/// Fewer are laid down one by one.
const PIECES_MIN: usize = 2;

/// Partitions whose pieces are on their way together, and the segments these go to.
pub(crate) type Round = Vec<(PartitionSlot, SegmentName)>;

impl Storage {
    /// Lays down what the oldest groups hold: small pieces of many partitions in one round, the rest one by one.
    pub(crate) fn lay_oldest(&mut self, now: Now, out: &mut Vec<DiskEffect>) {
        let (small, large) = self.oldest_pieces();
        for slot in large {
            self.start_lay_down(now, slot, out);
        }
        if small.len() < PIECES_MIN {
            for (slot, _) in small {
                self.start_lay_down(now, slot, out);
            }
        } else {
            self.start_round(now, small, out);
        }
    }

    /// What the partitions of the oldest groups could lay down now, oldest first: small pieces, and partitions with more
    /// than that.
    fn oldest_pieces(&mut self) -> (Vec<(PartitionSlot, Plan)>, Vec<PartitionSlot>) {
        let (written, flushed) = (self.journal.written(), self.journal.flushed());
        let large_max = self.lay_downs_max();
        let (mut small, mut large, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut wants_sync = false;
        let mut seen = BTreeSet::new();
        for group in self.journal.unlaid_groups() {
            if group.sequence > flushed && group.direct_left == 0 {
                wants_sync = true;
                break;
            }
            for (slot, _) in &group.ends {
                if !seen.insert(*slot) {
                    continue;
                }
                let partition = self.partitions.get(slot.0 as usize).and_then(Option::as_ref);
                let Some(partition) =
                    partition.filter(|p| p.laying.is_none() && !p.reading_partial && !p.cut_is_due())
                else {
                    continue;
                };
                match plan(partition, flushed, PIECE_BYTES_MAX) {
                    None => wants_sync |= partition.first_unlaid() < partition.tail.len(),
                    Some(_) if partition.direct_left > 0 || partition.unlaid_bytes > PIECE_BYTES_MAX => {
                        large.push(*slot);
                    }
                    Some(plan) => {
                        bytes += partition.unlaid_bytes;
                        small.push((*slot, plan));
                    }
                }
            }
            if small.len() >= PIECES_MAX || bytes >= ROUND_BYTES_MAX || large.len() >= large_max {
                break;
            }
        }
        if wants_sync {
            // Unflushed data could be lost by the journal after all, and other data come to its place in the segment.
            self.journal.want_sync(written);
        }
        (small, large)
    }

    fn start_round(&mut self, now: Now, pieces: Vec<(PartitionSlot, Plan)>, out: &mut Vec<DiskEffect>) {
        let spoil = self.config.sabotaged(Sabotage::ReuseBufferEarly);
        let mut round = Round::with_capacity(pieces.len());
        let mut writes = Vec::with_capacity(pieces.len());
        for (slot, plan) in pieces {
            if plan.roll || self.partition(slot).is_some_and(|partition| partition.segments.is_empty()) {
                self.begin_segment(now, slot, &plan, out);
            }
            let Some(partition) = self.partition_mut(slot) else { continue };
            let Some(active) = partition.segments.last() else { continue };
            let (base, position) = (active.name(), active.length);
            let file = active.file(partition.key, FileKind::Log);
            let batches = partition.tail.range(plan.from..plan.to);
            let parts: Vec<Bytes> = batches.clone().map(|batch| part_of(batch, spoil)).collect();
            let laid = |batch: &TailBatch| (batch.fact, batch.sequence, batch.direct.is_some());
            let end = position + parts.iter().map(|part| part.len() as u64).sum::<u64>();
            // The unfinished block is on disk; whoever needs it reads it back.
            let partial = end.is_multiple_of(BLOCK_BYTES as u64).then(Vec::new);
            partition.laying = Some(Laying { batches: batches.map(laid).collect(), partial });
            self.begin_file_op(slot, base);
            round.push((slot, base));
            writes.push(SegmentPiece { file, position, parts });
        }
        self.round_in_flight = true;
        let early = self.config.sabotaged(Sabotage::RoundNotAwaited).then(|| round.clone());
        let ticket = self.ticket(Op::LayRound(round));
        out.push(DiskEffect::SegmentsAppend { ticket, pieces: writes });
        for (slot, _) in early.into_iter().flatten() {
            self.finish_lay_down(now, slot, &mut Progress::default());
        }
    }

    /// The pieces of a round are in their segments, on stable storage, or some may not be.
    pub(crate) fn handle_round(
        &mut self,
        now: Now,
        round: Round,
        result: Result<Bytes, DiskError>,
        progress: &mut Progress,
    ) {
        self.round_in_flight = false;
        let failed = result.err();
        for (slot, base) in round {
            self.end_file_op(slot, base);
            match &failed {
                None => self.finish_lay_down(now, slot, progress),
                Some(_) => self.abandon_piece(slot),
            }
        }
        if let Some(error) = failed {
            self.fail_or_retry(now, "an append to segments", &error);
        }
    }

    fn abandon_piece(&mut self, slot: PartitionSlot) {
        if let Some(partition) = self.partition_mut(slot) {
            partition.laying = None;
            // What was begun behind the segment's end is written again; the unfinished block is as it was.
        }
    }
}

fn part_of(batch: &TailBatch, spoil: bool) -> Bytes {
    if !spoil {
        return batch.bytes.clone();
    }
    let mut bytes = batch.bytes.to_vec();
    bytes[record_batch::HEADER_BYTES..].rotate_left(1);
    Bytes::from(bytes)
}
