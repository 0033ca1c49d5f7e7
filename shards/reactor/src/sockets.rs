//! Client connections: their table, their life from accept to the last operation reaped, and the listener.
//! Bytes are moved by `receive`, `send` and `splice`; what they mean is the shard's business.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{cqueue, opcode, types};
use pelton_model::ConnectionId;
use pelton_shard::disk::SegmentFile;
use pelton_shard::{Event, LogLevel, SendPart};

use crate::buffers::{FramePool, ReceiveBuffers};
use crate::context::Context;
use crate::files::File;
use crate::meter;
use crate::ops::Op;
use crate::pieces::Pieces;
use crate::slab::Slab;
use crate::splice::{Pipe, Pipes};

/// Out of descriptors or memory: accept again after this long, nanoseconds.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;
/// A closing connection whose peer does not take what is queued is cut off after this long, nanoseconds.
const CLOSE_LINGER_NS: u64 = 30_000_000_000;

/// One connection.
pub struct Connection {
    pub id: ConnectionId,
    pub socket: TcpStream,
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
    listener: Option<TcpListener>,
    accepting: Option<u64>,
    accept_again_ns: Option<u64>,
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
            listener: None,
            accepting: None,
            accept_again_ns: None,
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

    /// Starts accepting on `listener`.
    pub fn listen(&mut self, context: &mut Context, listener: TcpListener) {
        self.listener = Some(listener);
        self.accept(context);
    }

    fn accept(&mut self, context: &mut Context) {
        self.accept_again_ns = None;
        if self.accepting.is_some() {
            return;
        }
        let Some(listener) = &self.listener else { return };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(flags).build();
        // SAFETY: names no memory; the listener is closed only after this operation is done.
        self.accepting = Some(unsafe { context.start(Op::Accept, |_| entry) });
    }

    /// Takes no further connections; those that wait in the kernel are refused.
    pub fn stop_listening(&mut self, context: &mut Context) {
        self.accept_again_ns = None;
        match self.accepting {
            Some(name) => context.cancel(name),
            None => self.listener = None,
        }
    }

    /// An accept operation reported. Returns the new socket.
    pub fn handle_accept(
        &mut self,
        context: &mut Context,
        result: i32,
        flags: u32,
        stopping: bool,
        now_ns: u64,
    ) -> Option<OwnedFd> {
        if !cqueue::more(flags) {
            self.accepting = None;
            if stopping {
                self.listener = None;
            } else if matches!(-result, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) {
                context.log(
                    LogLevel::Warn,
                    format!(
                        "cannot accept connections: {}; raise the limit of open files (ulimit -n, LimitNOFILE)",
                        std::io::Error::from_raw_os_error(-result)
                    ),
                );
                self.accept_again_ns = Some(now_ns + ACCEPT_PAUSE_NS);
            } else {
                self.accept(context);
            }
        }
        // SAFETY: a descriptor the kernel has just made for us.
        (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
    }

    /// Takes a new connection in and tells the shard.
    pub fn adopt(&mut self, context: &mut Context, fd: OwnedFd) {
        let socket = TcpStream::from(fd);
        let peer = socket.peer_addr().map_or_else(|_| "unknown".to_string(), |peer| peer.to_string());
        let id = ConnectionId(self.connections.insert(Connection {
            id: ConnectionId(0),
            socket,
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
        meter::add(&context.meter.connections_accepted, 1);
        self.count(context);
        context.events.push_back(Event::Accepted { connection: id, peer });
    }

    fn count(&self, context: &Context) {
        context.meter.connections.store(self.connections.len() as u64, std::sync::atomic::Ordering::Relaxed);
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
            self.count(context);
            context.events.push_back(Event::Closed { connection: id });
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
        if self.accept_again_ns.is_some_and(|at| at <= now_ns) {
            self.accept(context);
        }
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
        [linger, self.accept_again_ns, self.pieces.deadline()].into_iter().flatten().min()
    }

    /// Ends every connection, for the end of the shard.
    pub fn kill_all(&mut self, context: &mut Context) {
        for name in self.connections.names() {
            self.kill(context, ConnectionId(name), None);
        }
    }
}
