//! One partition's log as positions: its segments, its tail in memory, and how far each has come. Decides nothing about
//! when to write.
//!
//! ```text
//! log_start ... segments ... laid_end ... tail only ... flushed_end <= written_end <= log_end
//!               tail.front (the tail may reach back into segments)
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use pelton_model::{Offset, PartitionKey, TopicConfig};

use crate::cut::Cutting;
use crate::disk::FileKind;
use crate::segment::{BatchFact, RollState, Segment, SegmentName};
use crate::types::ReadPlan;

/// Places remembered where a reader stopped, per partition.
const RESUME_MAX: usize = 8;

/// A batch in memory.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// Offsets, length, time.
    pub fact: BatchFact,
    /// The batch, stamped; a slice of its group's buffer.
    pub bytes: Bytes,
    /// Its group.
    pub sequence: u64,
    /// A new segment begins with it.
    pub begins_segment: bool,
    /// The generation of that segment.
    pub generation: u64,
    /// Its group has only its header: it is stable when it is laid down.
    pub direct: Option<Direct>,
}

impl TailBatch {
    /// Its own write, if it has one.
    pub fn prepared(&self) -> Option<&Bytes> {
        self.direct.as_ref()?.image.as_ref()
    }
}

/// A batch that goes straight to its segment.
#[derive(Clone, Debug)]
pub struct Direct {
    /// The write that lays it down alone: what is before it in its first block, the batch, zeros up to whole blocks. None
    /// if what is before it was not in memory.
    pub image: Option<Bytes>,
}

/// A write to the active segment that is under way.
#[derive(Debug)]
pub struct Laying {
    /// The batches in it, their groups, and whether these wait for them.
    pub batches: Vec<(BatchFact, u64, bool)>,
    /// What will be the last, unfinished block; none = on disk only.
    pub partial: Option<Vec<u8>>,
}

/// Where a reader stopped: the next one begins there without a search.
#[derive(Clone, Copy, Debug)]
struct Resume {
    offset: Offset,
    segment: SegmentName,
    position: u64,
}

/// A partition.
#[derive(Debug)]
pub struct PartitionLog {
    /// Which.
    pub key: PartitionKey,
    /// The topic's settings.
    pub config: TopicConfig,
    /// First offset, as a fact on stable storage says.
    pub log_start: Offset,
    /// What it will be when the last such fact is.
    pub next_log_start: Offset,
    /// Offset behind the last append.
    pub log_end: Offset,
    /// Offset behind the last written batch.
    pub written_end: Offset,
    /// Offset behind the last batch on stable storage.
    pub flushed_end: Offset,
    /// Offset up to which segments have it on stable storage.
    pub laid_end: Offset,
    /// Offset up to which compaction has been: behind it the log is dirty.
    pub cleaned_end: Offset,
    /// Compaction failed on it, and would again.
    pub uncleanable: bool,
    /// Recent batches, ascending, without gaps, up to the last sealed one.
    pub tail: VecDeque<TailBatch>,
    /// Bytes of the tail that no segment has.
    pub unlaid_bytes: u64,
    /// Ascending; the last one is active.
    pub segments: Vec<Segment>,
    /// The active segment's last, unfinished block; none = on disk only.
    pub partial: Option<Vec<u8>>,
    /// The write under way.
    pub laying: Option<Laying>,
    /// A lay-down waits for the last block to be read.
    pub reading_partial: bool,
    /// The segment that the next batch to be sealed goes to; none = it begins the first.
    pub planned: Option<RollState>,
    /// Batches of the tail that go straight to the segment and are not there yet.
    pub direct_left: usize,
    /// Deleted, but such batches are still on their way: removed when they have arrived, at this time at the earliest,
    /// monotonic nanoseconds.
    pub removed_at_ns: Option<u64>,
    /// The number of the last cut, and the generation of segments begun since; 0 = never cut.
    pub cut: u64,
    /// Where the log ended then.
    pub cut_end: Offset,
    /// A cut that is under way: nothing is appended.
    pub cutting: Option<Box<Cutting>>,
    /// Records appended since the last group that flushes (`flush.messages`).
    pub records_since_flush: i64,
    resume: VecDeque<Resume>,
}

