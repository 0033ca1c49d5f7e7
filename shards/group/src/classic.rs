//! A group of the classic protocol: members, generations, and the rules that need nothing but them. What writes, waits
//! or answers is in `classic/`. Metadata and assignments are opaque, except that `consumer` subscriptions are read to
//! know which offsets may go.

mod due;
mod heartbeat;
mod join;
mod leave;
mod member;
mod rebalance;
mod response;
mod static_member;
mod sync;
mod tally;

use std::collections::{BTreeMap, BTreeSet};

use pelton_wire::error_code::ErrorCode;

use crate::coordinator::Turn;
use crate::offset_delete::Expiry;
use crate::records::{ClassicMemberValue, GroupMetadataValue};

pub(crate) use member::{ClassicMember, Waiting};
pub(crate) use pelton_wire::consumer_protocol::{encode_assignment, read_subscription};
pub(crate) use response::join_refusal;
pub(crate) use tally::Tally;

/// Protocol type of consumers.
pub(crate) const CONSUMER: &str = "consumer";

/// Where a group is (Kafka's ClassicGroupState). Dead groups are not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ClassicState {
    /// No members.
    #[default]
    Empty,
    /// Members are joining.
    PreparingRebalance,
    /// The generation is made, the leader's assignment is awaited.
    CompletingRebalance,
    /// Everyone has, or can get, an assignment.
    Stable,
}

impl ClassicState {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            ClassicState::Empty => "Empty",
            ClassicState::PreparingRebalance => "PreparingRebalance",
            ClassicState::CompletingRebalance => "CompletingRebalance",
            ClassicState::Stable => "Stable",
        }
    }
}

/// A classic group. Without members and protocol type it only holds offsets.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassicGroup {
    pub state: ClassicState,
    /// When it came to its state, milliseconds since 1970; -1 unknown.
    pub state_since_ms: i64,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: BTreeMap<String, ClassicMember>,
    /// Follows from `members`.
    pub tally: Tally,
    /// Static members: group.instance.id to member id.
    pub instances: BTreeMap<String, String>,
    /// Ids given out by MEMBER_ID_REQUIRED that have not come back (KIP-394).
    pub pending_members: BTreeSet<String>,
    /// Members of this generation that have not synced (KAFKA-13233).
    pub pending_sync: BTreeSet<String>,
    /// The join phase began with an empty group: it waits for `group.initial.rebalance.delay.ms` (KIP-134).
    pub initial_rebalance: bool,
    /// Someone joined since the delay began.
    pub new_member_added: bool,
    /// What is left for further delays, milliseconds.
    pub delay_remaining_ms: i64,
    /// The generation whose assignment is being stored.
    pub storing: Option<i32>,
    /// Order of joining, for the choice of leaders.
    pub joins: u64,
    /// Topics the members subscribe to; none = cannot be known.
    pub topics: Option<BTreeSet<String>>,
}

impl ClassicGroup {
    /// A group as the log has it.
    pub fn from_record(value: GroupMetadataValue) -> ClassicGroup {
        let mut group = ClassicGroup {
            state: if value.members.is_empty() { ClassicState::Empty } else { ClassicState::Stable },
            state_since_ms: value.current_state_timestamp_ms,
            generation: value.generation,
            protocol_type: Some(value.protocol_type).filter(|name| !name.is_empty()),
            leader: value.leader,
            ..ClassicGroup::default()
        };
        for stored in value.members {
            let protocol = value.protocol.clone().unwrap_or_default();
            let mut member = ClassicMember::from_record(stored, protocol);
            member.join_order = group.next_join();
            group.insert(member);
        }
        group.protocol = value.protocol;
        group.topics = group.subscribed_topics();
        group
    }

    /// The group's record.
    pub fn to_record(&self) -> GroupMetadataValue {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let member = |member: &ClassicMember| ClassicMemberValue {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp_ms: self.state_since_ms,
            members: self.members.values().map(member).collect(),
        }
    }

    /// True if `member` is in the group.
    pub fn has_member(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }

    /// True for a group without members and without members on their way.
    pub fn is_abandoned(&self) -> bool {
        self.state == ClassicState::Empty && self.members.is_empty() && self.pending_members.is_empty()
    }

    /// True if `member` leads.
    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// The place of the next member in the order of joining.
    pub fn next_join(&mut self) -> u64 {
        self.joins += 1;
        self.joins
    }

