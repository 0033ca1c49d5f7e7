//! Throttles of replication (KIP-73): how fast a broker may send and take what followers lack that are not in sync, and which
//! replicas that concerns.

use pelton_model::{BrokerId, PartitionKey};

use crate::image::MetadataImage;
use crate::record::ConfigResource;

/// Who throttles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A leader, what it sends.
    Leader,
    /// A follower, what it takes.
    Follower,
}

impl Side {
    fn rate_name(self) -> &'static str {
        match self {
            Side::Leader => "leader.replication.throttled.rate",
            Side::Follower => "follower.replication.throttled.rate",
        }
    }

    fn replicas_name(self) -> &'static str {
        match self {
            Side::Leader => "leader.replication.throttled.replicas",
            Side::Follower => "follower.replication.throttled.replicas",
        }
    }
}

impl MetadataImage {
    /// Bytes per second that a broker may pass on one side; none = as many as it can.
    pub fn throttled_rate(&self, side: Side, broker: BrokerId) -> Option<u64> {
        let of = |name: String| self.config(&ConfigResource::Broker(name), side.rate_name());
        let value = of(broker.0.to_string()).or_else(|| of(String::new()))?;
        value.trim().parse::<i64>().ok().filter(|rate| *rate < i64::MAX).map(|rate| rate.max(0) as u64)
    }

    /// Whether that rate holds for a broker's replica of a partition.
    pub fn is_throttled(&self, side: Side, key: PartitionKey, broker: BrokerId) -> bool {
        let Some(topic) = self.topic_by_id(key.topic_id) else { return false };
        let Some(list) = self.config(&ConfigResource::Topic(topic.name.clone()), side.replicas_name()) else {
            return false;
        };
        let names = |part: &str| {
            let numbers = part.trim().split_once(':');
            let parsed = numbers.map(|(partition, of)| (partition.parse::<i32>(), of.parse::<i32>()));
            parsed == Some((Ok(key.partition), Ok(broker.0)))
        };
        list.trim() == "*" || list.split(',').any(names)
    }
}

#[cfg(test)]
mod tests {
    use pelton_model::TopicId;
    use uuid::Uuid;

    use super::*;
    use crate::record::MetadataRecord;

    #[test]
    fn rates_are_a_brokers_own_or_everybodys_and_hold_for_the_replicas_that_are_named() {
        let (id, topic) = (TopicId(Uuid::from_u128(3)), ConfigResource::Topic("t".to_string()));
        let key = |partition| PartitionKey { topic_id: id, partition };
        let set = |resource: &ConfigResource, name: &str, value: &str| MetadataRecord::Config {
            resource: resource.clone(),
            name: name.to_string(),
            value: Some(value.to_string()),
        };
        let mut image = MetadataImage::default();
        image.apply(1, &[MetadataRecord::Topic { id, name: "t".to_string() }]);
        assert_eq!(image.throttled_rate(Side::Leader, BrokerId(64)), None);
        assert!(!image.is_throttled(Side::Leader, key(0), BrokerId(64)));
        let all = ConfigResource::Broker(String::new());
        image.apply(2, &[set(&all, "leader.replication.throttled.rate", "1000")]);
        let own = ConfigResource::Broker("64".to_string());
        image.apply(3, &[set(&own, "leader.replication.throttled.rate", "70")]);
        assert_eq!(image.throttled_rate(Side::Leader, BrokerId(64)), Some(70));
        assert_eq!(image.throttled_rate(Side::Leader, BrokerId(128)), Some(1000));
        assert_eq!(image.throttled_rate(Side::Follower, BrokerId(64)), None);
        image.apply(4, &[set(&topic, "leader.replication.throttled.replicas", "0:64,10:128")]);
        assert!(image.is_throttled(Side::Leader, key(0), BrokerId(64)));
        assert!(image.is_throttled(Side::Leader, key(10), BrokerId(128)));
        assert!(!image.is_throttled(Side::Leader, key(1), BrokerId(64)));
        assert!(!image.is_throttled(Side::Leader, key(0), BrokerId(128)));
        assert!(!image.is_throttled(Side::Follower, key(0), BrokerId(64)));
        image.apply(5, &[set(&topic, "follower.replication.throttled.replicas", "*")]);
        assert!(image.is_throttled(Side::Follower, key(7), BrokerId(128)));
    }
}
