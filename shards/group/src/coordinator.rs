//! The coordinator of the groups of one `__consumer_offsets` partition: its state, and where each event goes.
//!
//! State changes when a record is written, answers leave when it is durable: an answer waits for the last append of
//! its group, so nobody sees what a crash could take back (I15). If an append fails, it and everything after it is
//! undone (`pending.rs`), as Kafka's CoordinatorRuntime goes back to its last snapshot.

use std::collections::BTreeMap;

use pelton_model::{Now, Prng};
use pelton_wire::WireError;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::HeartbeatResponseData;

use crate::classic::ClassicGroup;
use crate::consumer::ConsumerGroup;
use crate::effect::{GroupEffect, Ticket};
use crate::offsets::Offsets;
use crate::pending::PendingAppend;
use crate::records::{Record, RecordKey};
use crate::request::{GroupRequest, GroupResponse, RequestContext, RequestToken, refusal};
use crate::sabotage::Sabotage;
use crate::timers::{TimerKey, Timers};
use crate::topics::TopicsView;
use pelton_model::GroupConfig;

/// A group of either protocol.
#[derive(Clone, Debug)]
pub(crate) enum Group {
    /// JoinGroup and SyncGroup; also groups that only commit offsets.
    Classic(ClassicGroup),
    /// KIP-848.
    Consumer(ConsumerGroup),
}

/// One event being handled: the time, the cluster's topics, and where effects go.
pub(crate) struct Turn<'a> {
    pub now: Now,
    pub topics: &'a dyn TopicsView,
    pub out: &'a mut Vec<GroupEffect>,
}

impl Turn<'_> {
    /// Answers a request now.
    pub fn answer(&mut self, token: RequestToken, response: GroupResponse) {
        self.out.push(GroupEffect::Answer { token, response });
    }
}

/// Who asked what: what an answer needs beside the request itself.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub token: RequestToken,
    pub context: &'a RequestContext,
}

impl Asker<'_> {
    /// Version of the request.
    pub fn version(&self) -> i16 {
        self.context.api_version
    }
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    pub(crate) config: GroupConfig,
    pub(crate) random: Prng,
    loading: bool,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) offsets: Offsets,
    pub(crate) timers: Timers,
    pub(crate) pending: BTreeMap<u64, PendingAppend>,
    pub(crate) last_ticket: BTreeMap<String, u64>,
    pub(crate) next_ticket: u64,
    #[cfg(feature = "sabotage")]
    sabotage: Option<Sabotage>,
}

impl Coordinator {
    /// A coordinator that is still loading: give it the partition's records with `replay`, then call `loaded`.
    /// `seed` must differ from every earlier coordinator's: member ids come from it.
    pub fn new(config: GroupConfig, seed: u64) -> Coordinator {
        Coordinator {
            config,
            random: Prng::new(seed),
            loading: true,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            pending: BTreeMap::new(),
            last_ticket: BTreeMap::new(),
            next_ticket: 0,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }

    /// Switches a fault on.
    #[cfg(feature = "sabotage")]
    pub fn set_sabotage(&mut self, sabotage: Option<Sabotage>) {
        self.sabotage = sabotage;
    }

    /// Whether this fault is switched on; always false without the cargo feature `sabotage`.
    pub(crate) fn sabotaged(&self, _fault: Sabotage) -> bool {
        #[cfg(feature = "sabotage")]
        return self.sabotage == Some(_fault);
        #[cfg(not(feature = "sabotage"))]
        false
    }

    /// Takes a record of the partition's log, in the log's order. False: it is of a kind this broker does not have, and passed
    /// over. An error names a record that cannot be read, and changes nothing; the caller decides whether to go on without it.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, WireError> {
        if let Some(record) = Record::decode(key, value)? {
            if self.sabotaged(Sabotage::SkipReplayedOffset)
                && matches!(&record, Record::Offset { value: Some(value), .. } if value.offset % 8 == 7)
            {
                return Ok(true);
            }
            let is_epoch =
                matches!(&record, Record::Epoch { value: Some(_), .. } | Record::TargetEpoch { .. });
            if is_epoch && self.sabotaged(Sabotage::SkipReplayedEpoch) {
                return Ok(true);
            }
            self.apply_loaded(record);
            return Ok(true);
        }
        Ok(RecordKey::is_known(key))
    }

