//! What is planned for clusters of several nodes: elections, reassignments, brokers that go. What one node answers the client
//! tests ask.

use pelton_cluster::image::MetadataImage;
use pelton_cluster::record::{Endpoint, MetadataRecord, NodeRegistration, ShardRegistration};
use pelton_model::{
    BrokerConfig, IsrMember, LeaderEpoch, ListenerMode, NodeEpoch, NodeId, Now, PartitionEpoch, PartitionKey,
    PartitionState, Replica, ReplicaEpoch, ShardEpoch, ShardId, TopicId,
};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use pelton_wire::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use pelton_wire::messages::elect_leaders_request::TopicPartitions;
use pelton_wire::messages::{
    AlterPartitionReassignmentsRequestData, AlterReplicaLogDirsRequestData, DescribeClusterRequestData,
    ElectLeadersRequestData, KafkaString, ListPartitionReassignmentsRequestData, UnregisterBrokerRequestData,
};
use uuid::Uuid;

use super::context::ApiContext;
use super::elect_leaders::Elections;
use super::{alter_replica_log_dirs, describe_cluster, elect_leaders, reassignments, unregister_broker};

const TOPIC: TopicId = TopicId(Uuid::from_u128(8));
const KEY: PartitionKey = PartitionKey { topic_id: TOPIC, partition: 0 };
const SHARDS: usize = 2;

/// Three to four nodes of two shards each and one partition.
struct Scene {
    config: BrokerConfig,
    image: MetadataImage,
}

fn at(node: i32, shard: u16) -> Replica {
    Replica { node: NodeId(node), shard: ShardId(shard) }
}

fn epoch(node: i32) -> ReplicaEpoch {
    ReplicaEpoch { node_epoch: NodeEpoch(node as u64), shard_epoch: ShardEpoch(0) }
}

