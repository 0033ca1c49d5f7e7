//! What happens to a classic group when a deadline of its passes, and when it comes back from the log.

use super::ClassicState;
use crate::coordinator::{Coordinator, Group, Turn};
use crate::timers::TimerKey;

impl Coordinator {
    /// A group has been loaded, or put back as it was: its members must be heard of again.
    pub(crate) fn classic_loaded(&mut self, id: &str, turn: &mut Turn<'_>) {
        let size_max = self.config.group_max_size;
        let Some(group) = self.classic_mut(id) else { return };
        // Those who were given an id may have come while the group was another; they ask again.
        group.pending_members.clear();
        let is_unsettled =
            matches!(group.state, ClassicState::PreparingRebalance | ClassicState::CompletingRebalance);
        // The cap on members may have been lowered.
        let must_rebalance = is_unsettled || group.members.len() > size_max;
        let sync_ns = turn.now.after_ms(group.rebalance_timeout_ms());
        let has_pending_sync = !group.pending_sync.is_empty();
        let members: Vec<String> = group.members.keys().cloned().collect();
        for member in &members {
            self.set_classic_session(id, member, turn);
        }
        if must_rebalance {
            self.prepare_rebalance(id, turn);
        } else if has_pending_sync {
            self.timers.set(TimerKey::Sync(id.to_string()), sync_ns);
        }
    }

    /// The join phase has lasted long enough; or the initial delay has, which is extended while members come.
    pub(crate) fn join_due(&mut self, id: &str, turn: &mut Turn<'_>) {
        let delay_ms = i64::from(self.config.initial_rebalance_delay_ms);
        let Some(group) = self.classic_mut(id) else { return };
        if group.state != ClassicState::PreparingRebalance {
            return;
        }
        if group.initial_rebalance && group.new_member_added && group.delay_remaining_ms > 0 {
            let wait_ms = delay_ms.min(group.delay_remaining_ms);
            group.delay_remaining_ms -= wait_ms;
            group.new_member_added = false;
            self.timers.set(TimerKey::Join(id.to_string()), turn.now.after_ms(wait_ms));
            return;
        }
        self.complete_join(id, turn);
    }

    /// Members that have not asked for their assignment in their rebalance timeout are out (KAFKA-13233).
    pub(crate) fn sync_due(&mut self, id: &str, turn: &mut Turn<'_>) {
        let Some(Group::Classic(group)) = self.groups.get_mut(id) else { return };
        let is_due = matches!(group.state, ClassicState::CompletingRebalance | ClassicState::Stable);
        if !is_due || group.pending_sync.is_empty() {
            return;
        }
        for member in std::mem::take(&mut group.pending_sync) {
            group.drop_member(&member, turn);
            self.timers.cancel(&TimerKey::Session(id.to_string(), member));
        }
        self.prepare_rebalance(id, turn);
    }

    /// A member was not heard of in its session timeout, or did not come back with the id it was given.
    pub(crate) fn classic_session_due(&mut self, id: &str, member: &str, turn: &mut Turn<'_>) {
        let Some(group) = self.classic_mut(id) else { return };
        if group.pending_members.remove(member) {
            return self.complete_join_if_all(id, turn);
        }
        let Some(found) = group.members.get(member) else { return };
        // Who waits for the group cannot send heartbeats; its deadline is set when the wait ends. A new member may be
        // a client that is gone: it has its own, longer deadline.
        if !found.is_new && (found.joining.is_some() || found.syncing.is_some()) {
            return;
        }
        group.drop_member(member, turn);
        self.member_gone(id, turn);
    }

    /// One or more members left or died.
    pub(crate) fn member_gone(&mut self, id: &str, turn: &mut Turn<'_>) {
        match self.classic(id).map(|group| group.state) {
            Some(ClassicState::Stable | ClassicState::CompletingRebalance) => {
                self.prepare_rebalance(id, turn)
            }
            Some(ClassicState::PreparingRebalance) => self.complete_join_if_all(id, turn),
            Some(ClassicState::Empty) | None => {}
        }
    }
}
