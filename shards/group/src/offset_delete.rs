//! OffsetDelete (KIP-496) and the expiry of offsets (KIP-211): how offsets go away while their group stays.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use pelton_wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use pelton_wire::messages::{OffsetDeleteRequestData, OffsetDeleteResponseData};

use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::pending::{Then, Undo};
use crate::records::{OffsetValue, Record};
use crate::request::GroupResponse;
use crate::sabotage::Sabotage;
use crate::timers::TimerKey;

/// Most tombstones of one append, so that a batch stays far below `max.message.bytes`.
const TOMBSTONES_PER_APPEND: usize = 1_000;

/// Which offsets of a group may expire, and counted from when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expiry {
    /// None: the group is not settled, or what it reads is unknown.
    Never,
    /// Those of topics nobody in the group subscribes to, from their commit.
    Unsubscribed,
    /// All, from their commit.
    SinceCommit,
    /// All, from when the group became empty (milliseconds since 1970) but no earlier than their commit.
    SinceEmpty(i64),
}

impl Coordinator {
    /// Deletes single offsets of a group that does not read them any more.
    pub(crate) fn offset_delete(
        &mut self,
        asker: Asker<'_>,
        request: OffsetDeleteRequestData,
        turn: &mut Turn<'_>,
    ) {
        let id = request.group_id.as_str();
        let allowed = match self.groups.get(id) {
            None => Err(ErrorCode::GroupIdNotFound),
            Some(Group::Classic(group)) => group.check_offset_delete(),
            Some(Group::Consumer(_)) => Ok(()),
        };
        if let Err(error) = allowed {
            let response = OffsetDeleteResponseData { error_code: error.code(), ..Default::default() };
            return self.answer_durable([id], asker.token, GroupResponse::OffsetDelete(response), turn);
        }
        let mut records = Vec::new();
        let topics = request.topics.iter().map(|topic| self.delete_topic(id, topic, &mut records)).collect();
        self.write_tombstones(records, turn);
        let response = OffsetDeleteResponseData { topics, ..Default::default() };
        self.answer_durable([id], asker.token, GroupResponse::OffsetDelete(response), turn);
    }

    fn delete_topic(
        &self,
        group: &str,
        topic: &OffsetDeleteRequestTopic,
        records: &mut Vec<Record>,
    ) -> OffsetDeleteResponseTopic {
        let name = topic.name.as_str();
        let subscribed = match self.groups.get(group) {
            Some(Group::Classic(group)) => group.subscribes_to(name),
            Some(Group::Consumer(group)) => group.subscribes_to(name),
            None => false,
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let partition = partition.partition_index;
            let error = if subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            if !subscribed && self.offsets.get(group, name, partition).is_some() {
                records.push(tombstone(group, name, partition));
            }
            partitions.push(OffsetDeleteResponsePartition {
                partition_index: partition,
                error_code: error.code(),
                ..Default::default()
            });
        }
        OffsetDeleteResponseTopic { name: topic.name.clone(), partitions, ..Default::default() }
    }

    /// Appends tombstones in batches of bounded size.
    pub(crate) fn write_tombstones(&mut self, records: Vec<Record>, turn: &mut Turn<'_>) {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let batch: Vec<Record> = records.by_ref().take(TOMBSTONES_PER_APPEND).collect();
            self.write(batch, Vec::new(), Then::Nothing, turn);
        }
    }

    /// Looks through all groups for offsets past `offsets.retention.minutes`, and for groups with nothing left.
    pub(crate) fn expire_offsets(&mut self, turn: &mut Turn<'_>) {
        self.timers.set(TimerKey::Expiry, turn.now.after_ms(self.config.offsets_retention_check_interval_ms));
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            let expired = self.expired_offsets(&id, turn.now.wall_ms);
            self.write_tombstones(expired, turn);
            if self.offsets.is_empty(&id) && self.is_abandoned(&id) {
                self.delete_group(&id, turn);
            }
        }
    }

    fn expired_offsets(&self, id: &str, now_ms: i64) -> Vec<Record> {
        let expiry = match self.groups.get(id) {
            Some(_) if self.sabotaged(Sabotage::ExpireLiveOffsets) => Expiry::SinceCommit,
            Some(Group::Classic(group)) => group.expiry(),
            Some(Group::Consumer(_)) => Expiry::Unsubscribed,
            None => Expiry::Never,
        };
        let retention_ms = self.config.offsets_retention_minutes.saturating_mul(60_000);
        let is_due = |topic: &str, value: &OffsetValue| {
            let since_ms = match expiry {
                Expiry::Never => return false,
                Expiry::Unsubscribed if self.group_subscribes_to(id, topic) => return false,
                Expiry::Unsubscribed | Expiry::SinceCommit => value.commit_timestamp_ms,
                Expiry::SinceEmpty(since_ms) => since_ms.max(value.commit_timestamp_ms),
            };
            match value.expire_timestamp_ms {
                -1 => now_ms.saturating_sub(since_ms) >= retention_ms,
                expire_ms => now_ms >= expire_ms,
            }
        };
        let due = self.offsets.of_group(id).filter(|(topic, _, value)| is_due(topic, value));
        due.map(|(topic, partition, _)| tombstone(id, topic, partition)).collect()
    }

    fn group_subscribes_to(&self, id: &str, topic: &str) -> bool {
        match self.groups.get(id) {
            Some(Group::Classic(group)) => group.subscribes_to(topic),
            Some(Group::Consumer(group)) => group.subscribes_to(topic),
            None => false,
        }
    }

    /// True for a group that has no member and none on its way.
    fn is_abandoned(&self, id: &str) -> bool {
        match self.groups.get(id) {
            Some(Group::Classic(group)) => group.is_abandoned(),
            Some(Group::Consumer(group)) => group.is_empty(),
            None => false,
        }
    }

    /// Removes an empty group with its offsets.
    pub(crate) fn delete_group(&mut self, id: &str, turn: &mut Turn<'_>) {
        let offsets: Vec<Record> =
            self.offsets.of_group(id).map(|(topic, partition, _)| tombstone(id, topic, partition)).collect();
        self.write_tombstones(offsets, turn);
        let Some(group) = self.groups.remove(id) else { return };
        let records = match &group {
            Group::Classic(_) => vec![Record::Group { group: id.to_string(), value: None }],
            Group::Consumer(group) => group.tombstones(id),
        };
        self.timers.cancel(&TimerKey::Join(id.to_string()));
        self.timers.cancel(&TimerKey::Sync(id.to_string()));
        let undo = vec![Undo::Group { id: id.to_string(), group: Some(Box::new(group)) }];
        self.write(records, undo, Then::Nothing, turn);
    }
}

fn tombstone(group: &str, topic: &str, partition: i32) -> Record {
    Record::Offset { group: group.to_string(), topic: topic.to_string(), partition, value: None }
}
