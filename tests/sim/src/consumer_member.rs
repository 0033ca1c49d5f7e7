//! A member of a KIP-848 group, as clients behave and misbehave: it joins, says that it lives, gives partitions back when it is
//! told to, at once or later, commits, reads what is committed, leaves, dies without a word, says the same twice, and commits
//! under an epoch that is over.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use pelton_wire::messages::{self as m, KafkaString, KafkaUuid, encode_request};

use crate::client::next_frame;
use crate::group_oracle::{GroupOracle, Register};
use crate::member::{commit_errors, fetch_body, fetched, read, text};
use crate::owner_oracle::Who;

/// `group.consumer.session.timeout.ms` of the runs.
pub const SESSION_MS: i32 = 500;
/// Rebalance timeout of a member that gives back what it must.
const REBALANCE_MS: i32 = 600_000;
/// Of one that is put out for being late.
const STUBBORN_REBALANCE_MS: i32 = 60;

const UNKNOWN_MEMBER: i16 = 25;
const GROUP_ID_NOT_FOUND: i16 = 69;
const FENCED_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE: i16 = 111;
const STALE_EPOCH: i16 = 113;
/// Ask again: the coordinator loads, is not there, or cannot store; a time-out.
const AGAIN: [i16; 7] = [7, 14, 15, 16, 56, -1, UNRELEASED_INSTANCE];

/// What a member waits for.
enum Ask {
    Heartbeat { version: i16, sent_ms: i64, floor: Option<i32> },
    Commit { parts: Vec<(Register, i64)>, is_stale: bool },
    Fetch { version: i16, registers: Vec<Register>, begun: u64 },
    Leave,
}

/// One member.
pub struct ConsumerMember {
    /// What to call it.
    pub name: String,
    /// The shard that has its group's coordinator.
    pub coordinator: u16,
    group: String,
    /// The one topic it reads, with its number of partitions.
    topic: (String, i32),
    topic_id: Option<KafkaUuid>,
    instance: Option<String>,
    /// It gives nothing back in time.
    stubborn: bool,
    goal: u64,
    operations: u64,
    member_id: String,
    epoch: i32,
    /// What it works with.
    owned: BTreeSet<i32>,
    /// The next heartbeat must say what it owns.
    has_news: bool,
    /// Partitions it still works with though it is told to give them back, and until when it keeps them.
    keeps_until_ms: i64,
    pending: VecDeque<(i32, Ask)>,
    correlation_id: i32,
    inbound: BytesMut,
    /// Bytes written to the connection and not yet received by the broker.
    pub outbound: BytesMut,
    /// True while connected.
    pub connected: bool,
    quiet_until_ms: i64,
    now_ms: i64,
    slowness_ms: u64,
}

impl ConsumerMember {
    /// A member that is not connected. `goal`: how many commits and reads it makes in all.
    pub fn new(
        name: &str,
        group: &str,
        coordinator: u16,
        topic: (String, i32),
        goal: u64,
        prng: &mut Prng,
    ) -> Self {
        ConsumerMember {
            name: name.to_string(),
            coordinator,
            group: group.to_string(),
            topic,
            topic_id: None,
            instance: None,
            stubborn: prng.one_in(8),
            goal,
            operations: 0,
            member_id: new_id(prng),
            epoch: 0,
            owned: BTreeSet::new(),
            has_news: true,
            keeps_until_ms: 0,
            pending: VecDeque::new(),
            correlation_id: 0,
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            connected: false,
            quiet_until_ms: 0,
            now_ms: 0,
            slowness_ms: [0, 0, 20, 100][prng.below(4) as usize],
        }
    }

    /// A static member (KIP-345).
    pub fn with_instance(mut self, instance: &str) -> Self {
        self.instance = Some(instance.to_string());
        self
    }

    /// True when it has done what it set out to do. From then on it is dead, without a word.
    pub fn is_done(&self) -> bool {
        self.operations >= self.goal
    }

    /// A new connection: what is said next is said in full.
    pub fn connect(&mut self) {
        self.connected = true;
        self.inbound.clear();
        self.outbound.clear();
        self.pending.clear();
        self.has_news = true;
    }

