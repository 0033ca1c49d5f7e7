//! A node's registration as bytes.

use pelton_model::limits::{NODE_ID_MAX, SHARDS_MAX};
use pelton_model::{NodeEpoch, NodeId, ShardEpoch};
use uuid::Uuid;

use crate::codec::{In, Malformed, Out};

/// Where a node can be reached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// Which listener.
    pub name: String,
    /// Host.
    pub host: String,
    /// Port of the first shard.
    pub port: u16,
}

/// A shard of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ShardRegistration {
    /// Its life.
    pub epoch: ShardEpoch,
    /// The device its data is on; shards with the same number share one.
    pub device: u32,
    /// Whether it works.
    pub online: bool,
}

/// A life of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRegistration {
    /// Who.
    pub node: NodeId,
    /// Index of this record; 0 in the record itself, which cannot know it.
    pub epoch: NodeEpoch,
    /// Its data directory.
    pub directory: Uuid,
    /// Its process.
    pub incarnation: Uuid,
    /// How often a process has started on its data directory. Of two lives of a node the one with more starts is the later.
    pub start: u64,
    /// Its rack.
    pub rack: Option<String>,
    /// Its listeners.
    pub endpoints: Vec<Endpoint>,
    /// Its shards.
    pub shards: Vec<ShardRegistration>,
    /// May neither lead nor be in sync.
    pub fenced: bool,
    /// Gets nothing new, and loses what it leads.
    pub draining: bool,
    /// Is to be emptied of all replicas and removed.
    pub leaving: bool,
    /// May have lost what was written without a flush (rule S4).
    pub lossy: bool,
}

/// Appends it.
pub fn write(out: &mut Out, node: &NodeRegistration) {
    out.i32(node.node.0);
    out.u64(node.epoch.0);
    out.uuid(node.directory);
    out.uuid(node.incarnation);
    out.u64(node.start);
    out.u8(u8::from(node.rack.is_some()));
    out.string(node.rack.as_deref().unwrap_or(""));
    out.list(&node.endpoints, |out, endpoint| {
        out.string(&endpoint.name);
        out.string(&endpoint.host);
        out.u16(endpoint.port);
    });
    out.list(&node.shards, |out, shard| {
        out.u32(shard.epoch.0);
        out.u32(shard.device);
        out.u8(u8::from(shard.online));
    });
    [node.fenced, node.draining, node.leaving, node.lossy].iter().for_each(|flag| out.u8(u8::from(*flag)));
}

/// Reads it.
pub fn read(from: &mut In<'_>) -> Result<NodeRegistration, Malformed> {
    let node = NodeId(from.i32()?);
    if !(0..=NODE_ID_MAX).contains(&node.0) {
        return Err(Malformed);
    }
    let (epoch, directory, incarnation) = (NodeEpoch(from.u64()?), from.uuid()?, from.uuid()?);
    let start = from.u64()?;
    let (has_rack, rack) = (from.bool()?, from.string()?);
    let endpoints =
        from.list(|from| Ok(Endpoint { name: from.string()?, host: from.string()?, port: from.u16()? }))?;
    let shards = from.list(|from| {
        Ok(ShardRegistration { epoch: ShardEpoch(from.u32()?), device: from.u32()?, online: from.bool()? })
    })?;
    if shards.is_empty() || shards.len() > SHARDS_MAX {
        return Err(Malformed);
    }
    Ok(NodeRegistration {
        node,
        epoch,
        directory,
        incarnation,
        start,
        rack: has_rack.then_some(rack),
        endpoints,
        shards,
        fenced: from.bool()?,
        draining: from.bool()?,
        leaving: from.bool()?,
        lossy: from.bool()?,
    })
}
