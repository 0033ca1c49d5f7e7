//! The few system calls the bench needs beyond std: pinning, congestion control, epoll, aligned memory, direct files.
//! Never decides what to measure.

use crate::Outcome;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Alignment of memory, offsets and lengths for direct I/O, bytes.
pub const ALIGN: usize = 4096;

/// Pins the calling thread to one core.
pub fn pin(core: usize) -> Outcome<()> {
    // SAFETY: a zeroed set is a valid set; the calls stay within its size.
    let rc = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(format!("cannot pin to core {core}: {}", std::io::Error::last_os_error()))
    }
}

/// Number of cores of the machine (not of this thread, which may be pinned).
pub fn cores() -> usize {
    // SAFETY: plain system call.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1) as usize
}

/// Sets congestion control cubic: where the default is BBR it paces loopback and spoils bulk figures.
pub fn cubic(fd: RawFd) -> Outcome<()> {
    // SAFETY: the option value is a live buffer of the length given.
    let rc =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, c"cubic".as_ptr().cast(), 5) };
    if rc == 0 { Ok(()) } else { Err(format!("TCP_CONGESTION cubic: {}", std::io::Error::last_os_error())) }
}

/// A number that no other call in this process, and hardly one in another, has given.
pub fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let call = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32)
        .wrapping_add(call.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Level-triggered epoll over descriptors owned by someone else.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Outcome<Epoll> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(format!("epoll_create1: {}", std::io::Error::last_os_error()));
        }
        Ok(Epoll {
            // SAFETY: fd is fresh and has no other owner.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 256],
        })
    }

    /// Watches `fd` for input, and for output too when `write`; `token` comes back with its events.
    pub fn watch(&self, fd: RawFd, token: usize, write: bool, new: bool) -> Outcome<()> {
        let mask = if write { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
        let mut event = libc::epoll_event { events: mask as u32, u64: token as u64 };
        let op = if new { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
        // SAFETY: both descriptors live, the event outlives the call.
        let rc = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) };
        if rc == 0 { Ok(()) } else { Err(format!("epoll_ctl: {}", std::io::Error::last_os_error())) }
    }

    /// Tokens that are ready, after at most `timeout`.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<usize>) {
        ready.clear();
        let time = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // SAFETY: the kernel writes at most as many events as the vector holds; no signal mask is given.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                &raw const time,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        ready.extend(self.events[..n.max(0) as usize].iter().map(|event| event.u64 as usize));
    }
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills a live struct.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lets this thread's timers fire within a microsecond instead of the usual 50.
pub fn precise_timers() {
    // SAFETY: plain system call on the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000u64) };
}

/// Raises the limit of open files to the hard limit, for this process and those it starts: that limit.
pub fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a live struct.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur
}

/// Memory aligned for direct I/O.
#[derive(Debug)]
pub struct Aligned {
    ptr: std::ptr::NonNull<u8>,
    layout: std::alloc::Layout,
}

impl Aligned {
    /// Zeroed memory of `len` bytes, rounded up to the alignment.
    pub fn new(len: usize) -> Aligned {
        let len = len.max(1).next_multiple_of(ALIGN);
        let layout =
            std::alloc::Layout::from_size_align(len, ALIGN).expect("a small size and a power of two");
        // SAFETY: the size is not zero.
        let ptr = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(ptr) = std::ptr::NonNull::new(ptr) else { std::alloc::handle_alloc_error(layout) };
        Aligned { ptr, layout }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: we own `layout.size()` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.layout.size()) }
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

/// Opens `path` for direct writes; creates it, and empties it when `truncate`.
pub fn direct_file(path: &Path, truncate: bool) -> Outcome<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(truncate).custom_flags(libc::O_DIRECT);
    options
        .open(path)
        .map_err(|error| format!("{}: {error} (the file system must support O_DIRECT)", path.display()))
}

/// Makes a file of `bytes` written blocks: on ext4 durable writes into written blocks are ten times faster than into new.
pub fn written_file(path: &Path, bytes: u64) -> Outcome<File> {
    use std::os::unix::fs::FileExt;
    let file = direct_file(path, false)?;
    let chunk = Aligned::new(1 << 20);
    let mut at =
        file.metadata().map_err(|error| error.to_string())?.len() / chunk.len() as u64 * chunk.len() as u64;
    while at < bytes {
        file.write_all_at(&chunk, at).map_err(|error| format!("{}: {error}", path.display()))?;
        at += chunk.len() as u64;
    }
    file.sync_all().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(file)
}
