//! Clients: one request at a time, over one connection at a time, to whoever they believe leads; told otherwise they look for
//! the leader in the metadata of any node, as Kafka's clients do.

use bytes::{Bytes, BytesMut};
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::compression::Codec;
use pelton_wire::messages::{self as m, KafkaString};
use pelton_wire::records::BatchBuilder;

use super::bodies::{alter_body, create_body, decoded, encoded};
use super::churn::Churn;
use super::leads::Leads;
use super::moves::Moves;
use super::node::place_of_port;
use super::register::Register;
use super::trim::Trim;
use super::{Judges, MS, Place, What, World};
use crate::client::{fetch_body, next_frame, offset_body, payload};

/// Longest time a client waits for an answer before it hangs up.
const PATIENCE_MS: i64 = 10_000;

/// What a client does.
pub enum Task {
    /// Sends batches to one partition, each until it is acknowledged.
    Produce {
        partition: i32,
        goal: u64,
        acks: i16,
        done: u64,
        records: i32,
        size_bytes: usize,
        base_sequence: i32,
        /// Behind what was acknowledged when the batch was sent first.
        least: i64,
        /// Nothing acknowledged is lost, also with `acks=1`.
        kept: bool,
    },
    /// Reads one partition from `next` on, in the end up to `goal` records; from one of its replicas, or from whoever leads.
    Read { partition: i32, next: i64, goal: u64, found: u64, replica: Option<usize> },
    /// Asks so often for the end of a partition, which must not be before what was acknowledged when it asked (I14): the
    /// answer of a leader that has been replaced would be.
    Latest { partition: i32, goal: u64, answers: u64, least: i64 },
    /// Commits and reads an offset of a group.
    Group(Register),
    /// Moves replicas away and back.
    Move(Moves),
    /// Sends the leader from replica to replica.
    Lead(Leads),
    /// Wants this topic.
    Create { configs: Vec<(&'static str, String)>, partitions: i32, created: bool },
    /// Sets `min.insync.replicas` so many times.
    Alter { goal: u64, done: u64 },
    /// Makes a topic, uses it, deletes it, and again.
    Churn(Churn),
    /// Deletes records.
    Trim(Trim),
}

impl Task {
    /// So many batches.
    pub fn produce(partition: i32, goal: u64, acks: i16) -> Task {
        let (done, records, size_bytes, base_sequence, least, kept) = (0, 0, 0, 0, 0, acks == -1);
        Task::Produce { partition, goal, acks, done, records, size_bytes, base_sequence, least, kept }
    }

    /// So many records.
    pub fn read(partition: i32, goal: u64) -> Task {
        Task::Read { partition, next: 0, goal, found: 0, replica: None }
    }

    /// The same, of the replica in this place of the list.
    pub fn read_replica(partition: i32, goal: u64, replica: usize) -> Task {
        Task::Read { partition, next: 0, goal, found: 0, replica: Some(replica) }
    }
}

enum Asked {
    Metadata,
    Task,
}

/// A client.
pub struct Client {
    pub id: u32,
    pub topic: &'static str,
    pub task: Task,
    /// Whom it believes to lead.
    pub leader: Option<Place>,
    connection: Option<(u64, Place)>,
    asked: Option<(Asked, i16, i32, i64)>,
    /// Names when it acts next.
    pub turn: u64,
    /// Longest time until the next request, once one has been answered.
    pub pace_ns: u64,
    correlation_id: i32,
    inbound: BytesMut,
    /// What it was told last, for an error.
    pub last: String,
}

/// What comes next for a client.
pub enum Next {
    /// It goes on.
    On,
    /// Whoever it asked is not the one to ask.
    Moved,
    /// It tries again after a while.
    Again,
}

impl Client {
    pub fn new(id: u32, topic: &'static str, task: Task) -> Client {
        Client {
            id,
            topic,
            task,
            leader: None,
            connection: None,
            asked: None,
            turn: 0,
            pace_ns: 4 * MS,
            correlation_id: 0,
            inbound: BytesMut::new(),
            last: String::new(),
        }
    }

    /// True when it has done what it set out to do.
    pub fn is_done(&self) -> bool {
        match &self.task {
            Task::Produce { goal, done, .. } => done >= goal,
            Task::Read { goal, found, .. } => found >= goal,
            Task::Latest { goal, answers, .. } => answers >= goal,
            Task::Group(register) => register.is_done(),
            Task::Move(moves) => moves.is_done(),
            Task::Lead(leads) => leads.is_done(),
            Task::Create { created, .. } => *created,
            Task::Alter { goal, done } => done >= goal,
            Task::Churn(churn) => churn.is_done(),
            Task::Trim(trim) => trim.is_done(),
        }
    }

    /// For an error.
    pub fn text(&self) -> String {
        let what = match &self.task {
            Task::Produce { partition, goal, done, .. } => {
                format!("produced {done} of {goal} to {partition}")
            }
            Task::Read { partition, goal, found, next, replica } => {
                format!("read {found} of {goal} of {partition}, replica {replica:?}, next {next}")
            }
            Task::Latest { partition, goal, answers, .. } => {
                format!("asked {answers} of {goal} of {partition}")
            }
            Task::Group(register) => register.text(),
            Task::Move(moves) => moves.text(),
            Task::Lead(leads) => leads.text(),
            Task::Create { .. } => "wants its topic".to_string(),
            Task::Alter { goal, done } => format!("altered {done} of {goal}"),
            Task::Churn(churn) => churn.text(),
            Task::Trim(trim) => trim.text(),
        };
        format!("client {} of {} {what}, leader {:?}, last: {}", self.id, self.topic, self.leader, self.last)
    }

    pub fn disconnected(&mut self, id: u64) {
        if self.connection.is_some_and(|(own, _)| own == id) {
            self.connection = None;
            self.asked = None;
            self.leader = None;
            self.last = "disconnected".to_string();
        }
    }

    /// The next request: which, version, and its frame.
    fn next(&mut self, prng: &mut Prng, now_ms: i64, judges: &mut Judges) -> (Asked, i16, Vec<u8>) {
        self.correlation_id += 1;
        let id = self.correlation_id;
        if self.leader.is_none() {
            if let Task::Group(register) = &mut self.task {
                let (version, frame) = register.find(id);
                return (Asked::Metadata, version, frame);
            }
            let topics = vec![m::MetadataRequestTopic {
                name: Some(KafkaString::from_static(self.topic)),
                ..Default::default()
            }];
            let body = m::MetadataRequestData {
                topics: Some(topics),
                allow_auto_topic_creation: false,
                ..Default::default()
            };
            return (Asked::Metadata, 9, encoded(ApiKey::Metadata, 9, id, &body));
        }
        match &mut self.task {
            Task::Produce { .. } => (Asked::Task, 9, self.produce(prng, id, now_ms, judges)),
            Task::Read { partition, next, .. } => {
                let body = fetch_body(self.topic, *partition, *next, prng);
                (Asked::Task, 11, encoded(ApiKey::Fetch, 11, id, &body))
            }
            Task::Latest { partition, least, .. } => {
                *least = judges.end(self.topic, *partition);
                let body = offset_body(self.topic, *partition, -1);
                (Asked::Task, 5, encoded(ApiKey::ListOffsets, 5, id, &body))
            }
            Task::Group(register) => {
                let (version, frame) = register.next(id);
                (Asked::Task, version, frame)
            }
            Task::Move(moves) => {
                let (version, frame) = moves.next(self.topic, id, prng);
                (Asked::Task, version, frame)
            }
            Task::Lead(leads) => {
                let (version, frame) = leads.next(self.topic, id, prng);
                (Asked::Task, version, frame)
            }
            Task::Create { configs, partitions, .. } => {
                let body = create_body(self.topic, configs, *partitions);
                (Asked::Task, 5, encoded(ApiKey::CreateTopics, 5, id, &body))
            }
            Task::Alter { done, .. } => {
                let body = alter_body(self.topic, 1 + *done % 2);
                (Asked::Task, 1, encoded(ApiKey::IncrementalAlterConfigs, 1, id, &body))
            }
            Task::Churn(churn) => {
                let (version, frame) = churn.next(self.topic, self.id, id, now_ms);
                (Asked::Task, version, frame)
            }
            Task::Trim(trim) => {
                let (version, frame) = trim.next(self.topic, id, judges);
                (Asked::Task, version, frame)
            }
        }
    }

    fn produce(&mut self, prng: &mut Prng, id: i32, now_ms: i64, judges: &mut Judges) -> Vec<u8> {
        let Task::Produce { partition, acks, done, records, size_bytes, base_sequence, least, .. } =
            &mut self.task
        else {
            return Vec::new();
        };
        if *records == 0 {
            *records = 1 + prng.below(3) as i32;
            *size_bytes = if prng.one_in(6) { prng.below(9_000) } else { prng.below(300) } as usize;
            *least = judges.end(self.topic, *partition);
        }
        judges.records.sent(self.id, *done, *records, self.topic, *partition, now_ms);
        let mut builder =
            BatchBuilder::new(Codec::None).producer(1000 + i64::from(self.id), 0, *base_sequence);
        for index in 0..*records {
            let value = vec![*done as u8; *size_bytes];
            builder.add(now_ms, Some(&payload(self.id, *done, index)), Some(&value), &[]);
        }
        let records = Bytes::from(builder.build().expect("a batch we build"));
        let body = m::ProduceRequestData {
            acks: *acks,
            timeout_ms: 2_000,
            topic_data: vec![m::produce_request::TopicProduceData {
                name: KafkaString::from_static(self.topic),
                partition_data: vec![m::produce_request::PartitionProduceData {
                    index: *partition,
                    records: Some(records),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        encoded(ApiKey::Produce, 9, id, &body)
    }

    fn answer(&mut self, frame: Bytes, judges: &mut Judges) -> Result<Next, String> {
        let Some((asked, version, expected, _)) = self.asked.take() else {
            return Err("an answer nobody asked for".to_string());
        };
        let id = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        if id != expected {
            return Err(format!("answer {id} instead of {expected}"));
        }
        match (asked, &mut self.task) {
            (Asked::Metadata, Task::Group(register)) => {
                self.leader = register.found(version, frame)?;
                Ok(if self.leader.is_some() { Next::On } else { Next::Again })
            }
            (Asked::Metadata, _) => self.learn(frame),
            (Asked::Task, Task::Group(register)) => {
                let next = register.answered(version, frame, judges);
                self.last = register.text();
                next
            }
            (Asked::Task, Task::Move(moves)) => {
                let next = moves.answered(version, frame);
                self.last = moves.text();
                next
            }
            (Asked::Task, Task::Lead(leads)) => {
                let next = leads.answered(version, frame);
                self.last = leads.text();
                next
            }
            (Asked::Task, Task::Create { created, .. }) => {
                let body: m::CreateTopicsResponseData = decoded(ApiKey::CreateTopics, version, frame)?;
                let code = body.topics.first().map_or(-1, |topic| topic.error_code);
                self.last = format!("create {code}");
                match code {
                    // Done, or done by an earlier request whose answer was lost.
                    0 | 36 => *created = true,
                    // Not enough nodes are there yet, or nobody has decided.
                    7 | 38 => return Ok(Next::Again),
                    code => return Err(format!("create topic {}: error {code}", self.topic)),
                }
                Ok(Next::On)
            }
            (Asked::Task, Task::Alter { done, .. }) => {
                let body: m::IncrementalAlterConfigsResponseData =
                    decoded(ApiKey::IncrementalAlterConfigs, version, frame)?;
                let code = body.responses.first().map_or(-1, |resource| resource.error_code);
                self.last = format!("alter {code}");
                match code {
                    0 => *done += 1,
                    7 => {}
                    code => return Err(format!("alter {}: error {code}", self.topic)),
                }
                Ok(Next::Again)
            }
            (Asked::Task, Task::Churn(churn)) => {
                let next = churn.answered(version, frame, judges);
                self.last = churn.text();
                next
            }
            (Asked::Task, Task::Trim(trim)) => {
                let next = trim.answered(version, frame, judges);
                self.last = trim.text();
                next
            }
            (Asked::Task, Task::Produce { .. }) => self.produced(version, frame, judges),
            (Asked::Task, Task::Read { .. }) => self.fetched(version, frame, judges),
            (Asked::Task, Task::Latest { .. }) => self.told(version, frame, judges.fresh),
        }
    }

    /// It reads whatever replica there is (KIP-392), or a certain one.
    fn reads_any(&self) -> bool {
        matches!(self.task, Task::Read { replica, .. } if replica.is_some() || self.id % 2 == 1)
    }

    /// Where the leader is.
    fn learn(&mut self, frame: Bytes) -> Result<Next, String> {
        let body: m::MetadataResponseData = decoded(ApiKey::Metadata, 9, frame)?;
        let wanted = match &self.task {
            Task::Produce { partition, .. }
            | Task::Read { partition, .. }
            | Task::Latest { partition, .. } => *partition,
            Task::Churn(churn) if churn.wants_leader() => 0,
            Task::Trim(_) => 0,
            // Any broker takes it.
            _ => {
                self.leader = body.brokers.first().map(|broker| place_of_port(broker.port));
                return Ok(if self.leader.is_some() { Next::On } else { Next::Again });
            }
        };
        let partitions = body.topics.first().map_or(&[][..], |topic| &topic.partitions);
        let found = partitions.iter().find(|partition| partition.partition_index == wanted);
        let any = self.reads_any();
        let leader = found.and_then(|partition| {
            let replicas = &partition.replica_nodes;
            let place = match &self.task {
                Task::Read { replica: Some(place), .. } => *place,
                _ => self.correlation_id as usize,
            };
            let replica = replicas.get(place % replicas.len().max(1));
            let wanted = if any { *replica? } else { partition.leader_id };
            let broker = body.brokers.iter().find(|broker| broker.node_id == wanted)?;
            Some(place_of_port(broker.port))
        });
        if let Task::Churn(churn) = &mut self.task
            && body.topics.first().is_some_and(|topic| topic.error_code == 3)
        {
            churn.missing();
        }
        self.last = format!("leader {leader:?}");
        self.leader = leader;
        Ok(if leader.is_some() { Next::On } else { Next::Again })
    }

    fn produced(&mut self, version: i16, frame: Bytes, judges: &mut Judges) -> Result<Next, String> {
        let Task::Produce { partition, acks, done, records, base_sequence, least, kept, .. } = &mut self.task
        else {
            return Ok(Next::On);
        };
        let body: m::ProduceResponseData = decoded(ApiKey::Produce, version, frame)?;
        let data = body.responses.first().and_then(|topic| topic.partition_responses.first());
        let data = data.ok_or("a produce answer without its partition")?;
        self.last = format!("produce {}", data.error_code);
        match data.error_code {
            0 => {
                // acks=1 promises nothing once the leader is gone, unless it goes in order.
                if *kept {
                    if data.base_offset < *least {
                        return Err(format!(
                            "I14: client {} batch {done} is at {}, but what was acknowledged before went to {least}",
                            self.id, data.base_offset
                        ));
                    }
                    judges.records.acknowledged(self.id, *done, *records, *partition, data.base_offset)?;
                    let end = judges.acknowledged.entry((self.topic, *partition)).or_default();
                    *end = data.base_offset.max(*end - i64::from(*records)) + i64::from(*records);
                }
                *base_sequence += *records;
                (*done, *records) = (*done + 1, 0);
                Ok(Next::On)
            }
            // Another leads, none does, or the topic is not known there yet; storage in trouble: others may lead soon. Kafka's clients
            // ask for the leader then, too.
            3 | 5 | 6 | 56 => Ok(Next::Moved),
            // Too slow, too few copies: the same batch again.
            7 | 19 | 20 => Ok(Next::Again),
            // Batches that only a dead leader had acknowledged are gone.
            45 if *acks == 1 && !*kept => {
                *done = u64::MAX;
                Ok(Next::On)
            }
            // A leader of the past whose lease seems to hold has not heard of the batch before. Kafka's clients do not go back
            // to it: its leader epoch is one they have left (KIP-320).
            45 if !judges.fresh => Ok(Next::Moved),
            code => Err(format!("client {} batch {done}: produce error {code}", self.id)),
        }
    }

    fn told(&mut self, version: i16, frame: Bytes, fresh: bool) -> Result<Next, String> {
        let Task::Latest { partition, answers, least, .. } = &mut self.task else { return Ok(Next::On) };
        let body: m::ListOffsetsResponseData = decoded(ApiKey::ListOffsets, version, frame)?;
        let data = body.topics.first().and_then(|topic| topic.partitions.first());
        let data = data.ok_or("a ListOffsets answer without its partition")?;
        self.last = format!("latest {} error {}", data.offset, data.error_code);
        match data.error_code {
            0 if fresh && data.offset < *least => Err(format!(
                "I14: {}-{partition} is said to end at {}, but had acknowledged records up to {least}",
                self.topic, data.offset
            )),
            0 => {
                *answers += 1;
                Ok(Next::On)
            }
            3 | 5 | 6 => Ok(Next::Moved),
            56 | 78 => Ok(Next::Again),
            code => Err(format!("ListOffsets error {code}")),
        }
    }

    fn fetched(&mut self, version: i16, frame: Bytes, judges: &mut Judges) -> Result<Next, String> {
        let any = self.reads_any();
        let Task::Read { partition, next, found, .. } = &mut self.task else { return Ok(Next::On) };
        let body: m::FetchResponseData = decoded(ApiKey::Fetch, version, frame)?;
        let data = body.responses.first().and_then(|topic| topic.partitions.first());
        let data = data.ok_or("a fetch answer without its partition")?;
        self.last = format!("fetch {} at {next}, high watermark {}", data.error_code, data.high_watermark);
        match data.error_code {
            0 => {
                let records = data.records.clone().ok_or("a fetch answer with null records")?;
                let before = *next;
                *next = judges.records.read(self.topic, *partition, before, data.high_watermark, &records)?;
                *found += (*next - before) as u64;
                Ok(Next::On)
            }
            // A replica that has not come so far yet: the leader has.
            1 if any => Ok(Next::Moved),
            3 | 5 | 6 => Ok(Next::Moved),
            56 | 78 => Ok(Next::Again),
            code => Err(format!("fetch error {code} at offset {next} of {}-{partition}", self.topic)),
        }
    }
}

impl World {
    /// A client does what comes next: connects, asks, or hangs up on whoever does not answer.
    pub(super) fn client_acts(&mut self, index: usize) -> Result<(), String> {
        let now_ms = self.now().wall_ms;
        let client = &mut self.clients[index];
        if client.is_done() {
            if let Some((id, _)) = client.connection.take() {
                self.hang_up(id);
            }
            return Ok(());
        }
        if let Some((.., since)) = client.asked {
            if now_ms - since > PATIENCE_MS {
                client.asked = None;
                client.leader = None;
                client.last = "no answer".to_string();
                if let Some((id, _)) = client.connection.take() {
                    self.hang_up(id);
                }
            } else {
                self.wake(index, 500 * MS);
                return Ok(());
            }
        }
        let client = &self.clients[index];
        let target = match client.leader {
            Some(place) => place,
            None => {
                let shards = u64::from(self.nodes[0].config.shards);
                (self.prng.below(self.nodes.len() as u64) as usize, self.prng.below(shards) as u16)
            }
        };
        if let Some((id, place)) = self.clients[index].connection
            && place != target
        {
            self.clients[index].connection = None;
            self.hang_up(id);
        }
        if self.clients[index].connection.is_none() {
            self.clients[index].inbound.clear();
            match self.connect(index, target) {
                Some(id) => self.clients[index].connection = Some((id, target)),
                None => {
                    self.clients[index].leader = None;
                    let delay = 10 * MS + self.prng.below(100 * MS);
                    self.wake(index, delay);
                    return Ok(());
                }
            }
        }
        let World { clients, prng, judges, .. } = self;
        let client = &mut clients[index];
        let (asked, version, frame) = client.next(prng, now_ms, judges);
        client.asked = Some((asked, version, client.correlation_id, now_ms));
        if let Some((id, _)) = client.connection {
            self.request(id, &frame);
        }
        self.wake(index, 500 * MS);
        Ok(())
    }

    /// A client acts after so long, whatever was planned before.
    pub(super) fn wake(&mut self, index: usize, delay_ns: u64) {
        let client = &mut self.clients[index];
        client.turn += 1;
        let turn = client.turn;
        self.at(delay_ns, What::Client(index, turn));
    }

    pub(super) fn carry_to_client(&mut self, id: u64, bytes: &Bytes) -> Result<(), String> {
        let Some(state) = self.connections.get(&id) else { return Ok(()) };
        let index = state.client;
        self.clients[index].inbound.extend_from_slice(bytes);
        while let Some(frame) = next_frame(&mut self.clients[index].inbound) {
            let World { clients, judges, .. } = self;
            let client = &mut clients[index];
            let pace_ns = client.pace_ns;
            let next = client.answer(frame, judges).map_err(|text| format!("{}: {text}", client.text()))?;
            let delay = match next {
                Next::On => self.prng.below(pace_ns),
                Next::Moved => {
                    client.leader = None;
                    judges.moved += 1;
                    MS + self.prng.below(20 * MS)
                }
                Next::Again => 10 * MS + self.prng.below(90 * MS),
            };
            // Whom it was told to ask may have changed meanwhile.
            if matches!(next, Next::Again) && self.prng.one_in(3) {
                self.clients[index].leader = None;
            }
            self.wake(index, delay);
        }
        Ok(())
    }
}
