//! Nodes and a network for them: connections are two queues of bytes, delivered in pieces of any size.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_model::{ConnectionId, ListenerMode, NodeId, Prng, Replica, ShardId};
use uuid::Uuid;

use crate::peer::{Effect, Event, Identity, Kind, Limits, Peer, Peers, Secret, Want};

pub const MS: u64 = 1_000_000;

pub fn place(node: i32, shard: u16) -> Replica {
    Replica { node: NodeId(node), shard: ShardId(shard) }
}

pub fn identity(node: i32, start: u64) -> Identity {
    Identity {
        place: place(node, 0),
        cluster_id: "5m4hXyJ2Q7yTaaaaaaaaaa".to_string(),
        directory: Uuid::from_u128(100 + node as u128),
        start,
        mode: ListenerMode::Direct,
    }
}

pub fn secret() -> Secret {
    Secret::from_file(b"the secret of the tests").unwrap()
}

/// Where a node listens in these tests.
pub fn peer(node: i32) -> Peer {
    Peer::of(place(node, 0), "host", 1000 + node as u16, None).unwrap()
}

/// A node under test.
pub struct Node {
    pub peers: Peers,
    pub logs: Vec<String>,
    /// Who is up by the effects, with the start.
    pub up: BTreeMap<Replica, u64>,
    pub frames: Vec<(Replica, Kind, Bytes)>,
    pub dials: u64,
    /// Not scheduled while true.
    pub paused: bool,
}

/// One direction's end.
#[derive(Default)]
struct End {
    node: i32,
    connection: Option<ConnectionId>,
    /// Bytes on their way to this end.
    coming: VecDeque<u8>,
    want: Option<Want>,
    /// The other side will send no more.
    other_closed: bool,
    /// Nothing comes any more, whatever the other side says.
    reset: bool,
    gone: bool,
}

