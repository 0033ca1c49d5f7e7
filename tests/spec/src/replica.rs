//! The replicas' steps: the production machine is told what happens, and what it wants is carried out. A Join and its
//! answer, and an Append and what the follower makes of it, are one step each; acknowledgements and proposals travel.

use pelton_model::{LeaderEpoch, Offset, Replica};
use pelton_replica::effect::{Effect, Settings, Turn};
use pelton_replica::frame::Body;
use pelton_replica::lease::Lease;
use pelton_replica::partition::{HighWatermarkMark, Partition};
use pelton_replica::sabotage::Sabotage;
use pelton_wire::compression::Codec;
use pelton_wire::record_batch::stamp;
use pelton_wire::records::BatchBuilder;

use crate::guard::Guard;
use crate::model::Model;
use crate::part::Part;
use crate::state::{
    Ack, MIN_ISR, Node, PROPOSALS_IN_FLIGHT, Proposal, Rec, State, Wrong, index, member, replica,
};

impl Model {
    /// The machine of a life that begins.
    pub fn machine(
        &self,
        at: usize,
        life: u8,
        mark: HighWatermarkMark,
        ends: pelton_replica::effect::LogEnds,
    ) -> Partition {
        let sabotage = match self.without {
            Some(Guard::Replica(fault)) => Some(fault),
            _ => None,
        };
        // No time passes but where something is said again or refused: there it is 1; and in the step that finds followers slow:
        // there it is 2. Then everything is due again.
        let settings = Settings {
            min_insync_replicas: MIN_ISR as i32,
            flush_every_append: self.sync,
            replica_lag_ns: 1,
            retry_ns: 0,
            silence_ns: 0,
            transfer_ns: 1,
            sabotage,
            ..Settings::default()
        };
        Partition::replicated(member(at, life), settings, mark, ends)
    }

    /// The lease its machine is told of.
    pub fn lease(&self, node: &Node) -> Lease {
        if node.lease || !self.has(Guard::LeaseOnUse) { Lease::UNLIMITED } else { Lease::NONE }
    }

    /// Whether it answers consumers.
    pub fn may_answer(&self, node: &Node) -> bool {
        node.up && node.machine.check_read(0, self.lease(node)).is_ok()
    }

    /// Tells a machine something and carries out what it wants; frames that do not travel are returned.
    fn tell<R>(
        &self,
        s: &mut State,
        at: usize,
        now_ns: u64,
        event: impl FnOnce(&mut Partition, &mut Turn) -> R,
    ) -> (R, Vec<(usize, Body)>) {
        let node = s.nodes[at].make_mut();
        let (mut effects, mut sent) = (Vec::new(), Vec::new());
        let (lease, ends, epochs) = (self.lease(node), node.ends(), node.epochs());
        let known = node.high_watermark();
        let mut turn = Turn { now_ns, lease, ends, epochs: &epochs, effects: &mut effects };
        let result = event(&mut node.machine, &mut turn);
        for effect in effects {
            match effect {
                Effect::Send { to, body: body @ (Body::Ack { .. } | Body::Space { .. }) } => {
                    self.acknowledge(s, at, index(to), body);
                }
                Effect::Send { to, body } => sent.push((index(to), body)),
                Effect::Feed { to, leader_epoch, from, .. } => {
                    let node = s.nodes[at].make_mut();
                    let to = index(to) as u8;
                    node.feeds.retain(|feed| feed.0 != to);
                    node.feeds.push((to, from.0 as u8, leader_epoch.0));
                    node.feeds.sort_unstable();
                }
                Effect::Cut { to } => {
                    if (to.0 as usize) < known {
                        s.wrong = Some(Wrong::CutBelow);
                    }
                    keep(s.nodes[at].make_mut(), to.0 as u8);
                    self.tell(s, at, now_ns, Partition::handle_cut);
                }
                Effect::HighWatermark(to) if s.nodes[at].leads() => self.commit(s, at, to.0 as usize),
                Effect::ProposeIsr(wish) => {
                    let (from, life) = (at as u8, s.nodes[at].life);
                    if !self.has(Guard::ShrinkDecided) {
                        s.nodes[at].make_mut().machine.assume_isr(&wish.isr);
                    }
                    let proposal = Proposal { from, life, wish };
                    if let Err(place) = s.proposals.binary_search(&proposal)
                        && s.proposals.len() < PROPOSALS_IN_FLIGHT
                    {
                        s.proposals.make_mut().insert(place, proposal);
                    }
                }
                Effect::Release { target, leader_epoch, partition_epoch } => {
                    self.released(s, at, target, leader_epoch, partition_epoch);
                }
                Effect::HighWatermark(_) | Effect::Resigned | Effect::TransferCancelled { .. } => {}
                // With disks that do not lie nothing of this may come.
                Effect::Faulted(_)
                | Effect::LostDurable { .. }
                | Effect::Restart { .. }
                | Effect::AdvanceLogStart { .. } => {
                    if !self.lying {
                        s.wrong = Some(Wrong::Faulted);
                    }
                }
            }
        }
        (result, sent)
    }

