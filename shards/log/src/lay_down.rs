//! Lays batches down: moves them from a partition's tail to the end of its active segment with large writes that come back
//! when they are on stable storage. Only then are they in the segment as far as anyone else is told. Decides when; where
//! they go was decided when they were sealed, so that a crash repeats it.
//!
//! The last block of a segment is usually unfinished: it is kept in memory and written again with the same bytes and more
//! behind them, so that every write is whole blocks and no byte of log that was acknowledged ever changes. For the same
//! reason only what is flushed is laid down, whatever the topic's durability; but a direct batch cannot be flushed before
//! it is laid down, and takes what is before it along.

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{AlignedBuffer, Now, Offset};
use pelton_wire::record_batch;

use crate::disk::{DiskEffect, DiskError, FileKind};
use crate::partition::{Laying, PartitionLog, TailBatch};
use crate::sabotage::Sabotage;
use crate::segment::{BatchFact, Segment, SegmentName};
use crate::storage::{Op, Phase, Storage};
use crate::types::{Health, PartitionSlot, Progress};

/// What the next write of a partition holds: a range of its tail, and whether a new segment begins with it.
pub(crate) struct Plan {
    pub from: usize,
    pub to: usize,
    pub roll: bool,
}

impl Storage {
    /// Starts lay-downs where a partition has enough, or room is needed.
    pub(crate) fn start_lay_downs(&mut self, now: Now, out: &mut Vec<DiskEffect>) {
        if self.phase == Phase::Failed || !self.recovery_synced || self.retry_at_ns.is_some() {
            return;
        }
        if !self.ready.is_empty() && self.lay_downs < self.lay_downs_max() {
            let ready: Vec<PartitionSlot> = self.ready.iter().copied().collect();
            for slot in ready {
                self.start_lay_down(now, slot, out);
            }
        }
        if !self.round_in_flight && self.needs_room() && self.lay_downs < self.lay_downs_max() {
            self.lay_oldest(now, out);
        }
    }

    /// Lay-downs at once: few, unless somebody waits for them.
    pub(crate) fn lay_downs_max(&mut self) -> usize {
        let max =
            if self.is_hurried() { self.config.lay_downs_in_flight } else { self.config.lay_downs_unhurried };
        max.max(1)
    }

    /// Bytes of a lay-down's write.
    fn lay_down_write_bytes(&mut self) -> usize {
        let max = self.config.lay_down_write_bytes;
        if self.is_hurried() { max } else { max.min(self.config.lay_down_write_bytes_unhurried) }
    }

    /// Whether somebody waits for lay-downs: batches that are in no journal, a start, a stop, or the next batches, for room.
    fn is_hurried(&mut self) -> bool {
        self.direct_left > 0
            || self.phase == Phase::Recovering
            || self.stopping
            || self.is_starved()
            || self.journal.unlaid_span() > self.config.journal_bytes / 4 * 3
            || self.journal.pinned_bytes() > self.config.tail_bytes / 4 * 3
    }

    fn needs_room(&mut self) -> bool {
        self.phase == Phase::Recovering
            || self.stopping
            || self.is_starved()
            || self.journal.unlaid_span() > self.config.journal_bytes / 2
            || self.journal.pinned_bytes() > self.config.tail_bytes / 2
            // Memory is given back in order: one small batch may hold up many direct ones, which fill no journal.
            || self.journal.resident_bytes() > self.config.tail_bytes
    }

    pub(crate) fn start_lay_down(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<DiskEffect>) {
        if self.lay_downs >= self.lay_downs_max() {
            return;
        }
        let (written, flushed) = (self.journal.written(), self.journal.flushed());
        let write_bytes = self.lay_down_write_bytes() as u64;
        let Some(partition) = self.partition_mut(slot) else {
            self.ready.remove(&slot);
            return;
        };
        if partition.laying.is_some() || partition.reading_partial || partition.cut_is_due() {
            return;
        }
        let Some(plan) = plan(partition, flushed, write_bytes) else {
            // Unflushed data could be lost by the journal after all, and other data come to its place in the segment.
            return self.journal.want_sync(written);
        };
        if plan.roll || partition.segments.is_empty() {
            self.begin_segment(now, slot, &plan, out);
        }
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(active) = partition.segments.last() else { return };
        let (length, file) = (active.length, active.file(partition.key, FileKind::Log));
        let base = active.name();
        let unfinished = (length % BLOCK_BYTES as u64) as usize;
        let position = length - unfinished as u64;
        self.begin_file_op(slot, base);
        self.lay_downs += 1;
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(partial) = partition.partial.clone() else {
            partition.reading_partial = true;
            let ticket = self.ticket(Op::LayPartial(slot, base));
            out.push(DiskEffect::SegmentRead { ticket, file, position, length: unfinished });
            return;
        };
        let batches: Vec<TailBatch> = partition.tail.range(plan.from..plan.to).cloned().collect();
        let behind = partition.bytes_behind(plan.to, BLOCK_BYTES);
        let spoil = self.config.sabotaged(Sabotage::ReuseBufferEarly);
        let (parts, partial) = parts_of(partial, &batches, &behind, spoil);
        if let Some(partition) = self.partition_mut(slot) {
            let laid = |batch: &TailBatch| (batch.fact, batch.sequence, batch.direct.is_some());
            let batches = batches.iter().map(laid).collect();
            partition.laying = Some(Laying { batches, partial: Some(partial) });
        }
        let ticket = self.ticket(Op::Lay(slot, base));
        out.push(DiskEffect::SegmentLay { ticket, file, position, parts });
    }

