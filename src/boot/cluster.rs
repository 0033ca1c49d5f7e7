//! A start as a node of a cluster: what its shards know of the others, and the wait until enough of them are there. Makes no
//! decision about records.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pelton_cluster::peer::{Identity, Limits, PEER_ENDPOINT, Peer};
use pelton_cluster::record::{Endpoint, NodeRegistration, ShardRegistration};
use pelton_model::limits::SHARDS_MAX;
use pelton_model::{NodeEpoch, Replica, ShardEpoch, ShardId};
use pelton_reactor::{CLIENT_ENDPOINT, ClusterConfig, Logger, PeerPlan, Running, ShardPlan, Standing};
use pelton_wire::messages::KafkaUuid;

use crate::admin::Status;
use crate::config::StartConfig;
use crate::config::cluster::ClusterFlags;
use crate::data_dir::{DataDir, Meta};
use crate::failure::Failure;
use crate::signals::Signals;

/// The user hears after this what is waited for, and then every so often.
const FIRST_WORD: Duration = Duration::from_secs(5);
const NEXT_WORD: Duration = Duration::from_secs(30);
/// A signal is noticed within this while the cluster is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked whether the node has a lease.
const WATCH: Duration = Duration::from_millis(200);

/// How many shards the node has: those of its data directory, since the cluster knows it by them.
pub fn shards(config: &StartConfig, data: &DataDir, cores: usize) -> Result<u16, Failure> {
    let wanted = config.shards;
    match (&config.cluster, data.meta()) {
        (Some(cluster), Some(meta)) if wanted.is_some_and(|wanted| wanted != meta.shards) => {
            Err(Failure::error(format!(
                "node {} has {} shards, and the number cannot be changed in a cluster yet. Start it with --shards {}",
                cluster.node_id.0, meta.shards, meta.shards
            )))
        }
        (Some(_), Some(meta)) => Ok(meta.shards),
        _ => Ok(wanted.unwrap_or(cores.clamp(1, SHARDS_MAX) as u16)),
    }
}

/// This start on the data directory.
pub struct Life<'a> {
    /// What the directory says.
    pub meta: &'a Meta,
    /// What the life before wrote and did not flush may be gone.
    pub lossy: bool,
}

/// Gives the shards of `plans` what they need to meet other nodes, and to be one of the cluster's.
pub fn complete(
    plans: &mut [ShardPlan],
    config: &StartConfig,
    cluster: &ClusterFlags,
    life: &Life<'_>,
    listen: &[SocketAddr],
) -> Result<(), Failure> {
    let meta = life.meta;
    let directory = meta.directory_id.ok_or_else(|| Failure::error("the data directory has no id"))?;
    let first: Vec<Peer> = cluster
        .nodes
        .iter()
        .filter(|node| node.node_id != cluster.node_id)
        .filter_map(|node| {
            let place = Replica { node: node.node_id, shard: ShardId(0) };
            Peer::of(place, &node.address.host, node.address.port, None)
        })
        .collect();
    let founders = meta.founders.clone().unwrap_or_default();
    let mut known = ClusterConfig::new(founders, registration(config, cluster, life, directory)?);
    known.first = first.clone();
    #[cfg(feature = "sabotage")]
    crate::sabotage::switch(&mut known)?;
    if let Some(lag_ms) = config.replica_lag_ms {
        known.replicas.replica_lag_ns = lag_ms * 1_000_000;
    }
    // A frame of a leader holds one batch at least, however large the topic allows it to be.
    let limits = Limits::default();
    let message_bytes_max =
        limits.message_bytes_max.max(config.broker.message_bytes_limit() as usize + FRAME_BYTES);
    let limits = Limits {
        message_bytes_max,
        queue_bytes_max: limits.queue_bytes_max.max(2 * message_bytes_max),
        ..limits
    };
    let known = Arc::new(known);
    for (plan, listen) in plans.iter_mut().zip(listen) {
        let identity = Identity {
            place: Replica { node: cluster.node_id, shard: plan.shard },
            cluster_id: meta.cluster_id.clone(),
            directory: directory.into(),
            start: meta.start,
            mode: config.broker.mode,
        };
        plan.peers = Some(PeerPlan {
            listen: *listen,
            identity,
            secret: cluster.secret.clone(),
            limits,
            peers: first.clone(),
        });
        plan.cluster = Some(known.clone());
        plan.partitions_directory = partitions(&plan.directory)?;
    }
    Ok(())
}

