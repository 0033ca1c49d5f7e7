//! Joins of followers that know of a leadership before its leader does: metadata reach nodes one after the other. Kept until the
//! leader knows too; a Join that is lost is said again only after `Settings::retry_ns`, and until then nothing is acknowledged.

use std::collections::BTreeMap;

use pelton_model::{LeaderEpoch, PartitionKey, Replica};
use pelton_replica::frame::{Body, Frame};

/// Joins kept at most, some 6 MB. One more, and all are as if lost: followers repeat them.
const JOINS_MAX: usize = 65_536;

/// The last early Join of each follower, by partition.
#[derive(Default)]
pub(super) struct EarlyJoins {
    by_key: BTreeMap<PartitionKey, Vec<(Replica, Frame)>>,
    kept: usize,
}

impl EarlyJoins {
    /// Keeps a Join of a leadership that is not known here yet, where `known` is the epoch of the replica here, if there is one. False:
    /// the frame is none.
    pub(super) fn keep(&mut self, known: Option<LeaderEpoch>, from: Replica, frame: &Frame) -> bool {
        if !matches!(frame.body, Body::Join { .. }) || known >= Some(frame.leader_epoch) {
            return false;
        }
        if self.kept >= JOINS_MAX {
            *self = EarlyJoins::default();
        }
        let joins = self.by_key.entry(frame.partition).or_default();
        match joins.iter_mut().find(|(of, _)| *of == from) {
            // Frames may overtake each other.
            Some((_, kept)) if (kept.leader_epoch, kept.body) < (frame.leader_epoch, frame.body) => {
                *kept = *frame
            }
            Some(_) => {}
            None => {
                joins.push((from, *frame));
                self.kept += 1;
            }
        }
        true
    }

    /// What was said to the leader of this epoch; what was said to earlier ones is dropped.
    pub(super) fn take(&mut self, key: PartitionKey, epoch: LeaderEpoch) -> Vec<(Replica, Frame)> {
        let Some(joins) = self.by_key.remove(&key) else { return Vec::new() };
        self.kept -= joins.len();
        let (later, mut due): (Vec<_>, Vec<_>) =
            joins.into_iter().partition(|(_, frame)| frame.leader_epoch > epoch);
        if !later.is_empty() {
            self.kept += later.len();
            self.by_key.insert(key, later);
        }
        due.retain(|(_, frame)| frame.leader_epoch == epoch);
        due
    }
}

#[cfg(test)]
mod tests {
    use pelton_model::{NodeEpoch, NodeId, Offset, ReplicaEpoch, ShardEpoch, ShardId, TopicId};

    use super::*;

    const KEY: PartitionKey = PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(7)), partition: 3 };

    fn replica(node: i32) -> Replica {
        Replica { node: NodeId(node), shard: ShardId(0) }
    }

    fn join(partition: i32, epoch: i32, join: u32) -> Frame {
        let replica_epoch = ReplicaEpoch { node_epoch: NodeEpoch(1), shard_epoch: ShardEpoch(0) };
        let (log_end, last_epoch) = (Offset(5), 1);
        let body = Body::Join { replica_epoch, join, log_end, last_epoch, window_bytes: 1 << 20 };
        Frame { partition: PartitionKey { partition, ..KEY }, leader_epoch: LeaderEpoch(epoch), body }
    }

    #[test]
    fn joins_wait_for_their_leadership_the_last_of_each_follower() {
        let mut early = EarlyJoins::default();
        assert!(early.keep(Some(LeaderEpoch(4)), replica(2), &join(3, 5, 2)));
        assert!(early.keep(Some(LeaderEpoch(4)), replica(2), &join(3, 5, 1)), "overtaken");
        assert!(early.keep(None, replica(3), &join(3, 6, 1)));
        assert!(early.keep(None, replica(3), &join(4, 1, 1)));
        assert!(!early.keep(Some(LeaderEpoch(5)), replica(2), &join(3, 5, 3)), "known");
        assert!(early.take(KEY, LeaderEpoch(4)).is_empty());
        assert_eq!(early.take(KEY, LeaderEpoch(5)), [(replica(2), join(3, 5, 2))]);
        assert!(early.take(KEY, LeaderEpoch(7)).is_empty(), "of an epoch that has passed");
        assert_eq!(early.kept, 1);
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut early = EarlyJoins::default();
        for partition in 0..=JOINS_MAX as i32 {
            assert!(early.keep(None, replica(2), &join(partition, 1, 1)));
        }
        assert_eq!((early.kept, early.by_key.len()), (1, 1));
    }
}
