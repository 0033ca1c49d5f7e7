//! The leader's side: its phase, its followers, and how far all that count have come.

use pelton_model::{IsrMember, LeaderEpoch, Offset, PartitionState, Replica};

use super::remote::{Acked, Remote};
use super::{Partition, Role, RoleKind};
use crate::effect::{Effect, Settings, Turn};
use crate::frame::{Body, Verdict};
use crate::sabotage::Sabotage;

/// How far a leadership is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Phase {
    /// The predecessor may still hold a lease (L7).
    Activating,
    /// All is allowed.
    Active,
    /// A transfer was ordered: nothing is appended any more (R12).
    Draining { target: Replica, deadline_ns: u64 },
    /// Given back: nothing is answered any more (L6).
    Released { target: Replica, said_ns: u64 },
}

/// A leadership.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Leader {
    pub(super) phase: Phase,
    /// The log's end when this epoch began (LESO).
    pub(super) start: Offset,
    /// Its end as last seen.
    end: Offset,
    /// Where it begins for clients, as followers were told last.
    pub(super) log_start: Offset,
    pub(super) remotes: Vec<Remote>,
    /// Members asked for since the partition epoch last moved: with the committed ISR they are the maximal ISR. A refusal
    /// takes nobody out: a copy of the request may still be under way.
    pub(super) proposed: Vec<IsrMember>,
    /// When the last proposal was made, while its outcome is not known.
    pub(super) proposed_ns: Option<u64>,
    /// When it last tried to hand over because its disk is full.
    pub(super) tried_ns: Option<u64>,
}

impl Leader {
    pub(super) fn new(state: &PartitionState, me: IsrMember, predecessor_gone: bool, turn: &Turn) -> Leader {
        let others = state.replicas.iter().filter(|replica| **replica != me.replica);
        Leader {
            phase: if predecessor_gone { Phase::Active } else { Phase::Activating },
            start: turn.ends.end,
            end: turn.ends.end,
            log_start: turn.ends.log_start,
            remotes: others.map(|replica| Remote::new(*replica, turn.now_ns)).collect(),
            proposed: Vec::new(),
            proposed_ns: None,
            tried_ns: None,
        }
    }

    /// These have said that their disks are full while another led.
    pub(super) fn know_full(&mut self, full: &[Replica]) {
        let known = self.remotes.iter_mut().filter(|remote| full.contains(&remote.replica));
        known.for_each(|remote| remote.full = true);
    }

    pub(super) fn role(&self) -> RoleKind {
        match self.phase {
            Phase::Activating => RoleKind::Activating,
            Phase::Active => RoleKind::Active,
            Phase::Draining { .. } => RoleKind::Draining,
            Phase::Released { .. } => RoleKind::Released,
        }
    }

    pub(super) fn activate(&mut self) {
        if self.phase == Phase::Activating {
            self.phase = Phase::Active;
        }
    }

    /// The partition epoch has moved: what was released under the one before can no longer be acted on.
    pub(super) fn go_on(&mut self) {
        if matches!(self.phase, Phase::Released { .. }) {
            self.phase = Phase::Active;
        }
    }

    /// The log has grown: who had all there was is behind from now on, however long nothing was appended.
    pub(super) fn note_end(&mut self, end: Offset, settings: &Settings, now_ns: u64) {
        if end > self.end {
            let before = std::mem::replace(&mut self.end, end);
            self.remotes.iter_mut().for_each(|remote| remote.left_behind(before, settings, now_ns));
        }
    }

    pub(super) fn remote(&mut self, replica: Replica) -> Option<&mut Remote> {
        self.remotes.iter_mut().find(|remote| remote.replica == replica)
    }

    /// Nothing that was sent to it since it last acknowledged is sure to come.
    pub(super) fn part(&mut self, peer: Replica) {
        if let Some(remote) = self.remote(peer) {
            remote.streaming = false;
            remote.feeding = false;
        }
    }

