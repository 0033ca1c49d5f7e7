//! `pelton group describe`: what a group is, who is in it, and who has which partitions.

use pelton_wire::error_code::ErrorCode;
use serde_json::{Value, json};

use super::overview::{GroupOverview, describe, value};
use super::{DescribeArguments, list, remedy};
use crate::cli::client::Client;
use crate::cli::output::Report;
use crate::failure::Failure;

/// Runs it.
pub fn run(arguments: &DescribeArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let mut report = Report::new("group describe");
    let named = !arguments.groups.is_empty();
    client.metadata(Some(&[]), false)?;
    let names = if named { arguments.groups.clone() } else { list::names(&mut client) };
    let (mut groups, mut members) = (Vec::new(), Vec::new());
    for name in &names {
        match describe(&mut client, name)? {
            Ok(group) => {
                groups.push(group_row(&client, name, &group));
                members.extend(group.members.iter().map(|member| {
                    vec![
                        json!(name),
                        json!(member.member_id),
                        json!(member.instance_id),
                        json!(member.client_id),
                        json!(member.host),
                        json!(member.kind),
                        json!(member.epoch),
                        value(&member.partitions),
                        value(&member.target),
                    ]
                }));
            }
            // It went while the list was read.
            Err((ErrorCode::GroupIdNotFound, _)) if !named => {}
            Err((error, message)) => {
                let words = format!("{message} {}", remedy(&mut client, name, error));
                report.failed(name, error, words.trim());
            }
        }
    }
    report.section(
        "groups",
        &[
            "GROUP",
            "TYPE",
            "STATE",
            "PROTOCOL-TYPE",
            "ASSIGNOR",
            "EPOCH",
            "MEMBERS",
            "COORDINATOR",
            "ADDRESS",
        ],
        groups,
    );
    if named {
        report.section(
            "members",
            &[
                "GROUP",
                "MEMBER-ID",
                "INSTANCE-ID",
                "CLIENT-ID",
                "HOST",
                "PROTOCOL",
                "EPOCH",
                "PARTITIONS",
                "TARGET",
            ],
            members,
        );
    }
    report.print(arguments.target.format)
}

fn group_row(client: &Client, name: &str, group: &GroupOverview) -> Vec<Value> {
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    vec![
        json!(name),
        json!(group.kind),
        json!(group.state),
        text(&group.protocol_type),
        text(&group.assignor),
        json!(group.epoch),
        json!(group.members.len()),
        json!(group.coordinator),
        json!(client.address(group.coordinator)),
    ]
}
