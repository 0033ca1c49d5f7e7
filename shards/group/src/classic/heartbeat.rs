//! Heartbeat 0-4 for classic groups: a member lives, and learns of a rebalance.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{HeartbeatRequestData, HeartbeatResponseData};

use super::{ClassicGroup, ClassicState};
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::request::GroupResponse;

impl Coordinator {
    /// A classic Heartbeat to a group of either protocol.
    pub(crate) fn heartbeat(&mut self, asker: Asker<'_>, request: HeartbeatRequestData, turn: &mut Turn<'_>) {
        let id = request.group_id.as_str();
        let heard = match self.groups.get(id) {
            _ if id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Some(Group::Consumer(_)) => return self.classic_heartbeat_to_consumer(asker, &request, turn),
            Some(Group::Classic(group)) => group.check_heartbeat(&request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        // During a rebalance it counts as well: it tells the member to join.
        if matches!(heard, Ok(()) | Err(ErrorCode::RebalanceInProgress)) {
            self.set_classic_session(id, request.member_id.as_str(), turn);
        }
        let error = heard.err().unwrap_or(ErrorCode::None);
        let response = HeartbeatResponseData { error_code: error.code(), ..Default::default() };
        self.answer_durable([id], asker.token, GroupResponse::Heartbeat(response), turn);
    }
}

impl ClassicGroup {
    fn check_heartbeat(&self, request: &HeartbeatRequestData) -> Result<(), ErrorCode> {
        let instance = request.group_instance_id.as_ref().map(|instance| instance.as_str());
        self.check_member(request.member_id.as_str(), instance)?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            ClassicState::Empty => Err(ErrorCode::UnknownMemberId),
            ClassicState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            ClassicState::CompletingRebalance | ClassicState::Stable => Ok(()),
        }
    }
}
