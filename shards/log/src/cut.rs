//! Cuts a log back: what a follower does with batches its leader does not have. First the fact goes to the journal; when it
//! is on stable storage the place is looked for and the log is cut in memory. Nothing is appended to the partition until
//! that is done, so whatever comes later is stable only if the cut is.
//!
//! No byte is written where another one was: the next batch begins a new segment, whose name has the number of the cut as
//! generation. A checkpoint remembers that number, so that recovery does not repeat what was appended before the cut.

use bytes::Bytes;
use pelton_model::{LeaderEpoch, Now, Offset};
use pelton_wire::record_batch::{self, BatchIter};

use crate::disk::{DiskEffect, DiskError, FileKind};
use crate::frame::EntryKind;
use crate::jobs::{Goal, Job, Outcome};
use crate::journal::Pending;
use crate::partition::PartitionLog;
use crate::recovery::corrupt;
use crate::sabotage::Sabotage;
use crate::segment::SegmentName;
use crate::storage::Storage;
use crate::types::{Appended, CommitPoint, PartitionSlot, Progress, RecoveryError, SegmentReader};

/// Read of a segment at once while recovery looks for a place, bytes.
const READ_BYTES: usize = 1 << 20;

/// A cut that is under way.
#[derive(Debug)]
pub struct Cutting {
    /// First as asked, then where the last whole batch before that ends.
    to: Offset,
    /// The log begins anew at `to`.
    restart: bool,
    /// Its number.
    number: u64,
    stage: Stage,
    /// The group of the fact is sealed, and kept until the cut is made.
    held: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Waits until everything appended is on stable storage.
    Asked,
    /// Looks for the batch that holds `to`, and for its beginning.
    Aligning,
    /// The fact is on its way, in this group.
    Said(u64),
    /// It is on stable storage: nothing is laid down any more.
    Due(u64),
    /// And the place is being looked for.
    Placing(u64),
}

impl Stage {
    fn sequence(self) -> Option<u64> {
        match self {
            Stage::Asked | Stage::Aligning => None,
            Stage::Said(sequence) | Stage::Due(sequence) | Stage::Placing(sequence) => Some(sequence),
        }
    }
}

/// Where in its segments a log is cut: the segment, the bytes of it that stay, and the offset of the batch behind them.
type Place = (SegmentName, u64, Offset);

impl PartitionLog {
    /// What is laid down now might be beyond the cut, and nobody would know where in the segment.
    pub fn cut_is_due(&self) -> bool {
        self.cutting
            .as_ref()
            .is_some_and(|cutting| matches!(cutting.stage, Stage::Due(_) | Stage::Placing(_)))
    }

    /// It takes the place of a log that was dropped, and that is not made yet. A checkpoint that named it, empty, would have recovery
    /// go on with what the journal has of the dropped one; without, the journal's word of the restart is where it begins.
    pub fn begins_anew(&self) -> bool {
        let restarts = self.cutting.as_ref().is_some_and(|cutting| cutting.restart);
        restarts && self.cut == 0 && self.log_end == Offset(0) && self.segments.is_empty()
    }

    /// Where the last whole batch before a cut ends, if memory tells.
    fn end_in_memory(&self) -> Option<Offset> {
        let cutting = self.cutting.as_ref()?;
        let to = cutting.to.min(self.log_end);
        if cutting.restart {
            return Some(cutting.to);
        }
        if to < self.laid_end && !self.tail_holds(to) {
            return None;
        }
        let holds = self.tail.get(self.tail_index(to)).map_or(to, |batch| batch.fact.base_offset);
        Some(to.min(holds))
    }

    /// Where the first batch begins that is still here: at or below the log start offset, since segments go whole.
    pub fn base(&self) -> Offset {
        let first = self.segments.first().map(|segment| segment.base_offset);
        let first = first.or_else(|| self.tail.front().map(|batch| batch.fact.base_offset));
        first.unwrap_or(self.log_end).min(self.log_start)
    }

