//! Answers to requests that change metadata and could not be decided: the same error for everything that was asked for, as
//! Kafka's brokers answer what they could not forward to a controller in time.

use bytes::Bytes;
use pelton_wire::WireError;
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::header::RequestHeader;
use pelton_wire::messages::{self as m, KafkaString, decode};

use super::encode_response;

/// The answer to a whole frame without its length; an error if it is of an API that is not decided by the controller.
pub fn answer(frame: &Bytes, error: ErrorCode, why: &str) -> Result<Bytes, WireError> {
    let header = RequestHeader::parse(frame)?;
    let (version, id) = (header.api_version, header.correlation_id);
    let body = frame.slice(header.body_offset..);
    let key = ApiKey::from_code(header.api_key).ok_or(WireError::NotServed("this API"))?;
    let refusal = (error.code(), Some(KafkaString::from(why.to_string())));
    Ok(match key {
        ApiKey::CreateTopics => encode_response(key, version, id, &topics(decode(version, body)?, &refusal)),
        ApiKey::DeleteTopics => {
            encode_response(key, version, id, &deletions(version, decode(version, body)?, &refusal))
        }
        ApiKey::CreatePartitions => {
            encode_response(key, version, id, &partitions(decode(version, body)?, &refusal))
        }
        ApiKey::AlterConfigs => encode_response(key, version, id, &configs(decode(version, body)?, &refusal)),
        ApiKey::IncrementalAlterConfigs => {
            encode_response(key, version, id, &incremental(decode(version, body)?, &refusal))
        }
        ApiKey::ElectLeaders => {
            encode_response(key, version, id, &elections(version, decode(version, body)?, &refusal))
        }
        ApiKey::AlterReplicaLogDirs => {
            encode_response(key, version, id, &log_dirs(decode(version, body)?, error.code()))
        }
        ApiKey::InitProducerId => {
            // Kafka's ProducerIdManager has no word for "no controller" but this one, which producers try again.
            let error = match error {
                ErrorCode::RequestTimedOut => ErrorCode::CoordinatorLoadInProgress,
                other => other,
            };
            let body = m::InitProducerIdResponseData {
                error_code: error.code(),
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            };
            encode_response(key, version, id, &body)
        }
        other => return whole(other, version, id, refusal),
    })
}

/// Of APIs with one error for the whole of a request.
fn whole(key: ApiKey, version: i16, id: i32, (code, text): Refusal) -> Result<Bytes, WireError> {
    Ok(match key {
        ApiKey::AlterPartitionReassignments => {
            let body = m::AlterPartitionReassignmentsResponseData {
                error_code: code,
                error_message: text,
                ..Default::default()
            };
            encode_response(key, version, id, &body)
        }
        ApiKey::ListPartitionReassignments => {
            let body = m::ListPartitionReassignmentsResponseData {
                error_code: code,
                error_message: text,
                ..Default::default()
            };
            encode_response(key, version, id, &body)
        }
        ApiKey::DescribeQuorum => {
            let body = m::DescribeQuorumResponseData { error_code: code, ..Default::default() };
            encode_response(key, version, id, &body)
        }
        ApiKey::AddRaftVoter => {
            let body =
                m::AddRaftVoterResponseData { error_code: code, error_message: text, ..Default::default() };
            encode_response(key, version, id, &body)
        }
        ApiKey::RemoveRaftVoter => {
            let body = m::RemoveRaftVoterResponseData {
                error_code: code,
                error_message: text,
                ..Default::default()
            };
            encode_response(key, version, id, &body)
        }
        ApiKey::UnregisterBroker => {
            let body = m::UnregisterBrokerResponseData {
                error_code: code,
                error_message: text,
                ..Default::default()
            };
            encode_response(key, version, id, &body)
        }
        other => return Err(WireError::NotServed(other.name())),
    })
}

