//! Metadata records: what the controller writes and every shard applies. Encoded by hand, each with its kind and version;
//! read with bounds, since they come from a disk or another node.

pub(crate) mod node;
pub(crate) mod partition;

use pelton_model::{NodeEpoch, NodeId, PartitionKey, PartitionState, ShardEpoch, ShardId, TopicId};

use crate::codec::{In, Malformed, Out};

pub use node::{Endpoint, NodeRegistration, ShardRegistration};
pub use partition::PartitionDelta;

/// What a setting belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// A broker by id; empty = all brokers.
    Broker(String),
    /// A consumer group, by id; it need not exist.
    Group(String),
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataRecord {
    /// A topic exists.
    Topic {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: String,
    },
    /// A partition exists, or is as said here now.
    Partition {
        /// Which.
        key: PartitionKey,
        /// Everything about it.
        state: PartitionState,
    },
    /// A partition changes. Compare-and-set: it counts only if the partition's epoch is one less than the delta's.
    PartitionChange {
        /// Which.
        key: PartitionKey,
        /// What is other now.
        delta: PartitionDelta,
    },
    /// A topic is deleted, with its partitions and settings.
    RemoveTopic {
        /// Its id.
        id: TopicId,
    },
    /// A setting is set, or (none) removed.
    Config {
        /// Of what.
        resource: ConfigResource,
        /// Its name.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// Producer ids below `next` may be in use.
    ProducerIds {
        /// First id nobody has.
        next: i64,
    },
    /// A node lives anew. It is fenced until said otherwise.
    Node(NodeRegistration),
    /// A node's standing changes.
    NodeChange {
        /// Who.
        node: NodeId,
        /// In this life only.
        epoch: NodeEpoch,
        /// Whether it may lead and be in sync.
        fenced: Option<bool>,
        /// Whether it gets nothing new and loses what it leads.
        draining: Option<bool>,
        /// Whether it is being emptied of everything.
        leaving: Option<bool>,
    },
    /// One shard of a node has started anew, or is gone.
    ShardChange {
        /// Who.
        node: NodeId,
        /// In this life only.
        epoch: NodeEpoch,
        /// Which.
        shard: ShardId,
        /// Its life from now on.
        shard_epoch: ShardEpoch,
        /// Whether it works.
        online: bool,
    },
    /// A node is no part of the cluster any more.
    RemoveNode {
        /// Who.
        node: NodeId,
    },
}

/// Why a record cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a metadata record is damaged or of an unknown kind")]
pub struct RecordError;

impl From<Malformed> for RecordError {
    fn from(_: Malformed) -> RecordError {
        RecordError
    }
}

const TOPIC: u8 = 1;
const PARTITION: u8 = 2;
const REMOVE_TOPIC: u8 = 3;
const CONFIG: u8 = 4;
const PRODUCER_IDS: u8 = 5;
const NODE: u8 = 6;
const NODE_CHANGE: u8 = 7;
const SHARD_CHANGE: u8 = 8;
const REMOVE_NODE: u8 = 9;
const PARTITION_CHANGE: u8 = 10;
const VERSION: u8 = 1;
/// Of whole partitions; version 1 had a replica list and a leader only.
const PARTITION_VERSION: u8 = 2;

fn write_key(out: &mut Out, key: PartitionKey) {
    out.uuid(key.topic_id.0);
    out.i32(key.partition);
}

fn read_key(from: &mut In<'_>) -> Result<PartitionKey, Malformed> {
    let (topic_id, partition) = (TopicId(from.uuid()?), from.i32()?);
    if partition < 0 {
        return Err(Malformed);
    }
    Ok(PartitionKey { topic_id, partition })
}

fn write_flag(out: &mut Out, flag: Option<bool>) {
    out.u8(flag.map_or(0, |flag| 1 + u8::from(flag)));
}

fn read_flag(from: &mut In<'_>) -> Result<Option<bool>, Malformed> {
    match from.u8()? {
        0 => Ok(None),
        1 => Ok(Some(false)),
        2 => Ok(Some(true)),
        _ => Err(Malformed),
    }
}

impl MetadataRecord {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        self.write(&mut out);
        out.0
    }

    fn write(&self, out: &mut Out) {
        match self {
            MetadataRecord::Topic { id, name } => {
                out.0.extend_from_slice(&[TOPIC, VERSION]);
                out.uuid(id.0);
                out.string(name);
            }
            MetadataRecord::Partition { key, state } => {
                out.0.extend_from_slice(&[PARTITION, PARTITION_VERSION]);
                write_key(out, *key);
                partition::write_state(out, state);
            }
            MetadataRecord::PartitionChange { key, delta } => {
                out.0.extend_from_slice(&[PARTITION_CHANGE, VERSION]);
                write_key(out, *key);
                partition::write_delta(out, delta);
            }
            MetadataRecord::RemoveTopic { id } => {
                out.0.extend_from_slice(&[REMOVE_TOPIC, VERSION]);
                out.uuid(id.0);
            }
            MetadataRecord::Config { resource, name, value } => {
                let (kind, of) = match resource {
                    ConfigResource::Topic(of) => (0, of),
                    ConfigResource::Broker(of) => (1, of),
                    ConfigResource::Group(of) => (2, of),
                };
                out.0.extend_from_slice(&[CONFIG, VERSION, kind, u8::from(value.is_some())]);
                out.string(of);
                out.string(name);
                out.string(value.as_deref().unwrap_or(""));
            }
            MetadataRecord::ProducerIds { next } => {
                out.0.extend_from_slice(&[PRODUCER_IDS, VERSION]);
                out.0.extend_from_slice(&next.to_le_bytes());
            }
            MetadataRecord::Node(node) => {
                out.0.extend_from_slice(&[NODE, VERSION]);
                node::write(out, node);
            }
            MetadataRecord::NodeChange { node, epoch, fenced, draining, leaving } => {
                out.0.extend_from_slice(&[NODE_CHANGE, VERSION]);
                out.i32(node.0);
                out.u64(epoch.0);
                write_flag(out, *fenced);
                write_flag(out, *draining);
                write_flag(out, *leaving);
            }
            MetadataRecord::ShardChange { node, epoch, shard, shard_epoch, online } => {
                out.0.extend_from_slice(&[SHARD_CHANGE, VERSION]);
                out.i32(node.0);
                out.u64(epoch.0);
                out.u16(shard.0);
                out.u32(shard_epoch.0);
                out.u8(u8::from(*online));
            }
            MetadataRecord::RemoveNode { node } => {
                out.0.extend_from_slice(&[REMOVE_NODE, VERSION]);
                out.i32(node.0);
            }
        }
    }

    /// From bytes that hold exactly one.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, RecordError> {
        let mut from = In(bytes);
        let record = Self::read(&mut from)?;
        from.end()?;
        Ok(record)
    }

    fn read(from: &mut In<'_>) -> Result<MetadataRecord, Malformed> {
        let (kind, version) = (from.u8()?, from.u8()?);
        if version != VERSION && !(kind == PARTITION && version == PARTITION_VERSION) {
            return Err(Malformed);
        }
        Ok(match kind {
            TOPIC => MetadataRecord::Topic { id: TopicId(from.uuid()?), name: from.string()? },
            PARTITION => {
                let key = read_key(from)?;
                let state =
                    if version == 1 { partition::read_state_v1(from)? } else { partition::read_state(from)? };
                MetadataRecord::Partition { key, state }
            }
            PARTITION_CHANGE => {
                MetadataRecord::PartitionChange { key: read_key(from)?, delta: partition::read_delta(from)? }
            }
            REMOVE_TOPIC => MetadataRecord::RemoveTopic { id: TopicId(from.uuid()?) },
            CONFIG => {
                let (kind, set, of) = (from.u8()?, from.bool()?, from.string()?);
                let resource = match kind {
                    0 => ConfigResource::Topic(of),
                    1 => ConfigResource::Broker(of),
                    2 => ConfigResource::Group(of),
                    _ => return Err(Malformed),
                };
                let (name, value) = (from.string()?, from.string()?);
                MetadataRecord::Config { resource, name, value: set.then_some(value) }
            }
            PRODUCER_IDS => MetadataRecord::ProducerIds { next: i64::from_le_bytes(from.take()?) },
            NODE => MetadataRecord::Node(node::read(from)?),
            NODE_CHANGE => MetadataRecord::NodeChange {
                node: NodeId(from.i32()?),
                epoch: NodeEpoch(from.u64()?),
                fenced: read_flag(from)?,
                draining: read_flag(from)?,
                leaving: read_flag(from)?,
            },
            SHARD_CHANGE => MetadataRecord::ShardChange {
                node: NodeId(from.i32()?),
                epoch: NodeEpoch(from.u64()?),
                shard: ShardId(from.u16()?),
                shard_epoch: ShardEpoch(from.u32()?),
                online: from.bool()?,
            },
            REMOVE_NODE => MetadataRecord::RemoveNode { node: NodeId(from.i32()?) },
            _ => return Err(Malformed),
        })
    }
}