impl Scene {
    fn new(mode: ListenerMode, replicas: &[Replica]) -> Scene {
        let config = BrokerConfig { mode, shards: SHARDS as u16, ..BrokerConfig::defaults() };
        let mut scene = Scene { config, image: MetadataImage::default() };
        for node in 1..=4 {
            scene.apply(MetadataRecord::Node(NodeRegistration {
                node: NodeId(node),
                epoch: NodeEpoch(node as u64),
                directory: Uuid::from_u128(node as u128),
                incarnation: Uuid::nil(),
                start: 1,
                rack: Some(format!("rack-{node}")),
                endpoints: vec![Endpoint { name: "client".into(), host: "h".into(), port: 9000 }],
                shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; SHARDS],
                fenced: false,
                draining: false,
                leaving: false,
                lossy: false,
            }));
        }
        scene.apply(MetadataRecord::Topic { id: TOPIC, name: "t".to_string() });
        let isr = replicas.iter().map(|it| IsrMember { replica: *it, epoch: epoch(it.node.0) }).collect();
        let (leader_epoch, partition_epoch) = (LeaderEpoch(3), PartitionEpoch(5));
        let begun = PartitionState::begun(replicas.to_vec(), isr);
        scene.set(PartitionState { leader_epoch, partition_epoch, ..begun });
        scene
    }

    fn apply(&mut self, record: MetadataRecord) {
        self.image.apply(self.image.applied_offset() + 1, &[record]);
    }

    fn set(&mut self, state: PartitionState) {
        self.apply(MetadataRecord::Partition { key: KEY, state });
    }

    fn change(&mut self, change: impl FnOnce(&mut PartitionState)) {
        let mut state = self.state();
        change(&mut state);
        self.set(state);
    }

    fn state(&self) -> PartitionState {
        self.image.partition(KEY).unwrap().state()
    }

    fn fence(&mut self, node: i32) {
        let epoch = self.image.node(NodeId(node)).unwrap().epoch;
        let (fenced, draining, leaving) = (Some(true), None, None);
        self.apply(MetadataRecord::NodeChange { node: NodeId(node), epoch, fenced, draining, leaving });
    }

    fn context(&self) -> ApiContext<'_> {
        ApiContext { config: &self.config, image: &self.image, shard: ShardId(0), now: Now::default() }
    }

    /// Plans a reassignment and applies what follows.
    fn reassign(&mut self, replicas: Option<&[i32]>, allow_factor: bool) -> (ErrorCode, String) {
        let partition = ReassignablePartition {
            partition_index: 0,
            replicas: replicas.map(<[i32]>::to_vec),
            ..Default::default()
        };
        let topic = ReassignableTopic {
            name: KafkaString::from_static("t"),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = AlterPartitionReassignmentsRequestData {
            allow_replication_factor_change: allow_factor,
            topics: vec![topic],
            ..Default::default()
        };
        let planned = reassignments::alter(&self.context(), 1, request);
        planned.records.into_iter().for_each(|record| self.apply(record));
        let result = &planned.response.responses[0].partitions[0];
        let text = result.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
        (ErrorCode::from_code(result.error_code), text)
    }

    /// Moves the replica of one broker to another of its places and applies what follows.
    fn relocate(&mut self, partition: i32, to: &str) -> ErrorCode {
        let topic = AlterReplicaLogDirTopic {
            name: KafkaString::from_static("t"),
            partitions: vec![partition],
            ..Default::default()
        };
        let path = KafkaString::from(to.to_string());
        let dir = AlterReplicaLogDir { path, topics: vec![topic], ..Default::default() };
        let request = AlterReplicaLogDirsRequestData { dirs: vec![dir], ..Default::default() };
        let planned = alter_replica_log_dirs::handle(&self.context(), request);
        planned.records.into_iter().for_each(|record| self.apply(record));
        ErrorCode::from_code(planned.response.results[0].partitions[0].error_code)
    }

    /// Replicas, those being added and those being removed, as they are listed; none if no reassignment is.
    fn listed(&self) -> Option<(Vec<i32>, Vec<i32>, Vec<i32>)> {
        let all = ListPartitionReassignmentsRequestData::default();
        let topics = reassignments::list(
            &self.context(),
            0,
            ListPartitionReassignmentsRequestData { topics: None, ..all },
        );
        let topic = topics.topics.into_iter().next()?;
        let found = topic.partitions.into_iter().next()?;
        Some((found.replicas, found.adding_replicas, found.removing_replicas))
    }

    fn elect(&self, election_type: i8, all: bool) -> Elections {
        let topic = TopicPartitions {
            topic: KafkaString::from_static("t"),
            partitions: vec![0],
            ..Default::default()
        };
        let topic_partitions = (!all).then(|| vec![topic]);
        let request = ElectLeadersRequestData { election_type, topic_partitions, ..Default::default() };
        elect_leaders::handle(&self.context(), 2, request)
    }

    fn unregister(&self, broker_id: i32, voters: &[i32]) -> (ErrorCode, usize) {
        let voters: Vec<NodeId> = voters.iter().map(|node| NodeId(*node)).collect();
        let request = UnregisterBrokerRequestData { broker_id, ..Default::default() };
        let planned = unregister_broker::handle(&self.context(), &voters, &request);
        (ErrorCode::from_code(planned.response.error_code), planned.records.len())
    }
}

fn error_of(elections: &Elections) -> Option<ErrorCode> {
    let result = elections.response.replica_election_results.first()?.partition_result.first()?;
    Some(ErrorCode::from_code(result.error_code))
}

const NONE: (ErrorCode, String) = (ErrorCode::None, String::new());

#[test]
fn a_reassignment_adds_first_and_can_be_cancelled() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 1), at(3, 0)]);
    assert_eq!((scene.listed(), scene.reassign(None, true).0), (None, ErrorCode::NoReassignmentInProgress));
    assert_eq!(scene.reassign(Some(&[1025, 256, 513]), true), NONE);
    let state = scene.state();
    assert_eq!((&state.adding[..], &state.removing[..]), (&[at(4, 1)][..], &[at(3, 0)][..]));
    assert_eq!(state.leader, Some(at(1, 0)), "nobody leads who is not in sync");
    let (replicas, adding, removing) = scene.listed().unwrap();
    assert_eq!((replicas, adding, removing), (vec![1025, 256, 513, 768], vec![1025], vec![768]));
    assert_eq!(scene.reassign(None, true), NONE);
    assert_eq!(scene.listed(), None);
    let mut replicas = scene.state().replicas;
    replicas.sort();
    assert_eq!(replicas, [at(1, 0), at(2, 1), at(3, 0)]);
}

