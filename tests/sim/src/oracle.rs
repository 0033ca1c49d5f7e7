//! What must be true: every acknowledged record is there once, at its offset; nothing is there twice; what was read once
//! never changes; offsets have no gaps.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_wire::record_batch::{BatchIter, crc_matches};
use pelton_wire::records::{Record, Records};

use crate::client::{COMPACTED, key_of};

/// Who sent a record: client, batch, place in it.
type Payload = (u32, u64, i32);

struct Sent {
    records: i32,
    partition: i32,
    topic: String,
    acknowledged_at: Option<i64>,
    /// When it was first sent, and so at most its records' timestamps, milliseconds.
    sent_ms: i64,
}

/// A partition as one reading from its beginning found it.
#[derive(Default)]
pub struct Whole {
    /// Offsets of records.
    pub offsets: std::collections::BTreeSet<i64>,
    /// Producer ids and last offsets of batches.
    batches: std::collections::BTreeSet<(i64, i64)>,
}

/// The judge.
#[derive(Default)]
pub struct Oracle {
    sent: BTreeMap<(u32, u64), Sent>,
    /// What was read at each offset of (topic, partition).
    seen: BTreeMap<(String, i32), BTreeMap<i64, Payload>>,
    /// Topics whose acknowledged records a power cut may take.
    pub lossy_topics: Vec<String>,
    /// Topics whose old records may go, and at which age at the earliest, milliseconds.
    pub retained: BTreeMap<String, i64>,
    /// `delete.retention.ms` of the compacted topic.
    pub tombstone_ms: i64,
    /// Clients whose producer ids, 1000 and more, must be remembered.
    pub idempotent: Vec<u32>,
    /// The reading of a whole partition that is under way.
    pub whole: Whole,
    /// Records that compaction let go.
    pub compacted: u64,
    /// Records that retention let go.
    pub dropped: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records read.
    pub read: u64,
}

impl Oracle {
    /// A batch goes out, perhaps not for the first time.
    pub fn sent(
        &mut self,
        client: u32,
        sequence: u64,
        records: i32,
        topic: &str,
        partition: i32,
        now_ms: i64,
    ) {
        self.sent.entry((client, sequence)).or_insert_with(|| Sent {
            records,
            partition,
            topic: topic.to_string(),
            acknowledged_at: None,
            sent_ms: now_ms,
        });
    }

    /// A batch was acknowledged.
    pub fn acknowledged(
        &mut self,
        client: u32,
        sequence: u64,
        records: i32,
        partition: i32,
        base_offset: i64,
    ) -> Result<(), String> {
        if base_offset < 0 {
            return Err(format!("client {client} batch {sequence}: acknowledged at offset {base_offset}"));
        }
        let Some(sent) = self.sent.get_mut(&(client, sequence)) else {
            return Err(format!("client {client} batch {sequence}: acknowledged but never sent"));
        };
        if let Some(before) = sent.acknowledged_at
            && before != base_offset
        {
            return Err(format!(
                "client {client} batch {sequence}: acknowledged at {before} and at {base_offset}"
            ));
        }
        sent.acknowledged_at = Some(base_offset);
        self.acknowledged += records as u64;
        let topic = sent.topic.clone();
        for index in 0..records {
            self.note(&topic, partition, base_offset + i64::from(index), (client, sequence, index))?;
        }
        Ok(())
    }

    fn note(&mut self, topic: &str, partition: i32, offset: i64, payload: Payload) -> Result<(), String> {
        let seen = self.seen.entry((topic.to_string(), partition)).or_default();
        match seen.insert(offset, payload) {
            Some(before) if before != payload => {
                Err(format!("{topic}-{partition} offset {offset}: {before:?} before, {payload:?} now"))
            }
            _ => Ok(()),
        }
    }

    /// Behind the last record of a partition that anybody knows of.
    pub fn known(&self, topic: &str, partition: i32) -> u64 {
        let seen = self.seen.get(&(topic.to_string(), partition));
        seen.and_then(|seen| seen.keys().next_back()).map_or(0, |last| *last as u64 + 1)
    }

    /// Whether a power cut may take what this topic acknowledged.
    pub fn is_lossy(&self, topic: &str) -> bool {
        self.lossy_topics.iter().any(|lossy| lossy == topic)
    }

