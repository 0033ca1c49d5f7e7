//! Stages about what belongs to an earlier epoch or question and comes late, with this process between the nodes.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::deposed;
use crate::staged::view_of;
use crate::wire::Kept;
use crate::wire_what::{What, differs, leadership};
use crate::wired::{Parts, arrange, broker_of, leads, partition_of, silence, wait_for, wait_listed, wire};
use pelton_bench::client::Client;
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, batch, frames, load};
use std::collections::BTreeSet;
use std::time::Duration;

/// A question without an answer is said again after half a second.
const ASKED_AGAIN: Duration = Duration::from_millis(1_400);
const MOMENT: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_secs(5);

/// The topic of one partition of [`old_ack`], and what is written to it: batches, records in each.
const TOPIC: &str = "verify-epochs";
const TAIL: i32 = 40;
const ACKNOWLEDGED: i32 = 10;
const RECORDS: usize = 10;

/// A leader is fenced with records that nobody else has. Each of its questions to the next leader is answered that it has to cut
/// them, and one such answer comes when it has long done so and has more (rule R2).
pub fn old_answer(campaign: &mut Campaign) -> Outcome<()> {
    arrange(campaign)?;
    let Parts { controller, leader: next, third: node } = Parts::new(campaign, false)?;
    let partition = partition_of([node, next, controller]);
    let between = wire(campaign)?;
    between.lose(controller, next, What::Transfers);
    let alone = [next, controller].map(|other| between.lose(node, other, What::Appends));
    let answers = between.hold(next, node, What::JoinAnswers);
    std::thread::sleep(MOMENT);
    let silent = between.lose(node, controller, What::Renewals);
    wait_for(campaign, "the next leads", |campaign| Ok(leads(campaign, node, partition)? == next))?;
    alone.into_iter().for_each(|order| drop(between.take(order)));
    std::thread::sleep(ASKED_AGAIN);
    let mut first = BTreeSet::new();
    let (now, later): (Vec<Kept>, Vec<Kept>) =
        between.take(answers).into_iter().partition(|kept| first.insert(leadership(kept.message()).to_vec()));
    let later: Vec<Kept> = later.into_iter().filter(|kept| differs(kept.message())).collect();
    if later.is_empty() {
        return Err(format!("node {node} had nothing to cut, or asked only once"));
    }
    now.into_iter().for_each(Kept::send);
    between.take(silent);
    wait_listed(campaign, controller, node)?;
    std::thread::sleep(2 * MOMENT);
    later.into_iter().for_each(Kept::send);
    std::thread::sleep(MOMENT);
    between.clear();
    campaign.recover()
}

/// Leader and ISR of the topic's partition, as a node says.
fn standing(campaign: &Campaign, by: usize) -> Outcome<(usize, Vec<usize>)> {
    let view = view_of(campaign, by, TOPIC)?;
    let seen = view.partitions.first().ok_or("no partition")?;
    let node = |broker: &i32| campaign.cluster.system.node_of(*broker);
    Ok((if seen.leader < 0 { 0 } else { node(&seen.leader) }, seen.isr.iter().map(node).collect()))
}

/// Waits until a node leads, with so many in sync, in the eyes of all.
fn wait_led(campaign: &Campaign, node: usize, in_sync: usize) -> Outcome<()> {
    wait_for(campaign, &format!("node {node} leads {TOPIC}"), |campaign| {
        let all = (1..=NODES).map(|by| standing(campaign, by)).collect::<Outcome<Vec<_>>>()?;
        Ok(all.iter().all(|(leader, isr)| *leader == node && isr.len() >= in_sync))
    })
}

/// Gives the topic's partition its replicas in this order; the first of them leads before long.
fn order(campaign: &Campaign, by: usize, nodes: [usize; 3]) -> Outcome<()> {
    let replicas = nodes.map(|node| broker_of(campaign, node)).to_vec();
    deposed::put_back(campaign, by, TOPIC, &[(0, replicas)])
}

/// Sends batches and waits for their answers: the offset behind the last.
fn produce(campaign: &Campaign, node: usize, batches: i32, acks: i16) -> Outcome<i64> {
    let mut connection = Connection::open(&campaign.directory.nodes[node - 1])?;
    connection.call(0, &crate::directory::request(0, TOPIC), WAIT)?;
    let mut end = 0;
    for id in 1..=batches {
        let records = batch::build([&b"of some epoch"[..]; RECORDS].into_iter(), load::now_ms());
        let frame = frames::produce_acks(id, TOPIC, 0, &records, acks);
        let answer = frames::produced(&connection.call(id, &frame, WAIT)?)?;
        if answer.error != 0 {
            return Err(format!("node {node}: error code {} to a batch with acks {acks}", answer.error));
        }
        end = answer.base_offset + RECORDS as i64;
    }
    Ok(end)
}

/// A node leads, and a follower has more than is committed; another leads and both cut that; the first leads again. What the follower
/// said in the first epoch comes now: it does not have that any more (rule R5).
pub fn old_ack(campaign: &mut Campaign) -> Outcome<()> {
    let Parts { controller, leader, third } = Parts::new(campaign, false)?;
    let bootstrap = campaign.cluster.addresses().join(",");
    Client::connect(&bootstrap, WAIT)?.create_replicated(
        TOPIC,
        1,
        NODES as i16,
        &[("min.insync.replicas", "2")],
    )?;
    order(campaign, controller, [leader, controller, third])?;
    wait_led(campaign, leader, NODES)?;
    let common = produce(campaign, leader, 1, -1)?;
    let between = wire(campaign)?;
    let short = between.lose(leader, controller, What::Appends);
    let acks = between.hold(third, leader, What::Acks);
    let tail = produce(campaign, leader, TAIL, 1)?;
    std::thread::sleep(2 * MOMENT);
    let old = between.take(acks);
    silence(campaign, controller, leader)?;
    between.take(short);
    wait_led(campaign, controller, 2)?;
    wait_listed(campaign, controller, leader)?;
    // The preferred one leads again by itself.
    wait_led(campaign, leader, NODES)?;
    order(campaign, controller, [leader, third, controller])?;
    let from = produce(campaign, leader, 1, -1)? - RECORDS as i64;
    if old.is_empty() || from >= tail {
        return Err(format!("the log went on at {from}, behind {common}; {tail} had been its end before"));
    }
    old.into_iter().for_each(Kept::send);
    std::thread::sleep(MOMENT);
    let end = produce(campaign, leader, ACKNOWLEDGED, -1)?;
    campaign.cluster.kill(leader);
    wait_led_by_other(campaign, controller, leader)?;
    let (now, _) = standing(campaign, controller)?;
    let asked = Client::connect(&campaign.directory.nodes[now - 1], WAIT)
        .and_then(|mut client| client.metadata(TOPIC).and_then(|_| client.list_offset(TOPIC, 0, -1)));
    campaign.cluster.start(leader)?;
    if let Some(lower) = asked?.ok().filter(|at| *at < end) {
        return Err(format!(
            "{end} records of {TOPIC} were acknowledged, node {now} leads it and has {lower}"
        ));
    }
    campaign.recover()
}

/// Waits until a node that is dead does not lead any more.
fn wait_led_by_other(campaign: &Campaign, by: usize, dead: usize) -> Outcome<()> {
    wait_for(campaign, &format!("another leads {TOPIC}"), |campaign| {
        let (leader, _) = standing(campaign, by)?;
        Ok(leader != 0 && leader != dead)
    })?;
    std::thread::sleep(2 * MOMENT);
    Ok(())
}