    pub(super) fn deadline_ns(&self, settings: &Settings, state: &PartitionState, hw: Offset) -> Option<u64> {
        let mut due = u64::MAX;
        match self.phase {
            Phase::Draining { deadline_ns, .. } => due = due.min(deadline_ns),
            Phase::Released { said_ns, .. } => due = due.min(said_ns.saturating_add(settings.retry_ns)),
            Phase::Activating | Phase::Active => {}
        }
        if let Some(at) = self.proposed_ns {
            due = due.min(at.saturating_add(settings.retry_ns));
        }
        for remote in &self.remotes {
            if remote.streaming && remote.behind(self.end, self.log_start, hw, settings) {
                due = due.min(remote.moved_ns.saturating_add(settings.retry_ns));
            }
            if remote.barred_until_ns > 0 {
                due = due.min(remote.barred_until_ns);
            }
            let member = state.isr_epoch(remote.replica).is_some();
            if self.proposed_ns.is_none() && member && !remote.has(self.end, settings) {
                due = due.min(remote.lags_at_ns(settings));
            }
        }
        (due != u64::MAX).then_some(due)
    }
}

impl Partition {
    /// R1 and R2: a follower shows where its log ends; where do the logs part?
    pub(super) fn handle_join(
        &mut self,
        from: Replica,
        leader_epoch: LeaderEpoch,
        body: &Body,
        turn: &mut Turn,
    ) {
        let Body::Join { replica_epoch, join, log_end, last_epoch, window_bytes } = *body else { return };
        let (ours, high_watermark) = (self.leader_epoch, self.high_watermark);
        let Some(r) = &mut self.replicated else { return };
        let any_life = r.sabotaged(Sabotage::CountStaleReplicaEpoch);
        let Role::Leader(leader) = &mut r.role else { return };
        let Some(remote) = leader.remote(from) else { return };
        let log_start = turn.ends.log_start;
        let answer = |verdict| Body::Answer { join, verdict, high_watermark, log_start };
        if leader_epoch != ours {
            return turn.send(from, answer(Verdict::OtherEpoch));
        }
        // An earlier life, or an earlier Join of this one, late.
        if remote.epoch > Some(replica_epoch) || (remote.epoch == Some(replica_epoch) && join < remote.join) {
            return;
        }
        // Within one life a Join may be overtaken by later acknowledgements.
        if log_end < remote.durable_seen && remote.epoch != Some(replica_epoch) {
            let (replica, acknowledged) = (from, remote.durable_seen);
            turn.effects.push(Effect::LostDurable { replica, acknowledged, log_end });
            remote.durable_seen = log_end;
        }
        let at = turn.ends.start;
        if log_end < at {
            return turn.send(from, answer(Verdict::Restart { at }));
        }
        // A log without records cannot differ, but for its end.
        let (epoch, end) = match last_epoch {
            0.. => turn.epochs.agreement(last_epoch, &turn.ends),
            _ => (last_epoch, turn.ends.end),
        };
        if epoch != last_epoch || end < log_end {
            return turn.send(from, answer(Verdict::Diverged { epoch, end }));
        }
        if remote.epoch != Some(replica_epoch) && !any_life {
            remote.acked = None;
        }
        remote.begin(replica_epoch, join, log_end, window_bytes, turn.now_ns);
        turn.send(from, answer(Verdict::Matches));
        self.feed(from, turn);
    }

