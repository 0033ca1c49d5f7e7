//! Settings of `pelton start`: gathered from file, environment, -X and flags, held against the table of keys, and turned
//! into one checked configuration. Reads the configuration file; opens nothing else and starts nothing.

pub mod address;
mod bounds;
pub mod cluster;
pub mod keys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pelton_model::{BrokerConfig, ListenerMode, NodeId};

use crate::arguments::StartArguments;
use crate::failure::Failure;
use crate::suggest;
use address::HostPort;
use cluster::{ClusterFlags, GivenCluster};

/// Where clients find the broker unless told otherwise.
const KAFKA_DEFAULT: (&str, u16) = ("127.0.0.1", 9092);
/// Where the HTTP server listens unless told otherwise.
const ADMIN_DEFAULT: (&str, u16) = ("127.0.0.1", 9644);
/// Where the data lies unless told otherwise.
const DATA_DIR_DEFAULT: &str = "./pelton-data";

/// What the names of environment variables begin with.
const PREFIX: &str = "PELTON_";

/// Everything a start needs to know that is not in the data directory.
#[derive(Clone, Debug)]
pub struct StartConfig {
    /// What the shards get; `shards`, `node_id` and `cluster_id` are final only after the data directory has been opened.
    pub broker: BrokerConfig,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Address of the first listener.
    pub kafka: HostPort,
    /// Address told to clients, if it was given.
    pub advertised: Option<HostPort>,
    /// Address of the HTTP server; none = off.
    pub admin: Option<HostPort>,
    /// Shards, if given.
    pub shards: Option<u16>,
    /// Node id, if given.
    pub node_id: Option<NodeId>,
    /// Cluster id, if given.
    pub cluster_id: Option<String>,
    /// The nodes of the cluster; none for a node alone.
    pub cluster: Option<ClusterFlags>,
    /// What that was made from.
    pub cluster_flags: GivenCluster,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `replica.lag.time.max.ms`, if given.
    pub replica_lag_ms: Option<u64>,
    /// `offsets.topic.replication.factor`, if given.
    pub offsets_factor: Option<i16>,
    /// What the user should know, one line each.
    pub warnings: Vec<String>,
}

impl StartConfig {
    fn defaults() -> StartConfig {
        StartConfig {
            broker: BrokerConfig::defaults(),
            data_dir: PathBuf::from(DATA_DIR_DEFAULT),
            kafka: HostPort::new(KAFKA_DEFAULT.0, KAFKA_DEFAULT.1),
            advertised: None,
            admin: Some(HostPort::new(ADMIN_DEFAULT.0, ADMIN_DEFAULT.1)),
            shards: None,
            node_id: None,
            cluster_id: None,
            cluster: None,
            cluster_flags: GivenCluster::default(),
            rack: None,
            replica_lag_ms: None,
            offsets_factor: None,
            warnings: Vec::new(),
        }
    }
}

/// One value and where it came from.
struct Given {
    value: String,
    source: String,
}

/// The configuration of a start. `environment` is the process's; only names that begin with `PELTON_` are looked at.
/// Every error is one of usage and names the setting, where it was given, the cause and the remedy.
pub fn load(
    arguments: &StartArguments,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<StartConfig, Failure> {
    let mut config = StartConfig::defaults();
    let mut given: BTreeMap<&'static str, Given> = BTreeMap::new();
    if let Some(path) = &arguments.config {
        read_file(path, &mut given)?;
    }
    read_environment(environment, &mut given, &mut config.warnings);
    for setting in &arguments.settings {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("-X {setting}: write -X key=value")))?;
        put(&mut given, name.trim(), value.trim(), "-X".to_string())?;
    }
    for (name, value, flag) in flags(arguments) {
        put(&mut given, name, value, flag.to_string())?;
    }
    apply(&mut config, &given)?;
    check_together(&mut config)?;
    Ok(config)
}

fn flags(arguments: &StartArguments) -> Vec<(&'static str, &str, &'static str)> {
    [
        ("log.dirs", &arguments.data_dir, "--data-dir"),
        ("listeners", &arguments.kafka, "--kafka"),
        ("advertised.listeners", &arguments.advertise, "--advertise"),
        ("pelton.admin", &arguments.admin, "--admin"),
        ("pelton.shards", &arguments.shards, "--shards"),
        ("pelton.mode", &arguments.mode, "--mode"),
        ("node.id", &arguments.node_id, "--node-id"),
        ("cluster.id", &arguments.cluster_id, "--cluster-id"),
        ("pelton.cluster", &arguments.cluster, "--cluster"),
        ("pelton.node.address", &arguments.node_address, "--node-address"),
        ("pelton.cluster.secret.file", &arguments.cluster_secret_file, "--cluster-secret-file"),
    ]
    .into_iter()
    .filter_map(|(name, value, flag)| value.as_deref().map(|value| (name, value, flag)))
    .collect()
}

