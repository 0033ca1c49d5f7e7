//! The consumer's own encoding of subscriptions and assignments inside JoinGroup and SyncGroup (ConsumerProtocol
//! versions 0-3). Read leniently: clients write malformed ones (franz-go issue 493), which then count as unknown.

use bytes::Bytes;
use pelton_wire::primitives::{Reader, Writer};

/// A consumer's subscription.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ConsumerSubscription {
    /// Topic names.
    pub topics: Vec<String>,
    /// What it owned when it joined, by topic name (version 1, KIP-429).
    pub owned: Vec<(String, Vec<i32>)>,
    /// Generation of what it owned; -1 unknown (version 2).
    pub generation: i32,
    /// Its rack (version 3).
    pub rack_id: Option<String>,
}

/// Reads a subscription; none if it cannot be read.
pub(crate) fn read_subscription(bytes: &Bytes) -> Option<ConsumerSubscription> {
    let mut reader = Reader::new(bytes, 0);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    let mut subscription = ConsumerSubscription { generation: -1, ..ConsumerSubscription::default() };
    for _ in 0..reader.array_count(false, 2).ok()? {
        subscription.topics.push(reader.string(false).ok()?.to_string());
    }
    reader.nullable_bytes(false).ok()?;
    if version >= 1 && reader.remaining() > 0 {
        for _ in 0..reader.array_count(false, 6).ok()? {
            let topic = reader.string(false).ok()?.to_string();
            let count = reader.array_count(false, 4).ok()?;
            let partitions = (0..count).map(|_| reader.i32()).collect::<Result<Vec<i32>, _>>().ok()?;
            subscription.owned.push((topic, partitions));
        }
    }
    if version >= 2 && reader.remaining() > 0 {
        subscription.generation = reader.i32().ok()?;
    }
    if version >= 3 && reader.remaining() > 0 {
        subscription.rack_id = reader.nullable_string(false).ok()?.map(str::to_string);
    }
    Some(subscription)
}

/// Writes an assignment (ConsumerProtocolAssignment) in `version`.
pub(crate) fn encode_assignment(version: i16, topics: &[(String, Vec<i32>)]) -> Bytes {
    let mut writer = Writer::new(false, 64);
    writer.i16(version);
    writer.length(Some(topics.len()));
    for (topic, partitions) in topics {
        writer.string(topic);
        writer.length(Some(partitions.len()));
        partitions.iter().for_each(|partition| writer.i32(*partition));
    }
    writer.length(None);
    Bytes::from(writer.bytes)
}
