//! Connections through the whole reactor: echo of every size, slow readers, thousands at once, shards, timers, stop.

mod fake;

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake::{Client, config, pattern, run, stop};
use pelton_model::{BrokerConfig, ListenerMode};

#[test]
fn frames_of_every_size_come_back_whole() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    for length in [0, 1, 100, 4095, 4096, 4097, 8187, 8188, 40_000, 65_530, 65_536, 200_000, 1 << 20, 9 << 20]
    {
        let payload = pattern(length as u32, length);
        let mut sender = client.0.try_clone().unwrap();
        let mut frame = (length as u32 + 1).to_be_bytes().to_vec();
        frame.push(b'e');
        frame.extend_from_slice(&payload);
        let thread = std::thread::spawn(move || sender.write_all(&frame).unwrap());
        assert!(client.receive() == payload, "{length}");
        thread.join().unwrap();
    }
    stop(running, &directory);
}

#[test]
fn a_burst_of_requests_is_answered_in_order_and_a_trickle_too() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    let mut frames = Vec::new();
    for number in 0..5000u32 {
        frames.extend_from_slice(&5u32.to_be_bytes());
        frames.push(b'e');
        frames.extend_from_slice(&number.to_be_bytes());
    }
    let mut sender = client.0.try_clone().unwrap();
    let burst = frames.clone();
    let thread = std::thread::spawn(move || sender.write_all(&burst).unwrap());
    for number in 0..5000u32 {
        assert_eq!(client.receive(), number.to_be_bytes());
    }
    thread.join().unwrap();
    for byte in &frames[..9 * 20] {
        client.0.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    for number in 0..20u32 {
        assert_eq!(client.receive(), number.to_be_bytes());
    }
    stop(running, &directory);
}

#[test]
fn slow_readers_get_everything_and_do_not_stop_others() {
    let (running, directory) = run(config());
    let mut slow = Client::new(&running);
    for _ in 0..20 {
        slow.send(b'g', &[&(2u32 << 20).to_be_bytes()]);
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut quick = Client::new(&running);
    let from = Instant::now();
    for _ in 0..100 {
        assert_eq!(quick.ask(b'e', &[b"quick"]), b"quick");
    }
    assert!(from.elapsed() < Duration::from_secs(2), "{:?}", from.elapsed());
    for _ in 0..20 {
        let mut length = [0; 4];
        slow.0.read_exact(&mut length).unwrap();
        assert_eq!(u32::from_be_bytes(length), 2 << 20);
        let mut left = 2 << 20;
        let mut buffer = vec![0; 128 * 1024];
        while left > 0 {
            let room = buffer.len().min(left);
            let n = slow.0.read(&mut buffer[..room]).unwrap();
            assert!(n > 0 && buffer[..n].iter().all(|byte| *byte == b'g'));
            left -= n;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(running, &directory);
}

#[test]
fn thousands_of_connections_are_all_served_and_fairly() {
    let (running, directory) = run(config());
    let mut clients: Vec<Client> = (0..3000).map(|_| Client::new(&running)).collect();
    for round in 0..3u32 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(b'e', &[&round.to_be_bytes(), &(index as u32).to_be_bytes(), &[0; 5000]]);
        }
        let from = Instant::now();
        for (index, client) in clients.iter_mut().enumerate() {
            let answer = client.receive();
            assert_eq!(answer[..4], round.to_be_bytes());
            assert_eq!(answer[4..8], (index as u32).to_be_bytes());
        }
        assert!(from.elapsed() < Duration::from_secs(10), "{:?}", from.elapsed());
    }
    let counters = running.counters()[0];
    assert_eq!((counters.connections, counters.connections_accepted), (3000, 3000));
    drop(clients);
    let from = Instant::now();
    while running.counters()[0].connections > 0 {
        assert!(from.elapsed() < Duration::from_secs(10), "connections of gone clients must go");
        std::thread::sleep(Duration::from_millis(10));
    }
    stop(running, &directory);
}

#[test]
fn a_connection_is_closed_after_its_last_answer() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    client.send(b'g', &[&(8u32 << 20).to_be_bytes()]);
    client.send(b'q', &[]);
    assert_eq!(client.receive().len(), 8 << 20);
    assert_eq!(client.0.read(&mut [0; 1]).unwrap(), 0, "then the end");
    stop(running, &directory);
}

