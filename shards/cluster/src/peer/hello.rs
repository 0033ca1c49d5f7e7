//! The first message of each side: who it is, of which cluster, on which data directory, in which of its lives. Its first part
//! never changes, so that nodes of versions that share nothing can still say so.

use bytes::Bytes;
use pelton_model::limits::{NODE_ID_MAX, SHARDS_MAX};
use pelton_model::{ListenerMode, NodeId, Replica, ShardId};
use uuid::Uuid;

use super::proof::{NONCE_BYTES, Nonce};
use crate::codec::{In, Malformed, Out};

/// Versions of the protocol between nodes that this program speaks, oldest and newest.
pub const VERSIONS: (u16, u16) = (1, 1);
/// Longest message before the proof, bytes.
pub const HELLO_BYTES_MAX: usize = 1024;
/// Longest cluster id, bytes. Ours have 22.
pub const CLUSTER_ID_BYTES_MAX: usize = 64;

const MAGIC: u32 = 0x314f_4850;

/// Who this process is to its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Which shard of which node.
    pub place: Replica,
    /// The cluster.
    pub cluster_id: String,
    /// The data directory.
    pub directory: Uuid,
    /// How often a process has started on that directory; raised and on stable storage before anything is said.
    pub start: u64,
    /// How clients reach its shards. The same for all nodes: from it follow the broker ids that each tells of the others.
    pub mode: ListenerMode,
}

/// What a hello says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Versions its sender speaks, oldest and newest.
    pub versions: (u16, u16),
    /// Who it is; `place` and `versions` alone are true if no version is spoken by both.
    pub identity: Identity,
    /// Whom it means to talk to.
    pub to: Replica,
    /// A number never used before.
    pub nonce: Nonce,
}

impl Hello {
    /// What `identity` says to `to`.
    pub fn new(identity: &Identity, to: Replica, nonce: Nonce) -> Hello {
        Hello { versions: VERSIONS, identity: identity.clone(), to, nonce }
    }

    /// Whether both speak some version.
    pub fn shares_a_version(&self, other: &Hello) -> bool {
        self.versions.0 <= other.versions.1 && other.versions.0 <= self.versions.1
    }

    /// The body of the message.
    pub fn encode(&self) -> Bytes {
        let mut out = Out::default();
        out.u32(MAGIC);
        out.u16(self.versions.0);
        out.u16(self.versions.1);
        write_place(&mut out, self.identity.place);
        write_place(&mut out, self.to);
        out.string(&self.identity.cluster_id);
        out.uuid(self.identity.directory);
        out.u64(self.identity.start);
        out.0.extend_from_slice(&self.nonce);
        out.u8(u8::from(self.identity.mode == ListenerMode::Single));
        Bytes::from(out.0)
    }

    /// Reads one. Later versions may say more behind it.
    pub fn decode(body: &[u8]) -> Result<Hello, Malformed> {
        let mut from = In(body);
        if from.u32()? != MAGIC {
            return Err(Malformed);
        }
        let versions = (from.u16()?, from.u16()?);
        let (place, to) = (read_place(&mut from)?, read_place(&mut from)?);
        if versions.0 > versions.1 {
            return Err(Malformed);
        }
        let mut hello = Hello {
            versions,
            identity: Identity {
                place,
                cluster_id: String::new(),
                directory: Uuid::nil(),
                start: 0,
                mode: ListenerMode::Direct,
            },
            to,
            nonce: [0; NONCE_BYTES],
        };
        if versions.0 > VERSIONS.1 || versions.1 < VERSIONS.0 {
            return Ok(hello);
        }
        hello.identity.cluster_id = from.string()?;
        // It goes into log lines.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if hello.identity.cluster_id.len() > CLUSTER_ID_BYTES_MAX
            || !hello.identity.cluster_id.chars().all(plain)
        {
            return Err(Malformed);
        }
        hello.identity.directory = from.uuid()?;
        hello.identity.start = from.u64()?;
        hello.nonce = from.take()?;
        if from.bool()? {
            hello.identity.mode = ListenerMode::Single;
        }
        Ok(hello)
    }
}

fn write_place(out: &mut Out, place: Replica) {
    out.i32(place.node.0);
    out.u16(place.shard.0);
}

fn read_place(from: &mut In<'_>) -> Result<Replica, Malformed> {
    let (node, shard) = (NodeId(from.i32()?), ShardId(from.u16()?));
    if !(0..=NODE_ID_MAX).contains(&node.0) || usize::from(shard.0) >= SHARDS_MAX {
        return Err(Malformed);
    }
    Ok(Replica { node, shard })
}
