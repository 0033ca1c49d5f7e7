//! The closed-loop generator: one pinned thread, epoll, prebuilt requests, every answer checked. Follows the leaders that
//! Metadata names, so a broker per core gets its own connections. Never retries: an error code ends the run.

use crate::frames;
use crate::ledger::Ledger;
use crate::load::{Case, Measured, Plan};
use crate::procfs::{self, Usage};
use crate::sys::Epoll;
use crate::{Outcome, client, sys};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Requests larger than this are written from the prebuilt frame, smaller ones are copied together.
const COPY_MAX: usize = 16 * 1024;

/// A large request under way: its id, which prebuilt frame, how much of it is written.
struct Large {
    id: i32,
    frame: usize,
    written: usize,
}

/// A request without its answer yet.
struct InFlight {
    id: i32,
    partition: usize,
    at: Instant,
}

struct Conn {
    stream: TcpStream,
    /// Partitions led by this connection's broker.
    partitions: Vec<usize>,
    next_partition: usize,
    next_id: i32,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    large: VecDeque<Large>,
    in_flight: VecDeque<InFlight>,
    /// Last base offset acknowledged on this connection, per partition: it must rise.
    last_base: Vec<i64>,
    wants_write: bool,
}

/// Everything of a run that outlives one event.
struct Run<'a> {
    frames: &'a [Vec<u8>],
    ledgers: Vec<Ledger>,
    latency_ns: Histogram<u64>,
    measuring: bool,
    verified: u64,
}

/// Makes the topic, probes each partition, runs the load, drains it and checks that every partition's offsets are dense.
pub fn run(case: &Case, plan: &Plan) -> Outcome<Measured> {
    sys::pin(plan.core)?;
    let topic =
        plan.topic.clone().unwrap_or_else(|| format!("bench-{}-{}", case.name, crate::load::now_ms()));
    create(&topic, case, plan)?;
    let leaders = client::leaders(&plan.bootstrap, &topic, Duration::from_secs(30))?;
    let batch = case.batch();
    let starts = client::probe(&leaders, &topic, &batch, case.records as i64)?;
    let frames: Vec<Vec<u8>> =
        (0..leaders.len()).map(|partition| frames::produce(0, &topic, partition as i32, &batch)).collect();
    let mut run = Run {
        frames: &frames,
        ledgers: starts.iter().map(|start| Ledger::new(*start, case.records as i64)).collect(),
        latency_ns: Histogram::new_with_bounds(1, 120_000_000_000, 3).map_err(|error| error.to_string())?,
        measuring: false,
        verified: 0,
    };
    let mut conns = connect(case, &leaders, &topic)?;
    let mut epoll = Epoll::new()?;
    for (token, conn) in conns.iter_mut().enumerate() {
        epoll.watch(conn.stream.as_raw_fd(), token, false, true)?;
        conn.queue(case.depth, run.frames);
        conn.flush(&epoll, token, run.frames)?;
    }
    run.pump(&mut conns, &mut epoll, plan.warmup, true)?;
    let before = plan.broker_pid.map_or(Ok(Usage::default()), procfs::usage)?;
    run.measuring = true;
    let from = Instant::now();
    run.pump(&mut conns, &mut epoll, plan.measure, true)?;
    let elapsed = from.elapsed();
    run.measuring = false;
    let after = plan.broker_pid.map_or(Ok(Usage::default()), procfs::usage)?;
    run.pump(&mut conns, &mut epoll, Duration::from_secs(30), false)?;
    for (partition, ledger) in run.ledgers.iter().enumerate() {
        ledger.dense().map_err(|error| format!("{topic}-{partition}: {error}"))?;
    }
    let mut measured = Measured::new(case, elapsed, &run.latency_ns, run.verified, batch.len());
    if plan.broker_pid.is_some() {
        measured.charge(&before, &after, batch.len());
    }
    Ok(measured)
}

fn create(topic: &str, case: &Case, plan: &Plan) -> Outcome<()> {
    let configs: Vec<(&str, &str)> =
        plan.configs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    client::Client::connect(&plan.bootstrap, Duration::from_secs(30))?.create_topic(
        topic,
        case.partitions,
        &configs,
    )
}

/// Connections dealt out to the brokers in turn, each with the partitions that its broker leads.
fn connect(case: &Case, leaders: &[String], topic: &str) -> Outcome<Vec<Conn>> {
    let mut led: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for (partition, address) in leaders.iter().enumerate() {
        led.entry(address).or_default().push(partition);
    }
    let brokers: Vec<(&String, Vec<usize>)> = led.into_iter().collect();
    (0..case.conns.max(brokers.len()))
        .map(|i| {
            let (address, partitions) = &brokers[i % brokers.len()];
            let stream = client::Client::connect(address, Duration::from_secs(10))?.proven(topic)?;
            stream.set_nonblocking(true).map_err(|error| format!("{address}: {error}"))?;
            Ok(Conn {
                stream,
                next_partition: i * partitions.len() / case.conns,
                partitions: partitions.clone(),
                next_id: 0,
                input: vec![0; 64 * 1024],
                filled: 0,
                output: Vec::new(),
                written: 0,
                large: VecDeque::new(),
                in_flight: VecDeque::new(),
                last_base: vec![-1; leaders.len()],
                wants_write: false,
            })
        })
        .collect()
}

