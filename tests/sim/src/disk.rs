//! A disk that does what disks do: completes writes in any order, forgets at a power cut what was not synced, tears writes
//! at sectors, fills up, fails. One per shard for its own files; partition files are the node's.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_log::SegmentReader;
use pelton_log::disk::{DiskEffect, DiskError, SegmentFile, SegmentPiece, Ticket};
use pelton_model::Prng;
use pelton_model::limits::BLOCK_BYTES;

const SECTOR_BYTES: usize = 512;
/// How many of the newest journal writes of a shard are remembered.
const RECENT_WRITES: usize = 32;

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process dies; the kernel finishes what it was given.
    Kill,
    /// The power goes: what was not synced may be lost, in part.
    PowerCut,
}

/// One file.
#[derive(Clone, Default)]
struct File {
    /// What reads see.
    cache: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// Completed, not synced: number of completion, position and bytes.
    unsynced: Vec<(u64, usize, Bytes)>,
    /// Writes completed so far.
    completed: u64,
    /// The directory entry is durable.
    linked: bool,
}

fn write_at(into: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    if into.len() < position + bytes.len() {
        into.resize(position + bytes.len(), 0);
    }
    into[position..position + bytes.len()].copy_from_slice(bytes);
}

/// Applies a write of which each sector may or may not have arrived.
fn tear(prng: &mut Prng, into: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    match prng.below(4) {
        0 => {}
        1 => write_at(into, position, bytes),
        _ => {
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if prng.one_in(2) {
                    write_at(into, position + index * SECTOR_BYTES, sector);
                }
            }
        }
    }
}

impl File {
    fn complete(&mut self, position: usize, bytes: &Bytes) {
        write_at(&mut self.cache, position, bytes);
        self.completed += 1;
        self.unsynced.push((self.completed, position, bytes.clone()));
    }

    /// What was written to this place before can no longer show.
    fn supersede(&mut self, at: usize, bytes: &Bytes) {
        for (_, older_at, older) in &mut self.unsynced {
            let (from, to) = (at.max(*older_at), (at + bytes.len()).min(*older_at + older.len()));
            if from < to {
                let mut patched = older.to_vec();
                patched[from - *older_at..to - *older_at].copy_from_slice(&bytes[from - at..to - at]);
                *older = Bytes::from(patched);
            }
        }
    }

    /// Makes the writes durable that were among the first `completed`.
    fn sync(&mut self, completed: u64) {
        let count = self.unsynced.partition_point(|(number, ..)| *number <= completed);
        for (_, position, bytes) in self.unsynced.drain(..count) {
            write_at(&mut self.durable, position, &bytes);
        }
    }

    /// A power cut in the middle of it: the rest of the block is zeros, and the length is what it was.
    fn truncate_half(&mut self, length: usize) {
        self.sync(u64::MAX);
        for bytes in [&mut self.cache, &mut self.durable] {
            let end = length.next_multiple_of(BLOCK_BYTES).min(bytes.len());
            if length < end {
                bytes[length..end].fill(0);
            }
        }
    }

    fn crash(&mut self, prng: &mut Prng, in_flight: &[(usize, Bytes)], crash: Crash) {
        match crash {
            Crash::Kill => {
                // The machine goes on: what it had taken stays, but is no more durable than before.
                for (position, bytes) in in_flight {
                    if prng.one_in(2) {
                        self.complete(*position, bytes);
                    }
                }
            }
            Crash::PowerCut => {
                let unsynced = std::mem::take(&mut self.unsynced);
                let mut writes: Vec<(usize, Bytes)> =
                    unsynced.into_iter().map(|(_, at, bytes)| (at, bytes)).collect();
                writes.extend(in_flight.iter().cloned());
                while !writes.is_empty() {
                    let (position, bytes) = writes.swap_remove(prng.below(writes.len() as u64) as usize);
                    tear(prng, &mut self.durable, position, &bytes);
                }
                self.cache = self.durable.clone();
            }
        }
        self.linked = true;
    }
}

