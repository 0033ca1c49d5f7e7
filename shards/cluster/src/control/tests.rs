mod lossy;
mod many;

use pelton_model::{IsrMember, ShardEpoch, ShardId, TopicId};
use uuid::Uuid;

use super::*;
use crate::control::isr::{Asker, IsrChange};
use crate::controller::TopicWish;
use crate::record::{NodeRegistration, ShardRegistration, decode_records};

const MS: u64 = 1_000_000;

/// A controller whose quorum commits at once, and nodes that renew until they are dead.
struct Kit {
    image: MetadataImage,
    controller: Controller,
    now: u64,
    sequence: u64,
    alive: BTreeMap<i32, NodeEpoch>,
    answers: BTreeMap<Token, Answer>,
    token: Token,
    transfers: Vec<(PartitionKey, PartitionEpoch, Replica, Replica)>,
}

fn registration(id: i32, directory: u128, start: u64) -> NodeRegistration {
    NodeRegistration {
        node: NodeId(id),
        epoch: NodeEpoch(0),
        directory: Uuid::from_u128(directory),
        incarnation: Uuid::from_u64_pair(id as u64, start),
        start,
        rack: None,
        endpoints: Vec::new(),
        shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; 2],
        fenced: true,
        draining: false,
        leaving: false,
        lossy: false,
    }
}

impl Kit {
    fn new(nodes: i32) -> Kit {
        let mut config = ControlConfig::new(7, BrokerConfig::defaults());
        config.auto_rebalance = false;
        let mut kit = Kit {
            image: MetadataImage::default().indexed(),
            controller: Controller::new(config, 1, 0, 1, ControlSabotage::default()),
            now: 0,
            sequence: 0,
            alive: BTreeMap::new(),
            answers: BTreeMap::new(),
            token: 0,
            transfers: Vec::new(),
        };
        kit.commit(&[]);
        for id in 0..nodes {
            kit.join(id, 1);
        }
        kit.beat(4);
        kit
    }

    fn join(&mut self, id: i32, start: u64) {
        self.alive.remove(&id);
        let node = registration(id, 100 + id as u128, start);
        let Answer::Registered(epoch) = self.ask(Ask::Register { cluster: 7, node }) else { panic!() };
        self.alive.insert(id, epoch);
    }

