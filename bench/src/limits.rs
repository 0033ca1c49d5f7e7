//! The machine's own limits, measured beside every comparison so that figures can be read as ratios. Never touches a broker.

use crate::sys::{self, Aligned};
use crate::{Outcome, batch, limits_beside};
use io_uring::{IoUring, opcode, types};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// One limit: name, value, unit.
pub type Limit = (&'static str, f64, &'static str);

/// Name of the limit that catching up is held against.
pub const DIRECT_READ: &str = "1 MiB O_DIRECT reads, 8 in flight";

/// Names of the limits that consumers at the tail are held against.
pub const RAW_SEND: [&str; 2] =
    ["1 MB sent from memory to 1 reader that checks CRCs", "1 MB sent from memory to 4 such readers"];

/// Measures all limits; `dir` is on the disk in question. Takes about 25 s.
pub fn measure(dir: &Path) -> Outcome<Vec<Limit>> {
    sys::pin(0)?;
    let (p50, p99) = round_trip(1.min(sys::cores() - 1))?;
    let raw = [raw_send(1)?, raw_send(4)?];
    sys::pin(0)?;
    let file = dir.join("limits-written");
    let shallow = durable(&file, 1)?;
    let deep = durable(&file, 32)?;
    let _ = std::fs::remove_file(&file);
    let (sequential, reading, beside) = sequential(dir)?;
    let mut limits = vec![
        ("memcpy of 256 MiB", memcpy(), "GB/s"),
        ("crc32c of 16 KiB", crc(16 * 1024), "GB/s"),
        ("crc32c of 170 B", crc(170), "GB/s"),
        ("loopback round trip of 100 B, p50", p50, "us"),
        ("loopback round trip of 100 B, p99", p99, "us"),
        ("4 KiB O_DIRECT DSYNC into written blocks, depth 1", shallow, "writes/s"),
        ("4 KiB O_DIRECT DSYNC into written blocks, depth 32", deep, "writes/s"),
        ("1 MiB O_DIRECT writes, growing file, fdatasync each 16 MiB", sequential, "MB/s"),
        (DIRECT_READ, reading, "MB/s"),
        (RAW_SEND[0], raw[0].0, "MB/s"),
        ("the same, sender's CPU", raw[0].1, "s/GB"),
        (RAW_SEND[1], raw[1].0, "MB/s"),
        ("the same, its sender's CPU", raw[1].1, "s/GB"),
    ];
    limits.extend(beside);
    Ok(limits)
}

