//! A network of our own: each node in a network namespace, all on one bridge, the clients beside it. Links are cut silently, as a
//! broken switch does: packets leave for a MAC address that nobody has, in one direction or both. Never touches a
//! namespace or device of another name.

use crate::Outcome;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

/// Nodes there are, 1 to this.
pub const NODES: usize = 3;

const BRIDGE: &str = "pelton-vbr";
const NETWORK: &str = "10.77.0";
/// The clients' host number.
const CLIENTS: usize = 254;
/// A MAC address of nobody (locally administered).
const NOBODY: &str = "02:00:00:00:00:fe";

/// Who can be cut from whom: a node, or the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Node(usize),
    Clients,
}

/// Where the nodes are.
#[derive(Debug)]
pub struct Net {
    /// False: everything on loopback, where nothing can be cut.
    pub namespaces: bool,
    base_port: u16,
    /// The names are the same for all: one run at a time has them.
    _lock: Option<File>,
}

fn ip(arguments: &str) -> Outcome<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("ip {arguments}: {error} (install iproute2)"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn namespace(node: usize) -> String {
    format!("pelton-v{node}")
}

fn link(node: usize) -> String {
    format!("pelton-vh{node}")
}

/// Ends what runs in a namespace of ours: of a run that was killed, as one at a time has them.
fn end_all_in(space: &str) {
    let output = Command::new("ip").args(["netns", "pids", space]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for process in text.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        // SAFETY: a signal to a process that is in our own namespace.
        unsafe { libc::kill(process, libc::SIGKILL) };
    }
}

/// Does something where a node is, on a thread that goes there and does not come back.
fn inside<T: Send>(node: usize, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let path = format!("/run/netns/{}", namespace(node));
    let there = || {
        let space = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        // SAFETY: a system call on a descriptor that is open until it returns.
        match unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => work(),
            _ => Err(format!("{path}: {}", std::io::Error::last_os_error())),
        }
    };
    std::thread::scope(|scope| scope.spawn(there).join().map_err(|_| "a thread panicked")?)
}

fn remove() {
    for node in 1..=NODES {
        end_all_in(&namespace(node));
        let _ = ip(&format!("link del {}", link(node)));
        let _ = ip(&format!("netns del {}", namespace(node)));
    }
    let _ = ip(&format!("link del {BRIDGE}"));
}

impl Net {
    /// Loopback only, ports from `base_port` on.
    pub fn loopback(base_port: u16) -> Net {
        Net { namespaces: false, base_port, _lock: None }
    }

    /// Makes the namespaces, after removing what an earlier run may have left; waits while another run has them.
    pub fn namespaces(base_port: u16) -> Outcome<Net> {
        let path = std::env::temp_dir().join("pelton-namespaces.lock");
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let lock = File::options().create(true).append(true).open(&path).map_err(failed)?;
        lock.lock().map_err(failed)?;
        remove();
        // From here on dropping it removes what was made.
        let net = Net { namespaces: true, base_port, _lock: Some(lock) };
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("addr add {NETWORK}.{CLIENTS}/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        for node in 1..=NODES {
            let (space, link) = (namespace(node), link(node));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {link} master {BRIDGE} up"))?;
            ip(&format!("-n {space} addr add {NETWORK}.{node}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(net)
    }

    /// The address of a node.
    pub fn host(&self, node: usize) -> String {
        if self.namespaces { format!("{NETWORK}.{node}") } else { "127.0.0.1".to_string() }
    }

    /// A port of a node; services are 0 for clients, 20 for other nodes, 40 and up for the rest.
    pub fn port(&self, node: usize, service: u16) -> u16 {
        if self.namespaces { self.base_port + service } else { self.base_port + node as u16 * 100 + service }
    }

    /// How to run a program where a node is, on these cores.
    pub fn command(&self, node: usize, program: &Path, cores: Option<&str>) -> Command {
        // Each of these becomes the program after it: the process id is the broker's.
        let mut words: Vec<String> = Vec::new();
        if self.namespaces {
            words.extend(["ip", "netns", "exec"].map(str::to_string));
            words.push(namespace(node));
        }
        if let Some(cores) = cores {
            words.extend(["taskset", "-c", cores].map(str::to_string));
        }
        let Some((first, rest)) = words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    fn neighbour(&self, from: Host, to: Host, change: &str) -> Outcome<()> {
        let number = |host| match host {
            Host::Node(node) => node,
            Host::Clients => CLIENTS,
        };
        let to = format!("{NETWORK}.{}", number(to));
        match from {
            Host::Node(node) => ip(&format!("-n {} neigh {change}", namespace(node))
                .replace("TO", &to)
                .replace("DEV", "eth0")),
            Host::Clients => ip(&format!("neigh {change}").replace("TO", &to).replace("DEV", BRIDGE)),
        }
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut(&self, from: Host, to: Host) -> Outcome<()> {
        if !self.namespaces {
            return Err("on loopback no link can be cut".into());
        }
        self.neighbour(from, to, &format!("replace TO lladdr {NOBODY} dev DEV nud permanent"))
    }

    /// It does again.
    pub fn join(&self, from: Host, to: Host) -> Outcome<()> {
        self.neighbour(from, to, "del TO dev DEV")
    }

    /// Where a node is, another node's address is ours (true), or leads to that node again. What they have open with each other ends.
    pub fn pose(&self, at: usize, as_node: usize, on: bool) -> Outcome<()> {
        if !self.namespaces {
            return Err("on loopback nobody can stand between two nodes".into());
        }
        // Nobody else is to be told that the address is here.
        let path = "/proc/sys/net/ipv4/conf/all/arp_ignore";
        inside(at, || std::fs::write(path, "1").map_err(|error| format!("{path}: {error}")))?;
        let change = if on { "add" } else { "del" };
        ip(&format!("-n {} addr {change} {NETWORK}.{as_node}/32 dev lo", namespace(at)))
    }

    /// Listens where a node is, at another node's address, once that is ours.
    pub fn listen_as(&self, at: usize, as_node: usize, port: u16) -> Outcome<TcpListener> {
        let address = format!("{NETWORK}.{as_node}:{port}");
        inside(at, || TcpListener::bind(&address).map_err(|error| format!("{address} at node {at}: {error}")))
    }

    /// Pulls a node's cable, or puts it back.
    pub fn cable(&self, node: usize, up: bool) -> Outcome<()> {
        if !self.namespaces {
            return Err("on loopback there is no cable".into());
        }
        ip(&format!("link set {} {}", link(node), if up { "up" } else { "down" }))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.namespaces {
            remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_nodes_do_not_meet_on_loopback() {
        let net = Net::loopback(24_000);
        assert_eq!((net.port(1, 0), net.port(2, 20)), (24_100, 24_220));
        assert!(net.cut(Host::Node(1), Host::Clients).is_err() && net.cable(1, false).is_err());
    }
}
