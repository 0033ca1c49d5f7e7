//! The loop of a shard: completions and messages become events, the shard's effects become operations, one
//! `io_uring_enter` per turn, and sleep when nothing is left to do. Decides nothing the shard could decide.
//!
//! A shard sleeps in its own ring, not in the executor's: one system call per wake-up instead of about seven. So the
//! executor gets its turn only when there is work for its pool, see [`let_executor_run`].

use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use io_uring::{opcode, types};
use pelton_model::{BrokerConfig, ListenerMode, Now, Replica, ShardId};
use pelton_shard::disk::DiskEffect;
use pelton_shard::{Effect, Event, LogLevel, ShardMessage, peer};

use crate::clock;
use crate::context::Context;
use crate::core::Core;
use crate::journal::Journal;
use crate::listen::Reserved;
use crate::mailbox::{Command, Mailbox};
use crate::meter;
use crate::ops::Op;
use crate::peers::{PeerOrder, PeerSide};
use crate::ring::Completion;
use crate::segments::Segments;
use crate::send::Way;
use crate::sockets::Sockets;
use crate::volume::Volume;

/// Completions and messages taken in one turn: bounds the time until answers leave.
const COMPLETIONS_PER_TURN: usize = 512;
/// After the end, operations in flight are waited for this long, milliseconds.
const FINISH_MS: u64 = 5000;
/// Exit code when a shard's own state is in doubt (sysexits: EX_SOFTWARE).
const EXIT_FATAL: i32 = 70;

/// What travels between the shards of a process.
pub enum Parcel {
    /// The shards' own business.
    Message(ShardMessage),
    /// A connection accepted for the receiver (one listener for all shards).
    Connection(OwnedFd),
}

/// Ends the process at once: the state of a shard is in doubt, and its lease lapses by itself.
pub fn die(shard: ShardId, text: &str) -> ! {
    eprintln!("FATAL shard {}: {text}; the process ends so that nothing wrong is acknowledged", shard.0);
    // SAFETY: a plain system call; destructors must not run on doubtful state.
    unsafe { libc::_exit(EXIT_FATAL) }
}

/// Ends the process if the thread unwinds through it.
pub struct DieOnPanic(pub ShardId);

impl Drop for DieOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            die(self.0, "a panic in the shard, see above");
        }
    }
}

