//! Connections: their table, and their life from accept or dial to the last operation reaped.
//! Bytes are moved by `receive`, `send` and `splice`; what they mean is the shard's business, of peers that of `peers`.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use pelton_model::ConnectionId;
use pelton_shard::disk::SegmentFile;
use pelton_shard::{Event, LogLevel, SendPart, peer};

use crate::acceptor::Acceptor;
use crate::buffers::{FramePool, ReceiveBuffers};
use crate::context::Context;
use crate::files::File;
use crate::meter;
use crate::ops::Op;
use crate::pieces::Pieces;
use crate::slab::Slab;
use crate::splice::{Pipe, Pipes};

/// A closing connection whose peer does not take what is queued is cut off after this long, nanoseconds.
const CLOSE_LINGER_NS: u64 = 30_000_000_000;

/// One connection.
pub struct Connection {
    pub id: ConnectionId,
    pub socket: TcpStream,
    /// Of another node: what happens to it is told to `peers`, not to the shard.
    pub peer: bool,
    /// Operations in flight that name this connection; it is kept until there are none.
    pub ops: u32,
    /// The receive in flight, if any.
    pub receiving: Option<u64>,
    /// The kernel said that more bytes wait.
    pub more_waits: bool,
    pub queue: VecDeque<SendPart>,
    /// Waiting for an operation before anything more can be sent.
    pub send_waits: bool,
    /// That is the reading of a piece, which is no operation of the connection's own.
    pub piece_waits: bool,
    /// On the list of connections to send on.
    pub dirty: bool,
    /// Bytes of the front file range that are in the pipe.
    pub in_pipe: usize,
    pub pipe: Option<Pipe>,
    pub file: Option<Rc<File>>,
    /// Close when the queue is empty, for this reason.
    pub close: Option<String>,
    /// Shut down; waiting for its operations.
    pub dead: bool,
}

/// The connections of a shard.
pub struct Sockets {
    pub connections: Slab<Connection>,
    pub buffers: ReceiveBuffers,
    pub frames: FramePool,
    pub pipes: Pipes,
    pub pieces: Pieces,
    /// Connections with something to send or to end.
    pub dirty: Vec<ConnectionId>,
    /// Those of them with much to send, in the order of their turns.
    pub bulk: VecDeque<ConnectionId>,
    /// The listener for clients.
    pub acceptor: Acceptor,
    /// Connections of other nodes among all.
    peers: usize,
    /// Connections asked to close, with the time they are cut off at; in order of time.
    lingering: VecDeque<(u64, ConnectionId)>,
}

impl Sockets {
    /// No connections yet.
    pub fn new(buffers: ReceiveBuffers, frames: FramePool) -> Sockets {
        Sockets {
            connections: Slab::default(),
            buffers,
            frames,
            pipes: Pipes::default(),
            pieces: Pieces::default(),
            dirty: Vec::new(),
            bulk: VecDeque::new(),
            acceptor: Acceptor::new(|| Op::Accept),
            peers: 0,
            lingering: VecDeque::new(),
        }
    }

