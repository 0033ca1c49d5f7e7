//! What the members of a KIP-848 group add up to, kept up with every change, so that a join need not look at all members.
//! Never decides.

use std::collections::BTreeMap;

use crate::records::MemberValue;

/// Sums over the members.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Counts {
    /// How many members name each topic.
    names: BTreeMap<String, usize>,
    /// How many members have each topic pattern.
    regexes: BTreeMap<String, usize>,
    /// Ids and subscriptions, bytes.
    bytes: usize,
}

impl Counts {
    /// One more member.
    pub fn add(&mut self, id: &str, member: &MemberValue) {
        for name in &member.subscribed_topic_names {
            more(&mut self.names, name);
        }
        if let Some(regex) = &member.subscribed_topic_regex {
            more(&mut self.regexes, regex);
        }
        self.bytes += id.len() + member_bytes(member);
    }

    /// A member less, as it was when it was added.
    pub fn take_off(&mut self, id: &str, member: &MemberValue) {
        for name in &member.subscribed_topic_names {
            less(&mut self.names, name);
        }
        if let Some(regex) = &member.subscribed_topic_regex {
            less(&mut self.regexes, regex);
        }
        self.bytes -= id.len() + member_bytes(member);
    }

    /// Topics that members name.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    /// True if a member names the topic.
    pub fn has_name(&self, topic: &str) -> bool {
        self.names.contains_key(topic)
    }

    /// True if a member has the pattern.
    pub fn has_regex(&self, regex: &str) -> bool {
        self.regexes.contains_key(regex)
    }

    /// Ids and subscriptions of all members, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn more(counts: &mut BTreeMap<String, usize>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.to_string(), 1)),
    }
}

fn less(counts: &mut BTreeMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn member_bytes(member: &MemberValue) -> usize {
    let texts =
        [&member.instance_id, &member.rack_id, &member.server_assignor, &member.subscribed_topic_regex];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let names: usize = member.subscribed_topic_names.iter().map(String::len).sum();
    let classic = member.classic.iter().flat_map(|classic| &classic.supported_protocols);
    let classic: usize = classic.map(|(name, metadata)| name.len() + metadata.len()).sum();
    texts + names + classic + member.client_id.len() + member.client_host.len()
}
