//! Topics that a recipe makes beside the clients' one, to have something of its own acknowledged.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::deposed;
use crate::directory::{self, View};
use pelton_bench::client::{self, Client};
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, frames};
use std::time::{Duration, Instant};

/// Leases, elections, starts and compactions are through by then.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for an answer of a broker that is well.
const WAIT: Duration = Duration::from_secs(2);
/// Files of deleted topics go sooner than anybody reads the nodes' files.
const DELAY: (&str, &str) = ("file.delete.delay.ms", "100");

/// Waits for something that takes its time; errors are tried again.
pub fn until<T>(what: &str, look: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    until_within(PATIENCE, Duration::from_millis(50), what, look)
}

/// The same, for so long at most and with such pauses.
pub fn until_within<T>(
    patience: Duration,
    pause: Duration,
    what: &str,
    mut look: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(Some(found)) => return Ok(found),
            other if Instant::now() > deadline => {
                let words = other.err().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(format!("{what} was waited for {patience:?}{words}"));
            }
            _ => std::thread::sleep(pause),
        }
    }
}

fn any(campaign: &Campaign) -> String {
    campaign.cluster.addresses().join(",")
}

/// Makes a topic.
pub fn create(
    campaign: &Campaign,
    topic: &str,
    partitions: usize,
    replicas: usize,
    configs: &[(&str, &str)],
) -> Outcome<()> {
    let configs = [configs, &[DELAY]].concat();
    let mut client = Client::connect(&any(campaign), PATIENCE)?;
    client.create_replicated(topic, partitions as i32, replicas as i16, &configs)
}

/// Makes a topic with as many partitions as there are nodes; each node leads one.
pub fn create_spread(
    campaign: &Campaign,
    topic: &str,
    replicas: usize,
    configs: &[(&str, &str)],
) -> Outcome<()> {
    create(campaign, topic, NODES, replicas, configs)?;
    let mut brokers: Vec<i32> = campaign.directory.brokers().into_keys().collect();
    let mut wanted = Vec::new();
    for partition in 0..NODES {
        wanted.push((partition as i32, brokers[..replicas].to_vec()));
        brokers.rotate_left(1);
    }
    let mut connection = Connection::open(&campaign.directory.nodes[0])?;
    connection.call(1, &deposed::request(topic, &wanted), PATIENCE)?;
    until(&format!("that each node leads a part of {topic}"), || {
        let partitions = view(campaign, 1, topic)?.partitions;
        let there = |(seen, (_, wanted)): (&directory::Seen, &(i32, Vec<i32>))| {
            seen.leader == wanted[0] && seen.replicas == *wanted && seen.isr.len() == replicas
        };
        Ok(partitions.iter().zip(&wanted).all(there).then_some(()))
    })
}

/// Deletes topics, and waits until all is well: whoever reads the nodes' files at the end must not take them for the clients' topic.
pub fn forget(campaign: &mut Campaign, topics: &[&str]) -> Outcome<()> {
    let mut client = Client::connect(&any(campaign), PATIENCE)?;
    topics.iter().try_for_each(|topic| client.delete_topic(topic))?;
    campaign.recover()?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// What a node says of a topic.
pub fn view(campaign: &Campaign, node: usize, topic: &str) -> Outcome<View> {
    let mut connection = Connection::open(&campaign.directory.nodes[node - 1])?;
    directory::answer(&connection.call(1, &directory::request(1, topic), WAIT)?)
}

/// A connection to whoever leads a partition, by what a node says; large requests may be sent on it.
pub fn leader(campaign: &Campaign, node: usize, topic: &str, partition: i32) -> Outcome<Client> {
    let address = &campaign.directory.nodes[node - 1];
    let leader = client::leaders(address, topic, PATIENCE)?.into_iter().nth(partition as usize);
    let mut client =
        Client::connect(&leader.ok_or(format!("{topic} has no partition {partition}"))?, PATIENCE)?;
    client.metadata(topic)?;
    Ok(client)
}

/// A partition that a node leads.
pub fn led_by(campaign: &Campaign, node: usize, topic: &str) -> Outcome<i32> {
    let address = &campaign.directory.nodes[node - 1];
    until(&format!("that node {node} leads some of {topic}"), || {
        let leaders = client::leaders(address, topic, PATIENCE)?;
        Ok(leaders.iter().position(|leader| leader == address).map(|partition| partition as i32))
    })
}

/// Appends a batch, trying again while the broker says "not yet": its base offset, or an error code that is final.
pub fn produce(client: &mut Client, topic: &str, partition: i32, batch: &[u8]) -> Outcome<Result<i64, i16>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.produce(topic, partition, batch)? {
            Err(code) if frames::RETRIABLE.contains(&code) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            answer => return Ok(answer),
        }
    }
}

/// The same, where no error code is right.
pub fn append(client: &mut Client, topic: &str, partition: i32, batch: &[u8]) -> Outcome<i64> {
    produce(client, topic, partition, batch)?
        .map_err(|code| format!("Produce to {topic}-{partition}: error code {code}"))
}

/// Where a partition ends, as its leader says.
pub fn end(campaign: &Campaign, node: usize, topic: &str, partition: i32) -> Outcome<i64> {
    until(&format!("the end of {topic}-{partition}"), || {
        Ok(leader(campaign, node, topic, partition)?.list_offset(topic, partition, -1)?.ok())
    })
}
