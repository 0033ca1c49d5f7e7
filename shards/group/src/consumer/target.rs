//! The group epoch and the target assignment: when they change, and to what. Never looks at what members own now.
//!
//! A target assignment looks at all members, so a thousand that join at once get few (KIP-1263): one is made at most once in an
//! interval, whoever joins in between has nothing until then, and is told to ask again when it is over.

use std::collections::BTreeSet;

use crate::records::EpochValue;
use crate::topics::TopicsView;
use pelton_model::{ConsumerGroupConfig, GroupConfig, Now};

use super::ConsumerGroup;
use super::subscription::Fnv;

use super::assignor::{AssignorInput, AssignorMember, assign, is_known};
use super::draft::Draft;

/// Members that have gone since the last target assignment, beyond which the next one is made at once.
const GONE_MAX: usize = 1024;

/// The last target assignment, for as long as this coordinator is loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LastTarget {
    /// Its epoch; another one is the group's when it was undone.
    epoch: i32,
    made_ns: u64,
    /// Hashes of the ids of members that have gone since. One that comes back must not get the epoch it had: what it committed
    /// under it may still be on its way, and others may own what it owned (I16).
    gone: BTreeSet<u64>,
}

impl ConsumerGroup {
    /// When the next target assignment may be made, on the monotonic clock; 0 = at once.
    pub fn assigns_from_ns(&self, config: &ConsumerGroupConfig) -> u64 {
        let Some(last) = self.last_target.as_ref().filter(|last| last.epoch == self.target_epoch) else {
            return 0;
        };
        let interval_ms = config.assignment_interval_ms(self.members.len());
        Now { monotonic_ns: last.made_ns, wall_ms: 0 }.after_ms(i64::from(interval_ms))
    }

    /// True if the member was one until it left or was put out after the last target assignment.
    pub fn has_gone(&self, id: &str) -> bool {
        self.last_target.as_ref().is_some_and(|last| last.gone.contains(&Fnv::of(id.as_bytes())))
    }

    /// A target assignment has been made.
    pub fn note_target(&mut self, now: Now) {
        let (epoch, made_ns) = (self.target_epoch, now.monotonic_ns);
        self.last_target = Some(LastTarget { epoch, made_ns, gone: BTreeSet::new() });
    }

    /// A member goes.
    pub fn note_gone(&mut self, id: &str) {
        if let Some(last) = &mut self.last_target {
            last.gone.insert(Fnv::of(id.as_bytes()));
            if last.gone.len() > GONE_MAX {
                self.last_target = None;
            }
        }
    }
}

/// The assignor of groups whose members do not ask for one.
pub(crate) fn default_assignor(config: &GroupConfig) -> &str {
    config.consumer_assignors.iter().map(String::as_str).find(|name| is_known(name)).unwrap_or("uniform")
}

/// Looks at the subscribed topics, and begins a new group epoch if they have changed or `must_bump`.
pub(crate) fn bump_epoch(draft: &mut Draft<'_>, must_bump: bool, topics: &dyn TopicsView) {
    let metadata_hash = draft.group().topics_hash(topics);
    let old = draft.group().epoch;
    if must_bump || metadata_hash != old.metadata_hash {
        draft.set_epoch(EpochValue { epoch: old.epoch.saturating_add(1), metadata_hash });
    }
}

/// Makes the target assignment of the group epoch, which is newer; only what differs is written.
pub(crate) fn update_targets(draft: &mut Draft<'_>, config: &GroupConfig, topics: &dyn TopicsView) {
    let group = draft.group();
    let epoch = group.epoch.epoch;
    let mut input = AssignorInput::default();
    for name in group.subscribed_topics() {
        input.topics.extend(topics.topic(name));
    }
    for (id, member) in &group.members {
        let member = AssignorMember {
            instance_id: member.instance_id.clone(),
            topics: group.subscribed_ids(member, topics),
            previous: group.targets.get(id).cloned().unwrap_or_default(),
        };
        input.members.insert(id.clone(), member);
    }
    let targets = assign(group.assignor(default_assignor(config)), &input);
    for (member, target) in targets {
        if draft.group().targets.get(&member) != Some(&target) {
            draft.set_target(&member, target);
        }
    }
    draft.set_target_epoch(epoch);
}
