//! A topic whose old segments go while the broker dies. What was acknowledged at or behind the log start offset must be
//! there; the log start offset never goes back; and retention may not take more than it is allowed to.

use crate::producer::{Entry, Fate, Producer, Shared};
use crate::verify::{Found, Verdict};
use pelton_bench::batch;
use pelton_bench::client::{self, Client};
use pelton_bench::{Outcome, frames};
use std::time::{Duration, Instant};

/// The topic.
pub const TOPIC: &str = "kills-aged";
/// Its partitions.
pub const PARTITIONS: i32 = 2;
/// Bytes of a partition that are kept: retention removes a segment only if this much is left without it.
const RETENTION_BYTES: u64 = 3 << 20;
/// Kafka's least.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Bytes that may be missing of those: batches that were never acknowledged count as long as the broker lives.
const SLACK_BYTES: u64 = 256 << 10;
/// OFFSET_OUT_OF_RANGE: the log start has moved on meanwhile.
const OUT_OF_RANGE: i16 = 1;

/// Settings of the topic.
pub fn configs() -> Vec<(String, String)> {
    [
        ("cleanup.policy", "delete".to_string()),
        ("segment.bytes", SEGMENT_BYTES.to_string()),
        ("retention.bytes", RETENTION_BYTES.to_string()),
        ("file.delete.delay.ms", "200".to_string()),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .to_vec()
}

/// A plain and an idempotent producer for each partition.
pub fn producers(bootstrap: &str) -> Vec<Producer> {
    let producer = |id: u32| Producer {
        id,
        bootstrap: bootstrap.to_string(),
        topic: TOPIC.to_string(),
        partition: id as i32 / 2,
        depth: 4,
        pause: Duration::from_millis(2),
        value_bytes: 1_000,
        records_max: 20,
        idempotent: id % 2 == 1,
    };
    (0..2 * PARTITIONS as u32).map(producer).collect()
}

/// What one look at a partition found.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub start: i64,
    pub bytes: u64,
    pub found: Found,
}

/// What is known of the topic.
#[derive(Debug)]
pub struct Aged {
    pub producers: Vec<Producer>,
    /// Log start offsets at the last look.
    pub starts: Vec<i64>,
}

impl Aged {
    /// Nothing looked at yet.
    pub fn new(bootstrap: &str) -> Aged {
        Aged { producers: producers(bootstrap), starts: vec![0; PARTITIONS as usize] }
    }

    /// Reads every partition from its start and judges it: the fault, if any, and what was found.
    pub fn check(&mut self, bootstrap: &str, shared: &Shared) -> Outcome<(Vec<Look>, Option<String>)> {
        let ledgers = shared.snapshot();
        let mut verdict = Verdict::default();
        let mut looks = Vec::new();
        for partition in 0..PARTITIONS {
            let look = look(bootstrap, partition, &mut verdict)?;
            self.judge(partition, &look, &ledgers, &mut verdict);
            self.starts[partition as usize] = look.start.max(self.starts[partition as usize]);
            looks.push(look);
        }
        Ok((looks, crate::campaign::fault(&verdict).map(|fault| format!("{TOPIC}: {fault}"))))
    }

    /// Holds a look against what the partition's producers were promised and what retention may do.
    pub fn judge(&self, partition: i32, look: &Look, ledgers: &[Vec<Entry>], verdict: &mut Verdict) {
        let before = self.starts[partition as usize];
        if look.start < before {
            verdict.foreign += 1;
            verdict.note(format!(
                "{TOPIC}-{partition}: the log start offset went back from {before} to {}",
                look.start
            ));
        }
        if look.start > 0 && look.bytes + SLACK_BYTES < RETENTION_BYTES {
            verdict.lost += 1;
            verdict.note(format!(
                "{TOPIC}-{partition}: {} bytes are left from offset {} on, {RETENTION_BYTES} are to be kept",
                look.bytes, look.start
            ));
        }
        for producer in self.producers.iter().filter(|producer| producer.partition == partition) {
            let mut ledger = ledgers[producer.id as usize].clone();
            for entry in &mut ledger {
                // Below the log start nothing is promised any more.
                if matches!(entry.fate, Fate::Acknowledged(offset) if offset < look.start) {
                    entry.fate = Fate::Unknown;
                }
            }
            look.found.judge(producer.id, &ledger, 0, verdict);
        }
    }

