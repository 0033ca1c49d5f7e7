//! Recovery: which checkpoint counts, which journal groups follow it, and whether what is missing behind them is a torn
//! tail (cut) or damage (an error, never a silent cut). What the groups mean is in replay.rs.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{Now, Offset, PartitionKey};

use crate::checkpoint::{Checkpoint, Slot};
use crate::checkpointing::Checkpointing;
use crate::direct::DirectBatches;
use crate::frame::{self, EntryKind, FrameHeader};
use crate::journal::Journal;
use crate::replay;
use crate::sabotage::Sabotage;
use crate::storage::Storage;
use crate::types::{DiskImage, Recovered, RecoveryError, StorageConfig};

/// What an operator can do about damage.
pub(crate) const REMEDY: &str = "the disk or something else changed files of the broker; do not start on this \
    directory, restore it from a copy or a replica (its other partitions can be copied from the partition folders)";

/// A frame that was found where it belongs.
pub(crate) struct Found {
    /// Its fixed part.
    pub header: FrameHeader,
    /// Where it is.
    pub position: usize,
}

/// The place of an entry in the journal: its group, and which entry of it.
pub(crate) type EntryPlace = (u64, usize);

/// The cuts in the journal that a checkpoint knows: each log's, up to its last by then. Of what was appended before them only
/// that counts which none of them took away; it may still be needed, if no segment has it.
#[derive(Default)]
pub(crate) struct KnownCuts {
    by_key: BTreeMap<PartitionKey, Vec<(EntryPlace, Offset, u64)>>,
}

impl KnownCuts {
    fn of(checkpoint: &Checkpoint, journal: &Bytes, frames: &[Found]) -> KnownCuts {
        let (mut known, mut seen) = (KnownCuts::default(), KnownCuts::default());
        if checkpoint.cuts.is_empty() {
            return known;
        }
        for found in frames {
            let entries = frame::entries(journal, found.position, &found.header).unwrap_or_default();
            for (index, entry) in entries.iter().enumerate() {
                let Some(number) = entry.cut_number() else { continue };
                let restart = entry.kind == EntryKind::Restart;
                let end = if restart { Offset(i64::MIN) } else { entry.value };
                let cuts = seen.by_key.entry(entry.key).or_default();
                cuts.push(((found.header.sequence, index), end, entry.cut_before()));
                if checkpoint.cuts.get(&entry.key).is_some_and(|cut| cut.number == number) {
                    known.by_key.insert(entry.key, cuts.clone());
                }
            }
        }
        known
    }

    /// Whether an entry comes before the last of them, or is it: the checkpoint knows what it says.
    pub fn cover(&self, key: PartitionKey, place: EntryPlace) -> bool {
        let last = self.by_key.get(&key).and_then(|cuts| cuts.last());
        last.is_some_and(|(last, ..)| place <= *last)
    }

    /// Whether the entry is the last of them.
    pub fn end_with(&self, key: PartitionKey, place: EntryPlace) -> bool {
        self.by_key.get(&key).and_then(|cuts| cuts.last()).is_some_and(|(last, ..)| place == *last)
    }

