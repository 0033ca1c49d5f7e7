//! Deadlines of a coordinator: each key has at most one. Never looks at a clock.

use std::collections::{BTreeMap, BTreeSet};

/// What a deadline is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TimerKey {
    /// Look for expired offsets.
    Expiry,
    /// The join phase of a classic group ends.
    Join(String),
    /// All members must have synced.
    Sync(String),
    /// A member (group, member) must be heard of.
    Session(String, String),
    /// A KIP-848 member (group, member) must have given partitions back, or rejoined if it is a classic one.
    Revocation(String, String),
    /// A classic member (group, member) of a KIP-848 group must ask for its assignment.
    MemberSync(String, String),
}

/// All deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(u64, TimerKey)>,
    by_key: BTreeMap<TimerKey, u64>,
}

impl Timers {
    /// Sets the deadline of `key`, in place of the one it had.
    pub fn set(&mut self, key: TimerKey, deadline_ns: u64) {
        if let Some(old) = self.by_key.insert(key.clone(), deadline_ns) {
            self.queue.remove(&(old, key.clone()));
        }
        self.queue.insert((deadline_ns, key));
    }

    /// Forgets the deadline of `key`.
    pub fn cancel(&mut self, key: &TimerKey) {
        if let Some(old) = self.by_key.remove(key) {
            self.queue.remove(&(old, key.clone()));
        }
    }

    /// True if `key` has a deadline.
    pub fn is_set(&self, key: &TimerKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// The next deadline.
    pub fn first(&self) -> Option<u64> {
        self.queue.first().map(|(deadline_ns, _)| *deadline_ns)
    }

    /// Takes a deadline that has passed.
    pub fn pop(&mut self, now_ns: u64) -> Option<TimerKey> {
        if self.first()? > now_ns {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}
