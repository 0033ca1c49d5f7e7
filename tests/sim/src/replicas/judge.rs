//! What must be true: an acknowledged batch is in every log once, at its offset; no log has a batch twice; all are the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pelton_model::Offset;
use pelton_wire::crc::crc32c;
use pelton_wire::record_batch::{BatchIter, crc_matches};

use super::node::Waiting;

/// A batch as a log has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    pub base_offset: i64,
    pub last_offset: i64,
    client: i64,
    sequence: i32,
    epoch: i32,
    /// Of all its bytes.
    checksum: u32,
}

/// The batches in a piece of log.
pub fn stored(bytes: &Bytes) -> Result<Vec<Stored>, String> {
    let mut found = Vec::new();
    for (info, bytes) in BatchIter::new(bytes) {
        if !crc_matches(bytes) {
            return Err(format!("the batch at {} is damaged", info.base_offset));
        }
        found.push(Stored {
            base_offset: info.base_offset,
            last_offset: info.last_offset(),
            client: info.producer_id,
            sequence: info.base_sequence,
            epoch: info.partition_leader_epoch,
            checksum: crc32c(bytes),
        });
    }
    Ok(found)
}

/// The judge.
#[derive(Default)]
pub struct Judge {
    /// By client and sequence number: the offset.
    acknowledged: BTreeMap<(usize, i32), i64>,
    /// Behind the last record acknowledged.
    acknowledged_end: Offset,
    /// Who leads in each epoch.
    leaders: BTreeMap<i32, usize>,
    released: BTreeSet<i32>,
    /// Batches that anybody holds for committed.
    committed: BTreeMap<i64, Stored>,
    dropped_below: i64,
    pub digest: u64,
}

impl Judge {
    /// Batches acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// I13: an acknowledgement says what an earlier one of the same batch said.
    pub fn acknowledged_at(&mut self, wait: &Waiting) -> Result<(), String> {
        self.acknowledged_end = self.acknowledged_end.max(Offset(wait.last_offset.0 + 1));
        let first = *self.acknowledged.entry((wait.client, wait.sequence)).or_insert(wait.base_offset);
        match first == wait.base_offset {
            true => Ok(()),
            false => Err(format!("I13: {wait:?} was acknowledged at {first} before")),
        }
    }

    /// Leader epochs that had a leader.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// I1: one leader in each epoch.
    pub fn leads(&mut self, node: usize, epoch: i32) -> Result<(), String> {
        match *self.leaders.entry(epoch).or_insert(node) {
            first if first == node => Ok(()),
            first => Err(format!("I1: nodes {first} and {node} lead in epoch {epoch}")),
        }
    }

    /// A leadership is handed over; true when that is news.
    pub fn released(&mut self, epoch: i32) -> bool {
        self.released.insert(epoch)
    }

    /// L8: no reader is shown less than what was acknowledged before it asked.
    pub fn read(&self, node: usize, end: Offset) -> Result<(), String> {
        match end >= self.acknowledged_end {
            true => Ok(()),
            false => {
                Err(format!("L8: node {node} answers {end:?}, {:?} is acknowledged", self.acknowledged_end))
            }
        }
    }

    /// I5: what a node holds for committed, nobody holds otherwise, now or later.
    pub fn committed(&mut self, node: usize, log: &[Stored], end: Offset) -> Result<(), String> {
        for batch in log.iter().filter(|batch| batch.last_offset < end.0) {
            let first = *self.committed.entry(batch.base_offset).or_insert(*batch);
            if first != *batch {
                return Err(format!("I5: node {node} has {batch:?} for committed, another {first:?}"));
            }
        }
        Ok(())
    }

    /// Everything below may go from all logs.
    pub fn dropped(&mut self, below: Offset) {
        self.dropped_below = self.dropped_below.max(below.0);
    }

    /// A log, read alone, of which everything is committed.
    pub fn judge(&mut self, node: usize, log: &[Stored]) -> Result<(), String> {
        let base = log.first().map_or(self.dropped_below, |batch| batch.base_offset);
        if base > self.dropped_below {
            return Err(format!("I2: node {node} begins at {base}, only {} may be gone", self.dropped_below));
        }
        let (mut end, mut epoch, mut at) = (base, 0, BTreeMap::new());
        for batch in log {
            if batch.base_offset != end || batch.epoch < epoch {
                return Err(format!("I7: node {node} has {batch:?} behind {end} of epoch {epoch}"));
            }
            (end, epoch) = (batch.last_offset + 1, batch.epoch);
            if let Some(before) = at.insert((batch.client as usize, batch.sequence), batch.base_offset) {
                return Err(format!("I13: node {node} has {batch:?} at {before}, too"));
            }
        }
        for (batch, offset) in &self.acknowledged {
            let found = at.get(batch);
            if found != Some(offset) && (found.is_some() || *offset >= self.dropped_below) {
                return Err(format!(
                    "I2: {batch:?} was acknowledged at {offset}, node {node} has it at {found:?}"
                ));
            }
        }
        for batch in log {
            self.digest = self.digest.rotate_left(7) ^ u64::from(batch.checksum) ^ batch.base_offset as u64;
        }
        Ok(())
    }
}
