//! Who is a member of the quorum, and who leads it: by registrations, by an operator's wish, and when this node is to stop.

use pelton_model::NodeId;

use super::{Member, MemberEffect, SLOW_NS};
use crate::quorum::{MemberChange, ProposeError, Role};

impl Member {
    /// Other voters, by an operator's wish.
    pub fn change_members(
        &mut self,
        now_ns: u64,
        changes: &[MemberChange],
        out: &mut Vec<MemberEffect>,
    ) -> Result<(), ProposeError> {
        let mut effects = Vec::new();
        let result = self.quorum.change_members(changes, &mut effects);
        self.perform(now_ns, effects, out);
        result.map(|_| ())
    }

    /// This node is to stop, and lets another voter lead the quorum (rule R12): nobody has to notice its absence. True while
    /// that is under way: call again until it is false. Whoever leads then has not been asked by this node for its lease yet.
    pub fn hand_over_quorum(&mut self, now_ns: u64, out: &mut Vec<MemberEffect>) -> bool {
        if !matches!(self.quorum.role(), Role::Leader { .. }) {
            return false;
        }
        let Some(heir) = self.heir(0) else { return false };
        let mut effects = Vec::new();
        self.quorum.transfer_leadership(heir, &mut effects);
        self.perform(now_ns, effects, out);
        matches!(self.quorum.role(), Role::Leader { .. })
    }

    /// The disk of this node is full; say so each turn while it is. Its log of the metadata may stand still meanwhile, though
    /// others commit. Then a voter that has everything leads the quorum instead, as this node can decide nothing. And after a
    /// while it asks for no lease: it does not hear what becomes of what it leads, and what it hands over of a state that is no
    /// more is refused. Where no majority goes on without it, nothing happens.
    pub fn note_full(&mut self, now_ns: u64, out: &mut Vec<MemberEffect>) {
        if !self.quorum.is_behind_on_disk() {
            self.still_since_ns = None;
            return;
        }
        let since_ns = *self.still_since_ns.get_or_insert(now_ns);
        let leads = matches!(self.quorum.role(), Role::Leader { .. });
        if !leads || now_ns < since_ns.saturating_add(SLOW_NS) {
            return;
        }
        if let Some(heir) = self.heir(self.quorum.committed()) {
            let mut effects = Vec::new();
            self.quorum.transfer_leadership(heir, &mut effects);
            self.perform(now_ns, effects, out);
        }
    }

    /// The disk of this node has room.
    pub fn note_room(&mut self) {
        self.still_since_ns = None;
    }

    /// The voter that would lead best after this one, if its log reaches `least`.
    fn heir(&self, least: u64) -> Option<NodeId> {
        let willing = |node: NodeId| {
            let known = self.image.node(node);
            node != self.node() && known.is_some_and(|known| !known.fenced && !known.draining)
        };
        let members = self.quorum.members();
        let heir = members
            .iter()
            .filter(|member| member.voter && member.matched >= least && willing(member.node))
            .max_by_key(|member| (member.matched, std::cmp::Reverse(member.node)));
        heir.map(|heir| heir.node)
    }

    /// No shard of this node serves any more. It stays a member of the quorum until the process ends, and asks for no lease.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.keeper.lapse();
    }

    /// Registered nodes hear the metadata: whoever is no member yet becomes an observer; observers that are no nodes any
    /// more go. Voters change by an operator's wish only. One at a time.
    pub(super) fn reconcile_members(&mut self, now_ns: u64, out: &mut Vec<MemberEffect>) {
        if !self.members_differ || self.controller().is_none() {
            return;
        }
        let members = self.quorum.members();
        let known = |node: NodeId| members.binary_search_by_key(&node, |member| member.node).is_ok();
        let joins = self.image.nodes().map(|node| node.node).find(|node| !known(*node));
        let leaves = members.iter().find(|member| {
            !member.voter && self.image.node(member.node).is_none() && member.node != self.node()
        });
        let change = match (joins, leaves) {
            (Some(node), _) => MemberChange::AddObserver(node),
            (None, Some(member)) => MemberChange::Remove(member.node),
            (None, None) => {
                self.members_differ = false;
                return;
            }
        };
        let mut effects = Vec::new();
        // Busy is no fault: the next tick tries again.
        let _ = self.quorum.change_members(&[change], &mut effects);
        self.perform(now_ns, effects, out);
    }
}
