//! Connections between nodes, from the side that is dialed: hello, proof and frames, damaged. Nothing opens without the proof;
//! behind it the frames are those of the plain rule "length, kind, body" up to the first that breaks it.

use bytes::Bytes;
use pelton_model::{ConnectionId, ListenerMode, NodeId, Prng, Replica, ShardId};
use pelton_shard::peer::{
    Effect, Event, Identity, Kind, Limits, NONCE_BYTES, Peer, Peers, Secret, Want, hello, proof,
};
use pelton_wire::crc::crc32c;
use uuid::Uuid;

use crate::mutate::mutate_some;

const CONNECTION: ConnectionId = ConnectionId(1);
const ACCEPTOR_NONCE: [u8; NONCE_BYTES] = [2; NONCE_BYTES];
/// Small, so that lengths around it are met.
const MESSAGE_BYTES_MAX: usize = 100_000;

fn place(node: i32) -> Replica {
    Replica { node: NodeId(node), shard: ShardId(0) }
}

fn peers(node: i32) -> Peers {
    let identity = Identity {
        place: place(node),
        cluster_id: "5m4hXyJ2Q7yTaaaaaaaaaa".to_string(),
        directory: Uuid::from_u128(node as u128),
        start: 3,
        mode: ListenerMode::Direct,
    };
    let secret = Secret::from_file(b"the secret of the fuzzer").expect("it is long enough");
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
    Peers::new(identity, secret, limits, 1)
}

fn acceptor(out: &mut Vec<Effect>) -> Peers {
    let mut acceptor = peers(2);
    let (connection, address) = (CONNECTION, "127.0.0.1:5".to_string());
    acceptor.handle(1, Event::Accepted { connection, address, nonce: ACCEPTOR_NONCE }, out);
    acceptor
}

fn said(out: &mut Vec<Effect>) -> Bytes {
    let parts = out.drain(..).filter_map(|effect| match effect {
        Effect::Send { parts, .. } => Some(parts.concat()),
        _ => None,
    });
    Bytes::from(parts.collect::<Vec<_>>().concat())
}

/// All that a dialer says, with frames of all sizes behind.
fn transcript(prng: &mut Prng) -> Vec<u8> {
    let (mut out, mut all, connection) = (Vec::new(), Vec::new(), CONNECTION);
    let mut dialer = peers(1);
    let known = Peer::of(place(2), "127.0.0.1", 7000, None).expect("there is such a port");
    dialer.set_peers(1, vec![known], &mut out);
    let mut acceptor = acceptor(&mut out);
    out.clear();
    let mut nonce = [0; NONCE_BYTES];
    nonce.iter_mut().for_each(|byte| *byte = prng.next_u64() as u8);
    dialer.handle(1, Event::Dialed { attempt: 1, connection, nonce }, &mut out);
    for _ in 0..2 {
        let bytes = said(&mut out);
        all.extend_from_slice(&bytes);
        acceptor.handle(1, Event::Received { connection, bytes }, &mut out);
        let bytes = said(&mut out);
        dialer.handle(1, Event::Received { connection, bytes }, &mut out);
    }
    for _ in 0..prng.below(6) {
        let length = [0, 1, 60, 3_000, 30_000][prng.below(5) as usize];
        let kind = if prng.one_in(2) { Kind::Replica } else { Kind::Member };
        assert!(dialer.send(1, place(2), kind, vec![Bytes::from(vec![length as u8; length])], &mut out));
    }
    all.extend_from_slice(&said(&mut out));
    all
}

/// Transcripts.
pub fn corpus(prng: &mut Prng) -> Vec<Vec<u8>> {
    (0..40).map(|_| transcript(prng)).collect()
}

/// Bytes of hello and proof in front, by the plain rule.
fn proof_end(bytes: &[u8]) -> usize {
    let (messages, _) = cut(bytes);
    messages.iter().take(2).map(|(_, body)| 5 + body.len()).sum::<usize>().min(bytes.len())
}