#[test]
fn clients_that_vanish_in_the_middle_of_anything_leave_nothing_behind() {
    let (running, directory) = run(config());
    for round in 0..50u32 {
        let mut client = Client::new(&running);
        match round % 4 {
            0 => client.0.write_all(&[0, 0]).unwrap(),
            1 => client.0.write_all(&[0, 1, 0, 0, b'e', 1, 2, 3]).unwrap(),
            2 => client.send(b'g', &[&(16u32 << 20).to_be_bytes()]),
            _ => client.send(b'K', &[]),
        }
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let from = Instant::now();
    while running.counters()[0].connections > 0 || running.counters()[0].connections_accepted < 50 {
        assert!(from.elapsed() < Duration::from_secs(10), "{:?}", running.counters());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(Client::new(&running).ask(b'e', &[b"alive"]), b"alive");
    stop(running, &directory);
}

#[test]
fn shards_talk_and_one_listener_feeds_all() {
    let (running, directory) = run(BrokerConfig { shards: 3, mode: ListenerMode::Single, ..config() });
    assert_eq!(running.addresses().iter().flatten().count(), 1);
    let mut served = [0; 3];
    let mut clients: Vec<Client> = (0..9).map(|_| Client::new(&running)).collect();
    for client in &mut clients {
        let shard = client.ask(b'h', &[]);
        served[usize::from(u16::from_be_bytes([shard[0], shard[1]]))] += 1;
        for to in 0..3u16 {
            assert_eq!(client.ask(b'x', &[&to.to_be_bytes()]), to.to_be_bytes());
        }
    }
    assert_eq!(served, [3, 3, 3], "one after the other");
    for _ in 0..2000 {
        clients[0].send(b'x', &[&1u16.to_be_bytes()]);
        clients[1].send(b'x', &[&2u16.to_be_bytes()]);
    }
    for _ in 0..2000 {
        assert_eq!((clients[0].receive(), clients[1].receive()), (vec![0, 1], vec![0, 2]));
    }
    stop(running, &directory);
}

#[test]
fn nothing_that_came_is_judged_by_a_clock_read_before_it() {
    let (running, directory) = run(BrokerConfig { shards: 2, mode: ListenerMode::Single, ..config() });
    let mut client = Client::new(&running);
    let before = fake::STAMPED.load(Ordering::SeqCst);
    // The shards assert it of each message.
    client.ask(b'y', &[&1u16.to_be_bytes(), &60_000u32.to_be_bytes()]);
    client.ask(b'y', &[&0u16.to_be_bytes(), &60_000u32.to_be_bytes()]);
    while fake::STAMPED.load(Ordering::SeqCst) < before + 16 {
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(running, &directory);
}

#[test]
fn each_shard_has_its_own_listener() {
    let (running, directory) = run(BrokerConfig { shards: 2, ..config() });
    for (shard, address) in running.addresses().iter().enumerate() {
        assert_eq!(Client::at(address.unwrap()).ask(b'h', &[]), (shard as u16).to_be_bytes());
    }
    stop(running, &directory);
}

#[test]
fn ticks_come_on_time_and_idle_costs_nothing() {
    let (running, directory) = run(BrokerConfig { shards: 2, ..config() });
    let mut client = Client::new(&running);
    for timeout_ms in [1u32, 20, 150] {
        let from = Instant::now();
        assert_eq!(client.ask(b'z', &[&timeout_ms.to_be_bytes()]), b"tick");
        let late = from.elapsed().saturating_sub(Duration::from_millis(u64::from(timeout_ms)));
        assert!(late < Duration::from_millis(500), "{late:?} late");
        assert!(from.elapsed() >= Duration::from_millis(u64::from(timeout_ms)), "early");
    }
    std::thread::sleep(Duration::from_millis(100));
    let before: Vec<_> = running.counters();
    std::thread::sleep(Duration::from_secs(2));
    for (before, after) in before.iter().zip(running.counters()) {
        assert!(after.turns - before.turns < 10, "{} turns while idle", after.turns - before.turns);
    }
    stop(running, &directory);
}

#[test]
fn spinning_stops_when_idle() {
    let (running, directory) = run(BrokerConfig { spin_us: 200, ..config() });
    let mut client = Client::new(&running);
    for _ in 0..1000 {
        assert_eq!(client.ask(b'e', &[b"spin"]), b"spin");
    }
    std::thread::sleep(Duration::from_millis(100));
    let before = running.counters()[0];
    std::thread::sleep(Duration::from_secs(1));
    let after = running.counters()[0];
    assert!(after.turns - before.turns < 10, "{} turns while idle", after.turns - before.turns);
    stop(running, &directory);
}

#[test]
fn a_taken_port_is_an_error_with_a_remedy() {
    let (running, directory) = run(config());
    let plan = pelton_reactor::ShardPlan {
        shard: pelton_model::ShardId(0),
        cpu: None,
        directory: directory.join("other"),
        partitions_directory: directory.join("other-partitions"),
        listen: running.addresses()[0],
        peers: None,
        cluster: None,
    };
    let log = pelton_reactor::log_to_stderr();
    let error = pelton_reactor::start_core::<fake::Fake>(vec![plan], std::sync::Arc::new(config()), log);
    let text = error.err().expect("the port is taken").to_string();
    assert!(text.contains("cannot listen on 127.0.0.1") && text.contains("--kafka"), "{text}");
    stop(running, &directory);
}

/// Runs itself again in a process whose shard is told to panic.
#[test]
fn a_panic_in_a_shard_ends_the_process_with_code_70() {
    if std::env::var("PELTON_TEST_PANIC").is_ok() {
        let (running, _) = run(config());
        let mut client = Client::new(&running);
        client.send(b'!', &[]);
        let _ = client.try_receive();
        std::thread::sleep(Duration::from_secs(20));
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_in_a_shard_ends_the_process_with_code_70", "--nocapture"])
        .env("PELTON_TEST_PANIC", "1")
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(70), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(String::from_utf8_lossy(&child.stderr).contains("FATAL shard 0"));
}
