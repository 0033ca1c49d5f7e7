//! The goals of the speed work, held against what was measured: reached or missed, and by how much. Never measures.

use super::cases::{PARTITIONS, RATES};
use super::idle::Idle;
use super::restart::Restart;
use super::results::{Median, Results};
use super::systems::*;
use crate::limits::{DIRECT_READ, Limit, RAW_SEND};
use crate::load::{Measured, quantile_us};

/// A goal and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub case: &'static str,
    pub text: String,
    pub wanted: f64,
    /// True if the figure should be at least `wanted`, false if at most.
    pub at_least: bool,
    /// None: not measured, or lost in the spread.
    pub found: Option<f64>,
}

impl Goal {
    fn most(case: &'static str, text: impl Into<String>, wanted: f64, found: Option<f64>) -> Goal {
        Goal { case, text: text.into(), wanted, at_least: false, found }
    }

    fn least(case: &'static str, text: impl Into<String>, wanted: f64, found: Option<f64>) -> Goal {
        Goal { at_least: true, ..Goal::most(case, text, wanted, found) }
    }

    /// `reached`, `missed x1.24`, or why neither.
    pub fn verdict(&self) -> String {
        match self.found {
            None => "not told: not measured, or too few samples".to_string(),
            Some(found) if (found >= self.wanted) == self.at_least || found == self.wanted => {
                "reached".into()
            }
            Some(found) if self.at_least => format!("missed by x{:.2}", self.wanted / found),
            Some(found) => format!("missed by x{:.2}", found / self.wanted),
        }
    }
}

type Figure = fn(&Measured) -> f64;
const P50: Figure = |run| run.p50_us;
const P99: Figure = |run| run.at(|l| &l.produce, 0.99);
const CPU: Figure = |run| run.cpu_us_per_request;
const CPU_GB: Figure = |run| run.cpu_s_per_gb;
const CPU_MOVED: Figure = |run| run.cpu_s_per_gb_moved;
const RATE: Figure = |run| run.mb_per_s;
const E2E_P50: Figure = |run| run.at(|l| &l.end_to_end, 0.5);
const E2E_P99: Figure = |run| run.at(|l| &l.end_to_end, 0.99);

/// A cell: case, variant, system.
type Cell<'a> = (&'a str, &'a str, System);

struct View<'a>(&'a Results);

