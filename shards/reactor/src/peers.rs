//! Connections to the shards of other nodes: a listener of their own, what happens to their sockets as events of
//! [`pelton_shard::peer::Peers`], which decides, and what it wants done. Frames go to the shard as they were received.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use pelton_model::Replica;
use pelton_shard::peer::{
    Effect, Event, Identity, Kind, Limits, NONCE_BYTES, Nonce, Peer, Peers, Secret, Want,
};
use pelton_shard::{LogLevel, ReceiveMode, SendPart};

use crate::acceptor::Acceptor;
use crate::context::Context;
use crate::listen::Reserved;
use crate::meter;
use crate::ops::Op;
use crate::peer_dials::Dials;
use crate::sockets::Sockets;

/// What a shard needs to meet the shards of other nodes.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// Where it listens for them. Never an address that clients use.
    pub listen: SocketAddr,
    /// Who it is.
    pub identity: Identity,
    /// What it proves, and has proven to it.
    pub secret: Secret,
    /// What they may cost.
    pub limits: Limits,
    /// Who is known at first.
    pub peers: Vec<Peer>,
}

/// What a shard hears of other nodes.
#[derive(Debug)]
pub enum PeerNews {
    /// A shard of another node is there, in this life of its data directory.
    Up { peer: Replica, start: u64 },
    /// A frame of it: part of the buffer it was received into.
    Frame { from: Replica, kind: Kind, bytes: Bytes },
    /// It is gone; what was under way in either direction may be lost.
    Down { peer: Replica },
}

/// What a shard wants of other nodes.
#[derive(Debug)]
pub enum PeerOrder {
    /// Send a frame. It is dropped if there is no connection or too much waits already; it never waits itself.
    Send { to: Replica, kind: Kind, parts: Vec<Bytes> },
    /// Know these from now on, instead of those known before.
    Know { peers: Vec<Peer> },
}

/// The peers of one shard, and its listener for them.
pub struct PeerSide {
    peers: Peers,
    acceptor: Acceptor,
    reserved: Option<Reserved>,
    dials: Dials,
    effects: Vec<Effect>,
    first: Vec<Peer>,
    /// Not delivered yet.
    pub news: VecDeque<PeerNews>,
}

/// 32 bytes nobody can guess.
fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; NONCE_BYTES];
    // SAFETY: pointer and length are of one live array. So few bytes come whole.
    let got = unsafe { libc::getrandom(nonce.as_mut_ptr().cast(), nonce.len(), 0) };
    if got == nonce.len() as isize { Ok(nonce) } else { Err(io::Error::last_os_error()) }
}

impl PeerSide {
    /// Nobody is dialed, and nobody let in, before [`PeerSide::start`].
    pub fn new(plan: PeerPlan, reserved: Reserved, seed: u64) -> PeerSide {
        PeerSide {
            peers: Peers::new(plan.identity, plan.secret, plan.limits, seed),
            acceptor: Acceptor::new(|| Op::AcceptPeer),
            reserved: Some(reserved),
            dials: Dials::default(),
            effects: Vec::new(),
            first: plan.peers,
            news: VecDeque::new(),
        }
    }

    /// Listens, and dials who is known.
    pub fn start(&mut self, context: &mut Context, sockets: &mut Sockets, now_ns: u64) -> Result<(), String> {
        if let Some(reserved) = self.reserved.take() {
            let address = reserved.address;
            let listener =
                reserved.open().map_err(|error| format!("cannot listen for nodes on {address}: {error}"))?;
            self.acceptor.listen(context, listener);
        }
        let peers = std::mem::take(&mut self.first);
        self.order(context, sockets, now_ns, PeerOrder::Know { peers });
        Ok(())
    }

    /// Does what a shard wants.
    pub fn order(&mut self, context: &mut Context, sockets: &mut Sockets, now_ns: u64, order: PeerOrder) {
        match order {
            PeerOrder::Send { to, kind, parts } => {
                let sent = self.peers.send(now_ns, to, kind, parts, &mut self.effects);
                let counted =
                    if sent { &context.meter.peer_frames_sent } else { &context.meter.peer_frames_dropped };
                meter::add(counted, 1);
            }
            PeerOrder::Know { peers } => self.peers.set_peers(now_ns, peers, &mut self.effects),
        }
        self.perform(context, sockets, now_ns);
    }

