//! Who may do what: which requests a replica serves in which state, and what the others are told.

use pelton_model::{LeaderEpoch, Offset};
use pelton_wire::error_code::ErrorCode;

use super::leader::{Leader, Phase};
use super::{Partition, Replicated, Role};
use crate::effect::LogEnds;
use crate::lease::Lease;
use crate::sabotage::Sabotage;

/// What becomes of an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckState {
    /// Not yet decided.
    Wait,
    /// The batch counts as the client asked.
    Done,
    /// It will not be said.
    Failed(ErrorCode),
}

impl Partition {
    /// Whether a produce may be appended now. A leader that is not active yet appends, and answers later.
    pub fn check_produce(&self, acks: i16, now_ns: u64, lease: Lease) -> Result<(), ErrorCode> {
        let Some(r) = &self.replicated else { return Ok(()) };
        let leader = r.leading()?;
        if matches!(leader.phase, Phase::Draining { .. } | Phase::Released { .. }) || !lease.valid(now_ns) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if acks == -1 && r.state.isr.len() < r.min_isr() {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        Ok(())
    }

    /// What becomes of the answer to a produce, or to its repetition, whose last record is `last_offset`, accepted under
    /// `accepted_epoch` (rule R7). Asked again whenever the log, the high watermark, the role or the lease moves.
    pub fn ack_state(
        &self,
        last_offset: Offset,
        accepted_epoch: LeaderEpoch,
        acks: i16,
        ends: LogEnds,
        now_ns: u64,
        lease: Lease,
    ) -> AckState {
        let committed = last_offset < self.high_watermark;
        let Some(r) = &self.replicated else {
            return if committed { AckState::Done } else { AckState::Wait };
        };
        let leader = match r.leading() {
            Ok(leader) if accepted_epoch == self.leader_epoch => leader,
            Ok(_) => return AckState::Failed(ErrorCode::NotLeaderOrFollower),
            Err(error) => return AckState::Failed(error),
        };
        match r.may_answer(leader, now_ns, lease) {
            Ok(()) => {}
            Err(_) if leader.phase == Phase::Activating => return AckState::Wait,
            Err(error) => return AckState::Failed(error),
        }
        let own = if r.settings.flush_every_append { ends.flushed } else { ends.written };
        match acks {
            -1 if committed => AckState::Done,
            -1 if r.state.isr.len() < r.min_isr() => {
                AckState::Failed(ErrorCode::NotEnoughReplicasAfterAppend)
            }
            -1 => AckState::Wait,
            _ if last_offset < own => AckState::Done,
            _ => AckState::Wait,
        }
    }

    /// Up to where a consumer, or a coordinator's reader, may read (rule R8). What was read is sent only if this still
    /// says yes (L8).
    pub fn check_read(&self, now_ns: u64, lease: Lease) -> Result<Offset, ErrorCode> {
        if let Some(r) = &self.replicated {
            r.may_answer(r.leading()?, now_ns, lease)?;
        }
        Ok(self.high_watermark)
    }

    /// The end of what is committed, for ListOffsets and for whoever has to know all of it: not before the high
    /// watermark has reached where the epoch began.
    pub fn check_latest(&self, now_ns: u64, lease: Lease) -> Result<Offset, ErrorCode> {
        let offset = self.check_read(now_ns, lease)?;
        match self.replicated.as_ref().map(|r| &r.role) {
            Some(Role::Leader(leader)) if offset < leader.start => Err(ErrorCode::OffsetNotAvailable),
            _ => Ok(offset),
        }
    }

    /// Up to where a consumer may read from a follower (KIP-392): below its own high watermark, once its log was compared
    /// with the leader's in this epoch.
    pub fn check_follower_read(&self, now_ns: u64, lease: Lease) -> Result<Offset, ErrorCode> {
        match self.replicated.as_ref().map(|r| &r.role) {
            Some(Role::Follower(follower)) if follower.matched() => Ok(self.high_watermark),
            Some(Role::Follower(_)) => Err(ErrorCode::OffsetNotAvailable),
            _ => self.check_read(now_ns, lease),
        }
    }
}

impl Replicated {
    fn leading(&self) -> Result<&Leader, ErrorCode> {
        match &self.role {
            Role::Leader(leader) => Ok(leader),
            Role::Faulted => Err(ErrorCode::KafkaStorageError),
            Role::Idle | Role::Follower(_) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Whether a leader may answer anything now (L7, L8, L9).
    fn may_answer(&self, leader: &Leader, now_ns: u64, lease: Lease) -> Result<(), ErrorCode> {
        let phase = match leader.phase {
            Phase::Active | Phase::Draining { .. } => true,
            Phase::Activating => self.sabotaged(Sabotage::AnswerWhileActivating),
            Phase::Released { .. } => self.sabotaged(Sabotage::AnswerAfterRelease),
        };
        if phase && lease.valid(now_ns) { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }
}