    /// A power cut may have taken what lossy topics had acknowledged; start over with those.
    pub fn forget_lossy(&mut self) {
        let lossy = &self.lossy_topics;
        self.seen.retain(|(topic, _), _| !lossy.contains(topic));
        for sent in self.sent.values_mut().filter(|sent| lossy.contains(&sent.topic)) {
            sent.acknowledged_at = None;
        }
    }

    /// Judges the records of a fetch from `offset`; the offset behind the last.
    pub fn read(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        high_watermark: i64,
        records: &Bytes,
    ) -> Result<i64, String> {
        let place = format!("{topic}-{partition}");
        let mut iter = BatchIter::new(records);
        let mut next: Option<i64> = None;
        let mut found = Vec::new();
        for (info, batch) in iter.by_ref() {
            if !crc_matches(batch) {
                return Err(format!("{place}: the batch at {} has a wrong CRC", info.base_offset));
            }
            let gaps = topic == COMPACTED;
            if next.is_some_and(|next| next > info.base_offset || (next < info.base_offset && !gaps)) {
                return Err(format!("{place}: a gap before {}", info.base_offset));
            }
            let begins = info.base_offset <= offset || gaps;
            if next.is_none() && !(begins && offset <= info.last_offset()) {
                return Err(format!("{place}: a fetch of {offset} got the batch {}", info.base_offset));
            }
            next = Some(info.last_offset() + 1);
            self.whole.batches.insert((info.producer_id, info.last_offset()));
            let unpacked = Records::of(batch, 1 << 26).map_err(|error| format!("{place}: {error}"))?;
            for record in unpacked.iter() {
                let record = record.map_err(|error| format!("{place}: {error}"))?;
                found.push((
                    record.offset,
                    name_of(topic, &record).ok_or_else(|| format!("{place}: a foreign record"))?,
                ));
            }
        }
        if iter.position() != records.len() {
            return Err(format!(
                "{place}: a fetch ends within a batch ({} of {})",
                iter.position(),
                records.len()
            ));
        }
        // A reader may stand above it without reading: a power cut takes back what was not flushed.
        if let Some(next) = next
            && next > high_watermark
        {
            return Err(format!("{place}: read to {next}, above the high watermark {high_watermark}"));
        }
        for (at, payload) in found {
            self.read += 1;
            self.whole.offsets.insert(at);
            if !self.sent.contains_key(&(payload.0, payload.1)) {
                return Err(format!("{place} offset {at}: {payload:?} was never sent"));
            }
            self.note(topic, partition, at, payload)?;
        }
        Ok(next.unwrap_or(offset))
    }

    /// The whole of a partition was read from `start` to `end`: nothing acknowledged is missing, nothing is there twice, and
    /// what lies before the start was old enough to go at `now_ms`.
    pub fn judge(
        &mut self,
        topic: &str,
        partition: i32,
        (start, end): (i64, i64),
        now_ms: i64,
    ) -> Result<(), String> {
        let empty = BTreeMap::new();
        let all = self.seen.get(&(topic.to_string(), partition)).unwrap_or(&empty);
        let place = format!("{topic}-{partition}");
        let there = all.range(start..).count() as i64;
        let last = all.keys().next_back();
        if there != end - start || last.is_some_and(|last| *last >= end) {
            return Err(format!(
                "{place}: {there} offsets known, last {last:?}, but the log goes from {start} to {end}"
            ));
        }
        let mut once = std::collections::BTreeSet::new();
        for (offset, payload) in all {
            if !once.insert(payload) {
                return Err(format!("{place} offset {offset}: {payload:?} is there twice"));
            }
        }
        let age_ms = self.retained.get(topic).copied();
        for ((client, sequence), sent) in &self.sent {
            if sent.topic != topic || sent.partition != partition {
                continue;
            }
            let Some(base) = sent.acknowledged_at else { continue };
            for index in 0..sent.records {
                let offset = base + i64::from(index);
                if offset < start && age_ms.is_some_and(|age_ms| now_ms - sent.sent_ms > age_ms) {
                    self.dropped += 1;
                } else if offset < start || all.get(&offset) != Some(&(*client, *sequence, index)) {
                    return Err(format!(
                        "{place}: client {client} batch {sequence} was acknowledged and is lost"
                    ));
                }
            }
        }
        Ok(())
    }

