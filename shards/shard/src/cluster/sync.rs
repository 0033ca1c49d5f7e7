//! Brings the replicas of a shard in line with the metadata: opens those that belong here, hands each its state, drops the
//! log of one only when the metadata say in so many words that it has gone elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use pelton_cluster::image::{MetadataImage, Touched};
use pelton_log::PartitionSlot;
use pelton_model::{IsrMember, NodeId, Now, PartitionKey, PartitionState, TopicConfig, TopicId};
use pelton_replica::effect::Settings;
use pelton_replica::partition::RoleKind;
use pelton_wire::error_code::ErrorCode;

use super::Sabotage;
use crate::Shard;
use crate::control::CONTROLLER;
use crate::effect::Effect;
use crate::message::ShardMessage;
use crate::partitions::{Hosted, Route, TopicRoute};
use crate::replica_host::ReplicaHost;

fn settings_of(base: Settings, config: &TopicConfig) -> Settings {
    Settings {
        min_insync_replicas: config.min_insync_replicas,
        flush_every_append: config.flush_every_append(),
        compacted: config.compacted,
        ..base
    }
}

impl Shard {
    /// What an entry has changed, before the topics follow.
    pub(crate) fn note_changes(&mut self, now: Now, index: u64, touched: &Touched, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.note_leaders(index, &touched.leaders);
        cluster.peers_differ |= !touched.nodes.is_empty();
        if touched.all_topics {
            self.set_rates();
        }
        let Some(cluster) = &self.cluster else { return };
        if touched.nodes.contains(&cluster.me.node) {
            self.look_at_life(now, out);
        }
        self.say_who_serves(&touched.nodes, out);
    }

    /// An operator hears who comes and goes.
    fn say_who_serves(&mut self, nodes: &BTreeSet<NodeId>, out: &mut Vec<Effect>) {
        if self.id != CONTROLLER {
            return;
        }
        for node in nodes {
            let Shard { cluster: Some(cluster), image, .. } = self else { return };
            let serves = image.node(*node).map(|node| !node.fenced);
            let before = match serves {
                Some(serves) => cluster.serving.insert(*node, serves),
                None => cluster.serving.remove(node),
            };
            let what = match (before.unwrap_or(false), serves) {
                (false, Some(true)) => "serves in the cluster",
                (true, Some(false)) => "is fenced: it stops, or was not heard from; others lead what it led",
                (_, None) => "is no node of the cluster any more",
                _ => continue,
            };
            self.say(out, &format!("node {} {what}", node.0));
        }
    }

    /// The image is another one, not by entries.
    pub(crate) fn replace_image(&mut self, now: Now, image: MetadataImage, out: &mut Vec<Effect>) {
        let gone: Vec<TopicId> =
            self.partitions.topic_ids().into_iter().filter(|id| image.topic_by_id(*id).is_none()).collect();
        self.image = image;
        self.installed = true;
        if let Some(cluster) = &mut self.cluster {
            cluster.wait_floor = self.image.applied_offset();
            cluster.waits.clear();
            cluster.peers_differ = true;
            cluster.serving = self.image.nodes().map(|node| (node.node, !node.fenced)).collect();
        }
        self.set_rates();
        for id in gone {
            self.sync_topic(now, id, out);
        }
        self.look_at_life(now, out);
        self.sync_all(now, out);
        let offset = self.image.applied_offset();
        if self.id != CONTROLLER {
            let message = ShardMessage::MetadataApplied { offset };
            out.push(Effect::ToShard { to: CONTROLLER, message });
        }
    }

    fn sync_all(&mut self, now: Now, out: &mut Vec<Effect>) {
        let ids: Vec<TopicId> = self.image.topics().map(|topic| topic.id).collect();
        for id in ids {
            self.sync_topic(now, id, out);
        }
    }

    /// The life of the replicas here may be another one.
    pub(super) fn look_at_life(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        let told = cluster.node_epoch;
        let life = self.image.replica_epoch(cluster.me).filter(|life| Some(life.node_epoch) == told);
        if life == cluster.life {
            return;
        }
        cluster.life = life;
        if !cluster.live {
            return;
        }
        // What the old life was given does not count for a new one; without any, nobody has elected this replica.
        let (me, base) =
            (IsrMember { replica: cluster.me, epoch: life.unwrap_or_default() }, cluster.settings);
        for slot in self.partitions.hosted_slots() {
            let Shard { cluster: Some(cluster), partitions, storage, .. } = self else { return };
            let Some(hosted) = partitions.hosted_mut(slot) else { continue };
            let settings = settings_of(base, &hosted.config);
            hosted.host.live_anew(me, settings, storage);
            cluster.note(slot, hosted);
            self.resign(now, slot, "the node is registered anew", out);
        }
        self.sync_all(now, out);
    }

