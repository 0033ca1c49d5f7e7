use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_model::{NodeId, Prng};

use super::journal::{Restored, restore};
use super::*;

/// A node with its disk: what of it is stable, and what a crash takes.
struct Node {
    quorum: Option<Quorum>,
    blob: Vec<u8>,
    stable: Vec<Bytes>,
    written: VecDeque<(u64, Vec<Bytes>)>,
    joins: bool,
    /// What the entries led to: their payloads.
    image: Vec<Bytes>,
    image_index: u64,
    confirmed: Vec<u64>,
}

struct World {
    nodes: BTreeMap<i32, Node>,
    voters: Vec<NodeId>,
    /// From, to, and the frame.
    wire: Vec<(i32, i32, Bytes)>,
    prng: Prng,
    lives: u64,
    loss: u64,
    /// Disks finish a write once in so many chances.
    slow: u64,
    /// The disk of this node finishes none.
    stuck: Option<i32>,
    leaders: BTreeMap<u64, i32>,
    committed: BTreeMap<u64, (u64, Bytes)>,
    sabotage: QuorumSabotage,
}

fn image_bytes(image: &[Bytes]) -> Bytes {
    let mut out = crate::codec::Out::default();
    image.iter().for_each(|payload| out.bytes(payload));
    Bytes::from(out.0)
}

fn image_of(bytes: &[u8]) -> Vec<Bytes> {
    let mut from = crate::codec::In(bytes);
    let mut image = Vec::new();
    while !from.0.is_empty() {
        image.push(Bytes::copy_from_slice(from.bytes().unwrap()));
    }
    image
}

