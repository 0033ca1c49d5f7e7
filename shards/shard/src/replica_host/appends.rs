//! What a follower does with batches of its leader, and those that wait for room in its log: within the window it has named
//! to the leader, so that a short want of room costs no new Join.

use std::collections::VecDeque;

use bytes::Bytes;
use pelton_log::Admission;
use pelton_model::{LeaderEpoch, Offset, Replica};
use pelton_replica::effect::Turn;
use pelton_replica::frame::Frame;
use pelton_replica::partition::Partition;
use pelton_replica::producers::BatchFacts;
use pelton_wire::record_batch::BatchIter;

use super::{HostTurn, ReplicaHost, Sabotage};

/// Appends that wait, in order.
pub(super) struct Held {
    frames: VecDeque<(Replica, Frame, Bytes)>,
    bytes: usize,
    limit_bytes: usize,
    /// They wait for their throttle until then, nanoseconds.
    pub(super) resume_ns: Option<u64>,
}

impl Held {
    /// Of so many bytes and one Append more: the leader's last may reach beyond the window.
    pub(super) fn new(limit_bytes: u32) -> Held {
        Held { frames: VecDeque::new(), bytes: 0, limit_bytes: limit_bytes as usize, resume_ns: None }
    }

    pub(super) fn set_limit(&mut self, limit_bytes: u32) {
        self.limit_bytes = limit_bytes as usize;
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        (self.bytes, self.resume_ns) = (0, None);
    }

    /// What is too much is as if lost: the gap shows with the next Append.
    fn push(&mut self, from: Replica, frame: Frame, batches: Bytes) {
        if self.bytes < self.limit_bytes {
            self.bytes += batches.len();
            self.frames.push_back((from, frame, batches));
        }
    }

    fn pop(&mut self) -> Option<(Replica, Frame, Bytes)> {
        let (from, frame, batches) = self.frames.pop_front()?;
        self.bytes -= batches.len();
        Some((from, frame, batches))
    }
}

impl ReplicaHost {
    /// Appends wait for room: [`ReplicaHost::handle_room`] is wanted.
    pub fn wants_room(&self) -> bool {
        !self.appends.frames.is_empty()
    }

    /// The log may have room again (`Progress::space_freed`): what waits for it is appended.
    pub fn handle_room(&mut self, turn: &mut HostTurn) {
        self.appends.resume_ns = None;
        while let Some((_, _, batches)) = self.appends.frames.front() {
            let bytes = batches.len();
            if self.cutting.is_some() || !self.may_append(bytes, turn) {
                return;
            }
            let Some((from, frame, batches)) = self.appends.pop() else { return };
            self.take_append(from, &frame, &batches, turn);
        }
    }

    /// Batches, or a question, of a leader.
    pub(super) fn handle_append(
        &mut self,
        from: Replica,
        frame: &Frame,
        batches: &Bytes,
        turn: &mut HostTurn,
    ) {
        let waits = !self.appends.frames.is_empty();
        match batches.is_empty() {
            // What it asks is answered by the Appends before it.
            true if waits => {}
            false if waits || !self.may_append(batches.len(), turn) => {
                self.appends.push(from, *frame, batches.clone());
            }
            _ => self.take_append(from, frame, batches, turn),
        }
    }

    /// The log has room, and the throttle lets it pass.
    fn may_append(&mut self, bytes: usize, turn: &mut HostTurn) -> bool {
        if self.is_throttled_follower()
            && let Some(at_ns) = turn.throttle.follower.wait_ns(turn.now.monotonic_ns)
        {
            self.appends.resume_ns = Some(at_ns);
            return false;
        }
        turn.storage.admit(bytes) == Admission::Yes
    }

    /// This replica is out of sync, and the operator wants that it catches up slowly.
    fn is_throttled_follower(&self) -> bool {
        self.throttled.1 && !self.state.is_in_sync()
    }

    fn take_append(&mut self, from: Replica, frame: &Frame, batches: &Bytes, turn: &mut HostTurn) {
        let take = |partition: &mut Partition, turn: &mut Turn| {
            partition.handle_append(from, frame.leader_epoch, &frame.body, batches, turn)
        };
        if !self.machine(turn, take) {
            return self.perform(turn);
        }
        let (epochs, producers) = (
            !self.sabotaged(Sabotage::FollowWithoutEpochs),
            !self.sabotaged(Sabotage::FollowWithoutProducers),
        );
        for (info, _) in BatchIter::new(batches) {
            if epochs {
                self.epochs.assign(LeaderEpoch(info.partition_leader_epoch), Offset(info.base_offset));
            }
            if producers {
                self.producers.update(&BatchFacts::from(&info), turn.now);
            }
        }
        if self.is_throttled_follower() {
            turn.throttle.follower.take(batches.len());
        }
        turn.storage.append_followed(self.slot, batches.clone());
        // The high watermark that came with the batches counts once they are there.
        self.perform(turn);
        self.handle_progress(turn);
    }
}
