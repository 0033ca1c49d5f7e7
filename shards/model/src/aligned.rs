//! A byte buffer whose start lies on a block boundary, as O_DIRECT demands, without unsafe code.
//!
//! Memory of dropped buffers is kept, per thread and up to a bound, for the next ones: fresh memory costs a page fault and
//! its zeroing per page, as much as filling it.

use std::cell::RefCell;

use crate::limits::BLOCK_BYTES;
use bytes::Bytes;

/// Smaller buffers are the allocator's business, larger ones too rare, bytes.
const KEPT_CAPACITIES: std::ops::RangeInclusive<usize> = 16 * 1024 + 1..=16 * 1024 * 1024;
/// Memory kept per thread, bytes.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Memory that waits for its next use, by class of size.
#[derive(Default)]
struct Kept {
    bytes: usize,
    classes: Vec<Vec<Vec<u8>>>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// The class of a capacity and what it is rounded up to: four steps per power of two, so that at most a fifth is wasted.
fn class(capacity: usize) -> Option<(usize, usize)> {
    if !KEPT_CAPACITIES.contains(&capacity) {
        return None;
    }
    let power = usize::BITS as usize - 1 - (capacity - 1).leading_zeros() as usize;
    let unit = 1usize << (power - 2);
    let steps = capacity.div_ceil(unit);
    Some(((power - 14) * 4 + steps - 5, steps * unit))
}

/// An empty vector with room for `capacity` bytes.
fn take(capacity: usize) -> Vec<u8> {
    let Some((class, rounded)) = class(capacity) else { return Vec::with_capacity(capacity) };
    let kept = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        let raw = kept.classes.get_mut(class)?.pop()?;
        kept.bytes -= rounded;
        Some(raw)
    });
    kept.ok().flatten().unwrap_or_else(|| Vec::with_capacity(rounded))
}

fn give_back(mut raw: Vec<u8>) {
    let Some((class, rounded)) = class(raw.capacity()).filter(|(_, rounded)| *rounded == raw.capacity())
    else {
        return;
    };
    raw.clear();
    // At the end of a thread there is nothing to give it to.
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.bytes + rounded <= KEPT_BYTES_MAX {
            if kept.classes.len() <= class {
                kept.classes.resize_with(class + 1, Vec::new);
            }
            kept.bytes += rounded;
            kept.classes[class].push(raw);
        }
    });
}

/// Memory aligned to [`BLOCK_BYTES`] whose capacity is fixed at creation, so that it never moves.
pub struct AlignedBuffer {
    raw: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// An empty buffer with room for `capacity` bytes. Not zeroed: what is appended is all that is ever touched.
    pub fn with_capacity(capacity: usize) -> AlignedBuffer {
        let mut raw: Vec<u8> = take(capacity + BLOCK_BYTES);
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

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.raw));
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
    fn classes_hold_what_they_are_asked_for_and_waste_little() {
        let mut before = None;
        for capacity in KEPT_CAPACITIES.step_by(997).chain([16 * 1024 + 1, 32 * 1024, 16 << 20]) {
            let (index, rounded) = class(capacity).unwrap();
            assert!(rounded >= capacity && (rounded - capacity) * 4 <= capacity, "{capacity} {rounded}");
            assert_eq!(class(rounded), Some((index, rounded)), "rounding is stable");
            before = before.max(Some(index));
        }
        assert!(before.unwrap() < 64);
    }

    #[test]
    fn dropped_memory_is_used_again_and_looks_fresh() {
        let mut buffer = AlignedBuffer::with_capacity(1 << 20);
        buffer.extend_from_slice(&[7; 1 << 20]);
        let place = buffer.as_ref().as_ptr();
        drop(buffer.freeze().slice(5..9));
        let again = AlignedBuffer::zeroed(1 << 20);
        assert_eq!(again.as_ref().as_ptr(), place);
        assert!(again.as_ref().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn kept_memory_is_bounded() {
        let buffers: Vec<AlignedBuffer> = (0..40).map(|_| AlignedBuffer::with_capacity(1 << 20)).collect();
        drop(buffers);
        let kept = KEPT.with(|kept| kept.borrow().bytes);
        assert!((1..=KEPT_BYTES_MAX).contains(&kept), "{kept}");
    }

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