fn log_dirs(request: m::AlterReplicaLogDirsRequestData, code: i16) -> m::AlterReplicaLogDirsResponseData {
    let result = |partition: &i32| m::alter_replica_log_dirs_response::AlterReplicaLogDirPartitionResult {
        partition_index: *partition,
        error_code: code,
        ..Default::default()
    };
    let topics = request.dirs.into_iter().flat_map(|dir| dir.topics);
    let results = topics.map(|topic| m::alter_replica_log_dirs_response::AlterReplicaLogDirTopicResult {
        partitions: topic.partitions.iter().map(result).collect(),
        topic_name: topic.name,
        ..Default::default()
    });
    m::AlterReplicaLogDirsResponseData { results: results.collect(), ..Default::default() }
}

/// Version 0 has no error for the whole.
fn elections(
    version: i16,
    request: m::ElectLeadersRequestData,
    (code, text): &Refusal,
) -> m::ElectLeadersResponseData {
    let result = |partition: &i32| m::elect_leaders_response::PartitionResult {
        partition_id: *partition,
        error_code: *code,
        error_message: text.clone(),
        ..Default::default()
    };
    let topics = request.topic_partitions.unwrap_or_default().into_iter();
    let replica_election_results = topics.map(|topic| m::ReplicaElectionResult {
        partition_result: topic.partitions.iter().map(result).collect(),
        topic: topic.topic,
        ..Default::default()
    });
    m::ElectLeadersResponseData {
        error_code: if version >= 1 { *code } else { 0 },
        replica_election_results: replica_election_results.collect(),
        ..Default::default()
    }
}

/// An error code and its reason.
type Refusal = (i16, Option<KafkaString>);

fn topics(request: m::CreateTopicsRequestData, (code, text): &Refusal) -> m::CreateTopicsResponseData {
    let of = |topic: m::CreatableTopic| m::CreatableTopicResult {
        name: topic.name,
        error_code: *code,
        error_message: text.clone(),
        ..Default::default()
    };
    m::CreateTopicsResponseData { topics: request.topics.into_iter().map(of).collect(), ..Default::default() }
}

fn deletions(
    version: i16,
    request: m::DeleteTopicsRequestData,
    (code, text): &Refusal,
) -> m::DeleteTopicsResponseData {
    let of = |name: Option<KafkaString>, topic_id| m::DeletableTopicResult {
        name,
        topic_id,
        error_code: *code,
        error_message: text.clone(),
        ..Default::default()
    };
    let responses = match version {
        6.. => request.topics.into_iter().map(|topic| of(topic.name, topic.topic_id)).collect(),
        _ => request.topic_names.into_iter().map(|name| of(Some(name), Default::default())).collect(),
    };
    m::DeleteTopicsResponseData { responses, ..Default::default() }
}

fn partitions(
    request: m::CreatePartitionsRequestData,
    (code, text): &Refusal,
) -> m::CreatePartitionsResponseData {
    let of = |topic: m::CreatePartitionsTopic| m::CreatePartitionsTopicResult {
        name: topic.name,
        error_code: *code,
        error_message: text.clone(),
        ..Default::default()
    };
    m::CreatePartitionsResponseData {
        results: request.topics.into_iter().map(of).collect(),
        ..Default::default()
    }
}

fn configs(request: m::AlterConfigsRequestData, (code, text): &Refusal) -> m::AlterConfigsResponseData {
    let of = |resource: m::alter_configs_request::AlterConfigsResource| {
        m::alter_configs_response::AlterConfigsResourceResponse {
            error_code: *code,
            error_message: text.clone(),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        }
    };
    m::AlterConfigsResponseData {
        responses: request.resources.into_iter().map(of).collect(),
        ..Default::default()
    }
}

