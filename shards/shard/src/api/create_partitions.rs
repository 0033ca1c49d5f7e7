//! CreatePartitions (key 37, KIP-195).

use std::collections::BTreeMap;

use pelton_cluster::controller::{Refusal, create_partitions};
use pelton_wire::messages::{
    CreatePartitionsRequestData, CreatePartitionsResponseData, CreatePartitionsTopicResult,
};

use super::context::{ApiContext, Planned, refused};

/// Plans the partitions of a request.
pub fn handle(
    context: &ApiContext<'_>,
    _version: i16,
    request: CreatePartitionsRequestData,
) -> Planned<CreatePartitionsResponseData> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *count.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut placement = context.placement();
    let mut records = Vec::new();
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::new();
    for topic in request.topics {
        let twice = count.get(topic.name.as_str()).copied().unwrap_or(0) > 1;
        if twice && results.iter().any(|result| result.name == topic.name) {
            continue;
        }
        let assignments: Option<Vec<Vec<i32>>> =
            topic.assignments.map(|all| all.into_iter().map(|one| one.broker_ids).collect());
        let planned = if twice {
            Err((Refusal::InvalidRequest, "Duplicate topic name.".to_string()))
        } else {
            create_partitions(
                context.image,
                &mut placement,
                topic.name.as_str(),
                topic.count,
                assignments.as_deref(),
            )
        };
        let mut result = CreatePartitionsTopicResult { name: topic.name, ..Default::default() };
        match planned {
            Ok(more) => records.extend(more),
            Err(refusal) => (result.error_code, result.error_message) = refused(refusal),
        }
        results.push(result);
    }
    if request.validate_only {
        records.clear();
    }
    Planned {
        records,
        response: CreatePartitionsResponseData { results, ..CreatePartitionsResponseData::default() },
    }
}
