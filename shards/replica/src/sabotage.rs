//! Faults on purpose: each must be caught by the random lives of the tests. Outside tests, and without the cargo feature
//! `sabotage`, none can be switched on.

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sabotage {
    /// What an earlier life of a replica acknowledged counts for the later one.
    CountStaleReplicaEpoch,
    /// The high watermark goes by the committed ISR, not the maximal one.
    DropMaximalIsr,
    /// A follower takes the leader's high watermark before it has cut what diverges (KAFKA-14704).
    HighWatermarkBeforeCut,
    /// A new follower cuts to its high watermark, as Kafka did before KIP-101.
    CutToHighWatermark,
    /// An acknowledgement of another leader epoch counts.
    SkipEpochOnAck,
    /// A leader commits and answers while its predecessor may still hold a lease.
    AnswerWhileActivating,
    /// A lease is used for twice its time.
    LeaseTwice,
    /// A follower cuts below its high watermark whenever it is told to.
    ForgetGuard,
    /// A follower joins the ISR before it has what was there when the epoch began.
    ExpandEarly,
    /// The high watermark moves with fewer than `min.insync.replicas`.
    IgnoreMinIsr,
    /// What is merely written counts where only stable storage should.
    CountWritten,
    /// A follower believes an answer to an earlier Join.
    AnswerOfOldJoin,
    /// A follower streams without having cut what diverges, and compares nothing.
    SkipMatching,
    /// Reads and acknowledgements ask for no lease.
    ForgetLease,
    /// A leader goes on after it has given its leadership back.
    AnswerAfterRelease,
    /// Acknowledges what is in memory, not what has been written.
    AckUnwritten,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 16] = [
        Sabotage::CountStaleReplicaEpoch,
        Sabotage::DropMaximalIsr,
        Sabotage::HighWatermarkBeforeCut,
        Sabotage::CutToHighWatermark,
        Sabotage::SkipEpochOnAck,
        Sabotage::AnswerWhileActivating,
        Sabotage::LeaseTwice,
        Sabotage::ForgetGuard,
        Sabotage::ExpandEarly,
        Sabotage::IgnoreMinIsr,
        Sabotage::CountWritten,
        Sabotage::AnswerOfOldJoin,
        Sabotage::SkipMatching,
        Sabotage::ForgetLease,
        Sabotage::AnswerAfterRelease,
        Sabotage::AckUnwritten,
    ];
}
