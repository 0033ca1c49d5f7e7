//! Subscriptions and assignments in the consumer's own encoding (ConsumerProtocol version 0), and who gets what.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(text.len() as i16);
    bytes.put_slice(text.as_bytes());
}

/// The subscription to topics.
pub fn subscription(topics: &[(String, i32)]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    topics.iter().for_each(|(topic, _)| put_text(&mut bytes, topic));
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Every partition of the topics.
pub fn all(topics: &[(String, i32)]) -> Vec<(String, i32)> {
    topics.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic.clone(), p))).collect()
}

/// Each member's share of all partitions.
pub fn shares(topics: &[(String, i32)], members: &[String]) -> BTreeMap<String, Vec<(String, i32)>> {
    let mut shares: BTreeMap<String, Vec<(String, i32)>> =
        members.iter().map(|member| (member.clone(), Vec::new())).collect();
    for (index, partition) in all(topics).into_iter().enumerate() {
        if let Some(member) = members.get(index % members.len().max(1)) {
            shares.entry(member.clone()).or_default().push(partition);
        }
    }
    shares
}

/// An assignment.
pub fn encode(partitions: &[(String, i32)]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(partitions.len() as i32);
    for (topic, partition) in partitions {
        put_text(&mut bytes, topic);
        bytes.put_i32(1);
        bytes.put_i32(*partition);
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Reads what [`encode`] wrote; none if it is something else.
pub fn decode(bytes: &[u8]) -> Option<BTreeSet<(String, i32)>> {
    let mut owned = BTreeSet::new();
    let count = i32::from_be_bytes(bytes.get(2..6)?.try_into().ok()?);
    let mut at = 6;
    for _ in 0..count {
        let length = i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?) as usize;
        let topic = std::str::from_utf8(bytes.get(at + 2..at + 2 + length)?).ok()?.to_string();
        at += 2 + length + 4;
        owned.insert((topic, i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)));
        at += 4;
    }
    Some(owned)
}
