//! Assignors: every partition to exactly one subscriber, evenly, and with few moves.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{Prng, TopicId};

use super::apply::partitions;
use super::assignor::{AssignorInput, AssignorMember, Targets, assign};
use super::tests_kit::{assignment, topic};

fn input(topics: &[(u64, i32)], members: &[(&str, &[u64])]) -> AssignorInput {
    let member = |(id, reads): &(&str, &[u64])| {
        let topics = reads.iter().map(|number| topic(*number)).collect();
        (id.to_string(), AssignorMember { topics, ..Default::default() })
    };
    AssignorInput {
        members: members.iter().map(member).collect(),
        topics: topics.iter().map(|(number, count)| (topic(*number), *count)).collect(),
    }
}

fn loads(targets: &Targets) -> Vec<usize> {
    targets.values().map(|target| partitions(target).count()).collect()
}

/// Every partition that somebody reads has one owner, who reads it.
fn check_complete(input: &AssignorInput, targets: &Targets) {
    let mut owners: BTreeMap<(TopicId, i32), &String> = BTreeMap::new();
    for (member, target) in targets {
        for partition in partitions(target) {
            assert!(owners.insert(partition, member).is_none(), "two owners of {partition:?}");
            assert!(input.members[member].topics.contains(&partition.0), "not subscribed");
            assert!(partition.1 >= 0 && partition.1 < input.topics[&partition.0]);
        }
    }
    let read: BTreeSet<TopicId> = input.members.values().flat_map(|member| member.topics.clone()).collect();
    let wanted: i32 = input.topics.iter().filter(|(id, _)| read.contains(id)).map(|(_, count)| count).sum();
    assert_eq!(owners.len() as i32, wanted);
}

fn remember(input: &mut AssignorInput, targets: &Targets) {
    for (id, member) in &mut input.members {
        member.previous = targets.get(id).cloned().unwrap_or_default();
    }
}

fn moves(before: &Targets, after: &Targets) -> usize {
    let owner = |targets: &Targets, partition: (TopicId, i32)| {
        targets.iter().find(|(_, t)| partitions(t).any(|p| p == partition)).map(|(id, _)| id.clone())
    };
    let all: Vec<_> = before.values().flat_map(partitions).collect();
    all.into_iter().filter(|p| owner(before, *p) != owner(after, *p)).count()
}

#[test]
fn uniform_is_even() {
    let input = input(&[(1, 7), (2, 4)], &[("a", &[1, 2]), ("b", &[1, 2]), ("c", &[1, 2])]);
    let targets = assign("uniform", &input);
    check_complete(&input, &targets);
    assert_eq!(loads(&targets).iter().max().unwrap() - loads(&targets).iter().min().unwrap(), 1);
}

#[test]
fn uniform_moves_only_what_a_newcomer_gets() {
    let mut three = input(&[(1, 12)], &[("a", &[1]), ("b", &[1]), ("c", &[1])]);
    let before = assign("uniform", &three);
    remember(&mut three, &before);
    assert_eq!(assign("uniform", &three), before, "nothing changed, nothing moves");
    let mut four = input(&[(1, 12)], &[("a", &[1]), ("b", &[1]), ("c", &[1]), ("d", &[1])]);
    remember(&mut four, &before);
    let after = assign("uniform", &four);
    assert_eq!(loads(&after), [3, 3, 3, 3]);
    assert_eq!(moves(&before, &after), 3);
    let mut two = input(&[(1, 12)], &[("a", &[1]), ("c", &[1])]);
    remember(&mut two, &before);
    let after = assign("uniform", &two);
    assert_eq!(loads(&after), [6, 6]);
    assert_eq!(moves(&before, &after), 4, "only those of the member that left");
}

#[test]
fn uniform_with_unlike_subscriptions() {
    let input = input(&[(1, 4), (2, 4)], &[("a", &[1, 2]), ("b", &[1]), ("c", &[2])]);
    let targets = assign("uniform", &input);
    check_complete(&input, &targets);
    assert_eq!(loads(&targets).iter().sum::<usize>(), 8);
    assert!(loads(&targets).iter().all(|load| (2..=3).contains(load)), "{:?}", loads(&targets));
}

#[test]
fn uniform_gives_nothing_away_that_is_gone() {
    let mut input = input(&[(1, 2)], &[("a", &[1]), ("b", &[1])]);
    // From before: a partition that is gone, a topic that is gone, and a partition two members claim.
    input.members.get_mut("a").unwrap().previous = assignment(&[(topic(1), &[1, 5, -1]), (topic(9), &[0])]);
    input.members.get_mut("b").unwrap().previous = assignment(&[(topic(1), &[1])]);
    let targets = assign("uniform", &input);
    check_complete(&input, &targets);
    assert_eq!(targets["a"], assignment(&[(topic(1), &[1])]));
    assert_eq!(targets["b"], assignment(&[(topic(1), &[0])]));
}

#[test]
fn range_gives_runs() {
    let both = input(&[(1, 5), (2, 5)], &[("a", &[1, 2]), ("b", &[1, 2])]);
    let targets = assign("range", &both);
    check_complete(&both, &targets);
    assert_eq!(targets["a"], assignment(&[(topic(1), &[0, 1, 2]), (topic(2), &[0, 1, 2])]));
    assert_eq!(targets["b"], assignment(&[(topic(1), &[3, 4]), (topic(2), &[3, 4])]));
    let few = input(&[(1, 1)], &[("a", &[1]), ("b", &[1])]);
    let targets = assign("range", &few);
    assert_eq!(loads(&targets), [1, 0]);
    let unlike = input(&[(1, 3), (2, 2)], &[("a", &[1]), ("b", &[1, 2])]);
    let targets = assign("range", &unlike);
    check_complete(&unlike, &targets);
    assert_eq!(targets["b"], assignment(&[(topic(1), &[2]), (topic(2), &[0, 1])]));
}

#[test]
fn range_puts_static_members_first() {
    let mut input = input(&[(1, 3)], &[("a", &[1]), ("z", &[1])]);
    input.members.get_mut("z").unwrap().instance_id = Some("i".to_string());
    let targets = assign("range", &input);
    assert_eq!(targets["z"], assignment(&[(topic(1), &[0, 1])]));
}

#[test]
fn any_group_is_assigned_completely() {
    let mut random = Prng::new(848);
    for _ in 0..300 {
        let topics = 1 + random.below(4);
        let counts: Vec<(u64, i32)> = (1..=topics).map(|number| (number, random.below(9) as i32)).collect();
        let ids: Vec<String> = (0..1 + random.below(6)).map(|number| format!("m{number}")).collect();
        let same = random.one_in(2);
        let all: Vec<u64> = (1..=topics).collect();
        let mut reads: Vec<(&str, Vec<u64>)> = Vec::new();
        for id in &ids {
            let some = all.iter().copied().filter(|_| same || random.one_in(2)).collect();
            reads.push((id, some));
        }
        let reads: Vec<(&str, &[u64])> = reads.iter().map(|(id, some)| (*id, some.as_slice())).collect();
        let mut input = input(&counts, &reads);
        check_complete(&input, &assign("range", &input));
        let targets = assign("uniform", &input);
        check_complete(&input, &targets);
        if same {
            let loads = loads(&targets);
            assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1);
        }
        remember(&mut input, &targets);
        assert_eq!(assign("uniform", &input), targets, "not sticky");
    }
}