impl View<'_> {
    fn median(&self, cell: Cell<'_>, figure: Figure) -> Option<Median> {
        self.0.median(cell.0, cell.1, cell.2, figure)
    }

    /// Medians of two cells over one another, whatever their spreads: a goal is a bound on the median.
    fn over(&self, one: Cell<'_>, other: Cell<'_>, figure: Figure) -> Option<f64> {
        Some(self.median(one, figure)?.mid / self.median(other, figure)?.mid)
    }

    fn h1(&self) -> Vec<Goal> {
        let cell = |system| ("H1", "", system);
        let over = |one, other, figure| self.over(cell(one), cell(other), figure);
        vec![
            Goal::most("H1", "p50 over floor", 1.2, over(PELTON, FLOOR_DURABLE, P50)),
            Goal::most("H1", "p99 over floor", 1.3, over(PELTON, FLOOR_DURABLE, P99)),
            Goal::most("H1", "spinning: p50 over floor", 1.2, over(PELTON_SPINNING, FLOOR_SPINNING, P50)),
            Goal::most(
                "H1",
                "spinning, flushed: p50 over Kafka unflushed",
                1.0,
                over(PELTON_SPINNING, KAFKA, P50),
            ),
            Goal::most(
                "H1",
                "spinning, flushed: p99 over Kafka unflushed",
                1.0,
                over(PELTON_SPINNING, KAFKA, P99),
            ),
            Goal::most("H1", "p99 over Kafka flushed", 0.5, over(PELTON, KAFKA_FLUSHED, P99)),
        ]
    }

    fn h2(&self) -> Vec<Goal> {
        let cell = |system| ("H2", "", system);
        let over = |one, other| self.over(cell(one), cell(other), CPU);
        vec![
            Goal::most("H2", "CPU per request over floor, flushed", 1.7, over(PELTON, FLOOR_DURABLE)),
            Goal::most("H2", "CPU per request over floor, written", 1.7, over(PELTON_LATER, FLOOR)),
            Goal::least(
                "H2",
                "CPU per request of Kafka flushed over Pelton",
                45.0,
                over(KAFKA_FLUSHED, PELTON),
            ),
            Goal::least("H2", "CPU per request of Kafka default over Pelton", 12.0, over(KAFKA, PELTON)),
        ]
    }

    fn h3(&self) -> Vec<Goal> {
        let cell = |system| ("H3", "", system);
        let kept = |system| ("H3", "kept up", system);
        let over = |one, other, figure| self.over(cell(one), cell(other), figure);
        let disk = self.median(cell(PELTON), |run| run.disk_per_byte).map(|median| median.mid);
        vec![
            Goal::least("H3", "GB/s over floor", 0.8, over(PELTON, FLOOR_DURABLE, RATE)),
            Goal::least(
                "H3",
                "kept up for long: GB/s over floor",
                0.8,
                self.over(kept(PELTON), kept(FLOOR_DURABLE), RATE),
            ),
            Goal::most("H3", "CPU-s/GB over floor", 1.7, over(PELTON, FLOOR_DURABLE, CPU_GB)),
            Goal::most("H3", "CPU-s/GB over Kafka flushed", 0.1, over(PELTON, KAFKA_FLUSHED, CPU_GB)),
            Goal::most("H3", "bytes on disk per byte", 1.1, disk),
        ]
    }

    fn h4_h5(&self, limits: &[Limit]) -> Vec<Goal> {
        let tails = |variant, system| ("H4", variant, system);
        fn tails_cell(variant: &str) -> Cell<'_> {
            ("H4", variant, PELTON)
        }
        let seconds = |run: &Measured| run.cpu_s_per_gb;
        let four = self.over(tails("4 tails", PELTON), tails("1 tails", PELTON), seconds);
        let moved = |variant| self.over(tails(variant, PELTON), tails(variant, KAFKA), CPU_MOVED);
        let read = limits.iter().find(|limit| limit.0 == DIRECT_READ).map(|limit| limit.1);
        let caught = self.median(("H5", "with reader", PELTON), |run| run.catch_up_mb_per_s);
        let p99 = self.over(("H5", "with reader", PELTON), ("H5", "without reader", PELTON), P99);
        let raw = |tails: usize, name: &str| {
            let variant = format!("{tails} tails");
            let limit = limits.iter().find(|limit| limit.0 == name)?.1;
            let got = self.median(tails_cell(&variant), |run| run.consumed_mb_per_s)?.mid;
            let made = self.median(tails_cell(&variant), |run| run.mb_per_s)?.mid;
            Some(got / limit.min(made * tails as f64))
        };
        let kept = self.median(tails("4 tails", PELTON), |run| run.consumed_mb_per_s / run.mb_per_s / 4.0);
        vec![
            Goal::least(
                "H4",
                "4 consumers: share of what was produced that each got",
                0.97,
                kept.map(|m| m.mid),
            ),
            Goal::least(
                "H4",
                "1 consumer: MB/s over what is produced or a raw send manages, the lesser",
                0.85,
                raw(1, RAW_SEND[0]),
            ),
            Goal::least("H4", "4 consumers: the same", 0.85, raw(4, RAW_SEND[1])),
            Goal::most("H4", "4 consumers over one, CPU", 4.1, four),
            Goal::most("H4", "1 consumer: CPU-s per GB moved over Kafka", 0.5, moved("1 tails")),
            Goal::most("H4", "4 consumers: CPU-s per GB moved over Kafka", 0.5, moved("4 tails")),
            Goal::least(
                "H5",
                "catching up over direct reads",
                0.85,
                caught.and_then(|m| Some(m.mid / read?)),
            ),
            Goal::most("H5", "produce p99 with the reader over without", 1.5, p99),
        ]
    }

    /// At the highest rate that Kafka flushed (the second pair: Kafka default) was given and kept up with.
    fn h6(&self) -> Vec<Goal> {
        let kept = |system| {
            let kept = |rate: &&f64| {
                let reached = self.median(("H6", &format!("{rate}/s"), system), |run| run.requests_per_s);
                reached.is_some_and(|reached| reached.mid >= 0.97 * **rate)
            };
            RATES.iter().rev().find(kept).map(|rate| format!("{rate}/s"))
        };
        let mut goals = Vec::new();
        if let Some(rate) = kept(KAFKA_FLUSHED) {
            let over = |figure| self.over(("H6", &rate, PELTON), ("H6", &rate, KAFKA_FLUSHED), figure);
            let text = |what: &str| format!("{rate}: end to end {what} over Kafka flushed");
            goals.push(Goal::most("H6", text("p99"), 0.125, over(E2E_P99)));
            let merged = |system| quantile_us(&self.0.latencies("H6", &rate, system)?.end_to_end, 0.9999);
            let p9999 = || Some(merged(PELTON)? / merged(KAFKA_FLUSHED)?);
            goals.push(Goal::most("H6", text("p99.99 of all rounds"), 0.1, p9999()));
        }
        if let Some(rate) = kept(KAFKA) {
            let over = |figure| self.over(("H6", &rate, PELTON), ("H6", &rate, KAFKA), figure);
            let text = |what: &str| format!("{rate}: flushed, end to end {what} over Kafka unflushed");
            goals.push(Goal::most("H6", text("p50"), 1.0, over(E2E_P50)));
            goals.push(Goal::most("H6", text("p99"), 0.5, over(E2E_P99)));
        }
        goals
    }

    fn h7(&self, idle: Option<&Idle>) -> Vec<Goal> {
        let one = ("H7", "1 partitions", PELTON);
        let mut goals = Vec::new();
        for partitions in &PARTITIONS[1..] {
            let variant = format!("{partitions} partitions");
            let many = ("H7", variant.as_str(), PELTON);
            let text = |what: &str| format!("{partitions} partitions over one: {what}");
            goals.push(Goal::most("H7", text("CPU"), 2.0, self.over(many, one, CPU)));
            goals.push(Goal::most("H7", text("p99"), 3.0, self.over(many, one, P99)));
        }
        let of = |figure: fn(&Idle) -> f64| idle.map(figure);
        goals.push(Goal::most("H7", "10,000 partitions made, s", 5.0, of(|idle| idle.create_partitions_s)));
        let kib = of(|idle| idle.rss_per_partition / 1024.0);
        goals.push(Goal::most("H7", "an idle partition, KiB", 32.0, kib));
        goals
    }

    fn h9(&self, idle: Option<&Idle>, restart: Option<&Restart>) -> Vec<Goal> {
        let cell = |variant| ("H9", variant, PELTON);
        let of = |figure: fn(&Idle) -> f64| idle.map(figure);
        let cpu = self.over(cell("10000 connections"), cell("100 connections"), CPU);
        let unfair = self.median(cell("10000 connections"), |run| run.unfairness).map(|median| median.mid);
        vec![
            Goal::most("H9", "an idle connection, KiB", 4.0, of(|idle| idle.rss_per_connection / 1024.0)),
            Goal::most(
                "H9",
                "CPU with 10,000 idle connections, us/s",
                100.0,
                of(|i| i.connected_cpu_us_per_s),
            ),
            Goal::most("H9", "idle broker, MiB", 32.0, of(|idle| idle.rss / 1_048_576.0)),
            Goal::most("H9", "ready, s", 0.3, of(|idle| idle.start_s)),
            Goal::most(
                "H9",
                "ready after kill -9 with 10,000 segments and 100 GiB, s",
                3.0,
                restart.map(|restart| restart.ready_s),
            ),
            Goal::most("H9", "10,000 active connections over 100, CPU per request", 1.5, cpu),
            Goal::most(
                "H9",
                "10,000 active connections: p99 of the worst served over that of the median one",
                5.0,
                unfair,
            ),
        ]
    }
}

/// All goals of the cases that were run.
pub fn goals(
    results: &Results,
    limits: &[Limit],
    (idle, restart): (Option<&Idle>, Option<&Restart>),
    cases: &[String],
) -> Vec<Goal> {
    let view = View(results);
    let all = [
        view.h1(),
        view.h2(),
        view.h3(),
        view.h4_h5(limits),
        view.h6(),
        view.h7(idle),
        view.h9(idle, restart),
    ];
    all.into_iter().flatten().filter(|goal| cases.iter().any(|case| case == goal.case)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        assert_eq!(Goal::most("H1", "", 1.2, Some(1.1)).verdict(), "reached");
        assert_eq!(Goal::most("H1", "", 1.2, Some(1.2)).verdict(), "reached");
        assert_eq!(Goal::most("H1", "", 1.2, Some(1.8)).verdict(), "missed by x1.50");
        assert_eq!(Goal::least("H3", "", 0.8, Some(0.4)).verdict(), "missed by x2.00");
        assert_eq!(Goal::least("H3", "", 0.8, Some(0.9)).verdict(), "reached");
        assert!(Goal::least("H3", "", 0.8, None).verdict().starts_with("not told"));
    }
}