/// Records that are committed together, with the offset of the commit.
pub fn encode_batch(offset: u64, records: &[MetadataRecord]) -> Vec<u8> {
    let mut out = offset.to_le_bytes().to_vec();
    records.iter().for_each(|record| append_record(&mut out, record));
    out
}

/// Records that are committed together; an entry of the quorum, whose offset is its index.
pub fn encode_records(records: &[MetadataRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    records.iter().for_each(|record| append_record(&mut out, record));
    out
}

/// Appends one record with its length, as a batch has it.
pub fn append_record(into: &mut Vec<u8>, record: &MetadataRecord) {
    let at = into.len();
    let mut out = Out(std::mem::take(into));
    out.u32(0);
    record.write(&mut out);
    *into = out.0;
    let length = (into.len() - at - 4) as u32;
    into[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The reverse of [`encode_batch`].
pub fn decode_batch(bytes: &[u8]) -> Result<(u64, Vec<MetadataRecord>), RecordError> {
    let mut from = In(bytes);
    let offset = from.u64()?;
    let mut records = Vec::new();
    for_each_record(from.0, |record| records.push(record))?;
    Ok((offset, records))
}

/// The reverse of [`encode_records`].
pub fn decode_records(bytes: &[u8]) -> Result<Vec<MetadataRecord>, RecordError> {
    let mut records = Vec::new();
    for_each_record(bytes, |record| records.push(record))?;
    Ok(records)
}

/// Hands over each of many records as it is read.
pub fn for_each_record(bytes: &[u8], mut each: impl FnMut(MetadataRecord)) -> Result<(), RecordError> {
    let mut from = In(bytes);
    while !from.0.is_empty() {
        each(MetadataRecord::decode(from.bytes()?)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_model::{IsrMember, LeaderEpoch, PartitionEpoch, Replica, ReplicaEpoch};
    use uuid::Uuid;

    fn registration() -> NodeRegistration {
        NodeRegistration {
            node: NodeId(4),
            epoch: NodeEpoch(77),
            directory: Uuid::from_u128(1),
            incarnation: Uuid::from_u128(2),
            start: 6,
            rack: Some("east".to_string()),
            endpoints: vec![Endpoint { name: "peer".to_string(), host: "h".to_string(), port: 9 }],
            shards: vec![ShardRegistration { epoch: ShardEpoch(1), device: 3, online: true }],
            fenced: true,
            draining: false,
            leaving: false,
            lossy: true,
        }
    }

    fn all() -> Vec<MetadataRecord> {
        let id = TopicId(Uuid::from_u128(9));
        let key = PartitionKey { topic_id: id, partition: 3 };
        let replica = Replica { node: NodeId(1), shard: ShardId(2) };
        let other = Replica { node: NodeId(2), shard: ShardId(0) };
        let epoch = ReplicaEpoch { node_epoch: NodeEpoch(9), shard_epoch: ShardEpoch(1) };
        let older = PartitionState {
            replicas: vec![replica, other],
            leader: None,
            leader_epoch: LeaderEpoch(4),
            partition_epoch: PartitionEpoch(5),
            isr: Vec::new(),
            elr: vec![replica],
            last_known_elr: Vec::new(),
            adding: Vec::new(),
            removing: vec![other],
            unclean_epoch: None,
        };
        let state = PartitionState {
            leader: Some(replica),
            leader_epoch: LeaderEpoch(5),
            partition_epoch: PartitionEpoch(6),
            isr: vec![IsrMember { replica, epoch }],
            elr: Vec::new(),
            last_known_elr: vec![other],
            adding: vec![other],
            unclean_epoch: Some(LeaderEpoch(5)),
            ..older.clone()
        };
        vec![
            MetadataRecord::Topic { id, name: "t".to_string() },
            MetadataRecord::Partition { key, state: state.clone() },
            MetadataRecord::PartitionChange { key, delta: PartitionDelta::between(&older, &state, true) },
            MetadataRecord::Node(registration()),
            MetadataRecord::NodeChange {
                node: NodeId(4),
                epoch: NodeEpoch(77),
                fenced: Some(false),
                draining: None,
                leaving: Some(true),
            },
            MetadataRecord::ShardChange {
                node: NodeId(4),
                epoch: NodeEpoch(77),
                shard: ShardId(2),
                shard_epoch: ShardEpoch(5),
                online: true,
            },
            MetadataRecord::RemoveNode { node: NodeId(4) },
            MetadataRecord::RemoveTopic { id },
            MetadataRecord::Config {
                resource: ConfigResource::Topic("t".to_string()),
                name: "n".to_string(),
                value: None,
            },
            MetadataRecord::Config {
                resource: ConfigResource::Broker(String::new()),
                name: "n".to_string(),
                value: Some("v".to_string()),
            },
            MetadataRecord::Config {
                resource: ConfigResource::Group("g".to_string()),
                name: "n".to_string(),
                value: Some("v".to_string()),
            },
            MetadataRecord::ProducerIds { next: 1000 },
        ]
    }

    #[test]
    fn records_round_trip_alone_and_in_batches() {
        for record in all() {
            assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
        }
        assert_eq!(decode_batch(&encode_batch(7, &all())), Ok((7, all())));
    }

    #[test]
    fn cut_or_damaged_bytes_are_errors() {
        for record in all() {
            let bytes = record.encode();
            for length in 0..bytes.len() {
                assert!(MetadataRecord::decode(&bytes[..length]).is_err(), "{record:?} cut to {length}");
            }
        }
        assert!(decode_batch(&[0; 9]).is_err());
    }

    #[test]
    fn partitions_of_version_1_are_read() {
        let mut out = Out(vec![PARTITION, 1]);
        write_key(&mut out, PartitionKey { topic_id: TopicId(Uuid::from_u128(9)), partition: 3 });
        [4, 5].iter().for_each(|epoch| out.i32(*epoch));
        out.u8(1);
        let place = |out: &mut Out| {
            out.i32(1);
            out.u16(2);
        };
        place(&mut out);
        out.u8(1);
        place(&mut out);
        let replica = Replica { node: NodeId(1), shard: ShardId(2) };
        let Ok(MetadataRecord::Partition { state, .. }) = MetadataRecord::decode(&out.0) else { panic!() };
        assert_eq!((state.leader, &state.replicas[..]), (Some(replica), &[replica][..]));
        assert_eq!(state.isr, [IsrMember { replica, epoch: ReplicaEpoch::default() }]);
        assert_eq!((state.leader_epoch, state.partition_epoch), (LeaderEpoch(4), PartitionEpoch(5)));
    }
}
