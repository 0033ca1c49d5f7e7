//! A topic that is made, written to, deleted and made again under the same name: nothing of one life of it may show in the next.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::compression::Codec;
use pelton_wire::messages::{self as m, KafkaString};
use pelton_wire::record_batch::BatchIter;
use pelton_wire::records::{BatchBuilder, Records};

use super::Judges;
use super::bodies::{any_timestamp, create_body, decoded, encoded};
use super::client::Next;
use crate::client::payload;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Create,
    Produce,
    Read,
    Delete,
}

/// What is done with it.
pub struct Churn {
    phase: Phase,
    round: u64,
    goal: u64,
    /// Records are read, and must be of the present life. Only where no node lags behind the deletion for ever.
    reads: bool,
    last: i16,
}

impl Churn {
    /// So many lives, beginning with number `round`.
    pub fn new(round: u64, lives: u64, reads: bool) -> Churn {
        Churn { phase: Phase::Delete, round, goal: round + lives, reads, last: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.round >= self.goal
    }

    /// For an error.
    pub fn text(&self) -> String {
        format!("life {} of {}: {:?} {}", self.round, self.goal, self.phase, self.last)
    }

    /// A broker does not know the topic. A deletion that had no answer may be asked for again by the node it came in at, and come
    /// when the topic is made anew, as in Kafka: it is made once more. Not where nothing can be under way any more.
    pub fn missing(&mut self) {
        if self.phase == Phase::Produce && !self.reads {
            self.phase = Phase::Create;
        }
    }

    /// The leader is asked, not any broker.
    pub fn wants_leader(&self) -> bool {
        matches!(self.phase, Phase::Produce | Phase::Read)
    }

    pub fn next(&mut self, topic: &'static str, client: u32, id: i32, now_ms: i64) -> (i16, Vec<u8>) {
        let name = KafkaString::from_static(topic);
        match self.phase {
            Phase::Create => {
                (5, encoded(ApiKey::CreateTopics, 5, id, &create_body(topic, &[any_timestamp()], 1)))
            }
            Phase::Produce => {
                let mut builder = BatchBuilder::new(Codec::None);
                builder.add(now_ms, Some(&payload(client, self.round, 0)), Some(b"life"), &[]);
                let partition_data = vec![m::produce_request::PartitionProduceData {
                    index: 0,
                    records: Some(Bytes::from(builder.build().expect("a batch we build"))),
                    ..Default::default()
                }];
                let topic_data =
                    vec![m::produce_request::TopicProduceData { name, partition_data, ..Default::default() }];
                let body =
                    m::ProduceRequestData { acks: -1, timeout_ms: 2_000, topic_data, ..Default::default() };
                (9, encoded(ApiKey::Produce, 9, id, &body))
            }
            Phase::Read => {
                let partitions = vec![m::fetch_request::FetchPartition {
                    partition: 0,
                    current_leader_epoch: -1,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                }];
                let topics =
                    vec![m::fetch_request::FetchTopic { topic: name, partitions, ..Default::default() }];
                let body = m::FetchRequestData {
                    replica_id: -1,
                    max_bytes: 1 << 20,
                    session_epoch: -1,
                    topics,
                    ..Default::default()
                };
                (11, encoded(ApiKey::Fetch, 11, id, &body))
            }
            Phase::Delete => {
                let body = m::DeleteTopicsRequestData {
                    topic_names: vec![name],
                    timeout_ms: 30_000,
                    ..Default::default()
                };
                (4, encoded(ApiKey::DeleteTopics, 4, id, &body))
            }
        }
    }

    pub fn answered(&mut self, version: i16, frame: Bytes, judges: &mut Judges) -> Result<Next, String> {
        let code = match self.phase {
            Phase::Create => {
                let body: m::CreateTopicsResponseData = decoded(ApiKey::CreateTopics, version, frame)?;
                body.topics.first().ok_or("an answer without its topic")?.error_code
            }
            Phase::Produce => {
                let body: m::ProduceResponseData = decoded(ApiKey::Produce, version, frame)?;
                let data = body.responses.first().and_then(|topic| topic.partition_responses.first());
                data.ok_or("an answer without its partition")?.error_code
            }
            Phase::Read => {
                let body: m::FetchResponseData = decoded(ApiKey::Fetch, version, frame)?;
                let data = body.responses.first().and_then(|topic| topic.partitions.first());
                let data = data.ok_or("an answer without its partition")?;
                if data.error_code == 0 {
                    self.judge(data.records.as_ref().ok_or("null records")?)?;
                }
                data.error_code
            }
            Phase::Delete => {
                let body: m::DeleteTopicsResponseData = decoded(ApiKey::DeleteTopics, version, frame)?;
                body.responses.first().ok_or("an answer without its topic")?.error_code
            }
        };
        self.last = code;
        match (self.phase, code) {
            // It is there, perhaps by a request whose answer was lost.
            (Phase::Create, 0 | 36) => self.phase = Phase::Produce,
            (Phase::Create, 38) => return Ok(Next::Again),
            (Phase::Produce, 0) if self.reads => {
                self.phase = Phase::Read;
                return Ok(Next::On);
            }
            (Phase::Produce | Phase::Read, 0) => {
                judges.churned += 1;
                self.round += 1;
                self.phase = Phase::Delete;
            }
            // It is gone, or was never there.
            (Phase::Delete, 0 | 3) => self.phase = Phase::Create,
            (Phase::Produce | Phase::Read, 3 | 5 | 6) => {}
            (_, 7 | 19 | 20 | 56 | 78) => return Ok(Next::Again),
            (_, code) => return Err(format!("{}: error {code}", self.text())),
        }
        Ok(Next::Moved)
    }

    fn judge(&self, records: &Bytes) -> Result<(), String> {
        let mut count = 0;
        for (_, batch) in BatchIter::new(records) {
            let unpacked = Records::of(batch, 1 << 20).map_err(|error| error.to_string())?;
            for record in unpacked.iter() {
                let record = record.map_err(|error| error.to_string())?;
                let key = record.key.ok_or("a record without a key")?;
                if key.get(4..12) != Some(&self.round.to_be_bytes()[..]) {
                    return Err(format!("{}: a record of another life of the topic: {key:?}", self.text()));
                }
                count += 1;
            }
        }
        if count == 0 {
            return Err(format!("{}: the record that was acknowledged is not there", self.text()));
        }
        Ok(())
    }
}
