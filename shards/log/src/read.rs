//! Reads: where the bytes behind an offset are. Memory first; otherwise a range of one segment, found through the sparse
//! index and, unless a reader stopped just there, a look at a few headers.

use pelton_model::Offset;
use pelton_wire::record_batch::BatchInfo;

use crate::disk::{DiskEffect, FileKind};
use crate::jobs::{Goal, Job, Outcome, Verdict};
use crate::storage::{Op, Storage};
use crate::types::{PartitionSlot, ReadError, ReadPlan, ReadStart};

impl Storage {
    /// Begins a read of at most `max_bytes` of whole batches from the one that holds `offset`, all of whose records lie
    /// below `upper`. With `whole_first` the first batch comes even if it alone is larger. With `into_memory` the bytes
    /// of a segment are read rather than named.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `offset` is below the log start offset or above the log end offset.
    #[allow(clippy::too_many_arguments)]
    pub fn start_read(
        &mut self,
        slot: PartitionSlot,
        offset: Offset,
        max_bytes: usize,
        upper: Offset,
        whole_first: bool,
        into_memory: bool,
        out: &mut Vec<DiskEffect>,
    ) -> Result<ReadStart, ReadError> {
        if offset < self.log_start_offset(slot) {
            return Err(ReadError::OutOfRange);
        }
        self.start_read_of_all(slot, offset, max_bytes, upper, whole_first, into_memory, out)
    }

    /// As `start_read`, but from [`Storage::base_offset`] on: replicas hold whole batches, also those that reach below the
    /// log start offset.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `offset` is below that or above the log end offset.
    #[allow(clippy::too_many_arguments)]
    pub fn start_read_of_all(
        &mut self,
        slot: PartitionSlot,
        offset: Offset,
        max_bytes: usize,
        upper: Offset,
        whole_first: bool,
        into_memory: bool,
        out: &mut Vec<DiskEffect>,
    ) -> Result<ReadStart, ReadError> {
        let Some(partition) = self.partition(slot) else { return Err(ReadError::OutOfRange) };
        if offset < partition.base() || offset > partition.log_end {
            return Err(ReadError::OutOfRange);
        }
        if offset >= upper || (max_bytes == 0 && !whole_first) {
            return Ok(ReadStart::Ready(ReadPlan::Empty));
        }
        if partition.tail_holds(offset) {
            return Ok(ReadStart::Ready(partition.read_tail(offset, max_bytes, upper, whole_first)));
        }
        let Some(segment) = partition.segment_from(offset) else {
            return Ok(ReadStart::Ready(partition.read_tail(offset, max_bytes, upper, whole_first)));
        };
        let goal = Goal::Read { offset, max_bytes, upper, whole_first, into_memory };
        let job = Job { slot, goal, segment: segment.name(), position: None };
        let token = self.token();
        match self.known_read(&job) {
            Some(Verdict::Done(Outcome::Read(plan))) => return Ok(ReadStart::Ready(plan)),
            Some(Verdict::Fetch { position, end }) => {
                let file = self.partition(slot).map(|p| job.segment.file(p.key, FileKind::Log));
                if let Some(file) = file {
                    let job = Job { position: Some(position), ..job };
                    self.jobs.insert(token, job);
                    let ticket = self.ticket(Op::Fetch(token));
                    let length = (end - position) as usize;
                    out.push(DiskEffect::SegmentRead { ticket, file, position, length });
                }
                return Ok(ReadStart::Pending(token));
            }
            _ => {}
        }
        match self.run_job(token, job, out) {
            Some(Ok(Outcome::Read(plan))) => Ok(ReadStart::Ready(plan)),
            Some(_) => Err(ReadError::OutOfRange),
            None => Ok(ReadStart::Pending(token)),
        }
    }

    /// A read that begins where another stopped, and whose end the index knows, needs no look at the disk.
    pub(crate) fn known_read(&mut self, job: &Job) -> Option<Verdict> {
        let Goal::Read { offset, max_bytes, upper, into_memory, .. } = job.goal else { return None };
        let partition = self.partition(job.slot)?;
        let segment = partition.segment(job.segment)?;
        let begins = offset <= segment.base_offset;
        let position = if begins { 0 } else { partition.remembered(offset, job.segment)? };
        let end = partition.known_range(segment, position, max_bytes, upper)?;
        Some(self.range_verdict(job, position, end, into_memory))
    }

    /// A header passes by on the way to the batch that holds the offset.
    pub(crate) fn look_for_offset(&mut self, job: &Job, info: &BatchInfo, position: u64) -> Verdict {
        let Goal::Read { offset, max_bytes, upper, whole_first, into_memory } = job.goal else {
            return Verdict::Next;
        };
        if info.last_offset() < offset.0 {
            return Verdict::Next;
        }
        let found = self.partition(job.slot).and_then(|p| Some((p, p.segment(job.segment)?)));
        let Some((partition, segment)) = found else { return Verdict::Done(Outcome::Read(ReadPlan::Empty)) };
        let fits = info.size_bytes <= max_bytes || whole_first;
        let end = position + info.size_bytes as u64;
        if !fits || info.last_offset() >= upper.0 || end > segment.length {
            return Verdict::Done(Outcome::Read(ReadPlan::Empty));
        }
        let end =
            partition.known_range(segment, position, max_bytes, upper).map_or(end, |known| known.max(end));
        self.range_verdict(job, position, end, into_memory)
    }

    fn range_verdict(&mut self, job: &Job, position: u64, end: u64, into_memory: bool) -> Verdict {
        if into_memory {
            return Verdict::Fetch { position, end };
        }
        let Some(partition) = self.partition_mut(job.slot) else {
            return Verdict::Done(Outcome::Read(ReadPlan::Empty));
        };
        let plan = match partition.segment(job.segment) {
            Some(segment) => partition.file_plan(segment, position, end),
            None => ReadPlan::Empty,
        };
        // The reader's next offset is the first one at `end`, which the index knows unless this is the segment's end.
        let next = partition.segment(job.segment).and_then(|segment| match segment.length == end {
            true => Some(segment.end_offset),
            false => segment.index.as_ref()?.offset_at(end),
        });
        if let Some(next) = next {
            partition.remember(next, job.segment, end);
        }
        Verdict::Done(Outcome::Read(plan))
    }
}
