//! Requests of clients, and how they are written and read.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self as m, KafkaString, decode_response, encode_request};

use super::COPIES;

/// Sets `min.insync.replicas` of a topic.
pub fn alter_body(topic: &'static str, min_insync_replicas: u64) -> m::IncrementalAlterConfigsRequestData {
    let config = m::incremental_alter_configs_request::AlterableConfig {
        name: KafkaString::from_static("min.insync.replicas"),
        config_operation: 0,
        value: Some(KafkaString::from(min_insync_replicas.to_string())),
        ..Default::default()
    };
    let resource = m::incremental_alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: KafkaString::from_static(topic),
        configs: vec![config],
        ..Default::default()
    };
    m::IncrementalAlterConfigsRequestData { resources: vec![resource], ..Default::default() }
}

/// Brokers' clocks are hours behind those of clients, who are not refused for it.
pub fn any_timestamp() -> (&'static str, String) {
    ("message.timestamp.after.max.ms", i64::MAX.to_string())
}

/// A topic with three replicas of each partition.
pub fn create_body(
    topic: &'static str,
    configs: &[(&'static str, String)],
    num_partitions: i32,
) -> m::CreateTopicsRequestData {
    let config = |(name, value): &(&'static str, String)| m::CreatableTopicConfig {
        name: KafkaString::from_static(name),
        value: Some(KafkaString::from(value.clone())),
        ..Default::default()
    };
    m::CreateTopicsRequestData {
        topics: vec![m::CreatableTopic {
            name: KafkaString::from_static(topic),
            num_partitions,
            replication_factor: COPIES as i16,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        }],
        timeout_ms: 30_000,
        ..Default::default()
    }
}

/// A request's frame.
pub fn encoded<T: m::Message>(api_key: ApiKey, version: i16, id: i32, body: &T) -> Vec<u8> {
    encode_request(api_key, version, id, "sim", body).expect("a request we build").to_vec()
}

/// An answer's body.
pub fn decoded<T: m::Message>(api_key: ApiKey, version: i16, frame: Bytes) -> Result<T, String> {
    let answer = decode_response(api_key, version, frame);
    answer.map(|(_, body)| body).map_err(|error| format!("{} answer: {error}", api_key.name()))
}
