//! JoinGroup 0-9 for classic groups: who may be in, under which id, and what the join sets off (Kafka's
//! classicGroupJoinToClassicGroup). A reason (KIP-800) is only for Kafka's log and not looked at.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::JoinGroupRequestData;

use super::response::{join_refusal, joined};
use super::tally::protocols_bytes;
use super::{ClassicGroup, ClassicMember, ClassicState, Waiting};
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::request::{GroupResponse, owned};
use crate::timers::TimerKey;

/// The first version whose clients come back with the id they are given (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;

/// A join, read: the request in the group's own terms.
pub(super) struct Join {
    pub group: String,
    /// Empty: the client has no id yet.
    pub member: String,
    pub instance: Option<String>,
    pub protocol_type: String,
    pub protocols: Vec<(String, Bytes)>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub waiting: Waiting,
}

impl Join {
    fn read(asker: Asker<'_>, request: &JoinGroupRequestData) -> Join {
        let mut protocols: Vec<(String, Bytes)> = Vec::with_capacity(request.protocols.len());
        let mut names = std::collections::BTreeSet::new();
        for protocol in &request.protocols {
            // The first of a name counts, as in Kafka's collection.
            if names.insert(protocol.name.as_str()) {
                protocols.push((protocol.name.as_str().to_string(), protocol.metadata.clone()));
            }
        }
        Join {
            group: request.group_id.as_str().to_string(),
            member: request.member_id.as_str().to_string(),
            instance: owned(&request.group_instance_id),
            protocol_type: request.protocol_type.as_str().to_string(),
            protocols,
            session_timeout_ms: request.session_timeout_ms,
            // Clients of version 0 have one timeout for both.
            rebalance_timeout_ms: match request.rebalance_timeout_ms {
                -1 => request.session_timeout_ms,
                timeout_ms => timeout_ms,
            },
            waiting: Waiting { token: asker.token, api_version: asker.version() },
        }
    }

    /// Refuses it; the client is told `member` as its id.
    pub(super) fn refuse(&self, member: &str, error: ErrorCode, turn: &mut Turn<'_>) {
        let response = join_refusal(self.waiting.api_version, member, error);
        turn.answer(self.waiting.token, GroupResponse::JoinGroup(response));
    }
}

impl Coordinator {
    /// A JoinGroup to a group of either protocol.
    pub(crate) fn join_group(
        &mut self,
        asker: Asker<'_>,
        request: JoinGroupRequestData,
        turn: &mut Turn<'_>,
    ) {
        let join = Join::read(asker, &request);
        let timeouts_ms = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if join.group.is_empty() {
            return join.refuse(&join.member, ErrorCode::InvalidGroupId, turn);
        }
        if !timeouts_ms.contains(&join.session_timeout_ms) {
            return join.refuse(&join.member, ErrorCode::InvalidSessionTimeout, turn);
        }
        if join.member.is_empty() && ClassicGroup::default().supports(&join.protocol_type, &join.protocols) {
            self.empty_consumer_to_classic(&join.group, turn);
        }
        match self.groups.get(&join.group) {
            Some(Group::Consumer(group)) if group.is_empty() && join.member.is_empty() => {
                join.refuse("", ErrorCode::InconsistentGroupProtocol, turn);
            }
            Some(Group::Consumer(group)) if group.is_empty() => {
                join.refuse(&join.member, ErrorCode::UnknownMemberId, turn);
            }
            Some(Group::Consumer(_)) => self.classic_join_to_consumer(asker, &request, turn),
            Some(Group::Classic(_)) => self.join_classic(asker, join, turn),
            None => self.join_new_group(asker, join, turn),
        }
    }

    /// Only a client without an id makes a group.
    fn join_new_group(&mut self, asker: Asker<'_>, join: Join, turn: &mut Turn<'_>) {
        if !join.member.is_empty() {
            return join.refuse(&join.member, ErrorCode::UnknownMemberId, turn);
        }
        if !ClassicGroup::default().supports(&join.protocol_type, &join.protocols) {
            return join.refuse("", ErrorCode::InconsistentGroupProtocol, turn);
        }
        if !self.has_room(&join.group) {
            return join.refuse("", ErrorCode::PolicyViolation, turn);
        }
        let group = ClassicGroup { state_since_ms: turn.now.wall_ms, ..ClassicGroup::default() };
        self.groups.insert(join.group.clone(), Group::Classic(group));
        self.join_classic(asker, join, turn);
    }

    fn join_classic(&mut self, asker: Asker<'_>, join: Join, turn: &mut Turn<'_>) {
        let Some(Group::Classic(group)) = self.groups.get_mut(&join.group) else { return };
        if !group.accepts(&join.member, self.config.group_max_size) {
            group.drop_member(&join.member, turn);
            return join.refuse("", ErrorCode::GroupMaxSizeReached, turn);
        }
        if !group.supports(&join.protocol_type, &join.protocols) {
            return join.refuse(&join.member, ErrorCode::InconsistentGroupProtocol, turn);
        }
        if group.bytes_with(&join) > self.config.group_bytes_max {
            return join.refuse(&join.member, ErrorCode::GroupMaxSizeReached, turn);
        }
        if join.member.is_empty() {
            return self.join_without_id(asker, join, turn);
        }
        if group.pending_members.contains(&join.member) {
            // An id that was given out is never a static member's.
            return match join.instance {
                Some(_) => join.refuse(&join.member, ErrorCode::UnknownServerError, turn),
                None => self.add_member(asker, join.member.clone(), join, turn),
            };
        }
        match group.check_member(&join.member, join.instance.as_deref()) {
            Err(error) => join.refuse(&join.member, error, turn),
            Ok(()) => self.rejoin(join, turn),
        }
    }

