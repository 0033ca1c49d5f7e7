//! `pelton topic describe`: health first, then partitions with their offsets, then settings.

use std::collections::BTreeMap;

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_configs_request::DescribeConfigsResource;
use pelton_wire::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use pelton_wire::messages::{DescribeConfigsRequestData, DescribeConfigsResponseData, KafkaUuid};
use serde_json::{Value, json};

use super::client::Client;
use super::output::Report;
use super::partition_reader::{EARLIEST, LATEST, list_offsets};
use super::topic::{DescribeArguments, message_of, name_of, sorted};
use crate::failure::Failure;

/// Resource type of a topic in the configuration APIs.
pub const RESOURCE_TOPIC: i8 = 2;
/// Where a setting comes from (Kafka's ConfigSource).
const SOURCES: &[&str] = &[
    "unknown",
    "topic",
    "dynamic-broker",
    "dynamic-default",
    "static",
    "default",
    "dynamic-logger",
    "client-metrics",
    "group",
];
/// The number of `default` among them.
const SOURCE_DEFAULT: i8 = 5;

/// Runs it.
pub fn run(arguments: &DescribeArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let named = !arguments.topics.is_empty();
    let metadata = client.metadata(named.then_some(arguments.topics.as_slice()), false)?;
    let mut report = Report::new("topic describe");
    let (mut health, mut partitions, mut configs) = (Vec::new(), Vec::new(), Vec::new());
    for topic in sorted(&metadata.topics) {
        let name = name_of(topic);
        let error = ErrorCode::from_code(topic.error_code);
        if error != ErrorCode::None {
            let known = client.topic_names();
            report.failed(&name, error, crate::suggest::hint(&name, known.iter().map(String::as_str)).trim());
            continue;
        }
        if !named && topic.is_internal {
            continue;
        }
        health.push(health_row(topic));
        if named {
            partitions.extend(partition_rows(&mut client, &name, topic)?);
            configs.extend(config_rows(&mut client, &name, arguments.all, &mut report)?);
        }
    }
    report.section("topics", &["TOPIC", "TOPIC-ID", "PARTITIONS", "REPLICAS", "HEALTH"], health);
    if named {
        report.section(
            "partitions",
            &[
                "TOPIC",
                "PARTITION",
                "LEADER",
                "EPOCH",
                "REPLICAS",
                "ISR",
                "LOG-START-OFFSET",
                "HIGH-WATERMARK",
            ],
            partitions,
        );
        report.section("configs", &["TOPIC", "KEY", "VALUE", "SOURCE"], configs);
    }
    report.print(arguments.target.format)
}

fn health_row(topic: &MetadataResponseTopic) -> Vec<Value> {
    let replicas = topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max().unwrap_or(0);
    let id =
        if topic.topic_id == KafkaUuid::default() { Value::Null } else { json!(topic.topic_id.to_string()) };
    vec![
        json!(name_of(topic)),
        id,
        json!(topic.partitions.len()),
        json!(replicas),
        json!(health(&topic.partitions)),
    ]
}

/// In words: what is wrong with some partitions, worst first, or `ok`.
pub fn health(partitions: &[MetadataResponsePartition]) -> String {
    let count =
        |wrong: fn(&MetadataResponsePartition) -> bool| partitions.iter().filter(|p| wrong(p)).count();
    let leaderless = count(|partition| partition.leader_id < 0);
    let under = count(|partition| partition.isr_nodes.len() < partition.replica_nodes.len());
    match (leaderless, under) {
        (0, 0) => "ok".to_string(),
        (0, under) => format!("{under} under-replicated"),
        (leaderless, 0) => format!("{leaderless} without leader"),
        (leaderless, under) => format!("{leaderless} without leader, {under} under-replicated"),
    }
}

fn partition_rows(
    client: &mut Client,
    name: &str,
    topic: &MetadataResponseTopic,
) -> Result<Vec<Vec<Value>>, Failure> {
    let numbers: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
    let ask = |client: &mut Client, time: i64| -> Result<BTreeMap<i32, i64>, Failure> {
        let wanted: Vec<(i32, i64)> = numbers.iter().map(|number| (*number, time)).collect();
        list_offsets(client, name, &wanted)
    };
    // A partition without a leader has no offsets to tell; the rest of the picture is worth showing.
    let led = topic.partitions.iter().all(|partition| partition.leader_id >= 0);
    let (starts, ends) =
        if led { (ask(client, EARLIEST)?, ask(client, LATEST)?) } else { (BTreeMap::new(), BTreeMap::new()) };
    let mut rows: Vec<(i32, Vec<Value>)> = Vec::new();
    for partition in &topic.partitions {
        let index = partition.partition_index;
        rows.push((
            index,
            vec![
                json!(name),
                json!(index),
                json!(partition.leader_id),
                json!(partition.leader_epoch),
                json!(partition.replica_nodes),
                json!(partition.isr_nodes),
                json!(starts.get(&index)),
                json!(ends.get(&index)),
            ],
        ));
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn config_rows(
    client: &mut Client,
    name: &str,
    all: bool,
    report: &mut Report,
) -> Result<Vec<Vec<Value>>, Failure> {
    let request = |_version: i16| DescribeConfigsRequestData {
        resources: vec![DescribeConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: name.to_string().into(),
            configuration_keys: None,
            ..DescribeConfigsResource::default()
        }],
        ..DescribeConfigsRequestData::default()
    };
    let answer: DescribeConfigsResponseData = client.ask_any(ApiKey::DescribeConfigs, 4, request)?;
    let mut rows = Vec::new();
    for result in &answer.results {
        let error = ErrorCode::from_code(result.error_code);
        if error != ErrorCode::None {
            report.failed(name, error, &message_of(result.error_message.as_ref()));
        }
        let mut configs: Vec<_> = result.configs.iter().collect();
        configs.sort_by_key(|config| config.name.to_string());
        for config in configs {
            if all || config.config_source != SOURCE_DEFAULT {
                let source = usize::try_from(config.config_source).ok().and_then(|at| SOURCES.get(at));
                let value = config.value.as_ref().map(ToString::to_string);
                rows.push(vec![json!(name), json!(config.name.as_str()), json!(value), json!(source)]);
            }
        }
    }
    Ok(rows)
}
