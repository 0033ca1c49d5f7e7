//! A leader that nobody hears takes a long batch that is never acknowledged; the next leader takes a short one to its place. The first
//! cuts its log and follows, and makes a checkpoint: of its journal, which still has the long batch, that must not come back.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::own_topic::{self, until};
use crate::{damage, directory};
use pelton_bench::net::{Host, NODES};
use pelton_bench::{Outcome, batch, frames, load};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

const WAIT: Duration = Duration::from_secs(2);
/// Bytes of a value: each batch goes straight to its segment, and is laid down before what is smaller.
const VALUE_BYTES: usize = 5_000;
/// Records of the batch that is taken back.
const LONG: usize = 10;
/// A node that finds its journal wrong ends by itself sooner than this.
const START: Duration = Duration::from_secs(3);

fn of(records: usize) -> Vec<u8> {
    let value = [5; VALUE_BYTES];
    batch::build((0..records).map(|_| &value[..]), load::now_ms())
}

/// What a node says of the topic's partition.
fn seen(campaign: &Campaign, node: usize, topic: &str, partition: i32) -> Outcome<directory::Seen> {
    let seen = own_topic::view(campaign, node, topic)?.partitions.get(partition as usize).cloned();
    seen.ok_or(format!("{topic} has no partition {partition}"))
}

/// Appends one record to where a node says that the partition is led.
fn append(campaign: &Campaign, node: usize, topic: &str, partition: i32) -> Outcome<i64> {
    let mut client = own_topic::leader(campaign, node, topic, partition)?;
    own_topic::append(&mut client, topic, partition, &of(1))
}

/// When a node wrote its last checkpoint.
fn checkpointed(campaign: &Campaign, node: usize) -> Outcome<Option<SystemTime>> {
    let journal = damage::journal_of(campaign.cluster.data_dir(node))?;
    let slots: Vec<PathBuf> =
        (0..2).map(|slot| journal.with_file_name(format!("checkpoint.{slot}"))).collect();
    let when = |slot: &PathBuf| std::fs::metadata(slot).and_then(|of| of.modified()).ok();
    Ok(slots.iter().filter_map(when).max())
}

/// All nodes make a checkpoint: files of a topic that is deleted go only behind one.
fn checkpoint(campaign: &mut Campaign, node: usize) -> Outcome<()> {
    let topic = format!("deleted-{node}");
    own_topic::create(campaign, &topic, 1, NODES, &[])?;
    append(campaign, node, &topic, 0)?;
    let before = checkpointed(campaign, node)?;
    own_topic::forget(campaign, &[&topic])?;
    until("a checkpoint", || Ok((checkpointed(campaign, node)? > before).then_some(())))
}

fn one(campaign: &mut Campaign, node: usize) -> Outcome<()> {
    let topic = &format!("cut-short-{node}");
    own_topic::create_spread(campaign, topic, NODES, &[("min.insync.replicas", "2")])?;
    let partition = own_topic::led_by(campaign, node, topic)?;
    append(campaign, node, topic, partition)?;
    let others: Vec<usize> = (1..=NODES).filter(|other| *other != node).collect();
    let (me, links) = (Host::Node(node), |other: &usize| [(Host::Node(*other), Host::Node(node))]);
    let links: Vec<(Host, Host)> =
        others.iter().flat_map(|other| links(other).into_iter().chain([(me, Host::Node(*other))])).collect();
    let mut connection = Connection::open(&campaign.directory.nodes[node - 1])?;
    connection.call(1, &directory::request(1, topic), WAIT)?;
    links.iter().try_for_each(|(from, to)| campaign.cluster.net.cut(*from, *to))?;
    connection.send(&frames::produce(2, topic, partition, &of(LONG)))?;
    let next = until("another leader", || {
        let seen = seen(campaign, others[0], topic, partition)?;
        let node_of = |broker: i32| campaign.cluster.system.node_of(broker);
        Ok((seen.leader >= 0 && node_of(seen.leader) != node).then(|| node_of(seen.leader)))
    })?;
    let offset = append(campaign, next, topic, partition)?;
    links.iter().try_for_each(|(from, to)| campaign.cluster.net.join(*from, *to))?;
    campaign.recover()?;
    until("a replica in sync", || {
        Ok((seen(campaign, next, topic, partition)?.isr.len() == NODES).then_some(()))
    })?;
    checkpoint(campaign, node)?;
    campaign.cluster.kill(node);
    campaign.cluster.start(node)?;
    std::thread::sleep(START);
    campaign.recover()?;
    let end = own_topic::end(campaign, node, topic, partition)?;
    match end == offset + 1 {
        true => own_topic::forget(campaign, &[topic]),
        false => Err(format!("{topic}-{partition} ended at {}, and now at {end}", offset + 1)),
    }
}

/// Each node in turn.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    (1..=NODES).try_for_each(|node| one(campaign, node))
}
