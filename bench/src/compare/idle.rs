//! H9: what a broker costs that has nothing to do: start time, memory and CPU, with and without 10,000 idle connections;
//! what 10,000 partitions take to make and to keep.

use super::systems::{Process, Programs};
use crate::client::Client;
use crate::{Outcome, procfs};
use std::path::Path;
use std::time::{Duration, Instant};

/// Connections that do nothing.
const CONNECTIONS: usize = 10_000;
/// Partitions that hold nothing.
const PARTITIONS: i32 = 10_000;

/// What was found; memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle {
    pub start_s: f64,
    pub restart_s: f64,
    pub rss: f64,
    /// CPU microseconds per second of idling.
    pub cpu_us_per_s: f64,
    pub rss_per_connection: f64,
    /// CPU microseconds per second with the idle connections.
    pub connected_cpu_us_per_s: f64,
    pub create_partitions_s: f64,
    pub rss_per_partition: f64,
}

/// Measures a fresh broker; none if its program is not there.
pub fn measure(programs: &Programs, process: Process, dir: &Path) -> Outcome<Option<Idle>> {
    let Some(mut server) = programs.start(process, dir)? else { return Ok(None) };
    let mut idle = Idle { start_s: server.start_time.as_secs_f64(), ..Idle::default() };
    let pid = server.pid();
    std::thread::sleep(Duration::from_secs(2));
    idle.cpu_us_per_s = resting(pid)?;
    idle.rss = procfs::usage(pid)?.rss_bytes as f64;
    let connections: Outcome<Vec<Client>> =
        (0..CONNECTIONS).map(|_| Client::connect(&server.bootstrap, Duration::from_secs(30))).collect();
    let connections = connections?;
    std::thread::sleep(Duration::from_secs(1));
    idle.rss_per_connection = (procfs::usage(pid)?.rss_bytes as f64 - idle.rss).max(0.0) / CONNECTIONS as f64;
    idle.connected_cpu_us_per_s = resting(pid)?;
    drop(connections);
    std::thread::sleep(Duration::from_secs(2));
    let before = procfs::usage(pid)?.rss_bytes as f64;
    let from = Instant::now();
    Client::connect(&server.bootstrap, Duration::from_secs(300))?.create_topic("idle", PARTITIONS, &[])?;
    idle.create_partitions_s = from.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(2));
    idle.rss_per_partition = (procfs::usage(pid)?.rss_bytes as f64 - before).max(0.0) / f64::from(PARTITIONS);
    server.kill();
    drop(server);
    let server = programs.start(process, dir)?;
    idle.restart_s = server.map_or(f64::NAN, |server| server.start_time.as_secs_f64());
    Ok(Some(idle))
}

/// CPU microseconds per second over three seconds, from the scheduler's own count.
fn resting(pid: u32) -> Outcome<f64> {
    let before = procfs::run_ns(pid);
    std::thread::sleep(Duration::from_secs(3));
    Ok(procfs::run_ns(pid).saturating_sub(before) as f64 / 3e3)
}
