//! `pelton consume`: records of topics, printed; from positions given on the command line or, with --group, as a member
//! of a group. Prints only records to standard output.

use clap::Args;

use super::client::Client;
use super::partition_reader::{now_ms, resolve};
use super::position::{Position, Range, range};
use super::record_format::{RecordFormat, VERBS, pattern};
use super::topic_change::chosen;
use crate::arguments::{Format, Target};
use crate::failure::Failure;

mod assignor;
mod fetcher;
mod group_reader;
mod member;

use fetcher::{Fetcher, PartitionState};

/// `pelton consume`.
#[derive(Args, Debug)]
#[command(after_help = VERBS)]
pub struct ConsumeArguments {
    /// Topics
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// From where: start, end, 47, -10 (the last 10), +10, @2024-01-15, @-1h; with a colon, up to where: 3:9, @-1h:@now
    #[arg(short, long, value_name = "POSITION", default_value = "start", allow_hyphen_values = true)]
    pub offset: String,
    /// Partitions, with commas between [default: all]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub partitions: Vec<i32>,
    /// Read as a member of this group: the partitions it is given, from what the group has committed; -o says where to
    /// begin in partitions where it has committed nothing
    #[arg(short, long, value_name = "GROUP", conflicts_with = "partitions")]
    pub group: Option<String>,
    /// Id of a static member: a restart within the session timeout (45s) moves no partition
    #[arg(long, value_name = "ID", requires = "group")]
    pub instance_id: Option<String>,
    /// Commit nothing
    #[arg(long, requires = "group")]
    pub no_commit: bool,
    /// Stop after so many records
    #[arg(short, long, value_name = "N")]
    pub number: Option<u64>,
    /// Stop at the end of the partitions as it is now
    #[arg(short, long)]
    pub exit_at_end: bool,
    /// How to print a record: text with % verbs, see below [default: %v]
    #[arg(short = 'f', long = "pattern", value_name = "PATTERN", conflicts_with = "json")]
    pub pattern: Option<String>,
    /// Print one JSON object per record and line (as --format json)
    #[arg(short = 'J', long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

impl ConsumeArguments {
    fn format(&self) -> Result<RecordFormat, Failure> {
        match &self.pattern {
            Some(text) => pattern(text).map(RecordFormat::Pattern).map_err(Failure::usage),
            None if self.json || self.target.format == Format::Json => Ok(RecordFormat::Json),
            None => pattern("%v\\n").map(RecordFormat::Pattern).map_err(Failure::usage),
        }
    }

    fn range(&self) -> Result<Range, Failure> {
        let mut range = range(&self.offset, now_ms()).map_err(Failure::usage)?;
        if self.exit_at_end && range.to.is_none() {
            range.to = Some(Position::End);
        }
        Ok(range)
    }
}

/// Runs it.
pub fn run(arguments: &ConsumeArguments) -> Result<(), Failure> {
    let format = arguments.format()?;
    let range = arguments.range()?;
    let mut client = Client::new(&arguments.target);
    if let Some(group) = &arguments.group {
        return run_in_group(client, arguments, group, &format);
    }
    let mut states = Vec::new();
    for topic in &arguments.topics {
        let count = client.find_topic(topic, false)?;
        let partitions = chosen(&arguments.partitions, count, topic)?;
        // Where to stop is asked first: records that arrive between the two questions are then left for next time.
        let to = range.to.map(|to| resolve(&mut client, topic, &partitions, to)).transpose()?;
        let from = resolve(&mut client, topic, &partitions, range.from)?;
        for partition in partitions {
            let next = from[&partition];
            let stop = to.as_ref().map(|to| to[&partition]);
            states.push(PartitionState { topic: topic.clone(), partition, next, stop });
        }
    }
    Fetcher::new(client, states, arguments.number).run(&format)
}

fn run_in_group(
    mut client: Client,
    arguments: &ConsumeArguments,
    group: &str,
    format: &RecordFormat,
) -> Result<(), Failure> {
    let range = range(&arguments.offset, now_ms()).map_err(Failure::usage)?;
    if range.to.is_some() {
        return Err(Failure::usage("with --group, -o says where to begin; it cannot say where to end"));
    }
    for topic in &arguments.topics {
        client.find_topic(topic, false)?;
    }
    let wishes = group_reader::Wishes {
        group,
        topics: &arguments.topics,
        instance_id: arguments.instance_id.as_deref(),
        from: range.from,
        exit_at_end: arguments.exit_at_end,
        number: arguments.number,
        commit: !arguments.no_commit,
    };
    group_reader::run(client, &wishes, format)
}
