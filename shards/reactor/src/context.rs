//! What every part of a shard's loop needs at hand: the ring with the operations in flight, the events to deliver, the
//! meter and the log. Holds no policy.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use io_uring::squeue;
use pelton_model::{ConnectionId, ShardId};
use pelton_shard::disk::{DiskDone, DiskError, Ticket};
use pelton_shard::{Event, LogLevel, peer};

use crate::log::Logger;
use crate::meter::{self, Meter};
use crate::ops::Op;
use crate::pieces::PieceKey;
use crate::ring::Ring;
use crate::slab::Slab;
use crate::sync::Bell;

/// So long after its last write began the log counts as writing, nanoseconds.
const WRITING_NS: u64 = 10_000_000;
/// Niceness of the pool's threads.
const BACKGROUND_NICE: i32 = 10;

/// Results of work done by the blocking pool, and how much of it is still out.
#[derive(Default)]
pub struct Background {
    /// Finished, not yet delivered; filled by the pool's threads.
    pub done: Arc<SegQueue<DiskDone>>,
    /// Started, not yet delivered.
    pub running: usize,
    /// Handed to the executor, not yet to the pool.
    pub unstarted: Rc<Cell<usize>>,
}

/// Makes the calling thread give way to the shards: what the pool does nobody waits for.
fn stand_back() {
    // SAFETY: a plain system call; 0 is the calling thread. A refusal changes nothing but the order of work.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND_NICE) };
}

/// See the module.
pub struct Context {
    pub shard: ShardId,
    pub ring: Ring,
    pub ops: Slab<Op>,
    pub events: VecDeque<Event>,
    /// What happened to connections of other nodes.
    pub peer_events: VecDeque<peer::Event>,
    /// Connections waiting for a file that is now open (or failed, with the reason).
    pub opened: Vec<(ConnectionId, Result<(), String>)>,
    /// Pieces whose file is open now, or not.
    pub opened_pieces: Vec<(PieceKey, Result<(), String>)>,
    /// Writes and syncs of the log under way.
    pub writes: Vec<Ticket>,
    /// When the last of them began, monotonic nanoseconds.
    pub wrote_ns: u64,
    pub background: Background,
    /// Written to when a background job ends.
    pub bell: Arc<Bell>,
    pub meter: Arc<Meter>,
    pub log: Logger,
}

impl Context {
    /// Starts an operation. `build` makes the entry from the operation in its final place and may name only memory the
    /// operation owns on the heap (it stays put when the operation moves), or memory that outlives the ring.
    ///
    /// # Safety
    /// As said for `build`; descriptors named must be kept open by the operation or until it has completed.
    pub unsafe fn start(&mut self, op: Op, build: impl FnOnce(&mut Op) -> squeue::Entry) -> u64 {
        let name = self.ops.insert(op);
        let op = self.ops.get_mut(name).expect("it was put in on the line above");
        let entry = build(op).user_data(name);
        // SAFETY: the operation stays in the slab until its completion; the rest is the caller's promise.
        unsafe { self.ring.push(entry) };
        name
    }

    /// Asks the kernel to give up an operation; its completion still comes.
    pub fn cancel(&mut self, name: u64) {
        let entry = io_uring::opcode::AsyncCancel::new(name).build();
        // SAFETY: the entry names no memory.
        unsafe { self.start(Op::Ignored, |_| entry) };
    }

    /// Reports a disk operation's end to the shard.
    pub fn disk_done(&mut self, ticket: Ticket, result: Result<bytes::Bytes, DiskError>) {
        if result.is_err() {
            meter::add(&self.meter.disk_errors, 1);
        }
        if let Some(place) = self.writes.iter().position(|write| *write == ticket) {
            self.writes.swap_remove(place);
        }
        self.events.push_back(Event::Disk(DiskDone { ticket, result }));
    }

    /// Whether the log writes, or did a moment ago: between two writes of a busy log there is none in flight.
    pub fn is_writing(&self, now_ns: u64) -> bool {
        !self.writes.is_empty() || self.wrote_ns + WRITING_NS > now_ns
    }

    /// Tells the shard that a removal was not made, though nothing is wrong: it asks again later.
    pub fn put_off(&mut self, ticket: Ticket, text: &str) {
        let error = DiskError { no_space: false, text: text.to_string() };
        self.events.push_back(Event::Disk(DiskDone { ticket, result: Err(error) }));
    }

    /// Runs `work`, which may block, on the blocking pool and reports its result as the end of `ticket`.
    pub fn spawn_blocking(
        &mut self,
        ticket: Ticket,
        work: impl FnOnce() -> Result<bytes::Bytes, DiskError> + Send + 'static,
    ) {
        let (done, bell) = (self.background.done.clone(), self.bell.clone());
        let unstarted = self.background.unstarted.clone();
        self.background.running += 1;
        unstarted.set(unstarted.get() + 1);
        glommio::spawn_local(async move {
            // The result goes straight to the shard, which may be asleep in its ring, not by way of the executor.
            let job = glommio::executor().spawn_blocking(move || {
                stand_back();
                done.push(DiskDone { ticket, result: work() });
                bell.ring();
            });
            unstarted.set(unstarted.get() - 1);
            job.await;
        })
        .detach();
    }

    /// Writes a log line that names the shard.
    pub fn log(&self, level: LogLevel, text: impl AsRef<str>) {
        self.log.write(level, format!("shard {}: {}", self.shard.0, text.as_ref()));
    }
}