    /// A leader's high watermark has moved.
    fn commit(&self, s: &mut State, at: usize, to: usize) {
        let prefix = s.nodes[at].log[..to].to_vec();
        let same = to.min(s.committed.len());
        if prefix[..same] != s.committed[..same] {
            s.wrong = Some(Wrong::IllCommitted);
        }
        if to <= s.committed.len() {
            return;
        }
        let far = |node: &&Part<Node>| {
            let kept = if self.sync { node.flushed } else { node.written };
            usize::from(kept) >= to && node.holds(&prefix)
        };
        // Unflushed, the acknowledgement of a copy may come after its loss.
        let may_lack = !self.sync && s.left.crashes < self.budget.crashes;
        if s.nodes.iter().filter(far).count() < MIN_ISR && !may_lack {
            s.wrong = Some(Wrong::IllCommitted);
        }
        *s.committed.make_mut() = prefix;
    }

    /// A client's record.
    pub fn append(&self, s: &mut State, l: usize) {
        s.left.values -= 1;
        s.appended += 1;
        let node = s.nodes[l].make_mut();
        let epoch = node.machine.leader_epoch().0;
        node.log.push(Rec { epoch, value: s.appended });
        self.tell(s, l, 0, |machine, turn| machine.handle_progress(turn));
    }

    /// Writes what is not written, or flushes what is not flushed; with `flush.messages` = 1 both at once, unless it is the
    /// difference that matters.
    pub fn store(&self, s: &mut State, r: usize) {
        let apart = self.written_apart();
        let node = s.nodes[r].make_mut();
        let (end, written) = (node.log.len() as u8, node.written);
        node.written = end;
        if self.sync && (!apart || written == end) {
            node.flushed = end;
        }
        self.tell(s, r, 0, |machine, turn| machine.handle_progress(turn));
    }

    /// Whether a step of [`Model::store`] would change anything. With a full disk nothing more is written.
    pub fn storable(&self, node: &Node) -> bool {
        let end = node.log.len() as u8;
        !node.machine.is_full() && (node.written < end || (self.sync && node.flushed < end))
    }

    fn written_apart(&self) -> bool {
        let apart = [Sabotage::CountWritten, Sabotage::AckUnwritten].map(Guard::Replica);
        self.without.is_some_and(|guard| apart.contains(&guard))
    }

    /// R1, R2: a follower joins, and does what it is answered.
    pub fn join(&self, s: &mut State, f: usize) {
        let (_, joins) = self.tell(s, f, 0, |machine, turn| machine.handle_tick(turn));
        for (l, body) in joins {
            let epoch = s.nodes[f].machine.leader_epoch();
            let (_, answers) =
                self.tell(s, l, 0, |machine, turn| machine.handle_frame(replica(f), epoch, &body, turn));
            self.deliver(s, l, answers);
        }
    }

