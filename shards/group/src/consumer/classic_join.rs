//! JoinGroup of a classic member to a KIP-848 group with members (Kafka's classicGroupJoinToConsumerGroup): its join is a
//! heartbeat that says everything, and its generation is its member epoch. Nobody leads: the coordinator assigns.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{JoinGroupRequestData, JoinGroupResponseData};

use crate::classic::{CONSUMER, join_refusal, read_subscription};
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::records::ClassicMemberMetadata;
use crate::request::{GroupResponse, owned, text};
use crate::timers::TimerKey;
use crate::topics::TopicsView;

use super::request::{Ask, Refusal};
use super::upgrade::by_id;
use super::{ConsumerGroup, JOIN_EPOCH};

/// The first version whose clients come back with the id they are given (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// The first version with a protocol type in the answer (KIP-559).
const PROTOCOL_TYPE_FROM: i16 = 7;

impl Coordinator {
    /// A JoinGroup to a KIP-848 group. The caller has checked what needs no group (session timeout, group id).
    pub(crate) fn classic_join_to_consumer(
        &mut self,
        asker: Asker<'_>,
        request: &JoinGroupRequestData,
        turn: &mut Turn<'_>,
    ) {
        let is_unknown = request.member_id.as_str().is_empty();
        let member = if is_unknown { self.new_member_id("") } else { request.member_id.as_str().to_string() };
        let response = match self.classic_join(asker, &member, request, turn) {
            Ok(response) => response,
            Err(error) => {
                // Only an id that the client shall come back with is told.
                let told =
                    if is_unknown && error != ErrorCode::MemberIdRequired { "" } else { member.as_str() };
                join_refusal(asker.version(), told, error)
            }
        };
        let response = GroupResponse::JoinGroup(response);
        self.answer_durable([request.group_id.as_str()], asker.token, response, turn);
    }

    fn classic_join(
        &mut self,
        asker: Asker<'_>,
        member: &str,
        request: &JoinGroupRequestData,
        turn: &mut Turn<'_>,
    ) -> Result<JoinGroupResponseData, ErrorCode> {
        let id = request.group_id.as_str();
        let Some(Group::Consumer(group)) = self.groups.get(id) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        let is_unknown = request.member_id.as_str().is_empty();
        let is_full = group.members.len() >= self.config.consumer_max_size;
        if is_full && !group.members.contains_key(member) {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        let protocols: Vec<(String, Bytes)> =
            request.protocols.iter().map(|p| (p.name.as_str().to_string(), p.metadata.clone())).collect();
        if !group.supports_classic(request.protocol_type.as_str(), &protocols) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if is_unknown && request.group_instance_id.is_none() && asker.version() >= MEMBER_ID_REQUIRED_FROM {
            return Err(ErrorCode::MemberIdRequired);
        }
        let ask = ask(member, request, protocols, turn.topics).ok_or(ErrorCode::InconsistentGroupProtocol)?;
        let beat = self.consumer_beat(asker, member, &ask, turn).map_err(|refusal: Refusal| refusal.error)?;
        self.cancel_consumer_revocation(id, member);
        self.set_consumer_session(id, member, request.session_timeout_ms, turn);
        let key = TimerKey::MemberSync(id.to_string(), member.to_string());
        self.timers.set(key, turn.now.after_ms(i64::from(beat.value.rebalance_timeout_ms)));
        // A static member that came back speaking the classic protocol may have been the last of the other.
        if beat.replaced.is_some() {
            self.downgrade_without(id, &[], turn);
        }
        let protocol = request.protocols.first().map(|protocol| protocol.name.clone());
        Ok(JoinGroupResponseData {
            generation_id: beat.current.member_epoch,
            protocol_type: (asker.version() >= PROTOCOL_TYPE_FROM).then(|| text(CONSUMER)),
            protocol_name: protocol,
            member_id: text(member),
            ..Default::default()
        })
    }
}

/// The join as a heartbeat; none if its subscription cannot be read.
fn ask(
    member: &str,
    request: &JoinGroupRequestData,
    protocols: Vec<(String, Bytes)>,
    topics: &dyn TopicsView,
) -> Option<Ask> {
    // All protocols carry the same subscription.
    let subscription = protocols.first().and_then(|(_, metadata)| read_subscription(metadata))?;
    let instance_id = owned(&request.group_instance_id);
    Some(Ask {
        group: request.group_id.as_str().to_string(),
        member: member.to_string(),
        epoch: JOIN_EPOCH,
        joins: instance_id.is_none() || request.member_id.as_str().is_empty(),
        instance_id,
        rack_id: subscription.rack_id,
        // Clients of version 0 have one timeout for both.
        rebalance_timeout_ms: Some(match request.rebalance_timeout_ms {
            -1 => request.session_timeout_ms,
            timeout_ms => timeout_ms,
        }),
        topic_names: Some(subscription.topics.into_iter().collect()),
        topic_regex: Some(String::new()),
        assignor: None,
        owned: Some(by_id(&subscription.owned, topics)),
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: request.session_timeout_ms,
            supported_protocols: protocols,
        }),
    })
}

impl ConsumerGroup {
    /// Whether a classic member with these protocols can be in the group: those that are in it share one with it.
    pub fn supports_classic(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        let mut classic = self.members.values().filter_map(|member| member.classic.as_ref()).peekable();
        if protocol_type != CONSUMER || protocols.is_empty() {
            return false;
        }
        if classic.peek().is_none() {
            return true;
        }
        let others: Vec<&ClassicMemberMetadata> = classic.collect();
        let has = |member: &ClassicMemberMetadata, name: &str| {
            member.supported_protocols.iter().any(|(other, _)| other == name)
        };
        protocols.iter().any(|(name, _)| others.iter().all(|member| has(member, name)))
    }
}
