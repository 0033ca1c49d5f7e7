//! `pelton cluster …`: who is there, and is everything well.

use clap::{Args, Subcommand};
use pelton_wire::messages::KafkaString;
use serde_json::json;

use super::client::Client;
use super::output::Report;
use super::topic_describe::health;
use crate::arguments::Target;
use crate::failure::{Exit, Failure};

/// The subcommands of `pelton cluster`.
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// The cluster's id, its brokers, how much it holds
    Info(ClusterArguments),
    /// Whether every partition is led and replicated; exit code 10 if not
    Health(ClusterArguments),
}

/// Arguments of both.
#[derive(Args, Debug)]
pub struct ClusterArguments {
    #[command(flatten)]
    pub target: Target,
}

/// Runs one of them.
pub fn run(command: &ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Info(arguments) => info(arguments),
        ClusterCommand::Health(arguments) => show_health(arguments),
    }
}

fn info(arguments: &ClusterArguments) -> Result<(), Failure> {
    let metadata = Client::new(&arguments.target).metadata(None, false)?;
    let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
    let mut report = Report::new("cluster info");
    report.section(
        "cluster",
        &["CLUSTER-ID", "CONTROLLER", "BROKERS", "TOPICS", "PARTITIONS"],
        vec![vec![
            json!(metadata.cluster_id.as_ref().map(KafkaString::to_string)),
            json!(metadata.controller_id),
            json!(metadata.brokers.len()),
            json!(metadata.topics.len()),
            json!(partitions),
        ]],
    );
    let mut brokers: Vec<_> = metadata.brokers.iter().collect();
    brokers.sort_by_key(|broker| broker.node_id);
    let leads = |id: i32| {
        metadata
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter(|partition| partition.leader_id == id)
            .count()
    };
    let rows = brokers
        .iter()
        .map(|broker| {
            let rack = broker.rack.as_ref().map(KafkaString::to_string);
            vec![
                json!(broker.node_id),
                json!(broker.host.as_str()),
                json!(broker.port),
                json!(rack),
                json!(leads(broker.node_id)),
            ]
        })
        .collect();
    report.section("brokers", &["ID", "HOST", "PORT", "RACK", "LEADS"], rows);
    report.print(arguments.target.format)
}

fn show_health(arguments: &ClusterArguments) -> Result<(), Failure> {
    let metadata = Client::new(&arguments.target).metadata(None, false)?;
    let partitions: Vec<_> = metadata.topics.iter().flat_map(|topic| &topic.partitions).cloned().collect();
    let words = health(&partitions);
    let mut report = Report::new("cluster health");
    if words != "ok" {
        report.ends_with(Exit::Unhealthy);
    }
    report.section(
        "health",
        &["HEALTH", "BROKERS", "PARTITIONS"],
        vec![vec![json!(words), json!(metadata.brokers.len()), json!(partitions.len())]],
    );
    report.print(arguments.target.format)
}
