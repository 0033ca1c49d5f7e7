//! Tests of the connections between nodes: single rules, and random lives of several nodes on a network that delays, cuts and
//! loses connections.

mod cutting;
mod damage;
mod kit;
mod lives;
mod rules;
