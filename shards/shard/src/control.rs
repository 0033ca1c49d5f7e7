//! Changes of metadata. Shard 0 decides them one at a time: plan against the image, put the records on stable storage,
//! apply them on every shard, and only then answer, so that whoever is told "created" finds leaders that serve.
//! That is how a single node does it, a quorum of one; in a cluster `cluster/control.rs` asks the controller.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use pelton_cluster::quorum::MemberChange;
use pelton_cluster::record::MetadataRecord;
use pelton_log::CommitPoint;
use pelton_model::{Now, PartitionKey, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::api;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::message::{RequestId, ShardMessage};

/// Who asked for a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlOrigin {
    /// A client of this shard.
    Client(RequestRef),
    /// Another shard.
    Shard(ShardId, RequestId),
    /// A Metadata request of this shard that names topics to create.
    AutoCreate(RequestId),
}

/// What is asked.
#[derive(Debug)]
pub enum ControlRequest {
    /// A client's request: the frame without its length.
    Frame(Bytes),
    /// Create these topics with the defaults.
    AutoCreate(Vec<String>),
}

/// What follows from a request.
pub struct ControlPlan {
    /// Records to commit; none = nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The client's answer once they are applied; empty for `AutoCreate`.
    pub response: Bytes,
    /// What the controller's node is to begin beside that.
    pub begins: Vec<Begins>,
}

/// Something that takes time, begun by a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// The leader of a partition is to hand over to the preferred replica.
    Transfer(PartitionKey),
    /// The quorum's members are to change.
    Members(MemberChange),
}

impl ControlPlan {
    /// Nothing but records and an answer.
    pub fn new(records: Vec<MetadataRecord>, response: Bytes) -> ControlPlan {
        ControlPlan { records, response, begins: Vec::new() }
    }
}

struct InFlight {
    origin: ControlOrigin,
    response: Bytes,
    commit: CommitPoint,
    offset: u64,
    records: Vec<MetadataRecord>,
    applied_here: bool,
    waiting: BTreeSet<ShardId>,
}

/// The controller's queue. Empty on every shard but 0.
#[derive(Default)]
pub struct Control {
    queue: VecDeque<(ControlOrigin, ControlRequest)>,
    in_flight: Option<InFlight>,
}

/// Shard 0 decides.
pub const CONTROLLER: ShardId = ShardId(0);

impl Shard {
    /// Takes a request to the controller, wherever it is.
    pub(crate) fn ask_controller(
        &mut self,
        now: Now,
        request: RequestRef,
        frame: Bytes,
        out: &mut Vec<Effect>,
    ) {
        if self.id == CONTROLLER {
            self.enqueue_control(now, ControlOrigin::Client(request), ControlRequest::Frame(frame), out);
        } else {
            let id = self.next_id();
            self.control_asked.insert(id, request);
            out.push(Effect::ToShard { to: CONTROLLER, message: ShardMessage::Control { id, frame } });
        }
    }

    /// Has topics created; `handle_auto_created` follows with `id`.
    pub(crate) fn ask_auto_create(
        &mut self,
        now: Now,
        id: RequestId,
        topics: Vec<String>,
        out: &mut Vec<Effect>,
    ) {
        if self.id == CONTROLLER {
            self.enqueue_control(now, ControlOrigin::AutoCreate(id), ControlRequest::AutoCreate(topics), out);
        } else {
            out.push(Effect::ToShard { to: CONTROLLER, message: ShardMessage::AutoCreate { id, topics } });
        }
    }

    /// Queues a request on the controller.
    pub(crate) fn enqueue_control(
        &mut self,
        now: Now,
        origin: ControlOrigin,
        request: ControlRequest,
        out: &mut Vec<Effect>,
    ) {
        if self.cluster.is_some() {
            return self.ask_cluster(now, origin, &request, out);
        }
        self.control.queue.push_back((origin, request));
        self.run_control(now, out);
    }

    fn run_control(&mut self, now: Now, out: &mut Vec<Effect>) {
        // What is asked of a stopping broker goes unanswered, its connection is about to close.
        while self.control.in_flight.is_none() && !self.stopping {
            let Some((origin, request)) = self.control.queue.pop_front() else { return };
            let plan = self.plan_control(now, &request);
            if plan.records.is_empty() {
                self.finish_control(now, origin, plan.response, out);
                continue;
            }
            let offset = self.image.applied_offset() + 1;
            let encoded = pelton_cluster::record::encode_batch(offset, &plan.records);
            let commit = self.storage.append_metadata(Bytes::from(encoded));
            self.control.in_flight = Some(InFlight {
                origin,
                response: plan.response,
                commit,
                offset,
                records: plan.records,
                applied_here: false,
                waiting: BTreeSet::new(),
            });
        }
    }

