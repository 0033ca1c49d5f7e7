//! What one seed's life is like: sizes, which faults there are, and which fault on purpose.

use pelton_model::Prng;

use crate::sabotage::Sabotage;

/// A fault on purpose in what surrounds the replica: controller, driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rigged {
    /// The controller elects whoever lives.
    ElectOutsideIsr,
    /// A retry is acknowledged at once instead of waiting for the high watermark.
    RetryAckedAtOnce,
    /// The controller takes a lease for dead after a third of the wait.
    ShortLeaseWait,
    /// A restarted replica stays in the ISR.
    RestartKeepsIsr,
    /// The controller does not compare the partition epoch.
    NoCompareAndSet,
    /// Producer state does not follow a cut.
    ProducersNotCut,
    /// A replica that lost its unflushed end remains eligible.
    UncleanStaysEligible,
    /// A new leader is told at once that its predecessor is gone.
    PredecessorGoneAtOnce,
    /// A new leader does not get an epoch of its own.
    EpochUsedTwice,
}

impl Rigged {
    pub const ALL: [Rigged; 9] = [
        Rigged::ElectOutsideIsr,
        Rigged::RetryAckedAtOnce,
        Rigged::ShortLeaseWait,
        Rigged::RestartKeepsIsr,
        Rigged::NoCompareAndSet,
        Rigged::ProducersNotCut,
        Rigged::UncleanStaysEligible,
        Rigged::PredecessorGoneAtOnce,
        Rigged::EpochUsedTwice,
    ];
}

/// What the disks, or an operator, do beyond the promises of replication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing: every invariant holds.
    Honest,
    /// Unclean elections are ordered: what they lose is lost, the rest holds.
    Unclean,
    /// Disks lose what they called stable: only "no silent cut below the high watermark" holds.
    Lying,
}

/// One life.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub nodes: usize,
    pub min_isr: usize,
    pub flush_every_append: bool,
    pub leases: bool,
    /// Clock drift, parts in a million either way; beyond 10,000 freshness is not promised.
    pub drift_ppm: u64,
    pub loss_percent: u64,
    pub double_percent: u64,
    pub delay_us_max: u64,
    pub crashes: bool,
    pub lossy_crashes: bool,
    pub partitions: bool,
    pub pauses: bool,
    pub moves: bool,
    pub controller_failovers: bool,
    pub trims: bool,
    /// Virtual length of the part with faults, and the longest pause between two of them, milliseconds.
    pub faults_ms: u64,
    pub fault_pause_ms: u64,
    pub sabotage: Option<Sabotage>,
    pub rigged: Option<Rigged>,
}

impl Plan {
    /// The plan of a seed: each kind of fault is on in some seeds and off in others.
    pub fn of(seed: u64) -> Plan {
        let mut prng = Prng::new(seed ^ 0x5eed);
        let kind = match prng.below(12) {
            0 => Kind::Unclean,
            1 => Kind::Lying,
            _ => Kind::Honest,
        };
        let nodes = if prng.one_in(4) { 5 } else { 3 };
        let lossy_network = prng.one_in(2);
        Plan {
            seed,
            kind,
            nodes,
            min_isr: if prng.one_in(6) { 1 } else { nodes.div_ceil(2) },
            flush_every_append: !prng.one_in(3) || kind == Kind::Lying,
            leases: !prng.one_in(6),
            drift_ppm: [0, 10_000, 10_000, 200_000][prng.below(4) as usize],
            loss_percent: if lossy_network { prng.below(20) } else { 0 },
            double_percent: if lossy_network { prng.below(30) } else { 0 },
            delay_us_max: [500, 5_000, 200_000][prng.below(3) as usize],
            crashes: !prng.one_in(4),
            lossy_crashes: prng.one_in(2) || kind == Kind::Lying,
            partitions: !prng.one_in(3),
            pauses: prng.one_in(2),
            moves: prng.one_in(2),
            controller_failovers: prng.one_in(3),
            trims: prng.one_in(4),
            faults_ms: 8_000 + prng.below(16_000),
            fault_pause_ms: [300, 1_500][prng.below(2) as usize],
            sabotage: None,
            rigged: None,
        }
    }

    /// Makes it likely that this fault on purpose has something to spoil.
    pub fn scene(mut self) -> Plan {
        let doubled = self.rigged == Some(Rigged::NoCompareAndSet);
        let clogged = doubled || self.sabotage == Some(Sabotage::SkipEpochOnAck);
        let forgetful = self.sabotage == Some(Sabotage::CountStaleReplicaEpoch)
            || self.rigged == Some(Rigged::UncleanStaysEligible);
        if clogged {
            (self.delay_us_max, self.moves, self.min_isr, self.nodes) = (3_000_000, true, 2, 3);
        }
        if doubled {
            (self.double_percent, self.crashes) = (40, true);
        }
        if forgetful {
            (self.flush_every_append, self.lossy_crashes, self.crashes) = (false, true, true);
            (self.nodes, self.min_isr) = (3, 2);
        }
        if clogged || forgetful {
            (self.kind, self.fault_pause_ms, self.loss_percent, self.trims) = (Kind::Honest, 200, 0, false);
        }
        self
    }

    /// Whether leases must keep readers from old leaders.
    pub fn fresh(&self) -> bool {
        self.leases && self.drift_ppm <= 10_000 && self.kind == Kind::Honest
    }
}
