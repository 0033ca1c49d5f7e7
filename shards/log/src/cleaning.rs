//! What compaction does with each batch: takes note of its keys, and says what stays of it. Kafka's rules (Cleaner.java,
//! KIP-534): of each key the last record stays; one without value stays until `delete.retention.ms` after compaction has
//! first met it; records without key go; a batch stays, empty if need be, if it is the last of an active producer or of the
//! part compacted, for its sequence numbers and its offset.

use bytes::Bytes;
use pelton_wire::compact::{self, Remains};
use pelton_wire::record_batch::{self, BatchInfo};
use pelton_wire::records::{Record, Records};

use crate::compaction::Compaction;
use crate::sabotage::Sabotage;
use crate::types::StorageConfig;

impl Compaction {
    /// Takes note of the keys of a batch. Says how many bytes of records it had, and whether no further key fits.
    pub(crate) fn map_batch(
        &mut self,
        info: &BatchInfo,
        batch: &Bytes,
        cap_bytes: usize,
    ) -> Result<(usize, bool), String> {
        check(batch)?;
        if info.last_offset() < self.dirty_from.0 {
            return Ok((batch.len() / 8, false));
        }
        if is_untouched(info) {
            self.map.latest = info.last_offset();
            return Ok((batch.len(), false));
        }
        let records = Records::of(batch, cap_bytes).map_err(|error| error.to_string())?;
        for record in records.iter() {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key.filter(|_| record.offset >= self.dirty_from.0) else { continue };
            if !self.map.put(key, record.offset) {
                return Ok((records.bytes().len(), true));
            }
        }
        self.map.latest = info.last_offset();
        Ok((records.bytes().len(), false))
    }

    /// What stays of a batch, if anything, and how many bytes of records were looked at.
    pub(crate) fn clean_batch(
        &mut self,
        info: &BatchInfo,
        batch: &Bytes,
        config: &StorageConfig,
    ) -> Result<(Option<Bytes>, usize), String> {
        check(batch)?;
        if is_untouched(info) || info.base_offset > self.map.latest {
            return Ok((Some(batch.clone()), batch.len()));
        }
        let expired = info.delete_horizon_ms().is_some_and(|horizon_ms| horizon_ms <= self.wall_ms);
        let expired = expired || config.sabotaged(Sabotage::TombstoneTooEarly);
        let horizon_ms = self.wall_ms.saturating_add(self.config.delete_retention_ms);
        let drop_last = config.sabotaged(Sabotage::CompactTooMuch);
        let (map, mut seen_bytes) = (&self.map, 0);
        let keep = |record: &Record<'_>| {
            seen_bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + 8;
            if record.offset > map.latest {
                return true;
            }
            let Some(key) = record.key else { return false };
            let is_last = map.get(key).is_none_or(|last| record.offset >= last && !drop_last);
            is_last && (record.value.is_some() || !expired)
        };
        let remains = compact::retain(batch, config.unpack_bytes_max, horizon_ms, keep)
            .map_err(|error| error.to_string())?;
        let kept = match remains {
            Remains::Same => Some(batch.clone()),
            Remains::Batch(bytes) => Some(Bytes::from(bytes)),
            Remains::Nothing if self.must_stay(info, config) => {
                Some(Bytes::from(compact::emptied(batch).map_err(|error| error.to_string())?))
            }
            Remains::Nothing => None,
        };
        Ok((kept, seen_bytes))
    }

    /// Its end is the last sequence number of a producer, or the last offset of what is compacted.
    fn must_stay(&self, info: &BatchInfo, config: &StorageConfig) -> bool {
        let last_offset = info.last_offset();
        let of_producer = self.last_offsets.get(&info.producer_id).is_some_and(|last| last.0 == last_offset);
        let forget = config.sabotaged(Sabotage::ForgetLastSequence);
        (of_producer && !forget) || last_offset + 1 == self.upper.0
    }
}

/// Transactions come later: what belongs to one stays as it is.
fn is_untouched(info: &BatchInfo) -> bool {
    info.is_control() || info.is_transactional()
}

/// Damage must not be made to look sound.
fn check(batch: &[u8]) -> Result<(), String> {
    if record_batch::crc_matches(batch) { Ok(()) } else { Err("a checksum does not fit".to_string()) }
}
