//! Messages between the shards of a process: one bounded ring per ordered pair, nothing dropped, order kept, and a
//! sleeping receiver woken once per batch. A busy receiver costs the sender no system call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::ring::eventfd;

/// Messages one pair of shards may have under way; the rest waits with the sender.
const RING_MESSAGES: usize = 1024;

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
    bell: Arc<OwnedFd>,
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

/// Adds one to an eventfd's count, waking whoever reads it.
pub fn ring_bell(bell: &OwnedFd) {
    let one = 1u64;
    // SAFETY: eight bytes of a live u64. A full counter (EAGAIN) means that it is readable already.
    unsafe { libc::write(bell.as_raw_fd(), (&raw const one).cast(), 8) };
}

impl<T> Mesh<T> {
    /// Rings between `shards` shards.
    pub fn new(shards: usize) -> io::Result<Arc<Mesh<T>>> {
        let mut doors = Vec::new();
        for _ in 0..shards {
            doors.push(CachePadded::new(Door {
                asleep: AtomicBool::new(false),
                command: AtomicU8::new(Command::Run as u8),
                bell: Arc::new(eventfd()?),
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

    /// The eventfd a shard sleeps on.
    pub fn bell(&self, shard: usize) -> Arc<OwnedFd> {
        self.doors[shard].bell.clone()
    }

    /// Tells a shard what to do; from any thread. A command never goes back.
    pub fn command(&self, shard: usize, command: Command) {
        self.doors[shard].command.fetch_max(command as u8, Ordering::SeqCst);
        ring_bell(&self.doors[shard].bell);
    }

    /// Wakes every shard, asleep or about to be.
    pub fn wake_all(&self) {
        for door in &self.doors {
            ring_bell(&door.bell);
        }
    }

    fn wake(&self, shard: usize) {
        // Pairs with the fence in `fall_asleep`: either we see the flag, or the sleeper sees our message.
        fence(Ordering::SeqCst);
        let door = &self.doors[shard];
        if door.asleep.load(Ordering::Relaxed) && door.asleep.swap(false, Ordering::SeqCst) {
            ring_bell(&door.bell);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(bell: &OwnedFd) {
        let mut count = 0u64;
        // SAFETY: eight bytes of a live u64.
        let read = unsafe { libc::read(bell.as_raw_fd(), (&raw mut count).cast(), 8) };
        assert_eq!(read, 8);
    }

    /// Two threads, each sending to the other and sleeping whenever it has nothing to do: a lost wake hangs this test,
    /// a lost or reordered message fails it.
    #[test]
    fn nothing_is_lost_or_reordered_while_both_ends_keep_falling_asleep() {
        const COUNT: u64 = 300_000;
        let mesh = Mesh::<u64>::new(2).unwrap();
        let threads: Vec<_> = (0..2)
            .map(|me| {
                let mut mailbox = Mailbox::new(mesh.clone(), me);
                let bell = mesh.bell(me);
                std::thread::spawn(move || {
                    let (mut sent, mut expected, mut sleeps) = (0, 0, 0);
                    while expected < COUNT || sent < COUNT || mailbox.is_held_up() {
                        let burst = (sent % 7 + 1).min(COUNT - sent);
                        for _ in 0..burst {
                            mailbox.send(1 - me, sent);
                            sent += 1;
                        }
                        let (_, waiting) = mailbox.flush();
                        let got = mailbox.receive(64, |from, message| {
                            assert_eq!((from, message), (1 - me, expected));
                            expected += 1;
                        });
                        if got == 0 && waiting == 0 && expected < COUNT && mailbox.fall_asleep() {
                            // Only sleep when the other side must still send: it has not seen all of ours or sends more.
                            sleeps += 1;
                            wait(&bell);
                            mailbox.wake_up();
                        }
                    }
                    (expected, sleeps)
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().0, COUNT);
        }
    }

    #[test]
    fn a_full_ring_holds_messages_back_and_keeps_their_order() {
        let mesh = Mesh::<usize>::new(2).unwrap();
        let (mut a, mut b) = (Mailbox::new(mesh.clone(), 0), Mailbox::new(mesh, 1));
        for message in 0..RING_MESSAGES + 10 {
            a.send(1, message);
        }
        assert_eq!(a.flush(), (RING_MESSAGES, 10));
        let mut got = Vec::new();
        b.receive(usize::MAX, |_, message| got.push(message));
        assert_eq!(a.flush(), (10, 0));
        b.receive(usize::MAX, |_, message| got.push(message));
        assert_eq!(got, (0..RING_MESSAGES + 10).collect::<Vec<_>>());
    }

    #[test]
    fn commands_never_go_back() {
        let mesh = Mesh::<()>::new(1).unwrap();
        let mailbox = Mailbox::new(mesh.clone(), 0);
        mesh.command(0, Command::Abort);
        mesh.command(0, Command::Stop);
        assert_eq!(mailbox.command(), Command::Abort);
    }
}
