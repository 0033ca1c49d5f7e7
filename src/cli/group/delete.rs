//! `pelton group delete` and `delete-offsets`. Each item gets a row with how it came out.

use std::collections::BTreeMap;

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use pelton_wire::messages::{
    DeleteGroupsRequestData, DeleteGroupsResponseData, OffsetDeleteRequestData, OffsetDeleteResponseData,
};
use serde_json::json;

use super::offsets::committed;
use super::{DeleteArguments, DeleteOffsetsArguments, remedy};
use crate::cli::client::Client;
use crate::cli::output::Report;
use crate::cli::topic::{confirm, status};
use crate::failure::Failure;

/// `pelton group delete`.
pub fn groups(arguments: &DeleteArguments) -> Result<(), Failure> {
    confirm(arguments.yes, &format!("Delete {} and all offsets committed?", arguments.groups.join(", ")))?;
    let mut client = Client::new(&arguments.target);
    client.metadata(Some(&[]), false)?;
    let mut report = Report::new("group delete");
    let mut rows = Vec::new();
    for group in &arguments.groups {
        let request = |_version: i16| DeleteGroupsRequestData {
            groups_names: vec![group.clone().into()],
            ..DeleteGroupsRequestData::default()
        };
        let result = |answer: &DeleteGroupsResponseData| {
            answer.results.first().map_or(ErrorCode::UnknownServerError.code(), |result| result.error_code)
        };
        let answer: DeleteGroupsResponseData =
            client.ask_coordinator(group, ApiKey::DeleteGroups, 2, request, result)?;
        let error = ErrorCode::from_code(result(&answer));
        let message = remedy(&mut client, group, error);
        if error != ErrorCode::None {
            report.failed(group, error, &message);
        }
        rows.push(vec![json!(group), json!(status(error)), json!(message)]);
    }
    report.section("groups", &["GROUP", "STATUS", "MESSAGE"], rows);
    report.print(arguments.target.format)
}

/// `pelton group delete-offsets`.
pub fn offsets(arguments: &DeleteOffsetsArguments) -> Result<(), Failure> {
    let group = &arguments.group;
    let topics: Vec<&str> = arguments.topics.iter().map(|asked| asked.topic.as_str()).collect();
    confirm(arguments.yes, &format!("Delete the offsets that {group} committed of {}?", topics.join(", ")))?;
    let mut client = Client::new(&arguments.target);
    client.metadata(Some(&[]), false)?;
    let wanted = wanted(&mut client, arguments)?;
    let request = |_version: i16| OffsetDeleteRequestData {
        group_id: group.clone().into(),
        topics: wanted
            .iter()
            .map(|(topic, partitions)| OffsetDeleteRequestTopic {
                name: topic.clone().into(),
                partitions: partitions
                    .iter()
                    .map(|partition| OffsetDeleteRequestPartition {
                        partition_index: *partition,
                        ..OffsetDeleteRequestPartition::default()
                    })
                    .collect(),
                ..OffsetDeleteRequestTopic::default()
            })
            .collect(),
        ..OffsetDeleteRequestData::default()
    };
    let answer: OffsetDeleteResponseData = client.ask_coordinator(
        group,
        ApiKey::OffsetDelete,
        0,
        request,
        |answer: &OffsetDeleteResponseData| answer.error_code,
    )?;
    let mut report = Report::new("group delete-offsets");
    let whole = ErrorCode::from_code(answer.error_code);
    if whole != ErrorCode::None {
        report.failed(group, whole, &remedy(&mut client, group, whole));
    }
    let mut rows = BTreeMap::new();
    for topic in &answer.topics {
        for result in &topic.partitions {
            let error = ErrorCode::from_code(result.error_code);
            let (name, index) = (topic.name.to_string(), result.partition_index);
            if error != ErrorCode::None {
                report.failed(&format!("{name}[{index}]"), error, &remedy(&mut client, group, error));
            }
            let row = vec![json!(name), json!(index), json!(status(error))];
            rows.insert((name, index), row);
        }
    }
    report.section("offsets", &["TOPIC", "PARTITION", "STATUS"], rows.into_values().collect());
    report.print(arguments.target.format)
}

/// Partitions by topic: those named, else those the group has committed, be the topic still there or not.
fn wanted(
    client: &mut Client,
    arguments: &DeleteOffsetsArguments,
) -> Result<BTreeMap<String, Vec<i32>>, Failure> {
    let current = committed(client, &arguments.group)?;
    let mut wanted: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for asked in &arguments.topics {
        let mut partitions = asked.partitions.clone();
        if partitions.is_empty() {
            let of_topic = current.keys().filter(|(topic, _)| *topic == asked.topic);
            partitions.extend(of_topic.map(|(_, partition)| *partition));
        }
        if partitions.is_empty() {
            let group = &arguments.group;
            let known: Vec<&str> = current.keys().map(|(topic, _)| topic.as_str()).collect();
            let hint = match known.is_empty() {
                true => remedy(client, group, ErrorCode::GroupIdNotFound),
                false => crate::suggest::hint(&asked.topic, known).trim().to_string(),
            };
            let words = format!("group {group} has committed nothing of topic {}. {hint}", asked.topic);
            return Err(Failure::error(words.trim_end()));
        }
        let partitions_of = wanted.entry(asked.topic.clone()).or_default();
        partitions_of.extend(partitions);
        partitions_of.sort_unstable();
        partitions_of.dedup();
    }
    Ok(wanted)
}
