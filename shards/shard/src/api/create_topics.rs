//! CreateTopics (key 19), and topics created on first use.

use std::collections::BTreeMap;

use pelton_cluster::config_defs;
use pelton_cluster::configs::topic_values;
use pelton_cluster::controller::{NewTopic, Refusal, Refused, TopicWish, create_topic};
use pelton_cluster::image::MetadataImage;
use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_cluster::placement::Placement;
use pelton_cluster::record::MetadataRecord;
use pelton_model::Prng;
use pelton_wire::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequestData,
    CreateTopicsResponseData, KafkaString, KafkaUuid,
};

use super::context::{ApiContext, Planned, refused};

/// Plans the topics of a request.
pub fn handle(
    context: &ApiContext<'_>,
    prng: &mut Prng,
    version: i16,
    request: CreateTopicsRequestData,
) -> Planned<CreateTopicsResponseData> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *count.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut batch = Batch::new(context);
    let mut topics = Vec::new();
    for topic in request.topics {
        let name = topic.name.to_string();
        let twice = count.get(&name).copied().unwrap_or(0) > 1;
        if twice && topics.iter().any(|result: &CreatableTopicResult| result.name.as_str() == name) {
            continue;
        }
        let planned = if twice {
            Err((Refusal::InvalidRequest, "Duplicate topic name.".to_string()))
        } else {
            batch.create(context, prng, &wish(&topic))
        };
        topics.push(result(context, version, &batch, topic.name, planned));
    }
    let records = if request.validate_only { Vec::new() } else { batch.records };
    Planned { records, response: CreateTopicsResponseData { topics, ..CreateTopicsResponseData::default() } }
}

/// Plans topics with the defaults; those that cannot be are left out.
pub fn auto_create(context: &ApiContext<'_>, prng: &mut Prng, names: &[String]) -> Vec<MetadataRecord> {
    let mut batch = Batch::new(context);
    for name in names {
        let wish = match name.as_str() {
            OFFSETS_TOPIC => offsets_wish(context),
            _ => {
                TopicWish { name: name.clone(), partitions: -1, replication_factor: -1, ..Default::default() }
            }
        };
        // Refused ones stay unknown, and the client is told so.
        let _ = batch.create(context, prng, &wish);
    }
    batch.records
}

/// `__consumer_offsets` as Kafka makes it (GroupCoordinatorService.groupMetadataTopicConfigs).
fn offsets_wish(context: &ApiContext<'_>) -> TopicWish {
    let config = context.config;
    // Nodes that are away, or have not come yet, count: the topic is refused, and asked for again, until they are there, rather
    // than kept with fewer copies for ever.
    let factor = if context.is_cluster() { config.offsets_topic_replication_factor } else { -1 };
    let configs = [
        ("cleanup.policy", "compact".to_string()),
        ("compression.type", "producer".to_string()),
        ("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
    ];
    TopicWish {
        name: OFFSETS_TOPIC.to_string(),
        partitions: config.offsets_topic_partitions,
        replication_factor: factor,
        configs: configs.into_iter().map(|(name, value)| (name.to_string(), Some(value))).collect(),
        ..TopicWish::default()
    }
}

/// Topics of one request, each planned on top of those before it.
struct Batch {
    image: MetadataImage,
    placement: Placement,
    records: Vec<MetadataRecord>,
}

impl Batch {
    fn new(context: &ApiContext<'_>) -> Batch {
        Batch { image: context.image.clone(), placement: context.placement(), records: Vec::new() }
    }

    fn create(
        &mut self,
        context: &ApiContext<'_>,
        prng: &mut Prng,
        wish: &TopicWish,
    ) -> Result<NewTopic, Refused> {
        let topic = create_topic(&self.image, context.config, prng, &mut self.placement, wish)?;
        self.image.apply(self.image.applied_offset() + 1, &topic.records);
        self.records.extend(topic.records.iter().cloned());
        Ok(topic)
    }
}

fn wish(topic: &CreatableTopic) -> TopicWish {
    TopicWish {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.iter().map(|a| (a.partition_index, a.broker_ids.clone())).collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)))
            .collect(),
    }
}

fn result(
    context: &ApiContext<'_>,
    version: i16,
    batch: &Batch,
    name: KafkaString,
    planned: Result<NewTopic, Refused>,
) -> CreatableTopicResult {
    let topic = match planned {
        Ok(topic) => topic,
        Err(refusal) => {
            let (error_code, error_message) = refused(refusal);
            return CreatableTopicResult {
                name,
                error_code,
                error_message,
                ..CreatableTopicResult::default()
            };
        }
    };
    let mut result = CreatableTopicResult { topic_id: KafkaUuid::from(topic.id.0), ..Default::default() };
    if version >= 5 {
        result.num_partitions = topic.partitions;
        result.replication_factor = topic.replication_factor();
        result.configs = Some(configs(context, &batch.image, name.as_str()));
    }
    result.name = name;
    result
}

fn configs(context: &ApiContext<'_>, image: &MetadataImage, topic: &str) -> Vec<CreatableTopicConfigs> {
    config_defs::TOPIC
        .iter()
        .filter_map(|def| {
            let sourced = topic_values(image, context.config, Some(topic), def).into_iter().next()?;
            Some(CreatableTopicConfigs {
                name: KafkaString::from_static(def.name),
                value: Some(KafkaString::from(sourced.value)),
                config_source: sourced.source as i8,
                ..CreatableTopicConfigs::default()
            })
        })
        .collect()
}
