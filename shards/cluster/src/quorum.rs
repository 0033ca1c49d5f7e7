//! The metadata quorum: Raft on the crate `raft`, driven as a synchronous state machine. Ticks, frames of peers, proposals
//! and "this is on stable storage" go in, effects come out; it owns no clock, no disk, no socket and no randomness.
//! One voter is the same code as five.

mod drain;
pub mod entry;
pub mod guard;
pub mod journal;
pub mod message;
mod quiet;
mod store;
mod transfer;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_model::{NodeId, Prng};
use raft::eraftpb::{ConfChangeType, ConfState, EntryType};
use raft::{Config, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use crate::quorum::entry::ENTRY_BYTES_MAX;
use crate::quorum::guard::Refused;
use crate::quorum::journal::{Restored, SnapshotAt};
use crate::quorum::message::Content;
use crate::quorum::quiet::Quiet;
use crate::quorum::store::Store;
use crate::quorum::transfer::Transfer;

/// What a member needs to know of itself.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster, as a number of its id.
    pub cluster: u64,
    /// This node's data directory, as a number of its id.
    pub directory: u64,
    /// Heartbeat interval, ticks.
    pub heartbeat_ticks: usize,
    /// A follower that hears nothing for this to twice as many ticks stands for election; a leader that hears of no
    /// majority for so many steps down.
    pub election_ticks: usize,
    /// After so many ticks a snapshot that a peer has not confirmed is sent again.
    pub snapshot_ticks: u32,
    /// Largest snapshot taken from a peer, bytes.
    pub snapshot_bytes_max: u64,
    /// A tick lasts at least so long, milliseconds; 0 = that is not known, and no time is saved by it ([`Quorum::confirmed_before`]).
    pub tick_ms: u64,
    /// Entries held for peers that lag, bytes; beyond it, what is applied is forgotten and they get a snapshot.
    pub log_bytes: usize,
}

impl QuorumConfig {
    /// With everything else as by default.
    pub fn new(node: NodeId, cluster: u64, directory: u64) -> QuorumConfig {
        QuorumConfig {
            node,
            cluster,
            directory,
            heartbeat_ticks: 2,
            election_ticks: 10,
            snapshot_ticks: 200,
            snapshot_bytes_max: 1 << 30,
            tick_ms: 0,
            log_bytes: 16 << 20,
        }
    }
}

/// Faults on purpose: each must be caught by the simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuorumSabotage {
    /// Votes and acknowledgements leave before they are on stable storage.
    pub send_before_persisted: bool,
    /// A read is confirmed without asking anybody.
    pub confirm_alone: bool,
    /// A member that votes does not count what it heard of a leader.
    pub deaf: bool,
}

/// What this member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It leads, in this term; whether it has applied everything of earlier terms is for its owner to see.
    Leader {
        /// The term.
        term: u64,
    },
    /// It follows, or looks for a leader.
    Follower {
        /// Whom it follows.
        leader: Option<NodeId>,
    },
}

/// What follows from an event, to be done in order.
#[derive(Clone, PartialEq, Debug)]
pub enum QuorumEffect {
    /// Send; may be lost.
    Send {
        /// To this node.
        to: NodeId,
        /// This.
        frame: Bytes,
    },
    /// Write to stable storage in order; then call [`Quorum::persisted`].
    Persist {
        /// Names it; numbers rise.
        number: u64,
        /// Each at most twice [`journal::RECORD_BYTES`].
        records: Vec<Bytes>,
    },
    /// An entry is committed. Each index comes once, in order; the payload is empty where the quorum itself is concerned.
    Apply {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// What was proposed.
        payload: Bytes,
    },
    /// This takes the place of everything applied before.
    Install {
        /// Of the last entry in it.
        index: u64,
        /// As the owner of another node gave it to [`Quorum::offer_snapshot`].
        data: Bytes,
    },
    /// The role has changed.
    Role(Role),
    /// A majority has confirmed, after it was asked, that this member leads.
    Confirmed {
        /// As given to [`Quorum::confirm`].
        round: u64,
    },
    /// The members have changed, see [`Quorum::members`].
    Members,
    /// A peer needs a snapshot: call [`Quorum::offer_snapshot`].
    SnapshotWanted,
}

