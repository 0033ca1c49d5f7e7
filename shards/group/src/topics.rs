//! What a coordinator needs to know of the cluster's metadata, topics above all; the caller lends it with every event.

use pelton_model::{ConsumerGroupConfig, GroupConfig, TopicId};

/// A look at the topics.
pub trait TopicsView {
    /// Grows with every change of topics or partition counts, so that groups look again only then.
    fn version(&self) -> u64;
    /// Id and partition count of a topic.
    fn topic(&self, name: &str) -> Option<(TopicId, i32)>;
    /// Name and partition count of a topic id.
    fn topic_by_id(&self, id: TopicId) -> Option<(&str, i32)>;
    /// The settings of a group of the consumer protocol: its own, else those of the broker.
    fn group_config(&self, broker: &GroupConfig, _group: &str) -> ConsumerGroupConfig {
        broker.into()
    }
    /// Gives every topic's name to `each`, internal ones included, in ascending order.
    fn for_each_name(&self, each: &mut dyn FnMut(&str));
}
