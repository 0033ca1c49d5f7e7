//! What the user sees when a broker starts: one line per fact on a terminal, warnings everywhere, and one line that begins
//! with `ready` when clients can connect. Standard error only; decides nothing.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use pelton_model::ListenerMode;
use pelton_tuning::{Finding, State};

use crate::config::{StartConfig, mode_name};
use crate::data_dir::DataDir;

/// Most findings about the machine that are shown at a start.
const FINDINGS_MAX: usize = 4;

/// Facts and warnings, before the shards start.
pub fn show(
    config: &StartConfig,
    data: &DataDir,
    fresh: bool,
    cores: &[Option<usize>],
    admin: Option<SocketAddr>,
) {
    if std::io::stderr().is_terminal() {
        facts(config, data, fresh, cores, admin);
    }
    for warning in &config.warnings {
        eprintln!("  warn {warning}");
    }
    let findings = pelton_tuning::check(data.path());
    let mut worth: Vec<&Finding> =
        findings.iter().filter(|finding| matches!(finding.state, State::Warn | State::Fatal)).collect();
    worth.sort_by_key(|finding| finding.state != State::Fatal);
    for finding in worth.iter().take(FINDINGS_MAX) {
        eprintln!(
            "  {} {} {} is {}, want {}     fix: {}",
            finding.state.name(),
            finding.code,
            finding.what,
            finding.current,
            finding.want,
            finding.fix
        );
    }
    if worth.len() > FINDINGS_MAX {
        let rest: Vec<&str> = worth[FINDINGS_MAX..].iter().map(|finding| finding.code).collect();
        eprintln!("  warn also {}: see tuning/README.md", rest.join(", "));
    }
}

fn facts(
    config: &StartConfig,
    data: &DataDir,
    fresh: bool,
    cores: &[Option<usize>],
    admin: Option<SocketAddr>,
) {
    let broker = &config.broker;
    let file_system = pelton_tuning::disk::file_system(data.path()).unwrap_or_else(|| "?".to_string());
    let free_gib = pelton_tuning::disk::free_bytes(data.path()).map_or(0, |bytes| bytes >> 30);
    eprintln!(
        "pelton {}  node {}  cluster {}   data {} ({}, {file_system}, {free_gib} GiB free)",
        env!("CARGO_PKG_VERSION"),
        broker.node_id.0,
        broker.cluster_id.0,
        config.data_dir.display(),
        if fresh { "new" } else { "known" },
    );
    let admin = admin.map_or("off".to_string(), |address| format!("http://{address}/ (/livez, /readyz)"));
    eprintln!("  kafka   {}, mode {}     admin  {admin}", listening(config), mode_name(broker.mode));
    if let Some(cluster) = &config.cluster {
        let nodes: Vec<String> =
            cluster.nodes.iter().map(|node| format!("{}@{}", node.node_id.0, node.address)).collect();
        eprintln!("  nodes   {}     {}", nodes.join(","), cluster.secret_word());
    }
    let pinned = usize::from(broker.shards) <= cores.len();
    let on: Vec<String> =
        cores.iter().take(usize::from(broker.shards)).flatten().map(ToString::to_string).collect();
    let place = if pinned {
        format!("on cpu {} (pinned)", on.join(","))
    } else {
        "unpinned, more than cores".to_string()
    };
    let flush = broker
        .topic_defaults
        .iter()
        .find(|(name, _)| name == "flush.messages")
        .map(|(_, value)| value.as_str());
    let durability = match flush {
        None | Some("1") => "flushed before acknowledged",
        Some(_) => "acknowledged when written",
    };
    let auto = if broker.auto_create_topics { "on" } else { "off" };
    eprintln!(
        "  shards  {} {place}     durability  {durability}     auto-create topics: {auto}",
        broker.shards
    );
}

/// Addresses told to clients, shard by shard; the first few.
fn listening(config: &StartConfig) -> String {
    let broker = &config.broker;
    let count = if broker.mode == ListenerMode::Direct { broker.shards } else { 1 };
    let address = |shard: u16| {
        let port = broker.advertised_port.saturating_add(shard);
        crate::config::address::HostPort::new(&broker.advertised_host, port).to_string()
    };
    match count {
        0..=4 => (0..count).map(address).collect::<Vec<_>>().join(","),
        _ => format!("{}…{}", address(0), address(count - 1)),
    }
}

/// The line that scripts wait for.
pub fn ready(config: &StartConfig, admin: Option<SocketAddr>, took: Duration) {
    let admin = admin.map_or(String::new(), |address| format!("  admin http://{address}/"));
    eprintln!("ready in {:.1} s  kafka {}{admin}", took.as_secs_f64(), listening(config));
    if std::io::stderr().is_terminal() {
        let brokers = if config.kafka.port == 9092 { String::new() } else { format!(" -b {}", config.kafka) };
        eprintln!(
            "next:  pelton topic create hello -p 3{brokers};  echo hi | pelton produce hello{brokers};  \
             pelton consume hello -e{brokers}"
        );
    }
}
