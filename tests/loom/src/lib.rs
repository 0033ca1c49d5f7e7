//! The mailbox of the shards (`shards/reactor/src/mailbox.rs`, the very file) with the atomics, the fence and the threads of
//! the model checker `loom`: every order of steps, within a bound of preemptions, and every value a load may see.
//! A lost wake-up is a deadlock, which loom reports; a lost or reordered message fails an assertion.

#[path = "../../../shards/reactor/src/mailbox.rs"]
#[allow(dead_code)]
mod mailbox;
#[allow(dead_code)]
mod sync;
#[cfg(test)]
mod tests;