    /// Cuts the tail, the ends and the segments; checkpoint `known` is the first to know. The batches of the tail that no segment
    /// had, by their groups, and segments of which nothing is left.
    pub fn cut_to(
        &mut self,
        to: Offset,
        place: Option<Place>,
        known: u64,
    ) -> (Offset, Vec<u64>, Vec<SegmentName>) {
        let (mut end, mut unlaid) = (to.min(self.log_end), Vec::new());
        while let Some(batch) = self.tail.back().filter(|batch| batch.fact.last_offset >= to) {
            end = end.min(batch.fact.base_offset);
            if batch.fact.base_offset >= self.laid_end {
                self.unlaid_bytes = self.unlaid_bytes.saturating_sub(batch.fact.length);
                unlaid.push(batch.sequence);
            }
            self.tail.pop_back();
        }
        if let Some((_, _, base_offset)) = place {
            end = end.min(base_offset);
        }
        let kept = self.segments.partition_point(|segment| segment.base_offset < end);
        let mut gone = self.segments.split_off(kept);
        if let Some((name, length, _)) = place
            && let Some(at) = self.segment_at(name)
        {
            if length == 0 {
                gone.extend(self.segments.drain(at..));
            } else {
                let segment = &mut self.segments[at];
                (segment.length, segment.end_offset, segment.cut_known) = (length, end, known);
            }
        }
        self.end_at(end);
        self.log_start = self.log_start.min(end);
        self.next_log_start = self.next_log_start.min(end);
        (end, unlaid, gone.iter().map(|segment| segment.name()).collect())
    }

    /// Empties the log: it begins at `at`.
    pub fn restart_at(&mut self, at: Offset) -> (Vec<u64>, Vec<SegmentName>) {
        let from = self.first_unlaid();
        let unlaid = self.tail.range(from..).map(|batch| batch.sequence).collect();
        let gone = self.segments.drain(..).map(|segment| segment.name()).collect();
        self.tail.clear();
        self.unlaid_bytes = 0;
        (self.log_end, self.log_start, self.next_log_start) = (at, at, at);
        (self.written_end, self.flushed_end, self.laid_end, self.cleaned_end) = (at, at, at, at);
        self.end_at(at);
        (unlaid, gone)
    }

    fn end_at(&mut self, end: Offset) {
        (self.log_end, self.cut_end) = (end, end);
        for behind in
            [&mut self.written_end, &mut self.flushed_end, &mut self.laid_end, &mut self.cleaned_end]
        {
            *behind = (*behind).min(end);
        }
        // Whatever comes next begins a segment of its own.
        self.planned = None;
        if self.segments.is_empty() {
            self.partial = Some(Vec::new());
        }
        self.uncleanable = false;
        self.records_since_flush = 0;
        self.forget_places();
    }
}

impl Storage {
    /// Appends batches that a leader has stamped and the caller has checked: one or several, ascending, from the log's end
    /// on. They keep their offsets, between which a compacted log may have gaps, and their epochs. The caller has asked
    /// [`Storage::admit`], and the partition is not being cut.
    pub fn append_followed(&mut self, slot: PartitionSlot, batches: Bytes) -> Appended {
        let nothing = CommitPoint(u64::MAX);
        let none = Appended { base_offset: Offset(0), last_offset: Offset(0), commit: nothing };
        let last = BatchIter::new(&batches).last().map(|(info, _)| info.last_offset());
        let direct_bytes = self.config.direct_bytes;
        let healthy = self.health == crate::types::Health::Healthy;
        let Some(partition) = self.partitions.get_mut(slot.0 as usize).and_then(Option::as_mut) else {
            return none;
        };
        let (Some(last), Some(info)) = (last, record_batch::peek(&batches)) else { return none };
        let value = partition.log_end;
        debug_assert!(partition.cutting.is_none() && info.base_offset >= value.0);
        partition.log_end = Offset(last + 1);
        partition.records_since_flush += last + 1 - value.0;
        let sync = partition.records_since_flush >= partition.config.flush_messages.max(1);
        if sync {
            partition.records_since_flush = 0;
        }
        let flush_ms = partition.config.flush_ms;
        let direct = batches.len() >= direct_bytes && healthy && info.size_bytes == batches.len();
        let pending = Pending {
            kind: EntryKind::Batches,
            slot: Some(slot),
            key: partition.key,
            value,
            payload: batches,
            leader_epoch: LeaderEpoch(-1),
            log_append_time_ms: None,
            direct,
            stamped: true,
        };
        let commit = self.journal.push(pending, sync, flush_ms);
        Appended { base_offset: Offset(info.base_offset), last_offset: Offset(last), commit }
    }

    /// Where the first batch begins that is still here: at or below the log start offset.
    pub fn base_offset(&self, slot: PartitionSlot) -> Offset {
        self.partition(slot).map_or(Offset(0), PartitionLog::base)
    }

    /// Cuts the log: no batch that reaches beyond `to` remains. `Progress::cuts` says when that is done and on stable
    /// storage; nothing may be appended to the partition before. False: the partition is gone, or is being cut already.
    pub fn start_cut(&mut self, slot: PartitionSlot, to: Offset) -> bool {
        self.begin_cut(slot, to, false)
    }

    /// As a cut, but of everything: the log begins anew, empty, at `at`.
    pub fn start_restart(&mut self, slot: PartitionSlot, at: Offset) -> bool {
        self.begin_cut(slot, at, true)
    }

