//! Many partitions: a walk over them comes in pieces, and what concerns one node looks at that node's only.

use super::*;
use crate::image::Load;

fn replica(node: i32) -> Replica {
    Replica { node: NodeId(node), shard: ShardId(0) }
}

/// A topic whose partitions have replicas on these nodes, the first of them leading.
fn topic_on(kit: &mut Kit, id: u128, partitions: &[&[i32]]) -> TopicId {
    let id = TopicId(Uuid::from_u128(id));
    let mut records = vec![MetadataRecord::Topic { id, name: format!("many-{}", id.0) }];
    for (at, nodes) in partitions.iter().enumerate() {
        let replicas: Vec<Replica> = nodes.iter().map(|node| replica(*node)).collect();
        let member = |replica: &Replica| IsrMember {
            replica: *replica,
            epoch: kit.image.replica_epoch(*replica).unwrap_or_default(),
        };
        let isr = replicas.iter().map(member).collect();
        let state = PartitionState::begun(replicas, isr);
        let key = PartitionKey { topic_id: id, partition: at as i32 };
        records.push(MetadataRecord::Partition { key, state });
    }
    kit.commit(&records);
    id
}

#[test]
fn a_node_with_one_replica_among_very_many_is_not_empty() {
    let mut kit = Kit::new(3);
    let mut partitions: Vec<&[i32]> = vec![&[1]; 100_100];
    partitions[0] = &[0];
    let id = topic_on(&mut kit, 1 << 80, &partitions);
    assert_eq!(kit.ask(Ask::Decommission { node: NodeId(0) }), Answer::Done);
    kit.beat(20);
    let node = kit.image.node(NodeId(0)).expect("its replica has not moved yet");
    assert!(!node.fenced, "it has to give away what it has");
    assert_eq!(kit.state(id, 0).adding.len(), 1, "somebody is to take it over");
    for _ in 0..20 {
        kit.serve();
        kit.beat(4);
    }
    assert!(kit.image.node(NodeId(0)).is_none());
    assert_ne!(kit.state(id, 0).replicas[0].node, NodeId(0));
}

#[test]
fn a_node_with_one_leader_among_very_many_is_drained() {
    let mut kit = Kit::new(3);
    let mut partitions: Vec<&[i32]> = vec![&[1, 0]; 100_100];
    partitions[0] = &[0, 1];
    let id = topic_on(&mut kit, 1 << 80, &partitions);
    assert_eq!(kit.ask(Ask::Drain { node: NodeId(0), on: true }), Answer::Done);
    // The leader is asked, and does not hear it; it is asked again.
    kit.beat(2);
    assert_eq!(kit.transfers.len(), 1);
    kit.transfers.clear();
    kit.beat(20);
    assert!(!kit.transfers.is_empty(), "nobody asked again");
    kit.serve();
    kit.beat(4);
    assert_eq!(kit.state(id, 0).leader, Some(replica(1)));
    assert!(kit.controller.is_idle(), "nothing is left to do");
}

#[test]
fn draining_does_not_wait_a_second_after_every_hundred_leaders() {
    let mut kit = Kit::new(3);
    topic_on(&mut kit, 1 << 80, &vec![&[0, 1][..]; 1_000]);
    assert_eq!(kit.ask(Ask::Drain { node: NodeId(0), on: true }), Answer::Done);
    let before = kit.now;
    while !kit.controller.is_idle() {
        kit.beat(1);
        assert!(kit.transfers.len() <= kit.controller.config.transfers_max);
        kit.serve();
    }
    assert!(kit.now - before <= 4_000 * MS, "{} ms", (kit.now - before) / MS);
    assert_eq!(kit.image.load(replica(0)), Load { replicas: 1_000, preferred: 1_000, leaders: 0 });
}

#[test]
fn only_the_partitions_of_a_node_are_looked_at() {
    let mut kit = Kit::new(4);
    kit.controller.config.auto_rebalance = true;
    let on: Vec<&[i32]> = vec![&[1, 2, 3]; 500];
    topic_on(&mut kit, 1 << 80, &on);
    topic_on(&mut kit, 1 << 81, &[&[0, 1, 2], &[1, 0, 2], &[1, 2, 3]]);
    kit.beat(4);
    let before = kit.controller.visits();
    kit.beat(20);
    assert_eq!(kit.controller.visits(), before, "time alone is no reason to look");
    kit.alive.remove(&0);
    kit.beat(7);
    assert!(kit.image.node(NodeId(0)).unwrap().fenced);
    let looked = kit.controller.visits() - before;
    // Two partitions, and once a second the one whose leadership is not at home.
    assert!((2..=4).contains(&looked), "{looked} partitions");
    kit.topic("1");
    assert!(kit.controller.visits() - before <= looked + 1);
}

#[test]
fn many_changes_of_isrs_in_one_request_must_each_name_another_partition() {
    let mut kit = Kit::new(3);
    let id = topic_on(&mut kit, 1 << 80, &vec![&[0, 1][..]; 5_000]);
    let change = |partition: i32| {
        let state = kit.state(id, partition);
        let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
        let key = PartitionKey { topic_id: id, partition };
        IsrChange { key, leader_epoch, partition_epoch, isr: state.isr }
    };
    let mut changes: Vec<IsrChange> = (0..5_000).map(change).collect();
    let asker = kit.asker(replica(0));
    let Answer::Isr(results) = kit.ask(Ask::AlterIsr { asker, changes: changes.clone() }) else { panic!() };
    assert!(results.len() == 5_000 && results.iter().all(Result::is_ok));
    changes[4_999] = changes[0].clone();
    let Answer::Isr(results) = kit.ask(Ask::AlterIsr { asker, changes }) else { panic!() };
    assert!(results.iter().all(|result| *result == Err(IsrRefusal::InvalidRequest)));
}
