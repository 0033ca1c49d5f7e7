//! What the cluster looks like after some number of records: nodes, topics, partitions, settings, producer ids.

mod index;
mod loads;
mod partition;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::{LeaderEpoch, NodeEpoch, NodeId, PartitionKey, Replica, ReplicaEpoch, ShardId, TopicId};

use crate::names;
use crate::record::{ConfigResource, MetadataRecord, NodeRegistration};

use self::index::Index;
use self::loads::Loads;

pub use loads::Load;
pub use partition::PartitionImage;

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicImage {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// By index.
    pub partitions: Vec<PartitionImage>,
}

/// What records have touched, so that whoever serves it can follow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// These topics: new, gone, with more partitions or other settings. Look at all of them.
    pub topics: BTreeSet<TopicId>,
    /// These partitions of other topics.
    pub partitions: BTreeSet<PartitionKey>,
    /// All topics: a broker-wide setting changed.
    pub all_topics: bool,
    /// Nodes came, went, or stand otherwise.
    pub nodes: BTreeSet<NodeId>,
    /// Partitions that have another leader, or another epoch of the same.
    pub leaders: Vec<LeaderChange>,
    /// Changes that came too late: another one had come before (compare-and-set).
    pub outdated: u64,
}

/// A leadership has passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderChange {
    /// Of which partition.
    pub key: PartitionKey,
    /// Who led before.
    pub before: Option<Replica>,
    /// The one before holds no lease any more; else the new one must wait until the change is released (rule L7).
    pub released: bool,
}

/// The image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataImage {
    topics: BTreeMap<TopicId, TopicImage>,
    ids: BTreeMap<String, TopicId>,
    /// Names that look like others in metric names, each behind what they look like.
    alike: BTreeSet<(String, String)>,
    /// Of topics and brokers.
    configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    /// Of groups.
    group_configs: BTreeMap<String, BTreeMap<String, String>>,
    nodes: BTreeMap<NodeId, NodeRegistration>,
    reassigning: BTreeSet<PartitionKey>,
    loads: Loads,
    index: Index,
    partitions: usize,
    next_producer_id: i64,
    applied_offset: u64,
}

impl MetadataImage {
    /// Offset of the last commit applied.
    pub fn applied_offset(&self) -> u64 {
        self.applied_offset
    }

    /// Every topic, by id.
    pub fn topics(&self) -> impl Iterator<Item = &TopicImage> {
        self.topics.values()
    }

