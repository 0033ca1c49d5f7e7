//! Writes what a comparison found: Markdown, JSON, CSV, histograms and plots. Never measures, never judges.

use super::goals::Goal;
use super::idle::Idle;
use super::restart::Restart;
use super::results::{Median, Results};
use super::svg;
use super::systems::{KAFKA, KAFKA_FLUSHED, PELTON, PELTON_LATER, SYSTEMS, System, TANSU};
use crate::Outcome;
use crate::limits::{self, Limit};
use crate::load::{Latencies, Measured, quantile_us};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use std::fmt::Write;
use std::path::Path;

/// Everything a report is made of.
pub struct Report<'a> {
    pub about: String,
    pub machine: &'a [Limit],
    pub results: &'a Results,
    pub idle: &'a [(&'static str, Idle)],
    pub restart: Option<Restart>,
    pub goals: Vec<Goal>,
}

/// A row of a table: name, digits, figure.
type Figure = (&'static str, usize, fn(&Measured) -> f64);

const FIGURES: [Figure; 17] = [
    ("requests/s", 0, |m| m.requests_per_s),
    ("MB/s", 1, |m| m.mb_per_s),
    ("p50 us", 0, |m| m.p50_us),
    ("p99 us", 0, |m| m.at(|l| &l.produce, 0.99)),
    ("p99.9 us", 0, |m| m.at(|l| &l.produce, 0.999)),
    ("broker CPU us/request", 2, |m| m.cpu_us_per_request),
    ("broker CPU-s/GB", 3, |m| m.cpu_s_per_gb),
    ("switches/request", 2, |m| m.switches_per_request),
    ("bytes on disk/byte", 2, |m| m.disk_per_byte),
    ("RSS MB", 0, |m| m.rss_mb),
    ("consumed MB/s", 1, |m| m.consumed_mb_per_s),
    ("broker CPU-s/GB moved", 3, |m| m.cpu_s_per_gb_moved),
    ("caught up MB/s", 0, |m| m.catch_up_mb_per_s),
    ("rate at the end over the beginning", 2, |m| m.end_over_beginning),
    ("worst connection's p99 over the median one's", 1, |m| m.unfairness),
    ("the same of worst latencies", 1, |m| m.worst_unfairness),
    ("generator's core in use", 2, |m| m.generator_busy),
];
const END_TO_END: [Figure; 3] = [
    ("end to end p50 us", 0, |m| m.at(|l| &l.end_to_end, 0.5)),
    ("end to end p99 us", 0, |m| m.at(|l| &l.end_to_end, 0.99)),
    ("end to end p99.99 us", 0, |m| m.at(|l| &l.end_to_end, 0.9999)),
];

impl Report<'_> {
    /// Writes all files into `dir`.
    pub fn write(&self, dir: &Path) -> Outcome<()> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
        };
        put("compare.md", self.markdown().as_bytes())?;
        put("compare.json", self.json().as_bytes())?;
        put("compare.csv", self.csv().as_bytes())?;
        for case in super::cases::CASES {
            for variant in self.results.variants(case) {
                let name = format!("{case} {variant}").trim().replace([' ', '/'], "-");
                self.histograms(case, &variant, &name, &put)?;
                if let Some(plot) = self.percentiles(case, &variant) {
                    put(&format!("{name}.svg"), plot.as_bytes())?;
                }
            }
        }
        put("H2-cpu.svg", self.cpu("H2", "us/request", |m| m.cpu_us_per_request).as_bytes())?;
        put("H3-cpu.svg", self.cpu("H3", "s/GB", |m| m.cpu_s_per_gb).as_bytes())?;
        put("H3-kept-up-cpu.svg", self.cpu_of("H3", "kept up", "s/GB", |m| m.cpu_s_per_gb).as_bytes())?;
        for variant in ["1 tails", "4 tails"] {
            let plot = self.cpu_of("H4", variant, "s/GB moved", |m| m.cpu_s_per_gb_moved);
            put(&format!("H4-{}-cpu.svg", variant.replace(' ', "-")), plot.as_bytes())?;
        }
        put("H6-load.svg", self.load().as_bytes())
    }

    fn markdown(&self) -> String {
        let mut text = format!("# Comparison\n\n{}\n\n## Goals\n\n", self.about);
        text.push_str("| case | figure | goal | found | |\n|---|---|---|---|---|\n");
        for goal in &self.goals {
            let found = goal.found.map_or("-".to_string(), |found| format!("{found:.3}"));
            let sign = if goal.at_least { ">=" } else { "<=" };
            let _ = writeln!(
                text,
                "| {} | {} | {sign} {} | {found} | {} |",
                goal.case,
                goal.text,
                goal.wanted,
                goal.verdict()
            );
        }
        let _ = write!(text, "\n## The machine\n\n{}", limits::table(self.machine));
        for case in super::cases::CASES {
            for variant in self.results.variants(case) {
                text.push_str(&self.table(case, &variant));
            }
        }
        for (name, idle) in self.idle {
            let _ = writeln!(text, "\n## Idle: {name}\n\n{idle:?}");
        }
        if let Some(restart) = &self.restart {
            let _ = writeln!(text, "\n## Ready after kill -9\n\n{restart:?}");
        }
        text
    }

    fn systems(&self, case: &str, variant: &str) -> Vec<System> {
        let ran = |system: &System| {
            self.results.rows.iter().any(|r| r.case == case && r.variant == variant && r.system == *system)
        };
        SYSTEMS.into_iter().filter(ran).collect()
    }

    fn table(&self, case: &str, variant: &str) -> String {
        let systems = self.systems(case, variant);
        let mut text = format!("\n## {case} {variant}\n\n| |");
        systems.iter().for_each(|system| {
            let _ = write!(text, " {} |", system.name);
        });
        let _ = write!(text, "\n|{}\n", "---|".repeat(systems.len() + 1));
        let figures = FIGURES.iter().chain(&END_TO_END);
        for (name, digits, figure) in figures {
            let cells: Vec<Option<Median>> =
                systems.iter().map(|system| self.results.median(case, variant, *system, figure)).collect();
            if cells.iter().all(|cell| cell.is_none_or(|cell| cell.high == 0.0)) {
                continue;
            }
            let _ = write!(text, "| {name} |");
            for cell in cells {
                let _ = match cell {
                    None => write!(text, " too few |"),
                    Some(cell) => write!(
                        text,
                        " {:.digits$} ({:.digits$}-{:.digits$}) |",
                        cell.mid, cell.low, cell.high
                    ),
                };
            }
            text.push('\n');
        }
        text.push_str(&self.ratios(case, variant));
        for row in self.results.rows.iter().filter(|row| row.case == case && row.variant == variant) {
            if let Err(error) = &row.result {
                let _ = writeln!(text, "\nRound {} of {}: {error}", row.round, row.system.name);
            }
        }
        text
    }

    /// The other brokers' figures over Pelton's, where the spreads of the rounds lie apart.
    fn ratios(&self, case: &str, variant: &str) -> String {
        let mut text = String::new();
        for system in self.systems(case, variant) {
            let (name, own) = match system {
                KAFKA_FLUSHED => (system.name, PELTON),
                KAFKA | TANSU => (system.name, PELTON_LATER),
                _ => continue,
            };
            let own = if self.systems(case, variant).contains(&own) { own } else { PELTON };
            let mut found = Vec::new();
            for (figure_name, _, figure) in FIGURES.iter().take(8).chain(&END_TO_END) {
                let of = |system| self.results.median(case, variant, system, figure);
                let (Some(theirs), Some(ours)) = (of(system), of(own)) else { continue };
                match theirs.ratio(ours) {
                    Some(ratio) => found.push(format!("{figure_name} {ratio:.2}")),
                    None => found.push(format!("{figure_name}: no difference beyond the spread")),
                }
            }
            let _ = writeln!(text, "\n{name} over {}: {}.", own.name, found.join("; "));
        }
        text
    }

    fn json(&self) -> String {
        let mut runs = Vec::new();
        for row in &self.results.rows {
            let run = match &row.result {
                Ok(run) => format!("\"run\":{}", run.json().replace("NaN", "null")),
                Err(error) => format!("\"error\":\"{}\"", error.replace('\\', "").replace('"', "'")),
            };
            runs.push(format!(
                "{{\"case\":\"{}\",\"variant\":\"{}\",\"system\":\"{}\",\"round\":{},{run}}}",
                row.case, row.variant, row.system.name, row.round
            ));
        }
        let limit = |(name, value, unit): &Limit| {
            format!("{{\"limit\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\"}}")
        };
        let machine: Vec<String> = self.machine.iter().map(limit).collect();
        format!("{{\"limits\":[{}],\n\"runs\":[\n{}\n]}}\n", machine.join(","), runs.join(",\n"))
    }

    fn csv(&self) -> String {
        let names = FIGURES.iter().chain(&END_TO_END).map(|figure| figure.0).collect::<Vec<_>>().join(",");
        let mut text = format!("case,variant,system,round,{names}\n");
        for row in &self.results.rows {
            let Ok(run) = &row.result else { continue };
            let _ = write!(text, "{},{},\"{}\",{}", row.case, row.variant, row.system.name, row.round);
            for (_, digits, figure) in FIGURES.iter().chain(&END_TO_END) {
                let value = figure(run);
                let _ = match value.is_finite() {
                    true => write!(text, ",{value:.digits$}"),
                    false => write!(text, ","),
                };
            }
            text.push('\n');
        }
        text
    }

    fn histograms(
        &self,
        case: &str,
        variant: &str,
        name: &str,
        put: &impl Fn(&str, &[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        for system in self.systems(case, variant) {
            let Some(latencies) = self.results.latencies(case, variant, system) else { continue };
            let mut bytes = Vec::new();
            V2Serializer::new()
                .serialize(&latencies.produce, &mut bytes)
                .map_err(|error| error.to_string())?;
            let system = system.name.replace([' ', ','], "-");
            put(&format!("{name}-{system}.hdr"), &bytes)?;
        }
        Ok(())
    }

    /// Latency by percentile: end to end where there are consumers, otherwise of the produce.
    fn percentiles(&self, case: &str, variant: &str) -> Option<String> {
        const MARKS: [f64; 7] = [0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 0.99999];
        let which = |latencies: &Latencies| -> Histogram<u64> {
            let end_to_end = &latencies.end_to_end;
            if end_to_end.is_empty() { latencies.produce.clone() } else { end_to_end.clone() }
        };
        let place = |mark: f64| -(1.0 - mark).log10();
        let mut lines = Vec::new();
        for system in self.systems(case, variant) {
            let Some(latencies) = self.results.latencies(case, variant, system) else { continue };
            let histogram = which(&latencies);
            let points =
                MARKS.iter().filter_map(|mark| Some((place(*mark), quantile_us(&histogram, *mark)?)));
            lines.push((system.name.to_string(), points.collect()));
        }
        let ticks: Vec<(f64, String)> =
            MARKS.iter().map(|mark| (place(*mark), format!("{} %", (mark * 1e7).round() / 1e5))).collect();
        (!lines.is_empty())
            .then(|| svg::lines(&format!("{case} {variant}: latency by percentile"), "us", &ticks, &lines))
    }

    fn cpu(&self, case: &str, unit: &str, figure: fn(&Measured) -> f64) -> String {
        self.cpu_of(case, "", unit, figure)
    }

    fn cpu_of(&self, case: &str, variant: &str, unit: &str, figure: fn(&Measured) -> f64) -> String {
        let bar = |system: System| {
            let median = self.results.median(case, variant, system, figure)?;
            Some((system.name.to_string(), median.mid))
        };
        let bars: Vec<(String, f64)> = SYSTEMS.into_iter().filter_map(bar).collect();
        svg::bars(format!("{case} {variant}: broker CPU").trim(), unit, &bars)
    }

    /// End-to-end p99 against the load of H6.
    fn load(&self) -> String {
        let rates = super::cases::RATES;
        let lines: Vec<svg::Line> = SYSTEMS
            .into_iter()
            .filter_map(|system| {
                let p99 = |m: &Measured| m.at(|l| &l.end_to_end, 0.99);
                let point = |(index, rate): (usize, &f64)| {
                    let median = self.results.median("H6", &format!("{rate}/s"), system, p99)?;
                    Some((index as f64, median.mid))
                };
                let points: Vec<(f64, f64)> = rates.iter().enumerate().filter_map(point).collect();
                (!points.is_empty()).then(|| (system.name.to_string(), points))
            })
            .collect();
        let ticks: Vec<(f64, String)> =
            rates.iter().enumerate().map(|(index, rate)| (index as f64, format!("{rate}/s"))).collect();
        svg::lines("H6: end to end p99 by load, requests of 10 KB", "us", &ticks, &lines)
    }
}
