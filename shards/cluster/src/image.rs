//! What the cluster looks like after some number of records: topics, partitions, settings, producer ids.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{LeaderEpoch, PartitionKey, Replica, TopicId};

use crate::record::{ConfigResource, MetadataRecord, RecordError, decode_batch, encode_batch};

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartitionImage {
    /// Where its replicas are.
    pub replicas: Vec<Replica>,
    /// Who leads.
    pub leader: Option<Replica>,
    /// Epoch of that leadership.
    pub leader_epoch: LeaderEpoch,
    /// Counts its changes.
    pub partition_epoch: i32,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicImage {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// By index.
    pub partitions: Vec<PartitionImage>,
}

/// What records have touched, so that whoever serves it can follow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// These topics.
    pub topics: BTreeSet<TopicId>,
    /// All topics: a broker-wide setting changed.
    pub all_topics: bool,
}

/// The image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataImage {
    topics: BTreeMap<TopicId, TopicImage>,
    ids: BTreeMap<String, TopicId>,
    configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    next_producer_id: i64,
    applied_offset: u64,
}

impl MetadataImage {
    /// Offset of the last commit applied.
    pub fn applied_offset(&self) -> u64 {
        self.applied_offset
    }

    /// Every topic, by id.
    pub fn topics(&self) -> impl Iterator<Item = &TopicImage> {
        self.topics.values()
    }

    /// Every topic's name, in order.
    pub fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str)
    }

    /// A topic.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicImage> {
        self.topics.get(&id)
    }

    /// A topic.
    pub fn topic_by_name(&self, name: &str) -> Option<&TopicImage> {
        self.topics.get(self.ids.get(name)?)
    }

    /// A partition.
    pub fn partition(&self, key: PartitionKey) -> Option<&PartitionImage> {
        self.topics.get(&key.topic_id)?.partitions.get(usize::try_from(key.partition).ok()?)
    }

    /// Who leads a partition.
    pub fn leader(&self, key: PartitionKey) -> Option<Replica> {
        self.partition(key)?.leader
    }

    /// The epoch of a partition's leadership.
    pub fn leader_epoch(&self, key: PartitionKey) -> Option<LeaderEpoch> {
        self.partition(key).map(|partition| partition.leader_epoch)
    }

    /// Settings made at run time.
    pub fn config(&self, resource: &ConfigResource, name: &str) -> Option<&str> {
        self.configs.get(resource)?.get(name).map(String::as_str)
    }

    /// All settings of one resource made at run time.
    pub fn configs_of(&self, resource: &ConfigResource) -> BTreeMap<String, String> {
        self.configs.get(resource).cloned().unwrap_or_default()
    }

    /// First producer id nobody has.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// Applies the records of one commit; a commit applied before changes nothing.
    pub fn apply(&mut self, offset: u64, records: &[MetadataRecord]) -> Touched {
        let mut touched = Touched::default();
        if offset <= self.applied_offset {
            return touched;
        }
        self.applied_offset = offset;
        for record in records {
            self.apply_record(record, &mut touched);
        }
        touched
    }

    fn apply_record(&mut self, record: &MetadataRecord, touched: &mut Touched) {
        match record {
            MetadataRecord::Topic { id, name } => {
                self.ids.insert(name.clone(), *id);
                self.topics.insert(*id, TopicImage { id: *id, name: name.clone(), partitions: Vec::new() });
                touched.topics.insert(*id);
            }
            MetadataRecord::Partition {
                topic_id,
                index,
                replicas,
                leader,
                leader_epoch,
                partition_epoch,
            } => {
                let (Some(topic), Ok(index)) = (self.topics.get_mut(topic_id), usize::try_from(*index))
                else {
                    return;
                };
                if index >= topic.partitions.len() {
                    topic.partitions.resize_with(index + 1, PartitionImage::default);
                }
                topic.partitions[index] = PartitionImage {
                    replicas: replicas.clone(),
                    leader: *leader,
                    leader_epoch: *leader_epoch,
                    partition_epoch: *partition_epoch,
                };
                touched.topics.insert(*topic_id);
            }
            MetadataRecord::RemoveTopic { id } => {
                if let Some(topic) = self.topics.remove(id) {
                    self.ids.remove(&topic.name);
                    self.configs.remove(&ConfigResource::Topic(topic.name));
                    touched.topics.insert(*id);
                }
            }
            MetadataRecord::Config { resource, name, value } => {
                let configs = self.configs.entry(resource.clone()).or_default();
                match value {
                    Some(value) => configs.insert(name.clone(), value.clone()),
                    None => configs.remove(name),
                };
                match resource {
                    ConfigResource::Topic(topic) => touched.topics.extend(self.ids.get(topic)),
                    ConfigResource::Broker(_) => touched.all_topics = true,
                }
            }
            MetadataRecord::ProducerIds { next } => self.next_producer_id = self.next_producer_id.max(*next),
        }
    }

    /// The whole image as bytes: the records that build it.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic { id: topic.id, name: topic.name.clone() });
            for (index, partition) in topic.partitions.iter().enumerate() {
                records.push(MetadataRecord::Partition {
                    topic_id: topic.id,
                    index: index as i32,
                    replicas: partition.replicas.clone(),
                    leader: partition.leader,
                    leader_epoch: partition.leader_epoch,
                    partition_epoch: partition.partition_epoch,
                });
            }
        }
        for (resource, configs) in &self.configs {
            for (name, value) in configs {
                records.push(MetadataRecord::Config {
                    resource: resource.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                });
            }
        }
        records.push(MetadataRecord::ProducerIds { next: self.next_producer_id });
        encode_batch(self.applied_offset, &records)
    }

    /// The reverse of [`MetadataImage::snapshot`]; no bytes are an empty image.
    pub fn from_snapshot(bytes: &[u8]) -> Result<MetadataImage, RecordError> {
        let mut image = MetadataImage::default();
        if bytes.is_empty() {
            return Ok(image);
        }
        let (offset, records) = decode_batch(bytes)?;
        let mut touched = Touched::default();
        for record in &records {
            image.apply_record(record, &mut touched);
        }
        image.applied_offset = offset;
        Ok(image)
    }
}
