//! `pelton topic create`, `alter`, `add-partitions`, `trim` and `delete`. Each item gets a row with how it came out.

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::create_partitions_request::CreatePartitionsTopic;
use pelton_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use pelton_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use pelton_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use pelton_wire::messages::{
    CreatePartitionsRequestData, CreatePartitionsResponseData, CreateTopicsRequestData,
    CreateTopicsResponseData, DeleteRecordsRequestData, DeleteRecordsResponseData, DeleteTopicsRequestData,
    DeleteTopicsResponseData, IncrementalAlterConfigsRequestData, IncrementalAlterConfigsResponseData,
    KafkaString,
};
use serde_json::{Value, json};

use super::client::Client;
use super::output::Report;
use super::partition_reader::{by_leader, now_ms, resolve};
use super::position::position;
use super::topic::{
    AddPartitionsArguments, AlterArguments, CreateArguments, DeleteArguments, TrimArguments, confirm,
    message_of, status,
};
use super::topic_describe::RESOURCE_TOPIC;
use crate::arguments::Format;
use crate::failure::Failure;

const CHANGED: &[&str] = &["TOPIC", "STATUS", "MESSAGE"];

/// `-1` in CreateTopics: the broker's default (KIP-464).
const BROKER_DEFAULT: i32 = -1;

fn create_request(arguments: &CreateArguments, timeout_ms: i32) -> CreateTopicsRequestData {
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: name.clone().into(),
        value: Some(value.clone().into()),
        ..CreatableTopicConfig::default()
    };
    let topic = |name: &String| CreatableTopic {
        name: name.clone().into(),
        num_partitions: arguments.partitions.unwrap_or(BROKER_DEFAULT),
        replication_factor: arguments.replicas.unwrap_or(BROKER_DEFAULT as i16),
        configs: arguments.configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    };
    CreateTopicsRequestData {
        topics: arguments.topics.iter().map(topic).collect(),
        timeout_ms,
        validate_only: arguments.validate_only,
        ..CreateTopicsRequestData::default()
    }
}

/// `pelton topic create`.
pub fn create(arguments: &CreateArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let timeout_ms = client.timeout_ms();
    let answer: CreateTopicsResponseData = client.ask_controller(
        ApiKey::CreateTopics,
        7,
        |_| create_request(arguments, timeout_ms),
        |answer: &CreateTopicsResponseData| answer.topics.first().map_or(0, |topic| topic.error_code),
    )?;
    let mut report = Report::new("topic create");
    let mut rows = Vec::new();
    for topic in &answer.topics {
        let mut error = ErrorCode::from_code(topic.error_code);
        let mut message = message_of(topic.error_message.as_ref());
        if error == ErrorCode::TopicAlreadyExists && arguments.if_not_exists {
            (error, message) = (ErrorCode::None, "exists already".to_string());
        } else if error != ErrorCode::None {
            report.failed(topic.name.as_str(), error, &message);
        }
        let known = |number: i32| if number > 0 { json!(number) } else { Value::Null };
        let count = known(topic.num_partitions);
        rows.push(vec![json!(topic.name.as_str()), count, json!(status(error)), json!(message)]);
    }
    report.section("topics", &["TOPIC", "PARTITIONS", "STATUS", "MESSAGE"], rows);
    report.print(arguments.target.format)
}

/// Operations of IncrementalAlterConfigs (KIP-339).
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;
const OPERATION_APPEND: i8 = 2;
const OPERATION_SUBTRACT: i8 = 3;

fn alterations(arguments: &AlterArguments) -> Vec<AlterableConfig> {
    let config = |name: &String, value: Option<&String>, operation: i8| AlterableConfig {
        name: name.clone().into(),
        config_operation: operation,
        value: value.map(|value| KafkaString::from(value.clone())),
        ..AlterableConfig::default()
    };
    let mut configs: Vec<AlterableConfig> =
        arguments.set.iter().map(|(name, value)| config(name, Some(value), OPERATION_SET)).collect();
    configs.extend(arguments.delete.iter().map(|name| config(name, None, OPERATION_DELETE)));
    configs.extend(arguments.append.iter().map(|(name, value)| config(name, Some(value), OPERATION_APPEND)));
    configs
        .extend(arguments.subtract.iter().map(|(name, value)| config(name, Some(value), OPERATION_SUBTRACT)));
    configs
}

/// `pelton topic alter`.
pub fn alter(arguments: &AlterArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let request = |_version: i16| IncrementalAlterConfigsRequestData {
        resources: vec![AlterConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: arguments.topic.clone().into(),
            configs: alterations(arguments),
            ..AlterConfigsResource::default()
        }],
        validate_only: arguments.validate_only,
        ..IncrementalAlterConfigsRequestData::default()
    };
    let answer: IncrementalAlterConfigsResponseData = client.ask_controller(
        ApiKey::IncrementalAlterConfigs,
        1,
        request,
        |answer: &IncrementalAlterConfigsResponseData| {
            answer.responses.first().map_or(0, |response| response.error_code)
        },
    )?;
    let results = answer
        .responses
        .iter()
        .map(|response| {
            let message = message_of(response.error_message.as_ref());
            (response.resource_name.to_string(), ErrorCode::from_code(response.error_code), message)
        })
        .collect();
    changed(&mut client, "topic alter", results, arguments.target.format)
}

