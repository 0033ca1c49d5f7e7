//! The records of a KIP-848 group with the members, generation and assignments of a classic one (Kafka's
//! ConsumerGroup.fromClassicGroup). Never changes the classic group.

use std::collections::BTreeSet;

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::primitives::Reader;

use crate::classic::{CONSUMER, ClassicGroup, ClassicMember, read_subscription};
use crate::records::{Assignment, ClassicMemberMetadata, CurrentValue, EpochValue, MemberValue, Record};
use crate::topics::TopicsView;
use pelton_model::GroupConfig;

use super::draft::Draft;
use super::heartbeat::not_found;
use super::request::Refusal;
use super::{ConsumerGroup, STABLE};

/// What a classic member's assignment says.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ClassicAssignment {
    /// By topic name.
    pub topics: Vec<(String, Vec<i32>)>,
    /// A custom assignor left something for itself.
    pub has_user_data: bool,
}

/// Reads an assignment (ConsumerProtocolAssignment); none if it cannot be read. An empty one has no partitions.
pub(crate) fn read_assignment(bytes: &Bytes) -> Option<ClassicAssignment> {
    let mut assignment = ClassicAssignment::default();
    if bytes.is_empty() {
        return Some(assignment);
    }
    let mut reader = Reader::new(bytes, 0);
    if reader.i16().ok()? < 0 {
        return None;
    }
    for _ in 0..reader.array_count(false, 6).ok()? {
        let topic = reader.string(false).ok()?.to_string();
        let count = reader.array_count(false, 4).ok()?;
        let partitions = (0..count).map(|_| reader.i32()).collect::<Result<Vec<i32>, _>>().ok()?;
        assignment.topics.push((topic, partitions));
    }
    assignment.has_user_data = reader.nullable_bytes(false).ok()?.is_some_and(|range| !range.is_empty());
    Some(assignment)
}

/// Partitions by topic id; topics that are gone are left out.
pub(crate) fn by_id(partitions: &[(String, Vec<i32>)], topics: &dyn TopicsView) -> Assignment {
    let mut assignment = Assignment::new();
    for (name, partitions) in partitions {
        if let Some((id, _)) = topics.topic(name)
            && !partitions.is_empty()
        {
            assignment.entry(id).or_default().extend(partitions);
        }
    }
    assignment
}

/// The records; refused if the policy or the members do not allow the upgrade.
pub(crate) fn records(
    id: &str,
    classic: &ClassicGroup,
    config: &GroupConfig,
    topics: &dyn TopicsView,
) -> Result<Vec<Record>, Refusal> {
    let is_allowed = config.migration_policy.upgrades()
        && classic.protocol_type.as_deref() == Some(CONSUMER)
        && classic.members.len() <= config.consumer_max_size;
    if !is_allowed {
        return Err(not_found(id));
    }
    let mut group = ConsumerGroup::default();
    let mut draft = Draft::new(id, &mut group);
    let mut owned = Vec::with_capacity(classic.members.len());
    let mut taken = BTreeSet::new();
    let generation = classic.generation.max(0);
    for (member, value) in &classic.members {
        let assignment = read_assignment(&value.assignment).ok_or_else(|| malformed(id))?;
        if assignment.has_user_data {
            let message = format!(
                "Cannot upgrade classic group {id} to consumer group because an unsupported custom assignor is in use. \
                 Please refer to the documentation or switch to a default assignor before re-attempting the upgrade."
            );
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        }
        // A client's assignor may have given a partition twice; here it has one owner.
        let mut assigned = by_id(&assignment.topics, topics);
        for (topic, partitions) in &mut assigned {
            partitions.retain(|partition| taken.insert((*topic, *partition)));
        }
        assigned.retain(|_, partitions| !partitions.is_empty());
        owned.push((member, assigned));
        draft.set_member(member, member_value(value).ok_or_else(|| malformed(id))?);
    }
    let metadata_hash = draft.group().topics_hash(topics);
    draft.set_epoch(EpochValue { epoch: generation, metadata_hash });
    for (member, assignment) in &owned {
        draft.set_target(member, assignment.clone());
    }
    draft.set_target_epoch(generation);
    for (member, assigned) in owned {
        let current = CurrentValue {
            member_epoch: generation,
            previous_member_epoch: generation,
            state: STABLE,
            assigned,
            pending_revocation: Assignment::new(),
        };
        draft.set_current(member, current);
    }
    Ok(draft.finish())
}

fn malformed(id: &str) -> Refusal {
    let message = format!(
        "Cannot upgrade classic group {id} to consumer group because the embedded consumer protocol is malformed."
    );
    Refusal::new(ErrorCode::GroupIdNotFound, message)
}

fn member_value(member: &ClassicMember) -> Option<MemberValue> {
    let (_, metadata) = member.protocols.first()?;
    let subscription = read_subscription(metadata)?;
    Some(MemberValue {
        instance_id: member.instance_id.clone(),
        rack_id: subscription.rack_id,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: subscription.topics.into_iter().collect(),
        subscribed_topic_regex: None,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: None,
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: member.session_timeout_ms,
            supported_protocols: member.protocols.clone(),
        }),
    })
}