fn memcpy() -> f64 {
    let from = vec![1u8; 256 << 20];
    let mut to = vec![0u8; from.len()];
    to.copy_from_slice(&from);
    let start = Instant::now();
    for _ in 0..4 {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    }
    4.0 * from.len() as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn crc(length: usize) -> f64 {
    let bytes = vec![7u8; length];
    let rounds = (512 << 20) / length / 4;
    let start = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(batch::crc32c(std::hint::black_box(&bytes)));
    }
    (rounds * length) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Echo of 100 B between a blocking thread on `core` and this one: p50 and p99, microseconds.
fn round_trip(core: usize) -> Outcome<(f64, f64)> {
    let failed = |error: std::io::Error| format!("loopback: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    sys::cubic(listener.as_raw_fd())?;
    let address = listener.local_addr().map_err(failed)?;
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let _ = sys::pin(core);
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut message = [0; 100];
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    sys::cubic(stream.as_raw_fd())?;
    stream.set_nodelay(true).map_err(failed)?;
    let mut message = [0; 100];
    let mut us: Vec<f64> = Vec::with_capacity(20_000);
    for _ in 0..20_000 {
        let from = Instant::now();
        stream.write_all(&message).and_then(|()| stream.read_exact(&mut message)).map_err(failed)?;
        us.push(from.elapsed().as_secs_f64() * 1e6);
    }
    drop(stream);
    server.join().map_err(|_| "loopback: the echo thread panicked")?.map_err(failed)?;
    us.sort_by(f64::total_cmp);
    Ok((us[us.len() / 2], us[us.len() * 99 / 100]))
}

/// A thread on core 0 sends batches from memory to `readers` connections; this one, on the generator's core, reads them as the
/// generator does and computes their CRCs: MB/s, and CPU seconds of the sender per 10^9 bytes.
fn raw_send(readers: usize) -> Outcome<(f64, f64)> {
    let failed = |error: std::io::Error| format!("loopback: {error}");
    let core = 1.min(sys::cores() - 1);
    sys::pin(core)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    sys::cubic(listener.as_raw_fd())?;
    let address = listener.local_addr().map_err(failed)?;
    let sender = std::thread::spawn(move || -> std::io::Result<(u64, Duration)> {
        let _ = sys::pin(0);
        let batches: Vec<Vec<u8>> = (0..8).map(|byte| vec![byte; 1_000_000]).collect();
        let mut streams = Vec::new();
        for _ in 0..readers {
            streams.push(listener.accept()?.0);
        }
        let from = sys::thread_cpu();
        let mut sent = 0;
        for batch in batches.iter().cycle() {
            for stream in &mut streams {
                if stream.write_all(batch).is_err() {
                    return Ok((sent, sys::thread_cpu() - from));
                }
                sent += batch.len() as u64;
            }
        }
        Ok((sent, sys::thread_cpu() - from))
    });
    let mut epoll = sys::Epoll::new()?;
    let mut streams = Vec::new();
    for token in 0..readers {
        let stream = TcpStream::connect(address).map_err(failed)?;
        sys::cubic(stream.as_raw_fd())?;
        stream.set_nonblocking(true).map_err(failed)?;
        epoll.watch(stream.as_raw_fd(), token, false, true)?;
        streams.push(stream);
    }
    let mut memory = vec![0; crate::consuming::PIECE];
    let (from, mut bytes, mut ready) = (Instant::now(), 0, Vec::new());
    while from.elapsed() < Duration::from_millis(1500) {
        epoll.wait(Duration::from_millis(10), &mut ready);
        for token in ready.iter().copied() {
            if let Ok(n) = streams[token].read(&mut memory) {
                std::hint::black_box(batch::crc32c(&memory[..n]));
                bytes += n;
            }
        }
    }
    let rate = bytes as f64 / 1e6 / from.elapsed().as_secs_f64();
    drop(streams);
    let (sent, cpu) = sender.join().map_err(|_| "loopback: the sender panicked")?.map_err(failed)?;
    Ok((rate, cpu.as_secs_f64() / (sent as f64 / 1e9).max(1e-9)))
}

/// 4 KiB RWF_DSYNC writes at random places of 64 MiB written blocks, `depth` in flight: writes per second.
fn durable(path: &Path, depth: usize) -> Outcome<f64> {
    const BYTES: u64 = 64 << 20;
    let file = sys::written_file(path, BYTES)?;
    let mut ring = IoUring::new(64).map_err(|error| format!("io_uring: {error}"))?;
    let block = Aligned::new(4096);
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut queue = |ring: &mut IoUring| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), block.as_ptr(), 4096)
            .offset(state % (BYTES / 4096) * 4096)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        // SAFETY: `block` and `file` outlive the ring's operations, which are all waited for below.
        unsafe { ring.submission().push(&entry) }.map_err(|_| "submission queue full".to_string())
    };
    for _ in 0..depth {
        queue(&mut ring)?;
    }
    let start = Instant::now();
    let (mut done, mut in_flight) = (0u64, depth);
    while in_flight > 0 {
        ring.submit_and_wait(1).map_err(|error| format!("io_uring_enter: {error}"))?;
        let results: Vec<i32> = ring.completion().map(|entry| entry.result()).collect();
        for result in results {
            if result != 4096 {
                return Err(format!("durable write returned {result}"));
            }
            in_flight -= 1;
            done += 1;
            if start.elapsed() < Duration::from_secs(2) {
                queue(&mut ring)?;
                in_flight += 1;
            }
        }
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// 2 GiB of 1 MiB direct writes into a growing file, and the same read back: MB/s; and reads and writes at once.
fn sequential(dir: &Path) -> Outcome<(f64, f64, Vec<Limit>)> {
    let path = &dir.join("limits-growing");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = sys::direct_file(path, true)?;
    let chunk = Aligned::new(1 << 20);
    let start = Instant::now();
    for i in 0..2048u64 {
        file.write_all_at(&chunk, i << 20).map_err(failed)?;
        if i % 16 == 15 {
            file.sync_data().map_err(failed)?;
        }
    }
    let rate = 2048.0 * chunk.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
    let reading = reads(&file, 2048)?;
    let beside = limits_beside::measure(&file, 2048, &dir.join("limits-beside"))?;
    std::fs::remove_file(path).map_err(failed)?;
    Ok((rate, reading, beside))
}

/// Direct reads of 1 MiB from the file's beginning, eight in flight: MB/s.
fn reads(file: &std::fs::File, count: u64) -> Outcome<f64> {
    const DEPTH: u64 = 8;
    let mut ring = IoUring::new(16).map_err(|error| format!("io_uring: {error}"))?;
    let chunks: Vec<Aligned> = (0..DEPTH).map(|_| Aligned::new(1 << 20)).collect();
    let start = Instant::now();
    let (mut asked, mut done) = (0u64, 0u64);
    let mut free: Vec<u64> = (0..DEPTH).collect();
    while done < count {
        while let Some(slot) = free.pop_if(|_| asked < count) {
            let place = chunks[slot as usize].as_ptr().cast_mut();
            let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), place, 1 << 20).offset(asked << 20);
            // SAFETY: the chunk is used by one read at a time and outlives the ring's operations, all waited for here.
            unsafe { ring.submission().push(&entry.build().user_data(slot)) }
                .map_err(|_| "submission queue full".to_string())?;
            asked += 1;
        }
        ring.submit_and_wait(1).map_err(|error| format!("io_uring_enter: {error}"))?;
        for entry in ring.completion() {
            if entry.result() != 1 << 20 {
                return Err(format!("a read returned {}", entry.result()));
            }
            free.push(entry.user_data());
            done += 1;
        }
    }
    Ok(count as f64 * 1.048_576 / start.elapsed().as_secs_f64())
}

/// The limits as a Markdown table.
pub fn table(limits: &[Limit]) -> String {
    let mut text = String::from("| limit of this machine | value |\n|---|---|\n");
    for (name, value, unit) in limits {
        let digits = if *value < 1.0 { 3 } else { usize::from(*value < 100.0) };
        text.push_str(&format!("| {name} | {value:.digits$} {unit} |\n"));
    }
    text
}
