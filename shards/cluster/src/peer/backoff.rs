//! How long to wait before dialing again: twice as long each time, up to a limit, and less by a random part, so that nodes that
//! lost each other at once do not all come back at once.

use pelton_model::Prng;

const FIRST_NS: u64 = 50_000_000;
const LONGEST_NS: u64 = 1_000_000_000;
/// After a refusal, which only a person can mend.
const REFUSED_NS: u64 = 5_000_000_000;
/// Doublings, at most.
const DOUBLINGS_MAX: u32 = 16;

/// Nanoseconds to wait after `failures` (at least 1) in a row.
pub fn wait_ns(failures: u32, refused: bool, prng: &mut Prng) -> u64 {
    let doubled = FIRST_NS << failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let most = if refused { REFUSED_NS } else { doubled.min(LONGEST_NS) };
    most - prng.below(most / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_vary() {
        let mut prng = Prng::new(1);
        for failures in 1..100 {
            let most = (FIRST_NS << (failures - 1).min(16)).min(LONGEST_NS);
            let waits: Vec<u64> = (0..50).map(|_| wait_ns(failures, false, &mut prng)).collect();
            assert!(waits.iter().all(|wait| (most / 2..=most).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "they vary");
        }
        assert!(wait_ns(1, true, &mut prng) >= REFUSED_NS / 2);
    }
}
