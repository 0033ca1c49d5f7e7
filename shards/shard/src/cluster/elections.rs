//! Elections of preferred leaders that clients wait for: the leader hands over in good order (rule R12), and the answer leaves when it
//! has, as Kafka's waits until the brokers know the new leaders.

use bytes::Bytes;
use pelton_cluster::control::asks::Ask;
use pelton_cluster::control::election::Scene;
use pelton_model::{Now, PartitionKey};
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ElectLeadersRequestData, ElectLeadersResponseData, KafkaString, decode, decode_response,
};

use super::control::Planning;
use super::member::Asked;
use crate::Shard;
use crate::api::elect_leaders::{PREFERRED, may_go_home};
use crate::api::encode_response;
use crate::effect::Effect;

/// What a leader was asked for and has not done is asked for again after this, nanoseconds.
const AGAIN_NS: u64 = 200_000_000;

/// One request that waits.
pub(super) struct Election {
    planning: Planning,
    version: i16,
    correlation_id: i32,
    /// The answer if all goes well.
    response: ElectLeadersResponseData,
    /// What is not there yet, and its places in the answer.
    pending: Vec<(PartitionKey, usize, usize)>,
    deadline_ns: u64,
    again_ns: u64,
}

impl Election {
    fn refuse(&mut self, topic: usize, partition: usize, error: ErrorCode, text: &'static str) {
        let results = self.response.replica_election_results.get_mut(topic);
        if let Some(result) = results.and_then(|it| it.partition_result.get_mut(partition)) {
            result.error_code = error.code();
            result.error_message = Some(KafkaString::from_static(text));
        }
    }
}

impl Shard {
    /// The controller has begun what a request wants: true if it is an election whose end is to be waited for.
    pub(super) fn wait_for_election(&mut self, now: Now, planning: &Planning, response: &Bytes) -> bool {
        let Some(election) = self.election_of(now, planning, response) else { return false };
        if let Some(cluster) = &mut self.cluster {
            cluster.elections.push(election);
        }
        true
    }

    fn election_of(&self, now: Now, planning: &Planning, response: &Bytes) -> Option<Election> {
        let (api_key, version, _, body) = planning.parsed()?;
        if api_key != ApiKey::ElectLeaders {
            return None;
        }
        let request: ElectLeadersRequestData = decode(version, body).ok()?;
        let answer = (response.len() > 4).then(|| response.slice(4..))?;
        let (correlation_id, response): (i32, ElectLeadersResponseData) =
            decode_response(api_key, version, answer).ok()?;
        if request.election_type != PREFERRED || response.error_code != 0 {
            return None;
        }
        let mut pending = Vec::new();
        for (at, topic) in response.replica_election_results.iter().enumerate() {
            let Some(found) = self.image.topic_by_name(topic.topic.as_str()) else { continue };
            for (place, result) in topic.partition_result.iter().enumerate() {
                if result.error_code == 0 {
                    let key = PartitionKey { topic_id: found.id, partition: result.partition_id };
                    pending.push((key, at, place));
                }
            }
        }
        let timeout_ns = u64::try_from(request.timeout_ms).unwrap_or(0) * 1_000_000;
        Some(Election {
            planning: planning.clone(),
            version,
            correlation_id,
            response,
            pending,
            deadline_ns: now.monotonic_ns.saturating_add(timeout_ns),
            again_ns: now.monotonic_ns + AGAIN_NS,
        })
    }

    /// Answers elections that have come to their end, and asks again for those that have not.
    pub(super) fn look_at_elections(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| !cluster.elections.is_empty()) else {
            return;
        };
        for mut election in std::mem::take(&mut cluster.elections) {
            let late = now.monotonic_ns >= election.deadline_ns;
            let mut left = Vec::new();
            for (key, topic, partition) in std::mem::take(&mut election.pending) {
                let state = self.image.partition(key);
                let scene = Scene::of(&self.image, &self.config, key);
                match state {
                    Some(state) if state.leader == state.replicas.first().copied() => {}
                    Some(state) if may_go_home(&scene, state) => match late {
                        true => {
                            let text = "The request timed out.";
                            election.refuse(topic, partition, ErrorCode::RequestTimedOut, text);
                        }
                        false => left.push((key, topic, partition)),
                    },
                    Some(_) => {
                        let text = "The preferred leader was not available.";
                        election.refuse(topic, partition, ErrorCode::PreferredLeaderNotAvailable, text);
                    }
                    None => {
                        let text = "This server does not host this topic-partition.";
                        election.refuse(topic, partition, ErrorCode::UnknownTopicOrPartition, text);
                    }
                }
            }
            election.pending = left;
            if election.pending.is_empty() {
                self.answer_election(election);
                continue;
            }
            if now.monotonic_ns >= election.again_ns {
                election.again_ns = now.monotonic_ns + AGAIN_NS;
                let node = self.config.node_id;
                let ask = Ask::Plan { node, request: election.planning.request() };
                self.ask_member(now, Asked::Nobody, ask, out);
            }
            if let Some(cluster) = &mut self.cluster {
                cluster.elections.push(election);
            }
        }
    }

    fn answer_election(&mut self, election: Election) {
        let Election { planning, version, correlation_id, response, .. } = election;
        let response = encode_response(ApiKey::ElectLeaders, version, correlation_id, &response);
        let index = self.image.applied_offset();
        if let Some(seat) = self.cluster.as_mut().and_then(|cluster| cluster.seat.as_mut()) {
            seat.answered.push((index, planning.origin(), response));
        }
    }
}
