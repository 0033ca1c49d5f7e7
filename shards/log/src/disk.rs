//! What the log asks of a disk, and what the disk answers: plain data, performed by the reactor or by the simulator.

use std::sync::Arc;

use bytes::Bytes;
use pelton_model::{Offset, PartitionKey};

use crate::checkpoint::Checkpoint;

/// Names one disk operation in flight; unique within a shard for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// What a segment's file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileKind {
    /// Record batches, contiguous, as on the wire (`.log`).
    Log,
    /// The sparse offset and time index of a sealed segment (`.index`); may be missing, is rebuilt from the log.
    Index,
}

/// One file of a partition, named by what it holds rather than by a path: the reactor owns the paths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentFile {
    /// The partition.
    pub partition: PartitionKey,
    /// Offset of the segment's first record.
    pub base_offset: Offset,
    /// 0 as appended; anything else names one result of compaction, and is never used again.
    pub generation: u64,
    /// What the file holds.
    pub kind: FileKind,
}

/// Bytes to append to a segment.
#[derive(Clone, Debug)]
pub struct SegmentPiece {
    /// Where (created with its directory when missing).
    pub file: SegmentFile,
    /// The end of what is in it, bytes; no block boundary.
    pub position: u64,
    /// What follows, one after the other.
    pub parts: Vec<Bytes>,
}

/// A checkpoint to be written; encoded by whoever writes it, for with many partitions that takes milliseconds.
#[derive(Clone, Debug)]
pub enum CheckpointFile {
    /// Still to be encoded.
    Checkpoint(Arc<Checkpoint>),
    /// As bytes.
    Bytes(Bytes),
}

impl CheckpointFile {
    /// What the file is to hold.
    pub fn bytes(&self) -> Bytes {
        match self {
            CheckpointFile::Checkpoint(checkpoint) => checkpoint.encode(),
            CheckpointFile::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// One disk operation. Operations in flight together may complete, and become durable, in any order.
#[derive(Clone, Debug)]
pub enum DiskEffect {
    /// Write a journal group at `position`; `bytes` starts on a block boundary in memory and fills whole blocks.
    /// With `sync` the completion means: on stable storage (DSYNC), together with every earlier *completed* write.
    JournalWrite { ticket: Ticket, position: u64, bytes: Bytes, sync: bool },
    /// Put every completed journal write on stable storage (fdatasync).
    JournalSync { ticket: Ticket },
    /// Write to a segment (created with its directory when missing); `position` and length are whole blocks.
    SegmentWrite { ticket: Ticket, file: SegmentFile, position: u64, bytes: Bytes },
    /// Write to a segment (created with its directory when missing) parts that follow each other, and put what was written,
    /// the file's length and its directory entry on stable storage. `position` and each length are whole blocks.
    SegmentLay { ticket: Ticket, file: SegmentFile, position: u64, parts: Vec<Bytes> },
    /// Put every completed write of the file, its length and its directory entry on stable storage.
    SegmentSync { ticket: Ticket, file: SegmentFile },
    /// Read up to `length` bytes; fewer at the end of the file, none (not an error) if the file is missing.
    SegmentRead { ticket: Ticket, file: SegmentFile, position: u64, length: usize },
    /// Cut the file to `length` bytes (the padding behind a sealed segment's last batch) and sync it.
    SegmentTruncate { ticket: Ticket, file: SegmentFile, length: u64 },
    /// Remove the file; missing is not an error. An empty partition directory goes with its last file.
    FileDelete { ticket: Ticket, file: SegmentFile },
    /// Append every piece to its segment and put all of it, the files' lengths and their directory entries on stable
    /// storage. Pieces are of different files, and no other write to these is in flight. A failure may leave any part.
    SegmentsAppend { ticket: Ticket, pieces: Vec<SegmentPiece> },
    /// Replace checkpoint slot 0 or 1 and sync it; the other slot is not touched.
    CheckpointWrite { ticket: Ticket, slot: u8, file: CheckpointFile },
}

impl DiskEffect {
    /// The operation's ticket.
    pub fn ticket(&self) -> Ticket {
        match self {
            DiskEffect::JournalWrite { ticket, .. }
            | DiskEffect::JournalSync { ticket }
            | DiskEffect::SegmentWrite { ticket, .. }
            | DiskEffect::SegmentSync { ticket, .. }
            | DiskEffect::SegmentRead { ticket, .. }
            | DiskEffect::SegmentTruncate { ticket, .. }
            | DiskEffect::FileDelete { ticket, .. }
            | DiskEffect::SegmentLay { ticket, .. }
            | DiskEffect::SegmentsAppend { ticket, .. }
            | DiskEffect::CheckpointWrite { ticket, .. } => *ticket,
        }
    }
}

/// Why a disk operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskError {
    /// No space left on the device (ENOSPC, EDQUOT): may pass.
    pub no_space: bool,
    /// The operating system's words.
    pub text: String,
}

/// A finished disk operation.
#[derive(Clone, Debug)]
pub struct DiskDone {
    /// Which.
    pub ticket: Ticket,
    /// The bytes of a read (empty for every other operation), or the failure.
    pub result: Result<Bytes, DiskError>,
}
