//! How records change a KIP-848 group, and which record undoes each. The same for records being written, loaded and
//! taken back, so a replay always gives the same state. Never decides.

use std::collections::BTreeMap;

use crate::records::{Assignment, CurrentValue, MemberValue, Record};

use super::ConsumerGroup;

impl ConsumerGroup {
    /// Applies a record of this group; returns the record that undoes it, none for a kind that is not the group's.
    pub fn apply(&mut self, record: Record) -> Option<Record> {
        match record {
            Record::Epoch { group, value } => {
                let old = std::mem::replace(&mut self.epoch, value.unwrap_or_default());
                Some(Record::Epoch { group, value: Some(old) })
            }
            Record::TargetEpoch { group, value } => {
                let old = std::mem::replace(&mut self.target_epoch, value.unwrap_or_default());
                Some(Record::TargetEpoch { group, value: Some(old) })
            }
            Record::Member { group, member, value } => {
                let value = self.set_member(&member, value);
                Some(Record::Member { group, member, value })
            }
            Record::Current { group, member, value } => {
                let value = self.set_current(&member, value);
                Some(Record::Current { group, member, value })
            }
            Record::Target { group, member, value } => {
                let value = set(&mut self.targets, &member, value);
                Some(Record::Target { group, member, value })
            }
            Record::Regex { group, regex, value } => {
                let value = set(&mut self.regexes, &regex, value);
                Some(Record::Regex { group, regex, value })
            }
            Record::Offset { .. } | Record::Group { .. } | Record::PartitionMetadata { .. } => None,
        }
    }

    fn set_member(&mut self, member: &str, value: Option<MemberValue>) -> Option<MemberValue> {
        let instance = value.as_ref().and_then(|value| value.instance_id.clone());
        if let Some(value) = &value {
            self.counts.add(member, value);
        }
        let old = set(&mut self.members, member, value);
        if let Some(old) = &old {
            self.counts.take_off(member, old);
        }
        if let Some(instance) = old.as_ref().and_then(|old| old.instance_id.as_deref())
            && self.instances.get(instance).is_some_and(|owner| owner == member)
        {
            self.instances.remove(instance);
        }
        if let Some(instance) = instance {
            self.instances.insert(instance, member.to_string());
        }
        old
    }

    fn set_current(&mut self, member: &str, value: Option<CurrentValue>) -> Option<CurrentValue> {
        if let Some(old) = self.current.get(member) {
            for partition in partitions(&old.assigned).chain(partitions(&old.pending_revocation)) {
                if self.owners.get(&partition).is_some_and(|owner| owner == member) {
                    self.owners.remove(&partition);
                }
            }
        }
        if let Some(value) = &value {
            for partition in partitions(&value.assigned).chain(partitions(&value.pending_revocation)) {
                self.owners.insert(partition, member.to_string());
            }
        }
        set(&mut self.current, member, value)
    }
}

fn set<V>(map: &mut BTreeMap<String, V>, key: &str, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key.to_string(), value),
        None => map.remove(key),
    }
}

/// All partitions of an assignment.
pub(crate) fn partitions(assignment: &Assignment) -> impl Iterator<Item = (pelton_model::TopicId, i32)> {
    assignment.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}
