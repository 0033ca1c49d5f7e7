//! Finds records by time (ListOffsets): segments by their largest timestamp, batches by the index and their headers,
//! records by unpacking the one batch that must hold them.

use bytes::Bytes;
use pelton_model::{LeaderEpoch, Offset};
use pelton_wire::record_batch::{self, BatchIter};
use pelton_wire::records;

use crate::disk::DiskEffect;
use crate::jobs::{Goal, Job, Outcome};
use crate::segment::{Segment, SegmentName};
use crate::storage::Storage;
use crate::types::{FoundTimestamp, LookupStart, PartitionSlot, ReadPlan};

/// No segment: the search begins.
const BEFORE_ALL: SegmentName = SegmentName { base_offset: Offset(-1), generation: 0 };

impl Storage {
    /// Begins the search for the first record from the log start offset and below `upper` whose timestamp is at least
    /// `timestamp_ms`.
    pub fn start_timestamp_lookup(
        &mut self,
        slot: PartitionSlot,
        timestamp_ms: i64,
        upper: Offset,
        out: &mut Vec<DiskEffect>,
    ) -> LookupStart {
        self.start_lookup(slot, Goal::Timestamp { timestamp_ms, upper }, out)
    }

    /// Begins the search for the record with the largest timestamp below `upper` (KIP-734); the first one of several.
    pub fn start_max_timestamp_lookup(
        &mut self,
        slot: PartitionSlot,
        upper: Offset,
        out: &mut Vec<DiskEffect>,
    ) -> LookupStart {
        let Some(timestamp_ms) = self.max_timestamp(slot, upper) else { return LookupStart::Ready(None) };
        self.start_lookup(slot, Goal::MaxTimestamp { timestamp_ms, upper }, out)
    }

    fn start_lookup(&mut self, slot: PartitionSlot, goal: Goal, out: &mut Vec<DiskEffect>) -> LookupStart {
        let Some(partition) = self.partition(slot) else { return LookupStart::Ready(None) };
        let all_in_memory = partition.tail_holds(partition.log_start);
        let mut job = Job { slot, goal, segment: BEFORE_ALL, position: None };
        let outcome = match self.next_segment(&job).filter(|_| !all_in_memory) {
            None => self.look_through_tail(&job),
            Some(segment) => {
                job.segment = segment;
                let token = self.token();
                match self.run_job(token, job, out) {
                    None => return LookupStart::Pending(token),
                    Some(Ok(Outcome::Lookup(found))) => Ok(found),
                    Some(_) => Ok(None),
                }
            }
        };
        LookupStart::Ready(outcome.unwrap_or(None))
    }

    /// The largest timestamp of any batch from the log start offset and below `upper`; none if there is no batch.
    fn max_timestamp(&self, slot: PartitionSlot, upper: Offset) -> Option<i64> {
        let partition = self.partition(slot)?;
        let start = partition.log_start;
        let segments = partition.segments.iter().filter(|s| s.length > 0 && s.end_offset > start);
        let tail = partition.tail.iter().map(|batch| batch.fact);
        let tail = tail.filter(|fact| fact.base_offset >= partition.laid_end && fact.last_offset < upper);
        segments.map(|s| s.max_timestamp_ms).chain(tail.map(|fact| fact.max_timestamp_ms)).max()
    }

    /// The next segment behind the job's that can hold what it looks for.
    fn next_segment(&self, job: &Job) -> Option<SegmentName> {
        let (Goal::Timestamp { timestamp_ms, .. } | Goal::MaxTimestamp { timestamp_ms, .. }) = job.goal
        else {
            return None;
        };
        let partition = self.partition(job.slot)?;
        let mut behind = partition.segments.iter().filter(|s| s.base_offset > job.segment.base_offset);
        let fits = |s: &&Segment| {
            s.length > 0 && s.max_timestamp_ms >= timestamp_ms && s.end_offset > partition.log_start
        };
        behind.find(fits).map(Segment::name)
    }

    /// A segment has been looked through: the next one, or what only memory has. Some = the job is done.
    pub(crate) fn leave_segment(&mut self, job: &mut Job) -> Option<Result<Outcome, String>> {
        let next = match job.goal {
            // What it held from the offset on was compacted away.
            Goal::Read { .. } => self.partition(job.slot).and_then(|partition| {
                let behind = |s: &&Segment| s.base_offset > job.segment.base_offset && s.length > 0;
                partition.segments.iter().find(behind).map(Segment::name)
            }),
            // It ends in a gap that compaction left.
            Goal::Cut { to } => {
                let position = job.position.unwrap_or(0);
                return Some(Ok(Outcome::Cut(Some((job.segment, position, to)))));
            }
            _ => self.next_segment(job),
        };
        self.enter(job, next)
    }

