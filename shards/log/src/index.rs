//! The sparse index of one segment: where some batches begin, and the largest timestamp before each. Derived from the
//! log and rebuilt from it when missing; never the truth.
//!
//! ```text
//! file = magic 8 | crc32c 4 of all that follows | entry count 4 | base offset 8 | log length covered 8
//!        | bytes since the last entry 8 | largest timestamp 8 | entries: offset - base 4, position 4, max timestamp before 8                       (numbers little-endian)
//! ```

use pelton_model::{AlignedBuffer, Offset};
use pelton_wire::crc::crc32c;

const MAGIC: [u8; 8] = *b"PLTNIDX\n";
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 16;

/// Where a batch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct IndexEntry {
    offset_delta: u32,
    position: u32,
    max_timestamp_before: i64,
}

/// The index of a segment, complete up to `covered` bytes of its log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SparseIndex {
    base_offset: Offset,
    entries: Vec<IndexEntry>,
    covered: u64,
    since_entry: u64,
    max_timestamp: i64,
}

impl SparseIndex {
    /// The index of a segment that is still empty.
    pub fn new(base_offset: Offset) -> SparseIndex {
        SparseIndex { base_offset, entries: Vec::new(), covered: 0, since_entry: 0, max_timestamp: i64::MIN }
    }

    /// Log bytes it covers.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Memory it takes, bytes.
    pub fn size_bytes(&self) -> usize {
        self.entries.len() * ENTRY_BYTES + HEADER_BYTES
    }

