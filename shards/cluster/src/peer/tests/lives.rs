//! Random lives: several nodes, connections that break, networks cut one way or both, pauses, restarts; then quiet, after which
//! every two nodes must be connected, once. Frames are whole and in order all the time.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_model::{NodeId, Prng, Replica};

use super::kit::{Net, identity, peer, secret};
use crate::peer::{Kind, Limits};

struct Traffic {
    sequence: u64,
    /// Last sequence seen by (receiver, sender).
    seen: BTreeMap<(i32, i32), u64>,
    received: u64,
}

impl Traffic {
    fn send(&mut self, net: &mut Net, prng: &mut Prng, count: i32) {
        let (from, to) = (1 + prng.below(count as u64) as i32, 1 + prng.below(count as u64) as i32);
        if from == to || !net.nodes.contains_key(&from) {
            return;
        }
        self.sequence += 1;
        let length = [0, 50, 5_000, 100_000][prng.below(4) as usize];
        let filler = Bytes::from(vec![self.sequence as u8; prng.below(length + 1) as usize]);
        let head = Bytes::copy_from_slice(&self.sequence.to_le_bytes());
        net.send(from, to, Kind::Replica, vec![head, filler]);
    }

    fn check(&mut self, net: &mut Net) {
        for (node, state) in &mut net.nodes {
            for (Replica { node: NodeId(from), .. }, _, bytes) in std::mem::take(&mut state.frames) {
                let sequence = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert!(bytes[8..].iter().all(|byte| *byte == sequence as u8), "damaged");
                let before = self.seen.insert((*node, from), sequence);
                assert!(before.is_none_or(|before| before < sequence), "reordered or doubled");
                self.received += 1;
            }
        }
    }
}

fn trouble(net: &mut Net, prng: &mut Prng, starts: &mut [u64]) {
    let count = starts.len() as u64;
    let (a, b) = (1 + prng.below(count) as i32, 1 + prng.below(count) as i32);
    match prng.below(8) {
        0 | 1 => net.reset(a, b),
        2 => net.cut.push((a, b)),
        3 => net.cut.extend([(a, b), (b, a)]),
        4 | 5 => net.cut.clear(),
        6 if net.nodes.contains_key(&a) => net.node(a).paused ^= true,
        7 if net.nodes.contains_key(&a) => net.crash(a),
        _ => {
            let start = &mut starts[a as usize - 1];
            if !net.nodes.contains_key(&a) {
                *start += 1;
                net.add(a, identity(a, *start), secret(), Limits::default());
                net.know(a, (1..=count as i32).map(peer).collect());
            }
        }
    }
}

#[test]
fn after_any_trouble_all_find_each_other() {
    let mut received = 0;
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let count = 2 + prng.below(3) as i32;
        let mut net = Net::of(seed, count);
        let mut starts = vec![1; count as usize];
        let mut traffic = Traffic { sequence: 0, seen: BTreeMap::new(), received: 0 };
        net.piece_bytes = [100, 5_000, 65_536][prng.below(3) as usize];
        for _ in 0..60 {
            trouble(&mut net, &mut prng, &mut starts);
            for _ in 0..prng.below(20) {
                traffic.send(&mut net, &mut prng, count);
                net.run(prng.below(20));
                traffic.check(&mut net);
            }
            net.run(prng.below(800));
            traffic.check(&mut net);
        }
        net.cut.clear();
        net.piece_bytes = 65_536;
        for node in 1..=count {
            if let Some(state) = net.nodes.get_mut(&node) {
                state.paused = false;
            } else {
                starts[node as usize - 1] += 1;
                net.add(node, identity(node, starts[node as usize - 1]), secret(), Limits::default());
                net.know(node, (1..=count).map(peer).collect());
            }
        }
        net.run(12_000);
        traffic.check(&mut net);
        net.assert_all_up(&(1..=count).collect::<Vec<_>>());
        let opened: Vec<u64> = net.nodes.values().map(|node| node.peers.counts().opened).collect();
        net.run(20_000);
        let later: Vec<u64> = net.nodes.values().map(|node| node.peers.counts().opened).collect();
        assert_eq!(opened, later, "seed {seed}: quiet stays quiet");
        received += traffic.received;
    }
    assert!(received > 3_000, "{received} frames: the test must carry something");
}
