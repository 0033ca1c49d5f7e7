//! Anonymous memory straight from the kernel: for pools the kernel writes into, and for large buffers that are used once and
//! must go back to the kernel at once, which an allocator would keep.

use std::io;
use std::ptr::NonNull;

use bytes::Bytes;

/// A zeroed mapping, aligned to pages.
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: plain memory with one owner; sharing it is the owner's business, as with a `Vec`.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives no way to write.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes; 0 is an error of the kernel's.
    pub fn new(length: usize) -> io::Result<Mapping> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("a mapping that did not fail is not null");
        Ok(Mapping { base, length })
    }

    /// Its first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// All of it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours alone, initialised (zeroed), and lives as long as the borrow.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }

    /// A handle on it; the last one gives the memory back.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: initialised, and lives as long as the borrow.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
