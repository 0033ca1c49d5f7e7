//! Memory that received bytes land in: a ring of pooled buffers the kernel picks from, and exact buffers for frames
//! whose length is known. Both are handed out as `Bytes` and come back, from any thread, when the last handle is dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use io_uring::types::BufRingEntry;

use crate::mapping::Mapping;

/// Bytes of one pooled buffer.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Pooled buffers of a shard; a power of two. Memory is touched only as far as buffers fill.
const BUFFERS: u16 = 256;
/// Buffers given to the kernel at first: few, so that small requests keep landing in warm memory; all once it runs out.
const OFFERED_AT_FIRST: u16 = 32;
/// Shorter receives are copied out, so that the buffer returns at once.
const COPY_BYTES_MAX: usize = 4096;
/// With fewer buffers left, longer ones are copied out too.
const BUFFERS_LOW: usize = 64;
/// The kernel's name of the group.
pub const BUFFER_GROUP: u16 = 0;

/// The mapping that holds the entries the kernel reads (first page) and the buffers.
struct Memory {
    /// A buffer is written only by the kernel while offered, and read only through leases while it is not.
    mapping: Mapping,
    returned: ArrayQueue<u16>,
}

const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();
const _: () = assert!(ENTRIES_BYTES == 4096 && BUFFERS.is_power_of_two());

impl Memory {
    fn map() -> io::Result<Memory> {
        let mapping = Mapping::new(ENTRIES_BYTES + BUFFERS as usize * BUFFER_BYTES)?;
        Ok(Memory { mapping, returned: ArrayQueue::new(BUFFERS as usize) })
    }

    fn buffer(&self, index: u16) -> *mut u8 {
        // SAFETY: index < BUFFERS, so the offset lies inside the mapping.
        unsafe { self.mapping.base().as_ptr().add(ENTRIES_BYTES + index as usize * BUFFER_BYTES) }
    }
}

/// A received piece of a pooled buffer.
struct Lease {
    memory: Arc<Memory>,
    index: u16,
    length: usize,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the kernel wrote these bytes and the buffer is not offered again before this lease is dropped.
        unsafe { std::slice::from_raw_parts(self.memory.buffer(self.index), self.length) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Cannot be full: it has room for every buffer there is.
        let _ = self.memory.returned.push(self.index);
    }
}

/// The pooled receive buffers of one shard.
pub struct ReceiveBuffers {
    memory: Arc<Memory>,
    /// Neither offered nor leased; the last one returned is the first one used.
    free: Vec<u16>,
    /// Offered to the kernel now, and how many should be.
    offered: u16,
    target: u16,
    tail: u16,
}

impl ReceiveBuffers {
    /// Maps the buffers and registers them with `uring`. The value must be dropped after the ring.
    pub fn new(uring: &io_uring::IoUring) -> io::Result<ReceiveBuffers> {
        let memory = Arc::new(Memory::map()?);
        let address = memory.mapping.base().as_ptr() as u64;
        // SAFETY: page-aligned memory of exactly that many entries, unmapped only after the ring is gone.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, BUFFERS, BUFFER_GROUP, 0)? };
        let free = (0..BUFFERS).rev().collect();
        let mut buffers = ReceiveBuffers { memory, free, offered: 0, target: OFFERED_AT_FIRST, tail: 0 };
        buffers.offer();
        Ok(buffers)
    }

    /// Offers free buffers to the kernel, up to the wanted number. Called once per turn.
    pub fn offer(&mut self) {
        while let Some(index) = self.memory.returned.pop() {
            self.free.push(index);
        }
        let before = self.tail;
        while self.offered < self.target
            && let Some(index) = self.free.pop()
        {
            let slot = (self.tail & (BUFFERS - 1)) as usize;
            // SAFETY: slot < BUFFERS; the kernel reads the entry only after the tail has passed it.
            let entry = unsafe { &mut *self.memory.mapping.base().as_ptr().cast::<BufRingEntry>().add(slot) };
            entry.set_addr(self.memory.buffer(index) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(index);
            self.tail = self.tail.wrapping_add(1);
            self.offered += 1;
        }
        if self.tail != before {
            // SAFETY: the base is that of the registered ring; its tail is an aligned u16 that the kernel reads atomically.
            let tail = unsafe {
                &*BufRingEntry::tail(self.memory.mapping.base().as_ptr().cast()).cast::<AtomicU16>()
            };
            tail.store(self.tail, Ordering::Release);
        }
    }

    /// The kernel found none: from now on it is offered all there are.
    pub fn ran_out(&mut self) {
        self.target = BUFFERS;
        self.offer();
    }

    /// Takes `length` received bytes out of buffer `index`, which the kernel has used.
    pub fn take(&mut self, index: u16, length: usize) -> Bytes {
        assert!(
            index < BUFFERS && length <= BUFFER_BYTES,
            "the kernel used buffer {index} for {length} bytes"
        );
        self.offered -= 1;
        let lease = Lease { memory: self.memory.clone(), index, length };
        if length <= COPY_BYTES_MAX
            || self.free.len() < BUFFERS_LOW.min(BUFFERS as usize - self.target as usize)
        {
            let bytes = Bytes::copy_from_slice(lease.as_ref());
            self.release(lease);
            return bytes;
        }
        Bytes::from_owner(lease)
    }

    fn release(&mut self, lease: Lease) {
        drop(lease);
        while let Some(index) = self.memory.returned.pop() {
            self.free.push(index);
        }
    }
}

/// Smallest and number of pooled frame sizes: 64 KiB, 128 KiB, … 4 MiB.
const FRAME_CLASS_BYTES: usize = 64 * 1024;
const FRAME_CLASSES: usize = 7;
/// Idle frame buffers kept per size.
const FRAMES_KEPT: [usize; FRAME_CLASSES] = [64, 64, 32, 32, 16, 16, 8];

/// Frame buffers that wait for their next use: fresh memory costs a page fault per 4 KiB, as much as receiving into it.
#[derive(Clone)]
pub struct FramePool {
    shelves: Arc<[ArrayQueue<Vec<u8>>; FRAME_CLASSES]>,
}

/// A buffer that fills from the front up to a length fixed at creation.
pub struct FrameBuffer {
    bytes: Vec<u8>,
    length: usize,
    /// Wanted whole; otherwise whatever has come will do.
    pub whole: bool,
    pool: FramePool,
}

struct Pooled {
    bytes: Vec<u8>,
    pool: FramePool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}

impl FramePool {
    /// An empty pool.
    pub fn new() -> FramePool {
        FramePool { shelves: Arc::new(FRAMES_KEPT.map(ArrayQueue::new)) }
    }

