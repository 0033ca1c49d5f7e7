//! Recovery from damaged journals and checkpoints: it refuses with a cause, or starts and goes on working; reads of
//! segments then get arbitrary bytes too. What may be lost is not judged here but in the simulator.

use bytes::Bytes;
use pelton_log::disk::{DiskDone, DiskEffect};
use pelton_log::{
    Admission, DiskImage, PartitionSlot, Progress, ReadPlan, ReadStart, SegmentReader, Snapshots, Storage,
    StorageConfig,
};
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey, Prng, TopicConfig, TopicId};
use pelton_wire::crc::crc32c;
use uuid::Uuid;

use crate::mutate::mutate_some;
use crate::requests;

const JOURNAL_BYTES: usize = 192 << 10;
/// Checksum's place and where what it covers begins, in frames and checkpoints alike (log/frame.rs, log/checkpoint.rs).
const CRC_AT: usize = 8;
const CRC_FROM: usize = 12;
const FRAME_HEADER_BYTES: usize = 64;
const CHECKPOINT_HEADER_BYTES: usize = 32;
/// Disk operations after which a storage that still wants more is held to be spinning.
const OPERATIONS_MAX: usize = 20_000;

struct Opaque;

impl Snapshots for Opaque {
    fn partition(&self, slot: PartitionSlot) -> Vec<u8> {
        vec![slot.0 as u8; 3]
    }

    fn metadata(&self) -> Vec<u8> {
        b"image".to_vec()
    }
}

fn config() -> StorageConfig {
    StorageConfig {
        journal_bytes: JOURNAL_BYTES as u64,
        tail_bytes: 96 << 10,
        group_bytes: 16 << 10,
        direct_bytes: 3 << 10,
        lay_down_bytes: 12 << 10,
        lay_down_write_bytes: 16 << 10,
        rebuild_read_bytes: 16 << 10,
        ..StorageConfig::default()
    }
}

fn key(number: u128) -> PartitionKey {
    PartitionKey { topic_id: TopicId(Uuid::from_u128(number + 1)), partition: 0 }
}

fn now(round: u64) -> Now {
    Now { monotonic_ns: 5 + round * 10_000_000_000, wall_ms: 1_000_000 + round as i64 * 10_000 }
}

/// What reads of segments give: some bytes of the input.
fn piece(bytes: &Bytes, position: u64, length: usize) -> Bytes {
    let from = (position % (bytes.len() as u64).max(1)) as usize;
    let end = from.saturating_add(length).min(bytes.len());
    bytes.slice(from.min(end)..end)
}

/// A storage and what it has written.
struct World {
    storage: Storage,
    journal: Vec<u8>,
    checkpoints: [Option<Vec<u8>>; 2],
    /// What reads of segments give.
    segments: Bytes,
    pending: Vec<DiskEffect>,
    progress: Progress,
    operations: usize,
    round: u64,
}

impl World {
    fn start(image: DiskImage) -> Option<World> {
        let (journal, segments) = (image.journal.to_vec(), image.journal.clone());
        let checkpoints = image.checkpoints.clone().map(|slot| slot.map(|slot| slot.to_vec()));
        let (storage, _) = Storage::recover(config(), image, now(0)).ok()?;
        let (pending, progress) = (Vec::new(), Progress::default());
        Some(World { storage, journal, checkpoints, segments, pending, progress, operations: 0, round: 0 })
    }

    fn perform(&mut self, effect: DiskEffect) -> Bytes {
        match effect {
            DiskEffect::JournalWrite { position, bytes, .. } => {
                let from = position as usize;
                self.journal[from..from + bytes.len()].copy_from_slice(&bytes);
            }
            DiskEffect::CheckpointWrite { slot, file, .. } => {
                self.checkpoints[usize::from(slot)] = Some(file.bytes().to_vec());
            }
            DiskEffect::SegmentRead { position, length, .. } => {
                return piece(&self.segments, position, length);
            }
            DiskEffect::JournalSync { .. }
            | DiskEffect::SegmentWrite { .. }
            | DiskEffect::SegmentSync { .. }
            | DiskEffect::SegmentLay { .. }
            | DiskEffect::SegmentsAppend { .. }
            | DiskEffect::SegmentTruncate { .. }
            | DiskEffect::FileDelete { .. } => {}
        }
        Bytes::new()
    }

