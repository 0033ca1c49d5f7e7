//! Classic clients: their requests, and groups that have come to a generation.

use bytes::Bytes;
use pelton_wire::messages::join_group_request::JoinGroupRequestProtocol;
use pelton_wire::messages::leave_group_request::MemberIdentity;
use pelton_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use pelton_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use pelton_wire::messages::{
    HeartbeatRequestData, JoinGroupRequestData, JoinGroupResponseData, LeaveGroupRequestData,
    OffsetCommitRequestData, SyncGroupRequestData, SyncGroupResponseData,
};

use super::kit::{GROUP, Kit};
use crate::classic::ClassicState;
use crate::request::text;
use crate::{GroupRequest, GroupResponse};

/// Dynamic members get their id at once up to this version of JoinGroup.
pub(super) const ONE_STEP: i16 = 3;

/// A subscription to `t`, as a consumer of version 0 writes it.
pub(super) fn subscription() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff])
}

pub(super) fn join_request(member: &str, protocols: &[(&str, Bytes)]) -> JoinGroupRequestData {
    let protocol = |(name, metadata): &(&str, Bytes)| JoinGroupRequestProtocol {
        name: text(name),
        metadata: metadata.clone(),
        ..Default::default()
    };
    JoinGroupRequestData {
        group_id: text(GROUP),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        member_id: text(member),
        protocol_type: text("consumer"),
        protocols: protocols.iter().map(protocol).collect(),
        ..Default::default()
    }
}

pub(super) fn consumer(member: &str) -> JoinGroupRequestData {
    join_request(member, &[("range", subscription())])
}

pub(super) fn fixed(instance: &str, member: &str) -> JoinGroupRequestData {
    JoinGroupRequestData { group_instance_id: Some(text(instance)), ..consumer(member) }
}

/// A group in a generation: the member ids, the leader's first.
pub(super) struct Generation {
    pub ids: Vec<String>,
    pub number: i32,
}

impl Kit {
    pub fn join(&mut self, version: i16, request: JoinGroupRequestData) -> u64 {
        self.ask(version, GroupRequest::JoinGroup(request))
    }

    pub fn joined(&mut self, token: u64) -> Option<JoinGroupResponseData> {
        match self.take(token)? {
            GroupResponse::JoinGroup(response) => Some(response),
            other => panic!("not a JoinGroup: {other:?}"),
        }
    }

    /// The answer of a join that is answered at once.
    pub fn join_now(&mut self, version: i16, request: JoinGroupRequestData) -> JoinGroupResponseData {
        let token = self.join(version, request);
        self.joined(token).expect("answered at once")
    }

    /// Syncs; a leader gives each member its own id as its assignment.
    pub fn sync(&mut self, member: &str, generation: i32, gives: &[String]) -> u64 {
        self.sync_as(member, None, generation, gives)
    }

    pub fn sync_as(&mut self, member: &str, instance: Option<&str>, number: i32, gives: &[String]) -> u64 {
        let give = |id: &String| SyncGroupRequestAssignment {
            member_id: text(id),
            assignment: Bytes::from(format!("for {id}")),
            ..Default::default()
        };
        let request = SyncGroupRequestData {
            group_id: text(GROUP),
            generation_id: number,
            member_id: text(member),
            group_instance_id: instance.map(text),
            protocol_type: Some(text("consumer")),
            protocol_name: Some(text("range")),
            assignments: gives.iter().map(give).collect(),
            ..Default::default()
        };
        self.ask(5, GroupRequest::SyncGroup(request))
    }

    pub fn synced(&mut self, token: u64) -> Option<SyncGroupResponseData> {
        match self.take(token)? {
            GroupResponse::SyncGroup(response) => Some(response),
            other => panic!("not a SyncGroup: {other:?}"),
        }
    }

    /// Error of a heartbeat.
    pub fn beat(&mut self, member: &str, instance: Option<&str>, generation: i32) -> i16 {
        let request = HeartbeatRequestData {
            group_id: text(GROUP),
            generation_id: generation,
            member_id: text(member),
            group_instance_id: instance.map(text),
            ..Default::default()
        };
        let token = self.ask(4, GroupRequest::Heartbeat(request));
        match self.take(token) {
            Some(GroupResponse::Heartbeat(response)) => response.error_code,
            other => panic!("not a Heartbeat: {other:?}"),
        }
    }

    /// Removes members by id or instance id; the errors.
    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<i16> {
        let token = self.ask_leave(members);
        match self.take(token) {
            Some(GroupResponse::LeaveGroup(response)) if response.error_code == 0 => {
                response.members.iter().map(|member| member.error_code).collect()
            }
            other => panic!("not left: {other:?}"),
        }
    }

    pub fn ask_leave(&mut self, members: &[(&str, Option<&str>)]) -> u64 {
        let identity = |(member, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: text(member),
            group_instance_id: instance.map(text),
            ..Default::default()
        };
        let members = members.iter().map(identity).collect();
        let request = LeaveGroupRequestData { group_id: text(GROUP), members, ..Default::default() };
        self.ask(5, GroupRequest::LeaveGroup(request))
    }

    pub fn commit(&mut self, member: &str, generation: i32, offset: i64) -> u64 {
        let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
        let topic =
            OffsetCommitRequestTopic { name: text("t"), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequestData {
            group_id: text(GROUP),
            generation_id_or_member_epoch: generation,
            member_id: text(member),
            topics: vec![topic],
            ..Default::default()
        };
        self.ask(8, GroupRequest::OffsetCommit(request))
    }

    pub fn committed(&mut self, token: u64) -> Option<i16> {
        match self.take(token)? {
            GroupResponse::OffsetCommit(response) => Some(response.topics[0].partitions[0].error_code),
            other => panic!("not an OffsetCommit: {other:?}"),
        }
    }

    /// A new group of `size` dynamic members whose assignment is stored.
    pub fn generation_of(&mut self, size: usize) -> Generation {
        let tokens: Vec<u64> = (0..size).map(|_| self.join(ONE_STEP, consumer(""))).collect();
        self.settle(&tokens)
    }

    /// Lets the members of these joins come to a stable generation.
    pub fn settle(&mut self, tokens: &[u64]) -> Generation {
        self.pass_ms(6_000);
        let answers: Vec<_> = tokens.iter().map(|token| self.joined(*token).expect("joined")).collect();
        assert!(answers.iter().all(|answer| answer.error_code == 0), "{answers:?}");
        let leader = answers[0].leader.as_str().to_string();
        let number = answers[0].generation_id;
        let mut ids: Vec<String> = answers.iter().map(|a| a.member_id.as_str().to_string()).collect();
        ids.sort_by_key(|id| *id != leader);
        self.sync_all(&ids, number);
        Generation { ids, number }
    }

    /// Everyone syncs, the leader (the first) last; each gets what is for it.
    pub fn sync_all(&mut self, ids: &[String], number: i32) {
        let tokens: Vec<u64> = ids.iter().rev().map(|id| self.sync(id, number, ids)).collect();
        for (token, id) in tokens.iter().zip(ids.iter().rev()) {
            let answer = self.synced(*token).expect("synced");
            assert_eq!((answer.error_code, answer.assignment), (0, Bytes::from(format!("for {id}"))));
        }
    }

    pub fn state(&self) -> ClassicState {
        self.coordinator.classic(GROUP).expect("a classic group").state
    }
}
