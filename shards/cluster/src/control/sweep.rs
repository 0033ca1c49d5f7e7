//! Work over many partitions: after a node went or came back, to empty one, to bring leadership home. Each is a walk in
//! pieces: a batch takes as much as fits, the walk goes on when it is applied. What concerns a node looks at its partitions.

use pelton_model::{NodeEpoch, NodeId, PartitionKey, Replica};

use super::{BATCH_BYTES, Batch, ControlEffect, Controller};
use crate::control::election;
use crate::image::{MetadataImage, PartitionImage};
use crate::placement::cluster::ClusterPlacement;
use crate::record::MetadataRecord;

/// Partitions looked at in one piece.
const VISITS_MAX: usize = 100_000;
/// A task that waits for others looks again after this, nanoseconds: a look may be at every partition of a node.
const IDLE_NS: u64 = 1_000_000_000;
/// Partitions whose leadership is not at home that are looked at per second.
const BALANCE_VISITS: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A node's lease has ended: it may not lead nor be in sync.
    Fence(NodeEpoch),
    /// A node may take part.
    Unfence(NodeEpoch),
    /// A node may have lost unflushed records.
    Suspect,
    /// Whoever is in sync and does not live any more goes; partitions without a leader get one.
    Sweep,
    /// Leadership goes elsewhere.
    Drain,
    /// Replicas go elsewhere; then the node.
    Evacuate,
}

/// Something to be done piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Task {
    kind: Kind,
    node: Option<NodeId>,
    after: Option<PartitionKey>,
    /// Nothing to do before this instant.
    not_before_ns: u64,
}

impl Task {
    /// A look at all partitions of a node, or at all.
    pub fn sweep(node: Option<NodeId>) -> Task {
        Task { kind: Kind::Sweep, node, after: None, not_before_ns: 0 }
    }
    /// Empties a node of leaders.
    pub fn drain(node: NodeId) -> Task {
        Task { kind: Kind::Drain, node: Some(node), after: None, not_before_ns: 0 }
    }
    /// Empties a node of everything.
    pub fn evacuate(node: NodeId) -> Task {
        Task { kind: Kind::Evacuate, node: Some(node), after: None, not_before_ns: 0 }
    }
    /// Fences a life.
    pub fn fence(node: NodeId, epoch: NodeEpoch) -> Task {
        Task { kind: Kind::Fence(epoch), node: Some(node), after: None, not_before_ns: 0 }
    }
    /// Unfences a life.
    pub fn unfence(node: NodeId, epoch: NodeEpoch) -> Task {
        Task { kind: Kind::Unfence(epoch), node: Some(node), after: None, not_before_ns: 0 }
    }
    /// Marks what a node may have lost.
    pub fn suspect(node: NodeId) -> Task {
        Task { kind: Kind::Suspect, node: Some(node), after: None, not_before_ns: 0 }
    }
    /// A life of this node has yet to leave what it was part of.
    pub fn settles(&self, node: NodeId) -> bool {
        match self.kind {
            Kind::Sweep => self.node.is_none_or(|of| of == node),
            Kind::Fence(_) => self.node == Some(node),
            _ => false,
        }
    }
}

/// How far a task came.
enum Step {
    Done,
    /// It goes on from here.
    More(Option<PartitionKey>),
    /// Enough for now; it goes on from here when there is room.
    Full(Option<PartitionKey>),
    /// Nothing to do now; look again later.
    Idle,
}