    /// Whether the journal has any of a log.
    pub fn any_of(&self, key: PartitionKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The generation of segments that an entry before one of them began.
    pub fn generation(&self, key: PartitionKey, place: EntryPlace) -> Option<u64> {
        self.by_key.get(&key)?.iter().find(|(cut, ..)| place < *cut).map(|(.., before)| *before)
    }

    /// Whether one of them took a batch away.
    pub fn took(&self, key: PartitionKey, place: EntryPlace, last_offset: Offset) -> bool {
        let cuts = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        cuts.iter().any(|(cut, end, _)| place < *cut && last_offset >= *end)
    }
}

pub(crate) fn corrupt(cause: String) -> RecoveryError {
    RecoveryError::Corrupt { cause, remedy: REMEDY.to_string() }
}

/// See [`Storage::recover`].
pub(crate) fn recover(
    config: StorageConfig,
    image: DiskImage,
    now: Now,
) -> Result<(Storage, Recovered), RecoveryError> {
    let Some(checkpoint) = newest_checkpoint(&image)? else {
        refuse_lost_checkpoint(&image.journal)?;
        return Ok(fresh(config, now));
    };
    if let Some(nonsense) = checkpoint.nonsense() {
        return Err(corrupt(format!(
            "checkpoint {} has a right checksum but says {nonsense}",
            checkpoint.generation
        )));
    }
    let mut frames = follow(&config, &image.journal, &checkpoint);
    let cuts = KnownCuts::of(&checkpoint, &image.journal, &frames);
    let mut direct = DirectBatches::find(&checkpoint, &image, &frames, &cuts)?;
    if config.sabotaged(Sabotage::DirectNotVerified) {
        direct = DirectBatches::unverified(frames.len());
    }
    frames.truncate(direct.frames);
    let next = checkpoint.start_sequence + frames.len() as u64;
    let end = frames
        .last()
        .map_or(checkpoint.start_position, |last| last.position as u64 + last.header.frame_length() as u64);
    if !config.sabotaged(Sabotage::SkipTornCheck) {
        refuse_damage(&image.journal, &checkpoint, next)?;
    }
    if config.sabotaged(Sabotage::CutAtWrongPlace) {
        frames.pop();
    }
    let cut_bytes = torn_bytes(&image.journal, end, &checkpoint, next);
    let head = if end >= config.journal_bytes { 0 } else { end };
    let start = (checkpoint.start_sequence, checkpoint.start_position);
    let journal = Journal::new(config.journal_bytes, config.group_bytes, next, head, start);
    let checkpointing = Checkpointing {
        generation: checkpoint.generation,
        incarnation: next_incarnation(checkpoint.incarnation, now),
        ..Checkpointing::default()
    };
    let mut storage = Storage::new(config, journal, checkpointing);
    let mut recovered = replay::replay(&mut storage, now, *checkpoint, &image, &frames, (direct, cuts))?;
    recovered.cut_bytes = cut_bytes;
    Ok((storage, recovered))
}

fn fresh(config: StorageConfig, now: Now) -> (Storage, Recovered) {
    let journal = Journal::new(config.journal_bytes, config.group_bytes, 1, 0, (1, 0));
    let incarnation = next_incarnation(0, now);
    let checkpointing = Checkpointing { incarnation, ..Checkpointing::default() };
    (Storage::new(config, journal, checkpointing), Recovered { clean: true, ..Recovered::default() })
}

/// Lives are counted in the upper half; the lower half differs between machines and times, so that bytes of clients
/// cannot be made to look like a frame of ours.
fn next_incarnation(last: u64, now: Now) -> u64 {
    let mixed = (now.wall_ms as u64 ^ now.monotonic_ns.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (((last >> 32) + 1) << 32) | (mixed >> 32)
}

fn newest_checkpoint(image: &DiskImage) -> Result<Option<Box<Checkpoint>>, RecoveryError> {
    let mut newest: Option<Box<Checkpoint>> = None;
    for slot in image.checkpoints.iter().flatten() {
        if let Slot::Valid(checkpoint) = Checkpoint::decode(slot)?
            && newest.as_ref().is_none_or(|other| other.generation < checkpoint.generation)
        {
            newest = Some(checkpoint);
        }
    }
    Ok(newest)
}

pub(crate) fn whole_frames(journal: &Bytes) -> impl Iterator<Item = Found> + '_ {
    (0..journal.len()).step_by(BLOCK_BYTES).filter_map(|position| {
        let header = frame::peek(journal, position)?;
        Some(Found { header, position })
    })
}

/// Without a checkpoint the log must never have been written to.
fn refuse_lost_checkpoint(journal: &Bytes) -> Result<(), RecoveryError> {
    match whole_frames(journal).find(|found| frame::is_whole(journal, found.position, &found.header)) {
        None => Ok(()),
        Some(found) => Err(corrupt(format!(
            "no valid checkpoint is left, but the journal holds group {} of life {}",
            found.header.sequence,
            found.header.incarnation >> 32
        ))),
    }
}

/// The groups that follow the checkpoint, without gaps.
fn follow(config: &StorageConfig, journal: &Bytes, checkpoint: &Checkpoint) -> Vec<Found> {
    let mut frames = Vec::new();
    let mut position = checkpoint.start_position as usize;
    let mut sequence = checkpoint.start_sequence;
    loop {
        let places = if position == 0 { [Some(0), None] } else { [Some(position), Some(0)] };
        let found = places.into_iter().flatten().find_map(|position| {
            let header = frame::peek(journal, position)?;
            let same_life = header.incarnation == checkpoint.incarnation
                || config.sabotaged(Sabotage::AcceptOldIncarnation);
            let whole =
                config.sabotaged(Sabotage::SkipFrameCrc) || frame::is_whole(journal, position, &header);
            (same_life && header.sequence == sequence && whole).then_some(Found { header, position })
        });
        let Some(found) = found else { return frames };
        position = found.position + found.header.frame_length();
        sequence += 1;
        frames.push(found);
    }
}

/// Group `missing` is not where it belongs. That is a torn tail only if nothing says that it had been on stable storage.
fn refuse_damage(journal: &Bytes, checkpoint: &Checkpoint, missing: u64) -> Result<(), RecoveryError> {
    let life = checkpoint.incarnation >> 32;
    if checkpoint.durable_upto >= missing {
        return Err(corrupt(format!(
            "journal group {missing} of life {life} is missing or damaged, and checkpoint {} says that it was flushed",
            checkpoint.generation
        )));
    }
    let witness = whole_frames(journal).find(|found| {
        let header = &found.header;
        let later = header.incarnation == checkpoint.incarnation
            && header.sequence > missing
            && header.durable_upto >= missing;
        let newer = header.incarnation >> 32 > life;
        (later || newer) && frame::is_whole(journal, found.position, header)
    });
    match witness {
        None => Ok(()),
        Some(found) if found.header.incarnation == checkpoint.incarnation => Err(corrupt(format!(
            "journal group {missing} of life {life} is missing or damaged, and group {} says that it was flushed",
            found.header.sequence
        ))),
        Some(found) => Err(corrupt(format!(
            "the newest valid checkpoint is of life {life}, but the journal holds group {} of life {}",
            found.header.sequence,
            found.header.incarnation >> 32
        ))),
    }
}

/// Size of the unfinished group behind the last whole one, as far as its header tells.
fn torn_bytes(journal: &Bytes, end: u64, checkpoint: &Checkpoint, missing: u64) -> u64 {
    [end as usize, 0]
        .into_iter()
        .filter_map(|position| frame::peek(journal, position))
        .find(|header| header.incarnation == checkpoint.incarnation && header.sequence == missing)
        .map_or(0, |header| header.frame_length() as u64)
}
