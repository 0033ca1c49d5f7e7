//! What shards want done, and what travels: frames between nodes, messages between shards, bytes of clients.

use bytes::{Bytes, BytesMut};
use pelton_model::{ConnectionId, Replica, ShardId};
use pelton_shard::{Effect, Event, ReceiveMode, SendPart, SendParts, ShardMessage};

use super::{MS, Place, What, World, connection, node_of, replica};

/// A client's connection to a shard.
pub struct Connection {
    pub place: Place,
    pub client: usize,
    receive: Option<ReceiveMode>,
    outbound: BytesMut,
    deliver_at: u64,
}

impl World {
    pub(super) fn perform(&mut self, place: Place, effect: Effect) {
        match effect {
            Effect::Receive { connection, mode } => {
                if let Some(state) = self.connections.get_mut(&connection.0) {
                    state.receive = Some(mode);
                    self.at(10_000, What::ToBroker(connection.0));
                }
            }
            Effect::Send { connection, parts } => self.send(place, connection, parts),
            Effect::Close { connection, reason } => {
                self.trace(&format!("{}.{} close {} {reason}", place.0, place.1, connection.0));
                self.disconnect(connection.0);
                let life = self.nodes[place.0].life;
                self.at(0, What::Event(place, life, Event::Closed { connection }));
            }
            Effect::Disk(effect) => {
                let node = &mut self.nodes[place.0];
                let operation = node.disk.submit(place.1, effect);
                let number = self.order;
                node.in_flight.insert(number, operation);
                let (life, limit) = (node.life, node.disk_ns);
                let delay = 20_000 + self.prng.below(limit);
                self.at(delay, What::Disk(place.0, life, number));
            }
            Effect::ToShard { to, message } => self.carry_to_shard(place, to, message),
            Effect::ToPeer { to, parts } => self.carry_to_peer(place, to, &parts),
            Effect::ToMember { node, bytes } => {
                for delay in self.network.copies(self.now_ns, place.0, node_of(node), &mut self.prng) {
                    let event = Event::MemberFrame { from: replica(place).node, bytes: bytes.clone() };
                    self.at(delay, What::Frame((node_of(node), 0), event));
                }
            }
            Effect::Ready => {
                let node = &mut self.nodes[place.0];
                node.ready += 1;
                // The cluster knows this life.
                node.lossy &= node.ready < node.shards.len();
                self.trace(&format!("{}.{} ready", place.0, place.1));
            }
            Effect::Stopped => self.nodes[place.0].stopped += 1,
            Effect::Log { text, .. } => self.trace(&format!("{} log {text}", place.0)),
            // The disk of the node's member of the quorum: the process ends, as it would.
            Effect::Fatal { text } if self.nodes[place.0].disk.faults.journal_error_one_in > 0 => {
                self.trace(&format!("{} cannot go on: {text}", place.0));
                self.dies = Some(place.0);
            }
            Effect::Fatal { text } => self.failure = Some(format!("node {} cannot go on: {text}", place.0)),
        }
    }

    fn carry_to_shard(&mut self, place: Place, to: ShardId, message: ShardMessage) {
        let delay = self.prng.below(MS / 4);
        let node = &mut self.nodes[place.0];
        let earliest = node.mesh_at.entry((place.1, to.0)).or_default();
        let at = (self.now_ns + delay).max(*earliest + 1);
        *earliest = at;
        let (life, event) = (node.life, Event::FromShard { from: ShardId(place.1), message });
        self.at(at - self.now_ns, What::Event((place.0, to.0), life, event));
    }

    fn carry_to_peer(&mut self, place: Place, to: Replica, parts: &[Bytes]) {
        let bytes = Bytes::from(parts.concat());
        let target = node_of(to.node);
        for delay in self.network.copies(self.now_ns, place.0, target, &mut self.prng) {
            let event = Event::PeerFrame { from: replica(place), bytes: bytes.clone() };
            self.at(delay, What::Frame((target, to.shard.0), event));
        }
    }

