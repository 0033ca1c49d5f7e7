//! However bytes arrive, the same messages are cut from them, and no length beyond the limit is believed.

use bytes::{Bytes, BytesMut};
use pelton_model::Prng;

use crate::peer::cutter::EXACT_BYTES_MIN;
use crate::peer::{Cutter, Kind, Want, message};

fn stream(prng: &mut Prng, count: u64) -> (Vec<(Kind, Bytes)>, Bytes) {
    let (mut messages, mut bytes) = (Vec::new(), BytesMut::new());
    for _ in 0..count {
        let most = [1, 10, 300, 20_000, 70_000, 300_000][prng.below(6) as usize];
        let body: Vec<u8> = (0..prng.below(most)).map(|at| (at ^ most) as u8).collect();
        let kind = [Kind::Alive, Kind::Replica, Kind::Member][prng.below(3) as usize];
        bytes.extend_from_slice(&message(kind, body.len(), &[]));
        bytes.extend_from_slice(&body);
        messages.push((kind, Bytes::from(body)));
    }
    (messages, bytes.freeze())
}

#[test]
fn pieces_of_any_size_give_the_same_messages() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let count = 1 + prng.below(12);
        let (messages, mut bytes) = stream(&mut prng, count);
        let mut cutter = Cutter::new(1 << 20);
        let (mut cut, mut exact) = (Vec::new(), 0);
        let largest = [3, 4000, 65_536][prng.below(3) as usize];
        loop {
            while let Some(next) = cutter.cut().unwrap() {
                cut.push(next);
            }
            let received = match cutter.want() {
                Want::Any => bytes.split_to((1 + prng.below(largest) as usize).min(bytes.len())),
                Want::Exact { prefix, length } => {
                    exact += 1;
                    assert!(length - prefix.len() >= EXACT_BYTES_MIN, "small rests are not worth a buffer");
                    let rest = bytes.split_to(length - prefix.len());
                    Bytes::from([&prefix[..], &rest[..]].concat())
                }
            };
            if received.is_empty() {
                break;
            }
            cutter.put(received);
        }
        assert!(cut == messages, "seed {seed}, pieces of {largest}");
        assert!(exact > 0 || bytes.is_empty());
    }
}

#[test]
fn bodies_that_arrive_whole_are_not_copied() {
    let (_, bytes) = stream(&mut Prng::new(5), 20);
    let within = bytes.as_ptr_range();
    let mut cutter = Cutter::new(1 << 20);
    cutter.put(bytes.clone());
    while let Some((_, body)) = cutter.cut().unwrap() {
        assert!(body.is_empty() || within.contains(&body.as_ptr()));
    }
}

#[test]
fn a_length_out_of_bounds_is_refused_before_anything_is_reserved() {
    for length in [0u32, 101, 1 << 31, u32::MAX] {
        let mut cutter = Cutter::new(100);
        cutter.put(Bytes::copy_from_slice(&length.to_le_bytes()));
        assert!(cutter.cut().unwrap_err().contains(&length.to_string()));
        // And when it comes byte by byte.
        let mut cutter = Cutter::new(100);
        let results: Vec<_> = length
            .to_le_bytes()
            .iter()
            .map(|byte| {
                cutter.put(Bytes::copy_from_slice(&[*byte]));
                let next = cutter.cut();
                if next.is_ok() {
                    assert_eq!(cutter.want(), Want::Any);
                }
                next.is_err()
            })
            .collect();
        assert_eq!(results, [false, false, false, true]);
    }
    let mut cutter = Cutter::new(100);
    cutter.put(message(Kind::Alive, 99, &[0; 99]));
    assert!(cutter.cut().unwrap().is_some(), "the limit itself is allowed");
    cutter.put(Bytes::from_static(&[1, 0, 0, 0, 77]));
    assert!(cutter.cut().unwrap_err().contains("kind 77"));
}
