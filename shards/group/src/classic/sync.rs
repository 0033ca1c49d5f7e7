//! SyncGroup 0-5 for classic groups: the leader brings everyone's assignment, everyone takes theirs once it is stored
//! (Kafka's classicGroupSyncToClassicGroup).

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{KafkaString, SyncGroupRequestData};

use super::response::{sync_refusal, synced};
use super::{ClassicGroup, ClassicState, Waiting};
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::pending::Then;
use crate::records::Record;
use crate::request::GroupResponse;
use crate::timers::TimerKey;

/// The first version that must name protocol type and protocol (KIP-559).
const PROTOCOLS_FROM: i16 = 5;

impl Coordinator {
    /// A SyncGroup to a group of either protocol.
    pub(crate) fn sync_group(
        &mut self,
        asker: Asker<'_>,
        request: SyncGroupRequestData,
        turn: &mut Turn<'_>,
    ) {
        let id = request.group_id.as_str();
        let names_protocols = request.protocol_type.is_some() && request.protocol_name.is_some();
        let checked = match self.groups.get(id) {
            _ if asker.version() >= PROTOCOLS_FROM && !names_protocols => {
                Err(ErrorCode::InconsistentGroupProtocol)
            }
            _ if id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Some(Group::Consumer(group)) if !group.is_empty() => {
                return self.classic_sync_to_consumer(asker, &request, turn);
            }
            Some(Group::Classic(group)) => group.check_sync(&request),
            Some(Group::Consumer(_)) | None => Err(ErrorCode::UnknownMemberId),
        };
        match checked {
            Ok(()) => self.sync_classic(asker, request, turn),
            Err(error) => turn.answer(asker.token, GroupResponse::SyncGroup(sync_refusal(error))),
        }
    }

    fn sync_classic(&mut self, asker: Asker<'_>, request: SyncGroupRequestData, turn: &mut Turn<'_>) {
        let (id, member) = (request.group_id.as_str(), request.member_id.as_str());
        let bytes_max = self.config.group_bytes_max;
        let Some(group) = self.classic_mut(id) else { return };
        let is_stable = group.state == ClassicState::Stable;
        let leads = !is_stable && group.is_leader(member) && group.storing != Some(group.generation);
        if leads && group.bytes_with_assignments(&request) > bytes_max {
            let response = sync_refusal(ErrorCode::GroupMaxSizeReached);
            return turn.answer(asker.token, GroupResponse::SyncGroup(response));
        }
        group.pending_sync.remove(member);
        let all_synced = group.pending_sync.is_empty();
        let Some(found) = group.members.get_mut(member) else { return };
        if is_stable {
            let assignment = found.assignment.clone();
            let response = synced(group, assignment, asker.version());
            turn.answer(asker.token, GroupResponse::SyncGroup(response));
        } else {
            found.wait_sync(Waiting { token: asker.token, api_version: asker.version() }, turn);
        }
        if leads {
            self.store_assignment(&request, turn);
        }
        if all_synced {
            self.timers.cancel(&TimerKey::Sync(id.to_string()));
        }
        self.set_classic_session(id, member, turn);
    }

    /// The leader's assignment goes to the log; members it does not name get nothing.
    fn store_assignment(&mut self, request: &SyncGroupRequestData, turn: &mut Turn<'_>) {
        let id = request.group_id.as_str();
        let Some(group) = self.classic_mut(id) else { return };
        for member in group.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for given in &request.assignments {
            if let Some(member) = group.members.get_mut(given.member_id.as_str()) {
                member.assignment = given.assignment.clone();
            }
        }
        group.sum_up();
        let generation = group.generation;
        group.storing = Some(generation);
        let value = Some(group.to_record());
        let then = Then::ClassicAssignment { group: id.to_string(), generation };
        self.write(vec![Record::Group { group: id.to_string(), value }], Vec::new(), then, turn);
    }

    /// The assignment of this generation is stored: everyone who waits gets theirs.
    pub(crate) fn assignment_stored(&mut self, id: &str, generation: i32, turn: &mut Turn<'_>) {
        let Some(group) = self.classic_mut(id) else { return };
        if !group.is_storing(generation) {
            return;
        }
        group.storing = None;
        group.enter(ClassicState::Stable, turn.now.wall_ms);
        let mut answered = Vec::new();
        let waiting: Vec<String> = group.members.keys().cloned().collect();
        for member_id in waiting {
            let Some(member) = group.members.get_mut(&member_id) else { continue };
            let Some(Waiting { token, api_version }) = member.syncing.take() else { continue };
            let assignment = member.assignment.clone();
            turn.answer(token, GroupResponse::SyncGroup(synced(group, assignment, api_version)));
            answered.push(member_id);
        }
        for member in answered {
            self.set_classic_session(id, &member, turn);
        }
    }

    /// The assignment of this generation is not stored: everyone who waits is told, and the group begins anew.
    pub(crate) fn assignment_not_stored(
        &mut self,
        id: &str,
        generation: i32,
        error: ErrorCode,
        turn: &mut Turn<'_>,
    ) {
        let Some(group) = self.classic_mut(id) else { return };
        if !group.is_storing(generation) {
            return;
        }
        for member in group.reset_assignments(error, turn) {
            self.set_classic_session(id, &member, turn);
        }
        self.prepare_rebalance(id, turn);
    }
}

impl ClassicGroup {
    /// Whether this member may sync now, in this generation and with these protocols.
    fn check_sync(&self, request: &SyncGroupRequestData) -> Result<(), ErrorCode> {
        let instance = request.group_instance_id.as_ref().map(|instance| instance.as_str());
        self.check_member(request.member_id.as_str(), instance)?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let is_other = |given: &Option<KafkaString>, own: &Option<String>| {
            given.as_ref().is_some_and(|given| own.as_deref() != Some(given.as_str()))
        };
        if is_other(&request.protocol_type, &self.protocol_type)
            || is_other(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            ClassicState::Empty => Err(ErrorCode::UnknownMemberId),
            ClassicState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            ClassicState::CompletingRebalance | ClassicState::Stable => Ok(()),
        }
    }

    /// True if it waits for the log to store this generation's assignment.
    fn is_storing(&self, generation: i32) -> bool {
        self.state == ClassicState::CompletingRebalance
            && self.generation == generation
            && self.storing == Some(generation)
    }

    fn bytes_with_assignments(&self, request: &SyncGroupRequestData) -> usize {
        let new: usize = request.assignments.iter().map(|given| given.assignment.len()).sum();
        self.bytes() - self.tally.assignment_bytes + new
    }
}
