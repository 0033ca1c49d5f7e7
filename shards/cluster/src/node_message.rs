//! What nodes and the controller send each other, as bytes: leases, requests and answers. Own frames like the quorum's.

use bytes::Bytes;
use pelton_model::{
    LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, Replica, ShardEpoch, ShardId, TopicId,
};

use crate::codec::{In, Malformed, Out};
use crate::control::asks::{Answer, Ask, Token};
use crate::control::isr::{Asker, IsrChange, IsrRefusal};
use crate::controller::Refusal;
use crate::frame;
use crate::lease::{Grant, Renewal};
use crate::record::{node as node_registration, partition as partition_parts};

/// Changes of ISRs in one request.
pub const ISR_CHANGES_MAX: usize = 5_000;

/// A client's request that another node plans, and its answer: so many bytes at most.
pub const PLAN_BYTES_MAX: usize = frame::FRAME_BYTES_MAX - 1024;

const MAGIC: u32 = 0x314d_4e50;
const VERSION: u8 = 1;

/// A message.
#[derive(Clone, Debug)]
pub enum NodeMessage {
    /// A node asks for its lease.
    Renew(Renewal),
    /// The controller grants it.
    Grant(Grant),
    /// The controller does not know this life.
    Unknown(NodeEpoch),
    /// A node asks something; only what nodes ask goes over the wire.
    Ask(Token, Ask),
    /// The controller answers. With [`Answer::NotController`] goes who leads, if that is known.
    Answer(Token, Answer, Option<NodeId>),
    /// The controller asks a leader to hand over.
    AskTransfer {
        /// The partition.
        key: PartitionKey,
        /// Its leadership.
        leader_epoch: LeaderEpoch,
        /// Its state.
        partition_epoch: PartitionEpoch,
        /// Who shall lead.
        to: Replica,
    },
}

fn write_key(out: &mut Out, key: PartitionKey) {
    out.uuid(key.topic_id.0);
    out.i32(key.partition);
}

fn read_key(from: &mut In<'_>) -> Result<PartitionKey, Malformed> {
    Ok(PartitionKey { topic_id: TopicId(from.uuid()?), partition: from.i32()? })
}

fn write_asker(out: &mut Out, asker: Asker) {
    out.i32(asker.node.0);
    out.u64(asker.epoch.0);
}

fn read_asker(from: &mut In<'_>) -> Result<Asker, Malformed> {
    Ok(Asker { node: NodeId(from.i32()?), epoch: NodeEpoch(from.u64()?) })
}

const REFUSALS: [IsrRefusal; 7] = [
    IsrRefusal::UnknownPartition,
    IsrRefusal::StaleNodeEpoch,
    IsrRefusal::FencedLeaderEpoch,
    IsrRefusal::InvalidUpdateVersion,
    IsrRefusal::IneligibleReplica,
    IsrRefusal::InvalidRequest,
    IsrRefusal::NotController,
];

/// The frame of a message; none for what never goes over the wire.
pub fn encode(cluster: u64, from: NodeId, to: NodeId, message: &NodeMessage) -> Option<Bytes> {
    let mut out = frame::begin(MAGIC, VERSION);
    out.u64(cluster);
    out.i32(from.0);
    out.i32(to.0);
    match message {
        NodeMessage::Renew(renewal) => {
            out.u8(1);
            [renewal.epoch.0, renewal.sequence, renewal.applied].iter().for_each(|number| out.u64(*number));
        }
        NodeMessage::Grant(grant) => {
            out.u8(2);
            [grant.epoch.0, grant.sequence, grant.released].iter().for_each(|number| out.u64(*number));
        }
        NodeMessage::Unknown(epoch) => {
            out.u8(3);
            out.u64(epoch.0);
        }
        NodeMessage::Ask(token, ask) => {
            out.u8(4);
            out.u64(*token);
            write_ask(&mut out, ask)?;
        }
        NodeMessage::Answer(token, answer, leader) => {
            out.u8(5);
            out.u64(*token);
            out.i32(leader.map_or(-1, |leader| leader.0));
            write_answer(&mut out, answer)?;
        }
        NodeMessage::AskTransfer { key, leader_epoch, partition_epoch, to } => {
            out.u8(6);
            write_key(&mut out, *key);
            out.i32(leader_epoch.0);
            out.i32(partition_epoch.0);
            partition_parts::write_replica(&mut out, to);
        }
    }
    Some(frame::finish(out))
}

