//! The controller's steps. What follows for the partition is decided by `pelton_cluster::control::election` and `isr`; here
//! is who is registered, fenced or granted a lease, each an entry of the metadata log at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_cluster::control::election::{self, Scene};
use pelton_cluster::control::isr::{self, Asker, IsrChange, IsrSabotage};
use pelton_cluster::image::MetadataImage;
use pelton_cluster::record::{MetadataRecord, NodeRegistration, ShardRegistration};
use pelton_model::{
    IsrMember, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionKey, PartitionState, Replica,
    ShardEpoch, TopicId,
};
use uuid::Uuid;

use crate::guard::Guard;
use crate::model::Model;
use crate::state::{Control, MIN_ISR, N, Proposal, State, epoch_of, index, replica};

/// By registered lives and who is fenced.
type Images = BTreeMap<([u8; N], u8), Arc<MetadataImage>>;

thread_local! {
    static IMAGES: RefCell<Images> = const { RefCell::new(BTreeMap::new()) };
}

fn image(control: &Control) -> Arc<MetadataImage> {
    let build = || {
        let node = |at: usize| {
            MetadataRecord::Node(NodeRegistration {
                node: NodeId(at as i32),
                epoch: NodeEpoch(control.lives[at].into()),
                directory: Uuid::from_u128(at as u128 + 1),
                incarnation: Uuid::from_u128(control.lives[at].into()),
                start: control.lives[at].into(),
                rack: None,
                endpoints: Vec::new(),
                shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }],
                fenced: control.fenced >> at & 1 == 1,
                draining: false,
                leaving: false,
                lossy: false,
            })
        };
        let mut image = MetadataImage::default();
        image.apply(1, &(0..N).map(node).collect::<Vec<_>>());
        Arc::new(image)
    };
    IMAGES
        .with_borrow_mut(|images| images.entry((control.lives, control.fenced)).or_insert_with(build).clone())
}

impl Model {
    fn settle(
        &self,
        s: &mut State,
        released: bool,
        decide: impl FnOnce(&Scene<'_>, &PartitionState) -> Option<PartitionState>,
    ) {
        let image = image(&s.control);
        let elect_anyone = !self.has(Guard::ElectEligible);
        let scene = Scene { image: &image, min_isr: MIN_ISR, elect_anyone };
        let Some(new) = decide(&scene, &s.control.state) else { return };
        let control = s.control.make_mut();
        let old = &control.state;
        if let Some(before) = old.leader
            && (old.leader, old.leader_epoch) != (new.leader, new.leader_epoch)
            && !released
            && self.has(Guard::ReleaseBeforeUse)
        {
            control.holders |= 1 << index(before);
        }
        control.state = new;
    }

    /// Whoever is not in sync any more goes, and somebody leads (the controller's sweep).
    fn sweep(&self, s: &mut State) {
        let lives = image(&s.control);
        let gone = |member: &IsrMember| {
            !lives.is_live(member.replica) || lives.replica_epoch(member.replica) != Some(member.epoch)
        };
        let leader = s.control.state.leader;
        let leader_is_gone = leader.is_none_or(|leader| {
            !lives.is_live(leader) || s.control.state.isr_epoch(leader) != lives.replica_epoch(leader)
        });
        self.settle(s, leader_is_gone, |scene, old| {
            election::without(scene, old, gone).or_else(|| election::revived(scene, old))
        });
    }

    /// A lease has ended, or the process it belonged to.
    pub fn fence(&self, s: &mut State, r: usize) {
        let control = s.control.make_mut();
        control.fenced |= 1 << r;
        control.holders &= !(1 << r);
        self.sweep(s);
    }

    /// A new life is registered, fenced; the one before is over (L6).
    pub fn register(&self, s: &mut State, r: usize, life: u8) {
        self.fence(s, r);
        s.control.make_mut().lives[r] = life;
    }

    /// A lease is granted; a fenced node takes part again first.
    pub fn grant(&self, s: &mut State, r: usize) {
        s.nodes[r].make_mut().lease = true;
        if s.control.fenced >> r & 1 == 0 {
            return;
        }
        if !self.sync && self.has(Guard::SuspectLeavesElr) {
            self.settle(s, true, |_, old| election::suspect(old, |lost: &Replica| *lost == replica(r)));
        }
        s.control.make_mut().fenced &= !(1 << r);
        self.sweep(s);
    }

    /// Leadership moves to a member of the ISR; `released`: its leader has given it back.
    pub fn transfer(&self, s: &mut State, to: usize, released: bool) {
        self.settle(s, released, |scene, old| election::transferred(scene, old, replica(to)));
    }

    /// The leader says that it has given back what it had in these epochs (R12).
    pub fn released(&self, s: &mut State, from: usize, to: Replica, epoch: LeaderEpoch, of: PartitionEpoch) {
        let state = &s.control.state;
        if state.leader == Some(replica(from)) && state.leader_epoch == epoch && state.partition_epoch == of {
            self.transfer(s, index(to), true);
        }
    }

    /// A proposal arrives (R9, R10). A refusal comes at once, or never where the proposal does not.
    pub fn decide(&self, s: &mut State, proposal: &Proposal) {
        let sabotage = IsrSabotage {
            no_compare: !self.has(Guard::CompareAndSet),
            stale_epochs: !self.has(Guard::RegisteredLives),
        };
        let asker = Asker { node: NodeId(proposal.from.into()), epoch: epoch_of(proposal.life).node_epoch };
        let wish = &proposal.wish;
        let change = IsrChange {
            key: PartitionKey { topic_id: TopicId(Uuid::from_u128(9)), partition: 0 },
            leader_epoch: wish.leader_epoch,
            partition_epoch: wish.partition_epoch,
            isr: wish.isr.clone(),
        };
        let mut refused = false;
        self.settle(s, true, |scene, old| {
            let decided = isr::change(scene, old, asker, &change, sabotage);
            refused = decided.is_err();
            decided.ok()
        });
        if refused {
            self.refuse(s, proposal);
        }
    }
}
