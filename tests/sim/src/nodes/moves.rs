//! An operator who moves replicas away and back while records are written and nodes fail: what a shard had of a partition before
//! must not show in what it has later. In the end there are as many replicas as before.

use bytes::Bytes;
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{
    self as m, KafkaString, alter_partition_reassignments_request as wanted,
    list_partition_reassignments_request,
};

use super::COPIES;
use super::bodies::{decoded, encoded};
use super::client::Next;

/// Where replicas may be: on any shard of the first so many nodes.
#[derive(Clone, Copy)]
pub struct Places {
    pub nodes: usize,
    pub shards: u16,
}

/// One shard of as many nodes as there are copies.
pub const FEW: Places = Places { nodes: COPIES, shards: 1 };

/// The moves of one partition.
pub struct Moves {
    partition: i32,
    /// How many are still to come.
    left: u32,
    /// The last one is to so many nodes.
    copies: usize,
    places: Places,
    /// One is under way.
    moving: bool,
    last: i16,
}

impl Moves {
    pub fn new(partition: i32, moves: u32, copies: usize, places: Places) -> Moves {
        Moves { partition, left: moves, copies, places, moving: false, last: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.left == 0 && !self.moving
    }

    pub fn text(&self) -> String {
        format!(
            "moves {}: {} left, under way {}, error {}",
            self.partition, self.left, self.moving, self.last
        )
    }

    /// The next request: a move, or whether the one under way has come to its end.
    pub fn next(&mut self, topic: &'static str, id: i32, prng: &mut Prng) -> (i16, Vec<u8>) {
        let (name, partition) = (KafkaString::from_static(topic), self.partition);
        if self.moving {
            let topics = vec![list_partition_reassignments_request::ListPartitionReassignmentsTopics {
                name,
                partition_indexes: vec![partition],
                ..Default::default()
            }];
            let body =
                m::ListPartitionReassignmentsRequestData { topics: Some(topics), ..Default::default() };
            return (0, encoded(ApiKey::ListPartitionReassignments, 0, id, &body));
        }
        let mut nodes: Vec<i32> = (1..=self.places.nodes as i32).collect();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, prng.below(at as u64 + 1) as usize);
        }
        nodes.truncate(if self.left > 1 { 2 } else { self.copies });
        let mut broker = |node: i32| node * 256 + prng.below(u64::from(self.places.shards)) as i32;
        let body = m::AlterPartitionReassignmentsRequestData {
            timeout_ms: 30_000,
            topics: vec![wanted::ReassignableTopic {
                name,
                partitions: vec![wanted::ReassignablePartition {
                    partition_index: partition,
                    replicas: Some(nodes.into_iter().map(&mut broker).collect()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        (0, encoded(ApiKey::AlterPartitionReassignments, 0, id, &body))
    }

    pub fn answered(&mut self, version: i16, frame: Bytes) -> Result<Next, String> {
        if self.moving {
            let body: m::ListPartitionReassignmentsResponseData =
                decoded(ApiKey::ListPartitionReassignments, version, frame)?;
            self.moving = !body.topics.is_empty();
            return Ok(if self.moving { Next::Again } else { Next::On });
        }
        let body: m::AlterPartitionReassignmentsResponseData =
            decoded(ApiKey::AlterPartitionReassignments, version, frame)?;
        let partition = body.responses.first().and_then(|topic| topic.partitions.first());
        self.last = partition.ok_or("an answer without its partition")?.error_code;
        match self.last {
            0 => {
                (self.left, self.moving) = (self.left - 1, true);
                Ok(Next::On)
            }
            // A broker is not registered yet, or the topic is not known.
            3 | 39 => Ok(Next::Again),
            code => Err(format!("a move of partition {} is refused: error {code}", self.partition)),
        }
    }
}
