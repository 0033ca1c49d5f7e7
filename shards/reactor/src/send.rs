//! Sending: everything a turn queued for a connection leaves in as few calls as possible, tried at once without waiting;
//! what the socket does not take waits for it to become writable.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use bytes::{Buf, Bytes};
use io_uring::{opcode, types};
use pelton_model::{ConnectionId, FetchPath};
use pelton_shard::{Event, SendPart, SendParts, peer};

use crate::context::Context;
use crate::meter;
use crate::ops::Op;
use crate::segments::Segments;
use crate::send_pieces::send_pieces;
use crate::sockets::{Connection, Sockets};

/// Pieces of one call.
const PIECES_MAX: usize = 64;
/// Bytes one connection may send in a turn; the next turn goes on, so that others get their share.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes all connections with much to send may send in a turn together: what waits for a write must not wait for them.
const BULK_BYTES_MAX: usize = 2 * 1024 * 1024;
/// More than this in a queue is much.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// How file ranges go out.
pub struct Way<'a> {
    pub segments: &'a mut Segments,
    pub path: FetchPath,
    pub now_ns: u64,
}

/// What became of trying to send.
pub enum Step {
    /// That many bytes left.
    Sent(usize),
    /// Nothing can be sent until an operation that was started is done.
    Waits,
    /// The connection is of no use any more; no reason for ordinary ends.
    Broken(Option<String>),
}

impl Sockets {
    /// Queues parts.
    pub fn send(&mut self, id: ConnectionId, parts: SendParts) {
        let Some(connection) = self.live(id) else { return };
        connection.queue.extend(parts.into_iter().filter(|part| part.length() > 0));
        self.touch(id);
    }

    /// Sends what the turn queued, and ends connections that are to be closed and have nothing left. Connections with much
    /// to send are left for [`Sockets::flush_bulk`].
    pub fn flush(&mut self, context: &mut Context, way: &mut Way<'_>) {
        for (id, outcome) in std::mem::take(&mut context.opened) {
            let Some(connection) = self.finish_op(context, id) else { continue };
            connection.send_waits = false;
            match outcome {
                Ok(()) => self.touch(id),
                Err(reason) => self.kill(context, id, Some(&reason)),
            }
        }
        for (key, outcome) in std::mem::take(&mut context.opened_pieces) {
            self.pieces.handle_opened(key, outcome);
        }
        self.wake(context);
        for id in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.connections.get_mut(id.0) else { continue };
            if connection.dead || connection.send_waits {
                connection.dirty = false;
            } else if is_bulk(&connection.queue) {
                self.bulk.push_back(id);
            } else {
                connection.dirty = false;
                self.flush_one(context, way, id);
            }
        }
    }

    /// Goes on with connections that have much to send, one after the other, as far as a turn allows.
    pub fn flush_bulk(&mut self, context: &mut Context, way: &mut Way<'_>) {
        let mut left = BULK_BYTES_MAX;
        while left > 0
            && let Some(id) = self.bulk.pop_front()
        {
            let Some(connection) = self.connections.get_mut(id.0) else { continue };
            connection.dirty = false;
            if !connection.dead && !connection.send_waits {
                left = left.saturating_sub(self.flush_one(context, way, id));
            }
        }
        self.pieces.start(context, way.segments);
    }

    /// Pieces are in memory, or cannot be read: their connections go on, or end.
    fn wake(&mut self, context: &mut Context) {
        for id in std::mem::take(&mut self.pieces.woken.ready) {
            if let Some(connection) = self.live(id)
                && std::mem::take(&mut connection.piece_waits)
            {
                connection.send_waits = false;
                self.touch(id);
            }
        }
        for (id, reason) in std::mem::take(&mut self.pieces.woken.failed) {
            self.kill(context, id, Some(&reason));
        }
    }

    fn flush_one(&mut self, context: &mut Context, way: &mut Way<'_>, id: ConnectionId) -> usize {
        let mut sent = 0;
        let Some(of_peer) = self.connections.get_mut(id.0).map(|connection| connection.peer) else {
            return 0;
        };
        let broken = loop {
            let Some(connection) = self.connections.get_mut(id.0) else { return sent };
            // A step that sent something may have found the socket full after that: one wait at a time, for a second
            // one would end while a file range is on its way into the pipe, and start it twice.
            if connection.send_waits || sent >= TURN_BYTES_MAX {
                break None;
            }
            let step = match connection.queue.front() {
                None => break None,
                Some(SendPart::Bytes(_)) => send_bytes(context, connection),
                Some(SendPart::File { .. }) if way.path == FetchPath::Direct => {
                    send_pieces(context, &mut self.pieces, connection, way.now_ns)
                }
                Some(SendPart::File { .. }) => {
                    let splice = way.path == FetchPath::Splice;
                    self.pipes.send_file(context, way.segments, &self.frames, splice, connection)
                }
            };
            match step {
                Step::Sent(bytes) => sent += bytes,
                Step::Waits => break None,
                Step::Broken(reason) => break Some(reason),
            }
        };
        report(context, of_peer, id, sent);
        if let Some(reason) = broken {
            self.kill(context, id, reason.as_deref());
            return sent;
        }
        let Some(connection) = self.live(id) else { return sent };
        if connection.send_waits {
            return sent;
        }
        if !connection.queue.is_empty() {
            self.touch(id);
        } else if let Some(reason) = connection.close.take() {
            // Of peers it is in the log already.
            self.kill(context, id, (!of_peer).then_some(reason.as_str()));
        }
        sent
    }

    /// A connection can send again.
    pub fn handle_writable(&mut self, context: &mut Context, id: ConnectionId) {
        if let Some(connection) = self.finish_op(context, id) {
            connection.send_waits = false;
            self.touch(id);
        }
    }
}

