//! One group as its coordinator describes it, whichever protocol it speaks. As Kafka's own Admin client does, the new
//! protocol is asked for first and the classic one when the group is none of the new.

use pelton_wire::api_key::ApiKey;
use pelton_wire::consumer_protocol::read_assignment;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member};
use pelton_wire::messages::describe_groups_response::{
    DescribedGroup as ClassicGroup, DescribedGroupMember as ClassicMember,
};
use pelton_wire::messages::{
    ConsumerGroupDescribeRequestData, ConsumerGroupDescribeResponseData, DescribeGroupsRequestData,
    DescribeGroupsResponseData, KafkaString,
};
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::topic::message_of;
use crate::failure::Failure;

/// Protocol type of consumers: their assignments can be read.
const CONSUMER: &str = "consumer";
/// Client-side type of a classic member in a group of the new protocol (ConsumerGroupDescribe 1).
const MEMBER_TYPE_CLASSIC: i8 = 0;

/// Partitions by topic.
pub type Partitions = Vec<(String, Vec<i32>)>;

/// A member.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Id of a static member (KIP-345).
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Its address.
    pub host: String,
    /// `classic` or `consumer`; none if not told.
    pub kind: Option<&'static str>,
    /// Member epoch; only in the new protocol.
    pub epoch: Option<i32>,
    /// What it has; none if the assignment is not a consumer's.
    pub partitions: Option<Partitions>,
    /// What it shall have; only in the new protocol.
    pub target: Option<Partitions>,
}

/// A group.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupOverview {
    /// `classic` or `consumer`.
    pub kind: &'static str,
    /// Kafka's word for its state.
    pub state: String,
    /// Protocol type, `consumer` or what other clients call theirs.
    pub protocol_type: String,
    /// The assignor in use; empty if none.
    pub assignor: String,
    /// Group epoch; only in the new protocol.
    pub epoch: Option<i32>,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// Members by id.
    pub members: Vec<GroupMember>,
}

/// What a coordinator says about a group, or why it does not.
type Told<T> = Result<T, (ErrorCode, String)>;
/// What a group is, or why it is not told.
pub type Answer = Told<GroupOverview>;

/// Asks the coordinator of `group`.
pub fn describe(client: &mut Client, group: &str) -> Result<Answer, Failure> {
    let coordinator = client.find_coordinator(group)?;
    if let Some(answer) = describe_consumer(client, group)? {
        return Ok(answer.map(|group| of_consumer(&group, coordinator)));
    }
    let request = |_version: i16| DescribeGroupsRequestData {
        groups: vec![group.to_string().into()],
        ..DescribeGroupsRequestData::default()
    };
    let answer: DescribeGroupsResponseData = client.ask_coordinator(
        group,
        ApiKey::DescribeGroups,
        6,
        request,
        |answer: &DescribeGroupsResponseData| answer.groups.first().map_or(0, |group| group.error_code),
    )?;
    let Some(found) = answer.groups.first() else {
        return Err(Failure::error(format!("group {group}: the answer does not mention it")));
    };
    let error = ErrorCode::from_code(found.error_code);
    // Before version 6 a group that does not exist is said to be dead.
    if error == ErrorCode::None && found.group_state.as_str() == "Dead" {
        return Ok(Err((ErrorCode::GroupIdNotFound, String::new())));
    }
    Ok(match error {
        ErrorCode::None => Ok(of_classic(found, coordinator)),
        error => Err((error, message_of(found.error_message.as_ref()))),
    })
}

