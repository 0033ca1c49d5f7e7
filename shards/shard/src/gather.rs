//! Requests that ask one thing of each of several partitions (ListOffsets, DeleteRecords, OffsetForLeaderEpoch) or group
//! coordinators: collects the answers, wherever they come from, until the last one is there.

use std::collections::BTreeMap;

use crate::connection::RequestRef;
use crate::message::RequestId;

/// What became of a request: who asked, how to encode it, and the answers in the order of the request.
pub struct Gathered<E, A> {
    /// Where the answer goes.
    pub request: RequestRef,
    /// What the encoder needs.
    pub shape: E,
    /// One answer per question.
    pub answers: Vec<A>,
}

struct Gathering<E, A> {
    request: RequestRef,
    shape: E,
    answers: Vec<Option<A>>,
    remaining: usize,
}

/// The requests of one shard that still lack answers.
pub struct Gather<E, A> {
    open: BTreeMap<RequestId, Gathering<E, A>>,
}

impl<E, A> Default for Gather<E, A> {
    fn default() -> Gather<E, A> {
        Gather { open: BTreeMap::new() }
    }
}

impl<E, A> Gather<E, A> {
    /// Opens a request for `count` answers, at least one.
    pub fn open(&mut self, id: RequestId, request: RequestRef, shape: E, count: usize) {
        let answers = std::iter::repeat_with(|| None).take(count).collect();
        let gathering = Gathering { request, shape, answers, remaining: count };
        self.open.insert(id, gathering);
    }

    /// Takes one answer; the whole once it is the last.
    pub fn answer(&mut self, id: RequestId, index: u32, answer: A) -> Option<Gathered<E, A>> {
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
