//! One node's part in the cluster: its member of the quorum, its image of the metadata, its lease, and, while it leads the
//! quorum, the controller. Events in, effects out; the shard that hosts it performs them.

mod members;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_model::{LeaderEpoch, NodeId, PartitionEpoch, PartitionKey, Prng, Replica};

use crate::control::asks::{Answer, Ask, Token};
use crate::control::{ControlConfig, ControlEffect, ControlSabotage, Controller};
use crate::image::{MetadataImage, Touched};
use crate::lease::LeaseKeeper;
use crate::node_message::{self, NodeMessage};
use crate::quorum::guard::Refused;
use crate::quorum::journal::Restored;
use crate::quorum::{Quorum, QuorumConfig, QuorumEffect, QuorumSabotage, Role};
use crate::record::{MetadataRecord, NodeRegistration, decode_records};
use seen::Seen;

/// What a member is made from.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// The quorum.
    pub quorum: QuorumConfig,
    /// The controller, while this node is it.
    pub control: ControlConfig,
    /// What this node registers as; its epoch is 0.
    pub registration: NodeRegistration,
    /// Whom to ask for the controller while it is not known: the nodes of `--cluster`.
    pub seeds: Vec<NodeId>,
    /// A tick, milliseconds.
    pub tick_ms: u64,
}

/// What follows from an event, to be done in order.
#[derive(Clone, Debug)]
pub enum MemberEffect {
    /// Send; may be lost.
    Send {
        /// To this node.
        to: NodeId,
        /// This.
        frame: Bytes,
    },
    /// Write to stable storage in order; then [`Member::persisted`].
    Persist {
        /// Names it.
        number: u64,
        /// The records.
        records: Vec<Bytes>,
    },
    /// The image has changed by the entry of this index.
    Changed {
        /// The entry.
        index: u64,
        /// Its records, as [`decode_records`] reads them.
        payload: Bytes,
        /// What is other now.
        touched: Touched,
    },
    /// The image is another one: look at everything.
    Replaced,
    /// An answer to [`Member::ask`]. One with a token that nobody waits for is to be ignored.
    Answer(Token, Answer),
    /// Plan this against the image as all effects before have left it, then [`Member::plan_made`].
    Plan(Token, Bytes),
    /// The controller wants this node to hand a leadership over.
    TransferAsked {
        /// The partition.
        key: PartitionKey,
        /// Its leadership.
        leader_epoch: LeaderEpoch,
        /// Its state.
        partition_epoch: PartitionEpoch,
        /// Who shall lead.
        to: Replica,
    },
    /// This node cannot go on as a part of the cluster, and why.
    Failed(String),
}

#[derive(Clone, Copy)]
enum Origin {
    Here(Token),
    There(NodeId, Token),
}

/// The token of this node's own registration.
const REGISTER: Token = u64::MAX;

/// For so long a disk may only be slower than others', nanoseconds.
const SLOW_NS: u64 = 50_000_000;
/// With a full disk, and metadata that the others have committed and this node has not on its own disk for so long, it asks for no
/// lease, nanoseconds.
const STANDS_STILL_NS: u64 = 500_000_000;

/// One node's part.
pub struct Member {
    config: MemberConfig,
    /// Its member of the quorum.
    pub quorum: Quorum,
    image: MetadataImage,
    controller: Option<Controller>,
    keeper: LeaseKeeper,
    prng: Prng,
    origins: BTreeMap<Token, Origin>,
    seen: Seen,
    next_token: Token,
    /// Partitions that nobody may serve before the change of this index is released (rule L7).
    waits: BTreeMap<PartitionKey, u64>,
    /// As [`Member::waits`], for everything the image began with.
    wait_floor: u64,
    /// All shards of the node follow the metadata up to here.
    followed: u64,
    next_tick_ns: u64,
    next_register_ns: u64,
    hint: Option<NodeId>,
    /// Nodes and members may not be the same any more.
    members_differ: bool,
    sabotage: ControlSabotage,
    failed: bool,
    /// Effects of the quorum that are still to be performed, in order.
    due: VecDeque<QuorumEffect>,
    performing: bool,
    /// The node stops: it asks for no lease and no registration any more.
    leaving: bool,
    /// The disk is full, and the metadata stand still since then, nanoseconds.
    still_since_ns: Option<u64>,
}

