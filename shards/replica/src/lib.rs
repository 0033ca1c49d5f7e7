//! One partition's safety: leader and follower, high watermark, ISR, leader epochs, leases, idempotent producers. A
//! synchronous state machine; no I/O, no clock. Partitions with one replica are served by it; with several, not yet.
#![forbid(unsafe_code)]

pub mod effect;
pub mod epochs;
pub mod frame;
pub mod lease;
pub mod partition;
pub mod producers;
pub mod sabotage;

#[cfg(test)]
mod tests;

/// Why a snapshot cannot be restored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the snapshot is damaged or of an unknown version")]
pub struct SnapshotError;

/// Reads fixed-size little-endian values from the front of a snapshot.
pub(crate) struct SnapshotReader<'a>(pub(crate) &'a [u8]);

impl SnapshotReader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or(SnapshotError)?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, SnapshotError> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, SnapshotError> {
        Ok(i32::from_le_bytes(self.take()?))
    }
}
