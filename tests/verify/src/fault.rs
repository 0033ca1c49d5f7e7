//! The faults: what is done to whom, how long, and how it is undone. Which one comes when is drawn from a seed; every kind comes once
//! before any comes twice.

use crate::directory::Directory;
use crate::interrupt;
use crate::links;
use crate::quorum;
use crate::small_disk::SmallDisk;
use pelton_bench::Outcome;
use pelton_bench::cluster::Cluster;
use pelton_bench::net::{Host, NODES};
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9 of the node that leads a partition.
    KillLeader,
    /// kill -9 of one that does not lead it.
    KillFollower,
    /// kill -9 of the node that leads the quorum, and so is the controller.
    KillController,
    /// kill -9 of a majority.
    KillTwo,
    /// kill -9 of all nodes at once.
    KillAll,
    /// kill -9 while it starts after a kill -9.
    KillStarting,
    /// SIGSTOP of a leader for longer than a lease, then SIGCONT.
    HaltLeader,
    /// SIGSTOP of any node, mostly shorter than a lease.
    HaltShort,
    /// A node cut off from the other nodes, not from clients.
    CutPeers,
    /// A node's cable pulled.
    CutAll,
    /// Two nodes cut off from each other.
    CutPair,
    /// What a node sends to the others is lost; it hears them.
    DeafOthers,
    /// What the others send to a node is lost; they hear it.
    DeafNode,
    /// What clients send to a node is lost.
    CutClients,
    /// What a node says to the others arrives late, or what they say to it, or both.
    SlowLink,
    /// What a node says to the others is held for a while and then arrives all at once, or what they say to it, or both.
    HeldLink,
    /// Each node stopped with SIGTERM and started again, one after the other.
    Rolling,
    /// A node's file system is full.
    DiskFull,
}

/// All of them.
pub const ALL: [Kind; 18] = [
    Kind::KillLeader,
    Kind::KillFollower,
    Kind::KillController,
    Kind::KillTwo,
    Kind::KillAll,
    Kind::KillStarting,
    Kind::HaltLeader,
    Kind::HaltShort,
    Kind::CutPeers,
    Kind::CutAll,
    Kind::CutPair,
    Kind::DeafOthers,
    Kind::DeafNode,
    Kind::CutClients,
    Kind::SlowLink,
    Kind::HeldLink,
    Kind::Rolling,
    Kind::DiskFull,
];

impl Kind {
    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KillLeader => "kill-leader",
            Kind::KillFollower => "kill-follower",
            Kind::KillController => "kill-controller",
            Kind::KillTwo => "kill-two",
            Kind::KillAll => "kill-all",
            Kind::KillStarting => "kill-starting",
            Kind::HaltLeader => "halt-leader",
            Kind::HaltShort => "halt-short",
            Kind::CutPeers => "cut-peers",
            Kind::CutAll => "cut-all",
            Kind::CutPair => "cut-pair",
            Kind::DeafOthers => "deaf-others",
            Kind::DeafNode => "deaf-node",
            Kind::CutClients => "cut-clients",
            Kind::SlowLink => "slow-link",
            Kind::HeldLink => "held-link",
            Kind::Rolling => "rolling",
            Kind::DiskFull => "disk-full",
        }
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Outcome<Kind> {
        let found = ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = ALL.into_iter().map(Kind::name).collect();
            format!("--faults {name}: there are {}", names.join(", "))
        })
    }

    /// Needs links that can be cut.
    pub fn needs_network(self) -> bool {
        matches!(
            self,
            Kind::CutPeers
                | Kind::CutAll
                | Kind::CutPair
                | Kind::DeafOthers
                | Kind::DeafNode
                | Kind::CutClients
                | Kind::SlowLink
                | Kind::HeldLink
        )
    }
}

/// What draws.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 up to `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }

    /// `from` to `to` milliseconds.
    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    /// `count` kinds of `kinds`: all of them in some order, then again.
    pub fn deck(&mut self, kinds: &[Kind], count: usize) -> Vec<Kind> {
        let mut deck = Vec::new();
        while deck.len() < count && !kinds.is_empty() {
            let mut rest = kinds.to_vec();
            while !rest.is_empty() {
                deck.push(rest.swap_remove(self.below(rest.len() as u64) as usize));
            }
        }
        deck.truncate(count);
        deck
    }
}

