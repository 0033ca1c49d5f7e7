//! Whether the other shards of the node still work (rule L3). Shard 0 asks each over the ring, one question at a time; the
//! lease it hands to a shard ends half a lease after the last question, whatever the node's does. So a shard that stands still
//! loses its lease by itself, also if renewals lie unread in its ring, and once that has surely happened shard 0 tells the
//! controller: others lead what the shard led. When it answers again it lives on as another life of itself.

use pelton_cluster::control::asks::Ask;
use pelton_model::{NodeEpoch, Now, Replica, ReplicaEpoch, ShardId};

use super::Sabotage;
use super::member::Asked;
use crate::Shard;
use crate::effect::Effect;
use crate::message::ShardMessage;

/// What the controller has not done yet is asked again after this, nanoseconds.
const AGAIN_NS: u64 = 300_000_000;

/// Lease, released changes and life as the shards are told of them.
pub(super) type Told = (u64, u64, Option<NodeEpoch>);

/// One shard as shard 0 sees it.
#[derive(Clone, Copy, Default)]
struct Pulse {
    /// When it was asked last.
    at_ns: u64,
    /// It has yet to answer.
    waits: bool,
    /// It has not answered for so long that its lease has surely ended.
    stuck: bool,
    /// Its storage has failed: it works no more in this life of the node.
    failed: bool,
    /// What the controller was told last, and when.
    told: Option<bool>,
    told_ns: u64,
    /// Its life that the controller was told is over: the next leaders rely on that, whether or not this node has heard of them. It
    /// gets no lease, whatever it answers, before the metadata here say that it lives another one.
    over: Option<ReplicaEpoch>,
}

/// All shards of the node; shard 0 answers by being there.
pub(super) struct Pulses {
    ttl_ns: u64,
    told: Told,
    shards: Vec<Pulse>,
}

impl Pulses {
    /// Of so many shards.
    pub(super) fn new(shards: u16, ttl_ns: u64) -> Pulses {
        Pulses { ttl_ns, told: (0, 0, None), shards: vec![Pulse::default(); usize::from(shards)] }
    }

    /// The shard has answered the question of this instant.
    pub(super) fn answered(&mut self, shard: ShardId, ping_ns: u64) {
        if let Some(pulse) = self.shards.get_mut(usize::from(shard.0)) {
            pulse.waits &= pulse.at_ns != ping_ns;
            pulse.stuck &= pulse.waits;
        }
    }

    /// The shard has had no lease for a while, and gets one only behind all the metadata that wait in its ring: nothing of what
    /// was taken from it is used any more, whatever it follows.
    pub(super) fn is_stuck(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(|pulse| pulse.stuck)
    }

    /// Its storage has failed.
    pub(super) fn failed(&mut self, shard: ShardId) {
        if let Some(pulse) = self.shards.get_mut(usize::from(shard.0)) {
            pulse.failed = true;
        }
    }

    /// What to tell the other shards now; and whether there is news for all.
    fn tell(&mut self, now: Now, told: Told, forget: bool) -> (bool, Vec<(ShardId, ShardMessage)>) {
        let news = self.told != told;
        self.told = told;
        let (until_ns, released, epoch) = told;
        let (half_ns, every_ns) = (self.ttl_ns / 2, self.ttl_ns / 8);
        let mut messages = Vec::new();
        for (shard, pulse) in (0..).map(ShardId).zip(&mut self.shards).skip(1) {
            let asks = !pulse.waits && now.monotonic_ns >= pulse.at_ns.saturating_add(every_ns);
            if asks {
                (pulse.at_ns, pulse.waits) = (now.monotonic_ns, true);
            }
            if asks || news {
                let own_ns = match pulse.over {
                    _ if forget => u64::MAX,
                    Some(_) => 0,
                    None => pulse.at_ns.saturating_add(half_ns),
                };
                let (until_ns, ping_ns) = (until_ns.min(own_ns), if asks { pulse.at_ns } else { 0 });
                messages.push((shard, ShardMessage::Lease { until_ns, released, epoch, ping_ns }));
            }
        }
        (news, messages)
    }