/// Directory of the segments of one shard: two shards of a node may each have a replica of the same partition, and when one
/// of them goes, its files do.
fn partitions(shard: &Path) -> Result<PathBuf, Failure> {
    let path = shard.join("partitions");
    let made = std::fs::create_dir_all(&path).and_then(|()| std::fs::File::open(shard)?.sync_all());
    made.map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
    Ok(path)
}

/// Bytes of a frame around its batches.
const FRAME_BYTES: usize = 64;

fn registration(
    config: &StartConfig,
    cluster: &ClusterFlags,
    life: &Life<'_>,
    directory: KafkaUuid,
) -> Result<NodeRegistration, Failure> {
    let meta = life.meta;
    let incarnation =
        KafkaUuid::random().map_err(|error| Failure::error(format!("no random bytes: {error}")))?;
    let endpoint =
        |name: &str, host: &str, port| Endpoint { name: name.to_string(), host: host.to_string(), port };
    let (broker, own) = (&config.broker, &cluster.own_address);
    let shard = ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true };
    Ok(NodeRegistration {
        node: meta.node_id,
        epoch: NodeEpoch(0),
        directory: directory.into(),
        incarnation: incarnation.into(),
        start: meta.start,
        rack: config.rack.clone(),
        endpoints: vec![
            endpoint(CLIENT_ENDPOINT, &broker.advertised_host, broker.advertised_port),
            endpoint(PEER_ENDPOINT, &own.host, own.port),
        ],
        shards: vec![shard; usize::from(meta.shards)],
        fenced: true,
        draining: false,
        leaving: false,
        lossy: life.lossy,
    })
}

/// Says to those who ask for the node's health whether it has a lease, from now on.
pub fn watch(standing: Standing, status: Arc<Status>) {
    // Detached on purpose: it ends with the process. Without it the node counts as ready.
    let _ = std::thread::Builder::new().name("pelton-standing".to_string()).spawn(move || {
        loop {
            status.set_alone(!standing.is_leased());
            std::thread::sleep(WATCH);
        }
    });
}

/// Starts the shards, and waits until the cluster has taken the node in: for that a majority of its nodes must be there. None
/// if a signal came first.
pub fn start(
    plans: Vec<ShardPlan>,
    config: &StartConfig,
    cluster: &ClusterFlags,
    logger: &Logger,
    signals: &Signals,
) -> Result<Option<Running>, Failure> {
    let failed = |error| super::start_failure(&error, logger);
    let broker = Arc::new(config.broker.clone());
    let mut starting = pelton_reactor::begin(plans, broker, logger.clone()).map_err(failed)?;
    let began = Instant::now();
    let mut next_word = FIRST_WORD;
    loop {
        match starting.wait(LOOK) {
            Ok(true) => return Ok(Some(starting.running())),
            Ok(false) => {}
            Err(error) => {
                starting.abort();
                return Err(failed(error));
            }
        }
        if let Some(signal) = signals.poll() {
            eprintln!("{signal}: ending before the cluster is there");
            starting.abort();
            return Ok(None);
        }
        if began.elapsed() >= next_word {
            next_word = began.elapsed() + NEXT_WORD;
            let ids: Vec<String> = cluster.ids().iter().map(|node| node.0.to_string()).collect();
            let ids = ids.join(", ");
            match cluster.joins() {
                true => eprintln!(
                    "waiting for the cluster: more than half of its nodes ({ids} and those that joined) must be up, and one of \
                     {ids} reachable, before it takes another in"
                ),
                false => eprintln!(
                    "waiting for the cluster: more than half of its nodes ({ids}) must be up and reach each other before one \
                     serves"
                ),
            }
        }
    }
}
