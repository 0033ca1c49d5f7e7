//! The ports of a start: where each shard listens for clients and for other nodes. Every port is tried once, so that a taken one
//! is said before anything is written.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use pelton_model::ListenerMode;

use crate::config::StartConfig;
use crate::failure::Failure;

/// How long a port is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many shards listen for clients.
fn listening(config: &StartConfig, shards: u16) -> u16 {
    if config.broker.mode == ListenerMode::Direct { shards } else { 1 }
}

/// Where each shard listens for clients.
pub fn for_clients(config: &StartConfig, shards: u16) -> Result<Vec<Option<SocketAddr>>, Failure> {
    let base = config.kafka.resolve().map_err(|words| Failure::usage(format!("--kafka {words}")))?;
    let listening = listening(config, shards);
    for (flag, port) in [("--kafka", base.port()), ("--advertise", config.broker.advertised_port)] {
        if port.checked_add(listening - 1).is_none() {
            return Err(Failure::usage(format!(
                "{listening} shards need the ports {port} and up, and there is none above 65535. Choose a lower port \
                 with {flag}, or --mode single"
            )));
        }
    }
    let mut addresses = vec![None; usize::from(shards)];
    for shard in 0..listening {
        let address = SocketAddr::new(base.ip(), base.port() + shard);
        try_port(address).map_err(|error| {
            Failure::error(format!(
                "the port {} for clients of shard {shard} cannot be had: {error} ({address}). Stop what uses it, or \
                 choose another with --kafka HOST:PORT",
                address.port()
            ))
        })?;
        addresses[usize::from(shard)] = Some(address);
    }
    Ok(addresses)
}

/// Where each shard listens for other nodes; nothing for a node alone.
pub fn for_nodes(config: &StartConfig, shards: u16) -> Result<Vec<SocketAddr>, Failure> {
    let Some(cluster) = &config.cluster else { return Ok(Vec::new()) };
    let base = cluster.own_address.resolve().map_err(|words| Failure::usage(format!("--cluster {words}")))?;
    let clients = listening(config, shards);
    // config::cluster has seen to it that there are ports up to the last shard's.
    let (first, last) = (base.port(), base.port() + (shards - 1));
    if first < config.kafka.port.saturating_add(clients) && config.kafka.port <= last {
        return Err(Failure::usage(format!(
            "the ports for other nodes, {first} and up by --cluster, and those for clients, {} and up by --kafka, are the same. \
             Each shard takes one of each; choose ports further apart",
            config.kafka.port
        )));
    }
    (0..shards)
        .map(|shard| {
            let address = SocketAddr::new(base.ip(), base.port() + shard);
            try_port(address).map(|()| address).map_err(|error| {
                Failure::error(format!(
                    "the port {} for other nodes of shard {shard} cannot be had: {error} ({address}). Stop what uses it, or give \
                     node {} another address with --cluster, on all nodes",
                    address.port(),
                    cluster.node_id.0
                ))
            })
        })
        .collect()
}

/// Binds once and lets go. A port is waited for a little: the kernel closes the sockets of a killed broker's rings only some
/// time after its process is gone.
fn try_port(address: SocketAddr) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::AddrInUse || began.elapsed() > PATIENCE => {
                return Err(error);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
