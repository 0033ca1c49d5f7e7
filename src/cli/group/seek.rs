//! `pelton group seek`: moves committed offsets. Shows first what it would do; only --yes does it. Only a group without
//! members is moved: a member would go on from where it is and commit over it.

use std::collections::BTreeMap;

use pelton_wire::error_code::ErrorCode;
use serde_json::{Value, json};

use super::offsets::{Committer, Offsets, commit, committed};
use super::overview::describe;
use super::seek_plan::{Move, plan};
use super::{SeekArguments, remedy};
use crate::cli::client::Client;
use crate::cli::output::Report;
use crate::cli::topic::status;
use crate::failure::Failure;

/// Runs it.
pub fn run(arguments: &SeekArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    client.metadata(Some(&[]), false)?;
    let exists = check(&mut client, arguments)?;
    let current = committed(&mut client, &arguments.group)?;
    if current.is_empty() && arguments.topics.is_empty() && arguments.to.is_some() {
        return Err(Failure::usage(format!(
            "group {} has committed nothing; say which topics with --topics",
            arguments.group
        )));
    }
    let moves = plan(&mut client, arguments, &current)?;
    let mut report = Report::new("group seek");
    let results = if arguments.yes {
        let offsets: Offsets =
            moves.iter().map(|step| ((step.topic.clone(), step.partition), step.to)).collect();
        commit(&mut client, &Committer::outside(&arguments.group), &offsets)?
    } else {
        BTreeMap::new()
    };
    let mut rows = Vec::new();
    for step in &moves {
        let result = results.get(&(step.topic.clone(), step.partition));
        let status = match (arguments.yes, result) {
            (false, _) => "planned".to_string(),
            (true, None) => status(ErrorCode::UnknownServerError),
            (true, Some(error)) => status(*error),
        };
        if arguments.yes && result != Some(&ErrorCode::None) {
            let error = result.copied().unwrap_or(ErrorCode::UnknownServerError);
            report.failed(&format!("{}[{}]", step.topic, step.partition), error, refused(error));
        }
        rows.push(row(step, &status));
    }
    report.section(
        "offsets",
        &[
            "TOPIC",
            "PARTITION",
            "FROM",
            "TO",
            "CHANGE",
            "LOG-START-OFFSET",
            "HIGH-WATERMARK",
            "STATUS",
            "NOTE",
        ],
        rows,
    );
    if !arguments.yes {
        if !exists {
            eprintln!("pelton: there is no group {} yet; this would make it", arguments.group);
        }
        eprintln!("pelton: dry run, nothing was changed; --yes carries it out");
    }
    report.print(arguments.target.format)
}

fn row(step: &Move, status: &str) -> Vec<Value> {
    let change = step.from.map(|from| step.to.saturating_sub(from));
    vec![
        json!(step.topic),
        json!(step.partition),
        json!(step.from),
        json!(step.to),
        json!(change),
        json!(step.start),
        json!(step.end),
        json!(status),
        json!(step.note),
    ]
}

/// Why a commit from outside may be refused although the group was empty a moment ago.
fn refused(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => {
            "a member joined meanwhile; stop it and seek again"
        }
        _ => "",
    }
}

/// Refuses a group with members; true if the group exists.
fn check(client: &mut Client, arguments: &SeekArguments) -> Result<bool, Failure> {
    let group = &arguments.group;
    match describe(client, group)? {
        Ok(found) if found.members.is_empty() => Ok(true),
        Ok(found) => Err(Failure::error(format!(
            "group {group} is {} with {} member{}: a group is moved only while nobody is in it. Stop its members \
             (`pelton group describe {group}` shows them), then seek again",
            found.state,
            found.members.len(),
            if found.members.len() == 1 { "" } else { "s" },
        ))),
        // Committing makes the group; but a name that is only mistyped must not.
        Err((ErrorCode::GroupIdNotFound, _)) if !arguments.topics.is_empty() => Ok(false),
        Err((ErrorCode::GroupIdNotFound, _))
            if arguments.to_group.is_some() || arguments.to_file.is_some() =>
        {
            Ok(false)
        }
        Err((error, message)) => {
            let hint = remedy(client, group, error);
            Err(Failure::error(format!("group {group}: {error} {message} {hint}").trim_end()))
        }
    }
}
