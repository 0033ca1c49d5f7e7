//! Requests of people and clients: topics, settings, moves of replicas and leadership, emptying of nodes.

use bytes::Bytes;
use pelton_model::{NodeId, PartitionKey, Replica};

use super::{Batch, ControlEffect, Controller, Planned};
use crate::control::asks::{Answer, Ask, Token};
use crate::control::election;
use crate::control::sweep::Task;
use crate::controller::{self, Refusal, Refused};
use crate::image::{MetadataImage, PartitionImage};
use crate::placement::Placement;
use crate::record::{ConfigResource, MetadataRecord, append_record};

const TOO_LARGE: &str = "The change is too large for one entry of the metadata log; make it in parts.";
/// Partitions that a refusal names.
const NAMED_MAX: usize = 5;

fn refused(refusal: Refusal, text: impl Into<String>) -> Planned {
    Planned::Now(Answer::Refused((refusal, text.into())))
}

fn unknown_partition() -> Planned {
    refused(Refusal::UnknownTopic, "This server does not host this topic-partition.")
}

impl Controller {
    /// Plans what one request asks for.
    pub(super) fn plan(
        &mut self,
        now_ns: u64,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        ask: Ask,
    ) -> Planned {
        match ask {
            Ask::Register { cluster, node } => self.register(image, batch, token, cluster, node),
            Ask::AlterIsr { asker, changes } => self.alter_isr(image, batch, token, asker, changes),
            Ask::ShardRestarted { asker, shard, life, online } => {
                self.shard_restarted(image, batch, token, asker, (shard, life, online))
            }
            Ask::ControlledShutdown { asker } => self.controlled_shutdown(image, batch, token, asker),
            Ask::Shutdown { asker } => self.shutdown(image, batch, token, asker),
            Ask::HandedOver { .. } | Ask::Reclaim { .. } => self.handed_over(image, batch, token, ask),
            Ask::ElectPreferred { key } => self.elect_preferred(now_ns, image, key),
            Ask::ElectUnclean { key, to } => {
                self.change_partition(image, batch, token, ask, key, |scene, old| {
                    election::unclean(scene, old, to)
                })
            }
            Ask::Reassign { key, ref target } => {
                if let Some(target) = target
                    && let Err(refusal) = check_target(image, target)
                {
                    return Planned::Now(Answer::Refused(refusal));
                }
                let target = target.clone();
                self.change_partition(image, batch, token, ask, key, |scene, old| match &target {
                    Some(target) => election::reassign(scene, old, target),
                    None => election::cancel(scene, old),
                })
            }
            Ask::Drain { node, on } => self.want_drain(image, batch, token, node, on),
            Ask::Decommission { node } => self.decommission(image, batch, token, node),
            Ask::Plan { ref request, .. } => {
                batch.closed = true;
                match batch.bytes.is_empty() {
                    true => Planned::ByHost(request.clone()),
                    false => Planned::Later(ask),
                }
            }
            other => self.plan_alone(image, batch, token, other),
        }
    }

    /// The host has planned what [`ControlEffect::Plan`] named: `records` are what it comes to.
    pub fn plan_made(
        &mut self,
        now_ns: u64,
        token: Token,
        records: &[MetadataRecord],
        response: Bytes,
        image: &MetadataImage,
        out: &mut Vec<ControlEffect>,
    ) {
        if self.planning.take_if(|planning| *planning == token).is_none() {
            return;
        }
        let index = image.applied_offset();
        let mut bytes = Vec::new();
        for record in records {
            if let MetadataRecord::Config { resource, name, .. } = record {
                let cleared = self.clear_eligible(image, resource, name);
                cleared.iter().for_each(|record| append_record(&mut bytes, record));
            }
            append_record(&mut bytes, record);
        }
        if bytes.len() > crate::quorum::entry::ENTRY_BYTES_MAX {
            let refused = (Refusal::PolicyViolation, TOO_LARGE.to_string());
            out.push(ControlEffect::Answer(token, Answer::Refused(refused)));
        } else if bytes.is_empty() {
            out.push(ControlEffect::Answer(token, Answer::Planned { index, response }));
        } else {
            self.planned = Some((vec![(token, Answer::Planned { index, response })], false));
            return out.push(ControlEffect::Propose(bytes));
        }
        self.work(now_ns, image, out);
    }

