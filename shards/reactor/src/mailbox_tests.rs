//! Tests of the mailbox with real threads. All orders of its steps are gone through by tests/loom.

use std::os::fd::AsRawFd;

use crate::mailbox::{Command, Mailbox, Mesh};
use crate::sync::{Bell, RING_MESSAGES};

fn wait(bell: &Bell) {
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
