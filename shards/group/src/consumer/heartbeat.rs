//! ConsumerGroupHeartbeat 0-1: who sends it, what is answered, and the deadlines that follow. What it does to the group
//! is in `beat`.

use pelton_model::ConsumerGroupConfig;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::consumer_group_heartbeat_response::{Assignment as Assigned, TopicPartitions};
use pelton_wire::messages::{
    ConsumerGroupHeartbeatRequestData, ConsumerGroupHeartbeatResponseData, KafkaUuid,
};

use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::records::Assignment;
use crate::request::{GroupResponse, text};
use crate::sabotage::Sabotage;
use crate::timers::TimerKey;

use super::beat::{Beat, Surroundings};
use super::request::{Ask, Refusal};
use super::{JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH, UNREVOKED};

impl Coordinator {
    /// A heartbeat: a join, a leave, or a sign of life.
    pub(crate) fn consumer_group_heartbeat(
        &mut self,
        asker: Asker<'_>,
        request: ConsumerGroupHeartbeatRequestData,
        turn: &mut Turn<'_>,
    ) {
        let ask = Ask::read(&request);
        if let Err(refusal) = ask.check(asker.version(), &self.config) {
            return turn.answer(asker.token, GroupResponse::ConsumerGroupHeartbeat(refusal.response()));
        }
        let response = match ask.epoch {
            LEAVE_EPOCH | STATIC_LEAVE_EPOCH => self.consumer_leave(&ask, turn),
            _ => self.consumer_stays(asker, &ask, turn),
        };
        let response = GroupResponse::ConsumerGroupHeartbeat(response.unwrap_or_else(Refusal::response));
        self.answer_durable([ask.group.as_str()], asker.token, response, turn);
    }

    fn consumer_stays(
        &mut self,
        asker: Asker<'_>,
        ask: &Ask,
        turn: &mut Turn<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponseData, Refusal> {
        let member = if ask.member.is_empty() { self.new_member_id("") } else { ask.member.clone() };
        let beat = self.consumer_beat(asker, &member, ask, turn)?;
        let config = turn.topics.group_config(&self.config, &ask.group);
        self.set_consumer_session(&ask.group, &member, config.session_timeout_ms, turn);
        // It may have spoken the classic protocol before.
        self.timers.cancel(&TimerKey::MemberSync(ask.group.clone(), member.clone()));
        let key = TimerKey::Revocation(ask.group.clone(), member.clone());
        if beat.current.state != UNREVOKED {
            self.timers.cancel(&key);
        } else if beat.has_moved || !self.timers.is_set(&key) {
            self.timers.set(key, turn.now.after_ms(i64::from(beat.value.rebalance_timeout_ms)));
        }
        let is_told = ask.epoch == JOIN_EPOCH || ask.is_full() || beat.has_new_assignment;
        Ok(ConsumerGroupHeartbeatResponseData {
            member_id: Some(text(&member)),
            member_epoch: beat.current.member_epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms(&ask.group, &config, turn),
            assignment: is_told.then(|| Box::new(assigned(&beat.current.assigned))),
            ..Default::default()
        })
    }

    /// When the member shall ask again, milliseconds from now: sooner than usual while the group's target assignment is yet to come.
    fn heartbeat_interval_ms(&self, id: &str, config: &ConsumerGroupConfig, turn: &Turn<'_>) -> i32 {
        let interval_ms = config.heartbeat_interval_ms;
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return interval_ms };
        if group.epoch.epoch <= group.target_epoch {
            return interval_ms;
        }
        let from_ns = group.assigns_from_ns(config);
        let left_ms = from_ns.saturating_sub(turn.now.monotonic_ns).div_ceil(1_000_000);
        interval_ms.min(i32::try_from(left_ms).unwrap_or(i32::MAX).max(1))
    }

    /// Takes and writes the heartbeat or the classic join of `member`; makes the group first if it has to.
    pub(crate) fn consumer_beat(
        &mut self,
        asker: Asker<'_>,
        member: &str,
        ask: &Ask,
        turn: &mut Turn<'_>,
    ) -> Result<Beat, Refusal> {
        let opened = self.open_consumer_group(ask, turn)?;
        let ignores_owners = self.sabotaged(Sabotage::SkipOwnerCheck);
        let beat = match self.groups.get_mut(&ask.group) {
            Some(Group::Consumer(group)) => {
                let (context, config) = (asker.context, &self.config);
                let (topics, now) = (turn.topics, turn.now);
                let around = Surroundings { context, config, topics, now, ignores_owners };
                around.beat(group, member, ask)
            }
            _ => Err(not_found(&ask.group)),
        };
        let mut beat = match beat {
            Ok(beat) => beat,
            Err(refusal) => {
                self.close_consumer_group(&ask.group, opened);
                return Err(refusal);
            }
        };
        let records = std::mem::take(&mut beat.records);
        self.write_opened(&ask.group, opened, records, turn);
        if let Some(Group::Consumer(group)) = self.groups.get_mut(&ask.group) {
            group.seen_topics = beat.seen_topics.or(group.seen_topics);
            if beat.made_target {
                group.note_target(turn.now);
            }
        }
        if let Some(old) = &beat.replaced {
            self.consumer_member_gone(&ask.group, old);
        }
        Ok(beat)
    }
}

/// The refusal for a group that is not there or not of this protocol.
pub(crate) fn not_found(id: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Consumer group {id} not found."))
}

fn assigned(assignment: &Assignment) -> Assigned {
    let topic =
        |(topic, partitions): (&pelton_model::TopicId, &std::collections::BTreeSet<i32>)| TopicPartitions {
            topic_id: KafkaUuid::from(topic.0),
            partitions: partitions.iter().copied().collect(),
            ..Default::default()
        };
    Assigned { topic_partitions: assignment.iter().map(topic).collect(), ..Default::default() }
}
