//! What coordinators see of topics and of the settings of groups: the metadata image.

use pelton_cluster::group_configs;
use pelton_cluster::image::MetadataImage;
use pelton_group::TopicsView;
use pelton_model::{ConsumerGroupConfig, GroupConfig, TopicId};

/// The image as coordinators look at it.
pub(super) struct ImageTopics<'a>(pub(super) &'a MetadataImage);

impl TopicsView for ImageTopics<'_> {
    /// Grows with other changes of metadata too; groups then look once and find nothing new.
    fn version(&self) -> u64 {
        self.0.applied_offset()
    }

    fn topic(&self, name: &str) -> Option<(TopicId, i32)> {
        self.0.topic_by_name(name).map(|topic| (topic.id, topic.partitions.len() as i32))
    }

    fn topic_by_id(&self, id: TopicId) -> Option<(&str, i32)> {
        self.0.topic_by_id(id).map(|topic| (topic.name.as_str(), topic.partitions.len() as i32))
    }

    fn group_config(&self, broker: &GroupConfig, group: &str) -> ConsumerGroupConfig {
        group_configs::effective(self.0, broker, group)
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        self.0.topic_names().for_each(each);
    }
}
