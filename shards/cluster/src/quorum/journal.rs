//! What the quorum puts on stable storage: records that fit the metadata entries of a shard's journal, each with a
//! checksum, and the blob of a checkpoint, which is the same records one behind the other. Order in, order out.

use bytes::Bytes;
use pelton_wire::crc::crc32c;
use raft::eraftpb::{ConfState, Entry, HardState};

use crate::codec::{In, Malformed, Out};
use crate::quorum::entry;

/// A record holds entries until they pass this, bytes; with one more entry it stays below twice as much.
pub const RECORD_BYTES: usize = 256 * 1024;

const STATE: u8 = 0x51;
const SNAPSHOT_PART: u8 = 0x52;
const VERSION: u8 = 1;

/// Why what a disk holds is not a metadata log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JournalError {
    /// Damage.
    #[error(
        "record {number} of the metadata log is damaged: {what}; restore the data directory from a backup, or replace the node"
    )]
    Damaged {
        /// Its place, from 0.
        number: usize,
        /// In what way.
        what: &'static str,
    },
    /// Written by a later release.
    #[error(
        "record {number} of the metadata log has version {version}, this release reads {VERSION}; start the newer release"
    )]
    Version {
        /// Its place, from 0.
        number: usize,
        /// What it says.
        version: u8,
    },
}

/// A snapshot of what the log led to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SnapshotAt {
    /// Of the last entry in it.
    pub index: u64,
    /// Of that entry.
    pub term: u64,
    /// Who was a member then.
    pub members: ConfState,
    /// The image.
    pub data: Bytes,
}

/// What was found on a disk.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Restored {
    /// Term, vote and commit index.
    pub hard: HardState,
    /// Where the entries begin.
    pub snapshot: SnapshotAt,
    /// Behind the snapshot, without a hole.
    pub entries: Vec<Entry>,
}

fn finish(mut out: Out) -> Bytes {
    let crc = crc32c(&out.0);
    out.u32(crc);
    Bytes::from(out.0)
}

fn head(kind: u8) -> Out {
    Out(vec![kind, VERSION])
}

