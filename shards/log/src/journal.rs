//! The journal as positions and states: which group goes where, which groups are written, flushed, laid down, and which
//! space may be used again. Holds no file and knows no partition's log.
//!
//! ```text
//! position 0 ...... | start: first group a durable checkpoint needs | sealed groups | head: next group | ...... end
//! ```
//! A group never straddles the end: if it does not fit before it, it goes to position 0.

use std::collections::VecDeque;

use bytes::Bytes;
use pelton_model::{LeaderEpoch, Offset, PartitionKey};

use pelton_wire::record_batch;

use crate::frame;
use crate::frame::EntryKind;
use crate::types::{CommitPoint, PartitionSlot};

/// Room kept back for facts and metadata, which are never refused, bytes.
const RESERVE_BYTES: usize = 64 * 1024;

/// A change that waits for its group to be sealed.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What it is.
    pub kind: EntryKind,
    /// The partition's slot; none for metadata.
    pub slot: Option<PartitionSlot>,
    /// The partition.
    pub key: PartitionKey,
    /// Offset; see the kind.
    pub value: Offset,
    /// Its bytes.
    pub payload: Bytes,
    /// Epoch to stamp batches with.
    pub leader_epoch: LeaderEpoch,
    /// Time to stamp batches with, milliseconds.
    pub log_append_time_ms: Option<i64>,
    /// Only the batch's header goes into the group, the batch straight to its segment.
    pub direct: bool,
    /// Offsets and epochs are in the batches: a leader gave them.
    pub stamped: bool,
}

impl Pending {
    /// Bytes it takes in a frame.
    pub fn entry_length(&self) -> usize {
        let payload = if self.direct { record_batch::HEADER_BYTES } else { self.payload.len() };
        frame::entry_length(payload)
    }
}

/// A group that is still taking changes.
#[derive(Debug)]
pub struct Forming {
    /// Its number.
    pub sequence: u64,
    /// Bytes of its entries.
    pub body_length: usize,
    /// Bytes of its batches that go straight to segments.
    pub direct_bytes: usize,
    /// Its changes.
    pub entries: Vec<Pending>,
    /// It must be on stable storage before anything in it is acknowledged.
    pub sync: bool,
    /// Shortest `flush.ms` in it, milliseconds.
    pub flush_ms: i64,
}

/// How far a sealed group has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GroupState {
    /// Being written.
    InFlight,
    /// Written: survives the process.
    Written,
    /// On stable storage.
    Flushed,
}

/// A sealed group.
#[derive(Debug)]
pub struct Group {
    /// Its number.
    pub sequence: u64,
    /// Where its frame is.
    pub position: u64,
    /// Whole blocks of its frame, bytes.
    pub length: usize,
    /// How far it has come.
    pub state: GroupState,
    /// When it completed, in completions of the journal; 0 = not yet.
    pub completion: u64,
    /// Batches of it that are not on stable storage in a segment.
    pub unlaid: usize,
    /// Of these, batches that went straight there: the group is neither written nor flushed before they are.
    pub direct_left: usize,
    /// Bytes of its frame and of its direct batches.
    pub memory_bytes: usize,
    /// Its buffer is in memory for reads and lay-down.
    pub resident: bool,
    /// Partitions it moved, with the end it moved them to.
    pub ends: Vec<(PartitionSlot, Offset)>,
    /// When it must be flushed at the latest, monotonic nanoseconds.
    pub flush_due_ns: Option<u64>,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    size: u64,
    group_bytes: usize,
    /// Life of the log.
    pub incarnation: u64,
    /// Groups that take changes; the front is sealed next.
    pub forming: VecDeque<Forming>,
    /// Sealed groups that are needed by recovery or by readers, by number without gaps.
    pub groups: VecDeque<Group>,
    next_seal: u64,
    head: u64,
    start: (u64, u64),
    written: u64,
    flushed: u64,
    completions: u64,
    /// Groups up to this one must be flushed.
    pub sync_wanted: u64,
    flush_due_ns: Option<u64>,
    resident_bytes: usize,
    pinned_bytes: usize,
    evict_next: u64,
    unlaid_next: u64,
}