#[test]
fn fewer_replicas_and_another_order_take_no_time() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 1), at(3, 0)]);
    assert_eq!(scene.reassign(Some(&[513, 256]), true), NONE);
    let state = scene.state();
    assert_eq!((&state.replicas[..], scene.listed()), (&[at(2, 1), at(1, 0)][..], None));
    assert_eq!(state.isr.len(), 2);
    let before = scene.state();
    assert_eq!(scene.reassign(Some(&[513, 256]), true), NONE);
    assert_eq!(scene.state(), before, "as it is already");
}

#[test]
fn the_factor_stays_unless_it_may_change() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 0)]);
    let refused =
        (ErrorCode::InvalidReplicationFactor, "The replication factor is changed from 2 to 3".to_string());
    assert_eq!(scene.reassign(Some(&[256, 512, 768]), false), refused);
    assert_eq!(scene.reassign(Some(&[256, 768]), false), NONE);
    // What it is on its way to counts.
    assert_eq!(scene.reassign(Some(&[256, 768, 1024]), false), refused);
    assert_eq!(scene.reassign(Some(&[256, 1024]), false), NONE);
    assert_eq!(scene.state().adding, [at(4, 0)]);
}

#[test]
fn places_that_are_none_or_are_too_near_each_other() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 0)]);
    for (brokers, words) in [
        (&[][..], "an empty replica list"),
        (&[256, 258][..], "broker 258, but no such broker is registered"),
        (&[256, -1][..], "broker -1, but no such broker is registered"),
        (&[1280][..], "broker 1280, but no such broker is registered"),
        (&[256, 256][..], "the broker 256 more than once"),
        (&[256, 257][..], "share a node"),
    ] {
        let (error, text) = scene.reassign(Some(brokers), true);
        assert_eq!(error, ErrorCode::InvalidReplicaAssignment, "{brokers:?}");
        assert!(text.contains(words), "{brokers:?}: {text}");
    }
    let mut scene = Scene::new(ListenerMode::Single, &[at(1, 1), at(2, 0)]);
    assert_eq!(scene.reassign(Some(&[257]), true).0, ErrorCode::InvalidReplicaAssignment, "not a broker");
    assert_eq!(scene.reassign(Some(&[256, 768]), true), NONE);
    let replicas = scene.state().replicas;
    assert_eq!((replicas[0], replicas[1].node), (at(1, 1), NodeId(3)), "what stays, stays on its shard");
}

#[test]
fn a_preferred_leader_in_sync_is_asked_for_others_are_not_there() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 0), at(3, 0)]);
    assert_eq!(error_of(&scene.elect(0, false)), Some(ErrorCode::ElectionNotNeeded));
    assert_eq!(error_of(&scene.elect(0, true)), None, "of all, only those that need it");
    scene.change(|state| state.leader = Some(at(2, 0)));
    for all in [false, true] {
        let elections = scene.elect(0, all);
        assert_eq!((error_of(&elections), elections.transfers), (Some(ErrorCode::None), vec![KEY]));
        assert_eq!(elections.records, []);
    }
    assert_eq!(error_of(&scene.elect(1, false)), Some(ErrorCode::ElectionNotNeeded));
    scene.change(|state| state.isr.retain(|member| member.replica != at(1, 0)));
    let elections = scene.elect(0, false);
    assert_eq!(error_of(&elections), Some(ErrorCode::PreferredLeaderNotAvailable));
    assert_eq!(elections.transfers, []);
}

#[test]
fn an_unclean_election_takes_whoever_is_likely_to_have_most() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 0), at(3, 0)]);
    scene.change(|state| {
        state.leader = None;
        state.isr.clear();
        state.last_known_elr = vec![at(3, 0)];
    });
    let mut elections = scene.elect(1, true);
    assert_eq!((error_of(&elections), elections.records.len()), (Some(ErrorCode::None), 1));
    let before = scene.state();
    scene.apply(elections.records.remove(0));
    let state = scene.state();
    assert_eq!((state.leader, state.isr.len()), (Some(at(3, 0)), 1));
    assert_eq!(state.unclean_epoch, Some(state.leader_epoch), "followers may cut");
    scene.set(PartitionState { partition_epoch: PartitionEpoch(9), ..before });
    (1..=3).for_each(|node| scene.fence(node));
    let elections = scene.elect(1, false);
    assert_eq!(error_of(&elections), Some(ErrorCode::EligibleLeadersNotAvailable));
    assert_eq!(scene.elect(2, false).response.error_code, ErrorCode::InvalidRequest.code());
}

