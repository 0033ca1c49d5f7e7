//! What a coordinator wants done: the caller performs it in order.

use crate::records::RawRecord;
use crate::request::{GroupResponse, RequestToken};

/// The coordinator's name for an append; they ascend in the order of the appends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// One thing to do.
#[derive(Clone, PartialEq, Debug)]
pub enum GroupEffect {
    /// Append these records as one batch to this coordinator's partition of `__consumer_offsets`, in the order of the
    /// tickets; once they are durable under the topic's rule call `appended`, else `append_failed`.
    Append {
        /// The coordinator's name for it.
        ticket: Ticket,
        /// Keys and values; a value of none is a tombstone. Never empty.
        records: Vec<RawRecord>,
    },
    /// Answer a request; every request is answered once.
    Answer {
        /// The request.
        token: RequestToken,
        /// Its answer.
        response: GroupResponse,
    },
}
