//! A change to a group under consideration: records are applied one by one, so that each step sees the ones before, and
//! all taken back at the end; what counts is applied again when it is written. Never writes itself.

use crate::records::{Assignment, CurrentValue, EpochValue, MemberValue, Record, RegexValue};

use super::ConsumerGroup;

/// The draft; when dropped the group is as it was.
pub(crate) struct Draft<'g> {
    id: &'g str,
    group: &'g mut ConsumerGroup,
    records: Vec<Record>,
    undo: Vec<Record>,
}

impl<'g> Draft<'g> {
    /// Begins with the group as it is.
    pub fn new(id: &'g str, group: &'g mut ConsumerGroup) -> Draft<'g> {
        Draft { id, group, records: Vec::new(), undo: Vec::new() }
    }

    /// The group with all records so far.
    pub fn group(&self) -> &ConsumerGroup {
        self.group
    }

    /// The records, in order.
    pub fn finish(mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    fn put(&mut self, record: Record) {
        self.undo.extend(self.group.apply(record.clone()));
        self.records.push(record);
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Sets the group epoch.
    pub fn set_epoch(&mut self, value: EpochValue) {
        self.put(Record::Epoch { group: self.id(), value: Some(value) });
    }

    /// Sets the epoch of the target assignment.
    pub fn set_target_epoch(&mut self, epoch: i32) {
        self.put(Record::TargetEpoch { group: self.id(), value: Some(epoch) });
    }

    /// Puts a member in or changes it.
    pub fn set_member(&mut self, member: &str, value: MemberValue) {
        self.put(Record::Member { group: self.id(), member: member.to_string(), value: Some(value) });
    }

    /// Sets what a member owns.
    pub fn set_current(&mut self, member: &str, value: CurrentValue) {
        self.put(Record::Current { group: self.id(), member: member.to_string(), value: Some(value) });
    }

    /// Sets what a member shall own.
    pub fn set_target(&mut self, member: &str, value: Assignment) {
        self.put(Record::Target { group: self.id(), member: member.to_string(), value: Some(value) });
    }

    /// Sets what a pattern resolved to, or forgets the pattern.
    pub fn set_regex(&mut self, regex: &str, value: Option<RegexValue>) {
        self.put(Record::Regex { group: self.id(), regex: regex.to_string(), value });
    }

    /// Removes a member; what it owned is free.
    pub fn remove_member(&mut self, member: &str) {
        let (group, member) = (self.id(), member.to_string());
        self.put(Record::Current { group: group.clone(), member: member.clone(), value: None });
        self.put(Record::Target { group: group.clone(), member: member.clone(), value: None });
        self.put(Record::Member { group, member, value: None });
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        for record in self.undo.drain(..).rev() {
            self.group.apply(record);
        }
    }
}
