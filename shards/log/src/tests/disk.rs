//! A disk in memory: operations complete when asked, in an order chosen; what was not flushed may be lost or torn.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::Prng;
use pelton_model::limits::BLOCK_BYTES;

use crate::disk::{DiskDone, DiskEffect, DiskError, SegmentFile, SegmentPiece};
use crate::types::{DiskImage, SegmentReader};

const SECTOR: usize = 512;

/// A file: what is stable, and writes completed or in flight that may be lost.
#[derive(Clone, Default)]
struct File {
    stable: Vec<u8>,
    volatile: Vec<(usize, Bytes)>,
}

impl File {
    fn view(&self) -> Vec<u8> {
        let mut bytes = self.stable.clone();
        for (at, data) in &self.volatile {
            put(&mut bytes, *at, data);
        }
        bytes
    }

    /// A write that is stable at once; what was written to the same place before can no longer show.
    fn put_stable(&mut self, at: usize, data: &[u8]) {
        put(&mut self.stable, at, data);
        for (older_at, older) in &mut self.volatile {
            let (from, to) = (at.max(*older_at), (at + data.len()).min(*older_at + older.len()));
            if from < to {
                let mut patched = older.to_vec();
                patched[from - *older_at..to - *older_at].copy_from_slice(&data[from - at..to - at]);
                *older = Bytes::from(patched);
            }
        }
    }

    /// A power cut in the middle of it: ext4 writes the rest of the block as zeros, and may not come to the new length.
    fn truncate_half(&mut self, length: usize) {
        self.sync();
        let end = length.next_multiple_of(BLOCK_BYTES).min(self.stable.len());
        if length < end {
            self.stable[length..end].fill(0);
        }
    }

    fn sync(&mut self) {
        self.stable = self.view();
        self.volatile.clear();
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// Which operations fail, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    pub segment_full: bool,
    pub journal_error: bool,
    pub sync_error: bool,
    pub checkpoint_full: bool,
}

/// The disk.
#[derive(Clone, Default)]
pub struct Disk {
    journal: File,
    pub checkpoints: [Option<Vec<u8>>; 2],
    files: BTreeMap<SegmentFile, File>,
    pub pending: Vec<DiskEffect>,
    pub faults: Faults,
    pub journal_writes: Vec<(u64, Bytes, bool)>,
    pub segment_reads: usize,
}

impl Disk {
    pub fn new(journal_bytes: u64) -> Disk {
        let journal = File { stable: vec![0; journal_bytes as usize], volatile: Vec::new() };
        Disk { journal, ..Disk::default() }
    }

    pub fn image(&self) -> DiskImage {
        let files = self.files.clone();
        DiskImage {
            checkpoints: self.checkpoints.clone().map(|slot| slot.map(Bytes::from)),
            journal: Bytes::from(self.journal.view()),
            segments: SegmentReader::new(move |file, position, length| {
                let bytes = files.get(&file).map(File::view);
                Ok(bytes.map(|bytes| {
                    let from = (position as usize).min(bytes.len());
                    Bytes::copy_from_slice(&bytes[from..(from + length).min(bytes.len())])
                }))
            }),
        }
    }

    pub fn journal_mut(&mut self) -> &mut Vec<u8> {
        self.journal.sync();
        &mut self.journal.stable
    }

    pub fn file(&self, file: &SegmentFile) -> Option<Vec<u8>> {
        self.files.get(file).map(File::view)
    }

    pub fn files(&self) -> Vec<SegmentFile> {
        self.files.keys().copied().collect()
    }

    pub fn flip(&mut self, file: &SegmentFile, at: usize) {
        if let Some(file) = self.files.get_mut(file) {
            file.sync();
            file.stable[at] ^= 1;
        }
    }

    pub fn remove(&mut self, file: &SegmentFile) {
        self.files.remove(file);
    }

    /// Completes the operation at `index` of those pending.
    pub fn complete(&mut self, index: usize) -> DiskDone {
        let effect = self.pending.remove(index);
        let ticket = effect.ticket();
        DiskDone { ticket, result: self.perform(effect) }
    }

