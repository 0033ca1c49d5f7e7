//! `pelton produce`: lines of standard input become records. With acks=all the producer is idempotent, so what is sent again
//! after a broken connection is written once.

use std::collections::{BTreeMap, VecDeque};
use std::io::BufRead;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Instant;

use clap::{Args, ValueEnum};
use pelton_wire::api_key::ApiKey;
use pelton_wire::compression::Codec;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::hash::partition_for_key;
use pelton_wire::messages::{InitProducerIdRequestData, InitProducerIdResponseData};
use serde_json::json;

use super::client::Client;
use super::output::Report;
use super::partition_reader::now_ms;
use super::record_input::{InputFormat, InputRecord, header};
use super::topic_change::chosen;
use crate::arguments::{Format, Target};
use crate::failure::Failure;

mod sender;

use sender::{Batch, Sender};

/// Most records gathered before they are sent.
const ROUND_RECORDS_MAX: usize = 10_000;
/// Most bytes gathered before they are sent.
const ROUND_BYTES_MAX: usize = 4 << 20;
/// Largest batch, bytes before compression, unless one record is larger: below Kafka's default `max.message.bytes`.
const BATCH_BYTES_MAX: usize = 900 << 10;

/// Who must have a record before it counts as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum Acks {
    #[value(alias = "-1")]
    All,
    #[value(name = "1")]
    One,
    #[value(name = "0")]
    Zero,
}

/// How records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `pelton produce`.
#[derive(Args, Debug)]
pub struct ProduceArguments {
    /// Topic
    pub topic: String,
    /// The key of every record
    #[arg(short, long, value_name = "KEY")]
    pub key: Option<String>,
    /// What stands between key and value in a line
    #[arg(short = 'K', long, value_name = "DELIMITER", conflicts_with = "key")]
    pub key_delimiter: Option<String>,
    /// A header of every record (repeatable)
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// Partition [default: by the hash of the key; without a key, in turn]
    #[arg(short, long, value_name = "N")]
    pub partition: Option<i32>,
    /// Who must have a record: all in-sync replicas, the leader, or nobody (0: no answer is awaited)
    #[arg(long, value_enum, default_value = "all", allow_hyphen_values = true)]
    pub acks: Acks,
    /// How to compress
    #[arg(short = 'z', long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// Lines are JSON objects with key, value, headers, partition, timestamp, as `consume -J` prints them
    #[arg(short = 'J', long, conflicts_with = "key_delimiter")]
    pub jsonl: bool,
    /// An empty value is null, a tombstone
    #[arg(short = 'Z', long)]
    pub tombstones: bool,
    #[command(flatten)]
    pub target: Target,
}

impl ProduceArguments {
    fn input(&self) -> Result<InputFormat, Failure> {
        let key_delimiter = self.key_delimiter.clone().map(String::into_bytes);
        if key_delimiter.as_ref().is_some_and(Vec::is_empty) {
            return Err(Failure::usage("--key-delimiter must not be empty"));
        }
        Ok(InputFormat {
            json: self.jsonl,
            key: self.key.clone().map(String::into_bytes),
            key_delimiter,
            empty_is_null: self.tombstones,
            headers: self
                .headers
                .iter()
                .map(|(key, value)| (key.clone(), Some(value.clone().into_bytes())))
                .collect(),
        })
    }

    fn codec(&self) -> Codec {
        match self.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        }
    }
}

/// Runs it.
pub fn run(arguments: &ProduceArguments) -> Result<(), Failure> {
    let input = arguments.input()?;
    let mut client = Client::new(&arguments.target);
    let count = client.find_topic(&arguments.topic, true)?;
    chosen(arguments.partition.as_slice(), count, &arguments.topic)?;
    let producer_id = if arguments.acks == Acks::All { producer_id(&mut client) } else { None };
    let mut sender = Sender::new(client, &arguments.topic, arguments.acks, arguments.codec(), producer_id);
    let lines = read_lines();
    let mut turn = now_ms().unsigned_abs() as usize;
    let mut number = 0;
    while let Some(records) = gather(&lines, &input, &mut number)? {
        turn += 1;
        let partitions = spread(records, arguments.partition, count, turn, &arguments.topic)?;
        sender.deliver(batches(partitions))?;
    }
    report(&sender, arguments)
}

