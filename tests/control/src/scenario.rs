//! One run: a cluster that suffers, then one that must recover.

use pelton_model::Prng;

use crate::sabotage::Sabotage;
use crate::seeds;
use crate::world::{Faults, MS, World};

/// Faults happen for this long, milliseconds.
const SAFETY_MS: u64 = 25_000;
/// Then everything must be right within this, milliseconds.
const LIVENESS_MS: u64 = 40_000;

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Leaders of partitions elected.
    pub elections: u64,
    /// Entries of the metadata log.
    pub entries: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Changes of the quorum's voters.
    pub voters_changed: u64,
    /// From the end of faults until all was right, milliseconds.
    pub recovery_ms: u64,
}

impl seeds::Summary for Summary {
    fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.terms += other.terms;
        self.elections += other.elections;
        self.entries += other.entries;
        self.acknowledged += other.acknowledged;
        self.voters_changed += other.voters_changed;
        self.recovery_ms = self.recovery_ms.max(other.recovery_ms);
    }
}

fn faults(prng: &mut Prng) -> Faults {
    let mut on = |n| !prng.one_in(n);
    let mut faults = Faults {
        loss: 0,
        duplicates: 0,
        late: 0,
        delay_ms: 3,
        crashes: on(3),
        pauses: on(2),
        partitions: on(3),
        disks: on(2),
        drift_permille: 0,
        admin: on(3),
    };
    faults.loss = [0, 0, 20, 5][prng.below(4) as usize];
    faults.duplicates = [0, 10][prng.below(2) as usize];
    faults.late = [0, 40][prng.below(2) as usize];
    faults.delay_ms = [2, 10, 60, 300][prng.below(4) as usize];
    // One seed in ten has clocks worse than promised: leases may overlap then, and nothing else may go wrong.
    faults.drift_permille = [0, 5, 10, 10, 10, 10, 10, 10, 10, 200][prng.below(10) as usize];
    faults
}

/// Runs a seed.
pub fn run(seed: u64, trace: bool, sabotage: Option<Sabotage>) -> Result<Summary, String> {
    let mut prng = Prng::new(seed);
    let (count, voters) = [(3, 3), (3, 3), (4, 3), (5, 3), (5, 5)][prng.below(5) as usize];
    let faults = faults(&mut prng);
    let mut world = World::new(prng.next_u64(), count, voters, faults, sabotage);
    if trace {
        println!("{count} nodes, {voters} voters, {faults:?}");
        world.set_trace();
    }
    world.run_until(SAFETY_MS * MS)?;
    world.heal();
    let healed = world.now;
    let mut right = 0;
    while right < 3 {
        world.run_until(world.now + 500 * MS)?;
        world.calm();
        match world.unfinished() {
            None => right += 1,
            Some(why) if world.now - healed > LIVENESS_MS * MS => {
                let nodes = if trace { world.describe() } else { String::new() };
                return Err(format!("not right {LIVENESS_MS} ms after faults ended: {why}{nodes}"));
            }
            Some(_) => right = 0,
        }
    }
    Ok(Summary {
        events: world.events,
        terms: world.oracle.terms() as u64,
        elections: world.oracle.elections,
        entries: world.oracle.image.applied_offset(),
        acknowledged: world.oracle.acknowledged.values().map(|records| records.len() as u64).sum(),
        voters_changed: world.voters_changed,
        recovery_ms: (world.now - healed) / MS,
    })
}

/// Runs a seed with a fault on purpose. Everything must go wrong in a way that shows, not just stand still.
pub fn with_fault(seed: u64, fault: Sabotage) -> Result<(), String> {
    match run(seed, false, Some(fault)) {
        Err(error) if !error.starts_with("not right") => Err(error),
        _ => Ok(()),
    }
}
