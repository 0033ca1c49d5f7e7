//! One producing connection: prebuilt requests out, answers in, in order. Never decides when to send nor what an answer
//! means.

use crate::{Outcome, frames};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Requests larger than this are written from the prebuilt frame, smaller ones are copied together.
const COPY_MAX: usize = 16 * 1024;
/// Largest answer to a Produce, bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// A large request under way: its id, which prebuilt frame, how much of it is written.
struct Large {
    id: i32,
    frame: usize,
    written: usize,
}

/// A request without its answer yet.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    id: i32,
    pub partition: usize,
    /// When it should have been sent; in a closed loop, when it was.
    pub intended: Instant,
    pub sent: Instant,
}

/// A connection and its requests in flight.
pub struct Producing {
    pub stream: TcpStream,
    /// Partitions led by this connection's broker.
    partitions: Vec<usize>,
    next_partition: usize,
    next_id: i32,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    large: VecDeque<Large>,
    pub in_flight: VecDeque<InFlight>,
    /// Last base offset acknowledged here, per partition: it must rise.
    last_base: Vec<i64>,
    pub wants_write: bool,
    /// The latencies measured on this connection, if they are kept.
    pub latencies_us: Vec<u32>,
}

impl Producing {
    /// A connection that sends to `partitions` in turn, from the `first` on; `all` partitions has the topic.
    pub fn new(stream: TcpStream, partitions: Vec<usize>, first: usize, all: usize) -> Producing {
        Producing {
            stream,
            partitions,
            next_partition: first,
            next_id: 0,
            input: vec![0; ANSWER_MAX],
            filled: 0,
            output: Vec::new(),
            written: 0,
            large: VecDeque::new(),
            in_flight: VecDeque::new(),
            last_base: vec![-1; all],
            wants_write: false,
            latencies_us: Vec::new(),
        }
    }

    /// Queues one request to the next of this connection's partitions.
    pub fn queue(&mut self, intended: Instant, now: Instant, frames: &[Vec<u8>]) {
        let partition = self.partitions[self.next_partition % self.partitions.len()];
        self.next_partition += 1;
        self.next_id = self.next_id.wrapping_add(1);
        self.in_flight.push_back(InFlight { id: self.next_id, partition, intended, sent: now });
        let frame = &frames[partition];
        if frame.len() > COPY_MAX {
            self.large.push_back(Large { id: self.next_id, frame: partition, written: 0 });
            return;
        }
        let start = self.output.len();
        self.output.extend_from_slice(frame);
        self.output[start..][frames::CORRELATION].copy_from_slice(&self.next_id.to_be_bytes());
    }

    /// Reads what is there; checks order, error code and rising offsets of every whole answer and hands it on.
    pub fn receive(
        &mut self,
        mut answered: impl FnMut(&InFlight, i64, &mut Vec<u32>) -> Outcome<()>,
    ) -> Outcome<usize> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err("the broker closed a connection".into()),
            Ok(n) => self.filled += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(format!("receiving: {error}")),
        }
        let (mut pos, mut count) = (0, 0);
        while let Some(size) = self.input[pos..self.filled].first_chunk::<4>() {
            let size = i32::from_be_bytes(*size) as usize;
            if size > self.input.len() - 4 {
                return Err(format!("an answer of {size} bytes to a Produce"));
            }
            if self.filled - pos - 4 < size {
                break;
            }
            let answer = frames::produced(&self.input[pos + 4..pos + 4 + size])?;
            let request = self.in_flight.pop_front().ok_or("an answer without a request")?;
            self.check(&request, &answer)?;
            answered(&request, answer.base_offset, &mut self.latencies_us)
                .map_err(|error| format!("partition {}: {error}", request.partition))?;
            pos += 4 + size;
            count += 1;
        }
        self.input.copy_within(pos..self.filled, 0);
        self.filled -= pos;
        Ok(count)
    }

    fn check(&mut self, request: &InFlight, answer: &frames::Produced) -> Outcome<()> {
        let partition = request.partition;
        if answer.correlation_id != request.id || answer.partition != partition as i32 {
            return Err(format!(
                "answers out of order: {answer:?} for request {} to {partition}",
                request.id
            ));
        }
        if answer.error != 0 {
            return Err(format!("partition {partition}: error code {}", answer.error));
        }
        let last = &mut self.last_base[partition];
        if answer.base_offset <= *last {
            return Err(format!(
                "partition {partition}: offset {} acknowledged after {last}",
                answer.base_offset
            ));
        }
        *last = answer.base_offset;
        Ok(())
    }

    /// Writes what the socket takes; true when nothing is left.
    pub fn write(&mut self, frames: &[Vec<u8>]) -> Outcome<bool> {
        Ok(self.write_small()? && self.write_large(frames)?)
    }

    fn write_small(&mut self) -> Outcome<bool> {
        while self.written < self.output.len() {
            match written(self.stream.write(&self.output[self.written..]))? {
                0 => return Ok(false),
                n => self.written += n,
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }

    fn write_large(&mut self, frames: &[Vec<u8>]) -> Outcome<bool> {
        while let Some(large) = self.large.front_mut() {
            let frame = &frames[large.frame];
            let mut head = [0; frames::CORRELATION.end];
            head.copy_from_slice(&frame[..frames::CORRELATION.end]);
            head[frames::CORRELATION].copy_from_slice(&large.id.to_be_bytes());
            let rest = &frame[large.written.max(head.len())..];
            let slices = [&head[large.written.min(head.len())..], rest].map(std::io::IoSlice::new);
            match written(self.stream.write_vectored(&slices))? {
                0 => return Ok(false),
                n => large.written += n,
            }
            if large.written == frame.len() {
                self.large.pop_front();
            }
        }
        Ok(true)
    }
}

/// Bytes taken by a write; 0 when the socket is full.
fn written(result: std::io::Result<usize>) -> Outcome<usize> {
    match result {
        Ok(n) => Ok(n),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(format!("sending: {error}")),
    }
}
