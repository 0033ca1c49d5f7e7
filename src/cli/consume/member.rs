//! A member of a group by the classic protocol: joins, leads if it is told to, says that it lives, leaves. Knows no records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pelton_wire::api_key::ApiKey;
use pelton_wire::consumer_protocol::{
    encode_assignment, encode_subscription, read_assignment, read_subscription,
};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::join_group_request::JoinGroupRequestProtocol;
use pelton_wire::messages::leave_group_request::MemberIdentity;
use pelton_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use pelton_wire::messages::{
    HeartbeatRequestData, HeartbeatResponseData, JoinGroupRequestData, JoinGroupResponseData, KafkaString,
    LeaveGroupRequestData, LeaveGroupResponseData, SyncGroupRequestData, SyncGroupResponseData,
};

use super::assignor::{ASSIGNORS, Subscriber, assign};
use crate::cli::client::Client;
use crate::cli::group::offsets::Committer;
use crate::cli::group::overview::{Partitions, words};
use crate::failure::Failure;

const PROTOCOL_TYPE: &str = "consumer";
/// After so long without a heartbeat the coordinator takes a member for dead (Kafka's default).
const SESSION_TIMEOUT_MS: i32 = 45_000;
/// So long a member has to come back when the group rebalances.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
/// How often a member says that it lives (Kafka's default).
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// How often a leader looks whether topics have got more partitions.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);
/// So much longer than others the answer to a join may take: it waits for all members, and those of other clients may be
/// given five minutes.
const JOIN_PATIENCE: Duration = Duration::from_secs(305);

/// Whether a member is still in the generation it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is.
    Member,
    /// The group rebalances; the member keeps its id.
    Rebalance,
}

/// A member, or one that wants to be.
pub struct Member {
    group: String,
    topics: Vec<String>,
    instance_id: Option<String>,
    member_id: String,
    generation: i32,
    beat: Instant,
    /// What a leader distributed: partitions by topic, and when it looked; none if another leads.
    distributed: Option<(BTreeMap<String, i32>, Instant)>,
}

impl Member {
    /// Not joined yet.
    pub fn new(group: &str, topics: &[String], instance_id: Option<&str>) -> Member {
        Member {
            group: group.to_string(),
            topics: topics.to_vec(),
            instance_id: instance_id.map(str::to_string),
            member_id: String::new(),
            generation: -1,
            beat: Instant::now(),
            distributed: None,
        }
    }

