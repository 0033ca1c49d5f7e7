//! Stored records in memory for readers that catch up: segments in whole pieces, read directly, ahead of each reader, once
//! for all that want them. Decides what to read next and what to forget; sending is `send_pieces`' business.
//!
//! A piece is true up to where its segment was known to be laid down when the read began; whoever needs more of it has it
//! read again.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use io_uring::{opcode, types};
use pelton_model::limits::BLOCK_BYTES;
use pelton_model::{AlignedBuffer, ConnectionId};
use pelton_shard::disk::SegmentFile;

use crate::clock;
use crate::context::Context;
use crate::files::{File, Lookup, Mode, Waiter, disk_error};
use crate::ops::Op;
use crate::segments::Segments;

/// Bytes of a piece; pieces lie at multiples of it.
pub const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces in memory, of all readers of a shard together.
const PIECES_MAX: usize = 48;
/// Pieces read at the same time.
const READS_MAX: usize = 4;
/// The same while the log writes: what waits for a write shall not wait for the device's queue of reads.
const READS_BESIDE_WRITES_MAX: usize = 1;
/// While the log writes, a read is followed by a pause of this part of the time it took: a device that both keep busy gets
/// slower for both, and then the reads give way.
const PAUSE_DIVISOR: u64 = 2;
/// The longest such pause, nanoseconds.
const PAUSE_NS_MAX: u64 = 20_000_000;
/// Buffers kept for the next read; fresh memory costs a page fault per 4 KiB.
const BUFFERS_KEPT: usize = 16;
/// Pieces that nobody took for this long are given up, nanoseconds.
const IDLE_NS: u64 = 2_000_000_000;
/// The idle class of I/O priority (ioprio_set(2)): a scheduler of the kernel lets writes go first. Levels within a class mean
/// nothing to mq-deadline.
const READ_PRIORITY: u16 = 3 << 13;

/// A piece: its file and its place among the file's.
pub type PieceKey = (SegmentFile, u64);

enum State {
    /// In the queue of reads.
    Queued,
    /// Being read, by the read of this number.
    Reading(u64),
    Ready(Bytes),
}

struct Piece {
    state: State,
    /// The file is true up to here, as far as those who asked know.
    laid_to: u64,
    /// The same, when the read began.
    valid_to: u64,
    waiters: Vec<ConnectionId>,
    /// The last use, monotonic nanoseconds.
    used_ns: u64,
    /// A reader has gone past it.
    passed: bool,
}

/// A read of a piece under way.
pub struct PieceRead {
    key: PieceKey,
    number: u64,
    buffer: AlignedBuffer,
    done: usize,
    file: Rc<File>,
    began_ns: u64,
}

struct Shelved {
    buffer: Option<AlignedBuffer>,
    shelf: Arc<ArrayQueue<AlignedBuffer>>,
}

impl AsRef<[u8]> for Shelved {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], AsRef::as_ref)
    }
}

impl Drop for Shelved {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // A full shelf drops it.
            let _ = self.shelf.push(buffer);
        }
    }
}

/// Connections that can go on, and those that cannot, with the reason.
#[derive(Default)]
pub struct Woken {
    pub ready: Vec<ConnectionId>,
    pub failed: Vec<(ConnectionId, String)>,
}

/// The pieces of a shard.
pub struct Pieces {
    pieces: BTreeMap<PieceKey, Piece>,
    /// Somebody waits for these; then those that are read ahead.
    wanted: VecDeque<PieceKey>,
    ahead: VecDeque<PieceKey>,
    reading: usize,
    reads: u64,
    /// No read before this time while the log writes, monotonic nanoseconds.
    pause_until_ns: u64,
    shelf: Arc<ArrayQueue<AlignedBuffer>>,
    pub woken: Woken,
}

impl Default for Pieces {
    fn default() -> Pieces {
        Pieces {
            pieces: BTreeMap::new(),
            wanted: VecDeque::new(),
            ahead: VecDeque::new(),
            reading: 0,
            reads: 0,
            pause_until_ns: 0,
            shelf: Arc::new(ArrayQueue::new(BUFFERS_KEPT)),
            woken: Woken::default(),
        }
    }
}

/// The piece that holds `position`.
pub fn index_of(position: u64) -> u64 {
    position / PIECE_BYTES as u64
}

impl Pieces {
    /// The bytes from `position` on, up to `end` or the end of the piece, if they are in memory.
    pub fn take(&mut self, file: SegmentFile, position: u64, end: u64, now_ns: u64) -> Option<Bytes> {
        let index = index_of(position);
        let piece = self.pieces.get_mut(&(file, index))?;
        let start = index * PIECE_BYTES as u64;
        let piece_end = start + PIECE_BYTES as u64;
        let end = end.min(piece_end);
        let State::Ready(bytes) = &piece.state else { return None };
        if piece.valid_to < end {
            return None;
        }
        piece.used_ns = now_ns;
        piece.passed = end == piece_end;
        Some(bytes.slice((position - start) as usize..(end - start) as usize))
    }

