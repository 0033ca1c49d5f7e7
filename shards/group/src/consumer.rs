//! A group of KIP-848: its state, exactly as its records have it, and questions about it. What decides is in
//! `consumer/`. Never writes or answers.

mod apply;
mod assignor;
mod assignor_range;
mod assignor_uniform;
mod beat;
mod classic_join;
mod classic_member;
mod convert;
mod counts;
mod describe;
mod downgrade;
mod draft;
mod fence;
mod heartbeat;
mod join;
mod leave;
mod reconcile;
mod regexes;
mod request;
mod subscription;
mod target;
mod timeouts;
mod upgrade;

#[cfg(test)]
mod tests_assignors;
#[cfg(test)]
mod tests_batching;
#[cfg(test)]
mod tests_describe;
#[cfg(test)]
mod tests_downgrade;
#[cfg(test)]
mod tests_fencing;
#[cfg(test)]
mod tests_flows;
#[cfg(test)]
mod tests_kit;
#[cfg(test)]
mod tests_migration;
#[cfg(test)]
mod tests_owners;
#[cfg(test)]
mod tests_reconcile;
#[cfg(test)]
mod tests_regex;
#[cfg(test)]
mod tests_static;
#[cfg(test)]
mod tests_undo;

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::TopicId;
use pelton_wire::error_code::ErrorCode;

use crate::coordinator::Turn;
use crate::records::{Assignment, CurrentValue, EpochValue, MemberValue, Record, RegexValue};

use counts::Counts;
use target::LastTarget;

/// Member epoch of a request to join.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// Member epoch of a request to leave.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// Member epoch of a static member that leaves and will be back.
pub(crate) const STATIC_LEAVE_EPOCH: i32 = -2;

/// States of a member, as they are stored (Kafka's MemberState).
pub(crate) const STABLE: i8 = 0;
/// It must give partitions back first.
pub(crate) const UNREVOKED: i8 = 1;
/// Others must give back what it gets.
pub(crate) const UNRELEASED: i8 = 2;

/// The topics as the group last looked at them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SeenTopics {
    /// Their version.
    pub version: u64,
    /// The group epoch that look led to; a lower one means that it was undone.
    pub epoch: i32,
}

/// A KIP-848 group. All but the last two fields come from records alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsumerGroup {
    /// Group epoch and the hash of the subscribed topics it stands for.
    pub epoch: EpochValue,
    /// Epoch of the target assignment.
    pub target_epoch: i32,
    /// The members.
    pub members: BTreeMap<String, MemberValue>,
    /// What each member owns now. A member without an entry has just joined.
    pub current: BTreeMap<String, CurrentValue>,
    /// What each member shall own.
    pub targets: BTreeMap<String, Assignment>,
    /// What topic patterns resolved to.
    pub regexes: BTreeMap<String, RegexValue>,
    /// Static members: group.instance.id to member id; follows from `members`.
    pub instances: BTreeMap<String, String>,
    /// The one owner of each partition, those pending revocation included; follows from `current`.
    pub owners: BTreeMap<(TopicId, i32), String>,
    /// What the members name, counted; follows from `members`.
    pub counts: Counts,
    /// Not stored: none = look at the topics with the next heartbeat.
    pub seen_topics: Option<SeenTopics>,
    /// Not stored: none = make the next target assignment as soon as one is wanted.
    pub last_target: Option<LastTarget>,
}

impl ConsumerGroup {
    /// True without members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Where a member is; epoch 0 for one that has just joined.
    pub fn current(&self, member: &str) -> CurrentValue {
        self.current.get(member).cloned().unwrap_or_default()
    }

    /// True if the member has all it shall have.
    pub fn is_reconciled(&self, member: &str) -> bool {
        let stable =
            |current: &CurrentValue| current.state == STABLE && current.member_epoch == self.target_epoch;
        self.current.get(member).is_some_and(stable)
    }

    /// Kafka's name of the group's state (ConsumerGroupState).
    pub fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.keys().all(|member| self.is_reconciled(member)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Whether a commit is from a member of this epoch, or from outside a group that is empty (I16).
    pub fn check_commit(&self, member: &str, epoch: i32, api_version: i16) -> Result<(), ErrorCode> {
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        let value = self.members.get(member).ok_or(ErrorCode::UnknownMemberId)?;
        // Before version 9 a client cannot tell a stale epoch from an illegal generation.
        if value.classic.is_none() && api_version < 9 {
            return Err(ErrorCode::UnsupportedVersion);
        }
        self.check_epoch(member, value, epoch)
    }

    /// Whether a fetch of offsets is from a member of this epoch, or names none.
    pub fn check_fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        if member.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        let value = self.members.get(member).ok_or(ErrorCode::UnknownMemberId)?;
        self.check_epoch(member, value, epoch)
    }

    fn check_epoch(&self, member: &str, value: &MemberValue, epoch: i32) -> Result<(), ErrorCode> {
        let known = self.current.get(member).map_or(0, |current| current.member_epoch);
        match &value.classic {
            _ if known == epoch => Ok(()),
            Some(_) => Err(ErrorCode::IllegalGeneration),
            None => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    /// True if a member reads the topic, by name or by pattern.
    pub fn subscribes_to(&self, topic: &str) -> bool {
        self.counts.has_name(topic) || self.regexes.values().any(|resolved| resolved.topics.contains(topic))
    }

    /// All topics the members read.
    pub fn subscribed_topics(&self) -> BTreeSet<&str> {
        let matched = self.regexes.values().flat_map(|resolved| &resolved.topics);
        self.counts.names().chain(matched).map(String::as_str).collect()
    }

    /// The records that remove the group, in Kafka's order.
    pub fn tombstones(&self, id: &str) -> Vec<Record> {
        let group = || id.to_string();
        let mut records = Vec::new();
        for member in self.current.keys() {
            records.push(Record::Current { group: group(), member: member.clone(), value: None });
        }
        for member in self.targets.keys() {
            records.push(Record::Target { group: group(), member: member.clone(), value: None });
        }
        records.push(Record::TargetEpoch { group: group(), value: None });
        for member in self.members.keys() {
            records.push(Record::Member { group: group(), member: member.clone(), value: None });
        }
        for regex in self.regexes.keys() {
            records.push(Record::Regex { group: group(), regex: regex.clone(), value: None });
        }
        records.push(Record::Epoch { group: group(), value: None });
        records
    }

    /// Nobody waits here: a KIP-848 member asks again in its next heartbeat.
    pub fn refuse_all(&mut self, _error: ErrorCode, _turn: &mut Turn<'_>) {}
}