impl Member {
    /// From what the disk holds.
    pub fn new(config: MemberConfig, restored: Restored, seed: u64) -> Result<Member, String> {
        let image = MetadataImage::from_snapshot(&restored.snapshot.data);
        let image = image.map_err(|error| error.to_string())?.indexed();
        let wait_floor = restored.snapshot.index;
        let quorum = QuorumConfig { tick_ms: config.tick_ms, ..config.quorum.clone() };
        let quorum = Quorum::new(quorum, restored, seed).map_err(|error| error.to_string())?;
        Ok(Member {
            keeper: LeaseKeeper::new(config.control.lease, config.quorum.node),
            config,
            quorum,
            image,
            controller: None,
            prng: Prng::new(seed),
            origins: BTreeMap::new(),
            seen: Seen::default(),
            next_token: 0,
            waits: BTreeMap::new(),
            wait_floor,
            followed: u64::MAX,
            next_tick_ns: 0,
            next_register_ns: 0,
            hint: None,
            members_differ: true,
            sabotage: ControlSabotage::default(),
            failed: false,
            due: VecDeque::new(),
            performing: false,
            leaving: false,
            still_since_ns: None,
        })
    }

    /// Faults on purpose, for tests.
    pub fn set_sabotage(&mut self, control: ControlSabotage, quorum: QuorumSabotage) {
        self.sabotage = control;
        self.quorum.sabotage = quorum;
    }

    /// The metadata as far as this node has them.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The lease of this node.
    pub fn lease(&self) -> &LeaseKeeper {
        &self.keeper
    }

    /// The lease, for faults on purpose.
    pub fn lease_mut(&mut self) -> &mut LeaseKeeper {
        &mut self.keeper
    }

    /// This node is the controller, and decides.
    pub fn controller(&self) -> Option<&Controller> {
        self.controller.as_ref().filter(|controller| controller.is_ready())
    }

    fn node(&self) -> NodeId {
        self.config.quorum.node
    }

    /// This node may acknowledge, move the high watermark and serve reads of the partition at this instant (rules L3, L7),
    /// as far as its lease and the metadata are concerned.
    pub fn may_serve(&self, now_ns: u64, key: PartitionKey) -> bool {
        let Some(partition) = self.image.partition(key) else { return false };
        let Some(leader) = partition.leader.filter(|leader| leader.node == self.node()) else { return false };
        // It leads in the life that was elected, not in a later one that has yet to be told what it lost.
        let life = self.image.replica_epoch(leader);
        let lives = life.is_some_and(|life| Some(life.node_epoch) == self.keeper.epoch())
            && partition.isr_epoch(leader) == life;
        lives && self.keeper.holds(now_ns) && self.is_released(key)
    }

    /// Nobody uses the leadership that this node has of the partition any more.
    pub fn is_released(&self, key: PartitionKey) -> bool {
        let released = self.keeper.released();
        self.wait_floor <= released && self.waits.get(&key).is_none_or(|index| *index <= released)
    }

    /// Time has passed.
    pub fn advance(&mut self, now_ns: u64, out: &mut Vec<MemberEffect>) {
        if now_ns < self.next_tick_ns || self.failed {
            return;
        }
        self.next_tick_ns = now_ns + self.config.tick_ms * 1_000_000;
        let mut effects = Vec::new();
        self.quorum.tick(&mut effects);
        self.perform(now_ns, effects, out);
        self.control(now_ns, out, |controller, image, out| controller.tick(now_ns, image, out));
        self.reconcile_members(now_ns, out);
        let released = self.keeper.released();
        self.waits.retain(|_, index| *index > released);
        let me = self.node();
        let waits = |key: &PartitionKey| self.image.leader(*key).is_some_and(|leader| leader.node == me);
        if self.waits.keys().any(waits) || self.wait_floor > released {
            self.keeper.hurry();
        }
        let stands_still = self.still_since_ns.is_some_and(|since| now_ns >= since + STANDS_STILL_NS);
        if self.leaving || stands_still {
            return;
        }
        if self.keeper.epoch().is_none() {
            self.register(now_ns, out);
        } else if let Some(renewal) = self.keeper.poll(now_ns, self.followed.min(self.image.applied_offset()))
        {
            match self.leader() {
                Some(leader) if leader == self.node() => {
                    self.control(now_ns, out, |controller, image, out| controller.renew(renewal, image, out));
                }
                Some(leader) => self.send(leader, &NodeMessage::Renew(renewal), out),
                None => {}
            }
        }
    }

