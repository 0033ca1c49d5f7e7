//! Where members of a group write down what they hold, and where it is seen when the group is settled: every member in the
//! same generation, every partition with exactly one of them, none with more than one above its share.

use crate::Outcome;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What a member holds: generation (or member epoch) and partitions.
pub type Holding = (i32, Vec<i32>);

#[derive(Debug, Default)]
struct State {
    holdings: Vec<Option<Holding>>,
    partitions: i32,
    /// Members that the group shall have; 0: nobody waits.
    expected: usize,
    settled_at: Option<Instant>,
    /// When the first request was sent.
    began_at: Option<Instant>,
    /// Per member: whether it is to leave, and when it did.
    leaves: Vec<bool>,
    left_at: Option<Instant>,
    failure: Option<String>,
}

/// The board of one group.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    /// For `members` members that share `partitions` partitions of one topic.
    pub fn new(members: usize, partitions: i32) -> Board {
        let state = State {
            holdings: vec![None; members],
            leaves: vec![false; members],
            partitions,
            ..State::default()
        };
        Board { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|held| held.into_inner())
    }

    /// A member's first request goes out now.
    pub fn begins(&self) {
        let mut state = self.lock();
        state.began_at.get_or_insert_with(Instant::now);
    }

    /// What `member` holds now; none while it holds nothing for sure.
    pub fn post(&self, member: usize, holding: Option<Holding>) {
        let mut state = self.lock();
        if state.holdings[member] == holding {
            return;
        }
        state.holdings[member] = holding;
        if state.expected > 0 && state.settled_at.is_none() && settled(&state) {
            state.settled_at = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// The request with which `member` leaves goes out now.
    pub fn leaves_now(&self, member: usize) {
        let mut state = self.lock();
        state.left_at = Some(Instant::now());
        state.holdings[member] = None;
    }

    /// Something went wrong; the first such wins.
    pub fn fail(&self, words: String) {
        let mut state = self.lock();
        state.failure.get_or_insert(words);
        self.changed.notify_all();
    }

    /// Waits at most `interval`: true when `member` is to leave.
    pub fn told_to_leave(&self, member: usize, interval: Duration) -> bool {
        let state = self.lock();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, interval, |state| !state.leaves[member] && state.failure.is_none())
            .unwrap_or_else(|held| held.into_inner());
        state.leaves[member] || state.failure.is_some()
    }

    /// Tells members to leave.
    pub fn tell_to_leave(&self, members: std::ops::Range<usize>) {
        self.lock().leaves[members].fill(true);
        self.changed.notify_all();
    }

    /// Says that the group shall have `members` members; to be called before the change that leads to it.
    pub fn expect(&self, members: usize) {
        let mut state = self.lock();
        (state.expected, state.settled_at) = (members, None);
    }

    /// Waits until the group is settled: since the first request or, if one has left, since then.
    pub fn settle(&self, patience: Duration) -> Outcome<Duration> {
        let state = self.lock();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, patience, |state| {
                state.settled_at.is_none() && state.failure.is_none()
            })
            .unwrap_or_else(|held| held.into_inner());
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let since = state.left_at.or(state.began_at);
        match (state.settled_at, since) {
            (Some(settled_at), Some(since)) => Ok(settled_at.duration_since(since)),
            _ => Err(format!(
                "not settled with {} members within {patience:?}: {}",
                state.expected,
                told(&state)
            )),
        }
    }
}

fn settled(state: &State) -> bool {
    let holdings: Vec<&Holding> = state.holdings.iter().flatten().collect();
    let count = state.expected as i32;
    let (least, most) = (state.partitions / count, (state.partitions + count - 1) / count);
    let even = |holding: &&Holding| (least..=most).contains(&(holding.1.len() as i32));
    if holdings.len() != state.expected
        || holdings.iter().any(|holding| holding.0 != holdings[0].0)
        || !holdings.iter().all(even)
    {
        return false;
    }
    let mut owned: Vec<i32> = holdings.iter().flat_map(|holding| holding.1.iter().copied()).collect();
    owned.sort_unstable();
    owned == (0..state.partitions).collect::<Vec<i32>>()
}

fn told(state: &State) -> String {
    let holding = |holding: &Option<Holding>| match holding {
        None => "-".to_string(),
        Some((generation, partitions)) => format!("{}@{generation}", partitions.len()),
    };
    state.holdings.iter().map(holding).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_settled_group_is_settled() {
        let board = Board::new(2, 3);
        board.begins();
        board.expect(2);
        let is_settled = |board: &Board| board.lock().settled_at.is_some();
        for (first, second) in [
            (Some((2, vec![0, 1])), None),
            (Some((2, vec![0, 1])), Some((1, vec![2]))),
            (Some((2, vec![0, 1])), Some((2, vec![1]))),
            (Some((2, vec![0, 1])), Some((2, vec![1, 2]))),
            (Some((2, vec![0, 1, 2])), Some((2, vec![]))),
            (Some((2, vec![0])), Some((2, vec![2]))),
        ] {
            board.post(0, first);
            board.post(1, second);
            assert!(!is_settled(&board));
        }
        board.post(1, Some((2, vec![1, 2])));
        assert!(is_settled(&board));
        board.expect(1);
        board.leaves_now(1);
        assert!(!is_settled(&board));
        board.post(0, Some((3, vec![0, 1, 2])));
        assert!(is_settled(&board) && board.settle(Duration::ZERO).is_ok());
    }

    #[test]
    fn a_failure_ends_the_waiting() {
        let board = Board::new(1, 1);
        board.expect(1);
        assert!(board.settle(Duration::from_millis(1)).unwrap_err().contains("not settled"));
        board.fail("broken".into());
        assert_eq!(board.settle(Duration::from_secs(9)), Err("broken".into()));
        assert!(board.told_to_leave(0, Duration::from_secs(9)));
    }
}