/// Records of a vote or term and of entries; entries of the same or a higher index found on the disk are replaced.
pub fn state_records(hard: &HardState, entries: &[Entry], into: &mut Vec<Bytes>) {
    let mut rest = entries;
    loop {
        let mut bytes = 0;
        let count = rest.iter().take_while(|entry| {
            let fits = bytes < RECORD_BYTES;
            bytes += entry.data.len() + 32;
            fits
        });
        let (these, later) = rest.split_at(count.count());
        let mut out = head(STATE);
        for number in [hard.term, hard.vote, hard.commit] {
            out.u64(number);
        }
        out.list(these, entry::write);
        into.push(finish(out));
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Records of a snapshot. It counts when all of them are there.
pub fn snapshot_records(snapshot: &SnapshotAt, into: &mut Vec<Bytes>) {
    let mut offset = 0;
    loop {
        let part = &snapshot.data[offset..snapshot.data.len().min(offset + RECORD_BYTES)];
        let mut out = head(SNAPSHOT_PART);
        out.u64(snapshot.index);
        out.u64(snapshot.term);
        entry::write_members(&mut out, &snapshot.members);
        out.u64(snapshot.data.len() as u64);
        out.u64(offset as u64);
        out.bytes(part);
        into.push(finish(out));
        offset += part.len();
        if offset == snapshot.data.len() {
            return;
        }
    }
}

/// All records as one blob, for a checkpoint.
pub fn blob(records: &[Bytes]) -> Vec<u8> {
    let mut out = Out::default();
    records.iter().for_each(|record| out.bytes(record));
    out.0
}

/// Reads what a checkpoint and the journal since hold. Nothing at all is an empty log.
pub fn restore(blob: &[u8], records: &[Bytes]) -> Result<Restored, JournalError> {
    let mut reader = Reader::default();
    let mut from = In(blob);
    while !from.0.is_empty() {
        let record = from
            .bytes()
            .map_err(|_| JournalError::Damaged { number: reader.number, what: "the checkpoint is cut" })?;
        reader.read(record)?;
    }
    for record in records {
        reader.read(record)?;
    }
    let mut found = reader.found;
    let last = found.entries.last().map_or(found.snapshot.index, |entry| entry.index);
    found.hard.commit = found.hard.commit.clamp(found.snapshot.index, last);
    Ok(found)
}

#[derive(Default)]
struct Reader {
    number: usize,
    found: Restored,
    part: Option<(SnapshotAt, Vec<u8>)>,
}

impl Reader {
    fn read(&mut self, record: &[u8]) -> Result<(), JournalError> {
        let number = self.number;
        let damaged = |what| JournalError::Damaged { number, what };
        let (body, crc) = record.split_last_chunk::<4>().ok_or(damaged("it is cut"))?;
        if crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("its checksum is wrong"));
        }
        let mut from = In(body);
        let (kind, version) = (from.u8(), from.u8());
        let (Ok(kind), Ok(version)) = (kind, version) else { return Err(damaged("it is cut")) };
        if version != VERSION {
            return Err(JournalError::Version { number, version });
        }
        match kind {
            STATE => self.state(&mut from),
            SNAPSHOT_PART => self.snapshot_part(&mut from),
            _ => Err(Malformed),
        }
        .and_then(|()| from.end())
        .map_err(|Malformed| damaged("what it says cannot be"))?;
        self.number += 1;
        Ok(())
    }

    fn state(&mut self, from: &mut In<'_>) -> Result<(), Malformed> {
        let hard = HardState {
            term: entry::number(from)?,
            vote: from.u64()?,
            commit: entry::number(from)?,
            ..HardState::default()
        };
        self.found.hard = hard;
        for entry in from.list(entry::read)? {
            let first = self.found.snapshot.index + 1;
            if entry.index < first {
                continue;
            }
            let place = usize::try_from(entry.index - first).map_err(|_| Malformed)?;
            if place > self.found.entries.len() {
                return Err(Malformed);
            }
            self.found.entries.truncate(place);
            self.found.entries.push(entry);
        }
        Ok(())
    }

    fn snapshot_part(&mut self, from: &mut In<'_>) -> Result<(), Malformed> {
        let (index, term) = (entry::number(from)?, entry::number(from)?);
        let members = entry::read_members(from)?;
        let (total, offset) = (from.u64()?, from.u64()?);
        let bytes = from.bytes()?;
        if offset == 0 {
            let snapshot = SnapshotAt { index, term, members, data: Bytes::new() };
            self.part = Some((snapshot, Vec::new()));
        }
        // Parts of a snapshot whose beginning a checkpoint has made superfluous follow nothing.
        let Some((snapshot, data)) = &mut self.part else { return Ok(()) };
        if snapshot.index != index || snapshot.term != term || data.len() as u64 != offset {
            return Err(Malformed);
        }
        data.extend_from_slice(bytes);
        if data.len() as u64 == total
            && let Some((mut snapshot, data)) = self.part.take()
            && snapshot.index >= self.found.snapshot.index
        {
            snapshot.data = Bytes::from(data);
            self.found.entries.clear();
            self.found.snapshot = snapshot;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::Range<u64>, term: u64) -> Vec<Entry> {
        range
            .map(|index| Entry {
                index,
                term,
                data: Bytes::from(vec![index as u8; 100_000]),
                ..Entry::default()
            })
            .collect()
    }

    fn hard(term: u64, vote: u64, commit: u64) -> HardState {
        HardState { term, vote, commit, ..HardState::default() }
    }

    fn snapshot(index: u64, bytes: usize) -> SnapshotAt {
        let members = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        SnapshotAt { index, term: 1, members, data: Bytes::from(vec![7; bytes]) }
    }

    #[test]
    fn what_was_written_comes_back_in_order_and_the_later_wins() {
        let mut records = Vec::new();
        snapshot_records(&snapshot(4, 600_000), &mut records);
        state_records(&hard(2, 1, 4), &entries(5..12, 2), &mut records);
        state_records(&hard(3, 2, 6), &entries(8..10, 3), &mut records);
        assert!(records.len() > 5 && records.iter().all(|record| record.len() < 2 * RECORD_BYTES));
        for split in 0..=records.len() {
            let found = restore(&blob(&records[..split]), &records[split..]).unwrap();
            assert_eq!((found.hard.clone(), found.snapshot.clone()), (hard(3, 2, 6), snapshot(4, 600_000)));
            let terms: Vec<_> = found.entries.iter().map(|entry| (entry.index, entry.term)).collect();
            assert_eq!(terms, [(5, 2), (6, 2), (7, 2), (8, 3), (9, 3)]);
        }
    }

    #[test]
    fn a_snapshot_whose_last_part_is_missing_does_not_count() {
        let mut records = Vec::new();
        snapshot_records(&snapshot(4, 10), &mut records);
        state_records(&hard(2, 1, 9), &entries(5..6, 2), &mut records);
        let whole = records.len();
        snapshot_records(&snapshot(9, 600_000), &mut records);
        records.pop();
        let found = restore(&[], &records).unwrap();
        assert_eq!((found.snapshot.index, found.entries.len(), found.hard.commit), (4, 1, 5));
        assert!(records.len() > whole);
    }

    #[test]
    fn damage_and_holes_are_errors() {
        let mut records = Vec::new();
        state_records(&hard(2, 1, 0), &entries(1..3, 2), &mut records);
        for at in [0, 1, 5, records[0].len() - 1] {
            let mut damaged = records[0].to_vec();
            damaged[at] ^= 1;
            assert!(restore(&[], &[Bytes::from(damaged)]).is_err(), "bit of byte {at}");
        }
        for length in [0, 3, records[0].len() - 1] {
            assert!(restore(&[], &[records[0].slice(..length)]).is_err());
        }
        assert!(restore(&[9, 0, 0, 0], &[]).is_err());
        let mut hole = Vec::new();
        state_records(&hard(2, 1, 0), &entries(5..6, 2), &mut hole);
        assert!(restore(&[], &hole).is_err());
    }
}
