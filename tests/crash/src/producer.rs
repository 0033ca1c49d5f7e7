//! Producers that write down what they were promised: OK with an offset, refused with an error code, or unknown because the
//! connection broke. A plain one never sends a batch twice; an idempotent one sends what is unknown again until it is
//! acknowledged, so that each of its batches must be there exactly once.

use crate::payload::{self, Name};
use pelton_bench::client::Client;
use pelton_bench::{batch, client, frames, load};
use std::collections::VecDeque;
use std::sync::Mutex;
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
    /// Requests in flight on the one connection; at most 5 for an idempotent producer.
    pub depth: usize,
    /// Wait before each batch: hundreds of kills must not fill the disk.
    pub pause: Duration,
    /// Bytes of one value and most records in a batch.
    pub value_bytes: usize,
    pub records_max: u32,
    pub idempotent: bool,
}

/// Shared by the producers and the killer.
#[derive(Debug, Default)]
pub struct Shared {
    pub stop: AtomicBool,
    pub acknowledged: AtomicU64,
    /// Each producer's ledger, by its id.
    pub ledgers: Vec<Mutex<Vec<Entry>>>,
    /// What no broker may answer, in words.
    pub faults: Mutex<Vec<String>>,
}

/// What a producer keeps from one connection to the next.
struct Life {
    maker: Maker,
    /// Sent and not acknowledged, oldest first; a plain producer forgets them when its connection breaks.
    pending: VecDeque<(usize, Vec<u8>)>,
}

/// Makes a producer's batches: of a random number of records that prove themselves, in sequence if it is idempotent.
pub struct Maker {
    random: u64,
    /// Producer id and epoch, once the broker gave them.
    pub identity: Option<(i64, i16)>,
    next_sequence: i32,
}

impl Maker {
    /// Its own numbers for each `seed`.
    pub fn new(seed: u32) -> Maker {
        let random = 0x9e37_79b9_7f4a_7c15u64 ^ u64::from(seed) << 32;
        Maker { random, identity: None, next_sequence: 0 }
    }

    /// How many records the next batch has.
    pub fn count(&mut self, records_max: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        1 + (self.random % u64::from(records_max)) as u32
    }

    /// Batch `number` of `producer`, of so many records.
    pub fn batch(&mut self, producer: u32, number: usize, records: u32, value_bytes: usize) -> Vec<u8> {
        let name = |index| Name { batch: number as u64, producer, index };
        let values: Vec<Vec<u8>> =
            (0..records).map(|index| payload::build(name(index), value_bytes)).collect();
        let mut bytes = batch::build(values.iter().map(Vec::as_slice), load::now_ms());
        if let Some((producer_id, epoch)) = self.identity {
            batch::stamp_producer(&mut bytes, producer_id, epoch, self.next_sequence);
            self.next_sequence += records as i32;
        }
        bytes
    }
}

/// OUT_OF_ORDER_SEQUENCE_NUMBER: right only behind a refused batch of the same connection.
const OUT_OF_ORDER: i16 = 45;

impl Producer {
    /// Produces until told to stop, reconnecting as often as the broker dies.
    pub fn run(&self, shared: &Shared) {
        let mut life = Life { maker: Maker::new(self.id), pending: VecDeque::new() };
        while !shared.stop.load(Ordering::Relaxed) || !life.pending.is_empty() {
            if self.session(shared, &mut life).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !self.idempotent {
                life.pending.clear();
            }
            if shared.faults.lock().is_ok_and(|faults| faults.len() > 50) {
                return;
            }
        }
    }

    /// One connection until it breaks or the end.
    fn session(&self, shared: &Shared, life: &mut Life) -> Result<(), String> {
        let leaders = client::leaders(&self.bootstrap, &self.topic, Duration::from_millis(200))?;
        let leader = leaders.get(self.partition as usize).ok_or("no such partition")?;
        let mut client = Client::connect(leader, Duration::from_secs(10))?;
        // Large frames are taken only behind a valid small one.
        client.metadata(&self.topic)?;
        if self.idempotent && life.maker.identity.is_none() {
            life.maker.identity = Some(client.init_producer()?);
        }
        for (number, records) in &life.pending {
            client.send(&frames::produce(*number as i32, &self.topic, self.partition, records))?;
        }
        loop {
            while life.pending.len() < self.depth && !shared.stop.load(Ordering::Relaxed) {
                std::thread::sleep(self.pause);
                let (number, records) = self.next(shared, life);
                let frame = frames::produce(number as i32, &self.topic, self.partition, &records);
                life.pending.push_back((number, records));
                client.send(&frame)?;
            }
            let Some((number, _)) = life.pending.front() else { return Ok(()) };
            self.answer(shared, *number, client.receive()?)?;
            life.pending.pop_front();
        }
    }

    /// The next batch, written down before it is sent.
    fn next(&self, shared: &Shared, life: &mut Life) -> (usize, Vec<u8>) {
        let records = life.maker.count(self.records_max);
        let number = shared.write(self.id, |ledger| {
            ledger.push(Entry { records, fate: Fate::Unknown });
            ledger.len() - 1
        });
        (number, life.maker.batch(self.id, number, records, self.value_bytes))
    }

    /// Notes what the broker said about batch `number`; an error ends the connection.
    fn answer(&self, shared: &Shared, number: usize, frame: &[u8]) -> Result<(), String> {
        let answer = frames::produced(frame)?;
        let fault = |text: String| {
            shared.fault(format!("producer {} batch {number}: {text}", self.id));
            Err(text)
        };
        if answer.correlation_id != number as i32 || answer.partition != self.partition {
            return fault(format!("answers out of order: {answer:?}"));
        }
        if answer.error != 0 {
            shared.write(self.id, |ledger| ledger[number].fate = Fate::Refused(answer.error));
            // The connection ends with the first refusal, so no error here can be the consequence of an earlier one.
            return if frames::RETRIABLE.contains(&answer.error) {
                Err(format!("error code {}", answer.error))
            } else if answer.error == OUT_OF_ORDER {
                fault("error 45: the broker forgot, or gave away, a sequence number".into())
            } else {
                fault(format!("error code {}", answer.error))
            };
        }
        if answer.base_offset < 0 {
            return fault(format!("acknowledged at offset {}", answer.base_offset));
        }
        let records = shared.write(self.id, |ledger| {
            ledger[number].fate = Fate::Acknowledged(answer.base_offset);
            ledger[number].records
        });
        shared.acknowledged.fetch_add(u64::from(records), Ordering::Relaxed);
        Ok(())
    }
}

impl Shared {
    /// Empty ledgers for `producers` producers.
    pub fn new(producers: usize) -> Shared {
        Shared { ledgers: (0..producers).map(|_| Mutex::default()).collect(), ..Shared::default() }
    }

    /// Reads or changes one ledger.
    pub fn write<T>(&self, producer: u32, work: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        let mut ledger = self.ledgers[producer as usize].lock().unwrap_or_else(|held| held.into_inner());
        work(&mut ledger)
    }

    /// What every ledger says now.
    pub fn snapshot(&self) -> Vec<Vec<Entry>> {
        (0..self.ledgers.len()).map(|id| self.write(id as u32, |ledger| ledger.clone())).collect()
    }

    fn fault(&self, text: String) {
        self.faults.lock().unwrap_or_else(|held| held.into_inner()).push(text);
    }

    /// What no broker may answer, so far.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(|held| held.into_inner()).clone()
    }
}
