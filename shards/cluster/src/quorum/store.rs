//! The metadata log in memory, as the crate `raft` reads it. Everything here is on its way to the disk or there already;
//! what may be relied on is counted by the crate.

use std::cell::Cell;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::quorum::journal::{Restored, SnapshotAt};

/// The log.
pub struct Store {
    /// Term, vote, commit.
    pub hard: HardState,
    /// Who is a member after the last entry applied.
    pub members: ConfState,
    /// Members as of the snapshot the log begins with; what the crate starts from.
    initial: ConfState,
    base_index: u64,
    base_term: u64,
    entries: Vec<Entry>,
    entry_bytes: usize,
    offered: Option<SnapshotAt>,
    wanted: Cell<bool>,
}

fn weight(entry: &Entry) -> usize {
    entry.data.len() + std::mem::size_of::<Entry>()
}

impl Store {
    /// From a disk.
    pub fn new(restored: Restored) -> Store {
        Store {
            hard: restored.hard,
            members: restored.snapshot.members.clone(),
            initial: restored.snapshot.members,
            base_index: restored.snapshot.index,
            base_term: restored.snapshot.term,
            entry_bytes: restored.entries.iter().map(weight).sum(),
            entries: restored.entries,
            offered: None,
            wanted: Cell::new(false),
        }
    }

    /// Index of the last entry no longer held.
    pub fn base_index(&self) -> u64 {
        self.base_index
    }

    /// Memory of the entries, bytes.
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// The entries after `index`.
    pub fn entries_after(&self, index: u64) -> &[Entry] {
        let from = index.saturating_sub(self.base_index) as usize;
        self.entries.get(from..).unwrap_or(&[])
    }

    /// The term of an entry, if it is held.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.base_index)? {
            0 => Some(self.base_term),
            behind => self.entries.get(behind as usize - 1).map(|entry| entry.term),
        }
    }

    /// Appends; entries from the first one's index on are replaced.
    pub fn append(&mut self, new: &[Entry]) {
        let Some(first) = new.first() else { return };
        let keep = (first.index.saturating_sub(self.base_index + 1) as usize).min(self.entries.len());
        self.entry_bytes -= self.entries.drain(keep..).map(|entry| weight(&entry)).sum::<usize>();
        self.entry_bytes += new.iter().map(weight).sum::<usize>();
        self.entries.extend_from_slice(new);
    }

    /// A snapshot takes the place of everything.
    pub fn install(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        self.base_index = metadata.index;
        self.base_term = metadata.term;
        self.members = metadata.get_conf_state().clone();
        self.initial = self.members.clone();
        self.entries.clear();
        self.entry_bytes = 0;
        self.offered = None;
        self.hard.commit = self.hard.commit.max(metadata.index);
    }

    /// Forgets entries up to `index`, which have been applied.
    pub fn forget(&mut self, index: u64) {
        let Some(term) = self.term_of(index) else { return };
        let count = (index - self.base_index) as usize;
        self.entry_bytes -= self.entries.drain(..count).map(|entry| weight(&entry)).sum::<usize>();
        self.base_index = index;
        self.base_term = term;
        if self.offered.as_ref().is_some_and(|offered| offered.index < index) {
            self.offered = None;
        }
    }

    /// The crate asked for a snapshot that is not there; asking ends.
    pub fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    /// Here is one, of the last entry applied.
    pub fn offer(&mut self, index: u64, data: Bytes) {
        let Some(term) = self.term_of(index) else { return };
        self.offered = Some(SnapshotAt { index, term, members: self.members.clone(), data });
    }

    /// Nobody needs the snapshot any more.
    pub fn withdraw(&mut self) {
        self.offered = None;
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.initial.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let from = (low - self.base_index - 1) as usize;
        let to = high.saturating_sub(self.base_index + 1) as usize;
        let Some(found) = self.entries.get(from..to) else {
            return Err(Error::Store(StorageError::Unavailable));
        };
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let count = found.iter().enumerate().take_while(|(at, entry)| {
            bytes += weight(entry) as u64;
            *at == 0 || bytes <= limit
        });
        Ok(found[..count.count()].to_vec())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_of(index).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + self.entries.len() as u64)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // A snapshot from before the peer was a member would be of no use to it.
        let knows = |at: &SnapshotAt| {
            let members = &at.members;
            [&members.voters, &members.learners, &members.voters_outgoing].iter().any(|ids| ids.contains(&to))
        };
        let fits = |at: &&SnapshotAt| at.index >= request_index.max(self.base_index).max(1) && knows(at);
        let Some(at) = self.offered.as_ref().filter(fits) else {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot { data: at.data.clone(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = at.index;
        metadata.term = at.term;
        metadata.set_conf_state(at.members.clone());
        Ok(snapshot)
    }
}
