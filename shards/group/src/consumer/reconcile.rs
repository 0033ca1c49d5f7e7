//! How a member comes from what it owns to what it shall own (Kafka's CurrentAssignmentBuilder): first it gives back,
//! then it gets what is free, the rest as soon as others gave it back. Never writes.

use std::collections::BTreeSet;

use pelton_model::TopicId;
use pelton_wire::error_code::ErrorCode;

use crate::records::{Assignment, CurrentValue};

use super::apply::partitions;
use super::request::Refusal;
use super::{STABLE, UNRELEASED, UNREVOKED};

/// All that one step looks at.
pub(crate) struct Reconcile<'a> {
    /// Where the member is.
    pub current: &'a CurrentValue,
    /// Epoch of the target assignment.
    pub target_epoch: i32,
    /// What the member shall own.
    pub target: &'a Assignment,
    /// Topics it subscribes to.
    pub subscribed: &'a BTreeSet<TopicId>,
    /// Its subscription changed in this heartbeat.
    pub subscription_changed: bool,
    /// What it says it owns, if it says so.
    pub owned: Option<&'a Assignment>,
    /// True for a partition nobody else owns.
    pub is_free: &'a dyn Fn(TopicId, i32) -> bool,
}

impl Reconcile<'_> {
    /// The member's next state; the same if nothing can move. Refused: a member in a state of a newer broker must join
    /// anew without partitions.
    pub fn next(&self) -> Result<CurrentValue, Refusal> {
        let is_behind = self.current.member_epoch != self.target_epoch;
        match self.current.state {
            STABLE if is_behind => Ok(self.towards_target(self.current.member_epoch)),
            STABLE if self.subscription_changed => Ok(self.without_unsubscribed()),
            STABLE => Ok(self.current.clone()),
            UNREVOKED if self.still_owns(&self.current.pending_revocation) => {
                if self.subscription_changed {
                    return Ok(self.without_unsubscribed());
                }
                Ok(self.current.clone())
            }
            UNREVOKED | UNRELEASED => Ok(self.towards_target(self.current.member_epoch)),
            _ if self.owned.is_none_or(|owned| !owned.is_empty()) => Err(Refusal::new(
                ErrorCode::FencedMemberEpoch,
                "The consumer group member is in an unknown state. The member must abandon all its partitions and rejoin.",
            )),
            _ => Ok(self.towards_target(self.target_epoch)),
        }
    }

    /// True if the member says, or may think, that it owns one of these.
    fn still_owns(&self, revoked: &Assignment) -> bool {
        let Some(owned) = self.owned else { return true };
        partitions(revoked).any(|(topic, partition)| contains(owned, topic, partition))
    }

    fn moved(
        &self,
        state: i8,
        epoch: i32,
        assigned: Assignment,
        pending_revocation: Assignment,
    ) -> CurrentValue {
        CurrentValue {
            member_epoch: epoch,
            previous_member_epoch: self.current.member_epoch,
            state,
            assigned,
            pending_revocation,
        }
    }

    /// Takes away what it does not subscribe to any more, without waiting for a new target.
    fn without_unsubscribed(&self) -> CurrentValue {
        let mut assigned = self.current.assigned.clone();
        let mut revoked = self.current.pending_revocation.clone();
        for (topic, partitions) in &self.current.assigned {
            if !self.subscribed.contains(topic) {
                assigned.remove(topic);
                revoked.entry(*topic).or_default().extend(partitions);
            }
        }
        if assigned.len() == self.current.assigned.len() {
            return self.current.clone();
        }
        let epoch = self.current.member_epoch;
        if self.still_owns(&revoked) {
            return self.moved(UNREVOKED, epoch, assigned, revoked);
        }
        // It gave them back already. Only a stable member comes here, so nothing else is pending.
        self.moved(self.current.state, epoch, assigned, self.current.pending_revocation.clone())
    }

    fn towards_target(&self, epoch: i32) -> CurrentValue {
        let mut kept = Assignment::new();
        let mut revoked = Assignment::new();
        let is_wanted =
            |topic, partition| self.subscribed.contains(&topic) && contains(self.target, topic, partition);
        for (topic, partition) in partitions(&self.current.assigned) {
            let side = if is_wanted(topic, partition) { &mut kept } else { &mut revoked };
            side.entry(topic).or_default().insert(partition);
        }
        if !revoked.is_empty() && self.still_owns(&revoked) {
            return self.moved(UNREVOKED, epoch, kept, revoked);
        }
        let mut is_waiting = false;
        let mut assigned = kept.clone();
        for (topic, partition) in partitions(self.target) {
            if !self.subscribed.contains(&topic) || contains(&kept, topic, partition) {
                continue;
            }
            // Its own partitions that it has just given back are free for it.
            if (self.is_free)(topic, partition)
                || contains(&self.current.pending_revocation, topic, partition)
            {
                assigned.entry(topic).or_default().insert(partition);
            } else {
                is_waiting = true;
            }
        }
        let state = if is_waiting { UNRELEASED } else { STABLE };
        self.moved(state, self.target_epoch, assigned, Assignment::new())
    }
}

/// True if the assignment has this partition.
pub(crate) fn contains(assignment: &Assignment, topic: TopicId, partition: i32) -> bool {
    assignment.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
}
