//! The shard itself: takes events, hands each to the part that deals with it, and ends turns.

pub(crate) mod start;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use pelton_cluster::image::MetadataImage;
use pelton_log::disk::DiskEffect;
use pelton_log::{Progress, RecoveredPartition, RecoveryError, Storage};
use pelton_model::{BrokerConfig, ConnectionId, Now, PartitionKey, Prng, ShardId};
use pelton_wire::error_code::ErrorCode;

use crate::acks::{AckId, Acknowledged, Acks};
use crate::answers::Answers;
use crate::api::describe_log_dirs::{LogDirReport, LogDirsShape};
use crate::api::gathered::GatherShape;
use crate::api::partition::PartitionAnswer;
use crate::cluster::Cluster;
use crate::connection::{Connection, NextFrame, ReceiveBudget, RequestRef};
use crate::connections::Connections;
use crate::control::{Control, ControlOrigin, ControlRequest};
use crate::effect::{Effect, LogLevel, SendPart, SendParts};
use crate::event::Event;
use crate::fetch_session::FetchSessions;
use crate::fetching::Fetches;
use crate::gather::Gather;
use crate::groups::Groups;
use crate::message::{RequestId, ShardMessage};
use crate::partitions::Partitions;
use crate::producing::{Blocked, ProduceOrigin};
use crate::snapshot::Snapshot;

/// Between two looks for produce requests past their deadline, nanoseconds.
const PRODUCE_SWEEP_NS: u64 = 1_000_000_000;

/// Why a shard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log does not allow it.
    #[error("{0}")]
    Recovery(#[from] RecoveryError),
    /// Its metadata does not parse.
    #[error("the metadata in the checkpoint is damaged: {0}; restore the data directory from a backup")]
    Metadata(String),
}

/// One core's broker.
pub struct Shard {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) id: ShardId,
    pub(crate) image: MetadataImage,
    pub(crate) storage: Storage,
    pub(crate) partitions: Partitions,
    pub(crate) connections: Connections,
    pub(crate) sessions: FetchSessions,
    pub(crate) acks: Acks<ProduceOrigin>,
    /// Room for what one step decides, used again.
    decided: Vec<Acknowledged<ProduceOrigin>>,
    pub(crate) answers: Answers,
    pub(crate) fetches: Fetches,
    pub(crate) gather: Gather<GatherShape, PartitionAnswer>,
    pub(crate) log_dirs: Gather<LogDirsShape, LogDirReport>,
    /// Size of the volume of the data directory and what is left of it, bytes, if that is known.
    pub(crate) volume: Option<(i64, i64)>,
    pub(crate) groups: Groups,
    pub(crate) lookups: BTreeMap<pelton_log::ReadToken, crate::api::gathered::LookupWaiter>,
    pub(crate) delete_waits: VecDeque<crate::api::gathered::DeleteWait>,
    pub(crate) control: Control,
    pub(crate) control_asked: BTreeMap<RequestId, RequestRef>,
    pub(crate) metadata_waiting: BTreeMap<RequestId, (RequestRef, Bytes)>,
    pub(crate) produce_asked: BTreeMap<RequestId, AckId>,
    pub(crate) blocked: VecDeque<Blocked>,
    pub(crate) unblocking: bool,
    to_pump: Vec<ConnectionId>,
    receive_budget: ReceiveBudget,
    wanting_memory: VecDeque<ConnectionId>,
    pub(crate) recovered: BTreeMap<PartitionKey, RecoveredPartition>,
    pub(crate) producer_ids: crate::api::init_producer_id::ProducerIdBlock,
    pub(crate) prng: Prng,
    pub(crate) disk: Vec<DiskEffect>,
    pub(crate) progress: Progress,
    /// The metadata image is here.
    pub(crate) installed: bool,
    ready: bool,
    pub(crate) stopping: bool,
    /// It has told the others that it asks nothing more of them; and who has told it so.
    drained: bool,
    others_drained: BTreeSet<ShardId>,
    /// Its connections are closing.
    parted: bool,
    log_stopping: bool,
    stopped: bool,
    next_id: u64,
    sweep_connections_ns: Option<u64>,
    sweep_produces_ns: Option<u64>,
    pub(crate) retention_sweep: crate::upkeep::Sweep,
    pub(crate) cleaner: crate::upkeep::Cleaner,
    /// None on a single node.
    pub(crate) cluster: Option<Box<Cluster>>,
}