impl Controller {
    /// Does as much of the tasks as fits the batch.
    pub(super) fn run_tasks(
        &mut self,
        now_ns: u64,
        image: &MetadataImage,
        batch: &mut Batch,
        out: &mut Vec<ControlEffect>,
    ) {
        let mut waiting = Vec::new();
        for _ in 0..self.tasks.len() {
            if batch.bytes.len() >= BATCH_BYTES {
                break;
            }
            let standing = |task: &Task| matches!(task.kind, Kind::Fence(_) | Kind::Unfence(_));
            // What follows from a node's standing is planned when that is applied.
            if batch.closed && !self.tasks.front().is_some_and(standing) {
                break;
            }
            let Some(task) = self.tasks.pop_front() else { break };
            if now_ns < task.not_before_ns {
                waiting.push(task);
                continue;
            }
            match self.run_task(now_ns, image, batch, task, out) {
                Step::Done => {}
                Step::More(after) => {
                    self.tasks.push_front(Task { after, ..task });
                    break;
                }
                Step::Full(after) => waiting.push(Task { after, ..task }),
                Step::Idle => {
                    waiting.push(Task { after: None, not_before_ns: now_ns + IDLE_NS, ..task });
                }
            }
        }
        self.tasks.extend(waiting);
    }

    fn run_task(
        &mut self,
        now_ns: u64,
        image: &MetadataImage,
        batch: &mut Batch,
        task: Task,
        out: &mut Vec<ControlEffect>,
    ) -> Step {
        let node = task.node.and_then(|node| image.node(node));
        match (task.kind, node) {
            (Kind::Sweep, _) => self.sweep(image, batch, task),
            // The node is gone, or lives another life.
            (_, None) => Step::Done,
            (Kind::Fence(epoch), Some(node)) => {
                if node.epoch == epoch && !node.fenced {
                    self.add_standing(batch, node.node, epoch, true);
                    self.tasks.push_back(Task::sweep(Some(node.node)));
                }
                Step::Done
            }
            (Kind::Unfence(epoch), Some(node)) => {
                if node.epoch == epoch && node.fenced {
                    self.add_standing(batch, node.node, epoch, false);
                    self.sessions.unfenced(now_ns, node.node, epoch, epoch.0);
                    self.tasks.push_back(Task::sweep(Some(node.node)));
                }
                Step::Done
            }
            // A process that ended leaves what it wrote to the page cache; only the power takes that (rule S4).
            (Kind::Suspect, Some(node)) if !node.lossy || self.sabotage.trust_lossy => Step::Done,
            (Kind::Suspect, Some(node)) => self.suspect(image, batch, task, node.node),
            (Kind::Drain, Some(node)) if node.draining => self.drain(now_ns, image, task, node.node, out),
            (Kind::Evacuate, Some(node)) if node.leaving => self.evacuate(image, batch, task, node.node),
            (Kind::Drain | Kind::Evacuate, Some(_)) => Step::Done,
        }
    }

    fn add_standing(&mut self, batch: &mut Batch, node: NodeId, epoch: NodeEpoch, fenced: bool) {
        let fenced = Some(fenced);
        batch.add(&MetadataRecord::NodeChange { node, epoch, fenced, draining: None, leaving: None });
        batch.closed = true;
        batch.settles = true;
    }

    /// Walks over partitions from where the task stopped; `each` says whether to go on to the next.
    fn walk(
        &mut self,
        image: &MetadataImage,
        batch: &mut Batch,
        task: Task,
        each: impl FnMut(&mut Controller, &mut Batch, PartitionKey, &PartitionImage) -> bool,
    ) -> Step {
        match task.node {
            Some(node) => self.visit(image.partitions_on(node, task.after), batch, task.after, each),
            None => self.visit(image.partitions_after(task.after), batch, task.after, each),
        }
    }

    fn visit<'a>(
        &mut self,
        partitions: impl Iterator<Item = (PartitionKey, &'a PartitionImage)>,
        batch: &mut Batch,
        mut after: Option<PartitionKey>,
        mut each: impl FnMut(&mut Controller, &mut Batch, PartitionKey, &PartitionImage) -> bool,
    ) -> Step {
        for (visits, (key, partition)) in partitions.enumerate() {
            if batch.bytes.len() >= BATCH_BYTES || visits >= VISITS_MAX {
                return Step::More(after);
            }
            self.visits += 1;
            if !each(self, batch, key, partition) {
                return Step::Full(after);
            }
            after = Some(key);
        }
        Step::Done
    }

