//! SyncGroup, Heartbeat and LeaveGroup of classic members of a KIP-848 group. A heartbeat tells them to join again when
//! they have something to give back or to get.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::leave_group_request::MemberIdentity;
use pelton_wire::messages::leave_group_response::MemberResponse;
use pelton_wire::messages::{
    HeartbeatRequestData, HeartbeatResponseData, SyncGroupRequestData, SyncGroupResponseData,
};

use crate::classic::{CONSUMER, encode_assignment};
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::pending::Then;
use crate::records::{ClassicMemberMetadata, MemberValue};
use crate::request::{GroupResponse, text};
use crate::timers::TimerKey;

use super::apply::partitions;
use super::draft::Draft;
use super::reconcile::contains;
use super::{ConsumerGroup, UNRELEASED, UNREVOKED, fence};

/// The first version of SyncGroup with protocol type and name (KIP-559).
const SYNC_PROTOCOLS_FROM: i16 = 5;

impl Coordinator {
    /// A SyncGroup to a KIP-848 group: what the member owns now.
    pub(crate) fn classic_sync_to_consumer(
        &mut self,
        asker: Asker<'_>,
        request: &SyncGroupRequestData,
        turn: &mut Turn<'_>,
    ) {
        let response = self
            .classic_sync(asker, request, turn)
            .unwrap_or_else(|error| SyncGroupResponseData { error_code: error.code(), ..Default::default() });
        let response = GroupResponse::SyncGroup(response);
        self.answer_durable([request.group_id.as_str()], asker.token, response, turn);
    }

    fn classic_sync(
        &mut self,
        asker: Asker<'_>,
        request: &SyncGroupRequestData,
        turn: &mut Turn<'_>,
    ) -> Result<SyncGroupResponseData, ErrorCode> {
        let (id, member) = (request.group_id.as_str(), request.member_id.as_str());
        let Some(Group::Consumer(group)) = self.groups.get(id) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        let instance = request.group_instance_id.as_ref().map(|instance| instance.as_str());
        let (value, classic) = group.classic_member(member, instance)?;
        let current = group.current(member);
        if request.generation_id != current.member_epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        let protocol = classic.supported_protocols.first();
        let name = protocol.map_or("", |(name, _)| name.as_str());
        let is_other = |given: &Option<_>, wanted: &str| {
            given.as_ref().is_some_and(|given: &pelton_wire::messages::KafkaString| given.as_str() != wanted)
        };
        if is_other(&request.protocol_type, CONSUMER) || is_other(&request.protocol_name, name) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if group.epoch.epoch > current.member_epoch && current.state != UNREVOKED {
            let timeout_ms = value.rebalance_timeout_ms;
            self.await_rejoin(id, member, timeout_ms, turn);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let mut topics = Vec::with_capacity(current.assigned.len());
        for (topic, partitions) in &current.assigned {
            if let Some((name, _)) = turn.topics.topic_by_id(*topic) {
                topics.push((name.to_string(), partitions.iter().copied().collect()));
            }
        }
        // In the version of its subscription.
        let version = protocol.and_then(|(_, metadata)| metadata.first_chunk::<2>());
        let version = version.map_or(0, |bytes| i16::from_be_bytes(*bytes));
        let session_ms = classic.session_timeout_ms;
        let has_protocols = asker.version() >= SYNC_PROTOCOLS_FROM;
        let response = SyncGroupResponseData {
            protocol_type: has_protocols.then(|| text(CONSUMER)),
            protocol_name: has_protocols.then(|| text(name)),
            assignment: encode_assignment(version, &topics),
            ..Default::default()
        };
        self.timers.cancel(&TimerKey::MemberSync(id.to_string(), member.to_string()));
        self.set_consumer_session(id, member, session_ms, turn);
        Ok(response)
    }

    /// A classic Heartbeat to a KIP-848 group.
    pub(crate) fn classic_heartbeat_to_consumer(
        &mut self,
        asker: Asker<'_>,
        request: &HeartbeatRequestData,
        turn: &mut Turn<'_>,
    ) {
        let error = self.classic_beat(request, turn).err().unwrap_or(ErrorCode::None);
        let response = HeartbeatResponseData { error_code: error.code(), ..Default::default() };
        let response = GroupResponse::Heartbeat(response);
        self.answer_durable([request.group_id.as_str()], asker.token, response, turn);
    }

    fn classic_beat(&mut self, request: &HeartbeatRequestData, turn: &mut Turn<'_>) -> Result<(), ErrorCode> {
        let (id, member) = (request.group_id.as_str(), request.member_id.as_str());
        let Some(Group::Consumer(group)) = self.groups.get(id) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        let instance = request.group_instance_id.as_ref().map(|instance| instance.as_str());
        let (value, classic) = group.classic_member(member, instance)?;
        if request.generation_id != group.current(member).member_epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        let (session_ms, rebalance_ms) = (classic.session_timeout_ms, value.rebalance_timeout_ms);
        let must_rejoin = group.must_rejoin(member);
        self.set_consumer_session(id, member, session_ms, turn);
        if must_rejoin {
            self.await_rejoin(id, member, rebalance_ms, turn);
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// LeaveGroup of classic members of a KIP-848 group; one answer per identity (versions before 3 have one identity,
    /// whose error is the whole answer's). The caller answers once the group is durable.
    pub(crate) fn classic_leave_consumer(
        &mut self,
        id: &str,
        identities: &[MemberIdentity],
        turn: &mut Turn<'_>,
    ) -> Vec<MemberResponse> {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return Vec::new() };
        let mut leavers = std::collections::BTreeSet::new();
        let mut responses = Vec::with_capacity(identities.len());
        for identity in identities {
            let left = group.classic_leaver(identity);
            let error = left.as_ref().err().copied().unwrap_or(ErrorCode::None);
            leavers.extend(left.ok());
            responses.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: error.code(),
                ..Default::default()
            });
        }
        if leavers.is_empty() {
            return responses;
        }
        let names: Vec<&str> = leavers.iter().map(String::as_str).collect();
        if self.downgrade_without(id, &names, turn) {
            return responses;
        }
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else { return responses };
        let mut draft = Draft::new(id, group);
        fence::remove(&mut draft, &names, turn.topics);
        let records = draft.finish();
        self.write(records, Vec::new(), Then::Nothing, turn);
        for member in &leavers {
            self.consumer_member_gone(id, member);
        }
        responses
    }

