//! Who gets which partitions, when this process leads a classic group: `range` and `roundrobin`, as Kafka's consumers
//! understand them, so that members of any client can be served. Pure.

use std::collections::BTreeMap;

use crate::cli::group::overview::Partitions;

/// The assignors known here, preferred first.
pub const ASSIGNORS: &[&str] = &["range", "roundrobin"];

/// A member as an assignor sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscriber {
    /// Member id.
    pub member_id: String,
    /// Id of a static member: it, not the member id, orders members, so that a restart moves nothing.
    pub instance_id: Option<String>,
    /// Topics.
    pub topics: Vec<String>,
}

/// Distributes the partitions of `counts` (topic → partitions) over the members; every member gets an entry. None if
/// the assignor is not known.
pub fn assign(
    assignor: &str,
    members: &[Subscriber],
    counts: &BTreeMap<String, i32>,
) -> Option<BTreeMap<String, Partitions>> {
    let mut members: Vec<&Subscriber> = members.iter().collect();
    members.sort_by_key(|member| {
        (member.instance_id.is_none(), member.instance_id.clone(), member.member_id.clone())
    });
    let mut given: BTreeMap<String, BTreeMap<String, Vec<i32>>> =
        members.iter().map(|member| (member.member_id.clone(), BTreeMap::new())).collect();
    let mut give = |member: &Subscriber, topic: &str, partition: i32| {
        let topics = given.entry(member.member_id.clone()).or_default();
        topics.entry(topic.to_string()).or_default().push(partition);
    };
    match assignor {
        "range" => range(&members, counts, &mut give),
        "roundrobin" => round_robin(&members, counts, &mut give),
        _ => return None,
    }
    Some(given.into_iter().map(|(id, topics)| (id, topics.into_iter().collect())).collect())
}

/// Each topic's partitions in runs; the first members get one more.
fn range(
    members: &[&Subscriber],
    counts: &BTreeMap<String, i32>,
    give: &mut impl FnMut(&Subscriber, &str, i32),
) {
    for (topic, count) in counts {
        let readers: Vec<&&Subscriber> =
            members.iter().filter(|member| member.topics.contains(topic)).collect();
        let readers_count = readers.len() as i32;
        let mut next = 0;
        for (index, member) in readers.into_iter().enumerate() {
            let more = i32::from((index as i32) < count % readers_count);
            let share = next..next + count / readers_count + more;
            next = share.end;
            share.for_each(|partition| give(member, topic, partition));
        }
    }
}

/// All partitions in turn, each to the next member that reads its topic.
fn round_robin(
    members: &[&Subscriber],
    counts: &BTreeMap<String, i32>,
    give: &mut impl FnMut(&Subscriber, &str, i32),
) {
    let mut turn = 0;
    for (topic, count) in counts {
        if !members.iter().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for partition in 0..*count {
            while !members[turn % members.len()].topics.contains(topic) {
                turn += 1;
            }
            give(members[turn % members.len()], topic, partition);
            turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(member_id: &str, topics: &[&str]) -> Subscriber {
        let topics = topics.iter().map(|topic| topic.to_string()).collect();
        Subscriber { member_id: member_id.into(), instance_id: None, topics }
    }

    fn counts(topics: &[(&str, i32)]) -> BTreeMap<String, i32> {
        topics.iter().map(|(topic, count)| (topic.to_string(), *count)).collect()
    }

    #[test]
    fn every_partition_has_one_owner_who_reads_it() {
        let topics = counts(&[("a", 7), ("b", 1), ("c", 0), ("nobody", 3)]);
        for assignor in ASSIGNORS {
            for members in 1..=5 {
                let subscribers: Vec<Subscriber> = (0..members)
                    .map(|index| subscriber(&format!("m{index}"), [&["a", "b"][..], &["a", "c"]][index % 2]))
                    .collect();
                let given = assign(assignor, &subscribers, &topics).unwrap();
                assert_eq!(given.len(), members, "every member is answered");
                let mut owned: Vec<(String, i32)> = Vec::new();
                for subscriber in &subscribers {
                    for (topic, partitions) in &given[&subscriber.member_id] {
                        assert!(subscriber.topics.contains(topic));
                        owned.extend(partitions.iter().map(|partition| (topic.clone(), *partition)));
                    }
                }
                owned.sort();
                let wanted: Vec<(String, i32)> = (0..7)
                    .map(|partition| ("a".to_string(), partition))
                    .chain([("b".to_string(), 0)])
                    .collect();
                assert_eq!(owned, wanted, "{assignor}, {members} members");
            }
        }
        assert_eq!(assign("sticky", &[], &topics), None);
    }

    #[test]
    fn the_shares_are_those_of_kafkas_assignors() {
        let members = [subscriber("m1", &["a", "b"]), subscriber("m0", &["a", "b"])];
        let topics = counts(&[("a", 3), ("b", 3)]);
        let range = assign("range", &members, &topics).unwrap();
        assert_eq!(range["m0"], [("a".to_string(), vec![0, 1]), ("b".to_string(), vec![0, 1])]);
        assert_eq!(range["m1"], [("a".to_string(), vec![2]), ("b".to_string(), vec![2])]);
        let turns = assign("roundrobin", &members, &topics).unwrap();
        assert_eq!(turns["m0"], [("a".to_string(), vec![0, 2]), ("b".to_string(), vec![1])]);
        assert_eq!(turns["m1"], [("a".to_string(), vec![1]), ("b".to_string(), vec![0, 2])]);
    }

    #[test]
    fn static_members_are_ordered_by_their_own_id() {
        let fixed = |member_id: &str, instance: &str| Subscriber {
            instance_id: Some(instance.into()),
            ..subscriber(member_id, &["a"])
        };
        let members = [fixed("z", "1"), subscriber("b", &["a"]), fixed("a", "2")];
        let given = assign("range", &members, &counts(&[("a", 3)])).unwrap();
        let of = |id: &str| given[id][0].1[0];
        assert_eq!((of("z"), of("a"), of("b")), (0, 1, 2));
    }
}