impl World {
    fn new(voters: &[i32], joiners: &[i32], seed: u64) -> World {
        let node = |joins| Node {
            quorum: None,
            blob: Vec::new(),
            stable: Vec::new(),
            written: VecDeque::new(),
            joins,
            image: Vec::new(),
            image_index: 0,
            confirmed: Vec::new(),
        };
        let mut world = World {
            nodes: voters.iter().map(|id| (*id, node(false))).collect(),
            voters: voters.iter().map(|id| NodeId(*id)).collect(),
            wire: Vec::new(),
            prng: Prng::new(seed),
            lives: 0,
            loss: 0,
            slow: 1,
            stuck: None,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            sabotage: QuorumSabotage::default(),
        };
        world.nodes.extend(joiners.iter().map(|id| (*id, node(true))));
        let ids: Vec<i32> = world.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| world.start(id));
        world
    }

    fn start(&mut self, id: i32) {
        self.lives += 1;
        let node = self.nodes.get_mut(&id).unwrap();
        let fresh = node.blob.is_empty() && node.stable.is_empty();
        let restored = match (fresh, node.joins) {
            (true, false) => bootstrap(&self.voters),
            (true, true) => Restored::default(),
            _ => restore(&node.blob, &node.stable).unwrap(),
        };
        // What a new voter starts from is not in its records: it is written before anything else.
        if fresh && !node.joins {
            journal::snapshot_records(&restored.snapshot, &mut node.stable);
            journal::state_records(&restored.hard, &[], &mut node.stable);
        }
        node.image = image_of(&restored.snapshot.data);
        node.image_index = restored.snapshot.index;
        let mut config = QuorumConfig::new(NodeId(id), 7, 100 + id as u64);
        config.log_bytes = 6_000;
        config.snapshot_ticks = 20;
        let mut quorum = Quorum::new(config, restored, self.prng.next_u64() ^ self.lives).unwrap();
        quorum.sabotage = self.sabotage;
        node.quorum = Some(quorum);
    }

    fn crash(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.quorum = None;
        // Of what was not stable yet, any beginning may have reached the disk.
        let mut lost: Vec<Bytes> = node.written.drain(..).flat_map(|(_, records)| records).collect();
        lost.truncate(self.prng.below(lost.len() as u64 + 1) as usize);
        node.stable.append(&mut lost);
    }

    fn run(&mut self, id: i32, call: impl FnOnce(&mut Quorum, &mut Vec<QuorumEffect>)) {
        let Some(quorum) = &mut self.nodes.get_mut(&id).unwrap().quorum else { return };
        let mut out = Vec::new();
        call(quorum, &mut out);
        for effect in out {
            self.perform(id, effect);
        }
    }

    fn perform(&mut self, id: i32, effect: QuorumEffect) {
        let node = self.nodes.get_mut(&id).unwrap();
        match effect {
            QuorumEffect::Send { to, frame } => {
                if self.loss == 0 || !self.prng.one_in(self.loss) {
                    self.wire.push((id, to.0, frame));
                }
            }
            QuorumEffect::Persist { number, records } => node.written.push_back((number, records)),
            QuorumEffect::Apply { index, term, payload } => {
                assert_eq!(index, node.image_index + 1, "node {id}: entries come in order");
                node.image_index = index;
                if !payload.is_empty() {
                    node.image.push(payload.clone());
                }
                let known = self.committed.entry(index).or_insert((term, payload.clone()));
                assert_eq!(*known, (term, payload), "node {id}: entry {index} was committed otherwise");
            }
            QuorumEffect::Install { index, data } => {
                node.image = image_of(&data);
                node.image_index = index;
            }
            QuorumEffect::Role(Role::Leader { term }) => {
                let leader = *self.leaders.entry(term).or_insert(id);
                assert_eq!(leader, id, "two leaders in term {term}");
            }
            QuorumEffect::Role(_) | QuorumEffect::Members => {}
            QuorumEffect::Confirmed { round } => node.confirmed.push(round),
            QuorumEffect::SnapshotWanted => {
                let data = image_bytes(&node.image);
                node.quorum.as_mut().unwrap().offer_snapshot(data);
            }
        }
    }

    /// One thing happens: a frame arrives, a disk catches up, or time passes for one node.
    fn step(&mut self) {
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        let id = ids[self.prng.below(ids.len() as u64) as usize];
        match self.prng.below(10) {
            0 => self.run(id, |quorum, out| quorum.tick(out)),
            1 | 2 => {
                let done = self.prng.one_in(self.slow) && self.stuck != Some(id);
                let node = self.nodes.get_mut(&id).unwrap();
                if done && let Some((number, records)) = node.written.pop_front() {
                    node.stable.extend(records);
                    self.run(id, |quorum, out| quorum.persisted(number, out));
                }
            }
            _ if !self.wire.is_empty() => {
                let at = self.prng.below(self.wire.len() as u64) as usize;
                let (from, to, frame) = self.wire.swap_remove(at);
                self.run(to, |quorum, out| {
                    quorum.receive(NodeId(from), &frame, out).unwrap();
                });
            }
            _ => {}
        }
    }

    fn steps(&mut self, count: u64) {
        (0..count).for_each(|_| self.step());
    }

    fn leader(&self) -> Option<i32> {
        let leads = |node: &Node| match node.quorum.as_ref()?.role() {
            Role::Leader { term } => Some(term),
            Role::Follower { .. } => None,
        };
        self.nodes.iter().filter_map(|(id, node)| Some((leads(node)?, *id))).max().map(|(_, id)| id)
    }

    fn propose(&mut self, payload: Vec<u8>) -> bool {
        let Some(leader) = self.leader() else { return false };
        let mut taken = false;
        self.run(leader, |quorum, out| taken = quorum.propose(payload, out).is_ok());
        taken
    }

    fn checkpoint(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(quorum) = &node.quorum
            && node.written.is_empty()
        {
            node.blob = quorum.checkpoint(image_bytes(&node.image));
            node.stable.clear();
        }
    }

    /// Without faults, everybody must come to the same.
    fn settle(&mut self) {
        (self.loss, self.slow) = (0, 1);
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        for id in &ids {
            if self.nodes[id].quorum.is_none() {
                self.start(*id);
            }
        }
        let mut proposed = false;
        for _ in 0..400 {
            self.steps(500);
            proposed |= self.propose(b"last".to_vec());
            let last = |node: &Node| node.image.last().is_some_and(|payload| &payload[..] == b"last");
            let images: Vec<_> = self.nodes.values().map(|node| &node.image).collect();
            if proposed && self.nodes.values().all(last) && images.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            if proposed && self.nodes.values().any(last) {
                continue;
            }
        }
        panic!(
            "no agreement without faults: {:?}",
            self.nodes.values().map(|n| n.image_index).collect::<Vec<_>>()
        );
    }
}

/// A random life of a quorum with `nodes` voters. Panics if an invariant breaks.
fn life(seed: u64, voters: usize, sabotage: QuorumSabotage) {
    let ids: Vec<i32> = (0..voters as i32).collect();
    let mut world = World::new(&ids, &[], seed);
    world.sabotage = sabotage;
    ids.iter().for_each(|id| world.start(*id));
    for round in 0..60_u64 {
        world.loss = world.prng.below(3) * 5;
        world.slow = [1, 1, 5, 50][world.prng.below(4) as usize];
        world.steps(300);
        let id = ids[world.prng.below(ids.len() as u64) as usize];
        match world.prng.below(6) {
            0 => world.crash(id),
            5 => ids.iter().for_each(|id| world.crash(*id)),
            1 => world.checkpoint(id),
            2 => world.wire.clear(),
            _ => {}
        }
        for id in &ids {
            if world.nodes[id].quorum.is_none() && world.prng.one_in(2) {
                world.start(*id);
            }
        }
        world.propose([&round.to_le_bytes()[..], &[1; 200]].concat());
    }
    world.settle();
}