    /// Every topic's name, in order.
    pub fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str)
    }

    /// A topic.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicImage> {
        self.topics.get(&id)
    }

    /// A topic.
    pub fn topic_by_name(&self, name: &str) -> Option<&TopicImage> {
        self.topics.get(self.ids.get(name)?)
    }

    /// A topic whose name differs from this one only in '.' and '_', which look the same in metric names.
    pub fn topic_alike(&self, name: &str) -> Option<&str> {
        if !names::may_collide(name) {
            return None;
        }
        let key = names::collision_key(name);
        let from = (key.clone(), String::new());
        let alike = self.alike.range(from..).take_while(|(of, _)| *of == key);
        alike.map(|(_, other)| other.as_str()).find(|other| *other != name)
    }

    /// A partition.
    pub fn partition(&self, key: PartitionKey) -> Option<&PartitionImage> {
        self.topics.get(&key.topic_id)?.partitions.get(usize::try_from(key.partition).ok()?)
    }

    /// Who leads a partition.
    pub fn leader(&self, key: PartitionKey) -> Option<Replica> {
        self.partition(key)?.leader
    }

    /// The epoch of a partition's leadership.
    pub fn leader_epoch(&self, key: PartitionKey) -> Option<LeaderEpoch> {
        self.partition(key).map(|partition| partition.leader_epoch)
    }

    /// Settings made at run time.
    pub fn config(&self, resource: &ConfigResource, name: &str) -> Option<&str> {
        match resource {
            ConfigResource::Group(group) => self.group_config(group, name),
            _ => self.configs.get(resource)?.get(name).map(String::as_str),
        }
    }

    /// A setting of a group's own.
    pub fn group_config(&self, group: &str, name: &str) -> Option<&str> {
        self.group_configs.get(group)?.get(name).map(String::as_str)
    }

    /// Groups that have settings of their own, in order.
    pub fn groups_with_configs(&self) -> impl ExactSizeIterator<Item = &str> {
        self.group_configs.keys().map(String::as_str)
    }

    /// All settings of one resource made at run time.
    pub fn configs_of(&self, resource: &ConfigResource) -> BTreeMap<String, String> {
        let configs = match resource {
            ConfigResource::Group(group) => self.group_configs.get(group),
            _ => self.configs.get(resource),
        };
        configs.cloned().unwrap_or_default()
    }

    /// First producer id nobody has.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Every partition.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionKey, &PartitionImage)> {
        self.topics.values().flat_map(partitions_of)
    }

    /// Every partition behind `after`, in order; a walk over many can go on where it stopped.
    pub fn partitions_after(
        &self,
        after: Option<PartitionKey>,
    ) -> impl Iterator<Item = (PartitionKey, &PartitionImage)> {
        let from = after.map_or(TopicId(uuid::Uuid::nil()), |key| key.topic_id);
        let topics = self.topics.range(from..).map(|(_, topic)| topic);
        topics.flat_map(move |topic| {
            let first = after.filter(|key| key.topic_id == topic.id).map_or(0, |key| key.partition + 1);
            partitions_of(topic).skip(first as usize)
        })
    }

    /// Partitions whose replicas are being moved.
    pub fn reassigning(&self) -> &BTreeSet<PartitionKey> {
        &self.reassigning
    }

    /// What a place has to bear.
    pub fn load(&self, replica: Replica) -> Load {
        self.loads.of(replica)
    }

    /// What the places of a node have to bear, those that have anything.
    pub fn loads_of(&self, node: NodeId) -> impl Iterator<Item = (ShardId, Load)> {
        self.loads.of_node(node)
    }

    /// Every node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRegistration> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> Option<&NodeRegistration> {
        self.nodes.get(&node)
    }

    /// The life a replica's place is in now; none if its node or shard is not known.
    pub fn replica_epoch(&self, replica: Replica) -> Option<ReplicaEpoch> {
        let node = self.nodes.get(&replica.node)?;
        let shard = node.shards.get(usize::from(replica.shard.0))?;
        Some(ReplicaEpoch { node_epoch: node.epoch, shard_epoch: shard.epoch })
    }

    /// A replica there may be in sync and lead: its node is not fenced and its shard works.
    pub fn is_live(&self, replica: Replica) -> bool {
        self.nodes.get(&replica.node).is_some_and(|node| {
            !node.fenced && node.shards.get(usize::from(replica.shard.0)).is_some_and(|shard| shard.online)
        })
    }

    /// The node gets nothing new.
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.draining)
    }

    /// Entries up to `index` are in the image, also those without records.
    pub fn advance_to(&mut self, index: u64) {
        self.applied_offset = self.applied_offset.max(index);
    }

    /// Applies the records of one commit; a commit applied before changes nothing.
    pub fn apply(&mut self, offset: u64, records: &[MetadataRecord]) -> Touched {
        let mut touched = Touched::default();
        if offset <= self.applied_offset {
            return touched;
        }
        self.applied_offset = offset;
        for record in records {
            self.apply_record(offset, record, &mut touched);
        }
        touched
    }

    fn apply_record(&mut self, offset: u64, record: &MetadataRecord, touched: &mut Touched) {
        match record {
            MetadataRecord::Topic { id, name } => {
                self.remove_topic(*id);
                if names::may_collide(name) {
                    self.alike.insert((names::collision_key(name), name.clone()));
                }
                self.ids.insert(name.clone(), *id);
                self.topics.insert(*id, TopicImage { id: *id, name: name.clone(), partitions: Vec::new() });
                touched.topics.insert(*id);
            }
            MetadataRecord::Partition { key, state } => {
                self.set_partition(*key, PartitionImage::from_state(state.clone()), true, touched);
            }
            MetadataRecord::PartitionChange { key, delta } => {
                let Some(partition) = self.partition(*key) else { return };
                if delta.partition_epoch.0 != partition.partition_epoch.0 + 1 {
                    touched.outdated += 1;
                    return;
                }
                let mut state = partition.state();
                delta.apply(&mut state);
                self.set_partition(*key, PartitionImage::from_state(state), delta.released, touched);
            }
            MetadataRecord::RemoveTopic { id } => {
                if let Some(name) = self.remove_topic(*id) {
                    self.configs.remove(&ConfigResource::Topic(name));
                    touched.topics.insert(*id);
                }
            }
            MetadataRecord::Config { resource, name, value } => {
                match resource {
                    ConfigResource::Group(group) => set_config(&mut self.group_configs, group, name, value),
                    _ => set_config(&mut self.configs, resource, name, value),
                }
                match resource {
                    ConfigResource::Topic(topic) => touched.topics.extend(self.ids.get(topic)),
                    ConfigResource::Broker(_) => touched.all_topics = true,
                    // Coordinators look when they need it.
                    ConfigResource::Group(_) => {}
                }
            }
            MetadataRecord::ProducerIds { next } => self.next_producer_id = self.next_producer_id.max(*next),
            _ => self.apply_node_record(offset, record, touched),
        }
    }

    fn apply_node_record(&mut self, offset: u64, record: &MetadataRecord, touched: &mut Touched) {
        match record {
            MetadataRecord::Node(node) => {
                let mut node = node.clone();
                if node.epoch == NodeEpoch(0) {
                    node.epoch = NodeEpoch(offset);
                }
                touched.nodes.insert(node.node);
                self.nodes.insert(node.node, node);
            }
            MetadataRecord::NodeChange { node, epoch, fenced, draining, leaving } => {
                let Some(node) = self.nodes.get_mut(node).filter(|node| node.epoch == *epoch) else { return };
                node.fenced = fenced.unwrap_or(node.fenced);
                // What it may have lost has been taken from it before it could take part again.
                node.lossy &= node.fenced;
                node.draining = draining.unwrap_or(node.draining);
                node.leaving = leaving.unwrap_or(node.leaving);
                touched.nodes.insert(node.node);
            }
            MetadataRecord::ShardChange { node, epoch, shard, shard_epoch, online } => {
                let Some(node) = self.nodes.get_mut(node).filter(|node| node.epoch == *epoch) else { return };
                if let Some(shard) = node.shards.get_mut(usize::from(shard.0)) {
                    shard.epoch = *shard_epoch;
                    shard.online = *online;
                }
                touched.nodes.insert(node.node);
            }
            MetadataRecord::RemoveNode { node } => {
                self.nodes.remove(node);
                touched.nodes.insert(*node);
            }
            _ => {}
        }
    }

    /// Its name, if there was such a topic.
    fn remove_topic(&mut self, id: TopicId) -> Option<String> {
        let topic = self.topics.remove(&id)?;
        self.ids.remove(&topic.name);
        if names::may_collide(&topic.name) {
            self.alike.remove(&(names::collision_key(&topic.name), topic.name.clone()));
        }
        self.partitions -= topic.partitions.len();
        let none = PartitionImage::default();
        for (key, partition) in partitions_of(&topic) {
            self.reassigning.remove(&key);
            self.loads.replace(partition, &none);
            self.index.replace(key, partition, &none);
        }
        Some(topic.name)
    }

    fn set_partition(
        &mut self,
        key: PartitionKey,
        new: PartitionImage,
        released: bool,
        touched: &mut Touched,
    ) {
        let (Some(topic), Ok(index)) = (self.topics.get_mut(&key.topic_id), usize::try_from(key.partition))
        else {
            return;
        };
        if index >= topic.partitions.len() {
            let more = index + 1 - topic.partitions.len();
            self.partitions += more;
            if index >= topic.partitions.capacity() {
                // Most topics grow once: an eighth to spare, not as much again.
                topic.partitions.reserve_exact(more.max(topic.partitions.len() / 8));
            }
            topic.partitions.resize_with(index + 1, PartitionImage::default);
            touched.topics.insert(key.topic_id);
        }
        if new.reassigning() {
            self.reassigning.insert(key);
        } else {
            self.reassigning.remove(&key);
        }
        let old = &topic.partitions[index];
        if (old.leader, old.leader_epoch) != (new.leader, new.leader_epoch) {
            touched.leaders.push(LeaderChange { key, before: old.leader, released });
        }
        self.loads.replace(old, &new);
        self.index.replace(key, old, &new);
        topic.partitions[index] = new;
        if !touched.topics.contains(&key.topic_id) {
            touched.partitions.insert(key);
        }
    }
}