/// Gives the executor's other tasks one go.
///
/// The timer is the way out of a bug of glommio-ng 0.12.0 (`LocalExecutor::run_task_queues`): when the preempt timer has
/// fired before the first queue is looked at, because the thread was descheduled meanwhile, the executor goes to sleep
/// although tasks are runnable. A bare yield hung a shard about once in 100 000 with a preempt timer of 1 ms.
async fn let_executor_run() {
    let mut way_out = pin!(glommio::timer::sleep(Duration::from_millis(1)));
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        let timer = way_out.as_mut().poll(context);
        context.waker().wake_by_ref();
        if timer.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One shard's loop.
pub struct Driver<C> {
    /// First, so that the ring is gone before the memory it writes to.
    pub context: Context,
    pub sockets: Sockets,
    pub segments: Segments,
    pub journal: Journal,
    pub mailbox: Mailbox<Parcel>,
    pub core: C,
    /// Other nodes; none for a node alone.
    pub peers: Option<PeerSide>,
    pub config: Arc<BrokerConfig>,
    /// The listener to open when all shards are ready.
    pub reserved: Option<Reserved>,
    pub effects: Vec<Effect>,
    pub state: State,
}

/// Where the loop stands.
#[derive(Default)]
pub struct State {
    now: Now,
    completions: Vec<Completion>,
    /// The read of the bell in flight.
    bell: Option<u64>,
    ready: bool,
    opened: bool,
    stopping: bool,
    stopped: bool,
    /// The loop is over: nothing begins any more.
    finishing: bool,
    /// Whose turn it is to get a connection (one listener for all shards).
    next_shard: usize,
    /// When there was last something to do.
    worked_ns: u64,
    volume: Volume,
    /// A reason to end in error.
    failed: Option<String>,
}

impl<C: Core> Driver<C> {
    /// Runs until the process is told to stop and every shard has.
    pub async fn run(mut self, on_ready: impl FnOnce()) -> Result<(), String> {
        let mut on_ready = Some(on_ready);
        self.state.now = clock::now();
        if let Some(peers) = &mut self.peers {
            peers.start(&mut self.context, &mut self.sockets, self.state.now.monotonic_ns)?;
        }
        self.perform_effects();
        loop {
            self.turn()?;
            if self.state.opened
                && let Some(on_ready) = on_ready.take()
            {
                on_ready();
            }
            if self.is_over() {
                break;
            }
            // The executor must take blocking work to its pool, and now and then clean up after it.
            if self.context.background.unstarted.get() > 0 || glommio::executor().need_preempt() {
                let_executor_run().await;
            } else if !self.is_busy() && !self.spin() {
                self.park()?;
            }
        }
        self.finish().await
    }

    fn turn(&mut self) -> Result<(), String> {
        self.state.now = clock::now();
        self.take_completions();
        self.take_mail();
        self.take_command();
        self.take_peers();
        // Read after what has come was taken in: by this clock the shard judges whether it may still answer that (rule L8).
        // Read before it, a pause in between would let a lease that has ended vouch for a request that came after its end.
        self.state.now = clock::now();
        let now = self.state.now;
        self.take_time();
        if !self.context.events.is_empty() {
            self.state.worked_ns = now.monotonic_ns;
            let news = self.state.volume.look(self.segments.files.root_fd(), now.monotonic_ns);
            news.into_iter().for_each(|event| self.context.events.push_front(event));
        }
        self.deliver();
        self.flush();
        self.deliver();
        self.core.end_turn(now, &mut self.effects);
        self.perform_effects();
        if let Some(until_ns) = self.core.lease_until_ns() {
            self.context.meter.lease_until_ns.store(until_ns, Ordering::Relaxed);
        }
        self.flush();
        self.segments.files.close_unused(&mut self.context);
        self.sockets.buffers.offer();
        self.open_when_all_are_ready();
        let (sent, waiting) = self.mailbox.flush();
        meter::add(&self.context.meter.messages_sent, sent as u64);
        meter::add(&self.context.meter.messages_delayed, waiting as u64);
        self.context.ring.enter().map_err(|error| format!("io_uring_enter: {error}"))?;
        self.flush_bulk();
        self.take_peers();
        self.context.meter.turn(clock::monotonic_ns() - now.monotonic_ns);
        self.state.failed.take().map_or(Ok(()), Err)
    }

    fn take_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.state.completions);
        self.context.ring.take(COMPLETIONS_PER_TURN, &mut completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.state.completions = completions;
        while let Some(done) = self.context.background.done.pop() {
            self.context.background.running -= 1;
            self.context.disk_done(done.ticket, done.result);
        }
    }

    fn complete(&mut self, Completion { name, result, flags }: Completion) {
        if io_uring::cqueue::more(flags) {
            // Only accepting completes more than once.
            let of_peers = matches!(self.context.ops.get_mut(name), Some(Op::AcceptPeer));
            return if of_peers { self.accepted_peer(result, flags) } else { self.accepted(result, flags) };
        }
        let Some(op) = self.context.ops.remove(name) else { return };
        let context = &mut self.context;
        match op {
            Op::Accept => self.accepted(result, flags),
            Op::AcceptPeer => self.accepted_peer(result, flags),
            Op::Connect { attempt, socket, .. } => {
                if let Some(peers) = &mut self.peers {
                    peers.handle_connect(context, &mut self.sockets, attempt, socket, result);
                }
            }
            Op::Receive { connection, buffer } => {
                self.sockets.handle_receive(context, connection, buffer, result, flags);
            }
            Op::Writable { connection } => self.sockets.handle_writable(context, connection),
            Op::Fill { connection, .. } => self.sockets.handle_fill(context, connection, result),
            Op::ReadToSend { connection, buffer, .. } => {
                self.sockets.handle_read_to_send(context, connection, buffer, result);
            }
            Op::Piece(job) => self.sockets.pieces.handle_read(context, &self.segments, job, result),
            Op::Bell { .. } => self.state.bell = None,
            Op::Open { key, path, mkdirs } => {
                if let Some(opened) = self.segments.files.handle_open(context, (key, path, mkdirs), result) {
                    self.segments.handle_opened(context, opened);
                }
            }
            Op::Mkdir { key, path, mkdirs, .. } => {
                if let Some(opened) = self.segments.files.handle_mkdir(context, (key, path, mkdirs), result) {
                    self.segments.handle_opened(context, opened);
                }
            }
            Op::Journal(job) => self.journal.handle(context, job, result),
            Op::Segment(job) => self.segments.handle(context, job, result),
            Op::Ignored => {}
        }
    }

    fn accepted(&mut self, result: i32, flags: u32) {
        let (stopping, now_ns) = (self.state.stopping, self.state.now.monotonic_ns);
        let fd = self.sockets.acceptor.handle(&mut self.context, result, flags, stopping, now_ns);
        let Some(fd) = fd else { return };
        let shards = self.mailbox.mesh().shards();
        if self.config.mode == ListenerMode::Single && shards > 1 {
            let to = self.state.next_shard % shards;
            self.state.next_shard = to + 1;
            if to != usize::from(self.context.shard.0) {
                return self.mailbox.send(to, Parcel::Connection(fd));
            }
        }
        self.sockets.adopt(&mut self.context, fd);
    }

    fn accepted_peer(&mut self, result: i32, flags: u32) {
        let (over, now_ns) = (self.state.finishing, self.state.now.monotonic_ns);
        if let Some(peers) = &mut self.peers {
            peers.handle_accept(&mut self.context, &mut self.sockets, (result, flags), over, now_ns);
        }
    }

    fn take_peers(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.turn(&mut self.context, &mut self.sockets, self.state.now.monotonic_ns);
        }
    }

    fn take_mail(&mut self) {
        let (context, sockets, stopping) = (&mut self.context, &mut self.sockets, self.state.stopping);
        let taken = self.mailbox.receive(COMPLETIONS_PER_TURN, |from, parcel| match parcel {
            Parcel::Message(message) => {
                context.events.push_back(Event::FromShard { from: ShardId(from as u16), message });
            }
            Parcel::Connection(fd) if stopping => drop(fd),
            Parcel::Connection(fd) => sockets.adopt(context, fd),
        });
        meter::add(&self.context.meter.messages_received, taken as u64);
    }

    fn take_command(&mut self) {
        match self.mailbox.command() {
            Command::Stop if !self.state.stopping => {
                self.state.stopping = true;
                self.sockets.acceptor.stop(&mut self.context);
                self.context.events.push_back(Event::Stop);
            }
            _ => {}
        }
    }

    fn take_time(&mut self) {
        let now_ns = self.state.now.monotonic_ns;
        self.sockets.handle_time(&mut self.context, now_ns);
        if self.core.deadline().is_some_and(|at| at <= now_ns) {
            self.context.events.push_back(Event::Tick);
        }
    }

    fn deliver(&mut self) {
        while let Some(event) = self.context.events.pop_front() {
            self.core.handle(self.state.now, event, &mut self.effects);
            self.perform_effects();
        }
        while let Some(news) = self.peers.as_mut().and_then(|peers| peers.news.pop_front()) {
            self.core.handle_peer(self.state.now, news, &mut self.effects);
            self.perform_effects();
        }
    }

    fn flush(&mut self) {
        let now_ns = self.state.now.monotonic_ns;
        let mut way = Way { segments: &mut self.segments, path: self.config.fetch_path, now_ns };
        self.sockets.flush(&mut self.context, &mut way);
    }

    /// Sends to those who get much, and reads ahead for them: after what waits for a write has gone to the device.
    fn flush_bulk(&mut self) {
        let now_ns = self.state.now.monotonic_ns;
        let mut way = Way { segments: &mut self.segments, path: self.config.fetch_path, now_ns };
        self.sockets.flush_bulk(&mut self.context, &mut way);
    }

    fn perform_effects(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
        let Some(peers) = &mut self.peers else { return };
        while let Some(order) = self.core.take_peer_order() {
            peers.order(&mut self.context, &mut self.sockets, self.state.now.monotonic_ns, order);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let context = &mut self.context;
        match effect {
            Effect::Receive { connection, mode } => self.sockets.receive(context, connection, mode),
            Effect::Send { connection, parts } => self.sockets.send(connection, parts),
            Effect::Close { connection, reason } => {
                self.sockets.close(connection, reason, self.state.now.monotonic_ns);
            }
            Effect::Disk(effect) => self.perform_disk(effect),
            Effect::ToShard { to, message } => {
                if usize::from(to.0) >= self.mailbox.mesh().shards() {
                    return context
                        .log(LogLevel::Error, format!("a message to shard {}, which is not here", to.0));
                }
                self.mailbox.send(usize::from(to.0), Parcel::Message(message));
            }
            Effect::ToPeer { to, parts } => self.send_to_peer(to, peer::Kind::Replica, parts),
            Effect::ToMember { node, bytes } => {
                let to = Replica { node, shard: peer::MEMBER_SHARD };
                self.send_to_peer(to, peer::Kind::Member, vec![bytes]);
            }
            Effect::Ready => {
                if !self.state.ready {
                    self.state.ready = true;
                    self.mailbox.mesh().ready.fetch_add(1, Ordering::SeqCst);
                    self.mailbox.mesh().wake_all();
                }
            }
            Effect::Log { level, text } => self.context.log.write(level, text),
            Effect::Stopped => {
                if !self.state.stopped {
                    self.state.stopped = true;
                    self.mailbox.mesh().stopped.fetch_add(1, Ordering::SeqCst);
                    self.mailbox.mesh().wake_all();
                }
            }
            Effect::Fatal { text } => die(context.shard, &text),
        }
    }

    /// Dropped on a node alone: it has nobody to send to.
    fn send_to_peer(&mut self, to: Replica, kind: peer::Kind, parts: Vec<Bytes>) {
        let now_ns = self.state.now.monotonic_ns;
        if let Some(peers) = &mut self.peers {
            peers.order(&mut self.context, &mut self.sockets, now_ns, PeerOrder::Send { to, kind, parts });
        }
    }

    fn perform_disk(&mut self, effect: DiskEffect) {
        let (context, segments, journal) = (&mut self.context, &mut self.segments, &mut self.journal);
        if let DiskEffect::JournalWrite { ticket, .. }
        | DiskEffect::JournalSync { ticket }
        | DiskEffect::SegmentWrite { ticket, .. }
        | DiskEffect::SegmentLay { ticket, .. }
        | DiskEffect::SegmentsAppend { ticket, .. }
        | DiskEffect::SegmentSync { ticket, .. } = &effect
        {
            context.writes.push(*ticket);
            context.wrote_ns = self.state.now.monotonic_ns;
        }
        match effect {
            DiskEffect::JournalWrite { ticket, position, bytes, sync } => {
                journal.write(context, ticket, position, bytes, sync);
            }
            DiskEffect::JournalSync { ticket } => journal.sync(context, ticket),
            DiskEffect::SegmentWrite { ticket, file, position, bytes } => {
                segments.write(context, ticket, file, position, bytes);
            }
            DiskEffect::SegmentLay { ticket, file, position, parts } => {
                segments.lay(context, ticket, file, position, parts);
            }
            DiskEffect::SegmentSync { ticket, file } => segments.sync(context, ticket, file),
            DiskEffect::SegmentRead { ticket, file, position, length } => {
                segments.read(context, ticket, file, position, length);
            }
            DiskEffect::SegmentTruncate { ticket, file, length } => {
                self.sockets.pieces.forget(file);
                segments.truncate(context, ticket, file, length);
            }
            DiskEffect::FileDelete { ticket, file } if self.sockets.sends(file) => {
                context.put_off(ticket, "a client is still being sent the file");
            }
            DiskEffect::FileDelete { ticket, file } => {
                self.sockets.pieces.forget(file);
                segments.delete(context, ticket, file);
            }
            DiskEffect::SegmentsAppend { ticket, pieces } => segments.append(context, ticket, pieces),
            DiskEffect::CheckpointWrite { ticket, slot, file } => {
                journal.write_checkpoint(context, ticket, slot, file);
            }
        }
    }

    /// Clients see the broker only when all of it is there: a shard's answers name the others.
    fn open_when_all_are_ready(&mut self) {
        let mesh = self.mailbox.mesh();
        if self.state.opened || mesh.ready.load(Ordering::SeqCst) < mesh.shards() {
            return;
        }
        self.state.opened = true;
        if self.state.stopping {
            return;
        }
        if let Some(reserved) = self.reserved.take() {
            let address = reserved.address;
            match reserved.open() {
                Ok(listener) => self.sockets.acceptor.listen(&mut self.context, listener),
                Err(error) => self.state.failed = Some(format!("cannot listen on {address}: {error}")),
            }
        }
    }

    fn is_over(&self) -> bool {
        let mesh = self.mailbox.mesh();
        self.mailbox.command() == Command::Abort
            || (self.state.stopped && mesh.stopped.load(Ordering::SeqCst) >= mesh.shards())
    }

    fn is_busy(&mut self) -> bool {
        !self.context.events.is_empty()
            || !self.context.peer_events.is_empty()
            || self.peers.as_ref().is_some_and(PeerSide::has_work)
            || !self.sockets.dirty.is_empty()
            || !self.sockets.bulk.is_empty()
            || !self.context.opened.is_empty()
            || !self.context.opened_pieces.is_empty()
            || self.context.ring.has_work()
            || self.mailbox.has_mail()
            || self.mailbox.is_held_up()
            || !self.context.background.done.is_empty()
            || self.has_news()
    }

    /// Something other threads say by flags rather than by mail has not been taken in.
    fn has_news(&self) -> bool {
        let mesh = self.mailbox.mesh();
        let (shards, command) = (mesh.shards(), self.mailbox.command());
        (command == Command::Stop && !self.state.stopping)
            || self.is_over()
            || (!self.state.opened && mesh.ready.load(Ordering::SeqCst) >= shards)
    }

    fn deadline(&self) -> Option<u64> {
        let peers = self.peers.as_ref().and_then(PeerSide::deadline);
        [self.core.deadline(), self.sockets.deadline(), peers].into_iter().flatten().min()
    }

    /// Looks for work without sleeping, for as long as the configuration allows after the last work. True if there is
    /// some.
    fn spin(&mut self) -> bool {
        let spin_ns = self.config.spin_us * 1000;
        if spin_ns == 0 {
            return false;
        }
        let until = self.state.worked_ns.saturating_add(spin_ns).min(self.deadline().unwrap_or(u64::MAX));
        while clock::monotonic_ns() < until {
            for _ in 0..16 {
                if self.is_busy() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    /// Sleeps until a completion, a message, a command or the deadline.
    fn park(&mut self) -> Result<(), String> {
        let timeout_ns = match self.deadline() {
            None => None,
            Some(at_ns) => match at_ns.saturating_sub(clock::monotonic_ns()) {
                0 => return Ok(()),
                ns => Some(ns),
            },
        };
        self.listen_to_bell();
        let mut result = Ok(());
        if self.mailbox.fall_asleep() {
            meter::add(&self.context.meter.parks, 1);
            result = self.context.ring.wait(timeout_ns);
            self.mailbox.wake_up();
        }
        result.map_err(|error| format!("io_uring_enter: {error}"))
    }

    /// Has a read of the bell in flight, so that ringing it is a completion like any other.
    fn listen_to_bell(&mut self) {
        if self.state.bell.is_some() {
            return;
        }
        let fd = types::Fd(self.context.bell.as_raw_fd());
        let build = |op: &mut Op| {
            let Op::Bell { count } = op else { return opcode::Nop::new().build() };
            opcode::Read::new(fd, std::ptr::from_mut(&mut **count).cast(), 8).build()
        };
        // SAFETY: the operation owns the count, on the heap; the bell is open as long as the context.
        self.state.bell = Some(unsafe { self.context.start(Op::Bell { count: Box::new(0) }, build) });
    }

    /// Ends connections and waits for the kernel to let go of our memory.
    async fn finish(mut self) -> Result<(), String> {
        self.state.stopping = true;
        self.state.finishing = true;
        self.reserved = None;
        if let Some(peers) = &mut self.peers {
            peers.stop(&mut self.context);
        }
        self.sockets.kill_all(&mut self.context);
        self.sockets.acceptor.stop(&mut self.context);
        self.segments.files.forget_all();
        self.segments.files.close_unused(&mut self.context);
        if let Some(name) = self.state.bell {
            self.context.cancel(name);
        }
        let until = clock::monotonic_ns() + FINISH_MS * 1_000_000;
        while self.context.ops.len() > 0 || self.context.background.running > 0 {
            if clock::monotonic_ns() > until {
                self.context
                    .log(LogLevel::Warn, "operations still in flight at the end; their memory is left alone");
                std::mem::forget(self);
                return Ok(());
            }
            self.take_completions();
            self.context.events.clear();
            self.context.peer_events.clear();
            self.segments.files.close_unused(&mut self.context);
            let_executor_run().await;
            self.context.ring.wait(Some(1_000_000)).map_err(|error| format!("io_uring_enter: {error}"))?;
        }
        Ok(())
    }
}
