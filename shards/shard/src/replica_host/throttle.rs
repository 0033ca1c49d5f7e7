//! How fast a shard may send and take what followers lack that are not in sync (KIP-73): an operator moves replicas without
//! harm to everyone else. What is read may be sent and taken whole; the next waits until the rate allows it.

const SECOND_NS: u64 = 1_000_000_000;

/// Bytes per second of one side.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// None = as many as there are.
    bytes_per_s: Option<u64>,
    /// What may pass now, bytes; below zero, what has passed too early.
    room: i64,
    at_ns: u64,
}

impl Rate {
    /// From now on at this rate.
    pub fn set(&mut self, bytes_per_s: Option<u64>) {
        if self.bytes_per_s != bytes_per_s {
            *self = Rate { bytes_per_s, room: 0, at_ns: self.at_ns };
        }
    }

    /// When something may pass, nanoseconds; none = now.
    pub fn wait_ns(&mut self, now_ns: u64) -> Option<u64> {
        let rate = i128::from(self.bytes_per_s?);
        let passed_ns = i128::from(now_ns.saturating_sub(self.at_ns).min(SECOND_NS * 3600));
        let more = passed_ns * rate / i128::from(SECOND_NS);
        // At most a second's worth is saved up; the clock goes on only by what was counted, or slow rates would come to nothing.
        if more > 0 || rate == 0 {
            self.room = (i128::from(self.room) + more).min(rate.max(1)) as i64;
            self.at_ns = now_ns;
        }
        if self.room > 0 {
            return None;
        }
        let missing_ns = match rate {
            0 => i128::from(SECOND_NS),
            rate => (1 - i128::from(self.room)) * i128::from(SECOND_NS) / rate + 1,
        };
        Some(now_ns.saturating_add(missing_ns.min(i128::from(u64::MAX)) as u64))
    }

    /// So many bytes have passed.
    pub fn take(&mut self, bytes: usize) {
        if self.bytes_per_s.is_some() {
            self.room = self.room.saturating_sub_unsigned(bytes as u64);
        }
    }

    /// Bytes worth reading at a time: no more than a second's worth.
    pub fn piece(&self, bytes: usize) -> usize {
        self.bytes_per_s.map_or(bytes, |rate| bytes.min((rate as usize).max(1)))
    }
}

/// Both sides of a shard.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    /// What leaders here send.
    pub leader: Rate,
    /// What followers here take.
    pub follower: Rate,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_has_passed_too_early_is_waited_for() {
        let mut rate = Rate::default();
        assert_eq!(rate.wait_ns(5), None, "no rate is set");
        rate.set(Some(1000));
        assert_eq!(rate.wait_ns(10_000 * MS), None, "a second's worth is saved up at most");
        rate.take(3000);
        let at = rate.wait_ns(10_000 * MS).unwrap();
        assert!((12_000 * MS..12_010 * MS).contains(&at), "{at}");
        assert_eq!(rate.wait_ns(at - MS).map(|ns| ns / MS), Some(at / MS));
        assert_eq!(rate.wait_ns(at), None);
        assert_eq!(rate.piece(1 << 20), 1000);
    }

    #[test]
    fn slow_rates_are_kept_however_often_one_looks() {
        let mut rate = Rate::default();
        rate.set(Some(10));
        assert_eq!(rate.wait_ns(1000 * MS), None);
        rate.take(20);
        let due = (1..10_000).find(|ms| rate.wait_ns((1000 + ms) * MS).is_none()).unwrap();
        assert!((1000..1300).contains(&due), "{due}");
    }

    #[test]
    fn nothing_passes_at_a_rate_of_nothing() {
        let mut rate = Rate::default();
        rate.set(Some(0));
        assert!(rate.wait_ns(3600 * 1000 * MS).is_some());
        rate.set(None);
        assert_eq!(rate.wait_ns(3600 * 1000 * MS), None);
    }
}