/// See the module.
pub struct Net {
    pub now_ns: u64,
    pub prng: Prng,
    pub nodes: BTreeMap<i32, Node>,
    /// Port → node that listens there; by default 1000 + node.
    pub listeners: BTreeMap<u16, i32>,
    pipes: Vec<[End; 2]>,
    dials: Vec<(u64, i32, u64, u16)>,
    next: u64,
    /// Pairs (from, to) whose bytes get no further: as with TCP, none arrive before those sent earlier.
    pub cut: Vec<(i32, i32)>,
    /// Largest piece delivered.
    pub piece_bytes: usize,
    /// Nobody says that bytes have left.
    pub stuck: bool,
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net {
            now_ns: 1_000 * MS,
            prng: Prng::new(seed),
            nodes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            pipes: Vec::new(),
            dials: Vec::new(),
            next: 0,
            cut: Vec::new(),
            piece_bytes: 64 << 10,
            stuck: false,
        }
    }

    /// `count` nodes that know each other.
    pub fn of(seed: u64, count: i32) -> Net {
        let mut net = Net::new(seed);
        for node in 1..=count {
            net.add(node, identity(node, 1), secret(), Limits::default());
        }
        for node in 1..=count {
            net.know(node, (1..=count).map(peer).collect());
        }
        net
    }

    pub fn add(&mut self, node: i32, me: Identity, secret: Secret, limits: Limits) {
        let peers = Peers::new(me, secret, limits, node as u64 + self.prng.below(1 << 40));
        let node_state = Node {
            peers,
            logs: Vec::new(),
            up: BTreeMap::new(),
            frames: Vec::new(),
            dials: 0,
            paused: false,
        };
        self.nodes.insert(node, node_state);
        self.listeners.insert(1000 + node as u16, node);
    }

    pub fn know(&mut self, node: i32, peers: Vec<Peer>) {
        let mut out = Vec::new();
        let now_ns = self.now_ns;
        self.node(node).peers.set_peers(now_ns, peers, &mut out);
        self.perform(node, out);
    }

    pub fn node(&mut self, node: i32) -> &mut Node {
        self.nodes.get_mut(&node).unwrap()
    }

    pub fn send(&mut self, from: i32, to: i32, kind: Kind, parts: Vec<Bytes>) -> bool {
        let (now_ns, mut out) = (self.now_ns, Vec::new());
        let sent = self.node(from).peers.send(now_ns, place(to, 0), kind, parts, &mut out);
        self.perform(from, out);
        sent
    }

    fn handle(&mut self, node: i32, event: Event) {
        let (now_ns, mut out) = (self.now_ns, Vec::new());
        if let Some(state) = self.nodes.get_mut(&node) {
            state.peers.handle(now_ns, event, &mut out);
            self.perform(node, out);
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.next += 1;
        ConnectionId(self.next)
    }

    fn nonce(&mut self) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.prng.next_u64().to_le_bytes()));
        nonce
    }

    fn end(&mut self, connection: ConnectionId) -> Option<(usize, usize)> {
        let of = |end: &End| end.connection == Some(connection);
        self.pipes.iter().enumerate().find_map(|(at, ends)| Some((at, ends.iter().position(of)?)))
    }

    fn perform(&mut self, node: i32, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dial { attempt, port, .. } => {
                    self.node(node).dials += 1;
                    let at = self.now_ns + (1 + self.prng.below(20)) * MS;
                    self.dials.push((at, node, attempt, port));
                }
                Effect::Undial { attempt } => self.dials.retain(|dial| (dial.1, dial.2) != (node, attempt)),
                Effect::Receive { connection, want } => {
                    let Some((pipe, side)) = self.end(connection) else { continue };
                    assert!(self.pipes[pipe][side].want.is_none(), "two receives at once");
                    self.pipes[pipe][side].want = Some(want);
                }
                Effect::Send { connection, parts } => self.queue(node, connection, &parts),
                Effect::Close { connection } => self.close(connection, true),
                Effect::Kill { connection } => self.close(connection, false),
                Effect::Up { peer, start } => {
                    assert!(self.node(node).up.insert(peer, start).is_none(), "up twice");
                }
                Effect::Down { peer } => {
                    assert!(self.node(node).up.remove(&peer).is_some(), "down before up")
                }
                Effect::Frame { from, kind, bytes } => {
                    assert!(self.node(node).up.contains_key(&from), "a frame of one who is not up");
                    self.node(node).frames.push((from, kind, bytes));
                }
                Effect::Log { text, .. } => self.node(node).logs.push(text),
            }
        }
    }

    fn queue(&mut self, node: i32, connection: ConnectionId, parts: &[Bytes]) {
        let Some((pipe, side)) = self.end(connection) else { return };
        let other = &mut self.pipes[pipe][1 - side];
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        if !other.reset {
            parts.iter().for_each(|part| other.coming.extend(part.iter()));
        }
        if !self.stuck {
            self.handle(node, Event::Sent { connection, bytes });
        }
    }

    fn close(&mut self, connection: ConnectionId, orderly: bool) {
        let Some((pipe, side)) = self.end(connection) else { return };
        let (node, other) = (self.pipes[pipe][side].node, self.pipes[pipe][1 - side].node);
        let end = &mut self.pipes[pipe][side];
        end.gone = true;
        end.connection = None;
        if !self.cut.contains(&(node, other)) {
            let far = &mut self.pipes[pipe][1 - side];
            far.other_closed = true;
            // A reset may overtake what was sent before it, or not.
            if !orderly && self.prng.one_in(2) {
                far.coming.clear();
            }
        }
        self.handle(node, Event::Closed { connection });
    }

    /// Ends all connections of a node without telling it: its process is gone.
    pub fn crash(&mut self, node: i32) {
        self.nodes.remove(&node);
        self.listeners.retain(|_, listens| *listens != node);
        self.dials.retain(|dial| dial.1 != node);
        for ends in &mut self.pipes {
            for side in 0..2 {
                if ends[side].node == node && !ends[side].gone {
                    ends[side].gone = true;
                    ends[side].connection = None;
                    ends[1 - side].other_closed = true;
                }
            }
        }
    }

    /// Breaks every connection between two nodes, seen by both.
    pub fn reset(&mut self, a: i32, b: i32) {
        for pipe in 0..self.pipes.len() {
            let ends = &mut self.pipes[pipe];
            if [ends[0].node, ends[1].node] == [a, b] || [ends[0].node, ends[1].node] == [b, a] {
                for end in ends {
                    end.coming.clear();
                    (end.other_closed, end.reset) = (true, true);
                }
            }
        }
    }

    /// Lets time pass, a millisecond a step.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ns += MS;
            self.dial();
            for pipe in 0..self.pipes.len() {
                for side in 0..2 {
                    self.deliver(pipe, side);
                }
            }
            self.pipes.retain(|ends| !(ends[0].gone && ends[1].gone));
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let (now_ns, mut out) = (self.now_ns, Vec::new());
                let state = self.node(node);
                if !state.paused && state.peers.deadline().is_some_and(|at| at <= now_ns) {
                    state.peers.tick(now_ns, &mut out);
                    assert!(state.peers.deadline().is_none_or(|at| at > now_ns), "a tick leaves nothing due");
                    self.perform(node, out);
                }
            }
        }
    }

    fn dial(&mut self) {
        let now_ns = self.now_ns;
        let due: Vec<_> = self.dials.extract_if(.., |dial| dial.0 <= now_ns).collect();
        for (_, node, attempt, port) in due {
            let Some(target) = self.listeners.get(&port).copied() else {
                let reason = "connection refused".to_string();
                self.handle(node, Event::NotDialed { attempt, reason });
                continue;
            };
            if self.cut.contains(&(node, target)) || self.cut.contains(&(target, node)) {
                continue;
            }
            let connections = [self.connection(), self.connection()];
            let end = |node, connection| End { node, connection: Some(connection), ..End::default() };
            self.pipes.push([end(node, connections[0]), end(target, connections[1])]);
            let nonce = self.nonce();
            self.handle(node, Event::Dialed { attempt, connection: connections[0], nonce });
            let (nonce, address) = (self.nonce(), format!("10.0.0.{node}:55555"));
            self.handle(target, Event::Accepted { connection: connections[1], address, nonce });
        }
    }

    fn deliver(&mut self, pipe: usize, side: usize) {
        let cut = {
            let ends = &self.pipes[pipe];
            self.cut.contains(&(ends[1 - side].node, ends[side].node))
        };
        let piece = 1 + self.prng.below(self.piece_bytes as u64) as usize;
        let end = &mut self.pipes[pipe][side];
        let Some(connection) = end.connection.filter(|_| !cut) else { return };
        if self.nodes.get(&end.node).is_none_or(|node| node.paused) {
            return;
        }
        if end.coming.is_empty() && end.other_closed {
            let node = end.node;
            end.gone = true;
            end.connection = None;
            self.pipes[pipe][1 - side].other_closed = true;
            return self.handle(node, Event::Closed { connection });
        }
        let Some(want) = end.want.take() else { return };
        match want {
            Want::Any if end.coming.is_empty() => end.want = Some(Want::Any),
            Want::Any => {
                let bytes: Vec<u8> = end.coming.drain(..piece.min(end.coming.len())).collect();
                let node = end.node;
                self.handle(node, Event::Received { connection, bytes: bytes.into() });
            }
            Want::Exact { prefix, length } => {
                let rest = length - prefix.len();
                assert!(rest > 0, "an exact receive of nothing");
                let taken: Vec<u8> = end.coming.drain(..piece.min(rest).min(end.coming.len())).collect();
                let node = end.node;
                let some = !taken.is_empty();
                let joined = Bytes::from([&prefix[..], &taken].concat());
                if joined.len() == length {
                    self.handle(node, Event::Received { connection, bytes: joined });
                } else {
                    end.want = Some(Want::Exact { prefix: joined, length });
                    if some {
                        self.handle(node, Event::Progress { connection });
                    }
                }
            }
        }
    }

    /// Every two of these nodes have one open connection.
    pub fn assert_all_up(&mut self, nodes: &[i32]) {
        for a in nodes {
            for b in nodes.iter().filter(|b| *b != a) {
                assert!(
                    self.node(*a).up.contains_key(&place(*b, 0)),
                    "{a} has no {b}: {:?}",
                    self.node(*a).logs
                );
                assert!(self.node(*a).peers.is_open(place(*b, 0)));
            }
        }
        let pairs = nodes.len() * (nodes.len() - 1) / 2;
        assert_eq!(self.pipes.len(), pairs, "one connection a pair");
    }
}
