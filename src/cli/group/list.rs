//! `pelton group list`: every broker is asked for the groups it coordinates.

use std::collections::BTreeMap;

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::list_groups_response::ListedGroup;
use pelton_wire::messages::{KafkaString, ListGroupsRequestData, ListGroupsResponseData};
use serde_json::{Value, json};

use super::ListArguments;
use crate::cli::client::Client;
use crate::cli::connection::CallError;
use crate::cli::output::Report;
use crate::failure::Failure;

/// First version that has a filter by state and tells states (KIP-518).
const STATES_FROM: i16 = 4;
/// First version that has a filter by type and tells types (KIP-848).
const TYPES_FROM: i16 = 5;

/// Runs it.
pub fn run(arguments: &ListArguments) -> Result<(), Failure> {
    let mut client = Client::new(&arguments.target);
    let mut report = Report::new("group list");
    let mut rows = BTreeMap::new();
    client.metadata(Some(&[]), false)?;
    for broker in client.broker_ids() {
        let answer = ask(&mut client, broker, &arguments.states, &arguments.types)?;
        let error = ErrorCode::from_code(answer.error_code);
        if error != ErrorCode::None {
            report.failed(&format!("broker {broker}"), error, "its groups are missing here; ask again");
        }
        for group in answer.groups.iter().filter(|group| wanted(group, arguments)) {
            let text = |text: &KafkaString| match text.as_str() {
                "" => Value::Null,
                text => json!(text),
            };
            let row = vec![
                json!(group.group_id.as_str()),
                text(&group.group_type),
                text(&group.group_state),
                text(&group.protocol_type),
                json!(broker),
            ];
            rows.insert(group.group_id.to_string(), row);
        }
    }
    report.section(
        "groups",
        &["GROUP", "TYPE", "STATE", "PROTOCOL-TYPE", "COORDINATOR"],
        rows.into_values().collect(),
    );
    report.print(arguments.target.format)
}

/// Names of all groups; those that cannot be had are left out.
pub fn names(client: &mut Client) -> Vec<String> {
    if client.broker_ids().is_empty() && client.metadata(Some(&[]), false).is_err() {
        return Vec::new();
    }
    let mut names = Vec::new();
    for broker in client.broker_ids() {
        if let Ok(answer) = ask(client, broker, &[], &[]) {
            names.extend(answer.groups.iter().map(|group| group.group_id.to_string()));
        }
    }
    names.sort();
    names.dedup();
    names
}

fn ask(
    client: &mut Client,
    broker: i32,
    states: &[String],
    types: &[String],
) -> Result<ListGroupsResponseData, CallError> {
    let strings = |names: &[String]| names.iter().map(|name| KafkaString::from(name.clone())).collect();
    client.ask_broker(broker, ApiKey::ListGroups, TYPES_FROM, |version| ListGroupsRequestData {
        states_filter: if version >= STATES_FROM { strings(states) } else { Vec::new() },
        types_filter: if version >= TYPES_FROM { strings(types) } else { Vec::new() },
        ..ListGroupsRequestData::default()
    })
}

/// A broker too old for a filter sends everything; a state or type it does not tell matches no filter.
fn wanted(group: &ListedGroup, arguments: &ListArguments) -> bool {
    let among = |wanted: &[String], found: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(found))
    };
    among(&arguments.states, group.group_state.as_str()) && among(&arguments.types, group.group_type.as_str())
}
