//! Snapshots under way: parts that come are put together, peers that do not confirm theirs get it again.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::Message;
use raft::{ProgressState, RawNode, StateRole};

use crate::quorum::guard::Refused;
use crate::quorum::journal::SnapshotAt;
use crate::quorum::message::{Envelope, Part, snapshot_message};
use crate::quorum::store::Store;

struct Incoming {
    from: u64,
    term: u64,
    at: SnapshotAt,
    total: u64,
    data: Vec<u8>,
}

/// Both directions.
pub struct Transfer {
    bytes_max: u64,
    ticks: u32,
    incoming: Option<Incoming>,
    outgoing: BTreeMap<u64, u32>,
    idle_ticks: u32,
}

impl Transfer {
    /// Takes snapshots up to `bytes_max`, repeats after `ticks`.
    pub fn new(bytes_max: u64, ticks: u32) -> Transfer {
        Transfer { bytes_max, ticks, incoming: None, outgoing: BTreeMap::new(), idle_ticks: 0 }
    }

    /// A part has come; the whole as a message if it was the last one. Memory grows by what has come, never by what is
    /// announced.
    pub fn take(&mut self, envelope: &Envelope, part: Part) -> Result<Option<Message>, Refused> {
        let refused = Err(Refused::Snapshot(envelope.from.saturating_sub(1)));
        if part.total > self.bytes_max {
            self.incoming = None;
            return refused;
        }
        if part.offset == 0 {
            // A snapshot already under way from a later term is worth more.
            if self.incoming.as_ref().is_some_and(|incoming| incoming.term > part.term) {
                return Ok(None);
            }
            let at = SnapshotAt { data: Bytes::new(), ..part.snapshot.clone() };
            let (from, term, total) = (envelope.from, part.term, part.total);
            self.incoming = Some(Incoming { from, term, at, total, data: Vec::new() });
        }
        let Some(incoming) = &mut self.incoming else { return Ok(None) };
        let same = incoming.from == envelope.from
            && (incoming.term, incoming.at.index, incoming.total)
                == (part.term, part.snapshot.index, part.total);
        if !same || incoming.data.len() as u64 != part.offset {
            return Ok(None);
        }
        incoming.data.extend_from_slice(&part.snapshot.data);
        if (incoming.data.len() as u64) < incoming.total {
            return Ok(None);
        }
        let Some(incoming) = self.incoming.take() else { return Ok(None) };
        let at = SnapshotAt { data: Bytes::from(incoming.data), ..incoming.at };
        Ok(Some(snapshot_message(envelope, incoming.term, at)))
    }

    /// A snapshot is on its way to this peer.
    pub fn sent(&mut self, to: u64) {
        self.outgoing.insert(to, 0);
    }

    /// A snapshot lies ready and may be asked for.
    pub fn offered(&mut self) {
        self.idle_ticks = 0;
    }

    /// A tick has passed: peers whose snapshot counts as lost now.
    pub fn overdue(&mut self, raw: &RawNode<Store>) -> Vec<u64> {
        let leads = raw.raft.state == StateRole::Leader;
        let waits = |id: u64| {
            leads && raw.raft.prs().get(id).is_some_and(|peer| peer.state == ProgressState::Snapshot)
        };
        self.outgoing.retain(|id, _| waits(*id));
        self.idle_ticks = if self.outgoing.is_empty() { self.idle_ticks.saturating_add(1) } else { 0 };
        let mut overdue = Vec::new();
        for (id, ticks) in &mut self.outgoing {
            *ticks += 1;
            if *ticks >= self.ticks {
                *ticks = 0;
                overdue.push(*id);
            }
        }
        overdue
    }

    /// Nobody has wanted a snapshot for long; its memory can go.
    pub fn idle(&self) -> bool {
        self.idle_ticks > self.ticks
    }
}