    /// The connection, unless it is dead or gone.
    pub fn live(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.0).filter(|connection| !connection.dead)
    }

    /// Puts a connection on the list of those to send on.
    pub fn touch(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.0)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Whether some connection has a range of the file queued, which must stay readable until it has left. Looks at every
    /// connection; for what happens rarely.
    pub fn sends(&mut self, file: SegmentFile) -> bool {
        let names = self.connections.names();
        let of_file = |part: &SendPart| matches!(part, SendPart::File { file: named, .. } if *named == file);
        names.into_iter().any(|name| {
            self.connections.get_mut(name).is_some_and(|connection| connection.queue.iter().any(of_file))
        })
    }

    /// Takes a new connection in and tells the shard.
    pub fn adopt(&mut self, context: &mut Context, fd: OwnedFd) {
        let socket = TcpStream::from(fd);
        let peer = socket.peer_addr().map_or_else(|_| "unknown".to_string(), |peer| peer.to_string());
        let connection = self.insert(socket, false);
        meter::add(&context.meter.connections_accepted, 1);
        self.count(context);
        context.events.push_back(Event::Accepted { connection, peer });
    }

    /// Takes in a connection of another node, accepted or dialed.
    pub fn adopt_peer(&mut self, context: &mut Context, socket: TcpStream) -> ConnectionId {
        self.peers += 1;
        let connection = self.insert(socket, true);
        self.count(context);
        connection
    }

    fn insert(&mut self, socket: TcpStream, peer: bool) -> ConnectionId {
        let id = ConnectionId(self.connections.insert(Connection {
            id: ConnectionId(0),
            socket,
            peer,
            ops: 0,
            receiving: None,
            more_waits: false,
            queue: VecDeque::new(),
            send_waits: false,
            piece_waits: false,
            dirty: false,
            in_pipe: 0,
            pipe: None,
            file: None,
            close: None,
            dead: false,
        }));
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.id = id;
        }
        id
    }

    fn count(&self, context: &Context) {
        let order = std::sync::atomic::Ordering::Relaxed;
        context.meter.connections.store((self.connections.len() - self.peers) as u64, order);
        context.meter.peer_connections.store(self.peers as u64, order);
    }

    /// Closes once everything queued is sent.
    pub fn close(&mut self, id: ConnectionId, reason: String, now_ns: u64) {
        let Some(connection) = self.live(id) else { return };
        if connection.close.is_none() {
            connection.close = Some(reason);
            self.lingering.push_back((now_ns + CLOSE_LINGER_NS, id));
            self.touch(id);
        }
    }

    /// Ends a connection now: what is queued is dropped, its operations are called off, and `Closed` follows when the
    /// last of them is done. `reason` is for the log; none for an ordinary end by the peer.
    pub fn kill(&mut self, context: &mut Context, id: ConnectionId, reason: Option<&str>) {
        let Some(connection) = self.live(id) else { return };
        connection.dead = true;
        connection.queue.clear();
        let receiving = connection.receiving;
        let _ = connection.socket.shutdown(Shutdown::Both);
        if let Some(reason) = reason {
            let peer =
                connection.socket.peer_addr().map_or_else(|_| "unknown peer".to_string(), |p| p.to_string());
            context.log(LogLevel::Info, format!("closed the connection of {peer}: {reason}"));
        }
        if let Some(name) = receiving {
            context.cancel(name);
        }
        self.reap(context, id);
    }

    /// Forgets a dead connection once nothing in flight names it.
    pub fn reap(&mut self, context: &mut Context, id: ConnectionId) {
        let done =
            self.connections.get_mut(id.0).is_some_and(|connection| connection.dead && connection.ops == 0);
        if done && let Some(mut connection) = self.connections.remove(id.0) {
            // A pipe that still holds bytes of this connection must never serve another: it is dropped.
            if let Some(pipe) = connection.pipe.take()
                && connection.in_pipe == 0
            {
                self.pipes.put(pipe);
            }
            self.peers -= usize::from(connection.peer);
            self.count(context);
            if connection.peer {
                context.peer_events.push_back(peer::Event::Closed { connection: id });
            } else {
                context.events.push_back(Event::Closed { connection: id });
            }
        }
    }

    /// An operation of this connection is done; None when it is dead (and perhaps reaped just now).
    pub fn finish_op(&mut self, context: &mut Context, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.0)?;
        connection.ops -= 1;
        if connection.dead {
            self.reap(context, id);
            return None;
        }
        self.connections.get_mut(id.0)
    }

    /// Does what is due by `now_ns`.
    pub fn handle_time(&mut self, context: &mut Context, now_ns: u64) {
        self.acceptor.handle_time(context, now_ns);
        self.pieces.handle_time(now_ns);
        while let Some((at, id)) = self.lingering.front().copied() {
            if self.live(id).is_none() {
                self.lingering.pop_front();
            } else if at <= now_ns {
                self.lingering.pop_front();
                self.kill(context, id, Some("it did not take its last answers in time"));
            } else {
                break;
            }
        }
    }

    /// When [`Sockets::handle_time`] is next due.
    pub fn deadline(&self) -> Option<u64> {
        let linger = self.lingering.front().map(|(at, _)| *at);
        [linger, self.acceptor.deadline(), self.pieces.deadline()].into_iter().flatten().min()
    }

    /// Ends every connection, for the end of the shard.
    pub fn kill_all(&mut self, context: &mut Context) {
        for name in self.connections.names() {
            self.kill(context, ConnectionId(name), None);
        }
    }
}
