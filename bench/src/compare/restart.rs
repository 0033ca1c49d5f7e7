//! H9: how long a broker takes to be ready again after kill -9 with many segments and much log. The log is made by producing
//! it; the blocks of what was written a while ago are given back to the file system meanwhile, all but the end of each
//! partition, so that files keep their length and recovery all that it may read.

use super::systems::{Process, Programs};
use crate::load::{BULK, Case, Plan};
use crate::{Outcome, generator};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SEGMENTS: usize = 10_000;
const BYTES: u64 = 100 << 30;
/// Longest time spent on making the log.
const PATIENCE: Duration = Duration::from_secs(600);
/// Segments written this shortly ago are left whole: recovery may have to read back what was in flight.
const FRESH: Duration = Duration::from_secs(3);
/// The end of each partition's newest segment that is left, bytes.
const END_BYTES: u64 = 2 << 20;

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restart {
    /// From the spawn of the process to its being ready.
    pub ready_s: f64,
    pub segments: usize,
    /// Length of all segments' files together.
    pub bytes: u64,
    /// What they take on the device.
    pub allocated_bytes: u64,
    /// Time it took to make them.
    pub made_s: f64,
}

/// Measures it; none if the program is not there.
pub fn measure(programs: &Programs, dir: &Path) -> Outcome<Option<Restart>> {
    let Some(mut server) = programs.start(Process::Pelton, dir)? else { return Ok(None) };
    let partitions = dir.join("data/partitions");
    let from = Instant::now();
    let mut found = Restart::default();
    while found.segments < SEGMENTS || found.bytes < BYTES {
        if from.elapsed() > PATIENCE {
            return Err(format!("after {PATIENCE:?} there are only {found:?}"));
        }
        let segment_bytes = (10 << 20).to_string();
        let configs = [("segment.bytes", segment_bytes.as_str())];
        let plan = Plan {
            broker_pids: Vec::new(),
            ..Plan::against(&server, Duration::ZERO, Duration::from_secs(5), &configs)
        };
        generator::run(&Case { partitions: 100, ..BULK }, &plan)?;
        std::thread::sleep(FRESH);
        found = thin(&partitions)?;
    }
    found.made_s = from.elapsed().as_secs_f64();
    server.kill();
    drop(server);
    let server = programs.start(Process::Pelton, dir)?;
    found.ready_s = server.map_or(f64::NAN, |server| server.start_time.as_secs_f64());
    eprintln!("{found:?}");
    Ok(Some(found))
}

/// Gives back the blocks of all but fresh segments and the end of each partition; counts segments and bytes.
fn thin(partitions: &Path) -> Outcome<Restart> {
    let failed = |error: std::io::Error| format!("{}: {error}", partitions.display());
    let mut found = Restart::default();
    for partition in std::fs::read_dir(partitions).map_err(failed)?.flatten() {
        let files = std::fs::read_dir(partition.path()).map_err(failed)?.flatten().map(|file| file.path());
        let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        logs.sort_unstable();
        for (number, log) in logs.iter().enumerate() {
            let metadata = std::fs::metadata(log).map_err(failed)?;
            let length = metadata.len();
            let old = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > FRESH));
            let end = if number + 1 == logs.len() { END_BYTES } else { 0 };
            let punched = length.saturating_sub(end) / 4096 * 4096;
            if old && punched > 0 && metadata.blocks() * 512 > end + 4096 {
                let file = std::fs::File::options().write(true).open(log).map_err(failed)?;
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                // SAFETY: a plain system call on a live descriptor.
                if unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, punched as libc::off_t) } < 0 {
                    return Err(failed(std::io::Error::last_os_error()));
                }
            }
            found.segments += 1;
            found.bytes += length;
            found.allocated_bytes += std::fs::metadata(log).map_err(failed)?.blocks() * 512;
        }
    }
    Ok(found)
}