/// Does a fault, waits, and undoes it: in words, to whom it was done.
pub fn strike(
    kind: Kind,
    cluster: &mut Cluster,
    small: Option<&(usize, SmallDisk)>,
    directory: &Directory,
    dice: &mut Dice,
) -> Outcome<String> {
    let partition = dice.below(directory.partitions() as u64) as i32;
    let any = 1 + dice.below(NODES as u64) as usize;
    let leader = directory.leader(partition).map_or(any, |leader| cluster.system.node_of(leader.broker));
    let other = (leader % NODES) + 1;
    match kind {
        Kind::KillLeader => kill(cluster, &[leader], dice.ms(200, 3_000)),
        Kind::KillFollower => kill(cluster, &[other], dice.ms(200, 3_000)),
        Kind::KillController => {
            let controller =
                quorum::leader(&directory.nodes).map_or(any, |broker| cluster.system.node_of(broker));
            kill(cluster, &[controller.clamp(1, NODES)], dice.ms(200, 3_000))
        }
        Kind::KillTwo => kill(cluster, &[leader, other], dice.ms(200, 2_000)),
        Kind::KillAll => kill(cluster, &[1, 2, 3], dice.ms(0, 1_000)),
        Kind::KillStarting => {
            kill(cluster, &[leader], dice.ms(0, 1_000))?;
            interrupt::sleep(dice.ms(5, 800))?;
            kill(cluster, &[leader], dice.ms(0, 500))
        }
        Kind::HaltLeader => halt(cluster, leader, dice.ms(2_500, 5_000)),
        Kind::HaltShort => halt(cluster, any, dice.ms(200, 1_800)),
        Kind::Rolling => rolling(cluster, directory),
        Kind::SlowLink => links::slow(cluster, leader, dice),
        Kind::HeldLink => links::held(cluster, leader, dice),
        Kind::DiskFull => disk_full(cluster, small, dice.ms(4_000, 9_000)),
        _ => cut(kind, cluster, leader, dice.ms(1_000, 6_000)),
    }
}

fn kill(cluster: &mut Cluster, nodes: &[usize], wait: Duration) -> Outcome<String> {
    nodes.iter().for_each(|node| cluster.kill(*node));
    interrupt::sleep(wait)?;
    nodes.iter().try_for_each(|node| cluster.start(*node))?;
    Ok(format!("nodes {nodes:?} down for {wait:?}"))
}

fn halt(cluster: &mut Cluster, node: usize, wait: Duration) -> Outcome<String> {
    cluster.halt(node);
    interrupt::sleep(wait)?;
    cluster.go_on(node);
    Ok(format!("node {node} stood still for {wait:?}"))
}

fn rolling(cluster: &mut Cluster, directory: &Directory) -> Outcome<String> {
    let mut stops = Vec::new();
    for node in 1..=NODES {
        stops.push(cluster.stop(node, Duration::from_secs(60))?);
        cluster.start(node)?;
        settle(directory, Duration::from_secs(90))?;
    }
    Ok(format!("stops took {stops:?}"))
}

/// Waits until nothing is wrong any more.
pub fn settle(directory: &Directory, patience: Duration) -> Outcome<Duration> {
    let from = std::time::Instant::now();
    // What a node answered before the fault is no sign.
    std::thread::sleep(directory.interval * 2);
    while let Some(trouble) = directory.trouble(NODES) {
        if from.elapsed() > patience {
            return Err(format!("not as it was {patience:?} after a fault was undone: {trouble}"));
        }
        interrupt::sleep(Duration::from_millis(20))?;
    }
    Ok(from.elapsed())
}

fn disk_full(cluster: &mut Cluster, small: Option<&(usize, SmallDisk)>, wait: Duration) -> Outcome<String> {
    let (node, disk) = small.ok_or("no node has a disk of its own")?;
    let taken = disk.fill()?;
    interrupt::sleep(wait)?;
    disk.empty()?;
    // Kafka ends when the only directory of its logs fails.
    cluster.start(*node)?;
    Ok(format!("node {node} had no space for {wait:?} ({} MiB taken)", taken >> 20))
}

/// Cuts links of a node, waits, and joins them again.
pub fn cut(kind: Kind, cluster: &Cluster, node: usize, wait: Duration) -> Outcome<String> {
    let me = Host::Node(node);
    let others: Vec<Host> = (1..=NODES).filter(|other| *other != node).map(Host::Node).collect();
    let there = |from: Host| others.iter().map(move |other| (from, *other)).collect::<Vec<_>>();
    let back = |to: Host| others.iter().map(move |other| (*other, to)).collect::<Vec<_>>();
    let links: Vec<(Host, Host)> = match kind {
        Kind::CutPeers => [there(me), back(me)].concat(),
        Kind::CutPair => vec![(me, others[0]), (others[0], me)],
        Kind::DeafOthers => there(me),
        Kind::DeafNode => back(me),
        Kind::CutClients => vec![(Host::Clients, me)],
        _ => Vec::new(),
    };
    let net = &cluster.net;
    if links.is_empty() {
        net.cable(node, false)?;
    }
    links.iter().try_for_each(|(from, to)| net.cut(*from, *to))?;
    interrupt::sleep(wait)?;
    if links.is_empty() {
        net.cable(node, true)?;
    }
    links.iter().try_for_each(|(from, to)| net.join(*from, *to))?;
    Ok(format!("{links:?} of node {node} cut for {wait:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deck_has_every_kind_before_any_twice() {
        let deck = Dice::new(7).deck(&ALL, 40);
        let mut first = deck[..ALL.len()].to_vec();
        first.sort_unstable();
        assert_eq!((first, deck.len()), (ALL.to_vec(), 40));
        assert_ne!(deck, Dice::new(8).deck(&ALL, 40));
        assert!(ALL.into_iter().all(|kind| Kind::parse(kind.name()) == Ok(kind)));
    }
}
