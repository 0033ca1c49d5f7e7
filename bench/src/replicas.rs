//! H8: what replication costs. Three processes of Pelton share core 0, the generator has core 1; the same load goes into topics with
//! one replica and with three; the same for Apache Kafka, which gets both cores, round after round. CPU is that of all three processes. Beside that one
//! process of Pelton with two shards: one replica, and two that are kept over the rings between them.

use crate::cluster::{Cluster, System};
use crate::compare::results::Median;
use crate::limits_replicas::{self, Waited};
use crate::load::{Case, Measured, PACED, Plan, TINY};
use crate::net::{NODES, Net};
use crate::server::Scratch;
use crate::{Outcome, client, generator, sys};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How it runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub pelton: Option<PathBuf>,
    pub jars: Option<PathBuf>,
    pub port: u16,
    pub rounds: usize,
    pub warmup: Duration,
    pub measure: Duration,
    /// Only systems whose names contain this.
    pub systems: String,
    pub scratch: Option<String>,
    pub extra: Vec<String>,
}

/// The loads: 10 KB a request as producers with lingering send them, and many small requests. Open loops, so that every column has the
/// same rate, far below what one core can do three times.
const LOADS: [(&str, Case); 2] = [
    ("10 KB, 1,000/s", Case { tails: 0, ..PACED }),
    ("100 B, 2,000/s", Case { rate: 2_000.0, depth: 0, conns: 16, partitions: 16, ..TINY }),
];
const EACH: &[(&str, &str)] = &[("flush.messages", "1")];
const LATER: &[(&str, &str)] = &[("flush.messages", "9223372036854775807")];

/// One column: name, which processes, topic settings.
type Column = (&'static str, Process, &'static [(&'static str, &'static str)], &'static [i16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// Three nodes of Pelton.
    Three,
    /// One node with two shards.
    TwoShards,
    /// Three nodes of Kafka.
    Kafka,
}

static COLUMNS: [Column; 5] = [
    ("Pelton, three nodes", Process::Three, EACH, &[1, 3]),
    ("Pelton unflushed, three nodes", Process::Three, LATER, &[1, 3]),
    ("Pelton, two shards of one node", Process::TwoShards, EACH, &[1, 2]),
    ("Kafka, three nodes", Process::Kafka, &[], &[1, 3]),
    ("Kafka flushed, three nodes", Process::Kafka, EACH, &[1, 3]),
];

struct Row {
    column: usize,
    load: usize,
    replicas: i16,
    measured: Outcome<Measured>,
}

impl Process {
    fn nodes(self) -> usize {
        if self == Process::TwoShards { 1 } else { NODES }
    }

    /// Its columns that are wanted.
    fn columns(self, options: &Options) -> impl Iterator<Item = (usize, &'static Column)> {
        let wanted =
            move |(_, column): &(usize, &Column)| column.1 == self && column.0.contains(&options.systems);
        COLUMNS.iter().enumerate().filter(wanted)
    }

    fn start(self, options: &Options, scratch: &Scratch) -> Outcome<Option<Cluster>> {
        if self.columns(options).next().is_none() {
            return Ok(None);
        }
        let system = match (self, &options.pelton, &options.jars) {
            (Process::Three, Some(program), _) => System::Pelton(program.clone(), options.extra.clone()),
            (Process::TwoShards, Some(program), _) => {
                let shards = ["pelton.shards=2".to_string()];
                System::Pelton(program.clone(), [&options.extra[..], &shards].concat())
            }
            (Process::Kafka, _, Some(jars)) => System::Kafka(jars.clone(), Vec::new()),
            _ => return Ok(None),
        };
        let dir = scratch.path.join("cluster");
        // Two shards need two cores, and so do three JVMs; the generator shares one of them. Said in words, since a process
        // that is not told has the cores of the one that starts it, and that is the generator's.
        let cores = if self == Process::Three { Some("0") } else { Some("0,1") };
        let mut cluster = Cluster::of(system, Net::loopback(options.port), &dir, cores, self.nodes())?;
        (1..=self.nodes()).try_for_each(|node| cluster.start(node))?;
        Ok(Some(cluster))
    }
}

