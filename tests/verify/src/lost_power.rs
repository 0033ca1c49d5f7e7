//! Power cuts whose moment is chosen, on disks that lose all that was not flushed: what was acknowledged right before must be somewhere
//! that the cut did not reach.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::own_topic::{self, until};
use crate::power_disk::PowerDisk;
use crate::{power, quorum};
use pelton_bench::client::Client;
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, batch, frames, load};
use std::time::Duration;

/// Longer than the leases of the life before, and an election behind them.
const ELECTION: Duration = Duration::from_millis(5_000);
/// A request whose changes reach no stable storage is waited for so long.
const HELD: Duration = Duration::from_millis(2_500);
/// Microseconds that a write takes longer where many are to wait.
const SLOW_WRITES_US: u64 = 4_000;
/// Batches that are not flushed before the one that is.
const UNFLUSHED: usize = 200;
/// A topic each of whose batches is flushed, and one that nobody flushes.
const FLUSHED: &str = "flushed-at-once";
const NOT_FLUSHED: &str = "flushed-some-time";

/// Of two that are in sync, one loses its power and the other its process; the one that lost its power comes back first, and with it
/// somebody who lacks most. Topics are not flushed: it must not lead before the other is there (rule S4).
pub fn lossy_first(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    let topic = campaign.directory.topic.clone();
    for node in 1..=NODES {
        let (laggard, killed) = (node % NODES + 1, (node + 1) % NODES + 1);
        campaign.cluster.kill(laggard);
        until("that a dead node leaves the ISR", || {
            let view = own_topic::view(campaign, node, &topic)?;
            Ok(view.partitions.iter().all(|seen| seen.isr.len() == 2 && seen.leader >= 0).then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(1));
        disks[node - 1].cut_wholly()?;
        campaign.cluster.kill(killed);
        power::take_all(campaign, disks, &[node])?;
        campaign.cluster.start(node)?;
        campaign.cluster.start(laggard)?;
        std::thread::sleep(ELECTION);
        campaign.cluster.start(killed)?;
        campaign.recover()?;
    }
    Ok(())
}

/// The flushes of all but the leader of the quorum are held, something is asked of the controller, and the power of those goes; then
/// they go on without the leader: what the controller has said yes to must be known to them.
pub fn unflushed_quorum(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    for round in 0..2 {
        let leader = quorum::leader(&campaign.directory.nodes).ok_or("nobody leads the quorum")?;
        let leader = campaign.cluster.system.node_of(leader);
        let others: Vec<usize> = (1..=NODES).filter(|node| *node != leader).collect();
        let addresses: Vec<String> =
            others.iter().map(|node| campaign.directory.nodes[node - 1].clone()).collect();
        others.iter().try_for_each(|node| disks[node - 1].hold_flushes(true))?;
        std::thread::sleep(Duration::from_millis(100));
        let topic = format!("held-{round}");
        let mut connection = Connection::open(&campaign.directory.nodes[leader - 1])?;
        connection.send(&frames::create_topics(1, &topic, 1, 1, &[]))?;
        let answer = connection.poll(HELD)?.map(|frame| frames::created(&frame)).transpose()?;
        for node in &others {
            disks[node - 1].cut_wholly()?;
            disks[node - 1].hold_flushes(false)?;
        }
        campaign.cluster.kill(leader);
        power::take_all(campaign, disks, &others)?;
        others.iter().try_for_each(|node| campaign.cluster.start(*node))?;
        until("another leader of the quorum", || {
            let broker = quorum::leader(&addresses);
            Ok(broker.filter(|broker| campaign.cluster.system.node_of(*broker) != leader))
        })?;
        if answer.is_some_and(|(code, _)| code == 0) {
            // What was committed in an earlier term counts only with the first entry of this one.
            std::thread::sleep(ELECTION);
            let known = own_topic::view(campaign, others[0], &topic)?;
            if known.error != 0 {
                return Err(format!(
                    "topic {topic} was made by node {leader}; after the others had lost their power they say error {}",
                    known.error
                ));
            }
        }
        campaign.cluster.start(leader)?;
        campaign.recover()?;
    }
    Ok(())
}

fn append(client: &mut Client, topic: &str, partition: i32) -> Outcome<i64> {
    let bytes = batch::build([&b"kept"[..]].into_iter(), load::now_ms());
    own_topic::append(client, topic, partition, &bytes)
}

/// Each node in turn has much that was written and not flushed, and then takes a record that must be: all that is before it in the journal
/// must be flushed too before it is acknowledged, for the power goes in that moment.
pub fn behind_unflushed(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    own_topic::create_spread(campaign, FLUSHED, 1, &[("flush.messages", "1")])?;
    own_topic::create_spread(campaign, NOT_FLUSHED, 1, &[])?;
    for node in 1..=NODES {
        let flushed = own_topic::led_by(campaign, node, FLUSHED)?;
        let not_flushed = own_topic::led_by(campaign, node, NOT_FLUSHED)?;
        let mut client = own_topic::leader(campaign, node, FLUSHED, flushed)?;
        let disk = &mut disks[node - 1];
        disk.small_requests()?;
        disk.slow_writes(SLOW_WRITES_US)?;
        for _ in 0..UNFLUSHED {
            append(&mut client, NOT_FLUSHED, not_flushed)?;
        }
        let offset = append(&mut client, FLUSHED, flushed)?;
        disk.cut_wholly()?;
        disk.slow_writes(0)?;
        power::take_all(campaign, disks, &[node])?;
        campaign.cluster.start(node)?;
        campaign.recover()?;
        let end = own_topic::end(campaign, node, FLUSHED, flushed)?;
        if end <= offset {
            return Err(format!(
                "{FLUSHED}-{flushed} had acknowledged offset {offset} and ends at {end} after node {node} lost its power"
            ));
        }
    }
    own_topic::forget(campaign, &[FLUSHED, NOT_FLUSHED])
}
