//! What is done to brokers so that a fault on purpose must show itself: the stages, and settings that make the way short.

use crate::fault::Kind;
use crate::staged::Stage;

/// What is done to the brokers.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub name: &'static str,
    pub stages: &'static [Stage],
    /// Links must be cut.
    pub network: bool,
    /// What nodes say to each other passes through this process.
    pub wire: bool,
    /// What the stages see is all that is judged: nothing can be as it should be behind them.
    pub stages_judge: bool,
    /// Settings of the brokers beside the common ones.
    pub settings: &'static [&'static str],
    /// `min.insync.replicas`.
    pub min_isr: &'static str,
    /// Time between two batches of a producer, milliseconds.
    pub pause_ms: u64,
    /// Records say that they are so much older than they are.
    pub age_ms: i64,
    /// Bytes of a value, if not as usual.
    pub value_bytes: Option<usize>,
}

impl Recipe {
    /// Disks whose power can be cut.
    pub fn needs_power(&self) -> bool {
        self.stages.iter().any(|stage| stage.needs_power())
    }
}

const PLAIN: Recipe = Recipe {
    name: "at rest",
    stages: &[Stage::Wait(3)],
    network: false,
    wire: false,
    stages_judge: false,
    settings: &[],
    min_isr: "2",
    pause_ms: 15,
    age_ms: 0,
    value_bytes: None,
};

/// With this process between the nodes.
const WIRED: Recipe = Recipe { network: true, wire: true, ..PLAIN };

