//! The broker's hot functions, each called many times between two toggles, for `bench/callgrind` to count instructions of
//! release code: `hot FUNCTION CALLS` prints the heap allocations of all calls. What a function needs is made between the
//! calls and not counted. Time and disk are simulated: every operation is done when it is looked at next.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use pelton_bench::{batch, frames};
use pelton_log::disk::{DiskDone, DiskEffect};
use pelton_log::{DiskImage, PartitionSlot, Progress, ReadStart, Snapshots, Storage, StorageConfig};
use pelton_model::{
    BrokerConfig, ConnectionId, LeaderEpoch, Now, Offset, PartitionKey, ShardId, TopicConfig, TopicId,
};
use pelton_shard::{Effect, Event, Shard};
use pelton_wire::fetch::{FetchResponse, PartitionResponse, TopicResponse};
use pelton_wire::header::RequestHeader;
use pelton_wire::produce::{ProduceItem, ProduceRequest};

/// The broker's allocator, counting.
struct Counting(mimalloc::MiMalloc);

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands every call on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

/// Where callgrind begins and ends to count.
#[inline(never)]
fn between_toggles<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

/// Runs `work` counted; returns its allocations too.
fn counted<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let before = ALLOCATIONS.load(Relaxed);
    let result = between_toggles(work);
    (result, ALLOCATIONS.load(Relaxed) - before)
}

const TOPIC: &str = "hot";
const PARTITIONS: i32 = 100;
/// Requests that come together, each on a connection of its own.
const TOGETHER: u64 = 16;
const CONNECTIONS: u64 = 64;

fn record_batch(value_bytes: usize) -> Vec<u8> {
    batch::build(std::iter::once(&vec![7; value_bytes][..]), 0)
}

fn parse_produce(calls: u64) -> u64 {
    let frame = frames::produce(1, TOPIC, 3, &record_batch(100));
    let frame = &frame[4..];
    let mut allocations = 0;
    for _ in 0..calls {
        let (bytes, more) = counted(|| {
            let header = RequestHeader::parse(frame).expect("our frame");
            let request = ProduceRequest::parse(header.api_version, frame, header.body_offset).expect("ours");
            let records = |item| match item {
                ProduceItem::Partition(part) => part.records.map_or(0, |records| records.len()),
                ProduceItem::Topic(_) => 0,
            };
            request.items().map(records).sum::<usize>()
        });
        assert!(bytes > 100);
        allocations += more;
    }
    allocations
}

fn encode_fetch(calls: u64) -> u64 {
    let partition = |partition_index| PartitionResponse {
        partition_index,
        high_watermark: 1000,
        last_stable_offset: 1000,
        records_length: 1000,
        ..PartitionResponse::default()
    };
    let topic = TopicResponse {
        topic: TOPIC.to_string(),
        partitions: (0..10).map(partition).collect(),
        ..TopicResponse::default()
    };
    let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
    (0..calls).map(|_| counted(|| response.encode(12, 1).len()).1).sum()
}

struct NoSnapshots;

impl Snapshots for NoSnapshots {
    fn partition(&self, _slot: PartitionSlot) -> Vec<u8> {
        Vec::new()
    }
    fn metadata(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A log whose disk does everything at once.
struct Log {
    storage: Storage,
    slot: PartitionSlot,
    disk: Vec<DiskEffect>,
    progress: Progress,
}

const START: Now = Now { monotonic_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 };

impl Log {
    fn new(config: StorageConfig) -> Log {
        let (storage, _) = Storage::recover(config, DiskImage::default(), START).expect("an empty disk");
        let (disk, progress) = (Vec::new(), Progress::default());
        let mut log = Log { storage, slot: PartitionSlot(0), disk, progress };
        log.settle();
        assert!(log.storage.is_ready());
        let key = PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(1)), partition: 0 };
        log.slot = log.storage.open_partition(key, &TopicConfig::default());
        log
    }

    fn append(&mut self, batch: &Bytes) {
        self.storage.append(self.slot, batch.clone(), LeaderEpoch(0), None);
    }

    /// Ends turns until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.storage.end_turn(START, &NoSnapshots, &mut self.disk);
            if self.disk.is_empty() {
                return;
            }
            for effect in std::mem::take(&mut self.disk) {
                let done = DiskDone { ticket: effect.ticket(), result: Ok(Bytes::new()) };
                self.storage.handle(START, done, &mut self.disk, &mut self.progress);
            }
            self.progress = Progress::default();
        }
    }
}

/// Appends, and what turns spend on writing them, laying down included.
fn append(calls: u64) -> u64 {
    let mut log = Log::new(StorageConfig::default());
    let batch = Bytes::from(record_batch(100));
    let mut allocations = 0;
    for _ in 0..calls / TOGETHER {
        let turn = || {
            (0..TOGETHER).for_each(|_| log.append(&batch));
            log.settle();
        };
        allocations += counted(turn).1;
    }
    assert_eq!(log.storage.flushed_end_offset(log.slot), Offset((calls / TOGETHER * TOGETHER) as i64));
    allocations
}

