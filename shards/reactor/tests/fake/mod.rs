//! A small state machine with a protocol of its own, to drive every effect of the reactor from a plain socket, and the
//! client for it. Frames are a 4-byte length, an opcode and arguments; answers a 4-byte length and bytes.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pelton_model::{
    AlignedBuffer, BrokerConfig, ConnectionId, ListenerMode, Now, Offset, PartitionKey, ShardId, TopicId,
};
use pelton_reactor::{Core, Running, ShardPlan, StartError, log_to_stderr, start_core};
use pelton_shard::disk::{CheckpointFile, DiskEffect, FileKind, SegmentFile, SegmentPiece, Ticket};
use pelton_shard::{DiskImage, Effect, Event, ReceiveMode, SendPart, ShardMessage};

/// Frames longer than this are received into one exact buffer.
const EXACT_BYTES: usize = 8192;

/// Chains of stamped messages that have come to their end, in this process.
pub static STAMPED: AtomicU32 = AtomicU32::new(0);

/// A message that says when it was sent, and how often it is to be sent back.
fn stamped(to: ShardId, left: u32) -> Effect {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    let mut bytes = BytesMut::new();
    bytes.put_u64(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
    bytes.put_u32(left);
    Effect::ToShard { to, message: ShardMessage::MetadataSnapshot { snapshot: bytes.freeze() } }
}

pub struct Fake {
    image: DiskImage,
    me: ShardId,
    partial: BTreeMap<ConnectionId, BytesMut>,
    tickets: BTreeMap<u64, ConnectionId>,
    next: u64,
    unsent: BTreeMap<ConnectionId, usize>,
    tick_for: VecDeque<(u64, ConnectionId)>,
}

pub fn segment(partition: u32) -> SegmentFile {
    let topic_id = TopicId(topic_uuid());
    let partition = PartitionKey { topic_id, partition: partition as i32 };
    SegmentFile { partition, base_offset: Offset(7), generation: 0, kind: FileKind::Log }
}

fn topic_uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(0x1234)
}

fn aligned(bytes: &[u8]) -> Bytes {
    let mut buffer = AlignedBuffer::zeroed(bytes.len());
    buffer.as_mut_slice().copy_from_slice(bytes);
    buffer.freeze()
}

fn framed(bytes: Bytes) -> Vec<SendPart> {
    let length = Bytes::copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    vec![SendPart::Bytes(length), SendPart::Bytes(bytes)]
}

impl Fake {
    fn answer(&mut self, connection: ConnectionId, parts: Vec<SendPart>, out: &mut Vec<Effect>) {
        *self.unsent.entry(connection).or_default() += parts.iter().map(SendPart::length).sum::<usize>();
        out.push(Effect::Send { connection, parts: parts.into() });
    }

    fn ticket(&mut self, connection: ConnectionId) -> Ticket {
        self.next += 1;
        self.tickets.insert(self.next, connection);
        Ticket(self.next)
    }

