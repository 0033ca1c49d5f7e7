//! Every decoder of requests behind one call, as the broker chooses among them.
// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]

use bytes::Bytes;
use pelton_wire::WireError;
use pelton_wire::api_key::{self, ApiKey};
use pelton_wire::fetch::FetchRequest;
use pelton_wire::header::RequestHeader;
use pelton_wire::messages::{self as m, decode};
use pelton_wire::produce::{ProduceItem, ProduceRequest};

/// Reads a frame (without its length).
pub fn decode_frame(frame: &Bytes) -> Result<(), WireError> {
    let header = RequestHeader::parse(frame)?;
    let api_key = ApiKey::from_code(header.api_key).ok_or(WireError::NotServed("this API"))?;
    if !api_key::serves(api_key, header.api_version) {
        return Err(WireError::NotServed(api_key.name()));
    }
    decode_body(api_key, header.api_version, frame, header.body_offset)
}

/// Reads a body with the decoder of this API and version.
pub fn decode_body(
    api_key: ApiKey,
    version: i16,
    frame: &Bytes,
    body_offset: usize,
) -> Result<(), WireError> {
    let body = || frame.slice(body_offset..);
    match api_key {
        ApiKey::Produce => {
            let request = ProduceRequest::parse(version, frame, body_offset)?;
            for item in request.items() {
                // Ranges are used without a further look.
                if let ProduceItem::Partition(partition) = item {
                    let _ = partition.records.map(|range| frame.slice(range));
                }
            }
            Ok(())
        }
        ApiKey::Fetch => FetchRequest::parse(version, &frame[body_offset..]).map(drop),
        ApiKey::ListOffsets => decode::<m::ListOffsetsRequestData>(version, body()).map(drop),
        ApiKey::Metadata => decode::<m::MetadataRequestData>(version, body()).map(drop),
        ApiKey::FindCoordinator => decode::<m::FindCoordinatorRequestData>(version, body()).map(drop),
        ApiKey::OffsetCommit => decode::<m::OffsetCommitRequestData>(version, body()).map(drop),
        ApiKey::OffsetFetch => decode::<m::OffsetFetchRequestData>(version, body()).map(drop),
        ApiKey::JoinGroup => decode::<m::JoinGroupRequestData>(version, body()).map(drop),
        ApiKey::Heartbeat => decode::<m::HeartbeatRequestData>(version, body()).map(drop),
        ApiKey::LeaveGroup => decode::<m::LeaveGroupRequestData>(version, body()).map(drop),
        ApiKey::SyncGroup => decode::<m::SyncGroupRequestData>(version, body()).map(drop),
        ApiKey::DescribeGroups => decode::<m::DescribeGroupsRequestData>(version, body()).map(drop),
        ApiKey::ListGroups => decode::<m::ListGroupsRequestData>(version, body()).map(drop),
        ApiKey::DeleteGroups => decode::<m::DeleteGroupsRequestData>(version, body()).map(drop),
        ApiKey::OffsetDelete => decode::<m::OffsetDeleteRequestData>(version, body()).map(drop),
        ApiKey::ConsumerGroupHeartbeat => {
            decode::<m::ConsumerGroupHeartbeatRequestData>(version, body()).map(drop)
        }
        ApiKey::ConsumerGroupDescribe => {
            decode::<m::ConsumerGroupDescribeRequestData>(version, body()).map(drop)
        }
        ApiKey::ApiVersions => decode::<m::ApiVersionsRequestData>(version, body()).map(drop),
        ApiKey::CreateTopics => decode::<m::CreateTopicsRequestData>(version, body()).map(drop),
        ApiKey::DeleteTopics => decode::<m::DeleteTopicsRequestData>(version, body()).map(drop),
        ApiKey::DeleteRecords => decode::<m::DeleteRecordsRequestData>(version, body()).map(drop),
        ApiKey::InitProducerId => decode::<m::InitProducerIdRequestData>(version, body()).map(drop),
        ApiKey::OffsetForLeaderEpoch => {
            decode::<m::OffsetForLeaderEpochRequestData>(version, body()).map(drop)
        }
        ApiKey::DescribeConfigs => decode::<m::DescribeConfigsRequestData>(version, body()).map(drop),
        ApiKey::AlterConfigs => decode::<m::AlterConfigsRequestData>(version, body()).map(drop),
        ApiKey::CreatePartitions => decode::<m::CreatePartitionsRequestData>(version, body()).map(drop),
        ApiKey::IncrementalAlterConfigs => {
            decode::<m::IncrementalAlterConfigsRequestData>(version, body()).map(drop)
        }
        ApiKey::AlterReplicaLogDirs => decode::<m::AlterReplicaLogDirsRequestData>(version, body()).map(drop),
        ApiKey::DescribeLogDirs => decode::<m::DescribeLogDirsRequestData>(version, body()).map(drop),
        ApiKey::ElectLeaders => decode::<m::ElectLeadersRequestData>(version, body()).map(drop),
        ApiKey::AlterPartitionReassignments => {
            decode::<m::AlterPartitionReassignmentsRequestData>(version, body()).map(drop)
        }
        ApiKey::ListPartitionReassignments => {
            decode::<m::ListPartitionReassignmentsRequestData>(version, body()).map(drop)
        }
        ApiKey::DescribeQuorum => decode::<m::DescribeQuorumRequestData>(version, body()).map(drop),
        ApiKey::DescribeProducers => decode::<m::DescribeProducersRequestData>(version, body()).map(drop),
        ApiKey::UnregisterBroker => decode::<m::UnregisterBrokerRequestData>(version, body()).map(drop),
        ApiKey::AddRaftVoter => decode::<m::AddRaftVoterRequestData>(version, body()).map(drop),
        ApiKey::RemoveRaftVoter => decode::<m::RemoveRaftVoterRequestData>(version, body()).map(drop),
        ApiKey::DescribeCluster => decode::<m::DescribeClusterRequestData>(version, body()).map(drop),
        ApiKey::ListConfigResources => decode::<m::ListConfigResourcesRequestData>(version, body()).map(drop),
        ApiKey::DescribeTopicPartitions => {
            decode::<m::DescribeTopicPartitionsRequestData>(version, body()).map(drop)
        }
    }
}
