//! Offsets of partitions: asked of their leaders, by time or by position. Shared by `consume`, `trim` and `describe`.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use pelton_wire::messages::{ListOffsetsRequestData, ListOffsetsResponseData};

use super::client::{Client, RETRY_PAUSE, passes};
use super::connection::CallError;
use super::position::Position;
use crate::failure::Failure;

/// The time that stands for the first offset.
pub const EARLIEST: i64 = -2;
/// The time that stands for the high watermark.
pub const LATEST: i64 = -1;

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Partitions grouped by the broker that leads them; an error if one has no leader.
pub fn by_leader(
    client: &Client,
    topic: &str,
    partitions: &[i32],
) -> Result<BTreeMap<i32, Vec<i32>>, Failure> {
    let mut groups: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        let leader = client.leader(topic, *partition).ok_or_else(|| {
            Failure::error(format!(
                "{topic}[{partition}]: {}: it has no leader now",
                ErrorCode::LeaderNotAvailable
            ))
        })?;
        groups.entry(leader).or_default().push(*partition);
    }
    Ok(groups)
}

/// The offset of each (partition, time); -1 if no record is that young. Tries again while leaders move.
pub fn list_offsets(
    client: &mut Client,
    topic: &str,
    wanted: &[(i32, i64)],
) -> Result<BTreeMap<i32, i64>, Failure> {
    let times: BTreeMap<i32, i64> = wanted.iter().copied().collect();
    let mut found = BTreeMap::new();
    let deadline = client.deadline();
    loop {
        let missing: Vec<i32> =
            times.keys().filter(|partition| !found.contains_key(*partition)).copied().collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let mut problem = String::new();
        for (leader, partitions) in by_leader(client, topic, &missing)? {
            match ask(client, leader, topic, &partitions, &times) {
                Ok(answer) => take(&answer, topic, &mut found, &mut problem)?,
                Err(CallError::Network(words)) => problem = words,
                Err(protocol) => return Err(protocol.into()),
            }
        }
        if found.len() < times.len() {
            if Instant::now() >= deadline {
                return Err(Failure::unreachable(problem));
            }
            std::thread::sleep(RETRY_PAUSE);
            client.metadata(Some(&[topic.to_string()]), false)?;
        }
    }
}

fn ask(
    client: &mut Client,
    leader: i32,
    topic: &str,
    partitions: &[i32],
    times: &BTreeMap<i32, i64>,
) -> Result<ListOffsetsResponseData, CallError> {
    let partition = |index: &i32| ListOffsetsPartition {
        partition_index: *index,
        timestamp: times[index],
        ..ListOffsetsPartition::default()
    };
    client.ask_broker(leader, ApiKey::ListOffsets, 7, |_| ListOffsetsRequestData {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_string().into(),
            partitions: partitions.iter().map(partition).collect(),
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequestData::default()
    })
}

fn take(
    answer: &ListOffsetsResponseData,
    topic: &str,
    found: &mut BTreeMap<i32, i64>,
    problem: &mut String,
) -> Result<(), Failure> {
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let error = ErrorCode::from_code(partition.error_code);
        let words = format!("{topic}[{}]: {error}", partition.partition_index);
        match error {
            ErrorCode::None => {
                found.insert(partition.partition_index, partition.offset);
            }
            error if passes(error) => *problem = words,
            _ => return Err(Failure::error(words)),
        }
    }
    Ok(())
}

/// The offset that `position` means in each partition.
pub fn resolve(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    position: Position,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let at =
        |time: i64| -> Vec<(i32, i64)> { partitions.iter().map(|partition| (*partition, time)).collect() };
    if let Position::Offset(offset) = position {
        return Ok(at(offset).into_iter().collect());
    }
    let ends = list_offsets(client, topic, &at(LATEST))?;
    if let Position::Time(time) = position {
        // No record that young: everything up to the end is older.
        let found = list_offsets(client, topic, &at(time.max(0)))?;
        return Ok(found
            .into_iter()
            .map(|(index, offset)| (index, if offset < 0 { ends[&index] } else { offset }))
            .collect());
    }
    let starts = list_offsets(client, topic, &at(EARLIEST))?;
    Ok(ends
        .into_iter()
        .filter_map(|(index, end)| Some((index, position.resolve(*starts.get(&index)?, end)?)))
        .collect())
}