    fn sweep(&mut self, image: &MetadataImage, batch: &mut Batch, task: Task) -> Step {
        self.walk(image, batch, task, |controller, batch, key, partition| {
            let gone = |member: &pelton_model::IsrMember| {
                !image.is_live(member.replica) || image.replica_epoch(member.replica) != Some(member.epoch)
            };
            if partition.leader.is_some() && !partition.isr.iter().any(gone) {
                return true;
            }
            let scene = controller.scene(image, key);
            let old = partition.state();
            let new = election::without(&scene, &old, gone).or_else(|| election::revived(&scene, &old));
            if let Some(new) = new {
                let released =
                    controller.sabotage.always_released || election::leader_is_gone(image, partition);
                batch.settles = true;
                // What this batch changes in another way already is looked at when that is applied.
                return batch.change(key, &old, &new, released);
            }
            true
        })
    }

    fn suspect(&mut self, image: &MetadataImage, batch: &mut Batch, task: Task, node: NodeId) -> Step {
        // Nothing of this may be passed over: the node is unfenced right behind it.
        if !batch.touched.is_empty() {
            return Step::More(task.after);
        }
        self.walk(image, batch, task, |controller, batch, key, partition| {
            let lost = |replica: &Replica| replica.node == node;
            // Of the only replica nobody has more than it has left: whatever was lost, it may lead.
            if !partition.elr().iter().any(lost) || partition.replicas.len() == 1 {
                return true;
            }
            let name = image.topic_by_id(key.topic_id).map(|topic| topic.name.as_str());
            let flushed = name
                .is_some_and(|name| image.topic_config(&controller.config.broker, name).flush_every_append());
            let old = partition.state();
            if !flushed && let Some(new) = election::suspect(&old, lost) {
                batch.change(key, &old, &new, true);
            }
            true
        })
    }

    fn drain(
        &mut self,
        now_ns: u64,
        image: &MetadataImage,
        task: Task,
        node: NodeId,
        out: &mut Vec<ControlEffect>,
    ) -> Step {
        let mut unused = Batch::default();
        let step = self.walk(image, &mut unused, task, |controller, _, key, partition| {
            if partition.leader.is_some_and(|leader| leader.node == node) {
                if controller.transfers.len() >= controller.config.transfers_max {
                    return false;
                }
                controller.ask_transfer(now_ns, image, key, partition, None, out);
            }
            true
        });
        let leads = image.loads_of(node).any(|(_, load)| load.leaders > 0);
        match step {
            // Who still leads is asked again, until nobody does or the node is wanted again.
            Step::Done if leads => Step::Idle,
            other => other,
        }
    }