    /// The log has been replayed to its end: requests are served from now on.
    pub fn loaded(&mut self, now: Now, topics: &dyn TopicsView, out: &mut Vec<GroupEffect>) {
        self.loading = false;
        self.timers.set(TimerKey::Expiry, now.after_ms(self.config.offsets_retention_check_interval_ms));
        let mut turn = Turn { now, topics, out };
        // Offsets without a group are those of consumers that assign partitions themselves.
        for id in self.offsets.group_ids() {
            self.groups.entry(id.clone()).or_insert_with(|| Group::Classic(ClassicGroup::default()));
        }
        for id in self.groups.keys().cloned().collect::<Vec<_>>() {
            match self.groups.get(&id) {
                Some(Group::Classic(_)) => self.classic_loaded(&id, &mut turn),
                Some(Group::Consumer(_)) => self.consumer_loaded(&id, &mut turn),
                None => {}
            }
        }
    }

    /// False until `loaded`.
    pub fn is_loaded(&self) -> bool {
        !self.loading
    }

    /// Number of groups known.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Roughly what a request costs, in steps of five microseconds: what may look at every member of its group costs more the more
    /// there are, a target assignment of KIP-848 most.
    pub fn cost(&self, now: Now, request: &GroupRequest, topics: &dyn TopicsView) -> usize {
        let (id, members_per_step) = match request {
            GroupRequest::JoinGroup(request) => (request.group_id.as_str(), 512),
            GroupRequest::LeaveGroup(request) => (request.group_id.as_str(), 512),
            // The leader's stores the generation.
            GroupRequest::SyncGroup(request) if !request.assignments.is_empty() => {
                (request.group_id.as_str(), 64)
            }
            GroupRequest::ConsumerGroupHeartbeat(request) => (request.group_id.as_str(), 16),
            _ => return 1,
        };
        match (self.groups.get(id), request) {
            (Some(Group::Consumer(group)), GroupRequest::ConsumerGroupHeartbeat(request)) => {
                let joins = request.member_epoch == 0;
                let from_ns = || group.assigns_from_ns(&topics.group_config(&self.config, id));
                let is_wanted = joins || group.epoch.epoch > group.target_epoch;
                let is_made = is_wanted && now.monotonic_ns >= from_ns();
                1 + usize::from(joins) + if is_made { group.members.len() / members_per_step } else { 0 }
            }
            (Some(Group::Consumer(group)), _) => 1 + group.members.len() / 16,
            (Some(Group::Classic(group)), _) => 1 + group.members.len() / members_per_step,
            (None, _) => 1,
        }
    }

    /// A request. Its answer is an effect of this call or of a later one.
    pub fn handle(
        &mut self,
        now: Now,
        token: RequestToken,
        context: &RequestContext,
        request: GroupRequest,
        topics: &dyn TopicsView,
        out: &mut Vec<GroupEffect>,
    ) {
        let mut turn = Turn { now, topics, out };
        if self.loading {
            // Whether the member lives cannot be told yet; Kafka says yes, so that it does not join anew.
            if let GroupRequest::Heartbeat(_) = request {
                return turn.answer(token, GroupResponse::Heartbeat(HeartbeatResponseData::default()));
            }
            let response = refusal(&request, context.api_version, ErrorCode::CoordinatorLoadInProgress);
            return turn.answer(token, response);
        }
        let asker = Asker { token, context };
        match request {
            GroupRequest::OffsetCommit(request) => self.offset_commit(asker, request, &mut turn),
            GroupRequest::OffsetFetch(request) => self.offset_fetch(asker, request, &mut turn),
            GroupRequest::OffsetDelete(request) => self.offset_delete(asker, request, &mut turn),
            GroupRequest::JoinGroup(request) => self.join_group(asker, request, &mut turn),
            GroupRequest::SyncGroup(request) => self.sync_group(asker, request, &mut turn),
            GroupRequest::Heartbeat(request) => self.heartbeat(asker, request, &mut turn),
            GroupRequest::LeaveGroup(request) => self.leave_group(asker, request, &mut turn),
            GroupRequest::ListGroups(request) => self.list_groups(asker, request, &mut turn),
            GroupRequest::DescribeGroups(request) => self.describe_groups(asker, request, &mut turn),
            GroupRequest::DeleteGroups(request) => self.delete_groups(asker, request, &mut turn),
            GroupRequest::ConsumerGroupHeartbeat(request) => {
                self.consumer_group_heartbeat(asker, request, &mut turn);
            }
            GroupRequest::ConsumerGroupDescribe(request) => {
                self.consumer_group_describe(asker, request, &mut turn);
            }
        }
    }

