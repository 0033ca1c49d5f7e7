//! `pelton group lag`: how far groups are behind the high watermarks, in records and in time.

use std::collections::{BTreeMap, BTreeSet};

use pelton_wire::error_code::ErrorCode;
use serde_json::{Value, json};

use super::offsets::committed;
use super::overview::{GroupOverview, describe};
use super::time_lag::first_timestamp_ms;
use super::{LagArguments, list, remedy};
use crate::cli::client::Client;
use crate::cli::output::Report;
use crate::cli::partition_reader::{EARLIEST, LATEST, list_offsets, now_ms};
use crate::failure::Failure;

/// One partition of a group.
struct PartitionLag {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    time_lag_ms: Option<i64>,
    member_id: Option<String>,
}

impl PartitionLag {
    fn records(&self) -> Option<i64> {
        Some(self.end?.saturating_sub(self.committed?).max(0))
    }
}

/// Runs it.
pub fn run(arguments: &LagArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let mut report = Report::new("group lag");
    let named = !arguments.groups.is_empty();
    client.metadata(Some(&[]), false)?;
    let names = if named { arguments.groups.clone() } else { list::names(&mut client) };
    let (mut groups, mut rows) = (Vec::new(), Vec::new());
    for name in &names {
        let overview = match describe(&mut client, name)? {
            Ok(overview) => overview,
            Err((ErrorCode::GroupIdNotFound, _)) if !named => continue,
            Err((error, message)) => {
                let words = format!("{message} {}", remedy(&mut client, name, error));
                report.failed(name, error, words.trim());
                continue;
            }
        };
        let partitions = partitions(&mut client, name, &overview, !arguments.no_time)?;
        groups.push(group_row(name, &overview, &partitions));
        rows.extend(partitions.iter().map(|lag| {
            vec![
                json!(name),
                json!(lag.topic),
                json!(lag.partition),
                json!(lag.committed),
                json!(lag.end),
                json!(lag.records()),
                json!(lag.time_lag_ms),
                json!(lag.member_id),
            ]
        }));
    }
    report.section(
        "groups",
        &["GROUP", "STATE", "MEMBERS", "PARTITIONS", "LAG", "MAX-LAG", "TIME-LAG-MS"],
        groups,
    );
    if named {
        report.section(
            "partitions",
            &[
                "GROUP",
                "TOPIC",
                "PARTITION",
                "COMMITTED-OFFSET",
                "HIGH-WATERMARK",
                "LAG",
                "TIME-LAG-MS",
                "MEMBER-ID",
            ],
            rows,
        );
    }
    report.print(arguments.target.format)
}

/// The sum and the largest lag in records, the largest lag in time; none if nothing is known of any partition.
fn group_row(name: &str, overview: &GroupOverview, partitions: &[PartitionLag]) -> Vec<Value> {
    let records: Vec<i64> = partitions.iter().filter_map(PartitionLag::records).collect();
    let sum = (!records.is_empty()).then(|| records.iter().sum::<i64>());
    vec![
        json!(name),
        json!(overview.state),
        json!(overview.members.len()),
        json!(partitions.len()),
        json!(sum),
        json!(records.iter().max()),
        json!(partitions.iter().filter_map(|lag| lag.time_lag_ms).max()),
    ]
}

/// Everything the group has committed or has been given.
fn partitions(
    client: &mut Client,
    group: &str,
    overview: &GroupOverview,
    with_time: bool,
) -> Result<Vec<PartitionLag>, Failure> {
    let committed = committed(client, group)?;
    let mut owners: BTreeMap<(String, i32), &str> = BTreeMap::new();
    for member in &overview.members {
        for (topic, partitions) in member.partitions.iter().flatten() {
            for partition in partitions {
                owners.insert((topic.clone(), *partition), &member.member_id);
            }
        }
    }
    let keys: BTreeSet<&(String, i32)> = committed.keys().chain(owners.keys()).collect();
    let topics: BTreeSet<&String> = keys.iter().map(|(topic, _)| topic).collect();
    let mut ends: BTreeMap<&str, Ends> = BTreeMap::new();
    for topic in topics {
        let numbers: Vec<i32> =
            keys.iter().filter(|(name, _)| name == topic).map(|(_, partition)| *partition).collect();
        ends.insert(topic, Ends::of(client, topic, &numbers)?);
    }
    let mut lags = Vec::new();
    for key in keys {
        let (topic, partition) = key;
        let offset = committed.get(key).copied();
        let ends = &ends[topic.as_str()];
        let end = ends.latest.get(partition).copied();
        let time_lag_ms = match (offset, end) {
            (Some(offset), Some(end)) if with_time && offset >= end => Some(0),
            (Some(offset), Some(end)) if with_time => {
                let first = offset.max(ends.earliest.get(partition).copied().unwrap_or(0));
                let timestamp = first_timestamp_ms(client, topic, *partition, first, end)?;
                timestamp.map(|timestamp_ms| now_ms().saturating_sub(timestamp_ms).max(0))
            }
            _ => None,
        };
        lags.push(PartitionLag {
            topic: topic.clone(),
            partition: *partition,
            committed: offset,
            end,
            time_lag_ms,
            member_id: owners.get(key).map(|id| id.to_string()),
        });
    }
    Ok(lags)
}

/// Where partitions of a topic begin and end.
#[derive(Default)]
struct Ends {
    earliest: BTreeMap<i32, i64>,
    latest: BTreeMap<i32, i64>,
}

impl Ends {
    /// Empty for a topic or partition that is gone: a group may have offsets of it for a while.
    fn of(client: &mut Client, topic: &str, partitions: &[i32]) -> Result<Ends, Failure> {
        let metadata = client.metadata(Some(&[topic.to_string()]), false)?;
        let found = metadata.topics.first().filter(|topic| topic.error_code == 0);
        let count = found.map_or(0, |topic| topic.partitions.len());
        let there: Vec<i32> = partitions
            .iter()
            .copied()
            .filter(|index| usize::try_from(*index).is_ok_and(|i| i < count))
            .collect();
        let mut ask = |time: i64| {
            let wanted: Vec<(i32, i64)> = there.iter().map(|partition| (*partition, time)).collect();
            list_offsets(client, topic, &wanted)
        };
        Ok(Ends { earliest: ask(EARLIEST)?, latest: ask(LATEST)? })
    }
}
