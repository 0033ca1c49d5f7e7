//! The storage of one shard: its state, the calls of the shard, and where each completion goes. What happens behind a
//! call is in the file named after it (seal, lay_down, checkpointing, files, read, lookup, recovery).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey, TopicConfig};
use pelton_wire::record_batch::{self, BatchIter};

use crate::checkpointing::Checkpointing;
use crate::compaction::Compaction;
use crate::disk::{DiskDone, DiskEffect, DiskError, Ticket};
use crate::files::Doomed;
use crate::frame::{EntryKind, NO_PARTITION};
use crate::index_load::IndexLoad;
use crate::jobs::Job;
use crate::journal::{Journal, Pending};
use crate::lay_round::Round;
use crate::partition::PartitionLog;
use crate::segment::SegmentName;
use crate::types::*;

/// What an operation in flight is for.
#[derive(Debug)]
pub(crate) enum Op {
    /// A group. `covers`: what its flush covers, if it flushes.
    JournalWrite {
        sequence: u64,
        sync: bool,
    },
    JournalSync {
        covers: u64,
    },
    /// Of what an earlier life wrote.
    RecoverySync,
    Lay(PartitionSlot, SegmentName),
    LayPartial(PartitionSlot, SegmentName),
    LayRound(Round),
    Checkpoint,
    Truncate(PartitionSlot, SegmentName),
    IndexWrite(PartitionSlot, SegmentName),
    IndexSync(PartitionSlot, SegmentName),
    Delete(u64),
    LoadIndex(PartitionSlot, SegmentName),
    LoadScan(PartitionSlot, SegmentName),
    Scan(ReadToken),
    Batch(ReadToken),
    Fetch(ReadToken),
    /// Bytes wanted.
    CompactRead(u64),
    CompactWrite(PartitionSlot, SegmentName),
    CompactSync(PartitionSlot, SegmentName),
    /// Only to be told when the device is quiet, at the end of a stop that cannot be clean.
    LastWord,
}

/// Where the storage is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// What the journal held is being laid down; nothing is sealed before a checkpoint begins a new incarnation.
    Recovering,
    Running,
    Stopped,
    Failed,
}

/// The storage of one shard.
pub struct Storage {
    pub(crate) config: StorageConfig,
    pub(crate) phase: Phase,
    pub(crate) stopping: bool,
    pub(crate) health: Health,
    pub(crate) journal: Journal,
    pub(crate) partitions: Vec<Option<PartitionLog>>,
    pub(crate) by_key: BTreeMap<PartitionKey, PartitionSlot>,
    pub(crate) ops: BTreeMap<Ticket, Op>,
    pub(crate) journal_writes: usize,
    pub(crate) journal_syncing: bool,
    /// What recovery read from the journal is known to be on stable storage.
    pub(crate) recovery_synced: bool,
    /// Partitions with enough to lay down.
    pub(crate) ready: BTreeSet<PartitionSlot>,
    pub(crate) lay_downs: usize,
    pub(crate) round_in_flight: bool,
    /// Batches that go straight to segments and are not there yet.
    pub(crate) direct_left: usize,
    pub(crate) checkpointing: Checkpointing,
    pub(crate) doomed: Doomed,
    /// Log start offsets that take effect on files once the group is flushed.
    pub(crate) start_facts: VecDeque<(u64, PartitionSlot, Offset)>,
    /// Of these it has been.
    pub(crate) started: Vec<PartitionSlot>,
    pub(crate) loads: BTreeMap<(PartitionSlot, SegmentName), IndexLoad>,
    pub(crate) loaded: VecDeque<(PartitionSlot, SegmentName)>,
    pub(crate) jobs: BTreeMap<ReadToken, Job>,
    /// Active segments whose index is still to be written, at a clean stop.
    pub(crate) last_indexes: Option<Vec<(PartitionSlot, SegmentName)>>,
    /// The last operation of a stop that cannot be clean is in flight.
    pub(crate) last_word: bool,
    pub(crate) retry_at_ns: Option<u64>,
    /// The compaction under way, and how the last one ended.
    pub(crate) compaction: Option<Box<Compaction>>,
    pub(crate) compaction_report: Option<CompactionReport>,
    /// Results of compaction so far in this life.
    pub(crate) next_generation: u32,
    /// Partitions whose log is being cut.
    pub(crate) cutting: Vec<PartitionSlot>,
    /// Places that were found for them.
    pub(crate) cut_places: Vec<CutPlace>,
    starved: Cell<bool>,
    said: Health,
    next_ticket: u64,
    next_token: u64,
}

