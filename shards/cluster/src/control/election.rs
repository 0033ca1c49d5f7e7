//! Who is in sync and who leads: what follows for one partition when replicas go, come back, or leadership is to move
//! (rules R9 to R13; KIP-966). Plain functions from one state to the next; none means nothing changes.

use pelton_model::{BrokerConfig, IsrMember, PartitionKey, PartitionState, Replica};

use crate::image::{MetadataImage, PartitionImage};

/// What decides about one partition beside its own state.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The cluster.
    pub image: &'a MetadataImage,
    /// `min.insync.replicas` of the topic, at least 1.
    pub min_isr: usize,
    /// Fault on purpose: anyone alive may lead.
    pub elect_anyone: bool,
}

impl<'a> Scene<'a> {
    /// Of a partition, as the metadata have it.
    pub fn of(image: &'a MetadataImage, broker: &BrokerConfig, key: PartitionKey) -> Scene<'a> {
        let config = image.topic_by_id(key.topic_id).map(|topic| image.topic_config(broker, &topic.name));
        let min_isr = config.map_or(1, |config| config.min_insync_replicas.max(1) as usize);
        Scene { image, min_isr, elect_anyone: false }
    }

    /// The replica may be made the leader by a transfer: it is in sync, lives, and is not being emptied.
    pub fn can_lead(&self, partition: &PartitionImage, replica: Replica) -> bool {
        partition.isr_epoch(replica).is_some() && self.willing(replica)
    }

    fn live(&self, replica: Replica) -> bool {
        self.image.is_live(replica)
    }

    fn willing(&self, replica: Replica) -> bool {
        self.live(replica) && !self.image.is_draining(replica.node)
    }
}

/// Keeps the eligible replicas in step with a new ISR. Below `min.insync.replicas` the high watermark stands still, so who
/// was in sync stays complete and is eligible; at or above it, nobody outside the ISR is.
pub fn settle_elr(old: &PartitionState, new: &mut PartitionState, min_isr: usize) {
    // A topic that wants more in sync than it has replicas can have no more than all of them, as in Kafka.
    if new.isr.len() >= min_isr.min(new.replicas.len().max(1)) {
        new.elr.clear();
        new.last_known_elr.clear();
        return;
    }
    let in_sync = |replica: &Replica, state: &PartitionState| state.isr_epoch(*replica).is_some();
    let mut elr: Vec<Replica> =
        old.isr.iter().map(|member| member.replica).chain(old.elr.iter().copied()).collect();
    elr.retain(|replica| !in_sync(replica, new) && new.replicas.contains(replica));
    elr.sort_unstable();
    elr.dedup();
    new.elr = elr;
}

/// Gives the partition a leader if the one it has may not lead: someone in sync in the order of the replicas, else, if
/// nobody is, someone eligible (rule R11). True if the leadership is another one now.
fn elect(scene: &Scene<'_>, state: &mut PartitionState) -> bool {
    let in_sync = |replica: &Replica| state.isr_epoch(*replica).is_some();
    if state.leader.is_some_and(|leader| in_sync(&leader) && scene.live(leader)) {
        return false;
    }
    let of_isr = |fits: &dyn Fn(Replica) -> bool| {
        state.replicas.iter().copied().find(|replica| in_sync(replica) && fits(*replica))
    };
    let mut chosen =
        of_isr(&|replica| scene.willing(replica)).or_else(|| of_isr(&|replica| scene.live(replica)));
    if chosen.is_none() && state.isr.is_empty() {
        chosen = state
            .replicas
            .iter()
            .copied()
            .find(|replica| scene.live(*replica) && (state.elr.contains(replica) || scene.elect_anyone));
        if let Some(replica) = chosen
            && let Some(epoch) = scene.image.replica_epoch(replica)
        {
            let before = state.clone();
            state.isr = vec![IsrMember { replica, epoch }];
            settle_elr(&before, state, scene.min_isr);
        }
    }
    if chosen.is_none() && state.leader.is_none() {
        return false;
    }
    state.leader = chosen;
    state.leader_epoch.0 += 1;
    true
}

fn changed(old: &PartitionState, mut new: PartitionState) -> Option<PartitionState> {
    if *old == new {
        return None;
    }
    new.partition_epoch.0 = old.partition_epoch.0 + 1;
    Some(new)
}

/// These members of the ISR are no more: they leave it, and if they led, someone else does.
pub fn without(
    scene: &Scene<'_>,
    old: &PartitionState,
    gone: impl Fn(&IsrMember) -> bool,
) -> Option<PartitionState> {
    let mut new = old.clone();
    new.isr.retain(|member| !gone(member));
    if new.isr.len() != old.isr.len() {
        settle_elr(old, &mut new, scene.min_isr);
    }
    // A leader that has left the ISR leads no more, even if it is elected again in a new life.
    if new.leader.is_some_and(|leader| new.isr_epoch(leader).is_none()) {
        let mut vacant = PartitionState { leader: None, ..new.clone() };
        if !elect(scene, &mut vacant) {
            vacant.leader_epoch.0 += 1;
        }
        new = vacant;
    }
    changed(old, new)
}

/// Someone has come back: a partition without a leader may get one.
pub fn revived(scene: &Scene<'_>, old: &PartitionState) -> Option<PartitionState> {
    let mut new = old.clone();
    if new.leader.is_none() {
        elect(scene, &mut new);
    }
    changed(old, new)
}

/// These replicas may have lost what they had acknowledged: they are eligible no more, and remembered (rule S4).
pub fn suspect(old: &PartitionState, lost: impl Fn(&Replica) -> bool) -> Option<PartitionState> {
    let mut new = old.clone();
    let (gone, kept): (Vec<_>, Vec<_>) = new.elr.iter().copied().partition(|replica| lost(replica));
    new.elr = kept;
    new.last_known_elr.extend(gone);
    new.last_known_elr.sort_unstable();
    new.last_known_elr.dedup();
    changed(old, new)
}

/// Moves the leadership to a member of the ISR (rule R12).
pub fn transferred(scene: &Scene<'_>, old: &PartitionState, to: Replica) -> Option<PartitionState> {
    if old.leader == Some(to) || old.isr_epoch(to).is_none() || !scene.willing(to) {
        return None;
    }
    let mut new = PartitionState { leader: Some(to), ..old.clone() };
    new.leader_epoch.0 += 1;
    changed(old, new)
}

/// Whom an unclean election takes if the operator names nobody: of those alive one that was eligible or the last known to
/// be, which has most, else the first of the replicas.
pub fn unclean_choice(scene: &Scene<'_>, old: &PartitionState) -> Option<Replica> {
    let live = |replica: &Replica| scene.live(*replica);
    let among = |some: &[Replica]| old.replicas.iter().copied().find(|it| some.contains(it) && live(it));
    among(&old.elr).or_else(|| among(&old.last_known_elr)).or_else(|| among(&old.replicas))
}

/// The lease of whoever leads the partition has ended or was handed back (rules L4, L6).
pub fn leader_is_gone(image: &MetadataImage, partition: &PartitionImage) -> bool {
    partition.leader.is_none_or(|leader| {
        !image.is_live(leader) || partition.isr_epoch(leader) != image.replica_epoch(leader)
    })
}

/// An operator accepts loss: of those who might have most, this one leads (rule R11, unclean).
pub fn unclean(scene: &Scene<'_>, old: &PartitionState, to: Replica) -> Option<PartitionState> {
    if old.leader.is_some() || !old.replicas.contains(&to) || !scene.live(to) {
        return None;
    }
    let epoch = scene.image.replica_epoch(to)?;
    let mut new = old.clone();
    new.leader = Some(to);
    new.leader_epoch.0 += 1;
    new.unclean_epoch = Some(new.leader_epoch);
    new.isr = vec![IsrMember { replica: to, epoch }];
    new.elr.clear();
    new.last_known_elr.clear();
    changed(old, new)
}

/// The replicas this partition is to have, as an operator or the controller wants it; `target` begins with the preferred
/// leader (rule R13). What is being added stays out of the ISR until it has caught up. Who was being added for an abandoned
/// target goes at once only if it has nothing that others lack; who is in sync or eligible stays until this target is reached.
pub fn reassign(scene: &Scene<'_>, old: &PartitionState, target: &[Replica]) -> Option<PartitionState> {
    let has_all = |replica: &Replica| old.isr_epoch(*replica).is_some() || old.elr.contains(replica);
    let base = |replica: &&Replica| !old.adding.contains(replica);
    let kept = |replica: &&Replica| !old.adding.contains(replica) || has_all(replica);
    let mut new = old.clone();
    new.adding = target
        .iter()
        .copied()
        .filter(|replica| !old.replicas.iter().filter(base).any(|of| of == replica))
        .collect();
    new.removing =
        old.replicas.iter().filter(kept).copied().filter(|replica| !target.contains(replica)).collect();
    new.replicas = target.iter().chain(&new.removing).copied().collect();
    drop_outsiders(scene, old, &mut new);
    match finish(scene, &new) {
        Some(done) => changed(old, done),
        None => changed(old, new),
    }
}

/// Ends a reassignment without reaching its target: what was being added goes. Not if nobody else has all that is committed.
pub fn cancel(scene: &Scene<'_>, old: &PartitionState) -> Option<PartitionState> {
    let mut new = old.clone();
    new.replicas.retain(|replica| !old.adding.contains(replica));
    new.adding.clear();
    new.removing.clear();
    drop_outsiders(scene, old, &mut new);
    let has_any = |state: &PartitionState| !state.isr.is_empty() || !state.elr.is_empty();
    if has_any(old) && !has_any(&new) { None } else { changed(old, new) }
}

/// Ends a reassignment whose target is reached: all that were added are in sync, and enough will be.
pub fn finish(scene: &Scene<'_>, old: &PartitionState) -> Option<PartitionState> {
    if old.adding.is_empty() && old.removing.is_empty() {
        return None;
    }
    let target: Vec<Replica> =
        old.replicas.iter().copied().filter(|replica| !old.removing.contains(replica)).collect();
    let in_sync = target.iter().filter(|replica| old.isr_epoch(**replica).is_some()).count();
    let added = old.adding.iter().all(|replica| old.isr_epoch(*replica).is_some());
    // A topic that wants more in sync than it has replicas can have no more than all of them.
    if !added || in_sync < scene.min_isr.min(target.len()) {
        return None;
    }
    let mut new = old.clone();
    new.replicas = target;
    new.adding.clear();
    new.removing.clear();
    let epoch = new.leader_epoch;
    drop_outsiders(scene, old, &mut new);
    // Whoever was removed must not take part any more, whether or not it led.
    new.leader_epoch.0 = epoch.0 + 1;
    changed(old, new)
}

/// Who has to be given the leadership before the reassignment can end: its target is reached, but the leader is none of it. In good
/// order (rule R12) nobody waits for a lease. None: there is nothing to wait for, or nobody who could lead.
pub fn successor(scene: &Scene<'_>, old: &PartitionState) -> Option<Replica> {
    let leaving = old.leader.filter(|leader| old.removing.contains(leader) && scene.live(*leader))?;
    let stays = |replica: &Replica| {
        *replica != leaving && !old.removing.contains(replica) && old.isr_epoch(*replica).is_some()
    };
    let successor = old.replicas.iter().copied().find(|replica| stays(replica) && scene.willing(*replica))?;
    finish(scene, old).map(|_| successor)
}

/// Members of the ISR and eligible ones that are no replicas any more go; a leader among them is replaced.
fn drop_outsiders(scene: &Scene<'_>, old: &PartitionState, new: &mut PartitionState) {
    let replicas = new.replicas.clone();
    new.isr.retain(|member| replicas.contains(&member.replica));
    new.elr.retain(|replica| replicas.contains(replica));
    new.last_known_elr.retain(|replica| replicas.contains(replica));
    if new.isr.len() != old.isr.len() {
        settle_elr(old, new, scene.min_isr);
    }
    if new.leader.is_some_and(|leader| new.isr_epoch(leader).is_none()) {
        new.leader = None;
        if !elect(scene, new) {
            new.leader_epoch.0 += 1;
        }
    }
}
