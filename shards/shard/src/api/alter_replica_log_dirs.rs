//! AlterReplicaLogDirs (key 34, KIP-113): a replica moves to another log directory of its broker. A log directory is a shard's: in
//! single mode the replica moves to another shard of its node, as a reassignment that ends by itself; in direct mode a broker has
//! one directory, and moves between shards are reassignments between brokers. Errors as in Kafka's ReplicaManager.

use bytes::{Bytes, BytesMut};
use pelton_cluster::control::election::{self, Scene};
use pelton_model::{ListenerMode, NodeId, Now, PartitionKey, Replica, ShardId};
use pelton_wire::WireError;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use pelton_wire::messages::{
    AlterReplicaLogDirsRequestData, AlterReplicaLogDirsResponseData, KafkaString, Message, decode,
};

use super::context::{ApiContext, Planned};
use super::reassignments::{CHANGES_MAX, Changes};
use crate::Shard;
use crate::api::RequestContext;
use crate::effect::Effect;

impl Shard {
    /// Takes the request to the controller, with places instead of paths: those only this node knows.
    pub(crate) fn alter_replica_log_dirs(
        &mut self,
        now: Now,
        context: &RequestContext,
        frame: &Bytes,
        body_offset: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), WireError> {
        let mut request: AlterReplicaLogDirsRequestData =
            decode(context.version, frame.slice(body_offset..))?;
        for dir in &mut request.dirs {
            let place = self.place_of_log_dir(dir.path.as_str()).map(|place| place.to_string());
            dir.path = KafkaString::from(place.unwrap_or_default());
        }
        let mut bytes = BytesMut::from(&frame[..body_offset]);
        request.write_to(&mut bytes, context.version)?;
        self.ask_controller(now, context.request, bytes.freeze(), out);
        Ok(())
    }

    /// The shard of this broker whose directory this is.
    fn place_of_log_dir(&self, path: &str) -> Option<Replica> {
        let shards = match self.config.mode {
            ListenerMode::Direct => self.id.0..self.id.0 + 1,
            ListenerMode::Single => 0..self.config.shards,
        };
        let shard = shards.map(ShardId).find(|shard| self.log_dir_name(*shard) == path)?;
        Some(Replica { node: self.config.node_id, shard })
    }

    /// A shard's directory as clients see it.
    pub(crate) fn log_dir_name(&self, shard: ShardId) -> String {
        let directory = self.config.log_dirs.get(usize::from(shard.0)).cloned();
        directory.unwrap_or_else(|| format!("shard-{}", shard.0))
    }
}

/// Plans the moves of a request whose paths are places.
pub fn handle(
    context: &ApiContext<'_>,
    request: AlterReplicaLogDirsRequestData,
) -> Planned<AlterReplicaLogDirsResponseData> {
    let topics = || request.dirs.iter().flat_map(|dir| &dir.topics);
    let is_too_large = topics().map(|topic| topic.partitions.len()).sum::<usize>() > CHANGES_MAX;
    let mut changes = Changes::new(context);
    let mut response = AlterReplicaLogDirsResponseData::default();
    for dir in &request.dirs {
        let to = place(dir.path.as_str());
        for topic in &dir.topics {
            let partitions = topic.partitions.iter().map(|partition| {
                let error = match to {
                    _ if is_too_large => ErrorCode::PolicyViolation,
                    Some(to) => {
                        changes.relocate(topic.name.as_str(), *partition, to).err().unwrap_or(ErrorCode::None)
                    }
                    None => ErrorCode::LogDirNotFound,
                };
                AlterReplicaLogDirPartitionResult {
                    partition_index: *partition,
                    error_code: error.code(),
                    ..Default::default()
                }
            });
            let partitions = partitions.collect();
            let topic_name = topic.name.clone();
            response.results.push(AlterReplicaLogDirTopicResult {
                topic_name,
                partitions,
                ..Default::default()
            });
        }
    }
    Planned { records: changes.into_records(), response }
}

/// What [`Replica`] shows as text.
fn place(text: &str) -> Option<Replica> {
    let (node, shard) = text.split_once('.')?;
    Some(Replica { node: NodeId(node.parse().ok()?), shard: ShardId(shard.parse().ok()?) })
}

impl Changes<'_> {
    /// The replica that the broker of `to` has moves there; to where it is now, and a move under way ends.
    fn relocate(&mut self, topic: &str, index: i32, to: Replica) -> Result<(), ErrorCode> {
        let context = self.context();
        let image = context.image;
        let found = image.topic_by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let key = PartitionKey { topic_id: found.id, partition: index };
        let old = self.state(key).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let broker = context.broker_id(to);
        let is_here = |replica: &Replica| context.broker_id(*replica) == broker;
        let kept: Vec<Replica> =
            old.replicas.iter().copied().filter(|replica| !old.removing.contains(replica)).collect();
        if !kept.iter().any(is_here) {
            return Err(ErrorCode::ReplicaNotAvailable);
        }
        let target: Vec<Replica> =
            kept.iter().map(|replica| if is_here(replica) { to } else { *replica }).collect();
        if target == kept {
            return Ok(());
        }
        if !context.is_cluster() {
            // A single node's partitions stay on their shards while it runs.
            return Err(ErrorCode::InvalidReplicaAssignment);
        }
        if !image.is_live(to) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let scene = Scene::of(image, context.config, key);
        if let Some(new) = election::reassign(&scene, &old, &target) {
            self.put(key, &old, new);
        }
        Ok(())
    }
}
