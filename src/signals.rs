//! SIGTERM and SIGINT: held back for every thread, waited for by one. Does not say what they mean.

use crate::failure::Failure;

/// The signals that ask the broker to stop.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Holds the signals back. To be called before any other thread exists: threads take over what is held back from the
    /// one that starts them.
    pub fn hold() -> Result<Signals, Failure> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset makes `set` a valid set before anything reads it; the other calls get that live set.
        let (done, set) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            (libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()), set)
        };
        if done == 0 { Ok(Signals(set)) } else { Err(Failure::error("signals cannot be held back")) }
    }

    /// Names one of them if it has come.
    pub fn poll(&self) -> Option<&'static str> {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a live set and a live time; nothing more is asked about the signal.
        match unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &at_once) } {
            libc::SIGINT => Some("SIGINT"),
            libc::SIGTERM => Some("SIGTERM"),
            _ => None,
        }
    }

    /// Waits for one of them and names it.
    pub fn wait(&self) -> &'static str {
        loop {
            let mut signal = 0;
            // SAFETY: a live set, and room for a signal's number.
            let done = unsafe { libc::sigwait(&self.0, &mut signal) };
            match (done, signal) {
                (0, libc::SIGINT) => return "SIGINT",
                (0, _) => return "SIGTERM",
                _ => {}
            }
        }
    }
}
