//! A byte buffer whose start lies on a block boundary, as O_DIRECT demands, without unsafe code.

use crate::limits::BLOCK_BYTES;
use bytes::Bytes;

/// Memory aligned to [`BLOCK_BYTES`] whose capacity is fixed at creation, so that it never moves.
pub struct AlignedBuffer {
    raw: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// An empty buffer with room for `capacity` bytes. Not zeroed: what is appended is all that is ever touched.
    pub fn with_capacity(capacity: usize) -> AlignedBuffer {
        let mut raw: Vec<u8> = Vec::with_capacity(capacity + BLOCK_BYTES);
        let start = raw.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "a byte pointer can always be aligned: {start}");
        raw.resize(start, 0);
        AlignedBuffer { raw, start }
    }

    /// A buffer of `length` zero bytes.
    pub fn zeroed(length: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::with_capacity(length);
        buffer.pad_to(length);
        buffer
    }

    /// Appends `bytes`; the caller asked for enough capacity.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.raw.capacity() - self.raw.len(), "an aligned buffer must not move");
        self.raw.extend_from_slice(bytes);
    }

    /// Appends zeros up to `length` bytes in all, within the capacity asked for.
    pub fn pad_to(&mut self, length: usize) {
        assert!(self.start + length <= self.raw.capacity(), "an aligned buffer must not move");
        if self.len() < length {
            self.raw.resize(self.start + length, 0);
        }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.raw.len() - self.start
    }

    /// True while nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `length` rounded up to whole blocks.
    pub fn round_up(length: usize) -> usize {
        length.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
    }

    /// The buffer's bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..]
    }

    /// The buffer as a shared, immutable handle; the memory never moves, so it stays aligned.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.raw[self.start..]
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

    #[test]
    fn appended_bytes_and_padding_stay_where_they_are() {
        let mut buffer = AlignedBuffer::with_capacity(BLOCK_BYTES);
        let place = buffer.as_mut_slice().as_ptr();
        buffer.extend_from_slice(&[1, 2, 3]);
        buffer.pad_to(BLOCK_BYTES);
        assert_eq!((buffer.len(), buffer.as_mut_slice().as_ptr()), (BLOCK_BYTES, place));
        assert_eq!(&buffer.freeze()[..5], &[1, 2, 3, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "must not move")]
    fn growing_beyond_the_capacity_is_a_bug() {
        AlignedBuffer::with_capacity(10).extend_from_slice(&[0; 3 * BLOCK_BYTES]);
    }
}
