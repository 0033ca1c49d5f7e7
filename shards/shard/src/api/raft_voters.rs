//! AddRaftVoter (key 80) and RemoveRaftVoter (key 81), KIP-853: who decides on metadata. A voter is named by the broker id of its node's
//! first shard and by its data directory. As in Kafka a new one must have caught up; here it must be registered, too, which is how
//! its address is known. That the change is committed is waited for (`cluster/voters.rs`).

use pelton_cluster::placement::place_of;
use pelton_cluster::quorum::MemberChange;
use pelton_model::NodeId;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    AddRaftVoterRequestData, AddRaftVoterResponseData, KafkaString, KafkaUuid, RemoveRaftVoterRequestData,
    RemoveRaftVoterResponseData,
};

use super::context::ApiContext;
use super::describe_quorum::{MemberView, QuorumView};

/// A change of voters that is to begin, or why there is none.
pub type Voters = Result<MemberChange, (ErrorCode, String)>;

/// Entries a new voter may lack: what comes while it is asked for.
const LAG_MAX: i64 = 100;

fn refuse<T>(error: ErrorCode, text: impl Into<String>) -> Result<T, (ErrorCode, String)> {
    Err((error, text.into()))
}

/// Plans a new voter.
pub fn add(context: &ApiContext<'_>, view: Option<&QuorumView>, request: &AddRaftVoterRequestData) -> Voters {
    let cluster_id = request.cluster_id.as_ref();
    let view =
        check(context, view, cluster_id, ("Add", "adding"), request.voter_id, request.voter_directory_id)?;
    let (id, directory) = (request.voter_id, request.voter_directory_id);
    if view.members.iter().any(|member| member.voter && member.id == id) {
        let text = format!(
            "The voter id for {} is already part of the set of voters [{}].",
            key_of(id, directory),
            voters_of(view)
        );
        return refuse(ErrorCode::DuplicateVoter, text);
    }
    let node = node_of(id);
    if context.image.node(node).is_none_or(|known| KafkaUuid::from_uuid(known.directory) != directory) {
        let text = format!(
            "No broker {id} with directory id {directory} is registered: start it as a node of this cluster first."
        );
        return refuse(ErrorCode::InvalidRequest, text);
    }
    let end = view.members.iter().find(|member| member.id == id).map_or(-1, |member| member.log_end_offset);
    if end < view.high_watermark - LAG_MAX {
        let text =
            format!("Aborted add voter operation for {} since it is lagging behind", key_of(id, directory));
        return refuse(ErrorCode::RequestTimedOut, text);
    }
    Ok(MemberChange::AddVoter(node))
}

/// Plans that a voter is none any more. It hears of metadata as long as it is registered.
pub fn remove(
    context: &ApiContext<'_>,
    view: Option<&QuorumView>,
    request: &RemoveRaftVoterRequestData,
) -> Voters {
    let cluster_id = request.cluster_id.as_ref();
    let (id, directory) = (request.voter_id, request.voter_directory_id);
    let view = check(context, view, cluster_id, ("Remove", "removing"), id, directory)?;
    let known = |member: &&MemberView| {
        member.voter && member.id == id && KafkaUuid::from_uuid(member.directory) == directory
    };
    let node = node_of(id);
    match view.members.iter().find(known) {
        None => {
            let text = format!(
                "Cannot remove voter {} from the set of voters [{}]",
                key_of(id, directory),
                voters_of(view)
            );
            refuse(ErrorCode::VoterNotFound, text)
        }
        Some(_) if view.members.iter().filter(|member| member.voter).count() == 1 => refuse(
            ErrorCode::InvalidRequest,
            format!("Broker {id} is the only voter; add another one first."),
        ),
        Some(_) if view.leader_id == id => refuse(
            ErrorCode::InvalidRequest,
            format!("Broker {id} leads the metadata quorum; restart it first, so that another one does."),
        ),
        Some(_) if context.image.node(node).is_some() => Ok(MemberChange::AddObserver(node)),
        Some(_) => Ok(MemberChange::Remove(node)),
    }
}

fn check<'a>(
    context: &ApiContext<'_>,
    view: Option<&'a QuorumView>,
    cluster_id: Option<&KafkaString>,
    (what, doing): (&str, &str),
    id: i32,
    directory: KafkaUuid,
) -> Result<&'a QuorumView, (ErrorCode, String)> {
    if cluster_id.is_some_and(|id| id.as_str() != context.config.cluster_id.0) {
        return refuse(ErrorCode::InconsistentClusterId, String::new());
    }
    let Some(view) = view else {
        return refuse(
            ErrorCode::NotLeaderOrFollower,
            "This broker does not lead the metadata quorum any more.",
        );
    };
    if id < 0 || place_of(id).shard.0 != 0 || directory == KafkaUuid::ZERO {
        return refuse(
            ErrorCode::InvalidRequest,
            format!("{what} voter request didn't include a valid voter"),
        );
    }
    if !context.is_cluster() {
        let text =
            format!("Cluster doesn't support {doing} voter because this broker is no part of a cluster");
        return refuse(ErrorCode::UnsupportedVersion, text);
    }
    Ok(view)
}

fn node_of(id: i32) -> NodeId {
    place_of(id).node
}

/// A voter as Kafka writes it.
fn key_of(id: i32, directory: KafkaUuid) -> String {
    format!("ReplicaKey(id={id}, directoryId={directory})")
}

fn voters_of(view: &QuorumView) -> String {
    let voters = view.members.iter().filter(|member| member.voter);
    let keys: Vec<String> =
        voters.map(|member| key_of(member.id, KafkaUuid::from_uuid(member.directory))).collect();
    keys.join(", ")
}

/// The answer to AddRaftVoter.
pub fn added(outcome: Result<(), (ErrorCode, String)>) -> AddRaftVoterResponseData {
    let (error_code, error_message) = told(outcome);
    AddRaftVoterResponseData { error_code, error_message, ..Default::default() }
}

/// The answer to RemoveRaftVoter.
pub fn removed(outcome: Result<(), (ErrorCode, String)>) -> RemoveRaftVoterResponseData {
    let (error_code, error_message) = told(outcome);
    RemoveRaftVoterResponseData { error_code, error_message, ..Default::default() }
}

fn told(outcome: Result<(), (ErrorCode, String)>) -> (i16, Option<KafkaString>) {
    match outcome {
        Ok(()) => (0, None),
        Err((error, text)) => (error.code(), (!text.is_empty()).then(|| KafkaString::from(text))),
    }
}
