//! The uniform assignor: as even as the subscriptions allow over all topics together, and sticky: a partition moves only
//! to even the load. The loads of two members that could swap a partition never differ by more than one.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::TopicId;

use crate::records::Assignment;

use super::apply::partitions;
use super::assignor::{AssignorInput, Targets};

/// Members as numbers, in the order of their ids, and who has each partition.
struct Plan {
    /// Subscribers of each topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
    loads: Vec<usize>,
    owners: BTreeMap<TopicId, Vec<Option<usize>>>,
}

/// Assigns.
pub(crate) fn assign(input: &AssignorInput) -> Targets {
    let mut plan = Plan::keep(input);
    let members: Vec<_> = input.members.values().collect();
    let is_uniform = members.windows(2).all(|pair| pair[0].topics == pair[1].topics);
    if is_uniform {
        plan.cut_to_quota();
    }
    plan.place();
    if !is_uniform {
        plan.even_out();
    }
    plan.targets(input)
}

impl Plan {
    /// Everyone keeps what they had and may still have; of two that had it, the first.
    fn keep(input: &AssignorInput) -> Plan {
        let mut plan =
            Plan { readers: BTreeMap::new(), loads: vec![0; input.members.len()], owners: BTreeMap::new() };
        for (topic, count) in &input.topics {
            plan.owners.insert(*topic, vec![None; (*count).max(0) as usize]);
        }
        for (index, member) in input.members.values().enumerate() {
            for topic in &member.topics {
                plan.readers.entry(*topic).or_default().push(index);
            }
            for (topic, partition) in partitions(&member.previous) {
                let slot = plan.owners.get_mut(&topic).and_then(|owners| owners.get_mut(partition as usize));
                if let Some(slot) = slot
                    && slot.is_none()
                    && member.topics.contains(&topic)
                {
                    *slot = Some(index);
                    plan.loads[index] += 1;
                }
            }
        }
        plan
    }

    /// With equal subscriptions: takes away what is above a member's share. Those that have most keep the extra ones.
    fn cut_to_quota(&mut self) {
        let members = self.loads.len();
        let total: usize = self.owners.values().map(Vec::len).sum();
        if members == 0 {
            return;
        }
        let (each, mut more) = (total / members, total % members);
        let mut quotas = vec![each; members];
        for (index, load) in self.loads.iter().enumerate() {
            if *load > each && more > 0 {
                quotas[index] += 1;
                more -= 1;
            }
        }
        for owners in self.owners.values_mut().rev() {
            for slot in owners.iter_mut().rev() {
                if let Some(owner) = *slot
                    && self.loads[owner] > quotas[owner]
                {
                    *slot = None;
                    self.loads[owner] -= 1;
                }
            }
        }
    }

    /// Gives every free partition to its least loaded subscriber; topics with few subscribers first.
    fn place(&mut self) {
        let mut topics: Vec<TopicId> = self.owners.keys().copied().collect();
        topics.sort_by_key(|topic| self.readers.get(topic).map_or(0, Vec::len));
        for topic in topics {
            let (Some(readers), Some(owners)) = (self.readers.get(&topic), self.owners.get_mut(&topic))
            else {
                continue;
            };
            let mut queue: BTreeSet<(usize, usize)> = readers.iter().map(|r| (self.loads[*r], *r)).collect();
            for slot in owners.iter_mut().filter(|slot| slot.is_none()) {
                let Some((_, reader)) = queue.pop_first() else { break };
                *slot = Some(reader);
                self.loads[reader] += 1;
                queue.insert((self.loads[reader], reader));
            }
        }
    }

    /// Moves partitions from members to less loaded ones until no single move helps. Each move lowers the sum of the
    /// squared loads, so this ends.
    fn even_out(&mut self) {
        loop {
            let mut has_moved = false;
            for (topic, owners) in &mut self.owners {
                let Some(readers) = self.readers.get(topic) else { continue };
                let mut queue: BTreeSet<(usize, usize)> =
                    readers.iter().map(|r| (self.loads[*r], *r)).collect();
                for slot in owners.iter_mut() {
                    let (Some(owner), Some((least, reader))) = (*slot, queue.first().copied()) else {
                        continue;
                    };
                    if self.loads[owner] < least + 2 {
                        continue;
                    }
                    queue.remove(&(least, reader));
                    queue.remove(&(self.loads[owner], owner));
                    self.loads[owner] -= 1;
                    self.loads[reader] += 1;
                    queue.insert((self.loads[owner], owner));
                    queue.insert((self.loads[reader], reader));
                    *slot = Some(reader);
                    has_moved = true;
                }
            }
            if !has_moved {
                return;
            }
        }
    }

    fn targets(&self, input: &AssignorInput) -> Targets {
        let ids: Vec<&String> = input.members.keys().collect();
        let mut targets: Targets = ids.iter().map(|id| ((*id).clone(), Assignment::new())).collect();
        for (topic, owners) in &self.owners {
            for (partition, owner) in owners.iter().enumerate() {
                if let Some(target) = owner.and_then(|owner| targets.get_mut(ids[owner])) {
                    target.entry(*topic).or_default().insert(partition as i32);
                }
            }
        }
        targets
    }
}