impl Storage {
    /// Reads what the last life left behind. The first `end_turn`s lay down what the journal held and write a checkpoint;
    /// until that is durable nothing is admitted. A crash in between repeats the same, to the same places.
    ///
    /// # Errors
    /// [`RecoveryError::Corrupt`] if something that was on stable storage is damaged, rather than cut it away.
    pub fn recover(
        config: StorageConfig,
        image: DiskImage,
        now: Now,
    ) -> Result<(Storage, Recovered), RecoveryError> {
        crate::recovery::recover(config, image, now)
    }

    pub(crate) fn new(config: StorageConfig, journal: Journal, checkpointing: Checkpointing) -> Storage {
        Storage {
            config,
            phase: Phase::Recovering,
            stopping: false,
            health: Health::Healthy,
            journal,
            partitions: Vec::new(),
            by_key: BTreeMap::new(),
            ops: BTreeMap::new(),
            journal_writes: 0,
            journal_syncing: false,
            recovery_synced: true,
            ready: BTreeSet::new(),
            lay_downs: 0,
            round_in_flight: false,
            direct_left: 0,
            checkpointing,
            doomed: Doomed::default(),
            start_facts: VecDeque::new(),
            started: Vec::new(),
            loads: BTreeMap::new(),
            loaded: VecDeque::new(),
            jobs: BTreeMap::new(),
            last_indexes: None,
            last_word: false,
            retry_at_ns: None,
            compaction: None,
            compaction_report: None,
            next_generation: 0,
            cutting: Vec::new(),
            cut_places: Vec::new(),
            starved: Cell::new(false),
            said: Health::Healthy,
            next_ticket: 0,
            next_token: 0,
        }
    }

    /// A new partition, or the recovered one with this key, under the topic's settings.
    pub fn open_partition(&mut self, key: PartitionKey, config: &TopicConfig) -> PartitionSlot {
        let slot = match self.by_key.get(&key) {
            Some(slot) => *slot,
            None => self.insert(PartitionLog::new(key, Offset(0))),
        };
        self.set_config(slot, config);
        slot
    }

    pub(crate) fn insert(&mut self, partition: PartitionLog) -> PartitionSlot {
        let slot = PartitionSlot(self.partitions.len() as u32);
        self.by_key.insert(partition.key, slot);
        self.partitions.push(Some(partition));
        slot
    }

    /// New settings of a partition's topic.
    pub fn set_config(&mut self, slot: PartitionSlot, config: &TopicConfig) {
        if let Some(partition) = self.partition_mut(slot) {
            partition.config = config.clone();
            partition.uncleanable = false;
        }
    }

    pub(crate) fn partition(&self, slot: PartitionSlot) -> Option<&PartitionLog> {
        self.partitions.get(slot.0 as usize)?.as_ref()
    }

    pub(crate) fn partition_mut(&mut self, slot: PartitionSlot) -> Option<&mut PartitionLog> {
        self.partitions.get_mut(slot.0 as usize)?.as_mut()
    }

    /// First offset, as it is known on stable storage; 0 if the partition is gone (so are the following).
    pub fn log_start_offset(&self, slot: PartitionSlot) -> Offset {
        self.partition(slot).map_or(Offset(0), |partition| partition.log_start)
    }

    /// Offset behind the last append.
    pub fn log_end_offset(&self, slot: PartitionSlot) -> Offset {
        self.partition(slot).map_or(Offset(0), |partition| partition.log_end)
    }

