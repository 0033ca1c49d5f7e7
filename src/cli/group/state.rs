//! `pelton group state`: one line a group; with --watch one line for every change, as it comes.

use std::collections::BTreeMap;

use pelton_wire::error_code::ErrorCode;
use serde_json::json;

use super::overview::{GroupMember, GroupOverview, describe, words};
use super::{StateArguments, remedy};
use crate::arguments::Format;
use crate::cli::client::Client;
use crate::cli::output::{JSON_VERSION, Report, write_out};
use crate::cli::partition_reader::now_ms;
use crate::cli::position::utc;
use crate::failure::{Exit, Failure};

/// The state of a group that does not exist.
const ABSENT: &str = "Absent";

/// Runs it.
pub fn run(arguments: &StateArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    client.metadata(Some(&[]), false)?;
    if arguments.watch {
        return watch(&mut client, arguments);
    }
    let mut report = Report::new("group state");
    let mut rows = Vec::new();
    for group in &arguments.groups {
        match describe(&mut client, group)? {
            Ok(found) => rows.push(vec![
                json!(group),
                json!(found.kind),
                json!(found.state),
                json!(found.epoch),
                json!(found.members.len()),
                json!(found.coordinator),
            ]),
            Err((error, message)) => {
                let words = format!("{message} {}", remedy(&mut client, group, error));
                report.failed(group, error, words.trim());
            }
        }
    }
    report.section("groups", &["GROUP", "TYPE", "STATE", "EPOCH", "MEMBERS", "COORDINATOR"], rows);
    report.print(arguments.target.format)
}

/// Asks again and again. A broker that is away for less than the time an answer may take is waited for.
fn watch(client: &mut Client, arguments: &StateArguments) -> Result<(), Failure> {
    let mut known: BTreeMap<&String, Option<GroupOverview>> = BTreeMap::new();
    let mut left = arguments.number;
    let mut failing_since = None;
    loop {
        for group in &arguments.groups {
            let now = match describe(client, group) {
                Ok(Ok(found)) => Some(found),
                Ok(Err((ErrorCode::GroupIdNotFound, _))) => None,
                Ok(Err((error, message))) => {
                    return Err(Failure::error(format!("group {group}: {error} {message}").trim_end()));
                }
                Err(failure) if failure.exit == Exit::Unreachable => {
                    let since = *failing_since.get_or_insert_with(std::time::Instant::now);
                    if since.elapsed() >= arguments.target.timeout {
                        return Err(failure);
                    }
                    break;
                }
                Err(failure) => return Err(failure),
            };
            failing_since = None;
            let before = known.get(group);
            if before == Some(&now) {
                continue;
            }
            let changes = changes(before.and_then(Option::as_ref), now.as_ref());
            write_out(line(group, now.as_ref(), &changes, arguments.target.format).as_bytes())?;
            known.insert(group, now);
            left = left.map(|left| left.saturating_sub(1));
            if left == Some(0) {
                return Ok(());
            }
        }
        std::thread::sleep(arguments.interval);
    }
}

/// One change: when, what the group is now, and what became different.
fn line(group: &str, now: Option<&GroupOverview>, changes: &[String], format: Format) -> String {
    let time_ms = now_ms();
    let (kind, state) = now.map_or((None, ABSENT), |now| (Some(now.kind), now.state.as_str()));
    let members = now.map_or(0, |now| now.members.len());
    if format == Format::Json {
        let epoch = now.and_then(|now| now.epoch);
        let object = json!({
            "_command": "group state", "_version": JSON_VERSION, "time_ms": time_ms, "group": group, "type": kind,
            "state": state, "epoch": epoch, "members": members, "changes": changes,
        });
        return format!("{object}\n");
    }
    let epoch = now.and_then(|now| now.epoch).map_or(String::new(), |epoch| format!(" epoch {epoch}"));
    let noun = if members == 1 { "member" } else { "members" };
    let kind = kind.map_or(String::new(), |kind| format!(" ({kind})"));
    let changes = changes.iter().map(|change| format!("  {change}")).collect::<String>();
    format!("{}  {group}{kind}  {state}{epoch}  {members} {noun}{changes}\n", utc(time_ms))
}

/// Who came, who went, who has other partitions than before.
fn changes(before: Option<&GroupOverview>, now: Option<&GroupOverview>) -> Vec<String> {
    let by_id = |group: Option<&GroupOverview>| -> BTreeMap<String, GroupMember> {
        let members = group.into_iter().flat_map(|group| &group.members);
        members.map(|member| (member.member_id.clone(), member.clone())).collect()
    };
    let (before, now) = (by_id(before), by_id(now));
    let gone = before.keys().filter(|id| !now.contains_key(*id)).map(|id| format!("-{id}"));
    let mut changes: Vec<String> = gone.collect();
    for (id, member) in &now {
        let sign = if before.contains_key(id) { "" } else { "+" };
        let had = before.get(id).and_then(|member| member.partitions.as_ref());
        if sign == "+" || had != member.partitions.as_ref() {
            let has = member.partitions.as_ref().map(words).unwrap_or_default();
            // Who comes has nothing at first; that goes without saying.
            let has = match (sign, has.as_str()) {
                ("+", "") => String::new(),
                (_, "") => "=none".to_string(),
                (_, has) => format!("={has}"),
            };
            changes.push(format!("{sign}{id}{has}"));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn group(members: &[(&str, &[i32])]) -> GroupOverview {
        let member = |(id, partitions): &(&str, &[i32])| GroupMember {
            member_id: id.to_string(),
            instance_id: None,
            client_id: "c".into(),
            host: "h".into(),
            kind: Some("classic"),
            epoch: None,
            partitions: Some(vec![("t".to_string(), partitions.to_vec())]),
            target: None,
        };
        GroupOverview {
            kind: "classic",
            state: "Stable".into(),
            protocol_type: "consumer".into(),
            assignor: "range".into(),
            epoch: None,
            coordinator: 1,
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn what_changed_is_said() {
        let (one, two) = (group(&[("a", &[0, 1])]), group(&[("a", &[0]), ("b", &[1])]));
        let mut idle = group(&[("a", &[])]);
        idle.members[0].partitions = Some(Vec::new());
        assert_eq!(changes(None, Some(&idle)), ["+a"]);
        assert_eq!(changes(Some(&one), Some(&idle)), ["a=none"]);
        assert_eq!(changes(None, Some(&one)), ["+a=t:0,1"]);
        assert_eq!(changes(Some(&one), Some(&two)), ["a=t:0", "+b=t:1"]);
        assert_eq!(changes(Some(&two), Some(&one)), ["-b", "a=t:0,1"]);
        assert_eq!(changes(Some(&one), None), ["-a"]);
        assert_eq!(changes(Some(&one), Some(&one)), Vec::<String>::new());
    }

    #[test]
    fn a_group_that_is_gone_is_absent() {
        assert!(line("g", None, &[], Format::Table).ends_with("  g  Absent  0 members\n"));
        let object: Value = serde_json::from_str(&line("g", None, &[], Format::Json)).unwrap();
        assert_eq!((&object["state"], &object["type"]), (&json!("Absent"), &Value::Null));
    }
}