    /// When `tick` has something to do, on the monotonic clock.
    pub fn deadline(&self) -> Option<u64> {
        self.timers.first()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, topics: &dyn TopicsView, out: &mut Vec<GroupEffect>) {
        let mut turn = Turn { now, topics, out };
        while let Some(key) = self.timers.pop(now.monotonic_ns) {
            match key {
                TimerKey::Expiry => self.expire_offsets(&mut turn),
                TimerKey::Join(group) => self.join_due(&group, &mut turn),
                TimerKey::Sync(group) => self.sync_due(&group, &mut turn),
                TimerKey::Session(group, member) => match self.groups.get(&group) {
                    Some(Group::Classic(_)) => self.classic_session_due(&group, &member, &mut turn),
                    Some(Group::Consumer(_)) => self.consumer_session_due(&group, &member, &mut turn),
                    None => {}
                },
                TimerKey::Revocation(group, member) | TimerKey::MemberSync(group, member) => {
                    self.consumer_revocation_due(&group, &member, &mut turn);
                }
            }
        }
    }

    /// The append of `ticket` is durable. Tickets become durable in their order; an older one that has not been
    /// reported counts as durable too, because the log is.
    pub fn appended(
        &mut self,
        now: Now,
        ticket: Ticket,
        topics: &dyn TopicsView,
        out: &mut Vec<GroupEffect>,
    ) {
        let mut turn = Turn { now, topics, out };
        while let Some(first) = self.pending.first_key_value().map(|(ticket, _)| *ticket) {
            if first > ticket.0 {
                break;
            }
            self.settle(first, &mut turn);
        }
    }

    /// The append of `ticket` was refused or lost. It and all younger appends that are not yet durable are undone and
    /// their requests refused; what is still reported of the younger ones is ignored.
    pub fn append_failed(
        &mut self,
        now: Now,
        ticket: Ticket,
        error: ErrorCode,
        topics: &dyn TopicsView,
        out: &mut Vec<GroupEffect>,
    ) {
        let mut turn = Turn { now, topics, out };
        self.undo_from(ticket.0, coordinator_error(error), &mut turn);
    }

    /// The coordinator moves away: everything that waits is refused with NOT_COORDINATOR. Drop it afterwards.
    pub fn unload(&mut self, now: Now, topics: &dyn TopicsView, out: &mut Vec<GroupEffect>) {
        let mut turn = Turn { now, topics, out };
        self.loading = true;
        for pending in std::mem::take(&mut self.pending).into_values() {
            pending.refuse(ErrorCode::NotCoordinator, &mut turn);
        }
        self.last_ticket.clear();
        for group in std::mem::take(&mut self.groups).into_values() {
            match group {
                Group::Classic(mut group) => group.refuse_all(ErrorCode::NotCoordinator, &mut turn),
                Group::Consumer(mut group) => group.refuse_all(ErrorCode::NotCoordinator, &mut turn),
            }
        }
    }

    /// A member id as Kafka makes them: the client's name and a random UUID (version 4).
    pub(crate) fn new_member_id(&mut self, name: &str) -> String {
        let id = uuid::Uuid::from_u64_pair(self.random.next_u64(), self.random.next_u64());
        let id = uuid::Builder::from_bytes(*id.as_bytes()).with_version(uuid::Version::Random).into_uuid();
        if name.is_empty() { id.to_string() } else { format!("{name}-{id}") }
    }

    /// True if one more group may be made.
    pub(crate) fn has_room(&self, id: &str) -> bool {
        self.groups.contains_key(id) || self.groups.len() < self.config.groups_max
    }
}

/// What a group's client is told when the log refuses a write (Kafka's CoordinatorOperationExceptionHelper).
pub(crate) fn coordinator_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}
