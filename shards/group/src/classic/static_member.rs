//! Static members (KIP-345) that come back without their id: they get a new one and keep their place, and who still
//! uses the old one is fenced. Until the new id is stored, the client does not learn it.

use pelton_wire::error_code::ErrorCode;

use super::join::Join;
use super::response::joined;
use super::{ClassicGroup, ClassicMember, ClassicState, Waiting};
use crate::coordinator::{Asker, Coordinator, Turn};
use crate::pending::{StaticReplaced, Then};
use crate::records::Record;
use crate::request::{GroupResponse, text};
use crate::timers::TimerKey;

/// The first version in which a leader is told that it need not assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

impl Coordinator {
    /// Kafka's updateStaticMemberThenRebalanceOrCompleteJoin.
    pub(super) fn replace_static_member(
        &mut self,
        asker: Asker<'_>,
        join: Join,
        old_id: &str,
        new_id: String,
        turn: &mut Turn<'_>,
    ) {
        let id = join.group.clone();
        let Some(group) = self.classic_mut(&id) else { return };
        let Some(old) = group.replace_member(old_id, &new_id, turn) else { return };
        if let Some(member) = group.members.get_mut(&new_id) {
            member.client_id = asker.context.client_id.clone();
            member.client_host = asker.context.client_host.clone();
        }
        group.take_join(&new_id, join, turn);
        let (state, is_same) = (group.state, group.protocol == group.select_protocol());
        let value = group.to_record();
        self.timers.cancel(&TimerKey::Session(id.clone(), old_id.to_string()));
        self.set_classic_session(&id, &new_id, turn);
        match state {
            ClassicState::Stable if is_same => {
                let replaced = StaticReplaced { group: id.clone(), old, new_member_id: new_id };
                let then = Then::StaticReplaced(Box::new(replaced));
                self.write(vec![Record::Group { group: id, value: Some(value) }], Vec::new(), then, turn);
            }
            // Between join and sync the leader assigns to the old id: all join again.
            _ => self.rebalance_or_complete(&id, turn),
        }
    }

    /// The new id is stored: the member learns it, without a rebalance.
    pub(crate) fn static_member_stored(&mut self, replaced: &StaticReplaced, turn: &mut Turn<'_>) {
        let Some(group) = self.classic_mut(&replaced.group) else { return };
        let id = &replaced.new_member_id;
        // If a rebalance has begun since, the answer is the new generation's.
        if group.state != ClassicState::Stable {
            return;
        }
        let Some(member) = group.members.get_mut(id) else { return };
        let Some(Waiting { token, api_version }) = member.joining.take() else { return };
        let mut response = joined(group, id, api_version);
        if group.is_leader(id) {
            if api_version >= SKIP_ASSIGNMENT_FROM {
                response.skip_assignment = true;
            } else {
                // It must not assign, so it is told that the one before it leads.
                response.leader = text(&replaced.old.id);
                response.members.clear();
            }
        }
        turn.answer(token, GroupResponse::JoinGroup(response));
        self.set_classic_session(&replaced.group, id, turn);
    }

    /// The new id was not stored: the member is what it was.
    pub(crate) fn static_member_not_stored(
        &mut self,
        replaced: StaticReplaced,
        error: ErrorCode,
        turn: &mut Turn<'_>,
    ) {
        let StaticReplaced { group: id, old, new_member_id } = replaced;
        let Some(group) = self.classic_mut(&id) else { return };
        // A rebalance that has begun since stores the new id with its generation.
        if group.state != ClassicState::Stable || !group.has_member(&new_member_id) {
            return;
        }
        let old_id = old.id.clone();
        if let Some(member) = group.members.get_mut(&new_member_id)
            && let Some(waiting) = member.joining.take()
        {
            let response = super::join_refusal(waiting.api_version, "", error);
            turn.answer(waiting.token, GroupResponse::JoinGroup(response));
        }
        let Some(replacement) = group.replace_member(&new_member_id, &old_id, turn) else { return };
        group.tally.take_off(&replacement);
        let old = ClassicMember { assignment: replacement.assignment, ..old };
        group.tally.add(&old);
        group.members.insert(old_id.clone(), old);
        self.timers.cancel(&TimerKey::Session(id.clone(), new_member_id));
        self.set_classic_session(&id, &old_id, turn);
    }
}

impl ClassicGroup {
    /// Gives a static member another id; requests that wait under the old one are fenced. Returns it as it was.
    fn replace_member(&mut self, old_id: &str, new_id: &str, turn: &mut Turn<'_>) -> Option<ClassicMember> {
        let mut old = self.members.remove(old_id)?;
        old.refuse_join(ErrorCode::FencedInstanceId, turn);
        old.refuse_sync(ErrorCode::FencedInstanceId, turn);
        let new = ClassicMember { id: new_id.to_string(), ..old.clone() };
        if let Some(instance) = &new.instance_id {
            self.instances.insert(instance.clone(), new_id.to_string());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.to_string());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.to_string());
        }
        self.members.insert(new_id.to_string(), new);
        Some(old)
    }
}