    /// Retention has removed something from every partition; if not, this was no test of it.
    pub fn idle(&self) -> Option<String> {
        let idle = self.starts.iter().position(|start| *start == 0)?;
        Some(format!("{TOPIC}-{idle}: retention has removed nothing; its log still starts at 0"))
    }
}

/// Reads a partition from its log start offset to its high watermark; again if the start moves under the reading.
fn look(bootstrap: &str, partition: i32, verdict: &mut Verdict) -> Outcome<Look> {
    let leaders = client::leaders(bootstrap, TOPIC, Duration::from_secs(30))?;
    let leader = leaders.get(partition as usize).ok_or("the partition is gone")?;
    let mut client = Client::connect(leader, Duration::from_secs(30))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut notes = Verdict::default();
        match read(&mut client, partition, &mut notes)? {
            Some(look) => {
                verdict.add(notes);
                return Ok(look);
            }
            None if Instant::now() < deadline => {}
            None => {
                return Err(format!("{TOPIC}-{partition}: the log start moves faster than it can be read"));
            }
        }
    }
}

fn read(client: &mut Client, partition: i32, verdict: &mut Verdict) -> Outcome<Option<Look>> {
    let start = match client.list_offset(TOPIC, partition, -2)? {
        Ok(start) => start,
        Err(code) if frames::RETRIABLE.contains(&code) => {
            std::thread::sleep(Duration::from_millis(20));
            return Ok(None);
        }
        Err(code) => return Err(format!("ListOffsets of {TOPIC}-{partition}: error code {code}")),
    };
    let mut look = Look { start, bytes: 0, found: Found::starting_at(start) };
    let (mut end, mut empty) = (None, 0);
    loop {
        let offset = look.found.next_offset();
        let fetched = client.fetch(TOPIC, partition, offset, 4 << 20)?;
        match fetched.error {
            0 => {}
            OUT_OF_RANGE => return Ok(None),
            code if frames::RETRIABLE.contains(&code) => return Ok(None),
            code => return Err(format!("Fetch of {TOPIC}-{partition} at {offset}: error code {code}")),
        }
        let end = *end.get_or_insert(fetched.high_watermark);
        let mut rest = fetched.records;
        while let Some(batch) = batch::take(&mut rest)? {
            look.bytes += batch.bytes() as u64;
            look.found.add(partition, &batch, verdict)?;
        }
        if look.found.next_offset() >= end {
            return Ok(Some(look));
        }
        empty = if look.found.next_offset() == offset { empty + 1 } else { 0 };
        if empty > 20 {
            return Err(format!(
                "{TOPIC}-{partition}: no batch at offset {offset} although the high watermark is {end}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(start: i64, bytes: u64, before: i64, acknowledged: i64) -> Verdict {
        let aged = Aged { starts: vec![before, 0], ..Aged::new("") };
        let look = Look { start, bytes, found: Found::starting_at(start) };
        let entry = Entry { records: 1, fate: Fate::Acknowledged(acknowledged) };
        let mut verdict = Verdict::default();
        aged.judge(0, &look, &[vec![entry], vec![], vec![], vec![]], &mut verdict);
        verdict
    }

    #[test]
    fn what_retention_may_do_passes_and_what_it_may_not_is_found() {
        assert!(judged(100, RETENTION_BYTES, 50, 99).passed(), "below the log start");
        assert_eq!(judged(100, RETENTION_BYTES, 50, 100).lost, 1, "at the log start");
        assert_eq!(judged(100, RETENTION_BYTES, 101, 99).foreign, 1, "the log start went back");
        assert_eq!(judged(100, RETENTION_BYTES / 2, 50, 99).lost, 1, "more was removed than may be");
        assert!(Aged::new("").idle().is_some());
    }
}