    /// Topics and settings are planned one to a batch: each must see what the one before it led to.
    fn plan_alone(&mut self, image: &MetadataImage, batch: &mut Batch, token: Token, ask: Ask) -> Planned {
        if !batch.bytes.is_empty() {
            batch.closed = true;
            return Planned::Later(ask);
        }
        let planned = match ask {
            Ask::CreateTopic(wish) => {
                let mut placement = Placement::of_cluster(image, self.config.broker.founders);
                controller::create_topic(image, &self.config.broker, &mut self.prng, &mut placement, &wish)
                    .map(|topic| (topic.records, Answer::Topic(topic.id)))
            }
            Ask::DeleteTopic(id) => controller::delete_topic(&self.config.broker, image.topic_by_id(id))
                .map(|records| (records, Answer::Done)),
            Ask::SetConfig { resource, name, value } => {
                let mut records = self.clear_eligible(image, &resource, &name);
                records.push(MetadataRecord::Config { resource, name, value });
                Ok((records, Answer::Done))
            }
            Ask::ProducerIds { count } => {
                let first = image.next_producer_id();
                match first.checked_add(count.max(1)) {
                    Some(next) => {
                        Ok((vec![MetadataRecord::ProducerIds { next }], Answer::ProducerIds(first)))
                    }
                    None => Err((Refusal::PolicyViolation, "All producer ids are used up.".to_string())),
                }
            }
            _ => return Planned::Now(Answer::Done),
        };
        batch.closed = true;
        match planned {
            Ok((records, answer)) => {
                records.iter().for_each(|record| batch.add(record));
                if batch.bytes.len() > crate::quorum::entry::ENTRY_BYTES_MAX {
                    batch.bytes.clear();
                    return refused(Refusal::PolicyViolation, TOO_LARGE);
                }
                batch.answers.push((token, answer));
                Planned::Answered
            }
            Err(refusal) => Planned::Now(Answer::Refused(refusal)),
        }
    }

    /// With another `min.insync.replicas` nobody outside an ISR is known to be complete (rule R10).
    fn clear_eligible(
        &mut self,
        image: &MetadataImage,
        resource: &ConfigResource,
        name: &str,
    ) -> Vec<MetadataRecord> {
        if name != "min.insync.replicas" {
            return Vec::new();
        }
        let of = |key: PartitionKey| match resource {
            ConfigResource::Topic(topic) => {
                image.topic_by_id(key.topic_id).is_some_and(|known| known.name == *topic)
            }
            ConfigResource::Broker(_) => true,
            ConfigResource::Group(_) => false,
        };
        let mut records = Vec::new();
        for (key, partition) in image.partitions_with_elr() {
            self.visits += 1;
            // A partition that has nobody but the eligible keeps them: they are its only hope.
            if partition.isr.is_empty() || !of(key) {
                continue;
            }
            let old = partition.state();
            let mut new = old.clone();
            new.elr.clear();
            new.last_known_elr.clear();
            new.partition_epoch.0 += 1;
            let delta = crate::record::PartitionDelta::between(&old, &new, true);
            records.push(MetadataRecord::PartitionChange { key, delta });
        }
        records
    }

    fn elect_preferred(&mut self, now_ns: u64, image: &MetadataImage, key: PartitionKey) -> Planned {
        let Some(partition) = image.partition(key) else { return unknown_partition() };
        let preferred = partition.replicas.first().copied();
        if partition.leader == preferred {
            return Planned::Now(Answer::Done);
        }
        let mut asked = Vec::new();
        self.ask_transfer(now_ns, image, key, partition, preferred, &mut asked);
        match asked.pop() {
            Some(effect) => Planned::Transfer(effect),
            None => refused(Refusal::InvalidRequest, "The preferred leader is not available."),
        }
    }

    fn change_partition(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        ask: Ask,
        key: PartitionKey,
        change: impl FnOnce(
            &election::Scene<'_>,
            &pelton_model::PartitionState,
        ) -> Option<pelton_model::PartitionState>,
    ) -> Planned {
        let Some(partition) = image.partition(key) else { return unknown_partition() };
        if batch.touched.contains(&key) {
            return Planned::Later(ask);
        }
        let scene = self.scene(image, key);
        let old = partition.state();
        let Some(new) = change(&scene, &old) else {
            return match ask {
                Ask::Reassign { .. } => Planned::Now(Answer::Done),
                _ => refused(Refusal::InvalidRequest, "The replica cannot lead this partition."),
            };
        };
        let released = self.sabotage.always_released || election::leader_is_gone(image, partition);
        batch.change(key, &old, &new, released);
        batch.answers.push((token, Answer::Done));
        Planned::Answered
    }

