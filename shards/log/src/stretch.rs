//! The batches of a group's entries: gives them their place in segments, copies each once into the buffer it is written
//! from, stamps it there, and hands them to their partitions' tails. Does not decide when.

use bytes::Bytes;
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{AlignedBuffer, Now, Offset};
use pelton_wire::record_batch::{self, BatchIter};

use crate::frame::{self, EntryKind, FrameBuilder};
use crate::journal::Pending;
use crate::partition::{Direct, PartitionLog, TailBatch};
use crate::sabotage::Sabotage;
use crate::segment::BatchFact;
use crate::storage::Storage;
use crate::types::PartitionSlot;

/// Batches of one entry, stamped, and whether a segment begins with them.
pub(crate) struct Stretch {
    slot: PartitionSlot,
    begins: bool,
    place: Place,
}

/// Where stamped batches are: a range of the frame, or a buffer of their own beside the write it is part of.
enum Place {
    Frame(usize, usize),
    Direct(Box<(Option<Bytes>, Bytes)>),
}

/// What a group gave to partitions.
#[derive(Default)]
pub(crate) struct Handed {
    /// Partitions, and where they now end.
    pub ends: Vec<(PartitionSlot, Offset)>,
    /// Batches.
    pub unlaid: usize,
    /// Of these, direct ones.
    pub direct_left: usize,
    /// Bytes of these.
    pub direct_bytes: usize,
}

impl Handed {
    fn add(&mut self, slot: PartitionSlot, batch: &TailBatch) {
        self.ends.push((slot, Offset(batch.fact.last_offset.0 + 1)));
        self.unlaid += 1;
        if batch.direct.is_some() {
            self.direct_left += 1;
            self.direct_bytes += batch.bytes.len();
        }
    }
}

impl Storage {
    /// Writes batches, or of a direct one the header, into a frame and decides where in the partition's segments they go.
    /// A partition that is gone since has no use for them.
    pub(crate) fn write_batches(
        &mut self,
        now: Now,
        pending: &Pending,
        earlier: &[Stretch],
        builder: &mut FrameBuilder,
    ) -> Option<Stretch> {
        let skip_stamp = pending.stamped || self.config.sabotaged(Sabotage::WrongStamp);
        let slot = pending.slot?;
        let partition = self.partitions.get_mut(slot.0 as usize).and_then(Option::as_mut);
        let begins = match partition {
            Some(partition) => partition.plan(&stretch_of(pending), now.wall_ms),
            None => false,
        };
        let partition = self.partitions.get(slot.0 as usize).and_then(Option::as_ref);
        let flags = match partition {
            Some(_) => {
                (u8::from(begins) * frame::BEGINS_SEGMENT) | (u8::from(pending.stamped) * frame::FOLLOWED)
            }
            None => frame::VOID,
        };
        let (key, value) = (pending.key, pending.value);
        if pending.direct {
            let earlier = earlier.iter().rev().find(|stretch| stretch.slot == slot);
            let (image, batch) = direct_image(partition, earlier, begins, pending, skip_stamp);
            builder.push(EntryKind::Direct, flags, key, value, &batch[..record_batch::HEADER_BYTES]);
            let place = Place::Direct(Box::new((image, batch)));
            return partition.map(|_| Stretch { slot, begins, place });
        }
        let (at, payload) = builder.push(EntryKind::Batches, flags, key, value, &pending.payload);
        if !skip_stamp {
            stamp(payload, pending);
        }
        partition.map(|_| Stretch { slot, begins, place: Place::Frame(at, pending.payload.len()) })
    }

