//! A node: a disk and a clock that stay, and, while its process lives, the shard's log, its replica and the node's member.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_cluster::member::{Member, MemberEffect};
use pelton_log::disk::{DiskDone, DiskEffect, DiskError, Ticket};
use pelton_log::{
    CommitPoint, DiskImage, PartitionSlot, Progress, ReadPlan, ReadToken, RecoveredPartition, Snapshots,
    Storage,
};
use pelton_model::{LeaderEpoch, Now, Offset, PartitionKey, Prng};
use pelton_replica::lease::Lease;
use pelton_replica::partition::AckState;
use pelton_replica::sabotage::Sabotage as ReplicaFault;
use pelton_shard::replica_host::{HostEffect, HostTurn, Produced, ReplicaHost, Throttle};
use pelton_wire::error_code::ErrorCode;

use super::seat::{self, Asked};
use super::setup::Setup;
use crate::disk::{Crash, Disk, Operation};

/// A produce that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub client: usize,
    pub sequence: i32,
    pub base_offset: i64,
    pub last_offset: Offset,
    epoch: LeaderEpoch,
}

/// A node.
pub struct Node {
    id: usize,
    pub life: u64,
    pub disk: Disk,
    /// Its disk is slow.
    pub slow: bool,
    /// Its process stands still until then.
    pub paused_until_ns: u64,
    pub running: Option<Running>,
    pub setup: Setup,
    clock_base_ns: u64,
    clock_permille: i64,
}

/// The replica that the node's shard has.
pub struct Hosted {
    pub slot: PartitionSlot,
    pub host: ReplicaHost,
}

/// What a process has in memory.
pub struct Running {
    pub id: usize,
    pub storage: Storage,
    pub member: Member,
    pub hosted: Option<Hosted>,
    recovered: Vec<RecoveredPartition>,
    /// What a member that has never run writes before anything else.
    pub first_records: Vec<Bytes>,
    /// Records of the metadata log on their way to the disk.
    pub persists: VecDeque<(CommitPoint, u64)>,
    pub asked: BTreeMap<u64, Asked>,
    pub next_token: u64,
    waiting: Vec<Waiting>,
    progress: Progress,
    pub disk: Vec<DiskEffect>,
    pub throttle: Throttle,
    pub effects: Vec<HostEffect>,
    pub member_effects: Vec<MemberEffect>,
    pub in_flight: BTreeMap<u64, Operation>,
    pub next_operation: u64,
    pub tick_at_ns: u64,
    reads: BTreeMap<ReadToken, Result<ReadPlan, String>>,
    pub setup: Setup,
}

struct Snapshot<'a>(Option<&'a Hosted>, &'a [RecoveredPartition], &'a Member);

impl Snapshots for Snapshot<'_> {
    fn partition(&self, slot: PartitionSlot) -> Vec<u8> {
        if let Some(hosted) = self.0.filter(|hosted| hosted.slot == slot) {
            return hosted.host.snapshot();
        }
        let found = self.1.iter().find(|recovered| recovered.slot == slot);
        found.map(ReplicaHost::snapshot_of).unwrap_or_default()
    }

    fn metadata(&self) -> Vec<u8> {
        self.2.checkpoint()
    }
}

/// The batches of a read that wanted them in memory.
pub fn in_memory(plan: ReadPlan) -> Vec<Bytes> {
    match plan {
        ReadPlan::Memory { batches } => batches,
        ReadPlan::Empty | ReadPlan::File { .. } => Vec::new(),
    }
}

impl Node {
    /// One that has never run.
    pub fn new(id: usize, setup: Setup, prng: &mut Prng) -> Node {
        let drift = setup.drift_permille;
        Node {
            id,
            life: 0,
            disk: Disk::default(),
            slow: false,
            paused_until_ns: 0,
            running: None,
            setup,
            clock_base_ns: prng.below(1 << 40) + (1 << 40),
            clock_permille: prng.below(2 * drift + 1) as i64 - drift as i64,
        }
    }

    /// Its clocks.
    pub fn now(&self, real_ns: u64) -> Now {
        let monotonic_ns = self.clock_base_ns + real_ns * (1000 + self.clock_permille) as u64 / 1000;
        Now { monotonic_ns, wall_ms: 1_700_000_000_000 + (real_ns / 1_000_000) as i64 }
    }

