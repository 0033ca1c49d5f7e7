//! Values of KIP-848 groups: ConsumerGroupMetadataValue, …MemberMetadataValue, …TargetAssignment…Value,
//! …CurrentMemberAssignmentValue, …RegularExpressionValue. All are version 0 and flexible.

use std::collections::BTreeSet;

use bytes::Bytes;
use pelton_model::TopicId;
use pelton_wire::WireError;
use pelton_wire::primitives::{Reader, Writer};

use super::Assignment;

/// ConsumerGroupMetadataValue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpochValue {
    /// The group epoch.
    pub epoch: i32,
    /// A hash of the subscribed topics' metadata (KIP-1101, tag 0); 0 unknown.
    pub metadata_hash: i64,
}

/// ConsumerGroupMemberMetadataValue.
#[derive(Clone, PartialEq, Debug, Default)]
#[allow(missing_docs)]
pub struct MemberValue {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub subscribed_topic_names: BTreeSet<String>,
    pub subscribed_topic_regex: Option<String>,
    pub rebalance_timeout_ms: i32,
    pub server_assignor: Option<String>,
    /// Set for a member that speaks the classic protocol (tag 0).
    pub classic: Option<ClassicMemberMetadata>,
}

/// What a KIP-848 group remembers of a member that speaks the classic protocol.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClassicMemberMetadata {
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Name and metadata of each protocol it supports, in its order.
    pub supported_protocols: Vec<(String, Bytes)>,
}

/// ConsumerGroupCurrentMemberAssignmentValue.
#[derive(Clone, PartialEq, Debug, Default)]
#[allow(missing_docs)]
pub struct CurrentValue {
    pub member_epoch: i32,
    pub previous_member_epoch: i32,
    /// 0 stable, 1 unrevoked partitions, 2 unreleased partitions (Kafka's MemberState).
    pub state: i8,
    pub assigned: Assignment,
    pub pending_revocation: Assignment,
}

/// ConsumerGroupRegularExpressionValue.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RegexValue {
    /// The topics that match.
    pub topics: BTreeSet<String>,
    /// Version of the metadata they were looked for in.
    pub version: i64,
    /// When, milliseconds since 1970.
    pub timestamp_ms: i64,
}

fn begin(bytes: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut reader = Reader::new(bytes, 0);
    match reader.i16()? {
        0 => Ok(reader),
        _ => Err(WireError::NotServed("this version of a consumer group record")),
    }
}

fn writer(capacity: usize) -> Writer {
    let mut writer = Writer::new(true, capacity);
    writer.i16(0);
    writer
}

fn strings<'a>(writer: &mut Writer, strings: impl ExactSizeIterator<Item = &'a String>) {
    writer.length(Some(strings.len()));
    strings.for_each(|string| writer.string(string));
}

fn read_strings(reader: &mut Reader<'_>) -> Result<BTreeSet<String>, WireError> {
    (0..reader.array_count(true, 1)?).map(|_| Ok(reader.string(true)?.to_string())).collect()
}

fn optional(reader: &mut Reader<'_>) -> Result<Option<String>, WireError> {
    Ok(reader.nullable_string(true)?.map(str::to_string))
}

fn write_assignment(writer: &mut Writer, assignment: &Assignment) {
    writer.length(Some(assignment.len()));
    for (topic, partitions) in assignment {
        writer.uuid(topic.0);
        writer.length(Some(partitions.len()));
        partitions.iter().for_each(|partition| writer.i32(*partition));
        writer.no_tags();
    }
}

fn read_assignment(reader: &mut Reader<'_>) -> Result<Assignment, WireError> {
    let mut assignment = Assignment::new();
    for _ in 0..reader.array_count(true, 18)? {
        let topic = TopicId(reader.uuid()?);
        let partitions = (0..reader.array_count(true, 4)?).map(|_| reader.i32()).collect::<Result<_, _>>()?;
        reader.skip_tags(true)?;
        assignment.insert(topic, partitions);
    }
    Ok(assignment)
}

/// Reads tagged fields, each given to `field` as tag and bytes.
fn tags<'a>(
    reader: &mut Reader<'a>,
    mut field: impl FnMut(u32, &'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    for _ in 0..reader.unsigned_varint()? {
        let tag = reader.unsigned_varint()?;
        let length = reader.unsigned_varint()? as usize;
        field(tag, reader.take(length)?)?;
    }
    Ok(())
}

impl EpochValue {
    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<EpochValue, WireError> {
        let mut reader = begin(bytes)?;
        let mut value = EpochValue { epoch: reader.i32()?, metadata_hash: 0 };
        tags(&mut reader, |tag, bytes| {
            if tag == 0 {
                value.metadata_hash = Reader::new(bytes, 0).i64()?;
            }
            Ok(())
        })?;
        Ok(value)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = writer(20);
        writer.i32(self.epoch);
        match self.metadata_hash {
            0 => writer.no_tags(),
            hash => writer.tags(&[(0, hash.to_be_bytes().to_vec())]),
        }
        writer.bytes
    }
}

