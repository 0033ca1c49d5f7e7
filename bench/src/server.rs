//! The systems under test as child processes: started pinned, waited for until they serve, stopped by their own pid.
//! Never measures.

use crate::client::Client;
use crate::{Outcome, client};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running server; dropped means killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub bootstrap: String,
    /// From the spawn of the process to its being ready.
    pub start_time: Duration,
}

impl Server {
    /// Process id of the server itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9 and wait.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits at most `patience` for exit code 0 (143 for a JVM); an error when it ends otherwise.
    pub fn stop(&mut self, patience: Duration) -> Outcome<()> {
        // SAFETY: a signal to our own unreaped child.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() || status.code() == Some(143) => return Ok(()),
                Ok(Some(status)) => return Err(format!("after SIGTERM the server ended with {status}")),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    self.kill();
                    return Err(format!("the server did not stop within {patience:?} of SIGTERM"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where and on which core a server runs.
#[derive(Clone, Debug)]
pub struct Place {
    pub port: u16,
    pub dir: PathBuf,
    /// Cores of `taskset -c`, for example `0`; none: not pinned.
    pub cores: Option<String>,
}

fn command(program: &Path, cores: &Option<String>) -> Command {
    match cores {
        None => Command::new(program),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(program);
            command
        }
    }
}

/// Starts a program whose stderr says `ready`, copying its stderr to `<dir>/server.log`.
fn spawn_ready(mut command: Command, place: &Place, patience: Duration) -> Outcome<Server> {
    std::fs::create_dir_all(&place.dir).map_err(|error| format!("{}: {error}", place.dir.display()))?;
    let from = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("cannot start {command:?}: {error} (build it first)"))?;
    let stderr = child.stderr.take().ok_or("no stderr")?;
    let log_path = place.dir.join("server.log");
    let log = std::fs::File::options().create(true).append(true).open(&log_path);
    let mut log = log.map_err(|error| format!("{}: {error}", log_path.display()))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = writeln!(log, "{line}");
            if line.contains("ready") {
                let _ = sender.send(());
            }
        }
    });
    let said = receiver.recv_timeout(patience);
    let mut server =
        Server { child, bootstrap: format!("127.0.0.1:{}", place.port), start_time: from.elapsed() };
    if said.is_err() {
        server.kill();
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        return Err(format!("not ready within {patience:?}; last lines of {}: {tail:?}", log_path.display()));
    }
    Ok(server)
}

/// Starts Pelton with one shard.
pub fn pelton(program: &Path, place: &Place, extra: &[String]) -> Outcome<Server> {
    pelton_within(program, place, extra, Duration::from_secs(60))
}

/// Starts Pelton; when it is not ready after `patience` it is killed, which is an error.
pub fn pelton_within(program: &Path, place: &Place, extra: &[String], patience: Duration) -> Outcome<Server> {
    let mut command = command(program, &place.cores);
    command.args(["start", "-X", "pelton.shards=1", "-X", "pelton.mode=direct"]);
    command.args(["--kafka", &format!("127.0.0.1:{}", place.port)]);
    command.args(["--admin", &format!("127.0.0.1:{}", place.port + 50)]);
    command.arg("--data-dir").arg(place.dir.join("data"));
    for key_value in extra {
        command.args(["-X", key_value]);
    }
    spawn_ready(command, place, patience)
}

/// Starts the floor: this program's own `floor` command.
pub fn floor(place: &Place, durable_depth: Option<usize>, spin_us: u64) -> Outcome<Server> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = command(&program, &place.cores);
    command.args(["floor", "--port", &place.port.to_string(), "--spin-us", &spin_us.to_string()]);
    if let Some(depth) = durable_depth {
        command.args(["--durable", &depth.to_string()]).arg("--data").arg(place.dir.join("journal"));
    }
    spawn_ready(command, place, Duration::from_secs(60))
}

/// Starts Apache Kafka (broker and controller in one) from the jars in `jars`, with the heap and collector settings of
/// its own start script; the first start formats the data directory.
pub fn kafka(jars: &Path, place: &Place) -> Outcome<Server> {
    kafka_with(jars, place, &[])
}