/// Which file an operation is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Name {
    Journal(u16),
    Checkpoint(u16, u8),
    /// Of this shard, or of all.
    Segment(Option<u16>, SegmentFile),
}

/// An operation that was submitted and has not completed.
pub struct Operation {
    /// The shard that asked.
    pub shard: u16,
    /// Its ticket.
    pub ticket: Ticket,
    name: Name,
    kind: Kind,
    /// Writes of the file completed when this was submitted; a sync covers those.
    covers: u64,
}

/// Appends to several files.
fn append(whose: Option<u16>, pieces: Vec<SegmentPiece>) -> (Name, Kind) {
    let mut writes = Vec::new();
    for piece in pieces {
        let (name, mut position) = (Name::Segment(whose, piece.file), piece.position as usize);
        for part in piece.parts {
            let end = position + part.len();
            writes.push((name, position, part));
            position = end;
        }
    }
    (writes[0].0, Kind::Append { writes })
}

impl Operation {
    /// True unless it only reads.
    pub fn changes(&self) -> bool {
        !matches!(self.kind, Kind::Read { .. })
    }
}

enum Kind {
    Write {
        position: usize,
        bytes: Bytes,
        sync: bool,
    },
    Sync,
    Read {
        position: usize,
        length: usize,
    },
    Replace {
        bytes: Bytes,
    },
    /// Writes and syncs several files.
    Append {
        writes: Vec<(Name, usize, Bytes)>,
    },
    Truncate {
        length: usize,
    },
    Delete,
}

/// Faults that are on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Segment and checkpoint writes find no space.
    pub no_space: bool,
    /// One journal write in so many fails; 0 = none.
    pub journal_error_one_in: u64,
}

/// The disk of a node.
#[derive(Default)]
pub struct Disk {
    files: BTreeMap<Name, File>,
    /// The newest journal writes of each shard.
    recent: BTreeMap<u16, VecDeque<(usize, usize)>>,
    /// Each shard has its own segments.
    apart: bool,
    /// Faults that are on now.
    pub faults: Faults,
}

impl Disk {
    /// A disk where each shard has its own segments, as in a cluster, where two may have a replica of one partition.
    pub fn apart() -> Disk {
        Disk { apart: true, ..Disk::default() }
    }

    fn segment(&self, shard: u16, file: SegmentFile) -> Name {
        Name::Segment(self.apart.then_some(shard), file)
    }

    /// The journal of a shard as a start finds it.
    pub fn journal(&mut self, shard: u16, journal_bytes: usize) -> Bytes {
        let file = self.files.entry(Name::Journal(shard)).or_default();
        if file.cache.is_empty() {
            file.cache = vec![0; journal_bytes];
            file.durable = vec![0; journal_bytes];
            file.linked = true;
        }
        Bytes::copy_from_slice(&file.cache)
    }

    /// A checkpoint slot of a shard as a start finds it.
    pub fn checkpoint(&self, shard: u16, slot: u8) -> Option<Bytes> {
        self.files.get(&Name::Checkpoint(shard, slot)).map(|file| Bytes::copy_from_slice(&file.cache))
    }

    /// Reads of segments as a start does them.
    pub fn segment_reader(&self, shard: u16) -> SegmentReader {
        let whose = self.apart.then_some(shard);
        let files: BTreeMap<Name, Vec<u8>> =
            self.files.iter().map(|(name, file)| (*name, file.cache.clone())).collect();
        SegmentReader::new(move |file, position, length| {
            Ok(files.get(&Name::Segment(whose, file)).map(|bytes| {
                let from = (position as usize).min(bytes.len());
                Bytes::copy_from_slice(&bytes[from..(from + length).min(bytes.len())])
            }))
        })
    }

