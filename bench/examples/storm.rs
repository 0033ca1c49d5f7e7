//! What a thousand group members that come at once cost a shard: `storm [MEMBERS]` prints, for each thing they do, the time of the
//! shard's turns in all and of the longest one, answers encoded, sends and system calls left out. Disk and clients are simulated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pelton_bench::frames;
use pelton_log::DiskImage;
use pelton_log::disk::DiskDone;
use pelton_model::{BrokerConfig, ConnectionId, GroupConfig, Now, ShardId};
use pelton_shard::{Effect, Event, SendPart, Shard};
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::join_group_request::JoinGroupRequestProtocol;
use pelton_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use pelton_wire::messages::{self as m, KafkaString, Message, decode_response, encode_request};

/// What the reactor takes in one turn at most.
const EVENTS_PER_TURN: usize = 512;
const TOPIC: &str = "storm";
const PARTITIONS: i32 = 100;
const START: Now = Now { monotonic_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 };

struct Broker {
    shard: Shard,
    now: Now,
    events: VecDeque<Event>,
    answers: Vec<Bytes>,
    answered: usize,
    turns: Vec<Duration>,
    most_answers: usize,
}

fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_string())
}

impl Broker {
    fn new(members: usize) -> Broker {
        let group = GroupConfig { initial_rebalance_delay_ms: 1000, ..GroupConfig::default() };
        let config = BrokerConfig { offsets_topic_partitions: 1, group, ..BrokerConfig::defaults() };
        let mut effects = Vec::new();
        let shard = Shard::new(Arc::new(config), ShardId(0), DiskImage::default(), 1, START, &mut effects);
        let mut broker = Broker {
            shard: shard.expect("an empty disk"),
            now: START,
            events: VecDeque::new(),
            answers: vec![Bytes::new(); members],
            answered: 0,
            turns: Vec::new(),
            most_answers: 0,
        };
        broker.perform(effects);
        for id in 0..members as u64 {
            broker
                .events
                .push_back(Event::Accepted { connection: ConnectionId(id), peer: "storm".to_string() });
        }
        broker.settle();
        broker.received(0, frames::create_topics(1, TOPIC, PARTITIONS, 1, &[]));
        broker.settle();
        let find = m::FindCoordinatorRequestData { key: text("any"), ..Default::default() };
        broker.ask(0, ApiKey::FindCoordinator, 1, &find);
        broker.settle();
        broker
    }

    fn received(&mut self, connection: usize, frame: impl Into<Bytes>) {
        let connection = ConnectionId(connection as u64);
        self.events.push_back(Event::Received { connection, bytes: frame.into() });
    }

    fn ask<T: Message>(&mut self, connection: usize, api_key: ApiKey, version: i16, body: &T) {
        let frame = encode_request(api_key, version, 1, "storm", body).expect("ours");
        self.received(connection, frame);
    }

    fn perform(&mut self, effects: Vec<Effect>) -> usize {
        let mut sends = 0;
        for effect in effects {
            match effect {
                Effect::Send { connection, parts } => {
                    let bytes = parts.iter().map(SendPart::length).sum();
                    self.events.push_back(Event::Sent { connection, bytes });
                    if let (Some(SendPart::Bytes(bytes)), Some(answer)) =
                        (parts.into_iter().next(), self.answers.get_mut(connection.0 as usize))
                    {
                        *answer = bytes.slice(4..);
                    }
                    sends += 1;
                }
                Effect::Disk(effect) => {
                    let done = DiskDone { ticket: effect.ticket(), result: Ok(Bytes::new()) };
                    self.events.push_back(Event::Disk(done));
                }
                Effect::Close { reason, .. } => panic!("closed: {reason}"),
                Effect::Fatal { text } => panic!("{text}"),
                _ => {}
            }
        }
        sends
    }

    fn turn(&mut self) {
        let (mut effects, began) = (Vec::new(), Instant::now());
        for _ in 0..EVENTS_PER_TURN.min(self.events.len()) {
            let Some(event) = self.events.pop_front() else { break };
            self.shard.handle(self.now, event, &mut effects);
        }
        if self.shard.deadline().is_some_and(|deadline| deadline <= self.now.monotonic_ns) {
            self.shard.handle(self.now, Event::Tick, &mut effects);
        }
        self.shard.end_turn(self.now, &mut effects);
        self.turns.push(began.elapsed());
        let sends = self.perform(effects);
        self.most_answers = self.most_answers.max(sends);
        self.answered += sends;
        self.now.monotonic_ns += 100_000;
    }

    /// Turns until nothing is left to do at once.
    fn settle(&mut self) {
        let soon = |broker: &Broker| {
            broker.shard.deadline().is_some_and(|deadline| deadline <= broker.now.monotonic_ns + 1_000)
        };
        while !self.events.is_empty() || soon(self) {
            self.turn();
        }
    }

