//! What an assignor is given, and which one runs (`group.consumer.assignors`). Never looks at what members own now, only
//! at what they were to own: so it stays sticky while a rebalance is under way.

use std::collections::{BTreeMap, BTreeSet};

use pelton_model::TopicId;

use crate::records::Assignment;

use super::{assignor_range, assignor_uniform};

/// One member in the eyes of an assignor.
#[derive(Clone, Debug, Default)]
pub(crate) struct AssignorMember {
    /// group.instance.id of a static member.
    pub instance_id: Option<String>,
    /// Topics it reads; only such that exist.
    pub topics: BTreeSet<TopicId>,
    /// Its target before.
    pub previous: Assignment,
}

/// What an assignor is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct AssignorInput {
    /// Members by id.
    pub members: BTreeMap<String, AssignorMember>,
    /// Partition counts of all topics that some member reads.
    pub topics: BTreeMap<TopicId, i32>,
}

/// The target assignment of every member.
pub(crate) type Targets = BTreeMap<String, Assignment>;

/// True for an assignor this coordinator has.
pub(crate) fn is_known(name: &str) -> bool {
    matches!(name, "uniform" | "range")
}

/// Runs an assignor; `uniform` in place of an unknown one.
pub(crate) fn assign(name: &str, input: &AssignorInput) -> Targets {
    match name {
        "range" => assignor_range::assign(input),
        _ => assignor_uniform::assign(input),
    }
}
