//! Starting and stopping the shards of a process: one pinned executor each, ready together, stopped together.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use pelton_model::{BrokerConfig, ShardId};
use pelton_shard::{ClusterConfig, LogLevel, Shard};

use crate::buffers::{FramePool, ReceiveBuffers};
use crate::clock;
use crate::context::Context;
use crate::core::Core;
use crate::driver::{DieOnPanic, Driver, Parcel, State, die};
use crate::files::{Files, recovery_reader};
use crate::journal::Journal;
use crate::listen::Reserved;
use crate::log::Logger;
use crate::mailbox::{Command, Mailbox, Mesh};
use crate::meter::{Counters, Meter};
use crate::peers::{PeerPlan, PeerSide};
use crate::ring::Ring;
use crate::segments::Segments;
use crate::sockets::Sockets;

/// The executor's preempt timer. Shards do no I/O through the executor, so nothing waits for it; and it must be longer
/// than any time the thread may be descheduled, or the executor may sleep on runnable tasks (see `driver`).
const PREEMPT: Duration = Duration::from_secs(10);
/// Memory the executor registers for files of its own, which a shard does not use.
const EXECUTOR_IO_BYTES: usize = 1 << 20;

/// Where one shard runs and what it owns.
#[derive(Clone, Debug)]
pub struct ShardPlan {
    /// Which; plans are given in order, 0 first.
    pub shard: ShardId,
    /// The core it is pinned to; None leaves that to the kernel.
    pub cpu: Option<usize>,
    /// Its journal and checkpoints; made if missing.
    pub directory: PathBuf,
    /// Its partitions' directories; made if missing.
    pub partitions_directory: PathBuf,
    /// Where it listens; None when another shard listens for it. Port 0 = the kernel's choice.
    pub listen: Option<SocketAddr>,
    /// How it meets the shards of other nodes; None for a node alone.
    pub peers: Option<PeerPlan>,
    /// What it knows of its cluster; None for a node alone.
    pub cluster: Option<Arc<ClusterConfig>>,
}

/// Why the shards cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("cannot listen on {address}: {cause}; choose another address (--kafka) or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        cause: io::Error,
    },
    /// The address for other nodes cannot be had.
    #[error(
        "cannot listen for nodes on {address}: {cause}; stop what uses it, or give this node another address (--cluster)"
    )]
    ListenForPeers {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        cause: io::Error,
    },
    /// An executor or its queues cannot be made.
    #[error("cannot start shard {shard}: {text}")]
    Executor {
        /// Which.
        shard: u16,
        /// Cause and remedy.
        text: String,
    },
    /// A shard's disk or state does not allow it.
    #[error("shard {shard}: {text}")]
    Shard {
        /// Which.
        shard: u16,
        /// Cause and remedy.
        text: String,
    },
}

/// Why stopping was not clean.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard} did not stop cleanly: {text}")]
pub struct StopError {
    /// Which.
    pub shard: u16,
    /// Why.
    pub text: String,
}

/// The ports of a shard, bound and not open yet.
struct Listeners {
    clients: Option<Reserved>,
    peers: Option<Reserved>,
}

/// How a node of a cluster stands, for those who ask from outside.
pub struct Standing(Vec<Arc<Meter>>);

impl Standing {
    /// Every shard has a lease: the node may lead, and is heard by the cluster.
    pub fn is_leased(&self) -> bool {
        let now_ns = clock::monotonic_ns();
        self.0.iter().all(|meter| now_ns < meter.lease_until_ns.load(Ordering::Relaxed))
    }
}

/// The shards of this process, running.
pub struct Running {
    mesh: Arc<Mesh<Parcel>>,
    threads: Vec<ExecutorJoinHandle<Result<(), String>>>,
    addresses: Vec<Option<SocketAddr>>,
    peer_addresses: Vec<Option<SocketAddr>>,
    meters: Vec<Arc<Meter>>,
    log: Logger,
}

/// Shards that run, and of which some may not serve yet.
pub struct Starting {
    running: Running,
    reports: Receiver<(ShardId, Result<(), String>)>,
    missing: usize,
}

/// Starts a [`Shard`] per plan and returns when all of them serve.
pub fn start(plans: Vec<ShardPlan>, config: Arc<BrokerConfig>, log: Logger) -> Result<Running, StartError> {
    start_core::<Shard>(plans, config, log)
}