    fn register(&mut self, now_ns: u64, out: &mut Vec<MemberEffect>) {
        if now_ns < self.next_register_ns {
            return;
        }
        self.next_register_ns = now_ns + self.config.control.lease.renew_ms * 1_000_000;
        let ask =
            Ask::Register { cluster: self.config.quorum.cluster, node: self.config.registration.clone() };
        let seeds = &self.config.seeds;
        let to = self.leader().or_else(|| self.hint.take()).or_else(|| {
            let at = self.prng.below(seeds.len() as u64) as usize;
            seeds.get(at).copied()
        });
        match to {
            Some(to) if to == self.node() => self.take_ask(now_ns, Origin::Here(REGISTER), ask, out),
            Some(to) => self.send(to, &NodeMessage::Ask(self.outside(REGISTER), ask), out),
            None => {}
        }
    }

    /// A token as it goes over the wire and comes back: other in each life of the node, so that an answer to a former life
    /// is none to this one.
    fn outside(&self, token: Token) -> Token {
        token
            ^ self.config.registration.incarnation.as_u64_pair().1.rotate_left(32)
            ^ self.config.registration.start
    }

    /// The node that leads the quorum, as far as this one knows.
    pub fn leader(&self) -> Option<NodeId> {
        match self.quorum.role() {
            Role::Leader { .. } => Some(self.node()),
            Role::Follower { leader } => leader,
        }
    }

    /// A frame has come, over a connection whose other end has proven to be `proven`. One that says to be of another node is
    /// refused, whatever it says.
    pub fn receive(
        &mut self,
        now_ns: u64,
        proven: NodeId,
        frame: &[u8],
        out: &mut Vec<MemberEffect>,
    ) -> Result<NodeId, Refused> {
        if self.failed {
            return Err(Refused::Malformed);
        }
        if !node_message::is_ours(frame) {
            let mut effects = Vec::new();
            let from = self.quorum.receive(proven, frame, &mut effects)?;
            self.perform(now_ns, effects, out);
            return Ok(from);
        }
        let (cluster, from, to, message) = node_message::decode(frame).map_err(|_| Refused::Malformed)?;
        if cluster != self.config.quorum.cluster {
            return Err(Refused::OtherCluster);
        }
        if from != proven {
            return Err(Refused::OtherSender { says: from, is: proven });
        }
        if to != self.node() || from == to {
            return Err(Refused::OtherNode);
        }
        self.take(now_ns, from, message, out)?;
        Ok(from)
    }

    fn take(
        &mut self,
        now_ns: u64,
        from: NodeId,
        message: NodeMessage,
        out: &mut Vec<MemberEffect>,
    ) -> Result<(), Refused> {
        match message {
            NodeMessage::Renew(renewal) => {
                self.control(now_ns, out, |controller, image, out| controller.renew(renewal, image, out));
            }
            NodeMessage::Grant(grant) => self.keeper.granted(now_ns, grant),
            NodeMessage::Unknown(epoch) => {
                if self.keeper.epoch() == Some(epoch) {
                    self.keeper.lost();
                }
            }
            NodeMessage::Ask(token, ask) => {
                if node_message::asker_of(&ask) != Some(from) {
                    return Err(Refused::Malformed);
                }
                let once = matches!(ask, Ask::Plan { .. });
                if !once || self.seen.is_first(from, token) {
                    self.take_ask(now_ns, Origin::There(from, token), ask, out);
                }
            }
            NodeMessage::Answer(token, answer, leader) => {
                self.hint = leader;
                self.answered(Origin::Here(self.outside(token)), answer, out);
            }
            NodeMessage::AskTransfer { key, leader_epoch, partition_epoch, to } => {
                out.push(MemberEffect::TransferAsked { key, leader_epoch, partition_epoch, to });
            }
        }
        Ok(())
    }

    /// Asks the controller, wherever it is. The answer may be lost: ask again, nothing happens twice that must not.
    pub fn ask(&mut self, now_ns: u64, token: Token, ask: Ask, out: &mut Vec<MemberEffect>) {
        match self.leader() {
            Some(leader) if leader == self.node() => self.take_ask(now_ns, Origin::Here(token), ask, out),
            Some(leader) => self.send(leader, &NodeMessage::Ask(self.outside(token), ask), out),
            None => out.push(MemberEffect::Answer(token, Answer::NotController)),
        }
    }

