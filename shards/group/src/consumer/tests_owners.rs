//! Clients that behave, come and go at random, lose answers and restart: a partition is never used by two of them, and
//! once things calm down every partition is used by one.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{GroupConfig, Prng, TopicId};
use pelton_wire::error_code::ErrorCode;

use crate::records::Assignment;

use super::apply::partitions;
use super::tests_kit::{Kit, alive, given, join, names, owning};

/// A client as it sees itself.
#[derive(Default)]
struct Client {
    epoch: i32,
    /// What it reads from.
    owned: Assignment,
    /// What it was told last.
    told: Option<Assignment>,
    reads: Vec<&'static str>,
    /// An answer was lost: it says everything again, as clients do.
    lost: bool,
}

const TOPICS: [&str; 3] = ["t", "u", "v"];

struct World {
    kit: Kit,
    random: Prng,
    clients: BTreeMap<String, Client>,
    made: usize,
}

impl World {
    fn reads(&mut self) -> Vec<&'static str> {
        let mut topics = vec!["t"];
        topics.extend(["u", "v"].into_iter().filter(|_| self.random.one_in(2)));
        topics
    }

    fn join(&mut self) {
        self.made += 1;
        self.join_as(format!("m{}", self.made));
    }

    fn join_as(&mut self, id: String) {
        let reads = self.reads();
        let response = self.kit.beat(join(&id, &reads));
        assert_eq!(response.error_code, 0);
        let (epoch, told) = (response.member_epoch, given(&response));
        self.clients.insert(id, Client { epoch, told, reads, ..Client::default() });
    }

    /// One heartbeat. The client first does what it was told; with bad luck the answer is lost.
    fn beat(&mut self, id: &str, loses: bool) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if let Some(told) = client.told.take() {
            client.owned = told;
        }
        let mut request = owning(id, client.epoch, &client.owned);
        if client.lost {
            request.rebalance_timeout_ms = 60_000;
            request.subscribed_topic_names = Some(names(&client.reads));
        }
        let response = self.kit.beat(request);
        client.lost = loses;
        if response.error_code == ErrorCode::FencedMemberEpoch.code() {
            // It stops using everything and joins anew.
            return self.join_as(id.to_string());
        }
        assert_eq!(response.error_code, 0);
        if !loses {
            client.epoch = response.member_epoch;
            client.told = given(&response);
        }
    }

    fn step(&mut self) {
        let ids: Vec<String> = self.clients.keys().cloned().collect();
        let pick = ids.get(self.random.below(ids.len().max(1) as u64) as usize).cloned();
        match (self.random.below(20), pick) {
            (0, _) if ids.len() < 5 => self.join(),
            (1, Some(id)) => {
                let response = self.kit.beat(alive(&id, -1));
                assert_eq!(response.error_code, 0);
                self.clients.remove(&id);
            }
            (2, _) => {
                let name = TOPICS[self.random.below(3) as usize];
                let count = self.random.below(6) as i32 + 1;
                self.kit.topics.set(name, count);
            }
            (roll, Some(id)) => self.beat(&id, roll == 3),
            (_, None) => self.join(),
        }
    }

    /// What is in use is used once, and the coordinator knows of it.
    fn check(&self) {
        let mut users: BTreeMap<(TopicId, i32), &String> = BTreeMap::new();
        for (id, client) in &self.clients {
            for partition in partitions(&client.owned) {
                assert!(users.insert(partition, id).is_none(), "{partition:?} is used twice");
                assert_eq!(self.kit.group().owners.get(&partition), Some(id));
            }
        }
        let mut owners: BTreeSet<(TopicId, i32)> = BTreeSet::new();
        for current in self.kit.group().current.values() {
            for partition in partitions(&current.assigned).chain(partitions(&current.pending_revocation)) {
                assert!(owners.insert(partition), "{partition:?} is given twice");
            }
        }
        assert_eq!(owners, self.kit.group().owners.keys().copied().collect());
    }

    fn calm_down(&mut self) {
        let ids: Vec<String> = self.clients.keys().cloned().collect();
        for _ in 0..10 {
            self.kit.pass_ms(100);
            for id in &ids {
                self.beat(id, false);
                self.check();
            }
        }
        for id in &ids {
            let client = &self.clients[id];
            assert!(self.kit.group().is_reconciled(id), "{id}");
            assert_eq!(client.owned, self.kit.group().targets[id], "{id}");
        }
    }
}

#[test]
fn one_owner_per_partition_at_any_time() {
    for seed in 1..=30 {
        let consumer_assignment_interval_ms = (seed % 2 == 0).then_some(100);
        let mut kit = Kit::with(GroupConfig { consumer_assignment_interval_ms, ..GroupConfig::default() });
        for name in TOPICS {
            kit.topics.set(name, 4);
        }
        let mut world = World { kit, random: Prng::new(seed), clients: BTreeMap::new(), made: 0 };
        world.join();
        for _ in 0..300 {
            world.step();
            world.check();
        }
        if world.clients.is_empty() {
            world.join();
        }
        world.calm_down();
        world.kit.check_replay();
    }
}