    /// The log's stable end has moved: apply what is now committed.
    pub(crate) fn advance_control(&mut self, now: Now, out: &mut Vec<Effect>) {
        let flushed = self.storage.flushed();
        let Some(in_flight) = &mut self.control.in_flight else { return };
        if in_flight.applied_here || in_flight.commit > flushed {
            return;
        }
        in_flight.applied_here = true;
        let (offset, records) = (in_flight.offset, std::mem::take(&mut in_flight.records));
        in_flight.waiting = (1..self.config.shards).map(ShardId).collect();
        let encoded: Vec<Bytes> = records.iter().map(|record| Bytes::from(record.encode())).collect();
        for shard in in_flight.waiting.clone() {
            let message = ShardMessage::MetadataUpdate { offset, records: encoded.clone() };
            out.push(Effect::ToShard { to: shard, message });
        }
        self.apply_metadata(now, offset, &records, out);
        self.try_finish_control(now, out);
    }

    /// Another shard serves what was committed up to `offset`.
    pub(crate) fn handle_metadata_applied(
        &mut self,
        now: Now,
        from: ShardId,
        offset: u64,
        out: &mut Vec<Effect>,
    ) {
        self.note_follow(now, from, offset, out);
        if let Some(in_flight) = &mut self.control.in_flight
            && in_flight.offset <= offset
        {
            in_flight.waiting.remove(&from);
        }
        self.try_finish_control(now, out);
    }

    fn try_finish_control(&mut self, now: Now, out: &mut Vec<Effect>) {
        let done = matches!(&self.control.in_flight, Some(f) if f.applied_here && f.waiting.is_empty());
        if done && let Some(in_flight) = self.control.in_flight.take() {
            self.finish_control(now, in_flight.origin, in_flight.response, out);
            self.run_control(now, out);
        }
    }

    /// The log failed: nothing can be decided any more.
    pub(crate) fn fail_control(&mut self, out: &mut Vec<Effect>) {
        if let Some(in_flight) = &self.control.in_flight
            && !in_flight.applied_here
            && let ControlOrigin::Client(request) = in_flight.origin
        {
            let reason = "the metadata log cannot be written".to_string();
            self.close_connection(request.connection, reason, out);
        }
    }

    /// What was asked cannot be decided: a client gets this error for all it asked for.
    pub(crate) fn refuse_control(
        &mut self,
        now: Now,
        origin: ControlOrigin,
        request: &ControlRequest,
        (error, why): (ErrorCode, String),
        out: &mut Vec<Effect>,
    ) {
        let answer = match request {
            ControlRequest::Frame(frame) => api::refuse::answer(frame, error, &why).ok(),
            ControlRequest::AutoCreate(_) => None,
        };
        match (origin, answer) {
            (ControlOrigin::Client(request), None) => self.close_connection(request.connection, why, out),
            (ControlOrigin::Shard(to, id), None) => {
                out.push(Effect::ToShard { to, message: ShardMessage::ControlRefused { id, why } });
            }
            // Whoever waits for topics finds that they are not there.
            (origin, answer) => self.finish_control(now, origin, answer.unwrap_or_default(), out),
        }
    }

    /// Shard 0 could not have something decided for this shard, and has no answer for it.
    pub(crate) fn handle_control_refused(
        &mut self,
        now: Now,
        id: RequestId,
        why: String,
        out: &mut Vec<Effect>,
    ) {
        match self.control_asked.remove(&id) {
            Some(request) => self.close_connection(request.connection, why, out),
            None => self.handle_auto_created(now, id, out),
        }
    }

    pub(crate) fn finish_control(
        &mut self,
        now: Now,
        origin: ControlOrigin,
        response: Bytes,
        out: &mut Vec<Effect>,
    ) {
        match origin {
            ControlOrigin::Client(request) => self.respond(request, response, out),
            ControlOrigin::AutoCreate(id) => self.handle_auto_created(now, id, out),
            ControlOrigin::Shard(to, id) => {
                let message = if response.is_empty() {
                    ShardMessage::AutoCreateDone { id }
                } else {
                    ShardMessage::ControlDone { id, response }
                };
                out.push(Effect::ToShard { to, message });
            }
        }
    }
}