/// All of them.
pub const RECIPES: &[Recipe] = &[
    PLAIN,
    Recipe { name: "clean restart", stages: &[Stage::Wait(1), Stage::RestartAll], ..PLAIN },
    Recipe { name: "killed followers", stages: &[Stage::KillFollowers; 3], pause_ms: 5, ..PLAIN },
    Recipe { name: "cut off", stages: &[Stage::CutEach, Stage::CutEach], network: true, ..PLAIN },
    Recipe {
        name: "cut off, killed later",
        stages: &[Stage::CutThenKill, Stage::CutThenKill],
        network: true,
        settings: &["pelton.journal.bytes=134217728"],
        ..PLAIN
    },
    Recipe {
        name: "old records",
        stages: &[Stage::Wait(6)],
        settings: &[
            "log.retention.ms=3600000",
            "log.retention.check.interval.ms=300",
            "log.initial.task.delay.ms=0",
            "log.segment.bytes=1048576",
        ],
        age_ms: 2_400_000,
        pause_ms: 5,
        ..PLAIN
    },
    Recipe {
        name: "compacted",
        stages: &[Stage::Churn],
        settings: &[
            "log.cleaner.backoff.ms=50",
            "log.initial.task.delay.ms=0",
            "log.retention.check.interval.ms=300",
        ],
        ..PLAIN
    },
    Recipe {
        name: "segments on a disk of their own",
        stages: &[Stage::TwoDisks],
        settings: &["log.cleaner.backoff.ms=50", "log.initial.task.delay.ms=0"],
        pause_ms: 300,
        ..PLAIN
    },
    Recipe {
        name: "an old life",
        stages: &[Stage::OldLife],
        settings: &["log.flush.interval.messages=1000000"],
        pause_ms: 250,
        ..PLAIN
    },
    Recipe {
        name: "a cut forgotten",
        // A deleted topic's beginning may still be in the journal, without its files; not behind a clean start.
        stages: &[Stage::ForgottenCut, Stage::RestartAll],
        network: true,
        settings: &["pelton.journal.bytes=134217728", "pelton.direct.bytes=4096"],
        pause_ms: 100,
        ..PLAIN
    },
    Recipe {
        name: "kept by compaction",
        stages: &[Stage::Kept],
        settings: &[
            "log.cleaner.backoff.ms=50",
            "log.initial.task.delay.ms=0",
            "log.retention.check.interval.ms=300",
        ],
        ..PLAIN
    },
    Recipe { name: "an old copy", stages: &[Stage::OldCopy], ..PLAIN },
    Recipe { name: "the last copies", stages: &[Stage::LastCopy], stages_judge: true, min_isr: "3", ..WIRED },
    Recipe {
        name: "all killed, frozen disks",
        stages: &[Stage::Wait(1), Stage::Frozen],
        settings: &["log.flush.interval.messages=1000000"],
        ..PLAIN
    },
    Recipe {
        name: "all killed, much load",
        stages: &[
            Stage::Wait(3),
            Stage::Fault(Kind::KillAll),
            Stage::Wait(2),
            Stage::Fault(Kind::KillAll),
            Stage::Wait(2),
            Stage::Fault(Kind::KillAll),
        ],
        value_bytes: Some(4_000),
        pause_ms: 1,
        ..PLAIN
    },
    Recipe {
        name: "power of all, small journal",
        stages: &[Stage::SlowDisks(20_000), Stage::PowerAgain(10)],
        settings: &["pelton.journal.bytes=8388608"],
        value_bytes: Some(4_000),
        pause_ms: 1,
        ..PLAIN
    },
    Recipe { name: "coordinators killed", stages: &[Stage::GroupsKilled], ..PLAIN },
    Recipe { name: "coordinators moved", stages: &[Stage::GroupsMoved], network: true, ..PLAIN },
    Recipe {
        name: "old offsets",
        stages: &[Stage::GroupsOld],
        settings: &["offsets.retention.minutes=1", "offsets.retention.check.interval.ms=1000"],
        ..PLAIN
    },
    Recipe { name: "leaders deposed", stages: &[Stage::Deposed], network: true, ..PLAIN },
    Recipe {
        name: "killed when idle",
        stages: &[
            Stage::Wait(1),
            Stage::KillFollowers,
            Stage::KillFollowers,
            Stage::Fault(Kind::KillAll),
            Stage::Fault(Kind::KillAll),
            Stage::Fault(Kind::KillAll),
        ],
        pause_ms: 400,
        ..PLAIN
    },
    Recipe {
        name: "halted in part",
        stages: &[Stage::Halted],
        settings: &["pelton.shards=2", "pelton.mode=single"],
        ..PLAIN
    },
    Recipe { name: "too few", stages: &[Stage::TooFew], min_isr: "3", ..PLAIN },
    Recipe { name: "handed over", stages: &[Stage::Wait(1), Stage::HandOver], ..PLAIN },
    Recipe { name: "laggard first", stages: &[Stage::LaggardFirst], ..PLAIN },
    Recipe { name: "damaged journal", stages: &[Stage::Wait(2), Stage::DamagedJournal], ..PLAIN },
    Recipe { name: "trimmed", stages: &[Stage::Trim], ..PLAIN },
    Recipe { name: "rules of groups", stages: &[Stage::GroupRules], ..PLAIN },
    Recipe {
        name: "power of all, slow disks",
        stages: &[
            Stage::SlowDisks(8_000),
            Stage::Wait(1),
            Stage::PowerAll(1),
            Stage::PowerAll(1),
            Stage::PowerAll(3),
            Stage::PowerAll(1),
        ],
        pause_ms: 5,
        ..PLAIN
    },
    Recipe {
        name: "power of all, large batches",
        stages: &[
            Stage::SlowDisks(4_000),
            Stage::Wait(1),
            Stage::PowerAll(1),
            Stage::PowerAll(1),
            Stage::PowerAll(1),
            Stage::PowerAll(1),
            Stage::PowerAll(1),
        ],
        settings: &["pelton.direct.bytes=4096"],
        value_bytes: Some(2_000),
        pause_ms: 10,
        ..PLAIN
    },
    Recipe {
        name: "power of each, unflushed",
        stages: &[Stage::Wait(1), Stage::PowerEach, Stage::PowerEach],
        settings: &["log.flush.interval.messages=1000000"],
        pause_ms: 5,
        ..PLAIN
    },
    Recipe { name: "fenced, unheard", stages: &[Stage::FencedUnheard], ..WIRED },
    Recipe {
        name: "handed over, unheard",
        stages: &[Stage::HandedOverUnheard],
        settings: &["replica.lag.time.max.ms=1000"],
        ..WIRED
    },
    Recipe { name: "deposed, unheard", stages: &[Stage::DeposedUnheard], ..WIRED },
    Recipe { name: "a new controller", stages: &[Stage::NewController], min_isr: "1", ..WIRED },
    Recipe { name: "stopped in vain", stages: &[Stage::StoppedInVain], ..WIRED },
    Recipe { name: "taken in, unheard", stages: &[Stage::TakenInUnheard], ..WIRED },
    Recipe { name: "an old wish", stages: &[Stage::OldWish], ..WIRED },
    Recipe { name: "a wish of an old life", stages: &[Stage::WishOfOldLife; 2], ..WIRED },
    Recipe { name: "a short follower", stages: &[Stage::ShortFollower], pause_ms: 60, ..WIRED },
    Recipe { name: "an old acknowledgement", stages: &[Stage::OldAck], ..WIRED },
    Recipe { name: "an old answer", stages: &[Stage::OldAnswer], ..WIRED },
    Recipe {
        name: "who lost power first",
        stages: &[Stage::Wait(1), Stage::LossyFirst],
        settings: &["log.flush.interval.messages=1000000"],
        ..PLAIN
    },
    Recipe { name: "power of the quorum", stages: &[Stage::Wait(1), Stage::UnflushedQuorum], ..PLAIN },
    Recipe {
        name: "power behind unflushed",
        stages: &[Stage::BehindUnflushed],
        settings: &["log.flush.interval.messages=1000000"],
        pause_ms: 100,
        ..PLAIN
    },
    Recipe { name: "failing writes", stages: &[Stage::Wait(1), Stage::RefuseWrites], pause_ms: 5, ..PLAIN },
];

/// The recipe of this name.
pub fn of_name(name: &str) -> Option<Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name).copied()
}
