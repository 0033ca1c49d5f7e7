//! Keys of `__consumer_offsets` records. A key begins with its kind (int16); none of them is flexible.

use bytes::Bytes;
use pelton_wire::WireError;
use pelton_wire::primitives::{Reader, Writer};

/// What a record is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum RecordKey {
    /// OffsetCommitKey, 1.
    Offset { group: String, topic: String, partition: i32 },
    /// GroupMetadataKey, 2.
    Group { group: String },
    /// ConsumerGroupMetadataKey, 3.
    Epoch { group: String },
    /// ConsumerGroupPartitionMetadataKey, 4.
    PartitionMetadata { group: String },
    /// ConsumerGroupMemberMetadataKey, 5.
    Member { group: String, member: String },
    /// ConsumerGroupTargetAssignmentMetadataKey, 6.
    TargetEpoch { group: String },
    /// ConsumerGroupTargetAssignmentMemberKey, 7.
    Target { group: String, member: String },
    /// ConsumerGroupCurrentMemberAssignmentKey, 8.
    Current { group: String, member: String },
    /// ConsumerGroupRegularExpressionKey, 16.
    Regex { group: String, regex: String },
}

impl RecordKey {
    /// Reads a key; `Ok(None)` for a kind this broker does not have.
    pub fn decode(bytes: &[u8]) -> Result<Option<RecordKey>, WireError> {
        let mut reader = Reader::new(bytes, 0);
        let kind = reader.i16()?;
        if !matches!(kind, 0..=8 | 16) {
            return Ok(None);
        }
        let group = reader.string(false)?.to_string();
        let mut second = || Ok::<String, WireError>(reader.string(false)?.to_string());
        Ok(Some(match kind {
            0 | 1 => {
                let topic = second()?;
                RecordKey::Offset { group, topic, partition: reader.i32()? }
            }
            2 => RecordKey::Group { group },
            3 => RecordKey::Epoch { group },
            4 => RecordKey::PartitionMetadata { group },
            5 => RecordKey::Member { group, member: second()? },
            6 => RecordKey::TargetEpoch { group },
            7 => RecordKey::Target { group, member: second()? },
            8 => RecordKey::Current { group, member: second()? },
            _ => RecordKey::Regex { group, regex: second()? },
        }))
    }

    /// True for the kinds Kafka has, those of share and streams groups (9 to 23) among them.
    pub fn is_known(bytes: &[u8]) -> bool {
        Reader::new(bytes, 0).i16().is_ok_and(|kind| (0..=23).contains(&kind))
    }

    /// The key's bytes.
    pub fn encode(&self) -> Bytes {
        let (kind, group, second) = match self {
            RecordKey::Offset { group, topic, .. } => (1, group, Some(topic)),
            RecordKey::Group { group } => (2, group, None),
            RecordKey::Epoch { group } => (3, group, None),
            RecordKey::PartitionMetadata { group } => (4, group, None),
            RecordKey::Member { group, member } => (5, group, Some(member)),
            RecordKey::TargetEpoch { group } => (6, group, None),
            RecordKey::Target { group, member } => (7, group, Some(member)),
            RecordKey::Current { group, member } => (8, group, Some(member)),
            RecordKey::Regex { group, regex } => (16, group, Some(regex)),
        };
        let mut writer = Writer::new(false, group.len() + second.map_or(0, String::len) + 16);
        writer.i16(kind);
        writer.string(group);
        if let Some(second) = second {
            writer.string(second);
        }
        if let RecordKey::Offset { partition, .. } = self {
            writer.i32(*partition);
        }
        Bytes::from(writer.bytes)
    }
}
