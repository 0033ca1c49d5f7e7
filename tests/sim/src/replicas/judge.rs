//! What must be true: an acknowledged batch is in every log once, at its offset; no log has a batch twice; all are the same.

use std::collections::BTreeMap;

use bytes::Bytes;
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
    /// What counts is on stable storage.
    pub flush: bool,
    /// By client and sequence number: the offset.
    acknowledged: BTreeMap<(usize, i32), i64>,
    /// The first log that was judged.
    first: Option<Vec<Stored>>,
    pub digest: u64,
}

impl Judge {
    /// Of a topic whose batches count when they are flushed, or when they are written.
    pub fn new(flush: bool) -> Judge {
        Judge { flush, ..Judge::default() }
    }

    /// Batches acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// I13: an acknowledgement says what an earlier one of the same batch said.
    pub fn acknowledged_at(&mut self, wait: &Waiting) -> Result<(), String> {
        let first = *self.acknowledged.entry((wait.client, wait.sequence)).or_insert(wait.base_offset);
        match first == wait.base_offset {
            true => Ok(()),
            false => Err(format!("I13: {wait:?} was acknowledged at {first} before")),
        }
    }

    /// A log, read alone.
    pub fn judge(&mut self, node: usize, log: &[Stored]) -> Result<(), String> {
        let (mut end, mut epoch, mut at) = (0, 0, BTreeMap::new());
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
            if at.get(batch) != Some(offset) {
                let found = at.get(batch);
                return Err(format!(
                    "I2: {batch:?} was acknowledged at {offset}, node {node} has it at {found:?}"
                ));
            }
        }
        for batch in log {
            self.digest = self.digest.rotate_left(7) ^ u64::from(batch.checksum) ^ batch.base_offset as u64;
        }
        match &self.first {
            None => self.first = Some(log.to_vec()),
            Some(first) if first == log => {}
            Some(first) => {
                let differ = first.iter().zip(log).find(|(one, other)| one != other);
                return Err(format!("I5: node {node} differs from the first: {differ:?}"));
            }
        }
        Ok(())
    }
}