/// Why a proposal is refused; nothing of it will be committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or none.
    #[error("this node does not lead the metadata quorum")]
    NotLeader,
    /// Longer than [`ENTRY_BYTES_MAX`].
    #[error("the change is larger than an entry of the metadata log may be")]
    TooLarge,
    /// The quorum has too much to do, or is changing its leader or members.
    #[error("the metadata quorum is busy; try again")]
    Busy,
    /// A node that is to vote does not follow the log yet: it could neither vote nor take its part in a majority.
    #[error("the node does not follow the metadata log yet; make it a voter when it does")]
    Behind,
}

/// How members are to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// Takes part in decisions from now on.
    AddVoter(NodeId),
    /// Hears everything and decides nothing.
    AddObserver(NodeId),
    /// Is no member any more.
    Remove(NodeId),
}

/// A member as the leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    /// Who.
    pub node: NodeId,
    /// Takes part in decisions.
    pub voter: bool,
    /// Index up to which its log is known to be the leader's; 0 unless this member leads.
    pub matched: u64,
}

/// The number of a node inside the crate, which has no 0.
fn raft_id(node: NodeId) -> u64 {
    node.0 as u64 + 1
}

fn node_of(id: u64) -> NodeId {
    NodeId(id as i32 - 1)
}

/// One member.
pub struct Quorum {
    config: QuorumConfig,
    raw: RawNode<Store>,
    prng: Prng,
    timeout: usize,
    /// Persists that are out, in order; true if with a new term or vote.
    unpersisted: VecDeque<(u64, bool)>,
    /// Frames that may leave once the persist of this number is done.
    held: VecDeque<(u64, Vec<QuorumEffect>)>,
    /// A snapshot that counts as applied once the persist of this number is done.
    installing: Option<(u64, u64)>,
    last_number: u64,
    directories: BTreeMap<u64, u64>,
    transfer: Transfer,
    role: Role,
    quiet: Quiet,
    elected_quiet_ms: u64,
    applied: u64,
    /// Faults on purpose; none outside tests.
    pub sabotage: QuorumSabotage,
}

/// What a new cluster starts from: these nodes decide. Every one of them must start from the same list.
pub fn bootstrap(voters: &[NodeId]) -> Restored {
    let mut ids: Vec<u64> = voters.iter().map(|node| raft_id(*node)).collect();
    ids.sort_unstable();
    ids.dedup();
    let members = ConfState { voters: ids, ..ConfState::default() };
    let mut restored = Restored::default();
    restored.hard.term = 1;
    restored.hard.commit = 1;
    restored.snapshot = SnapshotAt { index: 1, term: 1, members, data: Bytes::new() };
    restored
}

impl Quorum {
    /// A member from what its disk holds: [`bootstrap`] on the voters of a new cluster, nothing on a node that joins one.
    /// Everything up to `restored.snapshot.index` counts as applied.
    pub fn new(config: QuorumConfig, restored: Restored, seed: u64) -> Result<Quorum, raft::Error> {
        let applied = restored.snapshot.index;
        let raft_config = Config {
            id: raft_id(config.node),
            heartbeat_tick: config.heartbeat_ticks,
            election_tick: config.election_ticks,
            applied,
            max_size_per_msg: message::APPEND_BYTES,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: 8 << 20,
            max_committed_size_per_ready: 4 << 20,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, Store::new(restored), &logger)?;
        let mut quorum = Quorum {
            prng: Prng::new(seed ^ raft_id(config.node).wrapping_mul(0x9E37_79B9)),
            timeout: config.election_ticks,
            transfer: Transfer::new(config.snapshot_bytes_max, config.snapshot_ticks),
            quiet: Quiet::new(config.tick_ms),
            elected_quiet_ms: 0,
            config,
            raw,
            unpersisted: VecDeque::new(),
            held: VecDeque::new(),
            installing: None,
            last_number: 0,
            directories: BTreeMap::new(),
            role: Role::Follower { leader: None },
            applied,
            sabotage: QuorumSabotage::default(),
        };
        quorum.draw_timeout();
        Ok(quorum)
    }

