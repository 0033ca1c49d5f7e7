//! Compaction of one partition at a time: the steps from its first read to the last swap. Which partition is worth it is
//! decided in dirt.rs, what stays of each batch in cleaning.rs. The rules are those of Kafka's LogCleaner.
//!
//! ```text
//! map the keys of the dirty part -> announce the new files in the journal -> for each group of segments:
//! read, filter, write a new file, sync it, put it in the place of the group
//! ```
//! New files have names never used before, and are announced by a flushed fact, so that a crash leaves none behind. The swap
//! is in the next checkpoint; until it is durable the old files stay, so that a crash finds either all old or all new bytes.
//! One operation and one small piece of work at a time, with a pause between them: clients come first.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{AlignedBuffer, Now, Offset, PartitionKey, TopicConfig};
use pelton_wire::record_batch::{self, BatchInfo};

use crate::disk::{DiskEffect, DiskError, FileKind};
use crate::frame::EntryKind;
use crate::offset_map::OffsetMap;
use crate::sabotage::Sabotage;
use crate::segment::{BatchFact, Segment, SegmentName};
use crate::storage::{Op, Phase, Storage};
use crate::types::{CompactionReport, PartitionSlot};

/// Read from a segment at once, bytes; a larger batch is read whole.
const READ_BYTES: u64 = 256 * 1024;
/// Written to a new segment at once, bytes.
const WRITE_BYTES: usize = 256 * 1024;
/// Records looked at in one turn, bytes out of their compression; a batch is one piece.
const STEP_BYTES: usize = 64 * 1024;

/// Pause between two turns with work of compaction, nanoseconds.
const STEP_PAUSE_NS: u64 = 1_000_000;

/// A segment to be compacted.
#[derive(Clone, Copy, Debug)]
struct Source {
    name: SegmentName,
    end_offset: Offset,
    length: u64,
    created_ms: i64,
}

/// Segments that become one.
#[derive(Clone, Debug)]
struct Group {
    sources: Range<usize>,
    name: SegmentName,
}

/// What was read of the segment in hand, from `position` on; all before `at` is done.
#[derive(Default)]
struct Piece {
    position: u64,
    bytes: Bytes,
    at: usize,
}

/// The new segment in hand.
struct Output {
    segment: Segment,
    /// Log bytes not written yet; those before are whole blocks.
    pending: Vec<u8>,
    written: u64,
}

enum Stage {
    /// Takes note of the last offset of each key.
    Map,
    /// The names of the new files are on their way to stable storage.
    Announce(u64),
    /// Filters the sources of the first group into its output.
    Rewrite,
    /// The output's last blocks are written.
    Ended,
    /// The output is on stable storage.
    Synced,
}

/// The compaction under way.
pub(crate) struct Compaction {
    slot: PartitionSlot,
    key: PartitionKey,
    /// Settings and time when it began.
    pub(crate) config: TopicConfig,
    pub(crate) wall_ms: i64,
    /// First dirty offset, and behind the last that may be compacted.
    pub(crate) dirty_from: Offset,
    pub(crate) upper: Offset,
    /// Offset of the last record of each active producer.
    pub(crate) last_offsets: BTreeMap<i64, Offset>,
    pub(crate) map: OffsetMap,
    sources: Vec<Source>,
    groups: VecDeque<Group>,
    stage: Stage,
    source: usize,
    piece: Piece,
    output: Option<Output>,
    in_flight: bool,
    failed: Option<Failure>,
    next_step_ns: u64,
    report: CompactionReport,
}

/// Why a compaction ends early.
struct Failure {
    text: Option<String>,
    /// It would fail again.
    for_good: bool,
}

impl Failure {
    /// Nothing is wrong; another time.
    fn later() -> Failure {
        Failure { text: None, for_good: false }
    }
}

enum Next {
    Batch(BatchInfo, Bytes),
    Read { position: u64, length: u64 },
    End,
}

enum Step {
    GoesOn,
    Done,
}

impl Compaction {
    /// The next whole batch of the segment in hand, or what to read for it.
    fn next_batch(&mut self) -> Next {
        let Some(source) = self.sources.get(self.source) else { return Next::End };
        let rest = self.piece.bytes.slice(self.piece.at..);
        let position = self.piece.position + self.piece.at as u64;
        let left = source.length.saturating_sub(position);
        let header = record_batch::peek(&rest);
        match header {
            _ if left == 0 => Next::End,
            Some(info) if info.size_bytes <= rest.len() => {
                self.piece.at += info.size_bytes;
                Next::Batch(info, rest.slice(..info.size_bytes))
            }
            header => {
                let wanted = header.map_or(0, |info| info.size_bytes as u64);
                Next::Read { position, length: wanted.max(READ_BYTES).min(left) }
            }
        }
    }

