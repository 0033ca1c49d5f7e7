//! Faults on purpose: each must be caught by the simulator. Without the cargo feature `sabotage` none can be switched on.

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sabotage {
    /// Answers what it has stored before that is durable.
    AnswerBeforeDurable,
    /// Tells of commits that are not durable yet.
    FetchBeforeDurable,
    /// Takes commits of any generation.
    SkipGenerationCheck,
    /// A rebalance keeps the generation.
    SameGeneration,
    /// Expires offsets that a live group reads.
    ExpireLiveOffsets,
    /// Loads not every offset of the log.
    SkipReplayedOffset,
    /// Gives a partition to the next member before the one before gave it back (KIP-848).
    SkipOwnerCheck,
    /// Takes commits of any member epoch (KIP-848).
    SkipEpochCheck,
    /// Loads no group epochs (KIP-848).
    SkipReplayedEpoch,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 9] = [
        Sabotage::AnswerBeforeDurable,
        Sabotage::FetchBeforeDurable,
        Sabotage::SkipGenerationCheck,
        Sabotage::SameGeneration,
        Sabotage::ExpireLiveOffsets,
        Sabotage::SkipReplayedOffset,
        Sabotage::SkipOwnerCheck,
        Sabotage::SkipEpochCheck,
        Sabotage::SkipReplayedEpoch,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sabotage::AnswerBeforeDurable => "group-answer-before-durable",
            Sabotage::FetchBeforeDurable => "group-fetch-before-durable",
            Sabotage::SkipGenerationCheck => "group-skip-generation-check",
            Sabotage::SameGeneration => "group-same-generation",
            Sabotage::ExpireLiveOffsets => "group-expire-live-offsets",
            Sabotage::SkipReplayedOffset => "group-skip-replayed-offset",
            Sabotage::SkipOwnerCheck => "group-skip-owner-check",
            Sabotage::SkipEpochCheck => "group-skip-epoch-check",
            Sabotage::SkipReplayedEpoch => "group-skip-replayed-epoch",
        }
    }
}
