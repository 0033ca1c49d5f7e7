//! The comparison: every load against the floor, Pelton and Apache Kafka on one machine in one run, interleaved. Publishes
//! medians with their spread and ratios. Never quotes a figure from another run.

use crate::load::{CASES, Case, Measured, Plan};
use crate::server::{self, Place, Scratch, Server};
use crate::{Outcome, generator, limits, load};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the comparison runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub out: PathBuf,
    pub rounds: usize,
    pub measure: Duration,
    pub warmup: Duration,
    pub port: u16,
    /// Pelton's binary; none: left out.
    pub pelton: Option<PathBuf>,
    /// Kafka's jars; none: left out.
    pub jars: Option<PathBuf>,
    pub scratch: Option<String>,
    pub extra: Vec<String>,
}

/// What is started; one process serves several columns that differ by topic config only.
#[derive(Clone, Copy, PartialEq)]
enum Process {
    Floor,
    FloorDurable,
    Pelton,
    Kafka,
}

/// A column of the table.
struct Column {
    name: &'static str,
    process: Process,
    configs: &'static [(&'static str, &'static str)],
}

const EACH: &[(&str, &str)] = &[("flush.messages", "1")];
const LATER: &[(&str, &str)] = &[("flush.messages", "9223372036854775807")];
const COLUMNS: &[Column] = &[
    Column { name: "floor", process: Process::Floor, configs: &[] },
    Column { name: "floor durable", process: Process::FloorDurable, configs: &[] },
    Column { name: "Pelton durable (default)", process: Process::Pelton, configs: EACH },
    Column { name: "Pelton not flushed", process: Process::Pelton, configs: LATER },
    Column { name: "Kafka flush.messages=1", process: Process::Kafka, configs: EACH },
    Column { name: "Kafka default", process: Process::Kafka, configs: &[] },
];