    fn next_source(&mut self) {
        self.source += 1;
        self.piece = Piece::default();
    }

    fn damaged(&self, what: &str) -> Failure {
        let base_offset = self.sources.get(self.source).map_or(0, |source| source.name.base_offset.0);
        let position = self.piece.position + self.piece.at as u64;
        Failure {
            text: Some(format!(
                "segment {base_offset} of {} cannot be compacted, {what} near {position}; the partition is left as it is",
                self.key
            )),
            for_good: true,
        }
    }
}

impl Storage {
    /// Begins to compact a partition that [`Storage::dirt`] has found worth it. `last_offsets` has the offset of the last
    /// record of each active producer: a batch that ends there stays, empty if need be, for its sequence numbers. False if
    /// another compaction is under way, or nothing may be compacted.
    pub fn start_compaction(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        high_watermark: Offset,
        last_offsets: BTreeMap<i64, Offset>,
    ) -> bool {
        let found = self.partition(slot).filter(|partition| partition.cutting.is_none());
        let Some(partition) = found.filter(|_| self.compaction.is_none()) else {
            return false;
        };
        let sources: Vec<Source> = self
            .cleanable(now, partition, high_watermark)
            .iter()
            .map(|segment| Source {
                name: segment.name(),
                end_offset: segment.end_offset,
                length: segment.length,
                created_ms: segment.created_ms,
            })
            .collect();
        let Some(upper) = sources.last().map(|source| source.end_offset) else { return false };
        let dirty_from = partition.cleaned_end;
        let keys = usize::try_from(upper.0.saturating_sub(dirty_from.0)).unwrap_or(0);
        let secret = [
            self.checkpointing.incarnation,
            self.checkpointing.incarnation.rotate_left(29) ^ now.monotonic_ns,
        ];
        let mut compaction = Compaction {
            slot,
            key: partition.key,
            config: partition.config.clone(),
            wall_ms: now.wall_ms,
            dirty_from,
            upper,
            last_offsets,
            map: OffsetMap::new(keys, self.config.dedupe_bytes, secret),
            sources,
            groups: VecDeque::new(),
            stage: Stage::Map,
            source: 0,
            piece: Piece::default(),
            output: None,
            in_flight: false,
            failed: None,
            next_step_ns: now.monotonic_ns,
            report: CompactionReport { slot, ..CompactionReport::default() },
        };
        let dirty = |source: &Source| source.end_offset > dirty_from;
        compaction.source = compaction.sources.iter().position(dirty).unwrap_or(0);
        self.compaction = Some(Box::new(compaction));
        true
    }

    /// Whether one is under way.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// How the last compaction ended, once.
    pub fn take_compaction_report(&mut self) -> Option<CompactionReport> {
        self.compaction_report.take()
    }

    /// When the next step is due, monotonic nanoseconds; none while it waits for the disk.
    pub(crate) fn compaction_due_ns(&self) -> Option<u64> {
        let compaction = self.compaction.as_ref()?;
        let waits = compaction.in_flight
            || matches!(compaction.stage, Stage::Announce(commit) if commit > self.journal.flushed());
        (!waits).then_some(compaction.next_step_ns)
    }

    /// Takes the compaction under way one small step further, if it is due.
    pub(crate) fn continue_compaction(&mut self, now: Now, out: &mut Vec<DiskEffect>) {
        let due = self.compaction_due_ns().is_some_and(|due| due <= now.monotonic_ns);
        let ends = self.stopping || self.phase != Phase::Running;
        let Some(mut compaction) =
            self.compaction.take_if(|compaction| !compaction.in_flight && (due || ends))
        else {
            return;
        };
        let wanted = self
            .partition(compaction.slot)
            .is_some_and(|partition| partition.config.compacted && partition.cutting.is_none());
        let step = match compaction.failed.take() {
            Some(failure) => Err(failure),
            None if ends || !wanted => Err(Failure::later()),
            None => self.compaction_step(now, &mut compaction, out),
        };
        compaction.next_step_ns = now.monotonic_ns + pause_ns(self.config.compaction_bytes_per_second);
        match step {
            Ok(Step::GoesOn) => self.compaction = Some(compaction),
            Ok(Step::Done) => {
                self.doom_made(now, compaction.slot);
                self.compaction_report = Some(compaction.report);
            }
            Err(failure) => self.abandon_compaction(now, *compaction, failure),
        }
    }

