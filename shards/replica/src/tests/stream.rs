//! The leader's stream when nothing moves: who is asked again, who lags, and when nobody has anything to do.

use pelton_model::{LeaderEpoch, Offset};

use super::controller::replica;
use super::rules::{member, partition, state, with};
use crate::effect::{Effect, Settings, Turn};
use crate::frame::Body;
use crate::partition::Partition;

const HOUR_NS: u64 = 3_600_000_000_000;

/// A follower of node 0 says how far it is.
fn acknowledge(partition: &mut Partition, node: usize, end: Offset) -> Vec<Effect> {
    let (replica_epoch, high_watermark) = (member(node).epoch, end);
    let body = Body::Ack { replica_epoch, written_end: end, flushed_end: end, high_watermark };
    with(partition, |partition, turn| partition.handle_frame(replica(node), LeaderEpoch(1), &body, turn)).1
}

/// It joins, with a log that ends there.
fn join(partition: &mut Partition, node: usize, log_end: Offset) -> Vec<Effect> {
    let replica_epoch = member(node).epoch;
    let body = Body::Join { replica_epoch, join: 1, log_end, last_epoch: 0, window_bytes: 100 };
    with(partition, |partition, turn| partition.handle_frame(replica(node), LeaderEpoch(1), &body, turn)).1
}

fn at(partition: &mut Partition, now_ns: u64, end: i64, event: fn(&mut Partition, &mut Turn)) -> Vec<Effect> {
    let event = |partition: &mut Partition, turn: &mut Turn| {
        (turn.now_ns, turn.ends.end) = (now_ns, Offset(end));
        event(partition, turn);
    };
    with(partition, event).1
}

fn is_feed(effect: &Effect) -> bool {
    matches!(effect, Effect::Feed { from: Offset(5), .. })
}

/// An ISR that has everything wants no tick, however long nothing comes; and when something comes, its members have the
/// whole `replica.lag.time.max.ms` for it.
#[test]
fn an_idle_partition_wants_no_tick_and_nobody_lags_when_it_goes_on() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    for node in [1, 2] {
        join(&mut partition, node, Offset(10));
        acknowledge(&mut partition, node, Offset(10));
        acknowledge(&mut partition, node, Offset(10));
    }
    assert_eq!(partition.high_watermark(), Offset(10));
    assert_eq!(partition.deadline_ns(), None);
    at(&mut partition, HOUR_NS, 11, Partition::handle_progress);
    assert!(partition.deadline_ns().is_some_and(|due| due > HOUR_NS), "{:?}", partition.deadline_ns());
    let lag_ns = Settings::default().replica_lag_ns;
    let proposes = |effects: Vec<Effect>| effects.iter().any(|e| matches!(e, Effect::ProposeIsr(_)));
    assert!(!proposes(at(&mut partition, HOUR_NS + lag_ns, 11, Partition::handle_tick)));
    assert!(proposes(at(&mut partition, HOUR_NS + lag_ns + 1, 11, Partition::handle_tick)));
}

/// The Join was overtaken by an acknowledgement: what is read from where the Join said is wanted no more.
#[test]
fn a_follower_that_is_further_than_its_join_said_is_fed_from_there() {
    let mut partition = partition(&state(0, 1, 1, &[0]), true);
    join(&mut partition, 1, Offset(5));
    let effects = acknowledge(&mut partition, 1, Offset(7));
    let feeds = |effect: &Effect| matches!(effect, Effect::Feed { from: Offset(7), .. });
    assert!(effects.iter().any(feeds), "{effects:?}");
    assert!(!partition.wants_feed(replica(1), LeaderEpoch(1), Offset(5)));
}

#[test]
fn a_follower_for_whom_nothing_could_be_read_is_fed_again() {
    let mut partition = partition(&state(0, 1, 1, &[0]), true);
    let effects = join(&mut partition, 1, Offset(5));
    assert!(effects.iter().any(is_feed), "{effects:?}");
    acknowledge(&mut partition, 1, Offset(5));
    let (body, _) = with(&mut partition, |partition, turn| {
        partition.append_frame(replica(1), LeaderEpoch(1), Offset(5), Offset(5), 0, turn)
    });
    assert_eq!(body, None);
    let due = partition.deadline_ns().expect("somebody is behind");
    let effects = at(&mut partition, due, 10, Partition::handle_tick);
    assert!(effects.iter().any(is_feed), "{effects:?}");
}
