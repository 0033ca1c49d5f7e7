//! One consuming connection: one Fetch at a time over its partitions, every batch's CRC and every offset checked. Follows
//! the tail, or catches up to given offsets and stops. Never commits offsets.

use crate::batch::{self, Batch};
use crate::{Outcome, frames};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Bytes asked for per partition: more than one batch of the largest load.
const PARTITION_BYTES: i32 = 2 << 20;
/// Bytes asked for per answer.
const ANSWER_BYTES: i32 = 16 << 20;
/// Longest wait of a Fetch with nothing to read, ms.
const WAIT_MS: i32 = 500;
/// Largest answer that is believed, bytes.
const FRAME_MAX: usize = 64 << 20;

/// One partition of a reader.
#[derive(Clone, Copy, Debug)]
struct Position {
    partition: usize,
    next: i64,
    /// Where a reader that catches up stops; none: follows the tail.
    until: Option<i64>,
}

/// A consumer's connection to one broker.
pub struct Consuming {
    pub stream: TcpStream,
    topic: String,
    positions: Vec<Position>,
    input: Vec<u8>,
    filled: usize,
    next_id: i32,
    /// Which consumer this connection belongs to.
    pub consumer: usize,
    /// Bytes of batches read, all checked.
    pub bytes: u64,
    /// When a reader that catches up had read everything.
    pub finished: Option<Instant>,
}

impl Consuming {
    /// Reads `topic` from the offsets given as (partition, from, until); asks for nothing yet.
    pub fn new(
        stream: TcpStream,
        topic: &str,
        places: &[(usize, i64, Option<i64>)],
        consumer: usize,
    ) -> Consuming {
        let positions =
            places.iter().map(|&(partition, next, until)| Position { partition, next, until }).collect();
        Consuming {
            stream,
            topic: topic.to_string(),
            positions,
            input: vec![0; 64 * 1024],
            filled: 0,
            next_id: 0,
            consumer,
            bytes: 0,
            finished: None,
        }
    }

    /// Sends the next Fetch. The request is small and only one is in flight, so the socket takes it whole.
    pub fn ask(&mut self) -> Outcome<()> {
        self.next_id += 1;
        let open = |place: &&Position| place.until.is_none_or(|until| place.next < until);
        let places: Vec<(i32, i64)> =
            self.positions.iter().filter(open).map(|place| (place.partition as i32, place.next)).collect();
        if places.is_empty() {
            self.finished.get_or_insert_with(Instant::now);
            return Ok(());
        }
        let frame =
            frames::fetch_many(self.next_id, &self.topic, &places, PARTITION_BYTES, ANSWER_BYTES, WAIT_MS);
        self.stream.write_all(&frame).map_err(|error| format!("sending a Fetch: {error}"))
    }

    /// Reads what is there; with a whole answer checks it, hands on each batch and asks for more. True when it made progress.
    pub fn receive(&mut self, mut batch: impl FnMut(usize, &Batch<'_>) -> Outcome<()>) -> Outcome<bool> {
        let mut progress = false;
        loop {
            if self.filled >= 4 {
                let size = self.size()?;
                if self.filled >= size {
                    self.answer(size, &mut batch)?;
                    self.filled = 0;
                    progress = true;
                    self.ask()?;
                    continue;
                }
                if self.input.len() < size {
                    self.input.resize(size, 0);
                }
            }
            // One answer at most is in flight: what is read belongs to it.
            let end = if self.filled >= 4 { self.size()? } else { self.input.len() };
            match self.stream.read(&mut self.input[self.filled..end]) {
                Ok(0) => return Err("the broker closed a consumer's connection".into()),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(progress),
                Err(error) => return Err(format!("receiving a Fetch: {error}")),
            }
        }
    }

    /// Bytes of the answer under way, its length field included.
    fn size(&self) -> Outcome<usize> {
        let field = self.input.first_chunk::<4>().ok_or("an answer without a size")?;
        let size = i32::from_be_bytes(*field) as usize;
        if size > FRAME_MAX { Err(format!("a Fetch answer of {size} bytes")) } else { Ok(size + 4) }
    }

    fn answer(
        &mut self,
        size: usize,
        each: &mut impl FnMut(usize, &Batch<'_>) -> Outcome<()>,
    ) -> Outcome<()> {
        let (id, parts) = frames::fetched_many(&self.input[4..size])?;
        if id != self.next_id {
            return Err(format!("Fetch {} was answered as {id}", self.next_id));
        }
        for (partition, fetched) in parts {
            if fetched.error != 0 {
                return Err(format!("Fetch of partition {partition}: error code {}", fetched.error));
            }
            let place = self.positions.iter_mut().find(|place| place.partition == partition as usize);
            let place = place.ok_or_else(|| format!("partition {partition} was not asked for"))?;
            let mut rest = fetched.records;
            while let Some(batch) = batch::take(&mut rest)? {
                let next = batch.base_offset + i64::from(batch.count);
                // A Fetch into the middle of a batch gets all of it.
                if next <= place.next {
                    continue;
                }
                if batch.base_offset > place.next {
                    return Err(format!(
                        "partition {partition}: after offset {} comes {}",
                        place.next, batch.base_offset
                    ));
                }
                place.next = next;
                self.bytes += batch.bytes() as u64;
                each(place.partition, &batch)?;
            }
        }
        Ok(())
    }

    /// True for a reader without an end.
    pub fn is_tail(&self) -> bool {
        self.positions.iter().all(|place| place.until.is_none())
    }

    /// True when every partition of this connection was read up to `ends`.
    pub fn reached(&self, ends: &[i64]) -> bool {
        self.positions.iter().all(|place| place.next >= place.until.unwrap_or(ends[place.partition]))
    }
}
