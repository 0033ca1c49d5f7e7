//! Questions to brokers at rest, whose answers must be what the log says: where each leader's epoch ends (OffsetForLeaderEpoch, KIP-101)
//! and which producers each replica knows (DescribeProducers, KIP-664, of any replica). And the brokers' own alarms.

use crate::connection::Connection;
use crate::directory::{self, Directory};
use crate::replica::{self, Log};
use crate::stamps::Stamps;
use pelton_bench::Outcome;
use pelton_bench::cluster::Cluster;
use pelton_bench::flexible::{compact, put_compact, tags, uvarint};
use pelton_bench::frames::{self, Reader};
use pelton_bench::net::NODES;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const OFFSET_FOR_LEADER_EPOCH: (i16, i16) = (23, 3);
const DESCRIBE_PRODUCERS: (i16, i16) = (61, 0);
/// NOT_LEADER_OR_FOLLOWER.
const NOT_HERE: i16 = 6;
/// Followers get what is left within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(5);
/// What a broker says when it sees a disk that lied or a replica that must not go on: no fault here may bring it to that.
const ALARMS: &[&str] = &["its disk has lost what it was told to keep", "told to cut its log to"];

fn describe_request(id: i32, topic: &str, partition: i32) -> Vec<u8> {
    let mut out = frames::start(DESCRIBE_PRODUCERS, id);
    out.extend([0, 2]);
    put_compact(&mut out, topic);
    out.push(2);
    frames::put_i32(&mut out, partition);
    out.extend([0, 0]);
    frames::finish(out)
}

/// Error code, and the producers: epoch and last sequence number by id.
type Described = (i16, BTreeMap<i64, (i16, i32)>);

fn described(frame: &[u8]) -> Outcome<Described> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    tags(&mut reader)?;
    reader.i32()?;
    let topics = uvarint(&mut reader)?;
    compact(&mut reader)?;
    let partitions = uvarint(&mut reader)?;
    if (topics, partitions) != (2, 2) {
        return Err("DescribeProducers of one partition was answered for another number".into());
    }
    reader.i32()?;
    let error = reader.i16()?;
    compact(&mut reader)?;
    let mut producers = BTreeMap::new();
    for _ in 1..uvarint(&mut reader)?.max(1) {
        let (id, epoch, last) = (reader.i64()?, reader.i32()?, reader.i32()?);
        reader.take(8 + 4 + 8)?;
        tags(&mut reader)?;
        producers.insert(id, (epoch as i16, last));
    }
    Ok((error, producers))
}

fn epoch_request(id: i32, topic: &str, partition: i32, epoch: i32) -> Vec<u8> {
    let mut out = frames::start(OFFSET_FOR_LEADER_EPOCH, id);
    frames::put_i32(&mut out, -1);
    frames::put_i32(&mut out, 1);
    frames::put_string(&mut out, topic);
    [1, partition, -1, epoch].into_iter().for_each(|field| frames::put_i32(&mut out, field));
    frames::finish(out)
}

/// Error code, epoch, end offset.
fn epoch_end(frame: &[u8]) -> Outcome<(i16, i32, i64)> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    if reader.count()? != 1 {
        return Err("OffsetForLeaderEpoch of one topic was answered for another number".into());
    }
    reader.string()?;
    reader.count()?;
    let error = reader.i16()?;
    reader.i32()?;
    Ok((error, reader.i32()?, reader.i64()?))
}

/// What the leader of a partition says of each epoch in its log.
fn epochs(directory: &Directory, partition: i32, log: &Log, faults: &mut Vec<String>) -> Outcome<()> {
    faults.extend(log.stamps.fault().map(|fault| format!("partition {partition}: {fault}")));
    let leader = directory.leader(partition).ok_or("a partition has no leader")?;
    let mut connection = Connection::open(&leader.address)?;
    connection.call(0, &directory::request(0, &directory.topic), WAIT)?;
    for (id, reign) in (1..).zip(&log.stamps.reigns) {
        let frame = epoch_request(id, &directory.topic, partition, reign.epoch);
        let answer = epoch_end(&connection.call(id, &frame, WAIT)?)?;
        if answer != (0, reign.epoch, reign.end) {
            faults.push(format!(
                "partition {partition}: the log has {reign:?}, its leader {} says (error, epoch, end) {answer:?}",
                leader.broker
            ));
        }
    }
    if let Some(last) = log.stamps.reigns.last().filter(|last| last.epoch > leader.epoch) {
        faults.push(format!("partition {partition}: {last:?} is later than its leader's {}", leader.epoch));
    }
    Ok(())
}

