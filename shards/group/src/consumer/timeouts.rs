//! Deadlines of members: a session ends without heartbeats, a rebalance when partitions are not given back in time. Both
//! put the member out.

use crate::coordinator::{Coordinator, Group, Turn};
use crate::pending::Then;
use crate::timers::TimerKey;

use super::draft::Draft;
use super::{UNREVOKED, fence};

impl Coordinator {
    /// After loading, every member has a whole session, and a whole rebalance timeout if it has to give partitions back.
    pub(crate) fn consumer_loaded(&mut self, id: &str, turn: &mut Turn<'_>) {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return };
        let config = turn.topics.group_config(&self.config, id);
        for (member, value) in &group.members {
            let session_ms = match &value.classic {
                Some(classic) => i64::from(classic.session_timeout_ms),
                None => i64::from(config.session_timeout_ms),
            };
            let key = TimerKey::Session(id.to_string(), member.clone());
            self.timers.set(key, turn.now.after_ms(session_ms));
            if value.classic.is_none() && group.current(member).state == UNREVOKED {
                let key = TimerKey::Revocation(id.to_string(), member.clone());
                self.timers.set(key, turn.now.after_ms(i64::from(value.rebalance_timeout_ms)));
            }
        }
    }

    /// A member has not been heard of for a whole session.
    pub(crate) fn consumer_session_due(&mut self, id: &str, member: &str, turn: &mut Turn<'_>) {
        self.fence_consumer(id, member, turn);
    }

    /// A member has not given partitions back in its rebalance timeout; or one that speaks the classic protocol has not
    /// joined or synced in it.
    pub(crate) fn consumer_revocation_due(&mut self, id: &str, member: &str, turn: &mut Turn<'_>) {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return };
        let is_classic = group.members.get(member).is_some_and(|value| value.classic.is_some());
        if is_classic || group.current(member).state == UNREVOKED {
            self.fence_consumer(id, member, turn);
        }
    }

    fn fence_consumer(&mut self, id: &str, member: &str, turn: &mut Turn<'_>) {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return };
        if !group.members.contains_key(member) {
            return;
        }
        if self.downgrade_without(id, &[member], turn) {
            return;
        }
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else { return };
        let mut draft = Draft::new(id, group);
        fence::remove(&mut draft, &[member], turn.topics);
        let records = draft.finish();
        self.write(records, Vec::new(), Then::Nothing, turn);
        self.consumer_member_gone(id, member);
    }

    /// A member has been heard of.
    pub(crate) fn set_consumer_session(&mut self, id: &str, member: &str, timeout_ms: i32, turn: &Turn<'_>) {
        let deadline_ns = turn.now.after_ms(i64::from(timeout_ms));
        self.timers.set(TimerKey::Session(id.to_string(), member.to_string()), deadline_ns);
    }

    /// A member has nothing to give back any more.
    pub(crate) fn cancel_consumer_revocation(&mut self, id: &str, member: &str) {
        self.timers.cancel(&TimerKey::Revocation(id.to_string(), member.to_string()));
    }

    /// A member is gone.
    pub(crate) fn consumer_member_gone(&mut self, id: &str, member: &str) {
        self.cancel_consumer_revocation(id, member);
        self.timers.cancel(&TimerKey::Session(id.to_string(), member.to_string()));
        self.timers.cancel(&TimerKey::MemberSync(id.to_string(), member.to_string()));
        if let Some(Group::Consumer(group)) = self.groups.get_mut(id) {
            group.note_gone(member);
        }
    }
}
