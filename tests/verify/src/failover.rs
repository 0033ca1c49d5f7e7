//! How long a partition waits: after kill -9 of its leader, while its leader stops cleanly, while each node restarts in turn. From
//! the signal to the next acknowledgement, as a client that asks for the leader every few milliseconds sees it.

use crate::campaign::{Campaign, Load};
use crate::fault::{self, Dice};
use crate::interrupt;
use crate::report::quantile;
use pelton_bench::Outcome;
use pelton_bench::cluster::Cluster;
use pelton_bench::net::NODES;
use std::time::{Duration, Instant};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// kill -9 of a leader.
    pub kills: usize,
    /// SIGTERM of a leader.
    pub stops: usize,
    /// Restarts of each node in turn.
    pub rounds: usize,
    pub seed: u64,
    pub load: Load,
}

/// What was measured, milliseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From kill -9 to the next acknowledgement of the slowest partition that the node led.
    pub kills: Vec<u64>,
    /// The longest gap of a partition while a node stops and starts again.
    pub stops: Vec<u64>,
    /// The longest gap of any partition in a whole rolling restart.
    pub rolling: Vec<u64>,
}

/// Longest wait for the cluster to be as it was.
const SETTLE: Duration = Duration::from_secs(90);

fn line(what: &str, sorted: &[u64]) -> String {
    if sorted.is_empty() {
        return String::new();
    }
    format!(
        "{what}: {} times, p50 {} ms, p90 {} ms, p99 {} ms, max {} ms\n",
        sorted.len(),
        quantile(sorted, 50),
        quantile(sorted, 90),
        quantile(sorted, 99),
        quantile(sorted, 100)
    )
}

impl Measured {
    /// For people.
    pub fn text(&self) -> String {
        line("kill -9 of a leader, until the next acknowledgement", &self.kills)
            + &line("SIGTERM of a leader, longest gap of a partition", &self.stops)
            + &line("rolling restart, longest gap of a partition", &self.rolling)
    }
}

/// Partitions that `node` leads.
fn led(campaign: &Campaign, node: usize) -> Vec<i32> {
    let leads = |partition: &i32| {
        let leader = campaign.directory.leader(*partition);
        leader.is_some_and(|leader| campaign.cluster.system.node_of(leader.broker) == node)
    };
    (0..campaign.partitions).filter(leads).collect()
}

/// A node that leads something, drawn.
fn a_leader(campaign: &Campaign, dice: &mut Dice) -> usize {
    let partition = dice.below(campaign.partitions as u64) as i32;
    let leader = campaign.directory.leader(partition);
    leader.map_or(1, |leader| campaign.cluster.system.node_of(leader.broker))
}

/// Measures.
pub fn run(cluster: Cluster, options: &Options) -> Outcome<(Campaign, Measured)> {
    let mut campaign = Campaign::start(cluster, None, options.load)?;
    let mut dice = Dice::new(options.seed);
    let mut measured = Measured::default();
    interrupt::sleep(Duration::from_secs(2))?;
    for round in 0..options.kills {
        let node = a_leader(&campaign, &mut dice);
        let partitions = led(&campaign, node);
        // Anywhere between two heartbeats.
        interrupt::sleep(dice.ms(0, 700))?;
        campaign.cluster.kill(node);
        let from_ms = campaign.now_ms() + 1;
        let waited = wait(&campaign, &partitions, from_ms)?;
        eprintln!("kill {}: node {node} led {} partitions, {waited} ms", round + 1, partitions.len());
        measured.kills.push(waited);
        again(&mut campaign, node)?;
    }
    for _ in 0..options.stops {
        let node = a_leader(&campaign, &mut dice);
        let partitions = led(&campaign, node);
        let from_ms = campaign.now_ms();
        let took = campaign.cluster.stop(node, SETTLE)?;
        interrupt::sleep(Duration::from_millis(500))?;
        let gap = gap(&campaign, &partitions, from_ms);
        eprintln!(
            "stop of node {node} took {took:?}, it led {} partitions, longest gap {gap} ms",
            partitions.len()
        );
        measured.stops.push(gap);
        again(&mut campaign, node)?;
    }
    for round in 0..options.rounds {
        let from_ms = campaign.now_ms();
        for node in 1..=NODES {
            campaign.cluster.stop(node, SETTLE)?;
            again(&mut campaign, node)?;
        }
        let all: Vec<i32> = (0..campaign.partitions).collect();
        let gap = gap(&campaign, &all, from_ms);
        eprintln!("rolling restart {}: longest gap {gap} ms", round + 1);
        measured.rolling.push(gap);
    }
    for values in [&mut measured.kills, &mut measured.stops, &mut measured.rolling] {
        values.sort_unstable();
    }
    Ok((campaign, measured))
}

fn gap(campaign: &Campaign, partitions: &[i32], from_ms: u64) -> u64 {
    let to_ms = campaign.now_ms();
    partitions.iter().map(|partition| campaign.book.gap_ms(*partition, from_ms, to_ms)).max().unwrap_or(0)
}

/// Waits until each of the partitions has acknowledged something: how long the slowest took.
fn wait(campaign: &Campaign, partitions: &[i32], from_ms: u64) -> Outcome<u64> {
    let deadline = Instant::now() + SETTLE;
    let mut slowest = 0;
    for partition in partitions {
        loop {
            if let Some(beat) = campaign.book.beat_after(*partition, from_ms) {
                slowest = slowest.max(beat - from_ms + 1);
                break;
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "partition {partition} acknowledges nothing within {SETTLE:?} of the kill"
                ));
            }
            interrupt::sleep(Duration::from_millis(2))?;
        }
    }
    Ok(slowest)
}

/// Starts a node again and waits until all is as it was, and a little.
fn again(campaign: &mut Campaign, node: usize) -> Outcome<()> {
    campaign.cluster.start(node)?;
    std::thread::sleep(Duration::from_millis(200));
    fault::settle(&campaign.directory, SETTLE)?;
    campaign.look_after()?;
    if let Some(text) = campaign.ended.first() {
        return Err(text.clone());
    }
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}
