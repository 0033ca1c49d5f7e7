//! A member of a group of the classic protocol, as clients behave and misbehave: it joins, syncs, commits, reads what is
//! committed, leaves, dies without a word, comes back, and commits under a generation that is over.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self as m, KafkaString, decode_response, encode_request};

use crate::client::next_frame;
use crate::group_oracle::{GroupOracle, Register};

mod answers;
mod assignment;

pub use answers::commit_errors;

const SESSION_MS: i32 = 400;
/// Of a member that is to live through the whole run.
const STEADY_SESSION_MS: i32 = 600_000;
const REBALANCE_MS: i32 = 200;

/// What a member waits for.
enum Ask {
    Join { version: i16 },
    Sync { version: i16, generation: i32 },
    Heartbeat { version: i16 },
    Commit { version: i16, parts: Vec<(Register, i64)>, is_stale: bool },
    Fetch { version: i16, registers: Vec<Register>, begun: u64 },
    Leave,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Wants to join.
    Out,
    /// Has joined and is to ask for its assignment.
    Joined,
    /// Has its assignment.
    In,
}

/// One member.
pub struct Member {
    /// What to call it.
    pub name: String,
    /// The shard that has its group's coordinator.
    pub coordinator: u16,
    group: String,
    /// Topics with their number of partitions.
    topics: Vec<(String, i32)>,
    instance: Option<String>,
    /// It never leaves and its session is long.
    steady: bool,
    goal: u64,
    operations: u64,
    state: State,
    member_id: String,
    generation: i32,
    /// As leader: the members of the generation.
    members: Vec<String>,
    is_leader: bool,
    protocol: String,
    owned: BTreeSet<(String, i32)>,
    pending: VecDeque<(i32, Ask)>,
    correlation_id: i32,
    inbound: BytesMut,
    /// Bytes written to the connection and not yet received by the broker.
    pub outbound: BytesMut,
    /// True while connected.
    pub connected: bool,
    quiet_until_ms: i64,
}

/// As Kafka writes it.
pub fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_string())
}

impl Member {
    /// A member that is not connected. `goal`: how many commits and reads it makes in all.
    pub fn new(name: &str, group: &str, coordinator: u16, topics: Vec<(String, i32)>, goal: u64) -> Member {
        Member {
            name: name.to_string(),
            coordinator,
            group: group.to_string(),
            topics,
            instance: None,
            steady: false,
            goal,
            operations: 0,
            state: State::Out,
            member_id: String::new(),
            generation: -1,
            members: Vec::new(),
            is_leader: false,
            protocol: String::new(),
            owned: BTreeSet::new(),
            pending: VecDeque::new(),
            correlation_id: 0,
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            connected: false,
            quiet_until_ms: 0,
        }
    }

    /// A static member (KIP-345).
    pub fn with_instance(mut self, instance: &str) -> Member {
        self.instance = Some(instance.to_string());
        self
    }

    /// A member that stays, and does little beyond heartbeats.
    pub fn steady(mut self) -> Member {
        self.steady = true;
        self
    }

    /// A steady member has stayed long enough.
    pub fn end_steady(&mut self) {
        if self.steady {
            self.goal = 0;
        }
    }

    /// True when it has done what it set out to do.
    pub fn is_done(&self) -> bool {
        self.operations >= self.goal
    }

    /// A new connection.
    pub fn connect(&mut self) {
        self.connected = true;
        self.inbound.clear();
        self.outbound.clear();
        self.pending.clear();
    }

    /// The connection is gone: what was not answered is unknown.
    pub fn disconnect(&mut self) {
        self.connected = false;
        self.pending.clear();
        self.outbound.clear();
        if self.state == State::Joined {
            self.state = State::Out;
        }
    }

    fn request<T: m::Message>(&mut self, api_key: ApiKey, version: i16, body: &T, ask: Ask) {
        self.correlation_id += 1;
        let frame = encode_request(api_key, version, self.correlation_id, "sim", body);
        self.outbound.extend_from_slice(&frame.expect("a request we build"));
        self.pending.push_back((self.correlation_id, ask));
    }