    fn class(length: usize) -> Option<usize> {
        let class = length.div_ceil(FRAME_CLASS_BYTES).next_power_of_two().trailing_zeros() as usize;
        (length > FRAME_CLASS_BYTES / 2 && class < FRAME_CLASSES).then_some(class)
    }

    fn put(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        if let Some(class) = FramePool::class(bytes.capacity())
            && bytes.capacity() >= FRAME_CLASS_BYTES << class
        {
            // A full shelf drops it.
            let _ = self.shelves[class].push(bytes);
        }
    }

    /// A buffer for `length` bytes of which `prefix` is already there.
    pub fn get(&self, prefix: &[u8], length: usize) -> FrameBuffer {
        let mut bytes = match FramePool::class(length) {
            Some(class) => {
                self.shelves[class].pop().unwrap_or_else(|| Vec::with_capacity(FRAME_CLASS_BYTES << class))
            }
            None => Vec::with_capacity(length),
        };
        bytes.extend_from_slice(&prefix[..prefix.len().min(length)]);
        FrameBuffer { bytes, length, whole: true, pool: self.clone() }
    }
}

impl FrameBuffer {
    /// Where the next bytes go, and how many may still come.
    pub fn rest(&mut self) -> (*mut u8, usize) {
        let filled = self.bytes.len();
        // SAFETY: `get` reserved `length`, and `filled` never exceeds it.
        (unsafe { self.bytes.as_mut_ptr().add(filled) }, self.length - filled)
    }

    /// Bytes there so far.
    pub fn filled(&self) -> usize {
        self.bytes.len()
    }

    /// True when all bytes are there.
    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// Accounts for `count` bytes the kernel wrote at [`FrameBuffer::rest`].
    ///
    /// # Safety
    /// The kernel must have written them.
    pub unsafe fn advance(&mut self, count: usize) {
        let filled = self.bytes.len() + count;
        assert!(filled <= self.length, "{count} bytes too many for a buffer of {}", self.length);
        // SAFETY: within the capacity, and written as the caller promises.
        unsafe { self.bytes.set_len(filled) };
    }

    /// What is there, as a handle.
    pub fn freeze(self) -> Bytes {
        if self.bytes.capacity() < FRAME_CLASS_BYTES {
            return Bytes::from(self.bytes);
        }
        Bytes::from_owner(Pooled { bytes: self.bytes, pool: self.pool })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_buffers_are_used_again_and_never_with_too_little_room() {
        let pool = FramePool::new();
        for length in [1, 100, 40_000, 65_536, 65_537, 1 << 20, 3 << 20, 9 << 20] {
            let mut buffer = pool.get(b"ab", length);
            let (pointer, rest) = buffer.rest();
            assert_eq!(rest, length - 2.min(length));
            // SAFETY: `rest` bytes of room were promised; this is what the test checks under a sanitizer.
            unsafe {
                std::ptr::write_bytes(pointer, 7, rest);
                buffer.advance(rest);
            }
            assert!(buffer.is_full());
            let bytes = buffer.freeze();
            assert_eq!((bytes.len(), bytes[length - 1]), (length, if length == 1 { b'a' } else { 7 }));
        }
        let class = FramePool::class(1 << 20).unwrap();
        assert_eq!(pool.shelves[class].len(), 1, "the 1 MiB buffer came back");
        let pointer = pool.get(&[], 1 << 20).freeze().as_ptr();
        assert_eq!(pool.get(&[], 1 << 20).freeze().as_ptr(), pointer, "and is used again");
    }
}