    /// The job's segment is not part of the log any more: the one that took its place, or what only memory has.
    pub(crate) fn find_segment(&mut self, job: &mut Job) -> Option<Result<Outcome, String>> {
        let partition = self.partition(job.slot)?;
        let next = match job.goal {
            Goal::Read { offset, .. } if offset < partition.log_start => {
                return Some(Err(format!("offset {} of {} was deleted meanwhile", offset.0, partition.key)));
            }
            Goal::Read { offset, .. } | Goal::Cut { to: offset } => {
                partition.segment_from(offset).map(Segment::name)
            }
            // What lies before was looked through, and compaction brings nothing back.
            _ => {
                let base_offset = Offset(job.segment.base_offset.0 - 1);
                self.next_segment(&Job { segment: SegmentName { base_offset, generation: 0 }, ..*job })
            }
        };
        self.enter(job, next)
    }

    fn enter(&self, job: &mut Job, segment: Option<SegmentName>) -> Option<Result<Outcome, String>> {
        if let Some(segment) = segment {
            (job.segment, job.position) = (segment, None);
            return None;
        }
        if let Goal::Read { offset, max_bytes, upper, whole_first, .. } = job.goal {
            let partition = self.partition(job.slot);
            let plan = partition.map(|p| p.read_tail(offset, max_bytes, upper, whole_first));
            return Some(Ok(Outcome::Read(plan.unwrap_or(ReadPlan::Empty))));
        }
        if let Goal::Cut { .. } = job.goal {
            return Some(Ok(Outcome::Cut(None)));
        }
        Some(self.look_through_tail(job).map(Outcome::Lookup))
    }

    fn look_through_tail(&self, job: &Job) -> Result<Option<FoundTimestamp>, String> {
        let (Goal::Timestamp { timestamp_ms, upper } | Goal::MaxTimestamp { timestamp_ms, upper }) = job.goal
        else {
            return Ok(None);
        };
        let Some(partition) = self.partition(job.slot) else { return Ok(None) };
        for batch in partition.tail.iter().skip(partition.tail_index(partition.log_start)) {
            if batch.fact.last_offset >= upper {
                break;
            }
            if batch.fact.max_timestamp_ms >= timestamp_ms
                && let Some(found) = self.look_into(job, &batch.bytes)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Looks at the records of a batch.
    pub(crate) fn look_into(&self, job: &Job, batch: &Bytes) -> Result<Option<FoundTimestamp>, String> {
        let Some((info, _)) = BatchIter::new(batch).next() else {
            return Err(format!(
                "segment {} ends within a record batch: it is damaged",
                job.segment.base_offset.0
            ));
        };
        let cap = self.config.unpack_bytes_max;
        let start = self.log_start_offset(job.slot);
        let (found, upper) = match job.goal {
            Goal::Timestamp { timestamp_ms, upper } => {
                let found = if info.base_offset >= start.0 {
                    records::find_first_at_or_after(batch, timestamp_ms, cap)
                } else {
                    find_from(batch, start.0, timestamp_ms, cap)
                };
                (found, upper)
            }
            Goal::MaxTimestamp { upper, .. } => (records::find_max_timestamp(batch, cap), upper),
            Goal::Read { .. } | Goal::Cut { .. } => return Ok(None),
        };
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.filter(|(offset, _)| *offset >= start.0 && *offset < upper.0).map(
            |(offset, timestamp_ms)| FoundTimestamp {
                offset: Offset(offset),
                timestamp_ms,
                leader_epoch: LeaderEpoch(info.partition_leader_epoch),
            },
        ))
    }
}

/// As `find_first_at_or_after`, leaving out records below the log start offset, which may lie within a batch.
fn find_from(
    batch: &[u8],
    start: i64,
    timestamp_ms: i64,
    cap: usize,
) -> Result<Option<(i64, i64)>, record_batch::BatchError> {
    let records = records::Records::of(batch, cap)?;
    for record in records.iter() {
        let record = record?;
        if record.offset >= start && record.timestamp_ms >= timestamp_ms {
            return Ok(Some((record.offset, record.timestamp_ms)));
        }
    }
    Ok(None)
}
