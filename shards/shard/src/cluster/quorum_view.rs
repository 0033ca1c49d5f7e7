//! The quorum as DescribeQuorum shows it, and the times at which its leader heard of the others.

use std::collections::BTreeMap;

use pelton_cluster::image::MetadataImage;
use pelton_cluster::quorum::Role;
use pelton_model::{BrokerConfig, BrokerId, NodeId, Now, ShardId};

use crate::Shard;
use crate::api::describe_quorum::{MemberView, QuorumView};

/// The term of a single node, which leads itself from its first start on.
const SOLE_TERM: i32 = 1;

/// When the leader of the quorum heard of a member, milliseconds of wall time.
#[derive(Clone, Copy, Debug)]
struct Contact {
    heard_ms: i64,
    /// Where the leader's log ended then.
    log_end: u64,
    caught_up_ms: i64,
}

/// All of them; empty on a node that does not lead.
#[derive(Default)]
pub(super) struct Contacts(BTreeMap<NodeId, Contact>);

impl Contacts {
    /// A frame of `node`, which has everything up to `matched`; the leader's log ends behind `last`.
    fn heard(&mut self, now_ms: i64, node: NodeId, matched: u64, last: u64) {
        let before = self.0.get(&node).copied();
        // Kafka's rule: who has all that was there when it was last heard of was caught up at that time.
        let caught_up_ms = match before {
            _ if matched >= last => now_ms,
            Some(before) if matched >= before.log_end => before.heard_ms.max(before.caught_up_ms),
            Some(before) => before.caught_up_ms,
            None => -1,
        };
        self.0.insert(node, Contact { heard_ms: now_ms, log_end: last, caught_up_ms });
    }
}

impl Shard {
    /// A frame of another node's member has been taken.
    pub(super) fn note_contact(&mut self, now: Now, from: NodeId) {
        let Some(cluster) = self.cluster.as_mut() else { return };
        let Some(seat) = &cluster.seat else { return };
        let quorum = &seat.member.quorum;
        if !matches!(quorum.role(), Role::Leader { .. }) {
            cluster.contacts.0.clear();
            return;
        }
        let Some(member) = quorum.members().into_iter().find(|member| member.node == from) else { return };
        cluster.contacts.heard(now.wall_ms, from, member.matched, quorum.last_index());
    }

    /// The voters of the quorum.
    pub(crate) fn voters(&self) -> Vec<NodeId> {
        match self.cluster.as_ref().and_then(|cluster| cluster.seat.as_ref()) {
            Some(seat) => {
                let members = seat.member.quorum.members().into_iter();
                members.filter(|member| member.voter).map(|member| member.node).collect()
            }
            None => vec![self.config.node_id],
        }
    }

    /// The quorum as this node sees it; none if it does not lead.
    pub(crate) fn quorum_view(&self, now: Now) -> Option<QuorumView> {
        let me = self.config.node_id;
        let leader_id = BrokerId::of(me, ShardId(0)).0;
        let Some(cluster) = &self.cluster else {
            let end = self.image.applied_offset() as i64 + 1;
            let member = MemberView {
                id: leader_id,
                directory: self.config.directory_id,
                voter: true,
                log_end_offset: end,
                last_fetch_ms: now.wall_ms,
                last_caught_up_ms: now.wall_ms,
                listeners: vec![own_listener(&self.config)],
            };
            let members = vec![member];
            return Some(QuorumView { leader_id, leader_epoch: SOLE_TERM, high_watermark: end, members });
        };
        let quorum = &cluster.seat.as_ref()?.member.quorum;
        let Role::Leader { term } = quorum.role() else { return None };
        let members = quorum.members().into_iter().map(|member| {
            let contact = cluster.contacts.0.get(&member.node);
            let (fetch_ms, caught_up_ms) = contact.map_or((-1, -1), |it| (it.heard_ms, it.caught_up_ms));
            let leads = member.node == me;
            MemberView {
                id: BrokerId::of(member.node, ShardId(0)).0,
                directory: self.image.node(member.node).map(|node| node.directory).unwrap_or_default(),
                voter: member.voter,
                log_end_offset: match (leads, member.matched) {
                    (true, _) => quorum.last_index() as i64 + 1,
                    (false, 0) => -1,
                    (false, matched) => matched as i64 + 1,
                },
                last_fetch_ms: if leads { now.wall_ms } else { fetch_ms },
                last_caught_up_ms: if leads { now.wall_ms } else { caught_up_ms },
                listeners: listeners(&self.image, member.node),
            }
        });
        Some(QuorumView {
            leader_id,
            leader_epoch: term as i32,
            high_watermark: quorum.committed() as i64 + 1,
            members: members.collect(),
        })
    }
}

/// A single node has no listener for other nodes: what is asked of the quorum is asked where clients are served.
fn own_listener(config: &BrokerConfig) -> (String, String, u16) {
    ("PLAINTEXT".to_string(), config.advertised_host.clone(), config.advertised_port)
}

fn listeners(image: &MetadataImage, node: NodeId) -> Vec<(String, String, u16)> {
    let endpoints = image.node(node).map_or(&[][..], |node| &node.endpoints);
    endpoints.iter().map(|it| (it.name.to_uppercase(), it.host.clone(), it.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_what_was_there_last_time_was_caught_up_then() {
        let mut contacts = Contacts::default();
        let node = NodeId(2);
        let at = |contacts: &Contacts| (contacts.0[&node].heard_ms, contacts.0[&node].caught_up_ms);
        contacts.heard(100, node, 3, 5);
        assert_eq!(at(&contacts), (100, -1), "never");
        contacts.heard(200, node, 5, 9);
        assert_eq!(at(&contacts), (200, 100), "it has the five there were at 100");
        contacts.heard(300, node, 8, 9);
        assert_eq!(at(&contacts), (300, 100), "it lacks one of the nine there were at 200");
        contacts.heard(400, node, 9, 9);
        assert_eq!(at(&contacts), (400, 400));
        contacts.heard(500, node, 9, 12);
        assert_eq!(at(&contacts), (500, 400), "the earlier sight of everything stays");
    }
}