/// Seeks in a segment of 4096 batches that is no longer in memory.
fn index_lookup(calls: u64) -> u64 {
    const BATCHES: i64 = 4096;
    let mut log = Log::new(StorageConfig { tail_bytes: 1 << 20, ..StorageConfig::default() });
    let batch = Bytes::from(record_batch(16 << 10));
    for _ in 0..BATCHES {
        log.append(&batch);
        log.settle();
    }
    let (mut allocations, mut pending) = (0, 0);
    for call in 0..calls {
        let offset = Offset((call as i64 * 2_654_435_761) % (BATCHES - 512));
        let (storage, slot, disk) = (&mut log.storage, log.slot, &mut log.disk);
        let (start, more) =
            counted(|| storage.start_read(slot, offset, 1 << 20, Offset(BATCHES), true, false, disk));
        pending += usize::from(matches!(start, Ok(ReadStart::Pending(_))));
        allocations += more;
        log.settle();
    }
    assert!(pending as u64 > calls / 2, "{pending} of {calls} reads looked beyond memory");
    allocations
}

/// A broker with one topic, its clients connected.
struct Broker {
    shard: Shard,
    now: Now,
    effects: Vec<Effect>,
    sent: Vec<(ConnectionId, usize)>,
    disk: Vec<DiskEffect>,
    answers: u64,
    answer_bytes: usize,
}

impl Broker {
    fn new() -> Broker {
        let mut effects = Vec::new();
        let config = Arc::new(BrokerConfig::defaults());
        let shard = Shard::new(config, ShardId(0), DiskImage::default(), 1, START, &mut effects);
        let mut broker = Broker {
            shard: shard.expect("an empty disk"),
            now: START,
            effects,
            sent: Vec::new(),
            disk: Vec::new(),
            answers: 0,
            answer_bytes: 0,
        };
        broker.settle();
        for id in 0..CONNECTIONS {
            broker.handle(Event::Accepted { connection: ConnectionId(id), peer: "hot".to_string() });
        }
        let create = frames::create_topics(1, TOPIC, PARTITIONS, 1, &[]);
        broker.request(0, Bytes::from(create));
        broker.settle();
        assert_eq!(broker.answers, 1, "the topic was created");
        broker
    }

    fn handle(&mut self, event: Event) {
        self.shard.handle(self.now, event, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Send { connection, parts } => {
                    let bytes = parts.iter().map(|part| part.length()).sum();
                    self.answers += 1;
                    self.answer_bytes += bytes;
                    self.sent.push((connection, bytes));
                }
                Effect::Disk(effect) => self.disk.push(effect),
                Effect::Close { reason, .. } => panic!("closed: {reason}"),
                Effect::Fatal { text } => panic!("{text}"),
                _ => {}
            }
        }
    }

    fn request(&mut self, connection: u64, bytes: Bytes) {
        self.handle(Event::Received { connection: ConnectionId(connection), bytes });
    }

    /// Turns until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.now.monotonic_ns += 50_000;
            while let Some((connection, bytes)) = self.sent.pop() {
                self.handle(Event::Sent { connection, bytes });
            }
            self.shard.end_turn(self.now, &mut self.effects);
            self.handle(Event::Tick);
            if self.disk.is_empty() && self.sent.is_empty() {
                return;
            }
            for effect in std::mem::take(&mut self.disk) {
                let done = DiskDone { ticket: effect.ticket(), result: Ok(Bytes::new()) };
                self.handle(Event::Disk(done));
            }
        }
    }

    /// `calls` requests, made by `frame` for its number, `TOGETHER` in a turn.
    fn serve(&mut self, calls: u64, frame: impl Fn(u64) -> Vec<u8>) -> u64 {
        let (mut allocations, before) = (0, self.answers);
        let turns = calls / TOGETHER;
        for turn in 0..turns {
            let from = turn * TOGETHER;
            let requests = (from..from + TOGETHER)
                .map(|call| (call % CONNECTIONS, Bytes::copy_from_slice(&frame(call))))
                .collect::<Vec<_>>();
            let serve = || {
                requests.into_iter().for_each(|(connection, bytes)| self.request(connection, bytes));
                self.settle();
            };
            allocations += counted(serve).1;
        }
        assert_eq!(self.answers - before, turns * TOGETHER, "every request was answered");
        allocations
    }
}

/// A Produce of one small batch, from its bytes to the answer on its way, the turns of its write included.
fn produce_request(calls: u64) -> u64 {
    let batch = record_batch(100);
    Broker::new()
        .serve(calls, |call| frames::produce(call as i32, TOPIC, (call % PARTITIONS as u64) as i32, &batch))
}

/// A Fetch of one partition whose records are in memory.
fn fetch_request(calls: u64) -> u64 {
    let mut broker = Broker::new();
    let batch = record_batch(100);
    for partition in 0..PARTITIONS {
        broker.request(0, Bytes::from(frames::produce(1, TOPIC, partition, &batch)));
        broker.settle();
    }
    broker.answer_bytes = 0;
    let allocations = broker.serve(calls, |call| {
        frames::fetch(call as i32, TOPIC, (call % PARTITIONS as u64) as i32, 0, 1 << 20, 100)
    });
    assert!(broker.answer_bytes as u64 > calls / TOGETHER * TOGETHER * 100, "records were sent");
    allocations
}

type Function = (&'static str, fn(u64) -> u64);

const FUNCTIONS: [Function; 6] = [
    ("parse-produce", parse_produce),
    ("append", append),
    ("index-lookup", index_lookup),
    ("encode-fetch", encode_fetch),
    ("produce-request", produce_request),
    ("fetch-request", fetch_request),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let calls = arguments.get(1).and_then(|calls| calls.parse().ok());
    match (FUNCTIONS.iter().find(|(name, _)| arguments.first().is_some_and(|wanted| wanted == name)), calls) {
        (Some((_, function)), Some(calls)) => {
            println!("{}", function(calls));
            ExitCode::SUCCESS
        }
        _ => {
            FUNCTIONS.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::from(2)
        }
    }
}