    fn abandon_compaction(&mut self, now: Now, compaction: Compaction, failure: Failure) {
        self.doom_made(now, compaction.slot);
        if let Some(partition) = self.partition_mut(compaction.slot) {
            partition.uncleanable |= failure.for_good;
        }
        let report = CompactionReport { failure: failure.text, ended_early: true, ..compaction.report };
        self.compaction_report = Some(report);
    }

    /// New files that came into no log go.
    fn doom_made(&mut self, now: Now, slot: PartitionSlot) {
        for (key, name) in std::mem::take(&mut self.doomed.made) {
            self.doomed.add(slot, key, name, now.monotonic_ns, 0);
        }
    }

    fn compaction_step(
        &mut self,
        now: Now,
        compaction: &mut Compaction,
        out: &mut Vec<DiskEffect>,
    ) -> Result<Step, Failure> {
        match compaction.stage {
            Stage::Map => self.map_step(compaction, out)?,
            Stage::Announce(_) => self.begin_group(compaction),
            Stage::Rewrite => self.rewrite_step(now, compaction, out)?,
            Stage::Ended if self.config.sabotaged(Sabotage::SwapBeforeSync) => {
                compaction.stage = Stage::Synced
            }
            Stage::Ended => {
                let Some(group) = compaction.groups.front() else { return Ok(Step::Done) };
                let file = group.name.file(compaction.key, FileKind::Log);
                self.begin_file_op(compaction.slot, group.name);
                let ticket = self.ticket(Op::CompactSync(compaction.slot, group.name));
                compaction.in_flight = true;
                out.push(DiskEffect::SegmentSync { ticket, file });
            }
            Stage::Synced => self.swap(now, compaction, out)?,
        }
        if matches!(compaction.stage, Stage::Rewrite) && compaction.groups.is_empty() {
            if let Some(partition) = self.partition_mut(compaction.slot) {
                partition.cleaned_end = Offset(compaction.map.latest + 1);
            }
            return Ok(Step::Done);
        }
        Ok(Step::GoesOn)
    }

