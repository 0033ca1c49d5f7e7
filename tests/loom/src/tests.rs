//! Shards that send and fall asleep as the driver does: no sleep while mail waits or mail of its own is held up.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use crate::mailbox::{Command, Mailbox, Mesh};
use crate::sync::WITHOUT_FENCES;

/// Preemptions of two threads, at most. A lost wake-up needs no more than two.
const PREEMPTIONS: usize = 3;
/// Of three, whose orders are many more.
const PREEMPTIONS_OF_THREE: usize = 2;

fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(run);
}

/// Takes messages until all of `senders` have sent `each`, sleeping whenever there is nothing to do.
fn receive_all(mesh: &Arc<Mesh<u32>>, me: usize, senders: &[usize], each: u32) {
    let mut mailbox = Mailbox::new(mesh.clone(), me);
    let bell = mesh.bell(me);
    let mut next = vec![0; mesh.shards()];
    while senders.iter().any(|sender| next[*sender] < each) {
        let got = mailbox.receive(8, |from, message| {
            assert_eq!(message, next[from], "in order, and once");
            next[from] += 1;
        });
        if got == 0 && mailbox.fall_asleep() {
            bell.wait();
            mailbox.wake_up();
        }
    }
}

/// Sends `count` messages, as long as it takes.
fn send_all(mesh: &Arc<Mesh<u32>>, me: usize, to: usize, count: u32) {
    let mut mailbox = Mailbox::new(mesh.clone(), me);
    for message in 0..count {
        mailbox.send(to, message);
    }
    while mailbox.flush().1 > 0 {
        thread::yield_now();
    }
}

fn one_sender(count: u32) {
    let mesh = Mesh::new(2).unwrap();
    let sender = mesh.clone();
    let thread = thread::spawn(move || send_all(&sender, 0, 1, count));
    receive_all(&mesh, 1, &[0], count);
    thread.join().unwrap();
}

#[test]
fn a_sleeping_receiver_is_woken_by_every_message() {
    model(PREEMPTIONS, || one_sender(2));
    model(PREEMPTIONS, || one_sender(3));
}

#[test]
fn two_senders_wake_one_receiver() {
    model(PREEMPTIONS_OF_THREE, || {
        let mesh = Mesh::new(3).unwrap();
        let threads = [0, 1].map(|me| {
            let mesh = mesh.clone();
            thread::spawn(move || send_all(&mesh, me, 2, 1))
        });
        receive_all(&mesh, 2, &[0, 1], 1);
        let [one, other] = threads;
        one.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn both_ends_send_and_sleep() {
    model(PREEMPTIONS, || {
        let mesh = Mesh::new(2).unwrap();
        let other = mesh.clone();
        let thread = thread::spawn(move || {
            receive_all(&other, 1, &[0], 1);
            send_all(&other, 1, 0, 1);
        });
        send_all(&mesh, 0, 1, 1);
        receive_all(&mesh, 0, &[1], 1);
        thread.join().unwrap();
    });
}

#[test]
fn a_command_wakes_a_shard_that_falls_asleep() {
    model(PREEMPTIONS, || {
        let mesh = Mesh::<u32>::new(1).unwrap();
        let owner = mesh.clone();
        let thread = thread::spawn(move || owner.command(0, Command::Stop));
        let mailbox = Mailbox::new(mesh.clone(), 0);
        let bell = mesh.bell(0);
        while mailbox.command() != Command::Stop {
            if mailbox.fall_asleep() {
                bell.wait();
                mailbox.wake_up();
            }
        }
        thread.join().unwrap();
    });
}

/// The model sees what it is for: without the fences a wake-up is lost in some order.
#[test]
fn without_its_fences_a_wake_up_is_lost() {
    let lost = catch_unwind(AssertUnwindSafe(|| {
        model(PREEMPTIONS, || {
            WITHOUT_FENCES.set(true);
            one_sender(1);
        });
    }));
    WITHOUT_FENCES.set(false);
    let error = lost.expect_err("loom must find the order in which the receiver sleeps for ever");
    let text = error.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("deadlock"), "{text}");
}
