//! What must be true of groups: one owner per partition and generation (I16), commits of another generation refused
//! (I16), and each committed offset a register that is read as if every commit and read happened at one moment (I15): an
//! acknowledged commit is never lost, a read never goes back.

use std::collections::{BTreeMap, BTreeSet};

use crate::owner_oracle::OwnerOracle;

/// A committed offset: group, topic, partition.
pub type Register = (String, String, i32);

struct Write {
    begun: u64,
    acknowledged: Option<u64>,
}

/// A value somebody was told, and when.
struct Read {
    ended: u64,
    offset: i64,
}

#[derive(Default)]
struct History {
    writes: BTreeMap<i64, Write>,
    reads: Vec<Read>,
}

/// The judge of groups.
#[derive(Default)]
pub struct GroupOracle {
    clock: u64,
    next_offset: i64,
    registers: BTreeMap<Register, History>,
    /// Who owns what in (group, generation).
    owners: BTreeMap<(String, i32), BTreeMap<(String, i32), String>>,
    /// Who owns what in KIP-848 groups.
    pub holders: OwnerOracle,
    /// Commits acknowledged.
    pub commits: u64,
    /// Assignments given out.
    pub assignments: u64,
}

impl GroupOracle {
    /// The moment of a question or an answer.
    pub fn moment(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// An offset nobody has committed before, and its commit begins.
    pub fn commit_begins(&mut self, register: &Register) -> i64 {
        let begun = self.moment();
        self.next_offset += 1;
        let write = Write { begun, acknowledged: None };
        self.registers.entry(register.clone()).or_default().writes.insert(self.next_offset, write);
        self.next_offset
    }

    /// A commit was acknowledged.
    pub fn committed(&mut self, register: &Register, offset: i64) {
        let now = self.moment();
        self.commits += 1;
        let history = self.registers.entry(register.clone()).or_default();
        if let Some(write) = history.writes.get_mut(&offset) {
            write.acknowledged.get_or_insert(now);
        }
    }

    /// A read that was begun at `begun` has answered `offset`; -1 = nothing is committed.
    pub fn fetched(&mut self, register: &Register, begun: u64, offset: i64) -> Result<(), String> {
        let ended = self.moment();
        let history = self.registers.entry(register.clone()).or_default();
        let place = format!("{register:?}");
        let written = match history.writes.get(&offset) {
            Some(write) => (write.begun, write.acknowledged.unwrap_or(u64::MAX)),
            None if offset == -1 => (0, 0),
            None => return Err(format!("{place}: {offset} was never committed")),
        };
        // A commit that began after the one that was read had ended, and ended before the question, is newer.
        for (newer, write) in &history.writes {
            if write.begun > written.1 && write.acknowledged.is_some_and(|at| at < begun) {
                return Err(format!("{place}: {newer} was acknowledged, and {offset} of before is read"));
            }
        }
        // So is one that somebody was told of before the question.
        for read in history.reads.iter().filter(|read| read.ended < begun && read.offset != offset) {
            let Some(newer) = history.writes.get(&read.offset) else { continue };
            // It was there when it was read at the latest; what is read now had ended before it began.
            if newer.begun > written.1 {
                return Err(format!("{place}: {} was read, and then {offset} of before", read.offset));
            }
        }
        if offset == -1 && history.reads.iter().any(|read| read.ended < begun && read.offset != -1) {
            return Err(format!("{place}: there was an offset, and then none"));
        }
        history.reads.push(Read { ended, offset });
        Ok(())
    }

    /// A member was given partitions.
    pub fn assigned(
        &mut self,
        group: &str,
        generation: i32,
        member: &str,
        partitions: &BTreeSet<(String, i32)>,
    ) -> Result<(), String> {
        self.assignments += 1;
        let owners = self.owners.entry((group.to_string(), generation)).or_default();
        for partition in partitions {
            let before = owners.insert(partition.clone(), member.to_string());
            if let Some(before) = before.filter(|before| before != member) {
                return Err(format!(
                    "{group} generation {generation}: {before} and {member} own {partition:?}"
                ));
            }
        }
        Ok(())
    }

    /// Every register there is.
    pub fn registers(&self) -> Vec<Register> {
        self.registers.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_commit_a_step_back_and_two_owners_are_noticed() {
        let register = ("g".to_string(), "t".to_string(), 0);
        let mut oracle = GroupOracle::default();
        let first = oracle.commit_begins(&register);
        oracle.committed(&register, first);
        let second = oracle.commit_begins(&register);
        let asked = oracle.moment();
        assert!(oracle.fetched(&register, asked, first).is_ok(), "the second is under way");
        let asked = oracle.moment();
        assert!(oracle.fetched(&register, asked, second).is_ok());
        let asked = oracle.moment();
        assert!(oracle.fetched(&register, asked, first).is_err(), "a step back");
        let asked = oracle.moment();
        assert!(oracle.fetched(&register, asked, -1).is_err(), "a lost commit");
        let mine: BTreeSet<_> = [("t".to_string(), 0)].into();
        assert!(oracle.assigned("g", 1, "a", &mine).is_ok());
        assert!(oracle.assigned("g", 2, "b", &mine).is_ok());
        assert!(oracle.assigned("g", 2, "a", &mine).is_err());
    }
}
