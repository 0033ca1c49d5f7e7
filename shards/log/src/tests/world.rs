//! A storage on a disk in memory, and the calls that tests are made of.

use bytes::Bytes;
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey, Prng, TopicConfig, TopicId};
use pelton_wire::compression::Codec;
use pelton_wire::record_batch::{self, BatchIter};
use pelton_wire::records::BatchBuilder;
use uuid::Uuid;

use super::disk::Disk;
use crate::*;

/// What the shard would keep; here: how often it was asked.
pub struct NoSnapshots;

impl Snapshots for NoSnapshots {
    fn partition(&self, slot: PartitionSlot) -> Vec<u8> {
        vec![slot.0 as u8; 3]
    }

    fn metadata(&self) -> Vec<u8> {
        b"image".to_vec()
    }
}

pub fn small() -> StorageConfig {
    StorageConfig {
        journal_bytes: 256 << 10,
        tail_bytes: 128 << 10,
        group_bytes: 32 << 10,
        lay_down_bytes: 16 << 10,
        lay_down_write_bytes: 32 << 10,
        rebuild_read_bytes: 16 << 10,
        checkpoint_partitions: 2,
        ..StorageConfig::default()
    }
}

pub fn key(number: u128) -> PartitionKey {
    PartitionKey { topic_id: TopicId(Uuid::from_u128(number + 1)), partition: 0 }
}

/// A batch of `count` records of `size` bytes whose timestamps begin at `timestamp_ms`.
pub fn batch(count: usize, size: usize, timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None).producer(7, 1, 0);
    for record in 0..count {
        let value = vec![(timestamp_ms as u8).wrapping_add(record as u8); size];
        builder.add(timestamp_ms + record as i64, None, Some(&value), &[]);
    }
    Bytes::from(builder.build().unwrap())
}

pub struct World {
    pub config: StorageConfig,
    pub topic: TopicConfig,
    pub disk: Disk,
    pub storage: Storage,
    pub recovered: Recovered,
    pub progress: Progress,
    pub now: Now,
}

impl World {
    pub fn new(config: StorageConfig) -> World {
        World::start(config.clone(), Disk::new(config.journal_bytes)).unwrap()
    }

    pub fn start(config: StorageConfig, disk: Disk) -> Result<World, RecoveryError> {
        World::start_at(config, disk, Now { monotonic_ns: 5, wall_ms: 1_000_000 })
    }

    pub fn start_at(config: StorageConfig, disk: Disk, now: Now) -> Result<World, RecoveryError> {
        let (storage, recovered) = Storage::recover(config.clone(), disk.image(), now)?;
        let topic =
            TopicConfig { file_delete_delay_ms: 0, index_interval_bytes: 500, ..TopicConfig::default() };
        Ok(World { config, topic, disk, storage, recovered, progress: Progress::default(), now })
    }

    pub fn open(&mut self, number: u128) -> PartitionSlot {
        self.storage.open_partition(key(number), &self.topic)
    }

    pub fn turn(&mut self) {
        self.storage.end_turn(self.now, &NoSnapshots, &mut self.disk.pending);
    }

    /// Completes one pending operation.
    pub fn step(&mut self, index: usize) {
        let done = self.disk.complete(index);
        self.storage.handle(self.now, done, &mut self.disk.pending, &mut self.progress);
    }

    /// Turns and completions, in order, until nothing is in flight.
    pub fn settle(&mut self) {
        loop {
            self.turn();
            let again = self.storage.deadline().is_some_and(|at| at <= self.now.monotonic_ns + 1);
            if self.disk.pending.is_empty() && !again {
                return;
            }
            while !self.disk.pending.is_empty() {
                self.step(0);
            }
        }
    }

    pub fn settle_randomly(&mut self, prng: &mut Prng) {
        loop {
            self.turn();
            let again = self.storage.deadline().is_some_and(|at| at <= self.now.monotonic_ns + 1);
            if self.disk.pending.is_empty() && !again {
                return;
            }
            if !self.disk.pending.is_empty() {
                let index = prng.below(self.disk.pending.len() as u64) as usize;
                self.step(index);
            }
        }
    }

    /// Ends a life: a clean stop or a kill, each once in `of`, else a power cut. True: it was a power cut.
    pub fn end_randomly(&mut self, of: u64, prng: &mut Prng) -> bool {
        match prng.below(of) {
            0 => {
                self.storage.clean_stop();
                self.settle_randomly(prng);
                assert!(self.progress.stopped);
                false
            }
            1 => {
                self.disk.kill(prng);
                false
            }
            _ => {
                self.disk.power_cut(prng);
                true
            }
        }
    }

