//! A blocking Kafka connection: one request, one answer. For setting up, probing and reading back; never for measured load.

use crate::frames::{self, Metadata, RETRIABLE};
use crate::{Outcome, sys};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Largest answer that is believed, bytes.
const FRAME_MAX: usize = 256 << 20;

/// Connects with TCP_NODELAY and cubic; every read and write fails after `timeout`. Of several addresses with commas between, to
/// the first that takes it, beginning with another one each time.
pub fn connect(address: &str, timeout: Duration) -> Outcome<TcpStream> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let all: Vec<&str> = address.split(',').collect();
    let first = if all.len() > 1 { NEXT.fetch_add(1, Ordering::Relaxed) } else { 0 };
    let mut last = format!("{address}: no address");
    for turn in 0..all.len() {
        match connect_one(all[(first + turn) % all.len()], timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_one(address: &str, timeout: Duration) -> Outcome<TcpStream> {
    let mut last = format!("{address}: no address");
    for target in address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))? {
        match TcpStream::connect_timeout(&target, timeout) {
            Ok(stream) => {
                sys::cubic(stream.as_raw_fd())?;
                let set = stream
                    .set_nodelay(true)
                    .and_then(|()| stream.set_read_timeout(Some(timeout)))
                    .and_then(|()| stream.set_write_timeout(Some(timeout)));
                return set.map(|()| stream).map_err(|error| format!("{address}: {error}"));
            }
            Err(error) => last = format!("cannot connect to {address}: {error}"),
        }
    }
    Err(last)
}

/// One connection to one broker.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    address: String,
    frame: Vec<u8>,
    next_id: i32,
}

impl Client {
    /// Connects; answers are waited for at most `timeout`.
    pub fn connect(address: &str, timeout: Duration) -> Outcome<Client> {
        Ok(Client {
            stream: connect(address, timeout)?,
            address: address.to_string(),
            frame: Vec::new(),
            next_id: 0,
        })
    }

    /// The connection itself, after one small request: Pelton takes no frame above 64 KiB before a valid one.
    pub fn proven(mut self, topic: &str) -> Outcome<TcpStream> {
        self.metadata(topic)?;
        Ok(self.stream)
    }

    /// The next correlation id.
    pub fn id(&mut self) -> i32 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends a whole frame.
    pub fn send(&mut self, frame: &[u8]) -> Outcome<()> {
        self.stream.write_all(frame).map_err(|error| format!("{}: {error}", self.address))
    }