    fn perform(&mut self, effect: DiskEffect) -> Result<Bytes, DiskError> {
        match effect {
            DiskEffect::JournalWrite { position, bytes, sync, .. } => {
                assert_eq!(bytes.len() % BLOCK_BYTES, 0);
                assert!(
                    position as usize + bytes.len() <= self.journal.stable.len(),
                    "write past the journal"
                );
                if self.faults.journal_error {
                    return Err(broken());
                }
                self.journal_writes.push((position, bytes.clone(), sync));
                // With FUA a DSYNC write alone is stable, not what was written before it.
                match sync {
                    true => self.journal.put_stable(position as usize, &bytes),
                    false => self.journal.volatile.push((position as usize, bytes)),
                }
            }
            DiskEffect::JournalSync { .. } if self.faults.sync_error => return Err(broken()),
            DiskEffect::JournalSync { .. } => self.journal.sync(),
            DiskEffect::SegmentWrite { .. } if self.faults.segment_full => return Err(full()),
            DiskEffect::SegmentWrite { file, position, bytes, .. } => {
                assert_eq!((position as usize % BLOCK_BYTES, bytes.len() % BLOCK_BYTES), (0, 0));
                self.files.entry(file).or_default().volatile.push((position as usize, bytes));
            }
            DiskEffect::SegmentLay { file, position, parts, .. } => {
                assert!(position.is_multiple_of(BLOCK_BYTES as u64) && !parts.is_empty());
                assert!(parts.iter().all(|part| part.len() % BLOCK_BYTES == 0));
                self.append_stable(SegmentPiece { file, position, parts })?;
            }
            DiskEffect::SegmentSync { .. } if self.faults.sync_error => return Err(broken()),
            DiskEffect::SegmentSync { file, .. } => self.files.entry(file).or_default().sync(),
            DiskEffect::SegmentRead { file, position, length, .. } => {
                self.segment_reads += 1;
                let bytes = self.files.get(&file).map(File::view).unwrap_or_default();
                let from = (position as usize).min(bytes.len());
                let to = (from + length).min(bytes.len());
                return Ok(Bytes::copy_from_slice(&bytes[from..to]));
            }
            DiskEffect::SegmentTruncate { file, length, .. } => {
                if let Some(file) = self.files.get_mut(&file) {
                    file.sync();
                    file.stable.truncate(length as usize);
                }
            }
            DiskEffect::FileDelete { file, .. } => {
                self.files.remove(&file);
            }
            DiskEffect::SegmentsAppend { pieces, .. } => {
                for piece in pieces {
                    self.append_stable(piece)?;
                }
            }
            DiskEffect::CheckpointWrite { .. } if self.faults.checkpoint_full => return Err(full()),
            DiskEffect::CheckpointWrite { slot, file, .. } => {
                self.checkpoints[usize::from(slot)] = Some(file.bytes().to_vec());
            }
        }
        Ok(Bytes::new())
    }

    /// Fails half way if it fails: what was written may be lost.
    fn append_stable(&mut self, piece: SegmentPiece) -> Result<(), DiskError> {
        let (is_full, is_broken) = (self.faults.segment_full, self.faults.sync_error);
        if is_full {
            return Err(full());
        }
        let file = self.append(piece);
        if is_broken {
            return Err(broken());
        }
        file.sync();
        Ok(())
    }

    fn append(&mut self, piece: SegmentPiece) -> &mut File {
        let file = self.files.entry(piece.file).or_default();
        let mut position = piece.position as usize;
        for part in piece.parts {
            let end = position + part.len();
            file.volatile.push((position, part));
            position = end;
        }
        file
    }

    /// A power cut: of everything not flushed, any sectors may have reached the disk.
    pub fn power_cut(&mut self, prng: &mut Prng) {
        for effect in std::mem::take(&mut self.pending) {
            match effect {
                DiskEffect::JournalWrite { position, bytes, .. } => {
                    self.journal.volatile.push((position as usize, bytes));
                }
                DiskEffect::SegmentWrite { file, position, bytes, .. } => {
                    self.files.entry(file).or_default().volatile.push((position as usize, bytes));
                }
                DiskEffect::SegmentLay { file, position, parts, .. } => {
                    self.append(SegmentPiece { file, position, parts });
                }
                DiskEffect::SegmentsAppend { pieces, .. } => {
                    for piece in pieces {
                        self.append(piece);
                    }
                }
                DiskEffect::CheckpointWrite { slot, file, .. } => {
                    let bytes = file.bytes();
                    let keep = prng.below(bytes.len() as u64 + 1) as usize;
                    let mut torn = self.checkpoints[usize::from(slot)].clone().unwrap_or_default();
                    if torn.len() < keep {
                        torn.resize(keep, 0);
                    }
                    torn[..keep].copy_from_slice(&bytes[..keep]);
                    self.checkpoints[usize::from(slot)] = Some(torn);
                }
                DiskEffect::SegmentTruncate { file, length, .. } if prng.below(2) == 0 => {
                    if let Some(file) = self.files.get_mut(&file) {
                        file.truncate_half(length as usize);
                    }
                }
                _ => {}
            }
        }
        tear(&mut self.journal, prng);
        for file in self.files.values_mut() {
            tear(file, prng);
        }
    }

    /// The process dies; what it had completed stays, what was in flight may or may not be there.
    pub fn kill(&mut self, prng: &mut Prng) {
        let pending = std::mem::take(&mut self.pending);
        let reached: Vec<_> = pending.into_iter().filter(|_| prng.below(2) == 0).collect();
        for effect in reached {
            let _ = self.perform(effect);
        }
    }
}

fn full() -> DiskError {
    DiskError { no_space: true, text: "no space left on device".to_string() }
}

fn broken() -> DiskError {
    DiskError { no_space: false, text: "input/output error".to_string() }
}

fn tear(file: &mut File, prng: &mut Prng) {
    for (at, data) in std::mem::take(&mut file.volatile) {
        let mode = prng.below(4);
        for (index, sector) in data.chunks(SECTOR).enumerate() {
            if mode == 0 || (mode > 1 && prng.below(2) == 0) {
                put(&mut file.stable, at + index * SECTOR, sector);
            }
        }
    }
}