    /// Takes what happened to the sockets, and does what is due.
    pub fn turn(&mut self, context: &mut Context, sockets: &mut Sockets, now_ns: u64) {
        self.acceptor.handle_time(context, now_ns);
        self.dials.take_found(context);
        while let Some(event) = context.peer_events.pop_front() {
            self.peers.handle(now_ns, event, &mut self.effects);
            self.perform(context, sockets, now_ns);
        }
        self.peers.tick(now_ns, &mut self.effects);
        self.perform(context, sockets, now_ns);
    }

    /// When [`PeerSide::turn`] is next due.
    pub fn deadline(&self) -> Option<u64> {
        [self.peers.deadline(), self.acceptor.deadline()].into_iter().flatten().min()
    }

    /// True if [`PeerSide::turn`] would find something now.
    pub fn has_work(&self) -> bool {
        !self.news.is_empty() || self.dials.has_found()
    }

    /// Takes no further connections, and dials nobody.
    pub fn stop(&mut self, context: &mut Context) {
        self.reserved = None;
        self.acceptor.stop(context);
        self.dials.stop(context);
        self.news.clear();
    }

    /// An accept operation of the listener reported.
    pub fn handle_accept(
        &mut self,
        context: &mut Context,
        sockets: &mut Sockets,
        (result, flags): (i32, u32),
        stopping: bool,
        now_ns: u64,
    ) {
        let fd: Option<OwnedFd> = self.acceptor.handle(context, result, flags, stopping, now_ns);
        let Some(socket) = fd.map(TcpStream::from) else { return };
        let address = socket.peer_addr().map_or_else(|_| "unknown".to_string(), |peer| peer.to_string());
        match nonce() {
            Ok(nonce) => {
                let connection = sockets.adopt_peer(context, socket);
                context.peer_events.push_back(Event::Accepted { connection, address, nonce });
            }
            Err(error) => context.log(LogLevel::Error, format!("no random bytes for a connection: {error}")),
        }
    }

    /// A connect operation is done.
    pub fn handle_connect(
        &mut self,
        context: &mut Context,
        sockets: &mut Sockets,
        attempt: u64,
        socket: TcpStream,
        result: i32,
    ) {
        let Some(socket) = self.dials.handle_connect(context, attempt, socket, result) else { return };
        match nonce() {
            Ok(nonce) => {
                let connection = sockets.adopt_peer(context, socket);
                context.peer_events.push_back(Event::Dialed { attempt, connection, nonce });
            }
            Err(error) => {
                let reason = format!("no random bytes: {error}");
                context.peer_events.push_back(Event::NotDialed { attempt, reason });
            }
        }
    }

    fn perform(&mut self, context: &mut Context, sockets: &mut Sockets, now_ns: u64) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Dial { attempt, host, port } => self.dials.dial(context, attempt, host, port),
                Effect::Undial { attempt } => self.dials.undial(context, attempt),
                Effect::Receive { connection, want } => {
                    let mode = match want {
                        Want::Any => ReceiveMode::Any,
                        Want::Exact { prefix, length } => ReceiveMode::Frame { prefix, length },
                    };
                    sockets.receive(context, connection, mode);
                }
                Effect::Send { connection, parts } => {
                    let parts: Vec<SendPart> = parts.into_iter().map(SendPart::Bytes).collect();
                    sockets.send(connection, parts.into());
                }
                Effect::Close { connection } => sockets.close(connection, String::new(), now_ns),
                Effect::Kill { connection } => sockets.kill(context, connection, None),
                Effect::Up { peer, start } => self.news.push_back(PeerNews::Up { peer, start }),
                Effect::Frame { from, kind, bytes } => {
                    meter::add(&context.meter.peer_frames_received, 1);
                    self.news.push_back(PeerNews::Frame { from, kind, bytes });
                }
                Effect::Down { peer } => self.news.push_back(PeerNews::Down { peer }),
                Effect::Log { warn, text } => {
                    context.log(if warn { LogLevel::Warn } else { LogLevel::Info }, text);
                }
            }
        }
        self.effects = effects;
    }
}