/// Damages mostly what lies behind the proof: before it, any damage ends the connection.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    let end = proof_end(bytes);
    if prng.one_in(3) || bytes.len() <= end {
        return mutate_some(prng, bytes, other);
    }
    let mut behind = bytes.split_off(end);
    mutate_some(prng, &mut behind, other);
    bytes.extend_from_slice(&behind);
}

/// The messages of a stream by the plain rule, and whether it breaks it.
fn cut(bytes: &[u8]) -> (Vec<(u8, &[u8])>, bool) {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let longest = if messages.len() < 2 { hello::HELLO_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        if length == 0 || length > longest {
            return (messages, true);
        }
        let Some(message) = behind.get(..length) else { break };
        messages.push((message[0], &message[1..]));
        rest = &behind[length..];
    }
    (messages, false)
}

/// Whether the first two messages are a hello to node 2 and the proof that belongs to it.
pub fn is_proven(bytes: &[u8]) -> bool {
    let (messages, _) = cut(bytes);
    let [(1, first), (2, proven), ..] = messages[..] else { return false };
    let Ok(theirs) = hello::Hello::decode(first) else { return false };
    let mut out = Vec::new();
    let mut answered = acceptor(&mut out);
    out.clear();
    let bytes = Bytes::copy_from_slice(&bytes[..5 + first.len()]);
    answered.handle(1, Event::Received { connection: CONNECTION, bytes }, &mut out);
    let refused = out.iter().any(|effect| matches!(effect, Effect::Close { .. } | Effect::Kill { .. }));
    let answer = said(&mut out);
    let secret = Secret::from_file(b"the secret of the fuzzer").expect("it is long enough");
    !refused
        && theirs.to == place(2)
        && secret.accepts(proven, proof::Role::Dialer, first, answer.get(5..).unwrap_or_default())
}

/// Feeds a stream in pieces, as it is asked for.
pub fn run(input: &[u8]) {
    let mut prng = Prng::new(u64::from(crc32c(input)));
    let mut rest = Bytes::copy_from_slice(input);
    let mut out = Vec::new();
    let mut peers = acceptor(&mut out);
    let (mut up, mut frames, mut over) = (false, Vec::new(), false);
    loop {
        let mut want = None;
        for effect in out.drain(..) {
            match effect {
                Effect::Receive { want: asked, .. } => want = Some(asked),
                Effect::Up { .. } => up = true,
                Effect::Frame { kind, bytes, .. } => frames.push((kind as u8, bytes)),
                Effect::Kill { .. } | Effect::Close { .. } => over = true,
                _ => {}
            }
        }
        let bytes = match want {
            Some(Want::Any) => rest.split_to((1 + prng.below(20_000) as usize).min(rest.len())),
            Some(Want::Exact { prefix, length }) => {
                assert!(up && length <= 4 + MESSAGE_BYTES_MAX, "{length} bytes are reserved");
                if length - prefix.len() > rest.len() {
                    break;
                }
                Bytes::from([&prefix[..], &rest.split_to(length - prefix.len())].concat())
            }
            None => break,
        };
        if bytes.is_empty() {
            break;
        }
        peers.handle(1, Event::Received { connection: CONNECTION, bytes }, &mut out);
    }
    assert_eq!(up, is_proven(input), "open without proof, or not open with it");
    if !up {
        return assert!(frames.is_empty(), "frames before the proof");
    }
    let (messages, breaks) = cut(input);
    let sound = messages[2..].iter().take_while(|(kind, _)| (4..=6).contains(kind));
    let expected: Vec<_> = sound.filter(|(kind, _)| *kind >= 5).copied().collect();
    assert!(frames.iter().map(|(kind, bytes)| (*kind, &bytes[..])).eq(expected), "frames differ");
    let ends = breaks || messages[2..].iter().any(|(kind, _)| !(4..=6).contains(kind));
    assert_eq!(over, ends, "it ends at the first message that breaks the rule");
}
