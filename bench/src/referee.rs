//! The referee: the same loads by this generator and by `rdkafka_performance`, librdkafka's own, against the same broker one
//! after the other, so that what the tables say does not rest on software of this project alone. Runs and prints; the
//! program is built by `bench/referee`.

use crate::compare::systems::{KAFKA, KAFKA_FLUSHED, PELTON, PELTON_LATER, PROCESSES, Programs, System};
use crate::load::{Case, Plan, SYNC};
use crate::server::{Scratch, Server};
use crate::{Outcome, client, generator, procfs};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How the referee runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub program: PathBuf,
    pub rounds: usize,
    pub warmup: Duration,
    pub measure: Duration,
    pub programs: Programs,
    pub scratch: Option<String>,
}

/// A load that both can make: one connection, batches of one record.
struct Load {
    name: &'static str,
    value_bytes: usize,
    in_flight: usize,
    /// Requests per second; 0: as fast as answers come.
    rate: f64,
}

const LOADS: [Load; 3] = [
    Load { name: "100 B, 1,000/s", value_bytes: 100, in_flight: 5, rate: 1000.0 },
    Load { name: "100 B, 5 in flight", value_bytes: 100, in_flight: 5, rate: 0.0 },
    Load { name: "990 KB, 2 in flight", value_bytes: 990_000, in_flight: 2, rate: 0.0 },
];

/// What a generator found: rate, service time of a Produce request, broker CPU.
#[derive(Clone, Copy, Debug)]
struct Found {
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_request: f64,
}

