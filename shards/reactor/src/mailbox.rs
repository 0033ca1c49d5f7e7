//! Messages between the shards of a process: one bounded ring per ordered pair, nothing dropped, order kept, and a
//! sleeping receiver woken once per batch. A busy receiver costs the sender no system call.
//!
//! All that threads share comes from `sync`: tests/loom puts a model checker's own in its place and runs this same file.

use std::collections::VecDeque;
use std::io;

use crate::sync::{
    Arc, ArrayQueue, AtomicBool, AtomicU8, AtomicUsize, Bell, CachePadded, Ordering, RING_MESSAGES, fence,
};

/// What the owner of the process wants of a shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Command {
    /// Serve.
    Run = 0,
    /// Stop cleanly.
    Stop = 1,
    /// Leave the loop at once (another shard could not start).
    Abort = 2,
}

/// One shard's door: where others knock.
struct Door {
    asleep: AtomicBool,
    command: AtomicU8,
    bell: Arc<Bell>,
}

/// All rings of a process; shared by its shards.
pub struct Mesh<T> {
    shards: usize,
    /// From `from` to `to` at `to * shards + from`.
    rings: Vec<CachePadded<ArrayQueue<T>>>,
    doors: Vec<CachePadded<Door>>,
    /// Shards that said they are ready, and that said they have stopped.
    pub ready: AtomicUsize,
    /// See `ready`.
    pub stopped: AtomicUsize,
}

impl<T> Mesh<T> {
    /// Rings between `shards` shards.
    pub fn new(shards: usize) -> io::Result<Arc<Mesh<T>>> {
        let mut doors = Vec::new();
        for _ in 0..shards {
            doors.push(CachePadded::new(Door {
                asleep: AtomicBool::new(false),
                command: AtomicU8::new(Command::Run as u8),
                bell: Arc::new(Bell::new()?),
            }));
        }
        let rings = (0..shards * shards).map(|_| CachePadded::new(ArrayQueue::new(RING_MESSAGES))).collect();
        let (ready, stopped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Arc::new(Mesh { shards, rings, doors, ready, stopped }))
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// What wakes a shard.
    pub fn bell(&self, shard: usize) -> Arc<Bell> {
        self.doors[shard].bell.clone()
    }

    /// Tells a shard what to do; from any thread. A command never goes back.
    pub fn command(&self, shard: usize, command: Command) {
        self.doors[shard].command.fetch_max(command as u8, Ordering::SeqCst);
        self.doors[shard].bell.ring();
    }

    /// Wakes every shard, asleep or about to be.
    pub fn wake_all(&self) {
        for door in &self.doors {
            door.bell.ring();
        }
    }

    fn wake(&self, shard: usize) {
        // Pairs with the fence in `fall_asleep`: either we see the flag, or the sleeper sees our message.
        fence(Ordering::SeqCst);
        let door = &self.doors[shard];
        // Of several senders one rings. A flag that has changed since is left as it is: who set it looked for mail after that.
        if door.asleep.load(Ordering::Relaxed)
            && door.asleep.compare_exchange(true, false, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        {
            door.bell.ring();
        }
    }
}

/// One shard's end of the mesh.
pub struct Mailbox<T> {
    mesh: Arc<Mesh<T>>,
    me: usize,
    outboxes: Vec<VecDeque<T>>,
    /// Messages waiting in `outboxes`.
    waiting: usize,
    first: usize,
}

impl<T> Mailbox<T> {
    /// The end of shard `me`.
    pub fn new(mesh: Arc<Mesh<T>>, me: usize) -> Mailbox<T> {
        let outboxes = (0..mesh.shards).map(|_| VecDeque::new()).collect();
        Mailbox { mesh, me, outboxes, waiting: 0, first: 0 }
    }

    /// The mesh.
    pub fn mesh(&self) -> &Arc<Mesh<T>> {
        &self.mesh
    }

    /// Queues a message; it leaves with the next [`Mailbox::flush`].
    pub fn send(&mut self, to: usize, message: T) {
        self.outboxes[to].push_back(message);
        self.waiting += 1;
    }

    /// Hands over what fits and wakes the receivers that sleep. Returns (handed over, still waiting).
    pub fn flush(&mut self) -> (usize, usize) {
        if self.waiting == 0 {
            return (0, 0);
        }
        let before = self.waiting;
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            let queued = outbox.len();
            let ring = &self.mesh.rings[to * self.mesh.shards + self.me];
            while let Some(message) = outbox.pop_front() {
                if let Err(message) = ring.push(message) {
                    outbox.push_front(message);
                    break;
                }
            }
            if outbox.len() < queued {
                self.waiting -= queued - outbox.len();
                self.mesh.wake(to);
            }
        }
        (before - self.waiting, self.waiting)
    }

    /// Takes up to `max` messages, from every sender in turn, as (sender, message).
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(usize, T)) -> usize {
        let shards = self.mesh.shards;
        let mut taken = 0;
        self.first = (self.first + 1) % shards;
        for step in 0..shards {
            let from = (self.first + step) % shards;
            let ring = &self.mesh.rings[self.me * shards + from];
            while taken < max
                && let Some(message) = ring.pop()
            {
                taken += 1;
                take(from, message);
            }
        }
        taken
    }

    /// True when a message waits for this shard.
    pub fn has_mail(&self) -> bool {
        let shards = self.mesh.shards;
        (0..shards).any(|from| !self.mesh.rings[self.me * shards + from].is_empty())
    }

    /// True when messages of this shard wait for room.
    pub fn is_held_up(&self) -> bool {
        self.waiting > 0
    }

    /// What the owner of the process wants.
    pub fn command(&self) -> Command {
        match self.mesh.doors[self.me].command.load(Ordering::Relaxed) {
            0 => Command::Run,
            1 => Command::Stop,
            _ => Command::Abort,
        }
    }

    /// Declares this shard asleep. False (and awake again) if a message came first: then do not sleep.
    pub fn fall_asleep(&self) -> bool {
        self.mesh.doors[self.me].asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.has_mail() {
            self.wake_up();
            return false;
        }
        true
    }

    /// Declares this shard awake.
    pub fn wake_up(&self) {
        self.mesh.doors[self.me].asleep.store(false, Ordering::SeqCst);
    }
}