    fn request(&mut self, now: Now, connection: ConnectionId, mut frame: Bytes, out: &mut Vec<Effect>) {
        let opcode = frame.get_u8();
        match opcode {
            b'e' => self.answer(connection, framed(frame), out),
            b'g' => {
                let length = frame.get_u32() as usize;
                self.answer(connection, framed(Bytes::from(vec![b'g'; length])), out);
            }
            b'f' => {
                let (file, position, length) =
                    (segment(frame.get_u32()), frame.get_u64(), frame.get_u32() as usize);
                let header = Bytes::copy_from_slice(&(length as u32 + 8).to_be_bytes());
                let trailer = Bytes::from_static(b"trailer!");
                let parts = vec![
                    SendPart::Bytes(header),
                    SendPart::File { file, position, length, laid_to: position + length as u64 },
                    SendPart::Bytes(trailer),
                ];
                self.answer(connection, parts, out);
            }
            b'i' => {
                let mut answer = BytesMut::new();
                for checkpoint in &self.image.checkpoints {
                    answer.put_u64(checkpoint.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64));
                }
                answer.put_slice(&self.image.journal[..16384]);
                self.answer(connection, framed(answer.freeze()), out);
            }
            b'h' => {
                let answer = Bytes::copy_from_slice(&self.me.0.to_be_bytes());
                self.answer(connection, framed(answer), out);
            }
            b'x' => {
                let to = ShardId(frame.get_u16());
                out.push(Effect::ToShard { to, message: ShardMessage::WatchFired { id: connection.0 } });
            }
            b'y' => {
                let (to, count) = (ShardId(frame.get_u16()), frame.get_u32());
                (0..8).for_each(|_| out.push(stamped(to, count)));
                self.answer(connection, framed(Bytes::new()), out);
            }
            b'z' => {
                let at = now.after_ms(i64::from(frame.get_u32()));
                self.tick_for.push_back((at, connection));
            }
            b'q' => out.push(Effect::Close { connection, reason: "asked to".to_string() }),
            b'!' => panic!("asked to panic"),
            _ => self.disk(connection, opcode, frame, out),
        }
    }

    fn disk(&mut self, connection: ConnectionId, opcode: u8, mut frame: Bytes, out: &mut Vec<Effect>) {
        let ticket = self.ticket(connection);
        let effect = match opcode {
            b'J' => {
                let (position, sync) = (frame.get_u64(), frame.get_u8() == 1);
                DiskEffect::JournalWrite { ticket, position, bytes: aligned(&frame), sync }
            }
            b'K' => DiskEffect::JournalSync { ticket },
            b'C' => {
                let slot = frame.get_u8();
                DiskEffect::CheckpointWrite { ticket, slot, file: CheckpointFile::Bytes(frame) }
            }
            b'A' => {
                let pieces = std::iter::from_fn(|| {
                    frame.has_remaining().then(|| {
                        let (number, position) = (frame.get_u32(), frame.get_u64());
                        let length = frame.get_u32() as usize;
                        let bytes = frame.split_to(length);
                        let parts = vec![bytes.slice(..length / 3), bytes.slice(length / 3..)];
                        SegmentPiece { file: segment(number), position, parts }
                    })
                });
                DiskEffect::SegmentsAppend { ticket, pieces: pieces.collect() }
            }
            _ => {
                let file = segment(frame.get_u32());
                match opcode {
                    b'W' => {
                        let position = frame.get_u64();
                        // Not aligned in memory on purpose: the reactor must cope.
                        DiskEffect::SegmentWrite { ticket, file, position, bytes: frame }
                    }
                    b'L' => {
                        let position = frame.get_u64();
                        let middle = frame.len() / 8192 * 4096;
                        let parts = vec![frame.slice(..middle), frame.slice(middle..)];
                        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
                        DiskEffect::SegmentLay { ticket, file, position, parts }
                    }
                    b'S' => DiskEffect::SegmentSync { ticket, file },
                    b'R' => {
                        let (position, length) = (frame.get_u64(), frame.get_u32() as usize);
                        DiskEffect::SegmentRead { ticket, file, position, length }
                    }
                    b'T' => DiskEffect::SegmentTruncate { ticket, file, length: frame.get_u64() },
                    b'D' => DiskEffect::FileDelete { ticket, file },
                    other => panic!("opcode {other}"),
                }
            }
        };
        out.push(Effect::Disk(effect));
    }

    fn receive(&mut self, now: Now, connection: ConnectionId, bytes: Bytes, out: &mut Vec<Effect>) {
        assert!(!bytes.is_empty());
        let mut buffer = self.partial.remove(&connection).expect("bytes of a connection that is closed");
        buffer.extend_from_slice(&bytes);
        let mut buffer = buffer.freeze();
        let mode = loop {
            if buffer.len() < 4 {
                break ReceiveMode::Any;
            }
            let length = u32::from_be_bytes(buffer[..4].try_into().unwrap()) as usize;
            if buffer.len() < 4 + length {
                if length > EXACT_BYTES {
                    break ReceiveMode::Frame { prefix: std::mem::take(&mut buffer), length: 4 + length };
                }
                break ReceiveMode::Any;
            }
            let frame = buffer.slice(4..4 + length);
            buffer.advance(4 + length);
            self.request(now, connection, frame, out);
        };
        self.partial.insert(connection, BytesMut::from(&buffer[..]));
        out.push(Effect::Receive { connection, mode });
    }
}

