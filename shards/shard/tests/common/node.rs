//! One real shard on a disk in memory that completes at once, with connections as byte queues and a clock that only moves
//! when told. For tests of the shard and for the fuzzer; what crashes and disks can do is the simulator's.
// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pelton_model::{BrokerConfig, ConnectionId, Now, Prng, ShardId};
use pelton_shard::disk::{DiskDone, DiskEffect, SegmentFile};
use pelton_shard::{DiskImage, Effect, Event, ReceiveMode, SendPart, Shard, StartError};

/// Turns after which a shard that still has something to do is held to be spinning.
const TURNS_MAX: usize = 100_000;

/// One side of a connection.
#[derive(Default)]
pub struct Connection {
    /// Sent by the client, not received yet.
    pub inbound: BytesMut,
    /// Sent by the shard.
    pub outbound: BytesMut,
    /// Why the shard closed it.
    pub closed: Option<String>,
    receive: Option<ReceiveMode>,
}

/// The node.
pub struct Node {
    shard: Shard,
    now: Now,
    files: BTreeMap<SegmentFile, Vec<u8>>,
    events: VecDeque<Event>,
    connections: BTreeMap<u64, Connection>,
    /// Cuts what clients send into pieces; none: as much as is asked for.
    pub pieces: Option<Prng>,
    /// The most answers sent in one turn.
    pub most_sends: usize,
    /// What the shard told its operator.
    pub log: Vec<String>,
}

impl Node {
    /// A shard on an empty disk, ready to serve.
    pub fn new(config: BrokerConfig) -> Result<Node, StartError> {
        let now = Now { monotonic_ns: 1, wall_ms: 1_700_000_000_000 };
        let (mut out, image) = (Vec::new(), DiskImage::default());
        let shard = Shard::new(Arc::new(config), ShardId(0), image, 7, now, &mut out)?;
        let mut node = Node {
            shard,
            now,
            files: BTreeMap::new(),
            events: VecDeque::new(),
            connections: BTreeMap::new(),
            pieces: None,
            most_sends: 0,
            log: Vec::new(),
        };
        node.turn(out);
        node.settle();
        Ok(node)
    }

    /// Connects a client.
    pub fn connect(&mut self, id: u64) {
        self.connections.insert(id, Connection::default());
        self.events.push_back(Event::Accepted { connection: ConnectionId(id), peer: format!("test-{id}") });
        self.settle();
    }