    fn begin_cut(&mut self, slot: PartitionSlot, to: Offset, restart: bool) -> bool {
        let number = self.fresh_generation();
        // Whatever the topic's durability: what is cut must first be somewhere for certain.
        self.journal.want_sync(self.journal.last_sequence());
        let Some(partition) = self.partition_mut(slot).filter(|partition| partition.cutting.is_none()) else {
            return false;
        };
        let cutting = Cutting { to, restart, number, stage: Stage::Asked, held: false };
        partition.cutting = Some(Box::new(cutting));
        self.cutting.push(slot);
        true
    }

    /// Says in the journal what is to be cut, once it is known to the batch. Before groups are sealed.
    pub(crate) fn prepare_cuts(&mut self, out: &mut Vec<DiskEffect>) {
        for index in 0..self.cutting.len() {
            let slot = self.cutting[index];
            let Some(partition) = self.partition_mut(slot) else { continue };
            let all_flushed = partition.flushed_end == partition.log_end;
            let in_memory = partition.end_in_memory();
            let Some(cutting) = partition.cutting.as_mut().filter(|cutting| cutting.stage == Stage::Asked)
            else {
                continue;
            };
            match in_memory {
                _ if !all_flushed => {}
                Some(end) => self.say_cut(slot, end),
                None => {
                    cutting.stage = Stage::Aligning;
                    self.find_cut(slot, out);
                }
            }
        }
        // Found without the disk: nothing else would call for another turn.
        for (slot, place) in std::mem::take(&mut self.cut_places) {
            match place {
                Ok(place) => self.align_cut(slot, place),
                Err(text) => self.miss_cut(slot, text),
            }
        }
    }

    /// A look for where to cut has failed; one into a partition that was deleted meanwhile is nobody's.
    fn miss_cut(&mut self, slot: PartitionSlot, text: String) {
        if self.partition(slot).is_some_and(|partition| partition.cutting.is_some()) {
            self.fail("a look for where to cut a log", &DiskError { no_space: false, text });
        }
    }

    fn align_cut(&mut self, slot: PartitionSlot, place: Option<Place>) {
        let cutting = self.partition(slot).and_then(|partition| partition.cutting.as_ref());
        let Some(to) = cutting.map(|cutting| cutting.to) else { return };
        self.say_cut(slot, place.map_or(to, |(_, _, base_offset)| base_offset.min(to)));
    }

    /// The fact, which ends exactly with a batch: recovery may find the file cut there already.
    fn say_cut(&mut self, slot: PartitionSlot, end: Offset) {
        let Some(partition) = self.partition(slot) else { return };
        let Some(cutting) = &partition.cutting else { return };
        let (key, number, restart) = (partition.key, cutting.number, cutting.restart);
        let before = partition.cut;
        let kind = if restart { EntryKind::Restart } else { EntryKind::Cut };
        let payload = Bytes::from([number.to_le_bytes(), before.to_le_bytes()].concat());
        let sequence = match self.config.sabotaged(Sabotage::CutNotJournaled) {
            true => 0,
            false => self.push_fact(kind, Some(slot), key, end, payload, true).0,
        };
        if let Some(cutting) = self.partition_mut(slot).and_then(|partition| partition.cutting.as_mut()) {
            (cutting.to, cutting.stage) = (end, Stage::Said(sequence));
        }
    }

    /// An entry is sealed: whether it is a cut that is still to be made, and its group to be kept until then.
    pub(crate) fn is_cut_awaited(&mut self, pending: &Pending, sequence: u64) -> bool {
        let Some(slot) = pending.slot.filter(|_| matches!(pending.kind, EntryKind::Cut | EntryKind::Restart))
        else {
            return false;
        };
        let cutting = self.partition_mut(slot).and_then(|partition| partition.cutting.as_mut());
        let cutting = cutting.filter(|cutting| cutting.stage == Stage::Said(sequence));
        cutting.map(|cutting| cutting.held = true).is_some()
    }

    /// The partition goes away while it is being cut, or the cut is made.
    pub(crate) fn forget_cut(&mut self, slot: PartitionSlot, cutting: Option<Box<Cutting>>) {
        self.cutting.retain(|other| *other != slot);
        if let Some(cutting) = cutting.filter(|cutting| cutting.held)
            && let Some(sequence) = cutting.stage.sequence()
        {
            self.journal.batch_laid(sequence, false);
        }
    }

