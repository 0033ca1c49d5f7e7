//! OffsetCommitValue: written as version 3, or 1 when the client asked for a retention of its own (OffsetCommit 2-4);
//! read in versions 0-4. As Kafka, which keeps to the last non-flexible version so that tools can parse it.

use pelton_wire::WireError;
use pelton_wire::primitives::{Reader, Writer};

/// A committed offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetValue {
    /// The next record to read.
    pub offset: i64,
    /// Epoch of the last record read; -1 unknown (KIP-320).
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: String,
    /// When it was committed, milliseconds since 1970.
    pub commit_timestamp_ms: i64,
    /// When it expires, milliseconds since 1970, if the client said so; -1 the broker's rule.
    pub expire_timestamp_ms: i64,
}

impl OffsetValue {
    /// Reads versions 0-4.
    pub fn decode(bytes: &[u8]) -> Result<OffsetValue, WireError> {
        let mut reader = Reader::new(bytes, 0);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(WireError::NotServed("this version of OffsetCommitValue"));
        }
        let flexible = version >= 4;
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
        let metadata = reader.string(flexible)?.to_string();
        let commit_timestamp_ms = reader.i64()?;
        let expire_timestamp_ms = if version == 1 { reader.i64()? } else { -1 };
        reader.skip_tags(flexible)?;
        Ok(OffsetValue { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms })
    }

    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(false, self.metadata.len() + 32);
        let version = if self.expire_timestamp_ms >= 0 { 1 } else { 3 };
        writer.i16(version);
        writer.i64(self.offset);
        if version == 3 {
            writer.i32(self.leader_epoch);
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_timestamp_ms);
        if version == 1 {
            writer.i64(self.expire_timestamp_ms);
        }
        writer.bytes
    }
}