/// An id for an idempotent producer; none if the broker has none to give: then records go without.
fn producer_id(client: &mut Client) -> Option<(i64, i16)> {
    let deadline = Instant::now() + super::client::RETRY_PAUSE * 20;
    loop {
        let request = |_version: i16| InitProducerIdRequestData {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequestData::default()
        };
        let answer: InitProducerIdResponseData = client.ask_any(ApiKey::InitProducerId, 4, request).ok()?;
        let error = ErrorCode::from_code(answer.error_code);
        if error == ErrorCode::None {
            return Some((answer.producer_id, answer.producer_epoch));
        }
        if !super::client::passes(error) || Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(super::client::RETRY_PAUSE);
    }
}

/// Lines of standard input without their newline, read by a thread of their own so that slow typing is sent line by line
/// and a fast pipe in large batches.
fn read_lines() -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1024);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let item = match read {
                Ok(0) => return,
                Ok(_) => Ok(line),
                Err(error) => Err(error),
            };
            let failed = item.is_err();
            if sender.send(item).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// What is there to be sent now: at least one record, more if they are waiting. None at the end of the input.
fn gather(
    lines: &Receiver<std::io::Result<Vec<u8>>>,
    input: &InputFormat,
    number: &mut u64,
) -> Result<Option<Vec<InputRecord>>, Failure> {
    let mut records = Vec::new();
    let mut size_bytes = 0;
    while records.len() < ROUND_RECORDS_MAX && size_bytes < ROUND_BYTES_MAX {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Empty) if records.is_empty() => match lines.recv() {
                Ok(line) => line,
                Err(_) => return Ok(None),
            },
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Disconnected) if records.is_empty() => return Ok(None),
            Err(TryRecvError::Disconnected) => break,
        };
        let line = line.map_err(|error| Failure::error(format!("standard input: {error}")))?;
        *number += 1;
        let record =
            input.record(&line).map_err(|problem| Failure::usage(format!("line {number}: {problem}")))?;
        if let Some(record) = record {
            size_bytes += record.size_bytes();
            records.push(record);
        }
    }
    Ok(Some(records))
}

/// Records by partition: the one named, else by the key, else all of a round to one, the next round to the next.
fn spread(
    records: Vec<InputRecord>,
    fixed: Option<i32>,
    count: i32,
    turn: usize,
    topic: &str,
) -> Result<BTreeMap<i32, Vec<InputRecord>>, Failure> {
    let mut partitions: BTreeMap<i32, Vec<InputRecord>> = BTreeMap::new();
    for record in records {
        let partition = match (fixed.or(record.partition), &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => (turn % count.max(1) as usize) as i32,
        };
        chosen(&[partition], count, topic)?;
        partitions.entry(partition).or_default().push(record);
    }
    Ok(partitions)
}

fn batches(partitions: BTreeMap<i32, Vec<InputRecord>>) -> BTreeMap<i32, VecDeque<Batch>> {
    let now_ms = now_ms();
    let cut = |records: Vec<InputRecord>| {
        let mut batches: VecDeque<Batch> = VecDeque::new();
        for mut record in records {
            record.timestamp_ms = record.timestamp_ms.or(Some(now_ms));
            match batches.back_mut() {
                Some(batch) if batch.size_bytes + record.size_bytes() <= BATCH_BYTES_MAX => {
                    batch.push(record)
                }
                _ => batches.push_back(Batch::of(record)),
            }
        }
        batches
    };
    partitions.into_iter().map(|(partition, records)| (partition, cut(records))).collect()
}

fn report(sender: &Sender, arguments: &ProduceArguments) -> Result<(), Failure> {
    let written = sender.written();
    if arguments.target.format == Format::Json {
        let mut report = Report::new("produce");
        let rows = written
            .iter()
            .map(|(partition, written)| {
                let offset = |offset: i64| (offset >= 0).then_some(offset);
                vec![
                    json!(arguments.topic),
                    json!(partition),
                    json!(written.records),
                    json!(offset(written.first_offset)),
                    json!(offset(written.last_offset)),
                ]
            })
            .collect();
        report.section("partitions", &["TOPIC", "PARTITION", "RECORDS", "FIRST-OFFSET", "LAST-OFFSET"], rows);
        return report.print(Format::Json);
    }
    let total: u64 = written.values().map(|written| written.records).sum();
    let parts: Vec<String> = written
        .iter()
        .take(8)
        .map(|(partition, written)| match written.last_offset {
            ..0 => format!("[{partition}]"),
            last => format!("[{partition}] up to offset {last}"),
        })
        .collect();
    let more = if written.len() > 8 { ", …" } else { "" };
    eprintln!(
        "{total} records to {}{}{}{more}",
        arguments.topic,
        if parts.is_empty() { "" } else { " " },
        parts.join(", ")
    );
    Ok(())
}
