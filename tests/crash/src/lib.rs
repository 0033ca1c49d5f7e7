//! Payloads that prove themselves, ledgers of what was acknowledged, and the judge that holds one against the other. The kill
//! loop uses them on one broker, `pelton-verify` on three. Brokers are met over the network only.

pub mod aged;
pub mod campaign;
pub mod commits;
pub mod keyed;
pub mod lifecycle;
pub mod payload;
pub mod producer;
pub mod selfcheck;
pub mod verify;
