//! The image as bytes and back: the records that build it.

use pelton_model::{PartitionKey, TopicId};

use crate::codec::In;
use crate::image::{MetadataImage, PartitionImage, Touched, partitions_of};
use crate::record::{ConfigResource, MetadataRecord, RecordError, append_record, for_each_record};

/// What a partition of three replicas comes to, bytes: room for so much is made at once.
const PARTITION_BYTES: usize = 129;

impl MetadataImage {
    /// The whole image as bytes: the records that build it.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024 + PARTITION_BYTES * self.partitions);
        out.extend_from_slice(&self.applied_offset.to_le_bytes());
        for node in self.nodes.values() {
            append_record(&mut out, &MetadataRecord::Node(node.clone()));
        }
        // One record for all: its lists keep their memory from one partition to the next.
        let key = PartitionKey { topic_id: TopicId(uuid::Uuid::nil()), partition: 0 };
        let mut record = MetadataRecord::Partition { key, state: PartitionImage::default().state() };
        for topic in self.topics.values() {
            append_record(&mut out, &MetadataRecord::Topic { id: topic.id, name: topic.name.clone() });
            for (at, partition) in partitions_of(topic) {
                if let MetadataRecord::Partition { key, state } = &mut record {
                    *key = at;
                    partition.write_to(state);
                }
                append_record(&mut out, &record);
            }
        }
        let groups =
            self.group_configs.iter().map(|(id, configs)| (ConfigResource::Group(id.clone()), configs));
        let others = self.configs.iter().map(|(resource, configs)| (resource.clone(), configs));
        for (resource, configs) in others.chain(groups) {
            for (name, value) in configs {
                let (resource, name) = (resource.clone(), name.clone());
                let value = Some(value.clone());
                append_record(&mut out, &MetadataRecord::Config { resource, name, value });
            }
        }
        append_record(&mut out, &MetadataRecord::ProducerIds { next: self.next_producer_id });
        out
    }

    /// The reverse of [`MetadataImage::snapshot`]; no bytes are an empty image.
    pub fn from_snapshot(bytes: &[u8]) -> Result<MetadataImage, RecordError> {
        let mut image = MetadataImage::default();
        if bytes.is_empty() {
            return Ok(image);
        }
        let mut from = In(bytes);
        let offset = from.u64()?;
        let mut touched = Touched::default();
        for_each_record(from.0, |record| {
            match record {
                MetadataRecord::Partition { key, state } => {
                    image.set_partition(key, PartitionImage::from_state(state), true, &mut touched);
                }
                other => image.apply_record(offset, &other, &mut touched),
            }
            touched.leaders.clear();
            touched.partitions.clear();
        })?;
        image.applied_offset = offset;
        Ok(image)
    }
}