    fn send(&mut self, place: Place, connection: ConnectionId, parts: SendParts) {
        let mut bytes = BytesMut::new();
        for part in parts {
            match part {
                SendPart::Bytes(part) => bytes.extend_from_slice(&part),
                SendPart::File { file, position, length, .. } => {
                    match self.nodes[place.0].disk.range(place.1, file, position, length) {
                        Some(range) => bytes.extend_from_slice(&range),
                        None => {
                            let text =
                                format!("a send names {file:?} {position}+{length}, which is not there");
                            self.failure = Some(text);
                            return;
                        }
                    }
                }
            }
        }
        let sent = Event::Sent { connection, bytes: bytes.len() };
        let Some(state) = self.connections.get_mut(&connection.0) else { return };
        let delay = 10_000 + self.prng.below(MS / 2);
        let at = (self.now_ns + delay).max(state.deliver_at + 1);
        state.deliver_at = at;
        let (delay, life) = (at - self.now_ns, self.nodes[place.0].life);
        self.at(delay, What::Event(place, life, sent));
        self.at(delay, What::ToClient(connection.0, bytes.freeze()));
    }

    /// A client connects to a shard; none if nobody is there.
    pub(super) fn connect(&mut self, client: usize, place: Place) -> Option<u64> {
        let node = &self.nodes[place.0];
        if node.shards.get(usize::from(place.1)).is_none() || !node.is_ready() {
            return None;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let deliver_at = self.now_ns;
        let state = Connection { place, client, receive: None, outbound: BytesMut::new(), deliver_at };
        self.connections.insert(id, state);
        let event = Event::Accepted { connection: connection(id), peer: format!("sim-{client}") };
        let life = self.nodes[place.0].life;
        self.at(0, What::Event(place, life, event));
        Some(id)
    }

    /// A client hangs up.
    pub(super) fn hang_up(&mut self, id: u64) {
        if let Some(state) = self.connections.remove(&id) {
            let life = self.nodes[state.place.0].life;
            self.at(0, What::Event(state.place, life, Event::Closed { connection: connection(id) }));
        }
    }

    /// A client's request goes out.
    pub(super) fn request(&mut self, id: u64, frame: &[u8]) {
        if let Some(state) = self.connections.get_mut(&id) {
            state.outbound.extend_from_slice(frame);
            let delay = 20_000 + self.prng.below(MS / 4);
            self.at(delay, What::ToBroker(id));
        }
    }

    pub(super) fn drop_connections(&mut self, node: usize) {
        let ids: Vec<u64> =
            self.connections.iter().filter(|(_, state)| state.place.0 == node).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.disconnect(id));
    }

    fn disconnect(&mut self, id: u64) {
        if let Some(state) = self.connections.remove(&id) {
            self.clients[state.client].disconnected(id);
            let delay = self.prng.below(20 * MS);
            self.wake(state.client, delay);
        }
    }

    /// Hands a connection's bytes to its shard as the shard asked for them.
    pub(super) fn deliver(&mut self, id: u64) {
        let Some(state) = self.connections.get_mut(&id) else { return };
        if state.outbound.is_empty() {
            return;
        }
        let bytes = match state.receive.take() {
            None => return,
            Some(ReceiveMode::Any) => {
                let most = state.outbound.len().min(64 * 1024);
                state.outbound.split_to(most).freeze()
            }
            Some(ReceiveMode::Frame { prefix, length }) => {
                let missing = length - prefix.len();
                if state.outbound.len() < missing {
                    state.receive = Some(ReceiveMode::Frame { prefix, length });
                    return;
                }
                let mut frame = BytesMut::from(&prefix[..]);
                frame.extend_from_slice(&state.outbound.split_to(missing));
                frame.freeze()
            }
        };
        let place = state.place;
        self.event(place, Event::Received { connection: connection(id), bytes });
    }
}
