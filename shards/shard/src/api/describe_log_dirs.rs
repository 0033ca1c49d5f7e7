//! DescribeLogDirs (key 35, KIP-113, KIP-827): what partitions take on disk. A log directory is a shard's: in direct mode a broker has
//! its own, in single mode those of all shards of its node.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pelton_log::Health;
use pelton_model::{PartitionKey, Replica, ShardId};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use pelton_wire::messages::{DescribeLogDirsRequestData, DescribeLogDirsResponseData, KafkaString};

use crate::Shard;
use crate::api::RequestContext;
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::message::{RequestId, ShardMessage};
use crate::partitions::Route;

/// Not known.
const UNKNOWN_BYTES: i64 = -1;

/// What one shard has.
#[derive(Clone, Debug)]
pub struct LogDirReport {
    /// Which.
    pub shard: ShardId,
    /// Its disk works.
    pub healthy: bool,
    /// Size of its volume and what is left of it, bytes.
    pub volume: Option<(i64, i64)>,
    /// Its logs.
    pub logs: Vec<LogReport>,
}

/// A log.
#[derive(Clone, Copy, Debug)]
pub struct LogReport {
    /// Of which partition.
    pub key: PartitionKey,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// Offsets that are committed and not here yet.
    pub offset_lag: i64,
    /// The replica moves here from another shard of its broker.
    pub is_future: bool,
}

/// Partitions asked for; none = all.
pub type Wanted = Option<BTreeSet<PartitionKey>>;

/// A request that waits for the shards of its node.
pub struct LogDirsShape {
    context: RequestContext,
}

impl Shard {
    /// Asks every shard whose directory the broker has.
    pub(crate) fn describe_log_dirs(
        &mut self,
        context: RequestContext,
        request: DescribeLogDirsRequestData,
        out: &mut Vec<Effect>,
    ) {
        let wanted: Wanted = request.topics.map(|topics| {
            let keys = topics.iter().filter_map(|topic| {
                let topic_id = self.partitions.topic_by_name(topic.topic.as_str())?.id;
                let keys = topic.partitions.iter();
                Some(keys.map(move |partition| PartitionKey { topic_id, partition: *partition }))
            });
            keys.flatten().collect()
        });
        let others: Vec<ShardId> = match self.serves_foreign() {
            true => (0..self.config.shards).map(ShardId).filter(|shard| *shard != self.id).collect(),
            false => Vec::new(),
        };
        let (id, request_ref): (RequestId, RequestRef) = (self.next_id(), context.request);
        self.log_dirs.open(id, request_ref, LogDirsShape { context }, others.len() + 1);
        for shard in others {
            let message = ShardMessage::LogDir { id, wanted: wanted.clone() };
            out.push(Effect::ToShard { to: shard, message });
        }
        let report = self.log_dir(&wanted);
        self.handle_log_dir(id, report, out);
    }

    /// What this shard has on disk.
    pub(crate) fn log_dir(&self, wanted: &Wanted) -> LogDirReport {
        let healthy = !matches!(self.storage.health(), Health::Failed(_));
        let mut logs: Vec<LogReport> = Vec::new();
        let mut add = |key: PartitionKey, slot, offset_lag: i64| {
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&key)) {
                let (size_bytes, is_future) = (self.storage.size_bytes(slot), self.is_future_log(key));
                logs.push(LogReport { key, size_bytes, offset_lag, is_future });
            }
        };
        for topic in self.partitions.topic_ids().iter().filter_map(|id| self.partitions.topic_by_id(*id)) {
            for (index, route) in topic.partitions.iter().enumerate() {
                if let Route::Local(slot) = route
                    && self.partitions.local(*slot).is_some()
                {
                    add(PartitionKey { topic_id: topic.id, partition: index as i32 }, *slot, 0);
                }
            }
        }
        for slot in self.partitions.hosted_slots() {
            let Some(hosted) = self.partitions.hosted(slot) else { continue };
            let committed = hosted.host.state().high_watermark().0;
            add(hosted.key, slot, (committed - self.storage.log_end_offset(slot).0).max(0));
        }
        LogDirReport { shard: self.id, healthy, volume: self.volume, logs }
    }

    fn is_future_log(&self, key: PartitionKey) -> bool {
        let me = Replica { node: self.config.node_id, shard: self.id };
        let Some(partition) = self.image.partition(key).filter(|_| self.serves_foreign()) else {
            return false;
        };
        let elsewhere = |replica: &Replica| replica.node == me.node && replica.shard != me.shard;
        partition.adding().contains(&me) && partition.replicas.iter().any(elsewhere)
    }

    /// A shard has told.
    pub(crate) fn handle_log_dir(&mut self, id: RequestId, report: LogDirReport, out: &mut Vec<Effect>) {
        let index = match self.serves_foreign() {
            true => u32::from(report.shard.0),
            false => 0,
        };
        let Some(done) = self.log_dirs.answer(id, index, report) else { return };
        let response = self.encode_log_dirs(&done.shape.context, &done.answers);
        self.respond(done.request, response, out);
    }

    fn encode_log_dirs(&self, context: &RequestContext, reports: &[LogDirReport]) -> Bytes {
        let results = reports.iter().map(|report| {
            let (total_bytes, usable_bytes) = report.volume.unwrap_or((UNKNOWN_BYTES, UNKNOWN_BYTES));
            let mut result = DescribeLogDirsResult {
                log_dir: KafkaString::from(self.log_dir_name(report.shard)),
                total_bytes,
                usable_bytes,
                ..Default::default()
            };
            match report.healthy {
                true => result.topics = self.topics_of(report),
                false => result.error_code = ErrorCode::KafkaStorageError.code(),
            }
            result
        });
        let results = results.collect();
        context.encode(&DescribeLogDirsResponseData { results, ..Default::default() })
    }

    fn topics_of(&self, report: &LogDirReport) -> Vec<DescribeLogDirsTopic> {
        let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        for log in &report.logs {
            // A topic may have been deleted meanwhile.
            let Some(topic) = self.image.topic_by_id(log.key.topic_id) else { continue };
            topics.entry(&topic.name).or_default().push(DescribeLogDirsPartition {
                partition_index: log.key.partition,
                partition_size: log.size_bytes as i64,
                offset_lag: log.offset_lag,
                is_future_key: log.is_future,
                ..Default::default()
            });
        }
        let topic = |(name, mut partitions): (&str, Vec<DescribeLogDirsPartition>)| {
            partitions.sort_by_key(|partition| partition.partition_index);
            DescribeLogDirsTopic {
                name: KafkaString::from(name.to_string()),
                partitions,
                ..Default::default()
            }
        };
        topics.into_iter().map(topic).collect()
    }
}
