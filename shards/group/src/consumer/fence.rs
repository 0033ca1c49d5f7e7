//! Members go: their records, and the group epoch that makes others get what they had. Never decides who goes.

use crate::topics::TopicsView;

use super::draft::Draft;
use super::regexes::forget_unused;
use super::target::bump_epoch;

/// Removes members. The target assignment is made with the next heartbeat of another one, as in Kafka.
pub(crate) fn remove(draft: &mut Draft<'_>, members: &[&str], topics: &dyn TopicsView) {
    for member in members {
        remove_one(draft, member);
    }
    bump_epoch(draft, true, topics);
}

fn remove_one(draft: &mut Draft<'_>, member: &str) {
    let regex = draft.group().members.get(member).and_then(|member| member.subscribed_topic_regex.clone());
    draft.remove_member(member);
    if let Some(regex) = regex {
        forget_unused(draft, &regex);
    }
}
