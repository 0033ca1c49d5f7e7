//! What `pelton group seek` would do: from which offset to which, partition by partition, kept inside the log.

use std::collections::BTreeMap;
use std::path::Path;

use super::SeekArguments;
use super::offsets::{Offsets, committed};
use crate::cli::client::Client;
use crate::cli::partition_reader::{EARLIEST, LATEST, list_offsets, now_ms, resolve};
use crate::cli::position::{Position, position};
use crate::cli::topic_change::chosen;
use crate::failure::Failure;

/// One partition's committed offset, before and after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// What is committed.
    pub from: Option<i64>,
    /// What is to be committed.
    pub to: i64,
    /// Log start offset.
    pub start: i64,
    /// High watermark.
    pub end: i64,
    /// What there is to say; mostly nothing.
    pub note: String,
}

/// Where to.
enum Target {
    Position(Position),
    By(i64),
    Offsets(Offsets),
}

/// Plans every partition asked for.
pub fn plan(client: &mut Client, arguments: &SeekArguments, current: &Offsets) -> Result<Vec<Move>, Failure> {
    let target = target(client, arguments)?;
    let mut moves = Vec::new();
    for (topic, asked) in topics(arguments, &target, current) {
        let count = client.find_topic(&topic, false)?;
        let mut partitions = chosen(&asked, count, &topic)?;
        if let Target::Offsets(offsets) = &target {
            partitions.retain(|partition| offsets.contains_key(&(topic.clone(), *partition)));
        }
        moves.extend(moves_of(client, &topic, &partitions, &target, current)?);
    }
    if moves.is_empty() {
        return Err(Failure::usage(
            "there is nothing to move: no partition was asked for that has an offset to go to",
        ));
    }
    Ok(moves)
}

fn target(client: &mut Client, arguments: &SeekArguments) -> Result<Target, Failure> {
    if let Some(text) = &arguments.to {
        return position(text, now_ms()).map(Target::Position).map_err(Failure::usage);
    }
    if let Some(by) = arguments.by {
        return Ok(Target::By(by));
    }
    if let Some(other) = &arguments.to_group {
        let offsets = committed(client, other)?;
        if offsets.is_empty() {
            return Err(Failure::error(format!("group {other} has committed nothing")));
        }
        return Ok(Target::Offsets(offsets));
    }
    let path = arguments.to_file.as_deref().unwrap_or(Path::new(""));
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let offsets =
        offsets_of(&text).map_err(|problem| Failure::usage(format!("{}: {problem}", path.display())))?;
    Ok(Target::Offsets(offsets))
}

/// Lines TOPIC PARTITION OFFSET with blanks or commas between; empty lines and those that begin with # say nothing.
fn offsets_of(text: &str) -> Result<Offsets, String> {
    let mut offsets = Offsets::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = || format!("line {}: {line:?} is not TOPIC PARTITION OFFSET", index + 1);
        let parts: Vec<&str> = line.split([' ', '\t', ',']).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let [topic, partition, offset] = parts.as_slice() else { return Err(wrong()) };
        let partition: i32 = partition.parse().ok().filter(|number| *number >= 0).ok_or_else(wrong)?;
        let offset: i64 = offset.parse().ok().filter(|number| *number >= 0).ok_or_else(wrong)?;
        if offsets.insert((topic.to_string(), partition), offset).is_some() {
            return Err(format!("line {}: {topic}[{partition}] is there twice", index + 1));
        }
    }
    Ok(offsets)
}

/// Topics with the partitions asked for (empty = all of them).
fn topics(arguments: &SeekArguments, target: &Target, current: &Offsets) -> BTreeMap<String, Vec<i32>> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    if !arguments.topics.is_empty() {
        for asked in &arguments.topics {
            topics.entry(asked.topic.clone()).or_default().extend(&asked.partitions);
        }
        return topics;
    }
    let offsets = if let Target::Offsets(offsets) = target { offsets } else { current };
    for (topic, partition) in offsets.keys() {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    topics
}

fn moves_of(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    target: &Target,
    current: &Offsets,
) -> Result<Vec<Move>, Failure> {
    let mut ask = |time: i64| {
        let wanted: Vec<(i32, i64)> = partitions.iter().map(|partition| (*partition, time)).collect();
        list_offsets(client, topic, &wanted)
    };
    let (starts, ends) = (ask(EARLIEST)?, ask(LATEST)?);
    let resolved = match target {
        Target::Position(position) => resolve(client, topic, partitions, *position)?,
        _ => BTreeMap::new(),
    };
    let mut moves = Vec::new();
    for partition in partitions {
        let key = (topic.to_string(), *partition);
        let from = current.get(&key).copied();
        let wanted = match target {
            Target::Position(_) => resolved.get(partition).copied(),
            Target::By(by) => from.map(|from| from.saturating_add(*by)),
            Target::Offsets(offsets) => offsets.get(&key).copied(),
        };
        let (start, end) = (starts[partition], ends[partition]);
        // --by moves only what is committed.
        let Some(wanted) = wanted else { continue };
        let to = wanted.clamp(start, end);
        let note = if to == wanted { String::new() } else { format!("{wanted} is not in the log") };
        moves.push(Move { topic: topic.to_string(), partition: *partition, from, to, start, end, note });
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_offsets() {
        let key = |topic: &str, partition| (topic.to_string(), partition);
        let read = offsets_of("# a comment\norders 0 47\norders,1, 3\n\n  payments\t0\t0\n").unwrap();
        let wanted = Offsets::from([(key("orders", 0), 47), (key("orders", 1), 3), (key("payments", 0), 0)]);
        assert_eq!(read, wanted);
        for wrong in ["orders 0", "orders x 1", "orders 0 -1", "orders 0 1 2", "orders -1 0"] {
            assert!(offsets_of(wrong).unwrap_err().contains("line 1"), "{wrong}");
        }
        assert!(offsets_of("a 0 1\na 0 2").unwrap_err().contains("twice"));
    }
}
