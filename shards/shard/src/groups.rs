//! The group coordinators of this shard: one for each partition of `__consumer_offsets` it leads. Brings requests to them,
//! performs what they want done, and keeps their deadlines. Decides nothing about groups.

mod append;
mod load;
mod seats;
mod topics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_group::{Coordinator, GroupEffect, GroupResponse, RequestToken, Ticket, refusal};
use pelton_log::{PartitionSlot, ReadToken};
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::gather::Gather;
use crate::message::{GroupAsk, RequestId, ShardMessage};
use crate::partitions::Route;

use topics::ImageTopics;

/// Coordinators whose deadlines are looked after in one turn; the others are next, so that many that are due together
/// (they look for expired offsets at the same time) do not hold up producers.
const SEATS_PER_TICK: usize = 4;

/// What requests of groups may cost in one turn (steps of [`Coordinator::cost`], a few hundred microseconds in all); what
/// comes beyond that is next, in order, so that a thousand members that join at once do not hold up producers.
const COST_PER_TURN: usize = 64;

/// Answers told in one turn: a generation answers all its members at once, and each answer is a send of its own.
const ANSWERS_PER_TURN: usize = 32;

/// What encodes the answers of a group request.
pub(crate) type GroupShape = Box<dyn FnOnce(Vec<GroupResponse>) -> Bytes + Send>;

/// Who hears of an answer.
#[derive(Clone, Copy, Debug)]
enum GroupAsker {
    /// A request of this shard's client.
    Here { id: RequestId, index: u32 },
    /// Another shard.
    Shard { from: ShardId, id: RequestId, index: u32 },
}

/// One coordinator and where its partition is.
struct Seat {
    slot: PartitionSlot,
    coordinator: Coordinator,
    /// While loading: the next offset to read, and the read under way.
    load_offset: Offset,
    reading: Option<ReadToken>,
    /// Records and batches that could not be read and were passed over.
    unreadable: usize,
    /// Appended, not yet below the high watermark: last offset and ticket, in order.
    unsettled: VecDeque<(i64, Ticket)>,
    /// Appends that wait for room in the log.
    blocked: usize,
    deadline_ns: Option<u64>,
    /// The leadership of its partition that it belongs to; none on a single node, where there is but one.
    leader_epoch: Option<LeaderEpoch>,
}

/// All coordinators of a shard.
#[derive(Default)]
pub struct Groups {
    seats: BTreeMap<i32, Seat>,
    by_slot: BTreeMap<PartitionSlot, i32>,
    deadlines: BTreeSet<(u64, i32)>,
    /// Some coordinators were due beyond what one turn does: go on at this time.
    resume_ns: Option<u64>,
    /// Requests beyond what one turn does, in order. As many at most as connections may have under way.
    queued: VecDeque<(GroupAsker, GroupAsk)>,
    /// Answers beyond what one turn tells, in order. As many at most as there are requests under way.
    untold: VecDeque<(GroupAsker, GroupResponse)>,
    /// When to go on with both.
    queued_ns: u64,
    /// What requests have cost in this turn, and how many answers were told.
    cost: usize,
    told: usize,
    asked: BTreeMap<RequestToken, GroupAsker>,
    gather: Gather<GroupShape, GroupResponse>,
    to_load: VecDeque<i32>,
    load_ns: Option<u64>,
    reads: BTreeMap<ReadToken, i32>,
    /// Appends not yet below the high watermark, of all coordinators.
    unsettled: usize,
    #[cfg(feature = "sabotage")]
    sabotage: Option<pelton_group::Sabotage>,
}

impl Groups {
    /// When something is to be done though nothing happens.
    pub fn deadline(&self) -> Option<u64> {
        let first = match self.resume_ns {
            Some(resume_ns) => Some(resume_ns),
            None => self.deadlines.first().map(|(deadline_ns, _)| *deadline_ns),
        };
        let queued_ns = (!self.queued.is_empty() || !self.untold.is_empty()).then_some(self.queued_ns);
        [first, self.load_ns, queued_ns].into_iter().flatten().min()
    }

    /// A turn has ended.
    pub fn end_turn(&mut self) {
        (self.cost, self.told) = (0, 0);
    }

    /// True while something is appended that the high watermark has not passed, or its answer has not been told.
    pub fn has_unsettled(&self) -> bool {
        self.unsettled > 0 || !self.untold.is_empty()
    }

