//! The leader's view of one partition: which offsets are committed, under which epoch it leads.
//!
//! ```text
//! log_start_offset        high_watermark          log_end_offset
//!       |---- committed, readable ----|---- appended, not yet ----|
//! ```
//! I8 the high watermark never falls. I9 it never passes the log's end.

use pelton_model::{LeaderEpoch, Offset};
use pelton_wire::error_code::ErrorCode;

/// State of a partition led here.
#[derive(Clone, Debug)]
pub struct Partition {
    leader_epoch: LeaderEpoch,
    high_watermark: Offset,
}

impl Partition {
    /// A partition whose leadership begins with `leader_epoch`.
    pub fn new(leader_epoch: LeaderEpoch) -> Partition {
        Partition { leader_epoch, high_watermark: Offset(0) }
    }

    /// The epoch new batches carry.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// First offset that is not committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Replicas in sync, this one included.
    pub fn isr_size(&self) -> i32 {
        1
    }

    /// The log has moved: with one replica, what it holds as the topic's durability wants it is committed.
    pub fn handle_log_progress(
        &mut self,
        written_end: Offset,
        flushed_end: Offset,
        flush_every_append: bool,
    ) {
        let end = if flush_every_append { flushed_end } else { written_end };
        self.high_watermark = self.high_watermark.max(end);
    }

    /// Holds the epoch a client believes in against ours (KIP-320); negative = the client does not say.
    pub fn check_leader_epoch(&self, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        match current_leader_epoch {
            epoch if epoch < 0 || epoch == self.leader_epoch.0 => Ok(()),
            epoch if epoch < self.leader_epoch.0 => Err(ErrorCode::FencedLeaderEpoch),
            _ => Err(ErrorCode::UnknownLeaderEpoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_watermark_follows_the_durability_asked_and_never_falls() {
        let mut partition = Partition::new(LeaderEpoch(0));
        partition.handle_log_progress(Offset(10), Offset(4), true);
        assert_eq!(partition.high_watermark(), Offset(4));
        partition.handle_log_progress(Offset(10), Offset(4), false);
        assert_eq!(partition.high_watermark(), Offset(10));
        partition.handle_log_progress(Offset(10), Offset(5), true);
        assert_eq!(partition.high_watermark(), Offset(10));
    }

    #[test]
    fn clients_with_another_epoch_are_told() {
        let partition = Partition::new(LeaderEpoch(3));
        assert_eq!(partition.check_leader_epoch(-1), Ok(()));
        assert_eq!(partition.check_leader_epoch(3), Ok(()));
        assert_eq!(partition.check_leader_epoch(2), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!(partition.check_leader_epoch(4), Err(ErrorCode::UnknownLeaderEpoch));
    }
}
