//! What can happen next, for the model checker. Metadata reach a replica when they like.

use pelton_model::{LeaderEpoch, PartitionEpoch, PartitionState};
use pelton_replica::partition::{HighWatermarkMark, RoleKind};
use stateright::Property;

use crate::checks;
use crate::guard::Guard;
use crate::part::Part;
use crate::state::{Budget, Control, N, Node, State, index, member, replica};

/// A model, perhaps with one guard left out.
#[derive(Clone)]
pub struct Model {
    /// This one.
    pub without: Option<Guard>,
    /// What is on stable storage counts (`flush.messages` = 1); else what is written.
    pub sync: bool,
    /// A loss of power takes also what was flushed.
    pub lying: bool,
    /// The third replica begins outside the ISR.
    pub out: bool,
    /// States that differ in their history only are one (`canon.rs`).
    pub merged: bool,
    /// Also those that differ in the names of replicas only (`symmetry.rs`); steps then name replicas as they are in each state.
    pub symmetric: bool,
    /// What may happen.
    pub budget: Budget,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A record to this leader.
    Append(usize),
    /// What is in memory reaches the disk.
    Store(usize),
    /// A follower joins its leader.
    Join(usize),
    /// A leader's batches reach a follower.
    Stream(usize, usize),
    /// A leader says again how far it is, to this follower.
    Remind(usize, usize),
    /// A leader says again what it proposed, or proposes what was refused.
    AskAgain(usize),
    /// The disk is full.
    Fill(usize),
    /// It has room again.
    Room(usize),
    /// A leader finds followers slow.
    Shrink(usize),
    /// A leader looks again whether it can go on.
    GoOn(usize),
    /// An acknowledgement arrives.
    TakeAck(usize),
    /// A proposal is decided.
    Decide(usize),
    /// A proposal is decided, and a copy of it comes later.
    DecideOne(usize),
    /// The metadata reach a replica.
    Apply(usize),
    /// Nobody else can answer any more.
    Activate(usize),
    /// A lease ends by its holder's clock.
    LeaseEnds(usize),
    /// A lease is granted.
    Grant(usize),
    /// The controller fences a node.
    Fence(usize),
    /// Leadership goes to this one, and the old leader does not know.
    Move(usize),
    /// The leader is asked to hand over to this one.
    HandOver(usize),
    /// A process ends; `true`: what was not flushed is lost.
    Crash(usize, bool),
    /// It starts again.
    Start(usize),
}

impl Model {
    /// The guard is in place.
    pub fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn begin(&self) -> State {
        let isr = (0..if self.out { 2 } else { N }).map(|at| member(at, 1)).collect();
        let state = PartitionState {
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            ..PartitionState::begun((0..N).map(replica).collect(), isr)
        };
        let node = |at: usize| {
            let ends = pelton_replica::effect::LogEnds::default();
            Part::new(Node {
                up: true,
                life: 1,
                lease: true,
                log: Vec::new(),
                written: 0,
                flushed: 0,
                machine: self.machine(at, 1, HighWatermarkMark::default(), ends),
                feeds: Vec::new(),
            })
        };
        let control = Part::new(Control { state, lives: [1; N], fenced: 0, holders: 0 });
        let mut s = State {
            nodes: std::array::from_fn(node),
            control,
            acks: Part::new(Vec::new()),
            proposals: Part::new(Vec::new()),
            committed: Part::new(Vec::new()),
            left: self.budget,
            appended: 0,
            wrong: None,
        };
        (0..N).for_each(|at| self.apply(&mut s, at));
        (1..if self.out { 2 } else { N }).for_each(|at| self.join(&mut s, at));
        while !s.acks.is_empty() {
            self.take(&mut s, 0);
        }
        self.settle_down(&mut s, None);
        s
    }

    fn node_actions(&self, s: &State, r: usize, out: &mut Vec<Action>) {
        let node = &s.nodes[r];
        if !node.up {
            out.push(Action::Start(r));
            return;
        }
        if self.storable(node) {
            out.push(Action::Store(r));
        }
        let known = node.machine.state().map(|state| state.partition_epoch);
        if known != Some(s.control.state.partition_epoch) {
            out.push(Action::Apply(r));
        }
        if node.machine.role() == RoleKind::Joining
            && let Some(leader) = node.machine.state().and_then(|state| state.leader)
        {
            let leader = &s.nodes[index(leader)];
            if leader.leads() && leader.machine.leader_epoch() == node.machine.leader_epoch() {
                out.push(Action::Join(r));
            }
        }
        if node.leads() {
            self.leader_actions(s, r, out);
        }
        match node.machine.is_full() {
            true => out.push(Action::Room(r)),
            false if s.left.fills > 0 => out.push(Action::Fill(r)),
            false => {}
        }
        if s.left.crashes > 0 {
            out.push(Action::Crash(r, false));
            let more = node.flushed < node.written || (self.lying && !node.log.is_empty());
            if s.left.lossy > 0 && more {
                out.push(Action::Crash(r, true));
            }
        }
    }

