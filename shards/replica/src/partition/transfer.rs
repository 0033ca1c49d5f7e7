//! Planned transfer of leadership (rule R12): the old leader stops appending, waits until the target has everything, gives
//! back its right to answer, and says so. Only then is the other one elected: nobody waits for a lease to end. What was
//! given back counts in one partition epoch: when that moves and this replica still leads, it goes on.

use pelton_model::Replica;

use super::leader::Phase;
use super::{Partition, Role};
use crate::effect::{Effect, Turn};

impl Partition {
    /// The controller wants `target` to lead. Cancelled at once if that cannot be now: one that has yet to say in this epoch how
    /// far it is would only be waited for, with nothing appended meanwhile; so would one whose disk is full, which leaves the ISR.
    pub fn handle_transfer(&mut self, target: Replica, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let deadline_ns = turn.now_ns.saturating_add(r.settings.transfer_ns);
        let target_in_sync = r.state.isr.iter().find(|member| member.replica == target && **member != r.me);
        let Role::Leader(leader) = &r.role else { return };
        let follows = target_in_sync.is_some_and(|member| r.counting(leader, *member).is_some())
            && !r.leaves_for_space(leader, target);
        let Role::Leader(leader) = &mut r.role else { return };
        match leader.phase {
            Phase::Active if follows => {
                leader.phase = Phase::Draining { target, deadline_ns };
                self.continue_transfer(turn);
            }
            Phase::Active | Phase::Activating => turn.effects.push(Effect::TransferCancelled { target }),
            Phase::Draining { .. } | Phase::Released { .. } => {}
        }
    }

    /// A target that has become full, and leaves the ISR, is not waited for.
    pub(super) fn cancel_transfer_to_full(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let Role::Leader(leader) = &r.role else { return };
        let Phase::Draining { target, .. } = leader.phase else { return };
        if !r.leaves_for_space(leader, target) {
            return;
        }
        let Role::Leader(leader) = &mut r.role else { return };
        leader.phase = Phase::Active;
        turn.effects.push(Effect::TransferCancelled { target });
    }

    /// Releases when the target has everything.
    pub(super) fn continue_transfer(&mut self, turn: &mut Turn) {
        let leader_epoch = self.leader_epoch;
        let Some(r) = &mut self.replicated else { return };
        let partition_epoch = r.state.partition_epoch;
        let Role::Leader(leader) = &r.role else { return };
        let Phase::Draining { target, .. } = leader.phase else { return };
        let has =
            r.state.isr.iter().find(|member| member.replica == target).and_then(|m| r.counting(leader, *m));
        if has.is_none_or(|x| x < turn.ends.end) {
            return;
        }
        let Role::Leader(leader) = &mut r.role else { return };
        leader.phase = Phase::Released { target, said_ns: turn.now_ns };
        turn.effects.push(Effect::Resigned);
        turn.effects.push(Effect::Release { target, leader_epoch, partition_epoch });
    }

    /// Gives up a transfer that takes too long; says again what was released.
    pub(super) fn tick_transfer(&mut self, turn: &mut Turn) {
        let leader_epoch = self.leader_epoch;
        let Some(r) = &mut self.replicated else { return };
        let (retry_ns, partition_epoch) = (r.settings.retry_ns, r.state.partition_epoch);
        let Role::Leader(leader) = &mut r.role else { return };
        match &mut leader.phase {
            Phase::Draining { target, deadline_ns } if turn.now_ns >= *deadline_ns => {
                let target = *target;
                leader.phase = Phase::Active;
                turn.effects.push(Effect::TransferCancelled { target });
            }
            Phase::Released { target, said_ns } if turn.now_ns >= said_ns.saturating_add(retry_ns) => {
                *said_ns = turn.now_ns;
                let target = *target;
                turn.effects.push(Effect::Release { target, leader_epoch, partition_epoch });
            }
            _ => {}
        }
    }
}
