//! From a value that was read to a verdict. Pure functions; a value that makes no sense is `Unknown`, never a guess.

use crate::State;

/// Below this much locked memory the rings of a few shards do not fit, bytes.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;
/// A journal and a few segments have to fit, bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

fn warn_unless(fine: bool) -> State {
    if fine { State::Ok } else { State::Warn }
}

fn number_at_least(value: &str, least: u64) -> State {
    if value == "unlimited" {
        return State::Ok;
    }
    value.parse::<u64>().map_or(State::Unknown, |number| warn_unless(number >= least))
}

pub(crate) fn kernel(release: &str) -> State {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 1) => State::Ok,
        (Some(Ok(_)), Some(Ok(_))) => State::Fatal,
        _ => State::Unknown,
    }
}

/// 1 = only privileged processes, which may well include us: the self-test decides. 2 = nobody.
pub(crate) fn io_uring_disabled(value: &str) -> State {
    match value {
        "0" => State::Ok,
        "1" => State::Warn,
        "2" => State::Fatal,
        _ => State::Unknown,
    }
}

pub(crate) fn memlock(value: &str) -> State {
    number_at_least(value, MEMLOCK_BYTES_MIN)
}

pub(crate) fn huge_pages(value: &str) -> State {
    warn_unless(value != "always")
}

pub(crate) fn nofile(value: &str) -> State {
    number_at_least(value, 100_000)
}

pub(crate) fn file_system(name: &str) -> State {
    match name {
        "xfs" | "ext4" => State::Ok,
        "tmpfs" | "nfs" | "cifs" | "fuse" | "overlayfs" => State::Warn,
        _ => State::Info,
    }
}

pub(crate) fn scheduler(value: &str) -> State {
    warn_unless(value == "none")
}

pub(crate) fn free_space(value: &str) -> State {
    number_at_least(value, FREE_BYTES_MIN)
}

pub(crate) fn somaxconn(value: &str) -> State {
    number_at_least(value, 4096)
}

/// bbr paces with timers, which costs on a local network; whether that matters depends on the network: said, not warned.
pub(crate) fn congestion(value: &str) -> State {
    if value == "cubic" || value == "reno" { State::Ok } else { State::Info }
}

pub(crate) fn governor(value: &str) -> State {
    warn_unless(value == "performance")
}

/// Any other source costs a system call per look at the clock.
pub(crate) fn clock_source(value: &str) -> State {
    warn_unless(matches!(value, "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page"))
}
