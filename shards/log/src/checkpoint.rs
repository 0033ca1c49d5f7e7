//! The checkpoint's format: what the shard's log consists of, apart from the journal since. Encodes and checks; when to
//! write one and what may then be forgotten is decided elsewhere.
//!
//! ```text
//! file = magic 8 | crc32c 4 of all that follows | version 4 | generation 8 | length 8 | rkyv archive
//!        | version 3 only, within the length: cuts (topic id 16, partition 4, number 8, end 8), length of the archive
//!          8
//! ```
//! Version 3 is written where a log was cut, which logs with one replica never are.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{AlignedBuffer, Offset, PartitionKey, TopicId};
use pelton_wire::crc::crc32c;
use rkyv::{Archive, Deserialize, Serialize};
use uuid::Uuid;

use crate::segment::SegmentName;
use crate::types::RecoveryError;

const MAGIC: [u8; 8] = *b"PLTNCKP\n";
const VERSION: u32 = 2;
const VERSION_CUTS: u32 = 3;
const CUT_BYTES: usize = 36;
const HEADER_BYTES: usize = 32;
/// No log comes this far; beyond it sums could overflow.
const OFFSET_MAX: i64 = i64::MAX / 2;
/// The same for groups, generations and bytes.
const COUNT_MAX: u64 = u64::MAX / 4;

/// A segment as the checkpoint lists it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct SegmentData {
    /// Offset of its first record.
    pub base_offset: i64,
    /// 0 as appended; else the result of one compaction.
    pub generation: u64,
    /// Offset behind its last record.
    pub end_offset: i64,
    /// Bytes of log in it, all on stable storage.
    pub length: u64,
    /// Largest timestamp, milliseconds.
    pub max_timestamp_ms: i64,
    /// Largest timestamp of its first batch, milliseconds.
    pub first_timestamp_ms: i64,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: i64,
}

/// A partition as the checkpoint lists it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct PartitionData {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition's index.
    pub partition: i32,
    /// First offset.
    pub log_start_offset: i64,
    /// Offset up to which the log is in segments, on stable storage.
    pub laid_end_offset: i64,
    /// Offset up to which compaction has been.
    pub cleaned_end_offset: i64,
    /// `segment.bytes` as last known, for laying down at the next start before settings are known.
    pub segment_bytes: i32,
    /// Ascending.
    pub segments: Vec<SegmentData>,
    /// Opaque: producers and epochs.
    pub snapshot: Vec<u8>,
}

impl PartitionData {
    /// Which partition.
    pub fn key(&self) -> PartitionKey {
        PartitionKey { topic_id: TopicId(Uuid::from_bytes(self.topic_id)), partition: self.partition }
    }
}

/// A segment whose files are to be removed.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct DoomedData {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition's index.
    pub partition: i32,
    /// Offset of its first record.
    pub base_offset: i64,
    /// 0 as appended; else the result of one compaction.
    pub generation: u64,
}

/// A checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub struct Checkpoint {
    /// Grows by one with each; its parity is its slot.
    pub generation: u64,
    /// Life of the log whose frames follow.
    pub incarnation: u64,
    /// First group that is still needed.
    pub start_sequence: u64,
    /// Where it is, or will be unless it does not fit there (then: 0).
    pub start_position: u64,
    /// Every group up to this one was on stable storage.
    pub durable_upto: u64,
    /// Written by a clean stop: nothing follows.
    pub clean: bool,
    /// All partitions.
    pub partitions: Vec<PartitionData>,
    /// Segments to remove.
    pub doomed: Vec<DoomedData>,
    /// Opaque metadata image.
    pub metadata: Vec<u8>,
    /// The last cut of each log that was ever cut.
    #[rkyv(with = rkyv::with::Skip)]
    pub cuts: BTreeMap<PartitionKey, CutData>,
}

/// The last cut of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutData {
    /// Its number.
    pub number: u64,
    /// Where the log ended then; no record need have been just before that.
    pub end: Offset,
}

/// What a slot holds.
pub enum Slot {
    /// No checkpoint, or one that was not written to its end.
    Invalid,
    /// One.
    Valid(Box<Checkpoint>),
}

impl Checkpoint {
    /// As a slot's file, padded to whole blocks.
    pub fn encode(&self) -> Bytes {
        // Archiving plain data into memory has no failure but memory itself.
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(self).unwrap_or_default();
        let cuts = encode_cuts(&self.cuts, archive.len());
        let version = if cuts.is_empty() { VERSION } else { VERSION_CUTS };
        let archive_end = HEADER_BYTES + archive.len();
        let end = archive_end + cuts.len();
        let mut buffer = AlignedBuffer::zeroed(AlignedBuffer::round_up(end));
        let bytes = buffer.as_mut_slice();
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&((end - HEADER_BYTES) as u64).to_le_bytes());
        bytes[HEADER_BYTES..archive_end].copy_from_slice(&archive);
        bytes[archive_end..end].copy_from_slice(&cuts);
        let crc = crc32c(&bytes[12..end]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        buffer.freeze()
    }

