//! Recovery of batches of which the journal has only the header: finds out which of them are in their segments. No bytes
//! are moved here.
//!
//! A group is acknowledged only when its direct batches are on stable storage. So a group that later ones call durable is
//! complete; of the others, those in flight at the end, each batch is read back, and at the first that is not there the
//! journal ends, as at a torn group.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::{Offset, PartitionKey};
use pelton_wire::record_batch::{self, BatchInfo, BatchIter};

use crate::checkpoint::{Checkpoint, SegmentData};
use crate::disk::{FileKind, SegmentFile};
use crate::frame::{self, Entry, EntryKind};
use crate::recovery::{EntryPlace, Found, KnownCuts, corrupt, whole_frames};
use crate::segment::SegmentName;
use crate::types::{DiskImage, RecoveryError};

/// What became of direct batches.
#[derive(Default)]
pub(crate) struct DirectBatches {
    /// Groups whose batches are all there, from the first.
    pub frames: usize,
    /// Batches that were read back.
    read: BTreeMap<(u64, PartitionKey, Offset), Bytes>,
}

/// Where the next batch of a partition is.
#[derive(Default)]
struct Place {
    laid_end: Offset,
    segment: Option<SegmentName>,
    length: u64,
    /// Of segments that begin.
    generation: u64,
}

impl Place {
    /// Position of a batch in its segment; none if the checkpoint has it.
    fn next(&mut self, info: &BatchInfo, begins: bool) -> Option<(SegmentName, u64)> {
        if info.last_offset() < self.laid_end.0 {
            return None;
        }
        if begins || self.segment.is_none() {
            let name = SegmentName { base_offset: Offset(info.base_offset), generation: self.generation };
            (self.segment, self.length) = (Some(name), 0);
        }
        let position = self.length;
        self.length += info.size_bytes as u64;
        Some((self.segment?, position))
    }
}

/// A direct batch to look for.
struct Wanted {
    file: SegmentFile,
    position: u64,
    info: BatchInfo,
}

impl DirectBatches {
    /// Believes that all are there.
    pub fn unverified(frames: usize) -> DirectBatches {
        DirectBatches { frames, ..DirectBatches::default() }
    }

    /// Follows the groups and looks for each direct batch that nothing proves to be there.
    pub fn find(
        checkpoint: &Checkpoint,
        image: &DiskImage,
        frames: &[Found],
        cuts: &KnownCuts,
    ) -> Result<DirectBatches, RecoveryError> {
        let mut found = DirectBatches::default();
        let mut places = places_of(checkpoint);
        let mut proven = frames.iter().map(|frame| frame.header.durable_upto).max().unwrap_or(0);
        proven = proven.max(checkpoint.durable_upto);
        let mut searched = false;
        for frame in frames {
            let sequence = frame.header.sequence;
            let Some(entries) = frame::entries(&image.journal, frame.position, &frame.header) else {
                return Err(corrupt(format!("journal group {sequence} does not parse")));
            };
            for (index, entry) in entries.iter().enumerate() {
                let Some(wanted) = wanted(&mut places, entry, cuts, (sequence, index)) else { continue };
                if sequence > proven && !std::mem::replace(&mut searched, true) {
                    proven = proven.max(proven_by_all(checkpoint, &image.journal));
                }
                if sequence > proven && !found.look(image, sequence, entry, &wanted)? {
                    return Ok(found);
                }
            }
            found.frames += 1;
        }
        Ok(found)
    }

    /// Reads a batch back: false if it is not there and the journal ends with the group before.
    fn look(
        &mut self,
        image: &DiskImage,
        sequence: u64,
        entry: &Entry,
        wanted: &Wanted,
    ) -> Result<bool, RecoveryError> {
        let read = image.segments.read(wanted.file, wanted.position, wanted.info.size_bytes);
        let bytes = read.map_err(RecoveryError::Unreadable)?;
        let whole = bytes.filter(|bytes| {
            bytes.len() == wanted.info.size_bytes
                && bytes.starts_with(&entry.payload)
                && record_batch::crc_matches(bytes)
        });
        let Some(bytes) = whole else { return Ok(false) };
        self.read.insert((sequence, entry.key, entry.value), bytes);
        Ok(true)
    }

    /// The batch of a direct entry, if it was read back.
    pub fn take(&mut self, sequence: u64, entry: &Entry) -> Option<Bytes> {
        self.read.remove(&(sequence, entry.key, entry.value))
    }
}

fn places_of(checkpoint: &Checkpoint) -> BTreeMap<PartitionKey, Place> {
    let place = |data: &crate::checkpoint::PartitionData| {
        let active = data.segments.last();
        let place = Place {
            laid_end: Offset(data.laid_end_offset),
            segment: active.map(SegmentData::name),
            length: active.map_or(0, |segment| segment.length),
            generation: checkpoint.cuts.get(&data.key()).map_or(0, |cut| cut.number),
        };
        (data.key(), place)
    };
    checkpoint.partitions.iter().map(place).collect()
}

/// Moves the partition's place over an entry; what to look for if the entry is a direct batch.
fn wanted(
    places: &mut BTreeMap<PartitionKey, Place>,
    entry: &Entry,
    cuts: &KnownCuts,
    at: EntryPlace,
) -> Option<Wanted> {
    let is_direct = entry.kind == EntryKind::Direct;
    if let Some(number) = entry.cut_number() {
        if cuts.cover(entry.key, at) {
            return None;
        }
        let known = places.contains_key(&entry.key) || entry.kind == EntryKind::Restart;
        if known {
            let place = places.entry(entry.key).or_default();
            let end =
                if entry.kind == EntryKind::Restart { entry.value } else { place.laid_end.min(entry.value) };
            *place = Place { laid_end: end, generation: number, ..Place::default() };
        }
        return None;
    }
    if !(is_direct || entry.kind == EntryKind::Batches) || entry.is_void() {
        return None;
    }
    if entry.value == Offset(0) {
        places.entry(entry.key).or_default();
    }
    let place = places.get_mut(&entry.key)?;
    let begins = entry.begins_segment();
    if !is_direct {
        for (index, (info, _)) in BatchIter::new(&entry.payload).enumerate() {
            if !cuts.took(entry.key, at, Offset(info.last_offset())) {
                place.next(&info, begins && index == 0);
            }
        }
        return None;
    }
    let info = record_batch::peek(&entry.payload)?;
    if cuts.took(entry.key, at, Offset(info.last_offset())) {
        return None;
    }
    let (name, position) = place.next(&info, begins)?;
    let file = name.file(entry.key, FileKind::Log);
    Some(Wanted { file, position, info })
}

/// The last group that any whole group of this life calls durable, also one behind a gap.
fn proven_by_all(checkpoint: &Checkpoint, journal: &Bytes) -> u64 {
    let later = whole_frames(journal).filter(|found| {
        found.header.incarnation == checkpoint.incarnation
            && frame::is_whole(journal, found.position, &found.header)
    });
    later.map(|found| found.header.durable_upto).max().unwrap_or(0)
}