    /// Has a piece read that `waiter` cannot go on without.
    pub fn want(
        &mut self,
        file: SegmentFile,
        position: u64,
        (end, laid_to): (u64, u64),
        waiter: ConnectionId,
        now_ns: u64,
    ) {
        let key = (file, index_of(position));
        let end = end.min((key.1 + 1) * PIECE_BYTES as u64);
        let piece = self.pieces.entry(key).or_insert_with(|| Piece::new(laid_to, now_ns));
        piece.laid_to = piece.laid_to.max(laid_to).max(end);
        piece.used_ns = now_ns;
        piece.waiters.push(waiter);
        if matches!(piece.state, State::Ready(_)) {
            piece.state = State::Queued;
        }
        if matches!(piece.state, State::Queued) {
            self.wanted.push_back(key);
        }
    }

    /// Has the pieces from `position` to `end` read, if there is room, before somebody waits for them. With `whole` only
    /// those that will not grow any more: the others would be read twice.
    pub fn look_ahead(
        &mut self,
        file: SegmentFile,
        (position, end): (u64, u64),
        laid_to: u64,
        whole: bool,
        now_ns: u64,
    ) {
        let end = end.min(laid_to);
        if position >= end {
            return;
        }
        for index in index_of(position)..=index_of(end - 1) {
            let key = (file, index);
            let piece_end = (index + 1) * PIECE_BYTES as u64;
            match self.pieces.get_mut(&key) {
                // What is there and will be too short is read again by whoever wants it.
                Some(piece) => piece.laid_to = piece.laid_to.max(laid_to),
                None if whole && laid_to < piece_end => {}
                None if self.ahead.len() >= PIECES_MAX => return,
                None => {
                    self.pieces.insert(key, Piece::new(laid_to, now_ns));
                    self.ahead.push_back(key);
                }
            }
        }
    }

    /// True if there is memory for one more piece, after the one that was least recently used has gone: of those that were
    /// passed, or of all if `urgent`.
    fn make_room(&mut self, urgent: bool) -> bool {
        let ready = || self.pieces.iter().filter(|(_, piece)| matches!(piece.state, State::Ready(_)));
        if ready().count() + self.reading < PIECES_MAX {
            return true;
        }
        let may_go = |piece: &Piece| piece.passed || urgent;
        let oldest = ready().filter(|(_, piece)| may_go(piece)).min_by_key(|(_, piece)| piece.used_ns);
        let key = oldest.map(|(key, _)| *key);
        key.map(|key| self.pieces.remove(&key)).is_some()
    }

    /// Forgets a file that is removed or cut; reads under way are for nobody but those who wait.
    pub fn forget(&mut self, file: SegmentFile) {
        let keys = self.pieces.range((file, 0)..=(file, u64::MAX)).map(|(key, _)| *key);
        for key in keys.collect::<Vec<_>>() {
            if let Some(piece) = self.pieces.remove(&key) {
                self.woken.ready.extend(piece.waiters);
            }
        }
    }

    /// Starts reads while there may be more.
    pub fn start(&mut self, context: &mut Context, segments: &mut Segments) {
        if self.wanted.is_empty() && self.ahead.is_empty() {
            return;
        }
        let now_ns = clock::monotonic_ns();
        let beside_writes = context.is_writing(now_ns);
        let reads_max = if beside_writes { READS_BESIDE_WRITES_MAX } else { READS_MAX };
        while self.reading < reads_max && !(beside_writes && now_ns < self.pause_until_ns) {
            let Some(key) = self.wanted.pop_front().or_else(|| self.ahead.pop_front()) else { return };
            let queued = |piece: &&mut Piece| matches!(piece.state, State::Queued);
            let Some(piece) = self.pieces.get_mut(&key).filter(queued) else { continue };
            let urgent = !piece.waiters.is_empty();
            if !self.make_room(urgent) && !urgent {
                self.pieces.remove(&key);
                continue;
            }
            let Some(piece) = self.pieces.get_mut(&key) else { continue };
            let waiter = || Waiter::Piece(key);
            let Lookup::Open(file) = segments.files.lookup(context, (key.0, Mode::Direct), waiter) else {
                continue;
            };
            self.reads += 1;
            self.reading += 1;
            piece.state = State::Reading(self.reads);
            let start = key.1 * PIECE_BYTES as u64;
            piece.valid_to = piece.laid_to.min(start + PIECE_BYTES as u64);
            let buffer = self.shelf.pop().unwrap_or_else(|| AlignedBuffer::zeroed(PIECE_BYTES));
            read(context, PieceRead { key, number: self.reads, buffer, done: 0, file, began_ns: now_ns });
        }
    }

