//! An operator who sends the leader of a partition to one replica after another while all of them live: the order of the replicas
//! is changed, and the first of them elected. Whoever leads again after others did has to know what happened meanwhile; nothing has
//! ended that would make it forget.

use bytes::Bytes;
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self as m, KafkaString, elect_leaders_request};

use super::COPIES;
use super::bodies::{decoded, encoded};
use super::client::Next;
use super::moves::{FEW, Moves};

/// The leaders of one partition.
pub struct Leads {
    partition: i32,
    /// How many are still to come.
    left: u32,
    /// Its replicas get their order.
    order: Moves,
    last: i16,
}

impl Leads {
    /// So many leaders, of replicas on as many nodes as there are copies.
    pub fn new(partition: i32, leaders: u32) -> Leads {
        let order = Moves::new(partition, u32::from(leaders > 0), COPIES, FEW);
        Leads { partition, left: leaders, order, last: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// For an error.
    pub fn text(&self) -> String {
        format!(
            "{} leaders of {} to go, error {}, {}",
            self.left,
            self.partition,
            self.last,
            self.order.text()
        )
    }

    pub fn next(&mut self, topic: &'static str, id: i32, prng: &mut Prng) -> (i16, Vec<u8>) {
        if !self.order.is_done() {
            return self.order.next(topic, id, prng);
        }
        let partitions = elect_leaders_request::TopicPartitions {
            topic: KafkaString::from_static(topic),
            partitions: vec![self.partition],
            ..Default::default()
        };
        let body = m::ElectLeadersRequestData {
            election_type: 0,
            topic_partitions: Some(vec![partitions]),
            timeout_ms: 2_000,
            ..Default::default()
        };
        (1, encoded(ApiKey::ElectLeaders, 1, id, &body))
    }

    pub fn answered(&mut self, version: i16, frame: Bytes) -> Result<Next, String> {
        if !self.order.is_done() {
            return self.order.answered(version, frame);
        }
        let body: m::ElectLeadersResponseData = decoded(ApiKey::ElectLeaders, version, frame)?;
        let topic = body.replica_election_results.first();
        let partition = topic.and_then(|topic| topic.partition_result.first());
        self.last = partition.ok_or("an answer without its partition")?.error_code;
        match self.last {
            // Done, not needed, not in time, or that replica is not in sync: on to the next.
            0 | 84 | 7 | 80 => {
                self.left -= 1;
                self.order = Moves::new(self.partition, u32::from(self.left > 0), COPIES, FEW);
            }
            3 => {}
            code => return Err(format!("an election is refused: error {code}; {}", self.text())),
        }
        Ok(Next::Again)
    }
}
