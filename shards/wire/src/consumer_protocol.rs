//! The consumers' own encoding of subscriptions and assignments inside JoinGroup and SyncGroup (ConsumerProtocol versions
//! 0-3). Read leniently: clients write malformed ones (franz-go issue 493), which then count as unknown.

use bytes::Bytes;

use crate::primitives::{Reader, Writer};

/// A consumer's subscription.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConsumerSubscription {
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
pub fn read_subscription(bytes: &Bytes) -> Option<ConsumerSubscription> {
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
        subscription.owned = read_partitions(&mut reader)?;
    }
    if version >= 2 && reader.remaining() > 0 {
        subscription.generation = reader.i32().ok()?;
    }
    if version >= 3 && reader.remaining() > 0 {
        subscription.rack_id = reader.nullable_string(false).ok()?.map(str::to_string);
    }
    Some(subscription)
}

fn read_partitions(reader: &mut Reader<'_>) -> Option<Vec<(String, Vec<i32>)>> {
    let mut topics = Vec::new();
    for _ in 0..reader.array_count(false, 6).ok()? {
        let topic = reader.string(false).ok()?.to_string();
        let count = reader.array_count(false, 4).ok()?;
        let partitions = (0..count).map(|_| reader.i32()).collect::<Result<Vec<i32>, _>>().ok()?;
        topics.push((topic, partitions));
    }
    Some(topics)
}

/// Writes a subscription to `topics` in version 0: for members that give up everything before they join.
pub fn encode_subscription(topics: &[String]) -> Bytes {
    let mut writer = Writer::new(false, 64);
    writer.i16(0);
    writer.length(Some(topics.len()));
    topics.iter().for_each(|topic| writer.string(topic));
    writer.length(None);
    Bytes::from(writer.bytes)
}

/// Reads an assignment (ConsumerProtocolAssignment): partitions by topic name. Nothing at all is an empty assignment;
/// none if it cannot be read.
pub fn read_assignment(bytes: &Bytes) -> Option<Vec<(String, Vec<i32>)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut reader = Reader::new(bytes, 0);
    if reader.i16().ok()? < 0 {
        return None;
    }
    read_partitions(&mut reader)
}

/// Writes an assignment (ConsumerProtocolAssignment) in `version`.
pub fn encode_assignment(version: i16, topics: &[(String, Vec<i32>)]) -> Bytes {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let topics = vec!["a".to_string(), "b".to_string()];
        let subscription = read_subscription(&encode_subscription(&topics)).unwrap();
        assert_eq!((subscription.topics, subscription.generation), (topics, -1));
        let assignment = vec![("a".to_string(), vec![0, 2]), ("b".to_string(), vec![])];
        for version in 0..=3 {
            assert_eq!(read_assignment(&encode_assignment(version, &assignment)), Some(assignment.clone()));
        }
        assert_eq!(read_assignment(&Bytes::new()), Some(Vec::new()));
    }

    #[test]
    fn damage_is_unknown_and_takes_no_memory() {
        let whole = encode_assignment(0, &[("topic".to_string(), vec![1, 2, 3])]);
        // The user data at the end are never read.
        for length in 1..whole.len() - 4 {
            assert_eq!(read_assignment(&whole.slice(..length)), None, "{length}");
        }
        assert_eq!(read_assignment(&Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff])), None);
        assert_eq!(read_subscription(&Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff])), None);
        assert_eq!(read_subscription(&Bytes::from_static(&[0xff, 0xff])), None);
    }
}