/// `pelton topic add-partitions`.
pub fn add_partitions(arguments: &AddPartitionsArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let count = match (arguments.total, arguments.number) {
        (Some(total), _) => total,
        (None, more) => client.find_topic(&arguments.topic, false)?.saturating_add(more.unwrap_or(0)),
    };
    let timeout_ms = client.timeout_ms();
    let request = |_version: i16| CreatePartitionsRequestData {
        topics: vec![CreatePartitionsTopic {
            name: arguments.topic.clone().into(),
            count,
            assignments: None,
            ..CreatePartitionsTopic::default()
        }],
        timeout_ms,
        ..CreatePartitionsRequestData::default()
    };
    let answer: CreatePartitionsResponseData = client.ask_controller(
        ApiKey::CreatePartitions,
        3,
        request,
        |answer: &CreatePartitionsResponseData| answer.results.first().map_or(0, |result| result.error_code),
    )?;
    let results = answer
        .results
        .iter()
        .map(|result| {
            let message = message_of(result.error_message.as_ref());
            (result.name.to_string(), ErrorCode::from_code(result.error_code), message)
        })
        .collect();
    changed(&mut client, "topic add-partitions", results, arguments.target.format)
}

/// `pelton topic delete`.
pub fn delete(arguments: &DeleteArguments) -> Result<(), Failure> {
    confirm(arguments.yes, &format!("Delete {} and everything in it?", arguments.topics.join(", ")))?;
    let mut client = Client::new(&arguments.target);
    let timeout_ms = client.timeout_ms();
    // Version 5 is the last that takes names in a plain list.
    let request = |_version: i16| DeleteTopicsRequestData {
        topic_names: arguments.topics.iter().map(|name| KafkaString::from(name.clone())).collect(),
        timeout_ms,
        ..DeleteTopicsRequestData::default()
    };
    let answer: DeleteTopicsResponseData =
        client.ask_controller(ApiKey::DeleteTopics, 5, request, |answer: &DeleteTopicsResponseData| {
            answer.responses.first().map_or(0, |response| response.error_code)
        })?;
    let results = answer
        .responses
        .iter()
        .map(|response| {
            let message = message_of(response.error_message.as_ref());
            (message_of(response.name.as_ref()), ErrorCode::from_code(response.error_code), message)
        })
        .collect();
    changed(&mut client, "topic delete", results, arguments.target.format)
}

/// Rows of changes that were done or not.
fn changed(
    client: &mut Client,
    command: &'static str,
    results: Vec<(String, ErrorCode, String)>,
    format: Format,
) -> Result<(), Failure> {
    let mut report = Report::new(command);
    let mut rows = Vec::new();
    for (topic, error, mut message) in results {
        if error == ErrorCode::UnknownTopicOrPartition {
            let names = client.topic_names();
            message.push_str(&crate::suggest::hint(&topic, names.iter().map(String::as_str)));
        }
        if error != ErrorCode::None {
            report.failed(&topic, error, message.trim());
        }
        rows.push(vec![json!(topic), json!(status(error)), json!(message.trim())]);
    }
    report.section("topics", CHANGED, rows);
    report.print(format)
}

/// `pelton topic trim`.
pub fn trim(arguments: &TrimArguments) -> Result<(), Failure> {
    let wanted = position(&arguments.offset, now_ms()).map_err(Failure::usage)?;
    let mut client = Client::new(&arguments.target);
    let count = client.find_topic(&arguments.topic, false)?;
    let partitions = chosen(&arguments.partitions, count, &arguments.topic)?;
    confirm(
        arguments.yes,
        &format!("Delete the records of {} before {}?", arguments.topic, arguments.offset),
    )?;
    let offsets = resolve(&mut client, &arguments.topic, &partitions, wanted)?;
    let mut report = Report::new("topic trim");
    let mut rows = Vec::new();
    for (leader, partitions) in by_leader(&client, &arguments.topic, &partitions)? {
        let timeout_ms = client.timeout_ms();
        let partition = |index: &i32| DeleteRecordsPartition {
            partition_index: *index,
            offset: offsets[index],
            ..DeleteRecordsPartition::default()
        };
        let request = |_version: i16| DeleteRecordsRequestData {
            topics: vec![DeleteRecordsTopic {
                name: arguments.topic.clone().into(),
                partitions: partitions.iter().map(partition).collect(),
                ..DeleteRecordsTopic::default()
            }],
            timeout_ms,
            ..DeleteRecordsRequestData::default()
        };
        let answer: DeleteRecordsResponseData =
            client.ask_broker(leader, ApiKey::DeleteRecords, 2, request)?;
        for result in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let error = ErrorCode::from_code(result.error_code);
            let index = result.partition_index;
            if error != ErrorCode::None {
                report.failed(&format!("{}[{index}]", arguments.topic), error, "");
            }
            let start = (error == ErrorCode::None).then_some(result.low_watermark);
            rows.push((
                index,
                vec![json!(arguments.topic), json!(index), json!(start), json!(status(error))],
            ));
        }
    }
    rows.sort_by_key(|(index, _)| *index);
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    report.section("partitions", &["TOPIC", "PARTITION", "LOG-START-OFFSET", "STATUS"], rows);
    report.print(arguments.target.format)
}

/// The partitions asked for, or all; one that does not exist is an error of usage.
pub fn chosen(asked: &[i32], count: i32, topic: &str) -> Result<Vec<i32>, Failure> {
    if let Some(wrong) = asked.iter().find(|partition| !(0..count).contains(*partition)) {
        return Err(Failure::usage(format!(
            "topic {topic} has {count} partitions, 0 to {}; not {wrong}",
            count - 1
        )));
    }
    Ok(if asked.is_empty() { (0..count).collect() } else { asked.to_vec() })
}