    /// How long until its clock shows this, nanoseconds.
    pub fn until(&self, real_ns: u64, due_ns: u64) -> u64 {
        let left = due_ns.saturating_sub(self.now(real_ns).monotonic_ns);
        left.saturating_mul(1000).div_ceil((1000 + self.clock_permille) as u64)
    }

    /// Begins a life on what the disk has.
    pub fn start(&mut self, real_ns: u64, seed: u64) -> Result<(), String> {
        self.life += 1;
        let config = self.setup.storage.clone();
        let image = DiskImage {
            checkpoints: [self.disk.checkpoint(0, 0), self.disk.checkpoint(0, 1)],
            journal: self.disk.journal(0, config.journal_bytes as usize),
            segments: self.disk.segment_reader(0),
        };
        let recovered = Storage::recover(config, image, self.now(real_ns));
        let (storage, recovered) = recovered.map_err(|error| error.to_string())?;
        let blob = recovered.metadata_snapshot.unwrap_or_default();
        let (member, first_records) =
            seat::member(self.id, self.life, &self.setup, &blob, &recovered.metadata_records, seed)?;
        self.running = Some(Running {
            id: self.id,
            storage,
            member,
            hosted: None,
            recovered: recovered.partitions,
            first_records,
            persists: VecDeque::new(),
            asked: BTreeMap::new(),
            next_token: 0,
            waiting: Vec::new(),
            progress: Progress::default(),
            disk: Vec::new(),
            throttle: Throttle::default(),
            effects: Vec::new(),
            member_effects: Vec::new(),
            in_flight: BTreeMap::new(),
            next_operation: 0,
            tick_at_ns: u64::MAX,
            reads: BTreeMap::new(),
            setup: self.setup.clone(),
        });
        Ok(())
    }

    /// The process ends.
    pub fn crash(&mut self, kind: Crash, prng: &mut Prng) {
        self.paused_until_ns = 0;
        if let Some(running) = self.running.take() {
            let in_flight: Vec<Operation> = running.in_flight.into_values().collect();
            self.disk.crash(prng, &in_flight, kind);
        } else if kind == Crash::PowerCut {
            self.disk.crash(prng, &[], kind);
        }
    }

    /// For an error.
    pub fn text(&self) -> String {
        let Some(running) = &self.running else { return format!("node {} is down", self.id) };
        let host = running.hosted.as_ref().map(|hosted| {
            let state = hosted.host.state();
            (state.role(), state.leader_epoch().0, state.high_watermark().0, running.end(hosted.slot).0)
        });
        let (role, lease) = (running.member.quorum.role(), running.member.lease().epoch());
        format!("node {} {role:?} life {lease:?} replica {host:?}", self.id)
    }
}

impl Running {
    /// The lease, as replicas see it.
    pub fn lease(&self) -> Lease {
        let until_ns = self.member.lease().until_ns();
        match self.setup.fault.and_then(super::Fault::replica) {
            Some(ReplicaFault::LeaseTwice) if until_ns > 0 => Lease::until(until_ns + 1_500_000_000),
            Some(ReplicaFault::ForgetLease) => Lease::UNLIMITED,
            _ => Lease::until(until_ns),
        }
    }

    /// Behind the last record.
    pub fn end(&self, slot: PartitionSlot) -> Offset {
        self.storage.log_end_offset(slot)
    }

    /// How far its log counts.
    pub fn counting(&self) -> Offset {
        let Some(hosted) = &self.hosted else { return Offset(0) };
        match self.setup.flush {
            true => self.storage.flushed_end_offset(hosted.slot),
            false => self.storage.written_end_offset(hosted.slot),
        }
    }

    /// Its end, once everything is committed.
    pub fn settled_end(&self) -> Option<Offset> {
        let hosted = self.hosted.as_ref()?;
        let end = self.end(hosted.slot);
        (hosted.host.state().high_watermark() == end).then_some(end)
    }