/// [`start`] for any state machine.
pub fn start_core<C: Core>(
    plans: Vec<ShardPlan>,
    config: Arc<BrokerConfig>,
    log: Logger,
) -> Result<Running, StartError> {
    let mut starting = begin_core::<C>(plans, config, log)?;
    match starting.wait(Duration::MAX) {
        Ok(_) => Ok(starting.running),
        Err(failure) => {
            starting.abort();
            Err(failure)
        }
    }
}

/// Starts a [`Shard`] per plan and returns at once: those of a cluster serve only when enough of its nodes are there.
pub fn begin(plans: Vec<ShardPlan>, config: Arc<BrokerConfig>, log: Logger) -> Result<Starting, StartError> {
    begin_core::<Shard>(plans, config, log)
}

fn begin_core<C: Core>(
    plans: Vec<ShardPlan>,
    config: Arc<BrokerConfig>,
    log: Logger,
) -> Result<Starting, StartError> {
    let mut reserved = Vec::new();
    for plan in &plans {
        let bind = |address| Reserved::new(address).map_err(|cause| StartError::Listen { address, cause });
        let for_peers = plan.peers.as_ref().map(|peers| {
            let address = peers.listen;
            Reserved::new(address).map_err(|cause| StartError::ListenForPeers { address, cause })
        });
        reserved
            .push(Listeners { clients: plan.listen.map(bind).transpose()?, peers: for_peers.transpose()? });
    }
    let mesh = Mesh::new(plans.len()).map_err(|error| StartError::Executor {
        shard: 0,
        text: format!("eventfd: {error}; raise ulimit -n"),
    })?;
    let of = |reserved: &Option<Reserved>| reserved.as_ref().map(|reserved| reserved.address);
    let addresses = reserved.iter().map(|listeners| of(&listeners.clients)).collect();
    let peer_addresses = reserved.iter().map(|listeners| of(&listeners.peers)).collect();
    let mut running =
        Running { mesh, threads: Vec::new(), addresses, peer_addresses, meters: Vec::new(), log };
    let (report, reports) = mpsc::channel();
    let missing = plans.len();
    for (plan, reserved) in plans.into_iter().zip(reserved) {
        if let Err(error) = running.spawn::<C>(plan, config.clone(), reserved, report.clone()) {
            running.abort();
            return Err(error);
        }
    }
    drop(report);
    Ok(Starting { running, reports, missing })
}

impl Starting {
    /// Waits until all shards serve, at most so long: true if they do. An error is final; then [`Starting::abort`].
    pub fn wait(&mut self, patience: Duration) -> Result<bool, StartError> {
        let until = Instant::now().checked_add(patience);
        while self.missing > 0 {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            match self.reports.recv_timeout(left) {
                Ok((_, Ok(()))) => self.missing -= 1,
                Ok((shard, Err(text))) => return Err(StartError::Shard { shard: shard.0, text }),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => {
                    let text = "a shard ended before it was ready".to_string();
                    return Err(StartError::Shard { shard: 0, text });
                }
            }
        }
        Ok(true)
    }

    /// The shards, once all of them serve.
    pub fn running(self) -> Running {
        self.running
    }

    /// Ends the shards as they are. What they have written is recovered at the next start.
    pub fn abort(self) {
        self.running.abort();
    }
}

type Report = Sender<(ShardId, Result<(), String>)>;