    pub fn append(&mut self, slot: PartitionSlot, batch: Bytes) -> Appended {
        self.storage.append(slot, batch, LeaderEpoch(3), None)
    }

    /// Appends, waiting for room.
    pub fn append_patiently(&mut self, slot: PartitionSlot, batch: Bytes) -> Appended {
        for _ in 0..1000 {
            match self.storage.admit(batch.len()) {
                Admission::Yes => return self.append(slot, batch),
                Admission::Later => self.settle(),
                Admission::Refused { text, .. } => panic!("refused: {text}"),
            }
        }
        panic!("no room in a thousand turns");
    }

    /// Reads everything from `offset` up to `upper` with reads of `max_bytes`; the batches as bytes.
    pub fn read_all(&mut self, slot: PartitionSlot, offset: i64, upper: i64, max_bytes: usize) -> Vec<Bytes> {
        let mut found = Vec::new();
        let mut next = offset;
        while next < upper {
            let bytes = self.read(slot, next, upper, max_bytes, next % 2 == 0);
            assert!(!bytes.is_empty(), "nothing at {next}");
            for bytes in bytes {
                let mut at = 0;
                for (info, batch) in BatchIter::new(&bytes) {
                    assert!(record_batch::crc_matches(batch), "crc at {}", info.base_offset);
                    assert!(
                        info.base_offset == next || found.is_empty(),
                        "gap: {} not {next}",
                        info.base_offset
                    );
                    next = info.last_offset() + 1;
                    found.push(bytes.slice(at..at + batch.len()));
                    at += batch.len();
                }
                assert_eq!(at, bytes.len(), "a plan ends within a batch");
            }
        }
        assert_eq!(next, upper);
        found
    }

    pub fn read(
        &mut self,
        slot: PartitionSlot,
        offset: i64,
        upper: i64,
        max_bytes: usize,
        into_memory: bool,
    ) -> Vec<Bytes> {
        let out = &mut self.disk.pending;
        let start =
            self.storage.start_read(slot, Offset(offset), max_bytes, Offset(upper), true, into_memory, out);
        let plan = match start.unwrap() {
            ReadStart::Ready(plan) => plan,
            ReadStart::Pending(token) => loop {
                self.step(self.disk.pending.len() - 1);
                if let Some(at) = self.progress.reads.iter().position(|(found, _)| *found == token) {
                    break self.progress.reads.remove(at).1.unwrap();
                }
            },
        };
        match plan {
            ReadPlan::Empty => Vec::new(),
            ReadPlan::Memory { batches } => batches,
            ReadPlan::File { file, position, length, .. } => {
                assert!(!into_memory);
                let bytes = self.disk.file(&file).expect("the file of a plan exists");
                vec![Bytes::copy_from_slice(&bytes[position as usize..position as usize + length])]
            }
        }
    }

    pub fn lookup(
        &mut self,
        slot: PartitionSlot,
        timestamp_ms: Option<i64>,
        upper: i64,
    ) -> Option<(i64, i64)> {
        let out = &mut self.disk.pending;
        let start = match timestamp_ms {
            Some(ms) => self.storage.start_timestamp_lookup(slot, ms, Offset(upper), out),
            None => self.storage.start_max_timestamp_lookup(slot, Offset(upper), out),
        };
        let found = match start {
            LookupStart::Ready(found) => found,
            LookupStart::Pending(token) => loop {
                self.step(self.disk.pending.len() - 1);
                if let Some(at) = self.progress.lookups.iter().position(|(found, _)| *found == token) {
                    break self.progress.lookups.remove(at).1.unwrap();
                }
            },
        };
        found.map(|found| (found.offset.0, found.timestamp_ms))
    }

    /// The process ends here; another begins on what the disk has.
    pub fn restart(self) -> Result<World, RecoveryError> {
        let mut disk = self.disk;
        disk.pending.clear();
        let now = Now { monotonic_ns: self.now.monotonic_ns + 1000, wall_ms: self.now.wall_ms + 1 };
        let topic = self.topic;
        Ok(World { topic, ..World::start_at(self.config, disk, now)? })
    }

    pub fn stop_cleanly(&mut self) {
        self.storage.clean_stop();
        self.settle();
        assert!(self.progress.stopped);
    }
}