    /// What is impossible in it, if anything: a right checksum says that it is what was written, not that it makes sense.
    /// What follows counts on offsets that can be added to, and on positions that are blocks.
    pub fn nonsense(&self) -> Option<String> {
        let offsets = 0..=OFFSET_MAX;
        if !self.start_position.is_multiple_of(BLOCK_BYTES as u64) || self.start_position > COUNT_MAX {
            return Some(format!("a start at {}", self.start_position));
        }
        if !(1..=COUNT_MAX).contains(&self.start_sequence) || self.generation > COUNT_MAX {
            return Some(format!("generation {} from group {}", self.generation, self.start_sequence));
        }
        for partition in &self.partitions {
            let (start, laid) = (partition.log_start_offset, partition.laid_end_offset);
            let mut end = 0;
            if !offsets.contains(&partition.cleaned_end_offset) {
                return Some(format!("a cleaned end of {} that cannot be", partition.key()));
            }
            let ascending = partition.segments.iter().all(|segment| {
                let fits = segment.base_offset >= end && segment.end_offset >= segment.base_offset;
                end = segment.end_offset;
                fits && end <= OFFSET_MAX && segment.length <= COUNT_MAX
            });
            if !offsets.contains(&start) || !offsets.contains(&laid) || !ascending {
                return Some(format!("offsets of {} that cannot be", partition.key()));
            }
        }
        None
    }

    /// Reads a slot. A whole checkpoint of another version is an error: it must not be overwritten.
    pub fn decode(bytes: &[u8]) -> Result<Slot, RecoveryError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(Slot::Invalid) };
        let number = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&fixed[at..at + 8]);
            u64::from_le_bytes(value)
        };
        let (crc, version) = ((number(8) & 0xFFFF_FFFF) as u32, (number(8) >> 32) as u32);
        let length = number(24);
        if fixed[..8] != MAGIC || length > rest.len() as u64 {
            return Ok(Slot::Invalid);
        }
        let end = HEADER_BYTES + length as usize;
        if crc32c(&bytes[12..end]) != crc {
            return Ok(Slot::Invalid);
        }
        let body = &bytes[HEADER_BYTES..end];
        let split = match version {
            VERSION => Some((body, BTreeMap::new())),
            VERSION_CUTS => decode_cuts(body),
            _ => return Err(RecoveryError::Format { found: version, known: VERSION_CUTS }),
        };
        let Some((body, cuts)) = split else {
            return Err(RecoveryError::Corrupt {
                cause: "a checkpoint has a right checksum but its cuts do not parse".to_string(),
                remedy: crate::recovery::REMEDY.to_string(),
            });
        };
        // The archive is read in place only if aligned; files arrive at any address.
        let mut archive = rkyv::util::AlignedVec::<16>::with_capacity(body.len());
        archive.extend_from_slice(body);
        match rkyv::from_bytes::<Checkpoint, rkyv::rancor::Error>(&archive) {
            Ok(checkpoint) => Ok(Slot::Valid(Box::new(Checkpoint { cuts, ..checkpoint }))),
            Err(error) => Err(RecoveryError::Corrupt {
                cause: format!("a checkpoint has a right checksum but does not parse: {error}"),
                remedy: crate::recovery::REMEDY.to_string(),
            }),
        }
    }
}

/// The table behind the archive; empty without cuts.
fn encode_cuts(cuts: &BTreeMap<PartitionKey, CutData>, archive_length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(cuts.len() * CUT_BYTES + 8);
    for (key, cut) in cuts {
        bytes.extend_from_slice(key.topic_id.0.as_bytes());
        bytes.extend_from_slice(&key.partition.to_le_bytes());
        bytes.extend_from_slice(&cut.number.to_le_bytes());
        bytes.extend_from_slice(&cut.end.0.to_le_bytes());
    }
    if !bytes.is_empty() {
        bytes.extend_from_slice(&(archive_length as u64).to_le_bytes());
    }
    bytes
}

