//! File ranges to sockets: through a pipe without copying, or read and sent. The disk side never runs on the shard's
//! thread unless the pages are known to be in memory. A pipe that may hold bytes of one connection never serves another.

use std::fs::File as StdFile;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use bytes::Bytes;
use io_uring::{opcode, types};
use pelton_model::ConnectionId;
use pelton_shard::SendPart;

use crate::buffers::{FrameBuffer, FramePool};
use crate::context::Context;
use crate::files::{Lookup, Mode, Waiter};
use crate::meter;
use crate::ops::Op;
use crate::segments::Segments;
use crate::send::{Step, failed, wait_writable};
use crate::sockets::{Connection, Sockets};

/// Bytes a pipe is asked to hold.
const PIPE_BYTES: usize = 1024 * 1024;
/// Ranges up to this long that are in memory are moved at once rather than by a worker thread.
const INLINE_BYTES_MAX: usize = 128 * 1024;
/// Read at once when splice is off.
const READ_BYTES: usize = 512 * 1024;
/// Idle pipes kept: unprivileged users have 64 MiB of pipe memory in all.
const PIPES_KEPT: usize = 16;
/// cachestat(2), since Linux 6.5; one number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
const PAGE_BYTES: u64 = 4096;

/// A pipe.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both are fresh.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        // SAFETY: plain system calls; a refusal leaves the default size.
        let capacity = unsafe {
            libc::fcntl(fds[1], libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int);
            libc::fcntl(fds[1], libc::F_GETPIPE_SZ)
        };
        Ok(Pipe { read, write, capacity: usize::try_from(capacity).unwrap_or(65536) })
    }
}

/// Idle, empty pipes.
#[derive(Default)]
pub struct Pipes {
    idle: Vec<Pipe>,
    /// The kernel has no cachestat: everything goes by worker threads.
    no_cachestat: bool,
}