    fn complete(&mut self, index: usize) {
        let effect = self.pending.remove(index);
        let done = DiskDone { ticket: effect.ticket(), result: Ok(self.perform(effect)) };
        self.storage.handle(now(self.round), done, &mut self.pending, &mut self.progress);
        self.operations += 1;
        assert!(self.operations < OPERATIONS_MAX, "the storage does not come to rest");
    }

    /// Turns and completions until nothing is in flight.
    fn settle(&mut self) {
        self.round += 1;
        loop {
            self.storage.end_turn(now(self.round), &Opaque, &mut self.pending);
            if self.pending.is_empty() {
                return;
            }
            while !self.pending.is_empty() {
                self.complete(0);
            }
        }
    }

    fn append(&mut self, slot: PartitionSlot, batch: Vec<u8>) {
        for _ in 0..3 {
            match self.storage.admit(batch.len()) {
                Admission::Yes => {
                    self.storage.append(slot, Bytes::from(batch), LeaderEpoch(3), None);
                    return;
                }
                Admission::Later => self.settle(),
                Admission::Refused { .. } => return,
            }
        }
    }

    /// Reads a partition from its start, as far as a few reads come, and looks for times in it.
    fn read(&mut self, slot: PartitionSlot) {
        let (mut next, end) = (self.storage.log_start_offset(slot), self.storage.log_end_offset(slot));
        for turn in 0..20 {
            let started =
                self.storage.start_read(slot, next, 8 << 10, end, true, turn % 2 == 0, &mut self.pending);
            let plan = match started {
                Ok(ReadStart::Ready(plan)) => plan,
                Ok(ReadStart::Pending(_)) => {
                    self.settle();
                    let Some((_, Ok(plan))) = self.progress.reads.pop() else { break };
                    plan
                }
                Err(_) => break,
            };
            let ReadPlan::Memory { batches } = plan else { break };
            let found = batches.iter().flat_map(|bytes| pelton_wire::record_batch::BatchIter::new(bytes));
            let Some(last) = found.map(|(info, _)| info.last_offset()).last() else { break };
            next = Offset(last.saturating_add(1));
        }
        self.storage.start_timestamp_lookup(slot, 1_700_000_050_000, end, &mut self.pending);
        self.storage.start_max_timestamp_lookup(slot, end, &mut self.pending);
        self.settle();
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for slot in &self.checkpoints {
            let slot = slot.as_deref().unwrap_or_default();
            bytes.extend_from_slice(&(slot.len() as u32).to_be_bytes());
            bytes.extend_from_slice(slot);
        }
        bytes.extend_from_slice(&self.journal);
        bytes
    }
}

/// Images of a storage at various ages: two lengths with their checkpoints, then the journal.
pub fn corpus(prng: &mut Prng) -> Vec<Vec<u8>> {
    let journal = Bytes::from(vec![0; JOURNAL_BYTES]);
    let mut inputs = Vec::new();
    for life in 0..4 {
        let image = DiskImage { journal: journal.clone(), ..DiskImage::default() };
        let mut world = World::start(image).expect("an empty disk starts");
        let topic =
            TopicConfig { index_interval_bytes: 500, segment_bytes: 20_000, ..TopicConfig::default() };
        let slots = [0, 1, 2].map(|number| world.storage.open_partition(key(number), &topic));
        world.settle();
        for round in 0..10 {
            for _ in 0..1 + 20 * life {
                let (codec, count) = (requests::codec(prng), 1 + prng.below(20));
                let batch = requests::batch(prng, codec, count);
                world.append(slots[prng.below(3) as usize], batch);
            }
            if prng.one_in(3) {
                world.storage.append_metadata(Bytes::from_static(b"a record"));
                world.storage.set_log_start_offset(slots[0], Offset(prng.below(5) as i64));
            }
            if round > 1 || life == 0 {
                world.settle();
            }
            inputs.push(world.encode());
        }
    }
    inputs
}

