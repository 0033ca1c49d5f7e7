//! Producers that follow their partition's leader from node to node. A plain one sends each batch once: what is not answered
//! stays unknown. An idempotent one sends what is unknown again, to whoever leads, until it is acknowledged.

use crate::book::Book;
use crate::connection::Connection;
use crate::directory::{self, Directory, Leader};
use pelton_bench::{batch, frames};
use pelton_crash::producer::Maker;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Error codes after which a client tries again: UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT,
/// NETWORK_EXCEPTION, NOT_ENOUGH_REPLICAS, …_AFTER_APPEND, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
/// THROTTLING_QUOTA_EXCEEDED.
const TRY_AGAIN: &[i16] = &[3, 5, 6, 7, 13, 19, 20, 56, 74, 76, 89];
/// OUT_OF_ORDER_SEQUENCE_NUMBER.
const OUT_OF_ORDER: i16 = 45;
/// A batch that is not answered by then is sent again, or given up.
const PATIENCE: Duration = Duration::from_secs(8);
/// More than there are producers: each of their lives has other random numbers.
const LIVES: u32 = 1 << 12;
/// How often one that waits looks whether the leader is another.
const LOOK: Duration = Duration::from_millis(10);

/// What one producer does.
#[derive(Clone, Debug)]
pub struct Producer {
    pub id: u32,
    pub partition: i32,
    /// Requests in flight; at most 5 for an idempotent producer.
    pub depth: usize,
    /// Time between two batches.
    pub pause: Duration,
    /// Bytes of one value and most records in a batch.
    pub value_bytes: usize,
    pub records_max: u32,
    pub idempotent: bool,
    /// It has a producer id, a new one after each broken connection: what it gave up then stays unknown, and nobody sends it again.
    pub forgets: bool,
    /// Its records say that they are so much older than they are.
    pub age_ms: i64,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER is tried again: a leader of Kafka that was deposed and does not know it says so.
    pub forgives_order: bool,
}

/// What a producer keeps from one connection to the next.
struct Life {
    maker: Maker,
    /// Not acknowledged, oldest first.
    pending: VecDeque<(usize, Vec<u8>)>,
    due: Instant,
}

