//! Groups in the simulated world: their settings, their members, and what is asked of them at the end.

use pelton_model::{GroupConfig, ListenerMode, Prng};
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self as m, KafkaString};

use super::World;
use crate::consumer_member::{ConsumerMember, SESSION_MS};
use crate::group_oracle::Register;
use crate::member::{Member, fetch_body, fetched};
use crate::party::Party;

/// Retention of offsets in runs that wait for them to expire, minutes.
const SHORT_RETENTION_MINUTES: i64 = 1;
/// Longer than that, milliseconds.
const EXPIRY_WAIT_MS: u64 = 80_000;

/// Short times, as the run is short.
pub(super) fn config(prng: &mut Prng) -> GroupConfig {
    let initial_rebalance_delay_ms = prng.below(60) as i32;
    GroupConfig {
        consumer_assignment_interval_ms: [None, Some(0), Some(40), Some(300)]
            [initial_rebalance_delay_ms as usize % 4],
        min_session_timeout_ms: 100,
        consumer_session_timeout_ms: SESSION_MS,
        initial_rebalance_delay_ms,
        offsets_retention_minutes: if prng.one_in(8) { SHORT_RETENTION_MINUTES } else { 10_080 },
        offsets_retention_check_interval_ms: 5_000,
        ..GroupConfig::default()
    }
}

impl World {
    /// Two classic groups and one of KIP-848 with a few members each; or, in runs in which offsets expire, one whose only member stays to the end.
    pub fn create_groups(&mut self) -> Result<(), String> {
        let partitions = i32::from(self.config.shards);
        let topics = vec![("sync".to_string(), partitions)];
        if self.expires() {
            let coordinator = self.find_coordinator("steady")?;
            self.add_member(Member::new("steady", "steady", coordinator, topics, 1000).steady());
            return Ok(());
        }
        for group in ["g0", "g1"] {
            let coordinator = self.find_coordinator(group)?;
            self.commit_outside(group, coordinator)?;
            for index in 0..2 + self.prng.below(3) {
                let goal = 10 + self.prng.below(40);
                let name = format!("{group} member {index}");
                let member = Member::new(&name, group, coordinator, topics.clone(), goal);
                let member =
                    if index == 0 { member.with_instance(&format!("{group}-static")) } else { member };
                self.add_member(member);
            }
        }
        self.create_consumer_group("k0", 2 * partitions)
    }

    /// A KIP-848 group with a few members, that share a topic of their own; `partitions` is a multiple of the shards, as in all
    /// topics here, so that partition 0 of the next one is on shard 0.
    fn create_consumer_group(&mut self, group: &str, partitions: i32) -> Result<(), String> {
        let topic = ("shared".to_string(), partitions);
        self.create_topic(&topic.0, partitions, &[])?;
        let coordinator = self.find_coordinator(group)?;
        self.commit_outside(group, coordinator)?;
        for index in 0..2 + self.prng.below(3) {
            let goal = 10 + self.prng.below(60);
            let name = format!("{group} member {index}");
            let member = ConsumerMember::new(&name, group, coordinator, topic.clone(), goal, &mut self.prng);
            let is_static = index == 0 && self.prng.one_in(2);
            let member = if is_static { member.with_instance(&format!("{group}-static")) } else { member };
            self.clients.push(Party::Consumer(member));
        }
        Ok(())
    }

    /// An offset of nobody's: a group that has nothing at all is forgotten when its members are gone, and begins again
    /// with generation 1, in which others would own what was owned in it before.
    fn commit_outside(&mut self, group: &str, coordinator: u16) -> Result<(), String> {
        let topic = m::offset_commit_request::OffsetCommitRequestTopic {
            name: KafkaString::from_static("sync"),
            partitions: vec![m::offset_commit_request::OffsetCommitRequestPartition {
                partition_index: 1000,
                committed_offset: 1,
                committed_metadata: Some(KafkaString::default()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let body = m::OffsetCommitRequestData {
            group_id: KafkaString::from(group.to_string()),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let answer: m::OffsetCommitResponseData =
            self.admin_to(coordinator, ApiKey::OffsetCommit, 8, &body)?;
        match answer.topics.first().and_then(|topic| topic.partitions.first()) {
            Some(partition) if partition.error_code == 0 => Ok(()),
            other => Err(format!("{group}: a commit from outside: {other:?}")),
        }
    }

    fn expires(&self) -> bool {
        self.config.group.offsets_retention_minutes == SHORT_RETENTION_MINUTES
    }

    /// Lets so much time pass that offsets expire: those that a live group reads must not.
    pub fn wait_for_expiry(&mut self) -> Result<(), String> {
        if !self.expires() {
            return Ok(());
        }
        self.connect_clients();
        self.run_for(EXPIRY_WAIT_MS)?;
        for client in &mut self.clients {
            client.end_steady();
        }
        Ok(())
    }

    /// The shard that coordinates a group.
    fn find_coordinator(&mut self, group: &str) -> Result<u16, String> {
        let key = KafkaString::from(group.to_string());
        let body = m::FindCoordinatorRequestData { coordinator_keys: vec![key], ..Default::default() };
        let answer: m::FindCoordinatorResponseData = self.admin(ApiKey::FindCoordinator, 4, &body)?;
        match answer.coordinators.first() {
            Some(found) if found.error_code == 0 => Ok((found.node_id % 256) as u16),
            other => Err(format!("no coordinator for {group}: {other:?}")),
        }
    }

    /// Every offset that was ever committed, read once more.
    pub fn judge_groups(&mut self) -> Result<(), String> {
        for group in ["g0", "g1", "k0"] {
            let registers: Vec<Register> = self.judges.groups.registers();
            let registers: Vec<Register> =
                registers.into_iter().filter(|(name, _, _)| name == group).collect();
            if registers.is_empty() {
                continue;
            }
            let shard = match self.config.mode {
                ListenerMode::Direct => self.find_coordinator(group)?,
                ListenerMode::Single => 0,
            };
            let begun = self.judges.groups.moment();
            let body = fetch_body(group, &registers, 8);
            let answer: m::OffsetFetchResponseData = self.admin_to(shard, ApiKey::OffsetFetch, 8, &body)?;
            let (error, offsets) = fetched(&answer, 8);
            if error != 0 || offsets.len() != registers.len() {
                return Err(format!("{group}: error {error}, {} of {}", offsets.len(), registers.len()));
            }
            for (topic, partition, offset, _) in offsets {
                self.judges.groups.fetched(&(group.to_string(), topic, partition), begun, offset)?;
            }
        }
        Ok(())
    }
}