fn put(
    given: &mut BTreeMap<&'static str, Given>,
    name: &str,
    value: &str,
    source: String,
) -> Result<(), Failure> {
    let Some(key) = keys::find(name) else {
        let hint = suggest::hint(name, keys::names());
        return Err(Failure::usage(format!("unknown setting {name} (from {source}).{hint}")));
    };
    given.insert(key, Given { value: value.to_string(), source });
    Ok(())
}

fn read_file(path: &Path, given: &mut BTreeMap<&'static str, Given>) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("--config {}: {error}", path.display())))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!', ';']) {
            continue;
        }
        let source = format!("{}:{}", path.display(), number + 1);
        let (name, value) = line.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{source}: a line is key=value, a comment begins with #"))
        })?;
        put(given, name.trim(), unquoted(value.trim()), source)?;
    }
    Ok(())
}

/// Takes the quotes off `"…"`, so that a simple toml file is read as well.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// Variables with other names belong to others (PELTON_BROKERS, PELTON_BIN of the tests): only a near miss is mentioned.
fn read_environment(
    environment: impl IntoIterator<Item = (String, String)>,
    given: &mut BTreeMap<&'static str, Given>,
    warnings: &mut Vec<String>,
) {
    let known: Vec<(String, &'static str)> = keys::names().map(|name| (keys::variable(name), name)).collect();
    for (variable, value) in environment {
        if !variable.starts_with(PREFIX) {
            continue;
        }
        if let Some((_, name)) = known.iter().find(|(known, _)| *known == variable) {
            let key = keys::find(name).expect("names() yields only names that find() knows");
            given.insert(key, Given { value, source: variable });
        } else if let Some(near) =
            suggest::nearest(&variable[PREFIX.len()..], known.iter().map(|(known, _)| &known[PREFIX.len()..]))
        {
            warnings
                .push(format!("{variable} in the environment is no setting. Did you mean {PREFIX}{near}?"));
        }
    }
}

fn apply(config: &mut StartConfig, given: &BTreeMap<&'static str, Given>) -> Result<(), Failure> {
    let mut idle = Vec::new();
    // In the table's order, so that of two spellings of one setting the finer unit wins, as in Kafka.
    for key in keys::KEYS {
        let Some(Given { value, source }) = given.get(key.name) else { continue };
        (key.apply)(config, value)
            .map_err(|problem| Failure::usage(format!("{}={value} (from {source}): {problem}", key.name)))?;
        config.broker.given.push((key.name.to_string(), value.clone()));
        if key.idle {
            idle.push(key.name);
        }
    }
    if !idle.is_empty() {
        config.warnings.push(format!("accepted, without effect in this version: {}", idle.join(", ")));
    }
    Ok(())
}

/// Rules over more than one setting.
fn check_together(config: &mut StartConfig) -> Result<(), Failure> {
    let advertised = config.advertised.clone().unwrap_or_else(|| config.kafka.clone());
    if advertised.is_unspecified() {
        return Err(Failure::usage(format!(
            "clients would be told to connect to {}, which is no address they can reach. Name one with \
             --advertise HOST:PORT (setting advertised.listeners)",
            advertised.host
        )));
    }
    if advertised.is_loopback() && !config.kafka.is_loopback() {
        config.warnings.push(format!(
            "the listener {} is open to other machines, but clients are told to connect to {}: only local ones will \
             succeed. Set --advertise HOST:PORT",
            config.kafka, advertised
        ));
    }
    config.broker.advertised_host = advertised.host;
    config.broker.advertised_port = advertised.port;
    cluster::check(config)?;
    let limit = config.broker.message_bytes_limit();
    let message = config.broker.topic_defaults.iter().find(|(name, _)| name == "max.message.bytes");
    let message_bytes = message.map_or(Ok(1_048_588), |(_, value)| value.parse::<i32>());
    if message_bytes.is_ok_and(|bytes| bytes > limit) {
        return Err(Failure::usage(format!(
            "message.max.bytes is above {limit}, a quarter of pelton.journal.bytes. Lower it, or raise \
             pelton.journal.bytes"
        )));
    }
    Ok(())
}

/// The listener mode in a word, as on the command line.
pub fn mode_name(mode: ListenerMode) -> &'static str {
    match mode {
        ListenerMode::Direct => "direct",
        ListenerMode::Single => "single",
    }
}

#[cfg(test)]
mod tests;
