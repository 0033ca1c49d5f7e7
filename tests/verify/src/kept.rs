//! What compaction must keep though no reader of the latest values needs it: a record without value until `delete.retention.ms` has
//! passed (KIP-534), and the last batch of a producer, emptied, for its sequence numbers. A replica that copies the log knows
//! producers by its batches alone: it becomes the only one, and is sent the producer's last batch once more.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::deposed;
use crate::own_topic::{self, PATIENCE, until};
use pelton_bench::client::Client;
use pelton_bench::{Outcome, batch, load};
use std::time::{Duration, Instant};

const TOPIC: &str = "kept";
/// Compacted as soon as possible; what has no value stays for an hour.
const CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "3600000"),
];
/// Records that make segments full, so that what is before them may be compacted.
const FILLERS: usize = 48;
const FILLER_BYTES: usize = 100_000;
/// DUPLICATE_SEQUENCE_NUMBER.
const DUPLICATE: i16 = 46;

/// What was written first; everything but the tombstone has something later under its key.
struct Written {
    /// Producer id and epoch.
    producer: (i64, i16),
    /// Its last batch, and where that is.
    last: Vec<u8>,
    last_at: i64,
    /// Of a key that was taken back: where the value is, and where the tombstone.
    value_at: i64,
    tombstone_at: i64,
}

fn batch_of(key: &str, value: Option<&[u8]>) -> Vec<u8> {
    batch::build_keyed([(Some(key.as_bytes()), value)].into_iter(), load::now_ms())
}

fn append(client: &mut Client, bytes: &[u8]) -> Outcome<i64> {
    own_topic::append(client, TOPIC, 0, bytes)
}

fn write(client: &mut Client) -> Outcome<Written> {
    let producer = client.init_producer()?;
    let stamped = |mut bytes: Vec<u8>, sequence| {
        batch::stamp_producer(&mut bytes, producer.0, producer.1, sequence);
        bytes
    };
    append(client, &stamped(batch_of("a", Some(&[1; 300])), 0))?;
    let last = stamped(batch_of("b", Some(&[2; 300])), 1);
    let last_at = append(client, &last)?;
    let value_at = append(client, &batch_of("taken back", Some(&[3; 300])))?;
    let tombstone_at = append(client, &batch_of("taken back", None))?;
    let filler = vec![4; FILLER_BYTES];
    for number in 0..FILLERS {
        append(client, &batch_of(["a", "b"][number % 2], Some(&filler)))?;
    }
    Ok(Written { producer, last, last_at, value_at, tombstone_at })
}

/// The offsets of all records, and whether each has a value.
fn read(client: &mut Client) -> Outcome<Vec<(i64, bool)>> {
    let (mut seen, mut offset, mut end) = (Vec::new(), 0, i64::MAX);
    let deadline = Instant::now() + PATIENCE;
    while offset < end {
        let fetched = client.fetch(TOPIC, 0, offset, 8 << 20)?;
        if fetched.error != 0 {
            return Err(format!("Fetch of {TOPIC} at {offset}: error code {}", fetched.error));
        }
        end = fetched.high_watermark;
        let mut rest = fetched.records;
        while let Some(batch) = batch::take_compacted(&mut rest)? {
            let records = batch.records()?.into_iter().filter(|(at, ..)| *at >= offset);
            seen.extend(records.map(|(at, _, value)| (at, value.is_some())));
            offset = offset.max(batch.last_offset() + 1);
        }
        if Instant::now() > deadline {
            return Err(format!("{TOPIC} ends at {end}, and nothing is read at {offset}"));
        }
    }
    Ok(seen)
}

/// The tombstone is there. Whether what it took back and the producer's batch are not.
fn judge(seen: &[(i64, bool)], written: &Written) -> Outcome<bool> {
    let there = |offset: i64| seen.iter().any(|(at, _)| *at == offset);
    if !seen.contains(&(written.tombstone_at, false)) {
        return Err(format!(
            "the record without value at {} of {TOPIC} is gone before delete.retention.ms; what it took back, at {}, is there: {}",
            written.tombstone_at,
            written.value_at,
            there(written.value_at)
        ));
    }
    Ok(!there(written.value_at) && !there(written.last_at))
}

/// Makes the one node without a replica the only one with one.
fn moved(campaign: &Campaign) -> Outcome<()> {
    let seen = || -> Outcome<_> {
        own_topic::view(campaign, 1, TOPIC)?.partitions.pop().ok_or(format!("{TOPIC} has no partition"))
    };
    let before = seen()?;
    let fresh = campaign.directory.brokers().into_keys().find(|broker| !before.replicas.contains(broker));
    let fresh = fresh.ok_or("each node has a replica already")?;
    let mut connection = Connection::open(&campaign.directory.nodes[0])?;
    connection.call(1, &deposed::request(TOPIC, &[(0, vec![fresh])]), PATIENCE)?;
    until(&format!("that broker {fresh} is the only replica of {TOPIC}"), || {
        let now = seen()?;
        Ok((now.replicas == [fresh] && now.leader == fresh).then_some(()))
    })
}

/// Whoever leads now knows what the producer wrote last, and what must come next.
fn ask_again(client: &mut Client, written: &Written) -> Outcome<()> {
    let (id, epoch) = written.producer;
    match own_topic::produce(client, TOPIC, 0, &written.last)? {
        Ok(offset) if offset == written.last_at => {}
        Err(DUPLICATE) => {}
        other => {
            return Err(format!(
                "the last batch of producer id {id}, acknowledged at {}, was sent again to a replica that had copied the log: {other:?}",
                written.last_at
            ));
        }
    }
    let mut gap = batch_of("a", Some(b"after a gap"));
    batch::stamp_producer(&mut gap, id, epoch, 7);
    if let Ok(offset) = own_topic::produce(client, TOPIC, 0, &gap)? {
        return Err(format!("producer id {id} left sequence numbers out, and was taken in at {offset}"));
    }
    let mut next = batch_of("a", Some(b"next"));
    batch::stamp_producer(&mut next, id, epoch, 2);
    append(client, &next).map(|_| ())
}

/// Writes, waits for a compaction, moves the log elsewhere, asks again.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    own_topic::create(campaign, TOPIC, 1, 2, CONFIGS)?;
    let mut client = own_topic::leader(campaign, 1, TOPIC, 0)?;
    let written = write(&mut client)?;
    let deadline = Instant::now() + PATIENCE;
    while !judge(&read(&mut client)?, &written)? {
        if Instant::now() > deadline {
            return Err(format!("{TOPIC} was not compacted within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    moved(campaign)?;
    let mut client = own_topic::leader(campaign, 1, TOPIC, 0)?;
    judge(&read(&mut client)?, &written)?;
    ask_again(&mut client, &written)?;
    own_topic::forget(campaign, &[TOPIC])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_taken_back_may_go() {
        let written =
            Written { producer: (1, 0), last: Vec::new(), last_at: 1, value_at: 2, tombstone_at: 3 };
        let whole = [(0, true), (1, true), (2, true), (3, false), (4, true)];
        assert_eq!(judge(&whole, &written), Ok(false));
        assert_eq!(judge(&[(3, false), (4, true)], &written), Ok(true));
        assert!(judge(&[(4, true)], &written).unwrap_err().contains("is there: false"));
        assert!(judge(&whole[..3], &written).is_err());
    }
}
