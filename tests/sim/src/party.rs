//! Who takes part in a run: clients that produce or read, and members of groups. Each has one connection at a time.

use bytes::BytesMut;
use pelton_model::Prng;

use crate::client::Client;
use crate::consumer_member::ConsumerMember;
use crate::group_oracle::GroupOracle;
use crate::member::Member;
use crate::oracle::Oracle;

/// What is known to be true, by whom it concerns.
#[derive(Default)]
pub struct Judges {
    /// Of records.
    pub records: Oracle,
    /// Of groups.
    pub groups: GroupOracle,
}

/// One of them.
#[allow(clippy::large_enum_variant)]
pub enum Party {
    /// Produces or reads.
    Client(Client),
    /// Is in a group of the classic protocol.
    Member(Member),
    /// Is in a KIP-848 group.
    Consumer(ConsumerMember),
}

impl Party {
    /// True when it has done what it set out to do.
    pub fn is_done(&self) -> bool {
        match self {
            Party::Client(client) => client.is_done(),
            Party::Member(member) => member.is_done(),
            Party::Consumer(member) => member.is_done(),
        }
    }

    /// True while connected.
    pub fn is_connected(&self) -> bool {
        match self {
            Party::Client(client) => client.connected,
            Party::Member(member) => member.connected,
            Party::Consumer(member) => member.connected,
        }
    }

    /// A new connection.
    pub fn connect(&mut self, prng: &mut Prng) {
        match self {
            Party::Client(client) => client.connect(prng),
            Party::Member(member) => member.connect(),
            Party::Consumer(member) => member.connect(),
        }
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        match self {
            Party::Client(client) => client.disconnect(),
            Party::Member(member) => member.disconnect(),
            Party::Consumer(member) => member.disconnect(),
        }
    }

    /// Does one thing, if there is one to do.
    pub fn act(&mut self, prng: &mut Prng, now_ms: i64, judges: &mut Judges) {
        match self {
            Party::Client(client) => client.act(prng, now_ms, &mut judges.records),
            Party::Member(member) => member.act(prng, now_ms, &mut judges.groups),
            Party::Consumer(member) => member.act(prng, now_ms, &mut judges.groups),
        }
    }

    /// True if an answer makes it act more often from then on. Not for one that lives long by heartbeats alone: it would do
    /// nothing but act.
    pub fn acts_on_answers(&self) -> bool {
        !matches!(self, Party::Consumer(_))
    }

    /// Takes bytes of the broker.
    pub fn receive(&mut self, bytes: &[u8], now_ms: i64, judges: &mut Judges) -> Result<(), String> {
        match self {
            Party::Client(client) => client.receive(bytes, &mut judges.records),
            Party::Member(member) => member.receive(bytes, &mut judges.groups),
            Party::Consumer(member) => member.receive(bytes, now_ms, &mut judges.groups),
        }
    }

    /// Bytes written to the connection and not yet received by the broker.
    pub fn outbound(&mut self) -> &mut BytesMut {
        match self {
            Party::Client(client) => &mut client.outbound,
            Party::Member(member) => &mut member.outbound,
            Party::Consumer(member) => &mut member.outbound,
        }
    }

    /// The shard it wants to talk to in direct mode, of `shards`.
    pub fn shard(&self, shards: u16) -> u16 {
        match self {
            // Placement hands partitions to shards in turn; the scenario gives each client those of one shard.
            Party::Client(client) => client.partitions[0] as u16 % shards,
            Party::Member(member) => member.coordinator % shards,
            Party::Consumer(member) => member.coordinator % shards,
        }
    }

    /// What was to stay until now may end.
    pub fn end_steady(&mut self) {
        if let Party::Member(member) = self {
            member.end_steady();
        }
    }

    /// What to call it in a report.
    pub fn name(&self) -> String {
        match self {
            Party::Client(client) => format!("client {}", client.id),
            Party::Member(member) => member.name.clone(),
            Party::Consumer(member) => member.name.clone(),
        }
    }
}