impl Shard {
    /// Takes one event. Effects are to be performed in the order they are pushed.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Accepted { connection, peer } => self.handle_accepted(now, connection, peer, out),
            Event::Received { connection, bytes } => {
                if let Some(state) = self.connections.get_mut(connection) {
                    state.handle_received(now, bytes);
                    let reserved = state.take_reserved();
                    self.give_back_memory(reserved);
                    self.pump(now, connection, out);
                }
            }
            Event::Sent { connection, bytes } => {
                if let Some(state) = self.connections.get_mut(connection) {
                    state.handle_sent(now, bytes);
                    self.pump(now, connection, out);
                }
            }
            Event::Closed { connection } => self.handle_closed(connection, out),
            Event::Disk(done) => {
                self.storage.handle(now, done, &mut self.disk, &mut self.progress);
                self.emit_disk(out);
                self.handle_progress(now, out);
            }
            Event::FromShard { from, message } => self.handle_message(now, from, message, out),
            Event::PeerFrame { from, bytes } => self.handle_peer_bytes(now, from, bytes, out),
            Event::PeerGone { peer } => self.handle_peer_gone(now, peer, out),
            Event::MemberFrame { from, bytes } => self.handle_member_frame(now, from, &bytes, out),
            Event::Volume { total_bytes, usable_bytes } => self.volume = Some((total_bytes, usable_bytes)),
            Event::Tick => self.handle_tick(now, out),
            Event::Stop if self.cluster.is_some() => self.begin_leaving(now),
            Event::Stop => self.stop_serving(now, out),
        }
        while let Some(connection) = self.to_pump.pop() {
            self.pump(now, connection, out);
        }
    }

    /// Ends a turn: once after all events that came together, so that their writes go together.
    pub fn end_turn(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        let clustered = self.cluster.is_some();
        if clustered {
            self.begin_cluster_end(now, out);
            self.advance_deletes(now, out);
        }
        if self.stopping && !self.log_stopping && self.acks.is_empty() && !self.groups.has_unsettled() {
            self.advance_stop(now, out);
        }
        let snapshot = Snapshot {
            partitions: &self.partitions,
            image: &self.image,
            recovered: &self.recovered,
            cluster: self.cluster.as_deref(),
        };
        self.storage.end_turn(now, &snapshot, &mut self.disk);
        if clustered {
            self.end_cluster_turn(now, out);
        }
        self.groups.end_turn();
        self.handle_compaction_end(now, out);
        self.emit_disk(out);
        // Before that, a reader might be shown what was recovered and a second crash could still take away.
        if self.installed && !self.ready && self.storage.is_ready() && self.goes_live(now, out) {
            self.ready = true;
            self.start_loading(now);
            self.begin_upkeep(now);
            out.push(Effect::Ready);
        }
        self.sweep_produces_ns = match (self.acks.is_empty(), self.sweep_produces_ns) {
            (true, _) => None,
            (false, None) => Some(now.monotonic_ns + PRODUCE_SWEEP_NS),
            (false, sweep) => sweep,
        };
    }

    /// When the next `Tick` is wanted, on the monotonic clock; none = only when something happens.
    pub fn deadline(&self) -> Option<u64> {
        [
            self.storage.deadline(),
            self.fetches.deadline(),
            self.groups.deadline(),
            self.sweep_connections_ns,
            self.sweep_produces_ns,
            self.retention_sweep.due_ns,
            self.cleaner.sweep.due_ns,
            self.cluster.as_ref().and_then(|cluster| cluster.deadline()),
            self.deletes_deadline().filter(|_| self.cluster.is_some()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Its log is on its way to its end.
    pub(crate) fn log_stopping(&self) -> bool {
        self.log_stopping
    }

    /// True once it serves.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// A name no other request or operation of this shard has.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn emit_disk(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.disk.drain(..).map(Effect::Disk));
    }

    pub(crate) fn log_error(&self, out: &mut Vec<Effect>, text: String) {
        out.push(Effect::Log { level: LogLevel::Error, text: format!("shard {}: {text}", self.id.0) });
    }

    /// Answers a request; an empty response is a request that gets none.
    pub(crate) fn respond(&mut self, request: RequestRef, response: Bytes, out: &mut Vec<Effect>) {
        let parts = match response.is_empty() {
            true => SendParts::Many(Vec::new()),
            false => SendParts::One(SendPart::Bytes(response)),
        };
        self.respond_parts(request, parts, out);
    }

    /// Answers a request with several parts.
    pub(crate) fn respond_parts(
        &mut self,
        request: RequestRef,
        parts: impl Into<SendParts>,
        out: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.connections.get_mut(request.connection) else { return };
        connection.fill(request.sequence, parts.into(), out);
        if connection.wants_pump() {
            self.to_pump.push(request.connection);
        }
    }

    pub(crate) fn close_connection(&mut self, id: ConnectionId, reason: String, out: &mut Vec<Effect>) {
        if let Some(connection) = self.connections.get_mut(id) {
            let reason = format!("{}: {reason}", connection.peer);
            connection.close(reason, out);
        }
    }

    fn handle_accepted(&mut self, now: Now, id: ConnectionId, peer: String, out: &mut Vec<Effect>) {
        let full = self.connections.len() >= self.config.connections_max;
        let mut connection = Connection::new(id, peer, now);
        if full || self.stopping {
            let reason = format!("max.connections = {} is reached", self.config.connections_max);
            connection.close(reason, out);
        } else {
            connection.receive_more(now, &mut self.receive_budget, out);
        }
        let expiry =
            connection.expiry(self.config.request_receive_timeout_ms, self.config.connection_idle_ms).0;
        self.connections.insert(id, connection);
        self.sweep_connections_ns = Some(self.sweep_connections_ns.map_or(expiry, |ns| ns.min(expiry)));
    }

    fn handle_closed(&mut self, id: ConnectionId, out: &mut Vec<Effect>) {
        if let Some(mut connection) = self.connections.remove(id) {
            self.give_back_memory(connection.take_reserved());
        }
        self.drop_fetches_of(id, out);
    }

    fn give_back_memory(&mut self, bytes: usize) {
        self.receive_budget.give_back(bytes);
        if bytes > 0 {
            self.to_pump.extend(self.wanting_memory.drain(..));
        }
    }

    /// Deals with every whole frame of a connection, then asks for more bytes.
    pub(crate) fn pump(&mut self, now: Now, id: ConnectionId, out: &mut Vec<Effect>) {
        loop {
            // A stopping shard takes in nothing more; its connections close as soon as what was appended is answered.
            if self.stopping {
                return;
            }
            let Some(connection) = self.connections.get_mut(id) else { return };
            match connection.next_frame() {
                NextFrame::Frame(frame) => {
                    let request = connection.reserve();
                    self.handle_request(now, request, frame, out);
                }
                NextFrame::None => break,
                NextFrame::Broken(reason) => return self.close_connection(id, reason, out),
            }
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.receive_more(now, &mut self.receive_budget, out) {
            self.wanting_memory.push_back(id);
        }
        if connection.has_begun_frame() {
            let limit = now.after_ms(self.config.request_receive_timeout_ms);
            self.sweep_connections_ns = Some(self.sweep_connections_ns.map_or(limit, |ns| ns.min(limit)));
        }
    }

    fn handle_progress(&mut self, now: Now, out: &mut Vec<Effect>) {
        let progress = std::mem::take(&mut self.progress);
        for slot in &progress.advanced {
            self.advance_partition(now, *slot, out);
        }
        for (slot, end) in progress.cuts {
            self.handle_cut(now, slot, end, out);
        }
        for (token, plan) in progress.reads {
            self.handle_read(now, token, plan, out);
        }
        for (token, found) in progress.lookups {
            self.handle_lookup(now, token, found, out);
        }
        self.advance_control(now, out);
        self.advance_member(now, out);
        self.advance_deletes(now, out);
        self.look_at_space(now, out);
        if let Some(text) = progress.no_space {
            self.log_error(
                out,
                format!("{text}; nothing acknowledged is lost, appends are refused when the journal is full"),
            );
        }
        if let Some(text) = progress.failed {
            self.handle_storage_failure(now, &text, out);
        }
        if progress.space_freed {
            self.room_for_hosts(now, out);
        }
        if progress.space_freed && !self.blocked.is_empty() {
            self.run_blocked(now, out);
        }
        if progress.stopped && !self.stopped {
            self.stopped = true;
            out.push(Effect::Stopped);
        }
    }

    fn advance_partition(&mut self, now: Now, slot: pelton_log::PartitionSlot, out: &mut Vec<Effect>) {
        let (written, flushed) =
            (self.storage.written_end_offset(slot), self.storage.flushed_end_offset(slot));
        let Some(local) = self.partitions.local_mut(slot) else {
            return self.advance_hosted(now, slot, out);
        };
        let before = local.state.high_watermark();
        local.state.handle_log_progress(written, flushed, local.config.flush_every_append());
        let high_watermark = local.state.high_watermark();
        if high_watermark > before {
            let mut decided = std::mem::take(&mut self.decided);
            self.acks.advance(slot, high_watermark.0, &mut decided);
            self.finish_produces(&mut decided, out);
            self.decided = decided;
            self.advance_group(now, slot, high_watermark.0, out);
            self.wake_fetches(now, slot, out);
        }
    }

    /// The device failed: whoever waits for it hears so, and nothing in that window was acknowledged.
    fn handle_storage_failure(&mut self, now: Now, text: &str, out: &mut Vec<Effect>) {
        self.log_error(out, text.to_string());
        let slots: Vec<_> = self.partitions.locals().map(|(slot, _)| slot).collect();
        let mut done = Vec::new();
        for slot in slots {
            self.acks.fail(slot, ErrorCode::KafkaStorageError, text, &mut done);
        }
        self.finish_produces(&mut done, out);
        self.fail_hosts(now, text, out);
        self.fail_groups(now, out);
        self.fail_control(out);
        self.run_blocked(now, out);
    }

    fn handle_message(&mut self, now: Now, from: ShardId, message: ShardMessage, out: &mut Vec<Effect>) {
        match message {
            ShardMessage::MetadataSnapshot { snapshot } => self.handle_metadata_snapshot(now, &snapshot, out),
            ShardMessage::MetadataUpdate { offset, records } => {
                self.handle_metadata_update(now, offset, &records, out);
            }
            ShardMessage::MetadataApplied { offset } => self.handle_metadata_applied(now, from, offset, out),
            ShardMessage::Control { id, frame } => {
                self.enqueue_control(now, ControlOrigin::Shard(from, id), ControlRequest::Frame(frame), out);
            }
            ShardMessage::ControlDone { id, response } => {
                if let Some(request) = self.control_asked.remove(&id) {
                    self.respond(request, response, out);
                }
            }
            ShardMessage::AutoCreate { id, topics } => {
                let request = ControlRequest::AutoCreate(topics);
                self.enqueue_control(now, ControlOrigin::Shard(from, id), request, out);
            }
            ShardMessage::AutoCreateDone { id } => self.handle_auto_created(now, id, out),
            ShardMessage::Produce { id, acks, parts } => {
                self.handle_foreign_produce(now, from, id, acks, parts, out);
            }
            ShardMessage::ProduceDone { id, results } => self.handle_produce_done(id, results, out),
            ShardMessage::Fetch { id, parts, response_bytes_max } => {
                self.handle_foreign_fetch(now, from, id, parts, response_bytes_max, out);
            }
            ShardMessage::FetchDone { id, results } => self.handle_fetch_done(now, id, results, out),
            ShardMessage::Watch { id, parts } => self.handle_watch(from, id, parts, out),
            ShardMessage::WatchFired { id } => self.handle_watch_fired(now, id, out),
            ShardMessage::Unwatch { id } => self.handle_unwatch(from, id),
            ShardMessage::Group { id, index, ask } => {
                self.handle_foreign_group(now, from, id, index, *ask, out);
            }
            ShardMessage::GroupDone { id, index, response } => {
                self.handle_group_answer(id, index, *response, out);
            }
            ShardMessage::Drained => {
                self.others_drained.insert(from);
            }
            ShardMessage::Partition { id, index, op } => {
                self.handle_foreign_operation(now, from, id, index, op, out);
            }
            ShardMessage::PartitionDone { id, index, answer } => {
                self.handle_gather_answer(now, id, index, answer, out);
            }
            ShardMessage::LogDir { id, wanted } => {
                let report = self.log_dir(&wanted);
                out.push(Effect::ToShard { to: from, message: ShardMessage::LogDirDone { id, report } });
            }
            ShardMessage::LogDirDone { id, report } => self.handle_log_dir(id, report, out),
            ShardMessage::ControlRefused { id, why } => self.handle_control_refused(now, id, why, out),
            message => self.handle_cluster_message(now, from, message, out),
        }
    }

    fn handle_tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.expire_fetches(now, out);
        self.tick_groups(now, out);
        if self.sweep_produces_ns.is_some_and(|ns| ns <= now.monotonic_ns) {
            self.sweep_produces_ns = None;
            let mut done = Vec::new();
            self.acks.expire(now.monotonic_ns, &mut done);
            self.finish_produces(&mut done, out);
        }
        if self.sweep_connections_ns.is_some_and(|ns| ns <= now.monotonic_ns) {
            self.sweep_connections(now, out);
        }
        self.run_upkeep(now, out);
        self.tick_cluster(now, out);
    }

    /// Closes connections that have been idle, or in the middle of a request, for too long. Walks all connections, at
    /// most once per the shorter of the two limits, rather than keep a timer for each.
    fn sweep_connections(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut next: Option<u64> = None;
        let mut late = Vec::new();
        for (id, connection) in self.connections.iter() {
            let (expiry, reason) =
                connection.expiry(self.config.request_receive_timeout_ms, self.config.connection_idle_ms);
            if connection.is_closing() {
                continue;
            }
            if expiry <= now.monotonic_ns {
                late.push((id, reason));
            } else {
                next = Some(next.map_or(expiry, |ns| ns.min(expiry)));
            }
        }
        self.sweep_connections_ns = next;
        for (id, reason) in late {
            self.close_connection(id, reason.to_string(), out);
        }
    }

    /// Takes no further requests; what is appended is still acknowledged, what a client's request waits for is not.
    pub(crate) fn stop_serving(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.stopping = true;
        self.give_up_lease(now, out);
        self.blocked.retain(|blocked| matches!(blocked, Blocked::Shard { .. }));
        self.flush_fetches(now, out);
    }

    /// Everything this shard has taken is acknowledged. Its log may stop only when no other shard can still hand it a
    /// produce: a client elsewhere would wait for ever for what nobody flushes.
    fn advance_stop(&mut self, now: Now, out: &mut Vec<Effect>) {
        let others = (0..self.config.shards).map(ShardId).filter(|shard| *shard != self.id);
        if !self.drained {
            self.drained = true;
            out.extend(others.clone().map(|to| Effect::ToShard { to, message: ShardMessage::Drained }));
        }
        if self.others_drained.len() < others.count() {
            return;
        }
        if !self.parted {
            self.parted = true;
            let ids: Vec<ConnectionId> = self.connections.iter().map(|(id, _)| id).collect();
            for id in ids {
                self.close_connection(id, "the broker stops".to_string(), out);
            }
        }
        if self.has_left(now, out) {
            self.log_stopping = true;
            self.storage.clean_stop();
        }
    }
}
