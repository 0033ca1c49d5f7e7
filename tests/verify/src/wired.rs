//! Stages in which this process stands between the nodes (wire.rs): who plays which part, and what is waited for.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::deposed;
use crate::directory::View;
use crate::own_topic::until_within;
use crate::wire::Wire;
use crate::wire_what::What;
use crate::{quorum, staged};
use pelton_bench::Outcome;
use pelton_bench::net::NODES;
use std::time::{Duration, Instant};

/// All orders of three.
const ORDERS: [[usize; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
/// Longer than a lease and the wait for it, and what follows.
pub const FENCED: Duration = Duration::from_millis(2_500);
/// Longest wait for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The nodes, by what they do in a stage.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Leads the quorum.
    pub controller: usize,
    /// The two others.
    pub leader: usize,
    pub third: usize,
}

impl Parts {
    /// As they are; `turn` changes the two that are not the controller.
    pub fn new(campaign: &Campaign, turn: bool) -> Outcome<Parts> {
        let broker = quorum::leader(&campaign.directory.nodes).ok_or("nobody leads the quorum")?;
        let controller = campaign.cluster.system.node_of(broker);
        let mut others = (1..=NODES).filter(|node| *node != controller);
        let (first, second) = (others.next().unwrap_or(1), others.next().unwrap_or(2));
        let (leader, third) = if turn { (second, first) } else { (first, second) };
        Ok(Parts { controller, leader, third })
    }
}

/// What is between the nodes.
pub fn wire(campaign: &Campaign) -> Outcome<&Wire> {
    campaign.wire.as_ref().ok_or("nothing is between the nodes".into())
}

/// The partition whose replicas are in this order, once [`arrange`] was done.
pub fn partition_of(order: [usize; 3]) -> usize {
    ORDERS.iter().position(|other| *other == order).unwrap_or_default()
}

/// Gives each of the first partitions its replicas in another order, and waits until those who shall lead do, and acknowledge.
pub fn arrange(campaign: &mut Campaign) -> Outcome<()> {
    if campaign.partitions < ORDERS.len() as i32 {
        return Err(format!("--partitions {}: this needs {}", campaign.partitions, ORDERS.len()));
    }
    let brokers = |order: [usize; 3]| order.map(|node| broker_of(campaign, node)).to_vec();
    let wanted: Vec<(i32, Vec<i32>)> =
        (0..).zip(ORDERS).map(|(partition, order)| (partition, brokers(order))).collect();
    deposed::put_back(campaign, 1, &campaign.directory.topic, &wanted)?;
    wait_for(campaign, "preferred replicas lead", |campaign| {
        let leads = |(partition, order): (i32, &[usize; 3])| {
            campaign
                .directory
                .leader(partition)
                .is_some_and(|leader| leader.broker == broker_of(campaign, order[0]))
        };
        Ok((0..).zip(&ORDERS).all(leads))
    })?;
    campaign.recover()
}

/// The first broker of a node; -1: none is known.
pub fn broker_of(campaign: &Campaign, node: usize) -> i32 {
    let brokers = campaign.directory.brokers();
    brokers.keys().copied().find(|broker| campaign.cluster.system.node_of(*broker) == node).unwrap_or(-1)
}

/// Waits until it is so. An answer that does not come counts as no.
pub fn wait_for(campaign: &Campaign, what: &str, is_so: impl Fn(&Campaign) -> Outcome<bool>) -> Outcome<()> {
    let pause = Duration::from_millis(10);
    until_within(PATIENCE, pause, what, || is_so(campaign).map(|so| so.then_some(())))
}

/// Whether a node is named as a broker by another, so that it is not fenced.
pub fn is_listed(campaign: &Campaign, by: usize, node: usize) -> Outcome<bool> {
    let view = staged::view(campaign, by)?;
    Ok(view.brokers.keys().any(|broker| campaign.cluster.system.node_of(*broker) == node))
}

/// The nodes in sync of a partition, as one of them says.
pub fn in_sync(campaign: &Campaign, view: &View, partition: usize) -> Vec<usize> {
    let isr = view.partitions.get(partition).map(|seen| seen.isr.clone()).unwrap_or_default();
    isr.into_iter().map(|broker| campaign.cluster.system.node_of(broker)).collect()
}

/// The node that leads a partition, as another says; 0: nobody.
pub fn leads(campaign: &Campaign, by: usize, partition: usize) -> Outcome<usize> {
    let view = staged::view(campaign, by)?;
    let leader = view.partitions.get(partition).map_or(-1, |seen| seen.leader);
    Ok(if leader < 0 { 0 } else { campaign.cluster.system.node_of(leader) })
}

/// Waits until a node is fenced, or is so no more: out of all ISRs, or listed.
pub fn wait_out(campaign: &Campaign, by: usize, node: usize) -> Outcome<()> {
    wait_for(campaign, &format!("node {node} is out"), |campaign| {
        let view = staged::view(campaign, by)?;
        let out = (0..view.partitions.len()).all(|at| !in_sync(campaign, &view, at).contains(&node));
        Ok(out && !is_listed(campaign, by, node)?)
    })
}

/// See [`wait_out`].
pub fn wait_listed(campaign: &Campaign, by: usize, node: usize) -> Outcome<()> {
    wait_for(campaign, &format!("node {node} takes part"), |campaign| is_listed(campaign, by, node))
}

/// Waits until all replicas of a partition are in sync, as one of them says.
pub fn wait_in_sync(campaign: &Campaign, by: usize, partition: usize) -> Outcome<()> {
    wait_for(campaign, &format!("partition {partition} is in sync"), |campaign| {
        Ok(in_sync(campaign, &staged::view(campaign, by)?, partition).len() == NODES)
    })
}

/// Takes a node out of all ISRs without a new life of it: it is not heard for longer than its lease.
pub fn silence(campaign: &Campaign, by: usize, node: usize) -> Outcome<()> {
    let silent = wire(campaign)?.lose(node, by, What::Renewals);
    wait_out(campaign, by, node)?;
    wire(campaign)?.take(silent);
    Ok(())
}

/// A node ends with kill -9, and starts again when nothing counts on it any more, until it takes part.
pub fn restart(campaign: &mut Campaign, by: usize, node: usize) -> Outcome<()> {
    campaign.cluster.kill(node);
    wait_out(campaign, by, node)?;
    campaign.cluster.start(node)?;
    wait_listed(campaign, by, node)
}

/// A node does not hear what becomes of the metadata: it is fenced and others lead, or it asks for its lease while the quorum still
/// decides on that. It gets no lease before it has heard what it lost (rules L4, L7).
pub fn fenced_unheard(campaign: &mut Campaign) -> Outcome<()> {
    for turn in [false, true] {
        let Parts { controller, leader: node, third } = Parts::new(campaign, turn)?;
        let wire = wire(campaign)?;
        let deaf = wire.hold(controller, node, What::Entries);
        let silent = wire.lose(node, controller, What::Renewals);
        std::thread::sleep(Duration::from_millis(1_000));
        // The fence comes 1.3 to 1.6 s after the last renewal, and stays undecided.
        let undecided = wire.hold(controller, third, What::Entries);
        std::thread::sleep(Duration::from_millis(900));
        wire.take(silent);
        std::thread::sleep(Duration::from_millis(600));
        wire.release(undecided);
        std::thread::sleep(Duration::from_millis(2_000));
        wire.release(deaf);
        campaign.recover()?;
    }
    Ok(())
}

/// A leader that hands over does not hear that the other leads; its lease lasts on. It answers nothing any more (rule L6).
pub fn handed_over_unheard(campaign: &mut Campaign) -> Outcome<()> {
    arrange(campaign)?;
    let Parts { controller, leader, third } = Parts::new(campaign, false)?;
    let partition = partition_of([third, leader, controller]);
    let asked = wire(campaign)?.hold(controller, leader, What::Transfers);
    restart(campaign, controller, third)?;
    wait_in_sync(campaign, leader, partition)?;
    let wire = wire(campaign)?;
    let deaf = wire.hold(controller, leader, What::Entries);
    wire.take(asked);
    wait_for(campaign, "the preferred replica leads", |campaign| {
        Ok(leads(campaign, controller, partition)? == third)
    })?;
    // It acknowledges something once the one that follows nobody is out of the ISR.
    std::thread::sleep(Duration::from_millis(4_000));
    wire.release(deaf);
    campaign.recover()
}

/// A leader loses what it leads by an operator's word and does not hear so; its lease lasts on. Nobody else answers before it has heard
/// (rule L7).
pub fn deposed_unheard(campaign: &mut Campaign) -> Outcome<()> {
    arrange(campaign)?;
    for turn in [false, true] {
        let Parts { controller, leader: node, third } = Parts::new(campaign, turn)?;
        let orders = ORDERS.into_iter().zip(0..).filter(|(order, _)| order[0] == node);
        let (there, back): (Vec<_>, Vec<_>) = orders
            .map(|(_, partition)| {
                let brokers = |nodes: &[usize]| nodes.iter().map(|node| broker_of(campaign, *node)).collect();
                let all: Vec<i32> = brokers(&ORDERS[partition as usize]);
                let others: Vec<i32> = brokers(&[controller, third]);
                ((partition, others), (partition, all))
            })
            .unzip();
        let (topic, wire) = (&campaign.directory.topic, wire(campaign)?);
        let deaf = wire.hold(controller, node, What::Entries);
        let mut asking = Connection::open(&campaign.directory.nodes[controller - 1])?;
        let asked = asking.send(&deposed::request(topic, &there));
        std::thread::sleep(Duration::from_millis(3_000));
        wire.release(deaf);
        asked?;
        asking.poll(PATIENCE)?.ok_or("a reassignment was not answered")?;
        deposed::put_back(campaign, controller, topic, &back)?;
        campaign.recover()?;
    }
    Ok(())
}

/// The controller stops and another is one at once, which does not hear of a third node and is not heard by it: leases that the one
/// before has granted last on (rule L5).
pub fn new_controller(campaign: &mut Campaign) -> Outcome<()> {
    for _ in 0..2 {
        let Parts { controller, leader: one, third: other } = Parts::new(campaign, false)?;
        let wire = wire(campaign)?;
        for (from, to) in [(one, other), (other, one)] {
            wire.hold(from, to, What::Entries);
            wire.lose(from, to, What::Renewals);
            // It stays a voter for a while, so that the two are a majority.
            wire.lose(controller, to, What::Farewell);
        }
        campaign.cluster.terminate(controller);
        std::thread::sleep(FENCED);
        campaign.wire.as_ref().map(Wire::clear);
        let ended = |campaign: &mut Campaign| !campaign.cluster.is_alive(controller);
        let deadline = Instant::now() + PATIENCE;
        while !ended(campaign) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        campaign.cluster.kill(controller);
        campaign.cluster.start(controller)?;
        campaign.recover()?;
    }
    Ok(())
}

/// The metadata stand still: nobody can lead what a node leads that is to stop. It serves on meanwhile (KIP-4: controlled shutdown).
pub fn stopped_in_vain(campaign: &mut Campaign) -> Outcome<()> {
    const STILL: Duration = Duration::from_millis(2_500);
    /// Of this time, without an answer of one that serves on, milliseconds.
    const GAP_MS: u64 = 1_500;
    for turn in [false, true] {
        // No leadership is on its way anywhere.
        arrange(campaign)?;
        let Parts { controller, leader: node, third } = Parts::new(campaign, turn)?;
        let led: Vec<i32> = (0..campaign.partitions)
            .filter(|at| {
                let leader = campaign.directory.leader(*at);
                leader.is_some_and(|leader| campaign.cluster.system.node_of(leader.broker) == node)
            })
            .collect();
        let wire = wire(campaign)?;
        let orders = [node, third].map(|to| wire.hold(controller, to, What::Entries));
        let from_ms = campaign.now_ms();
        campaign.cluster.terminate(node);
        std::thread::sleep(STILL);
        let to_ms = campaign.now_ms();
        let gaps = led.iter().map(|at| (campaign.book.gap_ms(*at, from_ms, to_ms), *at));
        let (gap_ms, partition) = gaps.max().ok_or(format!("node {node} leads nothing"))?;
        orders.into_iter().for_each(|order| wire.release(order));
        if gap_ms > GAP_MS {
            return Err(format!(
                "node {node} was asked to stop while nobody could lead what it leads: partition {partition} \
                 acknowledged nothing for {gap_ms} of {} ms",
                to_ms - from_ms
            ));
        }
        let deadline = Instant::now() + PATIENCE;
        while campaign.cluster.is_alive(node) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        campaign.cluster.kill(node);
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_once_there() {
        let mut found: Vec<usize> = ORDERS.iter().map(|order| partition_of(*order)).collect();
        found.dedup();
        assert_eq!(found, [0, 1, 2, 3, 4, 5]);
        assert_eq!(ORDERS[partition_of([3, 1, 2])], [3, 1, 2]);
    }
}
