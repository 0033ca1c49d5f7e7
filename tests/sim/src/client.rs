//! Simulated clients: they speak Kafka frames, encoded and decoded by a codec the broker's hot path does not use.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::compression::Codec;
use pelton_wire::messages::{
    self as m, KafkaString, decode_response, encode_request, fetch_request, list_offsets_request,
    produce_request,
};
use pelton_wire::records::BatchBuilder;

use crate::oracle::Oracle;

/// What a client waits for.
enum Pending {
    Produce { version: i16, sequence: u64 },
    Fetch { version: i16, partition: i32, offset: i64 },
    Earliest { partition: i32 },
    Other,
}

/// A batch on its way.
#[derive(Clone)]
pub struct Sending {
    /// Its number among the client's batches.
    pub sequence: u64,
    /// Where it goes.
    pub partition: i32,
    records: i32,
    base_sequence: i32,
    size_bytes: usize,
    codec: Codec,
}

/// What a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Retries with the same sequence numbers until it is told.
    Idempotent,
    /// Sends each batch once.
    Plain,
    /// Reads.
    Reader,
}

/// One client, with a connection to one shard at a time.
pub struct Client {
    /// Its number; batches carry it.
    pub id: u32,
    /// What it is.
    pub role: Role,
    /// The topic it uses.
    pub topic: String,
    /// Partitions it uses: all led by the shard it talks to.
    pub partitions: Vec<i32>,
    /// Batches it will send in all.
    pub goal: u64,
    acks: i16,
    next_sequence: u64,
    sequences: std::collections::BTreeMap<i32, i32>,
    unacked: VecDeque<Sending>,
    unsent: VecDeque<Sending>,
    pending: VecDeque<(i32, Pending)>,
    correlation_id: i32,
    read_to: std::collections::BTreeMap<i32, i64>,
    /// Where logs began when it last heard of them: they never go back.
    starts: std::collections::BTreeMap<i32, i64>,
    /// Partitions whose beginning it has to ask for.
    lost: Vec<i32>,
    reads: u64,
    inbound: BytesMut,
    /// Bytes written to the connection and not yet received by the broker.
    pub outbound: BytesMut,
    /// True while connected.
    pub connected: bool,
}

impl Client {
    /// A client that is not connected.
    pub fn new(id: u32, role: Role, topic: &str, partitions: Vec<i32>, goal: u64, acks: i16) -> Client {
        Client {
            id,
            role,
            topic: topic.to_string(),
            partitions,
            goal,
            acks,
            next_sequence: 0,
            sequences: Default::default(),
            unacked: VecDeque::new(),
            unsent: VecDeque::new(),
            pending: VecDeque::new(),
            correlation_id: 0,
            read_to: Default::default(),
            starts: Default::default(),
            lost: Vec::new(),
            reads: 0,
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            connected: false,
        }
    }

    /// True when it has done what it set out to do.
    pub fn is_done(&self) -> bool {
        match self.role {
            Role::Reader => self.reads >= self.goal,
            _ => self.next_sequence >= self.goal && self.unacked.is_empty() && self.unsent.is_empty(),
        }
    }

    /// A new connection.
    pub fn connect(&mut self, prng: &mut Prng) {
        self.connected = true;
        self.inbound.clear();
        self.outbound.clear();
        self.pending.clear();
        if prng.one_in(2) {
            let body = m::ApiVersionsRequestData {
                client_software_name: KafkaString::from_static("sim"),
                client_software_version: KafkaString::from_static("1"),
                ..Default::default()
            };
            self.request(ApiKey::ApiVersions, 3, &body, Pending::Other);
        }
    }

    /// The connection is gone: what was not answered is unknown. An idempotent producer will send it again, in order.
    pub fn disconnect(&mut self) {
        self.connected = false;
        match self.role {
            Role::Idempotent => {
                self.unsent.extend(std::mem::take(&mut self.unacked));
                self.unsent.make_contiguous().sort_by_key(|sending| sending.sequence);
            }
            _ => self.unacked.clear(),
        }
        self.outbound.clear();
    }