impl Core for Fake {
    fn start(
        _: Arc<BrokerConfig>,
        plan: &ShardPlan,
        image: DiskImage,
        _: u64,
        _: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Fake, String> {
        if image.checkpoints[0].as_deref() == Some(b"bad") {
            return Err("the checkpoint is bad; make it good".to_string());
        }
        out.push(Effect::Ready);
        Ok(Fake {
            image,
            me: plan.shard,
            partial: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next: 0,
            unsent: BTreeMap::new(),
            tick_for: VecDeque::new(),
        })
    }

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Accepted { connection, peer } => {
                assert!(peer.starts_with("127.0.0.1:"), "{peer}");
                self.partial.insert(connection, BytesMut::new());
                out.push(Effect::Receive { connection, mode: ReceiveMode::Any });
            }
            Event::Received { connection, bytes } => self.receive(now, connection, bytes, out),
            Event::Sent { connection, bytes } => {
                let unsent = self.unsent.get_mut(&connection).expect("sent on a connection that is closed");
                *unsent = unsent.checked_sub(bytes).expect("more was sent than queued");
            }
            Event::Closed { connection } => {
                assert!(self.partial.remove(&connection).is_some(), "closed twice");
                self.unsent.remove(&connection);
            }
            Event::Disk(done) => {
                let connection = self.tickets.remove(&done.ticket.0).expect("a ticket finishes once");
                let mut answer = BytesMut::new();
                match done.result {
                    Ok(bytes) => {
                        answer.put_u8(0);
                        answer.put_slice(&bytes);
                    }
                    Err(error) => {
                        answer.put_u8(if error.no_space { 2 } else { 1 });
                        answer.put_slice(error.text.as_bytes());
                    }
                }
                if self.partial.contains_key(&connection) {
                    self.answer(connection, framed(answer.freeze()), out);
                }
            }
            Event::FromShard { from, message } => match message {
                ShardMessage::WatchFired { id } => {
                    out.push(Effect::ToShard { to: from, message: ShardMessage::Unwatch { id } });
                }
                ShardMessage::Unwatch { id } => {
                    let answer = Bytes::copy_from_slice(&from.0.to_be_bytes());
                    if self.partial.contains_key(&ConnectionId(id)) {
                        self.answer(ConnectionId(id), framed(answer), out);
                    }
                }
                ShardMessage::MetadataSnapshot { mut snapshot } => {
                    let (sent_ns, left) = (snapshot.get_u64(), snapshot.get_u32());
                    assert!(
                        now.monotonic_ns >= sent_ns,
                        "the clock was read before the message was taken in"
                    );
                    match left {
                        0 => STAMPED.fetch_add(1, Ordering::SeqCst),
                        _ => {
                            out.push(stamped(from, left - 1));
                            0
                        }
                    };
                }
                other => panic!("{other:?}"),
            },
            Event::Tick => {
                while let Some((at, connection)) = self.tick_for.front().copied()
                    && at <= now.monotonic_ns
                {
                    self.tick_for.pop_front();
                    self.answer(connection, framed(Bytes::from_static(b"tick")), out);
                }
            }
            Event::Volume { total_bytes, usable_bytes } => assert!(total_bytes >= usable_bytes),
            Event::Stop => out.push(Effect::Stopped),
            // Frames of other nodes come to this machine as news (`handle_peer`).
            other => panic!("{other:?}"),
        }
    }

    fn end_turn(&mut self, _: Now, _: &mut Vec<Effect>) {}

    fn deadline(&self) -> Option<u64> {
        self.tick_for.front().map(|(at, _)| *at)
    }
}

/// A directory of this test alone, on a real disk.
pub fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = PathBuf::from(option_env!("CARGO_TARGET_TMPDIR").unwrap_or("/tmp")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

pub fn config() -> BrokerConfig {
    BrokerConfig { journal_bytes: 4 << 20, ..BrokerConfig::defaults() }
}

pub fn try_start(directory: &std::path::Path, config: BrokerConfig) -> Result<Running, StartError> {
    let plans = (0..config.shards)
        .map(|shard| ShardPlan {
            shard: ShardId(shard),
            cpu: None,
            directory: directory.join(format!("shard-{shard}")),
            partitions_directory: directory.join("partitions"),
            listen: (config.mode == ListenerMode::Direct || shard == 0)
                .then(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            peers: None,
            cluster: None,
        })
        .collect();
    std::fs::create_dir_all(directory).unwrap();
    start_core::<Fake>(plans, Arc::new(config), log_to_stderr())
}

pub fn run(config: BrokerConfig) -> (Running, PathBuf) {
    let directory = directory();
    (try_start(&directory, config).unwrap(), directory)
}

pub fn stop(running: Running, directory: &std::path::Path) {
    running.request_stop();
    running.join().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

/// A blocking client.
pub struct Client(pub TcpStream);

impl Client {
    pub fn new(running: &Running) -> Client {
        Client::at(running.addresses()[0].unwrap())
    }

    pub fn at(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream)
    }

    pub fn send(&mut self, opcode: u8, arguments: &[&[u8]]) {
        let length: usize = arguments.iter().map(|part| part.len()).sum();
        let mut frame = (length as u32 + 1).to_be_bytes().to_vec();
        frame.push(opcode);
        arguments.iter().for_each(|part| frame.extend_from_slice(part));
        self.0.write_all(&frame).unwrap();
    }

    pub fn try_receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer)?;
        Ok(answer)
    }

    pub fn receive(&mut self) -> Vec<u8> {
        self.try_receive().unwrap()
    }

    pub fn ask(&mut self, opcode: u8, arguments: &[&[u8]]) -> Vec<u8> {
        self.send(opcode, arguments);
        self.receive()
    }

    /// Asks for a disk operation that must succeed.
    pub fn disk(&mut self, opcode: u8, arguments: &[&[u8]]) -> Vec<u8> {
        let answer = self.ask(opcode, arguments);
        assert_eq!(answer[0], 0, "{}", String::from_utf8_lossy(&answer[1..]));
        answer[1..].to_vec()
    }
}

/// Bytes that differ from place to place.
pub fn pattern(seed: u32, length: usize) -> Vec<u8> {
    let mut prng = pelton_model::Prng::new(u64::from(seed));
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&prng.next_u64().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
