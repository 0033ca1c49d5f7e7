//! Requests of nodes: to be one, to change an ISR, to hand leadership over, to go.

use std::collections::BTreeSet;

use pelton_model::{NodeEpoch, NodeId, PartitionKey, PartitionState, ShardEpoch, ShardId};

use super::{Batch, Controller, Planned, refuse_all};
use crate::control::asks::{Answer, Ask, Token};
use crate::control::election;
use crate::control::isr::{self, Asker, IsrChange, IsrRefusal};
use crate::control::sweep::Task;
use crate::controller::Refusal;
use crate::image::{MetadataImage, PartitionImage};
use crate::lease::Renewal;
use crate::record::{MetadataRecord, NodeRegistration};

impl Controller {
    /// This life's lease has ended, or its process says that it does nothing more.
    pub(super) fn want_fence(&mut self, node: NodeId, epoch: NodeEpoch) {
        self.sessions.stop(node, epoch);
        let task = Task::fence(node, epoch);
        if !self.tasks.contains(&task) {
            self.tasks.push_front(task);
        }
    }

    /// A fenced node follows the metadata and wants to take part.
    pub(super) fn want_unfence(&mut self, renewal: Renewal) {
        let task = Task::unfence(renewal.node, renewal.epoch);
        // What its former life or its lapse has left behind comes first.
        if !self.tasks.contains(&task) && !self.tasks.iter().any(|task| task.settles(renewal.node)) {
            self.tasks.push_back(Task::suspect(renewal.node));
            self.tasks.push_back(task);
        }
    }

    pub(super) fn register(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        cluster: u64,
        mut node: NodeRegistration,
    ) -> Planned {
        let id = node.node.0;
        let refuse = |text: String| Planned::Now(Answer::Refused((Refusal::InvalidRequest, text)));
        if cluster != self.config.cluster {
            return refuse(format!(
                "node {id} belongs to another cluster; give it the --cluster addresses of its own, or an empty data directory"
            ));
        }
        let double = image.nodes().find(|known| known.directory == node.directory && known.node != node.node);
        if let Some(known) = double {
            return refuse(format!(
                "node {id} runs on the data directory of node {}; give each node a directory of its own",
                known.node.0
            ));
        }
        if let Some(known) = image.node(node.node) {
            if known.directory != node.directory {
                return refuse(format!(
                    "node {id} is registered with another data directory; bring that back, \
                     or decommission node {id} before a new one takes its id"
                ));
            }
            if known.incarnation == node.incarnation {
                return Planned::Now(Answer::Registered(known.epoch));
            }
            // A request that was long under way, of a process that has ended since; or a clone of the machine.
            if node.start <= known.start && !self.sabotage.register_any_life {
                return refuse(format!(
                    "node {id} is registered in a later life of the same data directory; \
                     if two machines run on copies of it, stop one of them"
                ));
            }
            // The same directory is locked by one process at a time: the former one has ended (rule L6).
            let settled = known.fenced && !self.tasks.iter().any(|task| task.settles(node.node));
            if !settled && !self.sabotage.register_unfenced {
                if !known.fenced {
                    self.want_fence(known.node, known.epoch);
                }
                return Planned::Later(Ask::Register { cluster, node });
            }
            (node.draining, node.leaving) = (false, known.leaving);
            // A life that ended before it was unfenced leaves to the next one what it may have lost.
            node.lossy |= known.lossy;
        }
        if batch.touched_nodes.contains(&node.node) {
            return Planned::Later(Ask::Register { cluster, node });
        }
        node.epoch = NodeEpoch(0);
        node.fenced = !self.sabotage.register_unfenced;
        batch.touched_nodes.insert(node.node);
        batch.add(&MetadataRecord::Node(node));
        // Its epoch is the entry's index, filled in when that is known.
        batch.answers.push((token, Answer::Registered(NodeEpoch(0))));
        Planned::Answered
    }

    pub(super) fn alter_isr(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        asker: Asker,
        changes: Vec<IsrChange>,
    ) -> Planned {
        let keys: BTreeSet<PartitionKey> = changes.iter().map(|change| change.key).collect();
        if keys.len() < changes.len() {
            return Planned::Now(refuse_all(changes.len(), IsrRefusal::InvalidRequest));
        }
        if changes.iter().any(|change| batch.touched.contains(&change.key)) {
            return Planned::Later(Ask::AlterIsr { asker, changes });
        }
        let mut results = Vec::new();
        for change in &changes {
            results.push(self.alter_one(image, batch, asker, change));
        }
        batch.answers.push((token, Answer::Isr(results)));
        Planned::Answered
    }

    fn alter_one(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        asker: Asker,
        wanted: &IsrChange,
    ) -> Result<(pelton_model::LeaderEpoch, pelton_model::PartitionEpoch), IsrRefusal> {
        let partition = image.partition(wanted.key).ok_or(IsrRefusal::UnknownPartition)?;
        let scene = self.scene(image, wanted.key);
        let old = partition.state();
        let new = isr::change(&scene, &old, asker, wanted, self.sabotage.isr)?;
        // A reassignment that ends here may take the leadership of someone who does not know it yet.
        batch.change(wanted.key, &old, &new, self.sabotage.always_released);
        Ok((new.leader_epoch, new.partition_epoch))
    }

