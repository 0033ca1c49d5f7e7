//! What the device gives reads and writes at the same time, with no broker: the bound of catching up beside producers.

use crate::sys::{self, Aligned};
use crate::{Outcome, limits::Limit};
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// 1 MiB writes a second: half of what a log of never written blocks takes on this kind of machine.
const WRITES_PER_S: u32 = 750;
const TIME: Duration = Duration::from_secs(2);
/// Writes in flight before one that is due waits.
const WRITES: usize = 4;
/// Marks a write in the ring; a read has the number of its buffer.
const WRITE: u64 = 1 << 32;

/// For each depth of reading: p99 of writes from when they were due, milliseconds, and reads in MB/s. `from` is a file of
/// `length` MiB to be read, `into` one to be made and removed.
pub fn measure(from: &File, length: u64, into: &Path) -> Outcome<Vec<Limit>> {
    let mut limits = Vec::new();
    for (depth, writes, reads) in [
        (0, "1 MiB O_DIRECT DSYNC writes, growing file, 750/s: p99", ""),
        (1, "the same beside 1 read in flight: p99", "1 MiB O_DIRECT reads beside such writes, 1 in flight"),
        (8, "the same beside 8 reads in flight: p99", "1 MiB O_DIRECT reads beside such writes, 8 in flight"),
    ] {
        let (p99_ms, mb_per_s) = beside(from, length, into, depth)?;
        limits.push((writes, p99_ms, "ms"));
        if depth > 0 {
            limits.push((reads, mb_per_s, "MB/s"));
        }
    }
    Ok(limits)
}

fn beside(from: &File, length: u64, into: &Path, depth: u64) -> Outcome<(f64, f64)> {
    let file = sys::direct_file(into, true)?;
    let mut ring = IoUring::new(32).map_err(|error| format!("io_uring: {error}"))?;
    let data = Aligned::new(1 << 20);
    let chunks: Vec<Aligned> = (0..depth).map(|_| Aligned::new(1 << 20)).collect();
    let start = Instant::now();
    let due = |number: u64| Duration::from_secs(1) / WRITES_PER_S * number as u32;
    let (mut written, mut asked, mut read) = (0u64, 0u64, 0u64);
    let mut in_flight = 0;
    let mut free: Vec<u64> = (0..depth).collect();
    let mut waited_us: Vec<f64> = Vec::new();
    loop {
        let now = start.elapsed();
        while now < TIME && in_flight < WRITES && due(written) <= now {
            let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), data.as_ptr(), 1 << 20)
                .offset(written << 20)
                .rw_flags(libc::RWF_DSYNC)
                .build();
            // SAFETY: `data` outlives the ring's operations, all waited for here.
            unsafe { ring.submission().push(&entry.user_data(WRITE | written)) }
                .map_err(|_| "submission queue full".to_string())?;
            (written, in_flight) = (written + 1, in_flight + 1);
        }
        while let Some(slot) = free.pop_if(|_| now < TIME) {
            let place = chunks[slot as usize].as_ptr().cast_mut();
            let entry =
                opcode::Read::new(types::Fd(from.as_raw_fd()), place, 1 << 20).offset((asked % length) << 20);
            // SAFETY: the chunk is used by one read at a time and outlives the ring's operations, all waited for here.
            unsafe { ring.submission().push(&entry.build().user_data(slot)) }
                .map_err(|_| "submission queue full".to_string())?;
            asked += 1;
        }
        if now >= TIME && in_flight == 0 && free.len() as u64 == depth {
            break;
        }
        // Sleeps until something is done or the next write is due: the kernel's own work needs this core too.
        let until = if now < TIME && in_flight < WRITES { due(written).saturating_sub(now) } else { TIME };
        let sleep = types::Timespec::from(until.max(Duration::from_micros(1)));
        let waited = ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&sleep));
        if let Err(error) = waited.map_err(|error| error.raw_os_error())
            && !matches!(error, Some(libc::ETIME | libc::EINTR | libc::EBUSY))
        {
            return Err(format!("io_uring_enter: error {error:?}"));
        }
        for entry in ring.completion() {
            if entry.result() != 1 << 20 {
                return Err(format!("an operation of 1 MiB returned {}", entry.result()));
            }
            if entry.user_data() & WRITE == 0 {
                free.push(entry.user_data());
                read += 1;
            } else {
                in_flight -= 1;
                let late = start.elapsed() - due(entry.user_data() & !WRITE);
                waited_us.push(late.as_secs_f64() * 1e6);
            }
        }
    }
    let mb_per_s = read as f64 * 1.048_576 / start.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(into).map_err(|error| format!("{}: {error}", into.display()))?;
    waited_us.sort_by(f64::total_cmp);
    Ok((waited_us[waited_us.len() * 99 / 100] / 1e3, mb_per_s))
}
