//! The table "who may do what" of ARCHITECTURE.md, row by row.

use pelton_model::{
    IsrMember, LeaderEpoch, NodeEpoch, Offset, PartitionEpoch, PartitionState, ReplicaEpoch, ShardEpoch,
};
use pelton_wire::error_code::ErrorCode;

use super::controller::replica;
use crate::effect::{Effect, LogEnds, Settings, Turn};
use crate::epochs::EpochCache;
use crate::frame::Body;
use crate::lease::Lease;
use crate::partition::{AckState, HighWatermarkMark, Partition, RoleKind};

pub(super) const ENDS: LogEnds = LogEnds {
    start: Offset(0),
    log_start: Offset(0),
    flushed: Offset(10),
    written: Offset(10),
    end: Offset(10),
};

pub(super) fn member(node: usize) -> IsrMember {
    let epoch = ReplicaEpoch { node_epoch: NodeEpoch(1 + node as u64), shard_epoch: ShardEpoch(0) };
    IsrMember { replica: replica(node), epoch }
}

pub(super) fn state(leader: usize, epoch: i32, partition_epoch: i32, isr: &[usize]) -> PartitionState {
    let isr = isr.iter().map(|node| member(*node)).collect();
    PartitionState {
        leader: Some(replica(leader)),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(partition_epoch),
        ..PartitionState::begun((0..3).map(replica).collect(), isr)
    }
}

pub(super) fn with<R>(
    partition: &mut Partition,
    f: impl FnOnce(&mut Partition, &mut Turn) -> R,
) -> (R, Vec<Effect>) {
    let (mut effects, mut epochs) = (Vec::new(), EpochCache::default());
    epochs.assign(LeaderEpoch(0), Offset(0));
    let (now_ns, lease) = (1, Lease::UNLIMITED);
    let result =
        f(partition, &mut Turn { now_ns, lease, ends: ENDS, epochs: &epochs, effects: &mut effects });
    (result, effects)
}

/// Node 0, of which the metadata say this.
pub(super) fn partition(state: &PartitionState, predecessor_gone: bool) -> Partition {
    let settings = Settings { min_insync_replicas: 2, ..Settings::default() };
    let mut partition = Partition::replicated(member(0), settings, HighWatermarkMark::default(), ENDS);
    with(&mut partition, |partition, turn| partition.handle_metadata(state, predecessor_gone, turn));
    partition
}

/// Both followers of node 0 have everything.
fn acknowledge(partition: &mut Partition) {
    acknowledge_to(partition, Offset(10));
}

/// Both followers of node 0 have so much.
pub(super) fn acknowledge_to(partition: &mut Partition, end: Offset) {
    for node in 1..3 {
        let replica_epoch = member(node).epoch;
        let join = Body::Join { replica_epoch, join: 1, log_end: end, last_epoch: 0, window_bytes: 100 };
        let ack = Body::Ack { replica_epoch, written_end: end, flushed_end: end, high_watermark: Offset(0) };
        for body in [join, ack] {
            let epoch = partition.leader_epoch();
            with(partition, |partition, turn| partition.handle_frame(replica(node), epoch, &body, turn));
        }
    }
}

struct Row {
    produce: Result<(), ErrorCode>,
    ack_all: AckState,
    ack_one: AckState,
    read: Result<Offset, ErrorCode>,
    follower_read: Result<Offset, ErrorCode>,
}

fn row(partition: &Partition, lease: Lease) -> Row {
    let ack = |acks| partition.ack_state(Offset(9), partition.leader_epoch(), acks, ENDS, 1, lease);
    Row {
        produce: partition.check_produce(-1, 1, lease),
        ack_all: ack(-1),
        ack_one: ack(1),
        read: partition.check_read(1, lease),
        follower_read: partition.check_follower_read(1, lease),
    }
}

const NOT_LEADER: ErrorCode = ErrorCode::NotLeaderOrFollower;

fn refuses_all(row: &Row, error: ErrorCode) {
    assert_eq!((row.produce, row.read), (Err(error), Err(error)));
    assert_eq!((row.ack_all, row.ack_one), (AckState::Failed(error), AckState::Failed(error)));
}