    pub(super) fn shard_restarted(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        asker: Asker,
        (shard, life, online): (ShardId, ShardEpoch, bool),
    ) -> Planned {
        let known = image.node(asker.node).filter(|node| node.epoch == asker.epoch);
        let Some(now) = known.and_then(|node| node.shards.get(usize::from(shard.0))) else {
            let text = format!("shard {} of node {} is not registered in this life", shard.0, asker.node.0);
            return Planned::Now(Answer::Refused((Refusal::InvalidRequest, text)));
        };
        // Said twice, or late: whoever lives now may have a lease again.
        if now.epoch != life {
            return Planned::Now(Answer::Done);
        }
        if !batch.touched_nodes.insert(asker.node) {
            return Planned::Later(Ask::ShardRestarted { asker, shard, life, online });
        }
        let shard_epoch = ShardEpoch(now.epoch.0 + 1);
        let (node, epoch) = (asker.node, asker.epoch);
        batch.add(&MetadataRecord::ShardChange { node, epoch, shard, shard_epoch, online });
        batch.answers.push((token, Answer::Done));
        batch.closed = true;
        self.tasks.push_back(Task::sweep(Some(node)));
        Planned::Answered
    }

    /// Nothing is refused, as the node stops in any case: what nobody else can lead stays where it is until then.
    pub(super) fn controlled_shutdown(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        asker: Asker,
    ) -> Planned {
        let known = image.node(asker.node).filter(|node| node.epoch == asker.epoch && !node.draining);
        let Some(known) = known else { return Planned::Now(Answer::Done) };
        if !batch.touched_nodes.insert(asker.node) {
            return Planned::Later(Ask::ControlledShutdown { asker });
        }
        let (node, epoch, draining) = (known.node, known.epoch, Some(true));
        batch.add(&MetadataRecord::NodeChange { node, epoch, fenced: None, draining, leaving: None });
        batch.answers.push((token, Answer::Done));
        batch.closed = true;
        self.tasks.push_back(Task::drain(node));
        Planned::Answered
    }

    /// Answered when the node is fenced and nothing counts on it any more: until then its vote may be needed.
    pub(super) fn shutdown(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        asker: Asker,
    ) -> Planned {
        let Some(node) = image.node(asker.node).filter(|node| node.epoch == asker.epoch) else {
            return Planned::Now(Answer::Done);
        };
        if !node.fenced {
            self.want_fence(asker.node, asker.epoch);
        }
        if !node.fenced || self.tasks.iter().any(|task| task.settles(asker.node)) {
            return Planned::Later(Ask::Shutdown { asker });
        }
        // With what this batch takes from it.
        batch.answers.push((token, Answer::Done));
        Planned::Answered
    }

    /// The partition, if the asker leads it in this life and epoch.
    fn led_by(
        image: &MetadataImage,
        asker: Asker,
        key: PartitionKey,
        epoch: pelton_model::PartitionEpoch,
    ) -> Option<&PartitionImage> {
        let registered = image.node(asker.node).is_some_and(|node| node.epoch == asker.epoch);
        image.partition(key).filter(|partition| {
            registered
                && partition.partition_epoch == epoch
                && partition.leader.is_some_and(|leader| leader.node == asker.node)
        })
    }

    pub(super) fn handed_over(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        token: Token,
        ask: Ask,
    ) -> Planned {
        let (asker, key, epoch, to) = match ask {
            Ask::HandedOver { asker, key, partition_epoch, to } => (asker, key, partition_epoch, Some(to)),
            Ask::Reclaim { asker, key, partition_epoch } => (asker, key, partition_epoch, None),
            _ => return Planned::Now(Answer::Done),
        };
        self.transferred(key);
        if batch.touched.contains(&key) {
            return Planned::Later(ask);
        }
        let moved = || "the partition is led otherwise by now".to_string();
        let Some(partition) = Self::led_by(image, asker, key, epoch) else {
            return Planned::Now(Answer::Refused((Refusal::InvalidRequest, moved())));
        };
        let scene = self.scene(image, key);
        let old = partition.state();
        let new = match to {
            Some(to) => {
                election::transferred(&scene, &old, to).map(|new| match election::finish(&scene, &new) {
                    // A reassignment that has waited for this.
                    Some(done) => PartitionState { partition_epoch: new.partition_epoch, ..done },
                    None => new,
                })
            }
            None => {
                let mut new: PartitionState = old.clone();
                new.partition_epoch.0 += 1;
                Some(new)
            }
        };
        let Some(new) = new else {
            let text = "the replica that was to lead may not lead any more".to_string();
            return Planned::Now(Answer::Refused((Refusal::InvalidRequest, text)));
        };
        batch.change(key, &old, &new, true);
        batch.answers.push((token, Answer::Done));
        Planned::Answered
    }
}
