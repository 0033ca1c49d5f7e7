//! Connections between the shards of different nodes, as state machines: who dials, both sides' hello and its proof, messages
//! cut from bytes, silence, and what may wait to be sent. One connection for each pair of shards, dialed by the lower
//! (node, shard). Bytes, time, random numbers and the ends of connections come with the events; what to do goes out as effects.
//!
//! What this carries may be lost with its connection, or because too much waits; it is never damaged or shortened, and what one
//! connection delivers is in order. The proof shows that the other side knew the cluster's secret when the connection began;
//! who can change packets on their way can take over a connection afterwards, until there is TLS.

mod backoff;
mod cutter;
pub mod hello;
mod known;
mod link;
mod log_gate;
pub mod proof;
pub mod refusal;
mod table;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use pelton_model::{ConnectionId, Replica, ShardId};
use uuid::Uuid;

pub use cutter::{Cutter, Kind, Want, message};
pub use hello::Identity;
pub use known::{PEER_ENDPOINT, known_peers};
pub use proof::{NONCE_BYTES, Nonce, Secret};
pub use refusal::Refusal;
pub use table::{Counts, Peers};

/// A shard of another node, and where it listens for peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Which.
    pub place: Replica,
    /// Name or address of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its data directory, if the metadata name it; another one is refused.
    pub directory: Option<Uuid>,
    /// Dial it although it is the lower of the two: it may not know yet where this node is.
    pub eager: bool,
}

impl Peer {
    /// The peer at `place` of a node whose shard 0 listens on `port`: shard i listens on `port` + i. None if there is no such
    /// port.
    pub fn of(place: Replica, host: &str, port: u16, directory: Option<Uuid>) -> Option<Peer> {
        let port = port.checked_add(place.shard.0)?;
        Some(Peer { place, host: host.to_string(), port, directory, eager: false })
    }
}

/// Bounds of what peers may cost, and how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest message, bytes; nothing is reserved for a longer one.
    pub message_bytes_max: usize,
    /// Bytes that may wait for one peer to take them; replica frames beyond are dropped. Frames of members have
    /// [`MEMBER_BYTES`] more.
    pub queue_bytes_max: usize,
    /// Longest time for dialing, nanoseconds.
    pub dial_ns: u64,
    /// Longest time from the connection to its proof, nanoseconds.
    pub hello_ns: u64,
    /// Something is said at least this often, nanoseconds.
    pub keep_alive_ns: u64,
    /// A peer that says nothing for so long is gone, nanoseconds; several times `keep_alive_ns`.
    pub silence_ns: u64,
    /// Accepted connections that have not shown the secret yet; the oldest goes for the next.
    pub strangers_max: usize,
    /// Connections in all.
    pub links_max: usize,
}

/// See [`Limits::queue_bytes_max`].
pub const MEMBER_BYTES: usize = 8 << 20;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: (32 << 20) + 64,
            queue_bytes_max: 64 << 20,
            dial_ns: 2_000_000_000,
            hello_ns: 2_000_000_000,
            keep_alive_ns: 400_000_000,
            silence_ns: 2_000_000_000,
            strangers_max: 64,
            links_max: 8192,
        }
    }
}

/// What happens to connections.
#[derive(Debug)]
pub enum Event {
    /// A connection came in. `nonce` is drawn for it from a source nobody can predict.
    Accepted { connection: ConnectionId, address: String, nonce: Nonce },
    /// A dialed connection is there.
    Dialed { attempt: u64, connection: ConnectionId, nonce: Nonce },
    /// There is none, and the system's word for why.
    NotDialed { attempt: u64, reason: String },
    /// What the last `Receive` asked for.
    Received { connection: ConnectionId, bytes: Bytes },
    /// A part of what it asked for has come.
    Progress { connection: ConnectionId },
    /// So many bytes have left.
    Sent { connection: ConnectionId, bytes: usize },
    /// The connection is gone, by either side; nothing more comes of it.
    Closed { connection: ConnectionId },
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Effect {
    /// Connect; `Dialed` or `NotDialed` follows.
    Dial { attempt: u64, host: String, port: u16 },
    /// Give that up; `NotDialed` need not follow.
    Undial { attempt: u64 },
    /// Receive once.
    Receive { connection: ConnectionId, want: Want },
    /// Queue these bytes behind what is queued.
    Send { connection: ConnectionId, parts: Vec<Bytes> },
    /// Close when what is queued is sent; `Closed` follows.
    Close { connection: ConnectionId },
    /// Close at once, dropping what is queued; `Closed` follows.
    Kill { connection: ConnectionId },
    /// The peer is there, in the `start`-th life of its directory.
    Up { peer: Replica, start: u64 },
    /// A frame of it; a slice of what was received.
    Frame { from: Replica, kind: Kind, bytes: Bytes },
    /// It is not there any more: what was sent and not answered may be lost.
    Down { peer: Replica },
    /// Something an operator should know.
    Log { warn: bool, text: String },
}

/// The first shard of a node: where its `Member` is.
pub const MEMBER_SHARD: ShardId = ShardId(0);