    /// Opens the replicas once this process is registered and unfenced, and follows the metadata up to there: whatever a former life of
    /// it has seen lies before. Only now may logs that no metadata name be dropped.
    pub(crate) fn goes_live(&mut self, now: Now, out: &mut Vec<Effect>) -> bool {
        let Some(cluster) = &mut self.cluster else { return true };
        if cluster.life.is_none() {
            if cluster.sabotaged(Sabotage::DropUnnamed) {
                self.drop_unnamed(now, out);
            }
            return false;
        }
        // Clients are let in when the node may lead, and a topic may get a replica here.
        if self.image.node(cluster.me.node).is_none_or(|node| node.fenced) {
            return false;
        }
        cluster.live = true;
        cluster.dropped.retain(|key| self.image.partition(*key).is_some());
        self.set_rates();
        self.sync_all(now, out);
        self.drop_unnamed(now, out);
        self.recovered.clear();
        true
    }

    fn drop_unnamed(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(me) = self.cluster.as_ref().map(|cluster| cluster.me) else { return };
        let image = &self.image;
        let here = |key| image.partition(key).is_some_and(|partition| partition.replicas.contains(&me));
        let mut gone = Vec::new();
        let dropped = self.storage.retain(now, |key| {
            let wanted = here(key);
            gone.extend((!wanted).then_some(key));
            wanted
        });
        if let Some(cluster) = &mut self.cluster {
            cluster.dropped.extend(gone.into_iter().filter(|key| image.partition(*key).is_some()));
        }
        if dropped > 0 {
            self.say(out, &format!("{dropped} replicas that are not the cluster's are removed from disk"));
        }
    }

    /// Brings one topic in line.
    pub(crate) fn sync_hosted_topic(&mut self, now: Now, id: TopicId, out: &mut Vec<Effect>) {
        let Some(topic) = self.image.topic_by_id(id) else { return };
        let config = self.image.topic_config(&self.config, &topic.name);
        let name: Arc<str> = Arc::from(&topic.name[..]);
        let states: Vec<PartitionState> =
            topic.partitions.iter().map(|partition| partition.state()).collect();
        let mut partitions = Vec::with_capacity(states.len());
        for (index, state) in states.iter().enumerate() {
            let key = PartitionKey { topic_id: id, partition: index as i32 };
            if let Some(slot) = self.hosted_slot(key) {
                self.configure_host(slot, &config);
                self.throttle_host(slot, key);
            }
            partitions.push(self.sync_route(now, key, state, Some(&config), out));
        }
        // The routes first: whoever is told to look elsewhere by what follows finds them.
        self.partitions.set_topic(TopicRoute { id, name, partitions });
        for (index, state) in states.iter().enumerate() {
            self.tell_host(now, PartitionKey { topic_id: id, partition: index as i32 }, state, out);
        }
        self.sync_seats(now, id, out);
    }

    /// Brings one partition in line, of a topic that is otherwise as it was: a change of it must not cost a look at all of the
    /// topic's.
    pub(crate) fn sync_hosted_partition(&mut self, now: Now, key: PartitionKey, out: &mut Vec<Effect>) {
        let Some(state) = self.image.partition(key).map(|partition| partition.state()) else { return };
        let route = self.sync_route(now, key, &state, None, out);
        if !self.partitions.set_route(key, route) {
            // The topic is not entered yet.
            return self.sync_hosted_topic(now, key.topic_id, out);
        }
        self.tell_host(now, key, &state, out);
        self.sync_seats(now, key.topic_id, out);
    }

    /// Opens or closes the replica of a partition here; where the partition is led.
    fn sync_route(
        &mut self,
        now: Now,
        key: PartitionKey,
        state: &PartitionState,
        config: Option<&TopicConfig>,
        out: &mut Vec<Effect>,
    ) -> Route {
        let Some(me) = self.cluster.as_ref().map(|cluster| cluster.me) else { return Route::Leaderless };
        let slot = match (state.replicas.contains(&me), self.hosted_slot(key)) {
            (true, None) => match config {
                Some(config) => self.open_host(now, key, config),
                None => {
                    let topic = self.image.topic_by_id(key.topic_id);
                    let config = topic.map(|topic| self.image.topic_config(&self.config, &topic.name));
                    config.and_then(|config| self.open_host(now, key, &config))
                }
            },
            (false, Some(slot)) => {
                self.close_host(now, slot, out);
                self.storage.remove_partition(now, slot);
                if let Some(cluster) = &mut self.cluster {
                    cluster.dropped.insert(key);
                }
                None
            }
            (_, slot) => slot,
        };
        match (state.leader, slot) {
            (Some(leader), Some(slot)) if leader == me => Route::Local(slot),
            (Some(leader), _) if leader == me => Route::Leaderless,
            (Some(leader), _) if leader.node == me.node => Route::Foreign(leader.shard),
            (Some(_), _) => Route::Away,
            (None, _) => Route::Leaderless,
        }
    }

