//! What a follower looks at before it takes batches (rule R4): checksums, offsets without gaps, epochs that never fall.

use pelton_model::{LeaderEpoch, Offset};
use pelton_wire::record_batch::{BatchIter, crc_matches};

/// Why batches are not taken. The stream begins anew; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// Not whole batches of format 2 from front to end.
    #[error("the bytes at {0} are not a whole batch")]
    Malformed(usize),
    /// A checksum does not fit.
    #[error("the batch at offset {0} is damaged")]
    Checksum(i64),
    /// An offset is not the next, or (compacted topics) falls.
    #[error("the batch at offset {found} does not follow {expected}")]
    Offset {
        /// The end of the batch before.
        expected: i64,
        /// Its first offset.
        found: i64,
    },
    /// An epoch falls, or lies beyond the leader's.
    #[error("the batch at offset {0} has epoch {1}, which does not fit")]
    Epoch(i64, i32),
}

/// Holds batches against what comes before them. The offset behind the last.
pub fn check_append(
    batches: &[u8],
    prev_offset: Offset,
    prev_epoch: i32,
    leader_epoch: LeaderEpoch,
    compacted: bool,
) -> Result<Offset, AppendError> {
    let (mut next, mut epoch, mut iter) = (prev_offset.0, prev_epoch, BatchIter::new(batches));
    for (info, bytes) in iter.by_ref() {
        if !crc_matches(bytes) {
            return Err(AppendError::Checksum(info.base_offset));
        }
        let follows = if compacted { info.base_offset >= next } else { info.base_offset == next };
        let end = info.last_offset().checked_add(1).filter(|end| *end > info.base_offset);
        let (true, Some(end)) = (follows, end) else {
            return Err(AppendError::Offset { expected: next, found: info.base_offset });
        };
        if info.partition_leader_epoch < epoch || info.partition_leader_epoch > leader_epoch.0 {
            return Err(AppendError::Epoch(info.base_offset, info.partition_leader_epoch));
        }
        (next, epoch) = (end, info.partition_leader_epoch);
    }
    match iter.position() {
        at if at == batches.len() => Ok(Offset(next)),
        at => Err(AppendError::Malformed(at)),
    }
}

#[cfg(test)]
mod tests {
    use pelton_wire::compression::Codec;
    use pelton_wire::record_batch::stamp;
    use pelton_wire::records::BatchBuilder;

    use super::*;

    fn batch(base_offset: i64, epoch: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.add(0, None, Some(b"a"), &[]);
        builder.add(0, None, Some(b"b"), &[]);
        let mut bytes = builder.build().unwrap();
        stamp(&mut bytes, base_offset, epoch);
        bytes
    }

    fn check(batches: &[Vec<u8>], compacted: bool) -> Result<Offset, AppendError> {
        check_append(&batches.concat(), Offset(10), 2, LeaderEpoch(5), compacted)
    }

    #[test]
    fn batches_follow_each_other_densely_unless_compacted_and_epochs_never_fall() {
        assert_eq!(check(&[batch(10, 2), batch(12, 5)], false), Ok(Offset(14)));
        let gap = [batch(10, 2), batch(13, 2)];
        assert_eq!(check(&gap, false), Err(AppendError::Offset { expected: 12, found: 13 }));
        assert_eq!(check(&gap, true), Ok(Offset(15)));
        assert_eq!(check(&[batch(9, 2)], true), Err(AppendError::Offset { expected: 10, found: 9 }));
        assert_eq!(check(&[batch(10, 1)], false), Err(AppendError::Epoch(10, 1)));
        assert_eq!(check(&[batch(10, 6)], false), Err(AppendError::Epoch(10, 6)));
        assert_eq!(check(&[batch(10, 3), batch(12, 2)], false), Err(AppendError::Epoch(12, 2)));
    }

    #[test]
    fn damage_and_pieces_are_refused() {
        let mut damaged = batch(10, 2);
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(check(&[damaged], false), Err(AppendError::Checksum(10)));
        let mut cut = batch(10, 2);
        cut.truncate(cut.len() - 1);
        assert_eq!(check(&[cut], false), Err(AppendError::Malformed(0)));
        assert!(matches!(check(&[batch(i64::MAX, 2)], true), Err(AppendError::Offset { .. })));
    }
}