    fn take_ask(&mut self, now_ns: u64, origin: Origin, ask: Ask, out: &mut Vec<MemberEffect>) {
        if self.controller().is_none() {
            self.answered(origin, Answer::NotController, out);
            return;
        }
        self.next_token += 1;
        let token = self.next_token;
        self.origins.insert(token, origin);
        self.control(now_ns, out, |controller, image, out| {
            controller.ask(token, ask, out);
            controller.work(now_ns, image, out);
        });
    }

    fn answered(&mut self, origin: Origin, answer: Answer, out: &mut Vec<MemberEffect>) {
        match origin {
            Origin::There(node, token) => {
                let leader = self.leader().filter(|_| answer == Answer::NotController);
                self.send(node, &NodeMessage::Answer(token, answer, leader), out);
            }
            Origin::Here(REGISTER) => match answer {
                Answer::Registered(epoch) => self.keeper.registered(epoch),
                Answer::Refused((_, text)) => out.push(MemberEffect::Failed(text)),
                _ => {}
            },
            Origin::Here(token) => out.push(MemberEffect::Answer(token, answer)),
        }
    }

    fn send(&self, to: NodeId, message: &NodeMessage, out: &mut Vec<MemberEffect>) {
        if let Some(frame) = node_message::encode(self.config.quorum.cluster, self.node(), to, message) {
            out.push(MemberEffect::Send { to, frame });
        }
    }

    /// All shards of this node follow the metadata up to `index`. Unless this is ever said, they follow at once.
    pub fn shards_follow(&mut self, index: u64) {
        self.followed = index;
    }

    /// What became of [`MemberEffect::Plan`].
    pub fn plan_made(
        &mut self,
        now_ns: u64,
        token: Token,
        records: &[MetadataRecord],
        response: Bytes,
        out: &mut Vec<MemberEffect>,
    ) {
        self.control(now_ns, out, |controller, image, out| {
            controller.plan_made(now_ns, token, records, response, image, out);
        });
    }

    /// Everything up to the persist of this number is on stable storage.
    pub fn persisted(&mut self, now_ns: u64, number: u64, out: &mut Vec<MemberEffect>) {
        let mut effects = Vec::new();
        self.quorum.persisted(number, &mut effects);
        self.perform(now_ns, effects, out);
    }

    /// Everything this node has of the metadata, for a checkpoint.
    pub fn checkpoint(&self) -> Vec<u8> {
        self.quorum.checkpoint(Bytes::from(self.image.snapshot()))
    }

    fn perform(&mut self, now_ns: u64, effects: Vec<QuorumEffect>, out: &mut Vec<MemberEffect>) {
        // What an effect leads to comes behind all before it: no entry may be written before its predecessor.
        self.due.extend(effects);
        let nested = std::mem::replace(&mut self.performing, true);
        while !nested && let Some(effect) = self.due.pop_front() {
            match effect {
                QuorumEffect::Send { to, frame } => out.push(MemberEffect::Send { to, frame }),
                QuorumEffect::Persist { number, records } => {
                    out.push(MemberEffect::Persist { number, records });
                }
                QuorumEffect::Apply { index, term, payload } => {
                    self.apply(now_ns, index, term, payload, out);
                }
                QuorumEffect::Install { index, data } => match MetadataImage::from_snapshot(&data) {
                    Ok(image) => {
                        self.image = image.indexed();
                        self.image.advance_to(index);
                        self.wait_floor = index;
                        self.waits.clear();
                        self.expect_directories();
                        out.push(MemberEffect::Replaced);
                    }
                    Err(error) => self.fail(error.to_string(), out),
                },
                QuorumEffect::Role(role) => self.role(now_ns, role, out),
                QuorumEffect::Confirmed { round } => {
                    self.control(now_ns, out, |controller, image, out| {
                        controller.confirmed(now_ns, round, image, out);
                    });
                }
                QuorumEffect::Members => self.members_differ = true,
                QuorumEffect::SnapshotWanted => {
                    self.quorum.offer_snapshot(Bytes::from(self.image.snapshot()));
                }
            }
        }
        self.performing = nested;
    }

    fn fail(&mut self, why: String, out: &mut Vec<MemberEffect>) {
        self.failed = true;
        out.push(MemberEffect::Failed(why));
    }

    fn expect_directories(&mut self) {
        for node in self.image.nodes() {
            self.quorum.expect_directory(node.node, directory_number(node.directory));
        }
    }

