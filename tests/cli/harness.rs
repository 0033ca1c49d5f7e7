//! What the tests of the command line share: the binary, a broker of the test's own, free ports.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Ports these tests use.
const PORTS: std::ops::Range<u16> = 18_600..18_700;
/// Longest wait for a broker.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub fn pelton(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PELTON_")) {
        command.env_remove(name);
    }
    command
}

pub fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = pelton(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_string()
}

/// Runs and expects an exit code; gives standard output and standard error.
#[track_caller]
pub fn expect(code: i32, arguments: &[&str], input: &str) -> (String, String) {
    let output = run(arguments, input);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "pelton {}\n{out}{err}", arguments.join(" "));
    (out, err)
}

/// `count` free ports in a row, which no other test gets.
pub fn ports(count: u16) -> u16 {
    static NEXT: std::sync::Mutex<u16> = std::sync::Mutex::new(PORTS.start);
    let mut next = NEXT.lock().unwrap();
    loop {
        assert!(*next + count <= PORTS.end, "no {count} free ports in {PORTS:?}");
        let free = (*next..*next + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        let first = *next;
        *next += if free { count } else { 1 };
        if free {
            return first;
        }
    }
}

/// A broker of this test; killed when the test ends before it.
pub struct Broker {
    pub child: Child,
    pub port: u16,
    pub dir: PathBuf,
    pub log: PathBuf,
}

impl Broker {
    pub fn start(name: &str, more: &[&str]) -> Broker {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Broker::start_in(dir, ports(5), more)
    }

    pub fn start_in(dir: PathBuf, port: u16, more: &[&str]) -> Broker {
        let mut broker = Broker::spawn(dir, port, more);
        broker.wait_until_ready();
        broker
    }

    /// Does not wait until it serves.
    pub fn spawn(dir: PathBuf, port: u16, more: &[&str]) -> Broker {
        std::fs::create_dir_all(&dir).unwrap();
        let log = dir.join("stderr");
        let (kafka, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 4));
        let data = dir.join("data");
        let child =
            pelton(&["start", "--data-dir", data.to_str().unwrap(), "--kafka", &kafka, "--admin", &admin])
                .args(["-X", "pelton.journal.bytes=16777216"])
                .args(more)
                .stderr(std::fs::File::create(&log).unwrap())
                .spawn()
                .unwrap();
        Broker { child, port, dir, log }
    }

    pub fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while !self.log().lines().any(|line| line.starts_with("ready ")) {
            assert!(self.child.try_wait().unwrap().is_none(), "the broker ended:\n{}", self.log());
            assert!(began.elapsed() < START_TIMEOUT, "the broker did not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        text(&std::fs::read(&self.log).unwrap())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    #[track_caller]
    pub fn expect(&self, code: i32, arguments: &[&str], input: &str) -> (String, String) {
        let address = self.address();
        let mut all = arguments.to_vec();
        all.extend(["-b", &address]);
        expect(code, &all, input)
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> (PathBuf, u16) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "SIGTERM is a clean stop:\n{}", self.log());
        (self.dir.clone(), self.port)
    }

    pub fn restart(self, more: &[&str]) -> Broker {
        let (dir, port) = self.stop();
        Broker::start_in(dir, port, more)
    }

    pub fn finish(self) {
        let (dir, _) = self.stop();
        std::fs::remove_dir_all(dir).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
