//! FindCoordinator (key 10, KIP-699): the broker that leads the partition of `__consumer_offsets` a group belongs to.
//! Transactions are not coordinated yet, and it says so as Kafka does while their topic is away.

use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_group::coordinator_partition;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    Coordinator, FindCoordinatorRequestData, FindCoordinatorResponseData, KafkaString,
};

use super::context::ApiContext;

/// Several keys per request from this version on.
const BATCHED_VERSION: i16 = 4;
/// Kafka's kinds of keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Whether the offsets topic must be made before this request can be answered.
pub fn needs_offsets_topic(context: &ApiContext<'_>, request: &FindCoordinatorRequestData) -> bool {
    request.key_type == GROUP && context.image.topic_by_name(OFFSETS_TOPIC).is_none()
}

/// The answer.
pub fn handle(
    context: &ApiContext<'_>,
    version: i16,
    request: FindCoordinatorRequestData,
) -> FindCoordinatorResponseData {
    if version >= BATCHED_VERSION {
        let find = |key| find(context, request.key_type, key);
        let coordinators = request.coordinator_keys.into_iter().map(find).collect();
        return FindCoordinatorResponseData { coordinators, ..FindCoordinatorResponseData::default() };
    }
    let found = find(context, request.key_type, request.key);
    FindCoordinatorResponseData {
        error_code: found.error_code,
        error_message: found.error_message.filter(|_| version >= 1),
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

fn find(context: &ApiContext<'_>, key_type: i8, key: KafkaString) -> Coordinator {
    let refuse = |key, error: ErrorCode, why: &'static str| Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code: error.code(),
        error_message: Some(KafkaString::from_static(why)),
        ..Coordinator::default()
    };
    match key_type {
        GROUP => {}
        TRANSACTION => {
            let why = "this broker does not coordinate transactions yet";
            return refuse(key, ErrorCode::CoordinatorNotAvailable, why);
        }
        _ => return refuse(key, ErrorCode::InvalidRequest, "this kind of key is not known"),
    }
    let leader = context.image.topic_by_name(OFFSETS_TOPIC).and_then(|topic| {
        let partition = coordinator_partition(key.as_str(), topic.partitions.len() as i32);
        topic.partitions.get(partition as usize)?.leader
    });
    let broker = leader.map(|leader| context.broker_id(leader)).and_then(|id| {
        let mut brokers = context.brokers().into_iter();
        brokers.find(|broker| broker.id == id)
    });
    match broker {
        Some(broker) => Coordinator {
            key,
            node_id: broker.id,
            host: broker.host,
            port: broker.port,
            ..Default::default()
        },
        None => refuse(key, ErrorCode::CoordinatorNotAvailable, "the group's partition has no leader"),
    }
}
