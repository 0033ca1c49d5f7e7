//! ListGroups 0-5, DescribeGroups 0-6 and DeleteGroups 0-2: what administrators see of groups and how they remove them.
//! Who may do so, and authorized operations, are the caller's.

use std::collections::BTreeSet;

use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::delete_groups_response::DeletableGroupResult;
use pelton_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use pelton_wire::messages::list_groups_response::ListedGroup;
use pelton_wire::messages::{
    DeleteGroupsRequestData, DeleteGroupsResponseData, DescribeGroupsRequestData, DescribeGroupsResponseData,
    KafkaString, ListGroupsRequestData, ListGroupsResponseData,
};

use crate::classic::{CONSUMER, ClassicGroup, ClassicState};
use crate::coordinator::{Asker, Coordinator, Group, Turn};
use crate::request::{GroupResponse, text};

/// The first version of DescribeGroups in which a group that does not exist is an error (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;
/// State of a group that does not exist.
const DEAD: &str = "Dead";

impl Group {
    /// Kafka's name of the state.
    fn state_name(&self) -> &'static str {
        match self {
            Group::Classic(group) => group.state.name(),
            Group::Consumer(group) => group.state_name(),
        }
    }

    /// Kafka's name of the group's type (KIP-848).
    fn type_name(&self) -> &'static str {
        match self {
            Group::Classic(_) => "classic",
            Group::Consumer(_) => "consumer",
        }
    }

    fn protocol_type(&self) -> &str {
        match self {
            Group::Classic(group) => group.protocol_type.as_deref().unwrap_or(""),
            Group::Consumer(_) => CONSUMER,
        }
    }

    /// Whether it may be deleted.
    fn check_delete(&self) -> Result<(), ErrorCode> {
        let is_empty = match self {
            Group::Classic(group) => group.state == ClassicState::Empty,
            Group::Consumer(group) => group.is_empty(),
        };
        if is_empty { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }
}

impl Coordinator {
    /// All groups in the wanted states and of the wanted types; no wish = all. Neither looks at upper and lower case.
    pub(crate) fn list_groups(
        &mut self,
        asker: Asker<'_>,
        request: ListGroupsRequestData,
        turn: &mut Turn<'_>,
    ) {
        let lower = |names: &[KafkaString]| -> BTreeSet<String> {
            names.iter().map(|name| name.as_str().to_lowercase()).collect()
        };
        let (states, types) = (lower(&request.states_filter), lower(&request.types_filter));
        let is_wanted = |group: &Group| {
            (states.is_empty() || states.contains(&group.state_name().to_lowercase()))
                && (types.is_empty() || types.contains(group.type_name()))
        };
        let listed =
            self.groups.iter().filter(|(_, group)| is_wanted(group)).map(|(id, group)| ListedGroup {
                group_id: text(id),
                protocol_type: text(group.protocol_type()),
                group_state: text(group.state_name()),
                group_type: text(group.type_name()),
                ..Default::default()
            });
        let response = ListGroupsResponseData { groups: listed.collect(), ..Default::default() };
        self.answer_all_durable(asker.token, GroupResponse::ListGroups(response), turn);
    }

    /// Classic groups as they are. KIP-848 groups have a request of their own and are not found here.
    pub(crate) fn describe_groups(
        &mut self,
        asker: Asker<'_>,
        request: DescribeGroupsRequestData,
        turn: &mut Turn<'_>,
    ) {
        let mut groups = Vec::with_capacity(request.groups.len());
        for id in &request.groups {
            let described = match self.groups.get(id.as_str()) {
                Some(Group::Classic(group)) => group.describe(asker.version()),
                Some(Group::Consumer(_)) => not_found(asker.version(), id, "is not a classic group"),
                None => not_found(asker.version(), id, "not found"),
            };
            groups.push(DescribedGroup { group_id: id.clone(), ..described });
        }
        let response = DescribeGroupsResponseData { groups, ..Default::default() };
        let ids = request.groups.iter().map(KafkaString::as_str);
        self.answer_durable(ids, asker.token, GroupResponse::DescribeGroups(response), turn);
    }

    /// Deletes groups without members, and their offsets.
    pub(crate) fn delete_groups(
        &mut self,
        asker: Asker<'_>,
        request: DeleteGroupsRequestData,
        turn: &mut Turn<'_>,
    ) {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for id in &request.groups_names {
            let deleted = match self.groups.get(id.as_str()) {
                None => Err(ErrorCode::GroupIdNotFound),
                Some(group) => group.check_delete(),
            };
            if deleted.is_ok() {
                self.delete_group(id.as_str(), turn);
            }
            let error = deleted.err().unwrap_or(ErrorCode::None);
            let group_id = id.clone();
            results.push(DeletableGroupResult { group_id, error_code: error.code(), ..Default::default() });
        }
        let response = DeleteGroupsResponseData { results, ..Default::default() };
        let ids = request.groups_names.iter().map(KafkaString::as_str);
        self.answer_durable(ids, asker.token, GroupResponse::DeleteGroups(response), turn);
    }
}

/// Before version 6 such a group is said to be dead.
fn not_found(api_version: i16, id: &KafkaString, why: &str) -> DescribedGroup {
    let mut described = DescribedGroup { group_state: text(DEAD), ..Default::default() };
    if api_version >= NOT_FOUND_FROM {
        described.error_code = ErrorCode::GroupIdNotFound.code();
        described.error_message = Some(text(&format!("Group {} {why}.", id.as_str())));
    }
    described
}

impl ClassicGroup {
    /// Metadata and assignments only of a stable group: else they are of no generation.
    fn describe(&self, api_version: i16) -> DescribedGroup {
        let protocol = self.protocol.as_deref().filter(|_| self.state == ClassicState::Stable);
        let members = self.members.values().map(|member| DescribedGroupMember {
            member_id: text(&member.id),
            group_instance_id: member.instance_id.as_deref().filter(|_| api_version >= 4).map(text),
            client_id: text(&member.client_id),
            client_host: text(&member.client_host),
            member_metadata: protocol.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            member_assignment: protocol.map(|_| member.assignment.clone()).unwrap_or_default(),
            ..Default::default()
        });
        DescribedGroup {
            group_state: text(self.state.name()),
            protocol_type: text(self.protocol_type.as_deref().unwrap_or("")),
            protocol_data: text(protocol.unwrap_or("")),
            members: members.collect(),
            ..Default::default()
        }
    }
}