    fn tell_host(&mut self, now: Now, key: PartitionKey, state: &PartitionState, out: &mut Vec<Effect>) {
        let Some(slot) = self.hosted_slot(key) else { return };
        let released = self.cluster.as_ref().is_some_and(|cluster| cluster.is_released(key));
        self.with_host(now, slot, out, |host, turn| host.handle_metadata(state, released, turn));
        self.settle_later(slot);
        if self.storage.is_full() {
            self.with_host(now, slot, out, |host, turn| host.handle_space(turn));
        }
        let early = self.cluster.as_mut().map(|cluster| cluster.early.take(key, state.leader_epoch));
        for (from, frame) in early.into_iter().flatten() {
            self.with_host(now, slot, out, |host, turn| host.handle_frame(from, &frame, &Bytes::new(), turn));
        }
    }

    fn configure_host(&mut self, slot: PartitionSlot, config: &TopicConfig) {
        let Shard { cluster: Some(cluster), partitions, storage, .. } = self else { return };
        let Some(hosted) = partitions.hosted_mut(slot).filter(|hosted| hosted.config != *config) else {
            return;
        };
        storage.set_config(slot, config);
        hosted.host.set_settings(settings_of(cluster.settings, config));
        hosted.config = config.clone();
    }

    fn open_host(&mut self, now: Now, key: PartitionKey, config: &TopicConfig) -> Option<PartitionSlot> {
        let Shard { cluster: Some(cluster), partitions, storage, recovered, .. } = self else { return None };
        let epoch = cluster.life.filter(|_| cluster.live)?;
        let slot = storage.open_partition(key, config);
        let me = IsrMember { replica: cluster.me, epoch };
        let settings = settings_of(cluster.settings, config);
        let found = recovered.remove(&key);
        let anew = cluster.dropped.remove(&key) && found.is_none();
        let host = ReplicaHost::open(key, slot, me, settings, found.as_ref(), now, storage);
        #[cfg(feature = "sabotage")]
        let host = host.with_sabotage(cluster.host_sabotage);
        let mut host = host;
        if anew {
            host.begin_anew(storage);
        }
        let mut hosted = Hosted { key, host, config: config.clone(), deadline_ns: None };
        cluster.by_key.insert(key, slot);
        cluster.note(slot, &mut hosted);
        partitions.insert_hosted(slot, hosted);
        self.throttle_host(slot, key);
        Some(slot)
    }

    /// A replica is none of this shard's any more, or not in this life; its log stays.
    fn close_host(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        let Some(hosted) = self.partitions.remove_hosted(slot) else { return };
        if let Some(cluster) = &mut self.cluster {
            cluster.forget(slot, &hosted);
        }
        self.resign(now, slot, "the partition has moved to another broker", out);
    }

    /// Nothing of the partition is answered here any more: whoever waits is told to look elsewhere.
    pub(super) fn resign(&mut self, now: Now, slot: PartitionSlot, why: &str, out: &mut Vec<Effect>) {
        let mut done = Vec::new();
        self.acks.fail(slot, ErrorCode::NotLeaderOrFollower, why, &mut done);
        self.finish_produces(&mut done, out);
        if !self.sabotaged(Sabotage::KeepSeat) {
            self.close_seat_of(now, slot, out);
        }
        self.wake_fetches(now, slot, out);
    }

    /// The topic is gone: so are its replicas and their logs.
    pub(crate) fn drop_hosts_of(&mut self, now: Now, id: TopicId, out: &mut Vec<Effect>) {
        let Some(cluster) = &mut self.cluster else { return };
        let first = PartitionKey { topic_id: id, partition: 0 };
        let last = PartitionKey { topic_id: id, partition: i32::MAX };
        let slots: Vec<PartitionSlot> = cluster.by_key.range(first..=last).map(|(_, slot)| *slot).collect();
        cluster.dropped.retain(|key| key.topic_id != id);
        for slot in slots {
            let mut done = Vec::new();
            self.acks.fail(slot, ErrorCode::UnknownTopicOrPartition, "the topic was deleted", &mut done);
            self.finish_produces(&mut done, out);
            self.close_host(now, slot, out);
            self.storage.remove_partition(now, slot);
        }
    }

    /// The epoch in which the replica leads, as far as group coordinators are concerned; none if it does not.
    pub(crate) fn hosted_leadership(&self, slot: PartitionSlot) -> Option<pelton_model::LeaderEpoch> {
        let state = self.partitions.hosted(slot)?.host.state();
        match state.role() {
            RoleKind::Activating | RoleKind::Active | RoleKind::Draining => Some(state.leader_epoch()),
            _ => None,
        }
    }

    /// A whole image of shard 0's.
    pub(crate) fn take_snapshot(&mut self, now: Now, snapshot: &Bytes, out: &mut Vec<Effect>) {
        match MetadataImage::from_snapshot(snapshot) {
            Ok(image) => self.replace_image(now, image, out),
            Err(error) => out.push(Effect::Fatal { text: format!("metadata snapshot of shard 0: {error}") }),
        }
    }
}