impl PartitionLog {
    /// An empty log that begins at `start`.
    pub fn new(key: PartitionKey, start: Offset) -> PartitionLog {
        PartitionLog {
            key,
            config: TopicConfig::default(),
            log_start: start,
            next_log_start: start,
            log_end: start,
            written_end: start,
            flushed_end: start,
            laid_end: start,
            cleaned_end: Offset(0),
            uncleanable: false,
            tail: VecDeque::new(),
            unlaid_bytes: 0,
            segments: Vec::new(),
            partial: Some(Vec::new()),
            laying: None,
            reading_partial: false,
            planned: None,
            direct_left: 0,
            removed_at_ns: None,
            cut: 0,
            cut_end: Offset(0),
            cutting: None,
            records_since_flush: 0,
            resume: VecDeque::new(),
        }
    }

    /// Bytes of log, in segments and in memory.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum::<u64>() + self.unlaid_bytes
    }

    /// Spreads the rolls of partitions, 0..1000.
    pub fn jitter(&self) -> u32 {
        let (high, low) = self.key.topic_id.0.as_u64_pair();
        let mixed = (high ^ low).wrapping_add(self.key.partition as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed >> 32) % 1000) as u32
    }

    /// Gives the next stretch its place behind everything sealed so far: true if a new segment begins with it.
    pub fn plan(&mut self, stretch: &BatchFact, wall_ms: i64) -> bool {
        let jitter = self.jitter();
        let begins =
            self.planned.is_none_or(|planned| planned.must_roll(stretch, &self.config, jitter, wall_ms));
        self.place(stretch, begins, wall_ms);
        begins
    }

    /// Counts a stretch whose place was decided, now or in an earlier life.
    pub fn place(&mut self, stretch: &BatchFact, begins: bool, wall_ms: i64) {
        match &mut self.planned {
            Some(planned) if !begins => planned.add(stretch),
            planned => planned.insert(RollState::begin(stretch.base_offset, wall_ms)).add(stretch),
        }
    }

    /// The last `count` bytes of log before the next batch to be sealed, if they are in memory. They do not reach back
    /// beyond the block in which the active segment ends.
    pub fn preceding(&self, count: usize) -> Option<Vec<u8>> {
        let (mut bytes, mut left) = (vec![0; count], count);
        for batch in self.tail.range(self.first_unlaid()..).rev() {
            if left == 0 {
                break;
            }
            let from = batch.bytes.len().saturating_sub(left);
            let piece = &batch.bytes[from..];
            left -= piece.len();
            bytes[left..left + piece.len()].copy_from_slice(piece);
        }
        if left > 0 {
            let partial = self.partial.as_ref()?;
            bytes[..left].copy_from_slice(partial.get(partial.len().checked_sub(left)?..)?);
        }
        Some(bytes)
    }

    /// Up to `count` bytes of log that come behind the tail's batch before `index`, in the same segment.
    pub fn bytes_behind(&self, index: usize, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        for batch in self.tail.iter().skip(index).take_while(|batch| !batch.begins_segment) {
            let left = count - bytes.len();
            bytes.extend_from_slice(&batch.bytes[..batch.bytes.len().min(left)]);
            if bytes.len() == count {
                break;
            }
        }
        bytes
    }

    /// How many segments, from the first, take in nothing more: all but the last, and that one, too, if what is sealed next
    /// or waits to be laid down begins another. An empty one does: its name would be used again.
    pub fn closed_segments(&self) -> usize {
        let others = self.segments.len().saturating_sub(1);
        let Some(last) = self.segments.last() else { return 0 };
        let next = self.tail.get(self.first_unlaid());
        let closed = match next {
            Some(batch) => batch.begins_segment && batch.fact.base_offset > last.base_offset,
            None => self.planned.is_none(),
        };
        others + usize::from(closed && last.length > 0 && self.laying.is_none() && !self.reading_partial)
    }

    /// Takes in a batch that was sealed into a group.
    pub fn push_tail(&mut self, batch: TailBatch) {
        self.unlaid_bytes += batch.fact.length;
        self.direct_left += usize::from(batch.direct.is_some());
        self.tail.push_back(batch);
    }

    /// Index in the tail of the first batch no segment has.
    pub fn first_unlaid(&self) -> usize {
        let laid_end = self.laid_end;
        self.tail.partition_point(|batch| batch.fact.base_offset < laid_end)
    }

    /// Whether a compacted log has segments that have ended, but in memory only: compaction waits for them.
    pub fn has_ended_in_memory(&self) -> bool {
        self.config.compacted && self.tail.range(self.first_unlaid()..).any(|batch| batch.begins_segment)
    }

    /// Drops the batches of groups up to `sequence`; they are in segments.
    pub fn evict(&mut self, sequence: u64) {
        while self.tail.front().is_some_and(|batch| batch.sequence <= sequence) {
            self.tail.pop_front();
        }
    }

    /// Drops the batches below `end`, all of which segments have.
    pub fn forget_tail_below(&mut self, end: Offset) {
        while self.tail.front().is_some_and(|batch| batch.fact.last_offset < end) {
            self.tail.pop_front();
        }
    }

    /// Whether the batch that holds `offset` is in memory.
    pub fn tail_holds(&self, offset: Offset) -> bool {
        self.tail.front().is_some_and(|batch| batch.fact.base_offset <= offset)
    }

    /// Index in the tail of the batch that holds `offset`.
    pub fn tail_index(&self, offset: Offset) -> usize {
        self.tail.partition_point(|batch| batch.fact.last_offset < offset)
    }

    /// Whole batches from memory, from the one that holds `offset` up to offset `upper`.
    pub fn read_tail(&self, offset: Offset, max_bytes: usize, upper: Offset, whole_first: bool) -> ReadPlan {
        let mut batches: Vec<Bytes> = Vec::new();
        let mut length = 0;
        for batch in self.tail.iter().skip(self.tail_index(offset)) {
            let first = batches.is_empty() && whole_first;
            if batch.fact.last_offset >= upper || (!first && length + batch.bytes.len() > max_bytes) {
                break;
            }
            length += batch.bytes.len();
            batches.push(batch.bytes.clone());
        }
        if batches.is_empty() { ReadPlan::Empty } else { ReadPlan::Memory { batches } }
    }

    /// The segment that holds `offset`, or, as compaction leaves gaps, the next one behind it.
    pub fn segment_from(&self, offset: Offset) -> Option<&Segment> {
        self.segments.get(self.segments.partition_point(|segment| segment.end_offset <= offset))
    }

    /// A segment's place.
    pub fn segment_at(&self, name: SegmentName) -> Option<usize> {
        self.segments.binary_search_by_key(&name, Segment::name).ok()
    }

    /// A segment; none if it is gone.
    pub fn segment(&self, name: SegmentName) -> Option<&Segment> {
        self.segment_at(name).map(|index| &self.segments[index])
    }

    /// Remembers that the batch with `offset` begins at `position`.
    pub fn remember(&mut self, offset: Offset, segment: SegmentName, position: u64) {
        if self.resume.iter().any(|resume| resume.offset == offset) {
            return;
        }
        if self.resume.len() == RESUME_MAX {
            self.resume.pop_front();
        }
        self.resume.push_back(Resume { offset, segment, position });
    }

    /// Segments have changed: forgets where readers stopped.
    pub fn forget_places(&mut self) {
        self.resume.clear();
    }

    /// Where the batch with `offset` begins in `segment`, if a reader stopped there.
    pub fn remembered(&self, offset: Offset, segment: SegmentName) -> Option<u64> {
        self.resume
            .iter()
            .find(|resume| resume.offset == offset && resume.segment == segment)
            .map(|resume| resume.position)
    }

    /// The file range a read that begins exactly at `position` of `segment` gets: to the last batch boundary known
    /// within `max_bytes`. None if no boundary is known.
    pub fn known_range(
        &self,
        segment: &Segment,
        position: u64,
        max_bytes: usize,
        upper: Offset,
    ) -> Option<u64> {
        let to = position.saturating_add(max_bytes as u64);
        if segment.length <= to && segment.end_offset <= upper {
            return (segment.length > position).then_some(segment.length);
        }
        segment.index.as_ref()?.boundary(position, to.min(segment.length), upper)
    }

    /// A range of a segment.
    pub fn file_plan(&self, segment: &Segment, position: u64, end: u64) -> ReadPlan {
        ReadPlan::File {
            file: segment.file(self.key, FileKind::Log),
            position,
            length: (end - position) as usize,
            laid_to: segment.length,
        }
    }
}