#[test]
fn an_activating_leader_appends_and_answers_nothing() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), false);
    acknowledge(&mut partition);
    assert_eq!(partition.role(), RoleKind::Activating);
    let now = row(&partition, Lease::UNLIMITED);
    assert_eq!((now.produce, now.read), (Ok(()), Err(NOT_LEADER)));
    assert_eq!((now.ack_all, now.ack_one), (AckState::Wait, AckState::Wait));
    assert_eq!(partition.high_watermark(), Offset(0));
    with(&mut partition, |partition, turn| partition.handle_predecessor_gone(LeaderEpoch(1), turn));
    assert_eq!(partition.high_watermark(), Offset(10));
}

#[test]
fn an_active_leader_answers_all_and_a_suspended_one_nothing() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    let before = row(&partition, Lease::UNLIMITED);
    assert_eq!((before.ack_all, before.ack_one), (AckState::Wait, AckState::Done));
    assert_eq!(partition.check_latest(1, Lease::UNLIMITED), Err(ErrorCode::OffsetNotAvailable));
    acknowledge(&mut partition);
    let now = row(&partition, Lease::UNLIMITED);
    assert_eq!((now.produce, now.read), (Ok(()), Ok(Offset(10))));
    assert_eq!((now.ack_all, now.ack_one), (AckState::Done, AckState::Done));
    assert_eq!(partition.check_latest(1, Lease::UNLIMITED), Ok(Offset(10)));
    refuses_all(&row(&partition, Lease::NONE), NOT_LEADER);
}

#[test]
fn too_small_an_isr_refuses_acks_all_and_holds_the_high_watermark() {
    let mut partition = partition(&state(0, 1, 1, &[0]), true);
    acknowledge(&mut partition);
    let now = row(&partition, Lease::UNLIMITED);
    assert_eq!(now.produce, Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(partition.check_produce(1, 1, Lease::UNLIMITED), Ok(()));
    assert_eq!(now.ack_all, AckState::Failed(ErrorCode::NotEnoughReplicasAfterAppend));
    assert_eq!((now.ack_one, partition.high_watermark()), (AckState::Done, Offset(0)));
}

/// R8 as written down forbids expansion until the high watermark has reached where the epoch began. A leader elected out
/// of the ELR is alone in an ISR that is too small: its high watermark cannot move before someone has joined.
#[test]
fn a_leader_elected_out_of_the_elr_takes_others_in_though_its_high_watermark_stands_still() {
    let mut partition = partition(&state(0, 1, 1, &[0]), true);
    let (replica_epoch, end) = (member(1).epoch, Offset(9));
    let join = Body::Join { replica_epoch, join: 1, log_end: end, last_epoch: 0, window_bytes: 100 };
    let ack =
        |end| Body::Ack { replica_epoch, written_end: end, flushed_end: end, high_watermark: Offset(0) };
    let mut proposed = |body: &Body| {
        let (_, effects) =
            with(&mut partition, |p, turn| p.handle_frame(replica(1), LeaderEpoch(1), body, turn));
        let wish = effects.into_iter().find_map(|effect| match effect {
            Effect::ProposeIsr(wish) => Some(wish.isr),
            _ => None,
        });
        (wish, partition.high_watermark())
    };
    assert_eq!(proposed(&join), (None, Offset(0)));
    assert_eq!(proposed(&ack(end)), (None, Offset(0)), "not all that was there when the epoch began");
    assert_eq!(proposed(&ack(Offset(10))), (Some(vec![member(0), member(1)]), Offset(0)));
    with(&mut partition, |p, turn| p.handle_metadata(&state(0, 1, 2, &[0, 1]), true, turn));
    assert_eq!((partition.high_watermark(), partition.role()), (Offset(10), RoleKind::Active));
}

#[test]
fn no_more_need_be_in_sync_than_there_are_replicas() {
    let of_three = partition(&state(0, 1, 1, &[0, 1]), true);
    let of_two = partition(
        &PartitionState { replicas: vec![replica(0), replica(1)], ..state(0, 1, 1, &[0, 1]) },
        true,
    );
    assert_eq!(
        [of_three.effective_min_isr(2), of_three.effective_min_isr(5), of_three.effective_min_isr(0)],
        [2, 3, 1]
    );
    assert_eq!(of_two.effective_min_isr(3), 2);
    // The only replica of its partition.
    let sole = Partition::new(LeaderEpoch(0));
    assert!(sole.effective_min_isr(2) <= sole.isr_size());
}

#[test]
fn followers_and_other_lives_refuse_and_a_matched_follower_serves_below_its_high_watermark() {
    let mut follower = partition(&state(1, 1, 1, &[0, 1]), true);
    refuses_all(&row(&follower, Lease::UNLIMITED), NOT_LEADER);
    assert_eq!(row(&follower, Lease::UNLIMITED).follower_read, Err(ErrorCode::OffsetNotAvailable));
    let (verdict, join) = (crate::frame::Verdict::Matches, 1);
    let body = Body::Answer { join, verdict, high_watermark: Offset(7), log_start: Offset(0) };
    with(&mut follower, |p, turn| p.handle_frame(replica(1), LeaderEpoch(1), &body, turn));
    assert_eq!(row(&follower, Lease::NONE).follower_read, Ok(Offset(7)));
    // Elected in an earlier life.
    let mut elected = state(0, 1, 1, &[0, 1]);
    elected.isr[0].epoch.node_epoch = NodeEpoch(0);
    let other = partition(&elected, true);
    assert_eq!(other.role(), RoleKind::Idle);
    refuses_all(&row(&other, Lease::UNLIMITED), NOT_LEADER);
}

#[test]
fn a_transfer_stops_appends_then_everything_and_a_late_one_is_cancelled() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    let order = |partition: &mut Partition| {
        with(partition, |partition, turn| partition.handle_transfer(replica(1), turn)).1
    };
    let cancelled = Effect::TransferCancelled { target: replica(1) };
    assert!(order(&mut partition).contains(&cancelled), "it has not said in this epoch how far it is");
    assert_eq!(row(&partition, Lease::UNLIMITED).produce, Ok(()));
    acknowledge_to(&mut partition, Offset(9));
    order(&mut partition);
    assert_eq!(partition.role(), RoleKind::Draining);
    assert_eq!(row(&partition, Lease::UNLIMITED).produce, Err(NOT_LEADER));
    let mut late = partition.clone();
    acknowledge(&mut partition);
    assert_eq!(partition.role(), RoleKind::Released);
    refuses_all(&row(&partition, Lease::UNLIMITED), NOT_LEADER);
    let (_, effects) = with(&mut late, |partition, turn| {
        turn.now_ns = 1_000_000_000;
        partition.handle_tick(turn);
    });
    assert!(effects.contains(&cancelled), "{effects:?}");
    assert_eq!(late.role(), RoleKind::Active);
}

