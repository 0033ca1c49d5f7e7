//! The leader's stream to its followers (rule R4): what is read for whom, within their windows.

use pelton_model::{LeaderEpoch, Offset, Replica};

use super::{Partition, Role};
use crate::effect::{Effect, Turn};
use crate::frame::Body;

impl Partition {
    /// Asks for the log to be read for a follower that has room and is behind.
    pub(super) fn feed(&mut self, to: Replica, turn: &mut Turn) {
        let leader_epoch = self.leader_epoch;
        let Some(r) = &mut self.replicated else { return };
        let append_bytes = r.settings.append_bytes;
        let Role::Leader(leader) = &mut r.role else { return };
        let Some(remote) = leader.remote(to) else { return };
        let room = remote.room();
        if !remote.streaming || remote.feeding || remote.next >= turn.ends.end || room == 0 {
            return;
        }
        remote.feeding = true;
        let (from, max_bytes) = (remote.next, room.min(append_bytes));
        turn.effects.push(Effect::Feed { to, leader_epoch, from, max_bytes });
    }

    /// The same for all.
    pub(super) fn feed_all(&mut self, turn: &mut Turn) {
        let Some(leader) = self.leader_mut() else { return };
        for index in 0..leader.remotes.len() {
            let Some(leader) = self.leader_mut() else { return };
            let to = leader.remotes[index].replica;
            self.feed(to, turn);
        }
    }

    /// Whether a [`Effect::Feed`] is still worth carrying out.
    pub fn wants_feed(&self, to: Replica, leader_epoch: LeaderEpoch, from: Offset) -> bool {
        let Some(Role::Leader(leader)) = self.replicated.as_ref().map(|r| &r.role) else { return false };
        let remote = leader.remotes.iter().find(|remote| remote.replica == to);
        leader_epoch == self.leader_epoch
            && remote.is_some_and(|remote| remote.streaming && remote.feeding && remote.next == from)
    }

    /// [`Effect::Feed`] was carried out: batches from `from` to `end`, `bytes` long. The frame to send with them; none if
    /// nobody waits for them any more. `end` = `from`: nothing could be read; the follower is fed again with the next progress or tick.
    pub fn append_frame(
        &mut self,
        to: Replica,
        leader_epoch: LeaderEpoch,
        from: Offset,
        end: Offset,
        bytes: u32,
        turn: &mut Turn,
    ) -> Option<Body> {
        if !self.wants_feed(to, leader_epoch, from) {
            return None;
        }
        let high_watermark = self.high_watermark;
        let remote = self.leader_mut()?.remote(to)?;
        if end <= from {
            remote.feeding = false;
            return None;
        }
        remote.sent(end, bytes, turn.now_ns);
        self.feed(to, turn);
        Some(append(from, high_watermark, bytes, turn))
    }

    /// Tells followers that are behind for a while how far things are; they answer how far they are.
    pub(super) fn tick_stream(&mut self, turn: &mut Turn) {
        let high_watermark = self.high_watermark;
        let Some(r) = &mut self.replicated else { return };
        let settings = r.settings;
        let Role::Leader(leader) = &mut r.role else { return };
        let log_start = leader.log_start;
        for remote in &mut leader.remotes {
            let due = turn.now_ns >= remote.moved_ns.saturating_add(settings.retry_ns);
            if remote.streaming && due && remote.behind(turn.ends.end, log_start, high_watermark, &settings) {
                remote.moved_ns = turn.now_ns;
                let body = append(remote.next, high_watermark, 0, turn);
                turn.send(remote.replica, body);
            }
        }
        self.feed_all(turn);
    }
}

impl Partition {
    /// The log begins elsewhere for clients: followers hear of it at once, as whoever deletes records waits for them.
    pub(super) fn tell_log_start(&mut self, turn: &mut Turn) {
        let high_watermark = self.high_watermark;
        let Some(Role::Leader(leader)) = self.role_mut() else { return };
        if leader.log_start >= turn.ends.log_start {
            return;
        }
        leader.log_start = turn.ends.log_start;
        for remote in leader.remotes.iter_mut().filter(|remote| remote.streaming) {
            let body = append(remote.next, high_watermark, 0, turn);
            turn.send(remote.replica, body);
        }
    }

    /// A follower says where its log begins for clients.
    pub(super) fn handle_log_start(&mut self, from: Replica, leader_epoch: LeaderEpoch, body: &Body) {
        let Body::LogStart { replica_epoch, log_start } = *body else { return };
        if leader_epoch != self.leader_epoch {
            return;
        }
        let remote = self.leader_mut().and_then(|leader| leader.remote(from));
        if let Some(remote) = remote.filter(|remote| remote.epoch == Some(replica_epoch)) {
            remote.log_start = log_start.max(remote.log_start);
        }
    }

    /// The log start that no replica for which `lives` is true is behind, as far as this leader knows: Kafka's low watermark.
    /// `log_start`: its own.
    pub fn low_watermark(&self, log_start: Offset, lives: impl Fn(Replica) -> bool) -> Offset {
        let Some(Role::Leader(leader)) = self.replicated.as_ref().map(|r| &r.role) else { return log_start };
        let others = leader.remotes.iter().filter(|remote| lives(remote.replica));
        others.map(|remote| remote.log_start).fold(log_start, Offset::min)
    }
}

fn append(prev_offset: Offset, high_watermark: Offset, bytes: u32, turn: &Turn) -> Body {
    let prev = turn.epochs.epoch_for_offset(Offset(prev_offset.0 - 1));
    let prev_epoch = prev.map_or(-1, |epoch| epoch.0);
    Body::Append { prev_offset, prev_epoch, high_watermark, log_start: turn.ends.log_start, bytes }
}
