//! One segment: a stretch of a partition's log in a file. Positions and numbers only; the bytes are on disk.

use pelton_model::{Offset, PartitionKey, TopicConfig};

use crate::checkpoint::SegmentData;
use crate::disk::{FileKind, SegmentFile};
use crate::index::SparseIndex;

/// Which segment of a partition: never used again for other bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentName {
    /// Offset of the first record, or of the first there was before compaction.
    pub base_offset: Offset,
    /// 0 as appended; else the result of one compaction.
    pub generation: u64,
}

impl SegmentName {
    /// One of its files.
    pub fn file(self, partition: PartitionKey, kind: FileKind) -> SegmentFile {
        SegmentFile { partition, base_offset: self.base_offset, generation: self.generation, kind }
    }
}

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// See [`SegmentName`].
    pub generation: u64,
    /// Offset behind the last record on stable storage, or behind the last there was before compaction.
    pub end_offset: Offset,
    /// Bytes of log on stable storage.
    pub length: u64,
    /// Largest timestamp, milliseconds; `i64::MIN` while empty.
    pub max_timestamp_ms: i64,
    /// Largest timestamp of the first batch, milliseconds.
    pub first_timestamp_ms: i64,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: i64,
    /// Complete up to `length`, if it is in memory.
    pub index: Option<SparseIndex>,
    /// The first checkpoint that knows that it was cut; 0: it was not in this life.
    pub cut_known: u64,
}

/// A batch as rolling and indexing see it.
#[derive(Clone, Copy, Debug)]
pub struct BatchFact {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// Bytes.
    pub length: u64,
    /// Largest timestamp, milliseconds.
    pub max_timestamp_ms: i64,
}

impl Segment {
    /// One without records.
    pub fn new(base_offset: Offset, created_ms: i64) -> Segment {
        Segment {
            base_offset,
            generation: 0,
            end_offset: base_offset,
            length: 0,
            max_timestamp_ms: i64::MIN,
            first_timestamp_ms: -1,
            created_ms,
            index: Some(SparseIndex::new(base_offset)),
            cut_known: 0,
        }
    }

    /// As listed in a checkpoint; its index is not in memory.
    pub fn from_data(data: &SegmentData) -> Segment {
        Segment {
            base_offset: Offset(data.base_offset),
            generation: data.generation,
            end_offset: Offset(data.end_offset),
            length: data.length,
            max_timestamp_ms: data.max_timestamp_ms,
            first_timestamp_ms: data.first_timestamp_ms,
            created_ms: data.created_ms,
            index: (data.length == 0).then(|| SparseIndex::new(Offset(data.base_offset))),
            cut_known: 0,
        }
    }

    /// For a checkpoint.
    pub fn to_data(&self) -> SegmentData {
        SegmentData {
            base_offset: self.base_offset.0,
            generation: self.generation,
            end_offset: self.end_offset.0,
            length: self.length,
            max_timestamp_ms: self.max_timestamp_ms,
            first_timestamp_ms: self.first_timestamp_ms,
            created_ms: self.created_ms,
        }
    }

    /// Which it is.
    pub fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }

    /// One of its files.
    pub fn file(&self, partition: PartitionKey, kind: FileKind) -> SegmentFile {
        self.name().file(partition, kind)
    }

    /// Takes in a batch that is now on stable storage at its end.
    pub fn add(&mut self, batch: &BatchFact, index_interval_bytes: i32) {
        if self.length == 0 {
            self.first_timestamp_ms = batch.max_timestamp_ms;
        }
        self.length += batch.length;
        self.end_offset = Offset(batch.last_offset.0 + 1);
        self.max_timestamp_ms = self.max_timestamp_ms.max(batch.max_timestamp_ms);
        if let Some(index) = &mut self.index {
            index.add(batch.base_offset, batch.length, batch.max_timestamp_ms, index_interval_bytes);
        }
    }
}

/// The size and age of the segment that the next batch goes to, counting all that is on its way there.
#[derive(Clone, Copy, Debug)]
pub struct RollState {
    base_offset: Offset,
    length: u64,
    first_timestamp_ms: i64,
    created_ms: i64,
}

impl RollState {
    /// Of this segment.
    pub fn of(segment: &Segment) -> RollState {
        RollState {
            base_offset: segment.base_offset,
            length: segment.length,
            first_timestamp_ms: segment.first_timestamp_ms,
            created_ms: segment.created_ms,
        }
    }

    /// Of one that begins.
    pub fn begin(base_offset: Offset, created_ms: i64) -> RollState {
        RollState { base_offset, length: 0, first_timestamp_ms: -1, created_ms }
    }

    /// Bytes of log in it, with those on their way.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether `batch` begins a new segment (Kafka's LogSegment.shouldRoll: size, time, and offsets that would not fit
    /// the index). `jitter` in 0..1000 spreads the rolls of partitions over `segment.jitter.ms`.
    pub fn must_roll(&self, batch: &BatchFact, config: &TopicConfig, jitter: u32, wall_ms: i64) -> bool {
        if self.length == 0 {
            return false;
        }
        let too_long = self.length + batch.length > config.segment_bytes.max(1) as u64;
        let too_far = batch.last_offset.0 - self.base_offset.0 > i64::from(i32::MAX);
        let age = if self.first_timestamp_ms >= 0 {
            batch.max_timestamp_ms.saturating_sub(self.first_timestamp_ms)
        } else {
            wall_ms.saturating_sub(self.created_ms)
        };
        let shift = (config.segment_jitter_ms.max(0) / 1000).saturating_mul(i64::from(jitter));
        too_long || too_far || age > config.segment_ms_max().saturating_sub(shift)
    }

    /// With the batch behind it.
    pub fn add(&mut self, batch: &BatchFact) {
        if self.length == 0 {
            self.first_timestamp_ms = batch.max_timestamp_ms;
        }
        self.length += batch.length;
    }
}