    /// Does one thing, if there is one to do.
    pub fn act(&mut self, prng: &mut Prng, now_ms: i64, oracle: &mut GroupOracle) {
        if !self.connected || self.is_done() || !self.pending.is_empty() || now_ms < self.quiet_until_ms {
            return;
        }
        match self.state {
            State::Out => self.join(prng),
            State::Joined => self.sync(prng),
            State::In if self.steady => {
                self.quiet_until_ms = now_ms + 200;
                match prng.below(8) {
                    // What it has committed long ago must still be there.
                    0 => self.fetch(prng, oracle),
                    1 if self.operations == 0 => self.commit(prng, oracle, false),
                    _ => self.heartbeat(prng),
                }
            }
            State::In => match prng.below(20) {
                0..=8 => self.commit(prng, oracle, false),
                9..=12 => self.fetch(prng, oracle),
                13..=15 => self.heartbeat(prng),
                16 => self.commit(prng, oracle, true),
                17 => self.leave(prng),
                18 => self.forget(),
                _ => {
                    // The same twice: the first answer is late.
                    self.heartbeat(prng);
                    self.heartbeat(prng);
                }
            },
        }
    }

    /// Dies without a word and comes back as somebody else.
    fn forget(&mut self) {
        (self.state, self.generation) = (State::Out, -1);
        self.member_id.clear();
        self.owned.clear();
    }

    fn join(&mut self, prng: &mut Prng) {
        let version = if self.instance.is_some() { 5 + prng.below(5) } else { prng.below(10) } as i16;
        let subscription = assignment::subscription(&self.topics);
        let names = if prng.one_in(2) { vec!["range", "roundrobin"] } else { vec!["range"] };
        let protocol = |name: &&str| m::join_group_request::JoinGroupRequestProtocol {
            name: text(name),
            metadata: subscription.clone(),
            ..Default::default()
        };
        let mut body = m::JoinGroupRequestData {
            group_id: text(&self.group),
            session_timeout_ms: if self.steady { STEADY_SESSION_MS } else { SESSION_MS },
            member_id: text(&self.member_id),
            protocol_type: text("consumer"),
            protocols: names.iter().map(protocol).collect(),
            ..Default::default()
        };
        if version >= 1 {
            body.rebalance_timeout_ms = REBALANCE_MS;
        }
        if version >= 5 {
            body.group_instance_id = self.instance.as_deref().map(text);
        }
        self.request(ApiKey::JoinGroup, version, &body, Ask::Join { version });
    }

    fn sync(&mut self, prng: &mut Prng) {
        let version = if self.instance.is_some() { 3 + prng.below(3) } else { prng.below(6) } as i16;
        let shares = assignment::shares(&self.topics, &self.members);
        let assignments = shares.into_iter().map(|(member, partitions)| {
            m::sync_group_request::SyncGroupRequestAssignment {
                member_id: text(&member),
                assignment: assignment::encode(&partitions),
                ..Default::default()
            }
        });
        let mut body = m::SyncGroupRequestData {
            group_id: text(&self.group),
            generation_id: self.generation,
            member_id: text(&self.member_id),
            assignments: if self.is_leader { assignments.collect() } else { Vec::new() },
            ..Default::default()
        };
        if version >= 3 {
            body.group_instance_id = self.instance.as_deref().map(text);
        }
        if version >= 5 {
            body.protocol_type = Some(text("consumer"));
            body.protocol_name = Some(text(&self.protocol));
        }
        let ask = Ask::Sync { version, generation: self.generation };
        self.request(ApiKey::SyncGroup, version, &body, ask);
    }

    fn heartbeat(&mut self, prng: &mut Prng) {
        let version = prng.below(5) as i16;
        let mut body = m::HeartbeatRequestData {
            group_id: text(&self.group),
            generation_id: self.generation,
            member_id: text(&self.member_id),
            ..Default::default()
        };
        if version >= 3 {
            body.group_instance_id = self.instance.as_deref().map(text);
        }
        self.request(ApiKey::Heartbeat, version, &body, Ask::Heartbeat { version });
    }

    fn leave(&mut self, prng: &mut Prng) {
        let version = prng.below(6) as i16;
        let mut body = m::LeaveGroupRequestData { group_id: text(&self.group), ..Default::default() };
        if version < 3 {
            body.member_id = text(&self.member_id);
        } else {
            body.members = vec![m::leave_group_request::MemberIdentity {
                member_id: text(&self.member_id),
                group_instance_id: self.instance.as_deref().map(text),
                ..Default::default()
            }];
        }
        self.request(ApiKey::LeaveGroup, version, &body, Ask::Leave);
        self.forget();
    }

