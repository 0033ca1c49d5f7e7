//! Brings the shard's partitions in line with the metadata image: opens what is led here, forgets what is deleted,
//! follows changed settings.

use std::sync::Arc;

use bytes::Bytes;
use pelton_cluster::image::MetadataImage;
use pelton_cluster::record::MetadataRecord;
use pelton_model::{Now, PartitionKey, ShardId, TopicId};
use pelton_replica::epochs::EpochCache;
use pelton_replica::partition::Partition;
use pelton_replica::producers::Producers;
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::control::CONTROLLER;
use crate::effect::{Effect, LogLevel};
use crate::message::ShardMessage;
use crate::partitions::{LocalPartition, Route, TopicRoute};

impl Shard {
    /// Applies committed records to the image and to the partitions.
    pub(crate) fn apply_metadata(
        &mut self,
        now: Now,
        offset: u64,
        records: &[MetadataRecord],
        out: &mut Vec<Effect>,
    ) {
        let touched = self.image.apply(offset, records);
        if self.cluster.is_some() {
            self.note_changes(now, offset, &touched, out);
        }
        if touched.all_topics {
            for id in self.partitions.topic_ids() {
                self.sync_topic(now, id, out);
            }
        }
        let topics = touched.topics;
        let mut looked_at = None;
        for key in touched.partitions.into_iter().filter(|key| !topics.contains(&key.topic_id)) {
            if self.cluster.is_some() {
                self.sync_hosted_partition(now, key, out);
            } else if looked_at.replace(key.topic_id) != Some(key.topic_id) {
                self.sync_topic(now, key.topic_id, out);
            }
        }
        for id in topics {
            self.sync_topic(now, id, out);
        }
    }

    /// Takes the whole image, at start.
    pub(crate) fn install_image(&mut self, now: Now, image: MetadataImage, out: &mut Vec<Effect>) {
        self.image = image;
        let ids: Vec<TopicId> = self.image.topics().map(|topic| topic.id).collect();
        for id in ids {
            self.sync_topic(now, id, out);
        }
        let (image, shard) = (&self.image, self.id);
        let dropped =
            self.storage.retain(now, |key| image.leader(key).is_some_and(|replica| replica.shard == shard));
        if dropped > 0 {
            let text = format!("{dropped} partitions of deleted topics are removed from disk");
            out.push(Effect::Log { level: LogLevel::Info, text });
        }
        self.recovered.clear();
        self.installed = true;
    }

    /// Shard 0 hands its image to the others, once, at start.
    pub(crate) fn spread_image(&mut self, out: &mut Vec<Effect>) {
        let snapshot = Bytes::from(self.image.snapshot());
        for shard in (1..self.config.shards).map(ShardId) {
            let message = ShardMessage::MetadataSnapshot { snapshot: snapshot.clone() };
            out.push(Effect::ToShard { to: shard, message });
        }
    }

    /// A whole image from shard 0.
    pub(crate) fn handle_metadata_snapshot(&mut self, now: Now, snapshot: &Bytes, out: &mut Vec<Effect>) {
        if self.cluster.is_some() {
            return self.take_snapshot(now, snapshot, out);
        }
        match MetadataImage::from_snapshot(snapshot) {
            Ok(image) => self.install_image(now, image, out),
            Err(error) => out.push(Effect::Fatal { text: format!("metadata snapshot of shard 0: {error}") }),
        }
    }

    /// Committed records from shard 0.
    pub(crate) fn handle_metadata_update(
        &mut self,
        now: Now,
        offset: u64,
        records: &[Bytes],
        out: &mut Vec<Effect>,
    ) {
        let decoded: Result<Vec<MetadataRecord>, _> =
            records.iter().map(|record| MetadataRecord::decode(record)).collect();
        match decoded {
            Ok(records) => {
                self.apply_metadata(now, offset, &records, out);
                out.push(Effect::ToShard {
                    to: CONTROLLER,
                    message: ShardMessage::MetadataApplied { offset },
                });
            }
            Err(error) => out.push(Effect::Fatal { text: format!("metadata record of shard 0: {error}") }),
        }
    }

    pub(crate) fn sync_topic(&mut self, now: Now, id: TopicId, out: &mut Vec<Effect>) {
        let Some(topic) = self.image.topic_by_id(id) else {
            return self.forget_topic(now, id, out);
        };
        if self.cluster.is_some() {
            return self.sync_hosted_topic(now, id, out);
        }
        let config = self.image.topic_config(&self.config, &topic.name);
        let name = Arc::from(&topic.name[..]);
        let leaders: Vec<_> = topic.partitions.iter().map(|p| (p.leader, p.leader_epoch)).collect();
        let mut partitions = Vec::with_capacity(leaders.len());
        for (index, (leader, leader_epoch)) in leaders.into_iter().enumerate() {
            let key = PartitionKey { topic_id: id, partition: index as i32 };
            partitions.push(match leader {
                None => Route::Leaderless,
                Some(replica) if replica.shard != self.id => Route::Foreign(replica.shard),
                Some(_) => Route::Local(match self.partitions.slot(key) {
                    Some(slot) => {
                        self.storage.set_config(slot, &config);
                        if let Some(local) = self.partitions.local_mut(slot) {
                            local.config = config.clone();
                        }
                        slot
                    }
                    None => self.open_partition(key, &config, leader_epoch, now),
                }),
            });
        }
        self.partitions.set_topic(TopicRoute { id, name, partitions });
        self.sync_seats(now, id, out);
    }

    fn open_partition(
        &mut self,
        key: PartitionKey,
        config: &pelton_model::TopicConfig,
        leader_epoch: pelton_model::LeaderEpoch,
        now: Now,
    ) -> pelton_log::PartitionSlot {
        let slot = self.storage.open_partition(key, config);
        let log_end_offset = self.storage.log_end_offset(slot);
        let (mut producers, mut epochs) = (Producers::default(), EpochCache::default());
        if let Some(recovered) = self.recovered.remove(&key) {
            (producers, epochs, _) = crate::snapshot::restored(&recovered, now);
            producers.drop_beyond(log_end_offset);
            epochs.truncate_from_end(log_end_offset);
        }
        epochs.assign(leader_epoch, log_end_offset);
        let mut state = Partition::new(leader_epoch);
        state.handle_log_progress(log_end_offset, log_end_offset, true);
        self.partitions
            .insert_local(slot, LocalPartition { state, producers, epochs, config: config.clone() });
        slot
    }

    fn forget_topic(&mut self, now: Now, id: TopicId, out: &mut Vec<Effect>) {
        self.forget_topic_of_groups(now, id, out);
        self.drop_hosts_of(now, id, out);
        let slots = self.partitions.remove_topic(id);
        let mut done = Vec::new();
        for slot in slots {
            self.storage.remove_partition(now, slot);
            self.acks.fail(slot, ErrorCode::UnknownTopicOrPartition, "the topic was deleted", &mut done);
            self.refuse_fetches_of(now, slot, out);
        }
        self.finish_produces(&mut done, out);
    }
}
