//! What travels between nodes, controller and disks, and when it arrives.

use pelton_model::{LeaderEpoch, PartitionEpoch, PartitionState, Prng, Replica, ReplicaEpoch};

use super::plan::Plan;
use crate::effect::IsrProposal;

/// The controller's place in the network, behind all nodes.
pub const CONTROLLER: usize = 7;
const PLACES: usize = 8;

/// A message.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between replicas: a frame's bytes, and the batches beside it.
    Frame {
        bytes: Vec<u8>,
        batches: Vec<u8>,
    },
    /// A process has started; `unclean` if it knows that it may have lost what it wrote.
    Register {
        life: u64,
        unclean: bool,
    },
    Registered {
        life: u64,
        epoch: ReplicaEpoch,
    },
    Renew {
        sequence: u64,
        epoch: ReplicaEpoch,
        applied: u64,
    },
    Grant {
        sequence: u64,
        epoch: ReplicaEpoch,
    },
    Metadata {
        index: u64,
        state: PartitionState,
        predecessor_gone: bool,
    },
    Propose {
        epoch: ReplicaEpoch,
        proposal: IsrProposal,
    },
    Refused {
        partition_epoch: PartitionEpoch,
    },
    Transfer {
        leader_epoch: LeaderEpoch,
        target: Replica,
    },
    Release {
        epoch: ReplicaEpoch,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        target: Replica,
    },
}

/// Loses, doubles, delays, and cuts one way or both.
pub struct Network {
    loss_percent: u64,
    double_percent: u64,
    delay_us_max: u64,
    blocked: [[bool; PLACES]; PLACES],
}

impl Network {
    pub fn new(plan: &Plan) -> Network {
        Network {
            loss_percent: plan.loss_percent,
            double_percent: plan.double_percent,
            delay_us_max: plan.delay_us_max,
            blocked: [[false; PLACES]; PLACES],
        }
    }

    /// Delays of the copies that arrive, nanoseconds.
    pub fn copies(&self, from: usize, to: usize, prng: &mut Prng) -> Vec<u64> {
        let mut delays = Vec::new();
        if self.blocked[from][to] || prng.below(100) < self.loss_percent {
            return delays;
        }
        let copies = if prng.below(100) < self.double_percent { 2 } else { 1 };
        for _ in 0..copies {
            // Mostly quick; sometimes as slow as it gets.
            let max = if prng.one_in(8) { self.delay_us_max } else { self.delay_us_max.min(1_000) };
            delays.push((50 + prng.below(max)) * 1_000);
        }
        delays
    }

    pub fn heal(&mut self) {
        self.blocked = [[false; PLACES]; PLACES];
    }

    /// No more faults.
    pub fn be_good(&mut self) {
        self.heal();
        (self.loss_percent, self.double_percent) = (0, 0);
        // In order, as on one connection.
        self.delay_us_max = 1;
    }

    /// A new fault of the links among `nodes` nodes and the controller.
    pub fn break_links(&mut self, nodes: usize, prng: &mut Prng) {
        let places: Vec<usize> = (0..nodes).chain([CONTROLLER]).collect();
        let victim = prng.below(nodes as u64) as usize;
        let (out, into) = match prng.below(3) {
            0 => (true, true),
            1 => (true, false),
            _ => (false, true),
        };
        // From all others, from the controller alone, or from the other nodes alone.
        let which = prng.below(3);
        for other in places {
            let hit = match which {
                0 => true,
                1 => other == CONTROLLER,
                _ => other != CONTROLLER,
            };
            if other != victim && hit {
                self.blocked[victim][other] |= out;
                self.blocked[other][victim] |= into;
            }
        }
    }
}
