//! The committed offsets of all groups, by group, topic and partition; and how records change them and the groups.

use std::collections::BTreeMap;

use crate::classic::ClassicGroup;
use crate::consumer::ConsumerGroup;
use crate::coordinator::{Coordinator, Group};
use crate::records::{OffsetValue, Record};

type GroupOffsets = BTreeMap<String, BTreeMap<i32, OffsetValue>>;

/// All committed offsets.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<String, GroupOffsets>,
}

impl Offsets {
    /// One offset.
    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    /// All of a group, in order of topic and partition.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (&str, i32, &OffsetValue)> {
        let topics = self.groups.get(group).into_iter().flatten();
        topics.flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(p, value)| (topic.as_str(), *p, value))
        })
    }

    /// Groups that have any.
    pub fn group_ids(&self) -> impl Iterator<Item = &String> {
        self.groups.keys()
    }

    /// True if the group has none.
    pub fn is_empty(&self, group: &str) -> bool {
        !self.groups.contains_key(group)
    }

    /// Groups and partitions with offsets of a topic.
    pub fn of_topic(&self, topic: &str) -> Vec<(String, i32)> {
        let of_group = |(group, topics): (&String, &GroupOffsets)| {
            let partitions = topics.get(topic).into_iter().flat_map(BTreeMap::keys);
            partitions.map(|partition| (group.clone(), *partition)).collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(of_group).collect()
    }

    /// Sets or removes an offset; returns the one before.
    pub fn set(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        value: Option<OffsetValue>,
    ) -> Option<OffsetValue> {
        match value {
            Some(value) => {
                let topics = self.groups.entry(group.to_string()).or_default();
                topics.entry(topic.to_string()).or_default().insert(partition, value)
            }
            None => {
                let topics = self.groups.get_mut(group)?;
                let partitions = topics.get_mut(topic)?;
                let old = partitions.remove(&partition);
                if partitions.is_empty() {
                    topics.remove(topic);
                }
                if topics.is_empty() {
                    self.groups.remove(group);
                }
                old
            }
        }
    }
}

impl Record {
    /// The group it belongs to.
    pub fn group(&self) -> &str {
        match self {
            Record::Offset { group, .. }
            | Record::Group { group, .. }
            | Record::Epoch { group, .. }
            | Record::PartitionMetadata { group }
            | Record::Member { group, .. }
            | Record::TargetEpoch { group, .. }
            | Record::Target { group, .. }
            | Record::Current { group, .. }
            | Record::Regex { group, .. } => group,
        }
    }
}

impl Coordinator {
    /// Applies a record that is being written; returns the record that undoes it, if it changed anything.
    pub(crate) fn apply(&mut self, record: Record) -> Option<Record> {
        match record {
            Record::Offset { group, topic, partition, value } => {
                let value = self.offsets.set(&group, &topic, partition, value);
                Some(Record::Offset { group, topic, partition, value })
            }
            Record::Group { .. } | Record::PartitionMetadata { .. } => None,
            record => match self.groups.get_mut(record.group()) {
                Some(Group::Consumer(group)) => group.apply(record),
                _ => None,
            },
        }
    }

    /// Applies a record read from the log: as `apply`, but groups come and go with their records.
    pub(crate) fn apply_loaded(&mut self, record: Record) {
        let id = record.group().to_string();
        match record {
            Record::Group { value: Some(value), .. } => {
                self.groups.insert(id, Group::Classic(ClassicGroup::from_record(value)));
                return;
            }
            Record::Group { value: None, .. } => {
                if let Some(Group::Classic(_)) = self.groups.get(&id) {
                    self.groups.remove(&id);
                }
                return;
            }
            Record::Epoch { value: None, .. } => {
                if let Some(Group::Consumer(_)) = self.groups.get(&id) {
                    self.groups.remove(&id);
                }
                return;
            }
            Record::Epoch { .. }
            | Record::Member { value: Some(_), .. }
            | Record::TargetEpoch { value: Some(_), .. }
            | Record::Target { value: Some(_), .. }
            | Record::Current { value: Some(_), .. }
            | Record::Regex { value: Some(_), .. }
                if !matches!(self.groups.get(&id), Some(Group::Consumer(_))) =>
            {
                self.groups.insert(id, Group::Consumer(ConsumerGroup::default()));
            }
            _ => {}
        }
        self.apply(record);
    }
}
