//! Idempotent producers: up to three batches in flight, all sent again in order after any failure.

use std::collections::VecDeque;

use pelton_model::Prng;
use pelton_wire::compression::Codec;
use pelton_wire::records::BatchBuilder;

/// A batch not acknowledged yet.
#[derive(Clone, Debug)]
pub struct Request {
    pub sequence: i32,
    records: i32,
    /// Behind the last record that somebody had been told was there, when this was first sent.
    pub invoked_end: i64,
}

/// A producer.
pub struct Client {
    pub id: usize,
    next_sequence: i32,
    pub unacked: VecDeque<Request>,
    /// How many of them were sent in this attempt.
    pub sent: usize,
    pub since_ns: u64,
    /// The node that is believed to lead.
    pub leader: usize,
}

impl Client {
    pub fn new(id: usize) -> Client {
        Client { id, next_sequence: 0, unacked: VecDeque::new(), sent: 0, since_ns: 0, leader: 0 }
    }

    /// The next batch to send, if there is one: a new one, or the next of those to be sent again.
    pub fn next(&mut self, new: bool, acked_end: i64, prng: &mut Prng) -> Option<Vec<u8>> {
        if self.sent == self.unacked.len() {
            if self.unacked.len() >= 3 || !new {
                return None;
            }
            let records = 1 + prng.below(2) as i32;
            self.unacked.push_back(Request { sequence: self.next_sequence, records, invoked_end: acked_end });
            self.next_sequence += records;
        }
        let request = &self.unacked[self.sent];
        self.sent += 1;
        let mut builder = BatchBuilder::new(Codec::None).producer(self.id as i64, 0, request.sequence);
        for _ in 0..request.records {
            builder.add(0, None, Some(b"x"), &[]);
        }
        builder.build().ok()
    }

    /// All are sent again, to somebody else.
    pub fn fail(&mut self, nodes: usize, prng: &mut Prng) {
        self.sent = 0;
        self.leader = prng.below(nodes as u64) as usize;
    }

    /// One is acknowledged; what was known when it was sent first. None if it had been acknowledged before.
    pub fn acknowledge(&mut self, sequence: i32) -> Option<i64> {
        let at = self.unacked.iter().position(|request| request.sequence == sequence)?;
        if at < self.sent {
            self.sent -= 1;
        }
        self.unacked.remove(at).map(|request| request.invoked_end)
    }
}
