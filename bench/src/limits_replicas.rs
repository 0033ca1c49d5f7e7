//! What the device alone makes of replication: the same block written and flushed in one file, or in several at once, as replicas
//! that share one disk do; done when the last of them is.

use crate::Outcome;
use crate::sys::{self, Aligned};
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of each file, all of them written before.
const FILE: u64 = 32 << 20;
const TIME: Duration = Duration::from_secs(3);
const REPLICAS: usize = 3;

/// What a request of each load of `replicas` becomes on the disk: bytes of a write, writes a second.
const LOADS: [(usize, u32); 2] = [(12 << 10, 1_000), (4 << 10, 2_000)];

/// Percentiles from when a write was due, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waited {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// For both loads: in one file, in three at once. Makes and removes files in `dir`. 15 s.
pub fn measure(dir: &Path) -> Outcome<[[Waited; 2]; 2]> {
    let paths: Vec<_> = (0..REPLICAS).map(|number| dir.join(format!("limits-replica-{number}"))).collect();
    let files: Vec<File> = paths.iter().map(|path| sys::written_file(path, FILE)).collect::<Outcome<_>>()?;
    let [large, small] = LOADS.map(|(bytes, rate)| -> Outcome<[Waited; 2]> {
        Ok([paced(&files[..1], bytes, rate)?, paced(&files, bytes, rate)?])
    });
    for path in paths {
        std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok([large?, small?])
}

/// An open loop. A request that finds the one before it still being written waits for it, as a journal does.
fn paced(files: &[File], bytes: usize, rate: u32) -> Outcome<Waited> {
    let mut ring = IoUring::new(16).map_err(|error| format!("io_uring: {error}"))?;
    let block = Aligned::new(bytes);
    let start = Instant::now();
    let mut waited_us = Vec::new();
    for number in 0.. {
        let due = Duration::from_secs(1) / rate * number;
        if due > TIME {
            break;
        }
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let at = u64::from(number) * bytes as u64 % (FILE - bytes as u64) / 4096 * 4096;
        for file in files {
            let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), block.as_ptr(), bytes as u32)
                .offset(at)
                .rw_flags(libc::RWF_DSYNC)
                .build();
            // SAFETY: `block` and the files outlive the ring's operations, which are all waited for below.
            unsafe { ring.submission().push(&entry) }.map_err(|_| "submission queue full".to_string())?;
        }
        ring.submit_and_wait(files.len()).map_err(|error| format!("io_uring_enter: {error}"))?;
        for entry in ring.completion() {
            if entry.result() != bytes as i32 {
                return Err(format!("durable write of {bytes} bytes returned {}", entry.result()));
            }
        }
        waited_us.push((start.elapsed().saturating_sub(due)).as_secs_f64() * 1e6);
    }
    waited_us.sort_by(f64::total_cmp);
    let (p50_us, p99_us) = (waited_us[waited_us.len() / 2], waited_us[waited_us.len() * 99 / 100]);
    Ok(Waited { p50_us, p99_us })
}