/// True if all pages of the range are in memory.
fn is_resident(fd: RawFd, position: u64, length: usize) -> io::Result<bool> {
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    let range = Range { offset: position, length: length as u64 };
    let mut counts = [0u64; 5];
    // SAFETY: a live range and room for the five counters of struct cachestat.
    let code = unsafe { libc::syscall(SYS_CACHESTAT, fd, &raw const range, counts.as_mut_ptr(), 0) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    let pages = (position + length as u64 - 1) / PAGE_BYTES - position / PAGE_BYTES + 1;
    Ok(counts[0] >= pages)
}

impl Pipes {
    fn get(&mut self) -> io::Result<Pipe> {
        self.idle.pop().map_or_else(Pipe::new, Ok)
    }

    /// Keeps an empty pipe for later.
    pub fn put(&mut self, pipe: Pipe) {
        if self.idle.len() < PIPES_KEPT {
            self.idle.push(pipe);
        }
    }

    /// Sends some of the file range at the front of the queue.
    pub fn send_file(
        &mut self,
        context: &mut Context,
        segments: &mut Segments,
        frames: &FramePool,
        splice: bool,
        connection: &mut Connection,
    ) -> Step {
        if connection.in_pipe > 0 {
            return self.drain(context, connection);
        }
        let Some(SendPart::File { file, position, length, .. }) = connection.queue.front() else {
            return Step::Broken(Some("no file range at the front".to_string()));
        };
        let (segment, position, length) = (*file, *position, *length);
        if connection.file.is_none() {
            let id = connection.id;
            match segments.files.lookup(context, (segment, Mode::Read), || Waiter::Connection(id)) {
                Lookup::Open(file) => connection.file = Some(file),
                Lookup::Later => {
                    connection.ops += 1;
                    connection.send_waits = true;
                    return Step::Waits;
                }
            }
        }
        if !splice {
            return read_to_send(context, frames, connection, position, length);
        }
        if connection.pipe.is_none() {
            match self.get() {
                Ok(pipe) => connection.pipe = Some(pipe),
                // No pipe to be had: reading works without.
                Err(_) => return read_to_send(context, frames, connection, position, length),
            }
        }
        self.fill(context, connection, position, length)
    }

    /// Moves file bytes into the connection's pipe.
    fn fill(
        &mut self,
        context: &mut Context,
        connection: &mut Connection,
        position: u64,
        length: usize,
    ) -> Step {
        let (Some(file), Some(pipe)) = (&connection.file, &connection.pipe) else {
            return Step::Broken(Some("no file or pipe to fill from".to_string()));
        };
        let length = length.min(pipe.capacity);
        let (from, to) = (file.fd(), pipe.write.as_raw_fd());
        if length <= INLINE_BYTES_MAX && !self.no_cachestat {
            match is_resident(from, position, length) {
                Ok(true) => {
                    let mut offset = position as i64;
                    let flags = libc::SPLICE_F_NONBLOCK;
                    // SAFETY: live descriptors and a live offset.
                    let moved =
                        unsafe { libc::splice(from, &mut offset, to, std::ptr::null_mut(), length, flags) };
                    return filled(connection, moved as i32).unwrap_or(Step::Sent(0));
                }
                Ok(false) => {}
                Err(_) => self.no_cachestat = true,
            }
        }
        debug_assert!(!connection.send_waits, "one wait at a time");
        let entry =
            opcode::Splice::new(types::Fd(from), position as i64, types::Fd(to), -1, length as u32).build();
        let op = Op::Fill { connection: connection.id, _file: file.clone() };
        connection.ops += 1;
        connection.send_waits = true;
        // SAFETY: names no memory; the operation keeps the file, and the connection its pipe until `ops` is 0.
        unsafe { context.start(op, |_| entry) };
        Step::Waits
    }

    /// Moves bytes from the pipe into the socket.
    fn drain(&mut self, context: &mut Context, connection: &mut Connection) -> Step {
        let Some(SendPart::File { length, .. }) = connection.queue.front() else {
            return Step::Broken(Some("bytes in the pipe of no file range".to_string()));
        };
        let Some(pipe) = &connection.pipe else {
            return Step::Broken(Some("bytes in no pipe".to_string()));
        };
        // On all but the last piece: left on at the end it would hold the tail back.
        let more = *length > connection.in_pipe || connection.queue.len() > 1;
        let flags = libc::SPLICE_F_NONBLOCK | if more { libc::SPLICE_F_MORE } else { 0 };
        let (from, to) = (pipe.read.as_raw_fd(), connection.socket.as_raw_fd());
        let null = std::ptr::null_mut();
        // SAFETY: live descriptors, no offsets.
        let moved = unsafe { libc::splice(from, null, to, null, connection.in_pipe, flags) };
        meter::add(&context.meter.sends, 1);
        if moved < 0 {
            return failed(context, connection, io::Error::last_os_error());
        }
        let moved = moved as usize;
        meter::add(&context.meter.sent_file_bytes, moved as u64);
        connection.in_pipe -= moved;
        if moved == 0 {
            return Step::Broken(Some("the socket takes nothing from the pipe".to_string()));
        }
        let waits = connection.in_pipe > 0;
        self.sent_of_file(connection, moved);
        if waits {
            wait_writable(context, connection);
        }
        Step::Sent(moved)
    }

    /// Accounts for bytes of the front range that have left; ends the range with its last byte.
    fn sent_of_file(&mut self, connection: &mut Connection, moved: usize) {
        if let Some(SendPart::File { length, .. }) = connection.queue.front_mut() {
            *length -= moved;
            if *length > 0 {
                return;
            }
        }
        connection.queue.pop_front();
        connection.file = None;
        if connection.in_pipe == 0
            && let Some(pipe) = connection.pipe.take()
        {
            self.put(pipe);
        }
    }
}

/// `moved` bytes came into the pipe, or none did: then why not.
fn filled(connection: &mut Connection, moved: i32) -> Option<Step> {
    if let Some(SendPart::File { position, length, .. }) = connection.queue.front_mut()
        && moved > 0
    {
        *position += moved as u64;
        debug_assert!(moved as usize <= *length);
        connection.in_pipe = moved as usize;
        return None;
    }
    Some(Step::Broken(Some(match moved {
        0 => "a segment ends before the bytes to be sent".to_string(),
        _ => "reading a segment failed".to_string(),
    })))
}

/// Reads a piece of the front range into memory, to be sent from there.
fn read_to_send(
    context: &mut Context,
    frames: &FramePool,
    connection: &mut Connection,
    position: u64,
    length: usize,
) -> Step {
    let Some(file) = connection.file.clone() else { return Step::Broken(None) };
    let mut buffer = frames.get(&[], length.min(READ_BYTES));
    let (pointer, rest) = buffer.rest();
    let entry = opcode::Read::new(types::Fd(file.fd()), pointer, rest as u32).offset(position).build();
    let op = Op::ReadToSend { connection: connection.id, _file: file, buffer };
    connection.ops += 1;
    connection.send_waits = true;
    // SAFETY: the operation owns the buffer (on the heap) and the file.
    unsafe { context.start(op, |_| entry) };
    Step::Waits
}

impl Sockets {
    /// A pipe is filled by a worker thread.
    pub fn handle_fill(&mut self, context: &mut Context, id: ConnectionId, result: i32) {
        if result > 0
            && let Some(connection) = self.connections.get_mut(id.0)
            && connection.dead
        {
            // So that the pipe is dropped and not given to another.
            connection.in_pipe = result as usize;
        }
        let Some(connection) = self.finish_op(context, id) else { return };
        connection.send_waits = false;
        if matches!(-result, libc::EAGAIN | libc::EINTR) {
            return self.touch(id);
        }
        match filled(connection, result) {
            Some(Step::Broken(reason)) => self.kill(context, id, reason.as_deref()),
            _ => self.touch(id),
        }
    }

    /// A piece of a file is read.
    pub fn handle_read_to_send(
        &mut self,
        context: &mut Context,
        id: ConnectionId,
        mut buffer: FrameBuffer,
        result: i32,
    ) {
        let Some(connection) = self.finish_op(context, id) else { return };
        connection.send_waits = false;
        if matches!(-result, libc::EAGAIN | libc::EINTR) {
            return self.touch(id);
        }
        if result <= 0 {
            let reason = match result {
                0 => "a segment ends before the bytes to be sent".to_string(),
                _ => format!("reading a segment failed: {}", io::Error::from_raw_os_error(-result)),
            };
            return self.kill(context, id, Some(&reason));
        }
        // SAFETY: the kernel reported that many bytes read to where `rest` pointed.
        unsafe { buffer.advance(result as usize) };
        let bytes: Bytes = buffer.freeze();
        meter::add(&context.meter.sent_file_bytes, bytes.len() as u64);
        if let Some(SendPart::File { position, length, .. }) = connection.queue.front_mut() {
            *position += bytes.len() as u64;
            *length -= bytes.len();
            if *length == 0 {
                connection.queue.pop_front();
                connection.file = None;
            }
        }
        connection.queue.push_front(SendPart::Bytes(bytes));
        self.touch(id);
    }
}

/// For tests and the self-test: a pipe and a file can be spliced at all.
pub fn splice_works(file: &StdFile) -> io::Result<()> {
    let pipe = Pipe::new()?;
    let mut offset = 0;
    let (from, to) = (file.as_raw_fd(), pipe.write.as_raw_fd());
    // SAFETY: live descriptors and a live offset.
    let moved =
        unsafe { libc::splice(from, &mut offset, to, std::ptr::null_mut(), 4096, libc::SPLICE_F_NONBLOCK) };
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
