//! What must be true of KIP-848 groups: a partition is given to a member only after the one before gave it back or was put
//! out (I16), which is no earlier than a session after the last heartbeat of its that was answered; and epochs never go back.

use std::collections::{BTreeMap, BTreeSet};

/// A group and one of its members.
pub type Who = (String, String);

#[derive(Default)]
struct Hold {
    partitions: BTreeSet<i32>,
    /// Before this time nobody may be given them, whatever became of the member, milliseconds.
    safe_until_ms: i64,
}

/// The judge of owners and epochs.
#[derive(Default)]
pub struct OwnerOracle {
    holds: BTreeMap<Who, Hold>,
    /// Of each member under each of its ids, the last epoch it was told.
    epochs: BTreeMap<(Who, String), i32>,
    /// Of each group, the highest epoch anyone was told.
    highest: BTreeMap<String, i32>,
}

impl OwnerOracle {
    /// A member says that it owns these and no more; it has stopped working with the others.
    pub fn gives_back(&mut self, who: &Who, left: &BTreeSet<i32>) {
        if let Some(hold) = self.holds.get_mut(who) {
            hold.partitions.retain(|partition| left.contains(partition));
        }
    }

    /// A member's heartbeat was answered: it is not put out before this time.
    pub fn lives(&mut self, who: &Who, safe_until_ms: i64) {
        let hold = self.holds.entry(who.clone()).or_default();
        hold.safe_until_ms = hold.safe_until_ms.max(safe_until_ms);
    }

    /// A member is told that it owns these from now on. What it is to give back it holds until it says that it has.
    pub fn given(&mut self, who: &Who, partitions: &BTreeSet<i32>, now_ms: i64) -> Result<(), String> {
        for (other, hold) in self.holds.iter().filter(|(other, _)| other.0 == who.0 && *other != who) {
            let both = hold.partitions.intersection(partitions).next();
            if let Some(both) = both.filter(|_| now_ms < hold.safe_until_ms) {
                return Err(format!(
                    "{}: partition {both} is given to {} at {now_ms}, and {} has it until {} at least",
                    who.0, who.1, other.1, hold.safe_until_ms
                ));
            }
        }
        self.holds.entry(who.clone()).or_default().partitions.extend(partitions);
        Ok(())
    }

    /// What the epoch of a member that joins now may not be below.
    pub fn epoch_floor(&self, group: &str) -> i32 {
        self.highest.get(group).copied().unwrap_or(0)
    }

    /// A member is told its epoch; `floor` as it was when it asked to join.
    pub fn is_at(&mut self, who: &Who, id: &str, epoch: i32, floor: Option<i32>) -> Result<(), String> {
        let last = self.epochs.entry((who.clone(), id.to_string())).or_default();
        if epoch < *last || epoch < floor.unwrap_or(0) || epoch <= 0 {
            return Err(format!(
                "{}: {id} is told epoch {epoch} after {last}, the group had {floor:?}",
                who.0
            ));
        }
        *last = epoch;
        let highest = self.highest.entry(who.0.clone()).or_default();
        *highest = epoch.max(*highest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_and_steps_back_are_noticed() {
        let who = |name: &str| ("g".to_string(), name.to_string());
        let (a, b) = (who("a"), who("b"));
        let mut oracle = OwnerOracle::default();
        oracle.lives(&a, 100);
        assert!(oracle.given(&a, &[0, 1].into(), 10).is_ok());
        assert!(oracle.given(&b, &[1].into(), 99).is_err(), "a has it");
        oracle.gives_back(&a, &[0].into());
        assert!(oracle.given(&b, &[1].into(), 20).is_ok());
        assert!(oracle.given(&b, &[0, 1].into(), 100).is_ok(), "a may have been put out");
        // What is to be given back is held until then.
        oracle.lives(&b, 300);
        assert!(oracle.given(&b, &[].into(), 110).is_ok());
        assert!(oracle.given(&a, &[0].into(), 120).is_err());
        assert!(oracle.is_at(&a, "a", 5, Some(0)).is_ok());
        assert!(oracle.is_at(&a, "a", 4, None).is_err());
        assert!(oracle.is_at(&b, "b", 4, None).is_ok(), "it lags behind");
        assert!(oracle.is_at(&b, "c", 4, Some(oracle.epoch_floor("g"))).is_err(), "it joins");
    }
}
