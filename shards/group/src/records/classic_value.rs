//! GroupMetadataValue: a generation of a classic group with its members. Written as version 3, read in versions 0-4.

use bytes::Bytes;
use pelton_wire::WireError;
use pelton_wire::primitives::{Reader, Writer};

/// A generation.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupMetadataValue {
    /// `consumer`, `connect`, …; empty: none.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// When the group came to its state, milliseconds since 1970; -1 unknown.
    pub current_state_timestamp_ms: i64,
    /// Its members.
    pub members: Vec<ClassicMemberValue>,
}

/// A member of a generation.
#[derive(Clone, PartialEq, Debug)]
pub struct ClassicMemberValue {
    /// Member id.
    pub member_id: String,
    /// group.instance.id of a static member.
    pub group_instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Its metadata for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl GroupMetadataValue {
    /// Reads versions 0-4.
    pub fn decode(bytes: &[u8]) -> Result<GroupMetadataValue, WireError> {
        let mut reader = Reader::new(bytes, 0);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(WireError::NotServed("this version of GroupMetadataValue"));
        }
        let flexible = version >= 4;
        let protocol_type = reader.string(flexible)?.to_string();
        let generation = reader.i32()?;
        let protocol = reader.nullable_string(flexible)?.map(str::to_string);
        let leader = reader.nullable_string(flexible)?.map(str::to_string);
        let current_state_timestamp_ms = if version >= 2 { reader.i64()? } else { -1 };
        let count = reader.array_count(flexible, 8)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(decode_member(&mut reader, bytes, version)?);
        }
        reader.skip_tags(flexible)?;
        Ok(GroupMetadataValue {
            protocol_type,
            generation,
            protocol,
            leader,
            current_state_timestamp_ms,
            members,
        })
    }

    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(false, 64 + self.members.len() * 256);
        writer.i16(3);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.nullable_string(self.protocol.as_deref());
        writer.nullable_string(self.leader.as_deref());
        writer.i64(self.current_state_timestamp_ms);
        writer.length(Some(self.members.len()));
        for member in &self.members {
            writer.string(&member.member_id);
            writer.nullable_string(member.group_instance_id.as_deref());
            writer.string(&member.client_id);
            writer.string(&member.client_host);
            writer.i32(member.rebalance_timeout_ms);
            writer.i32(member.session_timeout_ms);
            for bytes in [&member.subscription, &member.assignment] {
                writer.length(Some(bytes.len()));
                writer.bytes.extend_from_slice(bytes);
            }
        }
        writer.bytes
    }
}

fn decode_member(
    reader: &mut Reader<'_>,
    whole: &[u8],
    version: i16,
) -> Result<ClassicMemberValue, WireError> {
    let flexible = version >= 4;
    let member_id = reader.string(flexible)?.to_string();
    let group_instance_id =
        if version >= 3 { reader.nullable_string(flexible)?.map(str::to_string) } else { None };
    let client_id = reader.string(flexible)?.to_string();
    let client_host = reader.string(flexible)?.to_string();
    let rebalance_timeout_ms = if version >= 1 { Some(reader.i32()?) } else { None };
    let session_timeout_ms = reader.i32()?;
    let mut bytes = || {
        Ok::<Bytes, WireError>(match reader.nullable_bytes(flexible)? {
            Some(range) => Bytes::copy_from_slice(&whole[range]),
            None => Bytes::new(),
        })
    };
    let subscription = bytes()?;
    let assignment = bytes()?;
    reader.skip_tags(flexible)?;
    Ok(ClassicMemberValue {
        member_id,
        group_instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}
