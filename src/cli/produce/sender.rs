//! Delivers batches to the leaders of their partitions, in order, again after what passes by itself. One batch of a
//! partition is on its way at a time, which is what keeps the order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::compression::Codec;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use pelton_wire::messages::{ProduceRequestData, ProduceResponseData};
use pelton_wire::records::BatchBuilder;

use super::Acks;
use crate::cli::client::{Client, RETRY_PAUSE, passes};
use crate::cli::connection::CallError;
use crate::cli::partition_reader::by_leader;
use crate::cli::record_input::InputRecord;
use crate::failure::Failure;

/// The newest version spoken: the last that names topics instead of giving their ids.
const PRODUCE_VERSION: i16 = 12;

/// Records that go into one batch.
pub struct Batch {
    records: Vec<InputRecord>,
    /// Their size before compression, about.
    pub size_bytes: usize,
}

impl Batch {
    /// A batch of one record.
    pub fn of(record: InputRecord) -> Batch {
        Batch { size_bytes: record.size_bytes(), records: vec![record] }
    }

    /// Adds a record.
    pub fn push(&mut self, record: InputRecord) {
        self.size_bytes += record.size_bytes();
        self.records.push(record);
    }
}

/// What a partition has taken.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Records.
    pub records: u64,
    /// Offset of the first; -1 if the broker did not say.
    pub first_offset: i64,
    /// Offset of the last; -1 if the broker did not say.
    pub last_offset: i64,
}

/// Sends to one topic.
pub struct Sender {
    client: Client,
    topic: String,
    acks: Acks,
    codec: Codec,
    producer_id: Option<(i64, i16)>,
    next_sequence: BTreeMap<i32, i32>,
    written: BTreeMap<i32, Written>,
}

/// How a batch came out.
enum Outcome {
    Written(i64),
    Again(String),
}

