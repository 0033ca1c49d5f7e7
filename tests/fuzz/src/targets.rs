//! What is fuzzed: each target makes its own valid inputs, damages them with knowledge of their structure, and runs them.
//! A run fails by panicking; so does a property that does not hold.

pub mod frame;
pub mod journal;
pub mod peer;
pub mod record_batch;
pub mod request;
pub mod shard;

use pelton_model::Prng;

/// A target.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Runs of the smoke test: about eight seconds.
    pub runs: u64,
    /// Valid inputs.
    pub corpus: fn(&mut Prng) -> Vec<Vec<u8>>,
    /// Damages an input; `other` is one to take pieces from.
    pub mutate: fn(&mut Prng, bytes: &mut Vec<u8>, other: &[u8]),
    /// Runs an input.
    pub run: fn(&[u8]),
    /// What a run may take of memory, given the length of its input, bytes.
    pub memory_bytes_max: fn(usize) -> usize,
}

/// All of them.
pub const ALL: &[Target] = &[
    Target {
        name: "frame",
        runs: 800_000,
        corpus: frame::corpus,
        mutate: frame::mutate,
        run: frame::run,
        // The bytes, joined piece by piece, and what describes them.
        memory_bytes_max: |length| (256 << 10) + 8 * length,
    },
    Target {
        name: "request",
        runs: 1_200_000,
        corpus: request::corpus,
        mutate: request::mutate,
        run: request::run,
        // See wire/tests/mutations.rs.
        memory_bytes_max: |length| (256 << 10) + 96 * length,
    },
    Target {
        name: "record_batch",
        runs: 20_000,
        corpus: record_batch::corpus,
        mutate: record_batch::mutate,
        run: record_batch::run,
        // Decoders have windows of their own (lz4: blocks of 4 MiB), and outputs are capped.
        memory_bytes_max: |length| (24 << 20) + 8 * length,
    },
    Target {
        name: "journal",
        runs: 90_000,
        corpus: journal::corpus,
        mutate: journal::mutate,
        run: journal::run,
        memory_bytes_max: |length| (4 << 20) + 32 * length,
    },
    Target {
        name: "shard",
        runs: 60_000,
        corpus: shard::corpus,
        mutate: shard::mutate,
        run: shard::run,
        // Sixteen bytes make a topic of 100 000 partitions, and may.
        memory_bytes_max: |length| (1 << 30) + 96 * length,
    },
    Target {
        name: "peer",
        runs: 100_000,
        corpus: peer::corpus,
        mutate: peer::mutate,
        run: peer::run,
        // Messages that straddle two receives are copied, and the harness joins others.
        memory_bytes_max: |length| (512 << 10) + 8 * length,
    },
];