    /// As `judge`, of a compacted partition: of each key the last record is there, or it has no value and was old enough to
    /// go, and then no earlier one is there either; and a batch of each producer's last sequence number.
    pub fn judge_compacted(&mut self, partition: i32, start: i64, now_ms: i64) -> Result<(), String> {
        let whole = std::mem::take(&mut self.whole);
        let empty = BTreeMap::new();
        let all = self.seen.get(&(COMPACTED.to_string(), partition)).unwrap_or(&empty);
        let mut last: BTreeMap<u8, (i64, Payload)> = BTreeMap::new();
        for (offset, payload) in all {
            last.insert(key_of(payload.0, payload.1, payload.2).0, (*offset, *payload));
        }
        let place = format!("{COMPACTED}-{partition}");
        for (key, (offset, payload)) in &last {
            let is_tombstone = key_of(payload.0, payload.1, payload.2).1;
            let sent_ms = self.sent.get(&(payload.0, payload.1)).map_or(i64::MAX, |sent| sent.sent_ms);
            let expired = is_tombstone && now_ms - sent_ms > self.tombstone_ms;
            let aged = self.retained.get(COMPACTED).is_some_and(|age_ms| now_ms - sent_ms > *age_ms);
            if whole.offsets.contains(offset) || (*offset < start && aged) {
                continue;
            }
            if !expired && !self.has_unknown_tombstone(partition, *key, now_ms) {
                let (what, age_ms) = (if is_tombstone { "tombstone" } else { "record" }, now_ms - sent_ms);
                return Err(format!(
                    "{place} offset {offset}: {payload:?}, the last {what} of key {key}, {age_ms} ms old, is lost"
                ));
            }
            let of_key = |at: &&i64| all.get(at).is_some_and(|p| key_of(p.0, p.1, p.2).0 == *key);
            if let Some(earlier) = whole.offsets.iter().find(of_key) {
                return Err(format!(
                    "{place} offset {earlier}: key {key} was deleted at {offset} and is back"
                ));
            }
        }
        self.compacted +=
            all.range(start..).filter(|(offset, _)| !whole.offsets.contains(offset)).count() as u64;
        for ((client, sequence), sent) in &self.sent {
            let Some(base) = sent.acknowledged_at else { continue };
            if sent.topic != COMPACTED || sent.partition != partition || !self.idempotent.contains(client) {
                continue;
            }
            let (id, end) = (1000 + i64::from(*client), base + i64::from(sent.records) - 1);
            if end >= start && whole.batches.range((id, end)..=(id, i64::MAX)).next().is_none() {
                return Err(format!(
                    "{place}: no batch has the last sequence of client {client} ({sequence})"
                ));
            }
        }
        Ok(())
    }
}

impl Oracle {
    /// Whether the key may have been deleted by a record of which nobody heard that it was appended, and which was old
    /// enough to go before anybody read it.
    fn has_unknown_tombstone(&self, partition: i32, key: u8, now_ms: i64) -> bool {
        self.sent.iter().any(|((client, sequence), sent)| {
            let mut keys = (0..sent.records).map(|index| key_of(*client, *sequence, index));
            sent.topic == COMPACTED
                && sent.partition == partition
                && sent.acknowledged_at.is_none()
                && now_ms - sent.sent_ms > self.tombstone_ms
                && keys.any(|found| found == (key, true))
        })
    }
}

fn name_of(topic: &str, record: &Record<'_>) -> Option<Payload> {
    if topic != COMPACTED {
        return parse(record.key);
    }
    let name = parse(record.headers.first().and_then(|header| header.value))?;
    let (key, is_tombstone) = key_of(name.0, name.1, name.2);
    (record.key == Some(&[key]) && record.value.is_none() == is_tombstone).then_some(name)
}

fn parse(key: Option<&[u8]>) -> Option<Payload> {
    let key: &[u8; 16] = key?.try_into().ok()?;
    let client = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&key[4..12]);
    let index = i32::from_be_bytes([key[12], key[13], key[14], key[15]]);
    Some((client, u64::from_be_bytes(sequence), index))
}