    /// Offset up to which appends have been written: they survive the process.
    pub fn written_end_offset(&self, slot: PartitionSlot) -> Offset {
        self.partition(slot).map_or(Offset(0), |partition| partition.written_end)
    }

    /// Offset up to which appends are on stable storage. What was recovered counts once [`Storage::is_ready`].
    pub fn flushed_end_offset(&self, slot: PartitionSlot) -> Offset {
        self.partition(slot).map_or(Offset(0), |partition| partition.flushed_end)
    }

    /// Bytes of log.
    pub fn size_bytes(&self, slot: PartitionSlot) -> u64 {
        self.partition(slot).map_or(0, PartitionLog::size_bytes)
    }

    /// Every change up to this point is on stable storage.
    pub fn flushed(&self) -> CommitPoint {
        CommitPoint(self.journal.flushed())
    }

    /// Every change up to this point has been written.
    pub fn written(&self) -> CommitPoint {
        CommitPoint(self.journal.written())
    }

    /// How the storage is.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Something could not be written for want of space, and has not been since.
    pub fn is_full(&self) -> bool {
        matches!(self.health, Health::NoSpace(_))
    }

    /// Whether recovery is complete: everything found at start is in segments, and a checkpoint says so.
    pub fn is_ready(&self) -> bool {
        self.phase != Phase::Recovering
    }

    /// Whether a request with `bytes` of batches may be appended now. After `Later`, `Progress::space_freed` says when
    /// to ask again.
    pub fn admit(&self, bytes: usize) -> Admission {
        if let Health::Failed(text) = &self.health {
            return Admission::Refused { text: text.clone(), no_space: false };
        }
        let pinned = self.journal.pinned_bytes();
        if let Health::NoSpace(text) = &self.health
            && self.direct_left > 0
        {
            // What is on its way to a segment waits for space, and everything after it with it.
            self.starved.set(true);
            return Admission::Refused { text: text.clone(), no_space: true };
        }
        let has_memory = pinned + self.journal.forming_bytes() + bytes <= self.config.tail_bytes;
        let idle = self.journal.is_empty() && pinned == 0;
        if self.phase == Phase::Running && ((has_memory && self.journal.fits(bytes)) || idle) {
            return Admission::Yes;
        }
        self.starved.set(true);
        match &self.health {
            Health::NoSpace(text) if self.phase == Phase::Running => {
                Admission::Refused { text: text.clone(), no_space: true }
            }
            _ => Admission::Later,
        }
    }

    /// Appends `batch`, one validated record batch or several that follow each other, under `leader_epoch`. Offsets
    /// are given now, bytes are copied and stamped when the group is sealed. The caller has asked [`Storage::admit`].
    pub fn append(
        &mut self,
        slot: PartitionSlot,
        batch: Bytes,
        leader_epoch: LeaderEpoch,
        log_append_time_ms: Option<i64>,
    ) -> Appended {
        let Some(partition) = self.partitions.get_mut(slot.0 as usize).and_then(Option::as_mut) else {
            return Appended {
                base_offset: Offset(0),
                last_offset: Offset(0),
                commit: CommitPoint(u64::MAX),
            };
        };
        let records: i64 =
            BatchIter::new(&batch).map(|(info, _)| i64::from(info.last_offset_delta.max(0)) + 1).sum();
        let base_offset = partition.log_end;
        partition.log_end = Offset(base_offset.0 + records);
        partition.records_since_flush += records;
        let sync = partition.records_since_flush >= partition.config.flush_messages.max(1);
        if sync {
            partition.records_since_flush = 0;
        }
        let flush_ms = partition.config.flush_ms;
        // Straight to the segment only what is one batch, and while the device has room.
        let direct = batch.len() >= self.config.direct_bytes
            && self.health == Health::Healthy
            && record_batch::peek(&batch).is_some_and(|info| info.size_bytes == batch.len());
        let pending = Pending {
            kind: EntryKind::Batches,
            slot: Some(slot),
            key: partition.key,
            value: base_offset,
            payload: batch,
            leader_epoch,
            log_append_time_ms,
            direct,
            stamped: false,
        };
        let commit = self.journal.push(pending, sync, flush_ms);
        Appended { base_offset, last_offset: Offset(base_offset.0 + records - 1), commit }
    }