impl Sender {
    /// A sender that has sent nothing.
    pub fn new(
        client: Client,
        topic: &str,
        acks: Acks,
        codec: Codec,
        producer_id: Option<(i64, i16)>,
    ) -> Sender {
        Sender {
            client,
            topic: topic.to_string(),
            acks,
            codec,
            producer_id,
            next_sequence: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// What has been written, by partition.
    pub fn written(&self) -> &BTreeMap<i32, Written> {
        &self.written
    }

    /// Delivers everything, or says why not.
    pub fn deliver(&mut self, mut waiting: BTreeMap<i32, VecDeque<Batch>>) -> Result<(), Failure> {
        let mut deadline = self.client.deadline();
        loop {
            waiting.retain(|_, batches| !batches.is_empty());
            if waiting.is_empty() {
                return Ok(());
            }
            let problem = self.round(&mut waiting)?;
            match problem {
                None => deadline = self.client.deadline(),
                Some(problem) if Instant::now() >= deadline => return Err(problem),
                Some(_) => {
                    std::thread::sleep(RETRY_PAUSE);
                    // A failure here is a failure of the next round too, which then says it.
                    let _ = self.client.metadata(Some(std::slice::from_ref(&self.topic)), false);
                }
            }
        }
    }

    /// Sends the first batch of every partition; those written leave the queues.
    fn round(&mut self, waiting: &mut BTreeMap<i32, VecDeque<Batch>>) -> Result<Option<Failure>, Failure> {
        let partitions: Vec<i32> = waiting.keys().copied().collect();
        let mut problem = None;
        let groups = match by_leader(&self.client, &self.topic, &partitions) {
            Ok(groups) => groups,
            Err(leaderless) => return Ok(Some(leaderless)),
        };
        for (leader, partitions) in groups {
            let request = self.request(&partitions, waiting)?;
            match self.ask(leader, &request) {
                Ok(answer) => {
                    for partition in partitions {
                        match self.outcome(partition, answer.as_ref())? {
                            Outcome::Written(offset) => self.done(partition, offset, waiting),
                            Outcome::Again(words) => problem = Some(Failure::error(words)),
                        }
                    }
                }
                Err(CallError::Network(words)) => {
                    self.client.drop_broker(leader);
                    problem = Some(Failure::unreachable(words));
                }
                Err(protocol) => return Err(protocol.into()),
            }
        }
        Ok(problem)
    }

    fn request(
        &self,
        partitions: &[i32],
        waiting: &BTreeMap<i32, VecDeque<Batch>>,
    ) -> Result<ProduceRequestData, Failure> {
        let mut partition_data = Vec::new();
        for partition in partitions {
            let Some(batch) = waiting.get(partition).and_then(VecDeque::front) else { continue };
            partition_data.push(PartitionProduceData {
                index: *partition,
                records: Some(self.bytes(*partition, batch)?),
                ..PartitionProduceData::default()
            });
        }
        Ok(ProduceRequestData {
            transactional_id: None,
            acks: match self.acks {
                Acks::All => -1,
                Acks::One => 1,
                Acks::Zero => 0,
            },
            timeout_ms: self.client.timeout_ms(),
            topic_data: vec![TopicProduceData {
                name: self.topic.clone().into(),
                partition_data,
                ..TopicProduceData::default()
            }],
            ..ProduceRequestData::default()
        })
    }

    fn bytes(&self, partition: i32, batch: &Batch) -> Result<Bytes, Failure> {
        let mut builder = BatchBuilder::new(self.codec);
        if let Some((producer_id, producer_epoch)) = self.producer_id {
            let sequence = self.next_sequence.get(&partition).copied().unwrap_or(0);
            builder = builder.producer(producer_id, producer_epoch, sequence);
        }
        for record in &batch.records {
            let headers: Vec<(&str, Option<&[u8]>)> =
                record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            builder.add(
                record.timestamp_ms.unwrap_or_default(),
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            );
        }
        builder.build().map(Bytes::from).map_err(|error| Failure::error(format!("compression: {error}")))
    }

    /// The answer; none with acks=0, where there is none.
    fn ask(
        &mut self,
        leader: i32,
        request: &ProduceRequestData,
    ) -> Result<Option<ProduceResponseData>, CallError> {
        let connection = self.client.broker(leader)?;
        let version = connection.version(ApiKey::Produce, PRODUCE_VERSION)?;
        let sent = connection.send(ApiKey::Produce, version, request)?;
        if self.acks == Acks::Zero {
            return Ok(None);
        }
        connection.receive(sent).map(Some)
    }

    fn outcome(&self, partition: i32, answer: Option<&ProduceResponseData>) -> Result<Outcome, Failure> {
        let Some(answer) = answer else { return Ok(Outcome::Written(-1)) };
        let mut all = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let item = format!("{}[{partition}]", self.topic);
        let Some(found) = all.find(|response| response.index == partition) else {
            return Err(Failure::error(format!("{item}: the broker's answer leaves it out")));
        };
        let words = |error: ErrorCode| {
            let message =
                found.error_message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            format!("{item}: {error}{message}")
        };
        match ErrorCode::from_code(found.error_code) {
            ErrorCode::None => Ok(Outcome::Written(found.base_offset)),
            // It was written when it was sent before.
            ErrorCode::DuplicateSequenceNumber => Ok(Outcome::Written(-1)),
            error if passes(error) || error == ErrorCode::UnknownTopicOrPartition => {
                Ok(Outcome::Again(words(error)))
            }
            error => Err(Failure::error(words(error))),
        }
    }

    fn done(&mut self, partition: i32, offset: i64, waiting: &mut BTreeMap<i32, VecDeque<Batch>>) {
        let Some(batch) = waiting.get_mut(&partition).and_then(VecDeque::pop_front) else { return };
        let count = batch.records.len() as i32;
        let sequence = self.next_sequence.entry(partition).or_insert(0);
        *sequence = sequence_after(*sequence, count);
        let written = Written { records: 0, first_offset: offset, last_offset: -1 };
        let written = self.written.entry(partition).or_insert(written);
        written.records += count as u64;
        if offset >= 0 {
            written.last_offset = offset + i64::from(count) - 1;
        }
    }
}

/// The sequence behind `count` records: after i32::MAX comes 0 (Kafka's DefaultRecordBatch.incrementSequence).
fn sequence_after(sequence: i32, count: i32) -> i32 {
    if sequence > i32::MAX - count { count - (i32::MAX - sequence) - 1 } else { sequence + count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(5, 3), 8);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }
}
