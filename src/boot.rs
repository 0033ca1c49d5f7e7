//! `pelton start`: takes the data directory, plans the shards, starts them, tells the user, waits for the signal to stop, and
//! stops them. Makes no decision about records and does no I/O for them.

mod cluster;
mod ports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pelton_model::{BrokerConfig, ClusterId, NodeId, ShardId};
use pelton_reactor::{Logger, Running, ShardPlan, StartError};
use pelton_wire::messages::KafkaUuid;

use crate::admin::{self, Phase, Status};
use crate::arguments::StartArguments;
use crate::config::{self, StartConfig};
use crate::data_dir::{DataDir, Meta, boot, new_directory_id};
use crate::failure::Failure;
use crate::reshard::reshard;
use crate::signals::Signals;
use crate::start_screen;

/// Exit code of a stop that the user did not wait for (128 + SIGINT).
const EXIT_IMPATIENT: i32 = 130;
/// The id of a node that was given none.
const NODE_ID_DEFAULT: NodeId = NodeId(1);

/// Signals this soon after the first are the same wish: some supervisors send one to the process and one to its group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// Runs a broker until it is told to stop.
pub fn run(arguments: &StartArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let mut config = config::load(arguments, std::env::vars())?;
    let signals = Signals::hold()?;
    let mut data = DataDir::open(&config.data_dir)?;
    let fresh = data.meta().is_none();
    data.check_owner(config.cluster_id.as_deref(), config.node_id)?;
    data.check_kind(config.cluster.is_some())?;
    let cores = cores();
    let shards = cluster::shards(&config, &data, cores.len())?;
    let addresses = ports::for_clients(&config, shards)?;
    let addresses_of_nodes = ports::for_nodes(&config, shards)?;
    let status = Status::new();
    let admin = config.admin.as_ref().map(|address| admin::serve(address, status.clone())).transpose()?;
    let report = pelton_reactor::self_test(data.path()).map_err(Failure::error)?;
    config.warnings.extend(report.warnings);
    check_space(&data, &config.broker, shards, fresh)?;
    let logger = pelton_reactor::log_to_stderr();
    let lossy = data.is_lossy();
    let generation = prepare(&mut data, &mut config, shards, &logger)?;
    start_screen::show(&config, &data, fresh, &cores, admin);
    let mut plans = plan(&data, generation, shards, &cores, &addresses);
    config.broker.log_dirs = log_dirs(&plans);
    let running = match &config.cluster {
        None => start(plans, &config.broker, &logger)?,
        Some(flags) => {
            let life = cluster::Life { meta: identity(&data)?, lossy };
            cluster::complete(&mut plans, &config, flags, &life, &addresses_of_nodes)?;
            match cluster::start(plans, &config, flags, &logger, &signals)? {
                Some(running) => {
                    remember(data.be_known());
                    cluster::watch(running.standing(), status.clone());
                    running
                }
                None => return Ok(()),
            }
        }
    };
    status.set(Phase::Serving);
    start_screen::ready(&config, admin, began.elapsed());
    let signal = signals.wait();
    stop(signals, signal, running, &status)?;
    remember(data.end_life());
    Ok(())
}

/// What the directory is to remember for the cluster's sake only: without it a node is trusted less at its next start.
fn remember(written: Result<(), Failure>) {
    if let Err(failure) = written {
        eprintln!("  warn {}", failure.message);
    }
}

fn stop(signals: Signals, signal: &str, running: Running, status: &Status) -> Result<(), Failure> {
    eprintln!("{signal}: stopping; again to end at once");
    status.set(Phase::Stopping);
    // Detached on purpose: it lives until the process ends, or ends it.
    let _ = std::thread::Builder::new().name("pelton-signals".to_string()).spawn(move || {
        let first = Instant::now();
        let mut signal = signals.wait();
        while first.elapsed() < SAME_WISH {
            signal = signals.wait();
        }
        eprintln!("{signal}: ending at once; the next start recovers from the journal");
        std::process::exit(EXIT_IMPATIENT);
    });
    running.request_stop();
    running.join().map_err(Failure::error)?;
    eprintln!("stopped");
    Ok(())
}

