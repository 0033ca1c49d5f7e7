//! The group epoch and the target assignment: when they change, and to what. Never looks at what members own now.

use crate::records::EpochValue;
use crate::topics::TopicsView;
use pelton_model::GroupConfig;

use super::assignor::{AssignorInput, AssignorMember, assign, is_known};
use super::draft::Draft;

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

/// Makes the target assignment of the group epoch, if that is newer; only what differs is written.
pub(crate) fn update_targets(draft: &mut Draft<'_>, config: &GroupConfig, topics: &dyn TopicsView) {
    let group = draft.group();
    let epoch = group.epoch.epoch;
    if epoch <= group.target_epoch {
        return;
    }
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
