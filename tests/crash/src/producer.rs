//! A producer that writes down what it was promised: OK with an offset, refused with an error code, or unknown because the
//! connection broke. It never sends a batch twice.

use crate::payload::{self, Name};
use pelton_bench::client::Client;
use pelton_bench::{batch, client, frames, load};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged at this base offset.
    Acknowledged(i64),
    /// Answered with an error code: may be in the log at most once.
    Refused(i16),
    /// No answer: may be in the log at most once.
    Unknown,
}

/// One batch of the ledger; its number is its place in the producer's list.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub records: u32,
    pub fate: Fate,
}

/// What one producer does.
#[derive(Clone, Debug)]
pub struct Producer {
    pub id: u32,
    pub bootstrap: String,
    pub topic: String,
    pub partition: i32,
    /// Requests in flight on the one connection.
    pub depth: usize,
    /// Bytes of one value and most records in a batch.
    pub value_bytes: usize,
    pub records_max: u32,
}

/// Shared by the producers and the killer.
#[derive(Debug, Default)]
pub struct Shared {
    pub stop: AtomicBool,
    pub acknowledged: AtomicU64,
}

impl Producer {
    /// Produces until told to stop, reconnecting as often as the broker dies: its ledger.
    pub fn run(&self, shared: &Shared) -> Vec<Entry> {
        let mut ledger = Vec::new();
        let mut random = 0x9e37_79b9_7f4a_7c15u64 ^ u64::from(self.id) << 32;
        while !shared.stop.load(Ordering::Relaxed) {
            if self.session(shared, &mut ledger, &mut random).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        ledger
    }

    /// One connection until it breaks or the end; what is still in flight then stays unknown.
    fn session(&self, shared: &Shared, ledger: &mut Vec<Entry>, random: &mut u64) -> Result<(), String> {
        let leaders = client::leaders(&self.bootstrap, &self.topic, Duration::from_millis(200))?;
        let leader = leaders.get(self.partition as usize).ok_or("no such partition")?;
        let mut client = Client::connect(leader, Duration::from_secs(10))?;
        // Large frames are taken only behind a valid small one.
        client.metadata(&self.topic)?;
        let mut in_flight: VecDeque<usize> = VecDeque::new();
        loop {
            while in_flight.len() < self.depth && !shared.stop.load(Ordering::Relaxed) {
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                let records = 1 + (*random % u64::from(self.records_max)) as u32;
                let number = ledger.len();
                ledger.push(Entry { records, fate: Fate::Unknown });
                in_flight.push_back(number);
                let records = self.batch(number as u64, records);
                client.send(&frames::produce(number as i32, &self.topic, self.partition, &records))?;
            }
            let Some(number) = in_flight.pop_front() else { return Ok(()) };
            let answer = frames::produced(client.receive()?)?;
            if answer.correlation_id != number as i32 || answer.partition != self.partition {
                return Err(format!("answers out of order: {answer:?} for batch {number}"));
            }
            if answer.error != 0 {
                ledger[number].fate = Fate::Refused(answer.error);
                return Err(format!("error code {}", answer.error));
            }
            ledger[number].fate = Fate::Acknowledged(answer.base_offset);
            shared.acknowledged.fetch_add(u64::from(ledger[number].records), Ordering::Relaxed);
        }
    }

    fn batch(&self, number: u64, records: u32) -> Vec<u8> {
        let name = |index| Name { batch: number, producer: self.id, index };
        let values: Vec<Vec<u8>> =
            (0..records).map(|index| payload::build(name(index), self.value_bytes)).collect();
        batch::build(values.iter().map(Vec::as_slice), load::now_ms())
    }
}
