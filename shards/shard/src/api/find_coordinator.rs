//! FindCoordinator (key 10, KIP-699). There are no groups and no transactions to coordinate yet, and it says so as Kafka
//! does while its offsets topic is away. Advertised nevertheless: librdkafka sends lz4 only to brokers that list it.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    Coordinator, FindCoordinatorRequestData, FindCoordinatorResponseData, KafkaString,
};

use super::context::ApiContext;

/// Several keys per request from this version on.
const BATCHED_VERSION: i16 = 4;
const WHY: &str = "this broker does not coordinate consumer groups or transactions yet";

/// The answer.
pub fn handle(
    _context: &ApiContext<'_>,
    version: i16,
    request: FindCoordinatorRequestData,
) -> FindCoordinatorResponseData {
    let error_code = ErrorCode::CoordinatorNotAvailable.code();
    if version >= BATCHED_VERSION {
        let coordinators = request
            .coordinator_keys
            .into_iter()
            .map(|key| Coordinator {
                key,
                node_id: -1,
                port: -1,
                error_code,
                error_message: Some(KafkaString::from_static(WHY)),
                ..Coordinator::default()
            })
            .collect();
        return FindCoordinatorResponseData { coordinators, ..FindCoordinatorResponseData::default() };
    }
    let error_message = (version >= 1).then(|| KafkaString::from_static(WHY));
    FindCoordinatorResponseData { error_code, error_message, node_id: -1, port: -1, ..Default::default() }
}
