//! Receiving: into pooled buffers when anything may come, into one exact buffer when the length is known.

use std::os::fd::AsRawFd;

use bytes::Bytes;
use io_uring::{cqueue, opcode, squeue, types};
use pelton_model::ConnectionId;
use pelton_shard::{Event, LogLevel, ReceiveMode, peer};

use crate::buffers::{BUFFER_BYTES, BUFFER_GROUP, FrameBuffer};
use crate::context::Context;
use crate::meter;
use crate::ops::Op;
use crate::sockets::Sockets;

/// IORING_RECVSEND_POLL_FIRST: wait for bytes before trying; saves a failing try when none can be there yet.
const POLL_FIRST: u16 = 1;
/// A peer's long message is received in steps of this many bytes, so that a slow one is told from a silent one.
const PEER_STEP_BYTES: usize = 1 << 20;
/// Our own buffer when the pool is empty.
const SPARE_BYTES: usize = 16 * 1024;

impl Sockets {
    /// Receives once.
    pub fn receive(&mut self, context: &mut Context, id: ConnectionId, mode: ReceiveMode) {
        let buffer = match &mode {
            ReceiveMode::Any => None,
            ReceiveMode::Frame { prefix, length } => Some(self.frames.get(prefix, *length)),
        };
        let Some(connection) = self.live(id) else { return };
        if connection.receiving.is_some() {
            return context.log(LogLevel::Error, "asked to receive twice at once on a connection; ignored");
        }
        if let Some(buffer) = buffer {
            if buffer.is_full() {
                let (of_peer, bytes) = (connection.peer, buffer.freeze());
                return received(context, of_peer, id, bytes);
            }
            return self.receive_into(context, id, buffer);
        }
        let fd = types::Fd(connection.socket.as_raw_fd());
        let poll_first = if connection.more_waits { 0 } else { POLL_FIRST };
        let entry = opcode::Recv::new(fd, std::ptr::null_mut(), BUFFER_BYTES as u32)
            .ioprio(poll_first)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        connection.ops += 1;
        // SAFETY: the kernel picks a buffer of the registered ring; the connection keeps its socket until `ops` is 0.
        let name = unsafe { context.start(Op::Receive { connection: id, buffer: None }, |_| entry) };
        connection.receiving = Some(name);
    }

    fn receive_into(&mut self, context: &mut Context, id: ConnectionId, mut buffer: FrameBuffer) {
        let Some(connection) = self.live(id) else { return };
        let (pointer, rest) = buffer.rest();
        let exact = if buffer.whole { libc::MSG_WAITALL } else { 0 };
        let length = rest.min(if connection.peer { PEER_STEP_BYTES } else { 1 << 30 }) as u32;
        let fd = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Recv::new(fd, pointer, length).flags(exact).build();
        connection.ops += 1;
        // SAFETY: the operation owns the buffer, on the heap; the connection keeps its socket until `ops` is 0.
        let name = unsafe { context.start(Op::Receive { connection: id, buffer: Some(buffer) }, |_| entry) };
        connection.receiving = Some(name);
    }

    /// A receive is done.
    pub fn handle_receive(
        &mut self,
        context: &mut Context,
        id: ConnectionId,
        buffer: Option<FrameBuffer>,
        result: i32,
        flags: u32,
    ) {
        // Taken first of all, whatever became of the connection: the pooled buffer must come back.
        let pooled =
            cqueue::buffer_select(flags).map(|index| self.buffers.take(index, result.max(0) as usize));
        let Some(connection) = self.finish_op(context, id) else { return };
        connection.receiving = None;
        connection.more_waits = cqueue::sock_nonempty(flags);
        let of_peer = connection.peer;
        match -result {
            libc::ENOBUFS => {
                meter::add(&context.meter.receive_buffer_misses, 1);
                self.buffers.ran_out();
                let mut spare = self.frames.get(&[], SPARE_BYTES);
                spare.whole = false;
                return self.receive_into(context, id, spare);
            }
            libc::EINTR | libc::EAGAIN => {
                return match buffer {
                    Some(buffer) => self.receive_into(context, id, buffer),
                    None => self.receive(context, id, ReceiveMode::Any),
                };
            }
            errno if errno >= 0 => return self.kill(context, id, None),
            _ => {}
        }
        let counted =
            if of_peer { &context.meter.peer_received_bytes } else { &context.meter.received_bytes };
        meter::add(counted, result as u64);
        let bytes = match (buffer, pooled) {
            (Some(mut buffer), _) => {
                // SAFETY: the kernel reported that many bytes written where `rest` pointed.
                unsafe { buffer.advance(result as usize) };
                if buffer.whole && !buffer.is_full() {
                    if of_peer {
                        context.peer_events.push_back(peer::Event::Progress { connection: id });
                    }
                    return self.receive_into(context, id, buffer);
                }
                buffer.freeze()
            }
            (None, Some(bytes)) => bytes,
            (None, None) => return self.kill(context, id, Some("the kernel named no receive buffer")),
        };
        if !of_peer {
            meter::add(&context.meter.receives, 1);
        }
        received(context, of_peer, id, bytes);
    }
}

fn received(context: &mut Context, of_peer: bool, connection: ConnectionId, bytes: Bytes) {
    if of_peer {
        context.peer_events.push_back(peer::Event::Received { connection, bytes });
    } else {
        context.events.push_back(Event::Received { connection, bytes });
    }
}