fn incremental(
    request: m::IncrementalAlterConfigsRequestData,
    (code, text): &Refusal,
) -> m::IncrementalAlterConfigsResponseData {
    let of = |resource: m::incremental_alter_configs_request::AlterConfigsResource| {
        m::incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code: *code,
            error_message: text.clone(),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        }
    };
    m::IncrementalAlterConfigsResponseData {
        responses: request.resources.into_iter().map(of).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_wire::messages::{Message, decode_response, encode_request};

    fn refused<Q: Message, A: Message>(api_key: ApiKey, version: i16, request: &Q) -> A {
        let frame = encode_request(api_key, version, 9, "test", request).unwrap();
        let answer = answer(&frame.slice(4..), ErrorCode::RequestTimedOut, "nobody decides").unwrap();
        let (id, body) = decode_response(api_key, version, answer.slice(4..)).unwrap();
        assert_eq!(id, 9);
        body
    }

    #[test]
    fn everything_that_was_asked_for_is_refused_in_every_version() {
        let name = || KafkaString::from_static("orders");
        for version in 2..=7 {
            let topics = vec![m::CreatableTopic { name: name(), ..Default::default() }; 2];
            let request = m::CreateTopicsRequestData { topics, ..Default::default() };
            let body: m::CreateTopicsResponseData = refused(ApiKey::CreateTopics, version, &request);
            let found: Vec<_> = body.topics.iter().map(|it| (it.name.as_str(), it.error_code)).collect();
            assert_eq!(found, [("orders", 7); 2]);
        }
        for version in 1..=6 {
            let topics = vec![m::DeleteTopicState { name: Some(name()), ..Default::default() }];
            let request = match version {
                6 => m::DeleteTopicsRequestData { topics, ..Default::default() },
                _ => m::DeleteTopicsRequestData { topic_names: vec![name()], ..Default::default() },
            };
            let body: m::DeleteTopicsResponseData = refused(ApiKey::DeleteTopics, version, &request);
            let found = &body.responses[0];
            assert_eq!((found.name.clone(), found.error_code), (Some(name()), 7));
        }
        for version in 0..=3 {
            let topics = vec![m::CreatePartitionsTopic { name: name(), count: 3, ..Default::default() }];
            let request = m::CreatePartitionsRequestData { topics, ..Default::default() };
            let body: m::CreatePartitionsResponseData = refused(ApiKey::CreatePartitions, version, &request);
            assert_eq!((body.results[0].name.as_str(), body.results[0].error_code), ("orders", 7));
        }
        for version in 0..=2 {
            let resource = m::alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name(),
                ..Default::default()
            };
            let request = m::AlterConfigsRequestData { resources: vec![resource], ..Default::default() };
            let body: m::AlterConfigsResponseData = refused(ApiKey::AlterConfigs, version, &request);
            assert_eq!((body.responses[0].resource_type, body.responses[0].error_code), (2, 7));
        }
        for version in 0..=1 {
            let resource = m::incremental_alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name(),
                ..Default::default()
            };
            let request =
                m::IncrementalAlterConfigsRequestData { resources: vec![resource], ..Default::default() };
            let body: m::IncrementalAlterConfigsResponseData =
                refused(ApiKey::IncrementalAlterConfigs, version, &request);
            assert_eq!(
                (body.responses[0].resource_name.as_str(), body.responses[0].error_code),
                ("orders", 7)
            );
        }
        for version in 0..=2 {
            let partitions = vec![0, 4];
            let topic =
                m::elect_leaders_request::TopicPartitions { topic: name(), partitions, ..Default::default() };
            let request =
                m::ElectLeadersRequestData { topic_partitions: Some(vec![topic]), ..Default::default() };
            let body: m::ElectLeadersResponseData = refused(ApiKey::ElectLeaders, version, &request);
            assert_eq!(body.error_code, if version >= 1 { 7 } else { 0 });
            let found = body.replica_election_results[0].partition_result.iter();
            let found: Vec<_> = found.map(|it| (it.partition_id, it.error_code)).collect();
            assert_eq!(found, [(0, 7), (4, 7)]);
        }
        for version in 0..=4 {
            let request = m::InitProducerIdRequestData::default();
            let body: m::InitProducerIdResponseData = refused(ApiKey::InitProducerId, version, &request);
            assert_eq!((body.error_code, body.producer_id), (14, -1));
        }
    }

    #[test]
    fn what_the_controller_does_not_decide_is_not_refused_here() {
        let frame = encode_request(ApiKey::Metadata, 9, 1, "test", &m::MetadataRequestData::default());
        assert!(answer(&frame.unwrap().slice(4..), ErrorCode::RequestTimedOut, "").is_err());
        assert!(answer(&Bytes::from_static(b"\0\x13"), ErrorCode::RequestTimedOut, "").is_err());
    }
}