    fn apply(&mut self, now_ns: u64, index: u64, term: u64, payload: Bytes, out: &mut Vec<MemberEffect>) {
        let records = match decode_records(&payload) {
            Ok(records) => records,
            Err(error) => return self.fail(format!("entry {index} of the metadata log: {error}"), out),
        };
        let touched = self.image.apply(index, &records);
        let me = self.node();
        for change in &touched.leaders {
            // Whoever leads next, and whoever after that: all must wait for the one who may not know yet.
            if !change.released {
                self.waits.insert(change.key, index);
            }
            if change.before.is_some_and(|before| before.node == me) {
                self.keeper.hurry();
            }
        }
        if !touched.nodes.is_empty() {
            self.members_differ = true;
            self.expect_directories();
        }
        // Whoever is told that it is done must find it done.
        let mut after = Vec::new();
        self.control(now_ns, &mut after, |controller, image, out| {
            controller.applied(now_ns, index, term, &touched, image, out);
        });
        out.push(MemberEffect::Changed { index, payload, touched });
        out.append(&mut after);
    }

    fn role(&mut self, now_ns: u64, role: Role, out: &mut Vec<MemberEffect>) {
        if let Some(controller) = self.controller.take() {
            let mut effects = Vec::new();
            controller.end(&mut effects);
            self.control_effects(now_ns, effects, out);
        }
        if let Role::Leader { term } = role {
            let (config, seed) = (self.config.control.clone(), self.prng.next_u64());
            let since_ns = self.quorum.confirmed_before(now_ns, config.lease.wait_ns() / 2);
            self.controller = Some(Controller::new(config, term, since_ns, seed, self.sabotage));
        }
        self.members_differ = true;
        // Whoever leads now has no lease of this node's yet.
        self.keeper.hurry();
    }

    fn control(
        &mut self,
        now_ns: u64,
        out: &mut Vec<MemberEffect>,
        call: impl FnOnce(&mut Controller, &MetadataImage, &mut Vec<ControlEffect>),
    ) {
        let Some(controller) = &mut self.controller else { return };
        let mut effects = Vec::new();
        call(controller, &self.image, &mut effects);
        self.control_effects(now_ns, effects, out);
    }

    fn control_effects(&mut self, now_ns: u64, effects: Vec<ControlEffect>, out: &mut Vec<MemberEffect>) {
        for effect in effects {
            match effect {
                ControlEffect::Propose(payload) => {
                    let mut after = Vec::new();
                    let index = self.quorum.propose(payload, &mut after).ok().map(|(_, index)| index);
                    // The index first: what is applied at once must find it.
                    if let Some(controller) = &mut self.controller {
                        let mut answers = Vec::new();
                        controller.proposed(index, &mut answers);
                        self.control_effects(now_ns, answers, out);
                    }
                    self.perform(now_ns, after, out);
                }
                ControlEffect::Confirm(round) => {
                    let mut after = Vec::new();
                    self.quorum.confirm(round, &mut after);
                    self.perform(now_ns, after, out);
                }
                ControlEffect::Grant(node, grant) if node == self.node() => {
                    self.keeper.granted(now_ns, grant)
                }
                ControlEffect::Grant(node, grant) => self.send(node, &NodeMessage::Grant(grant), out),
                ControlEffect::Unknown(node, epoch) => {
                    if node != self.node() {
                        self.send(node, &NodeMessage::Unknown(epoch), out);
                    } else if self.keeper.epoch() == Some(epoch) {
                        self.keeper.lost();
                    }
                }
                ControlEffect::Answer(token, answer) => {
                    if let Some(origin) = self.origins.remove(&token) {
                        self.answered(origin, answer, out);
                    }
                }
                ControlEffect::Plan(token, request) => out.push(MemberEffect::Plan(token, request)),
                ControlEffect::AskTransfer { from, key, leader_epoch, partition_epoch, to } => {
                    if from.node == self.node() {
                        out.push(MemberEffect::TransferAsked { key, leader_epoch, partition_epoch, to });
                    } else {
                        let message = NodeMessage::AskTransfer { key, leader_epoch, partition_epoch, to };
                        self.send(from.node, &message, out);
                    }
                }
            }
        }
    }
}

/// A data directory's id as the number that frames carry.
pub fn directory_number(directory: uuid::Uuid) -> u64 {
    let (high, low) = directory.as_u64_pair();
    high ^ low.rotate_left(1)
}