    /// Adds the batch that begins where the index ends.
    pub fn add(&mut self, base_offset: Offset, length: u64, max_timestamp: i64, interval_bytes: i32) {
        if self.since_entry >= interval_bytes.max(0) as u64 || self.entries.is_empty() {
            self.entries.push(IndexEntry {
                offset_delta: (base_offset.0 - self.base_offset.0).clamp(0, i64::from(u32::MAX)) as u32,
                position: self.covered.min(u64::from(u32::MAX)) as u32,
                max_timestamp_before: self.max_timestamp,
            });
            self.since_entry = 0;
        }
        self.since_entry = self.since_entry.saturating_add(length);
        self.covered += length;
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// The segment has `length` bytes only from now on: covers what is known to be whole below that.
    pub fn cut_back(&mut self, length: u64) {
        if length >= self.covered {
            return;
        }
        let kept = self.entries.partition_point(|entry| u64::from(entry.position) < length);
        self.entries.truncate(kept);
        let last = self.entries.pop();
        self.covered = last.map_or(0, |last| u64::from(last.position));
        self.max_timestamp = last.map_or(i64::MIN, |last| last.max_timestamp_before);
        // What is before the entry that went reached as far as it takes to have one.
        self.since_entry = u64::MAX / 2;
    }

    /// Largest timestamp of the batches it covers.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Where to begin looking for the batch that holds `offset`.
    pub fn floor_offset(&self, offset: Offset) -> u64 {
        let delta = offset.0 - self.base_offset.0;
        let after = self.entries.partition_point(|entry| i64::from(entry.offset_delta) <= delta);
        after.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// Where to begin looking for the first batch whose largest timestamp is at least `timestamp_ms`: every batch
    /// before is older.
    pub fn floor_timestamp(&self, timestamp_ms: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp_ms);
        after.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// The last batch boundary known in `from + 1 ..= to` whose batch begins at or before offset `upper`.
    pub fn boundary(&self, from: u64, to: u64, upper: Offset) -> Option<u64> {
        let delta = upper.0 - self.base_offset.0;
        let after = self.entries.partition_point(|entry| {
            u64::from(entry.position) <= to && i64::from(entry.offset_delta) <= delta
        });
        let position = u64::from(self.entries[after.checked_sub(1)?].position);
        (position > from).then_some(position)
    }

    /// Offset of the batch that begins at `position`, if it has an entry.
    pub fn offset_at(&self, position: u64) -> Option<Offset> {
        let at = self.entries.binary_search_by_key(&position, |entry| u64::from(entry.position)).ok()?;
        Some(Offset(self.base_offset.0 + i64::from(self.entries[at].offset_delta)))
    }

    /// As a file, padded to whole blocks.
    pub fn encode(&self) -> AlignedBuffer {
        let length = HEADER_BYTES + self.entries.len() * ENTRY_BYTES;
        let mut buffer = AlignedBuffer::zeroed(AlignedBuffer::round_up(length));
        let bytes = buffer.as_mut_slice();
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&(self.entries.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base_offset.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.covered.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.since_entry.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.max_timestamp.to_le_bytes());
        for (entry, place) in self.entries.iter().zip(bytes[48..length].chunks_exact_mut(ENTRY_BYTES)) {
            place[..4].copy_from_slice(&entry.offset_delta.to_le_bytes());
            place[4..8].copy_from_slice(&entry.position.to_le_bytes());
            place[8..].copy_from_slice(&entry.max_timestamp_before.to_le_bytes());
        }
        let crc = crc32c(&bytes[12..length]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        buffer
    }

    /// From a file; none unless it is whole, of this segment, and covers no more than `log_length` bytes of it.
    pub fn decode(bytes: &[u8], base_offset: Offset, log_length: u64) -> Option<SparseIndex> {
        let fixed = bytes.get(..HEADER_BYTES)?;
        let number =
            |at: usize| -> Option<u64> { Some(u64::from_le_bytes(fixed.get(at..at + 8)?.try_into().ok()?)) };
        let count = u32::from_le_bytes(fixed.get(12..16)?.try_into().ok()?) as usize;
        let length = count.checked_mul(ENTRY_BYTES)?.checked_add(HEADER_BYTES)?;
        let crc = u32::from_le_bytes(fixed.get(8..12)?.try_into().ok()?);
        if fixed[..8] != MAGIC || length > bytes.len() || crc32c(&bytes[12..length]) != crc {
            return None;
        }
        let covered = number(24)?;
        if number(16)? as i64 != base_offset.0 || covered > log_length {
            return None;
        }
        let mut entries = Vec::with_capacity(count);
        for entry in bytes[HEADER_BYTES..length].chunks_exact(ENTRY_BYTES) {
            entries.push(IndexEntry {
                offset_delta: u32::from_le_bytes(entry[..4].try_into().ok()?),
                position: u32::from_le_bytes(entry[4..8].try_into().ok()?),
                max_timestamp_before: i64::from_le_bytes(entry[8..].try_into().ok()?),
            });
        }
        let (since_entry, max_timestamp) = (number(32)?, number(40)? as i64);
        Some(SparseIndex { base_offset, entries, covered, since_entry, max_timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SparseIndex {
        let mut index = SparseIndex::new(Offset(100));
        for batch in 0..100 {
            index.add(Offset(100 + batch * 10), 100, 1000 + batch, 250);
        }
        index
    }

    #[test]
    fn finds_where_to_begin() {
        let index = sample();
        assert_eq!(index.covered(), 10_000);
        assert_eq!(index.floor_offset(Offset(100)), 0);
        assert_eq!(index.floor_offset(Offset(135)), 300);
        assert_eq!(index.floor_offset(Offset(129)), 0);
        assert_eq!(index.floor_timestamp(0), 0);
        assert_eq!(index.floor_timestamp(1003), 300, "batches before 300 have at most 1002");
        assert_eq!(index.floor_timestamp(1002), 0);
        assert_eq!(index.boundary(0, 899, Offset(5000)), Some(600));
        assert_eq!(index.boundary(0, 899, Offset(131)), Some(300));
        assert_eq!(index.boundary(600, 899, Offset(5000)), None);
    }

    #[test]
    fn file_comes_back_and_damage_is_noticed() {
        let index = sample();
        let file = index.encode();
        let bytes = file.as_ref();
        assert_eq!(SparseIndex::decode(bytes, Offset(100), 10_000), Some(index));
        assert_eq!(SparseIndex::decode(bytes, Offset(101), 10_000), None);
        assert_eq!(SparseIndex::decode(bytes, Offset(100), 9_999), None);
        for at in [0, 9, 13, 20, 30, 44, 60, 300] {
            let mut bad = bytes.to_vec();
            bad[at] ^= 4;
            assert_eq!(SparseIndex::decode(&bad, Offset(100), 10_000), None, "byte {at}");
        }
        assert_eq!(SparseIndex::decode(&bytes[..47], Offset(100), 10_000), None);
    }
}
