//! The bake-off's measured side: the same echo servers and the same fact programs, compiled once per glommio release.
//! Never measures anything but itself: loads and CPU clocks belong to the driver.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::io::{BufferedFile, DmaFile};
use glommio::{LocalExecutorBuilder, Placement, executor, timer::sleep};
use io_uring::{IoUring, opcode, types};

/// Receive buffer of one connection; also the most bytes echoed at once.
const BUF: usize = 16 * 1024;

pub fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map(String::as_str).unwrap_or("");
    let num =
        |i: usize| arg(i).parse::<u64>().unwrap_or_else(|_| panic!("argument {i} of {args:?} is a number"));
    match arg(0) {
        "stream" => echo(num(1) as u16, num(2) as usize, num(3), Mode::Stream),
        "ring-yield" => echo(num(1) as u16, num(2) as usize, num(3), Mode::RingYield),
        "ring" => echo(num(1) as u16, num(2) as usize, num(3), Mode::Ring),
        "starve" => starve(arg(1), num(2)),
        "empty" => empty(arg(1)),
        "idle" => idle(num(1), arg(2) == "ring"),
        "first-sleep" => first_sleep(),
        other => panic!(
            "unknown mode {other:?}: stream|ring|ring-yield PORT CONNS SPIN_US, starve FILE PREEMPT_US, empty DIR, idle S [ring]"
        ),
    }
}

fn builder(preempt: Duration, spin: Duration) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(0))
        .preempt_timer(preempt)
        .spin_before_park(spin)
        .io_memory(4 << 20)
}

const MS: Duration = Duration::from_millis(1);

fn cubic(fd: i32) {
    // SAFETY: a live socket and a buffer of the length given.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, c"cubic".as_ptr().cast(), 5) };
}

/// Accepts all connections before the executor starts, so that accept loops are not what is compared.
fn accept_all(port: u16, conns: usize) -> Vec<std::net::TcpStream> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the driver chose a free port");
    cubic(listener.as_raw_fd());
    println!("ready");
    (0..conns)
        .map(|_| {
            let (stream, _) = listener.accept().expect("accept");
            stream.set_nodelay(true).expect("nodelay");
            stream
        })
        .collect()
}

/// How an echo server waits. `RingYield` is the obvious driver (yield, then sleep, preempt_timer 1 ms) and loses wake-ups:
/// `run_task_queues` returns false when the preempt timer has fired before its first look, and the executor then parks
/// although tasks are runnable (both releases). `Ring` never yields: with a preempt timer that never fires it hands the
/// thread back by awaiting an eventfd that it has signalled itself, so that the executor never parks on a runnable task.
/// `Stream` keeps the default preempt timer of 100 ms: with 1 ms it too stops for ever on a busy machine.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Stream,
    RingYield,
    Ring,
}

/// A preempt timer that never fires.
const NEVER: Duration = Duration::from_secs(86_400);
/// How long a busy driver keeps the thread before the executor may look at its own rings and timers.
const TURN: Duration = Duration::from_micros(500);

fn echo(port: u16, conns: usize, spin_us: u64, mode: Mode) {
    let streams = accept_all(port, conns);
    let preempt = match mode {
        Mode::Stream => Duration::from_millis(100),
        Mode::RingYield => MS,
        Mode::Ring => NEVER,
    };
    let joined = builder(preempt, Duration::ZERO).spawn(move || async move {
        println!("go");
        match mode {
            Mode::Stream => stream_echo(streams).await,
            Mode::RingYield => ring_echo(streams, true, Duration::from_micros(spin_us)).await,
            Mode::Ring => ring_echo(streams, false, Duration::from_micros(spin_us)).await,
        }
    });
    let _ = joined.expect("executor").join();
}

async fn stream_echo(streams: Vec<std::net::TcpStream>) {
    use futures_lite_like::{read_some, write_all};
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            stream.set_nonblocking(true).expect("nonblocking");
            // SAFETY: the descriptor is moved, its only owner is the glommio stream.
            let mut stream = unsafe { glommio::net::TcpStream::from_raw_fd(stream.into_raw_fd()) };
            glommio::spawn_local(async move {
                let mut buf = vec![0; BUF];
                loop {
                    let n = match read_some(&mut stream, &mut buf).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => n,
                    };
                    if write_all(&mut stream, &buf[..n]).await.is_err() {
                        return;
                    }
                }
            })
            .detach()
        })
        .collect();
    for task in tasks {
        task.await;
    }
}

