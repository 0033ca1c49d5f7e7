//! SIGINT and SIGTERM: the first one ends the run in all order, so that what was made is removed: brokers, namespaces, mounts, data.
//! A second one ends the process at once; then the next run removes it.

use pelton_bench::Outcome;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One has come.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Longest sleep without a look.
const LOOK: Duration = Duration::from_millis(20);

extern "C" fn note(_signal: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// From now on the first of these signals is noted. Programs started from here do not inherit that.
pub fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: zeroed bytes are a valid sigaction; the handler only stores to an atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// The run is to go on.
pub fn check() -> Outcome<()> {
    if ASKED.load(Ordering::Relaxed) {
        return Err("ended by a signal; what the run made is removed".into());
    }
    Ok(())
}

/// Sleeps, but not on after a signal.
pub fn sleep(wait: Duration) -> Outcome<()> {
    let until = Instant::now() + wait;
    loop {
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}
