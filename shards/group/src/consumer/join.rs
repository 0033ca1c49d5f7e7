//! Who sends a heartbeat: a member as it is known, a new one, or a static one that came back. Fences those that are
//! behind.

use pelton_wire::error_code::ErrorCode;

use crate::records::{Assignment, CurrentValue, MemberValue};
use crate::request::RequestContext;
use pelton_model::GroupConfig;

use super::ConsumerGroup;
use super::draft::Draft;
use super::reconcile::contains;
use super::request::{Ask, Refusal};
use super::{JOIN_EPOCH, STATIC_LEAVE_EPOCH};

/// The sender as it was before its heartbeat.
pub(crate) struct Sender {
    /// None: it has just joined.
    pub value: Option<MemberValue>,
    pub current: CurrentValue,
    /// The member it replaces: the same static one before (KIP-345).
    pub replaced: Option<String>,
}

/// Finds who sends the heartbeat of member `id`.
pub(crate) fn find(draft: &mut Draft<'_>, id: &str, ask: &Ask) -> Result<Sender, Refusal> {
    let group = draft.group();
    let Some(instance) = &ask.instance_id else {
        if !ask.joins && !group.members.contains_key(id) {
            return Err(unknown(id));
        }
        return known(group, id, ask);
    };
    let Some(owner) = group.instances.get(instance).cloned() else {
        if ask.joins {
            // As in Kafka a dynamic member may become static this way.
            return known(group, id, ask);
        }
        return Err(Refusal::new(ErrorCode::UnknownMemberId, format!("Instance id {instance} is unknown.")));
    };
    if !ask.joins {
        check_instance(id, &owner, instance)?;
        return known(group, id, ask);
    }
    // One that changes protocols takes the place at once.
    let is_released = group.current(&owner).member_epoch == STATIC_LEAVE_EPOCH;
    if !is_released && ask.classic.is_none() && !speaks_classic(group, &owner) {
        let message = format!(
            "Static member {id} with instance id {instance} cannot join the group because the instance id is owned by \
             {owner} member."
        );
        return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
    }
    Ok(replace(draft, &owner, id))
}

/// Fences a member that uses another one's instance id.
pub(crate) fn check_instance(id: &str, owner: &str, instance: &str) -> Result<(), Refusal> {
    if id == owner {
        return Ok(());
    }
    let message = format!("Static member {id} with instance id {instance} was fenced by member {owner}.");
    Err(Refusal::new(ErrorCode::FencedInstanceId, message))
}

/// The refusal of a member that is not in the group.
pub(crate) fn unknown(id: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownMemberId, format!("Member {id} is not a member of the group."))
}

fn speaks_classic(group: &ConsumerGroup, member: &str) -> bool {
    group.members.get(member).is_some_and(|member| member.classic.is_some())
}

fn known(group: &ConsumerGroup, id: &str, ask: &Ask) -> Result<Sender, Refusal> {
    let sender = Sender { value: group.members.get(id).cloned(), current: group.current(id), replaced: None };
    check_epoch(&sender.current, ask.epoch, ask.owned.as_ref())?;
    Ok(sender)
}

/// Fences a member that is ahead or behind. One that is one step behind and owns nothing it should not own is not: the
/// answer that told it the new epoch may have been lost. Epoch 0 joins anew.
fn check_epoch(current: &CurrentValue, epoch: i32, owned: Option<&Assignment>) -> Result<(), Refusal> {
    if epoch == JOIN_EPOCH || epoch == current.member_epoch {
        return Ok(());
    }
    let is_subset = |owned: &Assignment| {
        let mut topics = owned.iter();
        topics.all(|(topic, partitions)| {
            current.assigned.contains_key(topic)
                && partitions.iter().all(|partition| contains(&current.assigned, *topic, *partition))
        })
    };
    let is_behind = epoch < current.member_epoch;
    if is_behind && epoch == current.previous_member_epoch && owned.is_some_and(is_subset) {
        return Ok(());
    }
    let message = format!(
        "The consumer group member has a {} member epoch ({epoch}) than the one known by the group coordinator ({}). \
         The member must abandon all its partitions and rejoin.",
        if is_behind { "smaller" } else { "greater" },
        current.member_epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

/// A static member is back under a new id and gets what the old one had.
fn replace(draft: &mut Draft<'_>, old: &str, id: &str) -> Sender {
    let group = draft.group();
    let value = group.members.get(old).cloned().unwrap_or_default();
    let target = group.targets.get(old).cloned().unwrap_or_default();
    let current = CurrentValue { member_epoch: 0, previous_member_epoch: 0, ..group.current(old) };
    draft.remove_member(old);
    draft.set_member(id, value.clone());
    draft.set_target(id, target);
    draft.set_current(id, current.clone());
    Sender { value: Some(value), current, replaced: Some(old.to_string()) }
}

/// Puts what the heartbeat says about the member into the group. What it leaves out stays.
pub(crate) fn update(
    draft: &mut Draft<'_>,
    id: &str,
    old: Option<&MemberValue>,
    ask: &Ask,
    context: &RequestContext,
    config: &GroupConfig,
) -> Result<MemberValue, Refusal> {
    let mut value =
        old.cloned().unwrap_or(MemberValue { rebalance_timeout_ms: -1, ..MemberValue::default() });
    value.client_id = context.client_id.clone();
    value.client_host = context.client_host.clone();
    value.classic = ask.classic.clone();
    value.rebalance_timeout_ms = ask.rebalance_timeout_ms.unwrap_or(value.rebalance_timeout_ms);
    value.instance_id = ask.instance_id.clone().or(value.instance_id);
    value.rack_id = ask.rack_id.clone().or(value.rack_id);
    value.server_assignor = ask.assignor.clone().or(value.server_assignor);
    value.subscribed_topic_regex = ask.topic_regex.clone().or(value.subscribed_topic_regex);
    if let Some(names) = &ask.topic_names {
        value.subscribed_topic_names = names.clone();
    }
    if old != Some(&value) {
        draft.set_member(id, value.clone());
        if draft.group().counts.bytes() > config.group_bytes_max {
            let message = "The subscriptions of the consumer group have reached their maximum size.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
    }
    Ok(value)
}
