//! DescribeCluster (key 60, KIP-700): the brokers, from version 2 on also those that are fenced, if wanted (KIP-1073).

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    DescribeClusterBroker, DescribeClusterRequestData, DescribeClusterResponseData, KafkaString,
};

use super::context::{ApiContext, CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED};

/// Brokers, as opposed to controllers (KIP-919).
const ENDPOINT_BROKERS: i8 = 1;

/// The answer.
pub fn handle(
    context: &ApiContext<'_>,
    version: i16,
    request: DescribeClusterRequestData,
) -> DescribeClusterResponseData {
    if request.endpoint_type != ENDPOINT_BROKERS {
        return DescribeClusterResponseData {
            error_code: ErrorCode::MismatchedEndpointType.code(),
            error_message: Some(KafkaString::from_static(
                "The request was sent to an endpoint of type BROKER",
            )),
            ..DescribeClusterResponseData::default()
        };
    }
    let fenced = version >= 2 && request.include_fenced_brokers;
    let brokers = if fenced { context.all_brokers() } else { context.brokers() };
    let brokers = brokers
        .into_iter()
        .map(|broker| DescribeClusterBroker {
            broker_id: broker.id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            is_fenced: broker.fenced,
            ..DescribeClusterBroker::default()
        })
        .collect();
    let asked = request.include_cluster_authorized_operations;
    DescribeClusterResponseData {
        endpoint_type: ENDPOINT_BROKERS,
        cluster_id: context.cluster_id(),
        controller_id: context.controller_id(),
        brokers,
        cluster_authorized_operations: if asked { CLUSTER_OPERATIONS } else { OPERATIONS_NOT_ASKED },
        ..DescribeClusterResponseData::default()
    }
}