#[test]
fn quorums_of_one_three_and_five_agree_through_crashes_and_loss() {
    for seed in 0..200 {
        for voters in [1, 3, 5] {
            life(seed, voters, QuorumSabotage::default());
        }
    }
}

#[test]
fn runs_repeat_exactly() {
    let trace = |seed| {
        let mut world = World::new(&[0, 1, 2], &[], seed);
        world.steps(20_000);
        world.propose(b"x".to_vec());
        world.steps(5_000);
        (world.leaders, world.wire, world.prng.next_u64())
    };
    assert_eq!(trace(5), trace(5));
}

#[test]
fn sending_before_writing_is_caught() {
    let caught = (0..60).any(|seed| {
        let sabotage = QuorumSabotage { send_before_persisted: true, ..QuorumSabotage::default() };
        std::panic::catch_unwind(|| life(seed, 3, sabotage)).is_err()
    });
    assert!(caught);
}

#[test]
fn members_come_and_go_and_a_joiner_gets_a_snapshot() {
    let mut world = World::new(&[0, 1, 2], &[3, 4], 9);
    world.steps(20_000);
    for number in 0..100_u64 {
        world.propose([&number.to_le_bytes()[..], &[1; 200]].concat());
        world.steps(100);
    }
    let change = |world: &mut World, changes: &[MemberChange]| {
        for _ in 0..50 {
            let leader = world.leader().unwrap();
            let mut taken = false;
            world.run(leader, |quorum, out| taken = quorum.change_members(changes, out).is_ok());
            world.steps(3_000);
            if taken {
                return;
            }
        }
        panic!("{changes:?} was never taken");
    };
    change(&mut world, &[MemberChange::AddObserver(NodeId(3))]);
    change(&mut world, &[MemberChange::AddObserver(NodeId(4))]);
    world.settle();
    // A voter is replaced in one joint step, then another leaves.
    change(&mut world, &[MemberChange::AddVoter(NodeId(3)), MemberChange::Remove(NodeId(0))]);
    world.steps(20_000);
    let voters = |world: &World| -> Vec<i32> {
        let quorum = world.nodes[&4].quorum.as_ref().unwrap();
        quorum.members().iter().filter(|member| member.voter).map(|member| member.node.0).collect()
    };
    assert_eq!(voters(&world), [1, 2, 3]);
    world.nodes.remove(&0);
    change(&mut world, &[MemberChange::Remove(NodeId(2))]);
    world.steps(20_000);
    assert_eq!(voters(&world), [1, 3]);
    world.nodes.remove(&2);
    world.settle();
}

#[test]
fn a_majority_confirms_a_leader_and_a_minority_does_not() {
    let mut world = World::new(&[0, 1, 2], &[], 3);
    world.steps(20_000);
    let leader = world.leader().unwrap();
    world.run(leader, |quorum, out| quorum.confirm(1, out));
    world.steps(2_000);
    assert_eq!(world.nodes[&leader].confirmed, [1]);
    for id in 0..3 {
        if id != leader {
            world.crash(id);
        }
    }
    world.wire.clear();
    world.run(leader, |quorum, out| quorum.confirm(2, out));
    world.steps(20_000);
    assert_eq!(world.nodes[&leader].confirmed, [1]);
    assert_eq!(world.nodes[&leader].quorum.as_ref().unwrap().role(), Role::Follower { leader: None });
}

#[test]
fn a_leader_that_goes_lets_one_member_stand_until_an_election_has_had_its_time() {
    let mut world = World::new(&[0, 1, 2], &[], 3);
    world.steps(20_000);
    let leader = world.leader().unwrap();
    let others: Vec<i32> = (0..3).filter(|id| *id != leader).collect();
    world.wire.clear();
    let stands = |world: &World| -> Vec<i32> {
        let asked = world.wire.iter().filter(|(_, _, frame)| {
            let Ok((_, message::Content::Message(it))) = message::decode(frame) else { return false };
            it.get_msg_type() == raft::eraftpb::MessageType::MsgTimeoutNow
        });
        asked.map(|(_, to, _)| *to).collect()
    };
    for to in &others {
        world.run(leader, |quorum, out| quorum.transfer_leadership(NodeId(*to), out));
    }
    assert_eq!(stands(&world), others[..1]);
    // It does not come to it: another may try.
    world.wire.clear();
    for _ in 0..QuorumConfig::new(NodeId(0), 1, 1).election_ticks {
        world.run(leader, |quorum, out| quorum.tick(out));
    }
    world.run(leader, |quorum, out| quorum.transfer_leadership(NodeId(others[1]), out));
    assert_eq!(stands(&world), others[1..]);
}

