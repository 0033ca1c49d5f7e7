//! What a member makes of the broker's answers, and what the judge hears of them.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages as m;

use crate::group_oracle::{GroupOracle, Register};

use super::{Ask, Member, State, assignment, fetched, read};

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE: i16 = 82;
/// Ask again: the coordinator loads, is not there, or cannot store; a time-out.
const AGAIN: [i16; 6] = [7, 14, 15, 16, 56, -1];

impl Member {
    pub(super) fn answer(&mut self, frame: Bytes, oracle: &mut GroupOracle) -> Result<(), String> {
        let (expected, ask) = self.pending.pop_front().ok_or("an answer nobody asked for")?;
        let id = frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes));
        if id != Some(expected) {
            return Err(format!("answers out of order: {id:?} instead of {expected}"));
        }
        match ask {
            Ask::Join { version } => self.joined(read(ApiKey::JoinGroup, version, frame)?),
            Ask::Sync { version, generation } => {
                self.synced(generation, read(ApiKey::SyncGroup, version, frame)?, oracle)
            }
            Ask::Heartbeat { version } => {
                let body: m::HeartbeatResponseData = read(ApiKey::Heartbeat, version, frame)?;
                self.judged("heartbeat", body.error_code)
            }
            Ask::Commit { version, parts, is_stale } => {
                let body = read(ApiKey::OffsetCommit, version, frame)?;
                self.committed(&parts, is_stale, &body, oracle)
            }
            Ask::Fetch { version, registers, begun } => {
                let body: m::OffsetFetchResponseData = read(ApiKey::OffsetFetch, version, frame)?;
                self.read_back(version, &registers, begun, &body, oracle)
            }
            // Whatever it says, the member is gone.
            Ask::Leave => Ok(()),
        }
    }

    /// What an error means for the member.
    fn judged(&mut self, what: &str, error: i16) -> Result<(), String> {
        match error {
            0 => {}
            UNKNOWN_MEMBER | FENCED_INSTANCE => self.forget(),
            // Of a request sent before the member joined anew, too: it joins once more.
            ILLEGAL_GENERATION | REBALANCE_IN_PROGRESS => self.state = State::Out,
            error if AGAIN.contains(&error) => {}
            error => return Err(format!("{}: {what} error {error}", self.name)),
        }
        Ok(())
    }

    fn joined(&mut self, body: m::JoinGroupResponseData) -> Result<(), String> {
        match body.error_code {
            0 => {
                self.state = State::Joined;
                self.generation = body.generation_id;
                self.member_id = body.member_id.to_string();
                self.protocol = body.protocol_name.as_ref().map(ToString::to_string).unwrap_or_default();
                self.is_leader = body.leader.as_str() == self.member_id;
                self.members = body.members.iter().map(|member| member.member_id.to_string()).collect();
                if self.is_leader && !self.members.contains(&self.member_id) && !self.members.is_empty() {
                    return Err(format!("{}: leads a generation it is not in", self.name));
                }
                Ok(())
            }
            MEMBER_ID_REQUIRED => {
                self.member_id = body.member_id.to_string();
                Ok(())
            }
            error => self.judged("join", error),
        }
    }

    fn synced(
        &mut self,
        generation: i32,
        body: m::SyncGroupResponseData,
        oracle: &mut GroupOracle,
    ) -> Result<(), String> {
        self.state = State::Out;
        if body.error_code != 0 {
            return self.judged("sync", body.error_code);
        }
        self.state = State::In;
        let owned = match body.assignment.is_empty() {
            true => Default::default(),
            false => assignment::decode(&body.assignment)
                .ok_or_else(|| format!("{}: an assignment nobody made", self.name))?,
        };
        // A static member that comes back has another id and the same share.
        let owner = self.instance.as_ref().unwrap_or(&self.member_id);
        oracle.assigned(&self.group, generation, owner, &owned)?;
        self.owned = owned;
        Ok(())
    }

    fn committed(
        &mut self,
        parts: &[(Register, i64)],
        is_stale: bool,
        body: &m::OffsetCommitResponseData,
        oracle: &mut GroupOracle,
    ) -> Result<(), String> {
        let errors = commit_errors(&self.name, parts.len(), body)?;
        if is_stale {
            return match errors.contains(&0) {
                true => Err(format!("{}: a commit of an old generation was taken", self.name)),
                false => Ok(()),
            };
        }
        for ((register, offset), error) in parts.iter().zip(&errors) {
            match error {
                0 => oracle.committed(register, *offset),
                error => self.judged("commit", *error)?,
            }
        }
        if !self.steady || errors.iter().all(|error| *error == 0) {
            self.operations += 1;
        }
        Ok(())
    }

    fn read_back(
        &mut self,
        version: i16,
        registers: &[Register],
        begun: u64,
        body: &m::OffsetFetchResponseData,
        oracle: &mut GroupOracle,
    ) -> Result<(), String> {
        let (error, offsets) = fetched(body, version);
        let error = offsets.iter().map(|(_, _, _, error)| *error).find(|error| *error != 0).unwrap_or(error);
        if error != 0 {
            return self.judged("offset fetch", error);
        }
        if offsets.len() != registers.len() {
            return Err(format!("{}: {} offsets of {}", self.name, offsets.len(), registers.len()));
        }
        for (topic, partition, offset, _) in offsets {
            oracle.fetched(&(self.group.clone(), topic, partition), begun, offset)?;
        }
        if !self.steady || self.operations > 0 {
            self.operations += 1;
        }
        Ok(())
    }
}

/// The errors of an OffsetCommit answer, one for each of the `expected` partitions.
pub fn commit_errors(
    name: &str,
    expected: usize,
    body: &m::OffsetCommitResponseData,
) -> Result<Vec<i16>, String> {
    let errors = body.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.error_code));
    let errors: Vec<i16> = errors.collect();
    match errors.len() == expected {
        true => Ok(errors),
        false => Err(format!("{name}: {} partitions answered of {expected}", errors.len())),
    }
}