    /// Switches a fault on in all coordinators, those here and those to come.
    #[cfg(feature = "sabotage")]
    pub(crate) fn set_sabotage(&mut self, sabotage: Option<pelton_group::Sabotage>) {
        self.sabotage = sabotage;
        self.seats.values_mut().for_each(|seat| seat.coordinator.set_sabotage(sabotage));
    }

    fn note_deadline(&mut self, partition: i32) {
        let Some(seat) = self.seats.get_mut(&partition) else { return };
        let deadline_ns = seat.coordinator.deadline();
        if deadline_ns == seat.deadline_ns {
            return;
        }
        if let Some(old) = seat.deadline_ns {
            self.deadlines.remove(&(old, partition));
        }
        if let Some(new) = deadline_ns {
            self.deadlines.insert((new, partition));
        }
        seat.deadline_ns = deadline_ns;
    }
}

impl Shard {
    /// Partitions of `__consumer_offsets`; none: the topic does not exist yet.
    pub(crate) fn offsets_partitions(&self) -> Option<i32> {
        self.image.topic_by_name(OFFSETS_TOPIC).map(|topic| topic.partitions.len() as i32)
    }

    /// True if the coordinator of this partition is here.
    pub(crate) fn has_coordinator(&self, partition: i32) -> bool {
        self.groups.seats.contains_key(&partition)
    }

    /// The partition of one of the coordinators here.
    pub(crate) fn any_coordinator(&self) -> Option<i32> {
        self.groups.seats.keys().next().copied()
    }

    /// Asks coordinators on behalf of a client; `shape` encodes their answers, which come in the order of `asks`.
    pub(crate) fn ask_groups(
        &mut self,
        now: Now,
        request: RequestRef,
        asks: Vec<GroupAsk>,
        shape: GroupShape,
        out: &mut Vec<Effect>,
    ) {
        if asks.is_empty() {
            let response = shape(Vec::new());
            return self.respond(request, response, out);
        }
        let id = self.next_id();
        self.groups.gather.open(id, request, shape, asks.len());
        for (index, ask) in asks.into_iter().enumerate() {
            let index = index as u32;
            match self.coordinator_route(ask.partition) {
                Some(Route::Foreign(shard)) if self.serves_foreign() => {
                    let message = ShardMessage::Group { id, index, ask: Box::new(ask) };
                    out.push(Effect::ToShard { to: shard, message });
                }
                _ => self.ask_coordinator(now, GroupAsker::Here { id, index }, ask, out),
            }
        }
    }

    /// Another shard's client asks a coordinator here.
    pub(crate) fn handle_foreign_group(
        &mut self,
        now: Now,
        from: ShardId,
        id: RequestId,
        index: u32,
        ask: GroupAsk,
        out: &mut Vec<Effect>,
    ) {
        self.ask_coordinator(now, GroupAsker::Shard { from, id, index }, ask, out);
    }

    /// A coordinator's answer to this shard's client.
    pub(crate) fn handle_group_answer(
        &mut self,
        id: RequestId,
        index: u32,
        response: GroupResponse,
        out: &mut Vec<Effect>,
    ) {
        if let Some(done) = self.groups.gather.answer(id, index, response) {
            let response = (done.shape)(done.answers);
            self.respond(done.request, response, out);
        }
    }

    /// Whether the coordinator here may answer now (rule L8). One that loads says so itself.
    fn coordinator_serves(&self, now: Now, partition: i32) -> bool {
        let Some(seat) = self.groups.seats.get(&partition) else { return false };
        !seat.coordinator.is_loaded() || self.check_hosted_read(now, seat.slot, false).is_ok()
    }

    fn coordinator_route(&self, partition: i32) -> Option<Route> {
        let topic_id = self.image.topic_by_name(OFFSETS_TOPIC)?.id;
        self.partitions.route(PartitionKey { topic_id, partition })
    }

    /// Asks a coordinator here, or puts the question in line.
    fn ask_coordinator(&mut self, now: Now, asker: GroupAsker, ask: GroupAsk, out: &mut Vec<Effect>) {
        if self.groups.queued.is_empty() && self.groups.cost < COST_PER_TURN {
            return self.ask_now(now, asker, ask, out);
        }
        self.groups.queued_ns = now.monotonic_ns + 1;
        self.groups.queued.push_back((asker, ask));
    }

    /// Goes on with the questions in line. At a stop all of them are refused at once.
    fn ask_queued(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.groups.cost < COST_PER_TURN || self.stopping {
            let Some((asker, ask)) = self.groups.queued.pop_front() else { return };
            self.ask_now(now, asker, ask, out);
        }
        self.groups.queued_ns = now.monotonic_ns + 1;
    }

