//! One replica of a partition with several, on this shard's log: hands events to the replica machine together with the log
//! as it is, and performs what the machine wants of the log. What others are to hear comes out as [`HostEffect`]s. Knows no
//! clients and no transport: the part of a shard that does is `cluster/` (ARCHITECTURE.md, "The seam of the cluster").

use bytes::Bytes;
use pelton_log::disk::DiskEffect;
use pelton_log::{Admission, CommitPoint, PartitionSlot, RecoveredPartition, Storage};
use pelton_model::{
    IsrMember, LeaderEpoch, Now, Offset, PartitionEpoch, PartitionKey, PartitionState, Replica,
};
use pelton_replica::effect::{Effect, Fault, IsrProposal, LogEnds, Settings, Turn};
use pelton_replica::epochs::EpochCache;
use pelton_replica::frame::{Body, Frame};
use pelton_replica::lease::Lease;
use pelton_replica::partition::{AckState, Partition};
use pelton_replica::producers::{BatchFacts, Followed, Producers, Verdict};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::record_batch;

mod appends;
mod feeding;
mod sabotage;
mod throttle;

use appends::Held;
use feeding::{Feed, Feeding};
pub use sabotage::Sabotage;
pub use throttle::{Rate, Throttle};

/// The surroundings of one event.
pub struct HostTurn<'a> {
    /// The time.
    pub now: Now,
    /// The shard's lease.
    pub lease: Lease,
    /// The shard's log.
    pub storage: &'a mut Storage,
    /// What the log wants of the disk.
    pub disk: &'a mut Vec<DiskEffect>,
    /// How fast followers that are not in sync are fed.
    pub throttle: &'a mut Throttle,
    /// What follows, in order.
    pub out: &'a mut Vec<HostEffect>,
}

/// What others are to hear.
#[derive(Clone, Debug)]
pub enum HostEffect {
    /// A frame, with its batches if it is an Append. It may be lost.
    Send {
        /// To whom.
        to: Replica,
        /// The frame.
        frame: Frame,
        /// Stretches of log, in order.
        batches: Vec<Bytes>,
    },
    /// The high watermark has moved: acknowledgements and readers follow.
    HighWatermark(Offset),
    /// To the controller: this ISR, compare-and-set.
    ProposeIsr(IsrProposal),
    /// To the controller: leadership is given back, `target` has the whole log.
    Release {
        /// Who is to lead.
        target: Replica,
        /// The epoch given back.
        leader_epoch: LeaderEpoch,
        /// The controller may act on it in this partition epoch only; if it refuses, it has to move it.
        partition_epoch: PartitionEpoch,
    },
    /// The transfer that was ordered does not happen.
    TransferCancelled {
        /// Who was to lead.
        target: Replica,
    },
    /// Whoever waits for an answer of the leader gets NOT_LEADER_OR_FOLLOWER.
    Resigned,
    /// To the log and the controller: this replica is of no use until somebody looks at it.
    Faulted(Fault),
    /// To the log: a follower has lost what it had said was on stable storage.
    LostDurable {
        /// Who.
        replica: Replica,
        /// What it had acknowledged.
        acknowledged: Offset,
        /// What it has.
        log_end: Offset,
    },
}

/// What became of a produce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Produced {
    /// Appended, or there already: [`ReplicaHost::ack_state`] says when it may be answered.
    Waits {
        /// Offset of the first record.
        base_offset: Offset,
        /// Offset of the last record.
        last_offset: Offset,
        /// The epoch it was accepted under.
        leader_epoch: LeaderEpoch,
        /// Its timestamp: the log's, if that sets them, else the greatest of its records; milliseconds.
        timestamp_ms: i64,
    },
    /// Refused; nothing was appended.
    Refused(ErrorCode),
    /// The log has no room now; ask again.
    NoRoom,
}

/// One replica.
pub struct ReplicaHost {
    key: PartitionKey,
    slot: PartitionSlot,
    state: Partition,
    epochs: EpochCache,
    producers: Producers,
    effects: Vec<Effect>,
    /// The log is being cut, wholly (true) or back: nothing else happens to the partition until it is.
    cutting: Option<bool>,
    /// The last metadata that came meanwhile.
    held: Option<(PartitionState, bool)>,
    /// Where the log shall begin, once that is stable.
    log_start_wanted: Offset,
    feeding: Feeding,
    appends: Held,
    /// As a leader, and as a follower.
    throttled: (bool, bool),
    #[cfg(feature = "sabotage")]
    sabotage: Option<Sabotage>,
}