    /// Shards whose standing the controller has wrong: `known` tells what the metadata here say of a shard.
    fn differing(&mut self, now: Now, known: impl Fn(ShardId) -> Option<Standing>) -> Vec<Differing> {
        let mut found = Vec::new();
        for (shard, pulse) in (0..).map(ShardId).zip(&mut self.shards) {
            // Its own lease has ended half a lease ago.
            pulse.stuck = pulse.waits && now.monotonic_ns >= pulse.at_ns.saturating_add(self.ttl_ns);
            let Some(known) = known(shard) else { continue };
            pulse.over = pulse.over.filter(|over| *over == known.life);
            let online = match known.online {
                true => !pulse.stuck && !pulse.failed && pulse.over.is_none(),
                false => !pulse.waits && !pulse.failed,
            };
            if online != known.online && now.monotonic_ns >= pulse.told_ns.saturating_add(AGAIN_NS) {
                pulse.told_ns = now.monotonic_ns;
                if !online {
                    pulse.over = Some(known.life);
                }
                let news = pulse.told != Some(online);
                pulse.told = Some(online);
                found.push(Differing { shard, life: known.life, online, news });
            }
        }
        found
    }
}

/// A shard as the metadata have it.
#[derive(Clone, Copy)]
struct Standing {
    life: ReplicaEpoch,
    online: bool,
}

/// A shard as the controller should have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Differing {
    shard: ShardId,
    /// Of which life that is said.
    life: ReplicaEpoch,
    online: bool,
    /// It was not said before.
    news: bool,
}

impl Shard {
    /// The shards hear of another lease, or of predecessors that are gone, and are asked whether they work.
    pub(super) fn spread_lease(&mut self, now: Now, out: &mut Vec<Effect>) {
        let forget = self.sabotaged(Sabotage::ForgetPing);
        let Some(seat) = self.seat_mut() else { return };
        let keeper = seat.member.lease();
        let told = (keeper.until_ns(), keeper.released(), keeper.epoch());
        let (news, messages) = seat.pulses.tell(now, told, forget);
        out.extend(messages.into_iter().map(|(to, message)| Effect::ToShard { to, message }));
        if news {
            self.apply_lease(now, told.0, told.1, told.2, out);
        }
    }