    fn map_step(&mut self, compaction: &mut Compaction, out: &mut Vec<DiskEffect>) -> Result<(), Failure> {
        let mut done_bytes = 0;
        while done_bytes < STEP_BYTES {
            match compaction.next_batch() {
                Next::Batch(info, batch) => {
                    let cap_bytes = self.config.unpack_bytes_max;
                    let mapped = compaction.map_batch(&info, &batch, cap_bytes);
                    let (bytes, full) = mapped.map_err(|text| compaction.damaged(&text))?;
                    done_bytes += bytes;
                    if full {
                        return self.announce(compaction);
                    }
                }
                Next::Read { position, length } => {
                    self.read_piece(compaction, position, length, out);
                    return Ok(());
                }
                Next::End => {
                    compaction.next_source();
                    if compaction.source >= compaction.sources.len() {
                        return self.announce(compaction);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_piece(
        &mut self,
        compaction: &mut Compaction,
        position: u64,
        length: u64,
        out: &mut Vec<DiskEffect>,
    ) {
        let Some(source) = compaction.sources.get(compaction.source) else { return };
        let file = source.name.file(compaction.key, FileKind::Log);
        compaction.piece = Piece { position, bytes: Bytes::new(), at: 0 };
        compaction.in_flight = true;
        let ticket = self.ticket(Op::CompactRead(length));
        out.push(DiskEffect::SegmentRead { ticket, file, position, length: length as usize });
    }

    /// The keys are known up to `map.latest`: groups the segments below and tells the journal what they will become.
    fn announce(&mut self, compaction: &mut Compaction) -> Result<(), Failure> {
        let end = Offset(compaction.map.latest + 1);
        let count = compaction.sources.partition_point(|source| source.name.base_offset < end);
        let mut from = 0;
        let mut commit = 0;
        while from < count {
            let to = group_end(&compaction.sources[..count], from, compaction.config.segment_bytes);
            let base_offset = compaction.sources[from].name.base_offset;
            let name = SegmentName { base_offset, generation: self.fresh_generation() };
            let payload = Bytes::copy_from_slice(&name.generation.to_le_bytes());
            let (slot, key) = (compaction.slot, compaction.key);
            commit = self.push_fact(EntryKind::CleanedSegment, Some(slot), key, base_offset, payload, true).0;
            self.doomed.made.push((key, name));
            compaction.groups.push_back(Group { sources: from..to, name });
            from = to;
        }
        if compaction.groups.is_empty() {
            // No record is in what is dirty: nothing may be gained.
            compaction.map.latest = compaction.upper.0 - 1;
        }
        compaction.stage = Stage::Announce(commit);
        Ok(())
    }

    fn begin_group(&mut self, compaction: &mut Compaction) {
        compaction.stage = Stage::Rewrite;
        compaction.piece = Piece::default();
        compaction.output = None;
        let Some(group) = compaction.groups.front() else { return };
        compaction.source = group.sources.start;
        let created_ms = compaction.sources[group.sources.end - 1].created_ms;
        let mut segment = Segment::new(group.name.base_offset, created_ms);
        segment.generation = group.name.generation;
        compaction.output = Some(Output { segment, pending: Vec::new(), written: 0 });
    }

    fn rewrite_step(
        &mut self,
        now: Now,
        compaction: &mut Compaction,
        out: &mut Vec<DiskEffect>,
    ) -> Result<(), Failure> {
        let Some(end) = compaction.groups.front().map(|group| group.sources.end) else { return Ok(()) };
        let interval = compaction.config.index_interval_bytes;
        let mut done_bytes = 0;
        while done_bytes < STEP_BYTES {
            let pending = compaction.output.as_ref().map_or(0, |output| output.pending.len());
            if pending >= WRITE_BYTES {
                self.write_output(compaction, false, out);
                return Ok(());
            }
            match compaction.next_batch() {
                Next::Batch(info, batch) => {
                    let kept = compaction.clean_batch(&info, &batch, &self.config);
                    let (kept, bytes) = kept.map_err(|text| compaction.damaged(&text))?;
                    done_bytes += bytes;
                    compaction.report.read_bytes += batch.len() as u64;
                    if let (Some(kept), Some(output)) = (kept, &mut compaction.output) {
                        compaction.report.kept_bytes += kept.len() as u64;
                        output.add(&kept, interval);
                    }
                }
                Next::Read { position, length } => {
                    self.read_piece(compaction, position, length, out);
                    return Ok(());
                }
                Next::End if compaction.source + 1 < end => compaction.next_source(),
                Next::End => {
                    match compaction.output.as_ref().is_some_and(|output| output.segment.length > 0) {
                        true => self.write_output(compaction, true, out),
                        false => self.swap(now, compaction, out)?,
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes what is pending: its whole blocks, or at the end all of it and zeros.
    fn write_output(&mut self, compaction: &mut Compaction, last: bool, out: &mut Vec<DiskEffect>) {
        let Some(group) = compaction.groups.front() else { return };
        let Some(output) = &mut compaction.output else { return };
        let count = match last {
            true => output.pending.len(),
            false => output.pending.len() - output.pending.len() % BLOCK_BYTES,
        };
        if last {
            compaction.stage = Stage::Ended;
        }
        if count == 0 {
            return;
        }
        let mut buffer = AlignedBuffer::with_capacity(AlignedBuffer::round_up(count));
        buffer.extend_from_slice(&output.pending[..count]);
        buffer.pad_to(AlignedBuffer::round_up(count));
        output.pending.drain(..count);
        let (position, bytes) = (output.written, buffer.freeze());
        output.written += bytes.len() as u64;
        compaction.in_flight = true;
        self.begin_file_op(compaction.slot, group.name);
        let file = group.name.file(compaction.key, FileKind::Log);
        let ticket = self.ticket(Op::CompactWrite(compaction.slot, group.name));
        out.push(DiskEffect::SegmentWrite { ticket, file, position, bytes });
    }

    /// Puts the new segment in the place of those it was made from; readers go on there.
    fn swap(
        &mut self,
        now: Now,
        compaction: &mut Compaction,
        out: &mut Vec<DiskEffect>,
    ) -> Result<(), Failure> {
        let (Some(group), Some(output)) = (compaction.groups.pop_front(), compaction.output.take()) else {
            return Err(Failure::later());
        };
        let (slot, sources) = (compaction.slot, &compaction.sources[group.sources.clone()]);
        let generation = self.checkpointing.next_to_be_made();
        let Some(partition) = self.partition_mut(slot) else { return Err(Failure::later()) };
        let at = partition.segments.partition_point(|segment| segment.name() < sources[0].name);
        let there = partition.segments.iter().skip(at).take(sources.len()).map(Segment::name);
        if !there.eq(sources.iter().map(|source| source.name))
            || at + sources.len() >= partition.segments.len()
        {
            // Retention was faster.
            return Err(Failure::later());
        }
        let mut segment = output.segment;
        segment.end_offset = sources[sources.len() - 1].end_offset;
        let left = (segment.length > 0).then_some(segment);
        let name = left.as_ref().map(Segment::name);
        let due_ns = now.after_ms(partition.config.file_delete_delay_ms);
        let key = partition.key;
        partition.segments.splice(at..at + sources.len(), left);
        partition.forget_places();
        // Memory has the records as they were.
        partition.forget_tail_below(sources[sources.len() - 1].end_offset);
        for source in sources {
            self.doomed.add(slot, key, source.name, due_ns, generation);
        }
        self.checkpointing.disturbed = true;
        if let Some(name) = name {
            self.doomed.made.retain(|(_, made)| *made != name);
            if !self.config.sabotaged(Sabotage::SwapBeforeSync) {
                self.seal_segment(slot, name, out);
            }
        }
        self.begin_group(compaction);
        Ok(())
    }

    /// A piece of a segment has been read.
    pub(crate) fn handle_compaction_read(&mut self, length: u64, result: Result<Bytes, DiskError>) {
        let Some(compaction) = &mut self.compaction else { return };
        compaction.in_flight = false;
        match result {
            Ok(bytes) => {
                let whole = bytes.len() as u64 == length && record_batch::peek(&bytes).is_some();
                compaction.piece.bytes = bytes;
                if !whole {
                    compaction.failed = Some(compaction.damaged("there is no record batch"));
                }
            }
            Err(error) => {
                compaction.failed = Some(Failure { text: Some(error.text), for_good: !error.no_space });
            }
        }
    }

    /// Blocks of the new segment have been written (`synced` = the segment is on stable storage).
    pub(crate) fn handle_compaction_write(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        synced: bool,
        result: Result<Bytes, DiskError>,
    ) {
        self.end_file_op(slot, name);
        let Some(compaction) = &mut self.compaction else { return };
        compaction.in_flight = false;
        match result {
            Ok(_) if synced => compaction.stage = Stage::Synced,
            Ok(_) => {}
            Err(error) => {
                let text =
                    format!("a new segment of {} could not be written: {}", compaction.key, error.text);
                compaction.failed = Some(Failure { text: Some(text), for_good: !error.no_space });
            }
        }
    }
}

impl Output {
    fn add(&mut self, batch: &[u8], interval_bytes: i32) {
        let Some(info) = record_batch::peek(batch) else { return };
        let fact = BatchFact {
            base_offset: Offset(info.base_offset),
            last_offset: Offset(info.last_offset()),
            length: batch.len() as u64,
            // A batch without records holds no time that anyone could look for.
            max_timestamp_ms: if info.records_count > 0 { info.max_timestamp } else { i64::MIN },
        };
        self.segment.add(&fact, interval_bytes);
        self.pending.extend_from_slice(batch);
    }
}

/// Pause after a step: a small share of a core, or what the limit of bytes asks for.
fn pause_ns(bytes_per_second: u64) -> u64 {
    let step_ns = STEP_BYTES as u64 * 2 * 1_000_000_000;
    step_ns.checked_div(bytes_per_second).unwrap_or(0).max(STEP_PAUSE_NS)
}

/// How far the group goes that begins with source `from`: sizes together within a segment, offsets within its index.
fn group_end(sources: &[Source], from: usize, segment_bytes: i32) -> usize {
    let base_offset = sources[from].name.base_offset.0;
    let mut length = sources[from].length;
    let mut to = from + 1;
    while let Some(source) = sources.get(to) {
        length += source.length;
        let near = source.end_offset.0 - base_offset <= i64::from(i32::MAX);
        if length > segment_bytes.max(0) as u64 || !near {
            break;
        }
        to += 1;
    }
    to
}
