//! Back to a classic group while members are in it: the last member of the consumer protocol goes, and those that are left
//! all speak the classic one (Kafka's convertToClassicGroup). They rebalance, and from then on a leader assigns.

use crate::classic::{CONSUMER, ClassicGroup, ClassicMember, ClassicState, encode_assignment};
use crate::coordinator::{Coordinator, Group, Turn};
use crate::pending::{Then, Undo};
use crate::records::{Assignment, MemberValue, Record};
use crate::topics::TopicsView;

use super::ConsumerGroup;

impl Coordinator {
    /// Makes a KIP-848 group a classic one with its members but `leavers`, if they are all classic and the migration
    /// policy allows it. True if it did: the leavers are gone. False, and nothing has changed, otherwise.
    pub(crate) fn downgrade_without(&mut self, id: &str, leavers: &[&str], turn: &mut Turn<'_>) -> bool {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return false };
        let stay = group.members.len() - leavers.iter().filter(|it| group.members.contains_key(**it)).count();
        if !self.config.migration_policy.downgrades() || stay == 0 || stay > self.config.group_max_size {
            return false;
        }
        let Some(classic) = classic_group(group, leavers, turn) else { return false };
        let members: Vec<String> = group.members.keys().cloned().collect();
        let mut records = group.tombstones(id);
        records.push(Record::Group { group: id.to_string(), value: Some(classic.to_record()) });
        let group = self.groups.insert(id.to_string(), Group::Classic(classic));
        for member in &members {
            self.consumer_member_gone(id, member);
        }
        let undo = vec![Undo::Group { id: id.to_string(), group: group.map(Box::new) }];
        self.write(records, undo, Then::Nothing, turn);
        for member in &members {
            self.set_classic_session(id, member, turn);
        }
        self.prepare_rebalance(id, turn);
        true
    }
}

/// The classic group; none if somebody who stays speaks only the new protocol, or they share no assignor.
fn classic_group(group: &ConsumerGroup, leavers: &[&str], turn: &Turn<'_>) -> Option<ClassicGroup> {
    let mut classic = ClassicGroup {
        state: ClassicState::Stable,
        state_since_ms: turn.now.wall_ms,
        generation: group.epoch.epoch,
        protocol_type: Some(CONSUMER.to_string()),
        ..ClassicGroup::default()
    };
    for (id, value) in group.members.iter().filter(|(id, _)| !leavers.contains(&id.as_str())) {
        let mut member = member(id, value)?;
        member.join_order = classic.next_join();
        classic.insert(member);
    }
    let protocol = classic.select_protocol()?;
    for (id, member) in &mut classic.members {
        // In the version of its subscription.
        let metadata = member.metadata(&protocol);
        let version = metadata.first_chunk::<2>().map_or(0, |bytes| i16::from_be_bytes(*bytes));
        let target = group.targets.get(id).map(|target| by_name(target, turn.topics)).unwrap_or_default();
        member.assignment = encode_assignment(version, &target);
    }
    classic.sum_up();
    classic.protocol = Some(protocol);
    classic.topics = classic.subscribed_topics();
    Some(classic)
}

fn member(id: &str, value: &MemberValue) -> Option<ClassicMember> {
    let session = value.classic.as_ref()?;
    Some(ClassicMember {
        id: id.to_string(),
        instance_id: value.instance_id.clone(),
        client_id: value.client_id.clone(),
        client_host: value.client_host.clone(),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        session_timeout_ms: session.session_timeout_ms,
        protocols: session.supported_protocols.clone(),
        ..ClassicMember::default()
    })
}

/// Partitions by topic name; topics that are gone are left out.
fn by_name(assignment: &Assignment, topics: &dyn TopicsView) -> Vec<(String, Vec<i32>)> {
    let named = assignment.iter().filter_map(|(topic, partitions)| {
        let (name, _) = topics.topic_by_id(*topic)?;
        Some((name.to_string(), partitions.iter().copied().collect()))
    });
    named.collect()
}