    /// Waits for one answer and gives it without its size.
    pub fn receive(&mut self) -> Outcome<&[u8]> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.address);
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).map_err(failed)?;
        let size = i32::from_be_bytes(size) as usize;
        if size > FRAME_MAX {
            return Err(format!("{}: answer of {size} bytes", self.address));
        }
        self.frame.resize(size, 0);
        self.stream.read_exact(&mut self.frame).map_err(failed)?;
        Ok(&self.frame)
    }

    /// Sends a request and gives its answer, which must carry `id`.
    pub fn call(&mut self, id: i32, frame: &[u8]) -> Outcome<&[u8]> {
        self.send(frame)?;
        let answer = self.receive()?;
        match answer.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) {
            Some(got) if got == id => Ok(&self.frame),
            got => Err(format!("{}: correlation id {got:?} instead of {id}", self.address)),
        }
    }

    /// What the broker knows about `topic`.
    pub fn metadata(&mut self, topic: &str) -> Outcome<Metadata> {
        let id = self.id();
        frames::metadata_answer(self.call(id, &frames::metadata(id, topic))?)
    }

    /// Creates a topic with replication factor 1; an existing topic is an error.
    pub fn create_topic(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Outcome<()> {
        self.create_replicated(topic, partitions, 1, configs)
    }

    /// The same with any replication factor.
    pub fn create_replicated(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Outcome<()> {
        let id = self.id();
        let frame = frames::create_topics(id, topic, partitions, replicas, configs);
        match frames::created(self.call(id, &frame)?)? {
            (0, _) => Ok(()),
            (code, message) => Err(format!("creating topic {topic}: error {code} {message}")),
        }
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, topic: &str) -> Outcome<()> {
        let id = self.id();
        match frames::deleted(self.call(id, &frames::delete_topics(id, topic))?)? {
            0 => Ok(()),
            code => Err(format!("deleting topic {topic}: error {code}")),
        }
    }

    /// Asks for the id and epoch of a new idempotent producer.
    pub fn init_producer(&mut self) -> Outcome<(i64, i16)> {
        let id = self.id();
        match frames::producer_id(self.call(id, &frames::init_producer_id(id))?)? {
            (0, producer_id, epoch) => Ok((producer_id, epoch)),
            (code, ..) => Err(format!("InitProducerId: error code {code}")),
        }
    }

    /// Produces one batch and waits: its base offset, or the error code.
    pub fn produce(&mut self, topic: &str, partition: i32, records: &[u8]) -> Outcome<Result<i64, i16>> {
        let id = self.id();
        let answer = frames::produced(self.call(id, &frames::produce(id, topic, partition, records))?)?;
        if answer.partition != partition {
            return Err(format!("Produce to partition {partition} was answered for {}", answer.partition));
        }
        Ok(if answer.error == 0 { Ok(answer.base_offset) } else { Err(answer.error) })
    }

    /// The offset of a time (-2: the first, -1: the high watermark) in one partition, or the error code.
    pub fn list_offset(&mut self, topic: &str, partition: i32, time: i64) -> Outcome<Result<i64, i16>> {
        let id = self.id();
        let (error, offset) =
            frames::listed_offset(self.call(id, &frames::list_offset(id, topic, partition, time))?)?;
        Ok(if error == 0 { Ok(offset) } else { Err(error) })
    }

    /// Fetches from one partition: error code, high watermark and records.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> Outcome<frames::Fetched<'_>> {
        let id = self.id();
        frames::fetched(self.call(id, &frames::fetch(id, topic, partition, offset, max_bytes, 500))?)
    }
}

/// Leader address of every partition, once all have one; waits at most `patience`.
pub fn leaders(bootstrap: &str, topic: &str, patience: Duration) -> Outcome<Vec<String>> {
    let deadline = Instant::now() + patience;
    loop {
        let attempt = Client::connect(bootstrap, Duration::from_secs(5)).and_then(|mut c| c.metadata(topic));
        let why = match attempt {
            Ok(metadata) => {
                let brokers: BTreeMap<i32, &String> =
                    metadata.brokers.iter().map(|(id, at)| (*id, at)).collect();
                let found: Option<Vec<String>> = metadata
                    .leaders
                    .iter()
                    .map(|(_, leader)| brokers.get(leader).map(|at| (*at).clone()))
                    .collect();
                match found {
                    Some(addresses) if !addresses.is_empty() && metadata.error == 0 => return Ok(addresses),
                    _ => format!("topic error {}, partitions {:?}", metadata.error, metadata.leaders),
                }
            }
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(format!("topic {topic} got no leaders within {patience:?}: {why}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Produces one batch to each partition, trying again while the broker says "not yet": the offset after it, per partition.
pub fn probe(leaders: &[String], topic: &str, records: &[u8], count: i64) -> Outcome<Vec<i64>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut clients: BTreeMap<&String, Client> = BTreeMap::new();
    let mut next = Vec::new();
    for (partition, address) in leaders.iter().enumerate() {
        if !clients.contains_key(address) {
            let mut client = Client::connect(address, Duration::from_secs(30))?;
            client.metadata(topic)?;
            clients.insert(address, client);
        }
        let client = clients.get_mut(address).expect("inserted above");
        next.push(loop {
            match client.produce(topic, partition as i32, records)? {
                Ok(offset) => break offset + count,
                Err(code) if RETRIABLE.contains(&code) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(code) => return Err(format!("probe of {topic}-{partition}: error {code}")),
            }
        });
    }
    Ok(next)
}