    /// Commits some of what it owns; stale: under the generation before, which must be refused.
    fn commit(&mut self, prng: &mut Prng, oracle: &mut GroupOracle, is_stale: bool) {
        let version = 2 + prng.below(8) as i16;
        let mut parts: Vec<(Register, i64)> = Vec::new();
        for (topic, partition) in &self.owned {
            if self.steady || prng.one_in(2) {
                let register = (self.group.clone(), topic.clone(), *partition);
                let offset = oracle.commit_begins(&register);
                parts.push((register, offset));
            }
        }
        if parts.is_empty() {
            return;
        }
        let topic = |((_, topic, partition), offset): &(Register, i64)| {
            let partition = m::offset_commit_request::OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_metadata: Some(text("metadata")),
                ..Default::default()
            };
            m::offset_commit_request::OffsetCommitRequestTopic {
                name: text(topic),
                partitions: vec![partition],
                ..Default::default()
            }
        };
        let mut body = m::OffsetCommitRequestData {
            group_id: text(&self.group),
            generation_id_or_member_epoch: self.generation - i32::from(is_stale),
            member_id: text(&self.member_id),
            topics: parts.iter().map(topic).collect(),
            ..Default::default()
        };
        if version >= 7 {
            body.group_instance_id = self.instance.as_deref().map(text);
        }
        self.request(ApiKey::OffsetCommit, version, &body, Ask::Commit { version, parts, is_stale });
    }

    /// Reads what is committed of every partition, whoever owns it.
    fn fetch(&mut self, prng: &mut Prng, oracle: &mut GroupOracle) {
        let version = 1 + prng.below(9) as i16;
        let partitions = assignment::all(&self.topics);
        let registers: Vec<Register> =
            partitions.into_iter().map(|(topic, partition)| (self.group.clone(), topic, partition)).collect();
        let body = fetch_body(&self.group, &registers, version);
        let begun = oracle.moment();
        self.request(ApiKey::OffsetFetch, version, &body, Ask::Fetch { version, registers, begun });
    }

    /// Takes bytes of the broker; what they say goes to the judge.
    pub fn receive(&mut self, bytes: &[u8], oracle: &mut GroupOracle) -> Result<(), String> {
        self.inbound.extend_from_slice(bytes);
        while let Some(frame) = next_frame(&mut self.inbound) {
            self.answer(frame, oracle)?;
        }
        Ok(())
    }
}

/// An OffsetFetch of these registers, all of one group.
pub fn fetch_body(group: &str, registers: &[Register], version: i16) -> m::OffsetFetchRequestData {
    if version < 8 {
        let topics =
            registers.iter().map(|(_, topic, partition)| m::offset_fetch_request::OffsetFetchRequestTopic {
                name: text(topic),
                partition_indexes: vec![*partition],
                ..Default::default()
            });
        return m::OffsetFetchRequestData {
            group_id: text(group),
            topics: Some(topics.collect()),
            ..Default::default()
        };
    }
    let topics =
        registers.iter().map(|(_, topic, partition)| m::offset_fetch_request::OffsetFetchRequestTopics {
            name: text(topic),
            partition_indexes: vec![*partition],
            ..Default::default()
        });
    let group = m::offset_fetch_request::OffsetFetchRequestGroup {
        group_id: text(group),
        topics: Some(topics.collect()),
        ..Default::default()
    };
    m::OffsetFetchRequestData { groups: vec![group], ..Default::default() }
}

/// What an OffsetFetch answered: the error of the whole, and each partition's offset.
pub fn fetched(body: &m::OffsetFetchResponseData, version: i16) -> (i16, Vec<(String, i32, i64, i16)>) {
    if version < 8 {
        let all = body.topics.iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic
                .partitions
                .iter()
                .map(move |p| (name.clone(), p.partition_index, p.committed_offset, p.error_code))
        });
        return (body.error_code, all.collect());
    }
    let Some(group) = body.groups.first() else { return (-1, Vec::new()) };
    let all = group.topics.iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic
            .partitions
            .iter()
            .map(move |p| (name.clone(), p.partition_index, p.committed_offset, p.error_code))
    });
    (group.error_code, all.collect())
}

/// An answer of this version.
pub fn read<T: m::Message>(api_key: ApiKey, version: i16, frame: Bytes) -> Result<T, String> {
    let body = decode_response(api_key, version, frame);
    body.map(|(_, body)| body).map_err(|error| format!("{} answer: {error}", api_key.name()))
}
