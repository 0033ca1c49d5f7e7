//! Tests of the coordinator as its caller sees it: requests, time and the log's results in, answers and appends out.

mod admin;
mod client;
mod fixed;
mod kit;
mod members;
mod random;
mod rebalance;
mod restart;

use crate::coordinator_partition;

#[test]
fn coordinator_partition_agrees_with_kafka() {
    assert_eq!(coordinator_partition("hello", 50), 99162322 % 50);
    assert_eq!(coordinator_partition("", 50), 0);
    assert!((0..50).contains(&coordinator_partition("a group whose hash is negative", 50)));
}
