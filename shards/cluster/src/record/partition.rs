//! A partition, and a change of one, as bytes.

use pelton_model::{
    IsrMember, LeaderEpoch, NodeEpoch, NodeId, PartitionEpoch, PartitionState, Replica, ReplicaEpoch,
    ShardEpoch, ShardId,
};

use crate::codec::{In, Malformed, Out};

/// What is other than before. None = as it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartitionDelta {
    /// The partition's epoch from now on.
    pub partition_epoch: PartitionEpoch,
    /// If the leader changes: the one before holds no lease any more (rules L4, L6), so the new one need not wait.
    pub released: bool,
    /// Who leads.
    pub leader: Option<Option<Replica>>,
    /// Epoch of that leadership.
    pub leader_epoch: Option<LeaderEpoch>,
    /// In sync.
    pub isr: Option<Vec<IsrMember>>,
    /// Eligible.
    pub elr: Option<Vec<Replica>>,
    /// Last known to be eligible.
    pub last_known_elr: Option<Vec<Replica>>,
    /// All.
    pub replicas: Option<Vec<Replica>>,
    /// Being added.
    pub adding: Option<Vec<Replica>>,
    /// Being removed.
    pub removing: Option<Vec<Replica>>,
    /// Epoch of the last unclean election.
    pub unclean_epoch: Option<LeaderEpoch>,
}

fn changed<T: PartialEq + Clone>(old: &T, new: &T) -> Option<T> {
    (old != new).then(|| new.clone())
}

impl PartitionDelta {
    /// From one state to another; the new one's epoch is taken as it is.
    pub fn between(old: &PartitionState, new: &PartitionState, released: bool) -> PartitionDelta {
        PartitionDelta {
            partition_epoch: new.partition_epoch,
            released,
            leader: changed(&old.leader, &new.leader),
            leader_epoch: changed(&old.leader_epoch, &new.leader_epoch),
            isr: changed(&old.isr, &new.isr),
            elr: changed(&old.elr, &new.elr),
            last_known_elr: changed(&old.last_known_elr, &new.last_known_elr),
            replicas: changed(&old.replicas, &new.replicas),
            adding: changed(&old.adding, &new.adding),
            removing: changed(&old.removing, &new.removing),
            unclean_epoch: if old.unclean_epoch == new.unclean_epoch { None } else { new.unclean_epoch },
        }
    }

    /// Changes the state.
    pub fn apply(&self, state: &mut PartitionState) {
        fn set<T: Clone>(value: &mut T, new: &Option<T>) {
            if let Some(new) = new {
                *value = new.clone();
            }
        }
        state.partition_epoch = self.partition_epoch;
        set(&mut state.leader, &self.leader);
        set(&mut state.leader_epoch, &self.leader_epoch);
        set(&mut state.isr, &self.isr);
        set(&mut state.elr, &self.elr);
        set(&mut state.last_known_elr, &self.last_known_elr);
        set(&mut state.replicas, &self.replicas);
        set(&mut state.adding, &self.adding);
        set(&mut state.removing, &self.removing);
        if self.unclean_epoch.is_some() {
            state.unclean_epoch = self.unclean_epoch;
        }
    }
}

/// Appends a replica's place.
pub fn write_replica(out: &mut Out, replica: &Replica) {
    out.i32(replica.node.0);
    out.u16(replica.shard.0);
}

/// Reads a replica's place.
pub fn read_replica(from: &mut In<'_>) -> Result<Replica, Malformed> {
    Ok(Replica { node: NodeId(from.i32()?), shard: ShardId(from.u16()?) })
}

/// Appends a member of an ISR.
pub fn write_member(out: &mut Out, member: &IsrMember) {
    write_replica(out, &member.replica);
    out.u64(member.epoch.node_epoch.0);
    out.u32(member.epoch.shard_epoch.0);
}

/// Reads a member of an ISR.
pub fn read_member(from: &mut In<'_>) -> Result<IsrMember, Malformed> {
    let replica = read_replica(from)?;
    let epoch = ReplicaEpoch { node_epoch: NodeEpoch(from.u64()?), shard_epoch: ShardEpoch(from.u32()?) };
    Ok(IsrMember { replica, epoch })
}

fn write_leader(out: &mut Out, leader: Option<Replica>) {
    out.u8(u8::from(leader.is_some()));
    leader.iter().for_each(|replica| write_replica(out, replica));
}

fn read_leader(from: &mut In<'_>) -> Result<Option<Replica>, Malformed> {
    if from.bool()? { read_replica(from).map(Some) } else { Ok(None) }
}

