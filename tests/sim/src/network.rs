//! The network between nodes of both simulators of several: frames come late, twice, or not at all; links are cut, also one way.

use std::collections::BTreeSet;

use pelton_model::Prng;

/// The network.
pub struct Network {
    nodes: usize,
    loss_percent: u64,
    double_percent: u64,
    delay_ns: u64,
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// Of one run among so many nodes: one of each of these.
    pub fn new(prng: &mut Prng, nodes: usize, loss_percent: &[u64], delays_ns: &[u64]) -> Network {
        let mut one_of = |values: &[u64]| values[prng.below(values.len() as u64) as usize];
        Network {
            nodes,
            loss_percent: one_of(loss_percent),
            double_percent: one_of(&[0, 10]),
            delay_ns: one_of(delays_ns),
            cut: BTreeSet::new(),
        }
    }

    /// When the copies of a frame arrive.
    pub fn copies(&self, from: usize, to: usize, prng: &mut Prng) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || prng.below(100) < self.loss_percent {
            return Vec::new();
        }
        let count = 1 + usize::from(prng.below(100) < self.double_percent);
        (0..count).map(|_| 50_000 + prng.below(self.delay_ns)).collect()
    }

    /// Cuts some links, or mends all.
    pub fn change(&mut self, prng: &mut Prng) -> String {
        if !self.cut.is_empty() && prng.one_in(2) {
            self.cut.clear();
            return "links mended".to_string();
        }
        let nodes = self.nodes;
        let one = prng.below(nodes as u64) as usize;
        let other = (one + 1 + prng.below(nodes as u64 - 1) as usize) % nodes;
        match prng.below(3) {
            0 => self.cut.extend([(one, other)]),
            1 => self.cut.extend([(one, other), (other, one)]),
            _ => {
                for other in (0..nodes).filter(|other| *other != one) {
                    self.cut.extend([(one, other), (other, one)]);
                }
            }
        }
        format!("links cut {:?}", self.cut)
    }

    /// Longest time a frame takes, nanoseconds.
    pub fn delay_ns(&self) -> u64 {
        50_000 + self.delay_ns
    }

    /// No more faults.
    pub fn heal(&mut self) {
        (self.loss_percent, self.double_percent) = (0, 0);
        self.cut.clear();
    }
}