/// The child; dropped means killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs all loads against all brokers found; the table.
pub fn run(options: &Options) -> Outcome<String> {
    let scratch = Scratch::new(options.scratch.as_deref(), "referee")?;
    let mut table = String::from(
        "| broker | load | by | requests/s | p50 us | p99 us | broker CPU us/request |\n|---|---|---|---|---|---|---|\n",
    );
    let mut rows: Vec<(System, &Load, Vec<[Found; 2]>)> = Vec::new();
    for _ in 0..options.rounds {
        for process in PROCESSES {
            let systems = [PELTON, PELTON_LATER, KAFKA_FLUSHED, KAFKA].into_iter();
            let systems: Vec<System> = systems.filter(|system| system.process == process).collect();
            if systems.is_empty() {
                continue;
            }
            let dir = scratch.path.join("server");
            let Some(server) = options.programs.start(process, &dir)? else { continue };
            for system in systems {
                for load in &LOADS {
                    let pair = both(options, &server, system, load)?;
                    eprintln!("{} {}: {pair:?}", system.name, load.name);
                    match rows.iter_mut().find(|row| row.0 == system && row.1.name == load.name) {
                        Some(row) => row.2.push(pair),
                        None => rows.push((system, load, vec![pair])),
                    }
                }
            }
            drop(server);
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
    for (system, load, pairs) in &rows {
        for (place, by) in ["librdkafka", "pelton-bench"].into_iter().enumerate() {
            let figure = |which: fn(&Found) -> f64| spread(pairs.iter().map(|pair| which(&pair[place])));
            table += &format!(
                "| {} | {} | {by} | {} | {} | {} | {} |\n",
                system.name,
                load.name,
                figure(|found| found.requests_per_s),
                figure(|found| found.p50_us),
                figure(|found| found.p99_us),
                figure(|found| found.cpu_us_per_request)
            );
        }
    }
    Ok(table)
}

/// Median, and least and most if there are several.
pub fn spread(figures: impl Iterator<Item = f64>) -> String {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let digits = |value: f64| if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    match sorted.as_slice() {
        [] => "–".to_string(),
        [one] => digits(*one),
        [least, .., most] => {
            let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
            format!("{} ({}–{})", digits((low + high) / 2.0), digits(*least), digits(*most))
        }
    }
}

fn both(options: &Options, server: &Server, system: System, load: &Load) -> Outcome<[Found; 2]> {
    let theirs = librdkafka(options, server, system, load)?;
    let (rate, depth, value_bytes) = (load.rate, load.in_flight, load.value_bytes);
    let case = Case { name: "referee", value_bytes, rate, depth, ..SYNC };
    let plan = Plan::against(server, options.warmup, options.measure, system.configs);
    let ours = generator::run(&case, &plan)?;
    let ours = Found {
        requests_per_s: ours.requests_per_s,
        p50_us: ours.at(|found| &found.service, 0.5),
        p99_us: ours.at(|found| &found.service, 0.99),
        cpu_us_per_request: ours.cpu_us_per_request,
    };
    Ok([theirs, ours])
}

fn librdkafka(options: &Options, server: &Server, system: System, load: &Load) -> Outcome<Found> {
    let topic = format!("referee-{}", crate::load::now_ms());
    let mut admin = client::Client::connect(&server.bootstrap, Duration::from_secs(30))?;
    admin.create_topic(&topic, 1, system.configs)?;
    client::leaders(&server.bootstrap, &topic, Duration::from_secs(30))?;
    let stats = std::env::temp_dir().join(format!("{topic}.json"));
    let mut command = Command::new("taskset");
    let core = 1.min(crate::sys::cores().max(2) - 1).to_string();
    command.args(["-c", &core]).arg(&options.program);
    command.args(["-P", "-q", "-t", &topic, "-b", &server.bootstrap, "-p", "0", "-a", "-1", "-c", "-1"]);
    command.args(["-s", &load.value_bytes.to_string(), "-T", "500"]);
    command.arg("-Y").arg(format!("cat > {}", stats.display()));
    for setting in ["batch.num.messages=1", "linger.ms=0", "message.max.bytes=1000000"] {
        command.args(["-X", setting]);
    }
    command.args(["-X", &format!("max.in.flight={}", load.in_flight)]);
    command.args(["-X", &format!("queue.buffering.max.messages={}", load.in_flight * 20)]);
    if load.rate > 0.0 {
        command.args(["-r", &load.rate.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| format!("{}: {error}", options.program.display()))?;
    let mut running = Running(child);
    std::thread::sleep(options.warmup);
    let (before, from) = (procfs::usage(server.pid())?, std::time::Instant::now());
    std::thread::sleep(options.measure);
    let (after, seconds) = (procfs::usage(server.pid())?, from.elapsed().as_secs_f64());
    if let Ok(Some(status)) = running.0.try_wait() {
        return Err(format!("{} ended early: {status}", options.program.display()));
    }
    let text = std::fs::read_to_string(&stats).map_err(|error| format!("{}: {error}", stats.display()))?;
    drop(running);
    let _ = std::fs::remove_file(&stats);
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let windows: Vec<Window> = whole.lines().filter_map(window).collect();
    let wanted = (options.measure.as_millis() / 500) as usize;
    let windows = &windows[windows.len().saturating_sub(wanted + 1)..];
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
        return Err("librdkafka told no statistics".into());
    };
    let requests_per_s = (last.messages - first.messages) / ((last.time_us - first.time_us) / 1e6);
    let median = |which: fn(&Window) -> f64| {
        let mut sorted: Vec<f64> = windows[1..].iter().map(which).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let cpu_us = after.cpu_us.saturating_sub(before.cpu_us) as f64;
    Ok(Found {
        requests_per_s,
        p50_us: median(|window| window.p50_us),
        p99_us: median(|window| window.p99_us),
        cpu_us_per_request: cpu_us / (requests_per_s * seconds),
    })
}

/// One line of librdkafka's statistics: the time, the messages sent so far, and the round trips of the last half second to
/// the broker that had most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    time_us: f64,
    messages: f64,
    p50_us: f64,
    p99_us: f64,
}

fn window(line: &str) -> Option<Window> {
    let trips = line.match_indices("\"rtt\":").map(|(at, _)| &line[at..]);
    let busiest = trips.max_by(|a, b| number(a, "cnt").total_cmp(&number(b, "cnt")))?;
    // The total of all topics is the last of its name.
    let total = &line[line.rfind("\"txmsgs\":")?..];
    let found = Window {
        time_us: number(line, "ts"),
        messages: number(total, "txmsgs"),
        p50_us: number(busiest, "p50"),
        p99_us: number(busiest, "p99"),
    };
    (found.time_us.is_finite() && found.messages.is_finite()).then_some(found)
}

/// The first number of this name.
fn number(text: &str, name: &str) -> f64 {
    let rest = text.split_once(&format!("\"{name}\":")).map_or("", |(_, rest)| rest.trim_start());
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let line = "{ \"name\": \"p\", \"ts\":5000000, \"brokers\":{ \"a\":{ \"rtt\": { \"min\":1, \"p50\": 9, \"p99\": 9, \"cnt\":1 } }, \
                    \"b\":{ \"rtt\": { \"p50\": 120, \"p99\": 450, \"p99_99\":500, \"cnt\":80 } } }, \"topics\":{ \"t\":{ \"partitions\":{ \
                    \"0\":{ \"txmsgs\":7 } } } }, \"tx\":3, \"txmsgs\":99 }";
        let expected = Window { time_us: 5e6, messages: 99.0, p50_us: 120.0, p99_us: 450.0 };
        assert_eq!(window(line), Some(expected));
        assert_eq!(window("{ \"ts\":1 }"), None);
    }

    #[test]
    fn spreads_name_least_and_most() {
        assert_eq!(spread([3.0, 1.0, 200.0].into_iter()), "3.0 (1.0–200)");
        assert_eq!(spread([1.0, 4.0].into_iter()), "2.5 (1.0–4.0)");
        assert_eq!(spread([12.34].into_iter()), "12.3");
    }
}
