//! One node with one replica: the production state machine, driven as a shard would drive it.

use pelton_model::{IsrMember, LeaderEpoch, Offset, Prng, ReplicaEpoch};
use pelton_wire::error_code::ErrorCode;

use super::controller::replica;
use super::disk::{Log, facts};
use super::plan::{Plan, Rigged};
use crate::effect::{Effect, Settings, Turn};
use crate::epochs::EpochCache;
use crate::lease::{LEASE_TTL_NS, Lease, LeaseHolder};
use crate::partition::{AckState, HighWatermarkMark, Partition};
use crate::producers::{Followed, Producers, Verdict};

/// A produce that waits for its answer.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub client: usize,
    pub sequence: i32,
    pub last_offset: i64,
    pub epoch: LeaderEpoch,
}

/// What a produce was told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Later,
    Acked { last_offset: i64 },
    Refused(ErrorCode),
}

pub struct Node {
    pub id: usize,
    pub up: bool,
    /// Counts starts of the process.
    pub life: u64,
    pub epoch: Option<ReplicaEpoch>,
    /// The last crash may have taken what was written.
    pub unclean: bool,
    rate_ppm: i64,
    clock_offset_ns: u64,
    pub paused_until_ns: u64,
    pub log: Log,
    pub epochs: EpochCache,
    pub producers: Producers,
    pub partition: Partition,
    pub holder: LeaseHolder,
    /// Index of the last metadata applied.
    pub applied: u64,
    /// On disk.
    mark: HighWatermarkMark,
    pub waiting: Vec<Waiting>,
    pub settings: Settings,
    leases: bool,
    rigged: Option<Rigged>,
    pub slow: u64,
    pub tick_at_ns: u64,
}

impl Node {
    pub fn new(id: usize, plan: &Plan, prng: &mut Prng) -> Node {
        let settings = Settings {
            min_insync_replicas: plan.min_isr as i32,
            flush_every_append: plan.flush_every_append,
            replica_lag_ns: 2_000_000_000,
            silence_ns: 3_000_000_000,
            window_bytes: 600,
            append_bytes: 200,
            sabotage: plan.sabotage,
            ..Settings::default()
        };
        let drift = prng.below(2 * plan.drift_ppm + 1) as i64 - plan.drift_ppm as i64;
        let me = IsrMember { replica: replica(id), epoch: ReplicaEpoch::default() };
        let mut producers = Producers::default();
        producers.keep_undo(Offset(0));
        Node {
            id,
            up: true,
            life: 1,
            epoch: None,
            unclean: false,
            rate_ppm: drift,
            clock_offset_ns: prng.below(1_000_000_000_000),
            paused_until_ns: 0,
            log: Log::default(),
            epochs: EpochCache::default(),
            producers,
            partition: Partition::replicated(
                me,
                settings,
                HighWatermarkMark::default(),
                Log::default().ends(),
            ),
            holder: LeaseHolder::new(LEASE_TTL_NS),
            applied: 0,
            mark: HighWatermarkMark::default(),
            waiting: Vec::new(),
            settings,
            leases: plan.leases,
            rigged: plan.rigged,
            slow: 1,
            tick_at_ns: u64::MAX,
        }
    }

    /// The node's clock, nanoseconds.
    pub fn clock_ns(&self, real_ns: u64) -> u64 {
        self.clock_offset_ns
            + (i128::from(real_ns) * i128::from(1_000_000 + self.rate_ppm) / 1_000_000) as u64
    }

    /// The real instant of an instant of the node's clock, not earlier.
    pub fn real_ns(&self, clock_ns: u64) -> u64 {
        let local = i128::from(clock_ns.saturating_sub(self.clock_offset_ns));
        (local * 1_000_000 / i128::from(1_000_000 + self.rate_ppm)) as u64 + 2
    }

    pub fn lease(&self) -> Lease {
        if self.leases { self.holder.sabotaged_lease(self.settings.sabotage) } else { Lease::UNLIMITED }
    }

    /// Hands an event to the machine.
    pub fn turn<R>(
        &mut self,
        real_ns: u64,
        f: impl FnOnce(&mut Partition, &mut Turn) -> R,
    ) -> (R, Vec<Effect>) {
        let mut effects = Vec::new();
        let (now_ns, lease, ends) = (self.clock_ns(real_ns), self.lease(), self.log.ends());
        let mut turn = Turn { now_ns, lease, ends, epochs: &self.epochs, effects: &mut effects };
        let result = f(&mut self.partition, &mut turn);
        (result, effects)
    }