    fn join_without_id(&mut self, asker: Asker<'_>, join: Join, turn: &mut Turn<'_>) {
        let size_max = self.config.group_max_size;
        let name = join.instance.as_deref().unwrap_or(&asker.context.client_id);
        let member = self.new_member_id(name);
        let Some(group) = self.classic_mut(&join.group) else { return };
        if let Some(instance) = &join.instance {
            return match group.instances.get(instance).cloned() {
                Some(old) => self.replace_static_member(asker, join, &old, member, turn),
                None => self.add_member(asker, member, join, turn),
            };
        }
        if asker.version() < MEMBER_ID_REQUIRED_FROM {
            return self.add_member(asker, member, join, turn);
        }
        // Ids that nobody comes back with must not fill the memory.
        if group.pending_members.len() >= size_max {
            return join.refuse("", ErrorCode::GroupMaxSizeReached, turn);
        }
        // The client may be gone before it knows this id: it is a member when it comes back with it.
        group.pending_members.insert(member.clone());
        let deadline_ns = turn.now.after_ms(i64::from(join.session_timeout_ms));
        self.timers.set(TimerKey::Session(join.group.clone(), member.clone()), deadline_ns);
        join.refuse(&member, ErrorCode::MemberIdRequired, turn);
    }

    fn add_member(&mut self, asker: Asker<'_>, id: String, join: Join, turn: &mut Turn<'_>) {
        let Some(group) = self.classic_mut(&join.group) else { return };
        if group.members.is_empty() {
            group.protocol_type = Some(join.protocol_type);
        }
        group.new_member_added |= group.initial_rebalance;
        let join_order = group.next_join();
        group.insert(ClassicMember {
            id: id.clone(),
            instance_id: join.instance,
            client_id: asker.context.client_id.clone(),
            client_host: asker.context.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols,
            is_new: true,
            join_order,
            joining: Some(join.waiting),
            ..ClassicMember::default()
        });
        // It sends no heartbeats while it waits, and a closed connection is not seen: it may wait so long.
        let deadline_ns = turn.now.after_ms(i64::from(self.config.new_member_join_timeout_ms));
        self.timers.set(TimerKey::Session(join.group.clone(), id), deadline_ns);
        self.rebalance_or_complete(&join.group, turn);
    }

    /// A member joins again: a new generation, or its place in the present one if nothing changed for it.
    fn rejoin(&mut self, join: Join, turn: &mut Turn<'_>) {
        let Some(group) = self.classic_mut(&join.group) else { return };
        let Some(member) = group.members.get(&join.member) else { return };
        let is_same = member.protocols == join.protocols;
        let is_settled = match group.state {
            ClassicState::PreparingRebalance => false,
            ClassicState::CompletingRebalance => is_same,
            // A leader that joins again wants a rebalance: it may have seen new partitions.
            ClassicState::Stable => is_same && !group.is_leader(&join.member),
            // A group without members cannot have this one.
            ClassicState::Empty => return join.refuse(&join.member, ErrorCode::UnknownMemberId, turn),
        };
        if is_settled {
            let response = joined(group, &join.member, join.waiting.api_version);
            return turn.answer(join.waiting.token, GroupResponse::JoinGroup(response));
        }
        let id = join.group.clone();
        let member = join.member.clone();
        group.take_join(&member, join, turn);
        self.rebalance_or_complete(&id, turn);
    }
}

impl ClassicGroup {
    /// A member takes what its join says, and waits.
    pub(super) fn take_join(&mut self, member: &str, join: Join, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(member) else { return };
        self.tally.take_off(member);
        member.protocols = join.protocols;
        self.tally.add(member);
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        member.wait_join(join.waiting, turn);
    }

    /// Whether this member finds room. While the group prepares, those who have joined count: if the cap was lowered,
    /// the last to join again are out.
    fn accepts(&self, member: &str, size_max: usize) -> bool {
        match self.state {
            ClassicState::Empty => true,
            ClassicState::PreparingRebalance => {
                let is_waiting = self.members.get(member).is_some_and(|member| member.joining.is_some());
                is_waiting
                    || self.members.len() < size_max
                    || self.members.values().filter(|m| m.joining.is_some()).count() < size_max
            }
            _ => self.has_member(member) || self.members.len() < size_max,
        }
    }

    /// Bytes the group would hold with this join in.
    fn bytes_with(&self, join: &Join) -> usize {
        let old = self.members.get(&join.member).map_or(0, |member| protocols_bytes(&member.protocols));
        self.bytes() - old + protocols_bytes(&join.protocols)
    }
}