    fn commit(&mut self, records: &[MetadataRecord]) {
        let index = self.image.applied_offset() + 1;
        let touched = self.image.apply(index, records);
        assert_eq!(touched.outdated, 0);
        let mut out = Vec::new();
        self.controller.applied(self.now, index, 1, &touched, &self.image, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, effects: Vec<ControlEffect>) {
        for effect in effects {
            match effect {
                ControlEffect::Propose(payload) => {
                    let mut out = Vec::new();
                    self.controller.proposed(Some(self.image.applied_offset() + 1), &mut out);
                    self.perform(out);
                    self.commit(&decode_records(&payload).unwrap());
                }
                ControlEffect::Confirm(round) => {
                    let mut out = Vec::new();
                    self.controller.confirmed(self.now, round, &self.image, &mut out);
                    self.perform(out);
                }
                ControlEffect::Answer(token, answer) => {
                    self.answers.insert(token, answer);
                }
                ControlEffect::AskTransfer { from, key, partition_epoch, to, .. } => {
                    self.transfers.push((key, partition_epoch, from, to));
                }
                // The host of these tests makes each byte of a request a producer id.
                ControlEffect::Plan(token, request) => {
                    let next = self.image.next_producer_id() + request.len() as i64;
                    let records =
                        vec![MetadataRecord::ProducerIds { next }; usize::from(!request.is_empty())];
                    let mut out = Vec::new();
                    let (now, image) = (self.now, &self.image);
                    self.controller.plan_made(now, token, &records, request, image, &mut out);
                    self.perform(out);
                }
                ControlEffect::Grant(..) | ControlEffect::Unknown(..) => {}
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        self.token += 1;
        let mut out = Vec::new();
        self.controller.ask(self.token, ask, &mut out);
        self.controller.work(self.now, &self.image, &mut out);
        self.perform(out);
        for _ in 0..100 {
            if let Some(answer) = self.answers.remove(&self.token) {
                return answer;
            }
            self.beat(1);
        }
        panic!("no answer");
    }

    /// So many intervals in which the living renew, leaders hand over when asked and take in whoever is being added.
    fn beat(&mut self, intervals: u32) {
        for _ in 0..intervals {
            self.sequence += 1;
            let applied = self.image.applied_offset();
            for (id, epoch) in self.alive.clone() {
                let renewal = Renewal { node: NodeId(id), epoch, sequence: self.sequence, applied };
                let mut out = Vec::new();
                self.controller.renew(renewal, &self.image, &mut out);
                self.perform(out);
            }
            for _ in 0..6 {
                self.now += 50 * MS;
                let mut out = Vec::new();
                self.controller.tick(self.now, &self.image, &mut out);
                self.perform(out);
            }
        }
    }

    fn asker(&self, replica: Replica) -> Asker {
        Asker { node: replica.node, epoch: self.alive[&replica.node.0] }
    }

    fn serve(&mut self) {
        for (key, partition_epoch, from, to) in std::mem::take(&mut self.transfers) {
            let asker = self.asker(from);
            self.ask(Ask::HandedOver { asker, key, partition_epoch, to });
        }
        let adding: Vec<_> = self
            .image
            .partitions()
            .filter(|(_, partition)| partition.isr.len() < partition.replicas.len())
            .map(|(key, partition)| (key, partition.state()))
            .collect();
        for (key, state) in adding {
            let Some(leader) = state.leader else { continue };
            let mut isr = state.isr.clone();
            for replica in &state.replicas {
                if state.isr_epoch(*replica).is_none() && self.image.is_live(*replica) {
                    let epoch = self.image.replica_epoch(*replica).unwrap();
                    isr.push(IsrMember { replica: *replica, epoch });
                }
            }
            let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
            let changes = vec![IsrChange { key, leader_epoch, partition_epoch, isr }];
            let asker = self.asker(leader);
            self.ask(Ask::AlterIsr { asker, changes });
        }
    }

    fn topic(&mut self, min_isr: &str) -> TopicId {
        let wish = TopicWish {
            name: format!("t{}", self.token),
            partitions: 6,
            replication_factor: 3,
            configs: vec![("min.insync.replicas".to_string(), Some(min_isr.to_string()))],
            ..TopicWish::default()
        };
        match self.ask(Ask::CreateTopic(wish)) {
            Answer::Topic(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, id: TopicId, partition: i32) -> PartitionState {
        self.image.partition(PartitionKey { topic_id: id, partition }).unwrap().state()
    }
}

fn text(answer: Answer) -> String {
    match answer {
        Answer::Refused((_, text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_is_spread_over_nodes_and_survives_the_death_of_two_of_three() {
    let mut kit = Kit::new(3);
    let id = kit.topic("2");
    for partition in 0..6 {
        let nodes: BTreeSet<_> =
            kit.state(id, partition).replicas.iter().map(|replica| replica.node).collect();
        assert_eq!(nodes.len(), 3);
    }
    let leaders: BTreeSet<_> = (0..6).filter_map(|partition| kit.state(id, partition).leader).collect();
    assert!(leaders.len() >= 3, "{leaders:?}");
    kit.alive.remove(&0);
    kit.beat(4);
    assert!(!kit.image.node(NodeId(0)).unwrap().fenced, "its lease may still hold");
    kit.beat(4);
    assert!(kit.image.node(NodeId(0)).unwrap().fenced);
    for partition in 0..6 {
        let state = kit.state(id, partition);
        assert!(state.leader.is_some_and(|leader| leader.node != NodeId(0)));
        assert_eq!((state.isr.len(), state.elr.len()), (2, 0), "two are enough, nobody else is complete");
    }
    kit.alive.remove(&1);
    kit.beat(8);
    let state = kit.state(id, 0);
    assert_eq!((state.isr.len(), state.elr.len()), (1, 1), "below two, who was in sync stays eligible");
    // The last one dies, the second last comes back: it is complete, so it leads.
    kit.alive.remove(&2);
    kit.beat(8);
    assert_eq!(kit.state(id, 0).leader, None);
    kit.join(1, 2);
    kit.beat(6);
    let state = kit.state(id, 0);
    assert_eq!(state.leader.map(|leader| leader.node), Some(NodeId(1)));
    assert_eq!(state.isr[0].epoch.node_epoch, kit.alive[&1], "in its new life");
    // The first was out of sync before: it may not lead, and comes back through its leader.
    kit.join(0, 2);
    kit.beat(6);
    kit.serve();
    assert_eq!(kit.state(id, 0).isr.len(), 2);
}

#[test]
fn a_topic_is_made_while_a_node_is_away_and_that_node_comes_in_later() {
    let mut kit = Kit::new(3);
    kit.alive.remove(&0);
    kit.beat(8);
    assert!(kit.image.node(NodeId(0)).unwrap().fenced);
    let id = kit.topic("2");
    for partition in 0..6 {
        let state = kit.state(id, partition);
        let nodes: BTreeSet<_> = state.replicas.iter().map(|replica| replica.node).collect();
        assert_eq!((nodes.len(), state.isr.len()), (3, 2));
        assert!(state.leader.is_some_and(|leader| leader.node != NodeId(0)), "{state:?}");
        assert!(state.isr.iter().all(|member| member.replica.node != NodeId(0)));
        assert_eq!(state.leader, state.replicas.first().copied(), "the preferred leader lives");
    }
    kit.join(0, 2);
    kit.beat(4);
    kit.serve();
    assert!((0..6).all(|partition| kit.state(id, partition).isr.len() == 3));
    for id in 0..3 {
        kit.alive.remove(&id);
    }
    kit.beat(8);
    let wish =
        TopicWish { name: "none".to_string(), partitions: 1, replication_factor: 1, ..Default::default() };
    assert_eq!(text(kit.ask(Ask::CreateTopic(wish))), "All brokers are currently fenced.");
}

#[test]
fn registration_refuses_what_must_not_be_this_node() {
    let mut kit = Kit::new(2);
    let mut register = |cluster, node| kit.ask(Ask::Register { cluster, node });
    assert!(text(register(8, registration(5, 105, 1))).contains("another cluster"));
    assert!(text(register(7, registration(5, 100, 1))).contains("data directory of node 0"));
    assert!(text(register(7, registration(0, 999, 1))).contains("another data directory"));
    assert!(text(register(7, registration(0, 100, 0))).contains("later life"));
    let again = register(7, registration(0, 100, 1));
    assert_eq!(again, Answer::Registered(kit.alive[&0]), "asked twice, registered once");
}

#[test]
fn a_new_life_of_a_living_node_fences_the_old_one_first() {
    let mut kit = Kit::new(3);
    let id = kit.topic("2");
    let before = kit.alive[&0];
    kit.join(0, 2);
    let known = kit.image.node(NodeId(0)).unwrap();
    assert!(known.epoch > before && known.fenced);
    for partition in 0..6 {
        let state = kit.state(id, partition);
        assert!(state.isr.iter().all(|member| member.epoch.node_epoch != before));
    }
}

#[test]
fn draining_moves_leaders_and_refuses_what_would_fall_short() {
    let mut kit = Kit::new(3);
    let id = kit.topic("2");
    assert_eq!(kit.ask(Ask::Drain { node: NodeId(0), on: true }), Answer::Done);
    for _ in 0..4 {
        kit.beat(4);
        kit.serve();
    }
    for partition in 0..6 {
        assert!(kit.state(id, partition).leader.is_some_and(|leader| leader.node != NodeId(0)));
        assert_eq!(kit.state(id, partition).isr.len(), 3, "it stays in sync");
    }
    assert_eq!(kit.ask(Ask::Drain { node: NodeId(0), on: false }), Answer::Done);
    kit.topic("3");
    let refusal = text(kit.ask(Ask::Drain { node: NodeId(1), on: true }));
    assert!(refusal.contains("6 partition(s) would have fewer replicas in sync"), "{refusal}");
}

#[test]
fn a_decommissioned_node_loses_everything_and_goes() {
    let mut kit = Kit::new(4);
    let id = kit.topic("2");
    assert_eq!(kit.ask(Ask::Decommission { node: NodeId(0) }), Answer::Done);
    for _ in 0..20 {
        kit.beat(4);
        kit.serve();
    }
    assert!(kit.image.node(NodeId(0)).is_none());
    for partition in 0..6 {
        let state = kit.state(id, partition);
        assert_eq!((state.replicas.len(), state.isr.len()), (3, 3));
        assert!(state.replicas.iter().all(|replica| replica.node != NodeId(0)));
        assert!(!state.replicas.is_empty() && state.adding.is_empty() && state.removing.is_empty());
    }
}

#[test]
fn a_move_can_be_cancelled_and_a_shard_can_die_alone() {
    let mut kit = Kit::new(4);
    let id = kit.topic("2");
    let key = PartitionKey { topic_id: id, partition: 0 };
    let old = kit.state(id, 0);
    let free = (0..4).find(|id| old.replicas.iter().all(|replica| replica.node.0 != *id)).unwrap();
    let new = Replica { node: NodeId(free), shard: ShardId(0) };
    let target = Some(vec![new, old.replicas[0], old.replicas[1]]);
    assert_eq!(kit.ask(Ask::Reassign { key, target }), Answer::Done);
    let moving = kit.state(id, 0);
    assert_eq!((&moving.adding[..], &moving.removing[..]), (&[new][..], &[old.replicas[2]][..]));
    assert_eq!(moving.leader_epoch, old.leader_epoch);
    assert_eq!(kit.ask(Ask::Reassign { key, target: None }), Answer::Done);
    assert_eq!(kit.state(id, 0).replicas, old.replicas);

    let leader = old.leader.unwrap();
    let asker = kit.asker(leader);
    let life = ShardEpoch(0);
    let restarted = Ask::ShardRestarted { asker, shard: leader.shard, life, online: true };
    assert_eq!(kit.ask(restarted.clone()), Answer::Done);
    let state = kit.state(id, 0);
    assert!(state.leader != Some(leader) && state.isr_epoch(leader).is_none());
    // A copy of it that was long under way says nothing of the shard's next life.
    let now = kit.image.replica_epoch(leader);
    let down = Ask::ShardRestarted { asker, shard: leader.shard, life, online: false };
    assert_eq!((kit.ask(restarted), kit.ask(down)), (Answer::Done, Answer::Done));
    assert_eq!((kit.image.replica_epoch(leader), kit.image.is_live(leader)), (now, true));
}

#[test]
fn another_move_or_its_end_does_not_take_away_the_only_one_in_sync() {
    let mut kit = Kit::new(4);
    let id = kit.topic("2");
    let key = PartitionKey { topic_id: id, partition: 0 };
    let old = kit.state(id, 0);
    let free = (0..4).find(|id| old.replicas.iter().all(|replica| replica.node.0 != *id)).unwrap();
    let new = Replica { node: NodeId(free), shard: ShardId(0) };
    // It is being added and has caught up; the others fall behind, the leader with them.
    let member = IsrMember { replica: new, epoch: kit.image.replica_epoch(new).unwrap() };
    let replicas = [&[new], &old.replicas[..]].concat();
    let moving = PartitionState {
        leader: Some(new),
        isr: vec![member],
        elr: Vec::new(),
        adding: vec![new],
        removing: vec![old.replicas[2]],
        replicas,
        partition_epoch: PartitionEpoch(old.partition_epoch.0 + 1),
        ..old.clone()
    };
    kit.commit(&[MetadataRecord::Partition { key, state: moving.clone() }]);
    assert_eq!(kit.ask(Ask::Reassign { key, target: None }), Answer::Done);
    assert_eq!(kit.state(id, 0), moving, "it would end without anybody who has everything");
    let target = Some(old.replicas.clone());
    assert_eq!(kit.ask(Ask::Reassign { key, target }), Answer::Done);
    let state = kit.state(id, 0);
    assert_eq!((state.leader, &state.isr[..], &state.removing[..]), (Some(new), &[member][..], &[new][..]));
    assert_eq!((&state.adding[..], &state.replicas[..3]), (&[][..], &old.replicas[..]));
    // Once the others have caught up, it hands over, and goes.
    kit.serve();
    let state = kit.state(id, 0);
    assert_eq!((state.leader, &state.removing[..]), (Some(new), &[new][..]));
    let asked = kit.transfers.iter().map(|(of, epoch, from, to)| (*of, *epoch, *from, *to));
    assert_eq!(asked.collect::<Vec<_>>(), [(key, state.partition_epoch, new, old.replicas[0])]);
    kit.serve();
    let state = kit.state(id, 0);
    assert_eq!((&state.replicas, state.isr.len()), (&old.replicas, 3));
    assert_eq!((state.leader, state.removing.is_empty()), (Some(old.replicas[0]), true));
}

#[test]
fn a_reassignment_ends_without_its_leader_if_that_dies_before_it_hands_over() {
    let mut kit = Kit::new(4);
    let id = kit.topic("2");
    let key = PartitionKey { topic_id: id, partition: 0 };
    let old = kit.state(id, 0);
    let leader = old.leader.unwrap();
    let free = (0..4).find(|id| old.replicas.iter().all(|replica| replica.node.0 != *id)).unwrap();
    let new = Replica { node: NodeId(free), shard: ShardId(0) };
    let target: Vec<Replica> =
        old.replicas.iter().map(|replica| if *replica == leader { new } else { *replica }).collect();
    assert_eq!(kit.ask(Ask::Reassign { key, target: Some(target.clone()) }), Answer::Done);
    kit.serve();
    assert_eq!((kit.state(id, 0).leader, kit.transfers.len()), (Some(leader), 1));
    kit.transfers.clear();
    kit.beat(8);
    assert!(!kit.transfers.is_empty(), "nobody asked again");
    kit.alive.remove(&leader.node.0);
    kit.transfers.clear();
    kit.beat(8);
    let state = kit.state(id, 0);
    assert_eq!((&state.replicas, state.removing.is_empty()), (&target, true));
    assert!(state.leader.is_some_and(|now| now != leader));
}

#[test]
fn another_min_isr_forgets_who_was_eligible() {
    let mut kit = Kit::new(3);
    let id = kit.topic("3");
    kit.alive.remove(&0);
    kit.beat(8);
    assert_eq!(kit.state(id, 0).elr.len(), 1);
    let name = kit.image.topic_by_id(id).unwrap().name.clone();
    let resource = crate::record::ConfigResource::Topic(name);
    let (name, value) = ("min.insync.replicas".to_string(), Some("1".to_string()));
    assert_eq!(kit.ask(Ask::SetConfig { resource, name, value }), Answer::Done);
    assert_eq!(kit.state(id, 0).elr, []);
}

#[test]
fn the_present_isr_asked_for_again_moves_the_partition_epoch() {
    let mut kit = Kit::new(3);
    let id = kit.topic("2");
    let key = PartitionKey { topic_id: id, partition: 0 };
    let old = kit.state(id, 0);
    let asker = kit.asker(old.leader.unwrap());
    let (leader_epoch, partition_epoch) = (old.leader_epoch, old.partition_epoch);
    let change = IsrChange { key, leader_epoch, partition_epoch, isr: old.isr.clone() };
    let moved = PartitionEpoch(partition_epoch.0 + 1);
    let answer = kit.ask(Ask::AlterIsr { asker, changes: vec![change.clone()] });
    assert_eq!(answer, Answer::Isr(vec![Ok((leader_epoch, moved))]));
    assert_eq!(kit.state(id, 0), PartitionState { partition_epoch: moved, ..old });
    // A copy of it, or of anything asked for before, comes too late.
    let late = kit.ask(Ask::AlterIsr { asker, changes: vec![change] });
    assert_eq!(late, Answer::Isr(vec![Err(IsrRefusal::InvalidUpdateVersion)]));
}

#[test]
fn a_fenced_node_takes_part_again_only_when_it_has_seen_what_it_lost() {
    let mut kit = Kit::new(3);
    let id = kit.topic("2");
    let epoch = kit.alive.remove(&0).unwrap();
    kit.beat(8);
    let fenced = |kit: &Kit| kit.image.node(NodeId(0)).unwrap().fenced;
    let lost = kit.controller.settled;
    assert!(fenced(&kit));
    assert!((0..6).all(|partition| kit.state(id, partition).isr.len() == 2));
    let renew = |kit: &mut Kit, applied: u64| {
        kit.sequence += 1;
        let renewal = Renewal { node: NodeId(0), epoch, sequence: kit.sequence, applied };
        let mut out = Vec::new();
        kit.controller.renew(renewal, &kit.image, &mut out);
        kit.perform(out);
        kit.beat(1);
    };
    for applied in [0, epoch.0, lost - 1] {
        renew(&mut kit, applied);
        assert!(fenced(&kit), "it has applied {applied}, and lost its leaderships up to {lost}");
    }
    renew(&mut kit, lost);
    assert!(!fenced(&kit));
}

#[test]
fn a_topic_cannot_want_more_in_sync_than_it_has_replicas() {
    let mut kit = Kit::new(3);
    let id = kit.topic("5");
    assert_eq!(kit.state(id, 0).isr.len(), 3);
    let old = kit.state(id, 0);
    let last = old.replicas[2];
    let mut new = PartitionState { isr: old.isr[..2].to_vec(), ..old.clone() };
    election::settle_elr(&old, &mut new, 5);
    assert_eq!(new.elr, [last], "two of three are too few: the high watermark stands still");
    let mut whole = PartitionState { isr: old.isr.clone(), last_known_elr: vec![last], ..new.clone() };
    election::settle_elr(&new, &mut whole, 5);
    assert_eq!((whole.elr.len(), whole.last_known_elr.len()), (0, 0), "all there are is enough");
}

#[test]
fn what_the_host_plans_is_planned_on_what_is_applied_and_answered_with_its_entry() {
    let mut world = Kit::new(2);
    let ask = |text: &'static [u8]| Ask::Plan { node: NodeId(1), request: Bytes::from_static(text) };
    let before = world.image.applied_offset();
    let Answer::Planned { index, response } = world.ask(ask(b"three")) else { panic!() };
    assert_eq!((index, &response[..]), (before + 1, &b"three"[..]));
    let Answer::Planned { index, .. } = world.ask(ask(b"two")) else { panic!() };
    assert_eq!((index, world.image.next_producer_id()), (before + 2, 8));
    // Nothing has to change: nothing is proposed.
    let Answer::Planned { index, .. } = world.ask(ask(b"")) else { panic!() };
    assert_eq!((index, world.image.applied_offset()), (before + 2, before + 2));
    // A plan that comes when nobody waits for it, of an earlier controller say, is none.
    let mut out = Vec::new();
    let records = [MetadataRecord::ProducerIds { next: 100 }];
    world.controller.plan_made(0, 77, &records, Bytes::new(), &world.image, &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_node_that_stops_loses_its_leaderships_without_a_tick_and_is_wanted_again_in_its_next_life() {
    let mut kit = Kit::new(3);
    // All three are needed: a stop is not refused for that.
    let id = kit.topic("3");
    let (asker, now) = (Asker { node: NodeId(0), epoch: kit.alive[&0] }, kit.now);
    assert_eq!(kit.ask(Ask::ControlledShutdown { asker }), Answer::Done);
    assert_eq!(kit.ask(Ask::ControlledShutdown { asker }), Answer::Done, "asked again");
    kit.serve();
    for partition in 0..6 {
        let state = kit.state(id, partition);
        assert!(state.leader.is_some_and(|leader| leader.node != NodeId(0)));
        assert_eq!(state.isr.len(), 3);
    }
    kit.alive.remove(&0);
    assert_eq!(kit.ask(Ask::Shutdown { asker }), Answer::Done);
    assert!((0..6).all(|partition| kit.state(id, partition).isr.len() == 2), "nothing counts on it");
    assert_eq!(kit.now, now, "nobody has waited");
    kit.join(0, 2);
    assert!(!kit.image.is_draining(NodeId(0)));
}

#[test]
fn more_leaderships_than_move_at_once_leave_a_node_that_stops_without_a_tick() {
    let mut kit = Kit::new(3);
    kit.controller.config.transfers_max = 2;
    let ids: Vec<TopicId> = (0..4).map(|_| kit.topic("2")).collect();
    let asker = Asker { node: NodeId(1), epoch: kit.alive[&1] };
    let now = kit.now;
    assert_eq!(kit.ask(Ask::ControlledShutdown { asker }), Answer::Done);
    for _ in 0..24 {
        kit.serve();
    }
    for (id, partition) in ids.iter().flat_map(|id| (0..6).map(move |partition| (*id, partition))) {
        assert!(kit.state(id, partition).leader.is_some_and(|leader| leader.node != NodeId(1)));
    }
    assert_eq!(kit.now, now, "nobody has waited");
}
