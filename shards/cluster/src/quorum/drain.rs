//! From what the crate `raft` has ready to the effects of the quorum: what is written, what may be sent before and after
//! it is, what is committed.

use bytes::Bytes;
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

use crate::quorum::entry;
use crate::quorum::journal::{self, SnapshotAt};
use crate::quorum::message::{self, Envelope};
use crate::quorum::{Quorum, QuorumEffect, Role, node_of, raft_id};

impl Quorum {
    pub(super) fn drain(&mut self, out: &mut Vec<QuorumEffect>) {
        while self.raw.has_ready() {
            self.drain_one(out);
        }
        if self.raw.store().take_wanted() {
            out.push(QuorumEffect::SnapshotWanted);
        }
        let role = match self.raw.raft.state {
            StateRole::Leader => Role::Leader { term: self.raw.raft.term },
            _ => {
                let leader = self.raw.raft.leader_id;
                Role::Follower { leader: (leader != 0).then(|| node_of(leader)) }
            }
        };
        if role != self.role {
            self.role = role;
            if let Role::Leader { term } = role {
                self.elected_quiet_ms = self.quiet.elected_ms(term);
            }
            out.push(QuorumEffect::Role(role));
        }
        self.forget_old();
    }

    fn drain_one(&mut self, out: &mut Vec<QuorumEffect>) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        self.last_number = number;
        let mut new_term = false;
        if let Some(hard) = ready.hs() {
            let store = self.raw.mut_store();
            new_term = (hard.term, hard.vote) != (store.hard.term, store.hard.vote);
            store.hard = hard.clone();
        }
        let entries = ready.take_entries();
        let snapshot = ready.snapshot().clone();
        let records = self.records_of(ready.must_sync(), &entries, &snapshot);
        if !snapshot.is_empty() {
            let index = snapshot.get_metadata().index;
            self.raw.mut_store().install(&snapshot);
            self.installing = Some((number, index));
            self.applied = index;
            out.push(QuorumEffect::Install { index, data: snapshot.data.clone() });
        }
        self.raw.mut_store().append(&entries);
        if !records.is_empty() {
            self.unpersisted.push_back((number, new_term));
            out.push(QuorumEffect::Persist { number, records });
        }
        let messages = [ready.take_messages(), ready.take_persisted_messages()];
        self.send(messages, out);
        for state in ready.take_read_states() {
            if let Ok(round) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) {
                out.push(QuorumEffect::Confirmed { round: u64::from_le_bytes(round) });
            }
        }
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        if self.unpersisted.is_empty() {
            self.around(|raw| raw.on_persist_ready(number));
        }
        self.apply(committed, out);
    }

    /// Term and vote come first: entries or a snapshot of a term that is not on the disk would be a log nobody can have.
    /// A commit index alone is not worth a write; after a restart the leader tells it.
    fn records_of(&self, sync: bool, entries: &[Entry], snapshot: &Snapshot) -> Vec<Bytes> {
        let mut records = Vec::new();
        if !sync {
            return records;
        }
        let hard = &self.raw.store().hard;
        if snapshot.is_empty() {
            journal::state_records(hard, entries, &mut records);
            return records;
        }
        journal::state_records(hard, &[], &mut records);
        let metadata = snapshot.get_metadata();
        let at = SnapshotAt {
            index: metadata.index,
            term: metadata.term,
            members: metadata.get_conf_state().clone(),
            data: snapshot.data.clone(),
        };
        journal::snapshot_records(&at, &mut records);
        if !entries.is_empty() {
            journal::state_records(hard, entries, &mut records);
        }
        records
    }

    /// Sends what may leave now and holds the rest: a follower's messages until everything before them is on stable
    /// storage, a leader's until its term is. (The only voter leads at once; were its term lost in a crash, it would lead
    /// in the same term again, with other entries than observers have.)
    fn send(&mut self, [now, persisted]: [Vec<Message>; 2], out: &mut Vec<QuorumEffect>) {
        let wait_for_term = self.unpersisted.iter().rfind(|(_, new_term)| *new_term).map(|(at, _)| *at);
        let wait_for_all = self.unpersisted.back().map(|(at, _)| *at);
        for (messages, wait) in [(now, wait_for_term), (persisted, wait_for_all)] {
            let mut frames = Vec::new();
            for mut message in messages {
                self.quiet.mark(&mut message);
                if message.get_msg_type() == MessageType::MsgSnapshot {
                    self.transfer.sent(message.to);
                }
                let envelope = Envelope {
                    cluster: self.config.cluster,
                    directory: self.config.directory,
                    from: raft_id(self.config.node),
                    to: message.to,
                };
                let to = node_of(message.to);
                let mut parts = Vec::new();
                message::encode(&envelope, &message, &mut parts);
                frames.extend(parts.into_iter().map(|frame| QuorumEffect::Send { to, frame }));
            }
            match wait {
                Some(_) if frames.is_empty() => {}
                Some(at) if !self.sabotage.send_before_persisted => self.held.push_back((at, frames)),
                _ => out.append(&mut frames),
            }
        }
    }

    fn apply(&mut self, committed: Vec<Entry>, out: &mut Vec<QuorumEffect>) {
        if committed.is_empty() {
            return;
        }
        for entry in committed {
            self.applied = entry.index;
            let payload = match entry.get_entry_type() {
                EntryType::EntryNormal => entry.data,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let change = entry::change_of(entry::member_changes(&entry));
                    // A change that cannot be, such as the last voter's removal, is one on no member.
                    if let Ok(members) = self.around(|raw| raw.apply_conf_change(&change)) {
                        self.raw.mut_store().members = members;
                        out.push(QuorumEffect::Members);
                    }
                    Bytes::new()
                }
            };
            out.push(QuorumEffect::Apply { index: entry.index, term: entry.term, payload });
        }
        let applied = self.applied;
        self.around(|raw| raw.advance_apply_to(applied));
    }

    /// Bounds the memory of the log. Peers that need what is forgotten get a snapshot.
    fn forget_old(&mut self) {
        let store = self.raw.store();
        if store.entry_bytes() <= self.config.log_bytes {
            return;
        }
        let mut excess = store.entry_bytes() - self.config.log_bytes / 2;
        let mut upto = store.base_index();
        for entry in store.entries_after(upto) {
            if excess == 0 || entry.index > self.applied || self.installing.is_some() {
                break;
            }
            excess = excess.saturating_sub(entry.data.len() + std::mem::size_of::<Entry>());
            upto = entry.index;
        }
        self.raw.mut_store().forget(upto);
    }
}
