//! The vocabulary of the log: what callers hand in and get back. Data only; nothing here decides anything.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use pelton_model::{LeaderEpoch, Offset, PartitionKey};

use crate::disk::SegmentFile;
use crate::sabotage::Sabotage;
use crate::segment::SegmentName;

/// A partition of this shard: dense, never reused in the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionSlot(pub u32);

/// The journal group that holds a change. A change is stable once [`crate::Storage::flushed`] has reached its point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CommitPoint(pub u64);

/// A read or lookup that waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadToken(pub u64);

/// Sizes and limits of one shard's storage.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Size of the journal file, bytes; whole blocks.
    pub journal_bytes: u64,
    /// Journal writes in flight at once, at least 1.
    pub writes_in_flight: usize,
    /// Memory of group buffers, bytes.
    pub tail_bytes: usize,
    /// A group is closed when it has this many bytes; a larger batch is a group of its own.
    pub group_bytes: usize,
    /// A batch of at least this size goes straight to its segment, and the journal has only its header, bytes.
    pub direct_bytes: usize,
    /// A partition with this many bytes not yet in a segment is laid down, bytes.
    pub lay_down_bytes: usize,
    /// Largest write to a segment, bytes (a larger batch is written in one piece all the same).
    pub lay_down_write_bytes: usize,
    /// The same while nobody waits for it: the journal's next write waits for what the device has begun (decision 37).
    pub lay_down_write_bytes_unhurried: usize,
    /// Partitions being laid down at once.
    pub lay_downs_in_flight: usize,
    /// The same while nobody waits for it: what is acknowledged meanwhile shares the device with them.
    pub lay_downs_unhurried: usize,
    /// Partitions a checkpoint takes in per turn: with very many of them one turn would hold everything up.
    pub checkpoint_partitions: usize,
    /// Memory of the indexes of sealed segments, bytes.
    pub index_bytes: usize,
    /// Piece in which a segment without index is read, bytes.
    pub rebuild_read_bytes: usize,
    /// Largest uncompressed size of a batch that a timestamp lookup unpacks, bytes.
    pub unpack_bytes_max: usize,
    /// Memory of the keys of a compaction, bytes (`log.cleaner.dedupe.buffer.size`, this shard's share).
    pub dedupe_bytes: usize,
    /// Bytes compaction reads and writes in a second, about; 0 = as many as its share of the shard allows.
    pub compaction_bytes_per_second: u64,
    /// Wait before trying again what failed for want of space, milliseconds.
    pub retry_ms: i64,
    /// A fault on purpose, for the simulator.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<Sabotage>,
}

impl StorageConfig {
    /// Whether this fault is switched on; always false without the cargo feature `sabotage`.
    pub(crate) fn sabotaged(&self, _fault: Sabotage) -> bool {
        #[cfg(feature = "sabotage")]
        return self.sabotage == Some(_fault);
        #[cfg(not(feature = "sabotage"))]
        false
    }
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig {
            journal_bytes: 128 << 20,
            writes_in_flight: 2,
            tail_bytes: 128 << 20,
            group_bytes: 4 << 20,
            direct_bytes: 256 << 10,
            lay_down_bytes: 1 << 20,
            lay_down_write_bytes: 4 << 20,
            lay_down_write_bytes_unhurried: 256 << 10,
            lay_downs_in_flight: 16,
            lay_downs_unhurried: 2,
            checkpoint_partitions: 256,
            index_bytes: 16 << 20,
            rebuild_read_bytes: 1 << 20,
            unpack_bytes_max: 128 << 20,
            dedupe_bytes: 128 << 20,
            compaction_bytes_per_second: 0,
            retry_ms: 1000,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

/// What the reactor reads whole at start.
#[derive(Clone, Debug, Default)]
pub struct DiskImage {
    /// Both checkpoint slots; none (or empty) if the file does not exist.
    pub checkpoints: [Option<Bytes>; 2],
    /// The journal file; empty if it was just created.
    pub journal: Bytes,
    /// Reads from segments, for batches of which the journal has only the header.
    pub segments: SegmentReader,
}

type ReadSegment = dyn Fn(SegmentFile, u64, usize) -> Result<Option<Bytes>, String> + Send + Sync;

/// How recovery reads a range of a segment's file: file, position, length. Fewer bytes at the file's end; none if there is
/// no such file.
#[derive(Clone)]
pub struct SegmentReader(Arc<ReadSegment>);

impl SegmentReader {
    /// With this function.
    pub fn new(
        read: impl Fn(SegmentFile, u64, usize) -> Result<Option<Bytes>, String> + Send + Sync + 'static,
    ) -> SegmentReader {
        SegmentReader(Arc::new(read))
    }

    pub(crate) fn read(
        &self,
        file: SegmentFile,
        position: u64,
        length: usize,
    ) -> Result<Option<Bytes>, String> {
        (self.0)(file, position, length)
    }
}

/// Of a disk without segments.
impl Default for SegmentReader {
    fn default() -> SegmentReader {
        SegmentReader::new(|_, _, _| Ok(None))
    }
}

impl fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentReader")
    }
}