impl ReplicaHost {
    /// A replica in one of its lives, on an open log that is ready. `recovered`: what its start found of the partition.
    pub fn open(
        key: PartitionKey,
        slot: PartitionSlot,
        me: IsrMember,
        settings: Settings,
        recovered: Option<&RecoveredPartition>,
        now: Now,
        storage: &Storage,
    ) -> ReplicaHost {
        let (mut producers, mut epochs, mark) = match recovered {
            Some(recovered) => crate::snapshot::restored(recovered, now),
            None => Default::default(),
        };
        let ends = ends_of(storage, slot);
        producers.drop_beyond(ends.end);
        epochs.truncate_from_end(ends.end);
        // What was displaced before is not known: a cut below falls back on what is retained.
        producers.keep_undo(ends.end);
        let state = Partition::replicated(me, settings, mark, ends);
        ReplicaHost {
            key,
            slot,
            state,
            epochs,
            producers,
            effects: Vec::new(),
            cutting: None,
            held: None,
            log_start_wanted: Offset(0),
            feeding: Feeding::default(),
            appends: Held::new(settings.window_bytes),
            throttled: (false, false),
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }

    /// There was a log of this partition here, which was dropped: what the journal has of it, and files that are still to be
    /// removed, must not be taken for those of the new one. Until that is on stable storage nothing happens to the partition.
    pub fn begin_anew(&mut self, storage: &mut Storage) {
        self.cutting = storage.start_restart(self.slot, Offset(0)).then_some(true);
    }

    /// The topic's settings have changed.
    pub fn set_settings(&mut self, settings: Settings) {
        self.appends.set_limit(settings.window_bytes);
        self.state.set_settings(settings);
    }

    /// The operator wants this replica throttled towards followers that are not in sync, and as such a follower.
    pub fn set_throttled(&mut self, leader: bool, follower: bool) {
        self.throttled = (leader, follower);
    }

    /// The same replica in another life of its place: what it has is kept, what it was told is not.
    pub fn live_anew(&mut self, me: IsrMember, settings: Settings, storage: &Storage) {
        self.state = Partition::replicated(me, settings, self.state.mark(), self.ends(storage));
        self.feeding = Feeding::default();
        self.appends.clear();
        self.held = None;
    }

    /// The replica machine.
    pub fn state(&self) -> &Partition {
        &self.state
    }

    /// Its log.
    pub fn slot(&self) -> PartitionSlot {
        self.slot
    }

    /// How far its log has come.
    pub fn ends(&self, storage: &Storage) -> LogEnds {
        ends_of(storage, self.slot)
    }

    /// Its leader epochs.
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// Its idempotent producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// The leader lets go of old segments, or (`offset`) of everything below an offset that is committed. Where the log begins
    /// then counts when it is stable, and followers hear of it with the stream.
    pub fn drop_before(&mut self, offset: Option<Offset>, turn: &mut HostTurn) -> Option<CommitPoint> {
        if self.cutting.is_some() {
            return None;
        }
        let commit = match offset {
            Some(offset) => Some(turn.storage.set_log_start_offset(self.slot, offset)),
            None => {
                turn.storage.apply_retention(turn.now, self.slot, self.state.high_watermark())?;
                None
            }
        };
        self.epochs.truncate_from_start(turn.storage.base_offset(self.slot));
        commit
    }

    /// For a checkpoint.
    pub fn snapshot(&self) -> Vec<u8> {
        if self.sabotaged(Sabotage::EmptySnapshot) {
            return Vec::new();
        }
        crate::snapshot::encode_replica(&self.producers, &self.epochs, self.state.mark())
    }

    /// For a checkpoint that is made before the replica is open: what the start found, with what followed.
    pub fn snapshot_of(recovered: &RecoveredPartition) -> Vec<u8> {
        let (producers, epochs, mark) = crate::snapshot::restored(recovered, Now::default());
        crate::snapshot::encode_replica(&producers, &epochs, mark)
    }

    /// When a tick is due, nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        let due = [self.state.deadline_ns(), self.feeding.resume_ns, self.appends.resume_ns];
        due.into_iter().flatten().min().filter(|_| self.cutting.is_none())
    }

    /// The metadata have changed; what [`Partition::handle_metadata`] says.
    pub fn handle_metadata(&mut self, state: &PartitionState, predecessor_gone: bool, turn: &mut HostTurn) {
        if self.cutting.is_some() {
            self.held = Some((state.clone(), predecessor_gone));
            return;
        }
        self.run(turn, |partition, turn| {
            partition.handle_metadata(state, predecessor_gone, turn);
            if predecessor_gone {
                partition.handle_predecessor_gone(state.leader_epoch, turn);
            }
        });
    }

    /// No earlier leader than that of `leader_epoch` can still hold a lease.
    pub fn handle_predecessor_gone(&mut self, leader_epoch: LeaderEpoch, turn: &mut HostTurn) {
        match &mut self.held {
            Some((state, gone)) => *gone |= state.leader_epoch == leader_epoch,
            None => self.act(turn, |partition, turn| partition.handle_predecessor_gone(leader_epoch, turn)),
        }
    }

