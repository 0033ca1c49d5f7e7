//! Damaged bytes: nothing panics, and a hello or proof with one wrong bit opens nothing.

use bytes::Bytes;
use pelton_model::{ConnectionId, Prng};

use super::kit::{identity, peer, place, secret};
use crate::peer::{Effect, Event, Kind, Limits, Peers, Want};

const CONNECTION: ConnectionId = ConnectionId(1);

/// Feeds an acceptor and reports what it did with the bytes.
struct Fed {
    peers: Peers,
    rest: Bytes,
    want: Option<Want>,
    up: bool,
    frames: usize,
    over: bool,
}

impl Fed {
    fn accept(bytes: Bytes) -> Fed {
        let mut peers = Peers::new(identity(2, 1), secret(), Limits::default(), 1);
        let mut out = Vec::new();
        let (connection, address) = (CONNECTION, "10.0.0.1:5".to_string());
        peers.handle(5, Event::Accepted { connection, address, nonce: [2; 32] }, &mut out);
        let mut fed = Fed { peers, rest: bytes, want: None, up: false, frames: 0, over: false };
        fed.take(out);
        fed
    }

    fn take(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Receive { want, .. } => self.want = Some(want),
                Effect::Close { .. } | Effect::Kill { .. } => self.over = true,
                Effect::Up { .. } => self.up = true,
                Effect::Frame { .. } => self.frames += 1,
                _ => {}
            }
        }
    }

    fn run(mut self, prng: &mut Prng) -> Fed {
        while let Some(want) = self.want.take() {
            let bytes = match want {
                Want::Any => self.rest.split_to((1 + prng.below(200) as usize).min(self.rest.len())),
                Want::Exact { prefix, length } if length - prefix.len() <= self.rest.len() => {
                    let rest = self.rest.split_to(length - prefix.len());
                    Bytes::from([&prefix[..], &rest[..]].concat())
                }
                Want::Exact { .. } => break,
            };
            if bytes.is_empty() {
                break;
            }
            let mut out = Vec::new();
            self.peers.handle(6, Event::Received { connection: CONNECTION, bytes }, &mut out);
            self.take(out);
        }
        self
    }
}

/// What a dialer says to the acceptor of [`Fed`]: hello and proof, and then frames. The length of the first two.
fn transcript() -> (Vec<u8>, usize) {
    let mut peers = Peers::new(identity(1, 1), secret(), Limits::default(), 1);
    let mut acceptor = Peers::new(identity(2, 1), secret(), Limits::default(), 1);
    let (mut out, mut said, mut all, connection) = (Vec::new(), Vec::new(), Vec::new(), CONNECTION);
    acceptor.handle(5, Event::Accepted { connection, address: String::new(), nonce: [2; 32] }, &mut out);
    peers.set_peers(1, vec![peer(2)], &mut out);
    out.clear();
    peers.handle(2, Event::Dialed { attempt: 1, connection, nonce: [1; 32] }, &mut out);
    collect(&mut out, &mut said);
    for _ in 0..2 {
        all.extend_from_slice(&said);
        let mut answer = Vec::new();
        let bytes = Bytes::from(std::mem::take(&mut said));
        acceptor.handle(5, Event::Received { connection, bytes }, &mut out);
        collect(&mut out, &mut answer);
        peers.handle(5, Event::Received { connection, bytes: answer.into() }, &mut out);
        collect(&mut out, &mut said);
    }
    let hello_bytes = all.len();
    for length in [0, 3, 100, 50_000] {
        assert!(peers.send(7, place(2, 0), Kind::Replica, vec![Bytes::from(vec![7; length])], &mut out));
    }
    collect(&mut out, &mut all);
    (all, hello_bytes)
}

fn collect(out: &mut Vec<Effect>, into: &mut Vec<u8>) {
    for effect in out.drain(..) {
        if let Effect::Send { parts, .. } = effect {
            parts.iter().for_each(|part| into.extend_from_slice(part));
        }
    }
}

#[test]
fn one_wrong_bit_before_the_proof_opens_nothing() {
    let (bytes, hello_bytes) = transcript();
    let mut prng = Prng::new(1);
    let whole = Fed::accept(Bytes::from(bytes.clone())).run(&mut prng);
    assert!(whole.up && whole.frames == 4 && !whole.over, "the transcript itself is good");
    for bit in 0..hello_bytes * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let fed = Fed::accept(Bytes::from(damaged)).run(&mut prng);
        assert!(!fed.up && fed.frames == 0, "bit {bit}");
    }
    for length in 0..hello_bytes {
        let fed = Fed::accept(Bytes::copy_from_slice(&bytes[..length])).run(&mut prng);
        assert!(!fed.up && !fed.over, "cut at {length}: it waits");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let (bytes, hello_bytes) = transcript();
    let mut opened = 0;
    for seed in 0..20_000 {
        let mut prng = Prng::new(seed);
        let mut damaged = bytes.clone();
        for _ in 0..1 + prng.below(4) {
            let from = if prng.one_in(2) { hello_bytes } else { 0 };
            let at = from + prng.below((damaged.len().max(from + 1) - from) as u64) as usize;
            match prng.below(4) {
                0 if at < damaged.len() => damaged[at] = prng.next_u64() as u8,
                1 => damaged.truncate(at),
                2 if at < damaged.len() => drop(damaged.splice(at..at, [0, 255, 7])),
                _ if at + 4 <= damaged.len() => {
                    let number = [0u32, 1, 5, 1 << 20, u32::MAX][prng.below(5) as usize];
                    damaged[at..at + 4].copy_from_slice(&number.to_le_bytes());
                }
                _ => {}
            }
        }
        opened += u32::from(Fed::accept(damaged.into()).run(&mut prng).up);
    }
    assert!(opened > 1000, "{opened}: some damage must come behind the proof");
    for seed in 0..2_000 {
        let mut prng = Prng::new(seed);
        let noise: Vec<u8> = (0..prng.below(2000)).map(|_| prng.next_u64() as u8).collect();
        assert!(!Fed::accept(noise.into()).run(&mut prng).up);
    }
}