/// What one broker knows of producers, against the log.
fn producers(partition: i32, broker: i32, known: &Described, log: &Stamps) -> Vec<String> {
    let mut faults = Vec::new();
    for (id, own) in &log.producers {
        match known.1.get(id) {
            Some(there) if there == own => {}
            Some(there) => faults.push(format!(
                "partition {partition}: of producer id {id} the log ends with (epoch, sequence) {own:?}, broker {broker} says {there:?}"
            )),
            None => faults.push(format!(
                "partition {partition}: broker {broker} does not know producer id {id}, {own:?} in the log"
            )),
        }
    }
    let strangers = known.1.keys().filter(|id| !log.producers.contains_key(id));
    faults.extend(strangers.map(|id| {
        format!(
            "partition {partition}: broker {broker} knows producer id {id}, of whom nothing is in the log"
        )
    }));
    faults
}

fn once(directory: &Directory, partitions: i32) -> Outcome<Vec<String>> {
    let mut faults = Vec::new();
    for partition in 0..partitions {
        let log = replica::served(directory, partition)?;
        epochs(directory, partition, &log, &mut faults)?;
        for (broker, address) in directory.brokers() {
            let mut connection = Connection::open(&address)?;
            let request = describe_request(1, &directory.topic, partition);
            let known = described(&connection.call(1, &request, WAIT)?)?;
            match known.0 {
                0 => faults.extend(producers(partition, broker, &known, &log.stamps)),
                NOT_HERE => {}
                code => faults.push(format!("DescribeProducers of broker {broker}: error code {code}")),
            }
        }
    }
    Ok(faults)
}

/// Asks brokers that nobody writes to any more: what is wrong, also after a while.
pub fn examine(directory: &Directory, partitions: i32) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let faults = match once(directory, partitions) {
            Ok(faults) if faults.is_empty() => return None,
            Ok(faults) => faults,
            Err(error) => vec![error],
        };
        if Instant::now() > deadline {
            return Some(format!("{} faults: {}", faults.len(), faults[..faults.len().min(10)].join("; ")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The first alarm in the brokers' logs.
pub fn alarm(cluster: &Cluster) -> Option<String> {
    (1..=NODES).find_map(|node| {
        let text = std::fs::read_to_string(cluster.log_path(node)).ok()?;
        let line = text.lines().find(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))?;
        Some(format!("node {node} says: {line}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let frame: Vec<u8> = [
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 2, b't', 2, 0, 0, 0, 3, 0, 0, 0, 2][..],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5],
            &[0; 20],
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(described(&frame).unwrap(), (0, [(9, (1, 5))].into()));
        assert!(described(&frame[..40]).is_err());
        let frame = [
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 3][..],
            &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 40],
        ]
        .concat();
        assert_eq!(epoch_end(&frame).unwrap(), (0, 7, 40));
    }

    #[test]
    fn what_a_broker_forgot_made_up_or_has_wrong_is_named() {
        let log = Stamps { producers: [(1, (0, 5)), (2, (0, 6))].into(), ..Stamps::default() };
        let say = |known| producers(0, 256, &(0, known), &log).join(" ");
        assert_eq!(say([(1, (0, 5)), (2, (0, 6))].into()), "");
        assert!(say([(1, (0, 5))].into()).contains("does not know producer id 2"));
        assert!(say([(1, (0, 7)), (2, (0, 6))].into()).contains("says (0, 7)"));
        assert!(say([(1, (0, 5)), (2, (0, 6)), (3, (0, 0))].into()).contains("knows producer id 3"));
    }
}
