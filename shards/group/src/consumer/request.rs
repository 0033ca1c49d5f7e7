//! A ConsumerGroupHeartbeat, read and checked as far as that needs no group (Kafka's GroupCoordinatorService). Never
//! looks at state.

use std::collections::BTreeSet;

use pelton_model::TopicId;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ConsumerGroupHeartbeatRequestData, ConsumerGroupHeartbeatResponseData, KafkaString,
};

use crate::records::{Assignment, ClassicMemberMetadata};
use crate::request::{owned, text};
use pelton_model::GroupConfig;

use super::{JOIN_EPOCH, STATIC_LEAVE_EPOCH};

/// The longest member id and topic pattern, bytes: both are in record keys, whose strings have a 16-bit length.
const KEY_STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Why a heartbeat is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub error: ErrorCode,
    /// For people; Kafka's words where clients are known to show them.
    pub message: String,
}

impl Refusal {
    /// A refusal with a message.
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { error, message: message.into() }
    }

    /// Its answer.
    pub fn response(self) -> ConsumerGroupHeartbeatResponseData {
        ConsumerGroupHeartbeatResponseData {
            error_code: self.error.code(),
            error_message: Some(text(&self.message)),
            ..Default::default()
        }
    }
}

/// A heartbeat, or the JoinGroup of a member that speaks the classic protocol. What is none was left out: it is as it
/// was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub group: String,
    /// Empty only in version 0, in a join: the coordinator makes one.
    pub member: String,
    pub epoch: i32,
    /// The member may be new, and a static one may take the place of the one before.
    pub joins: bool,
    /// Set for a member that speaks the classic protocol.
    pub classic: Option<ClassicMemberMetadata>,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub rebalance_timeout_ms: Option<i32>,
    pub topic_names: Option<BTreeSet<String>>,
    pub topic_regex: Option<String>,
    pub assignor: Option<String>,
    /// What the member owns, in its own view.
    pub owned: Option<Assignment>,
}

impl Ask {
    /// Reads a request.
    pub fn read(request: &ConsumerGroupHeartbeatRequestData) -> Ask {
        let names = |names: &Vec<KafkaString>| names.iter().map(|name| name.as_str().to_string()).collect();
        let owned_partitions = request.topic_partitions.as_ref().map(|topics| {
            let mut owned = Assignment::new();
            for topic in topics {
                let partitions = owned.entry(TopicId(topic.topic_id.into())).or_default();
                partitions.extend(topic.partitions.iter().copied());
            }
            owned
        });
        Ask {
            group: request.group_id.as_str().to_string(),
            member: request.member_id.as_str().to_string(),
            epoch: request.member_epoch,
            joins: request.member_epoch == JOIN_EPOCH,
            classic: None,
            instance_id: owned(&request.instance_id),
            rack_id: owned(&request.rack_id),
            rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout_ms| *timeout_ms != -1),
            topic_names: request.subscribed_topic_names.as_ref().map(names),
            topic_regex: owned(&request.subscribed_topic_regex),
            assignor: owned(&request.server_assignor),
            owned: owned_partitions,
        }
    }

    /// Checks what needs no group. Version 1 and later bring the member's id with the join (KIP-1082).
    pub fn check(&self, api_version: i16, config: &GroupConfig) -> Result<(), Refusal> {
        let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
        let is_empty = |field: &Option<String>| field.as_ref().is_some_and(String::is_empty);
        if (api_version >= 1 || self.epoch != JOIN_EPOCH) && self.member.is_empty() {
            return invalid("MemberId can't be empty.");
        }
        if self.group.is_empty() {
            return invalid("GroupId can't be empty.");
        }
        if self.group.len() > KEY_STRING_BYTES_MAX || self.member.len() > KEY_STRING_BYTES_MAX {
            return invalid("GroupId and MemberId can't be longer than 32767 bytes.");
        }
        if is_empty(&self.instance_id) {
            return invalid("InstanceId can't be empty.");
        }
        if is_empty(&self.rack_id) {
            return invalid("RackId can't be empty.");
        }
        if self.epoch == JOIN_EPOCH {
            self.check_join()?;
        } else if self.epoch == STATIC_LEAVE_EPOCH && self.instance_id.is_none() {
            return invalid("InstanceId can't be null.");
        } else if self.epoch < STATIC_LEAVE_EPOCH {
            return invalid("MemberEpoch is invalid.");
        }
        if let Some(assignor) = &self.assignor
            && !config.consumer_assignors.contains(assignor)
        {
            let message = format!(
                "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
                config.consumer_assignors.join(", ")
            );
            return Err(Refusal::new(ErrorCode::UnsupportedAssignor, message));
        }
        if self.topic_regex.as_ref().is_some_and(|regex| regex.len() > KEY_STRING_BYTES_MAX) {
            let message = "SubscribedTopicRegex can't be longer than 32767 bytes.";
            return Err(Refusal::new(ErrorCode::InvalidRegularExpression, message));
        }
        Ok(())
    }

    fn check_join(&self) -> Result<(), Refusal> {
        let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
        if self.rebalance_timeout_ms.is_none() {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if self.topic_names.is_none() && self.topic_regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
        Ok(())
    }

    /// True if it says everything, as after a join or an error: it is then answered with the assignment.
    pub fn is_full(&self) -> bool {
        self.rebalance_timeout_ms.is_some()
            && (self.topic_names.is_some() || self.topic_regex.is_some())
            && self.owned.is_some()
    }
}
