//! What a process cost, read from /proc. Never signals a process.

use crate::Outcome;

/// A process's counters at one moment, all threads and io_uring workers included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, microseconds (clock ticks of 10 ms).
    pub cpu_us: u64,
    /// Voluntary and involuntary context switches of the live threads.
    pub switches: u64,
    /// Resident memory now, bytes.
    pub rss_bytes: u64,
    /// Most resident memory so far, bytes.
    pub rss_max_bytes: u64,
    /// Bytes it caused to be written to devices.
    pub written_bytes: u64,
}

impl Usage {
    /// Adds another process's.
    pub fn add(&mut self, other: &Usage) {
        self.cpu_us += other.cpu_us;
        self.switches += other.switches;
        self.rss_bytes += other.rss_bytes;
        self.rss_max_bytes += other.rss_max_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// Reads the counters of `pid`; an error when the process is gone.
pub fn usage(pid: u32) -> Outcome<Usage> {
    let gone = |error: std::io::Error| format!("process {pid}: {error} (did the broker die?)");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(gone)?;
    // The name in parentheses may hold spaces: count fields after the last ')'.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: plain system call.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let mut usage = Usage { cpu_us: (ticks(11) + ticks(12)) * 1_000_000 / per_second, ..Usage::default() };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(gone)?;
    usage.rss_bytes = field(&status, "VmRSS:") * 1024;
    usage.rss_max_bytes = field(&status, "VmHWM:") * 1024;
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    usage.written_bytes = field(&io, "write_bytes:");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).map_err(gone)?.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        usage.switches +=
            field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
    }
    Ok(usage)
}

/// Nanoseconds the live threads of `pid` have run, as the scheduler counts them.
pub fn run_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    stats.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_itself() {
        let usage = super::usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000 && usage.rss_max_bytes >= usage.rss_bytes / 2);
        assert!(super::usage(u32::MAX - 1).is_err());
    }
}
