//! The report of `groups` as Markdown. Only formats.

use super::commits::Cost;
use super::member::Protocol;
use super::{CONNECTIONS, MEMBERS, Measured, Options, PARTITIONS, System};
use crate::limits::{self, Limit};
use crate::{Outcome, load, sys};
use std::path::Path;

/// Writes `<date>-groups.md` into `out`, or `<date>-groups-<part>.md` if only a part was measured.
pub fn write(out: &Path, part: Option<&str>, text: &str) -> Outcome<()> {
    std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let part = part.map_or(String::new(), |part| format!("-{part}"));
    let path = out.join(format!("{}-groups{part}.md", date(load::now_ms() / 1000)));
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The day of a time in seconds since 1970, UTC, as YYYY-MM-DD (Howard Hinnant's civil_from_days).
fn date(seconds: i64) -> String {
    let shifted = seconds.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", day_of_year - (153 * from_march + 2) / 5 + 1)
}

/// Everything measured until now.
pub fn markdown(
    options: &Options,
    machine: &[Limit],
    results: &[(System, Measured)],
    rounds: usize,
) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "# Consumer groups\n\n`pelton-bench groups`, kernel {}, {} cores: broker on core 0, members on core 1, one \
         thread and connection each. {rounds} interleaved rounds, {} groups of each kind in a round. Median \
         (min-max), and how many times faster or cheaper than Kafka default. \
         `group.initial.rebalance.delay.ms=0`; one topic of {PARTITIONS} partitions; members send a heartbeat every \
         {} ms, so that is about the resolution of what needs one. A group is settled when all members are in the same \
         generation (or member epoch) and every partition has exactly one owner, each with its share; every committed offset \
         was read back.\n\n{}",
        kernel.trim(),
        sys::cores(),
        options.repeats,
        options.heartbeat.as_millis(),
        limits::table(machine)
    );
    for system in results.iter().map(|(system, _)| system).filter(|system| !system.settings.is_empty()) {
        text.push_str(&format!("\n{}: `{}`\n", system.name, system.settings.join("`, `")));
    }
    let rebalances = options.wants("rebalances");
    for protocol in [Protocol::Classic, Protocol::Consumer].into_iter().filter(|_| rebalances) {
        let name = if protocol == Protocol::Classic { "Classic groups" } else { "Groups of KIP-848" };
        text.push_str(&format!("\n## {name}: ms from the first request until settled\n\n{}", head(results)));
        for members in MEMBERS {
            let joined = |measured: &Measured| -> Vec<f64> {
                settled(measured, protocol, members).map(|(joined, _)| joined).collect()
            };
            let left = |measured: &Measured| -> Vec<f64> {
                settled(measured, protocol, members).filter_map(|(_, left)| left).collect()
            };
            text.push_str(&row(&format!("{members} join at once"), results, &joined, 1, false));
            if members > 1 {
                text.push_str(&row(&format!("1 of {members} leaves"), results, &left, 1, false));
            }
        }
    }
    for connections in CONNECTIONS.into_iter().filter(|_| options.wants("commits")) {
        let title = if connections == 1 { "1 member".to_string() } else { format!("{connections} members") };
        text.push_str(&format!(
            "\n## OffsetCommit of one partition, closed loop, {title} ({} s)\n\n{}",
            options.measure.as_secs_f64(),
            head(results)
        ));
        let figure = |value: fn(&Cost) -> f64| {
            move |measured: &Measured| -> Vec<f64> {
                let of = measured.commits.iter().find(|(found, _)| *found == connections);
                of.map(|(_, costs)| costs.iter().map(value).collect()).unwrap_or_default()
            }
        };
        text.push_str(&row("p50 us", results, &figure(|cost| cost.p50_us), 0, false));
        text.push_str(&row("p99 us", results, &figure(|cost| cost.p99_us), 0, false));
        text.push_str(&row("commits/s", results, &figure(|cost| cost.commits_per_s), 0, true));
        text.push_str(&row("broker CPU us/commit", results, &figure(|cost| cost.cpu_us), 1, false));
    }
    text
}

fn settled(
    measured: &Measured,
    protocol: Protocol,
    members: usize,
) -> impl Iterator<Item = super::Settled> + '_ {
    let of = measured.rebalances.iter().filter(move |(key, _)| *key == (protocol, members));
    of.flat_map(|(_, settled)| settled.iter().copied())
}

fn head(results: &[(System, Measured)]) -> String {
    let names: String = results.iter().map(|(system, _)| format!(" {} |", system.name)).collect();
    format!("| |{names}\n|{}\n", "---|".repeat(results.len() + 1))
}

fn row(
    name: &str,
    results: &[(System, Measured)],
    values: &dyn Fn(&Measured) -> Vec<f64>,
    digits: usize,
    more_is_better: bool,
) -> String {
    let base = results.iter().find(|(system, _)| system.name == "Kafka default");
    let base = base.and_then(|(_, measured)| middle(values(measured))).map(|(middle, ..)| middle);
    let mut text = format!("| {name} |");
    for (_, measured) in results {
        match (middle(values(measured)), base) {
            (None, _) => text.push_str(" - |"),
            (Some((middle, low, high)), None) => {
                text.push_str(&format!(" {middle:.digits$} ({low:.digits$}-{high:.digits$}) |"));
            }
            (Some((middle, low, high)), Some(base)) => {
                let factor = if more_is_better { middle / base } else { base / middle };
                text.push_str(&format!(
                    " {middle:.digits$} ({low:.digits$}-{high:.digits$}), x{factor:.2} |"
                ));
            }
        }
    }
    text.push('\n');
    text
}

/// Median, least and most; none of nothing.
fn middle(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_names() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_651_199), "2026-11-25");
    }

    #[test]
    fn a_row_compares_with_kafka() {
        let measured = |value: f64| Measured {
            rebalances: vec![(
                (Protocol::Classic, 1),
                vec![(value, None), (value + 2.0, None), (value + 1.0, None)],
            )],
            commits: Vec::new(),
        };
        let results = [(super::super::SYSTEMS[0], measured(1.0)), (super::super::SYSTEMS[3], measured(5.0))];
        let joined =
            |measured: &Measured| settled(measured, Protocol::Classic, 1).map(|(joined, _)| joined).collect();
        assert_eq!(
            row("x", &results, &joined, 1, false),
            "| x | 2.0 (1.0-3.0), x3.00 | 6.0 (5.0-7.0), x1.00 |\n"
        );
    }
}