fn decode_cuts(body: &[u8]) -> Option<(&[u8], BTreeMap<PartitionKey, CutData>)> {
    let (body, length) = body.split_last_chunk::<8>()?;
    let (archive, table) = body.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let rows = table.chunks_exact(CUT_BYTES);
    let whole = rows.remainder().is_empty();
    let row = |row: &[u8]| {
        let topic_id = TopicId(Uuid::from_slice(row.get(..16)?).ok()?);
        let partition = i32::from_le_bytes(row.get(16..20)?.try_into().ok()?);
        let number = u64::from_le_bytes(row.get(20..28)?.try_into().ok()?);
        let end = Offset(i64::from_le_bytes(row.get(28..)?.try_into().ok()?));
        let sound = (0..=OFFSET_MAX).contains(&end.0);
        Some((PartitionKey { topic_id, partition }, CutData { number, end })).filter(|_| sound)
    };
    let cuts: Option<BTreeMap<_, _>> = rows.map(row).collect();
    Some((archive, cuts.filter(|_| whole)?))
}

impl SegmentData {
    /// Which it is.
    pub fn name(&self) -> SegmentName {
        SegmentName { base_offset: Offset(self.base_offset), generation: self.generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let segment = SegmentData {
            base_offset: 3,
            generation: 7 << 32,
            end_offset: 9,
            length: 1000,
            max_timestamp_ms: 77,
            first_timestamp_ms: 5,
            created_ms: 4,
        };
        let partition = PartitionData {
            topic_id: [9; 16],
            partition: 2,
            log_start_offset: 3,
            laid_end_offset: 9,
            cleaned_end_offset: 5,
            segment_bytes: 1 << 20,
            segments: vec![segment],
            snapshot: vec![1, 2, 3],
        };
        Checkpoint { generation: 8, incarnation: 5, partitions: vec![partition], ..Checkpoint::default() }
    }

    /// The same with logs that were cut.
    fn cut_sample() -> Checkpoint {
        let key = |partition| PartitionKey { topic_id: TopicId(Uuid::from_u128(9)), partition };
        let cut = |number, end| CutData { number, end: Offset(end) };
        Checkpoint { cuts: [(key(2), cut((7 << 32) | 1, 9)), (key(3), cut(8 << 32, 0))].into(), ..sample() }
    }

    #[test]
    fn comes_back_from_any_address() {
        for checkpoint in [sample(), cut_sample()] {
            let file = checkpoint.encode();
            for shift in 0..9 {
                let mut shifted = vec![0; shift];
                shifted.extend_from_slice(&file);
                let Ok(Slot::Valid(found)) = Checkpoint::decode(&shifted[shift..]) else {
                    panic!("shift {shift}")
                };
                assert_eq!(*found, checkpoint);
            }
        }
    }

    #[test]
    fn without_cuts_it_is_of_version_2_and_behind_it_nothing_is_guessed() {
        let version = |checkpoint: &Checkpoint| checkpoint.encode()[12..16].to_vec();
        assert_eq!(version(&sample()), VERSION.to_le_bytes());
        assert_eq!(version(&cut_sample()), VERSION_CUTS.to_le_bytes());
        for body in [&b"1234567"[..], &[0xFF; 8], &[0; 40]] {
            assert!(decode_cuts(body).is_none(), "{body:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_noticed() {
        let good = Checkpoint { start_sequence: 1, ..sample() };
        assert_eq!(good.nonsense(), None);
        assert_eq!(Checkpoint { start_sequence: 1, ..Checkpoint::default() }.nonsense(), None);
        type Change = fn(&mut Checkpoint);
        let changes: [Change; 9] = [
            |it| it.start_position = 5,
            |it| it.start_sequence = 0,
            |it| it.start_sequence = u64::MAX,
            |it| it.generation = u64::MAX,
            |it| it.partitions[0].log_start_offset = -1,
            |it| it.partitions[0].laid_end_offset = i64::MAX,
            |it| it.partitions[0].segments[0].base_offset = i64::MIN,
            |it| it.partitions[0].segments[0].end_offset = 2,
            |it| it.partitions[0].segments[0].length = u64::MAX,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.nonsense().is_some(), "change {number}");
        }
    }

    #[test]
    fn damage_and_tears_are_noticed() {
        let file = cut_sample().encode();
        let length = u64::from_le_bytes(file[24..32].try_into().unwrap()) as usize;
        for at in 0..HEADER_BYTES + length {
            let mut bad = file.to_vec();
            bad[at] ^= 1;
            assert!(matches!(Checkpoint::decode(&bad), Ok(Slot::Invalid)), "byte {at}");
        }
        for length in [0, 31, 32, HEADER_BYTES + length - 1] {
            assert!(matches!(Checkpoint::decode(&file[..length]), Ok(Slot::Invalid)), "length {length}");
        }
    }
}
