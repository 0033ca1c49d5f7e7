//! The command line that talks to a cluster, over Kafka's protocol only, so that it works with any broker that speaks it.
//! Data goes to standard output, messages to standard error. Never touches a data directory.

pub mod client;
pub mod cluster;
pub mod connection;
pub mod consume;
pub mod coordinator;
pub mod group;
pub mod output;
pub mod partition_reader;
pub mod position;
pub mod produce;
pub mod record_format;
pub mod record_input;
pub mod topic;
pub mod topic_change;
pub mod topic_describe;
