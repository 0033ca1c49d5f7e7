//! The fuzzer itself: it notices what it is for, repeats, and its damage reaches behind the first check.

use std::path::PathBuf;

use pelton_model::Prng;

use crate::runner::{self, Limit, Options, Tally, damaged};
use crate::targets::{ALL, Target, journal, peer};

fn fake(run: fn(&[u8])) -> Target {
    Target {
        name: "fake",
        runs: 100,
        corpus: |_| vec![vec![0; 16]],
        mutate: |prng, bytes, _| bytes[prng.below(16) as usize] = 1 + prng.below(3) as u8,
        run,
        memory_bytes_max: |length| 1000 + length,
    }
}

fn failures(target: &Target, limit: Limit) -> (u64, u64) {
    runner::catch_panics();
    let (options, mut tally) = (Options { limit, ..Options::default() }, Tally::default());
    runner::fuzz(target, &options, &mut tally);
    (tally.passed, tally.failed)
}

#[test]
fn panics_and_memory_are_noticed() {
    assert_eq!(failures(&fake(|_| {}), Limit::Smoke), (1, 0));
    assert_eq!(failures(&fake(|input| assert!(!input.contains(&3))), Limit::Smoke), (0, 1));
    let hungry = |input: &[u8]| drop(vec![7u8; 1000 * usize::from(input[5])]);
    assert_eq!(failures(&fake(hungry), Limit::Smoke), (0, 1));
}

#[test]
fn a_failing_input_is_kept_and_fails_again() {
    runner::catch_panics();
    let target = fake(|input| assert!(!input.contains(&3)));
    let dir = std::env::temp_dir().join(format!("pelton-fuzz-{}", std::process::id()));
    let options = Options { out: Some(dir.clone()), ..Options::default() };
    runner::fuzz(&target, &options, &mut Tally::default());
    let kept: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!kept.is_empty());
    for file in kept {
        let mut tally = Tally::default();
        runner::replay(&target, &file, &mut tally);
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_seed_and_a_number_are_an_input() {
    for target in ALL {
        let (first, second) = ((target.corpus)(&mut Prng::new(4)), (target.corpus)(&mut Prng::new(4)));
        assert!(first == second, "{}: the corpus differs", target.name);
        for run in 0..50 {
            assert!(
                damaged(target, &first, 4, run) == damaged(target, &second, 4, run),
                "{} run {run}",
                target.name
            );
        }
        assert!(damaged(target, &first, 4, 1) != damaged(target, &first, 4, 2), "{}", target.name);
    }
}

/// Share of damaged inputs for which `holds`, percent.
fn share(name: &str, holds: impl Fn(&[u8]) -> bool) -> u32 {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let corpus = (target.corpus)(&mut Prng::new(2));
    (0..1000).map(|run| u32::from(holds(&damaged(target, &corpus, 2, run)))).sum::<u32>() / 10
}

/// If nearly everything were refused at the door, or nearly nothing, the damage would test little.
#[test]
fn damage_reaches_behind_the_first_check() {
    let started = share("journal", |input| journal::starts(input) == Some(true));
    let valid =
        share("record_batch", |input| pelton_wire::record_batch::validate_produce_batch(input).is_ok());
    let read = share("request", |input| {
        crate::decoders::decode_frame(&bytes::Bytes::copy_from_slice(input)).is_ok()
    });
    let proven = share("peer", peer::is_proven);
    println!(
        "journals that start {started} %, valid batches {valid} %, requests that are read {read} %, peers that are \
         proven {proven} %"
    );
    let shares = [("journal", started), ("record_batch", valid), ("request", read), ("peer", proven)];
    for (name, percent) in shares {
        assert!((5..95).contains(&percent), "{name}: {percent} %");
    }
}