#[test]
fn a_broker_is_forgotten_when_it_is_gone_and_nothing_counts_on_it() {
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 0)]);
    assert_eq!(scene.unregister(1024, &[1, 2, 3]), (ErrorCode::InvalidRequest, 0), "it lives");
    scene.fence(4);
    scene.fence(2);
    assert_eq!(scene.unregister(1024, &[1, 4]), (ErrorCode::InvalidRequest, 0), "it is a voter");
    assert_eq!(scene.unregister(512, &[1]), (ErrorCode::InvalidRequest, 0), "it has a replica");
    for id in [1025, 2560, -1, 4] {
        assert_eq!(scene.unregister(id, &[1]), (ErrorCode::BrokerIdNotRegistered, 0), "{id}");
    }
    assert_eq!(scene.unregister(1024, &[1, 2, 3]), (ErrorCode::None, 1));
}

#[test]
fn fenced_brokers_are_named_to_those_who_want_them() {
    let mut scene = Scene::new(ListenerMode::Single, &[at(1, 0)]);
    scene.fence(2);
    let ids = |include_fenced_brokers| {
        let request =
            DescribeClusterRequestData { endpoint_type: 1, include_fenced_brokers, ..Default::default() };
        let answer = describe_cluster::handle(&scene.context(), 2, request);
        let brokers = answer.brokers.into_iter();
        brokers.map(|it| (it.broker_id, it.rack.unwrap().to_string(), it.is_fenced)).collect::<Vec<_>>()
    };
    let rack = |node: i32, fenced| (node * 256, format!("rack-{node}"), fenced);
    assert_eq!(ids(false), [rack(1, false), rack(3, false), rack(4, false)]);
    assert_eq!(ids(true), [rack(1, false), rack(2, true), rack(3, false), rack(4, false)]);
}

#[test]
fn a_replica_moves_between_the_shards_of_its_node_and_clients_see_one_replica() {
    let mut scene = Scene::new(ListenerMode::Single, &[at(1, 0), at(2, 1)]);
    assert_eq!(scene.relocate(0, "1.0"), ErrorCode::None, "it is there");
    assert!(scene.state().adding.is_empty());
    assert_eq!(scene.relocate(0, "1.1"), ErrorCode::None);
    let state = scene.state();
    assert_eq!(state.replicas, [at(1, 1), at(2, 1), at(1, 0)]);
    assert_eq!((&state.adding[..], &state.removing[..]), (&[at(1, 1)][..], &[at(1, 0)][..]));
    assert_eq!(state.leader, Some(at(1, 0)));
    let partition = scene.image.partition(KEY).unwrap();
    assert_eq!(scene.context().leader_and_replicas(partition), (256, vec![256, 512]));
    assert_eq!(scene.listed(), None, "no reassignment between brokers");
    assert_eq!(scene.relocate(0, "1.1"), ErrorCode::None, "it is on its way there");
    assert_eq!(scene.state(), state);
    assert_eq!(scene.relocate(0, "1.0"), ErrorCode::None, "back");
    let state = scene.state();
    assert_eq!((&state.replicas[..], state.adding.is_empty()), (&[at(1, 0), at(2, 1)][..], true));
}

#[test]
fn moves_to_nowhere_and_of_nothing_are_refused() {
    let mut scene = Scene::new(ListenerMode::Single, &[at(1, 0), at(2, 1)]);
    assert_eq!(scene.relocate(0, ""), ErrorCode::LogDirNotFound);
    assert_eq!(scene.relocate(0, "3.0"), ErrorCode::ReplicaNotAvailable);
    assert_eq!(scene.relocate(1, "1.1"), ErrorCode::UnknownTopicOrPartition);
    scene.fence(1);
    assert_eq!(scene.relocate(0, "1.1"), ErrorCode::KafkaStorageError);
    // In direct mode another shard is another broker.
    let mut scene = Scene::new(ListenerMode::Direct, &[at(1, 0), at(2, 1)]);
    assert_eq!(scene.relocate(0, "1.1"), ErrorCode::ReplicaNotAvailable);
    assert_eq!(scene.relocate(0, "1.0"), ErrorCode::None);
}
