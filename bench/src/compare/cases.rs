//! The cases H1 to H7: which loads each system gets, and in what order. Runs them one after the other on a started server.

use super::results::{Results, Row};
use super::systems::*;
use crate::client::Client;
use crate::load::{BULK, Case, CatchUp, Measured, PACED, Plan, SYNC, TINY};
use crate::server::Server;
use crate::{Outcome, generator};
use std::time::Duration;

/// Names of all cases.
pub const CASES: [&str; 8] = ["H1", "H2", "H3", "H4", "H5", "H6", "H7", "H9"];
/// Rates of H6, requests of 10 KB per second.
pub const RATES: [f64; 5] = [500.0, 1000.0, 2000.0, 4000.0, 8000.0];
/// Partition counts of H7.
pub const PARTITIONS: [i32; 4] = [1, 100, 1000, 10_000];

/// Rounds in which H9's many connections are watched long enough to tell whether all are served alike.
const FAIR_ROUNDS: usize = 3;
/// Longest run of H6.
const LONGEST: Duration = Duration::from_secs(11);

/// Settings of a topic that stays within 1 GiB a partition.
const BOUNDED: [(&str, &str); 2] = [("retention.bytes", "1073741824"), ("segment.bytes", "268435456")];

/// A topic's files go this soon after it is deleted, ms (Kafka's default is a minute).
const DELETE_DELAY: (&str, &str) = ("file.delete.delay.ms", "500");
/// How long the files of a deleted topic take to be gone; nothing is measured meanwhile.
const DELETED: Duration = Duration::from_millis(1500);

/// How long each run takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub warmup: Duration,
    pub measure: Duration,
    /// Of H3 once, in the first round, which is to be kept up.
    pub long: Duration,
    /// Of H9's many connections: long enough for a 99th percentile of each.
    pub fair: Duration,
}

/// Runs the cases of one system on its server and adds a row for each run.
pub struct Runner<'a> {
    pub server: &'a Server,
    pub system: System,
    pub round: usize,
    pub rounds: usize,
    pub times: Times,
    pub results: &'a mut Results,
}

