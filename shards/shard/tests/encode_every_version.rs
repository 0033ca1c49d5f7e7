//! Every API in every version through a real shard: its answer is read whole by the codec generated from Kafka's
//! definitions, whatever is asked. This is the test that `api::encode_response` relies on.

#[path = "common/node.rs"]
mod node;
#[path = "../../wire/tests/common/requests.rs"]
mod requests;

use bytes::Bytes;
use node::Node;
use pelton_model::{BrokerConfig, ClusterId, GroupConfig, Prng};
use pelton_wire::api_key::{ApiKey, SUPPORTED};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{self as m, KafkaString, Message, decode_response, encode_request};
use requests::{Requests, Topics};
use uuid::Uuid;

const SEEDS: u64 = 60;
/// Longer than any wait a request names.
const WAIT_MS: u64 = 1500;

fn node() -> Node {
    let config = BrokerConfig {
        cluster_id: ClusterId("testcluster00000000000".to_string()),
        journal_bytes: 1 << 20,
        tail_bytes: 1 << 20,
        auto_create_topics: false,
        group: GroupConfig {
            min_session_timeout_ms: 100,
            initial_rebalance_delay_ms: 100,
            ..Default::default()
        },
        ..BrokerConfig::defaults()
    };
    Node::new(config).unwrap()
}

/// Sends a request on a connection of its own and gives back the answer without its length; none: no answer.
fn ask(node: &mut Node, id: u64, frame: &[u8]) -> Result<Option<Bytes>, String> {
    node.connect(id);
    node.send(id, frame);
    node.advance(WAIT_MS);
    let (answer, closed) = node.answers(id);
    node.disconnect(id);
    if let Some(reason) = closed {
        assert!(answer.is_empty(), "an answer before the close");
        return Err(reason);
    }
    if answer.is_empty() {
        return Ok(None);
    }
    assert_eq!(
        u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize,
        answer.len() - 4,
        "one whole answer"
    );
    Ok(Some(answer.slice(4..)))
}

