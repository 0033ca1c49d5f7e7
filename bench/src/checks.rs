//! Short runs that judge instead of measure: `smoke` (all loads, correctness only) and `idle` (start time, idle CPU, memory).
//! Never compares systems.

use crate::load::{CASES, Plan};
use crate::server::{self, Place, Scratch, Server};
use crate::{Outcome, generator, procfs};
use std::path::Path;
use std::time::Duration;

/// All loads for `measure` each against a fresh floor and a fresh Pelton, then a clean stop. An error is a fault found.
pub fn smoke(pelton: Option<&Path>, port: u16, measure: Duration, extra: &[String]) -> Outcome<()> {
    let scratch = Scratch::new(None, "smoke")?;
    let place = |name: &str| Place { port, dir: scratch.path.join(name), cores: Some("0".into()) };
    for depth in [None, Some(2)] {
        server::port_is_free(port)?;
        let server = server::floor(&place("floor"), depth, 0)?;
        loads(if depth.is_some() { "floor durable" } else { "floor" }, &server, measure, &[])?;
    }
    let Some(program) = pelton else { return Ok(()) };
    server::port_is_free(port)?;
    let mut server = server::pelton(program, &place("pelton"), extra)?;
    server::warm(&server.bootstrap)?;
    for (name, messages) in [("Pelton durable", "1"), ("Pelton not flushed", "9223372036854775807")] {
        loads(name, &server, measure, &[("flush.messages".into(), messages.into())])?;
    }
    server.stop(Duration::from_secs(20))
}

fn loads(name: &str, server: &Server, measure: Duration, configs: &[(String, String)]) -> Outcome<()> {
    for case in CASES {
        let plan = Plan {
            bootstrap: server.bootstrap.clone(),
            warmup: Duration::from_millis(300),
            measure,
            broker_pids: vec![server.pid()],
            core: crate::sys::cores().max(2) - 1,
            topic: None,
            replicas: 1,
            configs: configs.to_vec(),
            catch_up: None,
        };
        let measured =
            generator::run(case, &plan).map_err(|error| format!("{name}, {}: {error}", case.name))?;
        eprintln!("{name}: {}", measured.line());
    }
    Ok(())
}

/// Start time, CPU over `seconds` of idling and memory of a fresh broker: one line of JSON.
pub fn idle(program: &Path, port: u16, seconds: u64, extra: &[String]) -> Outcome<String> {
    let scratch = Scratch::new(None, "idle")?;
    server::port_is_free(port)?;
    let place = Place { port, dir: scratch.path.clone(), cores: Some("0".into()) };
    let mut server = server::pelton(program, &place, extra)?;
    std::thread::sleep(Duration::from_secs(1));
    let (before, before_ns) = (procfs::usage(server.pid())?, procfs::run_ns(server.pid()));
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, after_ns) = (procfs::usage(server.pid())?, procfs::run_ns(server.pid()));
    let start_ms = server.start_time.as_secs_f64() * 1000.0;
    server.stop(Duration::from_secs(20))?;
    Ok(format!(
        "{{\"start_ms\":{start_ms:.1},\"idle_seconds\":{seconds},\"idle_cpu_us\":{},\"idle_switches\":{},\"rss_mb\":{:.1},\"rss_max_mb\":{:.1}}}",
        (after_ns - before_ns) / 1000,
        after.switches.saturating_sub(before.switches),
        after.rss_bytes as f64 / 1e6,
        after.rss_max_bytes as f64 / 1e6
    ))
}
