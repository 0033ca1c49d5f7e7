//! The only code of a shard that does I/O: sockets, disk, splice, mailboxes between shards, clock, and the loop that
//! drives [`pelton_shard::Shard`] with events and performs its effects.
//!
//! Decides nothing about records: what to write, answer or close is the shard's word. Nothing here may block a shard's
//! thread (DESIGN section 3). `unsafe` is allowed, each block says why it is sound.

mod acceptor;
mod append;
mod buffers;
mod clock;
mod context;
mod core;
mod driver;
mod files;
mod journal;
mod listen;
mod log;
mod mailbox;
#[cfg(test)]
mod mailbox_tests;
mod mapping;
mod meter;
mod ops;
mod peer_dials;
mod peers;
mod pieces;
mod receive;
mod ring;
mod segments;
mod self_test;
mod send;
mod send_pieces;
mod slab;
mod socket_name;
mod sockets;
mod splice;
mod start;
mod sync;
mod volume;
mod write_back;

pub use crate::core::Core;
pub use crate::log::{Logger, log_to_stderr};
pub use crate::meter::Counters;
pub use crate::peers::{PeerNews, PeerOrder, PeerPlan};
pub use crate::self_test::{Report, SelfTestError, self_test};
pub use pelton_shard::{CLIENT_ENDPOINT, ClusterConfig};

pub use crate::start::{
    Running, ShardPlan, Standing, StartError, Starting, StopError, begin, start, start_core,
};
