//! The journal's frame: one group as bytes. Encodes and checks; knows nothing of positions or of what entries mean.
//!
//! ```text
//! frame  = header 64 bytes | entries | zeros up to whole blocks           (numbers little-endian)
//! header = magic 8 | crc32c 4 of all that follows up to the last entry | version 2 | 2 zeros | body length 4
//!          | entry count 4 | incarnation 8 | sequence 8 | durable_upto 8 | 16 zeros
//! entry  = kind 1 | flags 1 | 2 zeros | payload length 4 | partition 4 | 4 zeros | topic id 16 | value 8 | payload | zeros up to 8
//! ```

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{AlignedBuffer, Offset, PartitionKey, TopicId};
use pelton_wire::crc::crc32c;
use uuid::Uuid;

/// Bytes in front of the entries.
pub const HEADER_BYTES: usize = 64;
/// Bytes in front of an entry's payload.
pub const ENTRY_BYTES: usize = 40;
const MAGIC: [u8; 8] = *b"PLTNJRN\n";
const VERSION: u16 = 3;

/// Flag of an entry: a new segment begins with its first batch.
pub const BEGINS_SEGMENT: u8 = 1;
/// Flag of an entry: its partition was gone when the group was sealed.
pub const VOID: u8 = 2;
/// Flag of an entry of batches: a leader stamped them, and they may begin, and have gaps, anywhere behind `value`.
pub const FOLLOWED: u8 = 4;

const CRC_FROM: usize = 12;

/// What an entry is. Numbers are on disk: never reuse one (4 was used before version 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// Record batches of a partition; value = base offset of the first.
    Batches = 1,
    /// A record of the metadata log.
    Metadata = 2,
    /// The partition's log start offset is now `value`.
    LogStartOffset = 3,
    /// A batch that went straight to its segment: the payload is its header only; value = its base offset.
    Direct = 5,
    /// Compaction is about to write a segment at base offset `value`; the payload is its generation, 8 bytes.
    CleanedSegment = 6,
    /// No batch of the partition that reaches beyond `value` is in its log any more. The payload is the number of the cut, 8
    /// bytes, which is the generation of segments begun from here on, and that of the cut before, 8 bytes.
    Cut = 7,
    /// The partition's log is empty and begins at `value`; the payload is as of a cut.
    Restart = 8,
}

impl EntryKind {
    fn from_number(number: u8) -> Option<EntryKind> {
        let kinds = [
            EntryKind::Batches,
            EntryKind::Metadata,
            EntryKind::LogStartOffset,
            EntryKind::Direct,
            EntryKind::CleanedSegment,
            EntryKind::Cut,
            EntryKind::Restart,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Life of the log it was written in; its upper half counts them.
    pub incarnation: u64,
    /// Number of the group.
    pub sequence: u64,
    /// Every group up to this one was on stable storage when this one was sealed.
    pub durable_upto: u64,
    /// Bytes of entries.
    pub body_length: usize,
    /// Number of entries.
    pub entry_count: u32,
}

impl FrameHeader {
    /// Whole blocks the frame takes, bytes.
    pub fn frame_length(&self) -> usize {
        AlignedBuffer::round_up(HEADER_BYTES + self.body_length)
    }
}

/// An entry of a frame.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// [`BEGINS_SEGMENT`], [`VOID`].
    pub flags: u8,
    /// The partition it is about (nil for metadata).
    pub key: PartitionKey,
    /// An offset; see the kinds.
    pub value: Offset,
    /// Its bytes, a slice of the frame.
    pub payload: Bytes,
}

impl Entry {
    /// Its partition was gone when it was written.
    pub fn is_void(&self) -> bool {
        self.flags & VOID != 0
    }

    /// A leader stamped its batches; `value` is where the log ended before them.
    pub fn is_followed(&self) -> bool {
        self.flags & FOLLOWED != 0
    }