impl Journal {
    /// A journal whose next group is `next_sequence` at `head`; everything before is flushed.
    pub fn new(size: u64, group_bytes: usize, next_sequence: u64, head: u64, start: (u64, u64)) -> Journal {
        Journal {
            size,
            group_bytes,
            incarnation: 0,
            forming: VecDeque::new(),
            groups: VecDeque::new(),
            next_seal: next_sequence,
            head,
            start,
            written: next_sequence - 1,
            flushed: next_sequence - 1,
            completions: 0,
            sync_wanted: 0,
            flush_due_ns: None,
            resident_bytes: 0,
            pinned_bytes: 0,
            evict_next: next_sequence,
            unlaid_next: 0,
        }
    }

    /// Every group up to this one has been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Every group up to this one is on stable storage.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// The last group that was sealed.
    pub fn last_sealed(&self) -> u64 {
        self.next_seal - 1
    }

    /// The last group that has a number.
    pub fn last_sequence(&self) -> u64 {
        self.forming.back().map_or(self.next_seal - 1, |group| group.sequence)
    }

    /// Where the next group would go if it fits there.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Group buffers in memory, bytes.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Those with batches that are in no segment yet, bytes.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Changes not sealed yet, bytes.
    pub fn forming_bytes(&self) -> usize {
        self.forming.iter().map(|group| group.body_length + group.direct_bytes).sum()
    }

    /// When something must be flushed at the latest, monotonic nanoseconds; none while what comes first waits for a write
    /// and not for a flush.
    pub fn flush_due_ns(&self) -> Option<u64> {
        let first = group_of(&self.groups, self.flushed + 1)?;
        self.flush_due_ns.filter(|_| first.state == GroupState::Written)
    }

    /// Bytes between the start and the head.
    pub fn used_bytes(&self) -> u64 {
        let (sequence, position) = self.start;
        match self.head {
            _ if sequence == self.next_seal => 0,
            head if head > position => head - position,
            head => self.size - position + head,
        }
    }

    /// Adds a change to the group that is forming, or begins another if it is large enough.
    pub fn push(&mut self, pending: Pending, sync: bool, flush_ms: i64) -> CommitPoint {
        let length = pending.entry_length();
        let direct_bytes = if pending.direct { pending.payload.len() } else { 0 };
        let size = |group: &Forming| group.body_length + group.direct_bytes + length + direct_bytes;
        if self.forming.back().is_none_or(|group| size(group) > self.group_bytes) {
            let sequence = self.last_sequence() + 1;
            let (entries, flush_ms) = (Vec::new(), i64::MAX);
            let forming =
                Forming { sequence, body_length: 0, direct_bytes: 0, entries, sync: false, flush_ms };
            self.forming.push_back(forming);
        }
        let Some(group) = self.forming.back_mut() else { return CommitPoint(self.last_sequence()) };
        group.body_length += length;
        group.direct_bytes += direct_bytes;
        group.sync |= sync;
        group.flush_ms = group.flush_ms.min(flush_ms);
        group.entries.push(pending);
        CommitPoint(group.sequence)
    }

    /// Where a frame goes when the next one is due at `head` and everything from `start` on is needed (none = nothing).
    fn place(&self, length: u64, head: u64, start: Option<u64>) -> Option<u64> {
        let fits_ahead = head + length <= self.size;
        match start {
            None => (length <= self.size).then_some(if fits_ahead { head } else { 0 }),
            Some(start) if head < start => (head + length < start).then_some(head),
            Some(_) if fits_ahead => Some(head),
            Some(start) => (length < start).then_some(0),
        }
    }

    fn needed_from(&self) -> Option<u64> {
        (self.start.0 != self.next_seal).then_some(self.start.1)
    }

    /// Where a frame of `length` bytes may go now.
    pub fn placement(&self, length: usize) -> Option<u64> {
        self.place(length as u64, self.head, self.needed_from())
    }

