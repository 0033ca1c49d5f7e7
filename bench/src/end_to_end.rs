//! Joins what producers intended with what consumers saw: the time from a batch's intended send to its arrival at each
//! consumer. Acknowledgement and arrival may come in either order. Never looks at bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most consumers of one run.
pub const CONSUMERS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Intended send, and whether it lies in the measured window.
    intended: Option<(Instant, bool)>,
    arrived: [Option<Instant>; CONSUMERS_MAX],
}

/// One partition's batches between the first that some consumer lacks and the last that was acknowledged or seen.
#[derive(Debug)]
pub struct Timeline {
    start: i64,
    records: i64,
    consumers: usize,
    /// Number of the first slot.
    first: usize,
    slots: VecDeque<Slot>,
}

impl Timeline {
    /// From offset `start` on, batches of `records`, seen by `consumers` consumers.
    pub fn new(start: i64, records: i64, consumers: usize) -> Timeline {
        Timeline { start, records, consumers: consumers.min(CONSUMERS_MAX), first: 0, slots: VecDeque::new() }
    }

    fn slot(&mut self, offset: i64) -> Option<&mut Slot> {
        let number = usize::try_from((offset - self.start) / self.records).ok()?;
        let place = number.checked_sub(self.first)?;
        if offset < self.start || place > 10_000_000 {
            return None;
        }
        if place >= self.slots.len() {
            self.slots.resize(place + 1, Slot::default());
        }
        self.slots.get_mut(place)
    }

    /// The batch at `offset` was acknowledged; gives `latency` to every consumer's arrival that is known already.
    pub fn acknowledged(
        &mut self,
        offset: i64,
        intended: Instant,
        measured: bool,
        mut latency: impl FnMut(Duration),
    ) {
        if self.consumers == 0 {
            return;
        }
        if let Some(slot) = self.slot(offset) {
            slot.intended = Some((intended, measured));
            if measured {
                slot.arrived.iter().flatten().for_each(|at| latency(at.saturating_duration_since(intended)));
            }
        }
        self.trim();
    }

    /// The batch at `offset` reached `consumer`.
    pub fn arrived(&mut self, offset: i64, consumer: usize, now: Instant, mut latency: impl FnMut(Duration)) {
        if consumer >= self.consumers {
            return;
        }
        if let Some(slot) = self.slot(offset) {
            slot.arrived[consumer] = Some(now);
            if let Some((intended, true)) = slot.intended {
                latency(now.saturating_duration_since(intended));
            }
        }
        self.trim();
    }

    fn trim(&mut self) {
        let consumers = self.consumers;
        let whole =
            |slot: &Slot| slot.intended.is_some() && slot.arrived[..consumers].iter().all(Option::is_some);
        while self.slots.front().is_some_and(whole) {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_order_and_each_consumer_once() {
        let mut line = Timeline::new(100, 10, 2);
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        let mut seen = Vec::new();
        line.arrived(110, 0, at(5), |d| seen.push(d.as_millis()));
        line.acknowledged(110, at(1), true, |d| seen.push(d.as_millis()));
        line.acknowledged(100, at(0), true, |d| seen.push(d.as_millis()));
        line.arrived(100, 0, at(3), |d| seen.push(d.as_millis()));
        line.arrived(100, 1, at(9), |d| seen.push(d.as_millis()));
        line.arrived(110, 1, at(8), |d| seen.push(d.as_millis()));
        assert_eq!(seen, [4, 3, 9, 7]);
        assert_eq!((line.first, line.slots.len()), (2, 0));
        line.arrived(90, 0, at(9), |_| panic!("before the start"));
        line.acknowledged(120, at(9), false, |_| panic!("not measured"));
        line.arrived(120, 0, at(10), |_| panic!("not measured"));
    }
}
