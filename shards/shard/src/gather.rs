//! Requests that ask one thing of each of several partitions (ListOffsets, DeleteRecords, OffsetForLeaderEpoch):
//! collects the answers, wherever they come from, until the last one is there.

use std::collections::BTreeMap;

use crate::api::partition::PartitionAnswer;
use crate::connection::RequestRef;
use crate::message::RequestId;

/// What became of a request: who asked, how to encode it, and the answers in the order of the request.
pub struct Gathered<E> {
    /// Where the answer goes.
    pub request: RequestRef,
    /// What the encoder needs.
    pub shape: E,
    /// One answer per partition asked.
    pub answers: Vec<PartitionAnswer>,
}

struct Gathering<E> {
    request: RequestRef,
    shape: E,
    answers: Vec<Option<PartitionAnswer>>,
    remaining: usize,
}

/// The requests of one shard that still lack answers.
pub struct Gather<E> {
    open: BTreeMap<RequestId, Gathering<E>>,
}

impl<E> Default for Gather<E> {
    fn default() -> Gather<E> {
        Gather { open: BTreeMap::new() }
    }
}

impl<E> Gather<E> {
    /// Opens a request for `count` answers, at least one.
    pub fn open(&mut self, id: RequestId, request: RequestRef, shape: E, count: usize) {
        let gathering = Gathering { request, shape, answers: vec![None; count], remaining: count };
        self.open.insert(id, gathering);
    }

    /// Takes one answer; the whole once it is the last.
    pub fn answer(&mut self, id: RequestId, index: u32, answer: PartitionAnswer) -> Option<Gathered<E>> {
        let gathering = self.open.get_mut(&id)?;
        let place = gathering.answers.get_mut(index as usize)?;
        if place.is_none() {
            *place = Some(answer);
            gathering.remaining -= 1;
        }
        if gathering.remaining > 0 {
            return None;
        }
        let gathering = self.open.remove(&id)?;
        let answers = gathering.answers.into_iter().flatten().collect();
        Some(Gathered { request: gathering.request, shape: gathering.shape, answers })
    }
}
