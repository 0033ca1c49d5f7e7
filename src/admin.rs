//! HTTP for those who look after the broker: `/livez` (the process answers) and `/readyz` (it serves clients). A few threads
//! of its own with blocking sockets, so that it answers when shards are busy. Never touches a shard, changes nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::config::address::HostPort;
use crate::failure::Failure;

/// Threads that answer: one slow asker does not keep the others waiting.
const THREADS: usize = 4;
/// Longest time for one request and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest request head, bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How far the broker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Recovering; no client can connect.
    Starting = 0,
    /// Serving.
    Serving = 1,
    /// Stopping; connections end.
    Stopping = 2,
}

/// The phase, shared with the threads that answer.
#[derive(Debug)]
pub struct Status {
    phase: AtomicU8,
    /// A node of a cluster that has no lease: clients find nothing they may read or write here.
    alone: AtomicBool,
}

impl Status {
    /// Starting.
    pub fn new() -> Arc<Status> {
        Arc::new(Status { phase: AtomicU8::new(Phase::Starting as u8), alone: AtomicBool::new(false) })
    }

    /// Moves on.
    pub fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Of a node of a cluster: whether it may not serve, for the others do not hear it.
    pub fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Release);
    }

    fn name(&self) -> &'static str {
        match self.phase.load(Ordering::Acquire) {
            0 => "starting",
            1 if self.alone.load(Ordering::Acquire) => {
                "fenced: the other nodes do not hear it, or too few are there"
            }
            1 => "ready",
            _ => "stopping",
        }
    }
}

/// Listens and answers until the process ends. Returns the address, with the port that was chosen if 0 was given.
pub fn serve(address: &HostPort, status: Arc<Status>) -> Result<SocketAddr, Failure> {
    let remedy = "Choose another with --admin HOST:PORT, or --admin off";
    let socket_address =
        address.resolve().map_err(|words| Failure::error(format!("--admin {words}. {remedy}")))?;
    let listener = TcpListener::bind(socket_address).map_err(|error| {
        Failure::error(format!("the admin address {address} cannot be had: {error}. {remedy}"))
    })?;
    let started = || -> std::io::Result<SocketAddr> {
        for _ in 0..THREADS {
            let (listener, status) = (listener.try_clone()?, status.clone());
            std::thread::Builder::new()
                .name("pelton-admin".to_string())
                .spawn(move || accept(&listener, &status))?;
        }
        listener.local_addr()
    };
    started().map_err(|error| Failure::error(format!("the admin server cannot start: {error}")))
}

fn accept(listener: &TcpListener, status: &Status) {
    loop {
        match listener.accept() {
            // What goes wrong with one asker is that asker's affair.
            Ok((stream, _)) => drop(answer(stream, status)),
            // Out of descriptors, most likely: others will be closed.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn answer(mut stream: TcpStream, status: &Status) -> std::io::Result<()> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let mut head = Vec::new();
    while !ends(&head) && head.len() < HEAD_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..count]);
    }
    stream.write_all(response(&head, status.name()).as_bytes())
}

/// True once the empty line behind the headers has come.
fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n") || head.windows(2).any(|window| window == b"\n\n")
}

/// The whole answer to a request's head.
fn response(head: &[u8], phase: &str) -> String {
    if !ends(head) {
        return page("431 Request Header Fields Too Large", "text/plain", "the request is too long\n", true);
    }
    let text = String::from_utf8_lossy(head);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let with_body = method != "HEAD";
    if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return page("400 Bad Request", "text/plain", "this is HTTP/1.1\n", true);
    }
    if method != "GET" && method != "HEAD" {
        return page("405 Method Not Allowed", "text/plain", "GET or HEAD\n", true);
    }
    match target.split('?').next().unwrap_or_default() {
        "/livez" => page("200 OK", "text/plain", "ok\n", with_body),
        "/readyz" if phase == "ready" => {
            page("200 OK", "application/json", "{\"status\":\"ready\",\"reasons\":[]}\n", with_body)
        }
        "/readyz" => {
            let status = phase.split(':').next().unwrap_or_default();
            let body = format!("{{\"status\":\"{status}\",\"reasons\":[\"the broker is {phase}\"]}}\n");
            page("503 Service Unavailable", "application/json", &body, with_body)
        }
        _ => page("404 Not Found", "text/plain", "there are /livez and /readyz\n", with_body),
    }
}

fn page(status: &str, kind: &str, body: &str, with_body: bool) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if with_body { head + body } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn it_says_how_far_the_broker_is() {
        let status = Status::new();
        let address = serve(&HostPort::new("127.0.0.1", 0), status.clone()).unwrap();
        let get = |path: &str| ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
        let starting = get("/readyz");
        assert!(
            starting.starts_with("HTTP/1.1 503 ") && starting.contains("\"status\":\"starting\""),
            "{starting}"
        );
        status.set(Phase::Serving);
        assert!(get("/readyz?x=1").starts_with("HTTP/1.1 200 OK\r\n"));
        status.set_alone(true);
        let alone = get("/readyz");
        assert!(alone.starts_with("HTTP/1.1 503 ") && alone.contains("\"status\":\"fenced\""), "{alone}");
        status.set_alone(false);
        assert!(get("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
        status.set(Phase::Stopping);
        assert!(get("/readyz").contains("\"stopping\""));
        assert!(get("/other").starts_with("HTTP/1.1 404 "));
        let head = ask(address, "HEAD /livez HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 3") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(address, "POST /livez HTTP/1.1\r\n\r\n").contains("Allow: GET"));
        assert!(ask(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask(address, &"x".repeat(HEAD_BYTES_MAX)).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn slow_askers_do_not_keep_others_waiting() {
        let address = serve(&HostPort::new("127.0.0.1", 0), Status::new()).unwrap();
        let silent: Vec<TcpStream> = (0..THREADS - 1).map(|_| TcpStream::connect(address).unwrap()).collect();
        let began = Instant::now();
        assert!(ask(address, "GET /livez HTTP/1.1\r\n\r\n").contains("200 OK"));
        assert!(began.elapsed() < REQUEST_TIMEOUT);
        drop(silent);
    }

    #[test]
    fn a_taken_port_is_a_clear_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = serve(&HostPort::new("127.0.0.1", port), Status::new()).unwrap_err();
        assert!(
            failure.message.contains(&port.to_string()) && failure.message.contains("--admin"),
            "{}",
            failure.message
        );
    }
}
