//! Seeded damage to bytes: flipped bits, cuts, numbers at their extremes, pieces repeated, inserted or taken from another
//! input. Knows where Kafka's lengths may be (anywhere), not what they mean.
// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]

use pelton_model::Prng;

/// Longest input a mutation makes, bytes.
const LENGTH_MAX: usize = 256 * 1024;

/// Numbers that lengths, counts and offsets break at.
const EXTREMES: [i64; 16] = [
    0,
    1,
    -1,
    -2,
    127,
    128,
    255,
    256,
    32_767,
    32_768,
    65_535,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
];

fn place(prng: &mut Prng, bytes: &[u8]) -> usize {
    // Fronts are where lengths are.
    let within = if prng.one_in(3) { bytes.len().min(80) } else { bytes.len() };
    prng.below(within as u64) as usize
}

fn number(prng: &mut Prng) -> Vec<u8> {
    let value = if prng.one_in(4) { prng.below(5000) as i64 } else { EXTREMES[prng.below(16) as usize] };
    let big = value.to_be_bytes();
    match prng.below(6) {
        0 => big[7..].to_vec(),
        1 => big[6..].to_vec(),
        2 => big[4..].to_vec(),
        3 => big.to_vec(),
        4 => value.to_le_bytes()[..if prng.one_in(2) { 4 } else { 8 }].to_vec(),
        _ => varint(value as u64 & if prng.one_in(2) { 0xffff_ffff } else { u64::MAX }),
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Damages `bytes` once; `other` is an input to take pieces from.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    let at = place(prng, bytes);
    match prng.below(10) {
        0 | 1 => bytes[at] ^= 1 << prng.below(8),
        2 => bytes[at] = prng.next_u64() as u8,
        3 => bytes.truncate(at),
        4 | 5 => {
            let number = number(prng);
            let end = (at + number.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        6 => {
            // A varint that is longer than the one it stands for moves what follows.
            let number = number(prng);
            bytes.splice(at..at + 1, number);
        }
        7 => {
            let piece: Vec<u8> = (0..1 + prng.below(16)).map(|_| prng.next_u64() as u8).collect();
            bytes.splice(at..at, piece);
        }
        8 => repeat(prng, bytes, at),
        _ => {
            let from = prng.below(other.len() as u64 + 1) as usize;
            let length = prng.below((other.len() - from) as u64 + 1) as usize;
            let end = if prng.one_in(2) { at } else { (at + length).min(bytes.len()) };
            bytes.splice(at..end, other[from..from + length].iter().copied());
        }
    }
    bytes.truncate(LENGTH_MAX);
}

fn repeat(prng: &mut Prng, bytes: &mut Vec<u8>, at: usize) {
    let length = 1 + prng.below(bytes.len().min(64) as u64) as usize;
    let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
    let times = 1 + if prng.one_in(4) { prng.below(2000) } else { prng.below(20) } as usize;
    let times = times.min(LENGTH_MAX / piece.len());
    bytes.splice(at..at, piece.repeat(times));
}

/// Damages `bytes` once, or a few times: each makes it likelier that the first check refuses it.
pub fn mutate_some(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    let more = if prng.one_in(3) { prng.below(4) } else { 0 };
    for _ in 0..1 + more {
        mutate(prng, bytes, other);
    }
}

/// Makes the length in front of a frame fit it again, so that what lies behind it is reached.
pub fn fix_frame_length(bytes: &mut [u8]) {
    if bytes.len() >= 4 {
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
    }
}