    /// Hands an event to the host, if there is one.
    pub fn act(&mut self, now: Now, event: impl FnOnce(&mut ReplicaHost, &mut HostTurn)) {
        let lease = self.lease();
        let Running { storage, hosted, disk, effects, throttle, .. } = self;
        if let Some(hosted) = hosted {
            event(&mut hosted.host, &mut HostTurn { now, lease, storage, disk, throttle, out: effects });
        }
    }

    /// Hands an event to the member, once the log can take what follows.
    pub fn tell(&mut self, now: Now, event: impl FnOnce(&mut Member, u64, &mut Vec<MemberEffect>)) {
        if self.storage.is_ready() {
            event(&mut self.member, now.monotonic_ns, &mut self.member_effects);
        }
    }

    /// What the start found of a partition; once.
    pub fn take_recovered(&mut self, key: PartitionKey) -> Option<RecoveredPartition> {
        let at = self.recovered.iter().position(|recovered| recovered.key == key)?;
        Some(self.recovered.swap_remove(at))
    }

    /// A produce. False: refused.
    pub fn produce(&mut self, now: Now, client: usize, sequence: i32, records: Bytes) -> bool {
        let mut produced = Produced::NoRoom;
        self.act(now, |host, turn| produced = host.produce(records, -1, turn));
        match produced {
            Produced::Waits { base_offset, last_offset, leader_epoch, .. } => {
                let (base_offset, epoch) = (base_offset.0, leader_epoch);
                self.waiting.push(Waiting { client, sequence, base_offset, last_offset, epoch });
                true
            }
            Produced::Refused(_) | Produced::NoRoom => false,
        }
    }

    /// Produces that are decided.
    pub fn decided(&mut self, now: Now) -> Vec<(Waiting, Result<(), ErrorCode>)> {
        let (lease, mut decided) = (self.lease(), Vec::new());
        let Running { waiting, hosted: Some(hosted), storage, .. } = self else { return decided };
        waiting.retain(|wait| {
            match hosted.host.ack_state(wait.last_offset, wait.epoch, -1, storage, now, lease) {
                AckState::Wait => return true,
                AckState::Done => decided.push((*wait, Ok(()))),
                AckState::Failed(error) => decided.push((*wait, Err(error))),
            }
            false
        });
        decided
    }

    /// A disk operation is done. How many logs that cut.
    pub fn completed(
        &mut self,
        ticket: Ticket,
        result: Result<Bytes, DiskError>,
        now: Now,
    ) -> Result<u64, String> {
        self.storage.handle(now, DiskDone { ticket, result }, &mut self.disk, &mut self.progress);
        let progress = std::mem::take(&mut self.progress);
        if let Some(text) = progress.failed {
            return Err(format!("the storage of node {} has failed: {text}", self.id));
        }
        for (_, end) in &progress.cuts {
            self.act(now, |host, turn| host.handle_cut(*end, turn));
        }
        if !progress.advanced.is_empty() {
            self.act(now, |host, turn| host.handle_progress(turn));
        }
        if progress.space_freed {
            self.act(now, |host, turn| host.handle_room(turn));
        }
        for (token, plan) in progress.reads {
            let mut taken = false;
            self.act(now, |host, turn| taken = host.handle_read(token, &plan, turn));
            if !taken {
                self.reads.insert(token, plan);
            }
        }
        Ok(progress.cuts.len() as u64)
    }

    /// Ends a turn of the log, then of the replica.
    pub fn end_turn(&mut self, now: Now) {
        let Running { storage, hosted, recovered, disk, member, .. } = self;
        storage.end_turn(now, &Snapshot(hosted.as_ref(), recovered, member), disk);
        self.act(now, |host, turn| host.end_turn(turn));
    }

    /// When something is due.
    pub fn deadline_ns(&self) -> Option<u64> {
        let host = self.hosted.as_ref().and_then(|hosted| hosted.host.deadline_ns());
        [self.storage.deadline(), host].into_iter().flatten().min()
    }

    /// What a read got; none: it is still on its way.
    pub fn take_read(&mut self, token: ReadToken) -> Option<Result<Vec<Bytes>, String>> {
        let plan = self.reads.remove(&token)?;
        Some(plan.map(in_memory))
    }

    /// Whether a read is done.
    pub fn has_read(&self, token: ReadToken) -> bool {
        self.reads.contains_key(&token)
    }
}
