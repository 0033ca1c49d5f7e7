//! The partitions a shard knows: where each one is led, and the state of those it has. Rebuilt from the metadata image; holds
//! no log bytes. On a single node a shard has what it leads; in a cluster it hosts replicas, leaders and followers.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_log::PartitionSlot;
use pelton_model::{PartitionKey, ShardId, TopicConfig, TopicId};
use pelton_replica::epochs::EpochCache;
use pelton_replica::partition::Partition;
use pelton_replica::producers::Producers;

use crate::replica_host::ReplicaHost;

/// Where a partition is led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// By this shard.
    Local(PartitionSlot),
    /// By another shard of this process.
    Foreign(ShardId),
    /// By another node.
    Away,
    /// By nobody now.
    Leaderless,
}

/// A topic as requests look it up.
pub struct TopicRoute {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// By partition index.
    pub partitions: Vec<Route>,
}

/// A replica of a partition of a cluster.
pub struct Hosted {
    /// Which partition.
    pub key: PartitionKey,
    /// The replica.
    pub host: ReplicaHost,
    /// The topic's settings.
    pub config: TopicConfig,
    /// When it wants a tick, as noted with the shard's deadlines.
    pub deadline_ns: Option<u64>,
}

/// A partition led here.
pub struct LocalPartition {
    /// Leader state: high watermark, epochs.
    pub state: Partition,
    /// Idempotent producers.
    pub producers: Producers,
    /// Leader epochs of the log.
    pub epochs: EpochCache,
    /// The topic's settings.
    pub config: TopicConfig,
}

/// All of them.
#[derive(Default)]
pub struct Partitions {
    topics: Vec<Option<TopicRoute>>,
    by_name: BTreeMap<Arc<str>, usize>,
    by_id: BTreeMap<TopicId, usize>,
    local: Vec<Option<LocalPartition>>,
    hosted: Vec<Option<Box<Hosted>>>,
}

impl Partitions {
    /// The place of a topic, by name; see [`Partitions::topic_at`].
    pub fn place_by_name(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The place of a topic, by id.
    pub fn place_by_id(&self, id: TopicId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// A topic by its place, which is its own until it is removed.
    pub fn topic_at(&self, place: usize) -> Option<&TopicRoute> {
        self.topics.get(place)?.as_ref()
    }

    /// A topic by name.
    pub fn topic_by_name(&self, name: &str) -> Option<&TopicRoute> {
        self.by_name.get(name).and_then(|index| self.topics[*index].as_ref())
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicRoute> {
        self.by_id.get(&id).and_then(|index| self.topics[*index].as_ref())
    }

    /// Where a partition is led; none if it does not exist.
    pub fn route(&self, key: PartitionKey) -> Option<Route> {
        let index = usize::try_from(key.partition).ok()?;
        self.topic_by_id(key.topic_id)?.partitions.get(index).copied()
    }

    /// The slot of a partition led here.
    pub fn slot(&self, key: PartitionKey) -> Option<PartitionSlot> {
        match self.route(key)? {
            Route::Local(slot) => Some(slot),
            _ => None,
        }
    }

    /// A partition led here.
    pub fn local(&self, slot: PartitionSlot) -> Option<&LocalPartition> {
        self.local.get(slot.0 as usize)?.as_ref()
    }

    /// A partition led here.
    pub fn local_mut(&mut self, slot: PartitionSlot) -> Option<&mut LocalPartition> {
        self.local.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Slots there may be partitions in: all below this.
    pub fn slots(&self) -> usize {
        self.local.len().max(self.hosted.len())
    }

    /// A replica here of a partition of a cluster.
    pub fn hosted(&self, slot: PartitionSlot) -> Option<&Hosted> {
        self.hosted.get(slot.0 as usize)?.as_deref()
    }

    /// A replica here of a partition of a cluster.
    pub fn hosted_mut(&mut self, slot: PartitionSlot) -> Option<&mut Hosted> {
        self.hosted.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// Slots of all replicas here of partitions of a cluster.
    pub fn hosted_slots(&self) -> Vec<PartitionSlot> {
        let slots = self.hosted.iter().enumerate().filter(|(_, hosted)| hosted.is_some());
        slots.map(|(slot, _)| PartitionSlot(slot as u32)).collect()
    }

    /// Enters a replica.
    pub fn insert_hosted(&mut self, slot: PartitionSlot, hosted: Hosted) {
        let index = slot.0 as usize;
        if self.hosted.len() <= index {
            self.hosted.resize_with(index + 1, || None);
        }
        self.hosted[index] = Some(Box::new(hosted));
    }

    /// Forgets a replica.
    pub fn remove_hosted(&mut self, slot: PartitionSlot) -> Option<Box<Hosted>> {
        self.hosted.get_mut(slot.0 as usize)?.take()
    }

    /// Every partition led here.
    pub fn locals(&self) -> impl Iterator<Item = (PartitionSlot, &LocalPartition)> {
        self.local
            .iter()
            .enumerate()
            .filter_map(|(slot, local)| Some((PartitionSlot(slot as u32), local.as_ref()?)))
    }

    /// Enters the state of a partition led here.
    pub fn insert_local(&mut self, slot: PartitionSlot, local: LocalPartition) {
        let index = slot.0 as usize;
        if self.local.len() <= index {
            self.local.resize_with(index + 1, || None);
        }
        self.local[index] = Some(local);
    }

    /// Enters or replaces a topic.
    pub fn set_topic(&mut self, route: TopicRoute) {
        let index = match self.by_id.get(&route.id) {
            Some(index) => *index,
            None => {
                self.topics.push(None);
                self.topics.len() - 1
            }
        };
        self.by_id.insert(route.id, index);
        self.by_name.insert(route.name.clone(), index);
        self.topics[index] = Some(route);
    }

    /// Another route for a partition of a topic that is entered; false if there is none such.
    pub fn set_route(&mut self, key: PartitionKey, route: Route) -> bool {
        let topic = self.by_id.get(&key.topic_id).and_then(|index| self.topics[*index].as_mut());
        let place = usize::try_from(key.partition).ok().and_then(|at| topic?.partitions.get_mut(at));
        let Some(place) = place else { return false };
        *place = route;
        true
    }

    /// Forgets a topic; the slots of its partitions that were led here.
    pub fn remove_topic(&mut self, id: TopicId) -> Vec<PartitionSlot> {
        let Some(index) = self.by_id.remove(&id) else { return Vec::new() };
        let Some(route) = self.topics[index].take() else { return Vec::new() };
        if self.by_name.get(&route.name) == Some(&index) {
            self.by_name.remove(&route.name);
        }
        let slots: Vec<PartitionSlot> = route
            .partitions
            .iter()
            .filter_map(|route| match route {
                Route::Local(slot) => Some(*slot),
                _ => None,
            })
            .collect();
        for slot in &slots {
            if let Some(local) = self.local.get_mut(slot.0 as usize) {
                *local = None;
            }
        }
        slots
    }

    /// Ids of all topics known.
    pub fn topic_ids(&self) -> Vec<TopicId> {
        self.by_id.keys().copied().collect()
    }
}
