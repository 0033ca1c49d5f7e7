//! An operator puts back an old copy of a node's data and starts it until it is let in, just as the others lose their leases: it leads,
//! without what was acknowledged since. That is beyond what a cluster can set right. But who has the records keeps them: no replica
//! cuts what it knows to be committed, and an operator can still bring it back (rule R3).

use crate::campaign::Campaign;
use crate::staged::copied;
use crate::wire_what::What;
use crate::wired::{Parts, arrange, is_listed, leads, partition_of, wait_for, wait_listed, wire};
use pelton_bench::Outcome;
use pelton_bench::net::NODES;
use pelton_crash::producer::Entry;
use pelton_crash::verify::Verdict;
use std::time::Duration;

/// A node that is refused has ended by then.
const REFUSED: Duration = Duration::from_millis(1_500);
const MOMENT: Duration = Duration::from_millis(500);
/// Whatever a follower does to its log, it has done.
const FOLLOWED: Duration = Duration::from_secs(4);

/// Batches that were acknowledged and are not on a node, which is down.
fn lacks(campaign: &Campaign, node: usize) -> Outcome<u64> {
    let (logs, lines) = (campaign.read_node(node)?, campaign.book.lines());
    let mut verdict = Verdict::default();
    for (producer, lines) in campaign.producers.iter().zip(&lines) {
        let entries: Vec<Entry> = lines.iter().map(|line| line.entry).collect();
        let log = logs.get(&producer.partition).ok_or(format!("node {node} has lost a partition"))?;
        log.found.judge(producer.id, &entries, 0, &mut verdict);
    }
    Ok(verdict.lost)
}

/// Starts a node until it takes part: not in its first life on the copy, which is not later than that which it takes the place of.
fn insist(campaign: &mut Campaign, by: usize, node: usize) -> Outcome<()> {
    for _ in 0..6 {
        campaign.cluster.start(node)?;
        std::thread::sleep(REFUSED);
        if campaign.cluster.is_alive(node) && is_listed(campaign, by, node)? {
            return Ok(());
        }
        campaign.cluster.kill(node);
    }
    Err(format!("node {node} was not let in"))
}

/// Nothing is as it should be after this: what the stage finds is all that is judged.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    arrange(campaign)?;
    // Whoever leads the quorum dies, and the old copy shall lead it next.
    let Parts { controller: dead, leader: old, third: witness } = Parts::new(campaign, false)?;
    let partition = partition_of([old, witness, dead]);
    let data = campaign.cluster.data_dir(old).to_path_buf();
    let copy = data.with_extension("copy");
    campaign.cluster.kill(old);
    copied(&data, &copy)?;
    campaign.cluster.start(old)?;
    campaign.recover()?;
    std::thread::sleep(MOMENT);
    campaign.cluster.kill(old);
    let failed = |error: std::io::Error| format!("{}: {error}", data.display());
    let gone = lacks(campaign, old)?;
    std::fs::remove_dir_all(&data).and_then(|()| std::fs::rename(&copy, &data)).map_err(failed)?;
    if gone > 0 || lacks(campaign, old)? == 0 {
        return Err("the copy lacks nothing that was acknowledged, or the node did before".into());
    }
    for from in [witness, dead] {
        wire(campaign)?.lose(from, old, What::Appends);
    }
    insist(campaign, dead, old)?;
    wire(campaign)?.lose(witness, old, What::Candidacies);
    campaign.cluster.kill(dead);
    // The witness is fenced while it lives, and knows what is committed.
    let silent = wire(campaign)?.lose(witness, old, What::Renewals);
    wait_for(campaign, "the old copy leads", |campaign| Ok(leads(campaign, old, partition)? == old))?;
    wire(campaign)?.take(silent);
    wait_listed(campaign, old, witness)?;
    std::thread::sleep(FOLLOWED);
    (1..=NODES).for_each(|node| campaign.cluster.kill(node));
    match lacks(campaign, witness)? {
        0 => Ok(()),
        lost => Err(format!(
            "node {old} led on an old copy of its data, and node {witness} has thrown away {lost} acknowledged batches to follow it"
        )),
    }
}
