//! How a classic group comes to a new generation: the join phase, its delays and its end (Kafka's prepareRebalance,
//! completeClassicGroupJoin). What is due when a deadline passes is in `due.rs`.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;

use super::response::joined;
use super::{ClassicGroup, ClassicState, Waiting};
use crate::coordinator::{Coordinator, Group, Turn};
use crate::pending::Then;
use crate::records::Record;
use crate::request::GroupResponse;
use crate::sabotage::Sabotage;
use crate::timers::TimerKey;

impl Coordinator {
    /// The classic group of this name.
    pub(crate) fn classic(&self, id: &str) -> Option<&ClassicGroup> {
        match self.groups.get(id) {
            Some(Group::Classic(group)) => Some(group),
            _ => None,
        }
    }

    /// The classic group of this name, to change it.
    pub(crate) fn classic_mut(&mut self, id: &str) -> Option<&mut ClassicGroup> {
        match self.groups.get_mut(id) {
            Some(Group::Classic(group)) => Some(group),
            _ => None,
        }
    }

    /// A rebalance, unless the group prepares one already: then it may just have got its last member.
    pub(crate) fn rebalance_or_complete(&mut self, id: &str, turn: &mut Turn<'_>) {
        match self.classic(id) {
            Some(group) if group.state != ClassicState::PreparingRebalance => {
                self.prepare_rebalance(id, turn)
            }
            Some(_) => self.complete_join_if_all(id, turn),
            None => {}
        }
    }

    /// Begins the join phase. A group that was empty waits for more members first (KIP-134).
    pub(crate) fn prepare_rebalance(&mut self, id: &str, turn: &mut Turn<'_>) {
        let delay_ms = i64::from(self.config.initial_rebalance_delay_ms);
        let Some(group) = self.classic_mut(id) else { return };
        let answered = match group.state {
            ClassicState::CompletingRebalance => {
                group.reset_assignments(ErrorCode::RebalanceInProgress, turn)
            }
            _ => Vec::new(),
        };
        group.storing = None;
        group.pending_sync.clear();
        group.initial_rebalance = group.state == ClassicState::Empty;
        group.new_member_added = false;
        group.delay_remaining_ms = (group.rebalance_timeout_ms() - delay_ms).max(0);
        group.enter(ClassicState::PreparingRebalance, turn.now.wall_ms);
        let is_initial = group.initial_rebalance;
        let wait_ms = if is_initial { delay_ms } else { group.rebalance_timeout_ms() };
        let is_complete = !is_initial && group.all_joined();
        self.timers.cancel(&TimerKey::Sync(id.to_string()));
        for member in answered {
            self.set_classic_session(id, &member, turn);
        }
        if is_complete {
            return self.complete_join(id, turn);
        }
        self.timers.set(TimerKey::Join(id.to_string()), turn.now.after_ms(wait_ms));
    }

    /// Ends the join phase if nobody is missing and no delay is on.
    pub(crate) fn complete_join_if_all(&mut self, id: &str, turn: &mut Turn<'_>) {
        let is_complete = self.classic(id).is_some_and(|group| {
            group.state == ClassicState::PreparingRebalance && !group.initial_rebalance && group.all_joined()
        });
        if is_complete {
            self.complete_join(id, turn);
        }
    }

    /// Ends the join phase: dynamic members that did not join are out, the others get the new generation.
    pub(crate) fn complete_join(&mut self, id: &str, turn: &mut Turn<'_>) {
        self.timers.cancel(&TimerKey::Join(id.to_string()));
        let same_generation = self.sabotaged(Sabotage::SameGeneration);
        let Some(Group::Classic(group)) = self.groups.get_mut(id) else { return };
        for absent in group.absent_dynamic_members() {
            group.drop_member(&absent, turn);
            self.timers.cancel(&TimerKey::Session(id.to_string(), absent));
        }
        if !group.members.is_empty() && !group.elect_joined_leader() {
            // Only static members, none of them back yet: wait until their sessions end.
            let deadline_ns = turn.now.after_ms(group.rebalance_timeout_ms());
            self.timers.set(TimerKey::Join(id.to_string()), deadline_ns);
            return;
        }
        let generation = group.generation;
        group.next_generation(turn.now.wall_ms);
        if same_generation {
            group.generation = generation.max(1);
        }
        if group.state == ClassicState::Empty {
            // If this is lost, a restart finds the generation before, whose members then time out.
            let value = Some(group.to_record());
            self.write(vec![Record::Group { group: id.to_string(), value }], Vec::new(), Then::Nothing, turn);
            return;
        }
        let members: Vec<String> = group.members.keys().cloned().collect();
        let sync_ns = turn.now.after_ms(group.rebalance_timeout_ms());
        for member in &members {
            group.answer_join(member, turn);
        }
        self.timers.set(TimerKey::Sync(id.to_string()), sync_ns);
        for member in &members {
            self.set_classic_session(id, member, turn);
        }
    }

    /// The member has its session timeout from now.
    pub(crate) fn set_classic_session(&mut self, id: &str, member: &str, turn: &Turn<'_>) {
        let Some(found) = self.classic(id).and_then(|group| group.members.get(member)) else { return };
        let deadline_ns = turn.now.after_ms(i64::from(found.session_timeout_ms));
        self.timers.set(TimerKey::Session(id.to_string(), member.to_string()), deadline_ns);
    }
}

impl ClassicGroup {
    /// Takes a member out; what it waits for is refused, so that its client joins anew.
    pub fn drop_member(&mut self, id: &str, turn: &mut Turn<'_>) {
        if let Some(mut member) = self.remove(id) {
            // A client that is still there joins without an id.
            if let Some(waiting) = member.joining.take() {
                let response = super::join_refusal(waiting.api_version, "", ErrorCode::UnknownMemberId);
                turn.answer(waiting.token, GroupResponse::JoinGroup(response));
            }
            member.refuse_sync(ErrorCode::UnknownMemberId, turn);
        }
    }

    /// Nobody has an assignment any more; who waits for one gets the error. Returns who that was.
    pub fn reset_assignments(&mut self, error: ErrorCode, turn: &mut Turn<'_>) -> Vec<String> {
        let mut answered = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if member.syncing.is_some() {
                member.refuse_sync(error, turn);
                answered.push(member.id.clone());
            }
        }
        self.tally.assignment_bytes = 0;
        answered
    }

    fn absent_dynamic_members(&self) -> Vec<String> {
        let absent = self.members.values().filter(|m| m.joining.is_none() && m.instance_id.is_none());
        absent.map(|member| member.id.clone()).collect()
    }

    /// Someone who joined leads; false if nobody did.
    fn elect_joined_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if leader.is_some_and(|leader| leader.joining.is_some()) {
            return true;
        }
        let joined = self.first_member(|member| member.joining.is_some());
        let is_found = joined.is_some();
        if is_found {
            self.leader = joined;
        }
        is_found
    }

    fn next_generation(&mut self, now_ms: i64) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.initial_rebalance = false;
        self.new_member_added = false;
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(ClassicState::Empty, now_ms);
        } else {
            self.protocol = self.select_protocol();
            self.pending_sync = self.members.keys().cloned().collect();
            self.enter(ClassicState::CompletingRebalance, now_ms);
        }
        self.topics = self.subscribed_topics();
    }

    /// Tells a member its generation, if it waits for one; from now on it can be heard of.
    fn answer_join(&mut self, id: &str, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.is_new = false;
        if let Some(Waiting { token, api_version }) = member.joining.take() {
            turn.answer(token, GroupResponse::JoinGroup(joined(self, id, api_version)));
        }
    }
}