    /// The crate draws election timeouts from the thread's own randomness after each reset; ours takes its place before
    /// anything looks at it, or no run would repeat.
    fn draw_timeout(&mut self) {
        let ticks = self.config.election_ticks as u64;
        self.timeout = (ticks + self.prng.below(ticks)) as usize;
        self.raw.raft.set_randomized_election_timeout(self.timeout);
    }

    fn around<T>(&mut self, call: impl FnOnce(&mut RawNode<Store>) -> T) -> T {
        let before = (self.raw.raft.term, self.raw.raft.state);
        let value = call(&mut self.raw);
        if before == (self.raw.raft.term, self.raw.raft.state) {
            self.raw.raft.set_randomized_election_timeout(self.timeout);
        } else {
            self.draw_timeout();
        }
        value
    }

    /// One tick has passed. After a pause of the process one is enough: a pause is no evidence about others.
    pub fn tick(&mut self, out: &mut Vec<QuorumEffect>) {
        self.quiet.deaf = self.sabotage.deaf;
        self.quiet.tick(self.raw.raft.state);
        let log = &self.raw.raft.raft_log;
        // A node whose disk lags behind its log does not stand for election: the crate wants what it has persisted.
        let lags = log.persisted < log.last_index();
        if self.raw.raft.state == StateRole::Leader || !lags {
            let elapsed = self.raw.raft.election_elapsed;
            self.around(|raw| raw.tick());
            if self.raw.raft.election_elapsed <= elapsed && self.raw.raft.state != StateRole::Leader {
                self.draw_timeout();
            }
        }
        for id in self.transfer.overdue(&self.raw) {
            self.around(|raw| raw.report_snapshot(id, SnapshotStatus::Failure));
        }
        if self.transfer.idle() {
            self.raw.mut_store().withdraw();
        }
        self.drain(out);
    }

    /// A frame has come over a connection of `proven`. An error says what is wrong with the peer or with this node; the node
    /// goes on.
    pub fn receive(
        &mut self,
        proven: NodeId,
        frame: &[u8],
        out: &mut Vec<QuorumEffect>,
    ) -> Result<NodeId, Refused> {
        let (envelope, content) = message::decode(frame).map_err(|_| Refused::Malformed)?;
        let from = node_of(envelope.from);
        if envelope.cluster != self.config.cluster {
            return Err(Refused::OtherCluster);
        }
        if from != proven {
            return Err(Refused::OtherSender { says: from, is: proven });
        }
        if envelope.to != raft_id(self.config.node) || envelope.from == envelope.to {
            return Err(Refused::OtherNode);
        }
        if self.directories.get(&envelope.from).is_some_and(|known| *known != envelope.directory) {
            return Err(Refused::OtherDirectory(from.0 as u64));
        }
        let mut message = match content {
            Content::Message(message) => message,
            Content::Part(part) => match self.transfer.take(&envelope, part)? {
                Some(message) => message,
                None => return Ok(from),
            },
        };
        guard::check(&self.raw, &message)?;
        self.quiet.note(&mut message, self.raw.raft.term);
        // The crate's refusals say that a message is of no use; that is no fault.
        let _ = self.around(|raw| raw.step(message));
        self.drain(out);
        Ok(from)
    }

    /// To a member that has just been elected: no earlier leader can have been confirmed after this instant. At most `most_ns`
    /// are counted: those who live need time to ask for their leases.
    pub fn confirmed_before(&self, now_ns: u64, most_ns: u64) -> u64 {
        let most_ns = if self.sabotage.deaf { 2 * most_ns } else { most_ns };
        now_ns.saturating_sub((self.elected_quiet_ms * 1_000_000).min(most_ns))
    }

