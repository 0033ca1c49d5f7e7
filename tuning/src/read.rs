//! Values of the kernel and of this process, as text. Reads below a given root so that tests can bring a tree of their own.

use std::fs;
use std::path::Path;

/// The trimmed text of `path` below `root`; none if it is not there or empty.
pub fn text(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// A sysctl, by its path below /proc/sys.
pub fn sysctl(root: &Path, path: &str) -> Option<String> {
    text(root, &format!("proc/sys/{path}"))
}

/// The kernel's release, such as `6.18.5`.
pub fn kernel_release(root: &Path) -> Option<String> {
    sysctl(root, "kernel/osrelease")
}

/// The word in brackets of a file such as `always [madvise] never`; the whole text if there are none.
pub fn chosen(root: &Path, path: &str) -> Option<String> {
    let text = text(root, path)?;
    let inside =
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word.to_string());
    Some(inside.unwrap_or(text))
}

/// Memory this process may lock, bytes, or `unlimited`. With CAP_IPC_LOCK the kernel does not count it.
pub fn memlock_bytes() -> Option<String> {
    limit(libc::RLIMIT_MEMLOCK).map(|(soft, _)| shown(soft))
}

/// Descriptors this process may allow itself (the start raises the soft limit to it).
pub fn nofile_hard() -> Option<String> {
    limit(libc::RLIMIT_NOFILE).map(|(_, hard)| shown(hard))
}

fn shown(value: u64) -> String {
    if value == libc::RLIM_INFINITY { "unlimited".to_string() } else { value.to_string() }
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit that the call fills in.
    let done = unsafe { libc::getrlimit(resource, &mut limit) };
    (done == 0).then_some((limit.rlim_cur, limit.rlim_max))
}