impl Producer {
    /// Produces until told to stop and nothing is unknown, or to give up.
    pub fn run(&self, directory: &Directory, book: &Book) {
        let mut life = Life { maker: Maker::new(self.id + 1), pending: VecDeque::new(), due: Instant::now() };
        let mut lives = 0;
        while !book.abandon.load(Ordering::Relaxed) {
            if book.stop.load(Ordering::Relaxed) && life.pending.is_empty() {
                return;
            }
            if let Some(leader) = directory.leader(self.partition) {
                let _ = self.session(directory, book, &leader, &mut life);
            }
            if !self.idempotent {
                life.pending.clear();
            }
            if self.forgets {
                lives += 1;
                life.maker = Maker::new(self.id + 1 + lives * LIVES);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// One connection until it breaks, the leader is another, or the end.
    fn session(
        &self,
        directory: &Directory,
        book: &Book,
        leader: &Leader,
        life: &mut Life,
    ) -> Result<(), String> {
        let mut connection = Connection::open(&leader.address)?;
        // Large frames are taken only behind a valid small one.
        connection.call(0, &directory::request(0, &directory.topic), Duration::from_secs(1))?;
        if (self.idempotent || self.forgets) && life.maker.identity.is_none() {
            let frame = connection.call(1, &frames::init_producer_id(1), Duration::from_secs(5))?;
            match frames::producer_id(&frame)? {
                (0, id, epoch) => life.maker.identity = Some((id, epoch)),
                (code, ..) => return Err(format!("InitProducerId: error code {code}")),
            }
        }
        for (number, records) in &life.pending {
            connection.send(&self.frame(directory, *number, records))?;
        }
        let mut asked = VecDeque::from(vec![Instant::now(); life.pending.len()]);
        loop {
            while life.pending.len() < self.depth
                && Instant::now() >= life.due
                && !book.stop.load(Ordering::Relaxed)
            {
                life.due = Instant::now() + self.pause;
                let (number, records) = self.next(book, life);
                let frame = self.frame(directory, number, &records);
                life.pending.push_back((number, records));
                asked.push_back(Instant::now());
                connection.send(&frame)?;
            }
            if life.pending.is_empty() && book.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let wait = if life.pending.len() < self.depth { self.pause.min(LOOK) } else { LOOK };
            match connection.poll(wait)? {
                Some(frame) => {
                    let Some((number, _)) = life.pending.front() else {
                        return Err("an answer to nothing".into());
                    };
                    self.answer(book, *number, &frame)?;
                    life.pending.pop_front();
                    asked.pop_front();
                }
                None => {
                    if directory.leader(self.partition).as_ref() != Some(leader) {
                        return Err("another leads".into());
                    }
                    if asked.front().is_some_and(|asked| asked.elapsed() > PATIENCE) {
                        return Err("no answer".into());
                    }
                    if book.abandon.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn frame(&self, directory: &Directory, number: usize, records: &[u8]) -> Vec<u8> {
        frames::produce(number as i32, &directory.topic, self.partition, records)
    }

    /// The next batch, written down before it is sent.
    fn next(&self, book: &Book, life: &mut Life) -> (usize, Vec<u8>) {
        let records = life.maker.count(self.records_max);
        let number = book.intend(self.id, records);
        let mut bytes = life.maker.batch(self.id, number, records, self.value_bytes);
        if self.age_ms > 0 {
            age(&mut bytes, self.age_ms);
        }
        (number, bytes)
    }

    /// Notes what the broker said about batch `number`; an error ends the connection, so that no later one is a consequence of it.
    fn answer(&self, book: &Book, number: usize, frame: &[u8]) -> Result<(), String> {
        let answer = frames::produced(frame)?;
        let fault = |text: String| {
            book.fault(format!("producer {} batch {number}: {text}", self.id));
            Err(text)
        };
        if answer.correlation_id != number as i32 || answer.partition != self.partition {
            return fault(format!("answers out of order: {answer:?}"));
        }
        if answer.error != 0 {
            book.refuse(self.id, number, answer.error);
            return match answer.error {
                code if TRY_AGAIN.contains(&code) => Err(format!("error code {code}")),
                OUT_OF_ORDER if self.forgives_order => Err("error code 45".into()),
                OUT_OF_ORDER => fault("error 45: the broker forgot, or gave away, a sequence number".into()),
                code => fault(format!("error code {code}")),
            };
        }
        if answer.base_offset < 0 {
            return fault(format!("acknowledged at offset {}", answer.base_offset));
        }
        book.acknowledge(self.id, number, self.partition, answer.base_offset);
        Ok(())
    }
}

/// Makes a batch older: its base timestamp and its largest one.
fn age(batch: &mut [u8], ms: i64) {
    for at in [27, 35] {
        let field: &mut [u8] = &mut batch[at..at + 8];
        let time = field.iter().fold(0i64, |time, byte| time << 8 | i64::from(*byte)) - ms;
        field.copy_from_slice(&time.to_be_bytes());
    }
    let crc = batch::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Per partition a plain and an idempotent producer of small batches, and one that forgets who it was; partition 0 also gets one of each with large batches (up to
/// 400 KB), which go another way to the disk.
pub fn all(partitions: i32, pause: Duration, forgives_order: bool) -> Vec<Producer> {
    let small = |id: u32, partition: i32| Producer {
        id,
        partition,
        depth: 4,
        pause,
        value_bytes: 100,
        records_max: 30,
        idempotent: id % 2 == 1,
        forgets: false,
        age_ms: 0,
        forgives_order,
    };
    let count = 2 * partitions as u32;
    let mut all: Vec<Producer> = (0..count).map(|id| small(id, id as i32 / 2)).collect();
    let large =
        |id| Producer { value_bytes: 4_000, records_max: 100, depth: 2, pause: pause * 40, ..small(id, 0) };
    all.extend([large(count), large(count + 1)]);
    let forgetful = |partition| {
        let id = count + 2 + partition as u32;
        Producer { idempotent: false, forgets: true, ..small(id, partition) }
    };
    all.extend((0..partitions).map(forgetful));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aged_batch_is_still_a_batch() {
        let now_ms = 1_000_000_000_000;
        let mut bytes = batch::build([&b"a"[..]].into_iter(), now_ms);
        age(&mut bytes, 5_000);
        assert!(batch::take(&mut &bytes[..]).unwrap().is_some());
        let field = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((field(27), field(35)), (now_ms - 5_000, now_ms - 5_000));
    }
}
