//! A coordinator with a virtual clock and a log that stores at once, or holds what it is given until told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use pelton_model::{Now, TopicId};
use pelton_wire::error_code::ErrorCode;

use crate::records::RawRecord;
use crate::{
    Coordinator, GroupConfig, GroupEffect, GroupRequest, GroupResponse, RequestContext, RequestToken, Ticket,
    TopicsView,
};

pub(super) const GROUP: &str = "g";

/// A cluster with the topic `t` of four partitions.
pub(super) struct Topics;

impl TopicsView for Topics {
    fn version(&self) -> u64 {
        1
    }
    fn topic(&self, name: &str) -> Option<(TopicId, i32)> {
        (name == "t").then_some((TopicId(uuid::Uuid::from_u64_pair(0, 1)), 4))
    }
    fn topic_by_id(&self, id: TopicId) -> Option<(&str, i32)> {
        (id.0.as_u64_pair() == (0, 1)).then_some(("t", 4))
    }
    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        each("t");
    }
}

pub(super) struct Kit {
    pub coordinator: Coordinator,
    pub config: GroupConfig,
    pub now: Now,
    /// What is durable.
    pub log: Vec<RawRecord>,
    /// Appends that are not durable yet.
    pub held: Vec<(Ticket, Vec<RawRecord>)>,
    pub holds: bool,
    pub client_id: &'static str,
    versions: BTreeMap<u64, i16>,
    answers: BTreeMap<u64, GroupResponse>,
    answered: BTreeSet<u64>,
}

impl Kit {
    pub fn new() -> Kit {
        Kit::with(GroupConfig::default())
    }

    pub fn with(config: GroupConfig) -> Kit {
        let mut kit = Kit {
            coordinator: Coordinator::new(config.clone(), 1),
            config,
            now: Now { monotonic_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 },
            log: Vec::new(),
            held: Vec::new(),
            holds: false,
            client_id: "client",
            versions: BTreeMap::new(),
            answers: BTreeMap::new(),
            answered: BTreeSet::new(),
        };
        kit.load();
        kit
    }

    fn load(&mut self) {
        for (key, value) in &self.log {
            self.coordinator.replay(key, value.as_deref()).expect("readable");
        }
        let mut out = Vec::new();
        self.coordinator.loaded(self.now, &Topics, &mut out);
        self.perform(out);
    }

    /// A crash: what is not durable is gone, who waits gets no answer.
    pub fn restart(&mut self) {
        self.held.clear();
        // Nobody hears from a coordinator that is gone.
        self.answered = self.versions.keys().copied().collect();
        self.coordinator = Coordinator::new(self.config.clone(), self.coordinator.random.next_u64());
        self.load();
    }

    fn perform(&mut self, mut out: Vec<GroupEffect>) {
        while !out.is_empty() {
            let mut more = Vec::new();
            for effect in out {
                match effect {
                    GroupEffect::Append { ticket, records } => {
                        assert!(!records.is_empty(), "nothing to append");
                        if self.holds {
                            self.held.push((ticket, records));
                            continue;
                        }
                        self.log.extend(records);
                        self.coordinator.appended(self.now, ticket, &Topics, &mut more);
                    }
                    GroupEffect::Answer { token, response } => {
                        encode(self.versions[&token.0], &response);
                        assert!(self.answered.insert(token.0), "answered twice: {response:?}");
                        self.answers.insert(token.0, response);
                    }
                }
            }
            out = more;
        }
    }

    pub fn ask(&mut self, version: i16, request: GroupRequest) -> u64 {
        let token = self.versions.len() as u64;
        self.versions.insert(token, version);
        let context = RequestContext {
            api_version: version,
            client_id: self.client_id.to_string(),
            client_host: "/127.0.0.1".to_string(),
        };
        let mut out = Vec::new();
        self.coordinator.handle(self.now, RequestToken(token), &context, request, &Topics, &mut out);
        self.perform(out);
        token
    }

    /// The answer to a request, once; none while it waits.
    pub fn take(&mut self, token: u64) -> Option<GroupResponse> {
        self.answers.remove(&token)
    }

    /// Lets time pass; what is due is done at its time.
    pub fn pass_ms(&mut self, ms: u64) {
        let end_ns = self.now.monotonic_ns + ms * 1_000_000;
        while let Some(due_ns) = self.coordinator.deadline().filter(|due_ns| *due_ns <= end_ns) {
            self.set_time(due_ns.max(self.now.monotonic_ns));
            let mut out = Vec::new();
            self.coordinator.tick(self.now, &Topics, &mut out);
            self.perform(out);
        }
        self.set_time(end_ns);
    }

    fn set_time(&mut self, monotonic_ns: u64) {
        let passed_ms = (monotonic_ns - self.now.monotonic_ns) / 1_000_000;
        self.now = Now { monotonic_ns, wall_ms: self.now.wall_ms + passed_ms as i64 };
    }

    /// What is held becomes durable, and the log stores at once again.
    pub fn store_held(&mut self) {
        self.holds = false;
        let mut out = Vec::new();
        for (ticket, records) in std::mem::take(&mut self.held) {
            self.log.extend(records);
            self.coordinator.appended(self.now, ticket, &Topics, &mut out);
        }
        self.perform(out);
    }

    /// What is held is refused, and the log stores at once again.
    pub fn fail_held(&mut self, error: ErrorCode) {
        self.holds = false;
        let Some((ticket, _)) = std::mem::take(&mut self.held).into_iter().next() else { return };
        let mut out = Vec::new();
        self.coordinator.append_failed(self.now, ticket, error, &Topics, &mut out);
        self.perform(out);
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.versions.len() - self.answered.len()
    }
}

/// Every answer can be written in its version.
fn encode(version: i16, response: &GroupResponse) {
    let mut bytes = BytesMut::new();
    let written = match response {
        GroupResponse::OffsetCommit(response) => response.write(&mut bytes, version),
        GroupResponse::OffsetFetch(response) => response.write(&mut bytes, version),
        GroupResponse::OffsetDelete(response) => response.write(&mut bytes, version),
        GroupResponse::JoinGroup(response) => response.write(&mut bytes, version),
        GroupResponse::SyncGroup(response) => response.write(&mut bytes, version),
        GroupResponse::Heartbeat(response) => response.write(&mut bytes, version),
        GroupResponse::LeaveGroup(response) => response.write(&mut bytes, version),
        GroupResponse::ListGroups(response) => response.write(&mut bytes, version),
        GroupResponse::DescribeGroups(response) => response.write(&mut bytes, version),
        GroupResponse::DeleteGroups(response) => response.write(&mut bytes, version),
        GroupResponse::ConsumerGroupHeartbeat(response) => response.write(&mut bytes, version),
        GroupResponse::ConsumerGroupDescribe(response) => response.write(&mut bytes, version),
    };
    written.expect("an answer that its version has");
}
