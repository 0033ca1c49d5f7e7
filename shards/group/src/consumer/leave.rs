//! A member leaves by itself (member epochs -1 and -2). A static one that will be back keeps its place until its session
//! ends.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::ConsumerGroupHeartbeatResponseData;

use crate::coordinator::{Coordinator, Group, Turn};
use crate::pending::Then;
use crate::records::{Assignment, CurrentValue};
use crate::request::text;

use super::draft::Draft;
use super::heartbeat::not_found;
use super::request::{Ask, Refusal};
use super::{ConsumerGroup, STATIC_LEAVE_EPOCH, fence, join};

impl Coordinator {
    /// A heartbeat with a negative epoch.
    pub(crate) fn consumer_leave(
        &mut self,
        ask: &Ask,
        turn: &mut Turn<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponseData, Refusal> {
        let Some(Group::Consumer(group)) = self.groups.get_mut(&ask.group) else {
            return Err(not_found(&ask.group));
        };
        check_leaver(group, ask)?;
        let left = ConsumerGroupHeartbeatResponseData {
            member_id: Some(text(&ask.member)),
            member_epoch: ask.epoch,
            ..Default::default()
        };
        if ask.epoch != STATIC_LEAVE_EPOCH && self.downgrade_without(&ask.group, &[&ask.member], turn) {
            return Ok(left);
        }
        let Some(Group::Consumer(group)) = self.groups.get_mut(&ask.group) else {
            return Err(not_found(&ask.group));
        };
        let mut draft = Draft::new(&ask.group, group);
        if ask.epoch == STATIC_LEAVE_EPOCH {
            let current = CurrentValue {
                member_epoch: STATIC_LEAVE_EPOCH,
                pending_revocation: Assignment::new(),
                ..draft.group().current(&ask.member)
            };
            draft.set_current(&ask.member, current);
            let records = draft.finish();
            self.write(records, Vec::new(), Then::Nothing, turn);
            self.cancel_consumer_revocation(&ask.group, &ask.member);
        } else {
            fence::remove(&mut draft, &[&ask.member], turn.topics);
            let records = draft.finish();
            self.write(records, Vec::new(), Then::Nothing, turn);
            self.consumer_member_gone(&ask.group, &ask.member);
        }
        Ok(left)
    }
}

fn check_leaver(group: &ConsumerGroup, ask: &Ask) -> Result<(), Refusal> {
    let Some(instance) = &ask.instance_id else {
        return if group.members.contains_key(&ask.member) {
            Ok(())
        } else {
            Err(join::unknown(&ask.member))
        };
    };
    let unknown = || Refusal::new(ErrorCode::UnknownMemberId, format!("Instance id {instance} is unknown."));
    let owner = group.instances.get(instance).ok_or_else(unknown)?;
    join::check_instance(&ask.member, owner, instance)
}
