//! Three brokers as child processes, each where the network puts it: started, stopped, killed and halted by their own process ids.
//! Never touches a process it did not start.

use crate::Outcome;
use crate::net::{NODES, Net};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ports of a node, see [`Net::port`].
const CLIENTS: u16 = 0;
const PEERS: u16 = 40;
const ADMIN: u16 = 80;

/// Which broker.
#[derive(Clone, Debug)]
pub enum System {
    /// The program, and more settings `key=value`.
    Pelton(PathBuf, Vec<String>),
    /// The directory of Apache Kafka's jars, and more settings.
    Kafka(PathBuf, Vec<String>),
}

impl System {
    /// The node of a broker id: in direct mode each shard of Pelton is a broker.
    pub fn node_of(&self, broker: i32) -> usize {
        match self {
            System::Pelton(..) => (broker / 256) as usize,
            System::Kafka(..) => broker as usize,
        }
    }

    /// Whether it is Pelton: what is held against Pelton is told of others.
    pub fn is_pelton(&self) -> bool {
        matches!(self, System::Pelton(..))
    }
}

#[derive(Debug)]
struct Node {
    dir: PathBuf,
    /// Where its data is.
    data: PathBuf,
    child: Option<Child>,
}

/// The three.
#[derive(Debug)]
pub struct Cluster {
    pub system: System,
    pub net: Net,
    nodes: Vec<Node>,
    secret: PathBuf,
    /// Cores of `taskset -c` for all processes; none: not pinned.
    cores: Option<String>,
    environment: Vec<(String, String)>,
}

fn signal(child: &Child, number: i32) {
    // SAFETY: a signal to our own unreaped child.
    unsafe { libc::kill(child.id() as i32, number) };
}

/// The process is killed when this one ends, however that comes (when the thread that starts it does, to be exact: the main one).
fn end_with_us(command: &mut Command) {
    // SAFETY: one system call between fork and exec, which allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
}

impl Cluster {
    /// Three nodes, not started yet; data below `dir`.
    pub fn new(system: System, net: Net, dir: &Path) -> Outcome<Cluster> {
        Cluster::of(system, net, dir, None, NODES)
    }

    /// So many nodes, all processes on these cores.
    pub fn of(system: System, net: Net, dir: &Path, cores: Option<&str>, count: usize) -> Outcome<Cluster> {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        let mut nodes = Vec::new();
        for node in 1..=count.clamp(1, NODES) {
            let dir = dir.join(format!("node-{node}"));
            std::fs::create_dir_all(&dir).map_err(failed)?;
            nodes.push(Node { data: dir.join("data"), dir, child: None });
        }
        let secret = dir.join("secret");
        std::fs::write(&secret, format!("{:064x}\n", crate::sys::unique())).map_err(failed)?;
        let cores = cores.map(str::to_string);
        Ok(Cluster { system, net, nodes, secret, cores, environment: Vec::new() })
    }

    /// Data of a node that was not started yet go elsewhere.
    pub fn set_data_dir(&mut self, node: usize, data: PathBuf) {
        self.nodes[node - 1].data = data;
    }

    /// Where a node keeps what is not data.
    pub fn node_dir(&self, node: usize) -> &Path {
        &self.nodes[node - 1].dir
    }

    /// Variables of the environment of every process from now on.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Address for clients of each node.
    pub fn addresses(&self) -> Vec<String> {
        (1..=self.nodes())
            .map(|node| format!("{}:{}", self.net.host(node), self.net.port(node, CLIENTS)))
            .collect()
    }

    /// Where a node's data is.
    pub fn data_dir(&self, node: usize) -> &Path {
        &self.nodes[node - 1].data
    }

    /// What a node wrote on its standard error.
    pub fn log_path(&self, node: usize) -> PathBuf {
        self.nodes[node - 1].dir.join("server.log")
    }

    /// The port at which nodes listen for each other.
    pub fn peer_port(&self, node: usize) -> u16 {
        self.net.port(node, PEERS)
    }

    fn peers(&self) -> String {
        let peer = |node| format!("{node}@{}:{}", self.net.host(node), self.net.port(node, PEERS));
        (1..=self.nodes()).map(peer).collect::<Vec<_>>().join(",")
    }

    fn pelton(&self, node: usize, program: &Path, extra: &[String]) -> Command {
        let at = |service| format!("{}:{}", self.net.host(node), self.net.port(node, service));
        let mut command = self.net.command(node, program, self.cores.as_deref());
        command.args(["start", "--node-id", &node.to_string(), "--cluster", &self.peers()]);
        command.arg("--cluster-secret-file").arg(&self.secret);
        command.args(["--kafka", &at(CLIENTS), "--admin", &at(ADMIN)]);
        command.arg("--data-dir").arg(self.data_dir(node));
        // Of two settings of one name the last counts.
        command.args(["-X", "pelton.shards=1", "-X", "group.initial.rebalance.delay.ms=0"]);
        for setting in extra {
            command.args(["-X", setting]);
        }
        command
    }

