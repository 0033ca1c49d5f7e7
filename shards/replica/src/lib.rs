//! One partition's safety: high watermark, leader epochs, idempotent producers. One replica now; followers, ISR and
//! leases come beside these with the cluster. No I/O, no clock.
#![forbid(unsafe_code)]

pub mod epochs;
pub mod partition;
pub mod producers;

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
