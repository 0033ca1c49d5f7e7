//! Reads and lookups that need the disk: each looks through one segment at a time, from where the index says, header by
//! header. What it looks for, and what follows when it is found, is in read.rs and lookup.rs.

use bytes::Bytes;
use pelton_model::Offset;
use pelton_wire::record_batch::{self, BatchInfo};

use crate::disk::{DiskEffect, DiskError, FileKind};
use crate::segment::SegmentName;
use crate::storage::{Op, Storage};
use crate::types::{FoundTimestamp, PartitionSlot, Progress, ReadPlan, ReadToken};

/// First piece read when looking for a batch, bytes; a few index intervals.
const SCAN_BYTES: usize = 32 * 1024;

/// What a job is after.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Batches from the one that holds `offset`.
    Read { offset: Offset, max_bytes: usize, upper: Offset, whole_first: bool, into_memory: bool },
    /// The first record, below `upper`, whose timestamp is at least `timestamp_ms`.
    Timestamp { timestamp_ms: i64, upper: Offset },
    /// Where the first batch begins that reaches beyond `to`.
    Cut { to: Offset },
    /// The record with the largest timestamp, which is `timestamp_ms` by the batches' headers.
    MaxTimestamp { timestamp_ms: i64, upper: Offset },
}

/// A read or lookup under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// The partition.
    pub slot: PartitionSlot,
    /// What for.
    pub goal: Goal,
    /// The segment being looked through.
    pub segment: SegmentName,
    /// Where the next header is; none = ask the index.
    pub position: Option<u64>,
}

/// The end of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    Read(ReadPlan),
    Lookup(Option<FoundTimestamp>),
    /// Where the batch begins, and with which offset; none: there is none.
    Cut(Option<(SegmentName, u64, Offset)>),
}

/// What to do about a batch that was looked at.
pub(crate) enum Verdict {
    /// Not this one.
    Next,
    /// The whole batch is needed.
    Unpack,
    /// Done.
    Done(Outcome),
    /// Done, but the bytes of this range are wanted in memory.
    Fetch { position: u64, end: u64 },
}

impl Storage {
    /// Goes on with a job until it is done or waits for the disk (none).
    pub(crate) fn run_job(
        &mut self,
        token: ReadToken,
        mut job: Job,
        out: &mut Vec<DiskEffect>,
    ) -> Option<Result<Outcome, String>> {
        loop {
            let Some(partition) = self.partition(job.slot) else {
                return Some(Err("the partition was deleted meanwhile".to_string()));
            };
            let Some(segment) = partition.segment(job.segment) else {
                // Compaction or retention has been here.
                match self.find_segment(&mut job) {
                    Some(outcome) => return Some(outcome),
                    None => continue,
                }
            };
            let Some(index) = &segment.index else {
                self.jobs.insert(token, job);
                self.load_index(job.slot, job.segment, token, out);
                return None;
            };
            let position = job.position.unwrap_or_else(|| match job.goal {
                Goal::Read { offset, .. } | Goal::Cut { to: offset } => index.floor_offset(offset),
                Goal::Timestamp { timestamp_ms, .. } | Goal::MaxTimestamp { timestamp_ms, .. } => {
                    index.floor_timestamp(timestamp_ms)
                }
            });
            if position >= segment.length {
                match self.leave_segment(&mut job) {
                    Some(outcome) => return Some(outcome),
                    None => continue,
                }
            }
            job.position = Some(position);
            let length = (segment.length - position).min(SCAN_BYTES as u64) as usize;
            let file = segment.file(partition.key, FileKind::Log);
            self.jobs.insert(token, job);
            let ticket = self.ticket(Op::Scan(token));
            out.push(DiskEffect::SegmentRead { ticket, file, position, length });
            return None;
        }
    }

