//! A coordinator, topics and clients for the tests of KIP-848 groups.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{ConsumerGroupConfig, Now, TopicId};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use pelton_wire::messages::{
    ConsumerGroupHeartbeatRequestData, ConsumerGroupHeartbeatResponseData, KafkaString, KafkaUuid,
};
use uuid::Uuid;

use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::effect::{GroupEffect, Ticket};
use crate::records::{Assignment, RawRecord};
use crate::request::{GroupRequest, GroupResponse, RequestContext, RequestToken, text};
use crate::topics::TopicsView;
use pelton_model::GroupConfig;

use super::ConsumerGroup;

pub(crate) const GROUP: &str = "g";

/// Topics by name; the n-th made has id n.
#[derive(Default)]
pub(crate) struct Topics {
    pub version: u64,
    by_name: BTreeMap<String, (TopicId, i32)>,
    made: u64,
    /// Settings of the group's own.
    pub own: Option<ConsumerGroupConfig>,
}

impl Topics {
    pub fn set(&mut self, name: &str, partitions: i32) -> TopicId {
        self.version += 1;
        if let Some((id, count)) = self.by_name.get_mut(name) {
            *count = partitions;
            return *id;
        }
        self.made += 1;
        let id = topic(self.made);
        self.by_name.insert(name.to_string(), (id, partitions));
        id
    }

    pub fn delete(&mut self, name: &str) {
        self.version += 1;
        self.by_name.remove(name);
    }
}

pub(crate) fn topic(number: u64) -> TopicId {
    TopicId(Uuid::from_u64_pair(0, number))
}

impl TopicsView for Topics {
    fn version(&self) -> u64 {
        self.version
    }
    fn topic(&self, name: &str) -> Option<(TopicId, i32)> {
        self.by_name.get(name).copied()
    }
    fn topic_by_id(&self, id: TopicId) -> Option<(&str, i32)> {
        let found = self.by_name.iter().find(|(_, (topic, _))| *topic == id);
        found.map(|(name, (_, count))| (name.as_str(), *count))
    }
    fn group_config(&self, broker: &GroupConfig, _group: &str) -> ConsumerGroupConfig {
        self.own.unwrap_or(broker.into())
    }
    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        self.by_name.keys().for_each(|name| each(name));
    }
}

/// A coordinator with a log that stores at once unless told otherwise.
pub(crate) struct Kit {
    pub coordinator: Coordinator,
    pub topics: Topics,
    pub now: Now,
    pub log: Vec<RawRecord>,
    /// Appends that are not durable yet.
    pub held: Vec<(Ticket, Vec<RawRecord>)>,
    pub holds: bool,
    pub answers: BTreeMap<u64, GroupResponse>,
    next: u64,
}

impl Kit {
    pub fn new() -> Kit {
        Kit::with(GroupConfig::default())
    }

    pub fn with(config: GroupConfig) -> Kit {
        let mut kit = Kit {
            coordinator: Coordinator::new(config, 1),
            topics: Topics::default(),
            now: Now { monotonic_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 },
            log: Vec::new(),
            held: Vec::new(),
            holds: false,
            answers: BTreeMap::new(),
            next: 0,
        };
        let mut out = Vec::new();
        kit.coordinator.loaded(kit.now, &kit.topics, &mut out);
        kit
    }

    fn perform(&mut self, mut out: Vec<GroupEffect>) {
        while !out.is_empty() {
            let mut more = Vec::new();
            for effect in out {
                match effect {
                    GroupEffect::Append { ticket, records } if self.holds => {
                        self.held.push((ticket, records))
                    }
                    GroupEffect::Append { ticket, records } => {
                        self.log.extend(records);
                        self.coordinator.appended(self.now, ticket, &self.topics, &mut more);
                    }
                    GroupEffect::Answer { token, response } => {
                        assert!(self.answers.insert(token.0, response).is_none(), "answered twice");
                    }
                }
            }
            out = more;
        }
    }

    pub fn ask(&mut self, version: i16, request: GroupRequest) -> u64 {
        self.next += 1;
        let context = RequestContext {
            api_version: version,
            client_id: "client".to_string(),
            client_host: "/127.0.0.1".to_string(),
        };
        let mut out = Vec::new();
        let token = RequestToken(self.next);
        self.coordinator.handle(self.now, token, &context, request, &self.topics, &mut out);
        self.perform(out);
        self.next
    }

    /// Calls a method of the coordinator that `handle` only calls for classic requests.
    pub fn call<R>(
        &mut self,
        version: i16,
        act: impl FnOnce(&mut Coordinator, Asker<'_>, &mut Turn<'_>) -> R,
    ) -> (u64, R) {
        self.next += 1;
        let context = RequestContext {
            api_version: version,
            client_id: "classic".to_string(),
            client_host: "/127.0.0.1".to_string(),
        };
        let mut out = Vec::new();
        let asker = Asker { token: RequestToken(self.next), context: &context };
        let result = act(
            &mut self.coordinator,
            asker,
            &mut Turn { now: self.now, topics: &self.topics, out: &mut out },
        );
        self.perform(out);
        (self.next, result)
    }