    fn want_drain(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        node: NodeId,
        on: bool,
    ) -> Planned {
        let Some(known) = image.node(node) else {
            return refused(Refusal::InvalidRequest, format!("Node {} is not registered.", node.0));
        };
        if known.draining == on {
            return Planned::Now(Answer::Done);
        }
        if on && let Some(refusal) = self.would_fall_short(image, node) {
            return Planned::Now(Answer::Refused(refusal));
        }
        if !batch.touched_nodes.insert(node) {
            return Planned::Later(Ask::Drain { node, on });
        }
        let (epoch, draining) = (known.epoch, Some(on));
        batch.add(&MetadataRecord::NodeChange { node, epoch, fenced: None, draining, leaving: None });
        batch.answers.push((token, Answer::Done));
        if on {
            batch.closed = true;
            self.tasks.push_back(Task::drain(node));
        }
        Planned::Answered
    }

    /// Partitions that would have fewer in sync than `min.insync.replicas` without this node (rule R12).
    fn would_fall_short(&mut self, image: &MetadataImage, node: NodeId) -> Option<Refused> {
        let mut short = Vec::new();
        let mut count = 0;
        for (key, partition) in image.partitions_on(node, None) {
            self.visits += 1;
            let stays = partition.isr.iter().filter(|member| member.replica.node != node).count();
            if stays == partition.isr.len() || partition.replicas.len() == 1 {
                continue;
            }
            if stays < self.scene(image, key).min_isr {
                count += 1;
                if short.len() < NAMED_MAX {
                    let name = image.topic_by_id(key.topic_id).map_or("?", |topic| topic.name.as_str());
                    short.push(format!("{name}-{}", key.partition));
                }
            }
        }
        (count > 0).then(|| {
            let text = format!(
                "Without node {} {count} partition(s) would have fewer replicas in sync than min.insync.replicas: {}; \
                 wait until their replicas have caught up.",
                node.0,
                short.join(", ")
            );
            (Refusal::PolicyViolation, text)
        })
    }

    fn decommission(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        node: NodeId,
    ) -> Planned {
        let Some(known) = image.node(node) else {
            return refused(Refusal::InvalidRequest, format!("Node {} is not registered.", node.0));
        };
        if known.leaving {
            return Planned::Now(Answer::Done);
        }
        if !batch.touched_nodes.insert(node) {
            return Planned::Later(Ask::Decommission { node });
        }
        let (epoch, draining, leaving) = (known.epoch, Some(true), Some(true));
        batch.add(&MetadataRecord::NodeChange { node, epoch, fenced: None, draining, leaving });
        batch.answers.push((token, Answer::Done));
        batch.closed = true;
        self.tasks.push_back(Task::drain(node));
        self.tasks.push_back(Task::evacuate(node));
        Planned::Answered
    }
}

/// A target of a reassignment must be places that exist, each once, on different nodes while there are enough.
fn check_target(image: &MetadataImage, target: &[Replica]) -> Result<(), Refused> {
    let refuse = |text: String| Err((Refusal::InvalidReplicaAssignment, text));
    if target.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_string());
    }
    for (at, replica) in target.iter().enumerate() {
        if target[..at].contains(replica) {
            return refuse(format!(
                "The manual partition assignment includes broker {replica} more than once."
            ));
        }
        if image.replica_epoch(*replica).is_none() {
            return refuse(format!(
                "The manual partition assignment includes broker {replica}, but no such broker is registered."
            ));
        }
    }
    if shares_a_node(image, target) {
        return refuse(SHARES_A_NODE.to_string());
    }
    Ok(())
}

/// Why [`shares_a_node`] is refused.
pub const SHARES_A_NODE: &str = "Two replicas of a partition would share a node while others are free.";

/// Two replicas of a partition would be on one node though there are nodes enough (rule R14).
pub fn shares_a_node(image: &MetadataImage, target: &[Replica]) -> bool {
    let unfenced = image.nodes().filter(|node| !node.fenced).count();
    let doubled = target
        .iter()
        .enumerate()
        .any(|(at, replica)| target[..at].iter().any(|other| other.node == replica.node));
    doubled && unfenced >= target.len()
}

impl PartitionImage {
    /// Fewer nodes hold a replica in sync than `min.insync.replicas` asks for: a node's loss is one too many (rule R14).
    pub fn is_colocated(&self, min_isr: usize) -> bool {
        let mut nodes: Vec<NodeId> = self.isr.iter().map(|member| member.replica.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len() < min_isr.min(self.replicas.len())
    }
}
