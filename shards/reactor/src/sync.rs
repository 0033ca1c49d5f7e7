//! What threads share: the standard library's and crossbeam's, and the bell. In a place of its own so that tests/loom can run
//! `mailbox` with a model checker's.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

pub use crossbeam::queue::ArrayQueue;
pub use crossbeam::utils::CachePadded;

/// Messages one pair of shards may have under way; the rest waits with the sender.
pub const RING_MESSAGES: usize = 1024;

/// An eventfd: rung by any thread, read by the shard that sleeps on it. Blocking, so that a read of it through the ring waits
/// instead of failing.
pub struct Bell(OwnedFd);

impl Bell {
    /// One that was not rung yet.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: a plain system call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and has no other owner.
        Ok(Bell(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds one to its count, waking whoever reads it.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of a live u64. A full counter (EAGAIN) means that it is readable already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