    /// Bytes of a segment, as a send of a file range takes them.
    pub fn range(&self, shard: u16, file: SegmentFile, position: u64, length: usize) -> Option<Bytes> {
        let cache = &self.files.get(&self.segment(shard, file))?.cache;
        cache.get(position as usize..position as usize + length).map(Bytes::copy_from_slice)
    }

    /// Where the newest journal writes of a shard went, position and length, oldest first.
    pub fn recent_journal_writes(&self, shard: u16) -> Vec<(usize, usize)> {
        self.recent.get(&shard).map(|writes| writes.iter().copied().collect()).unwrap_or_default()
    }

    /// Damages one byte of a shard's journal.
    pub fn flip_journal_bit(&mut self, shard: u16, at: usize) {
        if let Some(file) = self.files.get_mut(&Name::Journal(shard)) {
            let at = at % file.cache.len().max(1);
            file.cache[at] ^= 1;
            file.durable[at] ^= 1;
        }
    }

    /// Takes an operation.
    pub fn submit(&mut self, shard: u16, effect: DiskEffect) -> Operation {
        let (ticket, whose) = (effect.ticket(), self.apart.then_some(shard));
        let (name, kind) = match effect {
            DiskEffect::JournalWrite { position, bytes, sync, .. } => {
                assert_eq!(position % 4096, 0, "journal writes are aligned");
                assert_eq!(bytes.len() % 4096, 0, "journal writes are whole blocks");
                let recent = self.recent.entry(shard).or_default();
                recent.push_back((position as usize, bytes.len()));
                if recent.len() > RECENT_WRITES {
                    recent.pop_front();
                }
                (Name::Journal(shard), Kind::Write { position: position as usize, bytes, sync })
            }
            DiskEffect::JournalSync { .. } => (Name::Journal(shard), Kind::Sync),
            DiskEffect::SegmentWrite { file, position, bytes, .. } => {
                assert_eq!(position % 4096, 0, "segment writes are aligned");
                assert_eq!(bytes.len() % 4096, 0, "segment writes are whole blocks");
                (self.segment(shard, file), Kind::Write { position: position as usize, bytes, sync: false })
            }
            DiskEffect::SegmentSync { file, .. } => (self.segment(shard, file), Kind::Sync),
            DiskEffect::SegmentRead { file, position, length, .. } => {
                (self.segment(shard, file), Kind::Read { position: position as usize, length })
            }
            DiskEffect::SegmentTruncate { file, length, .. } => {
                (self.segment(shard, file), Kind::Truncate { length: length as usize })
            }
            DiskEffect::FileDelete { file, .. } => (self.segment(shard, file), Kind::Delete),
            DiskEffect::SegmentLay { file, position, parts, .. } => {
                assert!(parts.iter().all(|part| part.len() % 4096 == 0), "segment writes are whole blocks");
                assert_eq!(position % 4096, 0, "segment writes are aligned");
                append(whose, vec![SegmentPiece { file, position, parts }])
            }
            DiskEffect::SegmentsAppend { pieces, .. } => append(whose, pieces),
            DiskEffect::CheckpointWrite { slot, file, .. } => {
                (Name::Checkpoint(shard, slot), Kind::Replace { bytes: file.bytes() })
            }
        };
        let covers = self.files.get(&name).map_or(0, |file| file.completed);
        Operation { shard, ticket, name, kind, covers }
    }

