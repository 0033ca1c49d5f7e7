//! Where memory comes from: mimalloc; large pieces from a region of their own, of huge pages.
//!
//! A huge page is made and zeroed in one go, in the middle of a turn: 5 ms on a virtual machine whose host has to find the
//! memory, too much for a buffer of a few KiB. A large buffer wants them: the device is given one piece instead of 256. What
//! the region has once touched it keeps until the process ends; the broker's budgets bound how much that is.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libmimalloc_sys as sys;
use mimalloc::MiMalloc;

/// From this size on memory is of huge pages, bytes.
const LARGE_BYTES: usize = 512 * 1024;
/// Pieces above this are the kernel's one by one, given back when freed: rare, and too much to keep, bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a huge page.
const HUGE_BYTES: usize = 2 * 1024 * 1024;
/// Address space of the region, bytes. When it is used up, large pieces are made of ordinary pages.
const REGION_BYTES: usize = 4 * 1024 * 1024 * 1024;

/// The heap of the region; null before it is made, and for good when the kernel did not give the address space.
static REGION: AtomicPtr<sys::mi_heap_t> = AtomicPtr::new(ptr::null_mut());
/// Whether somebody makes or has made the region.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The program's allocator.
pub struct Allocator;

/// Asks for huge pages where `layout` lies, if it is too large for the region. It is advice: an error changes nothing but speed.
fn advise(pointer: *mut u8, layout: Layout) -> *mut u8 {
    if layout.size() > PIECE_BYTES_MAX && !pointer.is_null() {
        let before = pointer.addr() % HUGE_BYTES;
        // SAFETY: advice on how to back memory, whoever's it is; no byte of it changes.
        unsafe {
            libc::madvise(pointer.wrapping_sub(before).cast(), before + layout.size(), libc::MADV_HUGEPAGE)
        };
    }
    pointer
}

/// The region's heap, made when first asked for. Null: take ordinary memory.
fn region() -> *mut sys::mi_heap_t {
    let heap = REGION.load(Ordering::Acquire);
    if !heap.is_null() || TAKEN.swap(true, Ordering::Relaxed) {
        return heap;
    }
    let heap = make_region();
    REGION.store(heap, Ordering::Release);
    heap
}

fn make_region() -> *mut sys::mi_heap_t {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new address space, nobody else's.
    let space = unsafe { libc::mmap(ptr::null_mut(), REGION_BYTES + HUGE_BYTES, rights, flags, -1, 0) };
    if space == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let start = space.wrapping_add(space.addr().wrapping_neg() % HUGE_BYTES);
    // SAFETY: advice about the space above; an error changes nothing but speed.
    unsafe { libc::madvise(start, REGION_BYTES, libc::MADV_HUGEPAGE) };
    let mut arena = ptr::null_mut();
    // SAFETY: the space is whole, zero, writable, aligned, and from here on mimalloc's alone. "Large" is what keeps it from
    // being given back in pieces of 64 KiB, which would tear the huge pages.
    let made = unsafe {
        sys::mi_manage_os_memory_ex(start, REGION_BYTES, true, true, true, -1, true, &raw mut arena)
    };
    // SAFETY: the arena was just made; any thread may take memory from a heap and give it back.
    if made { unsafe { sys::mi_heap_new_in_arena(arena) } } else { ptr::null_mut() }
}

/// A large piece from the region, or null.
fn large(layout: Layout, zeroed: bool) -> *mut u8 {
    if !(LARGE_BYTES..=PIECE_BYTES_MAX).contains(&layout.size()) {
        return ptr::null_mut();
    }
    let heap = region();
    if heap.is_null() {
        return heap.cast();
    }
    let take = if zeroed { sys::mi_heap_zalloc_aligned } else { sys::mi_heap_malloc_aligned };
    // SAFETY: the heap is whole and never deleted; a layout's alignment is a power of two.
    unsafe { take(heap, layout.size(), layout.align()).cast() }
}

// SAFETY: mimalloc's promises, handed on; its `free` takes pieces of every heap, from any thread.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let pointer = large(layout, false);
        // SAFETY: the caller's promise.
        if pointer.is_null() { advise(unsafe { MiMalloc.alloc(layout) }, layout) } else { pointer }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let pointer = large(layout, true);
        // SAFETY: the caller's promise.
        if pointer.is_null() { advise(unsafe { MiMalloc.alloc_zeroed(layout) }, layout) } else { pointer }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size < LARGE_BYTES {
            // SAFETY: the caller's promise.
            return unsafe { MiMalloc.realloc(pointer, layout, size) };
        }
        // SAFETY: the caller's promise: `size`, rounded up to the alignment, is no more than isize::MAX.
        let grown = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !grown.is_null() {
            // SAFETY: two pieces of memory of at least that many bytes each.
            unsafe {
                ptr::copy_nonoverlapping(pointer, grown, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        /// mimalloc's own; the crate does not name it.
        fn mi_heap_contains(heap: *const sys::mi_heap_t, pointer: *const libc::c_void) -> bool;
    }

    /// Whether `pointer` is memory of the region.
    fn of_region(pointer: *mut u8) -> bool {
        let heap = region();
        // SAFETY: asks where a living piece came from.
        !heap.is_null() && unsafe { mi_heap_contains(heap, pointer.cast()) }
    }

    #[test]
    fn pieces_of_512_kib_to_16_mib_come_from_the_region() {
        for (bytes, large) in [
            (LARGE_BYTES - 1, false),
            (LARGE_BYTES, true),
            (PIECE_BYTES_MAX, true),
            (PIECE_BYTES_MAX + 1, false),
        ] {
            let layout = Layout::from_size_align(bytes, 4096).unwrap();
            // SAFETY: given back with the same layout.
            unsafe {
                let pointer = Allocator.alloc_zeroed(layout);
                assert!(!pointer.is_null() && pointer.addr().is_multiple_of(4096));
                assert_eq!(of_region(pointer), large, "{bytes} bytes");
                Allocator.dealloc(pointer, layout);
            }
        }
    }

    #[test]
    fn a_piece_that_grows_or_shrinks_across_the_bounds_keeps_its_bytes() {
        let sizes = [100, LARGE_BYTES, 3 * LARGE_BYTES, PIECE_BYTES_MAX + 1, LARGE_BYTES, 50];
        let mut layout = Layout::from_size_align(sizes[0], 8).unwrap();
        // SAFETY: each layout is the one the piece has; what is read was written.
        unsafe {
            let mut pointer = Allocator.alloc(layout);
            pointer.write_bytes(7, layout.size());
            for size in sizes {
                pointer = Allocator.realloc(pointer, layout, size);
                let kept = layout.size().min(size);
                layout = Layout::from_size_align(size, 8).unwrap();
                assert!(
                    std::slice::from_raw_parts(pointer, kept).iter().all(|&byte| byte == 7),
                    "{size} bytes"
                );
                pointer.write_bytes(7, size);
            }
            Allocator.dealloc(pointer, layout);
        }
    }

    #[test]
    fn a_piece_may_be_given_back_by_another_thread() {
        let layout = Layout::from_size_align(LARGE_BYTES, 8).unwrap();
        // SAFETY: one owner at a time.
        let address = unsafe { Allocator.alloc(layout) }.expose_provenance();
        std::thread::spawn(move || {
            // SAFETY: the layout it was taken with.
            unsafe { Allocator.dealloc(ptr::with_exposed_provenance_mut(address), layout) };
        })
        .join()
        .unwrap();
    }
}