/// A batch of the journal that the last checkpoint's snapshots may not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayedBatch {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// Epoch it was appended under.
    pub leader_epoch: LeaderEpoch,
    /// Producer id; -1 = not idempotent.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Largest timestamp, milliseconds.
    pub max_timestamp_ms: i64,
    /// Transaction bits and the rest of the attributes.
    pub attributes: i16,
}

/// A partition found on disk.
#[derive(Clone, Debug)]
pub struct RecoveredPartition {
    /// Its slot.
    pub slot: PartitionSlot,
    /// Which it is.
    pub key: PartitionKey,
    /// First offset.
    pub log_start_offset: Offset,
    /// Offset behind the last record.
    pub log_end_offset: Offset,
    /// What [`Snapshots::partition`] gave at the last checkpoint; empty if it is younger than that.
    pub snapshot: Bytes,
    /// Batches of the journal, in order; those the snapshot knows already may be among them.
    pub replay: Vec<ReplayedBatch>,
    /// Cuts of the log among them, in order.
    pub cuts: Vec<ReplayedCut>,
}

/// A cut of the log between batches of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayedCut {
    /// How many of `RecoveredPartition::replay` came before.
    pub after: usize,
    /// Where the log ended then.
    pub end: Offset,
    /// Nothing was left: the log began anew there.
    pub emptied: bool,
}

/// What was found at start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Every partition with a log.
    pub partitions: Vec<RecoveredPartition>,
    /// What [`Snapshots::metadata`] gave at the last checkpoint.
    pub metadata_snapshot: Option<Bytes>,
    /// Records journaled since, in order; those the snapshot knows already may be among them.
    pub metadata_records: Vec<Bytes>,
    /// Journal groups read.
    pub groups: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of a torn tail that were cut (0 = none).
    pub cut_bytes: u64,
    /// The log was stopped cleanly.
    pub clean: bool,
}

impl Recovered {
    /// One line for the operator.
    pub fn report(&self) -> String {
        let stop = if self.clean { "clean stop" } else { "recovery" };
        format!(
            "{stop}: {} partitions, {} journal groups, {} batches, {} bytes of an unfinished write dropped",
            self.partitions.len(),
            self.groups,
            self.batches,
            self.cut_bytes
        )
    }
}

/// Why a log cannot be opened. The process must not start on it (exit 20).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Something that was on stable storage is damaged.
    #[error("the log is damaged: {cause}; {remedy}")]
    Corrupt {
        /// What was found.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// Something could not be read.
    #[error("the log cannot be read: {0}; look at the device and the permissions of the data directory")]
    Unreadable(String),
    /// Written by a version this one does not know.
    #[error("the log has format {found}, this version reads {known}; start the version that wrote it")]
    Format {
        /// On disk.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// Whether an append may be made now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Yes.
    Yes,
    /// Not yet: `Progress::space_freed` will say when to ask again.
    Later,
    /// No, and waiting will not help soon.
    Refused {
        /// Why, for the client and the operator.
        text: String,
        /// The device is full.
        no_space: bool,
    },
}

/// Where an append went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// The group.
    pub commit: CommitPoint,
}