impl Run<'_> {
    /// Serves events for `time`; with `refill` an answer brings a new request, without it ends when nothing is in flight.
    fn pump(&mut self, conns: &mut [Conn], epoll: &mut Epoll, time: Duration, refill: bool) -> Outcome<()> {
        let deadline = Instant::now() + time;
        let mut heard = Instant::now();
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if now >= deadline {
                let lost: usize = conns.iter().map(|conn| conn.in_flight.len()).sum();
                return if refill {
                    Ok(())
                } else {
                    Err(format!("{lost} requests were not answered within {time:?}"))
                };
            }
            if !refill && conns.iter().all(|conn| conn.in_flight.is_empty()) {
                return Ok(());
            }
            if now - heard > Duration::from_secs(30) {
                return Err("no answer for 30 s although requests are in flight: the broker is stuck".into());
            }
            epoll.wait(100, &mut ready);
            for token in ready.iter().copied() {
                heard = now;
                let conn = &mut conns[token];
                let answered = self.receive(conn)?;
                if refill && answered > 0 {
                    conn.queue(answered, self.frames);
                }
                conn.flush(epoll, token, self.frames)?;
            }
        }
    }

    /// Reads what is there and checks every whole answer: how many there were.
    fn receive(&mut self, conn: &mut Conn) -> Outcome<usize> {
        match conn.stream.read(&mut conn.input[conn.filled..]) {
            Ok(0) => return Err("the broker closed a connection".into()),
            Ok(n) => conn.filled += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(format!("receiving: {error}")),
        }
        let now = Instant::now();
        let (mut pos, mut answered) = (0, 0);
        while let Some(size) = conn.input[pos..conn.filled].first_chunk::<4>() {
            let size = i32::from_be_bytes(*size) as usize;
            if size > conn.input.len() - 4 {
                return Err(format!("an answer of {size} bytes to a Produce"));
            }
            if conn.filled - pos - 4 < size {
                break;
            }
            let answer = frames::produced(&conn.input[pos + 4..pos + 4 + size])?;
            let request = conn.in_flight.pop_front().ok_or("an answer without a request")?;
            self.check(conn, &request, &answer)?;
            if self.measuring {
                self.latency_ns.saturating_record((now - request.at).as_nanos() as u64);
            }
            pos += 4 + size;
            answered += 1;
        }
        conn.input.copy_within(pos..conn.filled, 0);
        conn.filled -= pos;
        self.verified += answered as u64;
        Ok(answered)
    }

    fn check(&mut self, conn: &mut Conn, request: &InFlight, answer: &frames::Produced) -> Outcome<()> {
        let place = format!("partition {}", request.partition);
        if answer.correlation_id != request.id || answer.partition != request.partition as i32 {
            return Err(format!("answers out of order: {answer:?} for request {} to {place}", request.id));
        }
        if answer.error != 0 {
            return Err(format!("{place}: error code {}", answer.error));
        }
        let last = &mut conn.last_base[request.partition];
        if answer.base_offset <= *last {
            return Err(format!("{place}: offset {} acknowledged after {last}", answer.base_offset));
        }
        *last = answer.base_offset;
        self.ledgers[request.partition]
            .acknowledge(answer.base_offset)
            .map_err(|error| format!("{place}: {error}"))
    }
}

impl Conn {
    /// Queues `count` requests to this connection's partitions in turn.
    fn queue(&mut self, count: usize, frames: &[Vec<u8>]) {
        let now = Instant::now();
        for _ in 0..count {
            let partition = self.partitions[self.next_partition % self.partitions.len()];
            self.next_partition += 1;
            self.next_id = self.next_id.wrapping_add(1);
            self.in_flight.push_back(InFlight { id: self.next_id, partition, at: now });
            let frame = &frames[partition];
            if frame.len() > COPY_MAX {
                self.large.push_back(Large { id: self.next_id, frame: partition, written: 0 });
                continue;
            }
            let start = self.output.len();
            self.output.extend_from_slice(frame);
            self.output[start..][frames::CORRELATION].copy_from_slice(&self.next_id.to_be_bytes());
        }
    }

    /// Writes what the socket takes and asks for a writable event when something is left.
    fn flush(&mut self, epoll: &Epoll, token: usize, frames: &[Vec<u8>]) -> Outcome<()> {
        let done = self.write_small()? && self.write_large(frames)?;
        if self.wants_write == done {
            self.wants_write = !done;
            epoll.watch(self.stream.as_raw_fd(), token, !done, false)?;
        }
        Ok(())
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
