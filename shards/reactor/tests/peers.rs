//! Shards of different nodes over loopback, through the whole reactor: frames of every size, connections that break, secrets that
//! differ, peers that say nothing, too little or nonsense, and one that takes nothing.

#[path = "peers/kit.rs"]
mod kit;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kit::{Node, Proxy, ProxyMode, eventually, pattern};
use pelton_shard::peer::{Kind, Limits, Secret};

/// Frames that tell their number, and a body that follows from it.
fn frame(number: u32, length: usize) -> Vec<Bytes> {
    let body = pattern(number, length);
    let middle = length / 2;
    let head = Bytes::copy_from_slice(&number.to_le_bytes());
    vec![head, body.slice(..middle), body.slice(middle..)]
}

fn number_of(bytes: &Bytes) -> u32 {
    let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert!(bytes[4..] == pattern(number, bytes.len() - 4), "frame {number} of {} bytes", bytes.len());
    number
}

#[test]
fn frames_of_every_size_arrive_whole_and_in_order_both_ways() {
    let [a, b] = kit::pair();
    let sizes = [0, 1, 100, 4095, 4096, 16_000, 65_530, 65_536, 70_000, 200_000, 1 << 20, 3 << 20, 9 << 20];
    for (number, size) in sizes.into_iter().enumerate() {
        a.send(&b, Kind::Replica, frame(number as u32, size));
        b.send(&a, Kind::Member, frame(number as u32, size));
    }
    for (node, from, kind) in [(&b, &a, Kind::Replica), (&a, &b, Kind::Member)] {
        let frames = node.wait_for_frames(sizes.len());
        for (number, (place, received, bytes)) in frames.iter().enumerate() {
            assert_eq!((*place, *received, bytes.len()), (from.place(0), kind, 4 + sizes[number]));
            assert_eq!(number_of(bytes), number as u32);
        }
    }
    let counters = a.counters();
    assert_eq!((counters.peer_frames_sent, counters.peer_frames_received), (13, 13));
    assert_eq!((counters.peer_connections, counters.connections, counters.peer_frames_dropped), (1, 0, 0));
    a.stop();
    eventually("b notices", || b.ups().is_empty());
    b.stop();
}

#[test]
fn a_stream_of_small_frames_leaves_many_at_a_time() {
    let [a, b] = kit::pair();
    for number in 0..20_000 {
        a.send(&b, Kind::Replica, frame(number, 20));
    }
    let frames = b.wait_for_frames(20_000);
    assert!(frames.iter().enumerate().all(|(number, (_, _, bytes))| number_of(bytes) == number as u32));
    let sends = a.counters().sends;
    assert!(sends < 5_000, "{sends} calls for 20000 frames of two parts");
    a.stop();
    b.stop();
}