/// Runs everything and writes `first.json` and `first.md` into the output directory.
pub fn run(options: &Options) -> Outcome<()> {
    let scratch = Scratch::new(options.scratch.as_deref(), "first")?;
    std::fs::create_dir_all(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let machine = limits::measure(&scratch.path)?;
    eprint!("{}", limits::table(&machine));
    let mut results: Vec<Vec<Vec<Measured>>> = vec![vec![Vec::new(); CASES.len()]; COLUMNS.len()];
    for round in 0..options.rounds {
        for process in [Process::Floor, Process::FloorDurable, Process::Pelton, Process::Kafka] {
            let dir = scratch.path.join("server");
            if let Some(server) = start(process, options, &dir)? {
                columns_of(process, &server, options, round, &mut results)?;
            }
            let _ = std::fs::remove_dir_all(&dir);
        }
        write(options, &machine, &results)?;
    }
    println!("{}", markdown(options, &machine, &results));
    Ok(())
}

fn start(process: Process, options: &Options, dir: &Path) -> Outcome<Option<Server>> {
    server::port_is_free(options.port)?;
    let place = Place { port: options.port, dir: dir.to_path_buf(), cores: Some("0".into()) };
    let server = match process {
        Process::Floor => Some(server::floor(&place, None, 0)?),
        Process::FloorDurable => Some(server::floor(&place, Some(2), 0)?),
        Process::Pelton => options
            .pelton
            .as_ref()
            .map(|program| server::pelton(program, &place, &options.extra))
            .transpose()?,
        Process::Kafka => options.jars.as_ref().map(|jars| server::kafka(jars, &place)).transpose()?,
    };
    if let Some(server) = &server {
        server::warm(&server.bootstrap)?;
        if process == Process::Kafka {
            // The JVM compiles what it has seen often: give it that before the clock runs.
            for case in [load::TINY, load::BULK] {
                generator::run(&case, &plan(server, options, Duration::from_secs(6), &[]))?;
            }
        }
    }
    Ok(server)
}

fn plan(server: &Server, options: &Options, measure: Duration, configs: &[(&str, &str)]) -> Plan {
    Plan::against(server, options.warmup, measure, configs)
}

fn columns_of(
    process: Process,
    server: &Server,
    options: &Options,
    round: usize,
    results: &mut [Vec<Vec<Measured>>],
) -> Outcome<()> {
    for (i, column) in COLUMNS.iter().enumerate().filter(|(_, column)| column.process == process) {
        for (j, case) in CASES.iter().enumerate() {
            let plan = plan(server, options, options.measure, column.configs);
            let measured = generator::run(case, &plan)
                .map_err(|error| format!("{}, {}: {error}", column.name, case.name))?;
            eprintln!("round {round} {}: {}", column.name, measured.line());
            results[i][j].push(measured);
        }
    }
    Ok(())
}

fn write(options: &Options, machine: &[limits::Limit], results: &[Vec<Vec<Measured>>]) -> Outcome<()> {
    let mut runs = Vec::new();
    for (column, cases) in COLUMNS.iter().zip(results) {
        for (round, measured) in cases.iter().flat_map(|rounds| rounds.iter().enumerate()) {
            runs.push(format!(
                "{{\"system\":\"{}\",\"round\":{round},\"run\":{}}}",
                column.name,
                measured.json()
            ));
        }
    }
    let machine_json: Vec<String> = machine
        .iter()
        .map(|(name, value, unit)| {
            format!("{{\"limit\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\"}}")
        })
        .collect();
    let json =
        format!("{{\"limits\":[{}],\n\"runs\":[\n{}\n]}}\n", machine_json.join(",\n"), runs.join(",\n"));
    for (name, text) in [("first.json", json), ("first.md", markdown(options, machine, results))] {
        let path = options.out.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// One row of a case's table: name, digits, value, and whether more is better.
type Row = (&'static str, usize, fn(&Measured) -> f64, bool);

fn rows(case: &Case) -> Vec<Row> {
    let latency: [Row; 2] = [("p50 us", 0, |m| m.p50_us, false), ("p99 us", 0, |m| m.p99_us, false)];
    let cpu: Row = ("broker CPU us/request", 2, |m| m.cpu_us_per_request, false);
    match case.name {
        "bulk" => vec![
            ("MB/s", 0, |m: &Measured| m.mb_per_s, true),
            ("broker CPU-s/GB", 3, |m: &Measured| m.cpu_s_per_gb, false),
            latency[0],
            latency[1],
        ],
        "tiny" => vec![("requests/s", 0, |m: &Measured| m.requests_per_s, true), cpu, latency[0], latency[1]],
        _ => vec![latency[0], latency[1], ("requests/s", 0, |m: &Measured| m.requests_per_s, true), cpu],
    }
}

fn median(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((*sorted.get(sorted.len() / 2)?, *sorted.first()?, *sorted.last()?))
}

fn markdown(options: &Options, machine: &[limits::Limit], results: &[Vec<Vec<Measured>>]) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "# First figures\n\nKernel {}, {} cores; broker on core 0, generator on core 1, cubic on the generator's and the floor's \
         sockets, closed loop, acks=all, {} interleaved rounds of {} s after {} s of warm-up. Median (min-max); factor against \
         Kafka default, above 1 is better than Kafka. Every answer's error code and offset was checked.\n\n{}",
        kernel.trim(),
        crate::sys::cores(),
        options.rounds,
        options.measure.as_secs_f64(),
        options.warmup.as_secs_f64(),
        limits::table(machine)
    );
    for (j, case) in CASES.iter().enumerate() {
        text.push_str(&format!(
            "\n## {}: {} connections x {}, {} x {} B per batch, {} partitions\n\n| |",
            case.name, case.conns, case.depth, case.records, case.value_bytes, case.partitions
        ));
        COLUMNS.iter().for_each(|column| text.push_str(&format!(" {} |", column.name)));
        text.push_str(&format!("\n|{}\n", "---|".repeat(COLUMNS.len() + 1)));
        for row in rows(case) {
            text.push_str(&markdown_row(row, j, results));
        }
    }
    text
}

fn markdown_row((name, digits, value, more): Row, case: usize, results: &[Vec<Vec<Measured>>]) -> String {
    let of = |column: usize| median(&results[column][case].iter().map(value).collect::<Vec<_>>());
    let kafka = of(COLUMNS.len() - 1).map(|(mid, _, _)| mid);
    let mut text = format!("| {name} |");
    for column in 0..COLUMNS.len() {
        match (of(column), kafka) {
            (None, _) => text.push_str(" - |"),
            (Some((mid, low, high)), None) => {
                text.push_str(&format!(" {mid:.digits$} ({low:.digits$}-{high:.digits$}) |"))
            }
            (Some((mid, low, high)), Some(kafka)) => {
                let factor = if more { mid / kafka } else { kafka / mid };
                text.push_str(&format!(" {mid:.digits$} ({low:.digits$}-{high:.digits$}), x{factor:.2} |"));
            }
        }
    }
    text.push('\n');
    text
}
