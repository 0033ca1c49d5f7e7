//! `pelton group …`: the grammar, and what the subcommands share.

use clap::{Args, Subcommand};
use pelton_wire::error_code::ErrorCode;

use super::client::Client;
use crate::arguments::Target;
use crate::failure::Failure;

mod delete;
mod describe;
mod lag;
mod list;
pub mod offsets;
pub mod overview;
mod seek;
mod seek_plan;
mod state;
mod time_lag;
mod topic_list;

use topic_list::{TopicPartitions, topic_partitions};

/// The subcommands of `pelton group`.
#[derive(Subcommand, Debug)]
pub enum GroupCommand {
    /// List groups
    List(ListArguments),
    /// Show groups: state, members, who has which partitions
    Describe(DescribeArguments),
    /// How far groups are behind, in records and in time
    Lag(LagArguments),
    /// Move a group's committed offsets; shows what it would do, --yes does it
    Seek(SeekArguments),
    /// Delete groups and their committed offsets
    Delete(DeleteArguments),
    /// Delete a group's committed offsets of topics
    DeleteOffsets(DeleteOffsetsArguments),
    /// The state of a group; --watch: every change as it comes
    State(StateArguments),
}

/// `pelton group list`.
#[derive(Args, Debug)]
pub struct ListArguments {
    /// Only groups in these states, with commas between: Stable, Empty, …
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub states: Vec<String>,
    /// Only groups of these types, with commas between: classic, consumer, …
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub types: Vec<String>,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton group describe`.
#[derive(Args, Debug)]
pub struct DescribeArguments {
    /// Names; none: every group, without its members
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton group lag`.
#[derive(Args, Debug)]
#[command(
    after_help = "LAG is the high watermark minus the committed offset. TIME-LAG is the time since the timestamp of the \
                  first record not committed yet, which is read for it; 0 if there is none."
)]
pub struct LagArguments {
    /// Names; none: every group, without its partitions
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Read no records: no lag in time
    #[arg(long)]
    pub no_time: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton group seek`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["to", "by", "to_group", "to_file"]))]
pub struct SeekArguments {
    /// Name
    pub group: String,
    /// To a position: start, end, 47, -10 (before the end), +10 (behind the start), @2024-01-15, @-1h
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// By so many records from what is committed: 10, -10
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub by: Option<i64>,
    /// To what another group has committed
    #[arg(long, value_name = "GROUP")]
    pub to_group: Option<String>,
    /// To what a file says: lines TOPIC PARTITION OFFSET, with blanks or commas between
    #[arg(long, value_name = "FILE")]
    pub to_file: Option<std::path::PathBuf>,
    /// Topics, or some of their partitions: orders or orders:0,1 (repeatable) [default: what is committed]
    #[arg(long = "topics", alias = "topic", value_name = "TOPIC[:LIST]", value_parser = topic_partitions)]
    pub topics: Vec<TopicPartitions>,
    /// Do it, not only show it
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton group delete`.
#[derive(Args, Debug)]
pub struct DeleteArguments {
    /// Names
    #[arg(required = true, value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton group delete-offsets`.
#[derive(Args, Debug)]
pub struct DeleteOffsetsArguments {
    /// Name
    pub group: String,
    /// Topics, or some of their partitions: orders or orders:0,1 (repeatable)
    #[arg(long = "topics", alias = "topic", required = true, value_name = "TOPIC[:LIST]", value_parser = topic_partitions)]
    pub topics: Vec<TopicPartitions>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `pelton group state`.
#[derive(Args, Debug)]
pub struct StateArguments {
    /// Names
    #[arg(required = true, value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Go on and print every change
    #[arg(short, long)]
    pub watch: bool,
    /// Stop after so many changes
    #[arg(short, long, value_name = "N", requires = "watch")]
    pub number: Option<u64>,
    /// How often to ask: 500ms, 2s
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = crate::arguments::duration, requires = "watch")]
    pub interval: std::time::Duration,
    #[command(flatten)]
    pub target: Target,
}

/// Runs one of them.
pub fn run(command: &GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List(arguments) => list::run(arguments),
        GroupCommand::Describe(arguments) => describe::run(arguments),
        GroupCommand::Lag(arguments) => lag::run(arguments),
        GroupCommand::Seek(arguments) => seek::run(arguments),
        GroupCommand::Delete(arguments) => delete::groups(arguments),
        GroupCommand::DeleteOffsets(arguments) => delete::offsets(arguments),
        GroupCommand::State(arguments) => state::run(arguments),
    }
}

/// What helps with an error about a group; empty if nothing is known to.
fn remedy(client: &mut Client, group: &str, error: ErrorCode) -> String {
    match error {
        ErrorCode::GroupIdNotFound => {
            let names = list::names(client);
            crate::suggest::hint(group, names.iter().map(String::as_str)).trim().to_string()
        }
        ErrorCode::NonEmptyGroup => {
            format!("it has members; stop them first (`pelton group describe {group}` shows them)")
        }
        ErrorCode::GroupSubscribedToTopic => {
            format!("members read it; stop them first (`pelton group describe {group}` shows them)")
        }
        _ => String::new(),
    }
}