/// The controller refused, because the target had left the ISR or the partition had changed: it moves the partition epoch,
/// and whatever copy of the release comes later is not acted on.
#[test]
fn a_leader_whose_release_came_to_nothing_goes_on_in_another_partition_epoch() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge(&mut partition);
    let (_, effects) = with(&mut partition, |partition, turn| partition.handle_transfer(replica(1), turn));
    let (target, leader_epoch, partition_epoch) = (replica(1), LeaderEpoch(1), PartitionEpoch(1));
    assert!(effects.contains(&Effect::Release { target, leader_epoch, partition_epoch }), "{effects:?}");
    refuses_all(&row(&partition, Lease::UNLIMITED), NOT_LEADER);
    with(&mut partition, |partition, turn| partition.handle_metadata(&state(0, 1, 2, &[0, 2]), true, turn));
    assert_eq!(partition.role(), RoleKind::Active);
    assert_eq!(row(&partition, Lease::UNLIMITED).produce, Ok(()));
}

#[test]
fn a_failed_storage_refuses_everything_for_good() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    let (_, effects) = with(&mut partition, |partition, turn| partition.handle_storage_failure("EIO", turn));
    assert!(matches!(effects[..], [Effect::Resigned, Effect::Faulted(_)]), "{effects:?}");
    refuses_all(&row(&partition, Lease::UNLIMITED), ErrorCode::KafkaStorageError);
    with(&mut partition, |partition, turn| {
        partition.handle_metadata(&state(0, 2, 2, &[0, 1, 2]), true, turn)
    });
    assert_eq!(partition.role(), RoleKind::Faulted);
}