fn write_ask(out: &mut Out, ask: &Ask) -> Option<()> {
    match ask {
        Ask::Register { cluster, node } => {
            out.u8(1);
            out.u64(*cluster);
            node_registration::write(out, node);
        }
        Ask::AlterIsr { asker, changes } => {
            if changes.len() > ISR_CHANGES_MAX {
                return None;
            }
            out.u8(2);
            write_asker(out, *asker);
            out.list(changes, |out, change| {
                write_key(out, change.key);
                out.i32(change.leader_epoch.0);
                out.i32(change.partition_epoch.0);
                out.list(&change.isr, partition_parts::write_member);
            });
        }
        Ask::ShardRestarted { asker, shard, life, online } => {
            out.u8(3);
            write_asker(out, *asker);
            out.u16(shard.0);
            out.u32(life.0);
            out.u8(u8::from(*online));
        }
        Ask::Shutdown { asker } => {
            out.u8(4);
            write_asker(out, *asker);
        }
        Ask::HandedOver { asker, key, partition_epoch, to } => {
            out.u8(5);
            write_asker(out, *asker);
            write_key(out, *key);
            out.i32(partition_epoch.0);
            partition_parts::write_replica(out, to);
        }
        Ask::Reclaim { asker, key, partition_epoch } => {
            out.u8(6);
            write_asker(out, *asker);
            write_key(out, *key);
            out.i32(partition_epoch.0);
        }
        Ask::ControlledShutdown { asker } => {
            out.u8(16);
            write_asker(out, *asker);
        }
        Ask::Plan { node, request } => {
            if request.len() > PLAN_BYTES_MAX {
                return None;
            }
            out.u8(7);
            out.i32(node.0);
            out.bytes(request);
        }
        _ => return None,
    }
    Some(())
}

fn read_ask(from: &mut In<'_>) -> Result<Ask, Malformed> {
    Ok(match from.u8()? {
        1 => Ask::Register { cluster: from.u64()?, node: node_registration::read(from)? },
        2 => {
            let asker = read_asker(from)?;
            let changes = from.list(|from| {
                Ok(IsrChange {
                    key: read_key(from)?,
                    leader_epoch: LeaderEpoch(from.i32()?),
                    partition_epoch: PartitionEpoch(from.i32()?),
                    isr: from.list(partition_parts::read_member)?,
                })
            })?;
            if changes.len() > ISR_CHANGES_MAX {
                return Err(Malformed);
            }
            Ask::AlterIsr { asker, changes }
        }
        3 => Ask::ShardRestarted {
            asker: read_asker(from)?,
            shard: ShardId(from.u16()?),
            life: ShardEpoch(from.u32()?),
            online: from.bool()?,
        },
        4 => Ask::Shutdown { asker: read_asker(from)? },
        5 => Ask::HandedOver {
            asker: read_asker(from)?,
            key: read_key(from)?,
            partition_epoch: PartitionEpoch(from.i32()?),
            to: partition_parts::read_replica(from)?,
        },
        6 => Ask::Reclaim {
            asker: read_asker(from)?,
            key: read_key(from)?,
            partition_epoch: PartitionEpoch(from.i32()?),
        },
        16 => Ask::ControlledShutdown { asker: read_asker(from)? },
        7 => Ask::Plan { node: NodeId(from.i32()?), request: Bytes::copy_from_slice(from.bytes()?) },
        _ => return Err(Malformed),
    })
}

fn write_answer(out: &mut Out, answer: &Answer) -> Option<()> {
    match answer {
        Answer::Registered(epoch) => {
            out.u8(1);
            out.u64(epoch.0);
        }
        Answer::Isr(results) => {
            out.u8(2);
            out.list(results, |out, result| match result {
                Ok((leader_epoch, partition_epoch)) => {
                    out.u8(0);
                    out.i32(leader_epoch.0);
                    out.i32(partition_epoch.0);
                }
                Err(why) => {
                    let at = REFUSALS.iter().position(|known| known == why).unwrap_or(5);
                    out.u8(1 + at as u8);
                }
            });
        }
        Answer::Done => out.u8(3),
        Answer::Refused((_, text)) => {
            out.u8(4);
            out.string(text);
        }
        Answer::NotController => out.u8(5),
        Answer::Planned { index, response } => {
            if response.len() > PLAN_BYTES_MAX {
                return None;
            }
            out.u8(6);
            out.u64(*index);
            out.bytes(response);
        }
        Answer::Topic(_) | Answer::ProducerIds(_) => return None,
    }
    Some(())
}

fn read_answer(from: &mut In<'_>) -> Result<Answer, Malformed> {
    Ok(match from.u8()? {
        1 => Answer::Registered(NodeEpoch(from.u64()?)),
        2 => Answer::Isr(from.list(|from| {
            Ok(match from.u8()? {
                0 => Ok((LeaderEpoch(from.i32()?), PartitionEpoch(from.i32()?))),
                code => Err(*REFUSALS.get(usize::from(code) - 1).ok_or(Malformed)?),
            })
        })?),
        3 => Answer::Done,
        4 => Answer::Refused((Refusal::InvalidRequest, from.string()?)),
        5 => Answer::NotController,
        6 => Answer::Planned { index: from.u64()?, response: Bytes::copy_from_slice(from.bytes()?) },
        _ => return Err(Malformed),
    })
}

/// Whether bytes begin like a frame of this kind.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.starts_with(&MAGIC.to_le_bytes())
}

