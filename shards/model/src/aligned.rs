//! A byte buffer whose start lies on a block boundary, as O_DIRECT demands, without unsafe code.

use crate::limits::BLOCK_BYTES;
use bytes::Bytes;

/// Zeroed memory aligned to [`BLOCK_BYTES`], of a length fixed at creation.
pub struct AlignedBuffer {
    raw: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` zero bytes.
    pub fn zeroed(length: usize) -> AlignedBuffer {
        let raw = vec![0u8; length + BLOCK_BYTES];
        let start = raw.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "a byte pointer can always be aligned: {start}");
        AlignedBuffer { raw, start, length }
    }

    /// `length` rounded up to whole blocks.
    pub fn round_up(length: usize) -> usize {
        length.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
    }

    /// The buffer's bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.length]
    }

    /// The buffer as a shared, immutable handle; the memory never moves, so it stays aligned.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_buffer_stays_aligned_and_keeps_its_bytes() {
        let mut buffer = AlignedBuffer::zeroed(8192);
        buffer.as_mut_slice()[8191] = 7;
        let frozen = buffer.freeze();
        assert_eq!(frozen.as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!((frozen.len(), frozen[8191], frozen[0]), (8192, 7, 0));
    }
}