/// The two calls of futures-lite that are needed, over the futures-io traits that both releases implement.
mod futures_lite_like {
    use futures_io::{AsyncRead, AsyncWrite};
    use std::future::poll_fn;
    use std::pin::Pin;

    pub async fn read_some(stream: &mut (impl AsyncRead + Unpin), buf: &mut [u8]) -> std::io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buf)).await
    }

    pub async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut buf: &[u8]) -> std::io::Result<()> {
        while !buf.is_empty() {
            let n = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, buf)).await?;
            buf = &buf[n..];
        }
        Ok(())
    }
}

/// A side ring and the eventfd through which glommio waits for it.
struct Side {
    ring: IoUring,
    event: BufferedFile,
    event_fd: i32,
}

impl Side {
    fn new(conns: usize) -> Side {
        let cq = (4 * conns.max(64)).next_power_of_two().min(32768) as u32;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(cq)
            .build((cq / 2).min(4096))
            .expect("io_uring with SINGLE_ISSUER and DEFER_TASKRUN");
        // SAFETY: a plain system call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        ring.submitter().register_eventfd(fd).expect("register eventfd");
        // SAFETY: fd is fresh and owned by the file from here on.
        Side { ring, event: unsafe { BufferedFile::from_raw_fd(fd) }, event_fd: fd }
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: buffers live in `ring_echo`'s vector until the process ends.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit().expect("submit");
        }
    }

    /// Hands in what was queued and runs the deferred completions, without waiting.
    fn turn(&mut self) {
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument pointer is passed.
        let done = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, 1, None) };
        done.expect("io_uring_enter");
    }

    /// Makes the next read of the eventfd complete at once.
    fn signal_self(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of a live integer.
        unsafe { libc::write(self.event_fd, (&raw const one).cast(), 8) };
    }
}

async fn ring_echo(streams: Vec<std::net::TcpStream>, yields: bool, spin: Duration) {
    let mut side = Side::new(streams.len());
    let mut bufs: Vec<Vec<u8>> = streams.iter().map(|_| vec![0; BUF]).collect();
    let fds: Vec<i32> = streams.iter().map(|s| s.as_raw_fd()).collect();
    let recv = |i: usize, buf: &mut Vec<u8>| {
        opcode::Recv::new(types::Fd(fds[i]), buf.as_mut_ptr(), BUF as u32).build().user_data(i as u64)
    };
    for (i, buf) in bufs.iter_mut().enumerate() {
        side.push(&recv(i, buf));
    }
    let mut live = streams.len();
    let mut empty = 0;
    let mut done = Vec::with_capacity(256);
    let mut since = Instant::now();
    let mut busy = since;
    while live > 0 {
        side.turn();
        // At most 256 completions a turn: the executor's other tasks get their share.
        done.extend(side.ring.completion().take(256).map(|c| (c.user_data() as usize, c.result())));
        if done.is_empty() {
            empty += 1;
            if yields && empty < 2 {
                executor().yield_task_queue_now().await;
                continue;
            }
            if spin.is_zero() || busy.elapsed() > spin {
                let _ = side.event.read_at(0, 8).await;
                since = Instant::now();
                busy = since;
            }
        } else if !spin.is_zero() {
            busy = Instant::now();
        }
        empty = 0;
        for (i, n) in done.drain(..) {
            if n <= 0 || !send_all(fds[i], &bufs[i][..n as usize]) {
                live -= 1;
                continue;
            }
            side.push(&recv(i, &mut bufs[i]));
        }
        if since.elapsed() > TURN {
            side.signal_self();
            let _ = side.event.read_at(0, 8).await;
            since = Instant::now();
        }
    }
}

fn send_all(fd: i32, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are of one live slice.
        let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        if n <= 0 {
            return false;
        }
        bytes = &bytes[n as usize..];
    }
    true
}

