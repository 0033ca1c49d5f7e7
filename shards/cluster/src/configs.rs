//! What a setting is worth: the topic's own value, else the broker's, else the cluster's, else what was given at start,
//! else the default; and where it came from (Kafka's config sources and synonyms).

use pelton_model::{BrokerConfig, BrokerId, ShardId, StoredCompression, TopicConfig};
use pelton_wire::compression::Codec;

use crate::config_defs::{self, ConfigDef};
use crate::image::MetadataImage;
use crate::record::ConfigResource;

/// Where a value comes from, with Kafka's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set on this broker at run time.
    DynamicBroker = 2,
    /// Set for all brokers at run time.
    DynamicDefaultBroker = 3,
    /// Given at start.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// Set on the group.
    Group = 8,
}

/// A value and the name it has at its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sourced {
    /// The name there.
    pub name: String,
    /// The value.
    pub value: String,
    /// The source.
    pub source: Source,
}

/// Every value a topic setting has, the one that counts first.
pub fn topic_values(
    image: &MetadataImage,
    broker: &BrokerConfig,
    topic: Option<&str>,
    def: &ConfigDef,
) -> Vec<Sourced> {
    let mut values = Vec::new();
    let mut add = |name: &str, value: Option<&str>, source| {
        if let Some(value) = value {
            values.push(Sourced { name: name.to_string(), value: value.to_string(), source });
        }
    };
    if let Some(topic) = topic {
        add(def.name, image.config(&ConfigResource::Topic(topic.to_string()), def.name), Source::Topic);
    }
    let Some(synonym) = def.synonym else {
        // No broker has a default of it.
        add(def.name, Some(def.default), Source::Default);
        return values;
    };
    let this = BrokerId::of(broker.node_id, ShardId(0)).0.to_string();
    add(synonym, image.config(&ConfigResource::Broker(this), synonym), Source::DynamicBroker);
    let all = ConfigResource::Broker(String::new());
    add(synonym, image.config(&all, synonym), Source::DynamicDefaultBroker);
    let given = broker.topic_defaults.iter().rev().find(|(name, _)| name == def.name);
    add(synonym, given.map(|(_, value)| value.as_str()), Source::StaticBroker);
    add(synonym, Some(def.default), Source::Default);
    values
}

fn value(image: &MetadataImage, broker: &BrokerConfig, topic: &str, name: &str) -> String {
    config_defs::topic(name)
        .and_then(|def| topic_values(image, broker, Some(topic), def).into_iter().next())
        .map_or_else(String::new, |sourced| sourced.value)
}

impl MetadataImage {
    /// A topic's settings as the hot path reads them. Values were checked when they were set.
    pub fn topic_config(&self, broker: &BrokerConfig, topic: &str) -> TopicConfig {
        let text = |name: &str| value(self, broker, topic, name);
        let long = |name, otherwise| text(name).trim().parse::<i64>().unwrap_or(otherwise);
        let int = |name: &str, otherwise| text(name).trim().parse::<i32>().unwrap_or(otherwise);
        let ratio = |name, otherwise| {
            text(name).trim().parse::<f64>().map_or(otherwise, |ratio| (ratio * 1e6) as u32)
        };
        let compression = match text("compression.type").as_str() {
            "uncompressed" => Some(Codec::None),
            name => Codec::from_name(name),
        };
        let level = |codec: Codec| int(&format!("compression.{}.level", codec.name()), codec.default_level());
        let policies = text("cleanup.policy");
        let policy = |name| policies.split(',').any(|policy| policy.trim() == name);
        let default = TopicConfig::default();
        TopicConfig {
            max_message_bytes: int("max.message.bytes", default.max_message_bytes),
            compression: compression
                .map(|codec| StoredCompression { codec: codec.attributes(), level: level(codec) }),
            min_insync_replicas: int("min.insync.replicas", default.min_insync_replicas),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: long("message.timestamp.before.max.ms", default.timestamp_before_max_ms),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms", default.timestamp_after_max_ms),
            flush_messages: long("flush.messages", default.flush_messages),
            flush_ms: long("flush.ms", default.flush_ms),
            segment_bytes: int("segment.bytes", default.segment_bytes),
            segment_ms: long("segment.ms", default.segment_ms),
            segment_jitter_ms: long("segment.jitter.ms", default.segment_jitter_ms),
            index_interval_bytes: int("index.interval.bytes", default.index_interval_bytes),
            file_delete_delay_ms: long("file.delete.delay.ms", default.file_delete_delay_ms),
            preallocate: text("preallocate") == "true",
            compacted: policy("compact"),
            deleted: policy("delete"),
            retention_ms: long("retention.ms", default.retention_ms),
            retention_bytes: long("retention.bytes", default.retention_bytes),
            delete_retention_ms: long("delete.retention.ms", default.delete_retention_ms),
            min_compaction_lag_ms: long("min.compaction.lag.ms", default.min_compaction_lag_ms),
            max_compaction_lag_ms: long("max.compaction.lag.ms", default.max_compaction_lag_ms),
            min_cleanable_dirty_ppm: ratio("min.cleanable.dirty.ratio", default.min_cleanable_dirty_ppm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MetadataRecord;

    #[test]
    fn the_nearest_value_counts() {
        let mut image = MetadataImage::default();
        let mut broker = BrokerConfig::defaults();
        assert_eq!(image.topic_config(&broker, "t"), TopicConfig::default());
        broker.topic_defaults.push(("max.message.bytes".to_string(), "100".to_string()));
        assert_eq!(image.topic_config(&broker, "t").max_message_bytes, 100);
        let set = |resource, name: &str, value: &str| MetadataRecord::Config {
            resource,
            name: name.to_string(),
            value: Some(value.to_string()),
        };
        image.apply(1, &[set(ConfigResource::Broker(String::new()), "message.max.bytes", "200")]);
        assert_eq!(image.topic_config(&broker, "t").max_message_bytes, 200);
        image.apply(2, &[set(ConfigResource::Topic("t".to_string()), "max.message.bytes", "300")]);
        assert_eq!(image.topic_config(&broker, "t").max_message_bytes, 300);
        assert_eq!(image.topic_config(&broker, "u").max_message_bytes, 200);
        assert_eq!(image.topic_config(&broker, "t").compression, None, "producer");
        let of_t = ConfigResource::Topic("t".to_string());
        image.apply(
            3,
            &[
                set(of_t.clone(), "compression.type", "zstd"),
                set(of_t.clone(), "compression.zstd.level", "-7"),
            ],
        );
        let zstd = Some(StoredCompression { codec: 4, level: -7 });
        assert_eq!(image.topic_config(&broker, "t").compression, zstd);
        image.apply(4, &[set(of_t, "compression.type", "uncompressed")]);
        assert_eq!(image.topic_config(&broker, "t").compression.map(|to| to.codec), Some(0));
        let def = config_defs::topic("max.message.bytes").unwrap();
        let sources: Vec<Source> =
            topic_values(&image, &broker, Some("t"), def).iter().map(|sourced| sourced.source).collect();
        use Source::*;
        assert_eq!(sources, [Topic, DynamicDefaultBroker, StaticBroker, Default]);
    }
}
