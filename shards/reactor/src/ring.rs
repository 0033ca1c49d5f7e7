//! The side ring: queue of submissions, completions, and the place where a shard sleeps.
//! Knows nothing about what the operations mean.

use std::collections::VecDeque;
use std::io;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, squeue};

/// IORING_ENTER_GETEVENTS: also run the completions that were put off until we ask.
const ENTER_GETEVENTS: u32 = 1;
/// Enters of one turn. The kernel runs at most about 20 deferred completions per enter that does not wait (since 6.14),
/// so that with thousands of connections one enter per turn lets some of them starve.
const ENTERS_PER_TURN: usize = 32;

/// Workers of the kernel for what would block, on files. A thread's first ring fixes their number by its own length, and the
/// executor's first ring is short: with one worker, writes wait for a flush that has nothing to do with them. With many, small
/// writes wait for large ones.
const WORKERS_MAX: u32 = 4;

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Name of the operation.
    pub name: u64,
    /// Its result: a count, or a negative errno.
    pub result: i32,
    /// The kernel's flags.
    pub flags: u32,
}

/// The ring of one shard; made and used on the shard's own thread.
pub struct Ring {
    uring: IoUring,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
}

impl Ring {
    /// A ring for about `connections` connections.
    pub fn new(connections: usize) -> io::Result<Ring> {
        let cq = (2 * connections).clamp(4096, 65536).next_power_of_two() as u32;
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(cq)
            .build((cq / 2).min(4096))?;
        uring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, 0])?;
        Ok(Ring { uring, backlog: VecDeque::new() })
    }

    /// The ring itself, for registrations.
    pub fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Queues an entry; it goes to the kernel with the next [`Ring::enter`].
    ///
    /// # Safety
    /// All memory and descriptors the entry names must stay valid until its completion.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: handed on to the caller.
        if !self.backlog.is_empty() || unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Moves entries that found the queue full into it. Returns how many entries it holds, and whether the kernel has
    /// completions put off.
    fn fill(&mut self) -> (u32, bool) {
        let mut submission = self.uring.submission();
        while let Some(entry) = self.backlog.pop_front() {
            // SAFETY: the promise given to `push`.
            if unsafe { submission.push(&entry) }.is_err() {
                self.backlog.push_front(entry);
                break;
            }
        }
        submission.sync();
        (submission.len() as u32, submission.taskrun() || submission.cq_overflow())
    }

    /// Hands everything queued to the kernel and runs put-off completions; never waits.
    pub fn enter(&mut self) -> io::Result<()> {
        for _ in 0..ENTERS_PER_TURN {
            let (queued, put_off) = self.fill();
            if queued == 0 && !put_off {
                return Ok(());
            }
            // SAFETY: no argument pointer is passed; the entries' memory is promised by `push`.
            let entered =
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) };
            if !tolerate(entered)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Like [`Ring::enter`], but sleeps until there is a completion or `timeout_ns` has passed (None: as long as it
    /// takes).
    pub fn wait(&mut self, timeout_ns: Option<u64>) -> io::Result<()> {
        self.fill();
        let want = usize::from(self.backlog.is_empty() && self.uring.completion().is_empty());
        let entered = match timeout_ns {
            None => self.uring.submitter().submit_and_wait(want),
            Some(ns) => {
                let timeout = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                self.uring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&timeout))
            }
        };
        tolerate(entered).map(drop)
    }

    /// Moves up to `max` completions into `into`.
    pub fn take(&mut self, max: usize, into: &mut Vec<Completion>) {
        let completions = self.uring.completion().take(max);
        into.extend(completions.map(|c| Completion {
            name: c.user_data(),
            result: c.result(),
            flags: c.flags(),
        }));
    }

    /// True when an [`Ring::enter`] or a [`Ring::take`] would find something. No system call.
    pub fn has_work(&mut self) -> bool {
        if !self.backlog.is_empty() || !self.uring.completion().is_empty() {
            return true;
        }
        let mut submission = self.uring.submission();
        submission.sync();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }
}

/// True if the call went through, false if it is to be tried again later: busy means that completions must be taken
/// first, again and interrupted speak for themselves, and a timeout has passed.
fn tolerate(entered: io::Result<usize>) -> io::Result<bool> {
    match entered {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ETIME) => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    #[test]
    fn more_entries_than_the_queue_holds_all_complete() {
        let mut ring = Ring::new(1).unwrap();
        let count = 10_000;
        for name in 1..=count {
            // SAFETY: a nop names no memory.
            unsafe { ring.push(opcode::Nop::new().build().user_data(name)) };
        }
        let mut seen = Vec::new();
        while ring.has_work() {
            ring.enter().unwrap();
            ring.take(1000, &mut seen);
        }
        let mut names: Vec<u64> = seen.iter().map(|c| c.name).collect();
        names.sort_unstable();
        assert_eq!(names, (1..=count).collect::<Vec<u64>>());
    }
}
