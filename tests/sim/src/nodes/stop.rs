//! Clean stops: what a node leads is led elsewhere without anybody waiting for a timeout, and its end leaves no gap (rule R12).

use std::cell::RefCell;
use std::collections::BTreeMap;

use pelton_model::PartitionKey;
use pelton_replica::partition::RoleKind;

use super::scenario::{PARTITIONS, STEPS_MAX};
use super::{MS, SECOND, World};

impl World {
    /// Stops a node of a whole cluster. Of each partition it leads, the time without a leader that answers is that of messages
    /// and flushes; so is the time until nobody counts on the node any more.
    pub(super) fn depart(&mut self, id: usize) -> Result<(), String> {
        // Whoever has just come back follows what went on without it only when its next leases come.
        self.pass(SECOND, STEPS_MAX)?;
        // What one that stops has acknowledged alone is not lost with it.
        let first = self.write_to((0..PARTITIONS).map(|partition| ("one", partition)), 1, 4 * MS);
        let pause = self.prng.below(50 * MS);
        self.pass(pause, STEPS_MAX)?;
        // Of whoever follows slowly somebody else may know less than it.
        let slow_ns = if self.prng.one_in(2) { self.prng.below(300 * MS) } else { 0 };
        let other = (id + 1 + self.prng.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        self.network.clog(id, other, self.now_ns + slow_ns);
        let led: Vec<PartitionKey> = self.nodes[id]
            .shards
            .iter()
            .flatten()
            .flat_map(|shard| shard.replicas())
            .filter(|it| it.role == RoleKind::Active)
            .map(|it| it.key)
            .collect();
        self.trace(&format!("{id} is to depart, it leads {}", led.len()));
        let (began_ns, hop_ns) = (self.now_ns, self.network.delay_ns() + 2 * MS);
        let answered: BTreeMap<PartitionKey, u64> = led.iter().map(|key| (*key, began_ns)).collect();
        let (answered, longest) = (RefCell::new(answered), RefCell::new((0, None)));
        let watch = |world: &World| {
            let mut there = true;
            for (key, last_ns) in answered.borrow_mut().iter_mut() {
                let elsewhere = (0..world.nodes.len()).filter(|node| *node != id);
                let elsewhere = elsewhere.filter(|node| world.answers(*node, *key).is_some()).count() > 0;
                there &= elsewhere;
                if elsewhere || world.answers(id, *key).is_some() {
                    let gap_ns = world.now_ns - *last_ns;
                    if gap_ns > longest.borrow().0 {
                        *longest.borrow_mut() = (gap_ns, Some(*key));
                    }
                    *last_ns = world.now_ns;
                }
            }
            there
        };
        self.stop(id);
        self.run_until("a clean stop", 20 * SECOND, STEPS_MAX, |world| {
            watch(world) & world.nodes[id].shards.is_empty()
        })?;
        self.stop_writing(first);
        let took_ns = self.now_ns - began_ns;
        let (gap_ns, key) = longest.into_inner();
        self.summary.stops += 1;
        self.summary.longest_gap_ns = self.summary.longest_gap_ns.max(gap_ns);
        // Released, said, proposed and voted for, applied there: five ways at most, and a batch that was under way before.
        if gap_ns > slow_ns + 8 * hop_ns {
            return Err(format!("{id} stops: nobody leads {key:?} for {} us", gap_ns / 1000));
        }
        if took_ns > SECOND + slow_ns + 40 * hop_ns {
            return Err(format!("{id} takes {} ms to stop", took_ns / MS));
        }
        let ended_ns = self.now_ns;
        self.run_until("another leads the quorum", SECOND / 2, STEPS_MAX, |world| {
            world.nodes.iter().flat_map(|node| node.shards.iter().flatten()).any(|shard| shard.leads_quorum())
        })?;
        // Followers hear with the next record, or after a while, that the last one is committed.
        self.run_until("nobody counts on it", 20 * SECOND, STEPS_MAX, |world| world.is_led(|_, _| true))?;
        let waited_ns = self.now_ns - ended_ns;
        if waited_ns > SECOND {
            return Err(format!("{} ms after {id} has stopped it still counts", waited_ns / MS));
        }
        Ok(())
    }

    /// A node stops when no majority is left to tell: it does not wait for ever.
    pub(super) fn stop_alone(&mut self) -> Result<(), String> {
        let last = self.prng.below(self.nodes.len() as u64) as usize;
        for id in (0..self.nodes.len()).filter(|id| *id != last) {
            self.crash(id, crate::disk::Crash::Kill);
        }
        let pause = self.prng.below(3 * SECOND);
        self.pass(pause, STEPS_MAX)?;
        self.stop(last);
        self.run_until("a stop without a majority", 15 * SECOND, STEPS_MAX, |world| {
            world.nodes[last].shards.is_empty()
        })
    }
}