/// Topics that exist, with their ids, and some that do not.
fn create_topics(node: &mut Node) -> Topics {
    let mut topics = Topics::any();
    for (name, partitions) in [("orders", 3), ("a", 1), ("x.y_z-9", 2)] {
        let topic = m::create_topics_request::CreatableTopic {
            name: KafkaString::from_static(name),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let body = m::CreateTopicsRequestData { topics: vec![topic], timeout_ms: 1000, ..Default::default() };
        let frame = encode_request(ApiKey::CreateTopics, 7, 1, "test", &body).unwrap();
        let answer = ask(node, 1, &frame).unwrap().unwrap();
        let (_, body): (i32, m::CreateTopicsResponseData) =
            decode_response(ApiKey::CreateTopics, 7, answer).unwrap();
        assert_eq!(body.topics[0].error_code, 0);
        let id: Uuid = *body.topics[0].topic_id.inner();
        topics.0.iter_mut().find(|(known, _)| known == name).unwrap().1 = id;
    }
    topics
}

/// Reads an answer with the generated codec; nothing may be left over.
fn read(api_key: ApiKey, version: i16, answer: Bytes) -> i32 {
    fn of<T: Message>(api_key: ApiKey, version: i16, answer: Bytes) -> i32 {
        decode_response::<T>(api_key, version, answer)
            .unwrap_or_else(|error| panic!("{} version {version}: {error}", api_key.name()))
            .0
    }
    let of = match api_key {
        ApiKey::Produce => of::<m::ProduceResponseData>,
        ApiKey::Fetch => of::<m::FetchResponseData>,
        ApiKey::ListOffsets => of::<m::ListOffsetsResponseData>,
        ApiKey::Metadata => of::<m::MetadataResponseData>,
        ApiKey::FindCoordinator => of::<m::FindCoordinatorResponseData>,
        ApiKey::OffsetCommit => of::<m::OffsetCommitResponseData>,
        ApiKey::OffsetFetch => of::<m::OffsetFetchResponseData>,
        ApiKey::JoinGroup => of::<m::JoinGroupResponseData>,
        ApiKey::Heartbeat => of::<m::HeartbeatResponseData>,
        ApiKey::LeaveGroup => of::<m::LeaveGroupResponseData>,
        ApiKey::SyncGroup => of::<m::SyncGroupResponseData>,
        ApiKey::DescribeGroups => of::<m::DescribeGroupsResponseData>,
        ApiKey::ListGroups => of::<m::ListGroupsResponseData>,
        ApiKey::DeleteGroups => of::<m::DeleteGroupsResponseData>,
        ApiKey::OffsetDelete => of::<m::OffsetDeleteResponseData>,
        ApiKey::ConsumerGroupHeartbeat => of::<m::ConsumerGroupHeartbeatResponseData>,
        ApiKey::ConsumerGroupDescribe => of::<m::ConsumerGroupDescribeResponseData>,
        ApiKey::ApiVersions => of::<m::ApiVersionsResponseData>,
        ApiKey::CreateTopics => of::<m::CreateTopicsResponseData>,
        ApiKey::DeleteTopics => of::<m::DeleteTopicsResponseData>,
        ApiKey::DeleteRecords => of::<m::DeleteRecordsResponseData>,
        ApiKey::InitProducerId => of::<m::InitProducerIdResponseData>,
        ApiKey::OffsetForLeaderEpoch => of::<m::OffsetForLeaderEpochResponseData>,
        ApiKey::DescribeConfigs => of::<m::DescribeConfigsResponseData>,
        ApiKey::AlterConfigs => of::<m::AlterConfigsResponseData>,
        ApiKey::CreatePartitions => of::<m::CreatePartitionsResponseData>,
        ApiKey::IncrementalAlterConfigs => of::<m::IncrementalAlterConfigsResponseData>,
        ApiKey::AlterReplicaLogDirs => of::<m::AlterReplicaLogDirsResponseData>,
        ApiKey::DescribeLogDirs => of::<m::DescribeLogDirsResponseData>,
        ApiKey::ElectLeaders => of::<m::ElectLeadersResponseData>,
        ApiKey::AlterPartitionReassignments => of::<m::AlterPartitionReassignmentsResponseData>,
        ApiKey::ListPartitionReassignments => of::<m::ListPartitionReassignmentsResponseData>,
        ApiKey::DescribeQuorum => of::<m::DescribeQuorumResponseData>,
        ApiKey::DescribeProducers => of::<m::DescribeProducersResponseData>,
        ApiKey::UnregisterBroker => of::<m::UnregisterBrokerResponseData>,
        ApiKey::AddRaftVoter => of::<m::AddRaftVoterResponseData>,
        ApiKey::RemoveRaftVoter => of::<m::RemoveRaftVoterResponseData>,
        ApiKey::DescribeCluster => of::<m::DescribeClusterResponseData>,
        ApiKey::ListConfigResources => of::<m::ListConfigResourcesResponseData>,
        ApiKey::DescribeTopicPartitions => of::<m::DescribeTopicPartitionsResponseData>,
    };
    of(api_key, version, answer)
}

/// acks of a produce request, which alone may go unanswered.
fn acks(version: i16, frame: &[u8]) -> i16 {
    let header = pelton_wire::header::RequestHeader::parse(&frame[4..]).unwrap();
    pelton_wire::produce::ProduceRequest::parse(version, &frame[4..], header.body_offset).unwrap().acks
}

#[test]
fn every_answer_of_every_version_is_kafkas() {
    let mut node = node();
    let mut answered = 0;
    for range in SUPPORTED {
        for version in range.min..=range.max {
            let mut prng = Prng::new(version as u64);
            for seed in 0..SEEDS {
                // Requests delete topics too: there are always some that exist.
                let topics = if seed % 20 == 0 { create_again(&mut node) } else { known(&mut node) };
                let elements_max = if seed < 5 { 1 } else { 3 };
                let frame =
                    Requests { prng: &mut prng, topics: &topics, elements_max }.frame(range.api_key, version);
                let what = format!("{} version {version}, seed {seed}", range.api_key.name());
                match ask(&mut node, 2, &frame) {
                    Ok(Some(answer)) => {
                        let sent = i32::from_be_bytes(frame[8..12].try_into().unwrap());
                        assert_eq!(read(range.api_key, version, answer), sent, "{what}: correlation id");
                        answered += 1;
                    }
                    Ok(None) => assert!(
                        range.api_key == ApiKey::Produce && acks(version, &frame) == 0,
                        "{what}: no answer"
                    ),
                    // With acks=0 an error can only be told by closing.
                    Err(reason) => assert!(
                        range.api_key == ApiKey::Produce && acks(version, &frame) == 0,
                        "{what}: closed: {reason}"
                    ),
                }
            }
        }
    }
    assert!(answered > 5000, "{answered} answers");
}

/// Deletes every topic and creates the usual ones, and that of the offsets.
fn create_again(node: &mut Node) -> Topics {
    for (name, _) in &known(node).0 {
        let topic_names = vec![KafkaString::from(name.clone())];
        let body = m::DeleteTopicsRequestData { topic_names, timeout_ms: 1000, ..Default::default() };
        ask(node, 1, &encode_request(ApiKey::DeleteTopics, 1, 1, "test", &body).unwrap()).unwrap();
    }
    let find = m::FindCoordinatorRequestData { key: KafkaString::from_static("g"), ..Default::default() };
    let frame = encode_request(ApiKey::FindCoordinator, 0, 1, "test", &find).unwrap();
    let answer = ask(node, 1, &frame).unwrap().unwrap();
    let (_, found): (i32, m::FindCoordinatorResponseData) =
        decode_response(ApiKey::FindCoordinator, 0, answer).unwrap();
    assert_eq!((found.error_code, found.node_id), (0, 256));
    create_topics(node)
}

/// Names of any kind, with the ids of those that exist now.
fn known(node: &mut Node) -> Topics {
    let body = m::MetadataRequestData { topics: None, ..Default::default() };
    let answer =
        ask(node, 1, &encode_request(ApiKey::Metadata, 12, 1, "test", &body).unwrap()).unwrap().unwrap();
    let (_, body): (i32, m::MetadataResponseData) = decode_response(ApiKey::Metadata, 12, answer).unwrap();
    let mut topics = Topics::any();
    for topic in &body.topics {
        let name = topic.name.as_ref().unwrap().as_str();
        if let Some(known) = topics.0.iter_mut().find(|(known, _)| known == name) {
            known.1 = *topic.topic_id.inner();
        }
    }
    topics
}

/// The head of a request, and nothing else.
fn head(api_key: i16, version: i16) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 10];
    frame.extend_from_slice(&api_key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 9, 0xff, 0xff]);
    frame
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut node = node();
    for version in [5, 100, i16::MAX, -1] {
        let answer = ask(&mut node, 1, &head(18, version)).unwrap().unwrap();
        let (correlation_id, body): (i32, m::ApiVersionsResponseData) =
            decode_response(ApiKey::ApiVersions, 0, answer).unwrap();
        assert_eq!((correlation_id, body.error_code), (9, ErrorCode::UnsupportedVersion.code()));
        // Kafka names this API only, and its range.
        let named: Vec<_> =
            body.api_keys.iter().map(|it| (it.api_key, it.min_version, it.max_version)).collect();
        assert_eq!(named, [(18, 0, 4)]);
    }
}

