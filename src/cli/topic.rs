//! `pelton topic …`: the grammar, `list`, and what the subcommands share. Changes are in `topic_change.rs`, `describe` in
//! `topic_describe.rs`.

use clap::{Args, Subcommand};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{KafkaString, metadata_response::MetadataResponseTopic};
use serde_json::json;

use super::client::Client;
use super::output::Report;
use super::record_input::header;
use super::{topic_change, topic_describe};
use crate::arguments::Target;
use crate::failure::Failure;

/// The subcommands of `pelton topic`.
#[derive(Subcommand, Debug)]
pub enum TopicCommand {
    /// Create topics
    Create(CreateArguments),
    /// List topics
    List(ListArguments),
    /// Show topics: health, partitions, settings
    Describe(DescribeArguments),
    /// Change settings of a topic
    Alter(AlterArguments),
    /// Give a topic more partitions
    AddPartitions(AddPartitionsArguments),
    /// Delete the records of a topic below an offset
    Trim(TrimArguments),
    /// Delete topics and everything in them
    Delete(DeleteArguments),
}

/// `pelton topic create`.
#[derive(Args, Debug)]
pub struct CreateArguments {
    /// Names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Partitions [default: the broker's num.partitions]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// Replicas of each partition [default: the broker's default.replication.factor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub replicas: Option<i16>,
    /// A setting of the topic (repeatable)
    #[arg(short = 'c', long = "config", value_name = "KEY=VALUE", value_parser = header)]
    pub configs: Vec<(String, String)>,
    /// A topic that exists already is fine
    #[arg(long)]
    pub if_not_exists: bool,
    /// Only ask whether it would work
    #[arg(long)]
    pub validate_only: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton topic list`.
#[derive(Args, Debug)]
pub struct ListArguments {
    /// Also the cluster's own topics
    #[arg(short, long)]
    pub internal: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton topic describe`.
#[derive(Args, Debug)]
pub struct DescribeArguments {
    /// Names; none: the health of every topic
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// All settings, not only those that were set
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton topic alter`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["set", "delete", "append", "subtract"]))]
pub struct AlterArguments {
    /// Name
    pub topic: String,
    /// Set a setting (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = header)]
    pub set: Vec<(String, String)>,
    /// Put a setting back to its default (repeatable)
    #[arg(short, long, value_name = "KEY")]
    pub delete: Vec<String>,
    /// Add to a list (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = header)]
    pub append: Vec<(String, String)>,
    /// Take out of a list (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = header)]
    pub subtract: Vec<(String, String)>,
    /// Only ask whether it would work
    #[arg(long)]
    pub validate_only: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton topic add-partitions`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("count").required(true).args(["number", "total"]))]
pub struct AddPartitionsArguments {
    /// Name
    pub topic: String,
    /// So many more
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub number: Option<i32>,
    /// So many in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub total: Option<i32>,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton topic trim`.
#[derive(Args, Debug)]
pub struct TrimArguments {
    /// Name
    pub topic: String,
    /// The first record to keep: 47, end, -10, @2024-01-15, @-1h
    #[arg(short, long, value_name = "POSITION", allow_hyphen_values = true)]
    pub offset: String,
    /// Partitions, with commas between [default: all]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub partitions: Vec<i32>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton topic delete`.
#[derive(Args, Debug)]
pub struct DeleteArguments {
    /// Names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Runs one of them.
pub fn run(command: &TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(arguments) => topic_change::create(arguments),
        TopicCommand::List(arguments) => list(arguments),
        TopicCommand::Describe(arguments) => topic_describe::run(arguments),
        TopicCommand::Alter(arguments) => topic_change::alter(arguments),
        TopicCommand::AddPartitions(arguments) => topic_change::add_partitions(arguments),
        TopicCommand::Trim(arguments) => topic_change::trim(arguments),
        TopicCommand::Delete(arguments) => topic_change::delete(arguments),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let metadata = client.metadata(None, false)?;
    let mut report = Report::new("topic list");
    let mut rows = Vec::new();
    for topic in sorted(&metadata.topics) {
        if !topic.is_internal || arguments.internal {
            let replicas =
                topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max().unwrap_or(0);
            rows.push(vec![json!(name_of(topic)), json!(topic.partitions.len()), json!(replicas)]);
        }
    }
    report.section("topics", &["TOPIC", "PARTITIONS", "REPLICAS"], rows);
    report.print(arguments.target.format)
}

/// Topics by name.
pub fn sorted(topics: &[MetadataResponseTopic]) -> Vec<&MetadataResponseTopic> {
    let mut topics: Vec<&MetadataResponseTopic> = topics.iter().collect();
    topics.sort_by_key(|topic| name_of(topic));
    topics
}

/// A topic's name; empty if the broker gave none.
pub fn name_of(topic: &MetadataResponseTopic) -> String {
    topic.name.as_ref().map(KafkaString::to_string).unwrap_or_default()
}

/// The message of an answer, or what goes without saying.
pub fn message_of(message: Option<&KafkaString>) -> String {
    message.map(KafkaString::to_string).unwrap_or_default()
}

/// A row's STATUS: ok, or the error with its number.
pub fn status(error: ErrorCode) -> String {
    if error == ErrorCode::None { "ok".to_string() } else { error.to_string() }
}

/// Asks before something cannot be undone. Only a person at a terminal is asked: a script has decided already.
pub fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    use std::io::{BufRead, IsTerminal};
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::usage("nothing was changed"))
}
