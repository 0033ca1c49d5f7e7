//! What people do to a cluster while it suffers: topics, moves, drains, other voters.

use pelton_cluster::control::asks::Ask;
use pelton_cluster::controller::TopicWish;
use pelton_cluster::quorum::MemberChange;
use pelton_model::{NodeId, PartitionKey};

use super::*;

impl World {
    /// The controller's node does what operators do, now and then.
    pub(super) fn operate(&mut self, id: usize) -> Result<(), String> {
        let controls = self.nodes[id].member.as_ref().is_some_and(|member| member.controller().is_some());
        if !controls || self.now < self.nodes[id].paused_until {
            return Ok(());
        }
        let Some(member) = &self.nodes[id].member else { return Ok(()) };
        let image = member.image();
        let ready = image.nodes().filter(|node| !node.fenced).count();
        let keys: Vec<PartitionKey> = image.partitions().map(|(key, _)| key).collect();
        let have = image.topic_names().count() as u64;
        self.topics = have;
        if have < self.topics_wanted && ready >= 3 && self.prng.one_in(5) {
            let wish = TopicWish {
                name: format!("topic-{have}"),
                partitions: 3,
                replication_factor: 3,
                configs: vec![("min.insync.replicas".to_string(), Some(MIN_ISR.to_string()))],
                ..TopicWish::default()
            };
            let token = self.nodes[id].token(Waiting::Other);
            self.ask(id, token, Ask::CreateTopic(wish));
        }
        if self.faults.admin && self.prng.one_in(60) {
            self.change_voters(id)?;
        }
        if self.faults.admin && !keys.is_empty() && self.prng.one_in(30) {
            let key = keys[self.prng.below(keys.len() as u64) as usize];
            let node = NodeId(self.prng.below(self.nodes.len() as u64) as i32);
            let ask = match self.prng.below(6) {
                0 | 1 => Ask::ElectPreferred { key },
                2 | 3 => Ask::Reassign { key, target: Some(self.random_target(3)) },
                4 => Ask::Reassign { key, target: None },
                _ => Ask::Drain { node, on: self.prng.one_in(2) },
            };
            self.say(|| format!("operator: {ask:?}"));
            let token = self.nodes[id].token(Waiting::Other);
            self.ask(id, token, ask);
        }
        Ok(())
    }

    /// An operator wants other voters: one more, one less, or one for another at once; never fewer than three.
    fn change_voters(&mut self, id: usize) -> Result<(), String> {
        let Some(member) = &self.nodes[id].member else { return Ok(()) };
        let (voters, observers): (Vec<_>, Vec<_>) =
            member.quorum.members().into_iter().partition(|member| member.voter);
        let mut changes = Vec::new();
        if voters.len() < 5 && !observers.is_empty() {
            let at = self.prng.below(observers.len() as u64) as usize;
            changes.push(MemberChange::AddVoter(observers[at].node));
        }
        if voters.len() + changes.len() > 3 && self.prng.one_in(2) {
            let at = self.prng.below(voters.len() as u64) as usize;
            changes.push(MemberChange::AddObserver(voters[at].node));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.say(|| format!("operator: {changes:?}"));
        let mut taken = false;
        self.with(id, |member, clock, out| taken = member.change_members(clock, &changes, out).is_ok())?;
        self.voters_changed += u64::from(taken);
        Ok(())
    }
}