    /// The connection is gone: what was not answered is unknown.
    pub fn disconnect(&mut self) {
        self.connected = false;
        self.pending.clear();
        self.outbound.clear();
    }

    /// How the judge knows it. A static member that comes back has another id and the same place.
    fn who(&self) -> Who {
        (self.group.clone(), self.instance.clone().unwrap_or_else(|| self.member_id.clone()))
    }

    fn request<T: m::Message>(&mut self, api_key: ApiKey, version: i16, body: &T, ask: Ask) {
        self.correlation_id += 1;
        let frame = encode_request(api_key, version, self.correlation_id, "sim", body);
        self.outbound.extend_from_slice(&frame.expect("a request we build"));
        self.pending.push_back((self.correlation_id, ask));
    }

    /// Does one thing, if there is one to do.
    pub fn act(&mut self, prng: &mut Prng, now_ms: i64, oracle: &mut GroupOracle) {
        self.now_ms = now_ms;
        if !self.connected || self.is_done() || !self.pending.is_empty() || now_ms < self.quiet_until_ms {
            return;
        }
        if self.epoch == 0 || (self.has_news && now_ms >= self.keeps_until_ms) {
            self.quiet_until_ms = now_ms + prng.below(4) as i64;
            return self.heartbeat(prng, oracle, true);
        }
        match prng.below(24) {
            0..=7 => self.commit(prng, oracle, false),
            8..=10 => self.fetch(prng, oracle),
            11..=17 => {
                self.heartbeat(prng, oracle, false);
                self.quiet_until_ms = now_ms + prng.below(30) as i64;
            }
            18 | 19 => self.commit(prng, oracle, true),
            20 => self.leave(prng, oracle),
            21 if prng.one_in(2) => {
                // Dies without a word and comes back as somebody else.
                self.begin_anew();
                self.member_id = new_id(prng);
            }
            22 => {
                // The same twice: the first answer is late.
                self.heartbeat(prng, oracle, false);
                self.heartbeat(prng, oracle, false);
            }
            _ => self.quiet_until_ms = now_ms + prng.below(2 * SESSION_MS as u64) as i64 / 3,
        }
    }

    fn begin_anew(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.has_news = true;
        self.keeps_until_ms = 0;
    }

    fn heartbeat(&mut self, prng: &mut Prng, oracle: &mut GroupOracle, in_full: bool) {
        let version = prng.below(2) as i16;
        let mut body = m::ConsumerGroupHeartbeatRequestData {
            group_id: text(&self.group),
            member_id: text(&self.member_id),
            member_epoch: self.epoch,
            rebalance_timeout_ms: -1,
            instance_id: self.instance.as_deref().map(text),
            ..Default::default()
        };
        let mut floor = None;
        if in_full {
            body.rebalance_timeout_ms = if self.stubborn { STUBBORN_REBALANCE_MS } else { REBALANCE_MS };
            body.subscribed_topic_names = Some(vec![text(&self.topic.0)]);
            body.topic_partitions = Some(self.said());
            self.has_news = false;
            oracle.holders.gives_back(&self.who(), &self.owned);
        }
        if self.epoch == 0 {
            floor = Some(oracle.holders.epoch_floor(&self.group));
        }
        let ask = Ask::Heartbeat { version, sent_ms: self.now_ms, floor };
        self.request(ApiKey::ConsumerGroupHeartbeat, version, &body, ask);
    }

    fn said(&self) -> Vec<TopicPartitions> {
        let Some(topic_id) = self.topic_id.filter(|_| !self.owned.is_empty()) else { return Vec::new() };
        let partitions = self.owned.iter().copied().collect();
        vec![TopicPartitions { topic_id, partitions, ..Default::default() }]
    }