    fn leader_actions(&self, s: &State, l: usize, out: &mut Vec<Action>) {
        let node = &s.nodes[l];
        let machine = &node.machine;
        let serves = !machine.is_full() && machine.check_produce(-1, 0, self.lease(node)).is_ok();
        if s.left.values > 0 && serves {
            out.push(Action::Append(l));
        }
        // What comes waits until there is room.
        let room = |which: &usize| !s.nodes[usize::from(node.feeds[*which].0)].machine.is_full();
        out.extend((0..node.feeds.len()).filter(room).map(|which| Action::Stream(l, which)));
        if self.merged {
            out.push(Action::GoOn(l));
        }
        let behind = |at: &usize| {
            let other = &s.nodes[*at];
            other.up
                && other.machine.role() == RoleKind::Following
                && other.machine.leader_epoch() == machine.leader_epoch()
                && other.high_watermark() < node.high_watermark().min(other.log.len())
        };
        let isr = machine.state().map_or(0, |state| state.isr.len());
        let undecided = machine.maximal_isr().len() > isr;
        let settling = undecided && s.proposals.len() < 2;
        out.extend((0..N).filter(behind).map(|at| Action::Remind(l, at)));
        if settling || machine.wants_tick() {
            out.push(Action::AskAgain(l));
        }
        if s.left.shrinks > 0 && isr > 1 {
            out.push(Action::Shrink(l));
        }
        if machine.role() == RoleKind::Activating && s.control.holders & !(1 << l) == 0 {
            out.push(Action::Activate(l));
        }
    }

    fn controller_actions(&self, s: &State, r: usize, out: &mut Vec<Action>) {
        let (control, node) = (&s.control, &s.nodes[r]);
        let fenced = control.fenced >> r & 1 == 1;
        let in_sync = control.state.isr_epoch(replica(r)).is_some();
        let uses = node.leads() && node.lease;
        if s.left.fences > 0 {
            if uses {
                out.push(Action::LeaseEnds(r));
            }
            if !fenced && in_sync && (!uses || !self.has(Guard::LeaseWait)) {
                out.push(Action::Fence(r));
            }
        }
        if node.up && control.lives[r] == node.life {
            let known = node.machine.state().map(|state| state.partition_epoch);
            let seen = known == Some(control.state.partition_epoch) || !self.has(Guard::SeenFencing);
            if (fenced && seen) || (!fenced && !node.lease) {
                out.push(Action::Grant(r));
            }
        }
        let Some(leader) = control.state.leader.map(index) else { return };
        if s.left.moves > 0 && leader != r && in_sync && !fenced {
            out.push(Action::Move(r));
            let role = s.nodes[leader].machine.role();
            if s.nodes[leader].up && role == RoleKind::Active {
                out.push(Action::HandOver(r));
            }
        }
    }

    fn perform(&self, s: &mut State, action: Action) {
        match action {
            Action::Append(l) => self.append(s, l),
            Action::Store(r) => self.store(s, r),
            Action::Join(f) => self.join(s, f),
            Action::Stream(l, which) => self.stream(s, l, which),
            Action::Remind(l, f) => self.remind(s, l, f),
            Action::AskAgain(l) => self.ask_again(s, l),
            Action::Fill(r) => {
                s.left.fills -= 1;
                self.space(s, r, true);
            }
            Action::Room(r) => self.space(s, r, false),
            Action::Shrink(l) => self.wait(s, l),
            Action::GoOn(l) => self.go_on(s, l),
            Action::TakeAck(which) => self.take(s, which),
            Action::Decide(which) => {
                let proposal = s.proposals.make_mut().remove(which);
                self.decide(s, &proposal);
            }
            Action::DecideOne(which) => {
                s.left.copies -= 1;
                let proposal = s.proposals[which].clone();
                self.decide(s, &proposal);
            }
            Action::Apply(r) => self.apply(s, r),
            Action::Activate(l) => self.activate(s, l),
            Action::LeaseEnds(r) => s.nodes[r].make_mut().lease = false,
            Action::Grant(r) => self.grant(s, r),
            Action::Fence(r) => {
                s.left.fences -= 1;
                self.fence(s, r);
            }
            Action::Move(r) => {
                s.left.moves -= 1;
                self.transfer(s, r, false);
            }
            Action::HandOver(r) => {
                s.left.moves -= 1;
                if let Some(leader) = s.control.state.leader.map(index) {
                    self.hand_over(s, leader, replica(r));
                }
            }
            Action::Crash(r, lossy) => self.crash(s, r, lossy),
            Action::Start(r) => self.start(s, r),
        }
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        if s.wrong.is_some() {
            return;
        }
        for r in 0..N {
            self.node_actions(s, r, out);
            self.controller_actions(s, r, out);
        }
        let heard = |ack: &crate::state::Ack| s.nodes[usize::from(ack.to)].up;
        out.extend((0..s.acks.len()).filter(|at| heard(&s.acks[*at])).map(Action::TakeAck));
        for at in 0..s.proposals.len() {
            out.push(Action::Decide(at));
            if s.left.copies > 0 {
                out.push(Action::DecideOne(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        self.perform(&mut next, action);
        self.settle_down(&mut next, Some(last));
        if let Action::Shrink(_) = action {
            // Nobody was slow: nothing has happened.
            if next.proposals == last.proposals {
                return None;
            }
            next.left.shrinks -= 1;
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        checks::properties(self.lying)
    }
}