fn replicas(out: &mut Out, list: &[Replica]) {
    out.list(list, write_replica);
}

/// Appends a whole state.
pub fn write_state(out: &mut Out, state: &PartitionState) {
    out.i32(state.leader_epoch.0);
    out.i32(state.partition_epoch.0);
    replicas(out, &state.replicas);
    write_leader(out, state.leader);
    out.list(&state.isr, write_member);
    for list in [&state.elr, &state.last_known_elr, &state.adding, &state.removing] {
        replicas(out, list);
    }
    out.i32(state.unclean_epoch.map_or(-1, |epoch| epoch.0));
}

/// Reads a whole state.
pub fn read_state(from: &mut In<'_>) -> Result<PartitionState, Malformed> {
    let (leader_epoch, partition_epoch) = (LeaderEpoch(from.i32()?), PartitionEpoch(from.i32()?));
    let replicas = from.list(read_replica)?;
    let leader = read_leader(from)?;
    let isr = from.list(read_member)?;
    let mut list = || from.list(read_replica);
    let (elr, last_known_elr, adding, removing) = (list()?, list()?, list()?, list()?);
    let unclean = from.i32()?;
    Ok(PartitionState {
        replicas,
        leader,
        leader_epoch,
        partition_epoch,
        isr,
        elr,
        last_known_elr,
        adding,
        removing,
        unclean_epoch: (unclean >= 0).then_some(LeaderEpoch(unclean)),
    })
}

/// Reads a state of version 1: replicas and a leader, of a single node whose replicas were all in sync.
pub fn read_state_v1(from: &mut In<'_>) -> Result<PartitionState, Malformed> {
    let (leader_epoch, partition_epoch) = (LeaderEpoch(from.i32()?), PartitionEpoch(from.i32()?));
    let count = from.u8()?;
    let replicas = (0..count).map(|_| read_replica(from)).collect::<Result<Vec<_>, _>>()?;
    let leader = read_leader(from)?;
    let epoch = ReplicaEpoch::default();
    let isr = replicas.iter().map(|replica| IsrMember { replica: *replica, epoch }).collect();
    Ok(PartitionState { leader, leader_epoch, partition_epoch, ..PartitionState::begun(replicas, isr) })
}

/// Appends a change: which fields, then those.
pub fn write_delta(out: &mut Out, delta: &PartitionDelta) {
    let lists = [&delta.elr, &delta.last_known_elr, &delta.replicas, &delta.adding, &delta.removing];
    let flags = [delta.released, delta.leader.is_some(), delta.leader_epoch.is_some(), delta.isr.is_some()]
        .into_iter()
        .chain(lists.iter().map(|list| list.is_some()))
        .chain([delta.unclean_epoch.is_some()]);
    out.u16(flags.enumerate().fold(0, |mask, (at, flag)| mask | (u16::from(flag) << at)));
    out.i32(delta.partition_epoch.0);
    delta.leader.iter().for_each(|leader| write_leader(out, *leader));
    delta.leader_epoch.iter().for_each(|epoch| out.i32(epoch.0));
    delta.isr.iter().for_each(|isr| out.list(isr, write_member));
    lists.into_iter().flatten().for_each(|list| replicas(out, list));
    delta.unclean_epoch.iter().for_each(|epoch| out.i32(epoch.0));
}

/// Reads a change.
pub fn read_delta(from: &mut In<'_>) -> Result<PartitionDelta, Malformed> {
    let mask = from.u16()?;
    if mask >= 1 << 10 {
        return Err(Malformed);
    }
    let has = |bit: u16| mask & (1 << bit) != 0;
    let partition_epoch = PartitionEpoch(from.i32()?);
    let leader = has(1).then(|| read_leader(from)).transpose()?;
    let leader_epoch = has(2).then(|| from.i32().map(LeaderEpoch)).transpose()?;
    let isr = has(3).then(|| from.list(read_member)).transpose()?;
    let mut list = |bit| has(bit).then(|| from.list(read_replica)).transpose();
    let (elr, last_known_elr, replicas) = (list(4)?, list(5)?, list(6)?);
    let (adding, removing) = (list(7)?, list(8)?);
    let unclean_epoch = has(9).then(|| from.i32().map(LeaderEpoch)).transpose()?;
    let released = has(0);
    Ok(PartitionDelta {
        partition_epoch,
        released,
        leader,
        leader_epoch,
        isr,
        elr,
        last_known_elr,
        replicas,
        adding,
        removing,
        unclean_epoch,
    })
}