    /// A name that no segment of any partition here has, or had in any life: for what is begun anew.
    pub(crate) fn fresh_generation(&mut self) -> u64 {
        self.next_generation += 1;
        (self.checkpointing.incarnation & !u64::from(u32::MAX)) | u64::from(self.next_generation)
    }

    /// Appends a record of the metadata log; always flushed, never refused.
    pub fn append_metadata(&mut self, record: Bytes) -> CommitPoint {
        self.push_fact(EntryKind::Metadata, None, NO_PARTITION, Offset(0), record, true)
    }

    /// The log of the partition begins at `offset` (DeleteRecords, retention) once this is on stable storage; segments that
    /// lie wholly below are deleted then. Never moves back.
    pub fn set_log_start_offset(&mut self, slot: PartitionSlot, offset: Offset) -> CommitPoint {
        let Some(partition) = self.partition_mut(slot) else { return self.written() };
        partition.next_log_start = partition.next_log_start.max(offset.min(partition.log_end));
        let (key, value) = (partition.key, partition.next_log_start);
        let commit = self.push_fact(EntryKind::LogStartOffset, Some(slot), key, value, Bytes::new(), true);
        self.start_facts.push_back((commit.0, slot, value));
        commit
    }

    pub(crate) fn push_fact(
        &mut self,
        kind: EntryKind,
        slot: Option<PartitionSlot>,
        key: PartitionKey,
        value: Offset,
        payload: Bytes,
        sync: bool,
    ) -> CommitPoint {
        let pending = Pending {
            kind,
            slot,
            key,
            value,
            payload,
            leader_epoch: LeaderEpoch(-1),
            log_append_time_ms: None,
            direct: false,
            stamped: false,
        };
        self.journal.push(pending, sync, i64::MAX)
    }

