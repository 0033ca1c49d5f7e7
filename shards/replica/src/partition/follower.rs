//! The follower's side: it shows the leader where its log ends, cuts what the leader does not have, and takes the stream.

use pelton_model::{LeaderEpoch, Offset, Replica};

use super::append_check::check_append;
use super::{Partition, Role};
use crate::effect::{Effect, Fault, Settings, Turn};
use crate::frame::{Body, Verdict};
use crate::sabotage::Sabotage;

/// What one follows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Follower {
    leader: Replica,
    /// The logs were compared in this epoch: from here on ours is a part of the leader's (R2).
    matched: bool,
    /// The Join whose answer is awaited, and when it was last said.
    joining: Option<(u32, u64)>,
    heard_ns: u64,
    /// Ends and high watermark of the last Ack.
    acked: (Offset, Offset, Offset),
    /// Where the log begins for clients, as the leader was told last.
    log_start: Offset,
    /// The leader was told last that there is no room (true), or that there is again; none = it believes that there is.
    full: Option<bool>,
    /// Others that have said that their disks are full, ascending: whoever leads next knows it without having heard from them.
    full_others: Vec<Replica>,
}

impl Follower {
    pub(super) fn leader(&self) -> Replica {
        self.leader
    }

    pub(super) fn matched(&self) -> bool {
        self.matched
    }

    /// A replica says whether its disk is full: kept for when this one leads next.
    pub(super) fn note_space(&mut self, from: Replica, full: bool) {
        self.full_others.retain(|other| *other != from);
        if full {
            self.full_others.push(from);
            self.full_others.sort_unstable();
        }
    }

    /// Others that have said that their disks are full.
    pub(super) fn full_others(&self) -> &[Replica] {
        &self.full_others
    }

    /// See [`Partition::forget_history`].
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) fn forget_history(&mut self) {
        self.joining = self.joining.map(|(_, said_ns)| (0, said_ns));
        // What was said of the high watermark is never looked at.
        self.acked.2 = Offset(-1);
    }

    /// See [`Partition::rename`].
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) fn rename(&mut self, name: impl Fn(Replica) -> Replica) {
        self.leader = name(self.leader);
        self.full_others.iter_mut().for_each(|other| *other = name(*other));
        self.full_others.sort_unstable();
    }

    pub(super) fn deadline_ns(&self, settings: &Settings) -> Option<u64> {
        Some(match self.joining {
            Some((_, said_ns)) => said_ns.saturating_add(settings.retry_ns),
            None => self.heard_ns.saturating_add(settings.silence_ns),
        })
    }
}

impl Partition {
    /// The metadata name a leader, perhaps the one that is followed already.
    pub(super) fn follow(&mut self, leader: Replica, new_epoch: bool, turn: &mut Turn) {
        if !new_epoch
            && let Some(Role::Follower(follower)) = self.role_mut()
            && follower.leader == leader
        {
            return self.acknowledge(true, turn);
        }
        let (heard_ns, acked) = (turn.now_ns, (Offset(-1), Offset(-1), Offset(-1)));
        let log_start = Offset(0);
        let (matched, joining, full, full_others) = (false, None, None, Vec::new());
        let follower = Follower { leader, matched, joining, heard_ns, acked, log_start, full, full_others };
        self.set_role(Role::Follower(follower));
        let old_way = self.replicated.as_ref().is_some_and(|r| r.sabotaged(Sabotage::CutToHighWatermark));
        if old_way && self.high_watermark < turn.ends.end {
            return turn.effects.push(Effect::Cut { to: self.high_watermark });
        }
        self.rejoin(turn);
    }

    /// Joins anew: what an earlier Join is answered no longer counts.
    pub(super) fn rejoin(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        if let Role::Follower(follower) = &mut r.role {
            r.joins += 1;
            follower.joining = Some((r.joins, turn.now_ns));
            self.say_join(turn);
        }
    }

    fn say_join(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let Role::Follower(follower) = &mut r.role else { return };
        let Some((join, said_ns)) = &mut follower.joining else { return };
        *said_ns = turn.now_ns;
        let body = Body::Join {
            replica_epoch: r.me.epoch,
            join: *join,
            log_end: turn.ends.end,
            last_epoch: turn.epochs.latest(),
            window_bytes: r.settings.window_bytes,
        };
        turn.send(follower.leader, body);
    }

