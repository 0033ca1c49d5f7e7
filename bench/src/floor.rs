//! The floor: the least a produce path can cost on this machine. One thread, one io_uring, Produce frames cut and walked in
//! place, every batch's CRC checked, answers of a turn sent together; optionally durable (see `floor_journal`). It has no
//! log to read back, no recovery, no limits: never a broker.

use crate::floor_journal::{Journal, Ticket};
use crate::frames::{self, Reader};
use crate::{Outcome, batch, sys};
use io_uring::{IoUring, opcode, types};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// Receive buffer of a connection: the largest request, bytes.
const INPUT: usize = 2 << 20;
/// Kinds of completions, in the top byte of user_data.
pub(crate) const ACCEPT: u64 = 1 << 56;
const RECV: u64 = 2 << 56;
pub(crate) const WRITE: u64 = 3 << 56;
const POLLOUT: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;

/// How the floor runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub port: u16,
    /// Journal file and the number of durable writes in flight; none: answers at once.
    pub durable: Option<(PathBuf, usize)>,
    /// How long to poll before sleeping, microseconds.
    pub spin_us: u64,
}

struct Conn {
    fd: OwnedFd,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    polling: bool,
}

struct Floor {
    port: u16,
    conns: Vec<Option<Conn>>,
    /// Connections with answers to send in this turn.
    dirty: Vec<usize>,
    topics: BTreeMap<String, Vec<i64>>,
    journal: Option<Journal>,
}

/// Serves until the process is killed; prints `ready` on stderr.
pub fn serve(options: &Options) -> Outcome<()> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let listener = TcpListener::bind(("127.0.0.1", options.port)).map_err(io("bind"))?;
    sys::cubic(listener.as_raw_fd())?;
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(8192)
        .build(1024)
        .map_err(io("io_uring with SINGLE_ISSUER and DEFER_TASKRUN (kernel 6.1 or later)"))?;
    let journal = options.durable.as_ref().map(|(path, depth)| Journal::open(path, *depth)).transpose()?;
    let mut floor =
        Floor { port: options.port, conns: Vec::new(), dirty: Vec::new(), topics: BTreeMap::new(), journal };
    push(&mut ring, &accept(&listener));
    eprintln!("ready 127.0.0.1:{}", options.port);
    let mut done = Vec::with_capacity(8192);
    let mut busy = std::time::Instant::now();
    loop {
        let want = usize::from(options.spin_us == 0 || busy.elapsed().as_micros() as u64 > options.spin_us);
        match ring.submit_and_wait(want) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => {
                return Err(format!("io_uring_enter: {error}"));
            }
            _ => {}
        }
        done.extend(ring.completion().map(|entry| (entry.user_data(), entry.result())));
        if !done.is_empty() {
            busy = std::time::Instant::now();
        }
        for (tag, result) in done.drain(..) {
            match tag & KIND {
                ACCEPT => {
                    floor.accepted(&mut ring, result);
                    push(&mut ring, &accept(&listener));
                }
                RECV => floor.received(&mut ring, (tag & !KIND) as usize, result)?,
                WRITE => floor.wrote(tag & !KIND, result)?,
                _ => floor.writable((tag & !KIND) as usize),
            }
        }
        floor.end_turn(&mut ring);
    }
}

fn accept(listener: &TcpListener) -> io_uring::squeue::Entry {
    let fd = types::Fd(listener.as_raw_fd());
    opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
        .flags(libc::SOCK_CLOEXEC)
        .build()
        .user_data(ACCEPT)
}

/// Queues an operation; hands the queue to the kernel first when it is full.
pub(crate) fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) {
    // SAFETY: every buffer given to the ring is owned by a `Conn` or `Journal` group that lives until its completion.
    while unsafe { ring.submission().push(entry) }.is_err() {
        let _ = ring.submit();
    }
}

