//! Three members that hear each other at once; what they write becomes stable at once, but for one whose disk is full.

use std::collections::BTreeMap;

use pelton_model::{BrokerConfig, NodeEpoch, ShardEpoch};
use uuid::Uuid;

use super::*;
use crate::quorum::bootstrap;
use crate::record::{Endpoint, ShardRegistration};

const TICK_NS: u64 = 50_000_000;

struct World {
    members: BTreeMap<i32, Member>,
    now_ns: u64,
    /// Its disk takes nothing.
    full: Option<i32>,
    /// What it would have written.
    unwritten: Vec<u64>,
}

fn member(id: i32) -> Member {
    let voters: Vec<NodeId> = (0..3).map(NodeId).collect();
    let directory = Uuid::from_u64_pair(9, id as u64);
    let registration = NodeRegistration {
        node: NodeId(id),
        epoch: NodeEpoch(0),
        directory,
        incarnation: Uuid::from_u64_pair(id as u64 + 1, 1),
        start: 1,
        rack: None,
        endpoints: vec![Endpoint { name: "peer".to_string(), host: "test".to_string(), port: 1 }],
        shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }],
        fenced: true,
        draining: false,
        leaving: false,
        lossy: false,
    };
    let config = MemberConfig {
        quorum: QuorumConfig::new(NodeId(id), 7, directory_number(directory)),
        control: ControlConfig::new(7, BrokerConfig::defaults()),
        registration,
        seeds: voters.clone(),
        tick_ms: TICK_NS / 1_000_000,
    };
    Member::new(config, bootstrap(&voters), id as u64).unwrap()
}

impl World {
    fn perform(&mut self, id: i32, effects: Vec<MemberEffect>) {
        let mut due: VecDeque<(i32, MemberEffect)> = effects.into_iter().map(|effect| (id, effect)).collect();
        while let Some((id, effect)) = due.pop_front() {
            let mut out = Vec::new();
            let to = match effect {
                MemberEffect::Send { to, frame } => {
                    let other = self.members.get_mut(&to.0).unwrap();
                    other.receive(self.now_ns, NodeId(id), &frame, &mut out).unwrap();
                    to.0
                }
                MemberEffect::Persist { number, .. } if self.full == Some(id) => {
                    self.unwritten.push(number);
                    continue;
                }
                MemberEffect::Persist { number, .. } => {
                    self.members.get_mut(&id).unwrap().persisted(self.now_ns, number, &mut out);
                    id
                }
                _ => continue,
            };
            due.extend(out.into_iter().map(|effect| (to, effect)));
        }
    }

    /// Time passes; `says`: the one whose disk is full says so.
    fn pass(&mut self, ms: u64, says: bool) {
        let until_ns = self.now_ns + ms * 1_000_000;
        while self.now_ns < until_ns {
            self.now_ns += TICK_NS;
            for id in 0..3 {
                let mut out = Vec::new();
                let member = self.members.get_mut(&id).unwrap();
                member.advance(self.now_ns, &mut out);
                if says && self.full == Some(id) {
                    member.note_full(self.now_ns, &mut out);
                }
                self.perform(id, out);
            }
        }
    }

    fn controller(&self) -> Option<i32> {
        self.members.iter().find(|(_, member)| member.controller().is_some()).map(|(id, _)| *id)
    }

    fn holds(&self, id: i32) -> bool {
        self.members[&id].lease().holds(self.now_ns)
    }

    /// A change of the metadata, as a shard of this node begins another life.
    fn change(&mut self, id: i32) {
        let mut out = Vec::new();
        let member = self.members.get_mut(&id).unwrap();
        let epoch = member.lease().epoch().unwrap();
        let asker = crate::control::isr::Asker { node: NodeId(id), epoch };
        let life = ShardEpoch(0);
        let ask = Ask::ShardRestarted { asker, shard: pelton_model::ShardId(0), life, online: true };
        member.ask(self.now_ns, 1, ask, &mut out);
        self.perform(id, out);
    }
}

/// The controller's disk becomes full (or that of the node behind it), then something is decided.
fn fill(says: bool, of_controller: bool) -> (World, i32) {
    let members = (0..3).map(|id| (id, member(id))).collect();
    let mut world = World { members, now_ns: 1, full: None, unwritten: Vec::new() };
    world.pass(20_000, false);
    let controller = world.controller().unwrap();
    assert!((0..3).all(|id| world.holds(id)));
    let full = if of_controller { controller } else { (controller + 1) % 3 };
    world.full = Some(full);
    world.change((controller + 2) % 3);
    world.pass(5_000, says);
    (world, full)
}

#[test]
fn a_controller_whose_disk_is_full_gives_way() {
    let (world, full) = fill(false, true);
    assert_eq!(world.controller(), Some(full), "it leads, and decides nothing");
    let (world, full) = fill(true, true);
    assert!(world.controller().is_some_and(|controller| controller != full));
}

#[test]
fn a_node_whose_metadata_stand_still_on_a_full_disk_gives_up_its_lease_and_gets_it_again() {
    let (world, full) = fill(false, false);
    assert!(world.holds(full));
    let (mut world, full) = fill(true, false);
    assert!(!world.holds(full) && (0..3).filter(|id| *id != full).all(|id| world.holds(id)));
    let controller = world.controller().unwrap();
    assert!(world.members[&controller].image().node(NodeId(full)).unwrap().fenced);
    // There is room again.
    world.full = None;
    world.members.get_mut(&full).unwrap().note_room();
    for number in std::mem::take(&mut world.unwritten) {
        let mut out = Vec::new();
        world.members.get_mut(&full).unwrap().persisted(world.now_ns, number, &mut out);
        world.perform(full, out);
    }
    world.pass(5_000, false);
    assert!(world.holds(full));
}