#[test]
fn connections_that_break_are_made_again_and_nothing_comes_twice_or_out_of_order() {
    let [a, b] = kit::strangers();
    let proxy = Proxy::start(b.peer_address(0));
    a.know(vec![b.peer_at(0, &proxy.host(), proxy.port())]);
    b.know(vec![a.peer(0)]);
    a.wait_up(&b);
    let (mut number, mut cuts) = (0, 0);
    let began = Instant::now();
    while cuts < 10 {
        for _ in 0..20 {
            a.send(&b, Kind::Replica, frame(number, 30_000));
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
        if number % 200 == 0 {
            proxy.cut();
            cuts += 1;
            std::thread::sleep(Duration::from_millis(30));
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    a.wait_up(&b);
    a.send(&b, Kind::Member, frame(u32::MAX, 10));
    eventually("the last one arrives", || {
        b.frames().last().is_some_and(|(_, kind, _)| *kind == Kind::Member)
    });
    let frames = b.frames();
    let numbers: Vec<u32> = frames.iter().map(|(_, _, bytes)| number_of(bytes)).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "twice or out of order");
    assert!(numbers.len() > 100 && b.downs() >= 5, "{} frames, {} times down", numbers.len(), b.downs());
    a.stop();
    b.stop();
}

#[test]
fn a_node_with_another_secret_stays_outside() {
    let [a, b] = kit::nodes([Secret::from_file(b"sixteen bytes or more").unwrap(), Secret::none()]);
    a.know(vec![b.peer(0)]);
    b.know(vec![a.peer(0)]);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(a.ups().is_empty() && b.ups().is_empty());
    assert_eq!(b.counters().peer_frames_received, 0);
    assert_eq!(a.counters().peer_connections + b.counters().peer_connections, 0, "nothing is kept");
    a.stop();
    b.stop();
}

#[test]
fn a_peer_that_goes_silent_is_given_up_and_found_again() {
    let [a, b] = kit::strangers();
    let proxy = Proxy::start(b.peer_address(0));
    a.know(vec![b.peer_at(0, &proxy.host(), proxy.port())]);
    b.know(vec![a.peer(0)]);
    a.wait_up(&b);
    // Half open: the sockets stay, nothing moves.
    proxy.mode(ProxyMode::Stall);
    let began = Instant::now();
    eventually("a gives up", || a.ups().is_empty());
    eventually("b gives up", || b.ups().is_empty());
    assert!(began.elapsed() > Duration::from_millis(1000), "not at the first silence");
    proxy.mode(ProxyMode::Pass);
    a.wait_up(&b);
    b.wait_up(&a);
    a.stop();
    b.stop();
}

#[test]
fn a_listener_that_never_says_a_word_does_not_stop_anything() {
    let [a, b] = kit::pair();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    a.know(vec![b.peer(0), a.other_peer(77, port)]);
    let (mut first, _) = mute.accept().unwrap();
    first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut said = Vec::new();
    first.read_to_end(&mut said).unwrap();
    assert!(said.len() > 50, "a hello came, and then the end");
    mute.accept().unwrap();
    a.send(&b, Kind::Replica, frame(1, 1000));
    b.wait_for_frames(1);
    a.stop();
    b.stop();
}

#[test]
fn garbage_is_cut_off_and_peers_are_not() {
    let [a, b] = kit::pair();
    let kafka = [&[0, 0, 0, 24, 0, 18, 0, 3][..], &[0; 20]].concat();
    let long = [&u32::MAX.to_le_bytes()[..], &[1; 100]].concat();
    let early = [&5u32.to_le_bytes()[..], &[5, 1, 2, 3, 4]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &kafka, &long, &early, &[1, 0, 0, 0, 99], &[9; 5000]] {
        let mut stranger = TcpStream::connect(b.peer_address(0)).unwrap();
        stranger.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stranger.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset counts as an end, too.
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty(), "nothing is said to {bytes:?}");
    }
    let began = Instant::now();
    let mut silent = TcpStream::connect(b.peer_address(0)).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0, "silence has an end");
    assert!(began.elapsed() > Duration::from_millis(1500));
    a.send(&b, Kind::Replica, frame(1, 100_000));
    b.wait_for_frames(1);
    assert_eq!((b.downs(), b.counters().peer_connections), (0, 1));
    a.stop();
    b.stop();
}

#[test]
fn a_peer_that_takes_nothing_costs_no_more_than_its_queue() {
    let limits = Limits { queue_bytes_max: 4 << 20, ..Limits::default() };
    let [a, b] = kit::nodes_with(limits);
    let proxy = Proxy::start(b.peer_address(0));
    a.know(vec![b.peer_at(0, &proxy.host(), proxy.port())]);
    b.know(vec![a.peer(0)]);
    a.wait_up(&b);
    proxy.mode(ProxyMode::Stall);
    for number in 0..500 {
        a.send(&b, Kind::Replica, frame(number, 100_000));
    }
    eventually("most are dropped", || a.counters().peer_frames_dropped >= 300);
    eventually("it is given up", || a.ups().is_empty());
    proxy.mode(ProxyMode::Pass);
    a.wait_up(&b);
    a.stop();
    b.stop();
}

#[test]
fn each_shard_meets_each_shard_of_the_other_node() {
    let [a, b] = kit::nodes_of_shards(2);
    let all = |node: &Node| (0..2).map(|shard| node.peer(shard)).collect::<Vec<_>>();
    a.know(all(&b));
    b.know(all(&a));
    eventually("all are up", || (0..2).all(|shard| a.ups_of(shard).len() == 2 && b.ups_of(shard).len() == 2));
    for from in 0..2 {
        for to in 0..2 {
            a.send_from(from, b.place(to), Kind::Replica, frame(u32::from(from * 2 + to), 5000));
        }
    }
    eventually("all arrive", || (0..2).all(|shard| b.frames_of(shard).len() == 2));
    for to in 0..2 {
        for (from, _, bytes) in b.frames_of(to) {
            assert_eq!(number_of(&bytes), u32::from(from.shard.0 * 2 + to));
        }
    }
    assert!(a.all_counters().iter().all(|counters| counters.peer_connections == 2));
    a.stop();
    b.stop();
}

#[test]
fn names_are_looked_up_and_unknown_ones_are_tried_again() {
    let [a, b] = kit::strangers();
    a.know(vec![b.peer_at(0, "no-such-host.invalid", 5), a.other_peer(99, 9)]);
    std::thread::sleep(Duration::from_millis(300));
    a.know(vec![b.peer_at(0, "localhost", b.peer_address(0).port())]);
    a.wait_up(&b);
    a.stop();
    b.stop();
}

#[test]
fn a_taken_peer_port_is_an_error_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = kit::try_node(taken.local_addr().unwrap()).err().expect("the port is taken").to_string();
    assert!(error.contains("cannot listen for nodes on 127.0.0.1") && error.contains("--cluster"), "{error}");
}
