//! The command line as types. Says what can be typed; does nothing.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{cluster, consume, group, produce, topic};

/// A message broker that speaks Kafka's protocol, and its command line.
#[derive(Parser, Debug)]
#[command(name = "pelton", version)]
#[command(
    after_help = "Exit codes: 0 done, 1 the cluster answered with an error, 2 usage, 3 cannot connect, \
                        10 unhealthy, 20 corruption, 130 interrupted."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a broker on this machine
    Start(StartArguments),
    /// Create, list, describe and change topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Write records, one per line of standard input
    Produce(produce::ProduceArguments),
    /// Read records
    Consume(consume::ConsumeArguments),
    /// Ask about consumer groups and move them
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Ask about the cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
}

/// `pelton start`. Every flag stands for a setting; the order is: flag, -X, PELTON_… in the environment, --config, default.
#[derive(Args, Debug, Default)]
pub struct StartArguments {
    /// Directory of the data [default: ./pelton-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address for Kafka clients; in direct mode, shard i listens on PORT + i [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Address that clients are told to connect to [default: that of --kafka]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Address of the HTTP server with /livez and /readyz, or "off" [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// Shards, each on a core of its own [default: one per core this process may use]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// direct: every shard is a broker with its own port; single: one port for the node [default: direct]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// This node's id [default: 1, or that of the data directory]
    #[arg(long, value_name = "N")]
    pub node_id: Option<String>,
    /// The nodes that form a cluster, the same list on each: where each listens for the others, shard i on PORT + i
    #[arg(long, value_name = "N@HOST:PORT,…")]
    pub cluster: Option<String>,
    /// Where this node listens for the others, if --cluster does not list it: it joins their cluster
    #[arg(long, value_name = "HOST:PORT")]
    pub node_address: Option<String>,
    /// File with what the nodes of a cluster prove to each other, the same on each; needed unless all are on loopback
    #[arg(long, value_name = "FILE")]
    pub cluster_secret_file: Option<String>,
    /// The cluster's id, 22 characters; refused if the data directory belongs to another [default: made up once]
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<String>,
    /// A setting, by Kafka's name where Kafka has one (repeatable)
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// File of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How results are printed: columns for people, or one object for programs. (Documented variants would triple every help.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Default)]
#[allow(missing_docs)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// What every command that talks to a cluster takes.
#[derive(Args, Debug, Clone)]
pub struct Target {
    /// Brokers to ask first, HOST:PORT with commas between
    #[arg(
        short,
        long,
        env = "PELTON_BROKERS",
        hide_env_values = true,
        value_name = "LIST",
        default_value = "127.0.0.1:9092"
    )]
    pub brokers: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Longest wait for an answer: 15s, 500ms, 2m
    #[arg(long, value_parser = duration, default_value = "15s", value_name = "TIME")]
    pub timeout: Duration,
}

/// Reads `500ms`, `15s`, `2m`, `1h`, `1d`; a number alone counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("{text:?} is not a time; write 500ms, 15s, 2m, 1h or 1d");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "1w", "-1s", "99999999999999999999", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
