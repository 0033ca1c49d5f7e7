//! Brings the index of a segment into memory: from its file, or, where that is missing or ends early, from the headers of
//! the log itself, piece by piece. Gives indexes of sealed segments up again when they take too much memory.

use bytes::Bytes;
use pelton_model::Offset;
use pelton_wire::record_batch;

use crate::disk::{DiskEffect, DiskError, FileKind};
use crate::index::SparseIndex;
use crate::segment::SegmentName;
use crate::storage::{Op, Storage};
use crate::types::{PartitionSlot, Progress, ReadToken};

/// Largest index file that is read, bytes.
const INDEX_FILE_BYTES_MAX: usize = 64 << 20;

/// An index on its way into memory.
#[derive(Debug)]
pub(crate) struct IndexLoad {
    index: SparseIndex,
    waiters: Vec<ReadToken>,
}

impl Storage {
    /// Loads a segment's index for `token`, which goes on when it is there.
    pub(crate) fn load_index(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        token: ReadToken,
        out: &mut Vec<DiskEffect>,
    ) {
        if let Some(load) = self.loads.get_mut(&(slot, name)) {
            load.waiters.push(token);
            return;
        }
        let found = self.partition(slot).and_then(|p| {
            let segment = p.segment(name)?;
            let interval = p.config.index_interval_bytes.max(1) as u64;
            Some((segment.file(p.key, FileKind::Index), segment.length / interval))
        });
        let Some((file, entries)) = found else { return };
        let index = SparseIndex::new(name.base_offset);
        self.loads.insert((slot, name), IndexLoad { index, waiters: vec![token] });
        let length = ((entries as usize + 8) * 16 + 48).next_multiple_of(4096).min(INDEX_FILE_BYTES_MAX);
        let ticket = self.ticket(Op::LoadIndex(slot, name));
        out.push(DiskEffect::SegmentRead { ticket, file, position: 0, length });
    }

    /// A segment was cut: what its index knows of what is gone goes, and what it then lacks is read again.
    pub(crate) fn cut_index(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(at) = partition.segment_at(name) else { return };
        let segment = &mut partition.segments[at];
        let Some(mut index) = segment.index.take() else { return };
        index.cut_back(segment.length);
        self.loads.insert((slot, name), IndexLoad { index, waiters: Vec::new() });
        self.scan_on(slot, name, out, progress);
    }

    pub(crate) fn handle_load_index(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let length = self.partition(slot).and_then(|p| p.segment(name)).map_or(0, |s| s.length);
        let found = result.ok().and_then(|bytes| SparseIndex::decode(&bytes, name.base_offset, length));
        if let (Some(index), Some(load)) = (found, self.loads.get_mut(&(slot, name))) {
            load.index = index;
        }
        self.scan_on(slot, name, out, progress);
    }

    /// Reads the next piece of log the index does not cover, or is done.
    fn scan_on(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(load) = self.loads.get(&(slot, name)) else { return };
        let position = load.index.covered();
        let found = self.partition(slot).and_then(|p| {
            let segment = p.segment(name)?;
            Some((segment.file(p.key, FileKind::Log), segment.length))
        });
        let Some((file, length)) = found else {
            return self.finish_load(slot, name, None, out, progress);
        };
        if position >= length {
            return self.finish_load(slot, name, None, out, progress);
        }
        let length = (length - position).min(self.config.rebuild_read_bytes as u64) as usize;
        let ticket = self.ticket(Op::LoadScan(slot, name));
        out.push(DiskEffect::SegmentRead { ticket, file, position, length });
    }

    pub(crate) fn handle_load_scan(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => return self.finish_load(slot, name, Some(error.text), out, progress),
        };
        let found = self
            .partition(slot)
            .and_then(|p| Some((p.key, p.segment(name)?.length, p.config.index_interval_bytes)));
        let Some((key, length, interval)) = found else {
            return self.finish_load(slot, name, None, out, progress);
        };
        let Some(load) = self.loads.get_mut(&(slot, name)) else { return };
        let from = load.index.covered();
        // A piece ends within a batch: the next one begins where that batch ends, or at its header.
        while let Some(info) = bytes
            .get((load.index.covered() - from) as usize..)
            .and_then(record_batch::peek)
            .filter(|info| load.index.covered() + info.size_bytes as u64 <= length)
        {
            load.index.add(Offset(info.base_offset), info.size_bytes as u64, info.max_timestamp, interval);
        }
        if load.index.covered() == from {
            let text = format!(
                "segment {} of {key} has no record batch at {from}: it is damaged",
                name.base_offset.0
            );
            return self.finish_load(slot, name, Some(text), out, progress);
        }
        self.scan_on(slot, name, out, progress);
    }

    fn finish_load(
        &mut self,
        slot: PartitionSlot,
        name: SegmentName,
        error: Option<String>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(load) = self.loads.remove(&(slot, name)) else { return };
        if error.is_none()
            && let Some(partition) = self.partition_mut(slot)
            && let Some(at) = partition.segment_at(name)
        {
            let segment = &mut partition.segments[at];
            segment.max_timestamp_ms = segment.max_timestamp_ms.min(load.index.max_timestamp());
            segment.index = Some(load.index);
            self.note_loaded(slot, name);
        }
        for token in load.waiters {
            match &error {
                None => self.resume_job(token, out, progress),
                Some(text) => self.fail_job(token, text.clone(), progress),
            }
        }
    }

    /// A sealed segment's index came into memory: the oldest such go if they are too many.
    pub(crate) fn note_loaded(&mut self, slot: PartitionSlot, name: SegmentName) {
        self.loaded.retain(|place| *place != (slot, name));
        self.loaded.push_back((slot, name));
        let sizes: Vec<usize> = self.loaded.iter().map(|(s, b)| self.index_size(*s, *b)).collect();
        let mut total: usize = sizes.iter().sum();
        for size in sizes {
            if total <= self.config.index_bytes || self.loaded.len() <= 1 {
                return;
            }
            total -= size;
            if let Some((slot, name)) = self.loaded.pop_front() {
                self.drop_index(slot, name);
            }
        }
    }

    fn index_size(&self, slot: PartitionSlot, name: SegmentName) -> usize {
        let segment = self.partition(slot).and_then(|p| p.segment(name));
        segment.and_then(|segment| segment.index.as_ref()).map_or(0, SparseIndex::size_bytes)
    }

    fn drop_index(&mut self, slot: PartitionSlot, name: SegmentName) {
        let Some(partition) = self.partition_mut(slot) else { return };
        let active = partition.segments.last().map(|segment| segment.name());
        if let Some(at) = partition.segment_at(name)
            && active != Some(name)
        {
            partition.segments[at].index = None;
        }
    }
}
