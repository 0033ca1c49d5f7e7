//! DescribeQuorum (key 55, KIP-595, KIP-836, KIP-853): who decides on metadata, who follows, and how far each is. The offsets are
//! those of the metadata log; a single node is a quorum of one.

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use pelton_wire::messages::{DescribeQuorumRequestData, DescribeQuorumResponseData, KafkaString, KafkaUuid};
use uuid::Uuid;

/// The metadata log as Kafka calls it.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// The quorum as its leader sees it.
pub struct QuorumView {
    /// The leader, as a broker id.
    pub leader_id: i32,
    /// Its term.
    pub leader_epoch: i32,
    /// First offset that is not committed.
    pub high_watermark: i64,
    /// Everybody, by id.
    pub members: Vec<MemberView>,
}

/// A member.
pub struct MemberView {
    /// The broker id of the node's first shard.
    pub id: i32,
    /// Its data directory; nil if it is not registered.
    pub directory: Uuid,
    /// It takes part in decisions.
    pub voter: bool,
    /// Where its log ends, as far as the leader knows; -1 if it does not.
    pub log_end_offset: i64,
    /// When it was last heard of, milliseconds of wall time; -1 = of the leader itself, or never.
    pub last_fetch_ms: i64,
    /// When it last had everything, milliseconds of wall time; -1 = not known.
    pub last_caught_up_ms: i64,
    /// Its listeners: name, host, port.
    pub listeners: Vec<(String, String, u16)>,
}

/// The answer; `view` is none on a node that does not lead.
pub fn handle(
    view: Option<&QuorumView>,
    version: i16,
    request: DescribeQuorumRequestData,
) -> DescribeQuorumResponseData {
    let mut response = DescribeQuorumResponseData::default();
    let valid = matches!(&request.topics[..], [topic] if topic.topic_name.as_str() == METADATA_TOPIC
        && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0));
    let refusal = match (valid, view) {
        (false, _) => Some(ErrorCode::UnknownTopicOrPartition),
        (true, None) => Some(ErrorCode::NotLeaderOrFollower),
        (true, Some(_)) => None,
    };
    let shown = match refusal {
        None => view,
        Some(error) => {
            let message = (version >= 2).then(|| KafkaString::from_static(text_of(error)));
            let partition = |index: i32| PartitionData {
                partition_index: index,
                error_code: error.code(),
                error_message: message.clone(),
                ..PartitionData::default()
            };
            response.topics = request
                .topics
                .into_iter()
                .map(|topic| TopicData {
                    topic_name: topic.topic_name,
                    partitions: topic.partitions.iter().map(|it| partition(it.partition_index)).collect(),
                    ..TopicData::default()
                })
                .collect();
            None
        }
    };
    let Some(view) = shown else { return response };
    let states = |voter: bool| {
        let some = view.members.iter().filter(|member| member.voter == voter);
        some.map(|member| member.state(version)).collect()
    };
    let partition = PartitionData {
        leader_id: view.leader_id,
        leader_epoch: view.leader_epoch,
        high_watermark: view.high_watermark,
        current_voters: states(true),
        observers: states(false),
        ..PartitionData::default()
    };
    response.topics = vec![TopicData {
        topic_name: KafkaString::from_static(METADATA_TOPIC),
        partitions: vec![partition],
        ..TopicData::default()
    }];
    if version >= 2 {
        let voters = view.members.iter().filter(|member| member.voter);
        response.nodes = voters.map(MemberView::node).collect();
    }
    response
}

fn text_of(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::NotLeaderOrFollower => {
            "For requests intended only for the leader, this error indicates that the broker is not the current leader."
        }
        _ => "This server does not host this topic-partition.",
    }
}

impl MemberView {
    fn state(&self, version: i16) -> ReplicaState {
        let mut state = ReplicaState {
            replica_id: self.id,
            log_end_offset: self.log_end_offset,
            ..ReplicaState::default()
        };
        if version >= 1 {
            state.last_fetch_timestamp = self.last_fetch_ms;
            state.last_caught_up_timestamp = self.last_caught_up_ms;
        }
        if version >= 2 {
            state.replica_directory_id = KafkaUuid::from_uuid(self.directory);
        }
        state
    }

    fn node(&self) -> Node {
        let listeners = self.listeners.iter().map(|(name, host, port)| Listener {
            name: KafkaString::from(name.clone()),
            host: KafkaString::from(host.clone()),
            port: *port,
            ..Listener::default()
        });
        Node { node_id: self.id, listeners: listeners.collect(), ..Node::default() }
    }
}
