//! The range assignor: each topic's partitions in runs, the first members get one more. Topics with the same subscribers
//! and partition counts are assigned alike, so that members can join them (co-partitioning). Not sticky.

use crate::records::Assignment;

use super::assignor::{AssignorInput, AssignorMember, Targets};

/// Assigns. Static members come first, by instance id, so that they keep their runs under new member ids.
pub(crate) fn assign(input: &AssignorInput) -> Targets {
    let mut targets: Targets = input.members.keys().map(|id| (id.clone(), Assignment::new())).collect();
    let mut order: Vec<(&String, &AssignorMember)> = input.members.iter().collect();
    order.sort_by_key(|(id, member)| (member.instance_id.is_none(), member.instance_id.as_ref(), *id));
    for (topic, partitions) in &input.topics {
        let readers = order.iter().filter(|(_, member)| member.topics.contains(topic));
        let readers: Vec<&String> = readers.map(|(id, _)| *id).collect();
        let count = readers.len() as i32;
        if count == 0 {
            continue;
        }
        let (each, more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (index, id) in readers.into_iter().enumerate() {
            let run = each + i32::from((index as i32) < more);
            if run > 0
                && let Some(target) = targets.get_mut(id)
            {
                target.insert(*topic, (next..next + run).collect());
            }
            next += run;
        }
    }
    targets
}