    /// The controller has refused a proposal.
    pub fn handle_proposal_refused(&mut self, partition_epoch: PartitionEpoch, turn: &mut HostTurn) {
        self.act(turn, |partition, turn| partition.handle_proposal_refused(partition_epoch, turn));
    }

    /// The controller wants another leader.
    pub fn handle_transfer(&mut self, target: Replica, turn: &mut HostTurn) {
        self.act(turn, |partition, turn| partition.handle_transfer(target, turn));
    }

    /// A connection is gone.
    pub fn handle_disconnected(&mut self, peer: Replica, turn: &mut HostTurn) {
        self.act(turn, |partition, turn| partition.handle_disconnected(peer, turn));
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, turn: &mut HostTurn) {
        if self.appends.resume_ns.is_some_and(|at| turn.now.monotonic_ns >= at) {
            self.handle_room(turn);
        }
        self.act(turn, |partition, turn| partition.handle_tick(turn));
    }

    /// The log has moved by itself (`Progress::advanced`).
    pub fn handle_progress(&mut self, turn: &mut HostTurn) {
        self.act(turn, |partition, turn| partition.handle_progress(turn));
    }

    /// The storage has failed.
    pub fn handle_storage_failure(&mut self, text: &str, turn: &mut HostTurn) {
        self.run(turn, |partition, turn| partition.handle_storage_failure(text, turn));
    }

    /// The disk is full, or is not any more.
    pub fn handle_space(&mut self, turn: &mut HostTurn) {
        let full = turn.storage.is_full();
        self.act(turn, |partition, turn| partition.handle_space(full, turn));
    }

    /// A frame has come, with `batches` if it is an Append. While the log is cut it is as if lost; while the log has no
    /// room, Appends wait for [`ReplicaHost::handle_room`].
    pub fn handle_frame(&mut self, from: Replica, frame: &Frame, batches: &Bytes, turn: &mut HostTurn) {
        let (epoch, body) = (frame.leader_epoch, frame.body);
        if self.cutting.is_some() {
            return;
        }
        match body {
            Body::Append { .. } => self.handle_append(from, frame, batches, turn),
            _ => self.run(turn, |partition, turn| partition.handle_frame(from, epoch, &body, turn)),
        }
    }

    /// A client's batch, checked but for its producer and not stamped.
    pub fn produce(&mut self, records: Bytes, acks: i16, turn: &mut HostTurn) -> Produced {
        match turn.storage.admit(records.len()) {
            Admission::Yes => self.append(records, acks, None, turn),
            _ => Produced::NoRoom,
        }
    }

    /// The same; the caller has asked the log for room. `log_append_time_ms` takes the place of the client's timestamps.
    pub fn append(
        &mut self,
        records: Bytes,
        acks: i16,
        log_append_time_ms: Option<i64>,
        turn: &mut HostTurn,
    ) -> Produced {
        if let Err(error) = self.state.check_produce(acks, turn.now.monotonic_ns, turn.lease) {
            return Produced::Refused(error);
        }
        let Some(info) = record_batch::peek(&records) else {
            return Produced::Refused(ErrorCode::CorruptMessage);
        };
        let (facts, leader_epoch) = (BatchFacts::from(&info), self.state.leader_epoch());
        match self.producers.check(&facts, turn.now) {
            Verdict::Refuse { error, .. } => return Produced::Refused(error),
            Verdict::Duplicate { base_offset, last_offset, timestamp_ms } => {
                return Produced::Waits { base_offset, last_offset, leader_epoch, timestamp_ms };
            }
            Verdict::Append => {}
        }
        let stamped =
            if self.sabotaged(Sabotage::StampEarlierEpoch) { leader_epoch.0 - 1 } else { leader_epoch.0 };
        let appended = turn.storage.append(self.slot, records, LeaderEpoch(stamped), log_append_time_ms);
        let (base_offset, last_offset) = (appended.base_offset, appended.last_offset);
        let timestamp_ms = log_append_time_ms.unwrap_or(facts.timestamp_ms);
        self.producers.update(&BatchFacts { base_offset, last_offset, timestamp_ms, ..facts }, turn.now);
        self.epochs.assign(leader_epoch, base_offset);
        self.handle_progress(turn);
        Produced::Waits { base_offset, last_offset, leader_epoch, timestamp_ms }
    }

    /// What becomes of the answer to a produce.
    pub fn ack_state(
        &self,
        last_offset: Offset,
        accepted: LeaderEpoch,
        acks: i16,
        storage: &Storage,
        now: Now,
        lease: Lease,
    ) -> AckState {
        if self.sabotaged(Sabotage::AcknowledgeAtOnce) {
            return AckState::Done;
        }
        self.state.ack_state(last_offset, accepted, acks, self.ends(storage), now.monotonic_ns, lease)
    }

