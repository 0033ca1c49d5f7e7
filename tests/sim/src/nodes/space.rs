//! A full disk of one node while the others are well (row 9): what it led is led elsewhere within messages and flushes, nobody
//! waits for it, and it comes back when there is space. Also while another node has just come back, so that what is known of the
//! partitions changes and the full node may not hear of it.

use std::cell::RefCell;

use super::scenario::{PARTITIONS, STEPS_MAX};
use super::{MS, SECOND, What, World};
use crate::disk::Crash;

/// Longest time that a partition goes without an acknowledgement, nanoseconds: a release, a vote, and clients that ask the full
/// node for the leader some times, which may not know better.
const GAP_NS: u64 = 500 * MS;
/// The same where another node has just come back: until the full node, which does not hear of it, has no lease any more.
const GAP_OF_TWO_NS: u64 = 3_500 * MS;

/// Partitions that are written.
fn written() -> impl Iterator<Item = (&'static str, i32)> {
    let topics = ["all", "one", "trim"].into_iter();
    topics.flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)))
}

impl World {
    /// The disk of one node of a whole cluster is full for a while, and records are written all the time.
    pub(super) fn fill_disk(&mut self) -> Result<(), String> {
        let first = self.write_to(written(), -1, 40 * MS);
        let pause = 100 * MS + self.prng.below(200 * MS);
        self.pass(pause, STEPS_MAX)?;
        let mut id = self.victim();
        let back = if self.prng.one_in(3) { Some(self.come_back(&mut id)?) } else { None };
        self.nodes[id].disk.faults.no_space = true;
        self.trace(&format!("{id} has no space left"));
        if let Some(other) = back {
            self.run_until("a node is back", 60 * SECOND, STEPS_MAX, |world| world.nodes[other].is_ready())?;
        }
        let (lasts_ns, most_ns) =
            if back.is_some() { (5 * SECOND, GAP_OF_TWO_NS) } else { (3 * SECOND / 2, GAP_NS) };
        let (gap_ns, place) = self.longest_gap(lasts_ns)?;
        self.summary.fills += 1;
        self.summary.longest_full_ns = self.summary.longest_full_ns.max(gap_ns);
        if gap_ns > most_ns {
            let ms = gap_ns / MS;
            return Err(format!(
                "{id} is full: nothing of {place:?} is acknowledged for {ms} ms, back {back:?}"
            ));
        }
        self.nodes[id].disk.faults.no_space = false;
        self.trace(&format!("{id} has space again"));
        self.stop_writing(first);
        self.settle("records", 60 * SECOND)?;
        self.make_whole("space again")
    }

    /// Another node is killed and starts again, until a leader has yet to hear what became of its partition: that one is to be
    /// full. Who came back.
    fn come_back(&mut self, id: &mut usize) -> Result<usize, String> {
        let other = (*id + 1 + self.prng.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        self.crash(other, Crash::Kill);
        let delay = self.prng.below(SECOND);
        self.at(delay, What::Start(other));
        let until_ns = self.now_ns + delay + 3 * SECOND;
        self.run_until("news", 60 * SECOND, STEPS_MAX, |world| {
            world.now_ns > until_ns || world.lags(other).is_some()
        })?;
        *id = self.lags(other).unwrap_or(*id);
        Ok(other)
    }

    /// The longest time without an acknowledgement of a partition while so much time passes, and which.
    fn longest_gap(&mut self, lasts_ns: u64) -> Result<(u64, (&'static str, i32)), String> {
        let (began_ns, end_ns) = (self.now_ns, self.now_ns + lasts_ns);
        let of = |world: &World, place: (&'static str, i32)| world.judges.end(place.0, place.1);
        let mut last: Vec<_> = written().map(|place| (place, of(self, place), began_ns)).collect();
        last.sort_unstable();
        let watched = RefCell::new((last, (0, ("", 0))));
        self.run_until("time", lasts_ns + SECOND, STEPS_MAX, |world| {
            let (last, longest) = &mut *watched.borrow_mut();
            for (place, end, at_ns) in last {
                *longest = (*longest).max((world.now_ns - *at_ns, *place));
                let now = of(world, *place);
                if now != *end {
                    (*end, *at_ns) = (now, world.now_ns);
                }
            }
            world.now_ns >= end_ns
        })?;
        Ok(watched.into_inner().1)
    }
}
