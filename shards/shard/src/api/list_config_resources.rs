//! ListConfigResources (key 74, KIP-1142; version 0 is KIP-714's ListClientMetricsResources): the names of what has, or can have,
//! settings. This broker has no client metrics, so none are named.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::list_config_resources_response::ConfigResource;
use pelton_wire::messages::{KafkaString, ListConfigResourcesRequestData, ListConfigResourcesResponseData};

use super::context::ApiContext;
use super::describe_configs::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};

const RESOURCE_BROKER_LOGGER: i8 = 8;
const RESOURCE_CLIENT_METRICS: i8 = 16;
/// All that version 1 can be asked for; no list means all.
const RESOURCES: [i8; 5] =
    [RESOURCE_TOPIC, RESOURCE_BROKER, RESOURCE_BROKER_LOGGER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP];

/// The answer.
pub fn handle(
    context: &ApiContext<'_>,
    version: i16,
    request: ListConfigResourcesRequestData,
) -> ListConfigResourcesResponseData {
    let known = if version == 0 { &[RESOURCE_CLIENT_METRICS][..] } else { &RESOURCES[..] };
    let wanted = if request.resource_types.is_empty() { known } else { &request.resource_types[..] };
    if wanted.iter().any(|kind| !known.contains(kind)) {
        let error_code = ErrorCode::UnsupportedVersion.code();
        return ListConfigResourcesResponseData { error_code, ..Default::default() };
    }
    let mut config_resources = Vec::new();
    // Each type once, however often it is asked for.
    for kind in RESOURCES.into_iter().filter(|kind| wanted.contains(kind)) {
        let mut add = |name: KafkaString| {
            config_resources.push(ConfigResource {
                resource_name: name,
                resource_type: kind,
                ..Default::default()
            });
        };
        match kind {
            RESOURCE_TOPIC => {
                context.image.topic_names().for_each(|name| add(KafkaString::from(name.to_string())));
            }
            RESOURCE_BROKER | RESOURCE_BROKER_LOGGER => {
                context.brokers().iter().for_each(|broker| add(KafkaString::from(broker.id.to_string())));
            }
            RESOURCE_GROUP => {
                let groups = context.image.groups_with_configs();
                groups.for_each(|name| add(KafkaString::from(name.to_string())));
            }
            _ => {}
        }
    }
    ListConfigResourcesResponseData { config_resources, ..Default::default() }
}
