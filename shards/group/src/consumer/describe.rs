//! ConsumerGroupDescribe 0-1: a group as it is. Never changes it. Authorized operations are the caller's to fill in.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions,
};
use pelton_wire::messages::{
    ConsumerGroupDescribeRequestData, ConsumerGroupDescribeResponseData, KafkaString, KafkaUuid,
};

use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::records::{Assignment, MemberValue};
use crate::request::{GroupResponse, text};
use crate::topics::TopicsView;

use super::ConsumerGroup;
use super::target::default_assignor;

/// Member types from version 1 on (KIP-1099).
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;
/// No member type: the version has none.
const UNKNOWN_MEMBER: i8 = -1;

impl Coordinator {
    /// Describes groups, once what is told is durable.
    pub(crate) fn consumer_group_describe(
        &mut self,
        asker: Asker<'_>,
        request: ConsumerGroupDescribeRequestData,
        turn: &mut Turn<'_>,
    ) {
        let mut groups = Vec::with_capacity(request.group_ids.len());
        for id in &request.group_ids {
            groups.push(match self.groups.get(id.as_str()) {
                _ if id.as_str().is_empty() => {
                    refused(id, ErrorCode::InvalidGroupId, "The group id is empty.")
                }
                Some(Group::Consumer(group)) => {
                    let mut described = group.describe(asker.version(), turn.topics);
                    described.group_id = id.clone();
                    described.assignor_name = text(group.assignor(default_assignor(&self.config)));
                    described
                }
                Some(Group::Classic(_)) => {
                    let message = format!("Group {} is not a consumer group.", id.as_str());
                    refused(id, ErrorCode::GroupIdNotFound, &message)
                }
                None => {
                    let message = format!("Group {} not found.", id.as_str());
                    refused(id, ErrorCode::GroupIdNotFound, &message)
                }
            });
        }
        let response = ConsumerGroupDescribeResponseData { groups, ..Default::default() };
        let response = GroupResponse::ConsumerGroupDescribe(response);
        let ids = request.group_ids.iter().map(KafkaString::as_str);
        self.answer_durable(ids, asker.token, response, turn);
    }
}

fn refused(id: &KafkaString, error: ErrorCode, message: &str) -> DescribedGroup {
    DescribedGroup {
        error_code: error.code(),
        error_message: Some(text(message)),
        group_id: id.clone(),
        ..Default::default()
    }
}

impl ConsumerGroup {
    fn describe(&self, api_version: i16, topics: &dyn TopicsView) -> DescribedGroup {
        let member =
            |(id, value): (&String, &MemberValue)| self.describe_member(id, value, api_version, topics);
        DescribedGroup {
            group_state: text(self.state_name()),
            group_epoch: self.epoch.epoch,
            assignment_epoch: self.target_epoch,
            members: self.members.iter().map(member).collect(),
            ..Default::default()
        }
    }

    fn describe_member(
        &self,
        id: &str,
        value: &MemberValue,
        api_version: i16,
        topics: &dyn TopicsView,
    ) -> Member {
        let optional = |field: &Option<String>| field.as_deref().map(text);
        let current = self.current(id);
        let nothing = Assignment::new();
        Member {
            member_id: text(id),
            instance_id: optional(&value.instance_id),
            rack_id: optional(&value.rack_id),
            member_epoch: current.member_epoch,
            client_id: text(&value.client_id),
            client_host: text(&value.client_host),
            subscribed_topic_names: value.subscribed_topic_names.iter().map(|name| text(name)).collect(),
            subscribed_topic_regex: optional(&value.subscribed_topic_regex),
            assignment: describe_assignment(&current.assigned, topics),
            target_assignment: describe_assignment(self.targets.get(id).unwrap_or(&nothing), topics),
            member_type: match &value.classic {
                _ if api_version < 1 => UNKNOWN_MEMBER,
                Some(_) => CLASSIC_MEMBER,
                None => CONSUMER_MEMBER,
            },
            ..Default::default()
        }
    }
}

/// Topics that are gone are left out, as in Kafka.
fn describe_assignment(assignment: &Assignment, topics: &dyn TopicsView) -> DescribedAssignment {
    let mut topic_partitions = Vec::with_capacity(assignment.len());
    for (topic, partitions) in assignment {
        if let Some((name, _)) = topics.topic_by_id(*topic) {
            topic_partitions.push(TopicPartitions {
                topic_id: KafkaUuid::from(topic.0),
                topic_name: text(name),
                partitions: partitions.iter().copied().collect(),
                ..Default::default()
            });
        }
    }
    DescribedAssignment { topic_partitions, ..Default::default() }
}
