//! The answers of JoinGroup and SyncGroup in each version.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::join_group_response::JoinGroupResponseMember;
use pelton_wire::messages::{JoinGroupResponseData, SyncGroupResponseData};

use super::ClassicGroup;
use crate::request::text;

/// The first version with protocol types (KIP-559) and a null protocol name.
const PROTOCOL_TYPES_FROM: i16 = 7;

/// A refused JoinGroup.
pub(crate) fn join_refusal(api_version: i16, member_id: &str, error: ErrorCode) -> JoinGroupResponseData {
    JoinGroupResponseData {
        error_code: error.code(),
        generation_id: -1,
        protocol_name: if api_version >= PROTOCOL_TYPES_FROM { None } else { Some(text("")) },
        member_id: text(member_id),
        ..Default::default()
    }
}

/// A refused SyncGroup. The assignment is never null, also not here: clients read it first (SyncGroupResponse.json).
pub(crate) fn sync_refusal(error: ErrorCode) -> SyncGroupResponseData {
    SyncGroupResponseData { error_code: error.code(), assignment: Bytes::new(), ..Default::default() }
}

/// A member's place in the present generation. Only the leader is told who the others are.
pub(crate) fn joined(group: &ClassicGroup, member_id: &str, api_version: i16) -> JoinGroupResponseData {
    let protocol = group.protocol.as_deref().unwrap_or("");
    let member = |member: &super::ClassicMember| JoinGroupResponseMember {
        member_id: text(&member.id),
        group_instance_id: member.instance_id.as_deref().filter(|_| api_version >= 5).map(text),
        metadata: member.metadata(protocol),
        ..Default::default()
    };
    let members =
        if group.is_leader(member_id) { group.members.values().map(member).collect() } else { Vec::new() };
    JoinGroupResponseData {
        generation_id: group.generation,
        protocol_type: group
            .protocol_type
            .as_deref()
            .filter(|_| api_version >= PROTOCOL_TYPES_FROM)
            .map(text),
        protocol_name: Some(text(protocol)),
        leader: text(group.leader.as_deref().unwrap_or("")),
        member_id: text(member_id),
        members,
        ..Default::default()
    }
}

/// A member's assignment.
pub(crate) fn synced(group: &ClassicGroup, assignment: Bytes, api_version: i16) -> SyncGroupResponseData {
    let with_protocol = api_version >= 5;
    SyncGroupResponseData {
        protocol_type: group.protocol_type.as_deref().filter(|_| with_protocol).map(text),
        protocol_name: group.protocol.as_deref().filter(|_| with_protocol).map(text),
        assignment,
        ..Default::default()
    }
}
