//! ElectLeaders (key 43, KIP-183, KIP-460): leadership goes home to preferred replicas, or to whoever is left. As in Kafka's
//! ReplicationControlManager; that a preferred leader takes over in good order takes a moment more (rule R12), and the answer
//! waits for it (`cluster/elections.rs`).

use pelton_cluster::control::election::{self, Scene};
use pelton_cluster::image::PartitionImage;
use pelton_cluster::record::{MetadataRecord, PartitionDelta};
use pelton_model::PartitionKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use pelton_wire::messages::{ElectLeadersRequestData, ElectLeadersResponseData, KafkaString};

use super::context::ApiContext;

/// Leadership is to go to the first of the replicas.
pub const PREFERRED: i8 = 0;
/// A partition without a leader gets one, whatever was lost.
const UNCLEAN: i8 = 1;

/// Elections that were decided, and those that a leader has to agree to.
#[derive(Default)]
pub struct Elections {
    /// Records to commit.
    pub records: Vec<MetadataRecord>,
    /// Partitions whose leader is to hand over to the preferred replica.
    pub transfers: Vec<PartitionKey>,
    /// The answer, as if they had.
    pub response: ElectLeadersResponseData,
}

/// Plans the elections of a request.
pub fn handle(context: &ApiContext<'_>, _version: i16, request: ElectLeadersRequestData) -> Elections {
    let mut elections = Elections::default();
    if ![PREFERRED, UNCLEAN].contains(&request.election_type) {
        elections.response.error_code = ErrorCode::InvalidRequest.code();
        return elections;
    }
    let all = request.topic_partitions.is_none();
    let wanted: Vec<(String, Vec<i32>)> = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|it| (it.topic.to_string(), it.partitions)).collect(),
        None => {
            let topics = context.image.topic_names().filter_map(|name| context.image.topic_by_name(name));
            topics.map(|it| (it.name.clone(), (0..it.partitions.len() as i32).collect())).collect()
        }
    };
    for (topic, partitions) in wanted {
        let mut results = Vec::new();
        for partition in partitions {
            let (error, text) = match elections.elect(context, request.election_type, &topic, partition) {
                Ok(()) => (ErrorCode::None, None),
                // Whoever asks for all does not want to hear of those where nothing is to be done.
                Err((ErrorCode::ElectionNotNeeded, _)) if all => continue,
                Err((error, text)) => (error, Some(text)),
            };
            results.push(PartitionResult {
                partition_id: partition,
                error_code: error.code(),
                error_message: text.map(KafkaString::from),
                ..PartitionResult::default()
            });
        }
        elections.response.replica_election_results.push(ReplicaElectionResult {
            topic: KafkaString::from(topic),
            partition_result: results,
            ..ReplicaElectionResult::default()
        });
    }
    elections
}

impl Elections {
    fn elect(
        &mut self,
        context: &ApiContext<'_>,
        election_type: i8,
        topic: &str,
        partition: i32,
    ) -> Result<(), (ErrorCode, String)> {
        let unknown = |text: String| Err((ErrorCode::UnknownTopicOrPartition, text));
        let Some(found) = context.image.topic_by_name(topic) else {
            return unknown(format!("No such topic as {topic}"));
        };
        let key = PartitionKey { topic_id: found.id, partition };
        let Some(state) = context.image.partition(key) else {
            return unknown(format!("No such partition as {topic}-{partition}"));
        };
        let done = match election_type {
            PREFERRED => state.leader.is_some() && state.leader == state.replicas.first().copied(),
            _ => state.leader.is_some(),
        };
        if done {
            let text = "Leader election not needed for topic partition.".to_string();
            return Err((ErrorCode::ElectionNotNeeded, text));
        }
        let scene = Scene::of(context.image, context.config, key);
        if election_type == PREFERRED {
            if !may_go_home(&scene, state) {
                let text = "The preferred leader was not available.".to_string();
                return Err((ErrorCode::PreferredLeaderNotAvailable, text));
            }
            self.transfers.push(key);
            return Ok(());
        }
        let old = state.state();
        let new = election::unclean_choice(&scene, &old).and_then(|to| election::unclean(&scene, &old, to));
        let Some(new) = new else {
            let text = "Eligible topic partition leaders are not available.".to_string();
            return Err((ErrorCode::EligibleLeadersNotAvailable, text));
        };
        let released = election::leader_is_gone(context.image, state);
        let delta = PartitionDelta::between(&old, &new, released);
        let record = MetadataRecord::PartitionChange { key, delta };
        // Named twice, it is elected once.
        if !self.records.contains(&record) {
            self.records.push(record);
        }
        Ok(())
    }
}

/// The preferred replica can take over from the leader there is.
pub fn may_go_home(scene: &Scene<'_>, partition: &PartitionImage) -> bool {
    let preferred = partition.replicas.first().copied();
    partition.leader.is_some() && preferred.is_some_and(|preferred| scene.can_lead(partition, preferred))
}