    /// Frames of a leader, none with batches.
    fn deliver(&self, s: &mut State, l: usize, frames: Vec<(usize, Body)>) {
        let epoch = s.nodes[l].machine.leader_epoch();
        for (f, body) in frames.into_iter().filter(|(f, _)| s.nodes[*f].up).collect::<Vec<_>>() {
            match body {
                Body::Append { .. } => {
                    self.tell(s, f, 0, |machine, turn| {
                        machine.handle_append(replica(l), epoch, &body, &[], turn)
                    });
                }
                _ => {
                    self.tell(s, f, 0, |machine, turn| machine.handle_frame(replica(l), epoch, &body, turn));
                }
            }
        }
    }

    /// R4: what a leader wanted to send is read and sent.
    pub fn stream(&self, s: &mut State, l: usize, which: usize) {
        let node = s.nodes[l].make_mut();
        let (to, from, epoch) = node.feeds.remove(which);
        let (f, from) = (usize::from(to), usize::from(from));
        let records: Vec<Rec> = node.log.get(from..).unwrap_or_default().to_vec();
        let batches = batches(from, &records);
        let (end, bytes) = (Offset((from + records.len()) as i64), batches.len() as u32);
        let (body, _) = self.tell(s, l, 0, |machine, turn| {
            machine.append_frame(replica(f), LeaderEpoch(epoch), Offset(from as i64), end, bytes, turn)
        });
        let Some(body) = body.filter(|_| s.nodes[f].up) else { return };
        let epoch = s.nodes[l].machine.leader_epoch();
        let (taken, _) = self
            .tell(s, f, 0, |machine, turn| machine.handle_append(replica(l), epoch, &body, &batches, turn));
        if taken {
            s.nodes[f].make_mut().log.extend(records);
            self.tell(s, f, 0, |machine, turn| machine.handle_progress(turn));
        }
    }

    /// A leader reminds this follower.
    pub fn remind(&self, s: &mut State, l: usize, f: usize) {
        let (_, mut sent) = self.tell(s, l, 0, |machine, turn| machine.handle_tick(turn));
        sent.retain(|(to, _)| *to == f);
        self.deliver(s, l, sent);
    }

    /// A leader asks the controller again; what it says to followers does not come.
    pub fn ask_again(&self, s: &mut State, l: usize) {
        let due = u64::from(s.nodes[l].machine.wants_tick());
        self.tell(s, l, due, |machine, turn| machine.handle_tick(turn));
        s.nodes[l].make_mut().machine.forget_instants();
    }

    /// So much time passes for a leader that followers may lag.
    pub fn wait(&self, s: &mut State, l: usize) {
        let (_, sent) = self.tell(s, l, 2, |machine, turn| machine.handle_tick(turn));
        self.deliver(s, l, sent);
        s.nodes[l].make_mut().machine.forget_instants();
    }

    /// The leader hears that a proposal was refused.
    pub fn refuse(&self, s: &mut State, proposal: &Proposal) {
        let (l, of) = (usize::from(proposal.from), proposal.wish.partition_epoch);
        if s.nodes[l].up && s.nodes[l].life == proposal.life {
            self.tell(s, l, 1, |machine, turn| machine.handle_proposal_refused(of, turn));
        }
    }

    /// A disk is full, or has room again.
    pub fn space(&self, s: &mut State, r: usize, full: bool) {
        self.tell(s, r, 0, |machine, turn| machine.handle_space(full, turn));
    }

    /// A leader looks again whether it can go on: its lease has come back, or it is told what it knows.
    pub fn go_on(&self, s: &mut State, l: usize) {
        self.tell(s, l, 0, |machine, turn| machine.handle_progress(turn));
    }