    /// The client sends bytes; the shard does all it can do about them without time passing.
    pub fn send(&mut self, id: u64, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.inbound.extend_from_slice(bytes);
        }
        self.settle();
    }

    /// The client goes away.
    pub fn disconnect(&mut self, id: u64) {
        if self.connections.remove(&id).is_some_and(|connection| connection.closed.is_none()) {
            self.events.push_back(Event::Closed { connection: ConnectionId(id) });
        }
        self.settle();
    }

    /// What the shard has sent to the client so far, taken; and why it closed, if it did.
    pub fn answers(&mut self, id: u64) -> (Bytes, Option<String>) {
        let Some(connection) = self.connections.get_mut(&id) else { return (Bytes::new(), None) };
        (connection.outbound.split().freeze(), connection.closed.clone())
    }

    /// Lets time pass, deadline by deadline.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now.monotonic_ns + ms * 1_000_000;
        for _ in 0..TURNS_MAX {
            let Some(deadline) = self.shard.deadline().filter(|deadline| *deadline <= until) else {
                self.pass_to(until);
                return;
            };
            self.pass_to(deadline.max(self.now.monotonic_ns));
            self.events.push_back(Event::Tick);
            self.settle();
            assert!(
                self.shard.deadline().is_none_or(|next| next > deadline),
                "a tick must move its deadline"
            );
        }
        panic!("no end of ticks");
    }

    fn pass_to(&mut self, monotonic_ns: u64) {
        let passed_ms = (monotonic_ns - self.now.monotonic_ns) / 1_000_000;
        self.now = Now { monotonic_ns, wall_ms: self.now.wall_ms + passed_ms as i64 };
    }

    /// Until nothing happens any more without time passing.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.deliver();
            let Some(event) = self.events.pop_front() else { return };
            let mut out = Vec::new();
            self.shard.handle(self.now, event, &mut out);
            self.turn(out);
        }
        panic!("the shard does not come to rest");
    }

    fn turn(&mut self, mut out: Vec<Effect>) {
        self.shard.end_turn(self.now, &mut out);
        let sends = out.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count();
        self.most_sends = self.most_sends.max(sends);
        for effect in out {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Receive { connection, mode } => {
                if let Some(state) = self.connections.get_mut(&connection.0) {
                    assert!(state.receive.is_none(), "one receive at a time");
                    state.receive = Some(mode);
                }
            }
            Effect::Send { connection, parts } => self.perform_send(connection, &parts),
            Effect::Close { connection, reason } => {
                if let Some(state) = self.connections.get_mut(&connection.0) {
                    state.closed = Some(reason);
                }
                self.events.push_back(Event::Closed { connection });
            }
            Effect::Disk(effect) => {
                let (ticket, bytes) = (effect.ticket(), self.perform_disk(effect));
                self.events.push_back(Event::Disk(DiskDone { ticket, result: Ok(bytes) }));
            }
            Effect::ToShard { message, .. } => {
                self.events.push_back(Event::FromShard { from: ShardId(0), message })
            }
            Effect::Log { text, .. } => self.log.push(text),
            Effect::Fatal { text } => panic!("fatal: {text}"),
            Effect::Ready | Effect::Stopped => {}
            Effect::ToPeer { .. } | Effect::ToMember { .. } => panic!("a single node speaks to others"),
        }
    }

    fn perform_send(&mut self, connection: ConnectionId, parts: &[SendPart]) {
        let Some(state) = self.connections.get_mut(&connection.0) else { return };
        assert!(state.closed.is_none(), "a send after the close");
        for part in parts {
            match part {
                SendPart::Bytes(bytes) => state.outbound.extend_from_slice(bytes),
                SendPart::File { file, position, length, .. } => {
                    let bytes = &self.files[file];
                    state.outbound.extend_from_slice(&bytes[*position as usize..*position as usize + length]);
                }
            }
        }
        let bytes = parts.iter().map(SendPart::length).sum();
        self.events.push_back(Event::Sent { connection, bytes });
    }

    fn perform_disk(&mut self, effect: DiskEffect) -> Bytes {
        match effect {
            DiskEffect::SegmentWrite { file, position, bytes, .. } => {
                let (from, content) = (position as usize, self.files.entry(file).or_default());
                content.resize(content.len().max(from + bytes.len()), 0);
                content[from..from + bytes.len()].copy_from_slice(&bytes);
            }
            DiskEffect::SegmentLay { file, position, parts, .. } => {
                let content = self.files.entry(file).or_default();
                content.truncate(position as usize);
                parts.iter().for_each(|part| content.extend_from_slice(part));
            }
            DiskEffect::SegmentRead { file, position, length, .. } => {
                let content = self.files.get(&file).map_or(&[][..], Vec::as_slice);
                let from = (position as usize).min(content.len());
                return Bytes::copy_from_slice(&content[from..(from + length).min(content.len())]);
            }
            DiskEffect::SegmentTruncate { file, length, .. } => {
                if let Some(content) = self.files.get_mut(&file) {
                    content.truncate(length as usize);
                }
            }
            DiskEffect::FileDelete { file, .. } => {
                self.files.remove(&file);
            }
            DiskEffect::SegmentsAppend { pieces, .. } => {
                for piece in pieces {
                    let content = self.files.entry(piece.file).or_default();
                    content.truncate(piece.position as usize);
                    piece.parts.iter().for_each(|part| content.extend_from_slice(part));
                }
            }
            // Nothing starts again from this journal.
            DiskEffect::JournalWrite { .. }
            | DiskEffect::JournalSync { .. }
            | DiskEffect::SegmentSync { .. }
            | DiskEffect::CheckpointWrite { .. } => {}
        }
        Bytes::new()
    }

    /// Hands every connection what its shard asked for, if it is there.
    fn deliver(&mut self) {
        for (id, state) in &mut self.connections {
            if state.inbound.is_empty() || state.closed.is_some() {
                continue;
            }
            let bytes = match state.receive.take() {
                None => continue,
                Some(ReceiveMode::Any) => {
                    let most = state.inbound.len().min(64 * 1024);
                    let piece = |prng: &mut Prng| match prng.below(3) {
                        0 => most,
                        1 => 1 + prng.below(most as u64) as usize,
                        _ => 1 + prng.below(most.min(40) as u64) as usize,
                    };
                    let count = self.pieces.as_mut().map_or(most, piece);
                    state.inbound.split_to(count).freeze()
                }
                Some(ReceiveMode::Frame { prefix, length }) => {
                    let missing = length - prefix.len();
                    if state.inbound.len() < missing {
                        state.receive = Some(ReceiveMode::Frame { prefix, length });
                        continue;
                    }
                    let mut frame = BytesMut::from(&prefix[..]);
                    frame.extend_from_slice(&state.inbound.split_to(missing));
                    frame.freeze()
                }
            };
            self.events.push_back(Event::Received { connection: ConnectionId(*id), bytes });
        }
    }
}