/// Makes the data directory fit: a new one gets its identity, one with another number of shards is redistributed. Fills in
/// what the configuration takes from it. Returns the generation to start.
fn prepare(
    data: &mut DataDir,
    config: &mut StartConfig,
    shards: u16,
    logger: &Logger,
) -> Result<u32, Failure> {
    if data.meta().is_none() {
        let node_id = config.node_id.unwrap_or(NODE_ID_DEFAULT);
        let cluster_id = match (&config.cluster_id, &config.cluster) {
            (Some(given), _) => given.clone(),
            (None, Some(cluster)) => cluster.cluster_id(),
            (None, None) => new_cluster_id()?,
        };
        data.make_shards(1, shards)?;
        let directory_id = Some(new_directory_id()?);
        let founders = config.cluster.as_ref().map(|cluster| cluster.ids());
        let boot = founders.as_ref().map(|_| boot());
        data.commit(Meta {
            cluster_id,
            node_id,
            directory_id,
            founders,
            boot,
            start: 1,
            shards,
            generation: 1,
        })?;
    } else if let Err(failure) = data.begin_life() {
        // Only other nodes look at it: a full disk must not keep a single node from starting.
        if config.cluster.is_some() {
            return Err(failure);
        }
        config.warnings.push(format!("this start is not counted: {}", failure.message));
    }
    let meta = identity(data)?.clone();
    config.broker.node_id = meta.node_id;
    config.broker.cluster_id = ClusterId(meta.cluster_id.clone());
    config.broker.directory_id = meta.directory_id.map(Into::into).unwrap_or_default();
    data.remove_other_generations(meta.generation)?;
    if meta.shards != shards {
        eprintln!("redistributing from {} to {shards} shards", meta.shards);
        settle(data, &config.broker, &meta, logger)?;
        reshard(data, shards)?;
    }
    config.broker.shards = shards;
    Ok(data.meta().map_or(meta.generation, |meta| meta.generation))
}

fn identity(data: &DataDir) -> Result<&Meta, Failure> {
    data.meta().ok_or_else(|| Failure::error("the data directory has no identity"))
}

/// Runs the old shards without clients until they have stopped cleanly: then everything is in checkpoints and segments.
fn settle(data: &DataDir, config: &BrokerConfig, meta: &Meta, logger: &Logger) -> Result<(), Failure> {
    let config = BrokerConfig { shards: meta.shards, ..config.clone() };
    let addresses = vec![None; usize::from(meta.shards)];
    let running = start(plan(data, meta.generation, meta.shards, &cores(), &addresses), &config, logger)?;
    running.request_stop();
    running.join().map_err(Failure::error)
}

fn start(plans: Vec<ShardPlan>, config: &BrokerConfig, logger: &Logger) -> Result<Running, Failure> {
    let started = pelton_reactor::start(plans, Arc::new(config.clone()), logger.clone());
    started.map_err(|error| start_failure(&error, logger))
}

fn start_failure(error: &StartError, logger: &Logger) -> Failure {
    logger.flush();
    match error {
        // The words of pelton-log and of the metadata image for what must not be started on.
        StartError::Shard { text, .. } if text.contains("is damaged") => Failure::corruption(error),
        _ => Failure::error(error),
    }
}

fn new_cluster_id() -> Result<String, Failure> {
    KafkaUuid::random()
        .map(|id| id.to_string())
        .map_err(|error| Failure::error(format!("no random bytes: {error}")))
}

/// The cores this process may use, in order; one unnamed core if that cannot be told.
fn cores() -> Vec<Option<usize>> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let cores: Vec<Option<usize>> = ids.into_iter().map(|core| Some(core.id)).collect();
    if cores.is_empty() { vec![None] } else { cores }
}

/// One plan per shard: on a core of its own while there are enough, otherwise wherever the kernel puts it.
fn plan(
    data: &DataDir,
    generation: u32,
    shards: u16,
    cores: &[Option<usize>],
    addresses: &[Option<SocketAddr>],
) -> Vec<ShardPlan> {
    let enough = usize::from(shards) <= cores.len();
    (0..shards)
        .map(|shard| ShardPlan {
            shard: ShardId(shard),
            cpu: if enough { cores[usize::from(shard)] } else { None },
            directory: data.shard(generation, shard),
            partitions_directory: data.partitions(),
            listen: addresses[usize::from(shard)],
            peers: None,
            cluster: None,
        })
        .collect()
}

/// What the shards' directories are called to clients.
fn log_dirs(plans: &[ShardPlan]) -> Vec<String> {
    let name = |plan: &ShardPlan| std::path::absolute(&plan.directory).unwrap_or(plan.directory.clone());
    plans.iter().map(|plan| name(plan).display().to_string()).collect()
}

/// Journals are written in full when they are made: better to say now that they do not fit.
fn check_space(data: &DataDir, config: &BrokerConfig, shards: u16, fresh: bool) -> Result<(), Failure> {
    let needed = config.journal_bytes.saturating_mul(u64::from(shards));
    match pelton_tuning::disk::free_bytes(data.path()) {
        Some(free) if fresh && free < needed => Err(Failure::error(format!(
            "{} has {} MiB free; the journals of {shards} shards take {} MiB. Free space, choose another --data-dir, or \
             lower pelton.journal.bytes",
            data.path().display(),
            free >> 20,
            needed >> 20
        ))),
        _ => Ok(()),
    }
}