    fn request<T: m::Message>(&mut self, api_key: ApiKey, version: i16, body: &T, pending: Pending) {
        self.correlation_id += 1;
        let frame =
            encode_request(api_key, version, self.correlation_id, "sim", body).expect("a request we build");
        self.outbound.extend_from_slice(&frame);
        self.pending.push_back((self.correlation_id, pending));
    }

    /// Does one thing, if there is one to do: sends a batch, or reads.
    pub fn act(&mut self, prng: &mut Prng, now_ms: i64, oracle: &mut Oracle) {
        if !self.connected || self.is_done() {
            return;
        }
        match self.role {
            Role::Reader => self.read(prng),
            _ => self.send(prng, now_ms, oracle),
        }
    }

    fn send(&mut self, prng: &mut Prng, now_ms: i64, oracle: &mut Oracle) {
        if self.unacked.len() >= 5 {
            return;
        }
        let sending = match self.unsent.pop_front() {
            Some(sending) => sending,
            None if self.next_sequence < self.goal => self.new_batch(prng),
            None => return,
        };
        oracle.sent(self.id, sending.sequence, sending.records, &self.topic, sending.partition, now_ms);
        let producer =
            (self.role == Role::Idempotent).then_some((1000 + i64::from(self.id), 0, sending.base_sequence));
        let records = self.batch(&sending, now_ms, producer);
        let version = [3, 5, 7, 8, 9, 11, 12][prng.below(7) as usize];
        let version = if sending.codec == Codec::Zstd { version.max(7) } else { version };
        let body = m::ProduceRequestData {
            acks: self.acks,
            timeout_ms: 30_000,
            topic_data: vec![produce_request::TopicProduceData {
                name: KafkaString::from(self.topic.clone()),
                partition_data: vec![produce_request::PartitionProduceData {
                    index: sending.partition,
                    records: Some(records),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        if self.acks == 0 {
            self.correlation_id += 1;
            let frame = encode_request(ApiKey::Produce, version, self.correlation_id, "sim", &body);
            self.outbound.extend_from_slice(&frame.expect("a request we build"));
            return;
        }
        self.request(
            ApiKey::Produce,
            version,
            &body,
            Pending::Produce { version, sequence: sending.sequence },
        );
        self.unacked.push_back(sending);
    }

    fn new_batch(&mut self, prng: &mut Prng) -> Sending {
        let partition = self.partitions[prng.below(self.partitions.len() as u64) as usize];
        let records = 1 + prng.below(3) as i32;
        let base = self.sequences.entry(partition).or_default();
        let base_sequence = *base;
        *base += records;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let size_bytes = match prng.below(10) {
            0 => 20_000 + prng.below(40_000) as usize,
            1..=3 => prng.below(5_000) as usize,
            _ => prng.below(200) as usize,
        };
        let codec = match prng.below(8) {
            0 => Codec::Lz4,
            1 => Codec::Zstd,
            2 => Codec::Snappy,
            _ => Codec::None,
        };
        Sending { sequence, partition, records, base_sequence, size_bytes, codec }
    }

    fn batch(&self, sending: &Sending, now_ms: i64, producer: Option<(i64, i16, i32)>) -> Bytes {
        let mut builder = BatchBuilder::new(sending.codec);
        if let Some((id, epoch, sequence)) = producer {
            builder = builder.producer(id, epoch, sequence);
        }
        for index in 0..sending.records {
            let name = payload(self.id, sending.sequence, index);
            let value = vec![(sending.sequence as u8).wrapping_add(index as u8); sending.size_bytes];
            if self.topic == COMPACTED {
                let (key, is_tombstone) = key_of(self.id, sending.sequence, index);
                let value = (!is_tombstone).then_some(&value[..]);
                builder.add(now_ms, Some(&[key]), value, &[("name", Some(&name))]);
            } else {
                builder.add(now_ms, Some(&name), Some(&value), &[]);
            }
        }
        Bytes::from(builder.build().expect("a batch we build"))
    }

    fn read(&mut self, prng: &mut Prng) {
        if !self.pending.is_empty() {
            return;
        }
        if let Some(partition) = self.lost.pop() {
            let body = offset_body(&self.topic, partition, -2);
            return self.request(ApiKey::ListOffsets, 5, &body, Pending::Earliest { partition });
        }
        let partition = self.partitions[prng.below(self.partitions.len() as u64) as usize];
        let offset = if prng.one_in(6) { 0 } else { self.read_to.get(&partition).copied().unwrap_or(0) };
        let version = [4, 6, 8, 11, 12][prng.below(5) as usize];
        let body = fetch_body(&self.topic, partition, offset, prng);
        self.request(ApiKey::Fetch, version, &body, Pending::Fetch { version, partition, offset });
    }

    /// Takes bytes of the broker; what they acknowledge or hold goes to the oracle.
    pub fn receive(&mut self, bytes: &[u8], oracle: &mut Oracle) -> Result<(), String> {
        self.inbound.extend_from_slice(bytes);
        while let Some(frame) = next_frame(&mut self.inbound) {
            self.answer(frame, oracle)?;
        }
        Ok(())
    }

    fn answer(&mut self, frame: Bytes, oracle: &mut Oracle) -> Result<(), String> {
        let (expected, pending) = self.pending.pop_front().ok_or("an answer nobody asked for")?;
        let id = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        if id != expected {
            return Err(format!("answers out of order: {id} instead of {expected}"));
        }
        match pending {
            Pending::Other => Ok(()),
            Pending::Produce { version, sequence } => self.produced(version, sequence, frame, oracle),
            Pending::Earliest { partition } => {
                let (_, body) = decode_response::<m::ListOffsetsResponseData>(ApiKey::ListOffsets, 5, frame)
                    .map_err(|error| format!("ListOffsets answer: {error}"))?;
                let data = body.topics.first().and_then(|topic| topic.partitions.first());
                let data = data.ok_or("a ListOffsets answer without its partition")?;
                self.read_to.insert(partition, data.offset);
                self.begins(partition, data.offset)
            }
            Pending::Fetch { version, partition, offset } => {
                self.fetched(version, partition, offset, frame, oracle)
            }
        }
    }

    fn produced(
        &mut self,
        version: i16,
        sequence: u64,
        frame: Bytes,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let (_, body) = decode_response::<m::ProduceResponseData>(ApiKey::Produce, version, frame)
            .map_err(|error| format!("produce answer: {error}"))?;
        let partition = body.responses.first().and_then(|topic| topic.partition_responses.first());
        let partition = partition.ok_or("a produce answer without its partition")?;
        let Some(at) = self.unacked.iter().position(|sending| sending.sequence == sequence) else {
            return Err(format!("an acknowledgement of batch {sequence}, which is not on its way"));
        };
        let Some(sending) = self.unacked.remove(at) else { return Ok(()) };
        match partition.error_code {
            0 => oracle.acknowledged(
                self.id,
                sequence,
                sending.records,
                sending.partition,
                partition.base_offset,
            ),
            // Storage trouble and time-outs: nothing is known; an idempotent producer tries again.
            7 | 56 => {
                if self.role == Role::Idempotent {
                    self.unsent.push_back(sending);
                    self.unsent.make_contiguous().sort_by_key(|sending| sending.sequence);
                }
                Ok(())
            }
            // A power cut took batches that were acknowledged unflushed; or the producer's very first batch was refused
            // and a later one taken, as Kafka does from a producer it does not know: the sequence cannot go on.
            45 if self.is_oldest(&sending)
                && (oracle.is_lossy(&self.topic) || sending.base_sequence == 0) =>
            {
                self.next_sequence = self.goal;
                self.unsent.clear();
                Ok(())
            }
            // Behind a failure the later ones are out of order until the failed one is sent again.
            45 if self.role == Role::Idempotent && !self.is_oldest(&sending) => {
                self.unsent.push_back(sending);
                self.unsent.make_contiguous().sort_by_key(|sending| sending.sequence);
                Ok(())
            }
            code => Err(format!("client {} batch {sequence}: produce error {code}", self.id)),
        }
    }

    /// The log of a partition begins at `start` (-1 = an answer that does not say); it must not have begun later before.
    fn begins(&mut self, partition: i32, start: i64) -> Result<(), String> {
        let before = self.starts.entry(partition).or_insert(start);
        if start >= 0 && start < *before {
            return Err(format!("{}-{partition} began at {before}, and now at {start}", self.topic));
        }
        *before = start.max(*before);
        Ok(())
    }

    /// True when no earlier batch of its partition is still to be acknowledged.
    fn is_oldest(&self, sending: &Sending) -> bool {
        let earlier =
            |other: &Sending| other.partition == sending.partition && other.sequence < sending.sequence;
        !self.unacked.iter().chain(&self.unsent).any(earlier)
    }

    fn fetched(
        &mut self,
        version: i16,
        partition: i32,
        offset: i64,
        frame: Bytes,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        self.reads += 1;
        let (_, body) = decode_response::<m::FetchResponseData>(ApiKey::Fetch, version, frame)
            .map_err(|error| format!("fetch answer: {error}"))?;
        let Some(data) = body.responses.first().and_then(|topic| topic.partitions.first()) else {
            return Err("a fetch answer without its partition".to_string());
        };
        let records = data.records.clone().ok_or("a fetch answer with null records")?;
        if data.error_code != 0 {
            return match data.error_code {
                56 => Ok(()),
                // A power cut has taken the end of a topic that is not flushed for every append.
                1 if oracle.is_lossy(&self.topic) => {
                    self.read_to.insert(partition, 0);
                    Ok(())
                }
                // Retention was faster.
                1 if oracle.retained.contains_key(&self.topic) => {
                    self.lost.push(partition);
                    Ok(())
                }
                code => Err(format!("fetch error {code} at offset {offset} of {partition}")),
            };
        }
        if data.log_start_offset > data.high_watermark {
            let (start, high_watermark) = (data.log_start_offset, data.high_watermark);
            return Err(format!(
                "{}-{partition} begins at {start}, past its high watermark {high_watermark}",
                self.topic
            ));
        }
        self.begins(partition, data.log_start_offset)?;
        let next = oracle.read(&self.topic, partition, offset, data.high_watermark, &records)?;
        self.read_to.insert(partition, next);
        Ok(())
    }
}

/// Cuts the next whole answer off what has been received.
pub fn next_frame(inbound: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*inbound.first_chunk::<4>()?) as usize;
    (inbound.len() >= 4 + length).then(|| inbound.split_to(4 + length).freeze().slice(4..))
}

/// A question for the log start offset (`timestamp` -2) or the end (-1) of one partition.
pub fn offset_body(topic: &str, partition: i32, timestamp: i64) -> m::ListOffsetsRequestData {
    m::ListOffsetsRequestData {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: KafkaString::from(topic.to_string()),
            partitions: vec![list_offsets_request::ListOffsetsPartition {
                partition_index: partition,
                current_leader_epoch: -1,
                timestamp,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The topic whose records have few keys; their names are in a header.
pub const COMPACTED: &str = "compacted";

/// Key of a record of the compacted topic, and whether it has no value.
pub fn key_of(client: u32, sequence: u64, index: i32) -> (u8, bool) {
    let mixed = (u64::from(client) << 40 ^ sequence << 8 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 60) as u8, (mixed >> 40).is_multiple_of(5))
}

/// The key of a record: who sent it, in which batch, where in it.
pub fn payload(client: u32, sequence: u64, index: i32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&client.to_be_bytes());
    key[4..12].copy_from_slice(&sequence.to_be_bytes());
    key[12..].copy_from_slice(&index.to_be_bytes());
    key
}

/// A fetch of one partition.
pub fn fetch_body(topic: &str, partition: i32, offset: i64, prng: &mut Prng) -> m::FetchRequestData {
    m::FetchRequestData {
        replica_id: -1,
        max_wait_ms: prng.below(50) as i32,
        min_bytes: prng.below(3) as i32 * 100,
        max_bytes: [1, 1000, 100_000, 10_000_000][prng.below(4) as usize],
        session_epoch: -1,
        topics: vec![fetch_request::FetchTopic {
            topic: KafkaString::from(topic.to_string()),
            partitions: vec![fetch_request::FetchPartition {
                partition,
                fetch_offset: offset,
                current_leader_epoch: -1,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: [1, 500, 50_000, 1 << 20][prng.below(4) as usize],
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
