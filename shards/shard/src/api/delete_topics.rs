//! DeleteTopics (key 20): topics by name, or by id from version 6 on.

use std::collections::BTreeSet;

use pelton_cluster::controller::{Refusal, delete_topic};
use pelton_model::TopicId;
use pelton_wire::messages::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequestData, DeleteTopicsResponseData, KafkaString,
    KafkaUuid,
};

use super::context::{ApiContext, Planned, refused};

/// Plans the end of the topics of a request.
pub fn handle(
    context: &ApiContext<'_>,
    version: i16,
    request: DeleteTopicsRequestData,
) -> Planned<DeleteTopicsResponseData> {
    let wanted: Vec<DeleteTopicState> = if version >= 6 {
        request.topics
    } else {
        let by_name =
            |name: KafkaString| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() };
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut records = Vec::new();
    let mut gone: BTreeSet<TopicId> = BTreeSet::new();
    let mut responses = Vec::new();
    for topic in wanted {
        let id = TopicId(topic.topic_id.into());
        let found = match &topic.name {
            Some(name) => context.image.topic_by_name(name.as_str()),
            None => context.image.topic_by_id(id),
        };
        let found = found.filter(|topic| gone.insert(topic.id));
        let mut result =
            DeletableTopicResult { name: topic.name.clone(), topic_id: topic.topic_id, ..Default::default() };
        if let Some(found) = found {
            result.name = Some(KafkaString::from(found.name.clone()));
            result.topic_id = KafkaUuid::from(found.id.0);
        }
        match delete_topic(context.config, found) {
            Ok(more) => records.extend(more),
            Err((Refusal::UnknownTopic, _)) if topic.name.is_none() => {
                let text = "This server does not host this topic ID.".to_string();
                (result.error_code, result.error_message) = refused((Refusal::UnknownTopicId, text));
            }
            Err(refusal) => (result.error_code, result.error_message) = refused(refusal),
        }
        responses.push(result);
    }
    Planned {
        records,
        response: DeleteTopicsResponseData { responses, ..DeleteTopicsResponseData::default() },
    }
}
