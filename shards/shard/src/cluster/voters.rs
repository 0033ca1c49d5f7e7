//! Changes of the quorum's voters that clients wait for: the answer leaves when this node knows them as committed.

use bytes::Bytes;
use pelton_cluster::placement::place_of;
use pelton_model::{NodeId, Now};
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{AddRaftVoterRequestData, RemoveRaftVoterRequestData, decode, decode_response};
use pelton_wire::messages::{AddRaftVoterResponseData, RemoveRaftVoterResponseData};

use super::control::Planning;
use crate::Shard;
use crate::api::{encode_response, raft_voters};

/// How long a removal is waited for, which names no time, milliseconds; Kafka's `controller.quorum.request.timeout.ms` by default.
const REMOVAL_TIMEOUT_MS: i32 = 2_000;

/// One request that waits.
pub(super) struct VoterChange {
    planning: Planning,
    node: NodeId,
    /// It is to be a voter, or none.
    voter: bool,
    done: Bytes,
    late: Bytes,
    deadline_ns: u64,
}

impl Shard {
    /// The controller has begun what a request wants: true if it is a change of voters whose end is to be waited for.
    pub(super) fn wait_for_voters(&mut self, now: Now, planning: &Planning, response: &Bytes) -> bool {
        let Some(change) = voter_change(now, planning, response) else { return false };
        if let Some(cluster) = &mut self.cluster {
            cluster.voter_changes.push(change);
        }
        true
    }

    /// Answers changes of voters that have come to their end.
    pub(super) fn look_at_voters(&mut self, now: Now) {
        let index = self.image.applied_offset();
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| !cluster.voter_changes.is_empty()) else {
            return;
        };
        let Some(seat) = &mut cluster.seat else { return };
        let members = seat.member.quorum.members();
        for change in std::mem::take(&mut cluster.voter_changes) {
            let votes = members.iter().any(|member| member.voter && member.node == change.node);
            if votes == change.voter {
                seat.answered.push((index, change.planning.origin(), change.done));
            } else if now.monotonic_ns >= change.deadline_ns {
                seat.answered.push((index, change.planning.origin(), change.late));
            } else {
                cluster.voter_changes.push(change);
            }
        }
    }
}

fn voter_change(now: Now, planning: &Planning, response: &Bytes) -> Option<VoterChange> {
    let (api_key, version, correlation_id, body) = planning.parsed()?;
    let answer = (response.len() > 4).then(|| response.slice(4..))?;
    let late = Err((ErrorCode::RequestTimedOut, String::new()));
    let (voter, id, timeout_ms, error_code, late) = match api_key {
        ApiKey::AddRaftVoter => {
            let request: AddRaftVoterRequestData = decode(version, body).ok()?;
            let (_, told): (i32, AddRaftVoterResponseData) =
                decode_response(api_key, version, answer).ok()?;
            if !request.ack_when_committed {
                return None;
            }
            let late = encode_response(api_key, version, correlation_id, &raft_voters::added(late));
            (true, request.voter_id, request.timeout_ms, told.error_code, late)
        }
        ApiKey::RemoveRaftVoter => {
            let request: RemoveRaftVoterRequestData = decode(version, body).ok()?;
            let (_, told): (i32, RemoveRaftVoterResponseData) =
                decode_response(api_key, version, answer).ok()?;
            let late = encode_response(api_key, version, correlation_id, &raft_voters::removed(late));
            (false, request.voter_id, REMOVAL_TIMEOUT_MS, told.error_code, late)
        }
        _ => return None,
    };
    let timeout_ns = u64::try_from(timeout_ms).unwrap_or(0) * 1_000_000;
    (error_code == 0).then(|| VoterChange {
        planning: planning.clone(),
        node: place_of(id).node,
        voter,
        done: response.clone(),
        late,
        deadline_ns: now.monotonic_ns.saturating_add(timeout_ns),
    })
}
