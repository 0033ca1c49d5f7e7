//! A closed-loop load over epoll: every connection keeps `depth` messages of 128 bytes in flight.
//! Never shares a core with the server it measures.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Bytes of a message in both directions.
const MESSAGE: usize = 128;

pub struct Load {
    pub conns: usize,
    pub depth: usize,
    pub seconds: f64,
}

#[derive(Clone, Default)]
pub struct Outcome {
    pub per_s: f64,
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Messages of the slowest connection divided by the mean: 1 is fair, 0 is starved.
    pub least_share: f64,
    /// True when no answer came for a second: the server lost a wake-up, the figures up to then stand.
    pub stalled: bool,
}

pub struct Conn {
    stream: TcpStream,
    sent_at: VecDeque<Instant>,
    partial: usize,
    done: u64,
}

pub fn pin(core: usize) {
    // SAFETY: a zeroed set is a valid set, and the calls write within it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

pub fn cubic(fd: i32) {
    // SAFETY: a live socket and a buffer of the length given.
    let rc =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, c"cubic".as_ptr().cast(), 5) };
    assert_eq!(rc, 0, "cubic is needed: the default here may pace loopback");
}

pub fn connect(port: u16, conns: usize) -> Vec<Conn> {
    (0..conns)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            cubic(stream.as_raw_fd());
            stream.set_nodelay(true).expect("nodelay");
            Conn { stream, sent_at: VecDeque::new(), partial: 0, done: 0 }
        })
        .collect()
}

/// CPU nanoseconds of all live threads of a process.
pub fn cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the server lives");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

impl Conn {
    fn send(&mut self, count: usize, zeros: &[u8]) {
        let now = Instant::now();
        self.sent_at.extend(std::iter::repeat_n(now, count));
        self.stream.write_all(&zeros[..count * MESSAGE]).expect("send");
    }
}

/// Warms up for half a second, then measures for `load.seconds`.
pub fn run(conns: &mut [Conn], load: &Load, pid: u32) -> Outcome {
    let zeros = vec![0u8; load.depth * MESSAGE];
    let mut buf = vec![0u8; 64 * 1024];
    // SAFETY: plain system calls on owned descriptors.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    for (i, conn) in conns.iter_mut().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: i as u64 };
        // SAFETY: as above, and the event outlives the call.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, conn.stream.as_raw_fd(), &mut event) };
        conn.send(load.depth, &zeros);
    }
    let warm = Instant::now() + Duration::from_millis(500);
    let mut start: Option<(Instant, u64)> = None;
    let mut latencies: Vec<u32> = Vec::with_capacity(4 << 20);
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut stalled = false;
    let mut heard = Instant::now();
    let (elapsed, cpu) = loop {
        let now = Instant::now();
        if now - heard > Duration::from_secs(1) {
            stalled = true;
            let (from, cpu) = start.unwrap_or((now, 0));
            break (now - from, cpu_ns(pid) - cpu);
        }
        match start {
            None if now >= warm => {
                conns.iter_mut().for_each(|c| c.done = 0);
                latencies.clear();
                start = Some((now, cpu_ns(pid)));
            }
            Some((from, cpu)) if (now - from).as_secs_f64() >= load.seconds => {
                break (now - from, cpu_ns(pid) - cpu);
            }
            _ => {}
        }
        // SAFETY: room for 256 events.
        let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 256, 100) };
        if n > 0 {
            heard = Instant::now();
        }
        for event in &events[..n.max(0) as usize] {
            let conn = &mut conns[event.u64 as usize];
            let got = conn.stream.read(&mut buf).expect("recv");
            assert!(got > 0, "the server closed a connection");
            let whole = (conn.partial + got) / MESSAGE;
            conn.partial = (conn.partial + got) % MESSAGE;
            let now = Instant::now();
            for _ in 0..whole {
                let at = conn.sent_at.pop_front().expect("one answer per message");
                latencies.push((now - at).as_nanos().min(u32::MAX as u128) as u32);
            }
            conn.done += whole as u64;
            if whole > 0 {
                conn.send(whole, &zeros);
            }
        }
    };
    // SAFETY: ours.
    unsafe { libc::close(epoll) };
    Outcome { stalled, ..outcome(conns, latencies, elapsed, cpu) }
}

fn outcome(conns: &[Conn], mut latencies: Vec<u32>, elapsed: Duration, cpu: u64) -> Outcome {
    latencies.push(0);
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |q: f64| latencies[((count - 1) as f64 * q) as usize] as f64 / 1000.0;
    let mean = count as f64 / conns.len() as f64;
    let least = conns.iter().map(|c| c.done).min().unwrap_or(0) as f64;
    Outcome {
        per_s: count as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu as f64 / 1000.0 / count as f64,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
        least_share: least / mean,
        stalled: false,
    }
}
