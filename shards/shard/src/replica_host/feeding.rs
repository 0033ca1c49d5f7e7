//! What followers wait for: pieces of the log, read at the end of a turn and sent in it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_log::{ReadPlan, ReadStart, ReadToken};
use pelton_model::{LeaderEpoch, Offset, Replica};
use pelton_replica::frame::Body;
use pelton_wire::record_batch::BatchIter;

use super::{HostTurn, ReplicaHost};

/// A follower waits for a piece of log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) to: Replica,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) from: Offset,
    pub(super) max_bytes: u32,
}

/// All that followers wait for: one piece each, and reads that nobody may want any more.
#[derive(Default)]
pub(super) struct Feeding {
    wanted: VecDeque<Feed>,
    /// Something waits for its throttle until then, nanoseconds.
    pub(super) resume_ns: Option<u64>,
    reading: BTreeMap<ReadToken, Feed>,
}

impl Feeding {
    pub(super) fn want(&mut self, feed: Feed) {
        self.wanted.retain(|earlier| earlier.to != feed.to);
        self.wanted.push_back(feed);
    }
}

impl ReplicaHost {
    /// A follower waits for a piece of log: [`ReplicaHost::end_turn`] is wanted, in this turn or, since it could not be read
    /// in this one, the next.
    pub fn wants_end_turn(&self) -> bool {
        !self.feeding.wanted.is_empty()
    }

    /// Reads of the log are under way.
    pub fn is_reading(&self) -> bool {
        !self.feeding.reading.is_empty()
    }

    /// Ends a turn, after the log has: what followers wait for is read and sent. What has found no place in a group yet
    /// cannot be read; it waits for the next turn.
    pub fn end_turn(&mut self, turn: &mut HostTurn) {
        let mut later = VecDeque::new();
        self.feeding.resume_ns = None;
        while let Some(feed) = self.feeding.wanted.pop_front() {
            if !self.state.wants_feed(feed.to, feed.leader_epoch, feed.from) {
                continue;
            }
            let mut bytes = feed.max_bytes as usize;
            if self.is_throttled(feed.to) {
                if let Some(at_ns) = turn.throttle.leader.wait_ns(turn.now.monotonic_ns) {
                    self.feeding.resume_ns = Some(at_ns);
                    later.push_back(feed);
                    continue;
                }
                bytes = turn.throttle.leader.piece(bytes);
            }
            let end = turn.storage.log_end_offset(self.slot);
            let start =
                turn.storage.start_read_of_all(self.slot, feed.from, bytes, end, true, true, turn.disk);
            match start {
                Ok(ReadStart::Ready(plan)) => later.extend(self.fed(feed, plan, turn)),
                Ok(ReadStart::Pending(token)) => {
                    self.feeding.reading.insert(token, feed);
                }
                Err(_) => self.outrun(feed, turn),
            }
        }
        self.feeding.wanted = later;
    }

    /// The follower is out of sync, and the operator wants that it catches up slowly.
    fn is_throttled(&self, to: Replica) -> bool {
        let in_sync = self.state.state().is_some_and(|state| state.isr_epoch(to).is_some());
        self.throttled.0 && !in_sync
    }

    /// A read of the log is done. False: it is not one for a follower of this partition.
    pub fn handle_read(
        &mut self,
        token: ReadToken,
        plan: &Result<ReadPlan, String>,
        turn: &mut HostTurn,
    ) -> bool {
        let Some(feed) = self.feeding.reading.remove(&token) else { return false };
        match plan {
            Ok(plan) => {
                let again = self.fed(feed, plan.clone(), turn);
                self.feeding.wanted.extend(again);
            }
            Err(_) => self.outrun(feed, turn),
        }
        true
    }

    /// Sends what was read; gives back what could not be.
    fn fed(&mut self, feed: Feed, plan: ReadPlan, turn: &mut HostTurn) -> Option<Feed> {
        let batches = match plan {
            ReadPlan::Memory { batches } => batches,
            ReadPlan::Empty | ReadPlan::File { .. } => Vec::new(),
        };
        let last = batches.last().and_then(|bytes| BatchIter::new(bytes).last());
        let Some((last, _)) = last else { return Some(feed) };
        let end = Offset(last.last_offset() + 1);
        let bytes = batches.iter().map(Bytes::len).sum::<usize>() as u32;
        let body = self.machine(turn, |partition, turn| {
            partition.append_frame(feed.to, feed.leader_epoch, feed.from, end, bytes, turn)
        });
        if let Some(body) = body {
            if self.is_throttled(feed.to) {
                turn.throttle.leader.take(bytes as usize);
            }
            self.send(feed.to, body, batches, turn);
        }
        self.perform(turn);
        None
    }

    /// Retention was faster than the follower, or its place cannot be read: it is told where the log begins, which is not
    /// what it expects, and joins anew.
    fn outrun(&mut self, feed: Feed, turn: &mut HostTurn) {
        let ends = self.ends(turn.storage);
        self.act(turn, |partition, turn| partition.handle_disconnected(feed.to, turn));
        let (high_watermark, log_start) = (self.state.high_watermark(), ends.log_start);
        let body =
            Body::Append { prev_offset: ends.end, prev_epoch: -1, high_watermark, log_start, bytes: 0 };
        if feed.leader_epoch == self.state.leader_epoch() {
            self.send(feed.to, body, Vec::new(), turn);
        }
    }
}