    /// Puts a member in; the first one brings the protocol type and leads.
    pub fn insert(&mut self, member: ClassicMember) {
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_members.remove(&member.id);
        self.tally.add(&member);
        if let Some(old) = self.members.insert(member.id.clone(), member) {
            self.tally.take_off(&old);
        }
    }

    /// Takes a member out; another one leads if it led.
    pub fn remove(&mut self, id: &str) -> Option<ClassicMember> {
        self.pending_members.remove(id);
        self.pending_sync.remove(id);
        let member = self.members.remove(id)?;
        self.tally.take_off(&member);
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|owner| owner == id)
        {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.first_member(|_| true);
        }
        Some(member)
    }

    /// The member that joined first among those that `wanted` names.
    pub fn first_member(&self, wanted: impl Fn(&ClassicMember) -> bool) -> Option<String> {
        let first = self.members.values().filter(|member| wanted(member)).min_by_key(|m| m.join_order);
        first.map(|member| member.id.clone())
    }

    /// Whether this is a member, under its instance id if it has one (KIP-345).
    pub fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if owner != member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.has_member(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a commit is from this generation, or from outside a group that is empty (I16).
    pub fn check_commit(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.state == ClassicState::Empty {
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(member, instance)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // The generation exists but its members do not know what they own yet.
        if self.state == ClassicState::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether offsets may be deleted: of consumers, those of topics they do not read; of others, none (KIP-496).
    pub fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        match self.state {
            ClassicState::Empty => Ok(()),
            _ if self.protocol_type.as_deref() == Some(CONSUMER) => Ok(()),
            _ => Err(ErrorCode::NonEmptyGroup),
        }
    }

    /// True if members read the topic, or may: their subscriptions cannot be read.
    pub fn subscribes_to(&self, topic: &str) -> bool {
        if self.members.is_empty() || self.protocol_type.as_deref() != Some(CONSUMER) {
            return false;
        }
        self.topics.as_ref().is_none_or(|topics| topics.contains(topic))
    }

    /// Which offsets may expire (KIP-211). Never those of a group that rebalances (KAFKA-13636).
    pub fn expiry(&self) -> Expiry {
        match (&self.protocol_type, self.state) {
            (None, ClassicState::Empty) => Expiry::SinceCommit,
            (Some(_), ClassicState::Empty) => Expiry::SinceEmpty(self.state_since_ms),
            (Some(kind), ClassicState::Stable) if kind == CONSUMER && self.topics.is_some() => {
                Expiry::Unsubscribed
            }
            _ => Expiry::Never,
        }
    }

    /// What the members' subscriptions name; none if one of them cannot be read, or it is not a consumers' group.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(read_subscription(&member.metadata(protocol))?.topics);
        }
        Some(topics)
    }

    /// Whether someone with these protocols can be in the group.
    pub fn supports(&self, protocol_type: &str, protocols: &[(String, bytes::Bytes)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.all_have(name))
    }

    /// The protocol most members prefer among those that all have; of equals, the one of the earliest voter.
    pub fn select_protocol(&self) -> Option<String> {
        let mut voters: Vec<&ClassicMember> = self.members.values().collect();
        voters.sort_by_key(|member| member.join_order);
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for voter in voters {
            let Some((name, _)) = voter.protocols.iter().find(|(name, _)| self.all_have(name)) else {
                continue;
            };
            match votes.iter_mut().find(|(candidate, _)| candidate == name) {
                Some((_, count)) => *count += 1,
                None => votes.push((name, 1)),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_string())
    }

    /// The longest rebalance timeout of the members, milliseconds.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    /// True when nobody has to be waited for in the join phase.
    pub fn all_joined(&self) -> bool {
        self.pending_members.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// Bytes of protocol metadata and assignments.
    pub fn bytes(&self) -> usize {
        self.tally.bytes()
    }

    /// Changes state.
    pub fn enter(&mut self, state: ClassicState, now_ms: i64) {
        self.state = state;
        self.state_since_ms = now_ms;
    }

    /// Refuses everyone who waits.
    pub fn refuse_all(&mut self, error: ErrorCode, turn: &mut Turn<'_>) {
        for member in self.members.values_mut() {
            member.refuse_join(error, turn);
            member.refuse_sync(error, turn);
        }
    }
}
