//! Tests of the whole storage against a disk in memory.

mod compacting;
mod compacting_lives;
mod crash;
mod cutting;
mod disk;
mod durability;
mod random;
mod reading;
mod recovering;
mod retention;
#[cfg(feature = "sabotage")]
mod sabotage;
mod world;