/// Makes topics until one with as many replicas as there are nodes can be made: then all have found each other.
fn warm(cluster: &mut Cluster, bootstrap: &str) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let nodes = cluster.nodes();
    loop {
        let topic = format!("bench-warm-{}", crate::load::now_ms());
        let made = client::Client::connect(bootstrap, Duration::from_secs(30))
            .and_then(|mut client| client.create_replicated(&topic, 1, nodes as i16, &[]));
        if let Some(ended) = (1..=nodes).find_map(|node| cluster.ended(node)) {
            return Err(ended);
        }
        match made {
            Ok(()) => return client::leaders(bootstrap, &topic, Duration::from_secs(30)).map(|_| ()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Runs all rounds interleaved: a table, and what is wanted of it.
pub fn run(options: &Options) -> Outcome<String> {
    let scratch = Scratch::new(options.scratch.as_deref(), "replicas")?;
    let (mut rows, mut device) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        sys::pin(1.min(sys::cores().max(2) - 1))?;
        device.push(limits_replicas::measure(&scratch.path)?);
        for process in [Process::Three, Process::TwoShards, Process::Kafka] {
            if let Some(mut cluster) = process.start(options, &scratch)? {
                let bootstrap = cluster.addresses().join(",");
                warm(&mut cluster, &bootstrap)?;
                columns(options, process, round, &cluster, &bootstrap, &mut rows);
            }
            let _ = std::fs::remove_dir_all(scratch.path.join("cluster"));
        }
    }
    Ok(table(&rows, &device))
}

fn columns(
    options: &Options,
    process: Process,
    round: usize,
    cluster: &Cluster,
    bootstrap: &str,
    rows: &mut Vec<Row>,
) {
    let pids: Vec<u32> = (1..=process.nodes()).filter_map(|node| cluster.pid(node)).collect();
    // The JVM compiles what it has seen often: give it that before any clock runs.
    let warmup =
        if process == Process::Kafka { options.warmup.max(Duration::from_secs(5)) } else { options.warmup };
    for (column, (name, _, configs, factors)) in process.columns(options) {
        for (load, (load_name, case)) in LOADS.iter().enumerate() {
            for replicas in *factors {
                let plan = Plan {
                    bootstrap: bootstrap.to_string(),
                    warmup,
                    measure: options.measure,
                    broker_pids: pids.clone(),
                    core: 1.min(sys::cores().max(2) - 1),
                    topic: None,
                    replicas: *replicas,
                    configs: configs
                        .iter()
                        .map(|(key, value)| (key.to_string(), value.to_string()))
                        .collect(),
                    catch_up: None,
                };
                let measured = generator::run(case, &plan);
                let said = measured.as_ref().map_or_else(String::clone, Measured::line);
                eprintln!("round {round}: {name}, {load_name}, {replicas} replicas: {said}");
                rows.push(Row { column, load, replicas: *replicas, measured });
            }
        }
    }
}

type Figure = fn(&Measured) -> f64;
const RATE: Figure = |run| run.requests_per_s;
const P50: Figure = |run| run.p50_us;
const P99: Figure = |run| run.p99_us;
const CPU: Figure = |run| run.cpu_us_per_request;

fn median(rows: &[Row], column: usize, load: usize, replicas: i16, figure: Figure) -> Option<Median> {
    let cell = rows.iter().filter(|row| (row.column, row.load, row.replicas) == (column, load, replicas));
    Median::of(cell.filter_map(|row| row.measured.as_ref().ok()).map(figure))
}

/// What of the latencies is the device's: one line for each load.
fn device_ratios(device: &[[[Waited; 2]; 2]]) -> String {
    let mut text = String::new();
    for (load, (name, _)) in LOADS.iter().enumerate() {
        let over = |figure: fn(Waited) -> f64| {
            let of = |files: usize| Median::of(device.iter().map(|round| figure(round[load][files])));
            Some(of(1)?.mid / of(0)?.mid)
        };
        if let (Some(p50), Some(p99)) = (over(|us| us.p50_us), over(|us| us.p99_us)) {
            text += &format!(
                "| the device alone: one write, three at once | {name} | | x{p50:.2} | x{p99:.2} |\n"
            );
        }
    }
    text
}

fn table(rows: &[Row], device: &[[[Waited; 2]; 2]]) -> String {
    let mut text = String::from(
        "| system | load | replicas | requests/s | p50 us | p99 us | CPU us/request |\n|---|---|---|---|---|---|---|\n",
    );
    let mut ratios =
        String::from("| system | load | over one replica: CPU | p50 | p99 |\n|---|---|---|---|---|\n");
    for (column, (name, _, _, factors)) in COLUMNS.iter().enumerate() {
        for (load, (load_name, _)) in LOADS.iter().enumerate() {
            for replicas in *factors {
                let failed = rows.iter().find_map(|row| {
                    let here = (row.column, row.load, row.replicas) == (column, load, *replicas);
                    row.measured.as_ref().err().filter(|_| here)
                });
                let cell = |figure: Figure| match median(rows, column, load, *replicas, figure) {
                    Some(median) => format!("{:.1} ({:.1}-{:.1})", median.mid, median.low, median.high),
                    None => "-".to_string(),
                };
                if median(rows, column, load, *replicas, CPU).is_some() {
                    let figures = [RATE, P50, P99, CPU].map(cell).join(" | ");
                    text += &format!("| {name} | {load_name} | {replicas} | {figures} |\n");
                } else if let Some(error) = failed {
                    text += &format!("| {name} | {load_name} | {replicas} | {error} | | | |\n");
                }
            }
            let over = |figure: Figure| {
                let one = median(rows, column, load, 1, figure)?.mid;
                Some(median(rows, column, load, factors[1], figure)?.mid / one)
            };
            if let (Some(cpu), Some(p50), Some(p99)) = (over(CPU), over(P50), over(P99)) {
                ratios += &format!("| {name} | {load_name} | x{cpu:.2} | x{p50:.2} | x{p99:.2} |\n");
            }
        }
    }
    ratios += &device_ratios(device);
    format!(
        "{text}\n{ratios}\nWanted: three replicas CPU <= x3.3, p99 <= x2.2; two on two shards CPU <= x1.8, p50 <= x1.5.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians_and_failures_are_told() {
        let run = |replicas, cpu| {
            let measured =
                Measured { cpu_us_per_request: cpu, p50_us: 10.0, p99_us: 20.0, ..Measured::default() };
            Row { column: 0, load: 0, replicas, measured: Ok(measured) }
        };
        let failed = Row { column: 2, load: 0, replicas: 2, measured: Err("error 38".into()) };
        let text = table(&[run(1, 2.0), run(1, 4.0), run(1, 3.0), run(3, 9.0), failed], &[]);
        assert!(text.contains("| Pelton, three nodes | 10 KB, 1,000/s | x3.00 | x1.00 | x1.00 |"), "{text}");
        assert!(text.contains("| 2 | error 38 |"), "{text}");
    }
}
