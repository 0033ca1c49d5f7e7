//! ZooKeeper's role: topics, partitions, who leads what, settings, producer ids. Records change an image; a controller
//! plans the records. Here a quorum of one; several nodes will agree on the same records. No I/O, no clock.
#![forbid(unsafe_code)]

mod codec;
pub mod config_defs;
pub mod configs;
pub mod control;
pub mod controller;
pub mod founding;
pub mod frame;
pub mod group_configs;
pub mod image;
pub mod lease;
pub mod member;
pub mod names;
pub mod node_message;
pub mod peer;
pub mod placement;
pub mod quorum;
pub mod record;
pub mod throttle;
