//! What a shard wants done: the output of [`crate::Shard::handle`], performed by the reactor or the simulator, in order.

use std::ops::Deref;

use bytes::Bytes;
use pelton_log::disk::{DiskEffect, SegmentFile};
use pelton_model::{ConnectionId, NodeId, Replica, ShardId};

use crate::message::ShardMessage;

/// How to receive next.
#[derive(Clone, Debug)]
pub enum ReceiveMode {
    /// Whatever comes, up to a pooled buffer of 64 KiB.
    Any,
    /// Exactly `length` bytes in one buffer of which `prefix` has already arrived (it is put in front):
    /// the rest of a frame whose length is known. Delivered only when complete.
    Frame { prefix: Bytes, length: usize },
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub enum SendPart {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a segment, immutable once named here, moved from disk to socket. So is the file up to `laid_to`, which may
    /// be read ahead.
    File { file: SegmentFile, position: u64, length: usize, laid_to: u64 },
}

impl SendPart {
    /// Length in bytes.
    pub fn length(&self) -> usize {
        match self {
            SendPart::Bytes(bytes) => bytes.len(),
            SendPart::File { length, .. } => *length,
        }
    }
}

/// The pieces of an answer, in order. Most answers are one piece, which takes no allocation.
#[derive(Clone, Debug)]
pub enum SendParts {
    /// One.
    One(SendPart),
    /// Any number.
    Many(Vec<SendPart>),
}

impl From<Vec<SendPart>> for SendParts {
    fn from(parts: Vec<SendPart>) -> SendParts {
        SendParts::Many(parts)
    }
}

impl Deref for SendParts {
    type Target = [SendPart];

    fn deref(&self) -> &[SendPart] {
        match self {
            SendParts::One(part) => std::slice::from_ref(part),
            SendParts::Many(parts) => parts,
        }
    }
}

impl IntoIterator for SendParts {
    type Item = SendPart;
    type IntoIter = std::iter::Chain<std::option::IntoIter<SendPart>, std::vec::IntoIter<SendPart>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            SendParts::One(part) => (Some(part), Vec::new()),
            SendParts::Many(parts) => (None, parts),
        };
        one.into_iter().chain(many)
    }
}

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Receive once on this connection; at most one is outstanding per connection.
    Receive { connection: ConnectionId, mode: ReceiveMode },
    /// Queue these parts behind what is already queued for the connection. Every byte is reported by `Sent`
    /// (partial reports allowed) unless the connection closes.
    Send { connection: ConnectionId, parts: SendParts },
    /// Close once everything queued is sent; `reason` is for the log. `Closed` follows.
    Close { connection: ConnectionId, reason: String },
    /// A disk operation; `Event::Disk` follows with its ticket.
    Disk(DiskEffect),
    /// Hand a message to another shard of this process; never dropped, order kept per pair.
    ToShard { to: ShardId, message: ShardMessage },
    /// Send a frame to a replica on a shard of another node: these parts, one behind the other. It may be lost, and never
    /// waits for anything; `PeerGone` says when frames were lost with a connection.
    ToPeer { to: Replica, parts: Vec<Bytes> },
    /// From shard 0: send a frame to another node's member of the quorum. It may be lost.
    ToMember { node: NodeId, bytes: Bytes },
    /// The shard has recovered and knows its partitions: open the listener.
    Ready,
    /// Something an operator should know.
    Log { level: LogLevel, text: String },
    /// Everything is on disk; nothing follows.
    Stopped,
    /// The shard cannot go on safely (its own state is in doubt); the process must end with this text.
    Fatal { text: String },
}

/// Weight of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Normal.
    Info,
    /// Needs a look.
    Warn,
    /// Something failed.
    Error,
}
