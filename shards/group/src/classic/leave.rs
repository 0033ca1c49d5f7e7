//! LeaveGroup 0-5 for classic groups: members that go, or are removed by an administrator (KIP-345).

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::leave_group_request::MemberIdentity;
use pelton_wire::messages::leave_group_response::MemberResponse;
use pelton_wire::messages::{LeaveGroupRequestData, LeaveGroupResponseData};

use super::ClassicGroup;
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::request::GroupResponse;
use crate::timers::TimerKey;

/// The first version that names several members.
const BATCHED_FROM: i16 = 3;

impl Coordinator {
    /// A LeaveGroup to a group of either protocol.
    pub(crate) fn leave_group(
        &mut self,
        asker: Asker<'_>,
        request: LeaveGroupRequestData,
        turn: &mut Turn<'_>,
    ) {
        let id = request.group_id.as_str();
        if id.is_empty() {
            let error_code = ErrorCode::InvalidGroupId.code();
            let response = LeaveGroupResponseData { error_code, ..Default::default() };
            return turn.answer(asker.token, GroupResponse::LeaveGroup(response));
        }
        let identities = match asker.version() {
            BATCHED_FROM.. => request.members,
            _ => vec![MemberIdentity { member_id: request.member_id, ..Default::default() }],
        };
        let members = match self.groups.get(id) {
            Some(Group::Consumer(_)) => self.classic_leave_consumer(id, &identities, turn),
            Some(Group::Classic(_)) => self.leave_classic(id, &identities, turn),
            None => identities.iter().map(|identity| left(identity, ErrorCode::UnknownMemberId)).collect(),
        };
        let response = match asker.version() {
            BATCHED_FROM.. => LeaveGroupResponseData { members, ..Default::default() },
            // One member, whose error is the answer's.
            _ => LeaveGroupResponseData {
                error_code: members.first().map_or(0, |member| member.error_code),
                ..Default::default()
            },
        };
        self.answer_durable([id], asker.token, GroupResponse::LeaveGroup(response), turn);
    }

    fn leave_classic(
        &mut self,
        id: &str,
        identities: &[MemberIdentity],
        turn: &mut Turn<'_>,
    ) -> Vec<MemberResponse> {
        let mut responses = Vec::with_capacity(identities.len());
        let mut has_left = false;
        for identity in identities {
            let Some(group) = self.classic_mut(id) else { break };
            let leaver = group.leaver(identity);
            let error = leaver.as_ref().err().copied().unwrap_or(ErrorCode::None);
            responses.push(left(identity, error));
            if let Ok(member) = leaver {
                group.drop_member(&member, turn);
                self.timers.cancel(&TimerKey::Session(id.to_string(), member));
                has_left = true;
            }
        }
        if has_left {
            self.member_gone(id, turn);
        }
        responses
    }
}

fn left(identity: &MemberIdentity, error: ErrorCode) -> MemberResponse {
    MemberResponse {
        member_id: identity.member_id.clone(),
        group_instance_id: identity.group_instance_id.clone(),
        error_code: error.code(),
        ..Default::default()
    }
}

impl ClassicGroup {
    /// Which member is meant.
    fn leaver(&self, identity: &MemberIdentity) -> Result<String, ErrorCode> {
        let instance = identity.group_instance_id.as_ref().map(|instance| instance.as_str());
        let member = identity.member_id.as_str();
        if member.is_empty() {
            // An administrator removes a static member by its instance id alone.
            let owner = instance.and_then(|instance| self.instances.get(instance));
            return owner.cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        if !self.pending_members.contains(member) {
            self.check_member(member, instance)?;
        }
        Ok(member.to_string())
    }
}