    /// The log was cut (`Progress::cuts`): epochs and producers follow, then the replica goes on.
    pub fn handle_cut(&mut self, end: Offset, turn: &mut HostTurn) {
        let Some(restarted) = self.cutting.take() else { return };
        self.log_start_wanted = Offset(0);
        if self.sabotaged(Sabotage::KeepStateOnCut) {
            // As if a log's cut were the log's matter alone.
        } else if restarted {
            self.epochs.clear();
            self.producers = Producers::default();
            self.producers.keep_undo(end);
        } else {
            self.epochs.truncate_from_end(end);
            self.cut_producers(end);
        }
        self.run(turn, |partition, turn| partition.handle_cut(turn));
        self.handle_space(turn);
        if let Some((state, gone)) = self.held.take() {
            self.handle_metadata(&state, gone, turn);
        }
    }

    /// R15. Below where the way back is known, what is retained and lies beyond goes: a client repeats at most its last
    /// five batches, and those below the cut it has been told of.
    fn cut_producers(&mut self, end: Offset) {
        let before = self.producers.clone();
        if self.producers.truncate_to(end) == Followed::Replay {
            self.producers = before;
            self.producers.forget_undo();
            self.producers.drop_beyond(end);
            self.producers.keep_undo(end);
        }
    }

    fn send(&self, to: Replica, body: Body, batches: Vec<Bytes>, turn: &mut HostTurn) {
        let frame = Frame { partition: self.key, leader_epoch: self.state.leader_epoch(), body };
        turn.out.push(HostEffect::Send { to, frame, batches });
    }

    /// An event that waits for nobody while the log is cut: it is not needed afterwards.
    fn act(&mut self, turn: &mut HostTurn, event: impl FnOnce(&mut Partition, &mut Turn)) {
        if self.cutting.is_none() {
            self.run(turn, event);
        }
    }

    fn run(&mut self, turn: &mut HostTurn, event: impl FnOnce(&mut Partition, &mut Turn)) {
        self.machine(turn, event);
        self.perform(turn);
    }

    fn machine<R>(&mut self, turn: &HostTurn, event: impl FnOnce(&mut Partition, &mut Turn) -> R) -> R {
        let ends = ends_of(turn.storage, self.slot);
        let (now_ns, lease, epochs) = (turn.now.monotonic_ns, turn.lease, &self.epochs);
        event(&mut self.state, &mut Turn { now_ns, lease, ends, epochs, effects: &mut self.effects })
    }

    fn perform(&mut self, turn: &mut HostTurn) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send { to, body } => self.send(to, body, Vec::new(), turn),
                Effect::Feed { to, leader_epoch, from, max_bytes } => {
                    self.feeding.want(Feed { to, leader_epoch, from, max_bytes });
                }
                Effect::Cut { to } => {
                    self.appends.clear();
                    self.cutting = turn.storage.start_cut(self.slot, to).then_some(false);
                }
                Effect::Restart { at } => {
                    self.appends.clear();
                    self.cutting = turn.storage.start_restart(self.slot, at).then_some(true);
                }
                // Said with every Append until it is stable; in the journal once.
                Effect::AdvanceLogStart { to } if to <= self.log_start_wanted => {}
                Effect::AdvanceLogStart { to } => {
                    self.log_start_wanted = to;
                    turn.storage.set_log_start_offset(self.slot, to);
                    self.epochs.truncate_from_start(turn.storage.base_offset(self.slot));
                }
                Effect::HighWatermark(offset) => {
                    self.producers.commit(offset);
                    turn.out.push(HostEffect::HighWatermark(offset));
                }
                Effect::ProposeIsr(proposal) => turn.out.push(HostEffect::ProposeIsr(proposal)),
                Effect::Release { target, leader_epoch, partition_epoch } => {
                    turn.out.push(HostEffect::Release { target, leader_epoch, partition_epoch });
                }
                Effect::TransferCancelled { target } => {
                    turn.out.push(HostEffect::TransferCancelled { target });
                }
                Effect::Resigned => turn.out.push(HostEffect::Resigned),
                Effect::Faulted(fault) => turn.out.push(HostEffect::Faulted(fault)),
                Effect::LostDurable { replica, acknowledged, log_end } => {
                    turn.out.push(HostEffect::LostDurable { replica, acknowledged, log_end });
                }
            }
        }
    }
}

fn ends_of(storage: &Storage, slot: PartitionSlot) -> LogEnds {
    LogEnds {
        start: storage.base_offset(slot),
        log_start: storage.log_start_offset(slot),
        flushed: storage.flushed_end_offset(slot),
        written: storage.written_end_offset(slot),
        end: storage.log_end_offset(slot),
    }
}
