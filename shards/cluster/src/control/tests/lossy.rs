//! Lives that may have lost what they had not flushed.

use super::*;

impl Kit {
    /// A topic that is not flushed with every record, of whose replicas only that on node 1 and (dead as well) node 2 are complete.
    fn unflushed(&mut self, replicas: i16) -> TopicId {
        let set = |name: &str, value: &str| (name.to_string(), Some(value.to_string()));
        let wish = TopicWish {
            name: format!("u{}", self.token),
            partitions: 3,
            replication_factor: replicas,
            configs: vec![set("min.insync.replicas", "2"), set("flush.messages", "100")],
            ..TopicWish::default()
        };
        match self.ask(Ask::CreateTopic(wish)) {
            Answer::Topic(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Registers a life that does nothing yet.
    fn register(&mut self, id: i32, start: u64, lossy: bool) -> NodeEpoch {
        let node = NodeRegistration { lossy, ..registration(id, 100 + id as u128, start) };
        match self.ask(Ask::Register { cluster: 7, node }) {
            Answer::Registered(epoch) => epoch,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_lossy_life_may_have_lost_is_left_to_the_next() {
    let mut kit = Kit::new(3);
    let (id, sole) = (kit.unflushed(3), kit.unflushed(1));
    for node in 0..3 {
        kit.alive.remove(&node);
        kit.beat(8);
    }
    assert_eq!(kit.state(id, 0).elr.len(), 2, "two were complete to the end");
    kit.join(0, 2);
    kit.beat(4);
    // The power has gone. The first life behind that ends before it may take part, the second begins on the same boot.
    kit.register(1, 2, true);
    let epoch = kit.register(1, 3, false);
    assert!(kit.image.node(NodeId(1)).unwrap().lossy);
    kit.alive.insert(1, epoch);
    kit.beat(4);
    let known = kit.image.node(NodeId(1)).unwrap();
    assert!(!known.fenced && !known.lossy, "said and done");
    for partition in 0..3 {
        let state = kit.state(id, partition);
        assert_eq!(state.leader, None);
        assert_eq!(state.elr.iter().map(|replica| replica.node).collect::<Vec<_>>(), [NodeId(2)]);
        assert_eq!(state.last_known_elr.iter().map(|replica| replica.node).collect::<Vec<_>>(), [NodeId(1)]);
        // Of an only replica nobody has more.
        let state = kit.state(sole, partition);
        assert_eq!(state.leader.is_some(), state.replicas[0].node != NodeId(2));
    }
    // The third was killed, not more: what it wrote is there.
    kit.join(2, 2);
    kit.beat(6);
    assert!((0..3).all(|at| kit.state(id, at).leader.is_some_and(|leader| leader.node == NodeId(2))));
}

#[test]
fn what_was_lost_is_not_passed_over_because_something_else_happens_to_the_partition() {
    let mut kit = Kit::new(3);
    let id = kit.unflushed(3);
    for node in 0..2 {
        kit.alive.remove(&node);
        kit.beat(8);
    }
    assert_eq!((kit.state(id, 0).isr.len(), kit.state(id, 0).elr.len()), (1, 1));
    let epoch = kit.register(1, 2, true);
    // Node 2 goes at the very moment at which node 1 comes: one batch has to do with both.
    let gone = kit.image.node(NodeId(2)).unwrap().epoch;
    kit.alive.remove(&2);
    let fenced = Some(true);
    let (draining, leaving) = (None, None);
    kit.commit(&[MetadataRecord::NodeChange { node: NodeId(2), epoch: gone, fenced, draining, leaving }]);
    let tasks = [Task::sweep(Some(NodeId(2))), Task::suspect(NodeId(1)), Task::unfence(NodeId(1), epoch)];
    kit.controller.tasks.extend(tasks);
    let mut out = Vec::new();
    kit.controller.work(kit.now, &kit.image, &mut out);
    kit.perform(out);
    assert!(!kit.image.node(NodeId(1)).unwrap().fenced);
    for partition in 0..3 {
        let state = kit.state(id, partition);
        assert_eq!(state.leader, None, "{state:?}");
        assert!(state.elr.iter().all(|replica| replica.node != NodeId(1)), "{state:?}");
    }
}
