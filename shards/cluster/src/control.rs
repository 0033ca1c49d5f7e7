//! The controller of a cluster: who lives, who leads what, and every change of metadata. It runs on the leader of the
//! quorum, plans against the applied image, has one batch of changes under way at a time, and answers when it is applied.
//! Nothing it does per tick or heartbeat grows with the number of partitions.

pub mod admin;
pub mod asks;
pub mod election;
pub mod isr;
mod nodes;
pub mod sessions;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pelton_model::{
    BrokerConfig, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, PartitionState, Prng, Replica,
};

use crate::control::asks::{Answer, Ask, Token};
use crate::control::election::Scene;
use crate::control::isr::{IsrRefusal, IsrSabotage};
use crate::control::sessions::{SessionSabotage, Sessions};
use crate::control::sweep::Task;
use crate::image::{MetadataImage, Touched};
use crate::lease::{Grant, LeaseConfig, Renewal};
use crate::record::{MetadataRecord, PartitionDelta, append_record};

/// How the controller works.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The cluster, as a number of its id.
    pub cluster: u64,
    /// Leases.
    pub lease: LeaseConfig,
    /// Defaults of topics, and their limits.
    pub broker: BrokerConfig,
    /// Most transfers of leadership under way.
    pub transfers_max: usize,
    /// Most partitions whose replicas the controller moves at the same time when it empties a node.
    pub moves_max: usize,
    /// A transfer that nothing came of is forgotten after this, milliseconds.
    pub transfer_timeout_ms: u64,
    /// Leadership goes back to preferred replicas by itself (`auto.leader.rebalance.enable`).
    pub auto_rebalance: bool,
}

impl ControlConfig {
    /// By default.
    pub fn new(cluster: u64, broker: BrokerConfig) -> ControlConfig {
        ControlConfig {
            cluster,
            lease: LeaseConfig::default(),
            broker,
            transfers_max: 100,
            moves_max: 50,
            transfer_timeout_ms: 1000,
            auto_rebalance: true,
        }
    }
}

/// Faults on purpose: each must be caught by the simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ControlSabotage {
    /// Of leases.
    pub sessions: SessionSabotage,
    /// Of changes of an ISR.
    pub isr: IsrSabotage,
    /// Elections of whoever is alive.
    pub elect_anyone: bool,
    /// A life is registered though a later one is.
    pub register_any_life: bool,
    /// A new life is registered while the old one is not fenced.
    pub register_unfenced: bool,
    /// A node that was fenced gets a lease again before it has seen what it lost.
    pub unfence_unseen: bool,
    /// Every change of leader says that the old one is gone.
    pub always_released: bool,
    /// A node that may have lost what was not flushed is trusted with all it had acknowledged.
    pub trust_lossy: bool,
}

/// What follows, to be done in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlEffect {
    /// Propose this to the quorum; then [`Controller::proposed`].
    Propose(Vec<u8>),
    /// Ask a majority, see [`crate::quorum::Quorum::confirm`].
    Confirm(u64),
    /// A lease.
    Grant(NodeId, Grant),
    /// This life is none of the cluster's.
    Unknown(NodeId, NodeEpoch),
    /// An answer.
    Answer(Token, Answer),
    /// Plan this against the applied image; then [`Controller::plan_made`], before anything else.
    Plan(Token, Bytes),
    /// Ask the leader to hand over (rule R12).
    AskTransfer {
        /// The leader.
        from: Replica,
        /// The partition.
        key: PartitionKey,
        /// Its leadership.
        leader_epoch: LeaderEpoch,
        /// Its state.
        partition_epoch: PartitionEpoch,
        /// Who shall lead.
        to: Replica,
    },
}

struct InFlight {
    index: u64,
    answers: Vec<(Token, Answer)>,
    settles: bool,
}

/// A batch being planned: changes of which no two concern the same thing.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    touched: BTreeSet<PartitionKey>,
    touched_nodes: BTreeSet<NodeId>,
    answers: Vec<(Token, Answer)>,
    /// It must stay alone: what follows is planned when it is applied.
    closed: bool,
    /// It takes something away from nodes that do not live.
    settles: bool,
}

/// A batch is proposed when it has come to this, bytes; with one more record it still fits an entry.
const BATCH_BYTES: usize = 160 * 1024;
/// Requests that may wait for the controller.
const QUEUE_MAX: usize = 10_000;

/// The controller, for one term.
pub struct Controller {
    config: ControlConfig,
    term: u64,
    /// Everything of earlier terms is applied: the image is what this controller decides on.
    ready: bool,
    sessions: Sessions,
    queue: VecDeque<(Token, Ask)>,
    tasks: VecDeque<Task>,
    in_flight: Option<InFlight>,
    planned: Option<(Vec<(Token, Answer)>, bool)>,
    /// What the host plans at this moment.
    planning: Option<Token>,
    /// Index of the last change that took something away from a node because it was fenced. Before such a node gets a
    /// lease again, it must have seen that.
    settled: u64,
    transfers: BTreeMap<PartitionKey, u64>,
    /// Nodes that leave and have nothing any more: they get no lease again.
    emptied: BTreeSet<NodeId>,
    /// Reassignments to look at: they may have reached their target.
    moves: BTreeSet<PartitionKey>,
    next_review_ns: u64,
    next_balance_ns: u64,
    balance_after: Option<PartitionKey>,
    visits: u64,
    min_isr: BTreeMap<pelton_model::TopicId, usize>,
    prng: Prng,
    sabotage: ControlSabotage,
}