impl Running {
    fn spawn<C: Core>(
        &mut self,
        plan: ShardPlan,
        config: Arc<BrokerConfig>,
        reserved: Listeners,
        report: Report,
    ) -> Result<(), StartError> {
        let shard = plan.shard;
        let meter = Arc::new(Meter::default());
        self.meters.push(meter.clone());
        let (mesh, log) = (self.mesh.clone(), self.log.clone());
        let placement = plan.cpu.map_or(Placement::Unbound, Placement::Fixed);
        let spawned = LocalExecutorBuilder::new(placement)
            .name(&format!("pelton-shard-{}", shard.0))
            .preempt_timer(PREEMPT)
            .io_memory(EXECUTOR_IO_BYTES)
            .spawn(move || async move {
                let _guard = DieOnPanic(shard);
                match prepare::<C>(plan, config, reserved, mesh, meter, log) {
                    Ok(driver) => {
                        let result = driver.run(move || drop(report.send((shard, Ok(()))))).await;
                        result.unwrap_or_else(|text| die(shard, &text));
                        Ok(())
                    }
                    Err(text) => {
                        let _ = report.send((shard, Err(text.clone())));
                        Err(text)
                    }
                }
            });
        match spawned {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                let text =
                    format!("{error}; check `ulimit -l`, `ulimit -n` and that seccomp allows io_uring");
                return Err(StartError::Executor { shard: shard.0, text });
            }
        }
        Ok(())
    }

    /// Where each shard listens, by shard.
    pub fn addresses(&self) -> &[Option<SocketAddr>] {
        &self.addresses
    }

    /// Where each shard listens for other nodes, by shard.
    pub fn peer_addresses(&self) -> &[Option<SocketAddr>] {
        &self.peer_addresses
    }

    /// Each shard's counters, by shard.
    pub fn counters(&self) -> Vec<Counters> {
        self.meters.iter().map(|meter| meter.snapshot()).collect()
    }

    /// Tells from any thread whether the node may answer in its cluster.
    pub fn standing(&self) -> Standing {
        Standing(self.meters.clone())
    }

    /// Asks every shard to stop cleanly; returns at once. From any thread, any number of times.
    pub fn request_stop(&self) {
        for shard in 0..self.mesh.shards() {
            self.mesh.command(shard, Command::Stop);
        }
    }

    /// Waits until every shard has stopped.
    pub fn join(self) -> Result<(), StopError> {
        let mut result = Ok(());
        for (shard, thread) in self.threads.into_iter().enumerate() {
            let text = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(text)) => text,
                Err(error) => error.to_string(),
            };
            result = Err(StopError { shard: shard as u16, text });
        }
        self.log.flush();
        result
    }

    fn abort(self) {
        for shard in 0..self.mesh.shards() {
            self.mesh.command(shard, Command::Abort);
        }
        if let Err(error) = self.join() {
            // The failure that led here is reported by the caller.
            drop(error);
        }
    }
}

/// Everything a shard needs, made on its own thread. Blocks: nothing else runs there yet.
fn prepare<C: Core>(
    plan: ShardPlan,
    config: Arc<BrokerConfig>,
    reserved: Listeners,
    mesh: Arc<Mesh<Parcel>>,
    meter: Arc<Meter>,
    log: Logger,
) -> Result<Driver<C>, String> {
    let journal = Journal::open(&plan.directory, config.journal_bytes)?;
    let partitions = &plan.partitions_directory;
    std::fs::create_dir_all(partitions)
        .map_err(|error| format!("create {}: {error}", partitions.display()))?;
    let files =
        Files::new(partitions.clone()).map_err(|error| format!("open {}: {error}", partitions.display()))?;
    let image = journal.image(recovery_reader(partitions.clone()))?;
    let me = usize::from(plan.shard.0);
    let bell = mesh.bell(me);
    let no_ring = |error: io::Error| {
        format!("io_uring: {error}; Linux 6.1 or later is needed, and a seccomp profile that allows io_uring")
    };
    let ring = Ring::new(config.connections_max).map_err(no_ring)?;
    let buffers = ReceiveBuffers::new(ring.uring()).map_err(no_ring)?;
    let frames = FramePool::new();
    let mut effects = Vec::new();
    let core = C::start(config.clone(), &plan, image, seed(), clock::now(), &mut effects)?;
    let context = Context {
        shard: plan.shard,
        ring,
        ops: Default::default(),
        events: Default::default(),
        peer_events: Default::default(),
        opened: Vec::new(),
        opened_pieces: Vec::new(),
        writes: Vec::new(),
        wrote_ns: 0,
        background: Default::default(),
        bell,
        meter,
        log,
    };
    context.log(LogLevel::Info, format!("recovered {}", plan.directory.display()));
    Ok(Driver {
        context,
        sockets: Sockets::new(buffers, frames.clone()),
        segments: Segments::new(files, frames),
        journal,
        mailbox: Mailbox::new(mesh, me),
        core,
        peers: plan.peers.zip(reserved.peers).map(|(plan, reserved)| PeerSide::new(plan, reserved, seed())),
        config,
        reserved: reserved.clients,
        effects,
        state: State::default(),
    })
}

/// A number no other start has: for ids, not for secrets.
fn seed() -> u64 {
    let mut seed = 0u64;
    // SAFETY: eight bytes of a live u64.
    let got = unsafe { libc::getrandom((&raw mut seed).cast(), 8, 0) };
    if got == 8 { seed } else { clock::monotonic_ns() ^ (u64::from(std::process::id()) << 32) }
}