#[test]
fn the_low_watermark_is_that_of_the_live_and_followers_hear_of_a_new_log_start_at_once() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge(&mut partition);
    let epoch = partition.leader_epoch();
    let ends = LogEnds { log_start: Offset(7), ..ENDS };
    let (mut effects, epochs) = (Vec::new(), EpochCache::default());
    let mut turn = Turn { now_ns: 1, lease: Lease::UNLIMITED, ends, epochs: &epochs, effects: &mut effects };
    partition.handle_progress(&mut turn);
    let told = |effect: &&Effect| {
        matches!(effect, Effect::Send { body: Body::Append { log_start: Offset(7), bytes: 0, .. }, .. })
    };
    assert_eq!(effects.iter().filter(told).count(), 2);
    assert_eq!(partition.low_watermark(Offset(7), |_| true), Offset(0));
    let mut say = |node: usize, replica_epoch, log_start| {
        let body = Body::LogStart { replica_epoch, log_start };
        with(&mut partition, |partition, turn| partition.handle_frame(replica(node), epoch, &body, turn));
        let live = partition.low_watermark(Offset(7), |other| other == replica(1));
        (live, partition.low_watermark(Offset(7), |_| true))
    };
    // Another life of it is not this one.
    let other = ReplicaEpoch { node_epoch: NodeEpoch(99), shard_epoch: ShardEpoch(0) };
    assert_eq!(say(1, other, Offset(7)), (Offset(0), Offset(0)));
    assert_eq!(say(1, member(1).epoch, Offset(7)), (Offset(7), Offset(0)));
    assert_eq!(say(2, member(2).epoch, Offset(5)), (Offset(7), Offset(5)));
    assert_eq!(say(2, member(2).epoch, Offset(3)), (Offset(7), Offset(5)), "it does not fall");
    assert_eq!(say(2, member(2).epoch, Offset(7)), (Offset(7), Offset(7)));
}

/// A node that stops has everything and leaves the ISR by the controller's will: a leader that proposes it again is refused, and must
/// not wait for it.
#[test]
fn a_refused_newcomer_is_not_waited_for_and_proposed_again_after_a_while() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge(&mut partition);
    let proposed = |effects: &[Effect]| {
        let isr = effects.iter().find_map(|effect| match effect {
            Effect::ProposeIsr(proposal) => Some(&proposal.isr),
            _ => None,
        });
        isr.map(|isr| isr.iter().map(|member| member.replica).collect::<Vec<_>>())
    };
    let isr = state(0, 1, 2, &[0, 2]);
    let (_, effects) = with(&mut partition, |partition, turn| partition.handle_metadata(&isr, true, turn));
    assert_eq!(proposed(&effects), Some(vec![replica(0), replica(1), replica(2)]));
    let refuse = |partition: &mut Partition, epoch| {
        with(partition, |partition, turn| partition.handle_proposal_refused(PartitionEpoch(epoch), turn)).1
    };
    assert_eq!(proposed(&refuse(&mut partition, 2)), Some(vec![replica(0), replica(2)]), "at once");
    assert_eq!(partition.maximal_isr().len(), 3, "another copy may be under way");
    assert_eq!(proposed(&refuse(&mut partition, 2)), None, "once");
    let isr = state(0, 1, 3, &[0, 2]);
    let (_, effects) = with(&mut partition, |partition, turn| partition.handle_metadata(&isr, true, turn));
    assert_eq!((proposed(&effects), partition.maximal_isr().len()), (None, 2));
    assert!(partition.deadline_ns().is_some_and(|due| due <= 1_000_000_001));
    let (_, effects) = with(&mut partition, |partition, turn| {
        turn.now_ns = 1_000_000_001;
        partition.handle_tick(turn);
    });
    assert_eq!(proposed(&effects), Some(vec![replica(0), replica(1), replica(2)]));
}

/// Whoever was outrun by retention is told by one frame, which may be lost.
#[test]
fn a_follower_that_is_not_fed_any_more_is_told_to_join_whenever_it_says_how_far_it_is() {
    let mut partition = partition(&state(0, 1, 1, &[0, 1, 2]), true);
    acknowledge_to(&mut partition, Offset(9));
    with(&mut partition, |partition, turn| partition.handle_disconnected(replica(1), turn));
    let (replica_epoch, written_end) = (member(1).epoch, Offset(9));
    let ack = Body::Ack { replica_epoch, written_end, flushed_end: written_end, high_watermark: written_end };
    let epoch = partition.leader_epoch();
    let mut told = |node: usize| {
        let event = |partition: &mut Partition, turn: &mut Turn| {
            partition.handle_frame(replica(node), epoch, &ack, turn)
        };
        let (_, effects) = with(&mut partition, event);
        let rejoin = |effect: &Effect| {
            let Effect::Send { to, body: Body::Answer { verdict, .. } } = effect else { return false };
            (*to, *verdict) == (replica(node), crate::frame::Verdict::OtherEpoch)
        };
        effects.iter().any(rejoin)
    };
    assert!(told(1));
}