impl Controller {
    /// Of a member that has just become the leader of `term`; no earlier one was confirmed to be it after `since_ns`.
    pub fn new(
        config: ControlConfig,
        term: u64,
        since_ns: u64,
        seed: u64,
        sabotage: ControlSabotage,
    ) -> Controller {
        let mut sessions = Sessions::new(config.lease, since_ns, term << 24);
        sessions.sabotage = sabotage.sessions;
        Controller {
            config,
            term,
            ready: false,
            sessions,
            queue: VecDeque::new(),
            tasks: VecDeque::new(),
            in_flight: None,
            planned: None,
            planning: None,
            settled: 0,
            transfers: BTreeMap::new(),
            emptied: BTreeSet::new(),
            moves: BTreeSet::new(),
            next_review_ns: 0,
            next_balance_ns: 0,
            balance_after: None,
            visits: 0,
            min_isr: BTreeMap::new(),
            prng: Prng::new(seed),
            sabotage,
        }
    }

    /// Decides already.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Nothing is under way or waits.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.queue.is_empty() && self.tasks.is_empty()
    }

    /// Partitions looked at so far, for whatever reason but a request that names them: what must not grow with time alone.
    pub fn visits(&self) -> u64 {
        self.visits
    }

    /// A request.
    pub fn ask(&mut self, token: Token, ask: Ask, out: &mut Vec<ControlEffect>) {
        if self.queue.len() >= QUEUE_MAX {
            out.push(ControlEffect::Answer(token, Answer::NotController));
            return;
        }
        self.queue.push_back((token, ask));
    }

    /// A node asks for its lease.
    pub fn renew(&mut self, renewal: Renewal, image: &MetadataImage, out: &mut Vec<ControlEffect>) {
        if !self.ready || self.emptied.contains(&renewal.node) {
            return;
        }
        match image.node(renewal.node) {
            Some(node) if node.epoch == renewal.epoch && !node.fenced => self.sessions.renew(renewal),
            // It has seen its own registration, and what was taken away from it: it may take part.
            Some(node) if node.epoch == renewal.epoch => {
                let settling = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.settles);
                let seen = renewal.applied >= node.epoch.0 && renewal.applied >= self.settled && !settling;
                if seen || self.sabotage.unfence_unseen {
                    self.want_unfence(renewal);
                }
            }
            _ => out.push(ControlEffect::Unknown(renewal.node, renewal.epoch)),
        }
    }

    /// The quorum has confirmed a round.
    pub fn confirmed(
        &mut self,
        now_ns: u64,
        round: u64,
        image: &MetadataImage,
        out: &mut Vec<ControlEffect>,
    ) {
        if self.ready {
            let grants = self.sessions.confirmed(now_ns, round, image);
            out.extend(grants.into_iter().map(|(node, grant)| ControlEffect::Grant(node, grant)));
        }
    }

    /// An entry is applied.
    pub fn applied(
        &mut self,
        now_ns: u64,
        index: u64,
        term: u64,
        touched: &Touched,
        image: &MetadataImage,
        out: &mut Vec<ControlEffect>,
    ) {
        if touched.all_topics {
            self.min_isr.clear();
        }
        touched.topics.iter().for_each(|id| {
            self.min_isr.remove(id);
        });
        self.moves.extend(touched.partitions.iter().filter(|key| image.reassigning().contains(key)));
        if term == self.term && !self.ready {
            self.ready = true;
            self.settled = index;
            self.begin(image);
        }
        if let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.index <= index) {
            if in_flight.settles {
                self.settled = in_flight.index;
            }
            for (token, answer) in in_flight.answers {
                let answer = match answer {
                    Answer::Registered(_) => Answer::Registered(NodeEpoch(in_flight.index)),
                    Answer::Planned { response, .. } => Answer::Planned { index: in_flight.index, response },
                    other => other,
                };
                out.push(ControlEffect::Answer(token, answer));
            }
        }
        self.work(now_ns, image, out);
    }

    /// What was to be proposed has this index, or (none) was refused.
    pub fn proposed(&mut self, index: Option<u64>, out: &mut Vec<ControlEffect>) {
        let (answers, settles) = self.planned.take().unwrap_or_default();
        match index {
            Some(index) => self.in_flight = Some(InFlight { index, answers, settles }),
            None => {
                let lost = answers.into_iter().map(|(token, _)| (token, Answer::NotController));
                out.extend(lost.map(|(token, answer)| ControlEffect::Answer(token, answer)));
                // What the batch would have done is found again by a look at everything.
                self.tasks.push_back(Task::sweep(None));
            }
        }
    }

    /// A tick has passed.
    pub fn tick(&mut self, now_ns: u64, image: &MetadataImage, out: &mut Vec<ControlEffect>) {
        if !self.ready {
            return;
        }
        for (node, epoch) in self.sessions.expired(now_ns, image) {
            self.want_fence(node, epoch);
        }
        if let Some(round) = self.sessions.next_round() {
            out.push(ControlEffect::Confirm(round));
        }
        let timeout_ns = self.config.transfer_timeout_ms * 1_000_000;
        self.transfers.retain(|_, asked_ns| now_ns < *asked_ns + timeout_ns);
        self.balance(now_ns, image, out);
        self.review_moves(now_ns, image);
        self.work(now_ns, image, out);
    }

    /// The controller is none any more: whoever waits must ask another.
    pub fn end(mut self, out: &mut Vec<ControlEffect>) {
        let waiting = self.queue.drain(..).map(|(token, _)| token);
        let under_way = self.in_flight.take().into_iter().flat_map(|in_flight| in_flight.answers);
        let planned = self.planned.take().into_iter().flat_map(|(answers, _)| answers);
        let waiting = waiting.chain(self.planning);
        let tokens: Vec<Token> = waiting.chain(under_way.chain(planned).map(|(token, _)| token)).collect();
        out.extend(tokens.into_iter().map(|token| ControlEffect::Answer(token, Answer::NotController)));
    }

    /// What a new controller has to look at once: its predecessor may have stopped in the middle of anything.
    fn begin(&mut self, image: &MetadataImage) {
        self.tasks.push_back(Task::sweep(None));
        for node in image.nodes() {
            if node.leaving {
                self.tasks.push_back(Task::evacuate(node.node));
            }
            if node.draining {
                self.tasks.push_back(Task::drain(node.node));
            }
        }
    }

    /// Plans the next batch if none is under way.
    pub fn work(&mut self, now_ns: u64, image: &MetadataImage, out: &mut Vec<ControlEffect>) {
        let busy = self.in_flight.is_some() || self.planned.is_some() || self.planning.is_some();
        if !self.ready || busy {
            return;
        }
        let mut batch = Batch::default();
        self.run_tasks(now_ns, image, &mut batch, out);
        self.settle_moves(now_ns, image, &mut batch, out);
        let mut later = VecDeque::new();
        while batch.bytes.len() < BATCH_BYTES && !batch.closed {
            let Some((token, ask)) = self.queue.pop_front() else { break };
            match self.plan(now_ns, image, &mut batch, token, ask) {
                Planned::Answered => {}
                Planned::Now(answer) => out.push(ControlEffect::Answer(token, answer)),
                Planned::Later(ask) => later.push_back((token, ask)),
                Planned::Transfer(effect) => {
                    out.push(effect);
                    out.push(ControlEffect::Answer(token, Answer::Done));
                }
                Planned::ByHost(request) => {
                    self.planning = Some(token);
                    out.push(ControlEffect::Plan(token, request));
                }
            }
        }
        if batch.bytes.is_empty() && !later.is_empty() {
            // What they wait for may have become a task only now.
            self.run_tasks(now_ns, image, &mut batch, out);
        }
        later.append(&mut self.queue);
        self.queue = later;
        if batch.bytes.is_empty() {
            out.extend(batch.answers.into_iter().map(|(token, answer)| ControlEffect::Answer(token, answer)));
        } else {
            self.planned = Some((batch.answers, batch.settles));
            out.push(ControlEffect::Propose(batch.bytes));
        }
    }

    fn scene<'a>(&mut self, image: &'a MetadataImage, key: PartitionKey) -> Scene<'a> {
        let elect_anyone = self.sabotage.elect_anyone;
        let broker = &self.config.broker;
        let min_isr =
            *self.min_isr.entry(key.topic_id).or_insert_with(|| Scene::of(image, broker, key).min_isr);
        Scene { image, min_isr, elect_anyone }
    }
}

/// What became of a request.
enum Planned {
    /// Its answer goes with the batch.
    Answered,
    /// Nothing has to change.
    Now(Answer),
    /// It has to wait for what is under way.
    Later(Ask),
    /// Someone else has to act first.
    Transfer(ControlEffect),
    /// The host of the controller has to say what follows.
    ByHost(Bytes),
}

impl Batch {
    fn add(&mut self, record: &MetadataRecord) {
        append_record(&mut self.bytes, record);
    }

    /// Adds the change of one partition; false if the batch has one already.
    fn change(
        &mut self,
        key: PartitionKey,
        old: &PartitionState,
        new: &PartitionState,
        released: bool,
    ) -> bool {
        if !self.touched.insert(key) {
            return false;
        }
        self.add(&MetadataRecord::PartitionChange {
            key,
            delta: PartitionDelta::between(old, new, released),
        });
        true
    }
}

/// An answer to each of many, all the same.
fn refuse_all(count: usize, why: IsrRefusal) -> Answer {
    Answer::Isr(vec![Err(why); count])
}

#[cfg(test)]
mod tests;
