//! The generator: one pinned thread, epoll, prebuilt requests, every answer and every batch read checked. Follows the leaders
//! that Metadata names, so a broker per core gets its own connections. Never retries: an error code ends the run.

use crate::consuming::{Consuming, PIECE};
use crate::end_to_end::Timeline;
use crate::frames;
use crate::ledger::Ledger;
use crate::load::{Case, Latencies, Measured, Plan};
use crate::procfs::{self, Usage};
use crate::producing::Producing;
use crate::sys::Epoll;
use crate::{Outcome, client, sys};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// From this many connections on, and with a schedule, each connection's latencies are kept.
const EACH_CONNECTIONS: usize = 1000;
/// Fewer samples of a connection than this have no 99th percentile to speak of.
pub const EACH_SAMPLES: usize = 100;

/// What outlives one event of a run.
struct Run<'a> {
    case: &'a Case,
    frames: &'a [Vec<u8>],
    ledgers: Vec<Ledger>,
    timelines: Vec<Timeline>,
    latencies: Latencies,
    measuring: bool,
    verified: u64,
    /// Requests sent by schedule, and when the schedule began.
    scheduled: u64,
    began: Instant,
    /// Where the thirds of the window end, and the answers in each.
    thirds: [(Option<Instant>, u64); 3],
    /// Every connection's latencies are kept, to tell whether all are served alike.
    each: bool,
    /// What consumers read through.
    memory: Vec<u8>,
}

/// The connections of a run. Tokens: producers first, then consumers.
struct Connections {
    producers: Vec<Producing>,
    consumers: Vec<Consuming>,
    epoll: Epoll,
}

/// Makes the topic, probes each partition, runs the load, drains it and checks that every partition's offsets are dense and
/// that every consumer saw all of them.
pub fn run(case: &Case, plan: &Plan) -> Outcome<Measured> {
    sys::pin(plan.core)?;
    sys::precise_timers();
    let topic =
        plan.topic.clone().unwrap_or_else(|| format!("bench-{}-{}", case.name, crate::load::now_ms()));
    create(&topic, case, plan)?;
    let leaders = client::leaders(&plan.bootstrap, &topic, Duration::from_secs(60))?;
    let batch = case.batch();
    let starts = client::probe(&leaders, &topic, &batch, case.records as i64)?;
    let frames: Vec<Vec<u8>> =
        (0..leaders.len()).map(|partition| frames::produce(0, &topic, partition as i32, &batch)).collect();
    let records = case.records as i64;
    let mut run = Run {
        case,
        frames: &frames,
        ledgers: starts.iter().map(|start| Ledger::new(*start, records)).collect(),
        timelines: starts.iter().map(|start| Timeline::new(*start, records, case.tails)).collect(),
        latencies: Latencies::new()?,
        measuring: false,
        verified: 0,
        scheduled: 0,
        began: Instant::now(),
        thirds: [(None, 0); 3],
        each: case.rate > 0.0 && case.conns >= EACH_CONNECTIONS,
        memory: vec![0; PIECE],
    };
    let mut conns = connect(case, &leaders, &topic, &starts)?;
    // Connected before anything is measured: that takes round trips in which nothing else would be served.
    let readers = catch_up(plan)?;
    run.began = Instant::now();
    run.begin(&mut conns)?;
    run.pump(&mut conns, plan.warmup, true)?;
    let before = usage(plan)?;
    let consumed_before: u64 = conns.tails().map(|consumer| consumer.bytes).sum();
    run.measuring = true;
    let (from, cpu_from) = (Instant::now(), sys::thread_cpu());
    for (number, third) in run.thirds.iter_mut().enumerate() {
        third.0 = Some(from + plan.measure * (number as u32 + 1) / 3);
    }
    readers.into_iter().try_for_each(|reader| conns.watch(reader))?;
    run.pump(&mut conns, plan.measure, true)?;
    let (elapsed, cpu) = (from.elapsed(), sys::thread_cpu().saturating_sub(cpu_from));
    run.measuring = false;
    let after = usage(plan)?;
    let consumed: u64 = conns.tails().map(|consumer| consumer.bytes).sum::<u64>() - consumed_before;
    let caught_up = conns.caught_up(from, elapsed);
    run.pump(&mut conns, Duration::from_secs(60), false)?;
    for (partition, ledger) in run.ledgers.iter().enumerate() {
        ledger.dense().map_err(|error| format!("{topic}-{partition}: {error}"))?;
    }
    let mut measured = Measured::new(case, elapsed, &run.latencies.produce, run.verified, batch.len());
    measured.consumed_mb_per_s = consumed as f64 / 1e6 / elapsed.as_secs_f64() + caught_up.0;
    measured.catch_up_mb_per_s = caught_up.1;
    (measured.unfairness, measured.worst_unfairness) = conns.unfairness();
    measured.end_over_beginning = run.thirds[2].1 as f64 / run.thirds[0].1.max(1) as f64;
    measured.generator_busy = cpu.as_secs_f64() / elapsed.as_secs_f64();
    measured.ends = run.ledgers.iter().map(Ledger::end).collect();
    measured.topic = topic;
    if !plan.broker_pids.is_empty() {
        measured.charge(&before, &after, batch.len());
    }
    measured.latencies = Some(run.latencies);
    Ok(measured)
}

