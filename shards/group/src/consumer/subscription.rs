//! What members subscribe to, and whether those topics have changed. Never changes anything.

use std::collections::BTreeSet;

use pelton_model::TopicId;

use crate::records::MemberValue;
use crate::topics::TopicsView;

use super::ConsumerGroup;

impl ConsumerGroup {
    /// Ids of the topics a member reads, by name or pattern; only such that exist.
    pub fn subscribed_ids(&self, member: &MemberValue, topics: &dyn TopicsView) -> BTreeSet<TopicId> {
        let pattern = member.subscribed_topic_regex.as_deref().unwrap_or("");
        let matched = self.regexes.get(pattern).into_iter().flat_map(|resolved| &resolved.topics);
        let names = member.subscribed_topic_names.iter().chain(matched);
        names.filter_map(|name| topics.topic(name)).map(|(id, _)| id).collect()
    }

    /// A hash of the subscribed topics that exist: names, ids and partition counts (KIP-1101; this broker's own hash,
    /// 64-bit FNV-1a). 0 without any.
    pub fn topics_hash(&self, topics: &dyn TopicsView) -> i64 {
        let mut hash = Fnv::default();
        let mut is_empty = true;
        for name in self.subscribed_topics() {
            if let Some((id, partitions)) = topics.topic(name) {
                is_empty = false;
                hash.bytes(&(name.len() as u64).to_be_bytes());
                hash.bytes(name.as_bytes());
                hash.bytes(id.0.as_bytes());
                hash.bytes(&partitions.to_be_bytes());
            }
        }
        if is_empty { 0 } else { hash.0 as i64 }
    }

    /// The assignor most members want; of equals the first by name; `default` if no one wants any.
    pub fn assignor<'a>(&'a self, default: &'a str) -> &'a str {
        let mut votes = std::collections::BTreeMap::<&str, usize>::new();
        for wanted in self.members.values().filter_map(|member| member.server_assignor.as_deref()) {
            *votes.entry(wanted).or_default() += 1;
        }
        // `max_by_key` takes the last of equals.
        votes.into_iter().rev().max_by_key(|(_, votes)| *votes).map_or(default, |(name, _)| name)
    }
}

/// 64-bit FNV-1a.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Fnv::default();
        hash.bytes(bytes);
        hash.0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