/// The same with more settings, `key=value`.
pub fn kafka_with(jars: &Path, place: &Place, extra: &[String]) -> Outcome<Server> {
    let failed = |error: std::io::Error| format!("{}: {error}", place.dir.display());
    std::fs::create_dir_all(&place.dir).map_err(failed)?;
    let config = place.dir.join("server.properties");
    let (port, controller) = (place.port, place.port + 1);
    let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners={listeners}\nadvertised.listeners={listeners}\ncontroller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\nnum.partitions=1\ndefault.replication.factor=1\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n{}\n",
        place.dir.join("logs").display(),
        extra.join("\n")
    );
    std::fs::write(&config, text).map_err(failed)?;
    let log4j = place.dir.join("log4j2.properties");
    std::fs::write(&log4j, "rootLogger.level=WARN\nrootLogger.appenderRef.a.ref=a\nappender.a.type=Console\nappender.a.name=a\nappender.a.target=SYSTEM_ERR\n").map_err(failed)?;
    let java = |main: &str| {
        let mut command = command(Path::new("java"), &place.cores);
        command.args(["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
        command.args(["-XX:InitiatingHeapOccupancyPercent=35", "-Djava.awt.headless=true"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        command.arg("-cp").arg(format!("{}/*", jars.display())).arg(main);
        command
    };
    if !place.dir.join("logs/meta.properties").exists() {
        let mut format = java("kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"]).arg(&config);
        let output =
            format.output().map_err(|error| format!("java: {error} (Kafka needs a JVM of 17 or later)"))?;
        if !output.status.success() {
            return Err(format!("formatting Kafka's storage: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    let from = Instant::now();
    let log = std::fs::File::create(place.dir.join("server.log")).map_err(failed)?;
    let mut command = java("kafka.Kafka");
    command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().map_err(|error| format!("java: {error}"))?;
    let mut server = Server { child, bootstrap: format!("127.0.0.1:{port}"), start_time: Duration::ZERO };
    serving(&server.bootstrap, Duration::from_secs(120))?;
    server.start_time = from.elapsed();
    Ok(server)
}

/// Starts Tansu, which keeps everything in memory.
pub fn tansu(program: &Path, place: &Place) -> Outcome<Server> {
    let failed = |error: std::io::Error| format!("{}: {error}", place.dir.display());
    std::fs::create_dir_all(&place.dir).map_err(failed)?;
    let url = format!("tcp://127.0.0.1:{}", place.port);
    let mut command = command(program, &place.cores);
    command.args(["broker", "--cluster-id", "bench", "--storage-engine", "memory://tansu/", "--silent"]);
    command.args(["--listener-url", &url, "--advertised-listener-url", &url]);
    let log = std::fs::File::create(place.dir.join("server.log")).map_err(failed)?;
    let from = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let mut server =
        Server { child, bootstrap: format!("127.0.0.1:{}", place.port), start_time: Duration::ZERO };
    serving(&server.bootstrap, Duration::from_secs(30))?;
    server.start_time = from.elapsed();
    Ok(server)
}

/// Waits until the address answers Metadata.
pub fn serving(bootstrap: &str, patience: Duration) -> Outcome<()> {
    let deadline = Instant::now() + patience;
    loop {
        let attempt =
            Client::connect(bootstrap, Duration::from_secs(2)).and_then(|mut c| c.metadata("no-such-topic"));
        match attempt {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(format!("not serving within {patience:?}: {error}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Fails when something else holds the port: figures of another server would be worse than none. Waits a little, since a
/// killed io_uring server's listener outlives its process until the kernel has torn down the ring.
pub fn port_is_free(port: u16) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        if Instant::now() > deadline {
            return Err(format!("port {port} is taken; choose another with --port"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Kafka's jars: `--jars`, or what `tests/clients/kafka-oracle.sh fetch` puts into its cache, run if needed.
pub fn kafka_jars(given: Option<&str>) -> Outcome<PathBuf> {
    if let Some(path) = given {
        return Ok(PathBuf::from(path));
    }
    let script = PathBuf::from("tests/clients/kafka-oracle.sh");
    if !script.exists() {
        return Err("run from the repository's root, or give --jars DIR with Apache Kafka's jars".into());
    }
    let status = Command::new(&script).arg("fetch").status().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("{} fetch ended with {status}", script.display()));
    }
    Ok(PathBuf::from("tests/.cache/oracle/jars"))
}

/// The Pelton binary: `--pelton`, or the one beside this program.
pub fn pelton_program(given: Option<&str>) -> Outcome<PathBuf> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = given.map_or_else(|| own.with_file_name("pelton"), PathBuf::from);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{}: no such file; build it: cargo build --release", path.display()))
    }
}

/// A directory of our own that is removed at the end.
#[derive(Debug)]
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    /// Makes it under `base` or the system's temporary directory.
    pub fn new(base: Option<&str>, name: &str) -> Outcome<Scratch> {
        let base = base.map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("pelton-{name}-{}-{}", std::process::id(), crate::load::now_ms()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Waits until the broker can make topics: right after a start the controller may still say "not yet".
pub fn warm(bootstrap: &str) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let topic = format!("bench-warm-{}", crate::load::now_ms());
        let made = Client::connect(bootstrap, Duration::from_secs(30))
            .and_then(|mut c| c.create_topic(&topic, 1, &[]));
        match made {
            Ok(()) => return client::leaders(bootstrap, &topic, Duration::from_secs(30)).map(|_| ()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
