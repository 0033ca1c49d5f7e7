//! A committed offset of a group as a register with one writer, which is also its reader: what was acknowledged is never lost,
//! and reads never go back (I15). The coordinator moves with the leader of its partition of `__consumer_offsets`.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self as m, KafkaString};

use super::bodies::{decoded, encoded};
use super::client::Next;
use super::node::place_of_port;
use super::{Judges, Place};

/// A register.
pub struct Register {
    group: String,
    topic: &'static str,
    /// The value that is being written, and what was acknowledged or read last.
    writing: i64,
    least: i64,
    reads: bool,
    goal: i64,
}

impl Register {
    /// Of a group, written so many times.
    pub fn new(group: String, topic: &'static str, goal: i64) -> Register {
        Register { group, topic, writing: 0, least: -1, reads: false, goal }
    }

    pub fn is_done(&self) -> bool {
        self.least >= self.goal
    }

    /// For an error.
    pub fn text(&self) -> String {
        let what = if self.reads { "reads" } else { "commits" };
        format!("group {} {what} {} of {}, at least {}", self.group, self.writing, self.goal, self.least)
    }

    pub fn find(&mut self, id: i32) -> (i16, Vec<u8>) {
        let key = KafkaString::from(self.group.clone());
        let body = m::FindCoordinatorRequestData { coordinator_keys: vec![key], ..Default::default() };
        (4, encoded(ApiKey::FindCoordinator, 4, id, &body))
    }

    pub fn found(&mut self, version: i16, frame: Bytes) -> Result<Option<Place>, String> {
        let body: m::FindCoordinatorResponseData = decoded(ApiKey::FindCoordinator, version, frame)?;
        let found = body.coordinators.first().ok_or("no coordinator in the answer")?;
        match found.error_code {
            0 => Ok(Some(place_of_port(found.port))),
            15 => Ok(None),
            code => Err(format!("FindCoordinator error {code}")),
        }
    }

    pub fn next(&mut self, id: i32) -> (i16, Vec<u8>) {
        let (name, group_id) = (KafkaString::from_static(self.topic), KafkaString::from(self.group.clone()));
        if self.reads {
            let topics = vec![m::offset_fetch_request::OffsetFetchRequestTopics {
                name,
                partition_indexes: vec![0],
                ..Default::default()
            }];
            let groups = vec![m::offset_fetch_request::OffsetFetchRequestGroup {
                group_id,
                topics: Some(topics),
                member_epoch: -1,
                ..Default::default()
            }];
            let body = m::OffsetFetchRequestData { groups, ..Default::default() };
            return (8, encoded(ApiKey::OffsetFetch, 8, id, &body));
        }
        let topic = m::offset_commit_request::OffsetCommitRequestTopic {
            name,
            partitions: vec![m::offset_commit_request::OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: self.writing,
                committed_metadata: Some(KafkaString::default()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let body = m::OffsetCommitRequestData {
            group_id,
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        (8, encoded(ApiKey::OffsetCommit, 8, id, &body))
    }

    pub fn answered(&mut self, version: i16, frame: Bytes, judges: &mut Judges) -> Result<Next, String> {
        let code = if self.reads {
            let body: m::OffsetFetchResponseData = decoded(ApiKey::OffsetFetch, version, frame)?;
            let group = body.groups.first().ok_or("an answer without its group")?;
            let found = group.topics.first().and_then(|topic| topic.partitions.first());
            let found = found.map(|found| (found.error_code, found.committed_offset));
            match (group.error_code, found) {
                (0, Some((0, offset))) => {
                    if offset > self.writing || (judges.fresh && offset < self.least) {
                        return Err(format!("{}: read {offset}", self.text()));
                    }
                    (self.least, self.reads) = (offset.max(self.least), false);
                    self.writing += 1;
                    0
                }
                (0, Some((code, _))) => code,
                (0, None) => return Err(format!("{}: an answer without its partition", self.text())),
                (code, _) => code,
            }
        } else {
            let body: m::OffsetCommitResponseData = decoded(ApiKey::OffsetCommit, version, frame)?;
            let found = body.topics.first().and_then(|topic| topic.partitions.first());
            let code = found.ok_or("an answer without its partition")?.error_code;
            if code == 0 {
                (self.least, self.reads) = (self.writing, true);
                judges.commits += 1;
            }
            code
        };
        match code {
            0 => Ok(Next::On),
            // It loads, or is not available now.
            14 | 15 => Ok(Next::Again),
            16 => Ok(Next::Moved),
            code => Err(format!("{}: error {code}", self.text())),
        }
    }
}
