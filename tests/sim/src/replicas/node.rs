//! A node: a disk that stays, and, while its process lives, the shard's log and a replica host on it.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_log::disk::{DiskDone, DiskEffect, DiskError, Ticket};
use pelton_log::{
    DiskImage, PartitionSlot, Progress, ReadPlan, ReadToken, RecoveredPartition, Snapshots, Storage,
    StorageConfig,
};
use pelton_model::{
    LeaderEpoch, Now, Offset, PartitionKey, PartitionState, Prng, ReplicaEpoch, TopicConfig, TopicId,
};
use pelton_replica::effect::Settings;
use pelton_replica::lease::{LEASE_TTL_NS, Lease, LeaseHolder};
use pelton_replica::partition::AckState;
use pelton_shard::replica_host::{HostEffect, HostTurn, Produced, ReplicaHost};
use pelton_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Fault, Message, member};
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
    pub running: Option<Running>,
    pub settings: Settings,
    fault: Option<Fault>,
    config: StorageConfig,
    topic: TopicConfig,
}

/// What a process has in memory.
pub struct Running {
    pub storage: Storage,
    pub slot: PartitionSlot,
    recovered: Option<RecoveredPartition>,
    pub host: Option<ReplicaHost>,
    pub epoch: Option<ReplicaEpoch>,
    holder: LeaseHolder,
    applied: u64,
    waiting: Vec<Waiting>,
    progress: Progress,
    pub disk: Vec<DiskEffect>,
    effects: Vec<HostEffect>,
    pub in_flight: BTreeMap<u64, Operation>,
    pub next_operation: u64,
    pub tick_at_ns: u64,
    reads: BTreeMap<ReadToken, Result<ReadPlan, String>>,
    /// Metadata that came before the log was ready.
    latest: Option<(u64, PartitionState, bool)>,
    id: usize,
    settings: Settings,
    fault: Option<Fault>,
}

fn key() -> PartitionKey {
    PartitionKey { topic_id: TopicId(Uuid::from_u128(77)), partition: 0 }
}

struct Snapshot<'a>(Option<&'a ReplicaHost>, Option<&'a RecoveredPartition>);

impl Snapshots for Snapshot<'_> {
    fn partition(&self, _slot: PartitionSlot) -> Vec<u8> {
        let unopened = || self.1.map(ReplicaHost::snapshot_of).unwrap_or_default();
        self.0.map_or_else(unopened, ReplicaHost::snapshot)
    }

    fn metadata(&self) -> Vec<u8> {
        Vec::new()
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
    pub fn new(id: usize, flush: bool, fault: Option<Fault>, prng: &mut Prng) -> Node {
        let config = StorageConfig {
            journal_bytes: 512 << 10,
            tail_bytes: 256 << 10,
            group_bytes: 64 << 10,
            lay_down_bytes: 8 << 10,
            writes_in_flight: 1 + prng.below(3) as usize,
            direct_bytes: [400, 2_500, 256 << 10][prng.below(3) as usize],
            sabotage: fault.and_then(Fault::log),
            ..StorageConfig::default()
        };
        let settings = Settings {
            flush_every_append: flush,
            replica_lag_ns: 1_500_000_000,
            silence_ns: 3_000_000_000,
            window_bytes: 30_000,
            append_bytes: 6_000,
            sabotage: fault.and_then(Fault::replica),
            ..Settings::default()
        };
        let topic = TopicConfig {
            flush_messages: if flush { 1 } else { i64::MAX },
            flush_ms: if flush { i64::MAX } else { 200 },
            segment_bytes: 12_000 + 5_000 * prng.below(4) as i32,
            index_interval_bytes: 800,
            file_delete_delay_ms: 0,
            retention_ms: -1,
            retention_bytes: -1,
            ..TopicConfig::default()
        };
        let disk = Disk::default();
        Node { id, life: 0, disk, slow: false, running: None, settings, fault, config, topic }
    }

    /// Begins a life on what the disk has.
    pub fn start(&mut self, now: Now) -> Result<(), String> {
        self.life += 1;
        let image = DiskImage {
            checkpoints: [self.disk.checkpoint(0, 0), self.disk.checkpoint(0, 1)],
            journal: self.disk.journal(0, self.config.journal_bytes as usize),
            segments: self.disk.segment_reader(),
        };
        let recovered = Storage::recover(self.config.clone(), image, now);
        let (mut storage, recovered) = recovered.map_err(|error| error.to_string())?;
        let slot = storage.open_partition(key(), &self.topic);
        let recovered = recovered.partitions.into_iter().find(|partition| partition.key == key());
        self.running = Some(Running {
            storage,
            slot,
            recovered,
            host: None,
            epoch: None,
            holder: LeaseHolder::new(LEASE_TTL_NS),
            applied: 0,
            waiting: Vec::new(),
            progress: Progress::default(),
            disk: Vec::new(),
            effects: Vec::new(),
            in_flight: BTreeMap::new(),
            next_operation: 0,
            tick_at_ns: u64::MAX,
            reads: BTreeMap::new(),
            latest: None,
            id: self.id,
            settings: self.settings,
            fault: self.fault,
        });
        Ok(())
    }

    /// The process ends.
    pub fn crash(&mut self, kind: Crash, prng: &mut Prng) {
        if let Some(running) = self.running.take() {
            let in_flight: Vec<Operation> = running.in_flight.into_values().collect();
            self.disk.crash(prng, &in_flight, kind);
        } else if kind == Crash::PowerCut {
            self.disk.crash(prng, &[], kind);
        }
    }

    /// What it says to the controller now and then.
    pub fn renewal(&mut self, now: Now) -> Option<Message> {
        let life = self.life;
        let running = self.running.as_mut()?;
        if !running.storage.is_ready() {
            return None;
        }
        Some(match running.epoch {
            None => Message::Register { life },
            Some(epoch) => {
                let sequence = running.holder.ask(now.monotonic_ns);
                Message::Renew { sequence, epoch, applied: running.applied }
            }
        })
    }

    /// A message has come. False: nobody is there.
    pub fn deliver(&mut self, from: usize, message: Message, now: Now) -> Result<bool, String> {
        let life = self.life;
        let Some(running) = &mut self.running else { return Ok(false) };
        match message {
            Message::Registered { life: of, epoch } if of == life && running.epoch.is_none() => {
                running.epoch = Some(epoch);
            }
            Message::Grant { sequence, epoch } if running.epoch == Some(epoch) => {
                running.holder.handle_grant(sequence);
                running.act(now, |host, turn| host.handle_tick(turn));
            }
            // Late ones tell nothing new, but that nobody is in the way any more holds for their epoch.
            Message::Metadata { index, state, predecessor_gone }
                if running.latest.as_ref().is_none_or(|(latest, ..)| *latest <= index) =>
            {
                running.latest = Some((index, state, predecessor_gone));
                running.follow(now);
            }
            Message::Refused { epoch, partition_epoch } if running.epoch == Some(epoch) => {
                running.act(now, |host, turn| host.handle_proposal_refused(partition_epoch, turn));
            }
            Message::Transfer { epoch, target } if running.epoch == Some(epoch) => {
                running.act(now, |host, turn| host.handle_transfer(target, turn));
            }
            Message::Frame { frame, batches } => {
                let from = super::controller::replica(from);
                running.act(now, |host, turn| host.handle_frame(from, &frame, &batches, turn));
            }
            _ => {}
        }
        Ok(true)
    }

    /// Whether a read is done.
    pub fn has_read(&self, token: ReadToken) -> bool {
        self.running.as_ref().is_some_and(|running| running.reads.contains_key(&token))
    }

    /// What it read.
    pub fn take_read(&mut self, token: ReadToken) -> Option<Result<Vec<Bytes>, String>> {
        let plan = self.running.as_mut()?.reads.remove(&token)?;
        Some(plan.map(in_memory))
    }

    /// For an error.
    pub fn text(&self) -> String {
        let Some(running) = &self.running else { return format!("node {} is down", self.id) };
        let role = running.host.as_ref().map(|host| (host.state().role(), host.state().high_watermark()));
        format!("node {} {role:?} ends at {:?}", self.id, running.end())
    }
}