/// What all brokers have used so far.
fn usage(plan: &Plan) -> Outcome<Usage> {
    let mut sum = Usage::default();
    for pid in &plan.broker_pids {
        sum.add(&procfs::usage(*pid)?);
    }
    Ok(sum)
}

fn create(topic: &str, case: &Case, plan: &Plan) -> Outcome<()> {
    let configs: Vec<(&str, &str)> =
        plan.configs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut client = client::Client::connect(&plan.bootstrap, Duration::from_secs(120))?;
    client.create_replicated(topic, case.partitions, plan.replicas, &configs)
}

/// Partitions by the broker that leads them.
fn led(leaders: &[String]) -> Vec<(&String, Vec<usize>)> {
    let mut led: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for (partition, address) in leaders.iter().enumerate() {
        led.entry(address).or_default().push(partition);
    }
    led.into_iter().collect()
}

/// Connections dealt out to the brokers in turn, each with the partitions that its broker leads.
fn connect(case: &Case, leaders: &[String], topic: &str, starts: &[i64]) -> Outcome<Connections> {
    let brokers = led(leaders);
    let open = |address: &str| -> Outcome<std::net::TcpStream> {
        let stream = client::Client::connect(address, Duration::from_secs(30))?.proven(topic)?;
        stream.set_nonblocking(true).map_err(|error| format!("{address}: {error}"))?;
        Ok(stream)
    };
    let mut conns = Connections { producers: Vec::new(), consumers: Vec::new(), epoll: Epoll::new()? };
    for i in 0..case.conns.max(brokers.len()) {
        let (address, partitions) = &brokers[i % brokers.len()];
        let first = i * partitions.len() / case.conns;
        let stream = open(address)?;
        conns.epoll.watch(stream.as_raw_fd(), i, false, true)?;
        conns.producers.push(Producing::new(stream, partitions.clone(), first, leaders.len()));
    }
    for consumer in 0..case.tails {
        for (address, partitions) in &brokers {
            let places: Vec<_> =
                partitions.iter().map(|partition| (*partition, starts[*partition], None)).collect();
            conns.watch(Consuming::new(open(address)?, topic, &places, consumer))?;
        }
    }

    Ok(conns)
}