impl MemberValue {
    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<MemberValue, WireError> {
        let mut reader = begin(bytes)?;
        let mut value = MemberValue {
            instance_id: optional(&mut reader)?,
            rack_id: optional(&mut reader)?,
            client_id: reader.string(true)?.to_string(),
            client_host: reader.string(true)?.to_string(),
            subscribed_topic_names: read_strings(&mut reader)?,
            subscribed_topic_regex: optional(&mut reader)?,
            rebalance_timeout_ms: reader.i32()?,
            server_assignor: optional(&mut reader)?,
            classic: None,
        };
        tags(&mut reader, |tag, bytes| {
            if tag == 0 {
                value.classic = ClassicMemberMetadata::decode(bytes)?;
            }
            Ok(())
        })?;
        Ok(value)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = writer(128);
        writer.nullable_string(self.instance_id.as_deref());
        writer.nullable_string(self.rack_id.as_deref());
        writer.string(&self.client_id);
        writer.string(&self.client_host);
        strings(&mut writer, self.subscribed_topic_names.iter());
        writer.nullable_string(self.subscribed_topic_regex.as_deref());
        writer.i32(self.rebalance_timeout_ms);
        writer.nullable_string(self.server_assignor.as_deref());
        match &self.classic {
            None => writer.no_tags(),
            Some(classic) => writer.tags(&[(0, classic.encode())]),
        }
        writer.bytes
    }
}

impl ClassicMemberMetadata {
    fn decode(bytes: &[u8]) -> Result<Option<ClassicMemberMetadata>, WireError> {
        let mut reader = Reader::new(bytes, 0);
        if reader.i8()? < 0 {
            return Ok(None);
        }
        let session_timeout_ms = reader.i32()?;
        let mut supported_protocols = Vec::new();
        for _ in 0..reader.array_count(true, 3)? {
            let name = reader.string(true)?.to_string();
            let range = reader.nullable_bytes(true)?.unwrap_or(0..0);
            supported_protocols.push((name, Bytes::copy_from_slice(&bytes[range])));
            reader.skip_tags(true)?;
        }
        Ok(Some(ClassicMemberMetadata { session_timeout_ms, supported_protocols }))
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(true, 128);
        writer.i8(1);
        writer.i32(self.session_timeout_ms);
        writer.length(Some(self.supported_protocols.len()));
        for (name, metadata) in &self.supported_protocols {
            writer.string(name);
            writer.length(Some(metadata.len()));
            writer.bytes.extend_from_slice(metadata);
            writer.no_tags();
        }
        writer.no_tags();
        writer.bytes
    }
}

impl CurrentValue {
    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<CurrentValue, WireError> {
        let mut reader = begin(bytes)?;
        Ok(CurrentValue {
            member_epoch: reader.i32()?,
            previous_member_epoch: reader.i32()?,
            state: reader.i8()?,
            assigned: read_assignment(&mut reader)?,
            pending_revocation: read_assignment(&mut reader)?,
        })
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = writer(64);
        writer.i32(self.member_epoch);
        writer.i32(self.previous_member_epoch);
        writer.i8(self.state);
        write_assignment(&mut writer, &self.assigned);
        write_assignment(&mut writer, &self.pending_revocation);
        writer.no_tags();
        writer.bytes
    }
}

impl RegexValue {
    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<RegexValue, WireError> {
        let mut reader = begin(bytes)?;
        let topics = read_strings(&mut reader)?;
        Ok(RegexValue { topics, version: reader.i64()?, timestamp_ms: reader.i64()? })
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = writer(64);
        strings(&mut writer, self.topics.iter());
        writer.i64(self.version);
        writer.i64(self.timestamp_ms);
        writer.no_tags();
        writer.bytes
    }
}

/// Reads ConsumerGroupTargetAssignmentMetadataValue.
pub fn decode_target_epoch(bytes: &[u8]) -> Result<i32, WireError> {
    begin(bytes)?.i32()
}

/// Writes ConsumerGroupTargetAssignmentMetadataValue.
pub fn encode_target_epoch(epoch: i32) -> Vec<u8> {
    let mut writer = writer(8);
    writer.i32(epoch);
    writer.no_tags();
    writer.bytes
}

/// Reads ConsumerGroupTargetAssignmentMemberValue.
pub fn decode_target(bytes: &[u8]) -> Result<Assignment, WireError> {
    read_assignment(&mut begin(bytes)?)
}

/// Writes ConsumerGroupTargetAssignmentMemberValue.
pub fn encode_target(assignment: &Assignment) -> Vec<u8> {
    let mut writer = writer(64);
    write_assignment(&mut writer, assignment);
    writer.no_tags();
    writer.bytes
}