    /// R2: the leader's answer to a Join, in this epoch.
    pub(super) fn handle_answer(&mut self, from: Replica, body: &Body, turn: &mut Turn) {
        let Body::Answer { join, verdict, high_watermark, log_start } = *body else { return };
        let Some(r) = &mut self.replicated else { return };
        let (early, any_join) =
            (r.sabotaged(Sabotage::HighWatermarkBeforeCut), r.sabotaged(Sabotage::AnswerOfOldJoin));
        let compare = !r.sabotaged(Sabotage::SkipMatching);
        let Role::Follower(follower) = &mut r.role else { return };
        if follower.leader != from {
            return;
        }
        if verdict == Verdict::OtherEpoch {
            if follower.joining.is_none() {
                self.rejoin(turn);
            }
            return;
        }
        if follower.joining.is_none_or(|(asked, _)| asked != join) && !any_join {
            return;
        }
        follower.heard_ns = turn.now_ns;
        match verdict {
            Verdict::Diverged { epoch, end } if compare => {
                if early {
                    self.raise_high_watermark(high_watermark.min(turn.ends.end), turn);
                }
                self.diverged(epoch, end, turn);
            }
            Verdict::Restart { at } => self.restart(at, log_start, turn),
            _ => {
                (follower.matched, follower.joining) = (true, None);
                self.follow_log_start(log_start, turn);
                self.raise_high_watermark(high_watermark.min(turn.ends.end), turn);
                self.acknowledge(true, turn);
            }
        }
    }

    /// Cuts what the leader does not have, if that may be (R3).
    fn diverged(&mut self, epoch: i32, end: Offset, turn: &mut Turn) {
        let (_, own_end) = turn.epochs.agreement(epoch, &turn.ends);
        let to = end.min(own_end);
        if to >= turn.ends.end {
            // It has changed its mind, or is not in its right one: ask again later.
            return;
        }
        let (hw, ours) = (self.high_watermark, self.leader_epoch);
        let Some(r) = &mut self.replicated else { return };
        let learned = r.high_watermark_epoch;
        let explained = r.state.unclean_epoch.is_some_and(|unclean| learned < unclean && unclean <= ours);
        let guarded = !r.sabotaged(Sabotage::ForgetGuard);
        let matched = matches!(&r.role, Role::Follower(follower) if follower.matched);
        if guarded && matched {
            return self.fault(Fault::CutWithinEpoch { to: to.0 }, turn);
        }
        if to < hw {
            if guarded && !explained {
                return self.fault(Fault::CutBelowHighWatermark { to: to.0, high_watermark: hw.0 }, turn);
            }
            self.high_watermark = to;
        }
        turn.effects.push(match to < turn.ends.start {
            true => Effect::Restart { at: to },
            false => Effect::Cut { to },
        });
    }

    /// All that is here lies before the leader's log start: retention was faster than the stream. Not a cut of anything
    /// that is still to be kept, so not R3's matter.
    fn restart(&mut self, at: Offset, log_start: Offset, turn: &mut Turn) {
        if turn.ends.end < at && at <= log_start {
            turn.effects.push(Effect::Restart { at });
        }
    }

    /// [`Effect::Cut`] or [`Effect::Restart`] was carried out; `turn` has the log as it is now.
    pub fn handle_cut(&mut self, turn: &mut Turn) {
        // Where a log begins is committed, also where it has just begun anew.
        self.high_watermark = self.high_watermark.max(turn.ends.log_start).min(turn.ends.end);
        self.rejoin(turn);
    }

