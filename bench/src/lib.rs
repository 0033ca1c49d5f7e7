//! What measures the broker from outside: load generator, floor server, machine limits, runners of Pelton and of Apache
//! Kafka. Speaks Kafka's bytes with frames of its own, so that a fault in `pelton-wire` cannot hide here. Never linked by
//! the broker.

pub mod answer;
pub mod args;
pub mod batch;
pub mod checks;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod consuming;
pub mod end_to_end;
pub mod first;
pub mod flexible;
pub mod floor;
pub mod floor_journal;
pub mod frames;
pub mod generator;
pub mod group_client;
pub mod group_frames;
pub mod groups;
pub mod ledger;
pub mod limits;
pub mod limits_beside;
pub mod limits_replicas;
pub mod load;
pub mod modes;
pub mod net;
pub mod procfs;
pub mod producing;
pub mod referee;
pub mod replicas;
pub mod server;
pub mod sys;

/// Every failure is a sentence for the person at the terminal: what was done, what happened, what to try.
pub type Outcome<T> = Result<T, String>;