    /// The member must join again in its rebalance timeout.
    fn await_rejoin(&mut self, id: &str, member: &str, timeout_ms: i32, turn: &Turn<'_>) {
        let key = TimerKey::Revocation(id.to_string(), member.to_string());
        if !self.timers.is_set(&key) {
            self.timers.set(key, turn.now.after_ms(i64::from(timeout_ms)));
        }
    }
}

impl ConsumerGroup {
    /// A member that speaks the classic protocol.
    fn classic_member(
        &self,
        member: &str,
        instance: Option<&str>,
    ) -> Result<(&MemberValue, &ClassicMemberMetadata), ErrorCode> {
        if let Some(instance) = instance {
            let owner = self.instances.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
            if owner != member {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        let value = self.members.get(member).ok_or(ErrorCode::UnknownMemberId)?;
        Ok((value, value.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?))
    }

    fn classic_leaver(&self, identity: &MemberIdentity) -> Result<String, ErrorCode> {
        let instance = identity.group_instance_id.as_ref().map(|instance| instance.as_str());
        let mut member = identity.member_id.as_str();
        if let (Some(instance), true) = (instance, member.is_empty()) {
            // An administrator removes a static member by its instance id alone.
            member = self.instances.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
        }
        self.classic_member(member, instance)?;
        Ok(member.to_string())
    }

    /// True if a classic member has something to give back, or something to get that is free.
    fn must_rejoin(&self, member: &str) -> bool {
        let current = self.current(member);
        let is_waiting = || {
            let target = self.targets.get(member).into_iter().flat_map(partitions);
            let mut missing =
                target.filter(|(topic, partition)| !contains(&current.assigned, *topic, *partition));
            missing.any(|partition| self.owners.contains_key(&partition))
        };
        current.member_epoch < self.epoch.epoch
            || current.state == UNREVOKED
            || (current.state == UNRELEASED && !is_waiting())
    }
}
