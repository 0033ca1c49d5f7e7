//! What the nodes of a run have in common.

use pelton_log::StorageConfig;
use pelton_model::Prng;
use pelton_replica::effect::Settings;

use super::Fault;

/// Of one run.
#[derive(Clone)]
pub struct Setup {
    /// Batches count when they are flushed, not when they are written.
    pub flush: bool,
    /// `min.insync.replicas`.
    pub min_isr: usize,
    /// Clocks are off by up to this, parts in a thousand.
    pub drift_permille: u64,
    /// `segment.bytes`.
    pub segment_bytes: i32,
    /// Records are deleted now and then.
    pub trims: bool,
    /// A fault on purpose.
    pub fault: Option<Fault>,
    /// The log.
    pub storage: StorageConfig,
    /// Replicas.
    pub settings: Settings,
}

impl Setup {
    /// One that a seed chooses.
    pub fn new(prng: &mut Prng, fault: Option<Fault>) -> Setup {
        let flush = !prng.one_in(4);
        let min_isr = 1 + prng.below(2) as usize;
        let storage = StorageConfig {
            journal_bytes: 512 << 10,
            tail_bytes: 256 << 10,
            group_bytes: 64 << 10,
            lay_down_bytes: 8 << 10,
            writes_in_flight: 1 + prng.below(3) as usize,
            direct_bytes: [400, 2_500, 256 << 10][prng.below(3) as usize],
            sabotage: fault.and_then(Fault::log),
            ..StorageConfig::default()
        };
        let settings = Settings {
            min_insync_replicas: min_isr as i32,
            flush_every_append: flush,
            replica_lag_ns: 1_500_000_000,
            silence_ns: 3_000_000_000,
            window_bytes: 30_000,
            append_bytes: 6_000,
            sabotage: fault.and_then(Fault::replica),
            ..Settings::default()
        };
        Setup {
            flush,
            min_isr,
            drift_permille: [0, 5, 10, 10][prng.below(4) as usize],
            segment_bytes: 12_000 + 5_000 * prng.below(4) as i32,
            trims: prng.one_in(3),
            fault,
            storage,
            settings,
        }
    }
}