impl Runner<'_> {
    /// One case; cases that do not concern this system add nothing.
    pub fn case(&mut self, name: &str) {
        let system = self.system;
        let spins = [FLOOR_SPINNING, PELTON_SPINNING].contains(&system);
        let floor = self.is_floor();
        match name {
            "H1" => self.run("H1", String::new(), SYNC, self.times.measure),
            _ if spins => {}
            "H2" => self.run("H2", String::new(), TINY, self.times.measure),
            "H3" if system != FLOOR && system != TANSU => {
                self.run("H3", String::new(), BULK, self.times.measure);
                let kept_up = [FLOOR_DURABLE, PELTON, KAFKA_FLUSHED].contains(&system);
                if kept_up && self.round == 0 && self.times.long > self.times.measure {
                    self.kept_up();
                }
            }
            _ if floor => {}
            "H4" if [PELTON, KAFKA].contains(&system) => self.tails(),
            "H5" if [PELTON, KAFKA].contains(&system) => self.catch_up(),
            "H6" => self.paced(),
            "H7" if [PELTON, KAFKA].contains(&system) => self.partitions(),
            _ => {}
        }
    }

    fn is_floor(&self) -> bool {
        [FLOOR, FLOOR_DURABLE, FLOOR_SPINNING].contains(&self.system)
    }

    fn plan(&self, measure: Duration) -> Plan {
        let mut plan = Plan::against(self.server, self.times.warmup, measure, self.system.configs);
        plan.configs.push((DELETE_DELAY.0.to_string(), DELETE_DELAY.1.to_string()));
        plan
    }

    fn run(&mut self, case: &'static str, variant: String, load: Case, measure: Duration) {
        let plan = self.plan(measure);
        self.run_plan(case, variant, load, &plan);
    }

    /// Deletes what a run of big batches wrote: some GB each, and all runs of a system together fill a disk.
    fn delete(&self, topic: &str) {
        let deleted = Client::connect(&self.server.bootstrap, Duration::from_secs(30))
            .and_then(|mut client| client.delete_topic(topic));
        match deleted {
            Ok(()) => std::thread::sleep(DELETED),
            Err(error) => eprintln!("{error}"),
        }
    }

    fn run_plan(&mut self, case: &'static str, variant: String, load: Case, plan: &Plan) {
        let result = generator::run(&load, plan);
        let name = format!("round {} {case} {variant} {}", self.round, self.system.name);
        match &result {
            Ok(measured) => eprintln!("{name}: {}", measured.line()),
            Err(error) => eprintln!("{name}: {error}"),
        }
        if let Ok(measured) = &result
            && load.name == BULK.name
            && !self.is_floor()
        {
            self.delete(&measured.topic);
        }
        self.results.rows.push(Row { case, variant, system: self.system, round: self.round, result });
    }

    /// H3 for long. Old segments go meanwhile, or a minute of it would fill the disk.
    fn kept_up(&mut self) {
        let mut plan = self.plan(self.times.long);
        plan.configs.extend(BOUNDED.map(|(key, value)| (key.to_string(), value.to_string())));
        self.run_plan("H3", "kept up".to_string(), BULK, &plan);
    }

    /// Half of what this system reached in H3, requests per second; measured now if H3 was left out.
    fn half(&mut self) -> Option<f64> {
        let reached = |results: &Results, system| results.median("H3", "", system, |run| run.requests_per_s);
        if reached(self.results, self.system).is_none() {
            self.run("H3", String::new(), BULK, self.times.measure);
        }
        reached(self.results, self.system).map(|median| median.mid / 2.0)
    }

    /// H4: tail consumers beside half of H3's rate.
    fn tails(&mut self) {
        let Some(rate) = self.half() else { return };
        for tails in [1, 4] {
            self.run("H4", format!("{tails} tails"), Case { rate, tails, ..BULK }, self.times.measure);
        }
    }

    /// H5: a reader from offset 0, cold, beside half of H3's rate; and the same without it.
    fn catch_up(&mut self) {
        let Some(rate) = self.half() else { return };
        let filled = match generator::run(&BULK, &self.plan(self.times.measure)) {
            Ok(filled) => filled,
            Err(error) => return eprintln!("H5: filling the topic: {error}"),
        };
        let load = Case { rate, ..BULK };
        self.run("H5", "without reader".to_string(), load, self.times.measure);
        drop_page_cache();
        let Measured { topic, ends, .. } = filled;
        let catch_up = CatchUp { topic: topic.clone(), ends };
        let plan = Plan { catch_up: Some(catch_up), ..self.plan(self.times.measure) };
        self.run_plan("H5", "with reader".to_string(), load, &plan);
        self.delete(&topic);
    }

    /// H6: equal rates, end to end; ends with the first rate that is not kept up.
    fn paced(&mut self) {
        for rate in RATES {
            // Long enough for 99.99 % over all rounds, unless that takes too long.
            let wanted = Duration::from_secs_f64(105_000.0 / (rate * self.rounds as f64));
            let time = if wanted > LONGEST { self.times.measure } else { self.times.measure.max(wanted) };
            let time = if self.rounds < 5 { self.times.measure } else { time };
            self.run("H6", format!("{rate}/s"), Case { rate, ..PACED }, time);
            let kept = |row: &Row| row.result.as_ref().is_ok_and(|run| run.requests_per_s >= 0.97 * rate);
            if !self.results.rows.last().is_some_and(kept) {
                return;
            }
        }
    }

    /// H7: 50 MB/s over ever more partitions.
    fn partitions(&mut self) {
        for partitions in PARTITIONS {
            if self.system == KAFKA && partitions > 1000 {
                return;
            }
            let load = Case { partitions, rate: 4_900.0, tails: 0, ..PACED };
            self.run("H7", format!("{partitions} partitions"), load, self.times.measure);
        }
    }
}

/// Makes the next reads come from the device, as far as this process may: without the right, what is read is called cold
/// only because it was written directly.
fn drop_page_cache() {
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
}

/// The loads of H9 over 100 and over 10,000 connections, at the same total rate.
pub fn active(conns: usize) -> Case {
    Case { name: "active", conns, rate: 40_000.0, partitions: 100, depth: 0, ..SYNC }
}

impl Runner<'_> {
    /// H9: the same total rate over few and many connections.
    pub fn connections(&mut self) -> Outcome<()> {
        let long = if self.round < FAIR_ROUNDS { self.times.fair } else { self.times.measure };
        for (conns, time) in [(100, self.times.measure), (10_000, long)] {
            self.run("H9", format!("{conns} connections"), active(conns), time);
        }
        Ok(())
    }
}
