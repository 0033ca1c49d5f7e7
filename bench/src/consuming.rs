//! One consuming connection: one Fetch at a time over its partitions, every batch's CRC and every offset checked. Follows
//! the tail, or catches up to given offsets and stops. Never commits offsets.

use crate::answer::{Answer, Part, Seen};
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
/// Bytes read at once, into memory that all consumers share: it stays in the core's cache, so that the generator does not
/// become the limit of what is measured.
pub const PIECE: usize = 256 * 1024;

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
    answer: Answer,
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
            answer: Answer::default(),
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

    /// Reads one piece through `memory`, checks what it completes, hands on the partition and base offset of each batch, and
    /// asks for more after a whole answer. One piece only, so that other connections get their turn. True when it made
    /// progress.
    pub fn receive(
        &mut self,
        memory: &mut [u8],
        mut batch: impl FnMut(usize, i64) -> Outcome<()>,
    ) -> Outcome<bool> {
        let read = match self.stream.read(memory) {
            Ok(0) => return Err("the broker closed a consumer's connection".into()),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("receiving a Fetch: {error}")),
        };
        let mut rest = &memory[..read];
        while let Some(seen) = self.answer.next(&mut rest)? {
            match seen {
                Seen::Id(id) if id == self.next_id => {}
                Seen::Id(id) => return Err(format!("Fetch {} was answered as {id}", self.next_id)),
                Seen::Part(Part { partition, error }) if error != 0 => {
                    return Err(format!("Fetch of partition {partition}: error code {error}"));
                }
                Seen::Part(Part { partition, .. }) => drop(self.place(partition)?),
                Seen::Batch { partition, base_offset, count, bytes } => {
                    let place = self.place(partition)?;
                    let next = base_offset + i64::from(count);
                    // A Fetch into the middle of a batch gets all of it.
                    if next <= place.next {
                        continue;
                    }
                    if base_offset > place.next {
                        return Err(format!(
                            "partition {partition}: after offset {} comes {base_offset}",
                            place.next
                        ));
                    }
                    place.next = next;
                    let partition = place.partition;
                    self.bytes += bytes as u64;
                    batch(partition, base_offset)?;
                }
                Seen::End => self.ask()?,
            }
        }
        Ok(true)
    }

    fn place(&mut self, partition: i32) -> Outcome<&mut Position> {
        let place = self.positions.iter_mut().find(|place| place.partition == partition as usize);
        place.ok_or_else(|| format!("partition {partition} was not asked for"))
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
