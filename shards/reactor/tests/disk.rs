//! Disk operations through the whole reactor, read back by plain means; file ranges to sockets by each path there is.

mod fake;

use std::io::Read;
use std::time::{Duration, Instant};

use fake::{Client, config, directory, pattern, run, segment, stop, try_start};
use pelton_model::{BrokerConfig, FetchPath};

fn segment_path(directory: &std::path::Path, partition: u32) -> std::path::PathBuf {
    let name = segment(partition).partition.to_string();
    directory.join("partitions").join(name).join("00000000000000000007.log")
}

#[test]
fn the_journal_and_checkpoints_are_there_after_a_restart() {
    let directory = directory();
    let running = try_start(&directory, config()).unwrap();
    let mut client = Client::new(&running);
    let image = client.ask(b'i', &[]);
    assert_eq!(image[..16], [0xff; 16], "no checkpoint yet");
    assert!(image[16..].iter().all(|byte| *byte == 0));
    let block = pattern(1, 8192);
    client.disk(b'J', &[&4096u64.to_be_bytes(), &[1], &block]);
    client.disk(b'J', &[&0u64.to_be_bytes(), &[0], &block[..4096]]);
    client.disk(b'K', &[]);
    client.disk(b'C', &[&[0], &[9; 5000]]);
    client.disk(b'C', &[&[0], &[8; 3000]]);
    client.disk(b'C', &[&[1], &[7; 2000]]);
    let error = client.ask(b'J', &[&((4u64 << 20) - 4096).to_be_bytes(), &[1], &block]);
    assert_eq!(error[0], 1, "past the end");
    running.request_stop();
    running.join().unwrap();

    assert_eq!(std::fs::metadata(directory.join("shard-0/journal")).unwrap().len(), 4 << 20);
    let running = try_start(&directory, config()).unwrap();
    let image = Client::new(&running).ask(b'i', &[]);
    assert_eq!(image[..8], 3000u64.to_be_bytes(), "replaced, not overlaid");
    assert_eq!(image[8..16], 2000u64.to_be_bytes());
    assert!(image[16..16 + 4096] == block[..4096] && image[16 + 4096..16 + 12288] == block[..]);
    running.request_stop();
    running.join().unwrap();

    let error = try_start(&directory, BrokerConfig { journal_bytes: 8 << 20, ..config() }).err().unwrap();
    assert!(error.to_string().contains("set it to 4194304"), "{error}");
    std::fs::write(directory.join("shard-0/checkpoint.0"), b"bad").unwrap();
    let error = try_start(&directory, config()).err().unwrap();
    assert_eq!(error.to_string(), "shard 0: the checkpoint is bad; make it good");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// One by one, and as many as are flushed together.
#[test]
fn pieces_are_appended_to_many_segments_at_once() {
    for count in [2, 40] {
        let (running, directory) = run(config());
        let mut client = Client::new(&running);
        let bytes = pattern(3, 5000);
        for round in 0..2u64 {
            let mut request = Vec::new();
            for partition in 0..count {
                request.extend_from_slice(&u32::to_be_bytes(partition));
                request.extend_from_slice(&(round * 5000).to_be_bytes());
                request.extend_from_slice(&5000u32.to_be_bytes());
                request.extend_from_slice(&bytes);
            }
            client.disk(b'A', &[&request]);
        }
        for partition in 0..count {
            let found = std::fs::read(segment_path(&directory, partition)).unwrap();
            assert!(found == [&bytes[..], &bytes[..]].concat(), "partition {partition} of {count}");
        }
        std::fs::remove_dir_all(segment_path(&directory, 0).parent().unwrap()).unwrap();
        std::fs::write(segment_path(&directory, 0).parent().unwrap(), b"in the way").unwrap();
        let mut request =
            [0u32.to_be_bytes().to_vec(), vec![0; 8], 1u32.to_be_bytes().to_vec(), vec![7]].concat();
        request.extend_from_slice(&[&1u32.to_be_bytes()[..], &[0; 8], &1u32.to_be_bytes(), &[7]].concat());
        let error = client.ask(b'A', &[&request]);
        assert_eq!(error[0], 1, "a file is where the directory should be");
        stop(running, &directory);
    }
}

#[test]
fn segments_are_written_synced_read_cut_and_removed() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    let partition = 5u32.to_be_bytes();
    assert_eq!(client.disk(b'R', &[&partition, &[0; 8], &100u32.to_be_bytes()]), b"", "missing is empty");
    let bytes = pattern(2, 64 * 4096);
    client.disk(b'W', &[&partition, &0u64.to_be_bytes(), &bytes[..4096]]);
    client.disk(b'W', &[&partition, &4096u64.to_be_bytes(), &bytes[4096..16384]]);
    client.disk(b'L', &[&partition, &16384u64.to_be_bytes(), &bytes[16384..20480]]);
    client.disk(b'L', &[&partition, &20480u64.to_be_bytes(), &bytes[20480..]]);
    client.disk(b'L', &[&6u32.to_be_bytes(), &0u64.to_be_bytes(), &bytes[..12288]]);
    assert!(std::fs::read(segment_path(&directory, 6)).unwrap() == bytes[..12288], "a new file");
    client.disk(b'S', &[&partition]);
    client.disk(b'S', &[&partition]);
    assert!(std::fs::read(segment_path(&directory, 5)).unwrap() == bytes);
    for (position, length) in [(0, 10), (1, 5000), (4095, 2), (200_000, 1 << 20), (1 << 30, 10)] {
        let answer = client.disk(b'R', &[&partition, &u64::to_be_bytes(position), &u32::to_be_bytes(length)]);
        let from = bytes.len().min(position as usize);
        let to = bytes.len().min(from + length as usize);
        assert!(answer == bytes[from..to], "{position} {length}");
    }
    client.disk(b'T', &[&partition, &10_001u64.to_be_bytes()]);
    assert!(std::fs::read(segment_path(&directory, 5)).unwrap() == bytes[..10_001]);
    client.disk(b'D', &[&partition]);
    client.disk(b'D', &[&partition]);
    assert!(!segment_path(&directory, 5).parent().unwrap().exists(), "the empty directory goes too");
    client.disk(b'W', &[&partition, &0u64.to_be_bytes(), &bytes[..8192]]);
    assert!(
        std::fs::read(segment_path(&directory, 5)).unwrap() == bytes[..8192],
        "a new file, not the removed one"
    );
    assert_eq!(client.ask(b'W', &[&partition, &1u64.to_be_bytes(), &bytes[..4096]])[0], 1, "not on a block");
    stop(running, &directory);
}

