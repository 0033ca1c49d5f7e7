//! A leader that hears nothing from the others, but is heard, loses its leadership by an operator's word: until its lease has surely
//! ended nobody else may answer, for clients still reach it and it does not know (rule L7).

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::directory;
use pelton_bench::Outcome;
use pelton_bench::flexible::{put_compact, put_uvarint};
use pelton_bench::frames;
use pelton_bench::net::{Host, NODES};
use std::time::{Duration, Instant};

const ALTER_REASSIGNMENTS: (i16, i16) = (45, 0);
/// Longer than a lease.
const DEAF: Duration = Duration::from_millis(3_000);

const PATIENCE: Duration = Duration::from_secs(20);

/// A request to give each of these partitions these replicas.
pub fn request(topic: &str, wanted: &[(i32, Vec<i32>)]) -> Vec<u8> {
    let mut out = frames::start(ALTER_REASSIGNMENTS, 1);
    out.push(0);
    frames::put_i32(&mut out, 10_000);
    out.push(2);
    put_compact(&mut out, topic);
    put_uvarint(&mut out, wanted.len() + 1);
    for (partition, replicas) in wanted {
        frames::put_i32(&mut out, *partition);
        put_uvarint(&mut out, replicas.len() + 1);
        replicas.iter().for_each(|replica| frames::put_i32(&mut out, *replica));
        out.push(0);
    }
    out.extend([0, 0]);
    frames::finish(out)
}

/// Asks until it is so: what was asked before may still be under way.
pub fn put_back(campaign: &Campaign, node: usize, topic: &str, wanted: &[(i32, Vec<i32>)]) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut connection = Connection::open(&campaign.directory.nodes[node - 1])?;
        connection.call(1, &request(topic, wanted), PATIENCE)?;
        std::thread::sleep(Duration::from_millis(500));
        let view = directory::answer(&connection.call(2, &directory::request(2, topic), PATIENCE)?)?;
        let all = |(partition, replicas): &(i32, Vec<i32>)| {
            view.partitions.get(*partition as usize).is_some_and(|seen| seen.isr.len() == replicas.len())
        };
        match wanted.iter().all(all) {
            true => return Ok(()),
            false if Instant::now() > deadline => {
                return Err(format!(
                    "replicas that were taken away did not come back: {:?}",
                    view.partitions
                ));
            }
            false => {}
        }
    }
}

/// Each node in turn is deaf and loses what it leads; then it gets its replicas back.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    let brokers: Vec<i32> = campaign.directory.brokers().keys().copied().collect();
    for node in 1..=NODES {
        let led: Vec<(i32, i32)> = (0..campaign.partitions)
            .filter_map(|partition| Some((partition, campaign.directory.leader(partition)?.broker)))
            .filter(|(_, broker)| campaign.cluster.system.node_of(*broker) == node)
            .collect();
        let other = node % NODES + 1;
        let without =
            |broker: i32| brokers.iter().copied().filter(|other| *other != broker).collect::<Vec<i32>>();
        let there: Vec<(i32, Vec<i32>)> =
            led.iter().map(|(partition, broker)| (*partition, without(*broker))).collect();
        let back: Vec<(i32, Vec<i32>)> =
            led.iter().map(|(partition, _)| (*partition, brokers.clone())).collect();
        let from = (1..=NODES).filter(|other| *other != node).map(Host::Node);
        let links: Vec<(Host, Host)> = from.map(|other| (other, Host::Node(node))).collect();
        links.iter().try_for_each(|(from, to)| campaign.cluster.net.cut(*from, *to))?;
        let mut asking = Connection::open(&campaign.directory.nodes[other - 1])?;
        let asked = asking.send(&request(&campaign.directory.topic, &there));
        std::thread::sleep(DEAF);
        links.iter().try_for_each(|(from, to)| campaign.cluster.net.join(*from, *to))?;
        asked?;
        // What is asked next must not overtake it.
        asking.poll(PATIENCE)?.ok_or("a reassignment was not answered")?;
        std::thread::sleep(Duration::from_secs(1));
        put_back(campaign, other, &campaign.directory.topic, &back)?;
        campaign.recover()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_long_as_it_says() {
        let frame = request("t", &[(3, vec![256, 512])]);
        assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
        assert_eq!(frame[frame.len() - 17..], [2, 0, 0, 0, 3, 3, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
