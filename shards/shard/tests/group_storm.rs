//! A thousand members of one group that come at once: everyone is answered, and no turn of the shard tells many of them, so that
//! producers are served in between.

#[path = "common/node.rs"]
mod node;

use bytes::Bytes;
use node::Node;
use pelton_model::{BrokerConfig, GroupConfig};
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::join_group_request::JoinGroupRequestProtocol;
use pelton_wire::messages::{self as m, KafkaString, Message, decode_response, encode_request};

const MEMBERS: u64 = 1000;
/// Answers in one turn at most.
const ANSWERS_MAX: usize = 32;

fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_string())
}

fn node() -> Node {
    let group = GroupConfig { initial_rebalance_delay_ms: 100, ..GroupConfig::default() };
    let config = BrokerConfig { group, offsets_topic_partitions: 1, ..BrokerConfig::defaults() };
    let mut node = Node::new(config).unwrap();
    (0..MEMBERS).for_each(|id| node.connect(id));
    let find = m::FindCoordinatorRequestData { key: text("g"), ..Default::default() };
    ask(&mut node, 0, ApiKey::FindCoordinator, 1, &find);
    node.advance(0);
    node.answers(0);
    node
}

fn ask<T: Message>(node: &mut Node, id: u64, api_key: ApiKey, version: i16, body: &T) {
    node.send(id, &encode_request(api_key, version, 1, "test", body).unwrap());
}

/// The answer every member has got.
fn answers<T: Message>(node: &mut Node, api_key: ApiKey, version: i16) -> Vec<T> {
    let mut read = |id| {
        let (bytes, closed) = node.answers(id);
        assert_eq!(closed, None);
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert_eq!(length, bytes.len() - 4, "one answer");
        decode_response::<T>(api_key, version, bytes.slice(4..)).unwrap().1
    };
    (0..MEMBERS).map(&mut read).collect()
}

#[test]
fn a_generation_answers_its_members_in_many_turns() {
    let mut node = node();
    let range = JoinGroupRequestProtocol {
        name: text("range"),
        metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 255, 255, 255, 255]),
        ..Default::default()
    };
    let join = m::JoinGroupRequestData {
        group_id: text("g"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: text("consumer"),
        protocols: vec![range],
        ..Default::default()
    };
    (0..MEMBERS).for_each(|id| ask(&mut node, id, ApiKey::JoinGroup, 3, &join));
    node.most_sends = 0;
    node.advance(1000);
    assert!((1..=ANSWERS_MAX).contains(&node.most_sends), "{} answers in a turn", node.most_sends);
    let joined: Vec<m::JoinGroupResponseData> = answers(&mut node, ApiKey::JoinGroup, 3);
    assert!(joined.iter().all(|answer| answer.error_code == 0 && answer.generation_id == 1));
    let leaders: Vec<usize> =
        joined.iter().map(|answer| answer.members.len()).filter(|members| *members > 0).collect();
    assert_eq!(leaders, [MEMBERS as usize], "one is told who the others are");
    // The leader's sync is the last one and answers all.
    let leads = |id: &u64| joined[*id as usize].leader == joined[*id as usize].member_id;
    let mut order: Vec<u64> = (0..MEMBERS).collect();
    order.sort_by_key(leads);
    node.most_sends = 0;
    for id in order {
        let sync = m::SyncGroupRequestData {
            group_id: text("g"),
            generation_id: 1,
            member_id: joined[id as usize].member_id.clone(),
            ..Default::default()
        };
        ask(&mut node, id, ApiKey::SyncGroup, 2, &sync);
    }
    node.advance(1000);
    assert!((1..=ANSWERS_MAX).contains(&node.most_sends), "{} answers in a turn", node.most_sends);
    let synced: Vec<m::SyncGroupResponseData> = answers(&mut node, ApiKey::SyncGroup, 2);
    assert!(synced.iter().all(|answer| answer.error_code == 0));
}
