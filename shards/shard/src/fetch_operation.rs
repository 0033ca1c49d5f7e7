//! One fetch on its way: which partitions to read, what was found so far, and whether that is enough to answer
//! (min_bytes, max_bytes and errors as Kafka's ReplicaManager and DelayedFetch have them). Decides, reads nothing.

use pelton_log::PartitionSlot;
use pelton_model::ShardId;

use crate::api::partition::FetchAnswer;
use crate::connection::RequestRef;
use crate::fetch_session::{SessionKey, SessionUse, Wanted};
use crate::message::{FetchPart, RequestId};
use pelton_wire::error_code::ErrorCode;

/// Who waits for a fetch.
#[derive(Debug)]
pub enum FetchOrigin {
    /// A client.
    Client {
        /// Where the answer goes.
        request: RequestRef,
        /// What the answer needs.
        shape: FetchShape,
    },
    /// Another shard, which wants bytes at once.
    Shard {
        /// The shard.
        from: ShardId,
        /// Its name for the request.
        id: RequestId,
    },
}

/// What the answer to a client needs beside the records.
#[derive(Debug)]
pub struct FetchShape {
    /// Request version.
    pub version: i16,
    /// Correlation id.
    pub correlation_id: i32,
    /// Topics named by id.
    pub by_ids: bool,
    /// Session use.
    pub session: SessionUse,
    /// READ_COMMITTED was asked.
    pub read_committed: bool,
    /// The partitions read, in reading order.
    pub partitions: Vec<(SessionKey, Wanted)>,
}

/// Where one part is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Here.
    Local(PartitionSlot),
    /// On another shard.
    Foreign(ShardId),
    /// Nowhere.
    Refused(ErrorCode),
}

/// A fetch in progress.
#[derive(Debug)]
pub struct FetchOperation {
    /// Who waits.
    pub origin: FetchOrigin,
    /// What to read, in order; `index` of each is its place.
    pub parts: Vec<(Target, FetchPart)>,
    /// What was found, in the same order.
    pub answers: Vec<Option<FetchAnswer>>,
    /// Answer once this much is there.
    pub bytes_min: usize,
    /// Cap of the whole answer; the first batch may exceed it (KIP-74).
    pub bytes_max: usize,
    /// Answer at this time at the latest.
    pub deadline_ns: u64,
    /// Next part to read here.
    pub cursor: usize,
    /// Shards whose answers are awaited in this pass.
    pub foreign_open: usize,
    /// True while parked until something is appended.
    pub parked: bool,
    /// Counts passes, so that answers of an abandoned pass are told apart.
    pub pass: u64,
}

impl FetchOperation {
    /// An operation at the start of its first pass.
    pub fn new(
        origin: FetchOrigin,
        parts: Vec<(Target, FetchPart)>,
        bytes_min: usize,
        bytes_max: usize,
        deadline_ns: u64,
    ) -> FetchOperation {
        let answers = vec![None; parts.len()];
        FetchOperation {
            origin,
            parts,
            answers,
            bytes_min,
            bytes_max,
            deadline_ns,
            cursor: 0,
            foreign_open: 0,
            parked: false,
            pass: 0,
        }
    }

    /// Begins a pass: nothing found yet but the refusals.
    pub fn begin_pass(&mut self) {
        self.pass += 1;
        self.cursor = 0;
        self.foreign_open = 0;
        self.parked = false;
        for (answer, (target, _)) in self.answers.iter_mut().zip(&self.parts) {
            *answer = match target {
                Target::Refused(error) => Some(FetchAnswer::error(*error)),
                _ => None,
            };
        }
    }

    /// Bytes of records found so far.
    pub fn bytes(&self) -> usize {
        self.answers.iter().flatten().map(|answer| answer.records.length()).sum()
    }

    /// True when every part has an answer.
    pub fn pass_complete(&self) -> bool {
        self.cursor >= self.parts.len() && self.foreign_open == 0
    }

    /// Whether what was found may be sent now: enough bytes, an error, or no time left.
    pub fn may_answer(&self, now_ns: u64) -> bool {
        now_ns >= self.deadline_ns
            || self.parts.is_empty()
            || self.bytes() >= self.bytes_min
            || self.answers.iter().flatten().any(|answer| {
                answer.error != ErrorCode::None || answer.diverging_epoch.is_some() || answer.preferred >= 0
            })
    }

    /// Keeps the answer within `bytes_max`: shards read on their own, so together they may have found too much. The
    /// first part that has records keeps them.
    pub fn trim(&mut self) {
        let mut left = self.bytes_max;
        let mut first = true;
        for answer in self.answers.iter_mut().flatten() {
            let length = answer.records.length();
            if length > left && !first {
                answer.records = crate::api::partition::Records::empty();
                continue;
            }
            left = left.saturating_sub(length);
            first = first && length == 0;
        }
    }

    /// True for operations that answer this connection.
    pub fn is_of(&self, connection: pelton_model::ConnectionId) -> bool {
        matches!(&self.origin, FetchOrigin::Client { request, .. } if request.connection == connection)
    }
}
