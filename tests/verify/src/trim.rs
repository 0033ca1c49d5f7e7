//! DeleteRecords is answered when no replica that lives has the records any more (KIP-107), so not while one stands still.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::directory;
use pelton_bench::client::Client;
use pelton_bench::frames::{self, Reader};
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, batch};
use std::time::{Duration, Instant};

const DELETE_RECORDS: (i16, i16) = (21, 1);
const TOPIC: &str = "verify-trim";
/// Less than a session, within which the node that stands still counts as alive.
const STILL: Duration = Duration::from_millis(900);
const WAIT: Duration = Duration::from_secs(5);

fn request(id: i32, offset: i64) -> Vec<u8> {
    let mut out = frames::start(DELETE_RECORDS, id);
    frames::put_i32(&mut out, 1);
    frames::put_string(&mut out, TOPIC);
    frames::put_i32(&mut out, 1);
    frames::put_i32(&mut out, 0);
    out.extend_from_slice(&offset.to_be_bytes());
    frames::put_i32(&mut out, 20_000);
    frames::finish(out)
}

/// Low watermark and error code.
fn answer(frame: &[u8]) -> Outcome<(i64, i16)> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    reader.count()?;
    reader.string()?;
    reader.count()?;
    reader.i32()?;
    Ok((reader.i64()?, reader.i16()?))
}

/// The node that leads the partition, once all replicas are in sync.
fn leader(campaign: &Campaign) -> Outcome<usize> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let mut connection = Connection::open(&campaign.directory.nodes[0])?;
        let view = directory::answer(&connection.call(1, &directory::request(1, TOPIC), WAIT)?)?;
        if let Some(seen) = view.partitions.first().filter(|seen| seen.leader >= 0 && seen.isr.len() == NODES)
        {
            return Ok(campaign.cluster.system.node_of(seen.leader));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("topic verify-trim has no leader with all replicas in sync".into())
}

/// Deletes a few times, each time with another follower that stands still.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    let bootstrap = campaign.cluster.addresses().join(",");
    Client::connect(&bootstrap, WAIT)?.create_replicated(TOPIC, 1, NODES as i16, &[])?;
    for round in 0..4 {
        let leads = leader(campaign)?;
        let address = campaign.directory.nodes[leads - 1].clone();
        let mut client = Client::connect(&address, WAIT)?;
        client.metadata(TOPIC)?;
        let mut end = 0;
        for _ in 0..10 {
            let records = batch::build([&b"to be deleted"[..]].into_iter(), pelton_bench::load::now_ms());
            end = 1 + client.produce(TOPIC, 0, &records)?.map_err(|code| format!("error code {code}"))?;
        }
        let still = (leads + round % 2) % NODES + 1;
        campaign.cluster.halt(still);
        let mut connection = Connection::open(&address)?;
        connection.send(&request(1, end))?;
        let early = connection.poll(STILL);
        campaign.cluster.go_on(still);
        if let Some(frame) = early? {
            return Err(format!(
                "node {still} stood still, and yet node {leads} answered (low watermark, error) {:?} for offset {end}",
                answer(&frame)?
            ));
        }
        let frame = connection.poll(Duration::from_secs(25))?.ok_or("DeleteRecords was not answered")?;
        let (low, error) = answer(&frame)?;
        if error == 0 && low < end {
            return Err(format!("DeleteRecords up to {end} was answered with low watermark {low}"));
        }
        campaign.recover()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let mut frame = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0];
        frame.extend(9i64.to_be_bytes());
        frame.extend([0, 7]);
        assert_eq!(answer(&frame).unwrap(), (9, 7));
        assert!(answer(&frame[..25]).is_err());
    }
}
