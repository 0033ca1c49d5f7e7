//! The connection cutter: however the bytes of a stream arrive, the frames cut from it are those of the plain rule
//! "length, then as many bytes", it stops at the first length out of bounds, and answers leave in order.

use bytes::Bytes;
use pelton_model::limits::{FRAME_BYTES_UNPROVEN, REQUESTS_IN_FLIGHT_MAX};
use pelton_model::{ConnectionId, Now, Prng};
use pelton_shard::connection::{Connection, NextFrame, ReceiveBudget, RequestRef};
use pelton_shard::{Effect, ReceiveMode, SendPart};
use pelton_wire::crc::crc32c;

use crate::mutate::{mutate as damage, mutate_some};

const NOW: Now = Now { monotonic_ns: 5, wall_ms: 5 };

/// Streams of a few frames of all sizes.
pub fn corpus(prng: &mut Prng) -> Vec<Vec<u8>> {
    let stream = |prng: &mut Prng| {
        let mut bytes = Vec::new();
        for _ in 0..1 + prng.below(5) {
            let length = [8, 9, 40, 300, 5000, FRAME_BYTES_UNPROVEN as u64][prng.below(6) as usize];
            bytes.extend_from_slice(&(length as u32).to_be_bytes());
            bytes.extend((0..length).map(|at| at as u8));
        }
        bytes
    };
    (0..40).map(|_| stream(prng)).collect()
}

/// Damages mostly the lengths.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    let starts = starts(bytes);
    if prng.one_in(2) && !starts.is_empty() {
        let at = starts[prng.below(starts.len() as u64) as usize];
        let mut length = bytes[at..at + 4].to_vec();
        damage(prng, &mut length, &[0; 4]);
        bytes.splice(at..at + 4, length);
    } else {
        mutate_some(prng, bytes, other);
    }
}

/// Where frames begin by the plain rule, and whether the stream breaks it.
fn cut(bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        if length < 8 || length as usize > FRAME_BYTES_UNPROVEN {
            return (frames, true);
        }
        let Some(frame) = behind.get(..length as usize) else { break };
        frames.push(frame);
        rest = &behind[length as usize..];
    }
    (frames, false)
}

fn starts(bytes: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut starts = Vec::new();
    for frame in cut(bytes).0 {
        starts.push(at);
        at += 4 + frame.len();
    }
    starts
}

/// Feeds the stream in pieces, as it asks for them.
pub fn run(input: &[u8]) {
    let mut prng = Prng::new(u64::from(crc32c(input)));
    let (expected, breaks) = cut(input);
    let mut connection = Connection::new(ConnectionId(1), "fuzz".to_string(), NOW);
    let mut budget = ReceiveBudget::new(1 << 20);
    let (mut rest, mut frames, mut broken) = (input, Vec::new(), false);
    let mut unanswered: Vec<RequestRef> = Vec::new();
    let mut sent = Vec::new();
    loop {
        match connection.next_frame() {
            NextFrame::Frame(frame) => {
                frames.push(frame);
                unanswered.push(connection.reserve());
                continue;
            }
            NextFrame::Broken(_) => {
                broken = true;
                break;
            }
            NextFrame::None => {}
        }
        let mut out = Vec::new();
        assert!(connection.receive_more(NOW, &mut budget, &mut out), "the budget holds one frame");
        if let Some(Effect::Receive { mode, .. }) = out.pop() {
            let Some(bytes) = piece(&mut prng, mode, &mut rest) else { break };
            connection.handle_received(NOW, bytes);
            budget.give_back(connection.take_reserved());
        } else {
            // An answer that waits for those before it counts too.
            let open = frames.len() - sent.len();
            assert_eq!(open, REQUESTS_IN_FLIGHT_MAX, "it must ask for more unless it has all it may have");
        }
        answer_some(&mut prng, &mut connection, &mut unanswered, &mut sent);
    }
    assert_eq!(broken, breaks, "broken");
    assert!(frames.iter().map(|frame| &frame[..]).eq(expected.iter().copied()), "frames differ");
    while !unanswered.is_empty() {
        answer_some(&mut prng, &mut connection, &mut unanswered, &mut sent);
    }
    assert!(sent.iter().copied().eq(0..frames.len() as u64), "answers out of order: {sent:?}");
}

fn piece(prng: &mut Prng, mode: ReceiveMode, rest: &mut &[u8]) -> Option<Bytes> {
    let (prefix, length) = match mode {
        ReceiveMode::Any => {
            let most = rest.len().min(64 * 1024) as u64;
            let most = if prng.one_in(2) { most.min(20) } else { most };
            (Bytes::new(), if most == 0 { return None } else { 1 + prng.below(most) as usize })
        }
        ReceiveMode::Frame { prefix, length } => {
            let length = length.checked_sub(prefix.len()).expect("a prefix is shorter than its frame");
            (prefix, length)
        }
    };
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(Bytes::from([&prefix[..], taken].concat()))
}

/// Answers some requests in any order, each with its number; keeps what is sent.
fn answer_some(
    prng: &mut Prng,
    connection: &mut Connection,
    unanswered: &mut Vec<RequestRef>,
    sent: &mut Vec<u64>,
) {
    for _ in 0..1 + prng.below(3) {
        if unanswered.is_empty() {
            return;
        }
        let request = unanswered.swap_remove(prng.below(unanswered.len() as u64) as usize);
        let number = Bytes::copy_from_slice(&request.sequence.to_be_bytes());
        let mut out = Vec::new();
        connection.fill(request.sequence, vec![SendPart::Bytes(number)].into(), &mut out);
        for effect in out {
            let Effect::Send { parts, .. } = effect else { panic!("only sends follow an answer") };
            for part in parts {
                let SendPart::Bytes(bytes) = part else { panic!("only bytes were given") };
                connection.handle_sent(NOW, bytes.len());
                sent.push(u64::from_be_bytes(bytes[..].try_into().expect("eight bytes were given")));
            }
        }
    }
}