fn report(context: &mut Context, of_peer: bool, connection: ConnectionId, bytes: usize) {
    if bytes == 0 {
        return;
    }
    if of_peer {
        meter::add(&context.meter.peer_sent_bytes, bytes as u64);
        context.peer_events.push_back(peer::Event::Sent { connection, bytes });
    } else {
        meter::add(&context.meter.sent_bytes, bytes as u64);
        context.events.push_back(Event::Sent { connection, bytes });
    }
}

/// Waits until the socket takes bytes.
pub fn wait_writable(context: &mut Context, connection: &mut Connection) -> Step {
    debug_assert!(!connection.send_waits, "one wait at a time");
    let fd = types::Fd(connection.socket.as_raw_fd());
    let entry = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build();
    connection.ops += 1;
    connection.send_waits = true;
    // SAFETY: names no memory; the connection keeps its socket until `ops` is 0.
    unsafe { context.start(Op::Writable { connection: connection.id }, |_| entry) };
    Step::Waits
}

/// Sends the bytes at the front of the queue, up to the first file range.
fn send_bytes(context: &mut Context, connection: &mut Connection) -> Step {
    let pieces = || connection.queue.iter().take(PIECES_MAX).map_while(in_memory);
    let (mut count, mut total) = (0, 0);
    for piece in pieces() {
        count += 1;
        total += piece.len();
        if total >= TURN_BYTES_MAX {
            break;
        }
    }
    let more = connection.queue.len() > count;
    let sent = match transmit(context, &connection.socket, pieces().take(count), more) {
        Err(error) => return failed(context, connection, error),
        Ok(sent) => sent,
    };
    consume(&mut connection.queue, sent);
    if sent < total {
        wait_writable(context, connection);
    }
    Step::Sent(sent)
}

/// Sends bytes, at most 64 pieces of them, in one call and without waiting; with `more` others follow at once.
pub fn transmit<'a>(
    context: &Context,
    socket: &TcpStream,
    bytes: impl Iterator<Item = &'a Bytes>,
    more: bool,
) -> io::Result<usize> {
    let mut pieces = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES_MAX];
    let mut count = 0;
    for (place, bytes) in pieces.iter_mut().zip(bytes) {
        *place = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        count += 1;
    }
    // SAFETY: an all-zero msghdr is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = count;
    let more = if more { libc::MSG_MORE } else { 0 };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
    // SAFETY: the pieces point into handles borrowed for the call; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) };
    meter::add(&context.meter.sends, 1);
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

fn in_memory(part: &SendPart) -> Option<&Bytes> {
    match part {
        SendPart::Bytes(bytes) => Some(bytes),
        SendPart::File { .. } => None,
    }
}

/// True for a queue with more than goes out at once.
fn is_bulk(queue: &VecDeque<SendPart>) -> bool {
    let mut total = 0;
    queue.iter().any(|part| {
        total += part.length();
        total > SMALL_BYTES_MAX
    })
}

/// What a failed send means.
pub fn failed(context: &mut Context, connection: &mut Connection, error: std::io::Error) -> Step {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => wait_writable(context, connection),
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ETIMEDOUT) => Step::Broken(None),
        _ => Step::Broken(Some(format!("sending failed: {error}"))),
    }
}

/// Drops `sent` bytes from the front.
fn consume(queue: &mut VecDeque<SendPart>, mut sent: usize) {
    while sent > 0 {
        let Some(SendPart::Bytes(bytes)) = queue.front_mut() else { return };
        if sent < bytes.len() {
            bytes.advance(sent);
            return;
        }
        sent -= bytes.len();
        *bytes = Bytes::new();
        queue.pop_front();
    }
}