    /// Takes cuts further: those whose place was found, and those whose fact is on stable storage.
    pub(crate) fn advance_cuts(&mut self, now: Now, out: &mut Vec<DiskEffect>, progress: &mut Progress) {
        if self.cutting.is_empty() && progress.cut_places.is_empty() {
            return;
        }
        let flushed = self.journal.flushed();
        for slot in self.cutting.clone() {
            let Some(partition) = self.partition_mut(slot) else { continue };
            let busy = partition.laying.is_some() || partition.reading_partial;
            let laid_end = partition.laid_end;
            let Some(cutting) = &mut partition.cutting else { continue };
            if let Stage::Said(sequence) = cutting.stage
                && sequence <= flushed
            {
                cutting.stage = Stage::Due(sequence);
            }
            let Stage::Due(sequence) = cutting.stage else { continue };
            if busy {
                continue;
            }
            if cutting.restart || cutting.to >= laid_end {
                self.make_cut(now, slot, None, out, progress);
            } else {
                cutting.stage = Stage::Placing(sequence);
                self.find_cut(slot, out);
            }
        }
        self.cut_places.append(&mut progress.cut_places);
        for (slot, place) in std::mem::take(&mut self.cut_places) {
            match place {
                Ok(place) => self.found_cut(now, slot, place, out, progress),
                Err(text) => self.miss_cut(slot, text),
            }
        }
    }

    fn found_cut(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        place: Option<Place>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let cutting = self.partition(slot).and_then(|partition| partition.cutting.as_ref());
        match cutting.map(|cutting| cutting.stage) {
            Some(Stage::Aligning) => self.align_cut(slot, place),
            Some(Stage::Placing(_)) => self.make_cut(now, slot, place, out, progress),
            _ => {}
        }
    }

    /// Looks for the first batch in segments that reaches beyond the cut.
    fn find_cut(&mut self, slot: PartitionSlot, out: &mut Vec<DiskEffect>) {
        let Some(partition) = self.partition(slot) else { return };
        let Some(to) = partition.cutting.as_ref().map(|cutting| cutting.to) else { return };
        let Some(segment) = partition.segment_from(to).map(|segment| segment.name()) else {
            return self.cut_places.push((slot, Ok(None)));
        };
        let token = self.token();
        let job = Job { slot, goal: Goal::Cut { to }, segment, position: None };
        match self.run_job(token, job, out) {
            Some(Ok(Outcome::Cut(place))) => self.cut_places.push((slot, Ok(place))),
            Some(Err(text)) => self.cut_places.push((slot, Err(text))),
            _ => {}
        }
    }

    /// Cuts in memory what is cut on stable storage.
    fn make_cut(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        place: Option<Place>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let generation = self.checkpointing.next_to_be_made();
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(cutting) = partition.cutting.take() else { return };
        let (key, due_ns) = (partition.key, now.after_ms(partition.config.file_delete_delay_ms));
        partition.cut = cutting.number;
        let (end, unlaid, gone) = match cutting.restart {
            true => {
                let (unlaid, gone) = partition.restart_at(cutting.to);
                (cutting.to, unlaid, gone)
            }
            false => partition.cut_to(cutting.to, place, generation),
        };
        if let Some((name, ..)) = place {
            self.cut_index(slot, name, out, progress);
        }
        for sequence in unlaid {
            self.journal.batch_laid(sequence, false);
        }
        for name in gone {
            self.doomed.add(slot, key, name, due_ns, generation);
            self.checkpointing.disturbed = true;
        }
        self.forget_cut(slot, Some(cutting));
        progress.cuts.push((slot, end));
    }
}

/// Recovery's way to find where a log is cut: through the headers of the segment itself. None: no segment has the place.
pub(crate) fn place_in_files(
    partition: &PartitionLog,
    to: Offset,
    reader: &SegmentReader,
) -> Result<Option<Place>, RecoveryError> {
    let Some(segment) = partition.segment_from(to).filter(|_| to < partition.laid_end) else {
        return Ok(None);
    };
    let file = segment.file(partition.key, FileKind::Log);
    let mut position = 0;
    while position < segment.length {
        let length = (segment.length - position).min(READ_BYTES as u64) as usize;
        let read = reader.read(file, position, length).map_err(RecoveryError::Unreadable)?;
        let bytes = read.unwrap_or_default();
        let (from, mut at) = (position, 0);
        while let Some(info) = bytes.get(at..).and_then(record_batch::peek) {
            if info.last_offset() >= to.0 {
                return Ok(Some((segment.name(), position, Offset(info.base_offset))));
            }
            at += info.size_bytes;
            position = from + at as u64;
        }
        if position == from {
            let (name, key) = (segment.base_offset.0, partition.key);
            return Err(corrupt(format!("segment {name} of {key} has no record batch at {from}")));
        }
    }
    Ok(Some((segment.name(), position, to)))
}