#[test]
fn a_leader_whose_disk_stands_still_decides_nothing_until_another_leads() {
    let mut world = World::new(&[0, 1, 2], &[], 6);
    world.steps(20_000);
    let leader = world.leader().unwrap();
    let is_behind = |world: &World| world.nodes[&leader].quorum.as_ref().unwrap().is_behind_on_disk();
    world.settle();
    assert!(!is_behind(&world));
    world.stuck = Some(leader);
    assert!(world.propose(vec![1]));
    world.steps(2_000);
    // The others have it, and the one that is to decide what comes next has not.
    let heir = (leader + 1) % 3;
    assert!(is_behind(&world) && world.leader() == Some(leader));
    let image = |world: &World, id: i32| world.nodes[&id].image.last().cloned();
    assert_eq!(image(&world, heir), Some(Bytes::from_static(&[1])));
    assert_ne!(image(&world, leader), image(&world, heir));
    let matched = world.nodes[&leader].quorum.as_ref().unwrap().members();
    assert!(matched.iter().any(|member| member.node == NodeId(heir) && member.matched > 0), "{matched:?}");
    world.run(leader, |quorum, out| quorum.transfer_leadership(NodeId(heir), out));
    world.steps(2_000);
    assert_eq!(world.leader(), Some(heir));
    assert!(world.propose(vec![2]));
    world.steps(2_000);
    assert_eq!(image(&world, heir), Some(Bytes::from_static(&[2])));
    assert_ne!(image(&world, leader), image(&world, heir), "its disk still stands still");
    world.stuck = None;
    world.settle();
    assert_eq!(image(&world, leader), image(&world, heir));
}

#[test]
fn foreign_and_impossible_frames_are_refused() {
    let mut world = World::new(&[0, 1, 2], &[], 4);
    world.steps(20_000);
    let leader = world.leader().unwrap();
    let follower = (leader + 1) % 3;
    let frame = |cluster, directory, commit| {
        let envelope = message::Envelope {
            cluster,
            directory,
            from: raft_id(NodeId(leader)),
            to: raft_id(NodeId(follower)),
        };
        let mut heartbeat = raft::eraftpb::Message { term: 1000, commit, ..Default::default() };
        heartbeat.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
        let mut frames = Vec::new();
        message::encode(&envelope, &heartbeat, &mut frames);
        frames.remove(0)
    };
    let directory = 100 + leader as u64;
    let quorum = world.nodes.get_mut(&follower).unwrap().quorum.as_mut().unwrap();
    quorum.expect_directory(NodeId(leader), directory);
    let mut out = Vec::new();
    let mut receive = |frame: Bytes| quorum.receive(NodeId(leader), &frame, &mut out);
    assert_eq!(receive(frame(8, directory, 0)), Err(Refused::OtherCluster));
    assert_eq!(receive(frame(7, 1, 0)), Err(Refused::OtherDirectory(leader as u64)));
    assert_eq!(receive(frame(7, directory, 1 << 40)), Err(Refused::LostOurs(leader as u64)));
    assert_eq!(receive(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")), Err(Refused::Malformed));
    assert_eq!(receive(frame(7, directory, 1)), Ok(NodeId(leader)));
    // Rightly made, but not over the connection of whom it names.
    let other = NodeId((0..3).find(|id| ![leader, follower].contains(id)).unwrap());
    let forged = quorum.receive(other, &frame(7, directory, 1), &mut out);
    assert_eq!(forged, Err(Refused::OtherSender { says: NodeId(leader), is: other }));
}

#[test]
fn a_node_that_joins_starts_again_from_a_checkpoint_made_before_it_had_heard_anything() {
    let quorum = Quorum::new(QuorumConfig::new(NodeId(3), 7, 103), Restored::default(), 1).unwrap();
    let restored = journal::restore(&quorum.checkpoint(Bytes::new()), &[]).unwrap();
    assert_eq!((restored.snapshot.index, restored.entries.len()), (0, 0));
    assert!(Quorum::new(QuorumConfig::new(NodeId(3), 7, 103), restored, 1).is_ok());
}