/// Where the bytes of a read are: whole batches, the first of which holds the offset asked for.
#[derive(Clone, Debug)]
pub enum ReadPlan {
    /// Nothing to give.
    Empty,
    /// In memory.
    Memory {
        /// Stretches of log, in order.
        batches: Vec<Bytes>,
    },
    /// In a segment; the range never changes.
    File {
        /// The file.
        file: SegmentFile,
        /// Where the first batch begins.
        position: u64,
        /// Bytes.
        length: usize,
        /// How far the file is there: what is read ahead up to here stays true.
        laid_to: u64,
    },
}

/// The beginning of a read.
#[derive(Clone, Debug)]
pub enum ReadStart {
    /// Done.
    Ready(ReadPlan),
    /// `Progress::reads` will have it.
    Pending(ReadToken),
}

/// Why a read cannot begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The offset lies outside the log, or the partition is gone.
    OutOfRange,
}

/// A record found by time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundTimestamp {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, milliseconds.
    pub timestamp_ms: i64,
    /// The epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// The beginning of a lookup.
#[derive(Clone, Copy, Debug)]
pub enum LookupStart {
    /// Done.
    Ready(Option<FoundTimestamp>),
    /// `Progress::lookups` will have it.
    Pending(ReadToken),
}

/// Where a log is to be cut.
pub(crate) type CutPlace = (PartitionSlot, Result<Option<(SegmentName, u64, Offset)>, String>);

/// What a completion moved.
#[derive(Debug, Default)]
pub struct Progress {
    /// Partitions whose written or flushed end moved; sorted, once each.
    pub advanced: Vec<PartitionSlot>,
    /// Finished reads.
    pub reads: Vec<(ReadToken, Result<ReadPlan, String>)>,
    /// Finished lookups.
    pub lookups: Vec<(ReadToken, Result<Option<FoundTimestamp>, String>)>,
    /// Logs that were cut, and where they end now.
    pub cuts: Vec<(PartitionSlot, Offset)>,
    pub(crate) cut_places: Vec<CutPlace>,
    /// There may be room for appends that were told `Later`.
    pub space_freed: bool,
    /// The clean stop is complete.
    pub stopped: bool,
    /// The storage has failed, said once: nothing is acknowledged any more.
    pub failed: Option<String>,
    /// The device is full (said once per episode); data stay in the journal and lay-down is tried again.
    pub no_space: Option<String>,
}

/// How much of a log compaction would find to do; the greater the more urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dirt {
    /// `max.compaction.lag.ms` has passed.
    pub overdue: bool,
    /// Share of its bytes that were not compacted yet, in millionths.
    pub ratio_ppm: u64,
}

/// How a compaction ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CompactionReport {
    /// The partition.
    pub slot: PartitionSlot,
    /// Bytes of log looked through to be rewritten.
    pub read_bytes: u64,
    /// Of these, what stayed.
    pub kept_bytes: u64,
    /// It did not come to its end; what was done counts.
    pub ended_early: bool,
    /// Why, if an operator should know.
    pub failure: Option<String>,
}

/// The state of the storage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// All is well.
    Healthy,
    /// The device is full; tried again every second.
    NoSpace(String),
    /// Failed for good; the process must be restarted on a sound device.
    Failed(String),
}

/// What a checkpoint keeps besides the log itself, asked for when one is made.
pub trait Snapshots {
    /// A partition's producers and epochs, opaque here.
    fn partition(&self, slot: PartitionSlot) -> Vec<u8>;
    /// The metadata image, opaque here; empty on shards that keep none.
    fn metadata(&self) -> Vec<u8>;
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Healthy => write!(f, "healthy"),
            Health::NoSpace(text) | Health::Failed(text) => write!(f, "{text}"),
        }
    }
}
