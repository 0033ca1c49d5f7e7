//! The network between nodes of both simulators of several: frames come late, in another order, twice, or not at all; links are
//! cut, also one way, and between groups of nodes; links are clogged, and hand over what they held when they are free again.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::Prng;

/// Longest time a link is clogged, nanoseconds.
const CLOGGED_NS: u64 = 5_000_000_000;

/// The network.
pub struct Network {
    nodes: usize,
    loss_percent: u64,
    double_percent: u64,
    delay_ns: u64,
    cut: BTreeSet<(usize, usize)>,
    /// Until when frames are held.
    clogged: BTreeMap<(usize, usize), u64>,
    /// When the last frame of each link arrives, if frames keep their order.
    in_order: Option<BTreeMap<(usize, usize), u64>>,
}

impl Network {
    /// Of one run among so many nodes: one of each of these.
    pub fn new(prng: &mut Prng, nodes: usize, loss_percent: &[u64], delays_ns: &[u64]) -> Network {
        let mut one_of = |values: &[u64]| values[prng.below(values.len() as u64) as usize];
        Network {
            nodes,
            loss_percent: one_of(loss_percent),
            double_percent: one_of(&[0, 0, 10, 50]),
            delay_ns: one_of(delays_ns),
            cut: BTreeSet::new(),
            clogged: BTreeMap::new(),
            in_order: None,
        }
    }

    /// In how long the copies of a frame arrive.
    pub fn copies(&mut self, now_ns: u64, from: usize, to: usize, prng: &mut Prng) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || prng.below(100) < self.loss_percent {
            return Vec::new();
        }
        let held_ns = self.clogged.get(&(from, to)).map_or(0, |until| until.saturating_sub(now_ns));
        let count = 1 + usize::from(prng.below(100) < self.double_percent);
        let mut delay = || {
            let delay_ns = held_ns + 50_000 + prng.below(self.delay_ns);
            let Some(last_ns) = self.in_order.as_mut().map(|links| links.entry((from, to)).or_default())
            else {
                return delay_ns;
            };
            *last_ns = (*last_ns + 1).max(now_ns + delay_ns);
            *last_ns - now_ns
        };
        (0..count).map(|_| delay()).collect()
    }

    /// Cuts or clogs some links, or mends one, or all.
    pub fn change(&mut self, now_ns: u64, prng: &mut Prng) -> String {
        if !self.cut.is_empty() && prng.one_in(2) {
            if prng.one_in(3) {
                let mended = prng.below(self.cut.len() as u64) as usize;
                let link = self.cut.iter().nth(mended).copied();
                self.cut.retain(|other| Some(*other) != link);
                return format!("link mended {link:?}, cut {:?}", self.cut);
            }
            self.cut.clear();
            return "links mended".to_string();
        }
        let nodes = self.nodes;
        let one = prng.below(nodes as u64) as usize;
        let other = (one + 1 + prng.below(nodes as u64 - 1) as usize) % nodes;
        let both = |one: usize, other: usize| [(one, other), (other, one)];
        let others: Vec<usize> = (0..nodes).filter(|other| *other != one).collect();
        match prng.below(7) {
            0 => self.cut.extend([(one, other)]),
            1 => self.cut.extend(both(one, other)),
            2 | 3 => self.cut.extend(others.iter().flat_map(|other| both(one, *other))),
            // Two groups; with a bridge, one node hears both.
            4 => {
                let bridge = prng.one_in(2).then_some(one);
                let sides: Vec<bool> = (0..nodes).map(|_| prng.one_in(2)).collect();
                let apart = |it: &(usize, usize)| sides[it.0] != sides[it.1];
                let links = (0..nodes).flat_map(|here| (0..nodes).map(move |there| (here, there)));
                let bridged = |it: &(usize, usize)| Some(it.0) != bridge && Some(it.1) != bridge;
                self.cut.extend(links.filter(apart).filter(bridged));
            }
            _ => {
                let until_ns = now_ns + prng.below(CLOGGED_NS);
                let all = prng.one_in(3);
                let links = others.iter().filter(|it| all || **it == other).map(|it| (one, *it));
                self.clogged.extend(links.map(|link| (link, until_ns)));
                return format!("links clogged {:?}", self.clogged);
            }
        }
        format!("links cut {:?}", self.cut)
    }

    /// Longest time a frame takes, nanoseconds.
    pub fn delay_ns(&self) -> u64 {
        50_000 + self.delay_ns
    }

    /// Holds what goes this way for so long.
    pub fn clog(&mut self, from: usize, to: usize, until_ns: u64) {
        self.clogged.insert((from, to), until_ns);
    }

    /// From now on frames of a link arrive in the order in which they were sent, as those of a connection do: what comes late is
    /// late because of the network, not because a gap was found and mended.
    pub fn keep_order(&mut self) {
        self.in_order = Some(BTreeMap::new());
    }

    /// No more faults.
    pub fn heal(&mut self) {
        (self.loss_percent, self.double_percent) = (0, 0);
        self.cut.clear();
        self.clogged.clear();
    }
}
