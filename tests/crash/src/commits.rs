//! Group members that commit while the broker dies: each commits 1, 2, 3, … and writes down what was acknowledged. What the
//! broker says is committed must be no less than the last one acknowledged and no more than the last one tried.

use pelton_bench::Outcome;
use pelton_bench::group_client::{
    GroupClient, ILLEGAL_GENERATION, MOVES, REBALANCE, UNKNOWN_MEMBER, new_member_id,
};
use pelton_bench::group_frames::Beat;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// FENCED_MEMBER_EPOCH and STALE_MEMBER_EPOCH.
const EPOCHS: [i16; 2] = [110, 113];
/// Wait before each commit: hundreds of kills must not fill the disk.
const PAUSE: Duration = Duration::from_millis(2);
/// How often a member of the new protocol says that it lives.
const BEAT: Duration = Duration::from_millis(500);
/// Longest wait for an answer unless told otherwise, longer than a broker with nothing to do needs.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What one member did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The largest offset that was acknowledged.
    pub acknowledged: i64,
    /// The largest that was tried.
    pub tried: i64,
    /// How often the member joined.
    pub joins: u32,
}

impl Ledger {
    /// What is wrong with `found` (-1: nothing committed), given what was acknowledged before it was asked for; `self` is
    /// the ledger after.
    pub fn fault(&self, acknowledged: i64, found: i64) -> Option<String> {
        // Nothing committed is right as long as nothing was acknowledged.
        let found = found.max(0);
        if found < acknowledged {
            Some(format!("{acknowledged} was acknowledged, {found} is committed"))
        } else if found > self.tried {
            Some(format!("{found} is committed, which nobody committed (up to {})", self.tried))
        } else {
            None
        }
    }
}

/// One group with one member.
#[derive(Debug)]
pub struct Committer {
    pub group: String,
    /// True for a group of KIP-848.
    pub consumer: bool,
    /// One address, or several with commas between.
    pub bootstrap: String,
    pub topic: String,
    /// Longest wait for an answer: a node of a cluster may stand still while another has taken over.
    pub timeout: Duration,
    pub ledger: Mutex<Ledger>,
    /// What no broker may answer.
    pub faults: Mutex<Vec<String>>,
}

/// What a member keeps from one connection to the next.
struct Life {
    member_id: String,
    /// Generation or member epoch; none while it has to join.
    generation: Option<i32>,
    beat: Instant,
}

impl Committer {
    /// A group that has committed nothing.
    pub fn new(group: &str, consumer: bool, bootstrap: &str, topic: &str) -> Committer {
        Committer {
            group: group.to_string(),
            consumer,
            bootstrap: bootstrap.to_string(),
            topic: topic.to_string(),
            timeout: TIMEOUT,
            ledger: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    fn write<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.ledger.lock().unwrap_or_else(|held| held.into_inner()))
    }

    /// The ledger as it is now.
    pub fn snapshot(&self) -> Ledger {
        self.write(|ledger| *ledger)
    }

    /// Commits until told to stop, reconnecting as often as the broker dies.
    pub fn run(&self, stop: &AtomicBool) {
        let member_id = if self.consumer { new_member_id(7) } else { String::new() };
        let mut life = Life { member_id, generation: None, beat: Instant::now() };
        while !stop.load(Ordering::Relaxed) {
            // A broken connection is what a kill looks like.
            let _ = self.session(&mut life, stop);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn session(&self, life: &mut Life, stop: &AtomicBool) -> Outcome<()> {
        let mut client = GroupClient::connect(&self.bootstrap, &self.group, Duration::ZERO, self.timeout)?;
        while !stop.load(Ordering::Relaxed) {
            let generation = self.membership(&mut client, life)?;
            let offset = self.write(|ledger| {
                ledger.tried += 1;
                ledger.tried
            });
            match client.commit(generation, &life.member_id, &self.topic, &[(0, offset)])? {
                0 => self.write(|ledger| ledger.acknowledged = offset),
                UNKNOWN_MEMBER | ILLEGAL_GENERATION | REBALANCE => life.generation = None,
                code if EPOCHS.contains(&code) => life.generation = None,
                // The coordinator is elsewhere or loads.
                code if MOVES.contains(&code) => return Ok(()),
                code => return self.wrong(format!("OffsetCommit: error code {code}")),
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Joins if needed, says that it lives if it is time to, and gives the generation to commit in.
    fn membership(&self, client: &mut GroupClient, life: &mut Life) -> Outcome<i32> {
        if !self.consumer {
            if let Some(generation) = life.generation {
                return Ok(generation);
            }
            let generation = client.join_alone(&mut life.member_id, &self.topic, 1)?;
            self.write(|ledger| ledger.joins += 1);
            life.generation = Some(generation);
            return Ok(generation);
        }
        if let Some(epoch) = life.generation.filter(|_| life.beat.elapsed() < BEAT) {
            return Ok(epoch);
        }
        let epoch = life.generation.unwrap_or(0);
        let joins = epoch == 0;
        let answer = client.beat(&Beat {
            group: &self.group,
            member_id: &life.member_id,
            epoch,
            topic: joins.then_some(&self.topic),
            owned: joins.then_some(([0; 16], &[])),
        })?;
        life.beat = Instant::now();
        match answer.error {
            0 => {
                self.write(|ledger| ledger.joins += u32::from(joins));
                life.generation = Some(answer.epoch);
                Ok(answer.epoch)
            }
            code if code == UNKNOWN_MEMBER || EPOCHS.contains(&code) => {
                life.generation = None;
                Err(format!("error code {code}"))
            }
            code if MOVES.contains(&code) => Err(format!("error code {code}")),
            code => self
                .wrong(format!("ConsumerGroupHeartbeat: error code {code} {}", answer.message))
                .map(|()| 0),
        }
    }

    fn wrong(&self, words: String) -> Outcome<()> {
        self.faults.lock().unwrap_or_else(|held| held.into_inner()).push(words.clone());
        Err(words)
    }

    /// Asks the broker what is committed: the fault, if any, with the offset.
    pub fn check(&self) -> Outcome<(i64, Option<String>)> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let before = self.snapshot();
        loop {
            let mut client =
                GroupClient::connect(&self.bootstrap, &self.group, Duration::from_secs(30), self.timeout)?;
            match client.offsets(&self.topic, &[0])? {
                (0, found) if found.len() == 1 => {
                    let fault = self.snapshot().fault(before.acknowledged, found[0].1);
                    return Ok((found[0].1, fault.map(|fault| format!("group {}: {fault}", self.group))));
                }
                (code, _) if MOVES.contains(&code) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                (code, found) => return Err(format!("OffsetFetch: error code {code}, {found:?}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_went_back_or_came_from_nowhere_is_found() {
        let ledger = Ledger { acknowledged: 9, tried: 10, joins: 1 };
        assert_eq!(ledger.fault(9, 9), None);
        assert_eq!(ledger.fault(9, 10), None);
        assert!(ledger.fault(9, 8).unwrap().contains("9 was acknowledged"));
        assert!(ledger.fault(9, -1).is_some() && ledger.fault(9, 11).is_some());
        assert_eq!(Ledger::default().fault(0, -1), None);
    }
}