#[test]
fn more_files_than_stay_open_are_all_written() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    let block = pattern(3, 4096);
    for partition in 0..1200u32 {
        client.send(b'W', &[&partition.to_be_bytes(), &0u64.to_be_bytes(), &block]);
        client.send(b'S', &[&partition.to_be_bytes()]);
    }
    for _ in 0..2400 {
        let answer = client.receive();
        assert_eq!(answer[0], 0, "{}", String::from_utf8_lossy(&answer[1..]));
    }
    for partition in 0..1200 {
        assert!(std::fs::read(segment_path(&directory, partition)).unwrap() == block);
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 1100, "{open} descriptors open");
    stop(running, &directory);
}

#[test]
fn a_failed_write_says_why_and_the_next_may_succeed() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    let partition = 1u32.to_be_bytes();
    let block = pattern(4, 4096);
    let in_the_way = segment_path(&directory, 1);
    std::fs::write(in_the_way.parent().unwrap(), b"a file where the directory belongs").unwrap();
    let answer = client.ask(b'W', &[&partition, &[0; 8], &block]);
    let text = String::from_utf8_lossy(&answer[1..]);
    assert!(answer[0] == 1 && text.contains("open") && text.contains("00000000000000000007.log"), "{text}");
    std::fs::remove_file(in_the_way.parent().unwrap()).unwrap();
    client.disk(b'W', &[&partition, &[0; 8], &block]);
    stop(running, &directory);
}

/// The file ranges under test: short, unaligned, over a pipe's size, over a socket's buffers.
const RANGES: [(u64, usize); 8] = [
    (0, 1),
    (4095, 2),
    (1, 100_000),
    (12_345, 131_072),
    (777, 1 << 20),
    (0, (1 << 20) + 1),
    (3, 5 << 20),
    (0, 24 << 20),
];

fn file_ranges(fetch_path: FetchPath) {
    let (running, directory) = run(BrokerConfig { fetch_path, ..config() });
    let mut client = Client::new(&running);
    let partition = 9u32.to_be_bytes();
    let bytes = pattern(5, 24 << 20);
    for (piece, bytes) in bytes.chunks(1 << 20).enumerate() {
        client.disk(b'W', &[&partition, &((piece as u64) << 20).to_be_bytes(), bytes]);
    }
    // Twice: first from disk, then from memory.
    for _ in 0..2 {
        for (position, length) in RANGES {
            let answer =
                client.ask(b'f', &[&partition, &position.to_be_bytes(), &(length as u32).to_be_bytes()]);
            let end = position as usize + length;
            assert_eq!(&answer[length..], b"trailer!");
            assert!(
                answer[..length] == bytes[position as usize..end.min(bytes.len())],
                "{position} {length}"
            );
        }
    }
    // Slowly, and many at once.
    let mut slow: Vec<Client> = (0..30).map(|_| Client::new(&running)).collect();
    for client in &mut slow {
        client.send(b'f', &[&partition, &100u64.to_be_bytes(), &(4u32 << 20).to_be_bytes()]);
        client.send(b'e', &[b"after"]);
    }
    std::thread::sleep(Duration::from_millis(100));
    for client in &mut slow {
        let answer = client.receive();
        assert!(answer[..4 << 20] == bytes[100..100 + (4 << 20)]);
        assert_eq!(client.receive(), b"after");
    }
    // Vanishing halfway must not leave bytes for whoever uses the pipe next.
    for _ in 0..20 {
        let mut gone = Client::new(&running);
        gone.send(b'f', &[&partition, &0u64.to_be_bytes(), &(20u32 << 20).to_be_bytes()]);
        let mut some = [0; 10_000];
        gone.0.read_exact(&mut some).unwrap();
        drop(gone);
        let answer = client.ask(b'f', &[&partition, &1u64.to_be_bytes(), &200_000u32.to_be_bytes()]);
        assert!(answer[..200_000] == bytes[1..200_001]);
    }
    // A range the file does not have, and a file that is not there: that connection ends, others do not.
    for (partition, position) in [(9u32, 24u64 << 20), (9, (24 << 20) - 10), (10, 0)] {
        let mut doomed = Client::new(&running);
        doomed.send(b'f', &[&partition.to_be_bytes(), &position.to_be_bytes(), &100u32.to_be_bytes()]);
        assert!(doomed.try_receive().is_err());
    }
    assert_eq!(client.ask(b'e', &[b"alive"]), b"alive");
    let sent = running.counters()[0].sent_file_bytes;
    assert!(sent > 2 * RANGES.iter().map(|(_, length)| *length as u64).sum::<u64>(), "{sent}");
    stop(running, &directory);
}

