//! Groups that change their protocol: a classic one when a KIP-848 member joins it, with its members if the migration
//! policy allows that (KIP-848's online upgrade), and an empty KIP-848 one when a classic member joins it. Offsets stay.

use pelton_wire::error_code::ErrorCode;

use crate::classic::ClassicGroup;
use crate::coordinator::{Coordinator, Group, Turn};
use crate::pending::{Then, Undo};
use crate::records::Record;
use crate::timers::TimerKey;

use super::ConsumerGroup;
use super::heartbeat::not_found;
use super::request::{Ask, Refusal};
use super::upgrade;

/// A group that was made for a join, in the coordinator already but not written.
pub(crate) struct Opened {
    /// The classic group before.
    old: Option<Group>,
    /// What makes the group as it is now.
    records: Vec<Record>,
}

impl Coordinator {
    /// Makes the group that a KIP-848 member joins if it is not one yet. None: it is.
    pub(crate) fn open_consumer_group(
        &mut self,
        ask: &Ask,
        turn: &Turn<'_>,
    ) -> Result<Option<Opened>, Refusal> {
        let (group, records) = match self.groups.get(&ask.group) {
            Some(Group::Consumer(_)) => return Ok(None),
            Some(Group::Classic(_)) | None if !ask.joins => return Err(not_found(&ask.group)),
            None => (ConsumerGroup::default(), Vec::new()),
            Some(Group::Classic(classic)) => {
                let mut group = ConsumerGroup::default();
                let mut records = vec![Record::Group { group: ask.group.clone(), value: None }];
                if !classic.members.is_empty() {
                    records.extend(upgrade::records(&ask.group, classic, &self.config, turn.topics)?);
                }
                records.iter().for_each(|record| drop(group.apply(record.clone())));
                (group, records)
            }
        };
        if !self.has_room(&ask.group) {
            return Err(Refusal::new(ErrorCode::PolicyViolation, "The coordinator has too many groups."));
        }
        let old = self.groups.insert(ask.group.clone(), Group::Consumer(group));
        Ok(Some(Opened { old, records }))
    }

    /// The join was refused: the group is as it was.
    pub(crate) fn close_consumer_group(&mut self, id: &str, opened: Option<Opened>) {
        match opened {
            None => {}
            Some(Opened { old: None, .. }) => drop(self.groups.remove(id)),
            Some(Opened { old: Some(group), .. }) => drop(self.groups.insert(id.to_string(), group)),
        }
    }

    /// Writes a join, together with what made its group.
    pub(crate) fn write_opened(
        &mut self,
        id: &str,
        opened: Option<Opened>,
        records: Vec<Record>,
        turn: &mut Turn<'_>,
    ) {
        let Some(Opened { mut old, records: mut all }) = opened else {
            if !records.is_empty() {
                self.write(records, Vec::new(), Then::Nothing, turn);
            }
            return;
        };
        if let Some(Group::Classic(classic)) = &mut old {
            // They join again, and then are members of the new group.
            classic.refuse_all(ErrorCode::RebalanceInProgress, turn);
            self.timers.cancel(&TimerKey::Join(id.to_string()));
            self.timers.cancel(&TimerKey::Sync(id.to_string()));
        }
        all.extend(records);
        let undo = vec![Undo::Group { id: id.to_string(), group: old.map(Box::new) }];
        self.write(all, undo, Then::Nothing, turn);
        self.consumer_loaded(id, turn);
    }

    /// Makes an empty KIP-848 group a classic one without members. Call it before a JoinGroup looks at the group. True
    /// if it did; false for every other group.
    pub(crate) fn empty_consumer_to_classic(&mut self, id: &str, turn: &mut Turn<'_>) -> bool {
        let records = match self.groups.get(id) {
            Some(Group::Consumer(group)) if group.is_empty() => group.tombstones(id),
            _ => return false,
        };
        let group = self.groups.insert(id.to_string(), Group::Classic(ClassicGroup::default()));
        let undo = vec![Undo::Group { id: id.to_string(), group: group.map(Box::new) }];
        self.write(records, undo, Then::Nothing, turn);
        true
    }
}