/// Readers that catch up, one for each broker; they have asked for nothing yet.
fn catch_up(plan: &Plan) -> Outcome<Vec<Consuming>> {
    let Some(catch_up) = &plan.catch_up else { return Ok(Vec::new()) };
    let of_topic = client::leaders(&plan.bootstrap, &catch_up.topic, Duration::from_secs(30))?;
    let mut readers = Vec::new();
    for (address, partitions) in led(&of_topic) {
        let stream = client::Client::connect(address, Duration::from_secs(30))?.proven(&catch_up.topic)?;
        stream.set_nonblocking(true).map_err(|error| format!("{address}: {error}"))?;
        let places: Vec<_> = partitions
            .iter()
            .map(|partition| (*partition, 0, catch_up.ends.get(*partition).copied()))
            .collect();
        readers.push(Consuming::new(stream, &catch_up.topic, &places, usize::MAX));
    }
    Ok(readers)
}

impl Connections {
    fn watch(&mut self, mut consumer: Consuming) -> Outcome<()> {
        let token = self.producers.len() + self.consumers.len();
        self.epoll.watch(consumer.stream.as_raw_fd(), token, false, true)?;
        consumer.ask()?;
        self.consumers.push(consumer);
        Ok(())
    }

    /// Consumers that follow the tail.
    fn tails(&self) -> impl Iterator<Item = &Consuming> {
        self.consumers.iter().filter(|consumer| consumer.is_tail())
    }

    /// What readers that catch up got: 10^6 bytes per second of the window, and of the time until they were done.
    fn caught_up(&self, from: Instant, elapsed: Duration) -> (f64, f64) {
        let readers: Vec<&Consuming> = self.consumers.iter().filter(|consumer| !consumer.is_tail()).collect();
        let bytes: u64 = readers.iter().map(|reader| reader.bytes).sum();
        let end = |reader: &&Consuming| reader.finished.map_or(elapsed, |at| at - from);
        let took = readers.iter().map(end).max().unwrap_or(elapsed);
        (bytes as f64 / 1e6 / elapsed.as_secs_f64(), bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9))
    }

    /// How much worse the worst served connection fares than the median one: by their 99th percentiles, and by their worst
    /// latencies. NaN without enough samples of every connection: one stall of the machine meets some connections and not
    /// others, and that is not unfairness of the broker.
    fn unfairness(&self) -> (f64, f64) {
        let mut p99 = Vec::new();
        let mut worst = Vec::new();
        for producer in &self.producers {
            let mut sorted = producer.latencies_us.clone();
            sorted.sort_unstable();
            if sorted.len() < EACH_SAMPLES {
                return (f64::NAN, f64::NAN);
            }
            p99.push(sorted[(sorted.len() * 99).div_ceil(100) - 1]);
            worst.push(sorted[sorted.len() - 1]);
        }
        let ratio = |mut values: Vec<u32>| {
            values.sort_unstable();
            let middle = values.get(values.len() / 2).copied().unwrap_or(0).max(1);
            f64::from(values.last().copied().unwrap_or(0)) / f64::from(middle)
        };
        (ratio(p99), ratio(worst))
    }
}