    /// The controller hears of shards that work no more, or again.
    pub(super) fn attest_shards(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Shard { cluster: Some(cluster), image, config, .. } = self else { return };
        let (node, Some(seat)) = (config.node_id, cluster.seat.as_mut()) else { return };
        let (Some(asker), None) = (seat.asker(node), &seat.leaving) else { return };
        let Some(known) = image.node(node).filter(|known| known.epoch == asker.epoch) else { return };
        let standing = |shard: ShardId| {
            let life = image.replica_epoch(Replica { node, shard })?;
            Some(Standing { life, online: known.shards.get(usize::from(shard.0))?.online })
        };
        let differing = seat.pulses.differing(now, standing);
        let followed = seat.followed();
        seat.member.shards_follow(followed);
        for Differing { shard, life, online, news } in differing {
            let what = if online { "works again" } else { "does not work; others lead what it led" };
            if news {
                self.say(out, &format!("shard {} {what}", shard.0));
            }
            self.ask_member(
                now,
                Asked::Nobody,
                Ask::ShardRestarted { asker, shard, life: life.shard_epoch, online },
                out,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use pelton_model::ShardEpoch;

    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: ms * MS, wall_ms: 0 }
    }

    fn until(messages: &[(ShardId, ShardMessage)]) -> Vec<(u64, bool)> {
        let of = |(_, message): &(ShardId, ShardMessage)| match message {
            ShardMessage::Lease { until_ns, ping_ns, .. } => (until_ns / MS, *ping_ns != 0),
            _ => panic!("a lease"),
        };
        messages.iter().map(of).collect()
    }

    #[test]
    fn the_lease_of_a_shard_ends_half_a_lease_after_the_question_it_has_not_answered() {
        let mut pulses = Pulses::new(2, 1500 * MS);
        let lease = |ms: u64| (ms * MS, 0, None);
        assert_eq!(until(&pulses.tell(at(1000), lease(2400), false).1), [(1750, true)]);
        // The node's lease is renewed, the shard's stays.
        assert_eq!(until(&pulses.tell(at(1300), lease(2700), false).1), [(1750, false)]);
        assert!(pulses.tell(at(1400), lease(2700), false).1.is_empty());
        pulses.answered(ShardId(1), 999 * MS);
        assert!(pulses.tell(at(1400), lease(2700), false).1.is_empty(), "that was another question");
        pulses.answered(ShardId(1), 1000 * MS);
        assert_eq!(until(&pulses.tell(at(1400), lease(2700), false).1), [(2150, true)]);
    }

    fn life(shard_epoch: u32) -> ReplicaEpoch {
        ReplicaEpoch { node_epoch: NodeEpoch(5), shard_epoch: ShardEpoch(shard_epoch) }
    }

    /// What is said of whom, where the metadata say this of all shards but `other`, and of that the opposite.
    fn said(pulses: &mut Pulses, ms: u64, online: bool, other: Option<u16>) -> Vec<(u16, bool, bool)> {
        let known = |shard: ShardId| {
            let differs = other == Some(shard.0);
            Some(Standing { life: life(u32::from(differs)), online: online != differs })
        };
        let found = pulses.differing(at(ms), known).into_iter();
        found.map(|it| (it.shard.0, it.online, it.news)).collect()
    }

    #[test]
    fn a_shard_that_does_not_answer_is_given_up_only_when_its_lease_has_ended_and_comes_back_when_it_does() {
        let mut pulses = Pulses::new(3, 1500 * MS);
        pulses.tell(at(1000), (9000 * MS, 0, None), false);
        pulses.answered(ShardId(2), 1000 * MS);
        assert!(said(&mut pulses, 2499, true, None).is_empty());
        assert_eq!(said(&mut pulses, 2500, true, None), [(1, false, true)]);
        assert!(said(&mut pulses, 2600, true, None).is_empty(), "said a moment ago");
        assert_eq!(said(&mut pulses, 2800, true, None), [(1, false, false)]);
        assert!(said(&mut pulses, 4000, true, Some(1)).is_empty());
        pulses.answered(ShardId(1), 1000 * MS);
        assert_eq!(said(&mut pulses, 4000, true, Some(1)), [(1, true, true)]);
        pulses.failed(ShardId(0));
        assert_eq!(said(&mut pulses, 4000, true, None), [(0, false, true)]);
        assert!(said(&mut pulses, 9000, true, Some(0)).is_empty());
    }

    #[test]
    fn a_shard_that_was_given_up_has_no_lease_before_the_metadata_here_say_so() {
        let mut pulses = Pulses::new(2, 1500 * MS);
        let lease = (9000 * MS, 0, None);
        pulses.tell(at(1000), lease, false);
        assert_eq!(said(&mut pulses, 2500, true, None), [(1, false, true)]);
        // It answers; what others were told of it is under way.
        pulses.answered(ShardId(1), 1000 * MS);
        assert_eq!(until(&pulses.tell(at(2600), lease, false).1), [(0, true)]);
        pulses.answered(ShardId(1), 2600 * MS);
        assert_eq!(said(&mut pulses, 2800, true, None), [(1, false, false)], "it has to be carried out");
        // It has been: it is another life, which has nothing of the one before.
        assert_eq!(said(&mut pulses, 3200, true, Some(1)), [(1, true, true)]);
        assert_eq!(until(&pulses.tell(at(3200), lease, false).1), [(3950, true)]);
    }
}