    /// Ends a turn: seals what has formed if a write may start, flushes what is due, lays down, checkpoints, deletes.
    pub fn end_turn(&mut self, now: Now, snapshots: &dyn Snapshots, out: &mut Vec<DiskEffect>) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        if self.phase == Phase::Failed {
            return self.stop_failed(out);
        }
        if self.retry_at_ns.is_some_and(|at| at <= now.monotonic_ns) {
            self.retry_at_ns = None;
        }
        if self.stopping {
            self.journal.want_sync(self.journal.last_sequence());
        }
        self.prepare_cuts(out);
        self.seal_groups(now, out);
        self.evict_tail();
        self.start_lay_downs(now, out);
        self.continue_compaction(now, out);
        self.delete_doomed(now, out);
        self.checkpoint_if_due(now, snapshots, out);
        // Last, since everything above may want a flush, and nothing else may call for another turn.
        self.sync_journal(now, out);
        if self.stopping {
            self.advance_stop(snapshots, out);
        }
    }

    /// Lays everything down, writes the indexes of active segments and a last checkpoint; `Progress::stopped` follows.
    /// Driven by `end_turn`. Nothing may be appended any more.
    pub fn clean_stop(&mut self) {
        self.stopping = true;
    }

    /// When the next `end_turn` is wanted though nothing happens, monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Stopped | Phase::Failed => None,
            _ => {
                // While a write or sync is in flight its completion ends a turn, which looks at what is due.
                let busy = self.journal_syncing || self.journal_writes > 0;
                let checkpoint_comes = self.checkpointing.wanted
                    || self.checkpointing.underway.is_some()
                    || self.phase == Phase::Recovering
                    || self.retry_at_ns.is_some();
                let doomed_ns = self.doomed.due_ns(checkpoint_comes).filter(|_| !self.stopping);
                let flush_due_ns = if busy { None } else { self.journal.flush_due_ns() };
                let (again_ns, compaction_ns) = (self.checkpointing.again_ns, self.compaction_due_ns());
                [self.retry_at_ns, doomed_ns, flush_due_ns, again_ns, compaction_ns]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// A disk operation is done.
    pub fn handle(&mut self, now: Now, done: DiskDone, out: &mut Vec<DiskEffect>, progress: &mut Progress) {
        let Some(op) = self.ops.remove(&done.ticket) else { return };
        match op {
            Op::JournalWrite { sequence, sync } => {
                self.handle_journal_write(sequence, sync, done.result, progress);
            }
            Op::RecoverySync => self.handle_recovery_sync(done.result),
            Op::JournalSync { covers } => self.handle_journal_sync(covers, done.result, progress),
            Op::Lay(slot, base) => self.handle_lay(now, slot, base, done.result, progress),
            Op::LayPartial(slot, base) => self.handle_lay_partial(now, slot, base, done.result, out),
            Op::LayRound(round) => self.handle_round(now, round, done.result, progress),
            Op::Checkpoint => self.handle_checkpoint(now, done.result, progress),
            Op::Truncate(slot, base) => self.handle_truncate(slot, base, out),
            Op::IndexWrite(slot, base) => self.handle_index_write(slot, base, done.result, out),
            Op::IndexSync(slot, base) => self.end_file_op(slot, base),
            Op::Delete(row) => self.handle_delete(now, row, done.result),
            Op::LoadIndex(slot, base) => self.handle_load_index(slot, base, done.result, out, progress),
            Op::LoadScan(slot, base) => self.handle_load_scan(slot, base, done.result, out, progress),
            Op::Scan(token) => self.handle_scan(token, done.result, out, progress),
            Op::Batch(token) => self.handle_batch(token, done.result, out, progress),
            Op::Fetch(token) => self.handle_fetch(token, done.result, out, progress),
            Op::CompactRead(length) => self.handle_compaction_read(length, done.result),
            Op::CompactWrite(slot, name) => self.handle_compaction_write(slot, name, false, done.result),
            Op::CompactSync(slot, name) => self.handle_compaction_write(slot, name, true, done.result),
            Op::LastWord => {
                self.phase = Phase::Stopped;
                progress.stopped = true;
            }
        }
        self.advance_cuts(now, out, progress);
        self.tell(progress);
    }

    fn tell(&mut self, progress: &mut Progress) {
        progress.advanced.sort_unstable();
        progress.advanced.dedup();
        if self.health != self.said {
            match &self.health {
                Health::Failed(text) => progress.failed = Some(text.clone()),
                Health::NoSpace(text) => progress.no_space = Some(text.clone()),
                Health::Healthy => {}
            }
            self.said = self.health.clone();
        }
        // Any completion may have made room, and only those who were sent away ask again.
        progress.space_freed |= self.starved.replace(false);
    }

    /// Someone was sent away: everything that frees room is worth doing now.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.get()
    }

    pub(crate) fn starve(&self) {
        self.starved.set(true);
    }

    /// Gives an operation its name.
    pub(crate) fn ticket(&mut self, op: Op) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.ops.insert(ticket, op);
        ticket
    }

    pub(crate) fn token(&mut self) -> ReadToken {
        self.next_token += 1;
        ReadToken(self.next_token)
    }

    /// Nothing can be trusted to reach the disk any more: acknowledge nothing from here on. A failed flush is never
    /// tried again on the same file (the kernel may have dropped the pages: fsyncgate).
    pub(crate) fn fail(&mut self, what: &str, error: &DiskError) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            self.health = Health::Failed(format!(
                "{what} failed: {}; check the device, then restart the broker: it recovers what was acknowledged",
                error.text
            ));
        }
    }

    /// A write beside the journal failed: for want of space it is tried again later, otherwise the storage has failed.
    pub(crate) fn fail_or_retry(&mut self, now: Now, what: &str, error: &DiskError) {
        if !error.no_space {
            return self.fail(what, error);
        }
        if self.phase != Phase::Failed {
            self.retry_at_ns = Some(now.after_ms(self.config.retry_ms));
            self.health = Health::NoSpace(format!(
                "{what} failed: {}; free space on the device, appends are taken until the journal is full",
                error.text
            ));
        }
    }
}
