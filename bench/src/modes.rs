//! What the listener modes and a second shard cost: many small requests at one rate, against one and two shards, each with a
//! listener per shard (`direct`) and with one for all (`single`), where requests for partitions of the other shard take a
//! hop. Generator and broker share the cores, so the figure is the broker's CPU per request, not time.

use crate::load::{Case, Plan, TINY};
use crate::referee::spread;
use crate::server::{self, Place, Scratch};
use crate::{Outcome, generator};
use std::path::PathBuf;
use std::time::Duration;

/// How it runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub pelton: PathBuf,
    pub port: u16,
    pub rounds: usize,
    pub warmup: Duration,
    pub measure: Duration,
    /// Requests per second.
    pub rate: f64,
    pub scratch: Option<String>,
}

const MODES: [(usize, &str); 4] = [(1, "direct"), (1, "single"), (2, "direct"), (2, "single")];

/// Runs all rounds interleaved; the table.
pub fn run(options: &Options) -> Outcome<String> {
    let scratch = Scratch::new(options.scratch.as_deref(), "modes")?;
    let mut found: Vec<Vec<[f64; 4]>> = vec![Vec::new(); MODES.len()];
    for _ in 0..options.rounds {
        for ((shards, mode), found) in MODES.iter().zip(&mut found) {
            let dir = scratch.path.join("server");
            server::port_is_free(options.port)?;
            let cores = (*shards == 1).then(|| "0".to_string());
            let place = Place { port: options.port, dir: dir.clone(), cores };
            let extra = [format!("pelton.shards={shards}"), format!("pelton.mode={mode}")];
            let server = server::pelton(&options.pelton, &place, &extra)?;
            server::warm(&server.bootstrap)?;
            let case = Case { rate: options.rate, depth: 0, ..TINY };
            let plan = Plan::against(&server, options.warmup, options.measure, &[("flush.messages", "1")]);
            let run = generator::run(&case, &plan)?;
            eprintln!("{shards} shards, {mode}: {}", run.line());
            let (p50, p99) = (run.at(|found| &found.service, 0.5), run.at(|found| &found.service, 0.99));
            found.push([run.requests_per_s, p50, p99, run.cpu_us_per_request]);
            drop(server);
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
    let mut table = String::from(
        "| shards | mode | requests/s | p50 us | p99 us | broker CPU us/request |\n|---|---|---|---|---|---|\n",
    );
    for ((shards, mode), rounds) in MODES.iter().zip(&found) {
        let figure = |place: usize| spread(rounds.iter().map(|round| round[place]));
        let (rate, p50, p99, cpu) = (figure(0), figure(1), figure(2), figure(3));
        table += &format!("| {shards} | {mode} | {rate} | {p50} | {p99} | {cpu} |\n");
    }
    Ok(table)
}