impl Floor {
    fn accepted(&mut self, ring: &mut IoUring, fd: i32) {
        if fd < 0 {
            return;
        }
        let one = 1i32;
        // SAFETY: a fresh descriptor from accept with no other owner; the option value outlives the call.
        let fd = unsafe {
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const one).cast(), 4);
            OwnedFd::from_raw_fd(fd)
        };
        let conn = Conn { fd, input: vec![0; INPUT], filled: 0, output: Vec::new(), polling: false };
        self.conns.push(Some(conn));
        self.receive(ring, self.conns.len() - 1);
    }

    fn receive(&mut self, ring: &mut IoUring, id: usize) {
        let Some(conn) = &mut self.conns[id] else { return };
        let room = &mut conn.input[conn.filled..];
        let entry = opcode::Recv::new(types::Fd(conn.fd.as_raw_fd()), room.as_mut_ptr(), room.len() as u32);
        push(ring, &entry.build().user_data(RECV | id as u64));
    }

    fn received(&mut self, ring: &mut IoUring, id: usize, result: i32) -> Outcome<()> {
        let Some(mut conn) = self.conns[id].take() else { return Ok(()) };
        if result <= 0 {
            return Ok(());
        }
        conn.filled += result as usize;
        let mut pos = 0;
        while let Some(size) = conn.input[pos..conn.filled].first_chunk::<4>() {
            let size = i32::from_be_bytes(*size) as usize;
            if size > INPUT - 4 {
                return Ok(());
            }
            if conn.filled - pos - 4 < size {
                break;
            }
            if let Err(error) = self.handle(id, &conn.input[pos + 4..pos + 4 + size], &mut conn.output) {
                eprintln!("connection {id} closed: {error}");
                return Ok(());
            }
            pos += 4 + size;
        }
        if pos > 0 {
            conn.input.copy_within(pos..conn.filled, 0);
            conn.filled -= pos;
        }
        self.conns[id] = Some(conn);
        self.dirty.push(id);
        self.receive(ring, id);
        Ok(())
    }

    fn handle(&mut self, id: usize, frame: &[u8], output: &mut Vec<u8>) -> Outcome<()> {
        let mut reader = Reader::new(frame);
        let api = (reader.i16()?, reader.i16()?);
        let correlation_id = reader.i32()?;
        reader.string()?;
        match api {
            frames::PRODUCE => self.produce(id, correlation_id, reader, output),
            frames::METADATA => {
                reader.count()?;
                self.metadata(correlation_id, reader.string()?, output);
                Ok(())
            }
            frames::CREATE_TOPICS => {
                reader.count()?;
                let name = reader.string()?;
                let partitions = reader.i32()?;
                let error = if self.topics.contains_key(name) { 36i16 } else { 0 };
                self.topics
                    .entry(name.to_string())
                    .or_insert_with(|| vec![0; partitions.clamp(1, 10_000) as usize]);
                let start = begin(output, correlation_id);
                output.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
                put_string(output, name);
                output.extend_from_slice(&error.to_be_bytes());
                output.extend_from_slice(&(-1i16).to_be_bytes());
                end(output, start);
                Ok(())
            }
            other => Err(format!("the floor does not serve API {} version {}", other.0, other.1)),
        }
    }

    /// Walks a Produce in place: CRC of the batch, next offset; the answer at once or after the journal write.
    fn produce(
        &mut self,
        id: usize,
        correlation_id: i32,
        mut reader: Reader<'_>,
        output: &mut Vec<u8>,
    ) -> Outcome<()> {
        reader.i16()?;
        reader.i16()?;
        reader.i32()?;
        reader.count()?;
        let topic = reader.string()?;
        reader.count()?;
        let partition = reader.i32()?;
        let records = reader.blob()?;
        if batch::length(records) != Some(records.len()) || records.len() < batch::HEADER {
            return Err("a Produce without exactly one batch".into());
        }
        let field = |i: usize| i32::from_be_bytes(records[i..i + 4].try_into().expect("four bytes"));
        let next = self.topics.get_mut(topic).and_then(|offsets| offsets.get_mut(partition as usize));
        let (error, base) = match next {
            None => (3i16, -1),
            Some(_) if batch::crc32c(&records[21..]) != field(17) as u32 => (2, -1),
            Some(next) => {
                let base = *next;
                *next += i64::from(field(23)) + 1;
                (0, base)
            }
        };
        let mut answer = |output: &mut Vec<u8>| {
            let start = begin(output, correlation_id);
            output.extend_from_slice(&1i32.to_be_bytes());
            put_string(output, topic);
            output.extend_from_slice(&1i32.to_be_bytes());
            output.extend_from_slice(&partition.to_be_bytes());
            output.extend_from_slice(&error.to_be_bytes());
            output.extend_from_slice(&base.to_be_bytes());
            output.extend_from_slice(&(-1i64).to_be_bytes());
            output.extend_from_slice(&0i64.to_be_bytes());
            output.extend_from_slice(&0i32.to_be_bytes());
            end(output, start);
        };
        match &mut self.journal {
            Some(journal) if error == 0 => journal.append(records, id, &mut answer),
            _ => answer(output),
        }
        Ok(())
    }

    fn metadata(&self, correlation_id: i32, topic: &str, output: &mut Vec<u8>) {
        let start = begin(output, correlation_id);
        output.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        put_string(output, "127.0.0.1");
        output.extend_from_slice(&i32::from(self.port).to_be_bytes());
        output.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1]);
        let partitions = self.topics.get(topic).map_or(0, Vec::len);
        output.extend_from_slice(&(if partitions == 0 { 3i16 } else { 0 }).to_be_bytes());
        put_string(output, topic);
        output.push(0);
        output.extend_from_slice(&(partitions as i32).to_be_bytes());
        for index in 0..partitions as i32 {
            output.extend_from_slice(&[0, 0]);
            output.extend_from_slice(&index.to_be_bytes());
            output.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
        }
        end(output, start);
    }

    fn wrote(&mut self, group: u64, result: i32) -> Outcome<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        for Ticket { conn, answer } in journal.wrote(group, result)? {
            if let Some(conn_state) = &mut self.conns[conn] {
                conn_state.output.extend_from_slice(&answer);
                self.dirty.push(conn);
            }
        }
        Ok(())
    }

    fn writable(&mut self, id: usize) {
        if let Some(conn) = &mut self.conns[id] {
            conn.polling = false;
            self.dirty.push(id);
        }
    }

    /// Starts the journal write of what this turn collected and sends the answers that are due.
    fn end_turn(&mut self, ring: &mut IoUring) {
        if let Some(journal) = &mut self.journal {
            journal.submit(ring);
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(conn) = &mut self.conns[id] else { continue };
            if conn.output.is_empty() || conn.polling {
                continue;
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: pointer and length are of one live vector.
            let n = unsafe {
                libc::send(conn.fd.as_raw_fd(), conn.output.as_ptr().cast(), conn.output.len(), flags)
            };
            conn.output.drain(..n.max(0) as usize);
            if !conn.output.is_empty() {
                conn.polling = true;
                let poll = opcode::PollAdd::new(types::Fd(conn.fd.as_raw_fd()), libc::POLLOUT as u32);
                push(ring, &poll.build().user_data(POLLOUT | id as u64));
            }
        }
    }
}

/// Starts an answer: room for its size, and the correlation id.
fn begin(output: &mut Vec<u8>, correlation_id: i32) -> usize {
    let start = output.len();
    output.extend_from_slice(&[0; 4]);
    output.extend_from_slice(&correlation_id.to_be_bytes());
    start
}

fn end(output: &mut [u8], start: usize) {
    let size = (output.len() - start - 4) as i32;
    output[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

fn put_string(output: &mut Vec<u8>, text: &str) {
    output.extend_from_slice(&(text.len() as i16).to_be_bytes());
    output.extend_from_slice(text.as_bytes());
}
