//! Faults on purpose: each must be caught by the simulator. Without the cargo feature `sabotage` none can be switched on.

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sabotage {
    /// Says "flushed" when a group is merely sealed.
    AckBeforeFlush,
    /// Recovery drops the last valid group.
    CutAtWrongPlace,
    /// Recovery does not check a frame's checksum.
    SkipFrameCrc,
    /// A checkpoint frees journal groups that are not in segments yet.
    CheckpointTooFar,
    /// Lays down bytes of a buffer that has been used again.
    ReuseBufferEarly,
    /// Takes a failed journal write for a success.
    IgnoreWriteError,
    /// Does not stamp the base offset.
    WrongStamp,
    /// Recovery takes frames of an earlier incarnation.
    AcceptOldIncarnation,
    /// Recovery takes every gap for a torn tail.
    SkipTornCheck,
    /// Believes that a DSYNC write makes earlier writes stable too.
    DsyncCoversEarlier,
    /// Acknowledges a group before the batches that go straight to segments are there.
    DirectNotAwaited,
    /// Retention takes records for twice as old as they are, and does not stop at the high watermark.
    RetentionTooEager,
    /// Files of dropped segments go before a checkpoint that does not list them is durable.
    DeleteBeforeCheckpoint,
    /// Counts a round of small pieces as laid down when it has only been started.
    RoundNotAwaited,
    /// Compaction puts a new segment in place that is not on stable storage.
    SwapBeforeSync,
    /// Compaction drops records without value at once.
    TombstoneTooEarly,
    /// Compaction drops the last batch of an active producer.
    ForgetLastSequence,
    /// Compaction drops the last record of a key.
    CompactTooMuch,
    /// Recovery believes a header in the journal without looking for the batch in the segment.
    DirectNotVerified,
    /// A cut of a log is not in the journal.
    CutNotJournaled,
    /// A checkpoint does not remember which was the last cut of a log.
    CutForgotten,
}

impl Sabotage {
    /// All that a log with one replica can show.
    pub const ALL: [Sabotage; 19] = [
        Sabotage::AckBeforeFlush,
        Sabotage::CutAtWrongPlace,
        Sabotage::SkipFrameCrc,
        Sabotage::CheckpointTooFar,
        Sabotage::ReuseBufferEarly,
        Sabotage::IgnoreWriteError,
        Sabotage::WrongStamp,
        Sabotage::AcceptOldIncarnation,
        Sabotage::SkipTornCheck,
        Sabotage::DsyncCoversEarlier,
        Sabotage::DirectNotAwaited,
        Sabotage::DirectNotVerified,
        Sabotage::RetentionTooEager,
        Sabotage::DeleteBeforeCheckpoint,
        Sabotage::RoundNotAwaited,
        Sabotage::SwapBeforeSync,
        Sabotage::TombstoneTooEarly,
        Sabotage::ForgetLastSequence,
        Sabotage::CompactTooMuch,
    ];

    /// Those that only the log of a follower can show, which the simulator of one node has not.
    pub const OF_FOLLOWERS: [Sabotage; 2] = [Sabotage::CutNotJournaled, Sabotage::CutForgotten];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sabotage::AckBeforeFlush => "ack-before-flush",
            Sabotage::CutAtWrongPlace => "cut-at-wrong-place",
            Sabotage::SkipFrameCrc => "skip-frame-crc",
            Sabotage::CheckpointTooFar => "checkpoint-too-far",
            Sabotage::ReuseBufferEarly => "reuse-buffer-early",
            Sabotage::IgnoreWriteError => "ignore-write-error",
            Sabotage::WrongStamp => "wrong-stamp",
            Sabotage::AcceptOldIncarnation => "accept-old-incarnation",
            Sabotage::SkipTornCheck => "skip-torn-check",
            Sabotage::DsyncCoversEarlier => "dsync-covers-earlier",
            Sabotage::DirectNotAwaited => "direct-not-awaited",
            Sabotage::DirectNotVerified => "direct-not-verified",
            Sabotage::RetentionTooEager => "retention-too-eager",
            Sabotage::DeleteBeforeCheckpoint => "delete-before-checkpoint",
            Sabotage::RoundNotAwaited => "round-not-awaited",
            Sabotage::SwapBeforeSync => "swap-before-sync",
            Sabotage::TombstoneTooEarly => "tombstone-too-early",
            Sabotage::ForgetLastSequence => "forget-last-sequence",
            Sabotage::CompactTooMuch => "compact-too-much",
            Sabotage::CutNotJournaled => "cut-not-journaled",
            Sabotage::CutForgotten => "cut-forgotten",
        }
    }
}
