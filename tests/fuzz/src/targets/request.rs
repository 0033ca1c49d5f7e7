//! Every decoder of requests: a frame through header and body, then its body through every version of its API.

use bytes::Bytes;
use pelton_model::Prng;
use pelton_wire::api_key::{ApiKey, SUPPORTED};

use crate::decoders::{decode_body, decode_frame};
use crate::mutate::mutate_some;
use crate::requests::{Requests, Topics};

/// Bytes of key, version and correlation id.
const HEAD_BYTES: usize = 8;

/// Some requests of every API and version, without their lengths.
pub fn corpus(prng: &mut Prng) -> Vec<Vec<u8>> {
    let topics = Topics::any();
    let mut frames = Vec::new();
    for range in SUPPORTED {
        for version in range.min..=range.max {
            for elements_max in [1, 3, 5] {
                let frame = Requests { prng, topics: &topics, elements_max }.frame(range.api_key, version);
                frames.push(frame[4..].to_vec());
            }
        }
    }
    frames
}

/// Damages mostly what lies behind the head: with another key or version it is another decoder's input.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    if prng.one_in(10) || bytes.len() <= HEAD_BYTES {
        return mutate_some(prng, bytes, other);
    }
    let mut body = bytes.split_off(HEAD_BYTES);
    mutate_some(prng, &mut body, other);
    bytes.extend_from_slice(&body);
}

/// Decodes.
pub fn run(input: &[u8]) {
    let frame = Bytes::copy_from_slice(input);
    let _ = decode_frame(&frame);
    let Some(head) = input.first_chunk::<2>() else { return };
    let Some(api_key) = ApiKey::from_code(i16::from_be_bytes(*head)) else { return };
    let body_offset = HEAD_BYTES.min(input.len());
    for version in api_key.range().min..=api_key.range().max {
        let _ = decode_body(api_key, version, &frame, body_offset);
    }
}
