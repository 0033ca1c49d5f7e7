//! One shard's storage as a state machine: journal groups, partition logs as positions, tail, recovery.
//! No I/O, no clock: it asks for disk operations and is told of their completion.
#![forbid(unsafe_code)]

mod checkpoint;
mod checkpointing;
mod cleaning;
mod compaction;
mod cut;
mod direct;
mod dirt;
pub mod disk;
mod files;
mod frame;
mod index;
mod index_load;
mod jobs;
mod journal;
mod lay_down;
mod lay_round;
mod lookup;
mod offset_map;
mod partition;
mod read;
mod recovery;
mod replay;
mod reshard;
mod retention;
pub mod sabotage;
mod seal;
mod segment;
mod storage;
mod stretch;
mod types;

#[cfg(test)]
mod tests;

pub use reshard::{metadata_of, redistribute};
pub use sabotage::Sabotage;
pub use storage::Storage;
pub use types::*;