    /// Completes an operation.
    pub fn complete(&mut self, prng: &mut Prng, operation: &Operation) -> Result<Bytes, DiskError> {
        if let Err(error) = self.fail(prng, operation) {
            if let Kind::Append { writes } = &operation.kind {
                // Some of it may have arrived all the same.
                for (name, position, bytes) in &writes[..prng.below(writes.len() as u64) as usize] {
                    self.files.entry(*name).or_default().complete(*position, bytes);
                }
            }
            return Err(error);
        }
        let none = Bytes::new();
        match &operation.kind {
            Kind::Delete => {
                self.files.remove(&operation.name);
                return Ok(none);
            }
            Kind::Read { position, length } => {
                let Some(file) = self.files.get(&operation.name) else { return Ok(none) };
                let from = (*position).min(file.cache.len());
                let until = (from + length).min(file.cache.len());
                return Ok(Bytes::copy_from_slice(&file.cache[from..until]));
            }
            Kind::Append { writes } => {
                for (name, position, bytes) in writes {
                    let file = self.files.entry(*name).or_default();
                    file.complete(*position, bytes);
                    file.sync(u64::MAX);
                    file.linked = true;
                }
                return Ok(none);
            }
            _ => {}
        }
        let file = self.files.entry(operation.name).or_default();
        match &operation.kind {
            Kind::Write { position, bytes, sync } => {
                if *sync {
                    // With FUA this write alone is durable, not what was written before it.
                    write_at(&mut file.cache, *position, bytes);
                    write_at(&mut file.durable, *position, bytes);
                    file.supersede(*position, bytes);
                } else {
                    file.complete(*position, bytes);
                }
            }
            Kind::Sync => {
                file.sync(operation.covers);
                file.linked = true;
            }
            Kind::Replace { bytes } => {
                file.cache = bytes.to_vec();
                file.durable = bytes.to_vec();
                file.linked = true;
            }
            Kind::Truncate { length } => {
                file.sync(u64::MAX);
                file.cache.truncate(*length);
                file.durable.truncate(*length);
                file.linked = true;
            }
            Kind::Read { .. } | Kind::Delete | Kind::Append { .. } => {}
        }
        Ok(none)
    }

    fn fail(&self, prng: &mut Prng, operation: &Operation) -> Result<(), DiskError> {
        let journal = matches!(operation.name, Name::Journal(_));
        let writes =
            matches!(operation.kind, Kind::Write { .. } | Kind::Replace { .. } | Kind::Append { .. });
        if self.faults.no_space && writes && !journal {
            return Err(DiskError { no_space: true, text: "no space left (simulated)".to_string() });
        }
        let one_in = self.faults.journal_error_one_in;
        if one_in > 0 && journal && writes && prng.one_in(one_in) {
            return Err(DiskError { no_space: false, text: "input/output error (simulated)".to_string() });
        }
        Ok(())
    }

    /// The node ends; `in_flight` are the operations that had not completed.
    pub fn crash(&mut self, prng: &mut Prng, in_flight: &[Operation], crash: Crash) {
        let mut writes: BTreeMap<Name, Vec<(usize, Bytes)>> = BTreeMap::new();
        for operation in in_flight {
            match &operation.kind {
                Kind::Write { position, bytes, .. } => {
                    writes.entry(operation.name).or_default().push((*position, bytes.clone()));
                    self.files.entry(operation.name).or_default();
                }
                Kind::Append { writes: pieces } => {
                    for (name, position, bytes) in pieces {
                        writes.entry(*name).or_default().push((*position, bytes.clone()));
                        self.files.entry(*name).or_default();
                    }
                }
                Kind::Replace { bytes } => {
                    let file = self.files.entry(operation.name).or_default();
                    file.linked = true;
                    tear(prng, &mut file.cache, 0, bytes);
                    file.durable = file.cache.clone();
                }
                Kind::Delete if prng.one_in(2) => {
                    self.files.remove(&operation.name);
                }
                Kind::Truncate { length } if crash == Crash::PowerCut && prng.one_in(2) => {
                    if let Some(file) = self.files.get_mut(&operation.name) {
                        file.truncate_half(*length);
                    }
                }
                _ => {}
            }
        }
        let names: Vec<Name> = self.files.keys().copied().collect();
        for name in names {
            let Some(file) = self.files.get_mut(&name) else { continue };
            if crash == Crash::PowerCut && !file.linked && prng.one_in(2) {
                self.files.remove(&name);
                continue;
            }
            file.crash(prng, writes.get(&name).map_or(&[], Vec::as_slice), crash);
        }
    }
}