    /// Ends the active segment, if there is one, and begins the next at the plan's first batch.
    pub(crate) fn begin_segment(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        plan: &Plan,
        out: &mut Vec<DiskEffect>,
    ) {
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(first) = partition.tail.get(plan.from) else { return };
        let (base_offset, generation) = (first.fact.base_offset, first.generation);
        let sealed = partition.segments.last().map(Segment::name);
        partition.segments.push(Segment { generation, ..Segment::new(base_offset, now.wall_ms) });
        partition.partial = Some(Vec::new());
        if let Some(sealed) = sealed {
            self.seal_segment(slot, sealed, out);
        }
    }

    /// The unfinished last block of a segment has been read back, once after a start.
    pub(crate) fn handle_lay_partial(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        base: SegmentName,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
    ) {
        self.end_lay_down(slot, base);
        let Some(partition) = self.partition_mut(slot) else { return };
        partition.reading_partial = false;
        let unfinished =
            partition.segments.last().map_or(0, |active| active.length % BLOCK_BYTES as u64) as usize;
        match result {
            Ok(bytes) if bytes.len() >= unfinished => {
                partition.partial = Some(bytes[..unfinished].to_vec());
                self.start_lay_down(now, slot, out);
            }
            Ok(bytes) => {
                let text = format!(
                    "segment {} of {} ends {} bytes before its checkpoint says",
                    base.base_offset.0,
                    partition.key,
                    unfinished - bytes.len()
                );
                self.fail("a read of a segment", &DiskError { no_space: false, text });
            }
            Err(error) => self.fail("a read of a segment", &error),
        }
    }

    pub(crate) fn handle_lay(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        base: SegmentName,
        result: Result<Bytes, DiskError>,
        progress: &mut Progress,
    ) {
        if let Err(error) = result {
            return self.abandon_lay_down(now, (slot, base), "a write to a segment", &error);
        }
        self.end_lay_down(slot, base);
        self.finish_lay_down(now, slot, progress);
    }

    /// What was on its way to a partition's segment is there, on stable storage.
    pub(crate) fn finish_lay_down(&mut self, now: Now, slot: PartitionSlot, progress: &mut Progress) {
        let lay_down_bytes = self.config.lay_down_bytes as u64;
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(laying) = partition.laying.take() else { return };
        for (fact, _, direct) in &laying.batches {
            settle(partition, fact);
            partition.direct_left -= usize::from(*direct);
        }
        partition.partial = laying.partial;
        let (direct_left, removed_at_ns) = (partition.direct_left, partition.removed_at_ns);
        if partition.unlaid_bytes < lay_down_bytes && direct_left == 0 && !partition.has_ended_in_memory() {
            self.ready.remove(&slot);
        }
        let mut awaited = false;
        for (_, sequence, direct) in laying.batches {
            awaited |= direct;
            self.direct_left -= usize::from(direct);
            self.journal.batch_laid(sequence, direct);
        }
        if awaited && self.phase != Phase::Failed {
            self.advance(progress);
        }
        if let (0, Some(removed_at_ns)) = (direct_left, removed_at_ns) {
            self.drop_partition(slot, removed_at_ns.max(now.monotonic_ns));
        }
        if matches!(self.health, Health::NoSpace(_)) {
            self.health = Health::Healthy;
        }
    }

    fn abandon_lay_down(
        &mut self,
        now: Now,
        (slot, base): (PartitionSlot, SegmentName),
        what: &str,
        error: &DiskError,
    ) {
        self.end_lay_down(slot, base);
        if let Some(partition) = self.partition_mut(slot) {
            partition.laying = None;
        }
        self.fail_or_retry(now, what, error);
    }

