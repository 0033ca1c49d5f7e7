//! What travels in the simulated world: messages between shards, bytes between clients and shards, each with its delay.

use bytes::{Bytes, BytesMut};
use pelton_model::{ConnectionId, ShardId};
use pelton_shard::{Event, ReceiveMode, SendPart, SendParts, ShardMessage};
use pelton_wire::crc::crc32c;

use super::{Happening, MS, World};

impl World {
    /// Messages between two shards keep their order.
    pub(super) fn carry_to_shard(&mut self, from: u16, to: ShardId, message: ShardMessage) {
        let delay = self.prng.below(MS / 4);
        let earliest = self.mesh_at.get(&(from, to.0)).copied().unwrap_or(0);
        let at = (self.now_ns + delay).max(earliest + 1);
        self.mesh_at.insert((from, to.0), at);
        let event = Event::FromShard { from: ShardId(from), message };
        self.schedule(at - self.now_ns, Happening::Event(to.0, event));
    }

    pub(super) fn send(&mut self, shard: u16, connection: ConnectionId, parts: SendParts) {
        let mut bytes = BytesMut::new();
        for part in parts {
            match part {
                SendPart::Bytes(part) => bytes.extend_from_slice(&part),
                SendPart::File { file, position, length, laid_to } => {
                    // What may be read ahead must be there too.
                    let ahead = (laid_to - position) as usize;
                    match self.disk.range(shard, file, position, ahead.max(length)) {
                        Some(range) if ahead >= length => bytes.extend_from_slice(&range[..length]),
                        _ => {
                            let text = format!("{file:?} {position}+{length}, laid to {laid_to}");
                            self.failure = Some(format!("a send names {text}, which is not there"));
                            return;
                        }
                    }
                }
            }
        }
        self.trace(&format!("{shard} send {} {} {:08x}", connection.0, bytes.len(), crc32c(&bytes)));
        let sent = Event::Sent { connection, bytes: bytes.len() };
        let Some(state) = self.connections.get_mut(&connection.0) else { return };
        let delay = 10_000 + self.prng.below(MS / 2);
        let at = (self.now_ns + delay).max(state.deliver_at + 1);
        state.deliver_at = at;
        let delay = at - self.now_ns;
        self.schedule(delay, Happening::Event(shard, sent));
        self.schedule(delay, Happening::ToClient(connection.0, bytes.freeze()));
    }

    pub(super) fn carry_to_client(&mut self, id: u64, bytes: &Bytes) -> Result<(), String> {
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        match connection.client {
            None => self.admin_inbound.extend_from_slice(bytes),
            Some(index) => {
                let now_ms = self.now().wall_ms;
                let World { clients, judges, .. } = self;
                clients[index].receive(bytes, now_ms, judges)?;
                if clients[index].acts_on_answers() {
                    let delay = self.prng.below(2 * MS);
                    self.schedule(delay, Happening::ClientActs(index));
                }
            }
        }
        Ok(())
    }

    pub(super) fn client_acts(&mut self, index: usize) {
        let now_ms = self.now().wall_ms;
        let World { clients, prng, judges, .. } = self;
        clients[index].act(prng, now_ms, judges);
        let id = self.connections.iter().find(|(_, c)| c.client == Some(index)).map(|(id, _)| *id);
        let Some(id) = id else { return };
        let bytes = self.clients[index].outbound().split();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.outbound.extend_from_slice(&bytes);
        }
        self.schedule(10_000, Happening::Deliver(id));
        if !self.clients[index].is_done() {
            let delay = 100_000 + self.prng.below(8 * MS);
            self.schedule(delay, Happening::ClientActs(index));
        }
    }

    /// Hands a connection's bytes to its shard as the shard asked for them.
    pub(super) fn deliver(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.outbound.is_empty() {
            return;
        }
        let bytes = match connection.receive.take() {
            None => return,
            Some(ReceiveMode::Any) => {
                let most = connection.outbound.len().min(64 * 1024);
                let count =
                    if self.prng.one_in(3) { 1 + self.prng.below(most as u64) as usize } else { most };
                connection.outbound.split_to(count).freeze()
            }
            Some(ReceiveMode::Frame { prefix, length }) => {
                let missing = length - prefix.len();
                if connection.outbound.len() < missing {
                    connection.receive = Some(ReceiveMode::Frame { prefix, length });
                    return;
                }
                let mut frame = BytesMut::from(&prefix[..]);
                frame.extend_from_slice(&connection.outbound.split_to(missing));
                frame.freeze()
            }
        };
        let shard = connection.shard;
        self.event(shard, Event::Received { connection: ConnectionId(id), bytes });
    }
}