    fn kafka(&self, node: usize, jars: &Path, extra: &[String]) -> Outcome<Command> {
        let dir = &self.nodes[node - 1].dir;
        let (config, log4j) = (dir.join("server.properties"), dir.join("log4j2.properties"));
        let at = |service| format!("{}:{}", self.net.host(node), self.net.port(node, service));
        let listeners = format!("PLAINTEXT://{},CONTROLLER://{}", at(CLIENTS), at(PEERS));
        let text = format!(
            "process.roles=broker,controller\nnode.id={node}\ncontroller.quorum.voters={}\nlisteners={listeners}\n\
             advertised.listeners=PLAINTEXT://{}\ncontroller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\noffsets.topic.replication.factor=3\n\
             offsets.topic.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n{}\n",
            self.peers(),
            at(CLIENTS),
            self.data_dir(node).join("logs").display(),
            extra.join("\n")
        );
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        std::fs::write(&config, text).map_err(failed)?;
        std::fs::create_dir_all(self.data_dir(node)).map_err(failed)?;
        std::fs::write(
            &log4j,
            "rootLogger.level=WARN\nrootLogger.appenderRef.a.ref=a\nappender.a.type=Console\nappender.a.name=a\n\
             appender.a.target=SYSTEM_ERR\n",
        )
        .map_err(failed)?;
        let java = |main: &str| {
            let mut command = self.net.command(node, Path::new("java"), self.cores.as_deref());
            command.args(["-Xmx512m", "-Xms512m", "-server", "-XX:+UseG1GC", "-Djava.awt.headless=true"]);
            command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
            command.arg("-cp").arg(format!("{}/*", jars.display())).arg(main);
            command
        };
        if !self.data_dir(node).join("logs/meta.properties").exists() {
            let mut format = java("kafka.tools.StorageTool");
            format.args(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"]).arg(&config);
            let output = format
                .output()
                .map_err(|error| format!("java: {error} (Kafka needs a JVM of 17 or later)"))?;
            if !output.status.success() {
                return Err(format!(
                    "formatting Kafka's storage: {}",
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
        }
        let mut command = java("kafka.Kafka");
        command.arg(&config);
        Ok(command)
    }

    /// Starts a node's process, if it is not there; it serves some time later.
    pub fn start(&mut self, node: usize) -> Outcome<()> {
        if self.is_alive(node) {
            return Ok(());
        }
        let mut command = match &self.system {
            System::Pelton(program, extra) => self.pelton(node, program, extra),
            System::Kafka(jars, extra) => self.kafka(node, jars, extra)?,
        };
        let log = File::options().create(true).append(true).open(self.log_path(node));
        let log = log.map_err(|error| format!("{}: {error}", self.log_path(node).display()))?;
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        end_with_us(&mut command);
        let child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        self.nodes[node - 1].child = Some(child);
        Ok(())
    }

    /// Process id of a node, while it runs.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node - 1].child.as_ref().map(Child::id)
    }

    /// Whether a node's process is there; one that has ended is reaped.
    pub fn is_alive(&mut self, node: usize) -> bool {
        self.ended(node);
        self.nodes[node - 1].child.is_some()
    }

    /// How a node's process ended, if it did so by itself since the last question.
    pub fn ended(&mut self, node: usize) -> Option<String> {
        let child = &mut self.nodes[node - 1].child;
        let status = child.as_mut()?.try_wait().ok()??;
        *child = None;
        Some(format!("the process of node {node} ended by itself with {status}; {}", self.last_words(node)))
    }

    /// The end of a node's log.
    pub fn last_words(&self, node: usize) -> String {
        let text = std::fs::read_to_string(self.log_path(node)).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(4).collect();
        lines.reverse();
        format!("last lines of its log: {}", lines.join(" | "))
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node - 1].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self, node: usize) {
        if let Some(child) = &self.nodes[node - 1].child {
            signal(child, libc::SIGTERM);
        }
    }

    /// SIGTERM, then waits for the process to end by itself and well.
    pub fn stop(&mut self, node: usize, patience: Duration) -> Outcome<Duration> {
        self.terminate(node);
        let from = Instant::now();
        let Some(child) = &mut self.nodes[node - 1].child else { return Ok(Duration::ZERO) };
        while from.elapsed() < patience {
            // 143: how a JVM says that it was asked to.
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => {
                    self.nodes[node - 1].child = None;
                    return if status.success() || status.code() == Some(143) {
                        Ok(from.elapsed())
                    } else {
                        Err(format!(
                            "after SIGTERM node {node} ended with {status}; {}",
                            self.last_words(node)
                        ))
                    };
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        self.kill(node);
        Err(format!("node {node} did not end within {patience:?} of SIGTERM; {}", self.last_words(node)))
    }

    /// SIGSTOP.
    pub fn halt(&self, node: usize) {
        if let Some(child) = &self.nodes[node - 1].child {
            signal(child, libc::SIGSTOP);
        }
    }

    /// SIGCONT.
    pub fn go_on(&self, node: usize) {
        if let Some(child) = &self.nodes[node - 1].child {
            signal(child, libc::SIGCONT);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (1..=self.nodes()).for_each(|node| self.kill(node));
    }
}