/// Where checkpoints and journal lie in an input; none if its lengths do not fit.
fn parts(input: &[u8]) -> Option<[std::ops::Range<usize>; 3]> {
    let mut at = 0;
    let mut part = || {
        let length = u32::from_be_bytes(*input.get(at..)?.first_chunk::<4>()?) as usize;
        let range = at + 4..at.checked_add(4 + length)?;
        at = range.end;
        input.get(range.clone()).map(|_| range)
    };
    Some([part()?, part()?, at..input.len()])
}

/// Damages one checkpoint or one group, then mostly makes its checksum right again; or moves whole blocks.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    let Some([first, second, journal]) = parts(bytes) else { return mutate_some(prng, bytes, other) };
    let blocks: Vec<usize> =
        journal.clone().step_by(BLOCK_BYTES).filter(|at| bytes[*at..].starts_with(b"PLTNJRN\n")).collect();
    if blocks.is_empty() || prng.one_in(3) {
        let slot = if first.is_empty() || prng.one_in(2) { second } else { first };
        let length = number(bytes, slot.start + 24, 8).min(slot.len());
        let end = (slot.start + CHECKPOINT_HEADER_BYTES + length).min(slot.end);
        return damage(prng, &mut bytes[slot.start..end], other, CHECKPOINT_HEADER_BYTES);
    }
    let at = blocks[prng.below(blocks.len() as u64) as usize];
    let end = at + FRAME_HEADER_BYTES + number(bytes, at + 16, 4);
    if prng.one_in(6) {
        let from = blocks[prng.below(blocks.len() as u64) as usize];
        let end = (from + BLOCK_BYTES * (1 + prng.below(4) as usize)).min(bytes.len());
        let moved = bytes[from..end].to_vec();
        let end = (at + moved.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&moved[..end - at]);
    } else if end <= bytes.len() {
        damage(prng, &mut bytes[at..end], other, FRAME_HEADER_BYTES);
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    let mut value = [0; 8];
    if let Some(found) = bytes.get(at..at + length) {
        value[..length].copy_from_slice(found);
    }
    u32::try_from(u64::from_le_bytes(value)).unwrap_or(u32::MAX) as usize
}

/// Damages a stretch without moving what lies behind it.
fn damage(prng: &mut Prng, stretch: &mut [u8], other: &[u8], header_bytes: usize) {
    let keep = if prng.one_in(3) { 0 } else { header_bytes.min(stretch.len()) };
    let mut bytes = stretch[keep..].to_vec();
    mutate_some(prng, &mut bytes, other);
    bytes.resize(stretch.len() - keep, 0);
    stretch[keep..].copy_from_slice(&bytes);
    if stretch.len() > CRC_FROM && !prng.one_in(4) {
        let crc = crc32c(&stretch[CRC_FROM..]);
        stretch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What a start would find on disk.
fn image(input: &[u8]) -> Option<DiskImage> {
    let [first, second, journal] = parts(input)?;
    let slot =
        |range: std::ops::Range<usize>| (!range.is_empty()).then(|| Bytes::copy_from_slice(&input[range]));
    let mut whole = input[journal].to_vec();
    whole.resize(JOURNAL_BYTES, 0);
    let checkpoints = [slot(first), slot(second)];
    let journal = Bytes::from(whole);
    let bytes = journal.clone();
    let segments = SegmentReader::new(move |_, position, length| Ok(Some(piece(&bytes, position, length))));
    Some(DiskImage { checkpoints, journal, segments })
}

/// Whether recovery starts on an input; none if it is not an image.
#[cfg(test)]
pub fn starts(input: &[u8]) -> Option<bool> {
    image(input).map(|image| World::start(image).is_some())
}

/// Recovers, and if it starts goes on: appends, reads, stops.
pub fn run(input: &[u8]) {
    let Some(mut world) = image(input).and_then(World::start) else { return };
    let topic = TopicConfig { index_interval_bytes: 500, ..TopicConfig::default() };
    let slots = [0, 1, 2, 9].map(|number| world.storage.open_partition(key(number), &topic));
    world.settle();
    let mut prng = Prng::new(1);
    for slot in slots {
        world.append(slot, requests::batch(&mut prng, pelton_wire::compression::Codec::None, 2));
    }
    world.settle();
    for slot in slots {
        world.read(slot);
    }
    world.storage.clean_stop();
    world.settle();
}
