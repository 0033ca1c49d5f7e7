//! Can this machine run a shard? Tried before the first one starts; every failure says its cause and its remedy.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use pelton_model::AlignedBuffer;
use pelton_model::limits::BLOCK_BYTES;

use crate::buffers::ReceiveBuffers;
use crate::splice::splice_works;

/// Descriptors below which we warn: connections and segments need many.
const NOFILE_WANTED: u64 = 16 * 1024;
/// Locked memory an executor's rings need, bytes.
const MEMLOCK_NEEDED: u64 = 512 * 1024;

/// What a shard's ring must be able to do.
const OPERATIONS: &[(&str, u8)] = &[
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("TIMEOUT", opcode::Timeout::CODE),
    ("ACCEPT", opcode::Accept::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SEND", opcode::Send::CODE),
    ("SPLICE", opcode::Splice::CODE),
    ("UNLINKAT", opcode::UnlinkAt::CODE),
    ("MKDIRAT", opcode::MkDirAt::CODE),
];

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One line per fact.
    pub facts: Vec<String>,
    /// What works but should be better, with the remedy.
    pub warnings: Vec<String>,
    /// Open files this process may have, after raising the limit.
    pub open_files: u64,
}

/// Why a shard cannot run here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelfTestError {
    /// What does not work.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

impl std::error::Error for SelfTestError {}

fn fail<T>(cause: impl Into<String>, remedy: impl Into<String>) -> Result<T, SelfTestError> {
    Err(SelfTestError { cause: cause.into(), remedy: remedy.into() })
}

/// Tries everything a shard needs, with its files in `data_dir` (made if missing), and raises the limit of open files.
pub fn self_test(data_dir: &Path) -> Result<Report, SelfTestError> {
    let mut report = Report::default();
    limits(&mut report)?;
    rings(&mut report)?;
    disk(data_dir, &mut report)?;
    Ok(report)
}

fn limit(which: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live rlimit.
    unsafe { libc::getrlimit(which, &mut limit) };
    limit
}

fn limits(report: &mut Report) -> Result<(), SelfTestError> {
    let mut files = limit(libc::RLIMIT_NOFILE);
    if files.rlim_cur < files.rlim_max {
        files.rlim_cur = files.rlim_max;
        // SAFETY: a live rlimit; raising the soft limit to the hard one is always allowed.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) };
        files = limit(libc::RLIMIT_NOFILE);
    }
    report.open_files = files.rlim_cur;
    report.facts.push(format!("open files: {}", files.rlim_cur));
    if files.rlim_cur < 256 {
        return fail(
            format!("only {} open files are allowed", files.rlim_cur),
            "raise it (ulimit -n, LimitNOFILE)",
        );
    }
    if files.rlim_cur < NOFILE_WANTED {
        let text =
            format!("only {} open files are allowed; raise it to {NOFILE_WANTED} or more", files.rlim_cur);
        report.warnings.push(format!("{text} (ulimit -n, LimitNOFILE)"));
    }
    let locked = limit(libc::RLIMIT_MEMLOCK);
    // SAFETY: a plain system call.
    let root = unsafe { libc::geteuid() } == 0;
    if locked.rlim_cur < MEMLOCK_NEEDED && !root {
        return fail(
            format!("only {} bytes may be locked in memory, {MEMLOCK_NEEDED} are needed", locked.rlim_cur),
            "raise it to 8 MiB or more (ulimit -l 8192, LimitMEMLOCK=8M)",
        );
    }
    Ok(())
}

fn rings(report: &mut Report) -> Result<(), SelfTestError> {
    let built = IoUring::<squeue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(64);
    let ring = match built {
        Ok(ring) => ring,
        Err(error) => return ring_failure(&error),
    };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return ring_failure(&error);
    }
    let missing: Vec<&str> =
        OPERATIONS.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let cause = format!("io_uring lacks {}", missing.join(", "));
        return fail(cause, "use Linux 6.1 or later and a profile that allows these operations");
    }
    if let Err(error) = ReceiveBuffers::new(&ring) {
        return fail(format!("io_uring takes no buffer ring: {error}"), "use Linux 6.1 or later");
    }
    report
        .facts
        .push("io_uring: all operations, single issuer, deferred completions, buffer ring".to_string());
    Ok(())
}