    /// The number of a cut.
    pub fn cut_number(&self) -> Option<u64> {
        let is_cut = matches!(self.kind, EntryKind::Cut | EntryKind::Restart);
        self.payload.first_chunk().filter(|_| is_cut).map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The number of the cut before a cut; 0 = there was none.
    pub fn cut_before(&self) -> u64 {
        self.payload
            .get(8..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// A new segment begins with its first batch.
    pub fn begins_segment(&self) -> bool {
        self.flags & BEGINS_SEGMENT != 0
    }
}

/// The partition of entries that are about none.
pub const NO_PARTITION: PartitionKey = PartitionKey { topic_id: TopicId(Uuid::nil()), partition: -1 };

/// Bytes an entry with this payload takes in a frame.
pub fn entry_length(payload: usize) -> usize {
    (ENTRY_BYTES + payload).next_multiple_of(8)
}

/// Whole blocks a frame with these entries takes, bytes.
pub fn frame_length(body_length: usize) -> usize {
    AlignedBuffer::round_up(HEADER_BYTES + body_length)
}

/// Builds one frame in an aligned buffer. Every byte is written once: large frames are most of a broker's memory traffic.
pub struct FrameBuilder {
    buffer: AlignedBuffer,
    length: usize,
    entry_count: u32,
}

impl FrameBuilder {
    /// A frame with room for `body_length` bytes of entries.
    pub fn new(body_length: usize) -> FrameBuilder {
        let length = frame_length(body_length);
        let mut buffer = AlignedBuffer::with_capacity(length);
        buffer.pad_to(HEADER_BYTES);
        FrameBuilder { buffer, length, entry_count: 0 }
    }

    /// Copies an entry in; returns where its payload lies and the payload itself, to be stamped.
    pub fn push(
        &mut self,
        kind: EntryKind,
        flags: u8,
        key: PartitionKey,
        value: Offset,
        payload: &[u8],
    ) -> (usize, &mut [u8]) {
        let from = self.buffer.len();
        let payload_at = from + ENTRY_BYTES;
        self.entry_count += 1;
        let mut head = [0; ENTRY_BYTES];
        (head[0], head[1]) = (kind as u8, flags);
        head[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&key.partition.to_le_bytes());
        head[16..32].copy_from_slice(key.topic_id.0.as_bytes());
        head[32..40].copy_from_slice(&value.0.to_le_bytes());
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(payload);
        self.buffer.pad_to(from + entry_length(payload.len()));
        (payload_at, &mut self.buffer.as_mut_slice()[payload_at..payload_at + payload.len()])
    }

    /// Writes the header and freezes the frame.
    pub fn finish(mut self, incarnation: u64, sequence: u64, durable_upto: u64) -> Bytes {
        let end = self.buffer.len();
        let entry_count = self.entry_count;
        self.buffer.pad_to(self.length);
        let bytes = self.buffer.as_mut_slice();
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[12..14].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..20].copy_from_slice(&((end - HEADER_BYTES) as u32).to_le_bytes());
        bytes[20..24].copy_from_slice(&entry_count.to_le_bytes());
        bytes[24..32].copy_from_slice(&incarnation.to_le_bytes());
        bytes[32..40].copy_from_slice(&sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&durable_upto.to_le_bytes());
        let crc = crc32c(&bytes[CRC_FROM..end]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        self.buffer.freeze()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// Reads what may be a frame's header at a block boundary of the journal; none if it is not one. No checksum yet.
pub fn peek(journal: &[u8], position: usize) -> Option<FrameHeader> {
    let bytes = journal.get(position..)?;
    if !position.is_multiple_of(BLOCK_BYTES) || bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
        return None;
    }
    let version = u16::from_le_bytes([bytes[12], bytes[13]]);
    let body_length = u32_at(bytes, 16) as usize;
    (version == VERSION && body_length <= bytes.len() - HEADER_BYTES).then(|| FrameHeader {
        body_length,
        entry_count: u32_at(bytes, 20),
        incarnation: u64_at(bytes, 24),
        sequence: u64_at(bytes, 32),
        durable_upto: u64_at(bytes, 40),
    })
}

/// Whether the frame whose header was found at `position` is whole.
pub fn is_whole(journal: &[u8], position: usize, header: &FrameHeader) -> bool {
    let end = position + HEADER_BYTES + header.body_length;
    journal.get(position + CRC_FROM..end).is_some_and(|body| crc32c(body) == u32_at(journal, position + 8))
}

/// The entries of a whole frame; none if they contradict the header (a bug or a collision: the checksum was right).
pub fn entries(journal: &Bytes, position: usize, header: &FrameHeader) -> Option<Vec<Entry>> {
    let end = position + HEADER_BYTES + header.body_length;
    let mut at = position + HEADER_BYTES;
    let mut found = Vec::new();
    for _ in 0..header.entry_count {
        let fixed = journal.get(at..end)?.get(..ENTRY_BYTES)?;
        let length = u32_at(fixed, 4) as usize;
        let payload_at = at + ENTRY_BYTES;
        let payload_end = payload_at.checked_add(length)?;
        if payload_end > end {
            return None;
        }
        let topic_id = TopicId(Uuid::from_slice(&fixed[16..32]).ok()?);
        found.push(Entry {
            kind: EntryKind::from_number(fixed[0])?,
            flags: fixed[1],
            key: PartitionKey { topic_id, partition: u32_at(fixed, 8) as i32 },
            value: Offset(u64_at(fixed, 32) as i64),
            payload: journal.slice(payload_at..payload_end),
        });
        at += entry_length(length);
    }
    (at == end).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bytes {
        let key = PartitionKey { topic_id: TopicId(Uuid::from_u128(7)), partition: 3 };
        let mut builder = FrameBuilder::new(entry_length(5) + entry_length(0));
        let (at, payload) = builder.push(EntryKind::Batches, BEGINS_SEGMENT, key, Offset(42), b"hello");
        assert_eq!(at, HEADER_BYTES + ENTRY_BYTES);
        payload[0] = b'J';
        builder.push(EntryKind::LogStartOffset, 0, key, Offset(9), b"");
        builder.finish(11, 12, 10)
    }

    #[test]
    fn frame_comes_back() {
        let bytes = sample();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let header = peek(&bytes, 0).unwrap();
        assert_eq!((header.incarnation, header.sequence, header.durable_upto), (11, 12, 10));
        assert!(is_whole(&bytes, 0, &header));
        let entries = entries(&bytes, 0, &header).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(
            (&entries[0].payload[..], entries[0].value, entries[0].key.partition),
            (&b"Jello"[..], Offset(42), 3)
        );
        assert_eq!((entries[1].kind, entries[1].value), (EntryKind::LogStartOffset, Offset(9)));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample();
        let used = HEADER_BYTES + peek(&good, 0).unwrap().body_length;
        for bit in 0..used * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let whole = peek(&bad, 0).is_some_and(|header| is_whole(&bad, 0, &header));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn lengths_are_not_trusted() {
        let mut bytes = sample().to_vec();
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(peek(&bytes, 0).is_none());
        assert!(peek(&bytes, 8192).is_none());
        let mut header = peek(&sample(), 0).unwrap();
        header.entry_count = 1000;
        assert!(entries(&sample(), 0, &header).is_none());
    }
}