    /// R4: batches from the leader. True: append them as they are, all of them, then say `handle_progress` with their
    /// effects. False: drop them.
    pub fn handle_append(
        &mut self,
        from: Replica,
        leader_epoch: LeaderEpoch,
        body: &Body,
        batches: &[u8],
        turn: &mut Turn,
    ) -> bool {
        let Body::Append { prev_offset, prev_epoch, high_watermark, log_start, bytes } = *body else {
            return false;
        };
        let ours = self.leader_epoch;
        let Some(r) = &mut self.replicated else { return false };
        let (compacted, compare) = (r.settings.compacted, !r.sabotaged(Sabotage::SkipMatching));
        let Role::Follower(follower) = &mut r.role else { return false };
        if leader_epoch != ours || follower.leader != from || !follower.matched {
            return false;
        }
        follower.heard_ns = turn.now_ns;
        if prev_offset < turn.ends.end {
            // Sent twice, or an old question; the answer is the same.
            self.follow_log_start(log_start, turn);
            self.raise_high_watermark(high_watermark.min(turn.ends.end), turn);
            self.acknowledge(true, turn);
            return false;
        }
        let own = turn.epochs.epoch_for_offset(Offset(turn.ends.end.0 - 1));
        // Where nothing before is kept any more, there is nothing to compare.
        let same = prev_epoch < 0 || own.is_none_or(|own| own.0 == prev_epoch) || !compare;
        let checked = match bytes {
            0 => Ok(prev_offset),
            _ => check_append(batches, prev_offset, prev_epoch, ours, compacted),
        };
        let end = match checked {
            Ok(end) if prev_offset == turn.ends.end && same && bytes as usize == batches.len() => end,
            _ => {
                if follower.joining.is_none() {
                    self.rejoin(turn);
                }
                return false;
            }
        };
        self.follow_log_start(log_start, turn);
        self.raise_high_watermark(high_watermark.min(end), turn);
        if bytes == 0 {
            self.acknowledge(true, turn);
        }
        bytes > 0
    }

    /// The log begins where the leader's does (KAFKA-9491: the high watermark is never before that).
    fn follow_log_start(&mut self, log_start: Offset, turn: &mut Turn) {
        let to = log_start.min(turn.ends.end);
        if to > turn.ends.log_start {
            self.raise_high_watermark(to, turn);
            turn.effects.push(Effect::AdvanceLogStart { to });
        }
    }

    /// R5: says how far this replica is, if that is news or was `asked`.
    pub(super) fn acknowledge(&mut self, asked: bool, turn: &mut Turn) {
        let high_watermark = self.high_watermark;
        let Some(r) = &mut self.replicated else { return };
        let written_end = if r.sabotaged(Sabotage::AckUnwritten) { turn.ends.end } else { turn.ends.written };
        let flushed_end =
            if r.sabotaged(Sabotage::CountWritten) { turn.ends.written } else { turn.ends.flushed };
        let (replica_epoch, full) = (r.me.epoch, r.full);
        let Role::Follower(follower) = &mut r.role else { return };
        let now = (written_end, flushed_end, high_watermark);
        let news = (now.0, now.1) != (follower.acked.0, follower.acked.1);
        if follower.matched && (news || asked) {
            follower.acked = now;
            turn.send(follower.leader, Body::Ack { replica_epoch, written_end, flushed_end, high_watermark });
        }
        let log_start = turn.ends.log_start;
        if follower.matched && (log_start > follower.log_start || (asked && log_start > Offset(0))) {
            follower.log_start = log_start;
            turn.send(follower.leader, Body::LogStart { replica_epoch, log_start });
        }
        let differs = full != follower.full.unwrap_or(false);
        if follower.matched && (differs || (asked && follower.full.is_some())) {
            follower.full = Some(full);
            turn.send(follower.leader, Body::Space { replica_epoch, full });
            // The others too, once: the leader may be handing over just now.
            let (me, leader) = (r.me.replica, follower.leader);
            let others = r.state.replicas.iter().filter(|it| differs && **it != me && **it != leader);
            others.for_each(|other| turn.send(*other, Body::Space { replica_epoch, full }));
        }
    }

    pub(super) fn tick_follower(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let settings = r.settings;
        let Role::Follower(follower) = &mut r.role else { return };
        if follower.deadline_ns(&settings).is_some_and(|due| turn.now_ns < due) {
            return;
        }
        if follower.joining.is_some() {
            self.say_join(turn);
        } else {
            follower.heard_ns = turn.now_ns;
            self.acknowledge(true, turn);
        }
    }
}
