//! IncrementalAlterConfigs (key 44, KIP-339) and AlterConfigs (key 33), which replaces all settings of a resource.

use std::collections::BTreeMap;

use pelton_cluster::controller::{Alter, Refusal, Refused, alter_config, replace_configs};
use pelton_cluster::group_configs;
use pelton_cluster::record::{ConfigResource, MetadataRecord};
use pelton_wire::messages::{
    AlterConfigsRequestData, AlterConfigsResponseData, IncrementalAlterConfigsRequestData,
    IncrementalAlterConfigsResponseData, KafkaString, alter_configs_response,
    incremental_alter_configs_response,
};

use super::context::{ApiContext, Planned, refused};
use super::describe_configs::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};

/// Plans changes of single settings.
pub fn handle_incremental(
    context: &ApiContext<'_>,
    _version: i16,
    request: IncrementalAlterConfigsRequestData,
) -> Planned<IncrementalAlterConfigsResponseData> {
    let mut records = Vec::new();
    let mut responses = Vec::new();
    let mut seen: Vec<(i8, KafkaString)> = Vec::new();
    for wanted in request.resources {
        let twice = seen.contains(&(wanted.resource_type, wanted.resource_name.clone()));
        seen.push((wanted.resource_type, wanted.resource_name.clone()));
        let planned = resource(context, wanted.resource_type, wanted.resource_name.as_str(), twice).and_then(
            |resource| {
                let mut planned = Vec::new();
                for (at, config) in wanted.configs.iter().enumerate() {
                    if wanted.configs[..at].iter().any(|other| other.name == config.name) {
                        let text = format!("Error due to duplicate config keys: {}", config.name);
                        return Err((Refusal::InvalidRequest, text));
                    }
                    let alter = match config.config_operation {
                        0 => Alter::Set,
                        1 => Alter::Delete,
                        2 => Alter::Append,
                        3 => Alter::Subtract,
                        other => {
                            return Err((Refusal::InvalidRequest, format!("Unknown operation type {other}")));
                        }
                    };
                    let value = config.value.as_ref().map(KafkaString::as_str);
                    planned.push(alter_config(
                        context.image,
                        context.config,
                        &resource,
                        config.name.as_str(),
                        alter,
                        value,
                    )?);
                }
                check_all(context, &resource, planned)
            },
        );
        let (error_code, error_message) = outcome(planned, &mut records);
        responses.push(incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: wanted.resource_type,
            resource_name: wanted.resource_name,
            ..Default::default()
        });
    }
    if request.validate_only {
        records.clear();
    }
    Planned { records, response: IncrementalAlterConfigsResponseData { responses, ..Default::default() } }
}

/// Plans replacements of all settings.
pub fn handle_alter(
    context: &ApiContext<'_>,
    _version: i16,
    request: AlterConfigsRequestData,
) -> Planned<AlterConfigsResponseData> {
    let mut records = Vec::new();
    let mut responses = Vec::new();
    let mut seen: Vec<(i8, KafkaString)> = Vec::new();
    for wanted in request.resources {
        let twice = seen.contains(&(wanted.resource_type, wanted.resource_name.clone()));
        seen.push((wanted.resource_type, wanted.resource_name.clone()));
        let configs: BTreeMap<String, Option<String>> = wanted
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)))
            .collect();
        let planned = resource(context, wanted.resource_type, wanted.resource_name.as_str(), twice).and_then(
            |resource| {
                let planned = replace_configs(context.image, context.config, &resource, &configs)?;
                check_all(context, &resource, planned)
            },
        );
        let (error_code, error_message) = outcome(planned, &mut records);
        responses.push(alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: wanted.resource_type,
            resource_name: wanted.resource_name,
            ..Default::default()
        });
    }
    if request.validate_only {
        records.clear();
    }
    Planned { records, response: AlterConfigsResponseData { responses, ..Default::default() } }
}

fn resource(context: &ApiContext<'_>, kind: i8, name: &str, twice: bool) -> Result<ConfigResource, Refused> {
    if twice {
        return Err((Refusal::InvalidRequest, "Each resource must appear at most once.".to_string()));
    }
    match kind {
        RESOURCE_TOPIC if !pelton_cluster::names::is_valid(name) => {
            Err((Refusal::InvalidTopic, format!("Topic name '{}' is invalid", name.escape_debug())))
        }
        RESOURCE_TOPIC if context.image.topic_by_name(name).is_none() => {
            Err((Refusal::UnknownTopic, format!("The topic '{name}' does not exist.")))
        }
        RESOURCE_TOPIC => Ok(ConfigResource::Topic(name.to_string())),
        RESOURCE_BROKER if name.is_empty() || context.brokers().iter().any(|b| b.id.to_string() == name) => {
            Ok(ConfigResource::Broker(name.to_string()))
        }
        RESOURCE_BROKER => {
            Err((Refusal::InvalidRequest, format!("Unexpected broker id {}", name.escape_debug())))
        }
        RESOURCE_GROUP if name.is_empty() => {
            Err((Refusal::InvalidRequest, "Default group resources are not allowed.".to_string()))
        }
        RESOURCE_GROUP => Ok(ConfigResource::Group(name.to_string())),
        other => Err((Refusal::InvalidRequest, format!("Unsupported resource type {other}"))),
    }
}

/// The settings of a group must fit together; those of others are checked one by one.
fn check_all(
    context: &ApiContext<'_>,
    resource: &ConfigResource,
    planned: Vec<MetadataRecord>,
) -> Result<Vec<MetadataRecord>, Refused> {
    if let ConfigResource::Group(group) = resource {
        group_configs::check_all(context.image, &context.config.group, group, &planned)?;
    }
    Ok(planned)
}

fn outcome(
    planned: Result<Vec<MetadataRecord>, Refused>,
    records: &mut Vec<MetadataRecord>,
) -> (i16, Option<KafkaString>) {
    match planned {
        Ok(more) => {
            records.extend(more);
            (0, None)
        }
        Err(refusal) => refused(refusal),
    }
}