    /// Asks the leader to hand over to the preferred replica that may lead, if it is not asked already.
    pub(super) fn ask_transfer(
        &mut self,
        now_ns: u64,
        image: &MetadataImage,
        key: PartitionKey,
        partition: &PartitionImage,
        to: Option<Replica>,
        out: &mut Vec<ControlEffect>,
    ) -> bool {
        if self.transfers.len() >= self.config.transfers_max || self.transfers.contains_key(&key) {
            return false;
        }
        let Some(from) = partition.leader else { return false };
        let fits = |replica: &Replica| {
            *replica != from
                && partition.isr_epoch(*replica).is_some()
                && image.is_live(*replica)
                && !image.is_draining(replica.node)
        };
        let chosen = match to {
            Some(to) => Some(to).filter(fits),
            None => partition.replicas.iter().copied().find(fits),
        };
        let Some(to) = chosen else { return false };
        self.transfers.insert(key, now_ns);
        let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch);
        out.push(ControlEffect::AskTransfer { from, key, leader_epoch, partition_epoch, to });
        true
    }

    /// A transfer is through, or nothing came of it. Who empties nodes goes on as soon as many more can begin.
    pub(super) fn transferred(&mut self, key: PartitionKey) {
        if self.transfers.remove(&key).is_none() {
            return;
        }
        let left = self.transfers.len();
        if left == 0 || left == self.config.transfers_max / 2 {
            let drains = self.tasks.iter_mut().filter(|task| task.kind == Kind::Drain);
            drains.for_each(|task| task.not_before_ns = 0);
        }
    }

    /// Reassignments that have reached their target end, or their leaders are asked to hand over first.
    pub(super) fn settle_moves(
        &mut self,
        now_ns: u64,
        image: &MetadataImage,
        batch: &mut Batch,
        out: &mut Vec<ControlEffect>,
    ) {
        while batch.bytes.len() < BATCH_BYTES && !batch.closed {
            let Some(key) = self.moves.pop_first() else { return };
            let Some(partition) = image.partition(key).filter(|partition| partition.reassigning()) else {
                continue;
            };
            self.visits += 1;
            let scene = self.scene(image, key);
            let old = partition.state();
            if let Some(to) = election::successor(&scene, &old) {
                self.ask_transfer(now_ns, image, key, partition, Some(to), out);
            } else if let Some(new) = election::finish(&scene, &old) {
                // What the batch changes otherwise is looked at again when that is applied.
                batch.change(key, &old, &new, election::leader_is_gone(image, partition));
            }
        }
    }

    /// Looks at the reassignments under way again, now and then: a leader may not have handed over.
    pub(super) fn review_moves(&mut self, now_ns: u64, image: &MetadataImage) {
        if now_ns >= self.next_review_ns {
            self.next_review_ns = now_ns + IDLE_NS;
            self.moves.extend(image.reassigning().iter().take(BALANCE_VISITS));
        }
    }

    fn evacuate(&mut self, image: &MetadataImage, batch: &mut Batch, task: Task, node: NodeId) -> Step {
        let founders = self.config.broker.founders;
        let mut room = self.config.moves_max.saturating_sub(image.reassigning().len());
        let mut placement = None;
        let step = self.walk(image, batch, task, |controller, batch, key, partition| {
            if room == 0 {
                return false;
            }
            if partition.reassigning() {
                return true;
            }
            let placement = placement.get_or_insert_with(|| ClusterPlacement::new(image, founders));
            let mut target: Vec<Replica> =
                partition.replicas.iter().copied().filter(|replica| replica.node != node).collect();
            while target.len() < partition.replicas.len() {
                let Some(next) = placement.next(&target) else { return true };
                target.push(next);
            }
            let scene = controller.scene(image, key);
            let old = partition.state();
            if let Some(new) = election::reassign(&scene, &old, &target)
                && batch.change(key, &old, &new, false)
            {
                room -= 1;
            }
            true
        });
        // What the node has, not what this piece of the walk has seen, says whether it is empty.
        let has_any = image.loads_of(node).next().is_some();
        match (step, image.node(node)) {
            (Step::Full(_), _) => Step::Idle,
            (Step::Done, _) if has_any => Step::Idle,
            (Step::Done, Some(known)) if !known.fenced => {
                // Empty: it is as if it had shut down, once its lease has ended or it says so.
                self.sessions.stop(node, known.epoch);
                self.emptied.insert(node);
                Step::Idle
            }
            (Step::Done, Some(_)) => {
                self.emptied.remove(&node);
                batch.add(&MetadataRecord::RemoveNode { node });
                batch.closed = true;
                Step::Done
            }
            (step, _) => step,
        }
    }

    /// Brings leadership home to preferred replicas, a bounded look at a time.
    pub(super) fn balance(&mut self, now_ns: u64, image: &MetadataImage, out: &mut Vec<ControlEffect>) {
        if !self.config.auto_rebalance || now_ns < self.next_balance_ns {
            return;
        }
        self.next_balance_ns = now_ns + 1_000_000_000;
        let mut after = self.balance_after;
        let mut visits = 0;
        for (key, partition) in image.partitions_astray(after).take(BALANCE_VISITS) {
            visits += 1;
            after = Some(key);
            if !partition.reassigning() {
                let preferred = partition.replicas.first().copied();
                self.ask_transfer(now_ns, image, key, partition, preferred, out);
            }
        }
        self.visits += visits as u64;
        self.balance_after = if visits == BALANCE_VISITS { after } else { None };
    }
}