    /// Stores the first `count` appends that are held, and refuses the others.
    pub fn settle_held(&mut self, count: usize) {
        let mut held = std::mem::take(&mut self.held);
        let refused = held.split_off(count.min(held.len()));
        let mut out = Vec::new();
        for (ticket, records) in held {
            self.log.extend(records);
            self.coordinator.appended(self.now, ticket, &self.topics, &mut out);
        }
        if let Some((ticket, _)) = refused.first() {
            let error = ErrorCode::NotLeaderOrFollower;
            self.coordinator.append_failed(self.now, *ticket, error, &self.topics, &mut out);
        }
        self.perform(out);
    }

    /// Refuses all appends that are held.
    pub fn fail_held(&mut self, error: ErrorCode) {
        let held = std::mem::take(&mut self.held);
        self.holds = false;
        let mut out = Vec::new();
        self.coordinator.append_failed(self.now, held[0].0, error, &self.topics, &mut out);
        self.perform(out);
    }

    pub fn beat(&mut self, request: ConsumerGroupHeartbeatRequestData) -> ConsumerGroupHeartbeatResponseData {
        self.beat_in(1, request)
    }

    pub fn beat_in(
        &mut self,
        version: i16,
        request: ConsumerGroupHeartbeatRequestData,
    ) -> ConsumerGroupHeartbeatResponseData {
        let token = self.ask(version, GroupRequest::ConsumerGroupHeartbeat(request));
        match self.answers.remove(&token) {
            Some(GroupResponse::ConsumerGroupHeartbeat(response)) => response,
            other => panic!("not answered with a heartbeat: {other:?}"),
        }
    }

    /// Lets time pass in one step, and does what is due.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now = Now {
            monotonic_ns: self.now.monotonic_ns + ms * 1_000_000,
            wall_ms: self.now.wall_ms + ms as i64,
        };
        let mut out = Vec::new();
        self.coordinator.tick(self.now, &self.topics, &mut out);
        self.perform(out);
    }

    pub fn group_or_none(&self) -> Option<&ConsumerGroup> {
        match self.coordinator.groups.get(GROUP) {
            Some(Group::Consumer(group)) => Some(group),
            _ => None,
        }
    }

    pub fn group(&self) -> &ConsumerGroup {
        match self.coordinator.groups.get(GROUP) {
            Some(Group::Consumer(group)) => group,
            other => panic!("no consumer group: {other:?}"),
        }
    }

    /// A coordinator that loaded this one's log has the same group, and so has one that loaded it compacted.
    pub fn check_replay(&self) {
        let mut last = BTreeMap::new();
        for (at, (key, _)) in self.log.iter().enumerate() {
            last.insert(key.clone(), at);
        }
        let compacted = self.log.iter().enumerate().filter(|(at, (key, _))| last[key] == *at);
        let compacted: Vec<RawRecord> = compacted.map(|(_, record)| record.clone()).collect();
        for log in [&self.log, &compacted] {
            let mut coordinator = Coordinator::new(GroupConfig::default(), 2);
            for (key, value) in log {
                coordinator.replay(key, value.as_deref()).expect("readable");
            }
            let Some(Group::Consumer(loaded)) = coordinator.groups.get(GROUP) else { panic!("not loaded") };
            let mut wanted = self.group().clone();
            wanted.seen_topics = None;
            wanted.last_target = None;
            assert_eq!(format!("{loaded:?}"), format!("{wanted:?}"));
        }
    }
}

pub(crate) fn join(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequestData {
    ConsumerGroupHeartbeatRequestData {
        group_id: text(GROUP),
        member_id: text(member),
        member_epoch: 0,
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(names(topics)),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

pub(crate) fn names(topics: &[&str]) -> Vec<KafkaString> {
    topics.iter().map(|name| text(name)).collect()
}

/// A heartbeat that says only that the member lives.
pub(crate) fn alive(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequestData {
    ConsumerGroupHeartbeatRequestData {
        group_id: text(GROUP),
        member_id: text(member),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..Default::default()
    }
}

/// A heartbeat that also says what the member owns.
pub(crate) fn owning(member: &str, epoch: i32, owned: &Assignment) -> ConsumerGroupHeartbeatRequestData {
    let topic = |(id, partitions): (&TopicId, &BTreeSet<i32>)| TopicPartitions {
        topic_id: KafkaUuid::from(id.0),
        partitions: partitions.iter().copied().collect(),
        ..Default::default()
    };
    ConsumerGroupHeartbeatRequestData {
        topic_partitions: Some(owned.iter().map(topic).collect()),
        ..alive(member, epoch)
    }
}

pub(crate) fn assignment(topics: &[(TopicId, &[i32])]) -> Assignment {
    topics.iter().map(|(id, partitions)| (*id, partitions.iter().copied().collect())).collect()
}

/// What an answer assigns; none if it says nothing of it.
pub(crate) fn given(response: &ConsumerGroupHeartbeatResponseData) -> Option<Assignment> {
    let assigned = response.assignment.as_ref()?;
    let topics = assigned.topic_partitions.iter();
    Some(topics.map(|t| (TopicId(t.topic_id.into()), t.partitions.iter().copied().collect())).collect())
}

pub(crate) fn error(response: &ConsumerGroupHeartbeatResponseData) -> i16 {
    response.error_code
}