    /// Gives the stamped batches of a group to their partitions' tails.
    pub(crate) fn hand_to_tails(&mut self, frame: &Bytes, sequence: u64, stretches: Vec<Stretch>) -> Handed {
        let mut handed = Handed { ends: Vec::with_capacity(stretches.len()), ..Handed::default() };
        for Stretch { slot, begins, place } in stretches {
            let Some(partition) = self.partitions.get_mut(slot.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            let (stretch, mut direct) = match place {
                Place::Frame(at, length) => (frame.slice(at..at + length), None),
                Place::Direct(place) => (place.1, Some(Direct { image: place.0 })),
            };
            for (index, mut batch) in batches_of(&stretch, sequence).enumerate() {
                batch.begins_segment = begins && index == 0;
                batch.generation = partition.cut;
                batch.direct = direct.take();
                handed.add(slot, &batch);
                partition.push_tail(batch);
            }
            if partition.unlaid_bytes >= self.config.lay_down_bytes as u64 || partition.direct_left > 0 {
                self.ready.insert(slot);
            }
        }
        self.direct_left += handed.direct_left;
        handed
    }
}

/// What planning needs to know of an entry's batches, which have no offsets yet.
fn stretch_of(pending: &Pending) -> BatchFact {
    let mut fact = BatchFact {
        base_offset: pending.value,
        last_offset: Offset(pending.value.0 - 1),
        length: pending.payload.len() as u64,
        max_timestamp_ms: i64::MIN,
    };
    for (index, (info, _)) in BatchIter::new(&pending.payload).enumerate() {
        if pending.stamped {
            fact.last_offset = Offset(info.last_offset());
            if index == 0 {
                fact.base_offset = Offset(info.base_offset);
            }
        } else {
            fact.last_offset.0 += i64::from(info.last_offset_delta.max(0)) + 1;
        }
        let time_ms = pending.log_append_time_ms.unwrap_or(info.max_timestamp);
        fact.max_timestamp_ms = fact.max_timestamp_ms.max(time_ms);
    }
    fact
}

/// A direct batch, copied once and stamped: the write that lays it down alone (if what is before it in its first block is
/// in memory), and the batch as a slice of that.
fn direct_image(
    partition: Option<&PartitionLog>,
    earlier: Option<&Stretch>,
    begins: bool,
    pending: &Pending,
    skip_stamp: bool,
) -> (Option<Bytes>, Bytes) {
    let length = pending.payload.len();
    // The plan counts this batch already.
    let position = partition.and_then(|p| p.planned).map_or(0, |planned| planned.length() - length as u64);
    let before = (position % BLOCK_BYTES as u64) as usize;
    let preceding = match earlier.map(|stretch| &stretch.place) {
        _ if begins => Some(Vec::new()),
        None => partition.and_then(|partition| partition.preceding(before)),
        // Of the same group, so not in the tail yet.
        Some(Place::Direct(place)) => place.1.len().checked_sub(before).map(|from| place.1[from..].to_vec()),
        Some(Place::Frame(..)) => None,
    };
    let mut buffer = AlignedBuffer::with_capacity(AlignedBuffer::round_up(before + length));
    match &preceding {
        Some(preceding) => buffer.extend_from_slice(preceding),
        None => buffer.pad_to(before),
    }
    buffer.extend_from_slice(&pending.payload);
    if !skip_stamp {
        stamp(&mut buffer.as_mut_slice()[before..], pending);
    }
    buffer.pad_to(AlignedBuffer::round_up(before + length));
    let image = buffer.freeze();
    let batch = image.slice(before..before + length);
    (preceding.map(|_| image), batch)
}

/// Writes offsets, epoch and, if asked, time into every batch of a stretch.
fn stamp(payload: &mut [u8], pending: &Pending) {
    let (mut at, mut offset) = (0, pending.value.0);
    while let Some(info) = record_batch::peek(&payload[at..]) {
        let batch = &mut payload[at..];
        record_batch::stamp(batch, offset, pending.leader_epoch.0);
        if let Some(time_ms) = pending.log_append_time_ms {
            record_batch::stamp_log_append_time(batch, time_ms);
        }
        offset += i64::from(info.last_offset_delta.max(0)) + 1;
        at += info.size_bytes;
        if at >= payload.len() {
            return;
        }
    }
}

/// The batches of a stamped stretch, as the tail keeps them.
pub(crate) fn batches_of(stretch: &Bytes, sequence: u64) -> impl Iterator<Item = TailBatch> {
    let mut at = 0;
    BatchIter::new(stretch).map(move |(info, batch)| {
        let fact = BatchFact {
            base_offset: Offset(info.base_offset),
            last_offset: Offset(info.last_offset()),
            length: batch.len() as u64,
            max_timestamp_ms: info.max_timestamp,
        };
        let bytes = stretch.slice(at..at + batch.len());
        at += batch.len();
        TailBatch { fact, bytes, sequence, begins_segment: false, generation: 0, direct: None }
    })
}
