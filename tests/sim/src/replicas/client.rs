//! A producer with sequence numbers and one batch under way, which it repeats until it is acknowledged.

use bytes::Bytes;
use pelton_model::Prng;
use pelton_wire::compression::Codec;
use pelton_wire::records::BatchBuilder;

/// Waits so long for an answer, nanoseconds.
const PATIENCE_NS: u64 = 1_000_000_000;

struct Batch {
    sequence: i32,
    records: i32,
    bytes: Bytes,
}

/// A client.
pub struct Client {
    id: usize,
    left: i32,
    next_sequence: i32,
    current: Option<Batch>,
    sent_ns: Option<u64>,
}

impl Client {
    /// One that sends so many batches.
    pub fn new(id: usize, batches: i32) -> Client {
        Client { id, left: batches, next_sequence: 0, current: None, sent_ns: None }
    }

    /// What to send now.
    pub fn next(&mut self, now_ns: u64, prng: &mut Prng) -> Option<(i32, Bytes)> {
        if self.sent_ns.is_some_and(|at| now_ns < at + PATIENCE_NS) {
            return None;
        }
        if self.current.is_none() {
            if self.left == 0 {
                return None;
            }
            self.left -= 1;
            let records = 1 + prng.below(3) as i32;
            let mut builder = BatchBuilder::new(Codec::None).producer(self.id as i64, 0, self.next_sequence);
            for _ in 0..records {
                let size = [10, 300, 3_000][prng.below(3) as usize] + prng.below(9) as usize;
                builder.add(1_700_000_000_000, None, Some(&vec![prng.below(256) as u8; size]), &[]);
            }
            let bytes = Bytes::from(builder.build().unwrap_or_default());
            self.current = Some(Batch { sequence: self.next_sequence, records, bytes });
            self.next_sequence += records;
        }
        self.sent_ns = Some(now_ns);
        self.current.as_ref().map(|batch| (batch.sequence, batch.bytes.clone()))
    }

    /// The batch with this sequence number is acknowledged.
    pub fn acknowledged(&mut self, sequence: i32) {
        if self.current.as_ref().is_some_and(|batch| batch.sequence == sequence && batch.records > 0) {
            (self.current, self.sent_ns) = (None, None);
        }
    }

    /// It was refused: again, elsewhere perhaps.
    pub fn failed(&mut self, sequence: i32) {
        if self.current.as_ref().is_some_and(|batch| batch.sequence == sequence) {
            self.sent_ns = None;
        }
    }

    /// Everything is acknowledged.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.current.is_none()
    }

    /// For an error.
    pub fn text(&self) -> String {
        format!("client {} at {} with {} to go", self.id, self.next_sequence, self.left)
    }
}