fn ring_failure(error: &io::Error) -> Result<(), SelfTestError> {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "allow io_uring: sysctl kernel.io_uring_disabled=0, and a container seccomp profile that permits \
             io_uring_setup, io_uring_enter, io_uring_register (Docker's default forbids them)"
        }
        Some(libc::ENOSYS | libc::EINVAL) => {
            "use Linux 6.1 or later (SINGLE_ISSUER and DEFER_TASKRUN are needed)"
        }
        Some(libc::ENOMEM) => "raise the locked memory limit (ulimit -l 8192, LimitMEMLOCK=8M)",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (ulimit -n, LimitNOFILE)",
        _ => "see `dmesg`",
    };
    fail(format!("io_uring cannot be used: {error}"), remedy)
}

fn disk(data_dir: &Path, report: &mut Report) -> Result<(), SelfTestError> {
    let writable = "make the data directory writable for this user, or choose another with --data-dir";
    if let Err(error) = fs::create_dir_all(data_dir) {
        return fail(format!("cannot make {}: {error}", data_dir.display()), writable);
    }
    let path = data_dir.join(format!(".self-test.{}", std::process::id()));
    let result = direct_io(&path, report);
    let _ = fs::remove_file(&path);
    result.map_err(|error| {
        let cause = format!("direct I/O in {}: {error}", data_dir.display());
        let remedy = match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                "use a file system with O_DIRECT in blocks of 4096 bytes: ext4 or XFS on a disk, not tmpfs or overlay"
            }
            Some(libc::ENOSPC | libc::EDQUOT) => "free space on the device",
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => writable,
            _ => "check the device and the kernel log",
        };
        SelfTestError { cause, remedy: remedy.to_string() }
    })
}

fn direct_io(path: &Path, report: &mut Report) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path)?;
    let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
    block.as_mut_slice().fill(0xA5);
    file.write_all_at(block.as_ref(), 0)?;
    write_through_ring(&file, block.as_ref())?;
    file.sync_data()?;
    let mut read = AlignedBuffer::zeroed(BLOCK_BYTES);
    file.read_exact_at(read.as_mut_slice(), 0)?;
    if read.as_ref() != block.as_ref() {
        return Err(io::Error::other("what was read is not what was written"));
    }
    splice_works(&fs::File::open(path)?)?;
    report.facts.push(format!("{}: direct writes of {BLOCK_BYTES} bytes, DSYNC, splice", path.display()));
    Ok(())
}

/// A write with RWF_DSYNC, as the journal does.
fn write_through_ring(file: &fs::File, block: &[u8]) -> io::Result<()> {
    let mut ring = IoUring::new(8)?;
    let write = opcode::Write::new(types::Fd(file.as_raw_fd()), block.as_ptr(), block.len() as u32)
        .rw_flags(libc::RWF_DSYNC)
        .build();
    // SAFETY: the block outlives the wait below.
    unsafe { ring.submission().push(&write) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().map_or(0, |completion| completion.result());
    match result {
        n if n == block.len() as i32 => Ok(()),
        n if n < 0 => Err(io::Error::from_raw_os_error(-n)),
        n => Err(io::Error::other(format!("a direct write wrote {n} of {} bytes", block.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes_and_a_missing_place_is_explained() {
        let directory = std::env::temp_dir().join(format!("pelton-self-test-{}", std::process::id()));
        let report = self_test(&directory).unwrap();
        assert!(report.open_files >= 256 && report.facts.len() >= 3, "{report:?}");
        let left: Vec<_> = fs::read_dir(&directory).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        fs::write(directory.join("file"), b"").unwrap();
        let error = self_test(&directory.join("file/below")).unwrap_err();
        assert!(error.cause.contains("cannot make") && error.remedy.contains("--data-dir"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