/// Reads a frame: cluster, sender, receiver, message.
pub fn decode(frame: &[u8]) -> Result<(u64, NodeId, NodeId, NodeMessage), Malformed> {
    let mut from = frame::open(frame, MAGIC, VERSION)?;
    let (cluster, sender, receiver) = (from.u64()?, NodeId(from.i32()?), NodeId(from.i32()?));
    let message = match from.u8()? {
        1 => NodeMessage::Renew(Renewal {
            node: sender,
            epoch: NodeEpoch(from.u64()?),
            sequence: from.u64()?,
            applied: from.u64()?,
        }),
        2 => NodeMessage::Grant(Grant {
            epoch: NodeEpoch(from.u64()?),
            sequence: from.u64()?,
            released: from.u64()?,
        }),
        3 => NodeMessage::Unknown(NodeEpoch(from.u64()?)),
        4 => NodeMessage::Ask(from.u64()?, read_ask(&mut from)?),
        5 => {
            let (token, leader) = (from.u64()?, from.i32()?);
            let leader = (leader >= 0).then_some(NodeId(leader));
            NodeMessage::Answer(token, read_answer(&mut from)?, leader)
        }
        6 => NodeMessage::AskTransfer {
            key: read_key(&mut from)?,
            leader_epoch: LeaderEpoch(from.i32()?),
            partition_epoch: PartitionEpoch(from.i32()?),
            to: partition_parts::read_replica(&mut from)?,
        },
        _ => return Err(Malformed),
    };
    from.end()?;
    Ok((cluster, sender, receiver, message))
}

/// Who the message says it is from; must be the sender.
pub fn asker_of(ask: &Ask) -> Option<NodeId> {
    match ask {
        Ask::Register { node, .. } => Some(node.node),
        Ask::Plan { node, .. } => Some(*node),
        Ask::AlterIsr { asker, .. }
        | Ask::ShardRestarted { asker, .. }
        | Ask::ControlledShutdown { asker }
        | Ask::Shutdown { asker }
        | Ask::HandedOver { asker, .. }
        | Ask::Reclaim { asker, .. } => Some(asker.node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_model::{IsrMember, Prng, ReplicaEpoch};

    fn all() -> Vec<NodeMessage> {
        let key = PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(5)), partition: 3 };
        let replica = Replica { node: NodeId(1), shard: ShardId(2) };
        let asker = Asker { node: NodeId(1), epoch: NodeEpoch(9) };
        let isr = vec![IsrMember { replica, epoch: ReplicaEpoch::default() }];
        let (leader_epoch, partition_epoch) = (LeaderEpoch(1), PartitionEpoch(2));
        let changes = vec![IsrChange { key, leader_epoch, partition_epoch, isr }];
        let renewal = Renewal { node: NodeId(1), epoch: NodeEpoch(9), sequence: 3, applied: 4 };
        let results = vec![Ok((leader_epoch, partition_epoch)), Err(IsrRefusal::IneligibleReplica)];
        let text = "why".to_string();
        let ask = |ask| NodeMessage::Ask(7, ask);
        let answer = |answer| NodeMessage::Answer(7, answer, Some(NodeId(2)));
        vec![
            NodeMessage::Renew(renewal),
            NodeMessage::Grant(Grant { epoch: NodeEpoch(9), sequence: 3, released: 4 }),
            NodeMessage::Unknown(NodeEpoch(4)),
            ask(Ask::AlterIsr { asker, changes }),
            ask(Ask::ShardRestarted { asker, shard: ShardId(1), life: ShardEpoch(3), online: true }),
            ask(Ask::ControlledShutdown { asker }),
            ask(Ask::Shutdown { asker }),
            ask(Ask::HandedOver { asker, key, partition_epoch, to: replica }),
            ask(Ask::Reclaim { asker, key, partition_epoch }),
            ask(Ask::Plan { node: NodeId(1), request: Bytes::from_static(b"create") }),
            answer(Answer::Planned { index: 7, response: Bytes::from_static(b"created") }),
            answer(Answer::Registered(NodeEpoch(3))),
            answer(Answer::Isr(results)),
            answer(Answer::Done),
            answer(Answer::Refused((Refusal::InvalidRequest, text))),
            answer(Answer::NotController),
            NodeMessage::AskTransfer { key, leader_epoch, partition_epoch, to: replica },
        ]
    }

    #[test]
    fn messages_round_trip_and_damaged_ones_are_refused() {
        let mut prng = Prng::new(3);
        for message in all() {
            let frame = encode(7, NodeId(1), NodeId(2), &message).unwrap();
            let (cluster, from, to, read) = decode(&frame).unwrap();
            assert_eq!((cluster, from, to), (7, NodeId(1), NodeId(2)));
            assert_eq!(format!("{read:?}"), format!("{message:?}"));
            for _ in 0..50 {
                let mut bytes = frame.to_vec();
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << prng.below(8);
                assert!(decode(&bytes).is_err());
                assert!(decode(&bytes[..at]).is_err());
            }
        }
    }
}