/// The answer of the new protocol; none if the group is not of it, or the broker does not have it.
fn describe_consumer(client: &mut Client, group: &str) -> Result<Option<Told<DescribedGroup>>, Failure> {
    let coordinator = client.coordinator(group).unwrap_or(-1);
    let served = client
        .broker(coordinator)
        .and_then(|connection| connection.version(ApiKey::ConsumerGroupDescribe, 1));
    if served.is_err() {
        return Ok(None);
    }
    let request = |_version: i16| ConsumerGroupDescribeRequestData {
        group_ids: vec![group.to_string().into()],
        ..ConsumerGroupDescribeRequestData::default()
    };
    let answer: ConsumerGroupDescribeResponseData = client.ask_coordinator(
        group,
        ApiKey::ConsumerGroupDescribe,
        1,
        request,
        |answer: &ConsumerGroupDescribeResponseData| {
            answer.groups.first().map_or(0, |group| group.error_code)
        },
    )?;
    let Some(found) = answer.groups.into_iter().next() else { return Ok(None) };
    Ok(match ErrorCode::from_code(found.error_code) {
        ErrorCode::None => Some(Ok(found)),
        ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion => None,
        error => Some(Err((error, message_of(found.error_message.as_ref())))),
    })
}

fn of_consumer(group: &DescribedGroup, coordinator: i32) -> GroupOverview {
    let mut members: Vec<GroupMember> = group.members.iter().map(member_of_consumer).collect();
    members.sort_by(|left, right| left.member_id.cmp(&right.member_id));
    GroupOverview {
        kind: "consumer",
        state: group.group_state.to_string(),
        protocol_type: CONSUMER.to_string(),
        assignor: group.assignor_name.to_string(),
        epoch: Some(group.group_epoch),
        coordinator,
        members,
    }
}

fn member_of_consumer(member: &Member) -> GroupMember {
    let partitions = |assignment: &Assignment| {
        let mut topics: Partitions = assignment
            .topic_partitions
            .iter()
            .map(|topic| (topic.topic_name.to_string(), topic.partitions.clone()))
            .collect();
        tidy(&mut topics);
        Some(topics)
    };
    let kind = match member.member_type {
        MEMBER_TYPE_CLASSIC => Some("classic"),
        1 => Some("consumer"),
        _ => None,
    };
    GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: member.instance_id.as_ref().map(KafkaString::to_string),
        client_id: member.client_id.to_string(),
        host: host(&member.client_host),
        kind,
        epoch: Some(member.member_epoch),
        partitions: partitions(&member.assignment),
        target: partitions(&member.target_assignment),
    }
}

fn of_classic(group: &ClassicGroup, coordinator: i32) -> GroupOverview {
    let consumers = group.protocol_type.as_str() == CONSUMER;
    let mut members: Vec<GroupMember> =
        group.members.iter().map(|member| member_of_classic(member, consumers)).collect();
    members.sort_by(|left, right| left.member_id.cmp(&right.member_id));
    GroupOverview {
        kind: "classic",
        state: group.group_state.to_string(),
        protocol_type: group.protocol_type.to_string(),
        assignor: group.protocol_data.to_string(),
        epoch: None,
        coordinator,
        members,
    }
}

fn member_of_classic(member: &ClassicMember, consumers: bool) -> GroupMember {
    let partitions = consumers.then(|| read_assignment(&member.member_assignment)).flatten();
    GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(KafkaString::to_string),
        client_id: member.client_id.to_string(),
        host: host(&member.client_host),
        kind: Some("classic"),
        epoch: None,
        partitions: partitions.map(|mut topics| {
            tidy(&mut topics);
            topics
        }),
        target: None,
    }
}

/// Java brokers print addresses with a slash in front.
fn host(text: &KafkaString) -> String {
    text.as_str().trim_start_matches('/').to_string()
}

fn tidy(topics: &mut Partitions) {
    topics.iter_mut().for_each(|(_, partitions)| partitions.sort_unstable());
    topics.sort();
}

/// Partitions in words: `orders:0,1 payments:2`; empty if there are none.
pub fn words(partitions: &Partitions) -> String {
    let topics = partitions.iter().map(|(topic, numbers)| {
        let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
        format!("{topic}:{}", numbers.join(","))
    });
    topics.collect::<Vec<_>>().join(" ")
}

/// Partitions as a value: a list of objects with topic and partitions.
pub fn value(partitions: &Option<Partitions>) -> Value {
    let object =
        |(topic, partitions): &(String, Vec<i32>)| json!({ "topic": topic, "partitions": partitions });
    partitions.as_ref().map_or(Value::Null, |topics| topics.iter().map(object).collect())
}
