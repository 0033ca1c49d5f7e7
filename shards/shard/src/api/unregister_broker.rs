//! UnregisterBroker (key 64, KIP-631): a node that is gone for good is forgotten. Kafka forgets any broker; here one that lives, or
//! that a partition still counts on, stays: what was known of it is what keeps an empty directory of the same number from being
//! taken for the one that has the records.

use pelton_cluster::image::MetadataImage;
use pelton_cluster::placement::place_of;
use pelton_cluster::record::MetadataRecord;
use pelton_model::NodeId;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{KafkaString, UnregisterBrokerRequestData, UnregisterBrokerResponseData};

use super::context::{ApiContext, Planned};

/// Plans it.
pub fn handle(
    context: &ApiContext<'_>,
    voters: &[NodeId],
    request: &UnregisterBrokerRequestData,
) -> Planned<UnregisterBrokerResponseData> {
    let mut response = UnregisterBrokerResponseData::default();
    let mut records = Vec::new();
    match plan(context, voters, request.broker_id) {
        Ok(record) => records.push(record),
        Err((error, text)) => {
            response.error_code = error.code();
            response.error_message = Some(KafkaString::from(text));
        }
    }
    Planned { records, response }
}

fn plan(
    context: &ApiContext<'_>,
    voters: &[NodeId],
    broker: i32,
) -> Result<MetadataRecord, (ErrorCode, String)> {
    let refuse = |text: String| Err((ErrorCode::InvalidRequest, text));
    let place = (broker >= 0).then(|| place_of(broker));
    let this = place.is_some_and(|place| place.node == context.config.node_id);
    if this && !context.is_cluster() {
        return refuse(format!("Broker {broker} is this one, and no part of a cluster."));
    }
    let Some(node) = place.filter(|place| place.shard.0 == 0).and_then(|it| context.image.node(it.node))
    else {
        let text = format!("Broker ID {broker} is not currently registered");
        return Err((ErrorCode::BrokerIdNotRegistered, text));
    };
    if !node.fenced {
        return refuse(format!("Broker {broker} lives; stop it first."));
    }
    if voters.contains(&node.node) {
        return refuse(format!(
            "Broker {broker} is a voter of the metadata quorum; remove it from the voters first."
        ));
    }
    if let Some(name) = counted_on(context.image, node.node) {
        return refuse(format!(
            "Broker {broker} holds a replica of {name} that may be needed; reassign its partitions first."
        ));
    }
    Ok(MetadataRecord::RemoveNode { node: node.node })
}

/// A partition with a replica on the node, by name.
fn counted_on(image: &MetadataImage, node: NodeId) -> Option<String> {
    let (key, _) = image.partitions_on(node, None).next()?;
    let topic = image.topic_by_id(key.topic_id).map_or("?", |topic| &topic.name);
    Some(format!("{topic}-{}", key.partition))
}
