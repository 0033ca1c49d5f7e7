//! Who is in sync (rules R9, R10): the leader proposes, the controller decides by compare-and-set. Until the partition epoch
//! moves, everyone ever proposed counts as in sync (the maximal ISR).

use super::{Partition, Replicated, Role};
use crate::effect::{Effect, IsrProposal, Turn};
use crate::sabotage::Sabotage;
use pelton_model::{IsrMember, Offset};

use super::leader::Leader;
use super::remote::Remote;

/// Whoever was refused is proposed again after so many times `retry_ns`.
const BARRED_RETRIES: u64 = 2;

impl Partition {
    /// The partition epoch has moved under this leadership: every earlier proposal is decided.
    pub(super) fn handle_new_isr(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let (state, me) = (&r.state, r.me);
        let Role::Leader(leader) = &mut r.role else { return };
        leader.go_on();
        leader.proposed.clear();
        leader.proposed_ns = None;
        leader.remotes.retain(|remote| state.replicas.contains(&remote.replica));
        for replica in &state.replicas {
            if *replica != me.replica && leader.remote(*replica).is_none() {
                leader.remotes.push(super::remote::Remote::new(*replica, turn.now_ns));
            }
        }
        self.advance(turn);
        self.expand(turn);
    }

    /// The controller has refused a proposal that built on this partition epoch. What it asked for stays in the maximal
    /// ISR until the epoch moves: another copy of the same request may still be accepted. So that nobody waits for a node that stops,
    /// say, the present ISR is proposed at once, which moves it, and the newcomers again only after a while.
    pub fn handle_proposal_refused(
        &mut self,
        partition_epoch: pelton_model::PartitionEpoch,
        turn: &mut Turn,
    ) {
        let Some(r) = &mut self.replicated else { return };
        if r.state.partition_epoch == partition_epoch
            && let Role::Leader(leader) = &mut r.role
            && leader.proposed_ns.is_some()
        {
            leader.proposed_ns = Some(turn.now_ns);
            let until_ns = turn.now_ns.saturating_add(r.settings.retry_ns.saturating_mul(BARRED_RETRIES));
            let mut news = false;
            for member in &leader.proposed {
                let remote = leader.remotes.iter_mut().find(|remote| remote.replica == member.replica);
                if let Some(remote) = remote.filter(|remote| remote.barred_until_ns == 0) {
                    (remote.barred_until_ns, news) = (until_ns, true);
                }
            }
            if news {
                self.propose(turn);
            }
        }
    }

    /// Proposes followers that have come far enough, if no proposal is out.
    pub(super) fn expand(&mut self, turn: &mut Turn) {
        let hw = self.high_watermark;
        let Some(r) = &self.replicated else { return };
        let Role::Leader(leader) = &r.role else { return };
        if leader.proposed_ns.is_none() && r.anyone_eligible(leader, hw, turn) {
            self.propose(turn);
        }
    }

    /// Shrinks, expands again, and repeats what had no outcome.
    pub(super) fn tick_isr(&mut self, turn: &mut Turn) {
        let Some(r) = &mut self.replicated else { return };
        let Role::Leader(leader) = &mut r.role else { return };
        for remote in leader.remotes.iter_mut().filter(|remote| turn.now_ns >= remote.barred_until_ns) {
            remote.barred_until_ns = 0;
        }
        let Some(r) = &self.replicated else { return };
        let Role::Leader(leader) = &r.role else { return };
        let wanted = match leader.proposed_ns {
            Some(at) => turn.now_ns >= at.saturating_add(r.settings.retry_ns),
            None => leader
                .remotes
                .iter()
                .any(|remote| r.state.isr_epoch(remote.replica).is_some() && r.leaves(leader, remote, turn)),
        };
        if wanted {
            self.propose(turn);
        } else {
            self.expand(turn);
        }
    }

    /// Proposes the ISR as it should be now; without a wish, the present one, which settles earlier proposals.
    fn propose(&mut self, turn: &mut Turn) {
        let (hw, leader_epoch) = (self.high_watermark, self.leader_epoch);
        let Some(r) = &mut self.replicated else { return };
        let Role::Leader(leader) = &r.role else { return };
        let mut isr = vec![r.me];
        for replica in r.state.replicas.iter().filter(|replica| **replica != r.me.replica) {
            let Some(remote) = leader.remotes.iter().find(|remote| remote.replica == *replica) else {
                continue;
            };
            let committed = r.state.isr_epoch(*replica).map(|epoch| IsrMember { replica: *replica, epoch });
            isr.extend(match committed {
                Some(member) if !r.leaves(leader, remote, turn) => Some(member),
                _ => r.newcomer(leader, remote, hw, turn),
            });
        }
        let partition_epoch = r.state.partition_epoch;
        let Role::Leader(leader) = &mut r.role else { return };
        for member in &isr {
            if !r.state.isr.contains(member) && !leader.proposed.contains(member) {
                leader.proposed.push(*member);
            }
        }
        leader.proposed_ns = Some(turn.now_ns);
        turn.effects.push(Effect::ProposeIsr(IsrProposal { leader_epoch, partition_epoch, isr }));
    }
}

impl Replicated {
    fn anyone_eligible(&self, leader: &Leader, hw: Offset, turn: &Turn) -> bool {
        leader.remotes.iter().any(|remote| {
            let newcomer = self.newcomer(leader, remote, hw, turn);
            newcomer.is_some_and(|member| !self.state.isr.contains(&member))
        })
    }

    /// A member of the ISR is not to be waited for any more.
    fn leaves(&self, leader: &Leader, remote: &Remote, turn: &Turn) -> bool {
        remote.lags(turn.ends.end, &self.settings, turn.now_ns) || self.is_without_room(leader, remote)
    }

    /// The follower as a member of the ISR, if it is worth proposing: it has come far enough and keeps up, has room for more, and was
    /// not refused a moment ago.
    fn newcomer(&self, leader: &Leader, remote: &Remote, hw: Offset, turn: &Turn) -> Option<IsrMember> {
        let keeps_up = !remote.lags(turn.ends.end, &self.settings, turn.now_ns);
        let wanted = keeps_up && !remote.full && remote.barred_until_ns == 0;
        remote.member().filter(|member| wanted && self.eligible(leader, *member, hw))
    }

    /// R10: it has, in this epoch and life, all that is committed and all that was there when the epoch began: the
    /// high watermark known here may lag behind what an earlier leader committed, the log cannot.
    fn eligible(&self, leader: &Leader, member: IsrMember, hw: Offset) -> bool {
        let Some(x) = self.counting(leader, member) else { return false };
        x >= hw && (x >= leader.start || self.sabotaged(Sabotage::ExpandEarly))
    }
}