    /// From now on frames of this node must come from this data directory.
    pub fn expect_directory(&mut self, node: NodeId, directory: u64) {
        self.directories.insert(raft_id(node), directory);
    }

    /// Nothing reaches this node: what was under way to it counts as lost.
    pub fn unreachable(&mut self, node: NodeId) {
        self.around(|raw| raw.report_unreachable(raft_id(node)));
    }

    /// Proposes a change. Its term and index, where it will be committed if anything of this term and index is.
    pub fn propose(
        &mut self,
        payload: Vec<u8>,
        out: &mut Vec<QuorumEffect>,
    ) -> Result<(u64, u64), ProposeError> {
        if payload.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge);
        }
        self.propose_with(|raw| raw.propose(Vec::new(), payload), out)
    }

    /// Proposes other members; several changes at once go through a joint configuration. A new voter must follow the log
    /// already, as an observer (KIP-853).
    pub fn change_members(
        &mut self,
        changes: &[MemberChange],
        out: &mut Vec<QuorumEffect>,
    ) -> Result<(u64, u64), ProposeError> {
        let follows = |node: NodeId| {
            let matched = self.raw.raft.prs().get(raft_id(node)).map_or(0, |progress| progress.matched);
            matched > 0 && matched >= self.raw.store().base_index()
        };
        let behind =
            |change: &MemberChange| matches!(change, MemberChange::AddVoter(node) if !follows(*node));
        if self.raw.raft.state == StateRole::Leader && changes.iter().any(behind) {
            return Err(ProposeError::Behind);
        }
        let changes = changes.iter().map(|change| {
            let mut single = raft::eraftpb::ConfChangeSingle::default();
            let (kind, node) = match change {
                MemberChange::AddVoter(node) => (ConfChangeType::AddNode, node),
                MemberChange::AddObserver(node) => (ConfChangeType::AddLearnerNode, node),
                MemberChange::Remove(node) => (ConfChangeType::RemoveNode, node),
            };
            single.set_change_type(kind);
            single.node_id = raft_id(*node);
            single
        });
        let change = entry::change_of(changes.collect());
        if self.raw.raft.has_pending_conf() || !self.raw.store().members.voters_outgoing.is_empty() {
            return Err(ProposeError::Busy);
        }
        self.propose_with(|raw| raw.propose_conf_change(Vec::new(), change), out)
    }

    fn propose_with(
        &mut self,
        call: impl FnOnce(&mut RawNode<Store>) -> raft::Result<()>,
        out: &mut Vec<QuorumEffect>,
    ) -> Result<(u64, u64), ProposeError> {
        if self.raw.raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader);
        }
        self.around(call).map_err(|_| ProposeError::Busy)?;
        let place = (self.raw.raft.term, self.raw.raft.raft_log.last_index());
        self.drain(out);
        Ok(place)
    }

    /// Asks a majority whether this member still leads; [`QuorumEffect::Confirmed`] follows with this number or a later
    /// one, or nothing does. Asking in vain is free of harm.
    pub fn confirm(&mut self, round: u64, out: &mut Vec<QuorumEffect>) {
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        if self.sabotage.confirm_alone {
            out.push(QuorumEffect::Confirmed { round });
            return;
        }
        self.around(|raw| raw.read_index(round.to_le_bytes().to_vec()));
        self.drain(out);
    }

    /// Everything up to the persist of this number is on stable storage.
    pub fn persisted(&mut self, number: u64, out: &mut Vec<QuorumEffect>) {
        while self.unpersisted.front().is_some_and(|(at, _)| *at <= number) {
            self.unpersisted.pop_front();
        }
        // Readies that wrote nothing are as stable as what was written before them.
        let stable = self.unpersisted.front().map_or(self.last_number, |(at, _)| at - 1);
        self.around(|raw| raw.on_persist_ready(stable));
        if let Some((at, index)) = self.installing
            && at <= number
        {
            self.installing = None;
            self.around(|raw| raw.advance_apply_to(index));
        }
        while self.held.front().is_some_and(|(at, _)| *at <= number) {
            out.extend(self.held.pop_front().into_iter().flat_map(|(_, frames)| frames));
        }
        self.drain(out);
    }

    /// The image after the last entry applied, for peers that lag too far.
    pub fn offer_snapshot(&mut self, data: Bytes) {
        let applied = self.applied;
        self.transfer.offered();
        self.raw.mut_store().offer(applied, data);
    }

    /// Lets another member lead, if it can. One at a time, for as long as an election may take: who was told to stand does, and
    /// two that stand in one term may both fail.
    pub fn transfer_leadership(&mut self, to: NodeId, out: &mut Vec<QuorumEffect>) {
        if self.raw.raft.lead_transferee.is_none() {
            self.around(|raw| raw.transfer_leader(raft_id(to)));
        }
        self.drain(out);
    }

    /// The others have committed what this member's own disk does not have yet. What is not there it does not apply, so one that
    /// leads decides nothing meanwhile.
    pub fn is_behind_on_disk(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.persisted < log.committed
    }

    /// Stands for election at once; for the only voter, and for tests.
    pub fn campaign(&mut self, out: &mut Vec<QuorumEffect>) {
        let log = &self.raw.raft.raft_log;
        if log.persisted == log.last_index() {
            let _ = self.around(|raw| raw.campaign());
        }
        self.drain(out);
    }

    /// Everything this member has, for a checkpoint that replaces all records before it; `image` is what the entries
    /// applied so far have led to.
    pub fn checkpoint(&self, image: Bytes) -> Vec<u8> {
        let store = self.raw.store();
        let Some(term) = store.term_of(self.applied) else { return Vec::new() };
        let at = SnapshotAt { index: self.applied, term, members: store.members.clone(), data: image };
        let mut records = Vec::new();
        // One that joins and has heard nothing yet has no members, and so nothing that others would take for a snapshot.
        if !at.members.voters.is_empty() {
            journal::snapshot_records(&at, &mut records);
        }
        journal::state_records(&store.hard, store.entries_after(self.applied), &mut records);
        journal::blob(&records)
    }

    /// What this member is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Index of the last entry known to be committed.
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Index of the last entry of this member's log, committed or not.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// The members as of the last entry applied.
    pub fn members(&self) -> Vec<MemberStatus> {
        let state = &self.raw.store().members;
        let voters = state.voters.iter().chain(&state.voters_outgoing);
        let mut found: BTreeMap<u64, bool> =
            state.learners.iter().chain(&state.learners_next).map(|id| (*id, false)).collect();
        found.extend(voters.map(|id| (*id, true)));
        let matched = |id| self.raw.raft.prs().get(id).map_or(0, |progress| progress.matched);
        let leads = self.raw.raft.state == StateRole::Leader;
        found
            .into_iter()
            .map(|(id, voter)| MemberStatus {
                node: node_of(id),
                voter,
                matched: if leads { matched(id) } else { 0 },
            })
            .collect()
    }

    /// The entries held, by index: index, term and payload. For checks.
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64, &Bytes)> {
        let store = self.raw.store();
        store.entries_after(store.base_index()).iter().map(|entry| (entry.index, entry.term, &entry.data))
    }

    /// The payload of an entry, if it is held; none of a change of members.
    pub fn entry(&self, index: u64) -> Option<&Bytes> {
        let after = self.raw.store().entries_after(index.checked_sub(1)?);
        let is = |entry: &&raft::eraftpb::Entry| {
            entry.index == index && entry.get_entry_type() == EntryType::EntryNormal
        };
        after.first().filter(is).map(|entry| &entry.data)
    }

    /// Memory of the entries held, bytes.
    pub fn log_bytes(&self) -> usize {
        self.raw.store().entry_bytes()
    }
}

#[cfg(test)]
mod tests;