    /// An acknowledgement arrives (R5).
    pub fn take(&self, s: &mut State, which: usize) {
        let ack = s.acks.make_mut().remove(which);
        let (l, f) = (usize::from(ack.to), usize::from(ack.from));
        let (_, sent) = self.tell(s, l, 0, |machine, turn| {
            machine.handle_frame(replica(f), LeaderEpoch(ack.epoch), &ack.body, turn);
        });
        self.deliver(s, l, sent);
    }

    /// The metadata as they are now reach a replica.
    pub fn apply(&self, s: &mut State, r: usize) {
        let control = s.control.make_mut();
        control.holders &= !(1 << r);
        let (gone, state) = (control.holders == 0, control.state.clone());
        self.tell(s, r, 0, |machine, turn| machine.handle_metadata(&state, gone, turn));
        let node = s.nodes[r].make_mut();
        let (epoch, leads) = (node.machine.leader_epoch().0, node.leads());
        node.feeds.retain(|feed| leads && feed.2 == epoch);
        node.lease |= !leads;
    }

    /// Nobody before this leader can answer any more (L7).
    pub fn activate(&self, s: &mut State, l: usize) {
        let epoch = s.nodes[l].machine.leader_epoch();
        self.tell(s, l, 0, |machine, turn| machine.handle_predecessor_gone(epoch, turn));
    }

    /// The leader is asked to hand over (R12).
    pub fn hand_over(&self, s: &mut State, l: usize, to: Replica) {
        self.tell(s, l, 0, |machine, turn| machine.handle_transfer(to, turn));
    }

    /// A process ends, perhaps with the power.
    pub fn crash(&self, s: &mut State, r: usize, lossy: bool) {
        s.left.crashes -= 1;
        s.left.lossy -= u8::from(lossy);
        let node = s.nodes[r].make_mut();
        let kept = match (lossy, self.lying) {
            (true, true) => 0,
            (true, false) => node.flushed,
            (false, _) => node.written,
        };
        keep(node, kept);
        node.written = kept;
        let mut mark = node.machine.mark();
        mark.offset = mark.offset.min(Offset(node.flushed.into()));
        (node.up, node.life, node.lease) = (false, node.life + 1, true);
        node.feeds.clear();
        node.machine = self.machine(r, node.life, mark, node.ends());
    }

    /// It starts again and is registered.
    pub fn start(&self, s: &mut State, r: usize) {
        let node = s.nodes[r].make_mut();
        node.up = true;
        let life = node.life;
        self.register(s, r, life);
    }
}

impl Model {
    /// Puts an acknowledgement on its way. A later one of the same kind takes its place.
    fn acknowledge(&self, s: &mut State, from: usize, to: usize, mut body: Body) {
        // What a follower says of its high watermark only spares it reminders: here all are reminded.
        if let Body::Ack { high_watermark, .. } = &mut body
            && self.merged
        {
            *high_watermark = Offset(0);
        }
        let (epoch, from, to) = (s.nodes[from].machine.leader_epoch().0, from as u8, to as u8);
        let acks = s.acks.make_mut();
        let kind = std::mem::discriminant(&body);
        acks.retain(|ack| {
            (ack.epoch, ack.from, ack.to, std::mem::discriminant(&ack.body)) != (epoch, from, to, kind)
        });
        let ack = Ack { epoch, from, to, body };
        let place = acks.partition_point(|other| *other < ack);
        acks.insert(place, ack);
    }
}

fn keep(node: &mut Node, end: u8) {
    node.log.truncate(end.into());
    node.written = node.written.min(end);
    node.flushed = node.flushed.min(end);
}

fn batches(from: usize, records: &[Rec]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, rec) in records.iter().enumerate() {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.add(0, None, Some(&[rec.value]), &[]);
        // Nothing is compressed, so nothing can fail.
        let mut batch = builder.build().unwrap_or_default();
        stamp(&mut batch, (from + at) as i64, rec.epoch);
        bytes.extend_from_slice(&batch);
    }
    bytes
}
