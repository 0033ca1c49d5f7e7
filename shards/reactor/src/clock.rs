//! The clocks, read once per turn of a shard after all that has come was taken in. Nothing else in a shard reads a clock.

use pelton_model::Now;

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; both clocks used here exist on every Linux.
    let code = unsafe { libc::clock_gettime(clock, &mut time) };
    debug_assert_eq!(code, 0);
    time
}

/// CLOCK_BOOTTIME, nanoseconds: unlike CLOCK_MONOTONIC it runs on while the machine is suspended, and a lease must end then
/// too (rule L3). Timeouts are handed to the kernel as durations.
pub fn monotonic_ns() -> u64 {
    let time = read(libc::CLOCK_BOOTTIME);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Both clocks.
pub fn now() -> Now {
    let wall = read(libc::CLOCK_REALTIME);
    Now { monotonic_ns: monotonic_ns(), wall_ms: wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000 }
}