    /// The file of a queued piece is open, or cannot be.
    pub fn handle_opened(&mut self, key: PieceKey, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.wanted.push_back(key),
            Err(reason) => self.fail(key, &reason),
        }
    }

    fn fail(&mut self, key: PieceKey, reason: &str) {
        if let Some(piece) = self.pieces.remove(&key) {
            self.woken.failed.extend(piece.waiters.into_iter().map(|id| (id, reason.to_string())));
        }
    }

    /// A read is done.
    pub fn handle_read(
        &mut self,
        context: &mut Context,
        segments: &Segments,
        mut job: PieceRead,
        result: i32,
    ) {
        if matches!(-result, libc::EAGAIN | libc::EINTR) {
            return read(context, job);
        }
        self.reading -= 1;
        let now_ns = clock::monotonic_ns();
        self.pause_until_ns =
            now_ns + (now_ns.saturating_sub(job.began_ns) / PAUSE_DIVISOR).min(PAUSE_NS_MAX);
        let key = job.key;
        let Some(piece) = self.pieces.get_mut(&key) else { return };
        if !matches!(piece.state, State::Reading(number) if number == job.number) {
            return;
        }
        if result < 0 {
            let reason = disk_error("read", &segments.files.path(key.0), -result).text;
            return self.fail(key, &reason);
        }
        job.done += result as usize;
        let wanted = (piece.valid_to - key.1 * PIECE_BYTES as u64) as usize;
        if job.done < wanted {
            if result > 0 && job.done.is_multiple_of(BLOCK_BYTES) {
                self.reading += 1;
                return read(context, job);
            }
            let reason = format!("{} ends before the bytes to be sent", segments.files.path(key.0).display());
            return self.fail(key, &reason);
        }
        let shelved = Shelved { buffer: Some(job.buffer), shelf: self.shelf.clone() };
        piece.state = State::Ready(Bytes::from_owner(shelved));
        self.woken.ready.append(&mut piece.waiters);
    }

    /// Gives up what nobody has used for a while, and the memory of all when nothing is left.
    pub fn handle_time(&mut self, now_ns: u64) {
        if self.deadline().is_none_or(|at| at > now_ns) {
            return;
        }
        self.pieces
            .retain(|_, piece| !matches!(piece.state, State::Ready(_)) || piece.used_ns + IDLE_NS > now_ns);
        if self.pieces.is_empty() {
            while self.shelf.pop().is_some() {}
        }
    }

    /// When [`Pieces::handle_time`] is next due.
    pub fn deadline(&self) -> Option<u64> {
        let ready = self.pieces.values().filter(|piece| matches!(piece.state, State::Ready(_)));
        let idle_ns = ready.map(|piece| piece.used_ns + IDLE_NS).min();
        let queued = self.reading == 0 && !(self.wanted.is_empty() && self.ahead.is_empty());
        [idle_ns, queued.then_some(self.pause_until_ns)].into_iter().flatten().min()
    }
}

impl Piece {
    fn new(laid_to: u64, now_ns: u64) -> Piece {
        Piece {
            state: State::Queued,
            laid_to,
            valid_to: 0,
            waiters: Vec::new(),
            used_ns: now_ns,
            passed: false,
        }
    }
}

/// Reads the rest of a piece, in whole blocks: a segment's file consists of them.
fn read(context: &mut Context, mut job: PieceRead) {
    let offset = job.key.1 * PIECE_BYTES as u64 + job.done as u64;
    let rest = &mut job.buffer.as_mut_slice()[job.done..];
    let entry = opcode::Read::new(types::Fd(job.file.fd()), rest.as_mut_ptr(), rest.len() as u32)
        .offset(offset)
        .ioprio(READ_PRIORITY)
        .build();
    // SAFETY: the operation owns the buffer (on the heap) and the file.
    unsafe { context.start(Op::Piece(job), |_| entry) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_model::{Offset, PartitionKey, TopicId};
    use pelton_shard::disk::FileKind;

    #[test]
    fn a_reader_that_pauses_is_woken_when_the_pause_ends() {
        let partition = PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(1)), partition: 0 };
        let file = SegmentFile { partition, base_offset: Offset(0), generation: 0, kind: FileKind::Log };
        let mut pieces = Pieces { pause_until_ns: 77, ..Pieces::default() };
        assert_eq!(pieces.deadline(), None);
        pieces.want(file, 0, (10, 10), ConnectionId(1), 5);
        assert_eq!(pieces.deadline(), Some(77));
        pieces.reading = 1;
        assert_eq!(pieces.deadline(), None, "the read's end wakes it");
    }
}