impl Run<'_> {
    fn begin(&mut self, conns: &mut Connections) -> Outcome<()> {
        if self.case.rate > 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        for token in 0..conns.producers.len() {
            for _ in 0..self.case.depth {
                conns.producers[token].queue(now, now, self.frames);
            }
            self.flush(conns, token)?;
        }
        Ok(())
    }

    /// Queues what the schedule wants by now, connection after connection, so that each has a schedule of its own; says how
    /// long until the next is due.
    fn schedule(&mut self, conns: &mut Connections) -> Outcome<Duration> {
        loop {
            let now = Instant::now();
            let due = self.began + Duration::from_secs_f64(self.scheduled as f64 / self.case.rate);
            if due > now {
                return Ok(due - now);
            }
            let token = (self.scheduled % conns.producers.len() as u64) as usize;
            self.scheduled += 1;
            conns.producers[token].queue(due, now, self.frames);
            self.flush(conns, token)?;
        }
    }

    /// Serves events for `time`; with `refill` the load goes on, without it ends when nothing is in flight and every
    /// consumer has all.
    fn pump(&mut self, conns: &mut Connections, time: Duration, refill: bool) -> Outcome<()> {
        let deadline = Instant::now() + time;
        let mut heard = Instant::now();
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if now >= deadline {
                return if refill { Ok(()) } else { Err(self.unfinished(conns, time)) };
            }
            if !refill && self.is_done(conns) {
                return Ok(());
            }
            if now - heard > Duration::from_secs(30) {
                return Err("no answer for 30 s although requests are in flight: the broker is stuck".into());
            }
            let mut wait = Duration::from_millis(100).min(deadline - now);
            if refill && self.case.rate > 0.0 {
                wait = wait.min(self.schedule(conns)?);
            }
            conns.epoll.wait(wait, &mut ready);
            for token in ready.iter().copied() {
                heard = now;
                self.event(conns, token, refill)?;
                if token >= conns.producers.len() && refill && self.case.rate > 0.0 {
                    // A piece of a consumer's takes long enough for requests to fall due.
                    self.schedule(conns)?;
                }
            }
        }
    }

    fn event(&mut self, conns: &mut Connections, token: usize, refill: bool) -> Outcome<()> {
        let Some(producer) = conns.producers.get_mut(token) else {
            return self.consume(&mut conns.consumers[token - conns.producers.len()]);
        };
        let now = Instant::now();
        let Run { ledgers, timelines, latencies, measuring, verified, each, thirds, .. } = self;
        let answered = producer.receive(|request, base_offset, latencies_us| {
            ledgers[request.partition].acknowledge(base_offset)?;
            timelines[request.partition].acknowledged(base_offset, request.intended, *measuring, |latency| {
                latencies.end_to_end.saturating_record(latency.as_nanos() as u64);
            });
            if *measuring {
                let ns = now.saturating_duration_since(request.intended).as_nanos() as u64;
                if *each {
                    latencies_us.push(u32::try_from(ns / 1000).unwrap_or(u32::MAX));
                }
                latencies.produce.saturating_record(ns);
                let service = now.saturating_duration_since(request.sent).as_nanos() as u64;
                latencies.service.saturating_record(service);
            }
            Ok(())
        })?;
        *verified += answered as u64;
        if *measuring
            && let Some(third) = thirds.iter_mut().find(|third| third.0.is_some_and(|end| now < end))
        {
            third.1 += answered as u64;
        }
        if refill && self.case.rate == 0.0 {
            for _ in 0..answered {
                producer.queue(now, now, self.frames);
            }
        }
        self.flush(conns, token)
    }

    fn consume(&mut self, consumer: &mut Consuming) -> Outcome<()> {
        let tail = consumer.is_tail();
        let number = consumer.consumer;
        let Run { timelines, latencies, memory, .. } = self;
        let now = Instant::now();
        consumer.receive(memory, |partition, base_offset| {
            if tail {
                timelines[partition].arrived(base_offset, number, now, |latency| {
                    latencies.end_to_end.saturating_record(latency.as_nanos() as u64);
                });
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Writes what the socket takes and asks for a writable event when something is left.
    fn flush(&mut self, conns: &mut Connections, token: usize) -> Outcome<()> {
        let producer = &mut conns.producers[token];
        let done = producer.write(self.frames)?;
        if producer.wants_write == done {
            producer.wants_write = !done;
            conns.epoll.watch(producer.stream.as_raw_fd(), token, !done, false)?;
        }
        Ok(())
    }

    fn is_done(&self, conns: &Connections) -> bool {
        let ends: Vec<i64> = self.ledgers.iter().map(Ledger::end).collect();
        conns.producers.iter().all(|producer| producer.in_flight.is_empty())
            && conns.tails().all(|consumer| consumer.reached(&ends))
    }

    fn unfinished(&self, conns: &Connections, time: Duration) -> String {
        let lost: usize = conns.producers.iter().map(|producer| producer.in_flight.len()).sum();
        format!("{lost} requests were not answered, or consumers not served, within {time:?}")
    }
}
