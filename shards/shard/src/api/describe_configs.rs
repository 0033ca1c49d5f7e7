//! DescribeConfigs (key 32, KIP-226, KIP-569): every setting of a topic or broker, with where its value comes from. Tools
//! rely on all of them being there.

use pelton_cluster::config_defs::{self, ADVERTISED_LISTENERS, ConfigDef};
use pelton_cluster::configs::{Source, Sourced, topic_values};
use pelton_cluster::record::ConfigResource;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    DescribeConfigsRequestData, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponseData, DescribeConfigsResult, DescribeConfigsSynonym, KafkaString,
};

use super::context::ApiContext;

/// Kafka's resource types.
pub(crate) const RESOURCE_TOPIC: i8 = 2;
pub(crate) const RESOURCE_BROKER: i8 = 4;
pub(crate) const RESOURCE_GROUP: i8 = 32;

/// The answer.
pub fn handle(
    context: &ApiContext<'_>,
    version: i16,
    request: DescribeConfigsRequestData,
) -> DescribeConfigsResponseData {
    let shape = Shape { synonyms: request.include_synonyms, docs: request.include_documentation, version };
    let results = request.resources.into_iter().map(|resource| describe(context, &shape, resource)).collect();
    DescribeConfigsResponseData { results, ..DescribeConfigsResponseData::default() }
}

struct Shape {
    synonyms: bool,
    docs: bool,
    version: i16,
}

fn describe(
    context: &ApiContext<'_>,
    shape: &Shape,
    resource: DescribeConfigsResource,
) -> DescribeConfigsResult {
    // No list, and an empty one too, mean every setting, as Kafka 4.3 has it.
    let wanted = |name: &str| {
        resource
            .configuration_keys
            .as_ref()
            .is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key.as_str() == name))
    };
    let found = match resource.resource_type {
        RESOURCE_TOPIC => describe_topic(context, shape, resource.resource_name.as_str(), wanted),
        RESOURCE_BROKER => describe_broker(context, shape, resource.resource_name.as_str(), wanted),
        RESOURCE_GROUP => describe_group(context, shape, resource.resource_name.as_str(), wanted),
        other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type {other}"))),
    };
    let mut result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..DescribeConfigsResult::default()
    };
    match found {
        Ok(configs) => result.configs = configs,
        Err((error, text)) => {
            (result.error_code, result.error_message) = (error.code(), Some(KafkaString::from(text)));
        }
    }
    result
}

type Configs = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)>;

fn describe_topic(
    context: &ApiContext<'_>,
    shape: &Shape,
    name: &str,
    wanted: impl Fn(&str) -> bool,
) -> Configs {
    if !pelton_cluster::names::is_valid(name) {
        return Err((
            ErrorCode::InvalidTopicException,
            format!("Topic name '{}' is invalid", name.escape_debug()),
        ));
    }
    if context.image.topic_by_name(name).is_none() {
        return Err((
            ErrorCode::UnknownTopicOrPartition,
            "This server does not host this topic-partition.".to_string(),
        ));
    }
    Ok(config_defs::TOPIC
        .iter()
        .filter(|def| wanted(def.name))
        .map(|def| {
            result(shape, def, def.name, false, topic_values(context.image, context.config, Some(name), def))
        })
        .collect())
}

fn describe_broker(
    context: &ApiContext<'_>,
    shape: &Shape,
    name: &str,
    wanted: impl Fn(&str) -> bool,
) -> Configs {
    let broker = context.brokers().into_iter().find(|broker| broker.id.to_string() == name);
    if broker.is_none() && !name.is_empty() {
        let text = format!(
            "Unexpected broker id, expected one of this node's or empty, but received {}",
            name.escape_debug()
        );
        return Err((ErrorCode::InvalidRequest, text));
    }
    let mut results = Vec::new();
    for def in config_defs::TOPIC {
        let Some(broker_name) = def.synonym else { continue };
        if !wanted(broker_name) {
            continue;
        }
        let mut values = topic_values(context.image, context.config, None, def);
        if name.is_empty() {
            values.retain(|sourced| sourced.source == Source::DynamicDefaultBroker);
            if values.is_empty() {
                continue;
            }
        }
        results.push(result(shape, def, broker_name, false, values));
    }
    for def in config_defs::DYNAMIC.iter().filter(|def| wanted(def.name)) {
        // Kafka too shows them only where they are set.
        let values = dynamic_values(context, name, def);
        if !values.is_empty() {
            results.push(result(shape, def, def.name, false, values));
        }
    }
    if let Some(broker) = broker.filter(|_| wanted(ADVERTISED_LISTENERS.name)) {
        let value = format!("PLAINTEXT://{}:{}", broker.host.as_str(), broker.port);
        let name = ADVERTISED_LISTENERS.name.to_string();
        let values = vec![Sourced { name, value, source: Source::StaticBroker }];
        results.push(result(shape, &ADVERTISED_LISTENERS, ADVERTISED_LISTENERS.name, true, values));
    }
    for def in config_defs::broker().filter(|def| !name.is_empty() && wanted(def.name)) {
        results.push(result(shape, def, def.name, true, broker_values(context, def)));
    }
    Ok(results)
}