    /// Turns until the members have got so many answers; time passes.
    fn until(&mut self, answers: usize) {
        for _ in 0..1_000_000 {
            if self.answered >= answers {
                return self.settle();
            }
            self.turn();
        }
        panic!("{} of {answers} answers", self.answered);
    }

    fn begin(&mut self) {
        self.turns.clear();
        (self.answered, self.most_answers) = (0, 0);
    }

    fn end(&self, name: &str) {
        let all: Duration = self.turns.iter().sum();
        let longest = self.turns.iter().max().copied().unwrap_or_default();
        println!(
            "| {name} | {:.1} | {:.1} | {} | {} |",
            all.as_secs_f64() * 1e6 / self.answers.len() as f64,
            longest.as_secs_f64() * 1e6,
            self.turns.len(),
            self.most_answers
        );
    }
}

fn read<T: Message>(api_key: ApiKey, version: i16, answer: &Bytes) -> T {
    decode_response::<T>(api_key, version, answer.clone()).expect("an answer").1
}

fn join_all(broker: &mut Broker, ids: &mut [String]) -> i32 {
    let subscription = [0, 1, 0, 0, 0, 1, 0, 5, b's', b't', b'o', b'r', b'm', 255, 255, 255, 255, 0, 0, 0, 0];
    let protocol = |name| JoinGroupRequestProtocol {
        name: KafkaString::from_static(name),
        metadata: Bytes::copy_from_slice(&subscription),
        ..Default::default()
    };
    for (index, id) in ids.iter().enumerate() {
        let join = m::JoinGroupRequestData {
            group_id: text("classic"),
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: 60_000,
            member_id: text(id),
            protocol_type: text("consumer"),
            protocols: vec![protocol("range"), protocol("cooperative-sticky")],
            ..Default::default()
        };
        broker.ask(index, ApiKey::JoinGroup, 3, &join);
    }
    broker.until(ids.len());
    let mut generation = 0;
    for (id, answer) in ids.iter_mut().zip(&broker.answers) {
        let answer: m::JoinGroupResponseData = read(ApiKey::JoinGroup, 3, answer);
        assert_eq!(answer.error_code, 0);
        *id = answer.member_id.to_string();
        generation = answer.generation_id;
    }
    generation
}

fn sync_all(broker: &mut Broker, ids: &[String], generation: i32) {
    let given = |id: &String| SyncGroupRequestAssignment {
        member_id: text(id),
        assignment: Bytes::from_static(&[7; 40]),
        ..Default::default()
    };
    for (index, id) in ids.iter().enumerate() {
        let joined: m::JoinGroupResponseData = read(ApiKey::JoinGroup, 3, &broker.answers[index]);
        let sync = m::SyncGroupRequestData {
            group_id: text("classic"),
            generation_id: generation,
            member_id: text(id),
            assignments: if joined.leader == joined.member_id {
                ids.iter().map(given).collect()
            } else {
                vec![]
            },
            ..Default::default()
        };
        broker.ask(index, ApiKey::SyncGroup, 2, &sync);
    }
    broker.until(ids.len());
}

fn beat_all(broker: &mut Broker, joins: bool) {
    let members = broker.answers.len();
    for index in 0..members {
        let member_epoch = match joins {
            true => 0,
            false => {
                read::<m::ConsumerGroupHeartbeatResponseData>(
                    ApiKey::ConsumerGroupHeartbeat,
                    0,
                    &broker.answers[index],
                )
                .member_epoch
            }
        };
        let beat = m::ConsumerGroupHeartbeatRequestData {
            group_id: text("consumer"),
            member_id: text(&format!("member-{index:05}")),
            member_epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![text(TOPIC)]),
            topic_partitions: joins.then(Vec::new),
            ..Default::default()
        };
        broker.ask(index, ApiKey::ConsumerGroupHeartbeat, 0, &beat);
    }
    broker.until(members);
    for answer in &broker.answers {
        let answer: m::ConsumerGroupHeartbeatResponseData = read(ApiKey::ConsumerGroupHeartbeat, 0, answer);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    }
}

fn main() {
    let members = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let mut broker = Broker::new(members);
    println!(
        "| {members} members | us a member | longest turn us | turns | answers in a turn |\n|---|---|---|---|---|"
    );
    let mut ids = vec![String::new(); members];
    for round in ["a new classic group", "the same members again"] {
        broker.begin();
        let generation = join_all(&mut broker, &mut ids);
        broker.end(&format!("join, {round}"));
        broker.begin();
        sync_all(&mut broker, &ids, generation);
        broker.end(&format!("sync, {round}"));
    }
    broker.begin();
    beat_all(&mut broker, true);
    broker.end("join, a new group of KIP-848");
    broker.now.monotonic_ns += 2_000_000_000;
    broker.begin();
    beat_all(&mut broker, false);
    broker.end("heartbeat, the same group");
    broker.begin();
    beat_all(&mut broker, false);
    broker.end("heartbeat, settled");
}
