//! Files of segments beside lay-down: what happens when a segment ends (cut, index), and when segments or partitions go
//! away. A file is never removed while an operation that could create it again is in flight, nor before a checkpoint
//! that does not list it is durable: after a crash, recovery must find what its checkpoint lists.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pelton_model::{Now, Offset, PartitionKey};

use crate::checkpoint::DoomedData;
use crate::disk::{DiskEffect, DiskError, FileKind};
use crate::sabotage::Sabotage;
use crate::segment::SegmentName;
use crate::storage::{Op, Storage};
use crate::types::{PartitionSlot, Progress};

/// Removals in flight at once, at most.
const DELETES_MAX: usize = 64;
/// One more may be in flight for each so many that wait.
const WAITING_PER_DELETE: usize = 32;

/// A segment to remove.
#[derive(Clone, Copy, Debug)]
struct Row {
    slot: PartitionSlot,
    key: PartitionKey,
    name: SegmentName,
    due_ns: u64,
    /// The first checkpoint that does not list it.
    generation: u64,
    files_left: u8,
}

/// Segments to remove, and which segments are being written.
#[derive(Debug, Default)]
pub(crate) struct Doomed {
    waiting: BTreeMap<(u64, u64), Row>,
    in_flight: BTreeMap<u64, Row>,
    busy: BTreeMap<(PartitionSlot, SegmentName), u32>,
    /// Segments that have ended and keep what was cut of them, each until this checkpoint is durable.
    kept_whole: Vec<(u64, PartitionSlot, PartitionKey, SegmentName)>,
    next_row: u64,
    /// What compaction is making and no log has yet.
    pub made: Vec<(PartitionKey, SegmentName)>,
    /// Generation of the last durable checkpoint.
    pub generation: u64,
}

impl Doomed {
    /// When something is due, monotonic nanoseconds: a removal, or the checkpoint one waits for unless that is under way.
    pub fn due_ns(&self, checkpoint_comes: bool) -> Option<u64> {
        if self.in_flight.len() >= self.deletes_max() {
            return None;
        }
        let unlisted = |row: &Row| row.generation <= self.generation;
        let mut rows = self.waiting.values();
        rows.find(|row| self.may_go(row) || !(unlisted(row) || checkpoint_comes)).map(|row| row.due_ns)
    }

    /// Removals that may be in flight at once. Freeing a file's blocks keeps the file system's own journal busy, so they
    /// come singly, and more at a time only as more of them wait.
    fn deletes_max(&self) -> usize {
        (self.waiting.len() / WAITING_PER_DELETE).clamp(1, DELETES_MAX)
    }

    /// Removes a segment's files at `due_ns`, once checkpoint `generation` is durable.
    pub fn add(
        &mut self,
        slot: PartitionSlot,
        key: PartitionKey,
        name: SegmentName,
        due_ns: u64,
        generation: u64,
    ) {
        self.next_row += 1;
        let row = Row { slot, key, name, due_ns, generation, files_left: 2 };
        self.waiting.insert((due_ns, self.next_row), row);
    }

    /// For a checkpoint: a crash must not forget what is to be removed.
    pub fn to_data(&self) -> Vec<DoomedData> {
        let rows = self.waiting.values().chain(self.in_flight.values()).map(|row| (row.key, row.name));
        rows.chain(self.made.iter().copied())
            .map(|(key, name)| DoomedData {
                topic_id: *key.topic_id.0.as_bytes(),
                partition: key.partition,
                base_offset: name.base_offset.0,
                generation: name.generation,
            })
            .collect()
    }

    /// A removal that is due by `now` may go only when yet another checkpoint is durable.
    pub fn waits_for_checkpoint(&self, now: Now) -> bool {
        let mut due = self.waiting.range(..=(now.monotonic_ns, u64::MAX));
        due.any(|(_, row)| row.generation > self.generation)
    }

    /// Whether the segment's files are being written.
    pub fn is_busy(&self, slot: PartitionSlot, name: SegmentName) -> bool {
        self.busy.contains_key(&(slot, name))
    }

    /// Segments being written or removed now.
    pub fn busy(&self) -> usize {
        self.busy.len() + self.in_flight.len()
    }

    fn may_go(&self, row: &Row) -> bool {
        row.generation <= self.generation && !self.busy.contains_key(&(row.slot, row.name))
    }
}

impl Storage {
    pub(crate) fn begin_file_op(&mut self, slot: PartitionSlot, name: SegmentName) {
        *self.doomed.busy.entry((slot, name)).or_insert(0) += 1;
    }