/// The settings of a group (KIP-848), which need not exist: its own, else the broker's `group.consumer.…` settings.
fn describe_group(
    context: &ApiContext<'_>,
    shape: &Shape,
    name: &str,
    wanted: impl Fn(&str) -> bool,
) -> Configs {
    if name.is_empty() {
        return Err((ErrorCode::InvalidRequest, "Group name must not be empty".to_string()));
    }
    let values = |def: &ConfigDef| {
        let own = context.image.group_config(name, def.name).map(|value| Sourced {
            name: def.name.to_string(),
            value: value.to_string(),
            source: Source::Group,
        });
        let of_broker = config_defs::GROUP.iter().find(|broker| Some(broker.name) == def.synonym);
        own.into_iter().chain(of_broker.into_iter().flat_map(|def| broker_values(context, def))).collect()
    };
    let defs = config_defs::OF_ONE_GROUP.iter().filter(|def| wanted(def.name));
    Ok(defs.map(|def| result(shape, def, def.name, false, values(def))).collect())
}

/// What is set for a broker (none: for all of them), and for all.
fn dynamic_values(context: &ApiContext<'_>, broker: &str, def: &ConfigDef) -> Vec<Sourced> {
    let of = |broker: &str, source| {
        let value = context.image.config(&ConfigResource::Broker(broker.to_string()), def.name)?;
        Some(Sourced { name: def.name.to_string(), value: value.to_string(), source })
    };
    let own = (!broker.is_empty()).then(|| of(broker, Source::DynamicBroker)).flatten();
    own.into_iter().chain(of("", Source::DynamicDefaultBroker)).collect()
}

fn broker_values(context: &ApiContext<'_>, def: &ConfigDef) -> Vec<Sourced> {
    let given = context.config.given.iter().rev().find(|(name, _)| name == def.name);
    let mut values = Vec::new();
    let mut add = |value: &str, source| {
        values.push(Sourced { name: def.name.to_string(), value: value.to_string(), source });
    };
    if def.name == "node.id" {
        add(&context.config.node_id.0.to_string(), Source::StaticBroker);
    } else if let Some((_, value)) = given {
        add(value, Source::StaticBroker);
    }
    add(def.default, Source::Default);
    values
}

fn result(
    shape: &Shape,
    def: &ConfigDef,
    name: &str,
    read_only: bool,
    values: Vec<Sourced>,
) -> DescribeConfigsResourceResult {
    let first = values.first();
    let mut result = DescribeConfigsResourceResult {
        name: KafkaString::from(name.to_string()),
        value: first.map(|sourced| KafkaString::from(sourced.value.clone())),
        read_only,
        config_source: first.map_or(Source::Default, |sourced| sourced.source) as i8,
        ..DescribeConfigsResourceResult::default()
    };
    if shape.synonyms {
        result.synonyms = values
            .into_iter()
            .map(|sourced| DescribeConfigsSynonym {
                name: KafkaString::from(sourced.name),
                value: Some(KafkaString::from(sourced.value)),
                source: sourced.source as i8,
                ..DescribeConfigsSynonym::default()
            })
            .collect();
    }
    if shape.version >= 3 {
        result.config_type = def.kind.code();
        result.documentation = shape.docs.then(|| KafkaString::from_static(def.doc));
    }
    result
}
