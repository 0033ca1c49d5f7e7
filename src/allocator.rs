//! Where memory comes from: mimalloc, with huge pages for large pieces only.
//!
//! A huge page is made and zeroed in one go, in the middle of a turn: 5 ms on a virtual machine whose host has to find the
//! memory, too much for a buffer of a few KiB. A large buffer wants them: the device is given one piece instead of 256.

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// From this size on memory is asked to be of huge pages, bytes.
const LARGE_BYTES: usize = 512 * 1024;
/// Bytes of a huge page.
const HUGE_BYTES: usize = 2 * 1024 * 1024;

/// The program's allocator.
pub struct Allocator;

/// Asks for huge pages where `layout` lies, whole ones: those that reach over its ends too. It is advice: an error changes
/// nothing but speed.
fn advise(pointer: *mut u8, layout: Layout) {
    if layout.size() < LARGE_BYTES || pointer.is_null() {
        return;
    }
    let before = pointer.addr() % HUGE_BYTES;
    let length = (before + layout.size()).next_multiple_of(HUGE_BYTES);
    // SAFETY: advice on how to back memory, whoever's it is; no byte of it changes.
    unsafe { libc::madvise(pointer.wrapping_sub(before).cast(), length, libc::MADV_HUGEPAGE) };
}

// SAFETY: mimalloc's promises, handed on.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { MiMalloc.alloc(layout) };
        advise(pointer, layout);
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { MiMalloc.alloc_zeroed(layout) };
        advise(pointer, layout);
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}
