//! Damaged requests of every API and version: no decoder panics on them, and none takes memory out of proportion to its
//! input (invariant A10). Repeats exactly: a failure names its version and seed.

#[path = "common/counting.rs"]
mod counting;
#[path = "common/decoders.rs"]
mod decoders;
#[path = "common/mutate.rs"]
mod mutate;
#[path = "common/requests.rs"]
mod requests;

use bytes::{BufMut, Bytes, BytesMut};
use pelton_model::Prng;
use pelton_wire::api_key::{self, ApiKey, SUPPORTED};
use requests::{Requests, Topics};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const SEEDS: u64 = 400;

/// What decoding may take. Our own codecs: no more than their elements are larger in memory than on the wire. The
/// generated one takes room for a tagged field (40 bytes) per byte that is left, and copies each once more; the shard
/// keeps the requests it is used for short.
fn cap(api_key: ApiKey, input_bytes: usize) -> usize {
    match api_key {
        ApiKey::Produce | ApiKey::Fetch => 64 * 1024 + 32 * input_bytes,
        _ => 256 * 1024 + 96 * input_bytes,
    }
}

fn versions() -> impl Iterator<Item = (ApiKey, i16)> {
    SUPPORTED.iter().flat_map(|range| (range.min..=range.max).map(|version| (range.api_key, version)))
}

fn frame(prng: &mut Prng, topics: &Topics, api_key: ApiKey, version: i16) -> Bytes {
    Requests { prng, topics, elements_max: 3 }.frame(api_key, version).slice(4..)
}

fn check(api_key: ApiKey, version: i16, seed: u64, frame: &Bytes) -> bool {
    let (result, bytes) = counting::growth(|| decoders::decode_frame(frame));
    let name = api_key.name();
    let (input, cap) = (frame.len(), cap(api_key, frame.len()));
    assert!(
        bytes <= cap,
        "{name} version {version}, seed {seed}: {bytes} bytes for {input} of input, at most {cap}"
    );
    result.is_ok()
}

#[test]
fn valid_requests_are_read() {
    let topics = Topics::any();
    for (api_key, version) in versions() {
        for seed in 0..SEEDS {
            let frame = frame(&mut Prng::new(seed), &topics, api_key, version);
            assert!(
                check(api_key, version, seed, &frame),
                "{} version {version}, seed {seed}",
                api_key.name()
            );
        }
    }
}

#[test]
fn damaged_requests_neither_panic_nor_take_memory() {
    let topics = Topics::any();
    let (mut read, mut refused) = (0u64, 0u64);
    for (api_key, version) in versions() {
        for seed in 0..SEEDS {
            let mut prng = Prng::new(seed << 16 | (version as u64) << 8 | api_key.code() as u64);
            let mut bytes = frame(&mut prng, &topics, api_key, version).to_vec();
            let other = frame(&mut prng, &topics, api_key, version);
            // Mostly the body: with another key or version it is another decoder's input.
            let head: Vec<u8> = if prng.one_in(8) { Vec::new() } else { bytes.drain(..8).collect() };
            mutate::mutate_some(&mut prng, &mut bytes, &other);
            let whole = Bytes::from([head, bytes].concat());
            if check(api_key, version, seed, &whole) { read += 1 } else { refused += 1 }
        }
    }
    // Else the damage would be none, or only of the trivial kind.
    assert!(read > 1000 && refused > 10_000, "{read} read, {refused} refused");
}

/// Every prefix is refused: a request that is cut short never passes as a shorter one.
#[test]
fn truncated_requests_are_refused() {
    let topics = Topics::any();
    for (api_key, version) in versions() {
        let whole = frame(&mut Prng::new(11), &topics, api_key, version);
        for length in 0..whole.len() {
            let read = check(api_key, version, 11, &whole.slice(..length));
            assert!(!read, "{} version {version} cut to {length} of {}", api_key.name(), whole.len());
        }
    }
}

/// Repeated bytes that the decoders turn into many small things: empty strings, arrays and tags, and tags that ascend.
fn dense() -> Vec<Vec<u8>> {
    let repeated = [&[0u8][..], &[1], &[2], &[1, 0, 0], &[1, 1, 0], &[0, 0, 0, 0, 0, 0, 1], &[0, 1]];
    let mut patterns: Vec<Vec<u8>> =
        repeated.iter().map(|piece| piece.repeat(100_000 / piece.len())).collect();
    patterns.push((128..16_384u32).flat_map(|tag| [tag as u8 | 0x80, (tag >> 7) as u8, 0]).collect());
    patterns
}

/// Inputs made to be large in memory, with a count as large as what follows, at each place near the front.
#[test]
fn dense_requests_take_memory_in_proportion() {
    for (api_key, version) in versions() {
        let mut head = BytesMut::new();
        head.put_i16(api_key.code());
        head.put_i16(version);
        head.put_i32(1);
        head.put_i16(-1);
        if api_key::header_versions(api_key, version).0 >= 2 {
            head.put_u8(0);
        }
        for pattern in dense() {
            for (skip, part) in (0..40).flat_map(|skip| [1, 2, 3, 4, 6].map(|part| (skip, part))) {
                let mut bytes = head.clone();
                bytes.put_slice(&pattern[..skip]);
                let count = (pattern.len() / part) as u32;
                if api_key::flexible(api_key, version) {
                    bytes.put_slice(&[count as u8 | 0x80, (count >> 7) as u8 | 0x80, (count >> 14) as u8]);
                } else {
                    bytes.put_u32(count);
                }
                bytes.put_slice(&pattern);
                check(api_key, version, skip as u64, &bytes.freeze());
            }
        }
    }
}