fn partitions_of(topic: &TopicImage) -> impl Iterator<Item = (PartitionKey, &PartitionImage)> {
    let key = |index| PartitionKey { topic_id: topic.id, partition: index };
    topic.partitions.iter().enumerate().map(move |(index, partition)| (key(index as i32), partition))
}

/// Sets or removes a setting; a resource without any is forgotten.
fn set_config<K: Ord + Clone>(
    all: &mut BTreeMap<K, BTreeMap<String, String>>,
    of: &K,
    name: &str,
    value: &Option<String>,
) {
    match value {
        Some(value) => {
            all.entry(of.clone()).or_default().insert(name.to_string(), value.clone());
        }
        None => {
            if let Some(configs) = all.get_mut(of) {
                configs.remove(name);
                if configs.is_empty() {
                    all.remove(of);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_model::{PartitionEpoch, PartitionState, ShardId};
    use uuid::Uuid;

    fn partition(id: TopicId, index: i32, epoch: i32) -> MetadataRecord {
        let mut state = PartitionImage::default().state();
        let replica = Replica { node: NodeId(index % 3), shard: ShardId(0) };
        (state.replicas, state.leader) = (vec![replica], Some(replica));
        state.partition_epoch = PartitionEpoch(epoch);
        MetadataRecord::Partition { key: PartitionKey { topic_id: id, partition: index }, state }
    }

    /// Whoever follows must look at what is named here and at nothing else of the topic.
    #[test]
    fn a_change_of_partitions_touches_these_and_not_their_topic() {
        let id = TopicId(Uuid::from_u128(7));
        let mut image = MetadataImage::default();
        let topic = MetadataRecord::Topic { id, name: "t".to_string() };
        let create = [topic, partition(id, 0, 0), partition(id, 1, 0)];
        let touched = image.apply(1, &create);
        assert_eq!((touched.topics.len(), touched.partitions.len()), (1, 0), "new: all of it");
        let touched = image.apply(2, &[partition(id, 2, 0)]);
        assert_eq!((touched.topics.len(), touched.partitions.len()), (1, 0), "one more: all of it");

        let old = image.partition(PartitionKey { topic_id: id, partition: 1 }).unwrap().state();
        let new = PartitionState { partition_epoch: PartitionEpoch(1), leader: None, ..old.clone() };
        let key = PartitionKey { topic_id: id, partition: 1 };
        let delta = crate::record::PartitionDelta::between(&old, &new, true);
        let change = MetadataRecord::PartitionChange { key, delta };
        let touched = image.apply(3, std::slice::from_ref(&change));
        assert_eq!((touched.topics.len(), touched.partitions), (0, [key].into()));
        assert_eq!(touched.leaders.len(), 1);

        let (resource, name) = (ConfigResource::Topic("t".to_string()), "retention.ms".to_string());
        let config = MetadataRecord::Config { resource, name, value: Some("1".to_string()) };
        let touched = image.apply(4, &[partition(id, 0, 5), config]);
        assert_eq!((touched.topics.len(), touched.partitions.len()), (1, 1), "other settings: all of it");
        let late = image.apply(5, &[change]);
        assert_eq!((late.topics.len(), late.partitions.len(), late.outdated), (0, 0, 1));
    }
}
