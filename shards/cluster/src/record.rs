//! Metadata records: what the controller writes and every shard applies. Encoded by hand, each with its kind and version;
//! read with bounds, since they come from a disk.

use pelton_model::{LeaderEpoch, NodeId, Replica, ShardId, TopicId};
use uuid::Uuid;

/// What a setting belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// A broker by id; empty = all brokers.
    Broker(String),
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
    /// A partition exists, or is led elsewhere now.
    Partition {
        /// The topic.
        topic_id: TopicId,
        /// Its index.
        index: i32,
        /// Where its replicas are; the first is preferred.
        replicas: Vec<Replica>,
        /// Who leads.
        leader: Option<Replica>,
        /// Epoch of that leadership.
        leader_epoch: LeaderEpoch,
        /// Counts every change of the partition.
        partition_epoch: i32,
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
}

/// Why a record cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a metadata record is damaged or of an unknown kind")]
pub struct RecordError;

const TOPIC: u8 = 1;
const PARTITION: u8 = 2;
const REMOVE_TOPIC: u8 = 3;
const CONFIG: u8 = 4;
const PRODUCER_IDS: u8 = 5;
const VERSION: u8 = 1;

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn string(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }
    fn replica(&mut self, replica: Replica) {
        self.0.extend_from_slice(&replica.node.0.to_le_bytes());
        self.0.extend_from_slice(&replica.shard.0.to_le_bytes());
    }
    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError)?;
        self.0 = rest;
        Ok(*value)
    }
    fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(self.take::<1>()?[0])
    }
    fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    fn i32(&mut self) -> Result<i32, RecordError> {
        Ok(i32::from_le_bytes(self.take()?))
    }
    fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    fn uuid(&mut self) -> Result<TopicId, RecordError> {
        Ok(TopicId(Uuid::from_bytes(self.take()?)))
    }
    fn string(&mut self) -> Result<String, RecordError> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(RecordError)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| RecordError)
    }
    fn replica(&mut self) -> Result<Replica, RecordError> {
        Ok(Replica { node: NodeId(self.i32()?), shard: ShardId(u16::from_le_bytes(self.take()?)) })
    }
}

impl MetadataRecord {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            MetadataRecord::Topic { id, name } => {
                out.0.extend_from_slice(&[TOPIC, VERSION]);
                out.0.extend_from_slice(id.0.as_bytes());
                out.string(name);
            }
            MetadataRecord::Partition {
                topic_id,
                index,
                replicas,
                leader,
                leader_epoch,
                partition_epoch,
            } => {
                out.0.extend_from_slice(&[PARTITION, VERSION]);
                out.0.extend_from_slice(topic_id.0.as_bytes());
                out.i32(*index);
                out.i32(leader_epoch.0);
                out.i32(*partition_epoch);
                out.0.push(replicas.len() as u8);
                replicas.iter().for_each(|replica| out.replica(*replica));
                out.0.push(u8::from(leader.is_some()));
                leader.iter().for_each(|replica| out.replica(*replica));
            }
            MetadataRecord::RemoveTopic { id } => {
                out.0.extend_from_slice(&[REMOVE_TOPIC, VERSION]);
                out.0.extend_from_slice(id.0.as_bytes());
            }
            MetadataRecord::Config { resource, name, value } => {
                let (kind, of) = match resource {
                    ConfigResource::Topic(of) => (0, of),
                    ConfigResource::Broker(of) => (1, of),
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
        }
        out.0
    }

    /// From bytes that hold exactly one.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, RecordError> {
        let mut from = In(bytes);
        let (kind, version) = (from.u8()?, from.u8()?);
        if version != VERSION {
            return Err(RecordError);
        }
        let record = match kind {
            TOPIC => MetadataRecord::Topic { id: from.uuid()?, name: from.string()? },
            PARTITION => decode_partition(&mut from)?,
            REMOVE_TOPIC => MetadataRecord::RemoveTopic { id: from.uuid()? },
            CONFIG => {
                let (kind, set, of) = (from.u8()?, from.u8()?, from.string()?);
                let resource = match kind {
                    0 => ConfigResource::Topic(of),
                    1 => ConfigResource::Broker(of),
                    _ => return Err(RecordError),
                };
                let (name, value) = (from.string()?, from.string()?);
                MetadataRecord::Config { resource, name, value: (set != 0).then_some(value) }
            }
            PRODUCER_IDS => MetadataRecord::ProducerIds { next: i64::from_le_bytes(from.take()?) },
            _ => return Err(RecordError),
        };
        if from.0.is_empty() { Ok(record) } else { Err(RecordError) }
    }
}

fn decode_partition(from: &mut In<'_>) -> Result<MetadataRecord, RecordError> {
    let topic_id = from.uuid()?;
    let (index, leader_epoch, partition_epoch) = (from.i32()?, LeaderEpoch(from.i32()?), from.i32()?);
    let count = from.u8()?;
    let replicas = (0..count).map(|_| from.replica()).collect::<Result<Vec<_>, _>>()?;
    let leader = if from.u8()? != 0 { Some(from.replica()?) } else { None };
    Ok(MetadataRecord::Partition { topic_id, index, replicas, leader, leader_epoch, partition_epoch })
}

/// Records that are committed together, with the offset of the commit.
pub fn encode_batch(offset: u64, records: &[MetadataRecord]) -> Vec<u8> {
    let mut out = Out(offset.to_le_bytes().to_vec());
    for record in records {
        let bytes = record.encode();
        out.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.0.extend_from_slice(&bytes);
    }
    out.0
}

/// The reverse of [`encode_batch`].
pub fn decode_batch(bytes: &[u8]) -> Result<(u64, Vec<MetadataRecord>), RecordError> {
    let mut from = In(bytes);
    let offset = from.u64()?;
    let mut records = Vec::new();
    while !from.0.is_empty() {
        let length = from.u32()? as usize;
        let (record, rest) = from.0.split_at_checked(length).ok_or(RecordError)?;
        records.push(MetadataRecord::decode(record)?);
        from.0 = rest;
    }
    Ok((offset, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<MetadataRecord> {
        let id = TopicId(Uuid::from_u128(9));
        let replica = Replica { node: NodeId(1), shard: ShardId(2) };
        vec![
            MetadataRecord::Topic { id, name: "t".to_string() },
            MetadataRecord::Partition {
                topic_id: id,
                index: 3,
                replicas: vec![replica],
                leader: Some(replica),
                leader_epoch: LeaderEpoch(4),
                partition_epoch: 5,
            },
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
}