    /// The controller has registered this life.
    pub fn registered(&mut self, epoch: ReplicaEpoch) {
        if self.epoch.is_none() {
            self.epoch = Some(epoch);
            let me = IsrMember { replica: replica(self.id), epoch };
            self.partition = Partition::replicated(me, self.settings, self.mark, self.log.ends());
            self.producers.commit(self.partition.high_watermark());
        }
    }

    /// A batch of a client, not stamped yet; its records have these sequence numbers.
    pub fn produce(&mut self, real_ns: u64, client: usize, mut bytes: Vec<u8>) -> (Told, Vec<Effect>) {
        let (now_ns, lease) = (self.clock_ns(real_ns), self.lease());
        if let Err(error) = self.partition.check_produce(-1, now_ns, lease) {
            return (Told::Refused(error), Vec::new());
        }
        let epoch = self.partition.leader_epoch();
        let mut batch = facts(&bytes);
        let (last_offset, effects) = match self.producers.check(&batch, pelton_model::Now::default()) {
            Verdict::Refuse { error, .. } => return (Told::Refused(error), Vec::new()),
            Verdict::Duplicate { last_offset, .. } if self.rigged == Some(Rigged::RetryAckedAtOnce) => {
                return (Told::Acked { last_offset: last_offset.0 }, Vec::new());
            }
            Verdict::Duplicate { last_offset, .. } => (last_offset.0, Vec::new()),
            Verdict::Append => {
                batch.base_offset = Offset(self.log.end());
                pelton_wire::record_batch::stamp(&mut bytes, batch.base_offset.0, epoch.0);
                self.log.append(&bytes, &mut self.epochs, &mut self.producers);
                let last_offset = self.log.end() - 1;
                (last_offset, self.turn(real_ns, |partition, turn| partition.handle_progress(turn)).1)
            }
        };
        self.waiting.push(Waiting { client, sequence: batch.base_sequence, last_offset, epoch });
        (Told::Later, effects)
    }

    /// Produces that are decided now: true = acknowledged.
    pub fn decided(&mut self, real_ns: u64) -> Vec<(Waiting, Result<(), ErrorCode>)> {
        let (now_ns, lease, ends) = (self.clock_ns(real_ns), self.lease(), self.log.ends());
        let mut decided = Vec::new();
        let partition = &self.partition;
        self.waiting.retain(|wait| {
            let state = partition.ack_state(Offset(wait.last_offset), wait.epoch, -1, ends, now_ns, lease);
            match state {
                AckState::Wait => return true,
                AckState::Done => decided.push((wait.clone(), Ok(()))),
                AckState::Failed(error) => decided.push((wait.clone(), Err(error))),
            }
            false
        });
        decided
    }

    /// The log is cut; epochs and producers follow.
    pub fn cut(&mut self, to: i64) {
        let to = self.log.cut(to);
        self.epochs.truncate_from_end(Offset(to));
        if self.rigged == Some(Rigged::ProducersNotCut) {
            return;
        }
        if self.producers.truncate_to(Offset(to)) == Followed::Replay {
            self.producers = self.log.recover().1;
            self.producers.keep_undo(self.partition.high_watermark());
        }
    }

    pub fn restart_log(&mut self, at: i64, hash: u64) {
        self.log.restart(at, hash);
        self.epochs.clear();
        self.producers = Producers::default();
        self.producers.keep_undo(Offset(at));
    }

    /// Keeps the high watermark, as a checkpoint does now and then.
    pub fn checkpoint(&mut self) {
        self.mark = self.partition.mark();
        self.mark.offset = self.mark.offset.min(Offset(self.log.flushed));
    }

    pub fn crash(&mut self, lossy: bool, lying: bool, prng: &mut Prng) {
        self.up = false;
        self.unclean |= self.log.crash(lossy, lying, prng) || lossy;
        self.waiting.clear();
        self.epoch = None;
        self.paused_until_ns = 0;
        self.tick_at_ns = u64::MAX;
    }

    pub fn start(&mut self) {
        self.up = true;
        self.life += 1;
        (self.epochs, self.producers) = self.log.recover();
        self.producers.keep_undo(Offset(self.log.end()));
        self.holder = LeaseHolder::new(LEASE_TTL_NS);
        self.applied = 0;
        let me = IsrMember { replica: replica(self.id), epoch: ReplicaEpoch::default() };
        self.partition = Partition::replicated(me, self.settings, self.mark, self.log.ends());
    }

    /// Answers as a leader, by its own clock.
    pub fn answers(&self, real_ns: u64) -> bool {
        self.up
            && self.epoch.is_some()
            && self.partition.check_read(self.clock_ns(real_ns), self.lease()).is_ok()
    }
}