impl Running {
    fn lease(&self) -> Lease {
        self.holder.sabotaged_lease(self.fault.and_then(Fault::replica))
    }

    /// Behind the last record.
    pub fn end(&self) -> Offset {
        self.storage.log_end_offset(self.slot)
    }

    /// How far its log counts.
    pub fn counting(&self, flush: bool) -> Offset {
        match flush {
            true => self.storage.flushed_end_offset(self.slot),
            false => self.storage.written_end_offset(self.slot),
        }
    }

    /// Its end, once everything is committed.
    pub fn settled_end(&self) -> Option<Offset> {
        let host = self.host.as_ref()?;
        (host.state().high_watermark() == self.end()).then_some(self.end())
    }

    /// Hands an event to the host, if there is one.
    pub fn act(&mut self, now: Now, event: impl FnOnce(&mut ReplicaHost, &mut HostTurn)) {
        let lease = self.lease();
        let Running { storage, host, disk, effects, .. } = self;
        if let Some(host) = host {
            event(host, &mut HostTurn { now, lease, storage, disk, out: effects });
        }
    }

    /// The metadata as known, once there is a host.
    fn follow(&mut self, now: Now) {
        if self.host.is_none() {
            let Some(epoch) = self.epoch.filter(|_| self.storage.is_ready()) else { return };
            let me = member(self.id, epoch);
            let (slot, recovered) = (self.slot, self.recovered.take());
            let mut host =
                ReplicaHost::open(key(), slot, me, self.settings, recovered.as_ref(), now, &self.storage);
            host.set_sabotage(self.fault.and_then(Fault::host));
            self.host = Some(host);
        }
        if let Some((index, state, gone)) = self.latest.clone() {
            self.applied = self.applied.max(index);
            self.act(now, |host, turn| host.handle_metadata(&state, gone, turn));
        }
    }

    /// A produce. False: refused.
    pub fn produce(&mut self, now: Now, client: usize, sequence: i32, records: Bytes) -> bool {
        let mut produced = Produced::NoRoom;
        self.act(now, |host, turn| produced = host.produce(records, -1, turn));
        match produced {
            Produced::Waits { base_offset, last_offset, leader_epoch } => {
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
        let Running { waiting, host: Some(host), storage, .. } = self else { return decided };
        waiting.retain(|wait| {
            match host.ack_state(wait.last_offset, wait.epoch, -1, storage, now, lease) {
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
        if self.host.is_none() {
            self.follow(now);
        }
        Ok(progress.cuts.len() as u64)
    }

    /// Ends a turn: what the disk and others are to do.
    pub fn end_turn(&mut self, now: Now) -> (Vec<DiskEffect>, Vec<HostEffect>) {
        let Running { storage, host, recovered, disk, .. } = self;
        storage.end_turn(now, &Snapshot(host.as_ref(), recovered.as_ref()), disk);
        self.act(now, |host, turn| host.end_turn(turn));
        (std::mem::take(&mut self.disk), std::mem::take(&mut self.effects))
    }

    /// When something is due.
    pub fn deadline_ns(&self) -> Option<u64> {
        let host = self.host.as_ref().and_then(ReplicaHost::deadline_ns);
        [self.storage.deadline(), host].into_iter().flatten().min()
    }
}