    /// Whether what is forming, and `bytes` more, would find room without anything being freed.
    pub fn fits(&self, bytes: usize) -> bool {
        let (mut head, mut start) = (self.head, self.needed_from());
        let more = (bytes > 0).then(|| frame::frame_length(bytes + bytes / 8 + RESERVE_BYTES) as u64);
        let forming = self.forming.iter().map(|group| frame::frame_length(group.body_length) as u64);
        for length in forming.chain(more) {
            let Some(position) = self.place(length, head, start) else { return false };
            head = position + length;
            start = start.or(Some(position));
        }
        true
    }

    /// Nothing is sealed that recovery would need, and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.forming.is_empty() && self.start.0 == self.next_seal
    }

    /// Takes in the group whose write begins; it is the next in number.
    pub fn sealed(&mut self, group: Group) {
        if self.start.0 == self.next_seal {
            // The checkpoint may name the old head; recovery looks at position 0 too.
            self.start.1 = group.position;
        }
        self.head = group.position + group.length as u64;
        self.next_seal = group.sequence + 1;
        if group.resident {
            self.resident_bytes += group.memory_bytes;
            self.pinned_bytes += group.memory_bytes;
        }
        self.flush_due_ns = [self.flush_due_ns, group.flush_due_ns].into_iter().flatten().min();
        self.groups.push_back(group);
    }

    /// A group by number.
    pub fn group_mut(&mut self, sequence: u64) -> Option<&mut Group> {
        let first = self.groups.front()?.sequence;
        self.groups.get_mut(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// Writes completed so far: what a sync submitted now will cover.
    pub fn completions(&self) -> u64 {
        self.completions
    }

    /// A group's write is done; `synced` if it was a DSYNC write. That makes the group stable and nothing else: a drive
    /// with FUA does not flush what was written before.
    pub fn complete_write(&mut self, sequence: u64, synced: bool) {
        self.completions += 1;
        let completion = self.completions;
        if let Some(group) = self.group_mut(sequence) {
            group.completion = completion;
            group.state = if synced { GroupState::Flushed } else { GroupState::Written };
        }
    }

    /// Everything that had completed when `covers` completions were counted is on stable storage.
    pub fn complete_sync(&mut self, covers: u64) {
        let first = self.flushed + 1;
        let skip = self.groups.front().map_or(0, |group| first.saturating_sub(group.sequence)) as usize;
        for group in self.groups.iter_mut().skip(skip) {
            if group.completion > 0 && group.completion <= covers {
                group.state = GroupState::Flushed;
            }
        }
    }

    /// Moves the written and the flushed end over groups that have come so far; never past one that has not.
    pub fn advance(&mut self, mut written: impl FnMut(&Group), mut flushed: impl FnMut(&Group)) {
        while let Some(group) = group_of(&self.groups, self.written + 1)
            && group.state >= GroupState::Written
            && group.direct_left == 0
        {
            written(group);
            self.written += 1;
        }
        let before = self.flushed;
        while let Some(group) = group_of(&self.groups, self.flushed + 1)
            && group.state == GroupState::Flushed
            && group.direct_left == 0
        {
            flushed(group);
            self.flushed += 1;
        }
        if self.flushed > before {
            let rest = self.groups.iter().rev().take_while(|group| group.sequence > self.flushed);
            self.flush_due_ns = rest.filter_map(|group| group.flush_due_ns).min();
        }
    }

    /// Everything written is wanted on stable storage.
    pub fn want_sync(&mut self, sequence: u64) {
        self.sync_wanted = self.sync_wanted.max(sequence);
    }

    /// A flush of its own is due: the first group that is not flushed is wanted, and was written without a flush.
    pub fn needs_sync(&self) -> bool {
        let next = self.flushed + 1;
        next <= self.sync_wanted
            && group_of(&self.groups, next).is_some_and(|group| group.state == GroupState::Written)
    }

    /// One batch of the group is now in a segment, on stable storage (or its partition is gone). `direct`: the group has
    /// waited for it.
    pub fn batch_laid(&mut self, sequence: u64, direct: bool) {
        let Some(group) = self.group_mut(sequence) else { return };
        group.unlaid = group.unlaid.saturating_sub(1);
        group.direct_left = group.direct_left.saturating_sub(usize::from(direct));
        if group.unlaid == 0 && group.resident {
            let length = group.memory_bytes;
            self.pinned_bytes = self.pinned_bytes.saturating_sub(length);
        }
    }

    /// First group that recovery would still need, and where it is: the start of a checkpoint made now.
    pub fn first_needed(&mut self) -> (u64, u64) {
        let from = self.skip_laid();
        let end = (self.next_seal, self.head);
        let needed = self.groups.get(from).filter(|group| group.sequence >= self.start.0);
        needed.map_or(end, |group| (group.sequence, group.position))
    }

    /// Index of the first group with something that is in no segment, or that is not flushed. Each group is passed once.
    fn skip_laid(&mut self) -> usize {
        let first = self.groups.front().map_or(0, |group| group.sequence);
        self.unlaid_next = self.unlaid_next.max(first);
        let from = ((self.unlaid_next - first) as usize).min(self.groups.len());
        let flushed = self.flushed;
        let done = |group: &&Group| group.unlaid == 0 && group.sequence <= flushed;
        let passed = self.groups.range(from..).take_while(done).count();
        self.unlaid_next += passed as u64;
        from + passed
    }

    /// Bytes a checkpoint that begins at `needed` would free.
    pub fn freed_by(&self, needed: (u64, u64)) -> u64 {
        if needed.0 <= self.start.0 {
            return 0;
        }
        let (from, to) = (self.start.1, needed.1);
        if to > from { to - from } else { self.size - from + to }
    }

    /// A checkpoint that begins at `start` is durable: what lies before may be overwritten.
    pub fn release(&mut self, start: (u64, u64)) {
        self.start = start;
        self.forget();
    }

    /// Gives up the oldest buffer in memory if nothing but reads needs it; says which partitions it held.
    pub fn evict(&mut self) -> Option<(u64, Vec<PartitionSlot>)> {
        loop {
            let (sequence, flushed) = (self.evict_next, self.flushed);
            let group = self.group_mut(sequence)?;
            if group.resident && (group.unlaid > 0 || sequence > flushed) {
                return None;
            }
            let was_resident = std::mem::replace(&mut group.resident, false);
            let slots = group.ends.iter().map(|(slot, _)| *slot).collect();
            let length = group.memory_bytes;
            self.evict_next += 1;
            if was_resident {
                self.resident_bytes -= length;
                self.forget();
                return Some((sequence, slots));
            }
        }
    }

    /// Whether the oldest buffer in memory is needed for nothing but that its group was written without a flush.
    pub fn evicts_after_flush(&self) -> bool {
        group_of(&self.groups, self.evict_next)
            .is_some_and(|group| group.resident && group.unlaid == 0 && group.state == GroupState::Written)
    }

    fn forget(&mut self) {
        while let Some(front) = self.groups.front()
            && front.sequence < self.start.0
            && !front.resident
        {
            self.evict_next = self.evict_next.max(front.sequence + 1);
            self.groups.pop_front();
        }
    }

    /// Groups that are not wholly in segments, oldest first.
    pub fn unlaid_groups(&mut self) -> impl Iterator<Item = &Group> {
        let from = self.skip_laid();
        self.groups.range(from..).filter(|group| group.unlaid > 0)
    }

    /// Bytes of journal that no checkpoint made now could free.
    pub fn unlaid_span(&mut self) -> u64 {
        let needed = self.first_needed();
        self.used_bytes() - self.freed_by(needed).min(self.used_bytes())
    }

    /// Takes in a group found at recovery; its number precedes the next to be sealed.
    pub fn restore(&mut self, group: Group) {
        if self.groups.is_empty() {
            self.evict_next = group.sequence;
        }
        if group.resident {
            self.resident_bytes += group.memory_bytes;
            self.pinned_bytes += group.memory_bytes;
        }
        self.groups.push_back(group);
    }
}

fn group_of(groups: &VecDeque<Group>, sequence: u64) -> Option<&Group> {
    let first = groups.front()?.sequence;
    groups.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
}