fn print_percentiles(name: &str, mut us: Vec<f64>) {
    us.sort_by(f64::total_cmp);
    let at = |q: f64| us[((us.len() - 1) as f64 * q) as usize];
    println!("{name} {:.1} {:.1} {:.1}", at(0.5), at(0.99), at(1.0));
}

/// A direct read beside a task that never sleeps: how late is its completion seen?
fn starve(file: &str, preempt_us: u64) {
    let file = file.to_string();
    let preempt =
        if preempt_us == 0 { Duration::from_millis(100) } else { Duration::from_micros(preempt_us) };
    let joined = builder(preempt, Duration::ZERO).spawn(move || async move {
        let dma = DmaFile::open(&file).await.expect("probe file");
        let stop = Rc::new(RefCell::new(false));
        let stopped = stop.clone();
        let busy = glommio::spawn_local(async move {
            while !*stopped.borrow() {
                executor().yield_task_queue_now().await;
            }
        })
        .detach();
        let mut us = Vec::new();
        for i in 0..30 {
            let from = Instant::now();
            dma.read_at_aligned((i % 16) * 4096, 4096).await.expect("read");
            us.push(from.elapsed().as_secs_f64() * 1e6);
        }
        *stop.borrow_mut() = true;
        busy.await;
        print_percentiles("starve_us", us);
    });
    joined.expect("executor").join().expect("starve");
}

/// Is a thread whose first direct open is of an empty file usable afterwards?
fn empty(dir: &str) {
    let path = std::path::Path::new(dir).join(format!("empty-{}", std::process::id()));
    std::fs::File::create(&path).expect("create");
    let joined = builder(MS, Duration::ZERO).spawn(move || async move {
        let result = async {
            DmaFile::open(&path).await?.close().await?;
            std::fs::File::options().write(true).open(&path).unwrap().write_all(&[7; 8192]).unwrap();
            let file = DmaFile::open(&path).await?;
            let read = file.read_at_aligned(0, 4096).await?;
            let right = read.len() == 4096 && read.iter().all(|b| *b == 7);
            file.close().await?;
            Ok::<bool, glommio::GlommioError<()>>(right)
        }
        .await;
        let _ = std::fs::remove_file(&path);
        match result {
            Ok(true) => println!("empty ok"),
            Ok(false) => println!("empty wrong-bytes"),
            Err(error) => println!("empty error: {error}"),
        }
    });
    joined.expect("executor").join().expect("empty");
}

fn cpu_us() -> f64 {
    let mut text = String::new();
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task").expect("proc").flatten() {
        text.clear();
        let file = std::fs::File::open(task.path().join("schedstat"));
        if file.and_then(|mut f| f.read_to_string(&mut text)).is_ok() {
            total += text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0;
        }
    }
    total
}

/// CPU of an executor that has nothing to do, with or without a side ring that waits for a connection's bytes.
fn idle(seconds: u64, ring: bool) {
    let joined = builder(if ring { NEVER } else { MS }, Duration::ZERO).spawn(move || async move {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
        if ring {
            // SAFETY: the descriptor is moved; a stream socket is all that `ring_echo` asks for.
            let stream = unsafe { std::net::TcpStream::from_raw_fd(ours.into_raw_fd()) };
            glommio::spawn_local(ring_echo(vec![stream], false, Duration::ZERO)).detach();
        }
        sleep(Duration::from_millis(300)).await;
        let from = cpu_us();
        sleep(Duration::from_secs(seconds)).await;
        println!("idle_us {:.0}", cpu_us() - from);
        drop(theirs);
        std::process::exit(0);
    });
    let _ = joined.expect("executor").join();
}

fn first_sleep() {
    let joined = builder(MS, Duration::ZERO).spawn(|| async {
        let mut us = Vec::new();
        for _ in 0..200 {
            let from = Instant::now();
            sleep(MS).await;
            us.push(from.elapsed().as_secs_f64() * 1e6);
        }
        println!("first_us {:.0}", us[0]);
        print_percentiles("sleep_us", us.split_off(1));
    });
    joined.expect("executor").join().expect("sleep");
}