    pub(crate) fn end_file_op(&mut self, slot: PartitionSlot, name: SegmentName) {
        let place = (slot, name);
        if let Some(count) = self.doomed.busy.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.doomed.busy.remove(&place);
            }
        }
    }

    /// The end of a segment: the padding behind its last batch goes, and its index is written. What was cut of it goes when a
    /// checkpoint knows of the cut: until then recovery finds the place through the file's batches, and if power goes while a
    /// file is cut, ext4 may make the rest of a block zeros and yet keep the length.
    pub(crate) fn seal_segment(&mut self, slot: PartitionSlot, name: SegmentName, out: &mut Vec<DiskEffect>) {
        let Some((key, segment)) = self.partition(slot).and_then(|p| Some((p.key, p.segment(name)?))) else {
            return;
        };
        if segment.cut_known > self.doomed.generation {
            let row = (segment.cut_known, slot, key, name);
            return self.doomed.kept_whole.push(row);
        }
        let (file, length) = (segment.file(key, FileKind::Log), segment.length);
        let index_bytes = segment.index.as_ref().map(|index| index.size_bytes());
        self.begin_file_op(slot, name);
        let ticket = self.ticket(Op::Truncate(slot, name));
        out.push(DiskEffect::SegmentTruncate { ticket, file, length });
        if index_bytes.is_some() {
            self.note_loaded(slot, name);
        }
    }

    /// A failed cut is no harm: nothing reads behind the last batch. What a direct batch took along may not be flushed yet
    /// and so come to be cut by recovery: then an index would name what is no more, so it is left to be rebuilt.
    pub(crate) fn handle_truncate(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        out: &mut Vec<DiskEffect>,
    ) {
        let found = self.partition(slot).and_then(|p| Some((p.flushed_end, p.segment(name)?)));
        match found {
            Some((flushed_end, segment)) if segment.end_offset <= flushed_end => {
                self.write_index(slot, name, out);
            }
            _ => self.end_file_op(slot, name),
        }
    }

    /// Writes the index file of a segment; its file operation is already counted.
    pub(crate) fn write_index(&mut self, slot: PartitionSlot, name: SegmentName, out: &mut Vec<DiskEffect>) {
        let found = self.partition(slot).and_then(|p| {
            let segment = p.segment(name)?;
            Some((segment.file(p.key, FileKind::Index), segment.index.as_ref()?.encode().freeze()))
        });
        let Some((file, bytes)) = found else { return self.end_file_op(slot, name) };
        let ticket = self.ticket(Op::IndexWrite(slot, name));
        out.push(DiskEffect::SegmentWrite { ticket, file, position: 0, bytes });
    }

    /// An index that could not be written is rebuilt when it is needed.
    pub(crate) fn handle_index_write(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
    ) {
        let found = self.partition(slot).and_then(|p| Some(p.segment(name)?.file(p.key, FileKind::Index)));
        match (result, found) {
            (Ok(_), Some(file)) => {
                let ticket = self.ticket(Op::IndexSync(slot, name));
                out.push(DiskEffect::SegmentSync { ticket, file });
            }
            _ => self.end_file_op(slot, name),
        }
    }

    /// Forgets a partition at once and removes its files after `file.delete.delay.ms`.
    pub fn remove_partition(&mut self, now: Now, slot: PartitionSlot) {
        let delay_ms = self.partition(slot).map_or(0, |partition| partition.config.file_delete_delay_ms);
        let due_ns = now.after_ms(delay_ms);
        match self.partition_mut(slot) {
            // Its groups may be acknowledged when what goes straight to segments is there, and not without: recovery
            // would find it missing and cut them away. Let it arrive; meanwhile nothing else of the partition is kept.
            Some(partition) if partition.direct_left > 0 => {
                partition.removed_at_ns = Some(due_ns);
                let (key, log_end) = (partition.key, partition.log_end);
                self.by_key.remove(&key);
                self.drop_segments_below(now, slot, log_end);
            }
            _ => self.drop_partition(slot, due_ns),
        }
    }

    /// Removes the partitions, recovered or open, that `wanted` does not want, without delay. Says how many.
    pub fn retain(&mut self, now: Now, mut wanted: impl FnMut(PartitionKey) -> bool) -> usize {
        let unwanted: Vec<PartitionSlot> =
            self.by_key.iter().filter(|(key, _)| !wanted(**key)).map(|(_, slot)| *slot).collect();
        for slot in &unwanted {
            self.drop_partition(*slot, now.monotonic_ns);
        }
        unwanted.len()
    }

    /// Partitions of which files are still to be removed, also by an earlier life.
    pub fn doomed_partitions(&self) -> BTreeSet<PartitionKey> {
        let rows = self.doomed.waiting.values().chain(self.doomed.in_flight.values());
        rows.map(|row| row.key).collect()
    }

    pub(crate) fn drop_partition(&mut self, slot: PartitionSlot, due_ns: u64) {
        let Some(mut partition) = self.partitions.get_mut(slot.0 as usize).and_then(Option::take) else {
            return;
        };
        self.forget_cut(slot, partition.cutting.take());
        if self.by_key.get(&partition.key) == Some(&slot) {
            self.by_key.remove(&partition.key);
        }
        self.ready.remove(&slot);
        let generation = self.checkpointing.next_to_be_made();
        for segment in &partition.segments {
            self.doomed.add(slot, partition.key, segment.name(), due_ns, generation);
        }
        self.checkpointing.disturbed = true;
        self.direct_left -= partition.direct_left;
        for batch in partition.tail.iter().skip(partition.first_unlaid()) {
            self.journal.batch_laid(batch.sequence, batch.direct.is_some());
        }
    }

    /// Log start offsets that are now on stable storage count, and segments below them go away.
    pub(crate) fn apply_start_facts(&mut self, progress: &mut Progress) {
        let flushed = self.journal.flushed();
        while let Some((sequence, slot, start)) = self.start_facts.front().copied()
            && sequence <= flushed
        {
            self.start_facts.pop_front();
            self.started.push(slot);
            progress.advanced.push(slot);
            if let Some(partition) = self.partition_mut(slot) {
                partition.log_start = partition.log_start.max(start);
            }
        }
    }

    fn drop_segments_below_start(&mut self, now: Now, slot: PartitionSlot) {
        let Some(start) = self.partition(slot).map(|partition| partition.log_start) else { return };
        self.drop_segments_below(now, slot, start);
    }

    fn drop_segments_below(&mut self, now: Now, slot: PartitionSlot, start: Offset) {
        let Some(partition) = self.partition_mut(slot) else { return };
        let key = partition.key;
        let due_ns = now.after_ms(partition.config.file_delete_delay_ms);
        let closed = partition.closed_segments();
        let below =
            partition.segments[..closed].iter().take_while(|segment| segment.end_offset <= start).count();
        if below == partition.segments.len() {
            partition.partial = Some(Vec::new());
        }
        let gone: Vec<SegmentName> =
            partition.segments.drain(..below).map(|segment| segment.name()).collect();
        let generation = self.checkpointing.next_to_be_made();
        for name in gone {
            self.doomed.add(slot, key, name, due_ns, generation);
            self.checkpointing.disturbed = true;
        }
    }

    /// Removes the files of doomed segments that are due and quiet.
    pub(crate) fn delete_doomed(&mut self, now: Now, out: &mut Vec<DiskEffect>) {
        for slot in std::mem::take(&mut self.started) {
            self.drop_segments_below_start(now, slot);
        }
        // Nothing new at a stop: the last checkpoint remembers what is left.
        if self.stopping {
            return;
        }
        self.seal_known_cuts(out);
        self.checkpointing.wanted |=
            self.checkpointing.underway.is_none() && self.doomed.waits_for_checkpoint(now);
        if self.config.sabotaged(Sabotage::DeleteBeforeCheckpoint) {
            self.doomed.generation = u64::MAX;
        }
        let free = self.doomed.deletes_max().saturating_sub(self.doomed.in_flight.len());
        let limit = (now.monotonic_ns, u64::MAX);
        let due: Vec<(u64, u64)> = self
            .doomed
            .waiting
            .range(..=limit)
            .filter(|(_, row)| self.doomed.may_go(row))
            .map(|(place, _)| *place)
            .take(free)
            .collect();
        for place in due {
            let Some(row) = self.doomed.waiting.remove(&place) else { continue };
            self.doomed.in_flight.insert(place.1, row);
            for kind in [FileKind::Index, FileKind::Log] {
                let file = row.name.file(row.key, kind);
                let ticket = self.ticket(Op::Delete(place.1));
                out.push(DiskEffect::FileDelete { ticket, file });
            }
        }
    }

    /// Ends segments whose cut a durable checkpoint knows by now. Cut again meanwhile, they wait again.
    fn seal_known_cuts(&mut self, out: &mut Vec<DiskEffect>) {
        let made = self.doomed.generation;
        let known: Vec<_> = self.doomed.kept_whole.extract_if(.., |row| row.0 <= made).collect();
        for (_, slot, key, name) in known {
            let closed =
                self.partition(slot).filter(|partition| partition.key == key).is_some_and(|partition| {
                    partition.segment_at(name).is_some_and(|at| at + 1 < partition.segments.len())
                });
            if closed {
                self.seal_segment(slot, name, out);
            }
        }
    }

    pub(crate) fn handle_delete(&mut self, now: Now, number: u64, result: Result<Bytes, DiskError>) {
        let Some(row) = self.doomed.in_flight.get_mut(&number) else { return };
        row.files_left -= 1;
        let mut again = *row;
        if result.is_err() {
            // Whatever stands in the way, a file too many harms nobody: try again, rarely.
            again.due_ns = now.after_ms(60_000);
            row.due_ns = again.due_ns;
        }
        if again.files_left == 0 {
            self.doomed.in_flight.remove(&number);
            if again.due_ns > now.monotonic_ns {
                self.doomed.add(again.slot, again.key, again.name, again.due_ns, again.generation);
            }
        }
    }
}
