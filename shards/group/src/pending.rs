//! Appends that are not durable yet: what waits for each, and how to undo it. Never decides what is written.

use std::collections::BTreeSet;

use pelton_wire::error_code::ErrorCode;

use crate::classic::ClassicMember;
use crate::coordinator::{Coordinator, Group, Turn};
use crate::effect::{GroupEffect, Ticket};
use crate::records::Record;
use crate::request::{GroupResponse, RequestToken};
use crate::sabotage::Sabotage;
use crate::timers::TimerKey;

/// How to take a change back. Nearly all are records: boxing them would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Undo {
    /// Apply this record: the value from before.
    Record(Record),
    /// Put the group back as it was; none = there was none.
    Group { id: String, group: Option<Box<Group>> },
}

/// What happens beside answers once an append is durable or has failed.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing.
    Nothing,
    /// The assignment of a classic generation is stored: members get it.
    ClassicAssignment { group: String, generation: i32 },
    /// A static member's new id is stored (KIP-345).
    StaticReplaced(Box<StaticReplaced>),
}

/// A static member that came back under a new id while the group was stable.
#[derive(Debug)]
pub(crate) struct StaticReplaced {
    pub group: String,
    /// The member before.
    pub old: ClassicMember,
    /// Its new id.
    pub new_member_id: String,
}

/// One append under way.
#[derive(Debug)]
pub(crate) struct PendingAppend {
    groups: BTreeSet<String>,
    undo: Vec<Undo>,
    then: Then,
    answers: Vec<(RequestToken, GroupResponse)>,
}

impl PendingAppend {
    /// Refuses what waits.
    pub fn refuse(self, error: ErrorCode, turn: &mut Turn<'_>) {
        for (token, mut response) in self.answers {
            response.fail(error);
            turn.answer(token, response);
        }
    }
}

impl Coordinator {
    /// Applies `records` (classic generations excepted: their state is not in records) and asks for their append.
    pub(crate) fn write(
        &mut self,
        records: Vec<Record>,
        mut undo: Vec<Undo>,
        then: Then,
        turn: &mut Turn<'_>,
    ) -> Ticket {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let mut groups = BTreeSet::new();
        let mut raw = Vec::with_capacity(records.len());
        for record in records {
            groups.insert(record.group().to_string());
            raw.push(record.encode());
            undo.extend(self.apply(record).map(Undo::Record));
        }
        for group in &groups {
            self.last_ticket.insert(group.clone(), ticket);
        }
        self.pending.insert(ticket, PendingAppend { groups, undo, then, answers: Vec::new() });
        turn.out.push(GroupEffect::Append { ticket: Ticket(ticket), records: raw });
        Ticket(ticket)
    }

    /// Answers once everything written for these groups is durable.
    pub(crate) fn answer_durable<'g>(
        &mut self,
        groups: impl IntoIterator<Item = &'g str>,
        token: RequestToken,
        response: GroupResponse,
        turn: &mut Turn<'_>,
    ) {
        if self.sabotaged(Sabotage::AnswerBeforeDurable) {
            return turn.answer(token, response);
        }
        let last = groups.into_iter().filter_map(|group| self.last_ticket.get(group)).max();
        match last.and_then(|ticket| self.pending.get_mut(ticket)) {
            Some(pending) => pending.answers.push((token, response)),
            None => turn.answer(token, response),
        }
    }

    /// Everything written is waited for.
    pub(crate) fn answer_all_durable(
        &mut self,
        token: RequestToken,
        response: GroupResponse,
        turn: &mut Turn<'_>,
    ) {
        match self.pending.last_entry() {
            Some(mut last) => last.get_mut().answers.push((token, response)),
            None => turn.answer(token, response),
        }
    }

    /// A ticket is durable.
    pub(crate) fn settle(&mut self, ticket: u64, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        for group in &pending.groups {
            if self.last_ticket.get(group) == Some(&ticket) {
                self.last_ticket.remove(group);
            }
        }
        for (token, response) in pending.answers {
            turn.answer(token, response);
        }
        match pending.then {
            Then::Nothing => {}
            Then::ClassicAssignment { group, generation } => {
                self.assignment_stored(&group, generation, turn);
            }
            Then::StaticReplaced(replaced) => self.static_member_stored(&replaced, turn),
        }
    }

    /// Undoes every append from `ticket` on, the youngest first.
    pub(crate) fn undo_from(&mut self, ticket: u64, error: ErrorCode, turn: &mut Turn<'_>) {
        let mut failed: Vec<PendingAppend> = self.pending.split_off(&ticket).into_values().collect();
        if failed.is_empty() {
            return;
        }
        self.last_ticket.retain(|_, last| *last < ticket);
        for pending in &failed {
            // A group that an older append also wrote waits for that one again.
            for group in &pending.groups {
                let older = self.pending.iter().rev().find(|(_, other)| other.groups.contains(group));
                if let Some((older, _)) = older {
                    self.last_ticket.insert(group.clone(), *older);
                }
            }
        }
        for pending in failed.iter_mut().rev() {
            for undo in pending.undo.drain(..).rev() {
                self.undo(undo, error, turn);
            }
        }
        for mut pending in failed.into_iter().rev() {
            let then = std::mem::replace(&mut pending.then, Then::Nothing);
            pending.refuse(error, turn);
            match then {
                Then::Nothing => {}
                Then::ClassicAssignment { group, generation } => {
                    self.assignment_not_stored(&group, generation, error, turn);
                }
                Then::StaticReplaced(replaced) => self.static_member_not_stored(*replaced, error, turn),
            }
        }
    }

    fn undo(&mut self, undo: Undo, error: ErrorCode, turn: &mut Turn<'_>) {
        match undo {
            Undo::Record(record) => {
                // A member that is back must be heard of again.
                if let Record::Member { group, member, value: Some(_) } = &record {
                    let config = turn.topics.group_config(&self.config, group);
                    let deadline_ns = turn.now.after_ms(i64::from(config.session_timeout_ms));
                    self.timers.set(TimerKey::Session(group.clone(), member.clone()), deadline_ns);
                }
                self.apply(record);
            }
            Undo::Group { id, group } => {
                let undone = match group {
                    None => self.groups.remove(&id),
                    Some(group) => self.groups.insert(id.clone(), *group),
                };
                // Whoever waits in a group that never was would wait for ever.
                if let Some(Group::Classic(mut group)) = undone {
                    group.refuse_all(error, turn);
                }
                match self.groups.get(&id) {
                    Some(Group::Classic(_)) => self.classic_loaded(&id, turn),
                    Some(Group::Consumer(_)) => self.consumer_loaded(&id, turn),
                    None => {}
                }
            }
        }
    }
}
