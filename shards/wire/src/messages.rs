//! Every API but Produce and Fetch, and all of them on the client side, by the crate generated from Kafka's definitions.
//! The one place that knows that crate.

use bytes::{Bytes, BytesMut};

pub use kacrab_protocol::generated::*;
pub use kacrab_protocol::{KafkaString, KafkaUuid};

use crate::WireError;
use crate::api_key::{self, ApiKey as Api};
use crate::header::{finish_response, response_head};

/// A message that can be read and written in any version that Kafka has of it.
pub trait Message: Sized {
    /// Reads from the front of `bytes`.
    fn read_from(bytes: &mut Bytes, version: i16) -> Result<Self, WireError>;
    /// Appends to `bytes`; an error if a field is set that the version does not have.
    fn write_to(&self, bytes: &mut BytesMut, version: i16) -> Result<(), WireError>;
}

macro_rules! messages {
    ($($name:ident,)*) => {
        $(impl Message for $name {
            fn read_from(bytes: &mut Bytes, version: i16) -> Result<Self, WireError> {
                $name::read(bytes, version).map_err(|error| WireError::Message(error.to_string()))
            }
            fn write_to(&self, bytes: &mut BytesMut, version: i16) -> Result<(), WireError> {
                self.write(bytes, version).map_err(|error| WireError::Message(error.to_string()))
            }
        })*
    };
}

messages! {
    AddRaftVoterRequestData,
    AddRaftVoterResponseData,
    RemoveRaftVoterRequestData,
    RemoveRaftVoterResponseData,
    AlterReplicaLogDirsRequestData,
    AlterReplicaLogDirsResponseData,
    DescribeLogDirsRequestData,
    DescribeLogDirsResponseData,
    ElectLeadersRequestData,
    ElectLeadersResponseData,
    AlterPartitionReassignmentsRequestData,
    AlterPartitionReassignmentsResponseData,
    ListPartitionReassignmentsRequestData,
    ListPartitionReassignmentsResponseData,
    DescribeQuorumRequestData,
    DescribeQuorumResponseData,
    DescribeProducersRequestData,
    DescribeProducersResponseData,
    UnregisterBrokerRequestData,
    UnregisterBrokerResponseData,
    ApiVersionsRequestData,
    ApiVersionsResponseData,
    CreatePartitionsRequestData,
    CreatePartitionsResponseData,
    CreateTopicsRequestData,
    CreateTopicsResponseData,
    DeleteRecordsRequestData,
    DeleteRecordsResponseData,
    DeleteTopicsRequestData,
    DeleteTopicsResponseData,
    DescribeClusterRequestData,
    DescribeClusterResponseData,
    DescribeConfigsRequestData,
    DescribeConfigsResponseData,
    DescribeTopicPartitionsRequestData,
    DescribeTopicPartitionsResponseData,
    FetchRequestData,
    FetchResponseData,
    FindCoordinatorRequestData,
    FindCoordinatorResponseData,
    IncrementalAlterConfigsRequestData,
    IncrementalAlterConfigsResponseData,
    AlterConfigsRequestData,
    AlterConfigsResponseData,
    InitProducerIdRequestData,
    InitProducerIdResponseData,
    ListConfigResourcesRequestData,
    ListConfigResourcesResponseData,
    ListOffsetsRequestData,
    ListOffsetsResponseData,
    MetadataRequestData,
    MetadataResponseData,
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderEpochResponseData,
    ProduceRequestData,
    ProduceResponseData,
    ConsumerGroupDescribeRequestData,
    ConsumerGroupDescribeResponseData,
    ConsumerGroupHeartbeatRequestData,
    ConsumerGroupHeartbeatResponseData,
    DeleteGroupsRequestData,
    DeleteGroupsResponseData,
    DescribeGroupsRequestData,
    DescribeGroupsResponseData,
    HeartbeatRequestData,
    HeartbeatResponseData,
    JoinGroupRequestData,
    JoinGroupResponseData,
    LeaveGroupRequestData,
    LeaveGroupResponseData,
    ListGroupsRequestData,
    ListGroupsResponseData,
    OffsetCommitRequestData,
    OffsetCommitResponseData,
    OffsetDeleteRequestData,
    OffsetDeleteResponseData,
    OffsetFetchRequestData,
    OffsetFetchResponseData,
    SyncGroupRequestData,
    SyncGroupResponseData,
}

/// Reads a body that must fill `body`.
pub fn decode<T: Message>(version: i16, mut body: Bytes) -> Result<T, WireError> {
    let message = T::read_from(&mut body, version)?;
    match body.len() {
        0 => Ok(message),
        more => Err(WireError::Trailing(more)),
    }
}

/// Reads a body and ignores bytes behind it, as Kafka does. For Metadata only: librdkafka 2.15 asks for all topics (version 9
/// and later) with a count of four bytes where one is meant, so that the message ends three bytes early. Elsewhere no client is
/// known to need it, and what is left over is the best sign of garbage: the generated code takes a null array for an empty one.
pub fn decode_front<T: Message>(version: i16, mut body: Bytes) -> Result<T, WireError> {
    T::read_from(&mut body, version)
}

/// A whole answer frame: length, header, body.
pub fn encode_response<T: Message>(
    api_key: Api,
    version: i16,
    correlation_id: i32,
    body: &T,
) -> Result<Bytes, WireError> {
    let mut bytes = BytesMut::from(&response_head(api_key, version, correlation_id)[..]);
    body.write_to(&mut bytes, version)?;
    finish_response(&mut bytes, 0);
    Ok(bytes.freeze())
}

/// A whole request frame, as a client sends it.
pub fn encode_request<T: Message>(
    api_key: Api,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    body: &T,
) -> Result<Bytes, WireError> {
    let mut bytes = BytesMut::zeroed(4);
    bytes.extend_from_slice(&api_key.code().to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    bytes.extend_from_slice(&(client_id.len() as i16).to_be_bytes());
    bytes.extend_from_slice(client_id.as_bytes());
    if api_key::header_versions(api_key, version).0 >= 2 {
        bytes.extend_from_slice(&[0]);
    }
    body.write_to(&mut bytes, version)?;
    finish_response(&mut bytes, 0);
    Ok(bytes.freeze())
}

/// Reads an answer frame (without its length), as a client does: correlation id and body.
pub fn decode_response<T: Message>(
    api_key: Api,
    version: i16,
    mut frame: Bytes,
) -> Result<(i32, T), WireError> {
    let mut reader = crate::primitives::Reader::new(&frame, 0);
    let correlation_id = reader.i32()?;
    reader.skip_tags(api_key::header_versions(api_key, version).1 >= 1)?;
    let body = frame.split_off(reader.position());
    Ok((correlation_id, decode(version, body)?))
}