    fn end_lay_down(&mut self, slot: PartitionSlot, base: SegmentName) {
        self.lay_downs -= 1;
        self.end_file_op(slot, base);
    }
}

/// Chooses what is laid down next: stable batches, and all up to the last direct one, up to the size of a write, the end of
/// the segment, or both.
pub(crate) fn plan(partition: &PartitionLog, stable: u64, write_bytes: u64) -> Option<Plan> {
    let from = partition.first_unlaid();
    let (mut to, mut length, mut roll) = (from, 0, false);
    let mut direct_left = partition.direct_left;
    for batch in partition.tail.iter().skip(from) {
        let too_long = length > 0 && length + batch.fact.length > write_bytes;
        if too_long || (batch.sequence > stable && direct_left == 0) {
            break;
        }
        // A segment that has begun already is one whose first write failed.
        let base_offset = batch.fact.base_offset;
        let has_begun = partition.segments.last().is_some_and(|segment| segment.base_offset >= base_offset);
        if batch.begins_segment && !has_begun {
            if to > from {
                break;
            }
            roll = true;
        }
        direct_left -= usize::from(batch.direct.is_some());
        length += batch.fact.length;
        to += 1;
    }
    (to > from).then_some(Plan { from, to, roll })
}

/// The write that brings batches behind the unfinished block `partial`, in parts that follow each other, and the block then
/// unfinished. A direct batch was prepared when it was sealed, the others are copied together. Where a part leaves a block
/// unfinished the next one begins with that block.
fn parts_of(
    mut partial: Vec<u8>,
    batches: &[TailBatch],
    behind: &[u8],
    spoil: bool,
) -> (Vec<Bytes>, Vec<u8>) {
    let mut parts: Vec<Bytes> = Vec::new();
    let mut rest = batches;
    while !rest.is_empty() {
        let image = image_of(&rest[0], partial.len()).filter(|_| !spoil);
        let count = match image {
            Some(_) => 1,
            None => rest.iter().skip(1).take_while(|batch| batch.prepared().is_none()).count() + 1,
        };
        let (bytes, unfinished) = match image {
            Some(image) => image,
            // A direct batch that recovery found behind the last of these must not be overwritten by zeros, or a second
            // crash would miss it.
            None if count == rest.len() => write_of(&partial, rest, behind, spoil),
            None => write_of(&partial, &rest[..count], &[], spoil),
        };
        if !partial.is_empty()
            && let Some(last) = parts.last_mut()
        {
            last.truncate(last.len() - BLOCK_BYTES);
        }
        parts.push(bytes);
        (partial, rest) = (unfinished, &rest[count..]);
    }
    parts.retain(|part| !part.is_empty());
    (parts, partial)
}

/// The write of a direct batch as it was prepared, if that was for this place; and the block then unfinished.
fn image_of(batch: &TailBatch, unfinished: usize) -> Option<(Bytes, Vec<u8>)> {
    let image = batch.prepared()?;
    let end = unfinished + batch.bytes.len();
    let whole = image.len() == AlignedBuffer::round_up(end);
    (whole && image[unfinished..end].as_ptr() == batch.bytes.as_ptr())
        .then(|| (image.clone(), image[end - end % BLOCK_BYTES..end].to_vec()))
}

/// The write: the unfinished block, the batches, what is `behind` them and then zeros up to whole blocks; and the block then
/// unfinished.
fn write_of(partial: &[u8], batches: &[TailBatch], behind: &[u8], spoil: bool) -> (Bytes, Vec<u8>) {
    let total = partial.len() + batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
    let whole = AlignedBuffer::round_up(total);
    let mut buffer = AlignedBuffer::with_capacity(whole);
    buffer.extend_from_slice(partial);
    for batch in batches {
        buffer.extend_from_slice(&batch.bytes);
        if spoil {
            let end = buffer.len();
            let body = end - batch.bytes.len() + record_batch::HEADER_BYTES;
            buffer.as_mut_slice()[body..end].rotate_left(1);
        }
    }
    let rest = buffer.as_mut_slice()[total - total % BLOCK_BYTES..].to_vec();
    buffer.extend_from_slice(&behind[..behind.len().min(whole - total)]);
    buffer.pad_to(whole);
    (buffer.freeze(), rest)
}

/// The batch is in the active segment, on stable storage.
pub(crate) fn settle(partition: &mut PartitionLog, batch: &BatchFact) {
    let interval = partition.config.index_interval_bytes;
    partition.laid_end = Offset(batch.last_offset.0 + 1);
    partition.unlaid_bytes = partition.unlaid_bytes.saturating_sub(batch.length);
    if let Some(active) = partition.segments.last_mut() {
        active.add(batch, interval);
    }
}
