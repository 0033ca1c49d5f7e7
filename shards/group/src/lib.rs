//! Consumer groups: the coordinator of the groups of one `__consumer_offsets` partition as a state machine. Requests,
//! time and the log's results go in, answers and appends come out. No I/O, no clock.
#![forbid(unsafe_code)]

mod admin;
mod classic;
mod consumer;
mod coordinator;
mod effect;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offsets;
mod pending;
pub mod records;
mod request;
mod sabotage;
mod timers;
mod topics;

#[cfg(test)]
mod tests;

use pelton_wire::hash::java_string_hash;

pub use coordinator::Coordinator;
pub use effect::{GroupEffect, Ticket};
pub use pelton_model::{GroupConfig, MigrationPolicy};
pub use request::{GroupRequest, GroupResponse, RequestContext, RequestToken, refusal};
pub use sabotage::Sabotage;
pub use topics::TopicsView;

/// The partition of `__consumer_offsets` that a group's offsets belong to, and with it the group's coordinator
/// (Kafka's `Utils.abs(groupId.hashCode) % partitions`).
pub fn coordinator_partition(group_id: &str, partitions: i32) -> i32 {
    (java_string_hash(group_id) & 0x7fff_ffff) % partitions.max(1)
}