    /// A piece of the segment: looks at each header in it.
    pub(crate) fn handle_scan(
        &mut self,
        token: ReadToken,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(mut job) = self.jobs.remove(&token) else { return };
        if self.is_gone(&job) {
            return self.go_on(token, job, out, progress);
        }
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => return finish(token, &job, Err(error.text), progress),
        };
        let from = job.position.unwrap_or(0);
        let mut at = 0usize;
        while let Some(info) = bytes.get(at..).and_then(record_batch::peek) {
            let position = from + at as u64;
            job.position = Some(position);
            match self.look_at(&job, &info, position) {
                Verdict::Next => {}
                Verdict::Done(outcome) => return finish(token, &job, Ok(outcome), progress),
                Verdict::Unpack => return self.read_range(token, job, position, info.size_bytes, true, out),
                Verdict::Fetch { position, end } => {
                    return self.read_range(token, job, position, (end - position) as usize, false, out);
                }
            }
            at += info.size_bytes;
        }
        if at == 0 {
            let text =
                format!("segment {} has no record batch at {from}: it is damaged", job.segment.base_offset.0);
            return finish(token, &job, Err(text), progress);
        }
        job.position = Some(from + at as u64);
        self.go_on(token, job, out, progress);
    }

    /// The job's segment is not part of the log any more.
    fn is_gone(&self, job: &Job) -> bool {
        self.partition(job.slot).is_some_and(|partition| partition.segment(job.segment).is_none())
    }

    fn go_on(&mut self, token: ReadToken, job: Job, out: &mut Vec<DiskEffect>, progress: &mut Progress) {
        if let Some(outcome) = self.run_job(token, job, out) {
            finish(token, &job, outcome, progress);
        }
    }

    fn look_at(&mut self, job: &Job, info: &BatchInfo, position: u64) -> Verdict {
        match job.goal {
            Goal::Read { .. } => self.look_for_offset(job, info, position),
            Goal::Cut { to } if info.last_offset() < to.0 => Verdict::Next,
            Goal::Cut { .. } => {
                let place = (job.segment, position, Offset(info.base_offset));
                Verdict::Done(Outcome::Cut(Some(place)))
            }
            Goal::Timestamp { timestamp_ms, .. } | Goal::MaxTimestamp { timestamp_ms, .. } => {
                let start = self.log_start_offset(job.slot).0;
                let fits = info.max_timestamp >= timestamp_ms && info.last_offset() >= start;
                if fits { Verdict::Unpack } else { Verdict::Next }
            }
        }
    }

    fn read_range(
        &mut self,
        token: ReadToken,
        job: Job,
        position: u64,
        length: usize,
        unpack: bool,
        out: &mut Vec<DiskEffect>,
    ) {
        let key = self.partition(job.slot).map(|partition| partition.key);
        let Some(partition) = key else { return };
        let file = job.segment.file(partition, FileKind::Log);
        let job = Job { position: Some(position), ..job };
        self.jobs.insert(token, job);
        let op = if unpack { Op::Batch(token) } else { Op::Fetch(token) };
        let ticket = self.ticket(op);
        out.push(DiskEffect::SegmentRead { ticket, file, position, length });
    }

    /// The whole batch a lookup asked for.
    pub(crate) fn handle_batch(
        &mut self,
        token: ReadToken,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(mut job) = self.jobs.remove(&token) else { return };
        if self.is_gone(&job) {
            return self.go_on(token, job, out, progress);
        }
        let found = result.map_err(|error| error.text).and_then(|bytes| {
            let length = bytes.len() as u64;
            Ok((self.look_into(&job, &bytes)?, length))
        });
        match found {
            Err(text) => finish(token, &job, Err(text), progress),
            Ok((Some(found), _)) => finish(token, &job, Ok(Outcome::Lookup(Some(found))), progress),
            Ok((None, length)) => {
                job.position = job.position.map(|position| position + length);
                self.go_on(token, job, out, progress);
            }
        }
    }

    /// The bytes of a read that wants them in memory.
    pub(crate) fn handle_fetch(
        &mut self,
        token: ReadToken,
        result: Result<Bytes, DiskError>,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(job) = self.jobs.remove(&token) else { return };
        if self.is_gone(&job) {
            return self.go_on(token, job, out, progress);
        }
        let outcome = match result {
            Err(error) => Err(error.text),
            Ok(bytes) => {
                let mut whole = record_batch::BatchIter::new(&bytes);
                while whole.next().is_some() {}
                if whole.position() == bytes.len() && !bytes.is_empty() {
                    Ok(Outcome::Read(ReadPlan::Memory { batches: vec![bytes] }))
                } else {
                    Err(format!(
                        "segment {} ends within a record batch: it is damaged",
                        job.segment.base_offset.0
                    ))
                }
            }
        };
        finish(token, &job, outcome, progress);
    }

    pub(crate) fn resume_job(
        &mut self,
        token: ReadToken,
        out: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        let Some(job) = self.jobs.remove(&token) else { return };
        let outcome = match self.known_read(&job) {
            Some(Verdict::Done(outcome)) => Some(Ok(outcome)),
            Some(Verdict::Fetch { position, end }) => {
                return self.read_range(token, job, position, (end - position) as usize, false, out);
            }
            _ => return self.go_on(token, job, out, progress),
        };
        if let Some(outcome) = outcome {
            finish(token, &job, outcome, progress);
        }
    }

    pub(crate) fn fail_job(&mut self, token: ReadToken, text: String, progress: &mut Progress) {
        if let Some(job) = self.jobs.remove(&token) {
            finish(token, &job, Err(text), progress);
        }
    }
}

fn finish(token: ReadToken, job: &Job, outcome: Result<Outcome, String>, progress: &mut Progress) {
    match (outcome, job.goal) {
        (Ok(Outcome::Read(plan)), _) => progress.reads.push((token, Ok(plan))),
        (Ok(Outcome::Cut(place)), _) => progress.cut_places.push((job.slot, Ok(place))),
        (Err(text), Goal::Cut { .. }) => progress.cut_places.push((job.slot, Err(text))),
        (Ok(Outcome::Lookup(found)), _) => progress.lookups.push((token, Ok(found))),
        (Err(text), Goal::Read { .. }) => progress.reads.push((token, Err(text))),
        (Err(text), _) => progress.lookups.push((token, Err(text))),
    }
}
