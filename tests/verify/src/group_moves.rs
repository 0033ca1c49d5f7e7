//! Offsets that are committed once and then only asked for, while their coordinator moves: killed right after the commit, or cut off and
//! back again after the commit was made elsewhere. What was acknowledged is what is told.

use crate::campaign::Campaign;
use crate::connection::Connection;
use pelton_bench::Outcome;
use pelton_bench::frames;
use pelton_bench::group_client::{GroupClient, MOVES};
use pelton_bench::net::{Host, NODES};
use std::time::{Duration, Instant};

/// Groups: every partition of their topic has some.
const GROUPS: usize = 8;
const WAIT: Duration = Duration::from_secs(20);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Leases have ended by then, and others lead.
const ELSEWHERE: Duration = Duration::from_millis(2_600);
/// Leaders are where they were before by then.
const BACK: Duration = Duration::from_millis(1_500);
/// More than the minute that offsets of a group without members are kept.
const RETAINED: Duration = Duration::from_secs(66);
const ELECT_LEADERS: (i16, i16) = (43, 2);

struct Groups {
    topic: String,
    committed: i64,
}

fn name(number: usize) -> String {
    format!("moves-{number}")
}

/// Addresses of the nodes, without one.
fn others(campaign: &Campaign, node: usize) -> String {
    let all = campaign.cluster.addresses().into_iter().enumerate();
    all.filter(|(index, _)| index + 1 != node).map(|(_, address)| address).collect::<Vec<_>>().join(",")
}

impl Groups {
    /// Commits the next offset in each, as one that assigns partitions by itself does.
    fn commit(&mut self, bootstrap: &str) -> Outcome<()> {
        self.committed += 1;
        (0..GROUPS).try_for_each(|number| self.commit_one(bootstrap, number))
    }

    fn commit_one(&self, bootstrap: &str, number: usize) -> Outcome<()> {
        let deadline = Instant::now() + WAIT;
        loop {
            let done = GroupClient::connect(bootstrap, &name(number), WAIT, ANSWER)
                .and_then(|mut client| client.commit(-1, "", &self.topic, &[(0, self.committed)]));
            match done {
                Ok(0) => return Ok(()),
                Ok(code) if !MOVES.contains(&code) => return Err(format!("OffsetCommit: error code {code}")),
                done if Instant::now() > deadline => return Err(format!("OffsetCommit: {done:?}")),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn check(&self, bootstrap: &str) -> Outcome<()> {
        (0..GROUPS).try_for_each(|number| {
            let deadline = Instant::now() + WAIT;
            loop {
                let found = GroupClient::connect(bootstrap, &name(number), WAIT, ANSWER)
                    .and_then(|mut client| client.offsets(&self.topic, &[0]));
                match found {
                    Ok((0, found)) if found == [(0, self.committed)] => return Ok(()),
                    Ok((0, found)) => {
                        let wanted = self.committed;
                        return Err(format!(
                            "group {} had committed {wanted}, it is told {found:?}",
                            name(number)
                        ));
                    }
                    found if Instant::now() > deadline => return Err(format!("OffsetFetch: {found:?}")),
                    _ => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        })
    }
}

/// Commits, kills, asks; each node in turn, a few times.
pub fn kill(campaign: &mut Campaign) -> Outcome<()> {
    let mut groups = Groups { topic: campaign.directory.topic.clone(), committed: 0 };
    let all = campaign.cluster.addresses().join(",");
    for node in (1..=NODES).cycle().take(2 * NODES) {
        groups.commit(&all)?;
        campaign.cluster.kill(node);
        groups.check(&others(campaign, node))?;
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}

/// A group with a member keeps its offsets however long ago they were committed (KIP-211): longer than `offsets.retention.minutes` of 1.
pub fn old(campaign: &mut Campaign) -> Outcome<()> {
    let (all, topic) = (campaign.cluster.addresses().join(","), campaign.directory.topic.clone());
    let mut client = GroupClient::connect(&all, "moves-old", WAIT, WAIT)?;
    let mut name = String::new();
    let generation = client.join_alone(&mut name, &topic, campaign.partitions)?;
    match client.commit(generation, &name, &topic, &[(0, 5)])? {
        0 => {}
        code => return Err(format!("OffsetCommit: error code {code}")),
    }
    let from = Instant::now();
    while from.elapsed() < RETAINED {
        std::thread::sleep(Duration::from_secs(1));
        match client.heartbeat(generation, &name)? {
            0 => {}
            code => return Err(format!("Heartbeat: error code {code}")),
        }
        match client.offsets(&topic, &[0])? {
            (0, found) if found == [(0, 5)] => {}
            found => {
                return Err(format!(
                    "a live group had committed 5, {:?} later it is told {found:?}",
                    from.elapsed()
                ));
            }
        }
    }
    Ok(())
}

/// Asks for the preferred leaders of all partitions.
fn elect_preferred(address: &str) -> Outcome<()> {
    let mut out = frames::start(ELECT_LEADERS, 1);
    out.extend([0, 0, 0]);
    frames::put_i32(&mut out, 10_000);
    out.push(0);
    Connection::open(address)?.call(1, &frames::finish(out), ANSWER).map(|_| ())
}

/// Cuts each node off, commits elsewhere, and asks when it leads again.
pub fn cut(campaign: &mut Campaign) -> Outcome<()> {
    let mut groups = Groups { topic: campaign.directory.topic.clone(), committed: 0 };
    let all = campaign.cluster.addresses().join(",");
    for node in 1..=NODES {
        groups.commit(&all)?;
        groups.check(&all)?;
        let peers = (1..=NODES).filter(|other| *other != node).map(Host::Node);
        let links: Vec<(Host, Host)> =
            peers.flat_map(|other| [(Host::Node(node), other), (other, Host::Node(node))]).collect();
        links.iter().try_for_each(|(from, to)| campaign.cluster.net.cut(*from, *to))?;
        std::thread::sleep(ELSEWHERE);
        let committed = groups.commit(&others(campaign, node));
        links.iter().try_for_each(|(from, to)| campaign.cluster.net.join(*from, *to))?;
        committed?;
        campaign.recover()?;
        elect_preferred(&campaign.directory.nodes[node - 1])?;
        std::thread::sleep(BACK);
        groups.check(&all)?;
    }
    Ok(())
}