#[test]
fn file_ranges_are_spliced_to_sockets() {
    file_ranges(FetchPath::Splice);
}

#[test]
fn file_ranges_are_sent_from_pieces_read_directly() {
    file_ranges(FetchPath::Direct);
}

#[test]
fn file_ranges_are_read_and_sent_to_sockets() {
    file_ranges(FetchPath::Read);
}

#[test]
fn what_was_read_ahead_is_never_stale() {
    let (running, directory) = run(BrokerConfig { fetch_path: FetchPath::Direct, ..config() });
    let mut client = Client::new(&running);
    let partition = 3u32.to_be_bytes();
    let fetch = |client: &mut Client, position: u64, length: usize| {
        let answer = client.ask(b'f', &[&partition, &position.to_be_bytes(), &(length as u32).to_be_bytes()]);
        answer[..length].to_vec()
    };
    // The piece at the end of a segment grows, block by block.
    let bytes = pattern(7, 2 << 20);
    for block in 0..20 {
        let at = block * 4096;
        client.disk(b'W', &[&partition, &(at as u64).to_be_bytes(), &bytes[at..at + 4096]]);
        assert!(fetch(&mut client, at as u64, 4096) == bytes[at..at + 4096], "block {block} alone");
        assert!(fetch(&mut client, 0, at + 4096) == bytes[..at + 4096], "up to block {block}");
    }
    // A file that is removed and made again under its name.
    client.disk(b'D', &[&partition]);
    let others = pattern(8, 1 << 20);
    client.disk(b'W', &[&partition, &0u64.to_be_bytes(), &others]);
    assert!(fetch(&mut client, 0, 1 << 20) == others);
    stop(running, &directory);
}

#[test]
fn a_removed_file_frees_its_descriptors() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    let block = pattern(6, 1 << 20);
    for _ in 0..30 {
        client.disk(b'W', &[&[0; 4], &[0; 8], &block]);
        client.disk(b'R', &[&[0; 4], &[0; 8], &100u32.to_be_bytes()]);
        client.disk(b'D', &[&[0; 4]]);
    }
    let name = segment(0).partition.to_string();
    let held = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|fd| {
                std::fs::read_link(fd.path()).is_ok_and(|to| to.display().to_string().contains(&name))
            })
            .count()
    };
    let from = Instant::now();
    while held() > 0 {
        assert!(from.elapsed() < Duration::from_secs(5), "{} descriptors of removed files", held());
        std::thread::sleep(Duration::from_millis(10));
    }
    stop(running, &directory);
}

#[test]
fn a_file_that_a_client_still_waits_for_is_not_removed() {
    let (running, directory) = run(config());
    let mut client = Client::new(&running);
    let bytes = pattern(7, 24 << 20);
    for (piece, bytes) in bytes.chunks(1 << 20).enumerate() {
        client.disk(b'W', &[&[0; 4], &((piece as u64) << 20).to_be_bytes(), bytes]);
    }
    let mut slow = Client::new(&running);
    slow.send(b'f', &[&[0; 4], &0u64.to_be_bytes(), &(20u32 << 20).to_be_bytes()]);
    let mut some = [0; 1000];
    slow.0.read_exact(&mut some).unwrap();
    let answer = client.ask(b'D', &[&[0; 4]]);
    assert_eq!(answer[0], 1, "{}", String::from_utf8_lossy(&answer[1..]));
    assert!(segment_path(&directory, 0).exists());
    // Length, range, trailer.
    let mut rest = vec![0; 4 + (20 << 20) + 8 - some.len()];
    slow.0.read_exact(&mut rest).unwrap();
    let (range, trailer) = rest.split_at(rest.len() - 8);
    assert!(some[4..] == bytes[..996] && range[..] == bytes[996..20 << 20]);
    assert_eq!(trailer, b"trailer!");
    let from = Instant::now();
    while client.ask(b'D', &[&[0; 4]])[0] != 0 {
        assert!(from.elapsed() < Duration::from_secs(5), "it is never removed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!segment_path(&directory, 0).exists());
    stop(running, &directory);
}