    fn leave(&mut self, prng: &mut Prng, oracle: &mut GroupOracle) {
        let for_a_while = self.instance.is_some() && prng.one_in(2);
        let body = m::ConsumerGroupHeartbeatRequestData {
            group_id: text(&self.group),
            member_id: text(&self.member_id),
            member_epoch: if for_a_while { -2 } else { -1 },
            rebalance_timeout_ms: -1,
            instance_id: self.instance.as_deref().map(text),
            ..Default::default()
        };
        oracle.holders.gives_back(&self.who(), &BTreeSet::new());
        self.request(ApiKey::ConsumerGroupHeartbeat, 0, &body, Ask::Leave);
        self.begin_anew();
        if for_a_while || prng.one_in(2) {
            self.member_id = new_id(prng);
        }
    }

    /// Commits some of what it owns; stale: under the epoch before, which must be refused.
    fn commit(&mut self, prng: &mut Prng, oracle: &mut GroupOracle, is_stale: bool) {
        let mut parts: Vec<(Register, i64)> = Vec::new();
        for partition in &self.owned {
            if prng.one_in(2) {
                let register = (self.group.clone(), self.topic.0.clone(), *partition);
                let offset = oracle.commit_begins(&register);
                parts.push((register, offset));
            }
        }
        if parts.is_empty() {
            return;
        }
        let partition = |((_, _, partition), offset): &(Register, i64)| {
            m::offset_commit_request::OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_metadata: Some(KafkaString::default()),
                ..Default::default()
            }
        };
        let topic = m::offset_commit_request::OffsetCommitRequestTopic {
            name: text(&self.topic.0),
            partitions: parts.iter().map(partition).collect(),
            ..Default::default()
        };
        let body = m::OffsetCommitRequestData {
            group_id: text(&self.group),
            generation_id_or_member_epoch: self.epoch - i32::from(is_stale),
            member_id: text(&self.member_id),
            group_instance_id: self.instance.as_deref().map(text),
            topics: vec![topic],
            ..Default::default()
        };
        self.request(ApiKey::OffsetCommit, 9, &body, Ask::Commit { parts, is_stale });
    }

    /// Reads what is committed of every partition, whoever owns it.
    fn fetch(&mut self, prng: &mut Prng, oracle: &mut GroupOracle) {
        let version = 1 + prng.below(9) as i16;
        let register = |partition| (self.group.clone(), self.topic.0.clone(), partition);
        let registers: Vec<Register> = (0..self.topic.1).map(register).collect();
        let body = fetch_body(&self.group, &registers, version);
        let begun = oracle.moment();
        self.request(ApiKey::OffsetFetch, version, &body, Ask::Fetch { version, registers, begun });
    }

    /// Takes bytes of the broker; what they say goes to the judge.
    pub fn receive(&mut self, bytes: &[u8], now_ms: i64, oracle: &mut GroupOracle) -> Result<(), String> {
        self.now_ms = now_ms;
        self.inbound.extend_from_slice(bytes);
        while let Some(frame) = next_frame(&mut self.inbound) {
            self.answer(frame, oracle)?;
        }
        Ok(())
    }

    fn answer(&mut self, frame: Bytes, oracle: &mut GroupOracle) -> Result<(), String> {
        let (expected, ask) = self.pending.pop_front().ok_or("an answer nobody asked for")?;
        let id = frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes));
        if id != Some(expected) {
            return Err(format!("answers out of order: {id:?} instead of {expected}"));
        }
        match ask {
            Ask::Heartbeat { version, sent_ms, floor } => {
                self.beaten(sent_ms, floor, read(ApiKey::ConsumerGroupHeartbeat, version, frame)?, oracle)
            }
            Ask::Commit { parts, is_stale } => {
                self.committed(&parts, is_stale, &read(ApiKey::OffsetCommit, 9, frame)?, oracle)
            }
            Ask::Fetch { version, registers, begun } => {
                let body: m::OffsetFetchResponseData = read(ApiKey::OffsetFetch, version, frame)?;
                self.read_back(&fetched(&body, version), registers.len(), begun, oracle)
            }
            // Whatever it says, the member is gone.
            Ask::Leave => Ok(()),
        }
    }

    /// What an error means for the member.
    fn judged(&mut self, what: &str, error: i16, oracle: &mut GroupOracle) -> Result<(), String> {
        match error {
            0 => {}
            UNKNOWN_MEMBER | FENCED_EPOCH | GROUP_ID_NOT_FOUND => {
                oracle.holders.gives_back(&self.who(), &BTreeSet::new());
                self.begin_anew();
            }
            // A heartbeat whose answer was lost had moved it on.
            STALE_EPOCH => {}
            error if AGAIN.contains(&error) => {}
            error => return Err(format!("{}: {what} error {error}", self.name)),
        }
        Ok(())
    }

    fn beaten(
        &mut self,
        sent_ms: i64,
        floor: Option<i32>,
        body: m::ConsumerGroupHeartbeatResponseData,
        oracle: &mut GroupOracle,
    ) -> Result<(), String> {
        if body.error_code != 0 {
            // What it wanted to say was not heard.
            self.has_news = true;
            return self.judged("heartbeat", body.error_code, oracle);
        }
        let who = self.who();
        oracle.holders.is_at(&who, &self.member_id, body.member_epoch, floor)?;
        self.epoch = body.member_epoch;
        // Put out no earlier than a session after this heartbeat was sent; a late one sooner.
        let session_ms = if self.stubborn { 0 } else { i64::from(SESSION_MS) };
        oracle.holders.lives(&who, sent_ms + session_ms);
        let Some(assignment) = body.assignment else { return Ok(()) };
        let mut given = BTreeSet::new();
        for topic in &assignment.topic_partitions {
            if *self.topic_id.get_or_insert(topic.topic_id) != topic.topic_id {
                return Err(format!("{}: was given a topic it does not read", self.name));
            }
            given.extend(topic.partitions.iter().copied());
        }
        if given.iter().any(|partition| !(0..self.topic.1).contains(partition)) {
            return Err(format!("{}: was given {given:?} of {}", self.name, self.topic.1));
        }
        oracle.assignments += 1;
        oracle.holders.given(&who, &given, self.now_ms)?;
        if given != self.owned {
            let gives_back = self.owned.difference(&given).next().is_some();
            self.has_news = true;
            self.keeps_until_ms = match (gives_back, self.stubborn) {
                (false, _) => 0,
                (true, false) => self.now_ms + self.slowness_ms as i64,
                (true, true) => self.now_ms + 4 * i64::from(STUBBORN_REBALANCE_MS),
            };
            self.owned = given;
        }
        Ok(())
    }

    fn committed(
        &mut self,
        parts: &[(Register, i64)],
        is_stale: bool,
        body: &m::OffsetCommitResponseData,
        oracle: &mut GroupOracle,
    ) -> Result<(), String> {
        let errors = commit_errors(&self.name, parts.len(), body)?;
        if is_stale {
            return match errors.contains(&0) {
                true => Err(format!("{}: a commit of an old member epoch was taken", self.name)),
                false => Ok(()),
            };
        }
        for ((register, offset), error) in parts.iter().zip(&errors) {
            match error {
                0 => oracle.committed(register, *offset),
                error => self.judged("commit", *error, oracle)?,
            }
        }
        self.operations += 1;
        Ok(())
    }

    fn read_back(
        &mut self,
        (error, offsets): &(i16, Vec<(String, i32, i64, i16)>),
        expected: usize,
        begun: u64,
        oracle: &mut GroupOracle,
    ) -> Result<(), String> {
        let mut errors = offsets.iter().map(|(_, _, _, error)| *error);
        let error = errors.find(|error| *error != 0).unwrap_or(*error);
        if error != 0 {
            return self.judged("offset fetch", error, oracle);
        }
        if offsets.len() != expected {
            return Err(format!("{}: {} offsets of {expected}", self.name, offsets.len()));
        }
        for (topic, partition, offset, _) in offsets {
            oracle.fetched(&(self.group.clone(), topic.clone(), *partition), begun, *offset)?;
        }
        self.operations += 1;
        Ok(())
    }
}

fn new_id(prng: &mut Prng) -> String {
    format!("{:016x}{:016x}", prng.next_u64(), prng.next_u64())
}
