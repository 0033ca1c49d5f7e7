//! The records of `__consumer_offsets`: what they mean. Their bytes are in [`key`], [`offset_value`], [`classic_value`]
//! and [`consumer_value`], after Kafka's message definitions under group-coordinator/…/common/message. Never decides.

pub mod classic_value;
pub mod consumer_value;
pub mod key;
pub mod offset_value;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pelton_model::TopicId;
use pelton_wire::WireError;

pub use classic_value::{ClassicMemberValue, GroupMetadataValue};
pub use consumer_value::{ClassicMemberMetadata, CurrentValue, EpochValue, MemberValue, RegexValue};
pub use key::RecordKey;
pub use offset_value::OffsetValue;

/// Partitions by topic: the unit of KIP-848 assignments.
pub type Assignment = BTreeMap<TopicId, BTreeSet<i32>>;

/// One record as it is appended: key and value, none = a tombstone.
pub type RawRecord = (Bytes, Option<Bytes>);

/// A record of `__consumer_offsets`, read. `None` in place of the value is a tombstone.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// A committed offset (key version 1; 0 is read as well).
    Offset { group: String, topic: String, partition: i32, value: Option<OffsetValue> },
    /// A generation of a classic group (key version 2).
    Group { group: String, value: Option<GroupMetadataValue> },
    /// The epoch of a KIP-848 group (key version 3).
    Epoch { group: String, value: Option<EpochValue> },
    /// Topic metadata of a KIP-848 group as Kafka before 4.1 kept it (key version 4); only its tombstone is written.
    PartitionMetadata { group: String },
    /// A member of a KIP-848 group (key version 5).
    Member { group: String, member: String, value: Option<MemberValue> },
    /// The epoch of the target assignment (key version 6).
    TargetEpoch { group: String, value: Option<i32> },
    /// A member's target assignment (key version 7).
    Target { group: String, member: String, value: Option<Assignment> },
    /// What a member owns now (key version 8).
    Current { group: String, member: String, value: Option<CurrentValue> },
    /// What a topic pattern resolved to (key version 16).
    Regex { group: String, regex: String, value: Option<RegexValue> },
}

impl Record {
    /// Reads a record. `Ok(None)`: a key of a kind this broker does not have (share and streams groups), to be skipped.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, WireError> {
        let Some(key) = RecordKey::decode(key)? else { return Ok(None) };
        Ok(Some(match key {
            RecordKey::Offset { group, topic, partition } => {
                let value = value.map(OffsetValue::decode).transpose()?;
                Record::Offset { group, topic, partition, value }
            }
            RecordKey::Group { group } => {
                Record::Group { group, value: value.map(GroupMetadataValue::decode).transpose()? }
            }
            RecordKey::Epoch { group } => {
                Record::Epoch { group, value: value.map(EpochValue::decode).transpose()? }
            }
            RecordKey::PartitionMetadata { group } => Record::PartitionMetadata { group },
            RecordKey::Member { group, member } => {
                Record::Member { group, member, value: value.map(MemberValue::decode).transpose()? }
            }
            RecordKey::TargetEpoch { group } => {
                let value = value.map(consumer_value::decode_target_epoch).transpose()?;
                Record::TargetEpoch { group, value }
            }
            RecordKey::Target { group, member } => {
                Record::Target { group, member, value: value.map(consumer_value::decode_target).transpose()? }
            }
            RecordKey::Current { group, member } => {
                Record::Current { group, member, value: value.map(CurrentValue::decode).transpose()? }
            }
            RecordKey::Regex { group, regex } => {
                Record::Regex { group, regex, value: value.map(RegexValue::decode).transpose()? }
            }
        }))
    }

    /// The record as Kafka writes it.
    pub fn encode(&self) -> RawRecord {
        let (key, value) = match self {
            Record::Offset { group, topic, partition, value } => {
                let key =
                    RecordKey::Offset { group: group.clone(), topic: topic.clone(), partition: *partition };
                (key, value.as_ref().map(OffsetValue::encode))
            }
            Record::Group { group, value } => {
                (RecordKey::Group { group: group.clone() }, value.as_ref().map(GroupMetadataValue::encode))
            }
            Record::Epoch { group, value } => {
                (RecordKey::Epoch { group: group.clone() }, value.as_ref().map(EpochValue::encode))
            }
            Record::PartitionMetadata { group } => {
                (RecordKey::PartitionMetadata { group: group.clone() }, None)
            }
            Record::Member { group, member, value } => {
                let key = RecordKey::Member { group: group.clone(), member: member.clone() };
                (key, value.as_ref().map(MemberValue::encode))
            }
            Record::TargetEpoch { group, value } => (
                RecordKey::TargetEpoch { group: group.clone() },
                value.map(consumer_value::encode_target_epoch),
            ),
            Record::Target { group, member, value } => {
                let key = RecordKey::Target { group: group.clone(), member: member.clone() };
                (key, value.as_ref().map(consumer_value::encode_target))
            }
            Record::Current { group, member, value } => {
                let key = RecordKey::Current { group: group.clone(), member: member.clone() };
                (key, value.as_ref().map(CurrentValue::encode))
            }
            Record::Regex { group, regex, value } => {
                let key = RecordKey::Regex { group: group.clone(), regex: regex.clone() };
                (key, value.as_ref().map(RegexValue::encode))
            }
        };
        (key.encode(), value.map(Bytes::from))
    }
}