#[test]
fn the_connection_stays_open_after_an_unknown_version_of_api_versions() {
    let mut node = node();
    node.connect(1);
    node.send(1, &head(18, 99));
    node.send(1, &head(18, 0));
    let (answers, closed) = node.answers(1);
    assert_eq!(closed, None);
    let first = 4 + u32::from_be_bytes(answers[..4].try_into().unwrap()) as usize;
    let (_, body): (i32, m::ApiVersionsResponseData) =
        decode_response(ApiKey::ApiVersions, 0, answers.slice(first + 4..)).unwrap();
    let advertised = SUPPORTED.iter().filter(|range| range.advertised_min.is_some()).count();
    assert_eq!((body.error_code, body.api_keys.len()), (0, advertised));
}

#[test]
fn other_unknown_versions_and_keys_close_the_connection() {
    let mut node = node();
    for range in SUPPORTED.iter().filter(|range| range.api_key != ApiKey::ApiVersions) {
        for version in [range.min - 1, range.max + 1, i16::MIN, i16::MAX] {
            let closed = ask(&mut node, 1, &head(range.api_key.code(), version));
            assert!(closed.is_err(), "{} version {version}", range.api_key.name());
        }
    }
    for key in (-2..120).chain([i16::MIN, i16::MAX]).filter(|key| ApiKey::from_code(*key).is_none()) {
        assert!(ask(&mut node, 1, &head(key, 0)).is_err(), "key {key}");
    }
}

/// What is read into memory whole must not be as large as a produce request may be.
#[test]
fn large_requests_are_for_produce_only() {
    let mut node = node();
    for (bytes, closes) in [(4 << 20, false), (9 << 20, true)] {
        node.connect(1);
        node.send(1, &head(18, 0)); // before the first valid request far less is taken
        let mut topics = m::MetadataRequestData { topics: Some(Vec::new()), ..Default::default() };
        let name = KafkaString::from("n".repeat(1 << 14));
        let topic = m::metadata_request::MetadataRequestTopic { name: Some(name), ..Default::default() };
        topics.topics = Some(vec![topic; bytes >> 14]);
        node.send(1, &encode_request(ApiKey::Metadata, 12, 1, "test", &topics).unwrap());
        assert_eq!(node.answers(1).1.is_some(), closes, "{bytes} bytes");
        node.disconnect(1);
    }
}
