//! A member of a classic group and the requests of its that wait for the group.

use bytes::Bytes;
use pelton_wire::error_code::ErrorCode;

use super::response::{join_refusal, sync_refusal};
use crate::coordinator::Turn;
use crate::records::ClassicMemberValue;
use crate::request::{GroupResponse, RequestToken};

/// A request that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    pub token: RequestToken,
    pub api_version: i16,
}

/// A member.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassicMember {
    pub id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Names and metadata in its order of preference.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// It has not been in a generation yet.
    pub is_new: bool,
    pub join_order: u64,
    pub joining: Option<Waiting>,
    pub syncing: Option<Waiting>,
}

impl ClassicMember {
    /// A member as the log has it: only its metadata for the chosen protocol is known.
    pub fn from_record(value: ClassicMemberValue, protocol: String) -> ClassicMember {
        ClassicMember {
            id: value.member_id,
            instance_id: value.group_instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            session_timeout_ms: value.session_timeout_ms,
            protocols: vec![(protocol, value.subscription)],
            assignment: value.assignment,
            ..ClassicMember::default()
        }
    }

    /// Its metadata for a protocol; empty if it does not have that one.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Its join waits for the end of the phase; an older one of its is refused, so that no request stays open.
    pub fn wait_join(&mut self, waiting: Waiting, turn: &mut Turn<'_>) {
        self.refuse_join(ErrorCode::UnknownMemberId, turn);
        self.joining = Some(waiting);
    }

    /// Its sync waits for the assignment.
    pub fn wait_sync(&mut self, waiting: Waiting, turn: &mut Turn<'_>) {
        self.refuse_sync(ErrorCode::RebalanceInProgress, turn);
        self.syncing = Some(waiting);
    }

    /// Refuses its waiting join, if there is one.
    pub fn refuse_join(&mut self, error: ErrorCode, turn: &mut Turn<'_>) {
        if let Some(waiting) = self.joining.take() {
            let response = join_refusal(waiting.api_version, &self.id, error);
            turn.answer(waiting.token, GroupResponse::JoinGroup(response));
        }
    }

    /// Refuses its waiting sync, if there is one.
    pub fn refuse_sync(&mut self, error: ErrorCode, turn: &mut Turn<'_>) {
        if let Some(waiting) = self.syncing.take() {
            turn.answer(waiting.token, GroupResponse::SyncGroup(sync_refusal(error)));
        }
    }
}