    /// R5: a follower says how far it is. It counts if it is of this epoch and of the life that joined in it.
    pub(super) fn handle_ack(
        &mut self,
        from: Replica,
        leader_epoch: LeaderEpoch,
        body: &Body,
        turn: &mut Turn,
    ) {
        let Body::Ack { replica_epoch, written_end, flushed_end, high_watermark } = *body else { return };
        let (ours, own_high_watermark) = (self.leader_epoch, self.high_watermark);
        let Some(r) = &mut self.replicated else { return };
        let any_epoch = r.sabotaged(Sabotage::SkipEpochOnAck);
        let any_life = r.sabotaged(Sabotage::CountStaleReplicaEpoch);
        let settings = r.settings;
        let Role::Leader(leader) = &mut r.role else { return };
        let Some(remote) = leader.remote(from) else { return };
        if leader_epoch != ours && !any_epoch {
            return;
        }
        // It follows, but nobody here knows of it, as the replica was removed and added in one change of the metadata; or it is not
        // fed any more, and has not heard that it has to join anew.
        let unknown = remote.epoch < Some(replica_epoch);
        let unfed = remote.epoch == Some(replica_epoch) && !remote.streaming;
        if (unknown || unfed) && leader_epoch == ours {
            let (verdict, log_start) = (Verdict::OtherEpoch, turn.ends.log_start);
            let high_watermark = own_high_watermark;
            turn.send(from, Body::Answer { join: 0, verdict, high_watermark, log_start });
        }
        if remote.epoch != Some(replica_epoch) && !any_life {
            return;
        }
        let acked = Acked { written: written_end, flushed: flushed_end, high_watermark };
        remote.acknowledge(acked, acked.counting(&settings), turn.ends.end, turn.now_ns);
        self.advance(turn);
        self.expand(turn);
        self.feed(from, turn);
        self.continue_transfer(turn);
    }

    /// R6: the high watermark goes to what every member of the maximal ISR has, this replica included.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let Role::Leader(leader) = &mut r.role else { return };
        leader.note_end(turn.ends.end, &r.settings, turn.now_ns);
        let Some(r) = &self.replicated else { return };
        let Role::Leader(leader) = &r.role else { return };
        let active = match leader.phase {
            Phase::Activating => r.sabotaged(Sabotage::AnswerWhileActivating),
            Phase::Active | Phase::Draining { .. } => true,
            Phase::Released { .. } => r.sabotaged(Sabotage::AnswerAfterRelease),
        };
        let enough = r.state.isr.len() >= r.min_isr() || r.sabotaged(Sabotage::IgnoreMinIsr);
        if !active || !enough || !turn.lease_holds() {
            return;
        }
        let proposed = if r.sabotaged(Sabotage::DropMaximalIsr) { &[][..] } else { &leader.proposed[..] };
        let mut least = r.own_counting(turn);
        for member in r.state.isr.iter().chain(proposed) {
            if *member == r.me {
                continue;
            }
            let Some(x) = r.counting(leader, *member) else { return };
            least = least.min(x);
        }
        self.raise_high_watermark(least, turn);
    }
}

impl super::Replicated {
    /// `min.insync.replicas` of so many replicas: no more than there are, as Kafka's `effectiveMinIsr`.
    pub(super) fn effective_min_isr(&self, min_insync_replicas: i32) -> i32 {
        min_insync_replicas.clamp(1, self.state.replicas.len().max(1) as i32)
    }

    /// The same, of this topic.
    pub(super) fn min_isr(&self) -> usize {
        self.effective_min_isr(self.settings.min_insync_replicas) as usize
    }

    /// How far this replica's own log counts.
    pub(super) fn own_counting(&self, turn: &Turn) -> Offset {
        let flushed = self.settings.flush_every_append && !self.sabotaged(Sabotage::CountWritten);
        if flushed { turn.ends.flushed } else { turn.ends.written }
    }

    /// How far a member counts: what this very life of it acknowledged in this epoch. None: nothing yet.
    pub(super) fn counting(&self, leader: &Leader, member: IsrMember) -> Option<Offset> {
        let any_life = self.sabotaged(Sabotage::CountStaleReplicaEpoch);
        let same = |remote: &&Remote| match any_life {
            true => remote.replica == member.replica,
            false => remote.member() == Some(member),
        };
        let acked = leader.remotes.iter().find(same)?.acked?;
        if self.sabotaged(Sabotage::CountWritten) {
            return Some(acked.written);
        }
        Some(acked.counting(&self.settings))
    }
}
