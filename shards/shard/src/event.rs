//! What can happen to a shard: the input of [`crate::Shard::handle`].

use bytes::Bytes;
use pelton_log::disk::DiskDone;
use pelton_model::{ConnectionId, NodeId, Replica, ShardId};

use crate::message::ShardMessage;

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected. The shard answers with a `Receive` or a `Close`.
    Accepted { connection: ConnectionId, peer: String },
    /// What the last `Receive` of this connection asked for has arrived; `bytes` is never empty.
    Received { connection: ConnectionId, bytes: Bytes },
    /// `bytes` of this connection's queued sends have left the process.
    Sent { connection: ConnectionId, bytes: usize },
    /// The connection is gone, by either side; nothing more comes from it, and its queued sends are dropped.
    Closed { connection: ConnectionId },
    /// A disk operation finished.
    Disk(DiskDone),
    /// A message of another shard of this process.
    FromShard { from: ShardId, message: ShardMessage },
    /// A frame of a replica on a shard of another node, for a replica here: what that shard's `ToPeer` had, in one piece.
    PeerFrame { from: Replica, bytes: Bytes },
    /// The connection to a shard of another node is gone, with all that was on its way in both directions.
    PeerGone { peer: Replica },
    /// To shard 0: a frame of another node's member of the quorum, over a connection whose other end has proven to be `from`.
    MemberFrame { from: NodeId, bytes: Bytes },
    /// The volume of the data directory: its size, and what of it is left. Comes now and then, or never.
    Volume { total_bytes: i64, usable_bytes: i64 },
    /// The deadline the shard named has passed.
    Tick,
    /// Stop cleanly: answer what is in flight, lay down and checkpoint everything, then say `Stopped`.
    Stop,
}