    fn ask_now(&mut self, now: Now, asker: GroupAsker, ask: GroupAsk, out: &mut Vec<Effect>) {
        let GroupAsk { partition, context, request } = ask;
        let token = RequestToken(self.next_id());
        let serves = !self.stopping && self.coordinator_serves(now, partition);
        let Shard { groups, image, .. } = self;
        let seat = groups.seats.get_mut(&partition).filter(|_| serves);
        let Some(seat) = seat else {
            let response = refusal(&request, context.api_version, ErrorCode::NotCoordinator);
            return self.tell_group(now, asker, response, out);
        };
        groups.asked.insert(token, asker);
        groups.cost += seat.coordinator.cost(now, &request, &ImageTopics(image));
        let mut effects = Vec::new();
        seat.coordinator.handle(now, token, &context, request, &ImageTopics(image), &mut effects);
        self.run_group_effects(now, partition, effects, out);
    }

    /// Performs what a coordinator wants, and what follows from it, until it wants nothing more.
    fn run_group_effects(
        &mut self,
        now: Now,
        partition: i32,
        effects: Vec<GroupEffect>,
        out: &mut Vec<Effect>,
    ) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                GroupEffect::Answer { token, response } => {
                    if let Some(asker) = self.groups.asked.remove(&token) {
                        self.tell_group(now, asker, response, out);
                    }
                }
                GroupEffect::Append { ticket, records } => {
                    let Err(error) = self.append_group(now, partition, ticket, &records, out) else {
                        continue;
                    };
                    // What was to follow builds on what was refused and is undone with it.
                    effects.retain(|effect| !matches!(effect, GroupEffect::Append { .. }));
                    effects.extend(self.fail_group_append(now, partition, ticket, error));
                }
            }
        }
        self.groups.note_deadline(partition);
    }

    /// Tells an answer, or puts it in line.
    fn tell_group(&mut self, now: Now, asker: GroupAsker, response: GroupResponse, out: &mut Vec<Effect>) {
        if self.groups.untold.is_empty() && self.groups.told < ANSWERS_PER_TURN {
            return self.tell_now(asker, response, out);
        }
        self.groups.queued_ns = now.monotonic_ns + 1;
        self.groups.untold.push_back((asker, response));
    }

    /// Goes on with the answers in line; at a stop with all of them.
    fn tell_untold(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.groups.told < ANSWERS_PER_TURN || self.stopping {
            let Some((asker, response)) = self.groups.untold.pop_front() else { return };
            self.tell_now(asker, response, out);
        }
        self.groups.queued_ns = now.monotonic_ns + 1;
    }

    fn tell_now(&mut self, asker: GroupAsker, response: GroupResponse, out: &mut Vec<Effect>) {
        self.groups.told += 1;
        match asker {
            GroupAsker::Here { id, index } => self.handle_group_answer(id, index, response, out),
            GroupAsker::Shard { from, id, index } => {
                let message = ShardMessage::GroupDone { id, index, response: Box::new(response) };
                out.push(Effect::ToShard { to: from, message });
            }
        }
    }

    /// Does what is due: coordinators' deadlines and the next step of loading.
    pub(crate) fn tick_groups(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.tell_untold(now, out);
        self.ask_queued(now, out);
        if self.stopping {
            self.tell_untold(now, out);
            self.groups.stop();
            return;
        }
        if self.groups.load_ns.is_some_and(|ns| ns <= now.monotonic_ns) {
            self.groups.load_ns = None;
            self.load_step(now, out);
        }
        let due = self.groups.deadlines.iter().take_while(|(ns, _)| *ns <= now.monotonic_ns);
        let mut due: Vec<i32> = due.take(SEATS_PER_TICK + 1).map(|(_, partition)| *partition).collect();
        self.groups.resume_ns = (due.len() > SEATS_PER_TICK).then_some(now.monotonic_ns + 1);
        due.truncate(SEATS_PER_TICK);
        for partition in due {
            let Shard { groups, image, .. } = self;
            let Some(seat) = groups.seats.get_mut(&partition) else { continue };
            let mut effects = Vec::new();
            seat.coordinator.tick(now, &ImageTopics(image), &mut effects);
            self.run_group_effects(now, partition, effects, out);
        }
    }
}

impl Groups {
    /// The shard stops: nothing is due any more.
    fn stop(&mut self) {
        self.deadlines.clear();
        self.resume_ns = None;
        self.load_ns = None;
        self.to_load.clear();
    }
}
