//! In place of the reactor's module of this name: loom's atomics, a ring that promises no more than the real one, and a bell
//! that can be waited for.

use std::cell::Cell;
use std::io;
use std::ops::Deref;

pub use loom::sync::Arc;
pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};

/// So small that it is full at once.
pub const RING_MESSAGES: usize = 1;

thread_local! {
    /// Leaves the fences out, to see that the model notices.
    pub static WITHOUT_FENCES: Cell<bool> = const { Cell::new(false) };
}

/// The real one, unless a test leaves it out.
pub fn fence(order: Ordering) {
    if !WITHOUT_FENCES.get() {
        loom::sync::atomic::fence(order);
    }
}

/// Nothing to pad here.
pub struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub fn new(value: T) -> CachePadded<T> {
        CachePadded(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A ring with one sender and one receiver. Its places are published with release and seen with acquire, and whether it is empty
/// is seen by plain loads: the real one promises more.
pub struct ArrayQueue<T> {
    slots: Vec<UnsafeCell<Option<T>>>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

// SAFETY: a slot is touched by the sender while it is free and by the receiver while it is taken; head and tail hand it over.
unsafe impl<T: Send> Send for ArrayQueue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for ArrayQueue<T> {}

impl<T> ArrayQueue<T> {
    pub fn new(capacity: usize) -> ArrayQueue<T> {
        let slots = (0..capacity).map(|_| UnsafeCell::new(None)).collect();
        ArrayQueue { slots, head: AtomicUsize::new(0), tail: AtomicUsize::new(0) }
    }

    pub fn push(&self, value: T) -> Result<(), T> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail - self.head.load(Ordering::Acquire) == self.slots.len() {
            return Err(value);
        }
        // SAFETY: the slot is free, and only this thread sends.
        self.slots[tail % self.slots.len()].with_mut(|slot| unsafe { *slot = Some(value) });
        self.tail.store(tail + 1, Ordering::Release);
        Ok(())
    }

    pub fn pop(&self) -> Option<T> {
        let head = self.head.load(Ordering::Relaxed);
        if self.tail.load(Ordering::Acquire) == head {
            return None;
        }
        // SAFETY: the slot is taken, and only this thread receives.
        let value = self.slots[head % self.slots.len()].with_mut(|slot| unsafe { (*slot).take() });
        self.head.store(head + 1, Ordering::Release);
        value
    }

    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Relaxed)
    }
}

/// As an eventfd: rings add up, waiting takes them all.
pub struct Bell {
    rung: Mutex<u64>,
    heard: Condvar,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        Ok(Bell { rung: Mutex::new(0), heard: Condvar::new() })
    }

    pub fn ring(&self) {
        *self.rung.lock().unwrap() += 1;
        self.heard.notify_one();
    }

    pub fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = 0;
    }
}