    /// In whose name to commit.
    pub fn committer(&self) -> Committer<'_> {
        Committer {
            group: &self.group,
            generation: self.generation,
            member_id: &self.member_id,
            instance_id: self.instance_id.as_deref(),
        }
    }

    /// Joins, or joins again, and gives what this member is assigned.
    pub fn join(&mut self, client: &mut Client) -> Result<Partitions, Failure> {
        loop {
            let answer = self.ask_join(client)?;
            match ErrorCode::from_code(answer.error_code) {
                ErrorCode::None => {}
                // The first answer to a new member is its id (KIP-394).
                ErrorCode::MemberIdRequired => {
                    self.member_id = answer.member_id.to_string();
                    continue;
                }
                error => {
                    self.start_over(error)?;
                    continue;
                }
            }
            self.member_id = answer.member_id.to_string();
            self.generation = answer.generation_id;
            let assignments = self.lead(client, &answer)?;
            if let Some(partitions) = self.sync(client, &answer, assignments)? {
                self.beat = Instant::now();
                let has = if partitions.is_empty() { "no partition".to_string() } else { words(&partitions) };
                eprintln!(
                    "pelton: group {}, generation {}: {} has {has}",
                    self.group, self.generation, self.member_id
                );
                return Ok(partitions);
            }
        }
    }

    fn ask_join(&self, client: &mut Client) -> Result<JoinGroupResponseData, Failure> {
        let metadata = encode_subscription(&self.topics);
        let protocol = |name: &&str| JoinGroupRequestProtocol {
            name: name.to_string().into(),
            metadata: metadata.clone(),
            ..JoinGroupRequestProtocol::default()
        };
        let request = |_version: i16| JoinGroupRequestData {
            group_id: self.group.clone().into(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.member_id.clone().into(),
            group_instance_id: self.instance(),
            protocol_type: PROTOCOL_TYPE.to_string().into(),
            protocols: ASSIGNORS.iter().map(protocol).collect(),
            ..JoinGroupRequestData::default()
        };
        client.ask_coordinator_patiently(
            &self.group,
            ApiKey::JoinGroup,
            9,
            JOIN_PATIENCE,
            request,
            |answer: &JoinGroupResponseData| answer.error_code,
        )
    }

    fn instance(&self) -> Option<KafkaString> {
        self.instance_id.clone().map(KafkaString::from)
    }

    /// What to do about an error of join or sync: forget the id, just join again, or give up.
    fn start_over(&mut self, error: ErrorCode) -> Result<(), Failure> {
        match error {
            ErrorCode::UnknownMemberId => self.member_id.clear(),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => {}
            error => {
                let remedy = match error {
                    ErrorCode::InconsistentGroupProtocol => {
                        ": its members use another protocol or assignor; take another group"
                    }
                    ErrorCode::FencedInstanceId => {
                        ": another member has taken this --instance-id; give each its own"
                    }
                    ErrorCode::GroupMaxSizeReached => ": stop a member first, or raise group.max.size",
                    _ => "",
                };
                return Err(Failure::error(format!("group {}: {error}{remedy}", self.group)));
            }
        }
        Ok(())
    }

    /// Assignments for everyone, if this member leads; nothing otherwise.
    fn lead(
        &mut self,
        client: &mut Client,
        answer: &JoinGroupResponseData,
    ) -> Result<Vec<SyncGroupRequestAssignment>, Failure> {
        self.distributed = None;
        if answer.leader != answer.member_id {
            return Ok(Vec::new());
        }
        let mut members = Vec::new();
        for member in &answer.members {
            // A subscription that cannot be read subscribes to nothing.
            let topics = read_subscription(&member.metadata).unwrap_or_default().topics;
            members.push(Subscriber {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(KafkaString::to_string),
                topics,
            });
        }
        let topics: BTreeSet<String> = members.iter().flat_map(|member| member.topics.clone()).collect();
        let counts = counts(client, &topics.into_iter().collect::<Vec<_>>())?;
        let assignor = answer.protocol_name.as_ref().map(KafkaString::to_string).unwrap_or_default();
        let given =
            if answer.skip_assignment { Some(BTreeMap::new()) } else { assign(&assignor, &members, &counts) };
        let given = given.ok_or_else(|| {
            Failure::error(format!("group {}: assignor {assignor:?} was not offered", self.group))
        })?;
        self.distributed = Some((counts, Instant::now()));
        Ok(given
            .into_iter()
            .map(|(member_id, partitions)| SyncGroupRequestAssignment {
                member_id: member_id.into(),
                assignment: encode_assignment(0, &partitions),
                ..SyncGroupRequestAssignment::default()
            })
            .collect())
    }

    /// Brings or fetches the assignment; none if the group rebalances again.
    fn sync(
        &mut self,
        client: &mut Client,
        joined: &JoinGroupResponseData,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Option<Partitions>, Failure> {
        let request = |_version: i16| SyncGroupRequestData {
            group_id: self.group.clone().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone().into(),
            group_instance_id: self.instance(),
            protocol_type: Some(PROTOCOL_TYPE.to_string().into()),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.clone(),
            ..SyncGroupRequestData::default()
        };
        let answer: SyncGroupResponseData = client.ask_coordinator_patiently(
            &self.group,
            ApiKey::SyncGroup,
            5,
            JOIN_PATIENCE,
            request,
            |answer: &SyncGroupResponseData| answer.error_code,
        )?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => read_assignment(&answer.assignment).map(Some).ok_or_else(|| {
                Failure::error(format!("group {}: the leader's assignment cannot be read", self.group))
            }),
            error => self.start_over(error).map(|()| None),
        }
    }

    /// Says that this member lives, if it is time to.
    pub fn heartbeat(&mut self, client: &mut Client) -> Result<Standing, Failure> {
        if self.beat.elapsed() < HEARTBEAT_INTERVAL {
            return self.look_for_partitions(client);
        }
        self.beat = Instant::now();
        let request = |_version: i16| HeartbeatRequestData {
            group_id: self.group.clone().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone().into(),
            group_instance_id: self.instance(),
            ..HeartbeatRequestData::default()
        };
        let answer: HeartbeatResponseData = client.ask_coordinator(
            &self.group,
            ApiKey::Heartbeat,
            4,
            request,
            |answer: &HeartbeatResponseData| answer.error_code,
        )?;
        self.standing(ErrorCode::from_code(answer.error_code))
    }

    /// What an error of a heartbeat or a commit says about this member.
    pub fn standing(&mut self, error: ErrorCode) -> Result<Standing, Failure> {
        match error {
            ErrorCode::None => Ok(Standing::Member),
            error => self.start_over(error).map(|()| Standing::Rebalance),
        }
    }

    /// A leader rebalances the group when a topic has got more partitions.
    fn look_for_partitions(&mut self, client: &mut Client) -> Result<Standing, Failure> {
        let Some((known, looked)) = &self.distributed else { return Ok(Standing::Member) };
        if looked.elapsed() < PARTITIONS_INTERVAL {
            return Ok(Standing::Member);
        }
        let now = counts(client, &known.keys().cloned().collect::<Vec<_>>())?;
        let same = now == *known;
        self.distributed = Some((now, Instant::now()));
        Ok(if same { Standing::Member } else { Standing::Rebalance })
    }

    /// Leaves, so that its partitions are given to others at once. A static member does not: it is to come back.
    pub fn leave(&mut self, client: &mut Client) -> Result<(), Failure> {
        if self.member_id.is_empty() || self.instance_id.is_some() {
            return Ok(());
        }
        let request = |version: i16| {
            let mut request = LeaveGroupRequestData {
                group_id: self.group.clone().into(),
                ..LeaveGroupRequestData::default()
            };
            // From version 3 several leave at once (KIP-345).
            if version < 3 {
                request.member_id = self.member_id.clone().into();
            } else {
                let member =
                    MemberIdentity { member_id: self.member_id.clone().into(), ..MemberIdentity::default() };
                request.members = vec![member];
            }
            request
        };
        let answer: LeaveGroupResponseData = client.ask_coordinator(
            &self.group,
            ApiKey::LeaveGroup,
            5,
            request,
            |answer: &LeaveGroupResponseData| answer.error_code,
        )?;
        let member = answer.members.first().map_or(0, |member| member.error_code);
        match ErrorCode::from_code(if answer.error_code == 0 { member } else { answer.error_code }) {
            ErrorCode::None | ErrorCode::UnknownMemberId => Ok(()),
            error => Err(Failure::error(format!("group {}: leaving it: {error}", self.group))),
        }
    }
}

/// Partitions of topics; those that do not exist are left out.
fn counts(client: &mut Client, topics: &[String]) -> Result<BTreeMap<String, i32>, Failure> {
    let metadata = client.metadata(Some(topics), false)?;
    let found = metadata.topics.iter().filter(|topic| topic.error_code == 0);
    Ok(found
        .filter_map(|topic| Some((topic.name.as_ref()?.to_string(), topic.partitions.len() as i32)))
        .collect())
}
